"""The printed tables of a replay of jobs: fidelity, by load too, and what became of single jobs."""

from __future__ import annotations

import math

import polars as pl

from reports import recording_clock as clocks
from reports import wording
from reports.cells import Cell, Column, Glyph, Row, Table
from reports.folder import Facts
from reports.recording_clock import Clock

MEASURES = {
    "started_ratio": "jobs that start in both",
    "wait_mean_s": "mean wait",
    "wait_median_s": "median wait",
    "wait_p95_s": "95th percentile of the wait",
    "wait_ks": "distance of the waits' distributions",
    "bounded_slowdown_mean": "mean bounded slowdown",
    "bounded_slowdown_median": "median bounded slowdown",
    "utilisation_mae": "utilisation, hour by hour",
    "utilisation_bias": "mean utilisation",
    "start_mae_s": "a job's own start",
    "placement_agreement_ratio": "jobs on their recorded machine",
    "power_mean": "mean power",
    "power_mape": "power, moment by moment",
    "power_nad": "power, summed",
}
_HOURS = "over whole hours from the first day's start, counted from second 0, to the last end in either"
_NOTES = {
    "wait_ks": "Kolmogorov-Smirnov: the largest share of jobs on the wrong side of a wait",
    "utilisation_mae": f"mean absolute error; {_HOURS}",
    "utilisation_bias": _HOURS,
    "start_mae_s": "mean absolute error",
    "power_mape": "mean absolute error, relative to each moment",
    "power_nad": "absolute errors over the sum recorded",
}
VERDICTS = {
    "pass": ("good", "pass"),
    "noise": ("unsure", "noise"),
    "fail": ("bad", "fail"),
    "unscored": ("", "not judged"),
}
_CAUSES_LISTED, _JOBS_LISTED, _ROWS_LISTED, _FATES_LISTED = 15, 40, 200, 30
_NUMBERS = r"\d[\d.,\u202f]*"  # sentences that differ by their numbers alone tell one cause


def quantity(value: float | None, unit: str) -> str:
    """A value in its unit as people read it: times in minutes and hours, ratios of a whole as they are."""
    if value is None or not math.isfinite(value):
        return wording.DASH
    if unit == "s":
        return wording.duration(value)
    return wording.number(value) + ("" if unit in ("ratio", "count", "job") else f" {unit.replace('*', '·')}")


# ---------------------------------------------------------------- fidelity


def score_table(card: pl.DataFrame) -> Table:
    """The scorecard: measure, recorded, twin, error, noise floor, threshold and verdict, those that fail first."""
    columns = (
        Column("verdict"),
        Column("measure", wide=True),
        Column("recorded", number=True),
        Column("twin", number=True),
        Column("error", number=True),
        Column("noise floor", number=True),
        Column("threshold", number=True),
        Column("error against threshold"),
    )
    rank = pl.col("verdict").replace_strict(["fail", "noise", "pass", "unscored"], range(4), default=3)
    rows = [_score_row(row) for row in card.sort(rank, maintain_order=True).iter_rows(named=True)]
    return Table(columns, tuple(rows))


def _score_row(row: Facts) -> Row:
    tone, word = VERDICTS.get(row["verdict"], ("unsure", str(row["verdict"])))
    measure, unit = str(row["measure"]), str(row["unit"])
    numbers = [
        Cell(quantity(row[c], unit), sort=row[c])
        for c in ("recorded", "simulated", "error", "noise_floor", "threshold")
    ]
    named = Cell(MEASURES.get(measure, wording.words(measure)), note=_NOTES.get(measure, ""), strong=True)
    return Row((Cell(word, tone=tone), named, *numbers, Cell("", glyph=_reach(row, tone))))


def _reach(row: Facts, tone: str) -> Glyph | None:
    """The error as a bar from 0, and the threshold as a mark."""
    error, threshold = row["error"], row["threshold"]
    if error is None or threshold is None or not math.isfinite(error):
        return None
    scale = 96.0 / (max(error, threshold) or 1.0)
    return Glyph(error * scale, 0.0, error * scale, threshold * scale, tone=tone)


def validity_table(validity: pl.DataFrame) -> Table:
    """How well waits hold by the load that was offered."""
    columns = (
        Column("offered load", "of capacity"),
        Column("days", number=True),
        Column("jobs", number=True),
        Column("median wait recorded", number=True),
        Column("median error of a job's wait", number=True),
        Column("threshold", number=True),
        Column("does it hold?"),
    )
    rows = []
    for row in validity.sort("load_from").iter_rows(named=True):
        times = [row[c] for c in ("median_wait_s", "median_wait_error_s", "threshold_s")]
        rows.append(
            Row(
                (
                    Cell(load_range(row["load_from"], row["load_to"]), sort=row["load_from"]),
                    *(Cell(wording.count(row[c]), sort=row[c]) for c in ("days", "jobs")),
                    *(Cell(_error(t), sort=t if t is not None and math.isfinite(t) else None) for t in times),
                    Cell("yes", tone="good") if row["within"] else Cell("no", tone="bad"),
                )
            )
        )
    return Table(columns, tuple(rows))


def _error(seconds: float | None) -> str:
    return "never started" if seconds is not None and math.isinf(seconds) else wording.duration(seconds)


