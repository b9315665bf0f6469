"""The KPIs of a replay of jobs as printed tables: what each is called and means, of the whole and of its parts."""

from __future__ import annotations

import polars as pl

from reports import wording
from reports.cells import Cell, Column, Row, Table
from reports.jobs_tables import quantity

_STATES = ("done", "failed", "killed", "cancelled", "refused", "running", "waiting")
_HOW = {"mean": "mean {}", "median": "median {}", "p95": "95th percentile of the {}"}
_TIMED = {
    "wait": "arrival to first start, of jobs that started; what waits still is not in it",
    "response": "arrival to end, of jobs that started and ended",
}
_SLOW = {
    "slowdown": "(wait + run) / run; a job that ran for no time counts as if it ran for 1 s",
    "bounded_slowdown": "(wait + run) / run, a run shorter than 10 s counted as 10 s; at least 1",
}
_HELD = "held / what there is, first arrival to the replay's end"
_UNOCCUPIED = "the part in which a machine that held nothing stood idle"

KPIS: dict[str, tuple[str, str]] = {
    "jobs": ("jobs that arrived", ""),
    **{f"{state}_jobs": (f"jobs {state}", "") for state in _STATES},
    **{f"{k}_{how}_s": (words.format(k), told) for k, told in _TIMED.items() for how, words in _HOW.items()},
    **{
        f"{k}_{how}": (words.format(k.replace("_", " ")), told)
        for k, told in _SLOW.items()
        for how, words in _HOW.items()
    },
    "restarts": ("restarts", "starts beyond each job's first"),
    "restart_ratio": ("restarts among starts", "starts beyond each job's first / all starts"),
    "deadline_miss_ratio": (
        "deadlines missed",
        "done late, failed, killed, refused, or not done by it, of the jobs whose deadline decided",
    ),
    "limit_slack_ratio": ("time limit not used", "mean of 1 - run / limit, of jobs done"),
    "cpu_slack_ratio": ("cores asked for and not used", "weighted by run time"),
    "memory_slack_ratio": ("memory asked for and not used", "weighted by run time"),
    "throughput_jobs_h": ("throughput", "jobs done in an hour of the span"),
    "makespan_s": ("makespan", "first arrival to last end"),
    "fairness_slowdown": ("fairness of slowdowns", "Jain's index over users of their mean bounded slowdown; 1: equal"),
    "fairness_core_share": ("fairness of core-hours", "Jain's index over users of what they held; 1: equal"),
    "core_h": ("core-hours held", ""),
    "gpu_h": ("GPU-hours held", ""),
    "utilisation_cpu_ratio": ("cores held", _HELD),
    "utilisation_memory_ratio": ("memory held", _HELD),
    "utilisation_gpu_ratio": ("GPUs held", _HELD),
    "empty_machines": ("machines that hold nothing", "their mean number"),
    **{
        f"stranded_{short}_ratio": (f"free {what} out of reach", "on machines where another resource is used up")
        for short, what in (("cpu", "cores"), ("memory", "memory"), ("gpu", "GPUs"))
    },
    **{
        f"fragmentation_{short}_ratio": (
            f"fragmentation of {what}",
            "1 - the most that is free on one machine / all free",
        )
        for short, what in (("cpu", "cores"), ("memory", "memory"), ("gpu", "GPUs"))
    },
    "asked_core_h": ("core-hours asked for", "of machines that promise more than they have"),
    "lost_core_h": ("core-hours lost", "asked for and not given, of machines that promise more than they have"),
    "stretched_h": ("hours that jobs ran longer", "as machines promise more than they have"),
    "cost_usd": ("cost", "price × hours in which a machine held anything"),
    "energy_kwh": ("energy", "drawn by all machines, by the held share of their cores"),
    "energy_unoccupied_kwh": ("energy of empty machines", _UNOCCUPIED),
    "energy_idle_ratio": ("idle share of the energy", "would have been drawn with nothing in use"),
    "carbon_kg": ("carbon", "energy × carbon intensity of the grid at that time"),
    "carbon_unoccupied_kg": ("carbon of empty machines", _UNOCCUPIED),
    "energy_cost_usd": ("cost of the energy", "energy × price of electricity at that time"),
    "energy_cost_unoccupied_usd": ("cost of the energy of empty machines", _UNOCCUPIED),
}
"""What each KPI is called and how it is defined."""

