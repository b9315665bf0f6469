"""What each owner holds now, counted for quotas."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np

from twin.engine.jobs.machines import CPU, GPU
from twin.engine.jobs.workload import I8, Owner, Workload


class Holdings:
    """Cores and GPUs, in small units, and jobs of each user, group or queue; only of the kinds that are asked for."""

    def __init__(self, workload: Workload, kinds: Collection[Owner], running: Iterable[int]) -> None:
        """What these running jobs hold."""
        self._workload = workload
        self._owners = {by: workload.owners(by) for by in sorted(kinds)}
        self._holds = {by: np.zeros((len(names), 3), dtype=np.int64) for by, (_, names) in self._owners.items()}
        for job in running if kinds else ():
            self.count(job, 1)

    def count(self, job: int, sign: int) -> None:
        """The job begins (1) or ends (-1) to hold what it asked for."""
        asked = self.asked(job)
        for by, holds in self._holds.items():
            holds[self._owners[by][0][job]] += sign * asked

    def asked(self, job: int) -> I8:
        """What the job asks for: cores, GPUs, one job [3]."""
        request, instances = self._workload.request[job], int(self._workload.instances[job])
        return np.array([request[CPU] * instances, request[GPU] * instances, 1])

    def of(self, by: Owner, job: int) -> tuple[str, I8]:
        """Whose the job is, and what the same owner holds now [3]."""
        number, names = self._owners[by]
        return names[number[job]], self._holds[by][number[job]]
