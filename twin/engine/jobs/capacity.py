"""What is free on which machine, indexed so that the best one is found without looking at all of them.

Machines are grouped by free cores into levels; a level is a whole number whose bit i says that machine i is in it. The
lowest machine of a level, or of those that a job accepts, is then a matter of a few operations on whole numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import FunctionType
from typing import Protocol

import numpy as np

from twin.engine.jobs.cells import cells
from twin.engine.jobs.machines import CPU, GPU, MEMORY, WHOLE_GPU, Machines
from twin.engine.jobs.workload import Workload

LEVELS = 64
_GRADES = 64
Held = tuple[tuple[int, int, tuple[int, ...]], ...]
"""What a job holds: (machine, number of instances, devices of its GPUs), machine by machine."""
Spare = dict[int, list[int]]
"""What may be taken of some machines [resources], in small units; the others have no such bound."""


class Ledger(Protocol):
    """A count of its own that `Capacity.ledgers` keeps in step with what is taken and given back."""

    def change(self, job: int, machine: int, instances: int, devices: tuple[int, ...]) -> None:
        """That many instances came, or went (below 0), on these devices."""
        ...

    def copy(self) -> Ledger:
        """The same, independent from now on."""
        ...


class Capacity:
    """Free cores, memory and GPUs of each machine; a closed machine gives nothing until it is opened again."""

    def __init__(self, machines: Machines, workload: Workload) -> None:
        """Everything free and open."""
        self.machines, self.workload = machines, workload
        self.free = machines.capacity.copy()
        self.open = (1 << len(machines)) - 1
        self.ledgers: dict[str, Ledger] = {}
        devices = machines.capacity[:, GPU] // WHOLE_GPU
        self.devices: dict[int, tuple[int, ...]] = {
            int(m): (WHOLE_GPU,) * int(devices[m]) for m in np.flatnonzero(devices)
        }
        self._step = max(1, -(-int(machines.capacity[:, CPU].max()) // LEVELS))
        cores = machines.capacity[:, CPU]
        # every amount that was or will be asked is a multiple of a level: machines of a level are equally full
        self._levels_are_exact = not (cores % self._step).any() and not (workload.request[:, CPU] % self._step).any()
        self.free_cpu = int(cores.sum())  # of all machines, closed ones too
        self._bit = [1 << m for m in range(len(machines))]
        self._levels = [0] * (LEVELS + 1)
        for machine, free in enumerate(cores.tolist()):
            self._levels[free // self._step] |= self._bit[machine]
        # machines with at least so much memory, by grade: what has too little need not be looked at one by one
        self._roomy = [0] * _GRADES
        self._most_memory = int(workload.request[:, MEMORY].max(initial=0))  # more than that nobody asks for
        self._memory_grade = [
            _grade(min(amount, self._most_memory)) for amount in machines.capacity[:, MEMORY].tolist()
        ]
        for amount in np.unique(machines.capacity[:, MEMORY]).tolist():
            alike = sum(self._bit[m] for m in np.flatnonzero(machines.capacity[:, MEMORY] == amount).tolist())
            for grade in range(_grade(min(amount, self._most_memory)) + 1):
                self._roomy[grade] |= alike
        self.accepted = [
            sum(self._bit[m] for m in np.flatnonzero(fits[machines.kind]).tolist()) for fits in workload.fits_kind
        ]
        self._view()

    def _view(self) -> None:
        self.cpu, self.memory, self.gpu = (cells(self.free[:, r]) for r in (CPU, MEMORY, GPU))
        self._cpu, self._memory, self._gpu = (cells(self.workload.request[:, r]) for r in (CPU, MEMORY, GPU))
        self._class = cells(self.workload.job_class)
        self._instances = cells(self.workload.instances)

    def copy(self) -> Capacity:
        """The same state, independent from now on."""
        twin = object.__new__(Capacity)
        twin.__dict__.update(self.__dict__)
        twin.free = self.free.copy(order="K")
        twin.devices = self.devices.copy()
        twin.ledgers = {name: ledger.copy() for name, ledger in self.ledgers.items()}
        twin._levels, twin._roomy = self._levels.copy(), self._roomy.copy()
        twin._memory_grade = self._memory_grade.copy()
        twin._view()
        return twin

    # -------------------------------------------------- looking

    def candidates(self, job: int) -> int:
        """The open machines that the job accepts, as bits."""
        return self.accepted[self._class[job]] & self.open

    def needed_cpu(self, job: int) -> int:
        """Cores of all instances of the job together, in small units."""
        return self._instances[job] * self._cpu[job]

    def room(self, job: int, machine: int) -> int:
        """How many instances of the job fit on the machine now."""
        cpu, memory, gpu = self._cpu[job], self._memory[job], self._gpu[job]
        room = self.cpu[machine] // cpu if cpu else self._instances[job]
        if memory and self.memory[machine] // memory < room:
            room = self.memory[machine] // memory
        if gpu and room:
            devices = self.devices.get(machine, ())
            if gpu < WHOLE_GPU:
                room = min(room, sum(free // gpu for free in devices))
            else:
                room = min(room, devices.count(WHOLE_GPU) // (gpu // WHOLE_GPU))
        return room

    def has_room(self, job: int, held: Held) -> bool:
        """Is there room for the job in this very place, down to the devices?"""
        amount = min(self._gpu[job], WHOLE_GPU)
        for machine, count, devices in held:
            free = self.devices.get(machine, ())
            if any(self.free[machine] < count * self.workload.request[job]):
                return False
            if any(free[device] < amount * devices.count(device) for device in devices):
                return False
        return True

    def times(self, job: int, amounts: list[int]) -> int:
        """How many instances of the job go into these amounts [resources]."""
        request = (self._cpu[job], self._memory[job], self._gpu[job])
        return min(
            (have // need for have, need in zip(amounts, request, strict=True) if need), default=self._instances[job]
        )

    def fullest_first(self, job: int, among: int) -> Iterator[int]:
        """Machines with room, those with the least free cores first, then the lowest number (best fit)."""
        return self._by_level(job, among, range(self._cpu[job] // self._step, LEVELS + 1), 1)

    def emptiest_first(self, job: int, among: int) -> Iterator[int]:
        """Machines with room, those with the most free cores first, then the lowest number (worst fit)."""
        return self._by_level(job, among, range(LEVELS, self._cpu[job] // self._step - 1, -1), -1)

    def lowest_first(self, job: int, among: int) -> Iterator[int]:
        """Machines with room by number (first fit)."""
        need = self._cpu[job]
        enough = 0
        for level in range(need // self._step, LEVELS + 1):
            enough |= self._levels[level]
        enough &= among & self._roomy[_grade(self._memory[job])]
        while enough:
            lowest = enough & -enough
            machine = lowest.bit_length() - 1
            if self.cpu[machine] >= need and self.room(job, machine) > 0:
                yield machine
            enough ^= lowest

    def _by_level(self, job: int, among: int, levels: range, sign: int) -> Iterator[int]:
        found, memory, need, gpu = self._levels, self.memory, self._memory[job], self._gpu[job]
        among &= self._roomy[_grade(need)]
        for level in levels:
            if not found[level]:
                continue
            here = found[level] & among
            if not self._levels_are_exact:
                yield from self._by_cores(job, here, sign)
                continue
            while here:
                lowest = here & -here
                machine = lowest.bit_length() - 1
                if memory[machine] >= need and (not gpu or self.room(job, machine) > 0):
                    yield machine
                here ^= lowest

    def _by_cores(self, job: int, here: int, sign: int) -> Iterator[int]:
        found = []
        while here:
            lowest = here & -here
            machine = lowest.bit_length() - 1
            if self.room(job, machine) > 0:
                found.append((sign * self.cpu[machine], machine))
            here ^= lowest
        return (machine for _, machine in sorted(found))

    # -------------------------------------------------- taking and giving back

    def take(self, job: int, machine: int, instances: int) -> tuple[int, ...]:
        """Take room for that many instances; returns the devices that their GPUs lie on."""
        devices = self._choose_devices(job, machine, instances) if self._gpu[job] else ()
        self.hold(job, machine, instances, devices)
        return devices

    def hold(self, job: int, machine: int, instances: int, devices: tuple[int, ...]) -> None:
        """Take room for that many instances on these very devices."""
        self._change(job, machine, -instances)
        if devices:
            self._change_devices(job, machine, devices, -1)
        for ledger in self.ledgers.values():
            ledger.change(job, machine, instances, devices)

    def give_back(self, job: int, held: Held) -> None:
        """Free what the job held."""
        for machine, instances, devices in held:
            self._change(job, machine, instances)
            if devices:
                self._change_devices(job, machine, devices, 1)
            for ledger in self.ledgers.values():
                ledger.change(job, machine, -instances, devices)

    def _change_devices(self, job: int, machine: int, devices: tuple[int, ...], sign: int) -> None:
        amount = sign * min(self._gpu[job], WHOLE_GPU)
        free = list(self.devices[machine])
        for device in devices:
            free[device] += amount
        self.devices[machine] = tuple(free)

    def _change(self, job: int, machine: int, instances: int) -> None:
        before = self.cpu[machine]
        given = instances * self._cpu[job]
        after = before + given
        self.free_cpu += given
        self.cpu[machine] = after
        if self._memory[job]:
            self.memory[machine] = free = self.memory[machine] + instances * self._memory[job]
            old, most = self._memory_grade[machine], self._most_memory
            new = _grade(free if free < most else most)
            if old != new:
                self._memory_grade[machine] = new
                low, high = (old, new) if old < new else (new, old)
                for grade in range(low + 1, high + 1):
                    self._roomy[grade] ^= self._bit[machine]
        if self._gpu[job]:
            self.gpu[machine] += instances * self._gpu[job]
        before //= self._step
        after //= self._step
        if before != after:
            bit = self._bit[machine]
            self._levels[before] ^= bit
            self._levels[after] ^= bit

    def _choose_devices(self, job: int, machine: int, instances: int) -> tuple[int, ...]:
        """A share goes to the fullest device with room, whole GPUs to the first free ones."""
        gpu = self._gpu[job]
        free = list(self.devices[machine])
        taken: list[int] = []
        for _ in range(instances):
            if gpu < WHOLE_GPU:
                _, device = min((left, d) for d, left in enumerate(free) if left >= gpu)
                chosen = [device]
            else:
                chosen = [d for d, left in enumerate(free) if left == WHOLE_GPU][: gpu // WHOLE_GPU]
            for device in chosen:
                free[device] -= min(gpu, WHOLE_GPU)
            taken += chosen
        return tuple(taken)

    def close(self, machine: int) -> None:
        """Nothing new is placed on the machine."""
        self.open &= ~self._bit[machine]

    def reopen(self, machine: int) -> None:
        """The machine takes jobs again."""
        self.open |= self._bit[machine]


def _grade(memory: int) -> int:
    """The grade of an amount of memory: one for each doubling."""
    return memory.bit_length()


Ordering = Callable[[Capacity, int, int], Iterator[int]]
"""Machines with room for a job among some, best first.

