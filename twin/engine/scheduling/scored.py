"""Placement by scores: machines without room are left out, the others get points by weighted rules, the best is taken.

The instances of a gang are placed one after the other, each with the others counted, and all or none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from numpy.typing import NDArray

from twin.engine.jobs.capacity import Capacity, Held, Ledger, Spare, use_up
from twin.engine.jobs.machines import GPU, NUMBERS, RESOURCES, Machines, check_choice, check_number
from twin.engine.jobs.simulator import JobTwin
from twin.engine.jobs.workload import F8, I8, OWNERS, Owner, Workload
from twin.engine.scheduling import gpu_scores, scores
from twin.engine.scheduling.gpu_scores import GpuScores
from twin.engine.scheduling.tallies import DeviceShares, Mates
from twin.errors import SimulationError, UsageError

LEAST_SAMPLE = 100
"""Machines with room that are scored at the least, if there are as many."""
_START = "scored: first machine to look at"
_SHARES, _MATES = "scored: devices", "scored: mates by "
_NO_MACHINE = -1


@dataclass(frozen=True, slots=True)
class Scored:
    """Takes the machine with the highest weighted mean of scores; of equal ones the first that was looked at.

    `scores` are weights by rule (names: `twin.engine.scheduling.scores.NAMES`); only their proportions count.
    `resources` are the weights within least_allocated and most_allocated; those above 0 count in balanced_allocation.

    `sample_percent` is how many of all machines are enough with room, as kube-scheduler's percentageOfNodesToScore: the
    search goes on where the last one stopped, and 0 stands for 50 - machines / 125, at least 5; never fewer than 100
    machines (Kubernetes documentation, "Scheduler Performance Tuning").

    `group` is "user", "group" or "queue": whose instances the spreading rules keep apart. `seed` is that of the rule
    random. For fgd the pods of all jobs are typical with `foresight`, as in its paper; without, those of the first 1,
    2, 4, ... jobs, as many as arrived. fgd chooses the device of a share too.

    Raises:
        UsageError: a rule, a resource or a group is unknown, a weight or the seed is negative, no weight is above 0,
            or `sample_percent` is not in 0 to 100.
    """

    scores: Mapping[str, float]
    resources: Mapping[str, float] = field(default_factory=lambda: {"cpu": 1.0, "memory": 1.0})
    sample_percent: int = 100
    group: Owner = "user"
    seed: int = 0
    foresight: bool = False
    _desks: list[Desk] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_weights(self.scores, scores.NAMES, "score")
        _check_weights(self.resources, RESOURCES, "resource")
        check_choice("group", self.group, OWNERS)
        check_number("sample_percent", self.sample_percent, "a whole percentage, from 0 to 100", most=100, whole=True)
        check_number("seed", self.seed, "a whole number from 0 on, below 2^63", most=2**63 - 1, whole=True)

    @property
    def rules(self) -> tuple[str, ...]:
        """The rules with a weight above 0, in the order of scores.NAMES."""
        return tuple(name for name in scores.NAMES if self.scores.get(name, 0.0) > 0.0)

    @property
    def sees_residents(self) -> bool:
        """Does it look at the estimated ends of what lies on the machines?"""
        return "lifetime" in self.rules

    def look(self, twin: JobTwin) -> Looking:
        """The ordering of the moment."""
        if not self._desks or not self._desks[0].serves(twin):
            self._desks[:] = [Desk(self, twin.workload, twin.machines)]
        desk = self._desks[0]
        desk.keep_tallies(twin)
        return Looking(twin, desk, desk.known_jobs(twin.now_s))


def _check_weights(weights: Mapping[str, float], known: tuple[str, ...], what: str) -> None:
    unknown = sorted(set(weights) - set(known))
    if unknown:
        raise UsageError(f"{what} {unknown[0]!r} is unknown; known: {', '.join(known)}")
    wrong = [name for name, weight in weights.items() if not (isinstance(weight, NUMBERS) and 0.0 <= weight < np.inf)]
    if wrong:
        raise UsageError(f"{what} {wrong[0]!r} has the weight {weights[wrong[0]]}; give 0 or more")
    if not any(weights.values()):
        raise UsageError(f"no {what} has a weight above 0; give one to at least one of {', '.join(known)}")


def enough(machines: int, percent: int) -> int:
    """How many machines with room kube-scheduler looks for, of all; a `percent` of 0 shrinks with the cluster."""
    if machines < LEAST_SAMPLE:
        return machines
    share = percent or max(50 - machines // 125, 5)
    return max(machines * share // 100, LEAST_SAMPLE)


class Desk:
    """All that does not change while one workload runs on one cluster, and room to work in."""

    def __init__(self, placement: Scored, workload: Workload, machines: Machines) -> None:
        """Tables for this placement."""
        self.workload, self.machines = workload, machines
        self.rules = placement.rules
        weight = np.array([placement.scores[rule] for rule in self.rules])
        self.weight: I8 = np.rint(weight / weight.sum() * scores.FULL).astype(np.int64)
        self.number: I8 = np.array([scores.NAMES.index(rule) for rule in self.rules])
        self.scale: I8 = np.array([scores.SCALES.get(rule, scores.AS_IT_IS) for rule in self.rules])
        self.resources: F8 = np.array([placement.resources.get(name, 0.0) for name in RESOURCES])
        self.wanted = enough(len(machines), placement.sample_percent)
        self.samples = self.wanted < len(machines)
        self.seed = placement.seed
        self.group: Owner = placement.group
        self.bytes = -(-len(machines) // 8)
        self.no_devices: I8 = np.zeros((len(machines), 1), dtype=np.int64)
        self.empty: F8 = np.zeros(0)
        self.nobody: I8 = np.zeros(0, dtype=np.int64)
        self.domain = _domains(machines, self.rules)
        self.spreads = any(rule in scores.SPREADS for rule in self.rules)
        # tallies of other domains or groups have other names
        self.mates_name = _MATES + " ".join((self.group, *(rule for rule in self.rules if rule in scores.SPREADS)))
        self.gpu_rules = [(row, rule) for row, rule in enumerate(self.rules) if rule in scores.GPU_POLICIES]
        self.gpu = GpuScores(workload, machines, [rule for _, rule in self.gpu_rules]) if self.gpu_rules else None
        self.needs_shares = self.gpu is not None or bool(workload.request[:, GPU].any())
        self.lifetime, self.random, self.fgd = (rule in self.rules for rule in ("lifetime", "random", "fgd"))
        self.foresight = placement.foresight
        self.chosen: I8 = np.zeros(len(machines), dtype=np.int64)
        self.raw: F8 = np.zeros((len(self.rules), len(machines)))
        self.scaled, self.total = np.zeros_like(self.raw), np.zeros(len(machines))

    def serves(self, twin: JobTwin) -> bool:
        """Was it made for these jobs and machines?"""
        return self.workload is twin.workload and self.machines is twin.machines

    def keep_tallies(self, twin: JobTwin) -> None:
        """Have the twin's capacity count what the rules look at, from now on and with all that runs already."""
        ledgers = twin.capacity.ledgers
        if self.needs_shares and _SHARES not in ledgers:
            ledgers[_SHARES] = _bring_up(gpu_scores.device_shares(self.workload, self.machines), twin)
        if self.spreads and self.mates_name not in ledgers:
            ledgers[self.mates_name] = _bring_up(Mates(self.workload.owners(self.group)[0], self.domain), twin)

    def known_jobs(self, now_s: float) -> int:
        """How many jobs tell what is typical."""
        if self.foresight or self.gpu is None:
            return len(self.workload)
        arrived = int(np.searchsorted(self.workload.submit_s, now_s, side="right"))
        return 1 << (max(arrived, 1).bit_length() - 1)

    def shares(self, capacity: Capacity) -> DeviceShares | None:
        """The free devices, where a job asks for GPUs or a rule looks at them."""
        return cast("DeviceShares | None", capacity.ledgers.get(_SHARES))

    def mates(self, capacity: Capacity, job: int) -> I8:
        """Instances of the job's group in each domain, where a rule looks at that."""
        if not self.spreads:
            return self.nobody
        return cast("Mates", capacity.ledgers[self.mates_name]).of(job)


