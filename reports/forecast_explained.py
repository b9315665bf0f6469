"""One forecast explained as a chart: from the value now to the forecast, one bar for each reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import polars as pl

from reports import wording
from reports.charts import INK, named, rows, theme, tooltip_title
from reports.palette import BASELINE, HUES

if TYPE_CHECKING:
    import altair as alt

_UP, _DOWN = HUES[0], HUES[1]
_NOW, _THEN = "now", "forecast"


def steps(now: float, parts: Mapping[str, float]) -> pl.DataFrame:
    """The bars of a waterfall from `now` by `parts` (name -> what it adds), in their order.

    Columns: reason, start, end, added (null for the value now and the forecast), text, kind (now, up, down, forecast).
    """
    names, added = list(parts), list(parts.values())
    ends = [now]
    for value in added:
        ends.append(ends[-1] + value)
    return pl.DataFrame(
        {
            "reason": [_NOW, *names, _THEN],
            "start": [now, *ends[:-1], ends[-1]],
            "end": [now, *ends[1:], ends[-1]],
            "added": [None, *added, None],
            "text": [wording.number(now), *(_signed(value) for value in added), wording.number(ends[-1])],
            "kind": ["now", *("up" if value >= 0.0 else "down" for value in added), "forecast"],
        },
        schema_overrides={"added": pl.Float64},
    )


def _signed(value: float) -> str:
    return ("+" if value > 0.0 else "") + wording.number(value)


def waterfall(
    now: float,
    parts: Mapping[str, float],
    band: tuple[float, float],
    *,
    title: str,
    unit: str = "",
    width: int = 520,
    suffix: str = "",
) -> alt.LayerChart:
    """From the value now to the forecast, with the 80 % band that the forecast lies in.

    Args:
        now: the last value.
        parts: what each reason adds; with `now` they add up to the forecast.
        band: the lowest and highest decile of the forecast.
        title: above the chart.
        unit: of the values.
        width: in pixels.
        suffix: of the names of its datasets, where a page holds several.
    """
    import altair as alt

    bars = steps(now, parts)
    order = bars["reason"].to_list()
    base = alt.Chart(named(f"explained{suffix}"))
    x = alt.X("reason:N", sort=order, title=None, axis=alt.Axis(labelAngle=0, grid=False))
    y = alt.Y("start:Q", title=unit or None, scale=alt.Scale(zero=False))
    tint = alt.Color(
        "kind:N",
        scale=alt.Scale(domain=["now", "up", "down", "forecast"], range=[BASELINE, _UP, _DOWN, BASELINE]),
        legend=None,
    )
    tips = [
        alt.Tooltip("reason:N"),
        alt.Tooltip("text:N", title=tooltip_title(f"adds ({unit})" if unit else "adds")),
    ]
    levels = base.mark_tick(thickness=3, size=44).encode(x, alt.Y("end:Q"), tint, tooltip=tips)
    moves = base.mark_bar(size=44).encode(x, y, alt.Y2("end:Q"), tint, tooltip=tips)
    texts = base.mark_text(dy=-9, color=INK).encode(x, alt.Y("top:Q"), text="text:N")
    reach = alt.Chart(named(f"band{suffix}")).mark_rule(color=INK, strokeWidth=2)
    reach = reach.encode(x, alt.Y("low:Q"), alt.Y2("high:Q"), tooltip=[alt.Tooltip("text:N", title="80 %")])
    text = wording.interval(*band)
    ends = pl.DataFrame({"reason": [_THEN], "low": [band[0]], "high": [band[1]], "text": [text]})
    data = {
        f"explained{suffix}": rows(bars.with_columns(pl.max_horizontal("start", "end").alias("top"))),
        f"band{suffix}": rows(ends),
    }
    chart = alt.LayerChart(layer=[reach, moves, levels, texts])
    return chart.properties(title=title, width=width, height=240, config=theme(), datasets=data)