_LISTED = 100
_OF_PARTS = (
    ("jobs", "jobs", ""),
    ("done_jobs", "done", ""),
    ("killed_jobs", "killed", ""),
    ("refused_jobs", "refused", ""),
    ("wait_mean_s", "mean wait", ""),
    ("wait_p95_s", "95 % wait at most", ""),
    ("bounded_slowdown_mean", "mean bounded slowdown", "ratio"),
    ("core_h", "core-hours", "core·h"),
    ("gpu_h", "GPU-hours", "GPU·h"),
    ("utilisation_cpu_ratio", "share of {} cores", "%"),
    ("lost_core_h", "lost", "core·h"),
    ("stretched_h", "ran longer", "h"),
    ("cost_usd", "cost", "USD"),
    ("energy_kwh", "energy", "kWh"),
    ("carbon_kg", "carbon", "kgCO2eq"),
    ("energy_cost_usd", "cost of energy", "USD"),
)
_ALWAYS = ("jobs", "done_jobs", "wait_mean_s", "wait_p95_s")


def kpi_table(kpis: pl.DataFrame) -> Table:
    """Every KPI of the whole with its definition; an unscored one has a dash."""
    arrows = {"lower": "↓", "higher": "↑"}
    rows = []
    for row in kpis.filter(entity="cluster").iter_rows(named=True):
        name, note = KPIS.get(row["kpi"], (wording.words(row["kpi"]), ""))
        value, unit = row["value"], str(row["unit"])
        if value is not None and row["kpi"].endswith("_ratio"):
            value, unit = 100 * value, "%"
        arrow = Cell(arrows.get(row["better"], ""))
        rows.append(Row((Cell(name, note=note), Cell(quantity(value, unit), sort=row["value"]), arrow)))
    return Table((Column("KPI", wide=True), Column("value", number=True), Column("better")), tuple(rows))


def part_table(kpis: pl.DataFrame, kind: str, count: int | None = None) -> Table | None:
    """KPIs of each user, queue or pool, those that held most first; None where none is told apart.

    Args:
        kpis: the table.
        kind: "user", "queue" or "pool".
        count: how many there are, where that is known: those that are not listed are counted.
    """
    own = kpis.filter(pl.col("entity").str.starts_with(f"{kind}:"))
    if not own.height:
        return None
    wide = own.pivot("kpi", index="entity", values="value")
    shown = [(k, title, unit) for k, title, unit in _OF_PARTS if k in wide.columns and _tells(k, wide[k])]
    whole = "its own" if kind == "pool" else "all"  # the parts of users and queues add up, pools have a whole each
    by = [k for k in ("core_h", "jobs") if k in wide.columns]
    ranked = wide.sort([*by, "entity"], descending=[*[True] * len(by), False], nulls_last=True)
    rows = []
    for row in ranked.head(_LISTED).iter_rows(named=True):
        name = str(row["entity"]).removeprefix(f"{kind}:") or "not told"
        rows.append(Row((Cell(name, strong=True), *(_part_cell(k, row[k]) for k, *_ in shown))))
    columns = (Column(kind), *(Column(title.format(whole), unit, number=True) for _, title, unit in shown))
    more = max(wide.height, count or 0) - len(rows)
    told = f"The {len(rows)} that held most; {wording.count(more)} more are not shown." if more else ""
    return Table(columns, tuple(rows), f"{told} {_sums(kpis, kind)}".strip())


def _sums(kpis: pl.DataFrame, kind: str) -> str:
    """Why the parts may come to more or less than the whole."""
    if kind == "pool":
        pools = kpis.filter(pl.col("entity").str.starts_with("pool:"), kpi="jobs")["value"].sum()
        whole = kpis.filter(entity="cluster", kpi="jobs")["value"].sum()
        return "A job that lay on two pools counts in each." if pools > whole else ""
    empty = float(kpis.filter(entity="cluster", kpi="energy_unoccupied_kwh")["value"].sum())
    return f"What empty machines drew, {wording.number(empty)} kWh, belongs to nobody." if empty else ""


def _tells(kpi: str, values: pl.Series) -> bool:
    return kpi in _ALWAYS or bool((values.fill_null(0.0) != 0).any())


def _part_cell(kpi: str, value: float | None) -> Cell:
    if kpi == "utilisation_cpu_ratio":
        return Cell(wording.number(None if value is None else 100 * value), sort=value)
    if value is not None and (kpi == "jobs" or kpi.endswith("_jobs")):
        return Cell(wording.count(int(value)), sort=value)
    return Cell(wording.duration(value) if kpi.endswith("_s") else wording.number(value), sort=value)
