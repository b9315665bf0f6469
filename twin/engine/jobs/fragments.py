"""What jobs really use over time, and the energy of the machines that they lie on.

A fragment is a stretch of time in which a placed job uses its processor evenly. The recording tells fragments in
recorded time; they are carried over by their offset from the recorded start of the job, so that a job which starts
later in the twin uses later what it used:

- a job whose start was not recorded began with its first step;
- a step reaches no further than the next one, and up to it where no length is told, the last one up to the end of the
  job; what lies beyond the end of the placement is cut off, and where no step was recorded nothing is used;
- use in MHz or cores is that of the whole job and falls evenly to its instances; use in percent is that of the cores
  it holds;
- a job without recorded steps uses `used_cpu_cores` for each instance all the time, or all that it holds.

Use is in millionths of a core, whole numbers, so that sums over a machine are exact and end at zero. The cores of a
machine are one processor whose draw follows the used share (the model of OpenDC, Mastenbroek et al., CCGrid 2021).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from twin.engine.jobs.machines import CPU, UNITS, Machines
from twin.errors import SimulationError

_TOUCH_S = 1e-6
"""Fragments that lie nearer than that follow each other without a gap."""
_PERCENT = ("percent", "%")
_CORES = ("core", "cores")


@dataclass(frozen=True, slots=True)
class Fragments:
    """The fragments of all placements, by machine and start; those of a placement are in the order of time.

    `placement` is the row of the table of placements; the fragments of the i-th one are `first[i]:first[i + 1]`.
    `used` is in millionths of a core, which may be more than the machine has.
    """

    placement: NDArray[np.int64]  # [placements]
    machine: NDArray[np.int64]  # [placements]
    start_s: NDArray[np.float64]  # [placements]
    first: NDArray[np.int64]  # [placements + 1]
    begin_s: NDArray[np.float64]  # [fragments]
    end_s: NDArray[np.float64]  # [fragments]
    used: NDArray[np.int64]  # [fragments]


@dataclass(frozen=True, slots=True)
class Profile:
    """What is asked of each machine over time: `used` millionths of a core from `time_s` to the next point.

    The points of machine m are `first[m]:first[m + 1]`; before the first one and from the last one on it is idle.
    """

    first: NDArray[np.int64]  # [machines + 1]
    time_s: NDArray[np.float64]  # [points]
    used: NDArray[np.int64]  # [points]


@dataclass(frozen=True, slots=True)
class _Steps:
    """Recorded steps by job: those of job j are `first[j]` and the `count[j]` rows from there."""

    jobs: pl.DataFrame  # job, first, count, unit
    offset_s: NDArray[np.float64]
    step_s: NDArray[np.float64]
    value: NDArray[np.float64]


def fragments(
    placements: pl.DataFrame,
    usage: pl.DataFrame,
    jobs: pl.DataFrame,
    machines: Machines,
    *,
    core_mhz: float | None = None,
    done_s: NDArray[np.float64] | None = None,
) -> Fragments:
    """What each placement uses, as fragments in simulated time.

    Args:
        placements: canonical table; where jobs lie in the twin.
        usage: canonical table in recorded time; rows of resource "cpu" whose entity is a job count.
        jobs: canonical table; `start_s` as recorded, `instances` and `used_cpu_cores` are read.
        machines: those that the placements name.
        core_mhz: clock of one core; needed where use is told in MHz.
        done_s: seconds of its run that a job had behind it at the start of each placement [placements] (none: 0).

    Raises:
        SimulationError: a placement names an unknown machine, or use is told in a unit that means nothing here.
    """
    rows = _rows(placements, jobs, machines, done_s)
    steps = _steps(usage.filter(pl.col("resource") == "cpu") if usage.height else usage, jobs)
    rows = rows.join(steps.jobs, on="job", how="left", maintain_order="left")
    scale = _scale(rows, core_mhz) * UNITS[CPU]
    told = rows["first"].is_not_null().to_numpy()
    # a placement without steps is one fragment of constant use: it gets a step of its own behind the recorded ones
    count = rows["count"].fill_null(1).to_numpy()
    first = rows["first"].fill_null(0).to_numpy().copy()
    first[~told] = len(steps.value) + np.arange((~told).sum())
    constant = rows.filter(~pl.Series(told))
    offset_s = np.concatenate((steps.offset_s, constant["done_s"].to_numpy()))
    step_s = np.concatenate((steps.step_s, np.full(constant.height, np.inf)))
    value = np.concatenate((steps.value, constant["constant"].to_numpy()))

    owner = np.repeat(np.arange(rows.height), count)
    step = np.arange(len(owner)) + np.repeat(first - (np.cumsum(count) - count), count)
    start_s, end_s = rows["start_s"].to_numpy(), rows["end_s"].to_numpy()
    begin = (start_s - rows["done_s"].to_numpy())[owner] + offset_s[step]
    end = np.minimum(begin + step_s[step], end_s[owner])
    begin = np.maximum(begin, start_s[owner])
    used = np.rint(value[step] * scale[owner]).astype(np.int64)
    seen = end > begin
    if not seen.all():
        owner, begin, end, used = owner[seen], begin[seen], end[seen], used[seen]
    return Fragments(
        placement=rows["row"].to_numpy(),
        machine=rows["machine"].to_numpy(),
        start_s=start_s,
        first=np.searchsorted(owner, np.arange(rows.height + 1)),
        begin_s=begin,
        end_s=end,
        used=used,
    )


def profile(pieces: Fragments, machines: Machines) -> Profile:
    """What is asked of each machine over time: the sum of the fragments that lie on it."""
    owner = np.repeat(np.arange(len(pieces.machine)), np.diff(pieces.first))
    # one change for each fragment that follows another, two for one with a gap behind it
    follows = np.zeros(len(owner), dtype=bool)
    follows[1:] = (owner[1:] == owner[:-1]) & (pieces.begin_s[1:] - pieces.end_s[:-1] <= _TOUCH_S)
    before = np.where(follows, np.roll(pieces.used, 1), 0)
    falls = ~np.append(follows[1:], False)[: len(owner)]
    place = np.arange(len(owner)) + np.cumsum(falls) - falls
    size = len(owner) + int(falls.sum())
    machine, time_s, change = np.empty(size, np.int64), np.empty(size), np.empty(size, np.int64)
    for at, which, when, how in (
        (place, slice(None), pieces.begin_s, pieces.used - before),
        (place[falls] + 1, falls, pieces.end_s, -pieces.used),
    ):
        machine[at], time_s[at], change[at] = pieces.machine[owner[which]], when[which], how[which]
    return _summed(machine, time_s, change, len(machines))


def energy_j(asked: Profile, machines: Machines, begin_s: float, end_s: float) -> NDArray[np.float64]:
    """Joules of each machine between two times [machines], idle ones included.

    A machine draws idle_w + (full_w - idle_w) u^e, with u the used share of its processor (at most 1) and e the
    exponent of its pool's power curve.

    Raises:
        SimulationError: the end lies before the begin.
    """
    if end_s < begin_s:
        raise SimulationError(f"energy from {begin_s} s to {end_s} s: the end lies before the begin")
    powers = [machines.power[pool] for pool in machines.pool]
    idle_w = np.array([power.idle_w for power in powers])
    span_w = np.array([power.full_w for power in powers]) - idle_w
    exponent = np.array([power.exponent for power in powers])
    machine, share = _machine(asked), used_share(asked, machines)
    raised = np.empty(len(share))
    for each in np.unique(exponent):
        own = exponent[machine] == each
        raised[own] = share[own] ** each
    lasted_s = _lasted_s(asked, begin_s, end_s)
    return idle_w * (end_s - begin_s) + span_w * np.bincount(machine, raised * lasted_s, len(machines))


def used_share(asked: Profile, machines: Machines) -> NDArray[np.float64]:
    """Used share of the processor at each point of the profile [points]: what is asked, at most 1."""
    cores = np.maximum(machines.capacity[:, CPU], 1)
    return np.minimum(asked.used / np.repeat(cores, np.diff(asked.first)), 1.0)


def overcommitted(asked: Profile, machines: Machines) -> pl.DataFrame:
    """Machines that are ever asked for more than they have: `node`, `over_s` in all, `most_cores` asked at once."""
    machine = _machine(asked)
    over = asked.used > machines.capacity[machine, CPU]
    lasted_s = np.where(over, _lasted_s(asked, -np.inf, np.inf), 0.0)
    most = np.zeros(len(machines), dtype=np.int64)
    np.maximum.at(most, machine[over], asked.used[over])
    found = np.unique(machine[over])
    return pl.DataFrame(
        {
            "node": [machines.names[i] for i in found],
            "over_s": np.bincount(machine, lasted_s, len(machines))[found],
            "most_cores": most[found] / UNITS[CPU],
        },
        schema={"node": pl.String, "over_s": pl.Float64, "most_cores": pl.Float64},
    )


def _rows(
    placements: pl.DataFrame, jobs: pl.DataFrame, machines: Machines, done_s: NDArray[np.float64] | None
) -> pl.DataFrame:
    """The placements by machine and start, with what the table of jobs tells about them."""
    number = pl.DataFrame({"node": machines.names, "machine": np.arange(len(machines))})
    told = jobs.select("job", pl.col("instances").alias("of"), "used_cpu_cores")
    rows = (
        placements.select("job", "node", "start_s", "end_s", "instances", "cpu_cores")
        .with_columns(
            row=pl.int_range(pl.len(), dtype=pl.Int64),
            done_s=pl.lit(pl.Series(np.zeros(placements.height) if done_s is None else done_s)),
        )
        .join(number, on="node", how="left", maintain_order="left")
        .join(told, on="job", how="left", maintain_order="left")
        .with_columns(
            part=pl.col("instances") / pl.coalesce("of", "instances"),
            constant=pl.coalesce(pl.col("used_cpu_cores") * pl.col("instances"), "cpu_cores"),
        )
    )
    if rows["machine"].null_count():
        row, name = rows.filter(pl.col("machine").is_null()).select("row", "node").row(0)
        raise SimulationError(f"row {row + 1} of the placements: {name!r} is none of the {len(machines)} machines")
    return rows.sort("machine", "start_s", maintain_order=True)


def _steps(usage: pl.DataFrame, jobs: pl.DataFrame) -> _Steps:
    """The recorded steps as they lie, by job; put in order first where they are not."""
    runs = _runs(usage)
    time_s = usage["time_s"].to_numpy()
    inside = np.ones(max(0, len(time_s) - 1), dtype=bool)
    inside[runs["first"].to_numpy()[1:] - 1] = False
    if runs["job"].is_duplicated().any() or (np.diff(time_s)[inside] < 0).any():
        usage = usage.sort("entity", "time_s")
        runs, time_s = _runs(usage), usage["time_s"].to_numpy()
    first, count = runs["first"].to_numpy(), runs["count"].to_numpy()
    known = runs.join(jobs.select("job", "start_s"), on="job", how="left", maintain_order="left")["start_s"]
    start_s = np.where(known.is_null().to_numpy(), time_s[first], known.fill_null(0.0).to_numpy())
    until_next = np.append(np.diff(time_s), np.inf)[: len(time_s)]
    until_next[first + count - 1] = np.inf
    return _Steps(
        jobs=runs.with_columns(unit=usage["unit"].gather(runs["first"])),
        offset_s=time_s - np.repeat(start_s, count),
        step_s=np.minimum(usage["step_s"].fill_null(np.inf).to_numpy(), until_next),
        value=usage["value"].to_numpy(),
    )


def _runs(usage: pl.DataFrame) -> pl.DataFrame:
    """Where the rows of one job after the other lie: job, first, count."""
    runs = usage["entity"].rle().struct.unnest()
    return runs.select(
        job=pl.col("value").cast(pl.String),
        first=(pl.col("len").cum_sum() - pl.col("len")).cast(pl.Int64),
        count=pl.col("len").cast(pl.Int64),
    )


def _scale(rows: pl.DataFrame, core_mhz: float | None) -> NDArray[np.float64]:
    """Cores that one unit of a placement's values stands for [rows]."""
    units = set(rows["unit"].drop_nulls())
    unknown = sorted(units - {"MHz", *_CORES, *_PERCENT})
    if unknown:
        raise SimulationError(f"CPU use in {unknown[0]!r} cannot be replayed; it must be in core, MHz or percent")
    if "MHz" in units and not (core_mhz and core_mhz > 0):
        raise SimulationError("CPU use is told in MHz, which no machine tells: give core_mhz, the clock of one core")
    unit = pl.col("unit")
    return rows.select(
        pl.when(unit.is_null())
        .then(1.0)
        .when(unit.is_in(_PERCENT))
        .then(pl.col("cpu_cores") / 100)
        .when(unit == "MHz")
        .then(pl.col("part") / (core_mhz or 1.0))
        .otherwise("part")
        .alias("scale")
    )["scale"].to_numpy()


