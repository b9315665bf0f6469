"""What went wrong in the shown runs: marks on their clock, and a table of one row per scenario and kind.

A run's `incidents` are the ground truth. A run that recorded none tells only by `pool_steps` that nodes were down.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from reports import wording
from reports.cells import Cell, Column, Row, Table
from reports.folder import Facts, ShownRun, step_s

MAX_MARKS = 400  # per scenario: more are grouped, until a page stays small
MAX_KINDS = 12
NODES_DOWN = "nodes down"
MARKS = {
    "scenario": pl.String,
    "kind": pl.String,
    "start_s": pl.Float64,
    "end_s": pl.Float64,
    "count": pl.Int64,
    "where": pl.String,
    "lasted": pl.String,
}
_COLUMNS = (
    Column("scenario"),
    Column("kind"),
    Column("how many", number=True),
    Column("lasted in all", "h", number=True),
    Column("first", "day, hour", number=True),
    Column("where"),
    Column("lasted"),
    Column("cause"),
)


def marks(runs: Sequence[ShownRun], bin_s: float) -> pl.DataFrame:
    """What the lane of incidents draws, with the columns of `MARKS`: at most 400 rows per scenario.

    Incidents of one kind that began within one bin are one row: from the first start to the last end (s), how many at
    most in one run, where, and how long they lasted in words.
    """
    frames = [_marked(scenario, found, bin_s) for scenario, found in _by_scenario(runs)]
    return pl.concat(frames) if frames else pl.DataFrame(schema=MARKS)


def spans(runs: Sequence[ShownRun], gap_s: float) -> pl.DataFrame:
    """When anything was wrong in any shown run: scenario, start_s, end_s (s); gaps up to `gap_s` are closed."""
    rows: list[tuple[str, float, float]] = []
    for scenario, found in _by_scenario(runs):
        lasting = found.filter(pl.col("end_s") > pl.col("start_s")).sort("start_s", "end_s")
        first = len(rows)
        for start_s, end_s in lasting.select("start_s", "end_s").iter_rows():
            if len(rows) > first and start_s - rows[-1][2] <= gap_s:
                rows[-1] = (scenario, rows[-1][1], max(rows[-1][2], end_s))
            else:
                rows.append((scenario, start_s, end_s))
    schema = {name: MARKS[name] for name in ("scenario", "start_s", "end_s")}
    return pl.DataFrame(rows, schema=schema, orient="row")


def table(runs: Sequence[ShownRun]) -> Table | None:
    """Every scenario's kinds of incidents, the longest in all first; None when no shown run recorded one.

    Numbers that differ between the controllers of a scenario are told as lowest and highest.
    """
    rows, rarer = [], 0
    for scenario in dict.fromkeys(run.scenario for run in runs):
        frames = [_recorded(run) for run in runs if run.scenario == scenario and run.incidents is not None]
        if frames:
            kinds = _kinds(pl.concat(frames), len(frames))
            rows += [_row(scenario, kind) for kind in kinds[:MAX_KINDS]]
            rarer += len(kinds[MAX_KINDS:])
    left = f" {rarer} kinds that lasted less are left out." if rarer else ""
    sentence = f"Faults that the twin made happen, within the time shown, as each run met them.{left}"
    return Table(_COLUMNS, tuple(rows), sentence) if rows else None


# ---------------------------------------------------------------- one scenario's incidents


def _by_scenario(runs: Sequence[ShownRun]) -> list[tuple[str, pl.DataFrame]]:
    """Each scenario that had incidents, with those of all its runs: run, kind, entity, cause, start_s, end_s, count."""
    found = []
    for scenario in dict.fromkeys(run.scenario for run in runs):
        here = [run for run in runs if run.scenario == scenario]
        frames = [_recorded(run) for run in here if run.incidents is not None] or [_nodes_down(run) for run in here]
        joined = pl.concat(frames).sort("start_s", maintain_order=True)
        if joined.height:
            found.append((scenario, joined))
    return found


def _recorded(run: ShownRun) -> pl.DataFrame:
    assert run.incidents is not None
    ends = [float(steps["time_s"].max()) for steps in (run.service_steps, run.pool_steps) if _held(steps)]  # pyright: ignore
    until_s = max(ends, default=float("inf"))  # a fault may outlast what is shown
    end_s = pl.max_horizontal("start_s", pl.min_horizontal("end_s", pl.lit(until_s)))
    columns = ["kind", "entity", "cause", "start_s", end_s.alias("end_s"), pl.lit(1, pl.Int64).alias("count")]
    return run.incidents.select(pl.lit(run.label).alias("run"), *columns)


def _held(steps: pl.DataFrame | None) -> bool:
    return steps is not None and steps.height > 0


def _nodes_down(run: ShownRun) -> pl.DataFrame:
    """The stretches of steps at whose end nodes were under repair; `count` is how many at most."""
    names = ["run", "kind", "entity", "cause", "start_s", "end_s", "count"]
    schema = {"run": pl.String, "entity": pl.String, "cause": pl.String, **{n: MARKS[n] for n in names if n in MARKS}}
    rows: list[tuple[Any, ...]] = []
    if run.pool_steps is not None and run.pool_steps.height:
        total = run.pool_steps.group_by("time_s").agg(pl.col("failed_nodes").sum()).sort("time_s")
        step = step_s(total)
        for time_s, count in total.filter(pl.col("failed_nodes") > 0).iter_rows():
            if rows and time_s - step - rows[-1][5] <= step:
                rows[-1] = (*rows[-1][:5], time_s, max(rows[-1][6], count))
            else:
                rows.append((run.label, NODES_DOWN, None, None, time_s - step, time_s, count))
    return pl.DataFrame(rows, schema={name: schema[name] for name in names}, orient="row")


def _marked(scenario: str, found: pl.DataFrame, bin_s: float) -> pl.DataFrame:
    width_s, last_s = bin_s, float(found["start_s"].max())  # pyright: ignore[reportArgumentType]
    while width_s <= last_s and found.select("kind", _slot(width_s)).n_unique() > MAX_MARKS:
        width_s *= 2.0
    lasted = pl.col("end_s") - pl.col("start_s")
    each = found.group_by("kind", _slot(width_s), "run", maintain_order=True).agg(
        pl.col("start_s", "entity").first(),
        pl.col("end_s").max(),
        pl.col("count").sum(),
        shortest=lasted.min(),
        longest=lasted.max(),
        entities=pl.col("entity").n_unique(),
    )
    # several runs of one scenario meet much the same: the mark tells the one that met most
    grouped = each.group_by("kind", "slot", maintain_order=True).agg(
        pl.col("start_s").min(),
        pl.col("end_s", "count", "longest").max(),
        pl.col("shortest").min(),
        pl.col("entity", "entities").sort_by("entities", descending=True, maintain_order=True).first(),
    )
    rows = [_mark(scenario, group) for group in grouped.sort("kind", "start_s").iter_rows(named=True)]
    return pl.DataFrame(rows, schema=MARKS, orient="row")


def _slot(width_s: float) -> pl.Expr:
    return (pl.col("start_s") / width_s).floor().cast(pl.Int64).alias("slot")


def _mark(scenario: str, group: Facts) -> tuple[Any, ...]:
    more = f" and {group['entities'] - 1} more" if group["entities"] > 1 else ""
    short, long = (wording.duration(group[name]) for name in ("shortest", "longest"))
    lasted = long if short == long else f"{short} to {long}"
    where = f"{group['entity'] or wording.DASH}{more}"
    return (scenario, group["kind"], group["start_s"], group["end_s"], group["count"], where, lasted)


def _kinds(found: pl.DataFrame, runs: int) -> list[Facts]:
    hours = (pl.col("end_s") - pl.col("start_s")).sum() / 3600.0
    each = found.group_by("run", "kind").agg(count=pl.len().cast(pl.Int64), hours=hours)
    spread = each.group_by("kind").agg(
        pl.col("count", "hours").max(),
        # a run that did not meet a kind met it no time
        *(pl.when(pl.len() < runs).then(0).otherwise(pl.col(c).min()).alias(f"{c}_least") for c in ("count", "hours")),
    )
    first = found.sort("start_s", maintain_order=True).unique("kind", keep="first", maintain_order=True)
    ranked = spread.sort("hours", "count", "kind", descending=[True, True, False])
    return ranked.join(first.drop("count", "run"), on="kind", maintain_order="left").to_dicts()


def _row(scenario: str, kind: Facts) -> Row:
    cells = (
        Cell(scenario),
        Cell(wording.words(kind["kind"])),
        Cell(_range(kind["count_least"], kind["count"]), sort=kind["count"]),
        Cell(_range(kind["hours_least"], kind["hours"]), sort=kind["hours"]),
        Cell(wording.clock(kind["start_s"]), sort=kind["start_s"]),
        Cell(kind["entity"] or wording.DASH),
        Cell(wording.duration(kind["end_s"] - kind["start_s"])),
        Cell(kind["cause"] or wording.DASH),
    )
    return Row(cells, scenario)


def _range(least: float, most: float) -> str:
    low, high = wording.number(least), wording.number(most)
    return high if low == high else f"{low}{wording.THIN}{wording.DASH}{wording.THIN}{high}"
