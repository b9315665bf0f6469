"""Multifactor priority with fair share, as Slurm computes it: who waited long and had little goes first.

The weighted sum of slurm.schedmd.com/priority_multifactor.html, without association, site, nice and TRES terms. It is
a real number here where Slurm cuts it to a whole one, and the age of a job counts from its arrival, also while it waits
for others to be done. A job's size is its share of all cores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl

from twin.engine.jobs.machines import ABOVE_ZERO, CPU, check_number
from twin.engine.jobs.workload import F8, I8, Workload
from twin.engine.scheduling import fair_share
from twin.errors import UsageError

if TYPE_CHECKING:
    from twin.engine.jobs.simulator import JobTwin

_CLOCK, _LEFT, _USAGE, _FACTOR = (f"multifactor:{name}" for name in ("clock", "left", "usage", "factor"))
_WEEK_S = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class Multifactor:
    """Highest weighted sum of factors between 0 and 1 first.

    Age (waited over `max_age_s`, at most 1), fair share (usage of cores over time that fades with `half_life_s`
    against `shares`), size (share of all cores for "large", what is missing to all for "small", share of all cores per
    minute of the estimate for "short"), queue and recorded priority (both over the highest). Priorities are computed
    at each multiple of `every_s` while someone waits and are constant in between; who arrives in between has age 0.

    Attributes:
        age, fair_share, size, queue, priority: weights.
        algorithm: of the fair-share factor, see `twin.engine.scheduling.fair_share`.
        damping: of the classic one.
        queues: priority of each queue by name; 1 where not told.
        accounts: the account of each user that has one, by name.
        shares: of users and accounts by name; 1 where not told.

    Raises:
        UsageError: a weight or a queue's priority is negative, a time or the damping not above 0, or a word unknown.
    """

    age: float = 1000.0
    fair_share: float = 10_000.0
    size: float = 1000.0
    queue: float = 1000.0
    priority: float = 0.0
    max_age_s: float = _WEEK_S
    half_life_s: float = _WEEK_S
    every_s: float = 300.0
    favour: Literal["large", "small", "short"] = "large"
    algorithm: Literal["classic", "tree"] = "classic"
    damping: float = 1.0
    queues: Mapping[str, float] = field(default_factory=dict)
    accounts: Mapping[str, str] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.favour not in ("large", "small", "short") or self.algorithm not in ("classic", "tree"):
            raise UsageError(
                f"favour={self.favour!r} with algorithm={self.algorithm!r}: the first is large, small or short, the "
                "second classic or tree"
            )
        for name in ("age", "fair_share", "size", "queue", "priority"):
            check_number(name, getattr(self, name), "a weight of 0 or more; 0 leaves that factor out")
        for name, priority in self.queues.items():
            check_number(f"queues.{name}", priority, "a priority of 0 or more")
        for name in ("max_age_s", "half_life_s", "every_s", "damping"):
            check_number(name, getattr(self, name), "above 0", least=ABOVE_ZERO, most=np.inf)
        if not np.isfinite([self.max_age_s, self.every_s]).all():
            raise UsageError("max_age_s and every_s must be finite; set age=0 where age is not to count")

    def look(self, twin: JobTwin) -> Ranking:
        """The priorities of the last computation, done now if it is due.

        Raises:
            UsageError: size counts and nobody published the machines' cores, or the shares cannot be used.
        """
        self._settle(twin)
        calculated_s, looks_s, cores = _array(twin, _CLOCK).tolist()
        tick = self._tick(twin.now_s)
        if tick > self._tick(calculated_s):
            self._compute(twin, calculated_s)
            calculated_s = twin.now_s
        next_s = (tick + 1) * self.every_s
        if looks_s != next_s and self._moves(twin):  # in a fork the last one may have had another period
            twin.look_at(next_s)
            looks_s = next_s
        twin.notes[_CLOCK] = np.array([calculated_s, looks_s, cores])
        return Ranking(self, _array(twin, _FACTOR), calculated_s, cores)

    def _tick(self, time_s: float) -> int:
        """How many computations are due by then; a time that was rounded down is meant whole."""
        return int(np.floor(time_s / self.every_s + 1e-9))

    def factors(self, users: tuple[str, ...], usage: F8) -> F8:
        """The fair-share factor of each of these users for their faded usage [users]."""
        shares = fair_share.tree(users, self.accounts, self.shares)
        if self.algorithm == "tree":
            return fair_share.fair_tree(usage, shares)
        return fair_share.classic(usage, shares, self.damping)

    def _settle(self, twin: JobTwin) -> None:
        """Note what those held who left their machines since the last look, as (job, from, until) [stretches, 3].

        The first time that is everyone who ran before, as if without a break.
        """
        columns = twin.columns
        if _CLOCK not in twin.notes:
            jobs = np.flatnonzero(columns["ran_s"] > 0)
            end_s = columns["end_s"][jobs]
            twin.notes[_LEFT] = np.column_stack([jobs, end_s - columns["ran_s"][jobs], end_s])
            twin.notes[_USAGE] = np.zeros(len(twin.workload.users))
            # computed before second 0: it is due
            twin.notes[_CLOCK] = np.array([-self.every_s, -1.0, twin.machines.total()[CPU]])
        elif twin.ended:
            rows = [(job, columns["start_s"][job], columns["end_s"][job]) for job in twin.ended]
            twin.notes[_LEFT] = np.concatenate([_array(twin, _LEFT), np.array(rows, dtype=np.float64)])

    def _compute(self, twin: JobTwin, since_s: float) -> None:
        """Bring usage up to now with what was held since the last computation, and the factors with it."""
        load, left = twin.workload, _array(twin, _LEFT)
        running = np.fromiter(twin.held, np.int64, len(twin.held))
        jobs = np.concatenate([left[:, 0].astype(np.int64), running])
        begin_s = np.maximum(np.concatenate([left[:, 1], twin.columns["start_s"][running]]), since_s)
        until_s = np.concatenate([left[:, 2], np.full(len(running), twin.now_s)])
        charged = fair_share.charge(load.cores(jobs), begin_s, until_s, twin.now_s, self.half_life_s)
        usage = fair_share.faded(_array(twin, _USAGE), twin.now_s - since_s, self.half_life_s)
        usage = usage + np.bincount(load.user[jobs], weights=charged, minlength=len(load.users))
        twin.notes[_USAGE], twin.notes[_FACTOR] = usage, self.factors(load.users, usage)
        twin.notes[_LEFT] = np.empty((0, 3))

    def _moves(self, twin: JobTwin) -> bool:
        """Can the order still change if nothing happens? In an idle cluster only while someone's age grows."""
        youngest_s = max((float(twin.workload.submit_s[job]) for _, job in twin.queue), default=-np.inf)
        return bool(twin.held) or twin.now_s - youngest_s < self.max_age_s