def _summed(
    machine: NDArray[np.int64], time_s: NDArray[np.float64], change: NDArray[np.int64], machines: int
) -> Profile:
    """Changes added up over each machine; sorted only where placements overlap."""
    ahead = (machine[1:] == machine[:-1]) & (time_s[1:] < time_s[:-1])
    if ahead.any():
        order = np.lexsort((time_s, machine))
        machine, time_s, change = machine[order], time_s[order], change[order]
    # the changes of a machine come to nothing, so that one running sum serves them all
    used = np.cumsum(change)
    last = np.ones(len(time_s), dtype=bool)
    last[:-1] = (machine[1:] != machine[:-1]) | (time_s[1:] != time_s[:-1])
    machine, time_s, used = machine[last], time_s[last], used[last]
    return Profile(np.searchsorted(machine, np.arange(machines + 1)), time_s, used)


def _machine(asked: Profile) -> NDArray[np.int64]:
    """The machine of each point [points]."""
    return np.repeat(np.arange(len(asked.first) - 1), np.diff(asked.first))


def _lasted_s(asked: Profile, begin_s: float, end_s: float) -> NDArray[np.float64]:
    """How long each point's use lasted between two times [points]; 0 for the last of a machine, which uses nothing."""
    until = np.append(asked.time_s[1:], 0.0)[: len(asked.time_s)]
    ends = asked.first[1:][np.diff(asked.first) > 0] - 1
    until[ends] = asked.time_s[ends]
    return np.maximum(np.minimum(until, end_s) - np.maximum(asked.time_s, begin_s), 0.0)
