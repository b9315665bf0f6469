"""What a controller's actions do to the cluster, and the fleet as a controller may look at it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import simpy

from twin.engine.evictions import Evictions
from twin.engine.nodes import Nodes
from twin.engine.replicas import Replicas
from twin.engine.state import BOOTING, FAILED, GONE, OFF, READY, UP, State
from twin.fleet import CPU_CORES, MEMORY_GIB, Fleet
from twin.types import Action, Cluster, Outcome

_PER_UNIT = {"cpu_millicores": (CPU_CORES, 1000.0), "memory_mib": (MEMORY_GIB, 1024.0)}


class Acts:
    """Carries out actions as far as the cluster's own bounds allow."""

    def __init__(
        self,
        env: simpy.Environment,
        cluster: Cluster,
        state: State,
        nodes: Nodes,
        replicas: Replicas,
        evictions: Evictions,
    ) -> None:
        """Act on these."""
        self._env, self._cluster, self._state = env, cluster, state
        self._nodes, self._replicas, self._evictions = nodes, replicas, evictions
        self._services = {service.name: index for index, service in enumerate(cluster.services)}
        self._pools = {pool.name: index for index, pool in enumerate(cluster.pools)}
        self.node_names = names(cluster, state)
        self._nodes_by_name = {name: slot for slot, name in enumerate(self.node_names)}

    def carry_out(self, action: Action) -> Outcome:
        """What came of one action; an unknown target is rejected, with the known ones."""
        if action.kind in ("drain", "evict") and action.value <= 0:
            return Outcome("applied", 0, "left alone")
        match action.kind:
            case "replicas":
                return _aimed(action, self._services, self._scale)
            case "nodes":
                return _aimed(action, self._pools, self._resize)
            case "drain":
                return _aimed(action, self._nodes_by_name, self._drain)
            case "evict":
                return self._evict(action)
            case "cpu_millicores" | "memory_mib":
                return _aimed(action, self._services, self._ask_for)

    def _scale(self, action: Action, index: int) -> Outcome:
        service = self._cluster.services[index]
        value = min(max(action.value, service.min_replicas), service.max_replicas)
        if value != self._state.wanted[index]:
            self._replicas.scale(index, value)
        return _applied(action, value)

    def _resize(self, action: Action, index: int) -> Outcome:
        pool = self._cluster.pools[index]
        if pool.provision == "pending":
            return Outcome("rejected", int(self._state.nodes_wanted[index]), "this pool sizes itself")
        value = min(max(action.value, pool.min_nodes), pool.max_nodes)
        if value != self._state.nodes_wanted[index]:
            self._nodes.resize(index, value)
        return _applied(action, value)

    def _drain(self, action: Action, node: int) -> Outcome:
        pool = int(self._state.node_pool[node])
        if self._cluster.pools[pool].provision == "pending":
            return Outcome("rejected", 0, "this pool sizes itself")
        if self._state.node_state[node] not in (BOOTING, UP, FAILED):
            return Outcome("rejected", 0, "the node is not there, or drains already")
        wanted = int(self._state.nodes_wanted[pool])
        replaced = self._state.node_state[node] == FAILED and self._nodes.staying(pool) >= wanted
        if not replaced:  # one that was replaced is not among those that are wanted
            if wanted <= self._cluster.pools[pool].min_nodes:
                return Outcome("rejected", 0, f"the pool keeps at least {wanted} nodes")
            self._state.nodes_wanted[pool] = wanted - 1
        self._nodes.drain(node)
        return Outcome("applied", action.value)

    def _evict(self, action: Action) -> Outcome:
        service, _, born = action.target.rpartition("-")
        index = self._services.get(service, -1)
        mine = (self._state.replica_service == index) & (self._state.replica_state != GONE)
        slots = (
            np.flatnonzero(mine & (self._state.replica_born == int(born)))
            if born.isdecimal()
            else np.empty(0, dtype=np.intp)
        )
        if not len(slots):
            return Outcome("rejected", 0, f"no such replica of {list(self._services)}")
        slot = int(slots[0])
        if self._state.replica_node[slot] < 0:
            return Outcome("rejected", 0, "the replica has no node yet")
        if not self._evictions.allowed(slot):
            return Outcome("rejected", 0, "its disruption budget does not allow that now")
        self._replicas.move(slot)
        return Outcome("applied", action.value)

    def _ask_for(self, action: Action, index: int) -> Outcome:
        resource, per_unit = _PER_UNIT[action.kind]
        value = max(action.value, 1)
        asked = value / per_unit
        if asked != self._state.request[index, resource]:
            self._state.request[index, resource] = asked
            state = self._state
            held = (state.replica_service == index) & (state.replica_node >= 0)
            other = held & (state.replica_request != state.request[index]).any(axis=1)
            self._evictions.ask(np.flatnonzero(other).tolist())
            self._replicas.place_pending()
        return _applied(action, value)

    # -------------------------------------------------- looking

    def fleet(self) -> Fleet:
        """A copy of what there is now."""
        state = self._state
        nodes = np.flatnonzero(state.node_state != OFF)
        place = np.full(len(state.node_pool) + 1, -1, dtype=np.int64)  # its last row is for "no node"
        place[nodes] = np.arange(len(nodes))
        pods = np.flatnonzero(state.replica_state != GONE)
        service = state.replica_service[pods]
        ready = state.replica_state[pods] == READY
        use = np.full((len(pods), 2), np.nan)
        asked = np.where(
            (place[state.replica_node[pods]] >= 0)[:, None], state.replica_request[pods], state.request[service]
        )
        used = state.working[service] * np.minimum(asked[:, CPU_CORES], state.cores[service])
        use[ready, CPU_CORES] = used[ready]
        use[ready, MEMORY_GIB] = state.memory_use_gib[service][ready]
        return Fleet(
            time_s=self._env.now,
            pools=self._cluster.pools,
            services=self._cluster.services,
            node_name=tuple(self.node_names[node] for node in nodes),
            node_pool=state.node_pool[nodes],
            node_state=state.node_state[nodes],
            node_since_s=state.node_since_s[nodes],
            node_size=state.node_size[nodes],
            pod_name=tuple(
                f"{self._cluster.services[s].name}-{born}"
                for s, born in zip(service.tolist(), state.replica_born[pods].tolist(), strict=True)
            ),
            pod_service=service,
            pod_node=place[state.replica_node[pods]],
            pod_state=state.replica_state[pods],
            pod_since_s=state.replica_since_s[pods],
            pod_use=use,
            request=state.request.copy(),
            wanted=state.wanted.copy(),
            nodes_wanted=state.nodes_wanted.copy(),
            price_usd_h=state.price_usd_h.copy(),
            pod_asked=asked,
        )


def names(cluster: Cluster, state: State) -> list[str]:
    """The name of each node slot: its pool's, and a number in it."""
    first = np.searchsorted(state.node_pool, np.arange(len(cluster.pools)))
    return [f"{cluster.pools[pool].name}-{slot - first[pool]}" for slot, pool in enumerate(state.node_pool)]


def _aimed(action: Action, known: Mapping[str, int], carry_out: Callable[[Action, int], Outcome]) -> Outcome:
    index = known.get(action.target)
    if index is None:
        shown = list(known)[:20]
        return Outcome("rejected", action.value, f"no such target; known: {shown}")
    return carry_out(action, index)


def _applied(action: Action, value: int) -> Outcome:
    return Outcome("applied", value, "" if value == action.value else f"the cluster allows {value}")
