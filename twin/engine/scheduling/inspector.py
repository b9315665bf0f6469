"""A second look at what the scheduler decided: may this job start now, or had it better wait a little?

The scheme of Zhang, Dai and Xie, "SchedInspector: a batch job scheduling inspector using reinforcement learning", HPDC
2022: any base discipline, and on top of it something that rejects a start now and then, at most so often for one job.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from twin.engine.jobs.machines import ABOVE_ZERO, CPU, UNITS, check_number
from twin.engine.jobs.workload import F8

if TYPE_CHECKING:
    from twin.engine.jobs.simulator import JobTwin

FEATURES = ("wait_s", "estimate_s", "cores_share", "left_share", "rejected_share", "waiting_jobs", "slowdown_growth")
"""What a policy sees of a job that is about to start, see `Inspecting.features`."""
WAIT_S, ESTIMATE_S, CORES_SHARE, LEFT_SHARE, REJECTED_SHARE, WAITING_JOBS, SLOWDOWN_GROWTH = range(len(FEATURES))
SHORTEST_S = 10.0
"""Shorter jobs count as this long in a bounded slowdown (Feitelson, JSSPP 2001)."""
_NOTE = "inspector:rejections"

Policy = Callable[[F8], float]
"""The probability that a start is right, from its features [len(FEATURES)]."""


@dataclass(frozen=True, slots=True)
class Inspecting:
    """Asks a policy about each start; one whose probability is below a half is rejected and counts as not fitting.

    The scheduler looks again when anything happens, and after `again_s` at the latest. A job that was rejected `most`
    times starts unasked, so that nobody starves. The defaults are the paper's: 600 s, and 72 times, which is 12 hours.
    A policy that explores draws for itself and returns 0 or 1.

    Raises:
        UsageError: `most` is below 0, or `again_s` not above 0 s.
    """

    policy: Policy
    most: int = 72
    again_s: float = 600.0

    def __post_init__(self) -> None:
        check_number("most", self.most, "a number of times, 0 or more", most=np.inf)
        check_number("again_s", self.again_s, "a time above 0 s", least=ABOVE_ZERO)

    def accepts(self, twin: JobTwin, job: int) -> bool:
        """May the job, for which there is room, start now?"""
        count = rejections(twin)
        if count[job] >= self.most or self.policy(self.features(twin, job)) >= 0.5:
            return True
        count = count.copy()
        count[job] += 1
        twin.notes[_NOTE] = count
        twin.look_at(twin.now_s + self.again_s)
        return False

    def features(self, twin: JobTwin, job: int) -> F8:
        """What the policy sees [len(FEATURES)], after the paper and its authors' code, in natural units.

        `wait_s` so far; `estimate_s`; `cores_share` asked, of all cores; `left_share`, of all cores what stays free
        beside the job (both NaN where nobody published the cores); `rejected_share`, of `most`; `waiting_jobs` besides
        it; `slowdown_growth`, by how much the bounded slowdowns of all who wait grow together in `again_s`.
        """
        load = twin.workload
        cores = float(twin.machines.total()[CPU])
        waiting = np.fromiter((other for _, other in twin.queue if other not in twin.held), np.int64)
        growth = self.again_s / np.maximum(load.limit_s[waiting], SHORTEST_S)
        return np.array(
            [
                twin.now_s - load.submit_s[job],
                load.limit_s[job],
                load.cores(np.array([job]))[0] / cores,
                twin.capacity.free[:, CPU].sum() / UNITS[CPU] / cores,
                rejections(twin)[job] / max(self.most, 1),
                (waiting != job).sum(),
                growth.sum(),
            ],
            dtype=np.float64,
        )


def rejections(twin: JobTwin) -> np.ndarray:
    """How often each job was rejected so far [jobs]; not to be changed in place."""
    count = twin.notes.get(_NOTE)
    return count if isinstance(count, np.ndarray) else np.zeros(len(twin.workload), dtype=np.int32)


@dataclass(frozen=True, slots=True)
class KeepRoom:
    """A rule as a policy: no long job takes the last free cores, so that short ones to come find room.

    It rejects a job with an estimate of `long_s` or more where less than the share `keep` of all cores would stay free,
    unless the job is so wide that waiting cannot help.

    Raises:
        UsageError: `long_s` is negative, or `keep` not in 0 to 1.
    """

    long_s: float = 4 * 3600.0
    keep: float = 0.1

    def __post_init__(self) -> None:
        check_number("long_s", self.long_s, "a time of 0 s or more", most=np.inf)
        check_number("keep", self.keep, "a share of all cores, from 0 to 1", most=1.0)

    def __call__(self, features: F8) -> float:
        """1 to accept, 0 to reject."""
        is_long = features[ESTIMATE_S] >= self.long_s
        could_fit = features[CORES_SHARE] <= 1.0 - self.keep
        return 0.0 if is_long and could_fit and features[LEFT_SHARE] < self.keep else 1.0
