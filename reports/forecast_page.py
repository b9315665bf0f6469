"""The page of `forecast`: each series with its forecast, the sentence that says why, and what each reason adds.

The folder holds `identity.json` (verb "forecast") and in `tables/` what `forecast` wrote: `forecasts`,
`forecast_past`, `forecast_explanations`, `forecast_sentences` and, where growth was assumed, `forecast_scenarios`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from reports import folder, offline, views, wording
from reports import recording_clock as clocks
from reports.cells import Cell, Column, Row, Table
from reports.charts import INK, named, rows, theme, tooltip_title
from reports.folder import Facts
from reports.forecast_explained import waterfall
from reports.palette import HUES
from reports.recording_clock import Clock
from twin.errors import TraceError

if TYPE_CHECKING:
    import altair as alt

VERB = "forecast"
_TABLES = ("forecasts", "forecast_past", "forecast_explanations", "forecast_sentences")
_BASELINE = "last value"  # the group that the others are added to
_REST = "rest"
_TOLD = 0.005  # of the largest reason or the band, whichever is larger: no less than this is drawn by itself
_WIDTH = 520


@dataclass(frozen=True, slots=True)
class Forecast:
    """One series of the folder: its rows of each table."""

    sentence: Facts
    said: pl.DataFrame
    past: pl.DataFrame
    reasons: pl.DataFrame
    scenarios: pl.DataFrame | None

    @property
    def unit(self) -> str:
        """That of the series."""
        return str(self.reasons["unit"][0] or "")


def write(place: Path) -> Path:
    """Write `report.html` into the folder and return its path; the same folder gives the same bytes.

    Raises UsageError when it is no folder that a verb wrote, TraceError or SchemaError naming the file when one of its
    tables is missing or damaged; an older page then stays as it was.
    """
    return offline.put(render(place), place)


def render(place: Path) -> str:
    """The page as HTML; raises as `write` does."""
    identity = folder.identity_of(place)
    at = clocks.clock(str((identity.get("trace") or {}).get("epoch") or ""))
    shown = read(place)
    drawn: dict[str, alt.LayerChart] = {}
    for k, each in enumerate(shown):
        drawn[f"fan_{k}"] = fan(f"fan_{k}", each, at)
        drawn[f"why_{k}"] = why(each, f"_{k}")
    timing = folder.document(place / "timing.json") or {}
    words = {
        "identity": identity,
        "trace": identity.get("trace") or {},
        "series": [_words(k, each, at) for k, each in enumerate(shown)],
        "summary": _summary(shown),
        "differences": views.differences(
            folder.text_of(place / "config.yaml"), folder.text_of(place / "defaults.yaml")
        ),
        "exported": [(name, f"{apart:.1e}") for name, apart in (identity.get("onnx") or {}).items()],
        "phases": [(name, wording.duration(s)) for name, s in (timing.get("phases") or {}).items()],
        "files": views.file_table(folder.listing(place)),
        "sections": [
            ("summary", "All series"),
            *((f"series-{k}", each.sentence["unique_id"]) for k, each in enumerate(shown)),
            ("reproduce", "Reproduce"),
        ],
    }
    return offline.render("forecast.html.j2", words, drawn)  # pyright: ignore[reportArgumentType] - layers are charts


def read(place: Path) -> list[Forecast]:
    """The series of the folder, those that a human should look at first; raises as `write` does."""
    found = {name: folder.table_of(place / "tables", name) for name in _TABLES}
    for name, table in found.items():
        if table is None:
            raise TraceError(f"{place / 'tables' / name}.parquet is missing; run the forecast again")
    said, past, reasons, sentences = (table for table in found.values() if table is not None)
    scenarios = folder.table_of(place / "tables", "forecast_scenarios")
    ordered = sentences.sort("needs_a_human", "confidence_percent", "unique_id", descending=[True, False, False])
    return [
        Forecast(
            sentence=row,
            said=said.filter(unique_id=row["unique_id"]),
            past=past.filter(unique_id=row["unique_id"]),
            reasons=reasons.filter(unique_id=row["unique_id"]),
            scenarios=None if scenarios is None else scenarios.filter(unique_id=row["unique_id"]),
        )
        for row in ordered.iter_rows(named=True)
    ]


# ---------------------------------------------------------------- words and tables


def _words(k: int, shown: Forecast, at: Clock) -> Facts:
    row = shown.sentence
    alike = f"{row['similar_days_ago']} days ago" if row["similar_days_ago"] else ""
    facts = [
        ("Forecaster", row["forecaster"]),
        ("Confidence", f"{wording.number(row['confidence_percent'])} %"),
        ("Now", clocks.moment(at, row["cutoff_s"])),
        ("Days most like the last one", alike),
    ]
    return {
        "number": k,
        "name": row["unique_id"],
        "sentence": row["sentence"],
        "fallback": row["fallback"],
        "needs_a_human": row["needs_a_human"],
        "facts": [(name, value) for name, value in facts if value],
        "steps": _step_table(shown, at),
        "scenarios": _scenario_table(shown.scenarios),
    }


def _summary(shown: Sequence[Forecast]) -> Table:
    made = []
    for each in shown:
        row, last = each.sentence, each.said.row(-1, named=True)
        sure = row["confidence_percent"]
        unsure = row["needs_a_human"]
        now, median = each.past["value"][-1], last["q50"]
        cells = (
            Cell(row["unique_id"], strong=True, note=each.unit),
            Cell(wording.number(now), sort=now),
            Cell(wording.number(median), sort=median, note=wording.interval(last["q10"], last["q90"])),
            Cell(wording.number(sure), sort=sure),
            Cell("a human should look" if unsure else "clear", tone="unsure" if unsure else "good"),
            Cell(row["forecaster"], note=row["fallback"]),
        )
        made.append(Row(cells))
    numbers = ("now", ""), ("last step, 80 %", ""), ("confidence", "%")
    columns = (Column(title, unit, number=True) for title, unit in numbers)
    return Table((Column("series"), *columns, Column("verdict"), Column("forecaster", wide=True)), tuple(made))


def _step_table(shown: Forecast, at: Clock) -> Table:
    groups = shown.reasons["group"].unique(maintain_order=True).to_list()
    wide = shown.reasons.pivot("group", index="step", values="contribution")
    made = []
    for row in shown.said.join(wide, on="step").sort("step").iter_rows(named=True):
        numbers = [row["q50"], *(row[group] for group in groups)]
        cells = [Cell(wording.number(value), sort=value) for value in numbers]
        band = Cell(wording.interval(row["q10"], row["q90"]))
        made.append(Row((Cell(clocks.moment(at, row["time_s"]), sort=row["time_s"]), cells[0], band, *cells[1:])))
    columns = (Column("step"), Column("median", number=True), Column("80 %"))
    return Table((*columns, *(Column(group, number=True) for group in groups)), tuple(made))


def _scenario_table(scenarios: pl.DataFrame | None) -> Table | None:
    if scenarios is None or not scenarios.height:
        return None
    last = scenarios.filter(pl.col("step") == pl.col("step").max())
    made = [
        Row(
            (
                Cell(row["scenario"], strong=True),
                Cell(wording.ratio(row["factor"]), sort=row["factor"]),
                Cell(wording.number(row["q50"]), sort=row["q50"]),
                Cell(wording.interval(row["q10"], row["q90"])),
            )
        )
        for row in last.iter_rows(named=True)
    ]
    numbers = (Column("factor", number=True), Column("median of the last step", number=True))
    return Table((Column("scenario"), *numbers, Column("80 %")), tuple(made))


# ---------------------------------------------------------------- charts


def fan(name: str, shown: Forecast, at: Clock, width: int = _WIDTH) -> alt.LayerChart:
    """The past, the median with its 80 and 40 % bands, and what came where it is on record.

    Args:
        name: of the chart's datasets.
        shown: one series.
        at: the clock of second 0.
        width: in pixels.
    """
    import altair as alt

    past = shown.past.select(pl.col("time_s").alias("t"), pl.col("value").round_sig_figs(5))
    last = past.tail(1).select("t", *(pl.col("value").alias(f"q{10 * k}") for k in range(1, 10)))
    quantiles = [f"q{10 * k}" for k in range(1, 10)]
    said = shown.said.select(pl.col("time_s").alias("t"), *quantiles)
    ahead = pl.concat([last, said]).with_columns(pl.col(quantiles).round_sig_figs(5))
    came = shown.said.select(pl.col("time_s").alias("t"), pl.col("y").round_sig_figs(5)).filter(pl.col("y").is_finite())
    scale = alt.Scale(type="utc", nice=False)
    x = alt.X("x:T", scale=scale, axis=clocks.time_axis(at, labels=True))

    def y(column: str) -> alt.Y:
        return alt.Y(f"{column}:Q", title=shown.unit or None, scale=alt.Scale(zero=False))

    before = clocks.timed(alt.Chart(named(f"{name}_past")), at)
    future = clocks.timed(alt.Chart(named(f"{name}_said")), at)
    truth = clocks.timed(alt.Chart(named(f"{name}_came")), at)
    tips = [alt.Tooltip(f"{q}:Q", title=tooltip_title(q), format=".4~g") for q in ("q10", "q50", "q90")]
    bands = [
        future.mark_area(color=HUES[0], opacity=0.2).encode(x, y(low), alt.Y2(f"{high}:Q"), tooltip=tips)
        for low, high in (("q10", "q90"), ("q30", "q70"))
    ]
    layers = [
        *bands,
        before.mark_line(color=INK, strokeWidth=1.4).encode(x, y("value")),
        future.mark_line(color=HUES[0], strokeWidth=2).encode(x, y("q50"), tooltip=tips),
        truth.mark_line(color=HUES[1], strokeWidth=1.4).encode(x, y("y")),
    ]
    data = {f"{name}_past": rows(past), f"{name}_said": rows(ahead), f"{name}_came": rows(came)}
    title = "Recorded (grey), forecast with its 80 and 40 % bands"
    title += ", and what came (second colour)" if came.height else ""
    return alt.LayerChart(layer=layers).properties(title=title, width=width, height=240, config=theme(), datasets=data)


def why(shown: Forecast, suffix: str = "", width: int = _WIDTH) -> alt.LayerChart:
    """The waterfall of the last step, from the value now; reasons too small to be seen count as rest."""
    reasons = shown.reasons.filter(pl.col("step") == pl.col("step").max())
    parts = dict(reasons.select("group", "contribution").iter_rows())
    now = parts.pop(_BASELINE)
    last = shown.said.row(-1, named=True)
    title = f"What adds to it, {len(shown.said)} steps ahead; the line is the 80 % band"
    least = _TOLD * max(abs(value) for value in (*parts.values(), last["q90"] - last["q10"]))
    told = {group: value for group, value in parts.items() if abs(value) >= least and group != _REST}
    told[_REST] = sum(parts.values()) - sum(told.values())
    return waterfall(now, told, (last["q10"], last["q90"]), title=title, unit=shown.unit, width=width, suffix=suffix)
