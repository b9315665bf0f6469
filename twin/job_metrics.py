"""KPIs of jobs as functions of the tables `outcomes` and `placements`: tables in, one tidy table (`kpis`) out.

Of the jobs that arrived in the span:

jobs, done_jobs, ...          how many, and how many ended or stand in each state
wait_*_s                      arrival to first start, of jobs that started; what waits still is not in it
response_*_s                  arrival to end, of jobs that started and ended
slowdown_*                    (wait + run) / run; a job that ran for no time counts 1 + wait, as if it ran for 1 s
bounded_slowdown_*            max(1, (wait + run) / max(run, 10 s)) (Feitelson and Rudolph, JSSPP 1998)
restarts, restart_ratio       starts beyond each job's first, and their share of all starts: eviction's churn
deadline_miss_ratio           of the jobs whose deadline decided: done late, failed, killed, refused, or not done by it
limit_slack_ratio             mean of 1 - run / limit of jobs done; below 0 where a job outran its limit
cpu_slack_ratio, memory_...   share of what was asked for that was not used, weighted by run time (needs `jobs`)
throughput_jobs_h             jobs done in an hour of the span
makespan_s                    first arrival to last end
fairness_slowdown             Jain's index over users of their mean bounded slowdown
fairness_core_share           the same of their core-seconds; who got nothing counts with 0

Of what was held in the span, whenever the job arrived:

core_h, gpu_h                 hours held of a core, of a GPU
utilisation_*_ratio           held / (capacity x span); for a user or queue its part of the whole, so that parts add up
cost_usd                      price x hours in which a machine held anything, or in which it was powered where that is
                              told; a machine's cost is split over what it held by core-seconds

A KPI without data is null (unscored), never 0. Percentiles interpolate linearly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from twin.engine.jobs.machines import RESOURCES, UNITS, UNLIMITED, Machines
from twin.errors import SimulationError, UsageError
from twin.trace import tables

Group = Literal["user", "queue", "pool"]

CLUSTER = "cluster"
BOUND_S = 10.0
_AMOUNTS = ("cpu_cores", "memory_gib", "gpus")
_ENDED = ("done", "failed", "killed", "cancelled")
_STATES = ("done", "failed", "killed", "cancelled", "refused", "running", "waiting")
_BETTER = {"done_jobs": "higher", "failed_jobs": "lower", "killed_jobs": "lower", "refused_jobs": "lower"}

KPIS: dict[str, tuple[str, str]] = {
    "jobs": ("job", "neither"),
    **{f"{state}_jobs": ("job", _BETTER.get(f"{state}_jobs", "neither")) for state in _STATES},
    **{f"{what}_{how}_s": ("s", "lower") for what in ("wait", "response") for how in ("mean", "median", "p95")},
    **{
        f"{what}_{how}": ("ratio", "lower")
        for what in ("slowdown", "bounded_slowdown")
        for how in ("mean", "median", "p95")
    },
    "restarts": ("count", "lower"),
    "restart_ratio": ("ratio", "lower"),
    "deadline_miss_ratio": ("ratio", "lower"),
    "limit_slack_ratio": ("ratio", "neither"),
    "cpu_slack_ratio": ("ratio", "lower"),
    "memory_slack_ratio": ("ratio", "lower"),
    "throughput_jobs_h": ("job/h", "higher"),
    "makespan_s": ("s", "lower"),
    "fairness_slowdown": ("ratio", "higher"),
    "fairness_core_share": ("ratio", "higher"),
    "core_h": ("core*h", "neither"),
    "gpu_h": ("GPU*h", "neither"),
    **{f"utilisation_{resource}_ratio": ("ratio", "higher") for resource in RESOURCES},
    "cost_usd": ("USD", "lower"),
}
"""Unit and better direction of each KPI of `kpis`."""
STRANDING: dict[str, tuple[str, str]] = {
    "empty_machines": ("machine", "neither"),
    **{
        f"{what}_{resource}_ratio": ("ratio", "lower")
        for resource in RESOURCES
        for what in ("stranded", "fragmentation")
    },
}
"""Unit and better direction of each KPI of `stranding`."""


def kpis(
    outcomes: pl.DataFrame,
    *,
    machines: Machines | None = None,
    placements: pl.DataFrame | None = None,
    jobs: pl.DataFrame | None = None,
    by: Sequence[Group] = (),
    span_s: tuple[float, float] | None = None,
    powered_h: NDArray[np.float64] | None = None,
) -> pl.DataFrame:
    """The `kpis` table of the whole (entity "cluster") and of each part ("user:17", "queue:night", "pool:small").

    Args:
        outcomes: schema `outcomes`.
        machines: what the jobs ran on; without it utilisation and cost are unscored.
        placements: schema `placements`; without it a job counts as holding what it asked for during its `run_s` up to
            its end, which is exact for jobs that were started once, and there is neither cost nor pool.
        jobs: schema `jobs`, for what was really used.
        by: parts to tell apart. A job counts in each pool in which it lay; what it held, only where it lay.
        span_s: from when until when; by default from the first arrival to the last moment in `outcomes`.
        powered_h: hours in which each machine was powered within the span [machines]; by default those in which it
            held anything.

    Raises:
        UsageError: pools without machines and placements, or a span of no length.
        SimulationError: a placement on a machine that is not among `machines`.
    """
    if "pool" in by and (machines is None or placements is None):
        raise UsageError("KPIs by pool need machines and placements: give both, or leave 'pool' out of by")
    span = span_s or _span(outcomes)
    if span_s and span_s[1] <= span_s[0]:
        raise UsageError(f"span_s={span_s} has no length: its end must lie after its start")
    told = measures(outcomes).filter(pl.col("submit_s").is_between(*span), pl.col("state") != "expected")
    told = told.join(_used(jobs), on="job", how="left", maintain_order="left")
    if placements is None or machines is None:
        held = _assumed(outcomes, placements, span)
    else:
        held = _costed(_clipped(machines, placements, span), machines, placements, span, powered_h)
    held = held.join(outcomes.select("job", "user", "queue"), on="job", how="left", maintain_order="left")
    frames = [_of(kind, told, held, machines, span) for kind in (CLUSTER, *by)]
    return tables.conform(pl.concat(frames), "kpis", "job_metrics")


def measures(outcomes: pl.DataFrame, *, bound_s: float = BOUND_S) -> pl.DataFrame:
    """The outcomes with `response_s`, `slowdown` and `bounded_slowdown`; null unless the job started and ended."""
    run, wait = pl.col("run_s"), pl.col("wait_s")
    ended = pl.col("start_s").is_not_null() & pl.col("end_s").is_not_null() & pl.col("state").is_in(_ENDED)
    slow = pl.when(run > 0).then((wait + run) / run).otherwise(1.0 + wait)
    bounded = ((wait + run) / run.clip(lower_bound=bound_s)).clip(lower_bound=1.0)
    return outcomes.with_columns(
        response_s=pl.when(ended).then(pl.col("end_s") - pl.col("submit_s")),
        slowdown=pl.when(ended).then(slow),
        bounded_slowdown=pl.when(ended).then(bounded),
    )


def jain(values: pl.Expr) -> pl.Expr:
    """Jain's fairness index (sum x)^2 / (n sum x^2), in [1/n, 1]; null where nothing is above zero.

    Jain, Chiu and Hawe, DEC-TR-301, 1984. Nulls are left out.
    """
    # against the largest, so that squares neither vanish nor overflow
    scaled = values / values.max()
    return (scaled.sum().pow(2) / (scaled.count() * scaled.pow(2).sum())).fill_nan(None)


def cdf(outcomes: pl.DataFrame, column: str, points: int = 101) -> pl.DataFrame:
    """The distribution of a column of `measures`: (column, value, share), `points` rows with share from 0 to 1.

    `value` is the smallest one that at least `share` of the known values do not exceed; a table without rows where
    none is known. Raises UsageError for an unknown column or fewer than two points.
    """
    told = measures(outcomes)
    if column not in told.columns or not told[column].dtype.is_numeric():
        raise UsageError(
            f"no distribution of {column!r}; numeric columns: {told.select(pl.selectors.numeric()).columns}"
        )
    if points < 2:
        raise UsageError(f"points={points}: a distribution needs at least 2")
    values = np.sort(told[column].drop_nulls().cast(pl.Float64).to_numpy())
    share = np.linspace(0.0, 1.0, points) if len(values) else np.empty(0)
    # whole places survive the rounding of share x count
    place = np.maximum(np.ceil(np.round(share * len(values), 9)).astype(np.int64) - 1, 0)
    frame = pl.DataFrame({"value": values[place], "share": share})
    return frame.select(pl.lit(column).alias("column"), "value", "share")


# ---------------------------------------------------------------- parts and the whole


def _span(outcomes: pl.DataFrame) -> tuple[float, float]:
    run_end = pl.col("start_s") + pl.when(pl.col("end_s").is_null()).then("run_s").otherwise(0.0)
    ends = outcomes.select(pl.max_horizontal("submit_s", "end_s", run_end).max()).item()
    begin = outcomes.select(pl.col("submit_s").min()).item()
    return (begin or 0.0, ends or 0.0)


def _of(
    kind: str, told: pl.DataFrame, held: pl.DataFrame, machines: Machines | None, span: tuple[float, float]
) -> pl.DataFrame:
    if kind == "pool":
        pools = held.select("job", "pool").drop_nulls().unique(maintain_order=True)
        told = told.join(pools, on="job", maintain_order="left_right")
    told, held = _labelled(told, kind), _labelled(held, kind)
    whole = pl.DataFrame({"entity": [CLUSTER] if kind == CLUSTER else []}, schema={"entity": pl.String})
    entities = pl.concat([whole, told.select("entity"), held.select("entity")]).unique().sort("entity")
    wide = entities.join(told.group_by("entity").agg(**_of_jobs(span)), on="entity", how="left")
    wide = wide.join(_fairness(told, held, kind), on="entity", how="left")
    wide = wide.join(_of_held(held, machines, kind, span), on="entity", how="left")
    order = pl.DataFrame(
        [(kpi, place, unit, better) for place, (kpi, (unit, better)) in enumerate(KPIS.items())],
        schema=["kpi", "_place", "unit", "better"],
        orient="row",
    )
    tidy = wide.select("entity", pl.col(list(KPIS)).cast(pl.Float64).fill_nan(None)).unpivot(
        index="entity", variable_name="kpi"
    )
    return tidy.join(order, on="kpi").sort("entity", "_place").drop("_place")


def _labelled(frame: pl.DataFrame, kind: str) -> pl.DataFrame:
    name = pl.lit(CLUSTER) if kind == CLUSTER else pl.lit(f"{kind}:") + pl.col(kind)
    return frame.with_columns(entity=name).filter(pl.col("entity").is_not_null())


def _of_jobs(span: tuple[float, float]) -> dict[str, pl.Expr]:
    done, late = _verdicts(span[1])
    starts, hours = pl.col("attempts"), (span[1] - span[0]) / 3600.0
    beyond = (starts - 1).clip(lower_bound=0).sum()
    slack = 1.0 - pl.col("run_s") / pl.col("limit_s")
    made = {
        "jobs": pl.len(),
        **{f"{state}_jobs": (pl.col("state") == state).sum() for state in _STATES},
        "restarts": beyond,
        "restart_ratio": beyond / starts.sum(),
        "deadline_miss_ratio": late.mean(),
        "limit_slack_ratio": slack.filter(done & (pl.col("limit_s") > 0)).mean(),
        "cpu_slack_ratio": _slack("cpu"),
        "memory_slack_ratio": _slack("memory"),
        "throughput_jobs_h": done.sum() / hours if hours > 0 else pl.lit(None),
        "makespan_s": pl.col("end_s").max() - pl.col("submit_s").min(),
    }
    for column in ("wait_s", "response_s", "slowdown", "bounded_slowdown"):
        stem, unit = (column[:-2], "_s") if column.endswith("_s") else (column, "")
        made[f"{stem}_mean{unit}"] = pl.col(column).mean()
        made[f"{stem}_median{unit}"] = pl.col(column).median()
        made[f"{stem}_p95{unit}"] = pl.col(column).quantile(0.95, "linear")
    return made


def _verdicts(until_s: float) -> tuple[pl.Expr, pl.Expr]:
    """Is the job done; did it miss its deadline (null: it has none, was cancelled, or may still make it)."""
    state, deadline = pl.col("state"), pl.col("deadline_s")
    done = state == "done"
    late = (
        pl.when(deadline.is_null() | (state == "cancelled"))
        .then(None)
        .when(done)
        .then(pl.col("end_s") > deadline)
        .when(state.is_in(("failed", "killed", "refused")) | (deadline < until_s))
        .then(statement=True)
    )
    return done, late


def _slack(resource: str) -> pl.Expr:
    asked, used, run = pl.col(f"_asked_{resource}"), pl.col(f"_used_{resource}"), pl.col("run_s")
    known = asked.is_not_null() & used.is_not_null()
    return 1.0 - (used * run).filter(known).sum() / (asked * run).filter(known).sum()


def _used(jobs: pl.DataFrame | None) -> pl.DataFrame:
    told = tables.empty("jobs") if jobs is None else jobs
    return told.select(
        "job",
        *(pl.col(c).alias(f"_asked_{r}") for c, r in (("cpu_cores", "cpu"), ("memory_gib", "memory"))),
        *(pl.col(f"used_{c}").alias(f"_used_{r}") for c, r in (("cpu_cores", "cpu"), ("memory_gib", "memory"))),
    ).with_columns(pl.col("^_.*$") * told["instances"])


def _fairness(told: pl.DataFrame, held: pl.DataFrame, kind: str) -> pl.DataFrame:
    keys = ["entity", "user"]
    known = pl.col("user").is_not_null() & pl.lit(kind != "user")  # one user alone is neither fair nor unfair
    slow = told.filter(known).group_by(keys).agg(_slow=pl.col("bounded_slowdown").mean())
    share = held.filter(known).group_by(keys).agg(_share=(pl.col("cpu_cores") * pl.col("seconds")).sum())
    users = slow.join(share, on=keys, how="full", coalesce=True).sort(keys)  # sums round by their order
    return users.group_by("entity").agg(
        fairness_slowdown=jain(pl.col("_slow")), fairness_core_share=jain(pl.col("_share").fill_null(0.0))
    )


def _of_held(held: pl.DataFrame, machines: Machines | None, kind: str, span: tuple[float, float]) -> pl.DataFrame:
    seconds, length_s = pl.col("seconds"), span[1] - span[0]
    sums = {
        f"_{resource}": pl.when(pl.col(amount).is_not_null().all()).then((pl.col(amount) * seconds).sum())
        for resource, amount in zip(RESOURCES, _AMOUNTS, strict=True)
    }
    wide = held.group_by("entity").agg(
        **sums, cost_usd=pl.when(pl.col("cost_usd").count() > 0).then(pl.col("cost_usd").sum())
    )
    wide = wide.join(_capacity(machines, kind, wide["entity"]), on="entity", how="left")
    return wide.select(
        "entity",
        "cost_usd",
        core_h=pl.col("_cpu") / 3600.0,
        gpu_h=pl.col("_gpu") / 3600.0,
        **{
            f"utilisation_{r}_ratio": pl.when(pl.col(f"_of_{r}") * length_s > 0).then(
                pl.col(f"_{r}") / (pl.col(f"_of_{r}") * length_s)
            )
            for r in RESOURCES
        },
    )


def _capacity(machines: Machines | None, kind: str, entities: pl.Series) -> pl.DataFrame:
    """What each entity's share is measured against: the pool's own capacity, else that of all machines."""
    amounts = np.full((len(entities), len(RESOURCES)), np.nan)
    if machines is not None:
        known = np.where(machines.capacity >= UNLIMITED, np.nan, machines.capacity / UNITS)
        for row, entity in enumerate(entities):
            number = machines.pools.index(entity.removeprefix("pool:")) if kind == "pool" else None
            amounts[row] = known[machines.pool == number if number is not None else slice(None)].sum(axis=0)
    columns = {f"_of_{resource}": amounts[:, i] for i, resource in enumerate(RESOURCES)}
    return pl.DataFrame({"entity": entities, **columns}).with_columns(pl.col("^_of_.*$").fill_nan(None))


# ---------------------------------------------------------------- what was held


def _assumed(outcomes: pl.DataFrame, placements: pl.DataFrame | None, span: tuple[float, float]) -> pl.DataFrame:
    if placements is not None:
        held = placements.select("job", "start_s", "end_s", *_AMOUNTS)
    else:
        # the last attempt may have ended long before the job was given up: never later than its start allows
        start = pl.min_horizontal(pl.col("start_s"), pl.col("end_s") - pl.col("run_s"))
        ran = outcomes.filter(pl.col("start_s").is_not_null())
        held = ran.select("job", start.alias("start_s"), (start + pl.col("run_s")).alias("end_s"), *_AMOUNTS)
    return _within(held, span).with_columns(
        machine=pl.lit(None, pl.Int64), pool=pl.lit(None, pl.String), cost_usd=pl.lit(None, pl.Float64)
    )


def _within(held: pl.DataFrame, span: tuple[float, float]) -> pl.DataFrame:
    clipped = held.with_columns(pl.col("start_s", "end_s").clip(*span))
    return clipped.with_columns(seconds=pl.col("end_s") - pl.col("start_s")).filter(pl.col("seconds") > 0)


def _clipped(machines: Machines, placements: pl.DataFrame, span: tuple[float, float]) -> pl.DataFrame:
    places = pl.DataFrame(
        {
            "node": pl.Series(machines.names, dtype=pl.String),
            "machine": np.arange(len(machines), dtype=np.int64),
            "pool": pl.Series([machines.pools[p] for p in machines.pool.tolist()], dtype=pl.String),
        }
    )
    held = placements.select("job", "node", "start_s", "end_s", *_AMOUNTS).join(
        places, on="node", how="left", maintain_order="left"
    )
    if held["machine"].null_count():
        unknown = held.filter(pl.col("machine").is_null())["node"][0]
        raise SimulationError(f"placements: machine {unknown!r} is not among the {len(machines)} machines given")
    return _within(held, span)


def _costed(
    held: pl.DataFrame,
    machines: Machines,
    placements: pl.DataFrame,
    span: tuple[float, float],
    powered_h: NDArray[np.float64] | None,
) -> pl.DataFrame:
    """What was held with its part of the machine's cost, and a row without job for each machine that held nothing."""
    columns = ["job", "machine", "pool", "seconds", *_AMOUNTS]
    if not machines.price_usd_h.any():  # nobody told a price
        return held.select(columns).with_columns(cost_usd=pl.lit(None, pl.Float64))
    hours = _busy_s(machines, placements, span) / 3600.0 if powered_h is None else powered_h
    cost = pl.DataFrame({"machine": np.arange(len(machines)), "_cost": hours * machines.price_usd_h})
    weight = pl.col("cpu_cores") * pl.col("seconds")
    total = weight.sum().over("machine")
    # what asks for no cores at all shares a machine by time
    part = (
        pl.when(total > 0).then(weight / total).otherwise(pl.col("seconds") / pl.col("seconds").sum().over("machine"))
    )
    split = held.join(cost, on="machine", how="left").with_columns(cost_usd=part * pl.col("_cost"))
    used = set(held["machine"].to_list())
    idle = [m for m in range(len(machines)) if m not in used]
    rest = pl.DataFrame(
        {
            "machine": pl.Series(idle, dtype=pl.Int64),
            "pool": pl.Series([machines.pools[machines.pool[m]] for m in idle], dtype=pl.String),
            "cost_usd": cost["_cost"].gather(idle),
        }
    ).with_columns(pl.lit(0.0).alias(c) for c in ("seconds", *_AMOUNTS))
    return pl.concat([split.select(*columns, "cost_usd"), rest], how="diagonal")


