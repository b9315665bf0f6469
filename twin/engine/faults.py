"""Failures: scheduled by a scenario, or drawn per node slot from the pool's failure rate."""

from __future__ import annotations

from collections.abc import Sequence

import simpy

from twin.engine.clock import after
from twin.engine.nodes import Nodes
from twin.engine.state import State
from twin.errors import SimulationError
from twin.seeds import child
from twin.types import Cluster, Event

DAY_S = 86_400.0


def schedule(env: simpy.Environment, cluster: Cluster, state: State, nodes: Nodes, events: Sequence[Event]) -> None:
    """Make the scenario's events happen; raises SimulationError for an unknown target."""
    pools = {pool.name: i for i, pool in enumerate(cluster.pools)}
    services = {service.name: i for i, service in enumerate(cluster.services)}
    for event in events:
        if event.time_s < env.now:
            raise SimulationError(f"event {event.kind} at {event.time_s:g} s: that is before the run begins")
        targets = pools if event.kind == "node_failure" else services
        if event.target not in targets:
            raise SimulationError(
                f"event {event.kind} at {event.time_s:g} s: no {event.target!r}; known: {list(targets)}"
            )
        target = targets[event.target]
        if event.kind == "node_failure":
            after(env, event.time_s - env.now, nodes.fail_some, target, event.count, event.duration_s)
        else:
            after(env, event.time_s - env.now, _go_blind, state, target, event.time_s + event.duration_s)


def _go_blind(state: State, service: int, until_s: float) -> None:
    state.blind_until_s[service] = max(state.blind_until_s[service], until_s)


def wear(env: simpy.Environment, cluster: Cluster, state: State, nodes: Nodes, seed: int, until_s: float) -> None:
    """Draw each slot's failures as a Poisson process: the same instants under every controller.

    A failure of a slot that is not up at that instant has no effect.
    """
    for slot, pool_index in enumerate(state.node_pool):
        pool = cluster.pools[int(pool_index)]
        if pool.failures_per_node_day <= 0:
            continue
        rng = child(seed, f"faults/{pool.name}/{slot}")
        time_s = rng.exponential(DAY_S / pool.failures_per_node_day)
        while time_s < until_s:
            after(env, time_s, nodes.fail, slot, pool.repair.draw(rng))
            time_s += rng.exponential(DAY_S / pool.failures_per_node_day)
