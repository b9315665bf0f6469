"""What became of the jobs, as tables: `outcomes` for each job, `placements` for what lay where and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from twin.engine.jobs.capacity import Held
from twin.engine.jobs.explain import why_waiting
from twin.engine.jobs.machines import CPU, GPU, MEMORY, UNITS, Machines
from twin.engine.jobs.simulator import HELD, RUNNING, STATES, WAITING, JobTwin
from twin.engine.jobs.workload import Workload
from twin.trace import tables


class Stand(Protocol):
    """How a twin stands that is not the reference itself, with the names and meanings of `JobTwin`."""

    workload: Workload
    machines: Machines
    now_s: float

    @property
    def columns(self) -> Mapping[str, NDArray]:
        """What became of each job so far [jobs]."""
        ...

    @property
    def held(self) -> Mapping[int, Held]:
        """What each running job holds."""
        ...

    @property
    def history(self) -> Sequence[tuple[float, ...]] | NDArray[np.float64]:
        """What lay where and is over [rows, 5]: job, machine, instances, from, until."""
        ...

    def reference(self) -> JobTwin:
        """The reference in the same state: it alone can tell why somebody waits."""
        ...


def outcomes(twin: JobTwin | Stand) -> pl.DataFrame:
    """The table `outcomes`: one row for each job that was to arrive, in order of arrival."""
    load, columns = twin.workload, twin.columns
    known = lambda name: pl.Series(columns[name]).replace(-1.0, None)  # noqa: E731 - never happened
    finite = lambda values: pl.Series(np.where(np.isfinite(values), values, np.nan)).fill_nan(None)  # noqa: E731
    size = load.request * load.instances[:, None] / UNITS
    running = columns["state"] == RUNNING
    held_s = columns["ran_s"] + np.where(running, twin.now_s - columns["start_s"], 0.0)
    frame = pl.DataFrame(
        {
            "job": load.names,
            "state": pl.Series([STATES[s] for s in columns["state"].tolist()], dtype=pl.String),
            "reason": pl.Series(_reasons(twin, columns["state"]), dtype=pl.String).replace("", None),
            "submit_s": finite(load.submit_s),
            "start_s": known("start_s"),
            "end_s": known("end_s"),
            "run_s": held_s,
            "attempts": columns["attempts"].astype(np.int64),
            "cpu_cores": size[:, CPU],
            "memory_gib": asked(size[:, MEMORY]),
            "gpus": size[:, GPU],
            "limit_s": finite(load.limit_s),
            "deadline_s": finite(load.deadline_s),
            "user": pl.Series([load.users[u] for u in load.user.tolist()], dtype=pl.String),
            "queue": load.queue,
        }
    )
    first = known("first_start_s")
    frame = frame.with_columns(wait_s=first - frame["submit_s"], end_s=pl.when(~pl.Series(running)).then("end_s"))
    return tables.conform(frame, "outcomes", "outcomes")


def asked(amounts: NDArray[np.float64]) -> pl.Series:
    """The amounts; null where nothing was asked, for an unknown request is no request of nothing."""
    return pl.Series(np.where(amounts > 0, amounts, np.nan)).fill_nan(None)


def _reasons(twin: JobTwin | Stand, state: NDArray[np.int8]) -> list[str]:
    reasons = list(twin.workload.refused)
    waiting = np.flatnonzero(np.isin(state, (HELD, WAITING))).tolist()
    if waiting:
        teller = twin if isinstance(twin, JobTwin) else twin.reference()
        for job in waiting:
            reasons[job] = why_waiting(teller, job)
    return reasons


def placements(twin: JobTwin | Stand) -> pl.DataFrame:
    """The table `placements`: what each attempt of each job held where; what runs still ends now."""
    load, start_s = twin.workload, twin.columns["start_s"]
    now = [(job, m, n, start_s[job], twin.now_s) for job, held in twin.held.items() for m, n, _ in held]
    past = np.asarray(twin.history, dtype=np.float64).reshape(-1, 5)
    rows = np.concatenate([past, np.array(now, dtype=np.float64).reshape(-1, 5)])
    whole = rows[:, :3].astype(np.int64)
    frame = pl.DataFrame(
        {
            "_job": whole[:, 0],
            "_machine": whole[:, 1],
            "instances": whole[:, 2],
            "start_s": rows[:, 3],
            "end_s": rows[:, 4],
        }
    )
    jobs = frame["_job"].to_numpy()
    size = load.request[jobs] * frame["instances"].to_numpy()[:, None] / UNITS
    frame = frame.select(
        "instances", "start_s", "end_s",
        job=load.names.gather(frame["_job"]),
        node=pl.Series(twin.machines.names, dtype=pl.String).gather(frame["_machine"]),
        cpu_cores=pl.Series(size[:, CPU]), memory_gib=asked(size[:, MEMORY]), gpus=pl.Series(size[:, GPU]),
    )  # fmt: skip
    return tables.conform(frame.sort("start_s", "job", "node", maintain_order=True), "placements", "placements")