# ---------------------------------------------------------------- machines over time


def _segments(machines: Machines, placements: pl.DataFrame, span: tuple[float, float]) -> pl.DataFrame:
    """Stretches in which what a machine holds does not change: machine, seconds, jobs and held small units."""
    held = _clipped(machines, placements, span)
    whole = [(pl.col(a).fill_null(0.0) * UNITS[i]).round().cast(pl.Int64).alias(a) for i, a in enumerate(_AMOUNTS)]
    taken = held.select("machine", "start_s", "end_s", *whole, pl.lit(1, pl.Int64).alias("jobs"))
    amounts = pl.col(*_AMOUNTS, "jobs")
    rims = pl.DataFrame({"machine": np.arange(len(machines)), "time_s": [list(span)] * len(machines)}).explode("time_s")
    steps = pl.concat(
        [
            taken.select("machine", pl.col("start_s").alias("time_s"), amounts),
            taken.select("machine", pl.col("end_s").alias("time_s"), -amounts),
            rims.with_columns(pl.lit(0, pl.Int64).alias(c) for c in (*_AMOUNTS, "jobs")),
        ]
    )
    merged = steps.group_by("machine", "time_s").agg(amounts.sum()).sort("machine", "time_s")
    return merged.with_columns(
        amounts.cum_sum().over("machine"),
        seconds=pl.col("time_s").shift(-1).over("machine") - pl.col("time_s"),
    ).filter(pl.col("seconds") > 0)


