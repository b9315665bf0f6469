"""Who may start now, given the order of the queue: with or without overtaking those who cannot.

Estimates are what was asked, never what will happen. EASY: Lifka, "The ANL/IBM SP scheduling system", JSSPP 1995;
Mu'alem and Feitelson, IEEE TPDS 12(6), 2001.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from twin.engine.jobs.capacity import Spare
from twin.engine.jobs.machines import CPU
from twin.engine.jobs.simulator import JobTwin


class Backfill(Protocol):
    """Starts what may start now."""

    @property
    def plans(self) -> bool:
        """Does it look at estimated ends, so that every job must have an estimate?"""
        ...

    @property
    def excludes(self) -> tuple[str, ...]:
        """Rules of the `Scheduler`, by the name of their field, that it cannot keep to."""
        ...

    def start(self, twin: JobTwin) -> None:
        """Start jobs of `twin.queue`, and take those that started out of it."""
        ...


@dataclass(frozen=True, slots=True)
class Strict:
    """Nobody overtakes: the first who cannot start blocks everyone behind."""

    plans: bool = False
    excludes: tuple[str, ...] = ()

    def start(self, twin: JobTwin) -> None:
        """Start from the head of the queue as far as there is room."""
        start_head(twin)


@dataclass(frozen=True, slots=True)
class Greedy:
    """Whoever fits starts, in the order of the queue: nobody blocks, and nobody is protected from starving."""

    plans: bool = False
    excludes: tuple[str, ...] = ()

    def start(self, twin: JobTwin) -> None:
        """Start everyone who fits."""
        twin.queue[:] = [entry for entry in twin.queue if not start_or_displace(twin, entry[1])]


@dataclass(frozen=True, slots=True)
class Easy:
    """EASY: others may overtake the head of the queue where that does not delay its earliest start.

    That start is the first estimated end after which the head fits. The machines that it then needs are promised to
    it, those released last first, so that whoever overtakes and stays longer finds as much as possible elsewhere.
    Rules about what runs elsewhere are taken to be lifted by then; a machine that is reserved for others from a later
    time on may be promised, and then the promise does not hold.
    """

    plans: bool = True
    excludes: tuple[str, ...] = ()

    def start(self, twin: JobTwin) -> None:
        """Start the head while there is room, then fill up behind it."""
        start_head(twin)
        # whoever is barred meanwhile is no head: nothing can be promised to it
        place = next((place for place, (_, job) in enumerate(twin.queue) if not twin.barred(job)), len(twin.queue))
        if place + 1 >= len(twin.queue):
            return
        head = twin.queue[place][1]
        shadow_s, spare = reservation(twin, head)
        limit_s, now_s, capacity = twin.limit_s, twin.now_s, twin.capacity
        promised = sum(max(0, capacity.cpu[machine] - left[CPU]) for machine, left in spare.items())
        spare_cpu = capacity.free_cpu - promised  # no more than that is there for those who stay longer
        kept = twin.queue[: place + 1]
        for entry in twin.queue[place + 1 :]:
            job = entry[1]
            if now_s + limit_s[job] <= shadow_s:
                starts = twin.start(job)
            else:
                need = capacity.needed_cpu(job)
                starts = need <= spare_cpu and twin.start(job, spare)
                spare_cpu -= need if starts else 0
            if not starts:
                kept.append(entry)
        twin.queue[:] = kept


def start_head(twin: JobTwin) -> None:
    """Start from the head of the queue as far as there is room; who is barred by a rule blocks nobody."""
    seen, barred = 0, []
    for entry in twin.queue:
        if not start_or_displace(twin, entry[1]):
            if not twin.barred(entry[1]):
                break
            barred.append(entry)
        seen += 1
    twin.queue[:seen] = barred


def start_or_displace(twin: JobTwin, job: int) -> bool:
    """Start the job if there is room, or where the scheduler says so in the place of lower ones."""
    return twin.start(job) or (twin.scheduler.preempts and twin.displace(job))


def reservation(twin: JobTwin, head: int) -> tuple[float, Spare]:
    """When the head can start at the latest, and what is left then on the machines that it will need.

    GPU shares are counted machine by machine, not device by device.
    """
    capacity, workload = twin.capacity, twin.workload
    needed = int(workload.instances[head])
    candidates = twin.candidates(head, whatever_runs=True)
    free: dict[int, list[int]] = {}  # on machines that were looked at
    room: dict[int, int] = {}
    if needed > 1 or twin.scheduler.inspector or twin.scheduler.filters:  # else it would have started where is room
        room = {machine: capacity.room(head, machine) for machine in capacity.lowest_first(head, candidates)}
    total, shadow_s = sum(room.values()), twin.now_s
    released: dict[int, None] = {}  # machines in order of their last release
    for end_s, job in twin.running:
        if total >= needed and end_s > shadow_s:
            break
        shadow_s = max(end_s, twin.now_s)
        for machine, count, _ in twin.held[job]:
            mine = free.setdefault(machine, capacity.free[machine].tolist())
            for r, amount in enumerate(workload.request[job].tolist()):
                mine[r] += count * amount
            if candidates >> machine & 1:
                released.pop(machine, None)
                released[machine] = None
                now_room = capacity.times(head, mine)
                total += now_room - room.get(machine, 0)
                room[machine] = now_room
    request = workload.request[head].tolist()
    spare: Spare = {}
    for machine in (*reversed(released), *sorted(set(room) - set(released), reverse=True)):
        promised = min(needed, room[machine])
        if promised:
            mine = free.get(machine) or capacity.free[machine].tolist()
            spare[machine] = [left - promised * amount for left, amount in zip(mine, request, strict=True)]
            needed -= promised
    return shadow_s, spare
