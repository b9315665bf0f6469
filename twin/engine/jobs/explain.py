"""Why a job waits and why it starts where it does: which rule rejects how many machines, now and over time."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from twin.engine.jobs.capacity import Held
from twin.engine.jobs.machines import CPU, GPU, MEMORY
from twin.engine.jobs.scheduler import Observer
from twin.engine.jobs.simulator import HELD, WAITING, JobTwin
from twin.engine.scheduling import explained
from twin.engine.scheduling.scored import Scored
from twin.trace import tables

Row = tuple[str, float, float, str, str]
_SHOWN = 3  # machines by name


def why_waiting(twin: JobTwin, job: int) -> str:
    """One sentence on what the job waits for now; raises nothing: a job that does not wait has none ("")."""
    return _waiting(twin, job)[1]


def _waiting(twin: JobTwin, job: int) -> tuple[str, str]:
    """What kind of thing it waits for, and the sentence."""
    if twin.columns["state"][job] == HELD:
        return "parents", f"waits for {int(twin.waits_for[job])} other jobs to be done"
    if twin.columns["state"][job] != WAITING:
        return "", ""
    ahead = next((place for place, (_, queued) in enumerate(twin.queue) if queued == job), None)
    if ahead is None:
        return "unseen", "the scheduler has not seen it yet"
    rule = twin.barring(job)
    if rule:
        return rule, f"number {ahead + 1} in the queue; {rule} keeps it from starting"
    among = twin.candidates(job)
    room = sum(twin.capacity.room(job, machine) for machine in twin.capacity.lowest_first(job, among))
    if room < twin.workload.instances[job]:
        rejected = {what: count for what, count in rejections(twin, job).items() if count}
        told = ", ".join(f"{count} {what}" for what, count in rejected.items())
        return "/".join(rejected), f"number {ahead + 1} in the queue; of {len(twin.machines)} machines {told}"
    return "behind", f"number {ahead + 1} in the queue, behind {ahead} that go first"


def rejections(twin: JobTwin, job: int) -> dict[str, int]:
    """How many machines each filter rejects for the job now, in the order of the filters; the rest has room."""
    load, capacity, machines = twin.workload, twin.capacity, twin.machines
    left = np.ones(len(machines), dtype=bool)
    counts: dict[str, int] = {}
    accepted = load.fits_kind[load.job_class[job]][machines.kind]
    enough = capacity.free >= load.request[job]
    ruled = [(rule.name, _bits(allowed(job), len(machines))) for rule, allowed in twin.allowed()]
    for what, passes in (
        ("have other labels, GPU models or taints", accepted),
        ("are closed", _bits(capacity.open, len(machines))),
        *ruled,
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


def _bits(bits: int, count: int) -> NDArray[np.bool_]:
    return np.array([bool(bits >> i & 1) for i in range(count)])


class Watcher(Observer):
    """Watches some jobs and tells why each waited, from when until when, and why it started where it did.

    A wait is told anew when its kind changes (other rules reject machines, or somebody is in front), with the figures
    of that moment. Replays are deterministic: a job can be watched in a second run of the same.
    """

    def __init__(self, jobs: Iterable[int]) -> None:
        """Watch the jobs of these numbers."""
        self._jobs = tuple(dict.fromkeys(jobs))
        self._since: dict[int, tuple[str, float, str]] = {}  # kind, since when, sentence
        self._tried: dict[int, str] = {}
        self._rows: list[Row] = []
        self._until_s = 0.0

    def before_start(self, twin: JobTwin, job: int) -> None:
        """Note what there is to choose from."""
        if job in self._jobs:
            counts = rejections(twin, job)
            room = counts.pop("has room")
            told = "".join(f", {count} {what}" for what, count in counts.items() if count)
            self._tried[job] = f"{room} of {len(twin.machines)} machines had room{told}"
            if room and isinstance(twin.scheduler.placement, Scored):
                self._tried[job] += f"; {explained.reason(explained.explain(twin, job))}"

    def started(self, twin: JobTwin, job: int, held: Held) -> None:
        """Tell where and why."""
        if job in self._jobs:
            self._end_wait(twin, job)
            where = ", ".join(twin.machines.names[machine] for machine, _, _ in held[:_SHOWN])
            more = f" and {len(held) - _SHOWN} more" if len(held) > _SHOWN else ""
            reason = f"on {where}{more}: {self._tried[job]}"
            self._rows.append((twin.workload.names[job], twin.now_s, twin.now_s, "starts", reason))

    def looked(self, twin: JobTwin) -> None:
        """Tell what changed."""
        self._until_s = twin.now_s
        for job in self._jobs:
            kind, sentence = _waiting(twin, job)
            if self._since.get(job, ("", 0.0, ""))[0] != kind:
                self._end_wait(twin, job)
                if kind:
                    self._since[job] = (kind, twin.now_s, sentence)

    def _end_wait(self, twin: JobTwin, job: int) -> None:
        if job in self._since:
            _, since_s, sentence = self._since.pop(job)
            self._rows.append((twin.workload.names[job], since_s, twin.now_s, "waits", sentence))

    def table(self, twin: JobTwin) -> pl.DataFrame:
        """The table `explanations` up to now, each job's rows in the order of time."""
        names = twin.workload.names
        still = [(names[job], since_s, self._until_s, "waits", s) for job, (_, since_s, s) in self._since.items()]
        place = pl.col("job").replace_strict({names[job]: i for i, job in enumerate(self._jobs)}, return_dtype=pl.Int64)
        frame = pl.DataFrame(self._rows + still, schema=dict(zip(_COLUMNS, _TYPES, strict=True)), orient="row")
        return tables.conform(frame.sort(place, "from_s", maintain_order=True), "explanations", "explanations")


_COLUMNS = ("job", "from_s", "until_s", "what", "reason")
_TYPES = (pl.String, pl.Float64, pl.Float64, pl.String, pl.String)
