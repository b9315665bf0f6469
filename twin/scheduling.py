"""The front door for jobs: `schedule(trace, machines, scheduler) -> JobRun`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from twin.engine.jobs import outcomes, workload
from twin.engine.jobs.machines import Machines
from twin.engine.jobs.simulator import JobTwin, Outage, Scheduler
from twin.trace.trace import Trace


@dataclass(frozen=True, slots=True)
class JobRun:
    """What one replay of jobs left behind: checked tables, and the twin as it stood at the end."""

    machines: Machines
    outcomes: pl.DataFrame
    placements: pl.DataFrame
    until_s: float
    twin: JobTwin

    def tables(self) -> dict[str, pl.DataFrame]:
        """The tables by name, as a run folder holds them."""
        return {"outcomes": self.outcomes, "placements": self.placements}


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
) -> JobRun:
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

    Raises:
        SimulationError: the trace holds no jobs, or `until_s` lies before its start.
    """
    jobs = workload.of(trace, machines, piece_cores=piece_cores, missing_run_s=missing_run_s)
    twin = JobTwin(workload.estimated(jobs, missing_limit_s), machines, scheduler, outages=outages)
    twin.run(until_s)
    return JobRun(machines, outcomes.outcomes(twin), outcomes.placements(twin), twin.now_s, twin)
