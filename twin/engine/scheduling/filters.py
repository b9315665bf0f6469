"""Where a job may run, given the time and what runs elsewhere: reservations, affinity, spread.

Affinity and spread follow Kubernetes' required pod affinity, anti-affinity and topology spread constraints
(kubernetes.io, "Assigning Pods to Nodes" and "Pod Topology Spread Constraints"), for whole jobs; what a job asks of a
machine's labels and taints is told by the job itself (`jobs.requires`, `jobs.tolerates`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from twin.engine.jobs.machines import ANY, Machines, check_choice, check_names, check_number
from twin.engine.jobs.scheduler import Allowed
from twin.errors import SimulationError

if TYPE_CHECKING:
    from twin.engine.jobs.residents import Residents
    from twin.engine.jobs.simulator import JobTwin

Domain = Literal["zone", "rack", "node"]
Relation = Literal["user", "group"]
DOMAINS: tuple[str, ...] = get_args(Domain)
RELATIONS: tuple[str, ...] = get_args(Relation)
_EVERYWHERE = -1


@dataclass(frozen=True, slots=True)
class Reservation:
    """Some machines belong to some users from `time_s` on for `duration_s`.

    Others may take them before that only if by their estimate they end in time.

    Raises:
        UsageError: a time is negative, or `machines` or `users` is no list of names.
    """

    time_s: float
    duration_s: float
    machines: tuple[str, ...]
    users: tuple[str, ...]
    name: str = "are reserved for others"

    def __post_init__(self) -> None:
        check_number("time_s", self.time_s, "a time of 0 s or more")
        check_number("duration_s", self.duration_s, "a time of 0 s or more", most=np.inf)
        check_names("machines", self.machines)
        check_names("users", self.users)

    def look(self, twin: JobTwin) -> Allowed:
        """Everything for those users; for others what they give back in time. Looks again when it ends."""
        end_s = self.time_s + self.duration_s
        if twin.now_s >= end_s:
            return lambda _job: _EVERYWHERE
        self._look_again(twin, end_s)
        load, limit_s, users = twin.workload, twin.limit_s, self.users
        others = ~_bits(twin.machines, self.machines)
        left_s = self.time_s - twin.now_s

        def allowed(job: int) -> int:
            mine = limit_s[job] <= left_s or load.users[load.user[job]] in users
            return _EVERYWHERE if mine else others

        return allowed

    def _look_again(self, twin: JobTwin, end_s: float) -> None:
        note = f"reservation {self.time_s!r} {end_s!r}"
        if note not in twin.notes:
            twin.notes[note] = np.array([end_s])
            twin.look_at(self.time_s)
            twin.look_at(end_s)


@lru_cache(maxsize=64)
def _numbers(names: tuple[str, ...]) -> dict[str, int]:
    return {name: number for number, name in enumerate(names)}


def _bits(machines: Machines, names: tuple[str, ...]) -> int:
    known = _numbers(machines.names)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SimulationError(f"a reservation names the machine {unknown[0]!r}, which is not there; check its name")
    return sum(1 << known[name] for name in names)


@dataclass(frozen=True, slots=True)
class Affinity:
    """A job goes only where one of its user (or group) runs already; the first of them goes anywhere.

    Raises:
        UsageError: an unknown domain or kind of owner.
    """

    domain: Domain = "zone"
    by: Relation = "user"
    sees_residents: bool = True

    def __post_init__(self) -> None:
        _check_words(self.domain, self.by)

    @property
    def name(self) -> str:
        """What is the matter with the other machines."""
        return f"have none of its {self.by} near"

    def look(self, twin: JobTwin) -> Allowed:
        """The domains of those who run; everywhere where none does."""

        def allowed(job: int) -> int:
            count = _running(twin, job, self.domain, self.by)
            return _union(twin, self.domain, count) if count else _EVERYWHERE

        return allowed


@dataclass(frozen=True, slots=True)
class AntiAffinity:
    """A job goes only where none of its user (or group) runs.

    Raises:
        UsageError: an unknown domain or kind of owner.
    """

    domain: Domain = "node"
    by: Relation = "user"
    sees_residents: bool = True

    def __post_init__(self) -> None:
        _check_words(self.domain, self.by)

    @property
    def name(self) -> str:
        """What is the matter with the other machines."""
        return f"have one of its {self.by} near"

    def look(self, twin: JobTwin) -> Allowed:
        """Everywhere but the domains of those who run."""
        return lambda job: ~_union(twin, self.domain, _running(twin, job, self.domain, self.by))


@dataclass(frozen=True, slots=True)
class Spread:
    """No domain holds more than `max_skew` jobs of a user (or group) more than the one that holds the fewest.

    Domains are those with an open machine that the job accepts.

    Raises:
        UsageError: an unknown domain or kind of owner, or a skew below 1.
    """

    domain: Domain = "zone"
    max_skew: int = 1
    by: Relation = "user"
    sees_residents: bool = True

    def __post_init__(self) -> None:
        _check_words(self.domain, self.by)
        wanted = "a whole number of at least 1: jobs cannot be spread more evenly"
        check_number("max_skew", self.max_skew, wanted, least=1, whole=True)

    @property
    def name(self) -> str:
        """What is the matter with the other machines."""
        return f"hold too many of its {self.by}"

    def look(self, twin: JobTwin) -> Allowed:
        """The domains that may hold one more."""

        def allowed(job: int) -> int:
            if not _related(twin, job, self.by):
                return _EVERYWHERE
            among = twin.capacity.candidates(job)
            open_to_it = [number for number, bits in _residents(twin).domains(self.domain).items() if bits & among]
            count = _running(twin, job, self.domain, self.by)
            most = min((count[number] for number in open_to_it), default=0) + self.max_skew
            return _union(twin, self.domain, [number for number in open_to_it if count[number] < most])

        return allowed


def _check_words(domain: str, by: str) -> None:
    check_choice("domain", domain, DOMAINS)
    check_choice("by", by, RELATIONS)


def _residents(twin: JobTwin) -> Residents:
    if twin.residents is None:
        raise SimulationError("this rule looks at residents: give it to the scheduler among its filters")
    return twin.residents


def _related(twin: JobTwin, job: int, by: Relation) -> bool:
    """Does it belong to anybody?"""
    number, names = twin.workload.owners(by)
    return names[number[job]] != ANY


def _running(twin: JobTwin, job: int, domain: Domain, by: Relation) -> Counter[int]:
    """How many jobs of the same owner run in each domain."""
    count: Counter[int] = Counter()
    if _related(twin, job, by):
        where, (number, _) = twin.machines.domains[domain], twin.workload.owners(by)
        for other in _residents(twin).of(by, int(number[job])):
            count.update({int(where[machine]) for machine, _, _ in twin.held[other]})
    return count


def _union(twin: JobTwin, domain: Domain, numbers: Iterable[int]) -> int:
    """The machines of these domains, as bits."""
    bits, made = _residents(twin).domains(domain), 0
    for number in numbers:
        made |= bits[number]
    return made
