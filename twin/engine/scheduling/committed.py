"""Committed dispatch: whoever was elected keeps its turn until it starts.

The rule of RLScheduler's comparison of heuristics: Zhang et al., "RLScheduler: an automated HPC batch job scheduler
using reinforcement learning", SC 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from twin.engine.jobs.simulator import JobTwin
from twin.engine.scheduling.backfill import reservation

_NOTE = "committed"


@dataclass(frozen=True, slots=True)
class Elected:
    """The job whose turn it is, and its earliest start by the estimates when it was elected.

    Where nobody fills up, nobody asks for that start: it is the time of the election.
    """

    job: int
    start_s: float


@dataclass(frozen=True, slots=True)
class Committed:
    """The first of the queue is elected and stays so until it starts, whoever arrives meanwhile.

    With `fill`, those behind may start, first come first served whatever the order of the queue, if by their estimate
    they end before the elected job's earliest start. That start is fixed when it is elected and not looked at again.
    """

    fill: bool = True
    excludes: tuple[str, ...] = ("preempts",)

    @property
    def plans(self) -> bool:
        """Only filling looks at estimates."""
        return self.fill

    def start(self, twin: JobTwin) -> None:
        """Start elected jobs while there is room, then fill up behind the one that has to wait."""
        turn = _turn(twin)
        while twin.queue:
            job = turn.job if turn else twin.queue[0][1]
            if not twin.start(job):
                turn = turn or Elected(job, reservation(twin, job)[0] if self.fill else twin.now_s)
                break
            twin.queue[:] = [entry for entry in twin.queue if entry[1] != job]
            turn = None
        if turn and self.fill:
            _fill(twin, turn)
        twin.notes[_NOTE] = np.array([turn.job, turn.start_s] if turn else [])


def _turn(twin: JobTwin) -> Elected | None:
    """Whoever was elected before and waits still."""
    noted = twin.notes.get(_NOTE, np.empty(0)).tolist()
    turn = Elected(int(noted[0]), noted[1]) if noted else None
    return turn if turn and any(job == turn.job for _, job in twin.queue) else None


def _fill(twin: JobTwin, turn: Elected) -> None:
    """Start those who end in time, in order of arrival."""
    limit_s, now_s = twin.limit_s, twin.now_s
    in_time = sorted(job for _, job in twin.queue if job != turn.job and now_s + limit_s[job] < turn.start_s)
    started = {job for job in in_time if twin.start(job)}
    twin.queue[:] = [entry for entry in twin.queue if entry[1] not in started]
