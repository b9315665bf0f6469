"""What scores look at and `Capacity` does not count: free shares of devices, kinds of GPU jobs, mates of a group.

Each is kept in step by the capacity that holds it, and copied with it.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from twin.engine.jobs.cells import cells
from twin.engine.jobs.machines import GPU, WHOLE_GPU, Machines
from twin.engine.jobs.workload import I8
from twin.engine.scheduling.gpu_pods import WHOLE

_PER_MILLI = WHOLE_GPU // WHOLE
CLASSES = 5
"""Kinds of GPU jobs: a share, and 1, 2, 4 or more whole devices."""


class DeviceShares:
    """Free GPU of each device, and which kinds of GPU jobs run on each machine.

    `free` is in millionths, `free_milli` in whole thousandths [machines, devices], 0 for a device that a machine lacks;
    bit c of `classes` [machines] is set where jobs of kind c run.
    """

    def __init__(self, machines: Machines, gpu: I8, job_class: I8) -> None:
        """Everything free; `gpu` is what one instance of each job asks for, `job_class` its kind (-1: none)."""
        count = machines.capacity[:, GPU] // WHOLE_GPU
        devices = np.arange(max(1, int(count.max())))
        self.free: I8 = np.where(devices < count[:, None], WHOLE_GPU, 0).astype(np.int64)
        self.free_milli: I8 = self.free // _PER_MILLI
        self.classes: I8 = np.zeros(len(machines), dtype=np.int64)
        self._of_class: I8 = np.zeros((len(machines), CLASSES), dtype=np.int64)
        self._gpu, self._class = cells(gpu), cells(job_class)
        self._view()

    def _view(self) -> None:
        self._free, self._milli, self._count = (
            memoryview(cast("Any", counts)) for counts in (self.free, self.free_milli, self._of_class)
        )
        self._classes = cells(self.classes)

    def copy(self) -> DeviceShares:
        """The same, independent from now on."""
        twin = object.__new__(DeviceShares)
        twin.__dict__.update(self.__dict__)
        for name in ("free", "free_milli", "classes", "_of_class"):
            setattr(twin, name, getattr(self, name).copy())
        twin._view()
        return twin

    def change(self, job: int, machine: int, instances: int, devices: tuple[int, ...]) -> None:
        """That many instances came, or went (below 0), on these devices."""
        if not devices:
            return
        amount = min(self._gpu[job], WHOLE_GPU)
        for device in devices:
            left = self._free[machine, device] - (amount if instances > 0 else -amount)
            self._free[machine, device] = left
            self._milli[machine, device] = left // _PER_MILLI
        own = self._class[job]
        running = self._count[machine, own] + instances
        self._count[machine, own] = running
        others = self._classes[machine] & ~(1 << own)
        self._classes[machine] = others | (1 << own if running else 0)


class Mates:
    """How many instances of each group run in each domain."""

    def __init__(self, group: I8, domain: I8) -> None:
        """Nothing runs; `group` is that of each job, `domain` [kinds of domains, machines] where a machine stands."""
        self._group, self._domain = group, domain
        self._size = int(domain.max()) + 1
        self._none: I8 = np.zeros(self._size, dtype=np.int64)
        self._of: dict[int, I8] = {}  # groups that run something

    def copy(self) -> Mates:
        """The same, independent from now on."""
        twin = object.__new__(Mates)
        twin.__dict__.update(self.__dict__)
        twin._of = {group: counts.copy() for group, counts in self._of.items()}
        return twin

    def of(self, job: int) -> I8:
        """Instances of the job's group in each domain [domains]; not to be changed."""
        return self._of.get(int(self._group[job]), self._none)

    def change(self, job: int, machine: int, instances: int, devices: tuple[int, ...]) -> None:  # noqa: ARG002
        """That many instances came, or went (below 0)."""
        group = int(self._group[job])
        counts = self._of.get(group)
        if counts is None:
            counts = self._of[group] = np.zeros(self._size, dtype=np.int64)
        counts[self._domain[:, machine]] += instances
        if instances < 0 and not counts.any():
            del self._of[group]
