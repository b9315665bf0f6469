"""What lies on each machine, and until when by its estimate: kept for rules that look at it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from twin.engine.jobs.capacity import Held
from twin.engine.jobs.machines import Machines
from twin.engine.jobs.workload import F8, I8


class Residents:
    """The running jobs of each machine; `latest_s` is when the last of them ends by its estimate (0: nothing runs)."""

    def __init__(self, machines: Machines, owners: Mapping[str, I8]) -> None:
        """Empty machines; `owners` says whose each job is, by number [jobs]."""
        self._machines, self._owners = machines, owners
        self._domains: dict[str, dict[int, int]] = {}
        self._of: dict[str, dict[int, set[int]]] = {by: {} for by in owners}
        self._on: list[dict[int, int]] = [{} for _ in range(len(machines))]
        self._end_s: dict[int, float] = {}
        self.latest_s: F8 = np.zeros(len(machines))

    def copy(self) -> Residents:
        """The same, independent from now on."""
        twin = object.__new__(Residents)
        twin._machines, twin._owners, twin._domains = self._machines, self._owners, self._domains
        twin._of = {by: {each: mine.copy() for each, mine in of.items()} for by, of in self._of.items()}
        twin._on = [jobs.copy() for jobs in self._on]
        twin._end_s = self._end_s.copy()
        twin.latest_s = self.latest_s.copy()
        return twin

    def on(self, machine: int) -> Mapping[int, int]:
        """How many instances of which jobs run on the machine."""
        return self._on[machine]

    def of(self, by: str, owner: int) -> Collection[int]:
        """The running jobs of an owner."""
        return self._of[by].get(owner, ())

    def domains(self, domain: str) -> Mapping[int, int]:
        """The machines of each domain ("zone", "rack", "node") by its number, as bits."""
        if domain not in self._domains:
            bits: dict[int, int] = {}
            for machine, number in enumerate(self._machines.domains[domain].tolist()):
                bits[number] = bits.get(number, 0) | 1 << machine
            self._domains[domain] = bits
        return self._domains[domain]

    def add(self, job: int, held: Held, end_s: float) -> None:
        """The job runs there, until `end_s` by its estimate."""
        self._end_s[job] = end_s
        for by, owners in self._owners.items():
            self._of[by].setdefault(int(owners[job]), set()).add(job)
        for machine, instances, _ in held:
            self._on[machine][job] = instances
            self.latest_s[machine] = max(self.latest_s[machine], end_s)

    def drop(self, job: int, held: Held) -> None:
        """The job runs no longer."""
        end_s = self._end_s.pop(job)
        for by, owners in self._owners.items():
            self._of[by][int(owners[job])].discard(job)
        for machine, _, _ in held:
            mine = self._on[machine]
            del mine[job]
            if end_s >= self.latest_s[machine]:
                self.latest_s[machine] = max((self._end_s[other] for other in mine), default=0.0)