@dataclass(frozen=True, slots=True)
class Ranking:
    """The order of the moment: priorities as they were computed at `calculated_s`."""

    weights: Multifactor
    fair_share: F8  # [users]
    calculated_s: float
    cores: float  # of all machines together
    changing: bool = True

    def keys(self, workload: Workload, jobs: I8, now_s: float) -> F8:  # noqa: ARG002
        """Negative priority."""
        w = self.weights
        waited_s = self.calculated_s - workload.submit_s[jobs]
        priority = (
            w.age * np.clip(waited_s / w.max_age_s, 0.0, 1.0) + w.fair_share * self.fair_share[workload.user[jobs]]
        )
        if w.size:
            priority += w.size * self._size(workload, jobs)
        if w.queue and w.queues:
            told = workload.queue.gather(pl.Series(jobs)).replace_strict(
                {str(name): float(value) for name, value in w.queues.items()}, default=1.0, return_dtype=pl.Float64
            )
            priority += w.queue * told.to_numpy() / max(1.0, *w.queues.values())
        if w.priority:
            highest = workload.priority.max()
            priority += w.priority * np.maximum(workload.priority[jobs], 0.0) / (highest if highest > 0 else 1.0)
        return -priority

    def _size(self, workload: Workload, jobs: I8) -> F8:
        if not self.cores > 0:
            raise UsageError("nobody published how many cores the machines have: set size=0")
        share = np.minimum(workload.cores(jobs) / self.cores, 1.0)
        if self.weights.favour == "short":
            return np.minimum(share / np.maximum(workload.limit_s[jobs] / 60.0, 1.0), 1.0)
        return 1.0 - share if self.weights.favour == "small" else share


def _array(twin: JobTwin, name: str) -> F8:
    value = twin.notes[name]
    assert isinstance(value, np.ndarray)
    return value
