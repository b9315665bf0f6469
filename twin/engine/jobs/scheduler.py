"""What the twin is told about the mirrored cluster's own scheduler, and what may go wrong with its machines.

Every part may be an object of your own that answers the questions of its protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from twin.engine.jobs.capacity import Capacity, Held, Ordering
from twin.engine.jobs.checkpoint import Checkpoint
from twin.engine.jobs.machines import check_number
from twin.errors import SimulationError, UsageError

if TYPE_CHECKING:
    from twin.engine.jobs.machines import Machines
    from twin.engine.jobs.simulator import JobTwin
    from twin.engine.jobs.workload import Workload
    from twin.engine.scheduling.admission import Admission
    from twin.engine.scheduling.backfill import Backfill
    from twin.engine.scheduling.orders import Accounting, Order

Allowed = Callable[[int], int]
"""The machines that this job may take, as bits."""


@runtime_checkable
class Placement(Protocol):
    """Which machine is taken, where that depends on more than what is free."""

    def look(self, twin: JobTwin) -> Ordering:
        """The machines of the moment, best first; asked at each look of the scheduler."""
        ...


class Filter(Protocol):
    """A rule about where a job may run that depends on time or on what runs elsewhere."""

    @property
    def name(self) -> str:
        """What is the matter with the machines that it rejects, after "7 machines ..."."""
        ...

    def look(self, twin: JobTwin) -> Allowed:
        """The rule as of `twin.now_s`; what starts meanwhile counts."""
        ...


class Inspector(Protocol):
    """Looks at what the discipline decided before it is done."""

    def accepts(self, twin: JobTwin, job: int) -> bool:
        """May the job, for which there is room, start now? If not, it counts as one that does not fit."""
        ...


class Observer:
    """Looks on, and overrides what it wants to hear of. It may change the pace of jobs and nothing else."""

    def before_start(self, twin: JobTwin, job: int) -> None:
        """The scheduler is about to look for room for the job."""

    def started(self, twin: JobTwin, job: int, held: Held) -> None:
        """The job has begun to hold these machines."""

    def ended(self, twin: JobTwin, job: int, held: Held) -> None:
        """The job holds them no longer, for whatever reason."""

    def looked(self, twin: JobTwin) -> None:
        """Everything of this moment is settled: the state stays as it is until the next call."""


@dataclass(frozen=True, slots=True)
class Scheduler:
    """The mirrored cluster's own scheduler: the order of its queue, who may overtake, and which machine is taken.

    `kill` ends jobs that reach their limit; `retries` is how often a job that lost its machine is started anew;
    `admission` are rules about who may start at all at the moment, `filters` about where; an `inspector` may delay what
    was decided. With `preempts` a job that finds no room displaces running ones of lower priority, the lowest and
    latest first and no more than it needs; they queue again. What a displaced job, or one that lost its machine, had
    done is lost but for what its last checkpoint holds.

    Raises:
        UsageError: `retries` is below 0, a part is a class or something else, or rules stand in no tuple.
        SimulationError: two parts exclude each other.
    """

    order: Order | Accounting
    backfill: Backfill
    placement: Ordering | Placement = Capacity.lowest_first
    kill: bool = False
    retries: int = 3
    admission: tuple[Admission, ...] = ()
    filters: tuple[Filter, ...] = ()
    inspector: Inspector | None = None
    preempts: bool = False
    checkpoint: Checkpoint | None = None

    def __post_init__(self) -> None:
        check_number("retries", self.retries, "a whole number of at least 0; 0 starts no job anew", whole=True)
        for key in ("admission", "filters"):
            if not isinstance(getattr(self, key), tuple):
                raise UsageError(f"{key}={getattr(self, key)!r} must be a tuple of rules, also of one: {key}=(rule,)")
        _check_part("order", self.order, ("keys", "look"))
        _check_part("backfill", self.backfill, ("start",))
        _check_part("placement", self.placement, ("__call__", "look"))
        for key, rules in (("admission", self.admission), ("filters", self.filters)):
            for rule in rules:
                _check_part(key, rule, ("look",))
        if self.inspector is not None:
            _check_part("inspector", self.inspector, ("accepts",))
        for rule in self.backfill.excludes:
            if getattr(self, rule):
                raise SimulationError(
                    f"{type(self.backfill).__name__} cannot keep to {rule}: leave {rule} out, or choose the backfill "
                    "Strict, Greedy or Easy"
                )
        if self.preempts and (self.inspector is not None or any(_sees_residents(rule) for rule in self.filters)):
            raise SimulationError(
                "a job that displaces others may then be refused by an inspector or by a filter that looks at what "
                "runs, for nothing: leave out preempts, or these rules"
            )

    @property
    def sees_residents(self) -> bool:
        """Does any of its rules look at what lies on each machine?"""
        return any(_sees_residents(rule) for rule in (self.placement, *self.filters))


def _check_part(key: str, part: object, methods: tuple[str, ...]) -> None:
    """Raises UsageError unless it is an object with one of these methods."""
    if isinstance(part, type):
        raise UsageError(f"{key}: {part.__name__} is a class; give an object of it, {part.__name__}()")
    if not any(callable(getattr(part, method, None)) for method in methods):
        raise UsageError(f"{key}: {part!r} is none, as it has no method {' or '.join(methods)}; give one that has")


def _sees_residents(rule: object) -> bool:
    return bool(getattr(rule, "sees_residents", False))


@dataclass(frozen=True, slots=True)
class Outage:
    """Some `machines`, by number, take nothing new from `time_s` on for `duration_s`.

    `drain` lets what runs there finish; otherwise it is lost at once and started anew.
    """

    time_s: float
    duration_s: float
    machines: tuple[int, ...]
    drain: bool = False


def check_estimates(workload: Workload, scheduler: Scheduler) -> None:
    """Raises SimulationError when the scheduler plans ahead and a job has no estimate."""
    without = np.flatnonzero(np.isinf(workload.limit_s) & np.array([not r for r in workload.refused], dtype=bool))
    if scheduler.backfill.plans and len(without):
        raise SimulationError(
            f"{len(without)} jobs have no estimate (the first is {workload.names[int(without[0])]!r}), and this "
            "scheduler plans with estimates: fill them with workload.estimated, or choose another backfill"
        )


def check_outages(outages: Sequence[Outage], machines: Machines) -> None:
    """Raises SimulationError for an outage at no time, ending before it begins, or of a machine that is not there."""
    for outage in outages:
        if not 0 <= outage.time_s < np.inf:
            raise SimulationError(f"an outage begins at {outage.time_s:g} s: it must be 0 s or more, and finite")
        if not outage.duration_s >= 0:
            raise SimulationError(f"an outage has the duration {outage.duration_s:g} s: it must be 0 s or more")
        unknown = [machine for machine in outage.machines if not 0 <= machine < len(machines)]
        if unknown:
            raise SimulationError(f"an outage names machine number {unknown[0]}; there are 0 to {len(machines) - 1}")
