"""Queue disciplines: who goes first. A key for each job, the lowest first; equal keys go by arrival.

Symbols: s arrival (s), r asked run time (s), n cores, w = now - s waited. `changing` orders depend on w and are asked
again whenever the scheduler looks. Formulas of WFP3 and UNICEP: Tang et al., "Fault-aware, utility-based job scheduling
on Blue Gene/P systems", CLUSTER 2009; of F1: Carastan-Santos and de Camargo, "Obtaining dynamic scheduling policies
with simulation and machine learning", SC 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from twin.engine.jobs.workload import F8, I8, Workload

if TYPE_CHECKING:
    from twin.engine.jobs.simulator import JobTwin

SHORTEST_S = 1e-9
"""Stands for an asked run time of zero where one divides by it."""
LONGEST_S = 1e300
"""Stands for an asked run time that is not told, and an arrival that never comes, where one multiplies it."""
SMALLEST_LOG = 0.1
"""What F1's logarithms are taken of where there is nothing to take one of, as its authors' code does."""


class Order(Protocol):
    """A queue discipline."""

    @property
    def changing(self) -> bool:
        """Do the keys depend on the time?"""
        ...

    def keys(self, workload: Workload, jobs: I8, now_s: float) -> F8:
        """The key of each job [jobs]; the lowest goes first."""
        ...


@runtime_checkable
class Accounting(Protocol):
    """A queue discipline that remembers what happened, and is asked for the order of the moment."""

    def look(self, twin: JobTwin) -> Order:
        """The order as of `twin.now_s`; accounts are kept in `twin.notes`."""
        ...


@dataclass(frozen=True, slots=True)
class Fcfs:
    """First come, first served: s."""

    changing: bool = False

    def keys(self, workload: Workload, jobs: I8, now_s: float) -> F8:  # noqa: ARG002
        """Arrival."""
        return workload.submit_s[jobs]


@dataclass(frozen=True, slots=True)
class Sjf:
    """Shortest asked run time first: r."""

    changing: bool = False

    def keys(self, workload: Workload, jobs: I8, now_s: float) -> F8:  # noqa: ARG002
        """Asked run time."""
        return workload.limit_s[jobs]


@dataclass(frozen=True, slots=True)
class Ljf:
    """Longest asked run time first: -r."""

    changing: bool = False

    def keys(self, workload: Workload, jobs: I8, now_s: float) -> F8:  # noqa: ARG002
        """Negative asked run time."""
        return -workload.limit_s[jobs]


@dataclass(frozen=True, slots=True)
class SmallestArea:
    """Smallest asked core-seconds first: r n."""

    changing: bool = False

    def keys(self, workload: Workload, jobs: I8, now_s: float) -> F8:  # noqa: ARG002
        """Asked core-seconds."""
        return workload.limit_s[jobs] * workload.cores(jobs)


@dataclass(frozen=True, slots=True)
class EarliestDeadline:
    """Earliest deadline first; jobs without one go last."""

    changing: bool = False

    def keys(self, workload: Workload, jobs: I8, now_s: float) -> F8:  # noqa: ARG002
        """Deadline."""
        return workload.deadline_s[jobs]


@dataclass(frozen=True, slots=True)
class HighestPriority:
    """Highest recorded priority first."""

    changing: bool = False

    def keys(self, workload: Workload, jobs: I8, now_s: float) -> F8:  # noqa: ARG002
        """Negative priority."""
        return -workload.priority[jobs]


@dataclass(frozen=True, slots=True)
class F1:
    """log10(r) n + 870 log10(s), lowest first: a formula found by regression over simulations."""

    changing: bool = False

    def keys(self, workload: Workload, jobs: I8, now_s: float) -> F8:  # noqa: ARG002
        """F1's score."""
        asked = _log10(np.minimum(workload.limit_s[jobs], LONGEST_S))
        return asked * workload.cores(jobs) + 870.0 * _log10(np.minimum(workload.submit_s[jobs], LONGEST_S))


@dataclass(frozen=True, slots=True)
class Wfp3:
    """-(w / r)^3 n: favours wide jobs that have waited long for their length."""

    changing: bool = True

    def keys(self, workload: Workload, jobs: I8, now_s: float) -> F8:
        """WFP3's score."""
        asked = np.maximum(workload.limit_s[jobs], SHORTEST_S)
        return -(((now_s - workload.submit_s[jobs]) / asked) ** 3) * workload.cores(jobs)


@dataclass(frozen=True, slots=True)
class Unicep:
    """-w / (log2(n) r): favours narrow, short jobs that have waited long; a job of one core goes before all others.

    1e-15 is added to n, w and the divisor, as the authors of RLScheduler do (Zhang et al., SC 2020): jobs of one core
    that wait for no time would else divide 0 by 0. Where log2(n) is 1e-15 scores are huge, and differ by their waits.
    """

    changing: bool = True

    def keys(self, workload: Workload, jobs: I8, now_s: float) -> F8:
        """UNICEP's score."""
        wide = np.log2(np.maximum(workload.cores(jobs), 1.0) + 1e-15)
        asked = np.maximum(workload.limit_s[jobs], SHORTEST_S)
        return -(now_s - workload.submit_s[jobs] + 1e-15) / (np.maximum(wide, 1e-15) * asked)


def _log10(values: F8) -> F8:
    return np.log10(np.where(values > 0, values, SMALLEST_LOG))
