"""Forecasters in operation as charts: accuracy day by day, and when a champion was replaced."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from reports.charts import INK, named, rows, theme
from reports.palette import BASELINE, HUES

if TYPE_CHECKING:
    import altair as alt

_DAY_S = 86_400.0
_WHO = {"operated_percent": "retrained", "untouched_percent": "never retrained"}


def by_day(accuracy: pl.DataFrame) -> pl.DataFrame:
    """The `retraining_accuracy` of one series, long: day, who ("retrained", "never retrained"), percent."""
    long = accuracy.unpivot(list(_WHO), index="day", variable_name="who", value_name="percent")
    return long.with_columns(pl.col("who").replace(_WHO), pl.col("percent").round(2)).sort("who", "day")


def moments(events: pl.DataFrame) -> pl.DataFrame:
    """When drift was noticed, and when champions were swapped: day (with its fraction), what."""
    drift = (pl.col("verdict") == "noticed") & pl.col("trigger").str.starts_with("drift")
    kept = events.filter(drift | (pl.col("verdict") == "swapped"))
    return kept.select(
        (pl.col("time_s") / _DAY_S).round(3).alias("day"),
        pl.format("{}: {}", "trigger", "verdict").alias("what"),
    )


def retraining(accuracy: pl.DataFrame, events: pl.DataFrame, width: int = 860) -> alt.LayerChart:
    """Accuracy of each day with and without retraining; a rule where drift was noticed or a champion swapped.

    Args:
        accuracy: the `retraining_accuracy` table of one series.
        events: its `retraining_events`, on a clock that begins with its first day.
        width: of the chart in pixels.
    """
    import altair as alt

    shown = list(_WHO.values())
    hues = alt.Scale(domain=shown, range=[HUES[0], BASELINE])
    line = alt.Chart(named("retraining_accuracy")).mark_line(point=alt.OverlayMarkDef(size=34))
    lines = line.encode(
        alt.X("day:Q", title="day"),
        alt.Y("percent:Q", title="accuracy (%)", scale=alt.Scale(zero=False)),
        alt.Color("who:N", scale=hues),
        tooltip=[alt.Tooltip("who:N"), alt.Tooltip("day:Q"), alt.Tooltip("percent:Q", format=".1f", title="%")],
    )
    rule = alt.Chart(named("retraining_moments")).mark_rule(color=INK, strokeDash=[4, 3])
    rules = rule.encode(alt.X("day:Q"), tooltip=[alt.Tooltip("what:N"), alt.Tooltip("day:Q", format=".2f")])
    data = {"retraining_accuracy": rows(by_day(accuracy)), "retraining_moments": rows(moments(events))}
    return alt.LayerChart(layer=[rules, lines]).properties(
        title="Accuracy by day; dashed: drift noticed, or champion swapped",
        width=width,
        height=260,
        config=theme(),
        datasets=data,
    )
