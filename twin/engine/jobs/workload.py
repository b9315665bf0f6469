"""Jobs as arrays: what was asked, kept apart from what really happens.

What was asked (size, limit, priority, where it may run) is what a scheduler sees. What really happens (run time, when
its owner gives up) is known to the simulator alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from twin.engine.jobs.machines import (
    ANY,
    CPU,
    GPU,
    MEMORY,
    SIZES,
    UNITS,
    UNLIMITED,
    WHOLE_GPU,
    Machines,
    check_choice,
    check_number,
    pairs,
    small,
)
from twin.errors import SimulationError
from twin.trace.trace import Trace

F8, I8 = NDArray[np.float64], NDArray[np.int64]
NEVER = np.inf
NO_RUN_TIME = "nobody recorded how long it ran"
Owner = Literal["user", "group", "queue"]
OWNERS: tuple[str, ...] = get_args(Owner)
_TIME = "a time of 0 s or more"


@dataclass(frozen=True, slots=True)
class Workload:
    """Jobs in order of arrival. A job is a gang of equal instances that start together or not at all.

    A share of one GPU (below a whole one) must lie on a single device; whole GPUs are devices that nobody shares.
    """

    names: pl.Series
    submit_s: F8  # [jobs]
    request: I8  # [jobs, resources], small units for one instance
    instances: I8  # [jobs]
    limit_s: F8  # [jobs], asked; infinite where nothing was
    priority: F8  # [jobs], higher goes first
    deadline_s: F8  # [jobs]
    user: I8  # [jobs], number of the user
    users: tuple[str, ...]
    group: I8  # [jobs], number of the application, workflow or array
    groups: tuple[str, ...]
    queue: pl.Series
    fits_kind: NDArray[np.bool_]  # [classes of jobs, kinds of machines]
    job_class: I8  # [jobs], jobs that may run on the same kinds of machines
    refused: tuple[str, ...]  # [jobs], why it can never run here; "" where it can
    run_s: F8  # [jobs], what really happens
    cancel_s: F8  # [jobs], when its owner gives up if it waits still
    parents: I8  # [jobs], how many jobs it waits for
    children: tuple[I8, I8]  # begin [jobs + 1] and job numbers: who waits for each job
    latency_s: F8 | None = None  # [jobs], from arrival until the scheduler sees it; none by default

    def __len__(self) -> int:
        return len(self.submit_s)

    def owners(self, by: Owner) -> tuple[I8, tuple[str, ...]]:
        """Whose each job is [jobs], by number, and the names; one name is "", of those of which none is told.

        Raises UsageError for any other kind of owner than user, group and queue.
        """
        check_choice("by", by, OWNERS)
        if by == "queue":
            return _numbered(self.queue)
        return (self.user, self.users) if by == "user" else (self.group, self.groups)

    def cores(self, jobs: I8) -> F8:
        """Cores of all instances of each of these jobs together [jobs]."""
        return self.request[jobs, CPU] / UNITS[CPU] * self.instances[jobs]


def of(
    trace: Trace,
    machines: Machines,
    *,
    piece_cores: float | None = None,
    missing_run_s: float | None = None,
) -> Workload:
    """The recorded jobs for these machines, in order of arrival.

    Args:
        trace: holds `jobs`, and perhaps `dependencies`.
        machines: where they are to run; a job that fits none of them is refused with a reason, not dropped.
        piece_cores: a job's cores may lie on several machines in pieces of that many cores (message-passing jobs of
            logs that count processors); None keeps an instance on one machine.
        missing_run_s: run time of jobs whose run time nobody recorded; None refuses them by name.

    Raises:
        SimulationError: the trace holds no jobs.
        UsageError: `piece_cores` is not above zero, or `missing_run_s` is negative or infinite.
    """
    if piece_cores is not None:
        check_number(
            "piece_cores", piece_cores, "a number of cores from 1e-6 to 1e12, e.g. 1", least=1 / UNITS[CPU], most=1e12
        )
    if missing_run_s is not None:
        check_number("missing_run_s", missing_run_s, _TIME)
    if not trace.jobs.height:
        raise SimulationError(f"{trace.info.name!r} holds no jobs to schedule")
    jobs = trace.jobs.with_row_index("_at").sort("submit_s", "_at", nulls_last=True)
    request, instances = _sizes(jobs, piece_cores)
    job_class, fits_kind = _classes(jobs, machines)
    cancel_s = _cancellations(jobs)
    run_s = _numbers(jobs, "run_s", NEVER if missing_run_s is None else missing_run_s)
    limit_s = _numbers(jobs, "limit_s", NEVER)
    # whoever gave up waiting would have run no longer than was asked for
    run_s = np.where(np.isinf(run_s) & np.isfinite(cancel_s), limit_s, run_s)
    parents, children = _dependencies(jobs, trace.dependencies)
    user, users = _numbered(jobs["user"])
    group, groups = _numbered(jobs["group"])
    return Workload(
        names=jobs["job"],
        submit_s=_numbers(jobs, "submit_s", NEVER),
        request=request,
        instances=instances,
        limit_s=limit_s,
        priority=_numbers(jobs, "priority", 0.0),
        deadline_s=_numbers(jobs, "deadline_s", NEVER),
        user=user,
        users=users,
        group=group,
        groups=groups,
        queue=jobs["queue"],
        fits_kind=fits_kind,
        job_class=job_class,
        refused=_refusals(jobs, request, instances, run_s, job_class, fits_kind, machines),
        run_s=run_s,
        cancel_s=cancel_s,
        parents=parents,
        children=children,
    )


def _numbers(jobs: pl.DataFrame, column: str, missing: float) -> F8:
    return jobs[column].fill_null(missing).to_numpy().astype(np.float64)


def _numbered(names: pl.Series) -> tuple[I8, tuple[str, ...]]:
    """The number of each name in the order in which they come, and the names; no name is a name of its own."""
    told = names.fill_null(ANY)
    distinct = told.unique(maintain_order=True)
    return told.cast(pl.Enum(distinct)).to_physical().to_numpy().astype(np.int64), tuple(distinct)


def _sizes(jobs: pl.DataFrame, piece_cores: float | None) -> tuple[I8, I8]:
    request = np.column_stack([small(jobs[c], i) for i, c in enumerate(SIZES)])
    # an unknown size asks for nothing: the log does not say what else would be right
    request[request >= UNLIMITED] = 0
    shared = request[:, GPU] % WHOLE_GPU
    request[:, GPU] += np.where((request[:, GPU] > WHOLE_GPU) & (shared > 0), WHOLE_GPU - shared, 0)
    instances = jobs["instances"].fill_null(1).to_numpy().astype(np.int64)
    if piece_cores is not None:
        piece = int(piece_cores * UNITS[CPU])
        pieces = np.maximum(-(-request[:, CPU] // piece), 1)
        request[:, MEMORY] = -(-request[:, MEMORY] // pieces)
        # whole GPUs stay whole in each piece
        whole = -(-request[:, GPU] // (pieces * WHOLE_GPU)) * WHOLE_GPU
        request[:, GPU] = np.where((pieces > 1) & (request[:, GPU] >= WHOLE_GPU), whole, -(-request[:, GPU] // pieces))
        request[:, CPU] = np.where(pieces > 1, piece, request[:, CPU])
        instances = instances * pieces
    return request, instances


def _classes(jobs: pl.DataFrame, machines: Machines) -> tuple[I8, NDArray[np.bool_]]:
    """Which jobs ask for the same kinds of machines, and which kinds those are."""
    wishes = jobs.select(pl.col("gpu_model", "requires", "tolerates").fill_null(ANY))
    distinct = wishes.unique(maintain_order=True).with_row_index("_class")
    job_class = wishes.join(distinct, on=wishes.columns, how="left", maintain_order="left")["_class"]
    fits = [
        [accepts(labels, taints, row) for labels, taints in zip(machines.kinds, machines.taints, strict=True)]
        for row in distinct.iter_rows(named=True)
    ]
    return job_class.to_numpy().astype(np.int64), np.array(fits, dtype=np.bool_)


def accepts(labels: Mapping[str, str], taints: frozenset[str], wish: Mapping[str, str]) -> bool:
    """May a job with these wishes run on a machine with these labels and taints?

    `gpu_model` and `requires` name allowed values with `|` between them; `key!=value` forbids. A taint keeps away
    whoever does not tolerate it, by `key=value` or by its key alone (as Kubernetes' NoSchedule).
    """
    tolerated = set(filter(None, wish["tolerates"].split(",")))
    if any(taint not in tolerated and taint.partition("=")[0] not in tolerated for taint in taints):
        return False
    if wish["gpu_model"] and labels.get("gpu_model", ANY) not in wish["gpu_model"].split("|"):
        return False
    for key, values in pairs(wish["requires"]).items():
        forbids = key.endswith("!")
        if (labels.get(key.rstrip("!")) in values.split("|")) == forbids:
            return False
    return True


def _refusals(
    jobs: pl.DataFrame,
    request: I8,
    instances: I8,
    run_s: F8,
    job_class: I8,
    fits_kind: NDArray[np.bool_],
    machines: Machines,
) -> tuple[str, ...]:
    """Why each job can never run on these machines; "" where it can."""
    reasons = np.full(len(request), "", dtype=object)
    for number, kinds in enumerate(fits_kind):
        mine = np.flatnonzero(job_class == number)
        allowed = kinds[machines.kind]
        if not allowed.any():
            reasons[mine] = "no machine has the labels, the GPU model and the taints that it accepts"
            continue
        shapes, which = np.unique(request[mine], axis=0, return_inverse=True)
        sizes, count = np.unique(machines.capacity[allowed], axis=0, return_counts=True)
        room = np.stack([_room(sizes, shape) for shape in shapes])[which.ravel()]
        reasons[mine[instances[mine] > room @ count]] = "all machines that it accepts together are too small for it"
        reasons[mine[room.max(axis=1) == 0]] = "one instance is larger than any machine that it accepts"
    reasons[~np.isfinite(run_s)] = NO_RUN_TIME
    reasons[jobs["submit_s"].is_null().to_numpy()] = "nobody recorded when it arrived"
    reasons[(jobs["submit_s"] < 0).fill_null(value=False).to_numpy()] = "it arrived before second 0 of the trace"
    reasons[instances <= 0] = "it has no instance"
    return tuple(reasons)


def _room(capacity: I8, request: I8) -> I8:
    """How often a request goes into each of these machines [machines]."""
    return np.minimum(
        np.min(_times(capacity[:, :GPU], request[:GPU]), axis=1), _times_gpu(capacity[:, GPU], int(request[GPU]))
    )


def _times(capacity: I8, request: I8) -> I8:
    """How often each resource of a request goes into each machine [machines, resources]."""
    return np.where(request > 0, capacity // np.maximum(request, 1), UNLIMITED >> 32)


def _times_gpu(capacity: I8, gpu: int) -> I8:
    """How often a GPU request goes into the whole devices of each machine [machines]."""
    devices = capacity // WHOLE_GPU
    if not gpu:
        return np.full(len(capacity), UNLIMITED >> 32)
    return devices * (WHOLE_GPU // gpu) if gpu < WHOLE_GPU else devices // (gpu // WHOLE_GPU)


def _cancellations(jobs: pl.DataFrame) -> F8:
    """When the owner gave up waiting: the recorded end of jobs that were cancelled and never started."""
    gave_up = (pl.col("status") == "cancelled") & pl.col("start_s").is_null() & pl.col("end_s").is_not_null()
    return jobs.select(pl.when(gave_up).then("end_s").fill_null(NEVER))["end_s"].to_numpy()


def _dependencies(jobs: pl.DataFrame, dependencies: pl.DataFrame) -> tuple[I8, tuple[I8, I8]]:
    """How many parents each job has, and who waits for each job as begin and job numbers."""
    number = jobs.select("job", _number=pl.int_range(pl.len()))
    edges = dependencies.join(number, on="job").join(number, left_on="parent", right_on="job", suffix="_parent")
    child, parent = edges["_number"].to_numpy(), edges["_number_parent"].to_numpy()
    count = len(jobs)
    order = np.lexsort((child, parent))
    begin = np.concatenate([[0], np.cumsum(np.bincount(parent, minlength=count))]).astype(np.int64)
    return np.bincount(child, minlength=count).astype(np.int64), (begin, child[order].astype(np.int64))


def estimated(workload: Workload, missing_s: float | None = None) -> Workload:
    """The workload with an estimate for every job: where none was asked for, `missing_s`, or the true run time.

    Raises UsageError where `missing_s` is negative or no number.
    """
    if missing_s is not None:
        check_number("missing_s", missing_s, _TIME, most=np.inf)
    instead = workload.run_s if missing_s is None else missing_s
    return replace(workload, limit_s=np.where(np.isinf(workload.limit_s), instead, workload.limit_s))