One that has a method `place(capacity, job, among, spare) -> Held | None` takes the room itself, as the function `place`
below does.
"""


def place(
    capacity: Capacity, job: int, ordering: Ordering, spare: Spare | None = None, *, among: int | None = None
) -> Held | None:
    """Take room for all instances of the job on the machines that `ordering` puts first; None and nothing, or all.

    `among` are the machines that may be taken, as bits; by default all that are open and that the job accepts.
    Of the machines in `spare` no more is taken than that, and what is taken is subtracted there.
    """
    instances = capacity._instances[job]
    if instances * capacity._cpu[job] > capacity.free_cpu:
        return None
    among = capacity.candidates(job) if among is None else among
    own_way = None if type(ordering) is FunctionType else getattr(ordering, "place", None)
    if own_way is not None:
        return own_way(capacity, job, among, spare)
    if instances == 1 and not spare:
        for machine in ordering(capacity, job, among):
            return ((machine, 1, capacity.take(job, machine, 1)),)
        return None
    chosen = _choose(capacity, job, ordering(capacity, job, among), spare or {})
    if spare:
        use_up(spare, capacity.workload.request[job].tolist(), chosen)
    return tuple((machine, count, capacity.take(job, machine, count)) for machine, count in chosen) or None


def _choose(capacity: Capacity, job: int, best: Iterator[int], spare: Spare) -> list[tuple[int, int]]:
    """Machines for all instances of the job, and how many on each; none where they are too few."""
    left = capacity._instances[job]
    chosen: list[tuple[int, int]] = []
    for machine in best:
        count = min(left, capacity.room(job, machine))
        if machine in spare:
            count = min(count, capacity.times(job, spare[machine]))
        if count > 0:
            chosen.append((machine, count))
            left -= count
        if not left:
            return chosen
    return []


def use_up(spare: Spare, request: list[int], chosen: Iterable[tuple[int, int]]) -> None:
    """Subtract what instances of that request [resources] take of machines in `spare`; (machine, instances) each."""
    for machine, count in chosen:
        if machine in spare:
            spare[machine] = [have - count * each for have, each in zip(spare[machine], request, strict=True)]