def load_range(low: float, high: float) -> str:
    """A range of offered load in words: "20–40 %", "above 150 %"."""
    if math.isinf(high):
        return f"above {wording.number(100 * low)} %" if low else "0 % and more"
    return f"{wording.number(100 * low)}{wording.DASH}{wording.number(100 * high)} %"


# ---------------------------------------------------------------- single jobs


def fate_table(outcomes: pl.DataFrame) -> Table | None:
    """What became of the jobs that were not done, by state and reason; None where all were."""
    other = outcomes.filter(pl.col("state") != "done").with_columns(cause=_cause(pl.col("reason").fill_null("")))
    if not other.height:
        return None
    refused_first = (pl.col("state") != "refused").alias("_later")
    found = (
        other.group_by("state", "cause", refused_first, maintain_order=True)
        .agg(pl.len().alias("jobs"), pl.col("cpu_cores").median().alias("cores"), pl.col("reason").first())
        .sort("_later", "jobs", "state", "cause", descending=[False, True, False, False])
    )
    rows = [
        Row(
            (
                Cell(row["state"], strong=True),
                Cell((row["reason"] if row["jobs"] == 1 else row["cause"]) or wording.DASH),
                Cell(wording.count(row["jobs"]), sort=row["jobs"]),
                Cell(wording.number(100 * row["jobs"] / outcomes.height), sort=row["jobs"]),
                Cell(wording.number(row["cores"]), sort=row["cores"]),
            )
        )
        for row in found.head(_FATES_LISTED).iter_rows(named=True)
    ]
    numbers = (Column("jobs", number=True), Column("share", "% of all", number=True))
    columns = (Column("state"), Column("reason", wide=True), *numbers, Column("cores asked for", "median", number=True))
    more = found.height - len(rows)
    return Table(columns, tuple(rows), f"{wording.count(more)} rarer reasons are not shown." if more else "")


def _cause(reason: pl.Expr) -> pl.Expr:
    return reason.str.replace_all(_NUMBERS, "…")


def cause_table(explanations: pl.DataFrame) -> Table | None:
    """What jobs waited for, by the time that was waited for it; None where no wait was explained."""
    waits = explanations.filter(what="waits").with_columns(cause=_cause(pl.col("reason")), waited=_waited())
    if not waits.height:
        return None
    found = (
        waits.group_by("cause", maintain_order=True)
        .agg(pl.len().alias("times"), pl.col("job").n_unique().alias("jobs"), pl.col("waited").sum())
        .sort("waited", "times", "cause", descending=[True, True, False])
    )
    whole = float(found["waited"].sum()) or 1.0
    rows = [
        Row(
            (
                Cell(row["cause"]),
                *(Cell(wording.count(row[c]), sort=row[c]) for c in ("jobs", "times")),
                Cell(wording.duration(row["waited"]), sort=row["waited"]),
                Cell(wording.number(100 * row["waited"] / whole), sort=row["waited"]),
            )
        )
        for row in found.head(_CAUSES_LISTED).iter_rows(named=True)
    ]
    numbers = [Column(title, unit, number=True) for title, unit in (("jobs", ""), ("times", ""), ("waited", ""))]
    columns = (Column("because", wide=True), *numbers, Column("share of the waiting", "%", number=True))
    more = found.height - len(rows)
    return Table(columns, tuple(rows), f"{wording.count(more)} rarer reasons are not shown." if more else "")


def _waited() -> pl.Expr:
    return pl.col("until_s") - pl.col("from_s")


def explanation_table(explanations: pl.DataFrame, at: Clock) -> Table | None:
    """From when until when the jobs that waited longest waited, and why; None where nothing was explained."""
    if not explanations.height:
        return None
    total = pl.when(pl.col("what") == "waits").then(_waited()).otherwise(0.0).sum()
    ranked = explanations.group_by("job", maintain_order=True).agg(total.alias("_total"))
    longest = ranked.sort("_total", descending=True, maintain_order=True).head(_JOBS_LISTED).with_row_index("_rank")
    listed = explanations.join(longest, on="job").sort("_rank", "from_s", maintain_order=True).head(_ROWS_LISTED)
    rows = [_explained(row, at) for row in listed.iter_rows(named=True)]
    shown, count = listed["job"].n_unique(), ranked.height
    which = f"the {shown} that waited longest are listed" if shown < count else "all are listed"
    sentence = f"{wording.count(count)} job{'s' * (count != 1)} explained; {which}."
    times = (Column("from"), Column("until"), Column("for", number=True))
    return Table((Column("job"), Column("what"), *times, Column("because", wide=True)), tuple(rows), sentence)


def _explained(row: Facts, at: Clock) -> Row:
    begin, end, waits = row["from_s"], row["until_s"], row["what"] == "waits"
    return Row(
        (
            Cell(str(row["job"]), strong=True),
            Cell("waited" if waits else "started"),
            Cell(clocks.moment(at, begin), sort=begin),
            Cell(clocks.moment(at, end) if waits else "", sort=end),
            Cell(wording.duration(end - begin) if waits else "", sort=end - begin),
            Cell(str(row["reason"])),
        )
    )
