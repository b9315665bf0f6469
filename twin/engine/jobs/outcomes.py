"""What became of the jobs, as tables: `outcomes` for each job, `placements` for what lay where and when."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from twin.engine.jobs.machines import CPU, GPU, MEMORY, UNITS
from twin.engine.jobs.simulator import HELD, RUNNING, STATES, WAITING, JobTwin
from twin.trace import tables


def outcomes(twin: JobTwin) -> pl.DataFrame:
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
            "reason": pl.Series(_reasons(twin), dtype=pl.String).replace("", None),
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


def _reasons(twin: JobTwin) -> list[str]:
    reasons = list(twin.workload.refused)
    for job in np.flatnonzero(np.isin(twin.columns["state"], (HELD, WAITING))).tolist():
        reasons[job] = why_waiting(twin, job)
    return reasons


def why_waiting(twin: JobTwin, job: int) -> str:
    """One sentence on what the job waits for now; raises nothing: a job that does not wait has none ("")."""
    if twin.columns["state"][job] == HELD:
        return f"waits for {int(twin.waits_for[job])} other jobs to be done"
    if twin.columns["state"][job] != WAITING:
        return ""
    ahead = next(place for place, (_, queued) in enumerate(twin.queue) if queued == job)
    if twin.barred(job):
        return f"number {ahead + 1} in the queue; a rule about admission keeps it from starting"
    rejected = rejections(twin, job)
    room = sum(
        twin.capacity.room(job, machine) for machine in twin.capacity.lowest_first(job, twin.capacity.candidates(job))
    )
    if room < twin.workload.instances[job]:
        told = ", ".join(f"{count} {what}" for what, count in rejected.items() if count)
        return f"number {ahead + 1} in the queue; of {len(twin.machines)} machines {told}"
    return f"number {ahead + 1} in the queue, behind {ahead} that go first"


def rejections(twin: JobTwin, job: int) -> dict[str, int]:
    """How many machines each filter rejects for the job now, in the order of the filters; the rest has room."""
    load, capacity, machines = twin.workload, twin.capacity, twin.machines
    left = np.ones(len(machines), dtype=bool)
    counts: dict[str, int] = {}
    opened = np.array([bool(capacity.open >> m & 1) for m in range(len(machines))])
    accepted = load.fits_kind[load.job_class[job]][machines.kind]
    enough = capacity.free >= load.request[job]
    for what, passes in (
        ("have other labels, GPU models or taints", accepted),
        ("are closed", opened),
        ("have too few free cores", enough[:, CPU]),
        ("have too little free memory", enough[:, MEMORY]),
        ("have too few free GPUs", enough[:, GPU]),
    ):
        counts[what] = int((left & ~passes).sum())
        left &= passes
    devices = np.array([capacity.room(job, int(m)) > 0 for m in np.flatnonzero(left)], dtype=bool)
    counts["have no GPU with a large enough share free"] = int((~devices).sum())
    counts["has room"] = int(devices.sum())
    return counts


def placements(twin: JobTwin) -> pl.DataFrame:
    """The table `placements`: what each attempt of each job held where; what runs still ends now."""
    load = twin.workload
    rows = [*twin.history]
    rows += [
        (job, m, n, float(twin.columns["start_s"][job]), twin.now_s) for job, h in twin.held.items() for m, n, _ in h
    ]
    frame = pl.DataFrame(
        rows,
        schema={
            "_job": pl.Int64,
            "_machine": pl.Int64,
            "instances": pl.Int64,
            "start_s": pl.Float64,
            "end_s": pl.Float64,
        },
        orient="row",
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