def _busy_s(machines: Machines, placements: pl.DataFrame, span: tuple[float, float]) -> NDArray[np.float64]:
    busy = _segments(machines, placements, span).filter(pl.col("jobs") > 0)
    held_s = np.zeros(len(machines))
    np.add.at(held_s, busy["machine"].to_numpy(), busy["seconds"].to_numpy())
    return held_s


def stranding(
    machines: Machines,
    placements: pl.DataFrame,
    *,
    at_s: float | None = None,
    span_s: tuple[float, float] | None = None,
    least: tuple[float, float, float] = (1e-6, 2.0**-20, 1e-6),
    moments: int = 96,
) -> pl.DataFrame:
    """The `kpis` of room that nobody can use, per resource, at the moment `at_s` or over `span_s`.

    stranded_*_ratio        free amount on machines where another resource is exhausted / all that is free. A resource
                            is exhausted where less than `least` of it is free (cores, GiB, GPUs; by default: nothing)
                            on a machine that has any. Over a span both are amount x time, so that it is the share of
                            the free core-hours
    fragmentation_*_ratio   1 - largest free amount on one machine / all that is free; over a span the mean of
                            `moments` evenly spaced moments at which anything is free
    empty_machines          machines that hold nothing; over a span their mean number

    Unscored (null): a resource whose capacity or use is not known, or of which nothing is free. Raises UsageError
    unless exactly one of `at_s` and `span_s` is given.
    """
    if (at_s is None) == (span_s is None):
        raise UsageError("stranding needs either a moment at_s or a span span_s, and not both")
    if at_s is not None:
        held, count = _held_at(machines, placements, at_s)
        free, seconds, empty = [machines.capacity - held], np.ones(len(machines)), float((count == 0).sum())
        rows, capacity = free[0], machines.capacity
    else:
        begin, end = span_s or (0.0, 0.0)
        parts = _segments(machines, placements, (begin, end))
        capacity = machines.capacity[parts["machine"].to_numpy()]
        rows, seconds = capacity - parts.select(_AMOUNTS).to_numpy(), parts["seconds"].to_numpy()
        empty = float(seconds[parts["jobs"].to_numpy() == 0].sum()) / (end - begin)
        at = begin + (np.arange(moments) + 0.5) * (end - begin) / moments
        free = [machines.capacity - _held_at(machines, placements, t)[0] for t in at.tolist()]
    stranded = _stranded(rows, capacity, seconds, np.maximum(np.round(np.array(least) * UNITS), 1.0))
    broken = np.array([_fragmented(f) for f in free])
    known = (machines.capacity < UNLIMITED).all(axis=0)
    known &= np.array([placements[a].null_count() == 0 for a in _AMOUNTS])
    told: dict[str, float | None] = {"empty_machines": empty}
    for i, resource in enumerate(RESOURCES):
        scored = broken[:, i][~np.isnan(broken[:, i])]
        told[f"stranded_{resource}_ratio"] = _scored(stranded[i], known[i])
        mean = float(scored.mean()) if len(scored) else np.nan
        told[f"fragmentation_{resource}_ratio"] = _scored(mean, known[i])
    frame = pl.DataFrame(
        [(kpi, CLUSTER, told[kpi], *facts) for kpi, facts in STRANDING.items()],
        schema=["kpi", "entity", "value", "unit", "better"],
        orient="row",
        infer_schema_length=None,
    )
    return tables.conform(frame, "kpis", "job_metrics")


