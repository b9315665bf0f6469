"""The front door for jobs: `schedule(trace, machines, scheduler) -> Replay`, `recorded(trace, machines) -> JobRun`.

Both leave the same tables, so that a policy and the recording are scored and shown alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl

from twin import job_metrics
from twin.engine.jobs import outcomes, workload
from twin.engine.jobs.machines import CPU, SIZES, Machines
from twin.engine.jobs.scheduler import Outage, Scheduler
from twin.engine.jobs.simulator import JobTwin
from twin.errors import SimulationError
from twin.fidelity import scorecard
from twin.trace import tables
from twin.trace.trace import Trace

if TYPE_CHECKING:
    from twin.engine.jobs.window import WindowTwin

MEASURES = ("wait_s", "response_s", "bounded_slowdown")
"""What `job_cdf` tells the distribution of."""
_STRIDES = 50
_NOBODY = ("user:", "queue:")  # what jobs belong to that tell none


@dataclass(frozen=True, slots=True)
class JobRun:
    """What became of the jobs, as checked tables, and where they ran.

    `placements` has no row where the recording does not say where every job ran.
    """

    machines: Machines
    outcomes: pl.DataFrame
    placements: pl.DataFrame
    until_s: float
    source: Literal["twin", "recorded"]

    def tables(self) -> dict[str, pl.DataFrame]:
        """The tables by name, as a run folder holds them."""
        return {"outcomes": self.outcomes, "placements": self.placements}

    def room(self) -> dict[str, float]:
        """How many machines there are (`count`) and what they hold together; an unpublished size is left out."""
        held = dict(zip(SIZES, self.machines.total().tolist(), strict=True))
        return {"count": len(self.machines), **{size: amount for size, amount in held.items() if np.isfinite(amount)}}


@dataclass(frozen=True, slots=True)
class Replay(JobRun):
    """A replay in the twin, with the twin as it stood at the end."""

    twin: JobTwin | WindowTwin


def schedule(
    trace: Trace,
    machines: Machines,
    scheduler: Scheduler,
    *,
    outages: Sequence[Outage] = (),
    piece_cores: float | None = None,
    missing_run_s: float | None = None,
    missing_limit_s: float | None = None,
    until_s: float | None = None,
    engine: type[JobTwin] | type[WindowTwin] = JobTwin,
    progress: Callable[[float], None] | None = None,
) -> Replay:
    """Replay the trace's jobs on machines under a scheduler: same jobs, other policy.

    Args:
        trace: holds `jobs`, and perhaps `dependencies`.
        machines: where they run, e.g. `machines.of(trace)`.
        scheduler: order of the queue, who may overtake, which machine is taken.
        outages: machines that fail or are drained.
        piece_cores: a job's cores may lie on several machines in pieces of that many; None keeps them together.
        missing_run_s: run time of jobs for which none was recorded; None refuses them, with the reason in `outcomes`.
        missing_limit_s: estimate of jobs that gave none; None takes what they really ran.
        until_s: seconds to simulate; until the last job ended by default.
        engine: the reference, or the compiled twin, which knows fewer rules and does the same with them.
        progress: told the simulated second now and then, up to the last arrival.

    Raises:
        SimulationError: the trace holds no jobs, `until_s` lies before its start, or the engine does not know a rule.
    """
    jobs = workload.of(trace, machines, piece_cores=piece_cores, missing_run_s=missing_run_s)
    twin = engine(workload.estimated(jobs, missing_limit_s), machines, scheduler, outages=outages)
    if progress is not None:
        last_s = jobs.submit_s.max(where=np.isfinite(jobs.submit_s), initial=0.0)
        last_s = last_s if until_s is None else min(last_s, max(until_s, 0.0))
        for time_s in np.linspace(0.0, last_s, _STRIDES).tolist():
            twin.run(time_s)
            progress(time_s)
    twin.run(until_s)
    return Replay(machines, outcomes.outcomes(twin), outcomes.placements(twin), twin.now_s, "twin", twin)


def recorded(trace: Trace, machines: Machines, *, until_s: float | None = None) -> JobRun:
    """The recording itself as a run: the recorded starts and ends, and where the jobs lay as far as that is told.

    Args:
        trace: holds `jobs` with their recorded starts.
        machines: what utilisation is measured against.
        until_s: the recording as it stood then; whole by default.

    Raises:
        SimulationError: the trace recorded no start of a job whose arrival it knows.
    """
    if not starts(trace.jobs):
        raise SimulationError(
            f"{trace.info.name!r} recorded no starts of jobs, so that there is nothing to show: replay=policy"
        )
    jobs = trace.jobs if until_s is None else as_of(trace.jobs, until_s)
    told = scorecard.as_outcomes(jobs).sort("submit_s", maintain_order=True)
    if until_s is not None:
        ahead = pl.col("submit_s") > until_s
        told = told.with_columns(state=pl.when(ahead).then(pl.lit("expected")).otherwise("state"))
    last = told.select(pl.max_horizontal("submit_s", "end_s", pl.col("start_s") + pl.col("run_s")).max()).item()
    return JobRun(
        machines, told, _recorded_places(jobs, told, machines), last if until_s is None else until_s, "recorded"
    )


def starts(jobs: pl.DataFrame) -> int:
    """How many jobs (schema `jobs`) have a recorded start and arrival: what a replay can be compared with."""
    return jobs.filter(pl.col("start_s").is_not_null() & pl.col("submit_s").is_not_null()).height


def as_of(jobs: pl.DataFrame, until_s: float) -> pl.DataFrame:
    """The recorded jobs as one knew them at `until_s`: what started later waits, what ended later runs."""
    end_s = pl.coalesce("end_s", pl.col("start_s") + pl.col("run_s"))
    waits = (pl.coalesce("start_s", "end_s") > until_s).fill_null(value=False)
    runs = ~waits & pl.col("start_s").is_not_null() & (end_s > until_s).fill_null(value=False)
    so_far_s = pl.min_horizontal("run_s", until_s - pl.col("start_s"))
    return jobs.with_columns(
        status=pl.when(waits).then(pl.lit("waiting")).when(runs).then(pl.lit("running")).otherwise("status"),
        start_s=pl.when(~waits).then("start_s"),
        end_s=pl.when(~waits & ~runs).then("end_s"),
        run_s=pl.when(runs).then(so_far_s).when(~waits).then("run_s"),
        seen_s=pl.when(runs).then(until_s).when(~waits).then(pl.col("seen_s").clip(upper_bound=until_s)),
    )


def _recorded_places(jobs: pl.DataFrame, told: pl.DataFrame, machines: Machines) -> pl.DataFrame:
    """What lay where, if every job that started names one of the machines; else nothing."""
    ran = told.filter(pl.col("start_s").is_not_null()).join(jobs.select("job", "node", "instances"), on="job")
    if not ran["node"].is_in(machines.names).fill_null(value=False).all():
        return tables.empty("placements")
    end_s = pl.col("start_s") + pl.col("run_s")
    held = ran.select("job", "node", "start_s", "instances", "cpu_cores", "memory_gib", "gpus", end_s=end_s)
    return tables.conform(held.sort("start_s", "job", "node"), "placements", "recording")


# ---------------------------------------------------------------- what it was worth


def kpis(run: JobRun, jobs: pl.DataFrame, *, largest: int, until_s: float | None = None) -> pl.DataFrame:
    """The table `kpis` of the cluster and of its parts.

    Args:
        run: what is scored.
        jobs: schema `jobs`, for what was really used.
        largest: of the users, queues and pools those are told apart that held most core-hours.
        until_s: the span ends here if the run was cut there; by default at its last moment.

    Raises:
        UsageError: `until_s` does not lie after the first arrival.
    """
    first = run.outcomes["submit_s"].min()
    known = run.placements.height > 0
    frame = job_metrics.kpis(
        run.outcomes,
        machines=run.machines,
        placements=run.placements if known else None,
        jobs=jobs,
        by=("user", "queue", "pool") if known else ("user", "queue"),
        span_s=None if until_s is None else (first or 0.0, until_s),  # pyright: ignore[reportArgumentType]
    )
    held = frame.filter(pl.col("kpi") == "core_h", ~pl.col("entity").is_in(_NOBODY)).with_columns(
        _kind=pl.col("entity").str.split(":").list.first(), _held=pl.col("value").fill_null(0.0)
    )
    ranked = held.sort("_held", "entity", descending=[True, False])
    kept = ranked.group_by("_kind", maintain_order=True).head(largest)["entity"]
    return frame.filter((pl.col("entity") == job_metrics.CLUSTER) | pl.col("entity").is_in(kept.implode()))


def compared(
    run: JobRun, jobs: pl.DataFrame, *, rng: np.random.Generator, until_s: float | None = None
) -> dict[str, pl.DataFrame]:
    """The tables `job_cdf`, and, where the trace recorded starts, `scorecard` and `validity` against them.

    Args:
        run: what is compared with the recording; the recording compared with itself has no error.
        jobs: schema `jobs`: the recording.
        rng: draws the halves of the scorecard's noise floor.
        until_s: where the run was cut: the recording is then taken as it stood at that moment.
    """
    known = starts(jobs) > 0
    real = jobs if until_s is None else as_of(jobs, until_s)
    told = {run.source: run.outcomes} | ({"recorded": scorecard.as_outcomes(real)} if known else {})
    curves = [
        job_metrics.cdf(frame, measure).select(
            pl.col("column").alias("measure"), pl.lit(source).alias("source"), "share", "value"
        )
        for measure in MEASURES
        for source, frame in told.items()
    ]
    found = {"job_cdf": pl.concat(curves)}
    if known:
        cores = float(run.machines.total()[CPU])
        places = run.placements if run.placements.height else None
        found["scorecard"] = scorecard.scorecard(real, run.outcomes, placements=places, capacity_cores=cores, rng=rng)
        found["validity"] = scorecard.validity(real, run.outcomes, capacity_cores=cores)
    return {name: tables.conform(frame, name, name) for name, frame in found.items()}
