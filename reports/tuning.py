"""The page of a sweep over settings of a forecaster: which is best, and whether that is more than noise.

The sweep's folder holds `identity.json` (kind "tuning") and `tables/tuning.parquet`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from reports import folder, offline, wording
from reports.cells import Cell, Column, Row, Table, link
from reports.charts import INK, named, rows, theme, tooltip_title
from reports.folder import Facts
from reports.palette import HUES
from twin.errors import TraceError

if TYPE_CHECKING:
    import altair as alt

KIND = "tuning"
_UNSET = "not set"
_NUMBERS = (
    ("mae_ratio", "MAE ratio", ""),
    ("accuracy_percent", "accuracy, median", "%"),
    ("coverage_80", "coverage of the 80 % band", ""),
    ("fit_s", "fit", "s"),
    ("forecast_ms", "forecast", "ms"),
    ("seeds", "seeds", ""),
)


def write(place: Path) -> Path:
    """Write `report.html` into the sweep's folder and return its path; the same folder gives the same bytes.

    Raises UsageError when it is no folder of a sweep, TraceError or SchemaError naming the file when its table is
    missing or damaged; an older page then stays as it was.
    """
    return offline.put(render(place), place)


def render(place: Path) -> str:
    """The page as HTML; raises as `write` does."""
    identity = folder.identity_of(place)
    table = folder.table_of(place / "tables", KIND)
    if table is None:
        raise TraceError(f"{place / 'tables' / KIND}.parquet is missing; run the sweep again")
    keys = settings(table)
    drawn = {f"key_{k}": against(table, key, k) for k, key in enumerate(keys)}
    words = {
        "identity": identity,
        "charts_of": [(f"key_{k}", f"Score against {key}") for k, key in enumerate(keys)],
        "configurations": configurations(table, keys),
        "sections": [("configurations", "Configurations"), ("keys", "Settings"), ("reproduce", "Reproduce")],
    }
    return offline.render("tuning.html.j2", words, drawn)  # pyright: ignore[reportArgumentType] - layers are charts


def settings(table: pl.DataFrame) -> list[str]:
    """The keys that differ between configurations, in the order of the first that has them."""
    return list(dict.fromkeys(key for text in table["settings"] for key in json.loads(text)))


def configurations(table: pl.DataFrame, keys: list[str]) -> Table:
    """One row per configuration, the best first."""
    columns = [
        *(Column(key) for key in keys),
        Column("score", number=True),
        Column("CRPS to the best", number=True),
        *(Column(title, unit, number=True) for _, title, unit in _NUMBERS),
        Column("jobs"),
    ]
    return Table(tuple(columns), tuple(_row(row, keys, best=not k) for k, row in enumerate(table.to_dicts())))


def _row(row: Facts, keys: list[str], *, best: bool) -> Row:
    own = json.loads(row["settings"])
    low = row["to_best_low"]
    tone = "good" if best and not row["error"] else "bad" if low is not None and low > 1.0 else ""
    numbers = (Cell(wording.number(row[name]), sort=row[name]) for name, _, _ in _NUMBERS)
    score = Cell(
        wording.number(row["score"]),
        sort=row["score"],
        note=row["error"] or wording.interval(row["score_low"], row["score_high"]),
        strong=best,
    )
    apart = Cell(
        wording.ratio(row["to_best"]),
        sort=row["to_best"],
        note="" if best else wording.interval(low, row["to_best_high"]),
        tone=tone,
    )
    jobs = Cell(row["jobs"], href=link(f"{row['jobs']}/report.html") if row["jobs"].isdecimal() else "")
    return Row((*(Cell(own.get(key, _UNSET)) for key in keys), score, apart, *numbers, jobs))


def against(table: pl.DataFrame, key: str, number: int, width: int = 360) -> alt.LayerChart:
    """The score of every configuration by its value of one key, and of each value the geometric mean.

    Args:
        table: the `tuning` table.
        key: what was set.
        number: of the chart, in the name of its data.
        width: of the chart in pixels.
    """
    import altair as alt

    values = [json.loads(text).get(key, _UNSET) for text in table["settings"]]
    found = table.select("score", "settings").with_columns(value=pl.Series(values, dtype=pl.String)).drop_nulls("score")
    told = found.select(
        "value", pl.col("score").round_sig_figs(5), configuration=pl.col("settings").map_elements(_words, pl.String)
    )
    means = found.group_by("value", maintain_order=True).agg(pl.col("score").log().mean().exp().round_sig_figs(5))
    order = sorted(set(values), key=_sort)
    x = alt.X("value:N", sort=order, title=key, axis=alt.Axis(labelAngle=0))
    y = alt.Y("score:Q", title="score (lower is better)", scale=alt.Scale(zero=False))
    tips = [alt.Tooltip("configuration:N", title=tooltip_title("configuration")), alt.Tooltip("score:Q", format=".4~g")]
    points = alt.Chart(named(f"tuning_{number}")).mark_circle(size=60, opacity=0.7, color=HUES[0])
    ticks = alt.Chart(named(f"tuning_{number}_means")).mark_tick(color=INK, thickness=2, width=36)
    return alt.LayerChart(
        layer=[
            ticks.encode(x, y, tooltip=[alt.Tooltip("score:Q", title="mean", format=".4~g")]),
            points.encode(x, y, tooltip=tips),
        ]
    ).properties(
        title=f"{key}: each configuration, and their mean",
        width=width,
        height=220,
        config=theme(),
        datasets={f"tuning_{number}": rows(told), f"tuning_{number}_means": rows(means)},
    )


def _words(text: str) -> str:
    return ", ".join(f"{key}={value}" for key, value in json.loads(text).items())


def _sort(value: str) -> tuple[bool, float, str]:
    """Numbers by their size, before words by the alphabet."""
    try:
        return False, float(value), ""
    except ValueError:
        return True, 0.0, value
