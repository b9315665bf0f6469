"""Faults: what each kind of event does to nodes, replicas and telemetry; and the wear that nobody scheduled.

Every fault that had an effect is written into the run's `incidents`, so that detectors can be judged by it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import simpy

from twin.engine.acts import names
from twin.engine.clock import after
from twin.engine.incidents import Incidents
from twin.engine.memory import Memory
from twin.engine.nodes import Nodes
from twin.engine.replicas import Replicas
from twin.engine.state import State
from twin.errors import SimulationError
from twin.seeds import child
from twin.types import Cluster, Event

DAY_S = 86_400.0
EVICT_AFTER_S = 300.0  # Kubernetes' default toleration of a node that cannot be reached
_DEGRADATION_STEPS = 20
_Place = TypeVar("_Place", bound=Hashable)


@dataclass(slots=True)
class Plight:
    """What a fault acts upon."""

    env: simpy.Environment
    cluster: Cluster
    state: State
    nodes: Nodes
    replicas: Replicas
    memory: Memory
    incidents: Incidents


class Faults:
    """Makes events happen; `schedule` and `wear` put them on the clock."""

    def __init__(self, plight: Plight) -> None:
        """Nothing is broken yet."""
        self._of = plight
        self._kinds: dict[str, Callable[[Event], None]] = {
            "node_failure": self._fail_nodes,
            "rack_failure": self._fail_rack,
            "zone_failure": self._fail_zone,
            "partition": self._partition,
            "slow_nodes": self._slow,
            "disk_full": self._disk_full,
            "interruption": self._interrupt,
            "shortage": self._shortage,
            "memory_leak": self._leak,
            "degradation": self._degrade,
            "bad_deploy": self._bad_deploy,
            "telemetry_loss": self._go_blind,
            "telemetry_delay": self._delay,
        }
        self._names = names(plight.cluster, plight.state)
        self._active: dict[tuple[str, Hashable], list[Event]] = {}  # what is in force, by kind and place
        self._cuts = [0] * len(plight.cluster.pools)  # how often each pool was cut off

    # -------------------------------------------------- the clock

    def schedule(self, events: Sequence[Event]) -> None:
        """Make the scenario's events happen; raises SimulationError for an unknown kind or target, or a past time."""
        env = self._of.env
        for event in events:
            if event.kind not in self._kinds:
                raise SimulationError(
                    f"event at {event.time_s:g} s: no kind {event.kind!r}; known: {list(self._kinds)}"
                )
            if event.time_s < env.now or event.duration_s < 0:
                raise SimulationError(
                    f"event {event.kind} at {event.time_s:g} s for {event.duration_s:g} s: "
                    f"it must not begin before {env.now:g} s nor end before it begins"
                )
            known = self._targets(event.kind)
            if event.target not in known:
                raise SimulationError(
                    f"event {event.kind} at {event.time_s:g} s: no {event.target!r}; known: {list(known)}"
                )
            after(env, event.time_s - env.now, self._kinds[event.kind], event)

    def wear(self, seed: int, until_s: float) -> None:
        """Draw each slot's failures and interruptions as Poisson processes: the same instants under every controller.

        One that befalls a slot that is not up at that instant has no effect.
        """
        for slot, pool_index in enumerate(self._of.state.node_pool):
            pool = self._of.cluster.pools[int(pool_index)]
            for stream, per_day, happen in (
                ("faults", pool.failures_per_node_day, self._wear_out),
                ("interruptions", pool.interruptions_per_node_day, self._take_back),
            ):
                if per_day <= 0:
                    continue
                rng = child(seed, f"{stream}/{pool.name}/{slot}")
                time_s = rng.exponential(DAY_S / per_day)
                while time_s < until_s:
                    after(self._of.env, time_s, happen, slot, pool.repair.draw(rng))
                    time_s += rng.exponential(DAY_S / per_day)

    def _targets(self, kind: str) -> Iterable[str]:
        pools, services = self._of.cluster.pools, self._of.cluster.services
        if kind in ("zone_failure", "partition"):
            return dict.fromkeys(pool.zone for pool in pools)
        if kind == "rack_failure":
            return [f"{p.name}/{r}" for p in pools for r in range(-(-p.max_nodes // p.nodes_per_rack))]
        if kind in ("node_failure", "slow_nodes", "disk_full", "interruption", "shortage"):
            return [pool.name for pool in pools]
        return [service.name for service in services]

    def _while(self, event: Event, place: _Place, change: Callable[[_Place, Sequence[Event]], None]) -> None:
        """Let the event be in force for its duration, beside whatever else of its kind is."""
        active = self._active.setdefault((event.kind, place), [])
        active.append(event)
        after(self._of.env, event.duration_s, self._over, active, event, place, change)
        change(place, active)

    def _over(
        self, active: list[Event], event: Event, place: _Place, change: Callable[[_Place, Sequence[Event]], None]
    ) -> None:
        active.remove(event)
        change(place, active)

    # -------------------------------------------------- nodes

    def _pool(self, name: str) -> int:
        return [pool.name for pool in self._of.cluster.pools].index(name)

    def _service(self, name: str) -> int:
        return [service.name for service in self._of.cluster.services].index(name)

    def _fullest(self, event: Event) -> list[int]:
        return [int(node) for node in self._of.nodes.fullest(self._pool(event.target))[: event.count]]

    def _note(self, kind: str, entity: str, duration_s: float, cause: str, share: float = 1.0) -> None:
        now = self._of.env.now
        self._of.incidents.note(kind, entity, now, now + duration_s, cause, share)

    def _fail(self, kind: str, nodes: Iterable[int], duration_s: float, cause: str, *, booting: bool = False) -> None:
        for node in nodes:
            if self._of.nodes.fail(node, duration_s, booting=booting):
                self._note(kind, self._names[node], duration_s, cause)

    def _wear_out(self, slot: int, repair_s: float) -> None:
        self._fail("node_failure", [slot], repair_s, "wear")

    def _take_back(self, slot: int, _unused_s: float) -> None:
        self._reclaim([slot], "market")

    def _fail_nodes(self, event: Event) -> None:
        self._fail(event.kind, self._fullest(event), event.duration_s, event.cause)

    def _fail_rack(self, event: Event) -> None:
        pool, rack = event.target.rsplit("/", 1)
        state = self._of.state
        members = np.flatnonzero((state.node_pool == self._pool(pool)) & (state.node_rack == int(rack)))
        self._fail(event.kind, members.tolist(), event.duration_s, event.cause or event.target, booting=True)

    def _in_zone(self, zone: str) -> list[int]:
        return [index for index, pool in enumerate(self._of.cluster.pools) if pool.zone == zone]

    def _of_pool(self, pool: int) -> list[int]:
        return np.flatnonzero(self._of.state.node_pool == pool).tolist()

    def _fail_zone(self, event: Event) -> None:
        for pool in self._in_zone(event.target):
            self._while(event, pool, self._go_down)  # over before the nodes are repaired, which takes room
            self._fail(event.kind, self._of_pool(pool), event.duration_s, event.cause or event.target, booting=True)
            after(self._of.env, event.duration_s, self._of.nodes.ask_again, pool)

    def _go_down(self, pool: int, active: Sequence[Event]) -> None:
        self._of.state.down[pool] = len(active)

    def _partition(self, event: Event) -> None:
        self._note(event.kind, event.target, event.duration_s, event.cause)
        for pool in self._in_zone(event.target):
            self._while(event, pool, self._cut)

    def _cut(self, pool: int, active: Sequence[Event]) -> None:
        of, before = self._of, int(self._of.state.cut[pool])
        of.nodes.cut(pool, len(active))
        if not before:
            for node in self._of_pool(pool):
                of.replicas.suspend(node)
            self._cuts[pool] += 1
            after(of.env, EVICT_AFTER_S, self._give_up, pool, self._cuts[pool])
        elif not active:
            of.replicas.resume()

    def _give_up(self, pool: int, number: int) -> None:
        if self._of.state.cut[pool] and self._cuts[pool] == number:
            for node in self._of_pool(pool):
                self._of.replicas.clear(node, killed=False)

    def _slow(self, event: Event) -> None:
        for node in self._fullest(event):
            self._note(event.kind, self._names[node], event.duration_s, event.cause)
            self._while(event, (node, int(self._of.state.node_life[node])), self._pace_node)

    def _pace_node(self, place: tuple[int, int], active: Sequence[Event]) -> None:
        node, life = place
        if self._of.state.node_life[node] == life:
            self._of.replicas.pace_node(node, _product(active))

    def _disk_full(self, event: Event) -> None:
        for node in self._fullest(event):
            self._of.nodes.close(node)
            self._of.replicas.clear(node, killed=True)
            self._note(event.kind, self._names[node], event.duration_s, event.cause)
            after(self._of.env, event.duration_s, self._of.nodes.open, node, int(self._of.state.node_life[node]))

    def _interrupt(self, event: Event) -> None:
        self._reclaim(self._fullest(event), event.cause or "market")

    def _reclaim(self, nodes: Iterable[int], cause: str) -> None:
        for node in nodes:
            pool = self._of.cluster.pools[int(self._of.state.node_pool[node])]
            if self._of.nodes.interrupt(node):
                self._note("interruption", self._names[node], pool.notice_s, cause)

    def _shortage(self, event: Event) -> None:
        self._note(event.kind, event.target, event.duration_s, event.cause)
        self._while(event, self._pool(event.target), self._limit)

    def _limit(self, pool: int, active: Sequence[Event]) -> None:
        whole = float(self._of.cluster.pools[pool].max_nodes)
        self._of.nodes.limit(pool, min((event.magnitude for event in active), default=whole))

    # -------------------------------------------------- services

    def _leak(self, event: Event) -> None:
        self._note(event.kind, event.target, event.duration_s, event.cause)
        self._while(event, self._service(event.target), self._lose_memory)

    def _lose_memory(self, service: int, active: Sequence[Event]) -> None:
        self._of.memory.leak(service, [(event.time_s, event.magnitude) for event in active])

    def _degrade(self, event: Event) -> None:
        service = self._service(event.target)
        self._note(event.kind, event.target, event.duration_s, event.cause)
        step_s = event.duration_s / _DEGRADATION_STEPS
        for step in range(_DEGRADATION_STEPS):
            speed = 1.0 + (event.magnitude - 1.0) * (step + 1) / _DEGRADATION_STEPS
            part = replace(event, duration_s=step_s, magnitude=speed)
            after(self._of.env, step * step_s, self._while, part, service, self._pace_service)

    def _pace_service(self, service: int, active: Sequence[Event]) -> None:
        self._of.replicas.pace_service(service, _product(active))

    def _bad_deploy(self, event: Event) -> None:
        self._note(event.kind, event.target, event.duration_s, event.cause, event.magnitude)
        self._while(event, self._service(event.target), self._err)

    def _err(self, service: int, active: Sequence[Event]) -> None:
        self._of.replicas.err(service, 1.0 - math.prod(1.0 - event.magnitude for event in active))

    # -------------------------------------------------- telemetry

    def _go_blind(self, event: Event) -> None:
        service, until_s = self._service(event.target), event.time_s + event.duration_s
        self._of.state.blind_until_s[service] = max(self._of.state.blind_until_s[service], until_s)
        self._note(event.kind, event.target, event.duration_s, event.cause)

    def _delay(self, event: Event) -> None:
        self._note(event.kind, event.target, event.duration_s, event.cause)
        self._while(event, self._service(event.target), self._late)

    def _late(self, service: int, active: Sequence[Event]) -> None:
        self._of.state.delay_s[service] = max((event.magnitude for event in active), default=0.0)


def _product(active: Iterable[Event]) -> float:
    return math.prod(event.magnitude for event in active)