def _bring_up(ledger: DeviceShares | Mates, twin: JobTwin) -> Ledger:
    for job, held in twin.held.items():
        for machine, instances, devices in held:
            ledger.change(job, machine, instances, devices)
    return ledger


def _domains(machines: Machines, rules: tuple[str, ...]) -> I8:
    """The zone, rack and node of each machine, all numbered in one go [3, machines]; 0 where no rule looks at them."""
    rows, begin = np.zeros((len(scores.SPREADS), len(machines)), dtype=np.int64), 1
    for row, (rule, kind) in enumerate(scores.SPREADS.items()):
        if rule in rules:
            rows[row] = begin + machines.domains[kind]
            begin = int(rows[row].max()) + 1
    return rows


@dataclass(frozen=True, slots=True)
class Looking:
    """The scores of the moment: an ordering that also places jobs in its own way, instance by instance."""

    twin: JobTwin
    desk: Desk
    known_jobs: int  # that tell what is typical

    def __call__(self, capacity: Capacity, job: int, among: int) -> Iterator[int]:
        """All machines among these with room for an instance of the job, best first."""
        found = self.judge(capacity, job, among, wanted=len(self.desk.machines))[0]
        return iter(self.desk.chosen[:found][self.ranking(found)].tolist())

    def place(self, capacity: Capacity, job: int, among: int, spare: Spare | None) -> Held | None:
        """Take room for all instances of the job, one after the other; None and nothing, or all.

        Of the machines in `spare` no more is taken than that, and what is taken is subtracted there.
        """
        instances = capacity.workload.instances[job]
        left = dict(spare) if spare else {}
        among &= self._spared(capacity, job, left)
        if instances > 1 and not self._have_room(capacity, job, among):
            return None
        held: dict[int, tuple[int, tuple[int, ...]]] = {}
        for instance in range(instances):
            machine = self._best(capacity, job, among, instance)
            if machine == _NO_MACHINE:
                capacity.give_back(job, _as_held(held))
                return None
            count, devices = held.get(machine, (0, ()))
            held[machine] = (count + 1, devices + self._take(capacity, job, machine))
            if machine in left:
                use_up(left, capacity.workload.request[job].tolist(), ((machine, 1),))
                among &= self._spared(capacity, job, {machine: left[machine]})
        if spare:
            spare.update(left)
        return _as_held(held)

    def judge(
        self, capacity: Capacity, job: int, among: int, *, wanted: int | None = None, instance: int = 0
    ) -> tuple[int, int, int]:
        """(machines found with room, looked at, place of the best of the found); their scores are left on the desk."""
        desk, twin = self.desk, self.twin
        shares = desk.shares(capacity)
        now_s = twin.now_s
        found, looked = scores.judge(
            self._bits(among), self._start(), wanted or desk.wanted,
            capacity.free, capacity.machines.capacity, capacity.workload.request[job],
            desk.no_devices if shares is None else shares.free, desk.resources, desk.number,
            self._latest_s(), now_s, now_s + twin.limit_s[job] - float(twin.columns["spent_s"][job]),
            desk.domain, desk.mates(capacity, job), self._seed(job, instance), desk.chosen, desk.raw,
        )  # fmt: skip
        if not found:
            return found, looked, _NO_MACHINE
        if desk.gpu is not None and shares is not None:
            desk.gpu.learn(self.known_jobs)
            for row, rule in desk.gpu_rules:
                desk.gpu.score(rule, capacity, shares, job, desk.chosen[:found], desk.raw[row])
        return found, looked, scores.settle(desk.raw, desk.scale, desk.weight, found, desk.scaled, desk.total)

    def ranking(self, found: int) -> I8:
        """The places of the machines found on the desk, best first [found]."""
        return np.argsort(-self.desk.total[:found], kind="stable")

    def _spared(self, capacity: Capacity, job: int, spare: Spare) -> int:
        """All machines but those that have nothing to spare for an instance of the job, as bits."""
        used_up = sum(1 << machine for machine, amounts in spare.items() if capacity.times(job, amounts) <= 0)
        return ~used_up

    def _best(self, capacity: Capacity, job: int, among: int, instance: int) -> int:
        """The machine that wins; the next search starts behind the last machine that was looked at."""
        _, looked, best = self.judge(capacity, job, among, instance=instance)
        if self.desk.samples:
            self.twin.notes[_START] = np.array([(self._start() + looked) % len(self.desk.machines)])
        return _NO_MACHINE if best == _NO_MACHINE else int(self.desk.chosen[best])

    def _take(self, capacity: Capacity, job: int, machine: int) -> tuple[int, ...]:
        desk, shares = self.desk, self.desk.shares(capacity)
        if desk.fgd and desk.gpu is not None and shares is not None:
            device = desk.gpu.device(capacity, shares, job, machine)
            # thousandths may hide that a device is a little too full
            if device >= 0 and shares.free[machine, device] >= capacity.workload.request[job, GPU]:
                capacity.hold(job, machine, 1, (device,))
                return (device,)
        return capacity.take(job, machine, 1)

    def _have_room(self, capacity: Capacity, job: int, among: int) -> bool:
        shares, load = self.desk.shares(capacity), capacity.workload
        devices = self.desk.no_devices if shares is None else shares.free
        return scores.have_room(self._bits(among), capacity.free, load.request[job], devices, int(load.instances[job]))

    def _bits(self, among: int) -> NDArray[np.uint8]:
        return np.frombuffer(among.to_bytes(self.desk.bytes, "little"), np.uint8)

    def _start(self) -> int:
        """The first machine to look at."""
        if not self.desk.samples:
            return 0
        start = self.twin.notes.get(_START)
        return 0 if start is None else int(cast("I8", start)[0])

    def _seed(self, job: int, instance: int) -> int:
        if not self.desk.random:
            return 0
        return scores.mixed(self.desk.seed, job, int(self.twin.columns["attempts"][job]), instance)

    def _latest_s(self) -> F8:
        if not self.desk.lifetime:
            return self.desk.empty
        if self.twin.residents is None:
            raise SimulationError("the twin does not count what lies where; give this placement to its scheduler")
        return self.twin.residents.latest_s


def _as_held(held: Mapping[int, tuple[int, tuple[int, ...]]]) -> Held:
    return tuple((machine, count, devices) for machine, (count, devices) in held.items())