def _scored(value: float, known: np.bool_) -> float | None:
    return float(value) if known and not np.isnan(value) else None


def _held_at(machines: Machines, placements: pl.DataFrame, at_s: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Small units held [machines, resources] and how many jobs' shares lie there [machines], at a moment."""
    now = placements.filter(pl.col("start_s") <= at_s, pl.col("end_s") > at_s)
    there = _clipped(machines, now, (at_s, np.inf))
    machine = there["machine"].to_numpy()
    held = np.zeros(machines.capacity.shape, dtype=np.int64)
    amounts = there.select(pl.col(_AMOUNTS).fill_null(0.0)).to_numpy() * UNITS
    np.add.at(held, machine, np.round(amounts).astype(np.int64))
    return held, np.bincount(machine, minlength=len(machines))


def _stranded(
    free: NDArray[np.int64], capacity: NDArray[np.int64], seconds: NDArray[np.float64], least: NDArray[np.float64]
) -> NDArray[np.float64]:
    exhausted = (free < least) & (capacity > 0) & (capacity < UNLIMITED)
    weight = np.maximum(free, 0) * seconds[:, None]
    # another one: all exhausted resources of the machine but the one that is asked about
    other = exhausted.sum(axis=1, keepdims=True) > exhausted
    whole = weight.sum(axis=0)
    return np.divide((weight * other).sum(axis=0), whole, out=np.full(len(least), np.nan), where=whole > 0)


def _fragmented(free: NDArray[np.int64]) -> NDArray[np.float64]:
    room = np.maximum(free, 0).astype(np.float64)
    whole = room.sum(axis=0)
    return 1.0 - np.divide(room.max(axis=0), whole, out=np.full(room.shape[1], np.nan), where=whole > 0)
