"""The page of `retraining`: accuracy over time with and without retraining, per series, and what happened when.

The folder holds `identity.json` (verb "retraining"; on the series' clock `start_s`, its beginning, and `changed_s`; by
series `delays_h`, and the same in words as `told`) and in `tables/` what the verb wrote: `retraining_events`,
`forecasts` (from an origin every hour and a step), `forecast_scores`, `retraining_accuracy` and, where the drift tests
were tried, `drift_trials`. Days on the page count from the series' beginning.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from reports import folder, offline, views, wording
from reports.cells import Cell, Column, Row, Table
from reports.charts import INK, named, rows, theme
from reports.folder import Facts
from reports.palette import BASELINE, HUES
from twin.errors import TraceError

if TYPE_CHECKING:
    import altair as alt

VERB = "retraining"
OPERATED, UNTOUCHED = "retrained", "never retrained"
WINDOW_H = 24
_TABLES = ("retraining_events", "retraining_accuracy", "forecasts", "forecast_scores")
_HOUR_S, _DAY_S = 3_600.0, 86_400.0
_MARKS = {"change": [1, 0], "alarm": [5, 3], "swap": [2, 3]}
_TONES = {"swapped": "good", "failed": "bad"}


def write(place: Path) -> Path:
    """Write `report.html` into the folder and return its path; the same folder gives the same bytes.

    Raises UsageError when it is no folder that a verb wrote, TraceError or SchemaError naming the file when one of its
    tables is missing or damaged; an older page then stays as it was.
    """
    return offline.put(render(place), place)


def render(place: Path) -> str:
    """The page as HTML; raises as `write` does."""
    identity, found = folder.identity_of(place), read(place)
    start_s, delays_h = identity.get("start_s", 0), identity.get("delays_h") or {}
    said, events = found["forecasts"], found["retraining_events"]
    ids = said["unique_id"].unique(maintain_order=True).to_list()
    drawn: dict[str, Any] = {}
    for k, name in enumerate(ids):
        own = events.filter(unique_id=name)
        rolled = rolling(said.filter(unique_id=name), start_s=start_s)
        drawn[f"accuracy_{k}"] = chart(rolled, marks(own, identity.get("changed_s"), start_s), suffix=f"_{k}")
    trials = folder.table_of(place / "tables", "drift_trials")
    words = {
        "identity": identity,
        "trace": identity.get("trace") or {},
        "window_h": WINDOW_H,
        "series": [(f"accuracy_{k}", name) for k, name in enumerate(ids)],
        "summary": summary(found, delays_h),
        "scores": views.score_table(found["forecast_scores"], _styles()),
        "days": _days(found["retraining_accuracy"]),
        "events": _events(events, start_s),
        "trials": None if trials is None else _trials(trials),
        "differences": views.differences(
            folder.text_of(place / "config.yaml"), folder.text_of(place / "defaults.yaml")
        ),
        "phases": [(n, wording.duration(s)) for n, s in _phases(place).items()],
        "files": views.file_table(folder.listing(place)),
        "sections": [
            ("accuracy", "Accuracy over time"),
            ("series", "Each series"),
            ("events", "What happened"),
            *([("trials", "Drift tests")] if trials is not None else []),
            ("reproduce", "Reproduce"),
        ],
    }
    return offline.render("retraining.html.j2", words, drawn)


def read(place: Path) -> dict[str, pl.DataFrame]:
    """The tables that the page cannot do without; raises as `write` does."""
    found = {}
    for name in _TABLES:
        table = folder.table_of(place / "tables", name)
        if table is None:
            raise TraceError(f"{place / 'tables' / name}.parquet is missing; run the retraining again")
        found[name] = table
    return found


def _phases(place: Path) -> Facts:
    return (folder.document(place / "timing.json") or {}).get("phases") or {}


def _styles() -> dict[str, tuple[str, list[int]]]:
    return {OPERATED: (HUES[0], [1, 0]), UNTOUCHED: (BASELINE, [1, 0])}


# ---------------------------------------------------------------- what is drawn


def rolling(said: pl.DataFrame, window_h: int = WINDOW_H, start_s: float = 0.0) -> pl.DataFrame:
    """The accuracy of the last `window_h` hours at the end of each: columns who, day, percent.

    Args:
        said: the `forecasts` of one series; accuracy is 100 (1 - WAPE) of all steps that came in those hours.
        window_h: hours; before as many are on record there is no row.
        start_s: when the series begins, on the clock of `said`; days count from there.
    """
    known = said.filter(pl.col("y").is_finite() & pl.col("q50").is_finite())
    hours = (
        known.group_by(pl.col("forecaster").alias("who"), (pl.col("time_s") // _HOUR_S).cast(pl.Int64).alias("hour"))
        .agg((pl.col("y") - pl.col("q50")).abs().sum().alias("error"), pl.col("y").abs().sum().alias("size"))
        .sort("who", "hour")
    )
    sums = [
        pl.col(name).rolling_sum_by("hour", f"{window_h}i", min_samples=window_h).over("who")
        for name in ("error", "size")
    ]
    return (
        hours.with_columns(sums)
        .filter(pl.col("size") > 0.0)
        .select(
            "who",
            (((pl.col("hour") + 1) * _HOUR_S - start_s) / _DAY_S).round(3).alias("day"),
            (100.0 * (1.0 - pl.col("error") / pl.col("size"))).round(2).alias("percent"),
        )
    )


def marks(events: pl.DataFrame, changed_s: float | None, start_s: float = 0.0) -> pl.DataFrame:
    """When the regime changed, drift was noticed, and a champion swapped: day (with its fraction), kind, what.

    `changed_s` and `start_s`, from where days count, are on the clock of the events.
    """
    alarm = (pl.col("verdict") == "noticed") & pl.col("trigger").str.starts_with("drift")
    swap = pl.col("verdict") == "swapped"
    seen = events.filter(alarm | swap).select(
        "time_s",
        pl.when(swap).then(pl.lit("swap")).otherwise(pl.lit("alarm")).alias("kind"),
        pl.format("{}: {}", "trigger", "verdict").alias("what"),
    )
    change = pl.DataFrame(
        {"time_s": [changed_s], "kind": ["change"], "what": ["the regime changes"]}, schema=seen.schema
    )
    return pl.concat([change.drop_nulls(), seen]).select(
        ((pl.col("time_s") - start_s) / _DAY_S).round(3).alias("day"), "kind", "what"
    )


def chart(rolled: pl.DataFrame, moments: pl.DataFrame, *, suffix: str = "", width: int = 860) -> alt.LayerChart:
    """Rolling accuracy with and without retraining, with rules at the change, at alarms and at swaps.

    Args:
        rolled: of one series, as `rolling` gives it.
        moments: its `marks`, on the same clock.
        suffix: of the names of its datasets, where a page holds several.
        width: of the chart in pixels.
    """
    import altair as alt

    lines = alt.Chart(named(f"rolling{suffix}")).mark_line(strokeWidth=1.8)
    lines = lines.encode(
        alt.X("day:Q", title="day", scale=alt.Scale(zero=False, nice=False)),
        alt.Y("percent:Q", title="accuracy (%)", scale=alt.Scale(zero=False)),
        alt.Color("who:N", scale=alt.Scale(domain=[OPERATED, UNTOUCHED], range=[HUES[0], BASELINE])),
        tooltip=[
            alt.Tooltip("who:N"),
            alt.Tooltip("day:Q", format=".2f"),
            alt.Tooltip("percent:Q", format=".1f", title="%"),
        ],
    )
    rules = alt.Chart(named(f"marks{suffix}")).mark_rule(color=INK, strokeWidth=1.4)
    rules = rules.encode(
        alt.X("day:Q"),
        alt.StrokeDash("kind:N", scale=alt.Scale(domain=list(_MARKS), range=list(_MARKS.values()))),
        tooltip=[alt.Tooltip("what:N"), alt.Tooltip("day:Q", format=".2f")],
    )
    return alt.LayerChart(layer=[rules, lines]).properties(
        title=f"Accuracy of the last {WINDOW_H} hours",
        width=width,
        height=280,
        config=theme(),
        datasets={f"rolling{suffix}": rows(rolled), f"marks{suffix}": rows(moments)},
    )


# ---------------------------------------------------------------- tables


def summary(found: Mapping[str, pl.DataFrame], delays_h: Mapping[str, Mapping[str, float | None]]) -> Table:
    """One row per series: accuracy of the whole and of the last hours on record, and how soon a change was answered.

    Args:
        found: the tables, as `read` gives them.
        delays_h: by series, `noticed_h` and `swapped_h`; None where that never was.
    """
    pooled = found["forecast_scores"].filter(pl.col("horizon").str.contains("-"))
    made = []
    for name in pooled["unique_id"].unique(maintain_order=True):
        of = {row["forecaster"]: row for row in pooled.filter(unique_id=name).iter_rows(named=True)}
        last = rolling(found["forecasts"].filter(unique_id=name)).group_by("who").last()
        now = dict(last.select("who", "percent").iter_rows())
        soon = delays_h.get(name, {})
        numbers = [of.get(OPERATED, {}).get(each) for each in ("accuracy_percent", "skill", "coverage_80")]
        numbers += [now.get(OPERATED), now.get(UNTOUCHED), soon.get("noticed_h"), soon.get("swapped_h")]
        first = of.get(UNTOUCHED, {}).get("accuracy_percent")
        whole = Cell(wording.number(numbers[0]), sort=numbers[0], note=f"never retrained {wording.number(first)}")
        cells = (Cell(wording.number(each), sort=each) for each in numbers[1:])
        made.append(Row((Cell(name, strong=True), whole, *cells)))
    titles = (
        ("accuracy", "%"),
        ("skill over naive", ""),
        ("coverage of the 80 % band", ""),
        (f"last {WINDOW_H} h, retrained", "%"),
        (f"last {WINDOW_H} h, never retrained", "%"),
        ("noticed after", "h"),
        ("swapped after", "h"),
    )
    return Table((Column("series"), *(Column(title, unit, number=True) for title, unit in titles)), tuple(made))


def _days(accuracy: pl.DataFrame) -> Table:
    made = [
        Row(
            (
                Cell(row["unique_id"]),
                Cell(str(row["day"]), sort=row["day"]),
                *(Cell(wording.number(row[who]), sort=row[who]) for who in ("operated_percent", "untouched_percent")),
            )
        )
        for row in accuracy.iter_rows(named=True)
    ]
    numbers = (Column(title, "%", number=True) for title in (OPERATED, UNTOUCHED))
    return Table((Column("series"), Column("day", number=True), *numbers), tuple(made))


def _events(events: pl.DataFrame, start_s: float) -> Table:
    made = []
    for row in events.iter_rows(named=True):
        day = (row["time_s"] - start_s) / _DAY_S
        apart = wording.interval(row["difference_low"], row["difference_high"])
        cells = (
            Cell(f"{day:.2f}", sort=day),
            Cell(row["unique_id"]),
            Cell(row["trigger"]),
            Cell(row["verdict"], tone=_TONES.get(row["verdict"], "")),
            Cell(wording.number(row["champion_loss"]), sort=row["champion_loss"]),
            Cell(wording.number(row["challenger_loss"]), sort=row["challenger_loss"], note=apart),
            Cell(row["reason"]),
        )
        made.append(Row(cells))
    head = (Column("day", number=True), Column("series"), Column("why"), Column("verdict"))
    losses = (Column("champion's loss", number=True), Column("challenger's, and the interval apart", number=True))
    return Table((*head, *losses, Column("in words", wide=True)), tuple(made))


def _trials(trials: pl.DataFrame) -> Table:
    numbers = {
        "runs": "",
        "false_alarm_percent": "%",
        "in_time_percent": "%",
        "delay_p50_h": "h",
        "delay_p95_h": "h",
    }
    made = [
        Row(
            (
                *(Cell(row[name]) for name in ("detector", "unique_id", "plant")),
                *(Cell(wording.number(row[name]), sort=row[name]) for name in numbers),
            )
        )
        for row in trials.iter_rows(named=True)
    ]
    titles = ("streams", "false alarms", "seen within a day", "delay, median", "delay, 95th percentile")
    counted = (Column(t, unit, number=True) for t, unit in zip(titles, numbers.values(), strict=True))
    return Table((Column("detector"), Column("series"), Column("planted"), *counted), tuple(made))
