"""The simulated plant: SimPy owns the clock, the state lies in arrays, and the loop sees a `Plant`."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import simpy
from numpy.typing import NDArray

from twin import observe
from twin.engine import demand, faults
from twin.engine.books import Books
from twin.engine.clock import after
from twin.engine.meters import Meters
from twin.engine.nodes import Nodes
from twin.engine.queueing import ARRIVED
from twin.engine.reading import read_pools, read_services
from twin.engine.replicas import Replicas
from twin.engine.state import BOOTING, UP, initial
from twin.trace.trace import Trace
from twin.types import Action, Cluster, Event, Observation, Outcome, Placement, Record

_QUARTER_STEPS = int(900 / demand.STEP_S)


@dataclass(slots=True)
class Window:
    """Where one observer last looked: its averages are taken from there."""

    time_s: float
    books: NDArray[np.float64]


class TwinPlant:
    """A cluster that lives in the simulator; implements `twin.types.Plant`."""

    def __init__(
        self,
        trace: Trace,
        cluster: Cluster,
        *,
        scheduler: Placement,
        events: Sequence[Event],
        record: Record,
        until_s: float,
        seed: int,
    ) -> None:
        """A warm cluster at second 0: initial nodes up, initial replicas ready.

        Raises SimulationError when the trace does not hold the demand or an event has no target.
        """
        self.cluster = cluster
        self._start_s = trace.info.start_s
        self._rates = demand.arrival_rates(trace, cluster, until_s, seed)
        self._env = env = simpy.Environment()
        self.state = state = initial(cluster)
        self._books = books = Books(env, state)
        self._nodes = nodes = Nodes(env, cluster, state, books, seed, self._node_up, self._node_down)
        self._replicas = Replicas(env, cluster, state, books, scheduler, seed, nodes.grow_for, nodes.idle)
        for index, service in enumerate(cluster.services):
            self._replicas.scale(index, service.replicas)
        self._replicas.settle_in()
        faults.schedule(env, cluster, state, nodes, events)
        faults.wear(env, cluster, state, nodes, seed, until_s)
        self._quarter: deque[tuple[float, np.ndarray]] = deque(maxlen=_QUARTER_STEPS)
        self._step = 0
        self._next_rate()
        self.meters = Meters(env, cluster, state, books, record.step_s)
        self._window = self.window()
        self._columns = observe.columns(cluster)
        self._service_values = np.empty((len(cluster.services), len(observe.SERVICE_METRICS)))
        self._pool_values = np.empty((len(cluster.pools), len(observe.POOL_METRICS)))
        self._self_sizing = np.array([pool.provision == "pending" for pool in cluster.pools])

    def _node_up(self) -> None:
        self._replicas.place_pending()

    def _node_down(self, node: int) -> None:
        self._replicas.evict(node)

    def _next_rate(self) -> None:
        self._books.settle()
        self._quarter.append((self._env.now, self.state.books[:, ARRIVED].copy()))
        self.state.rate_rps[:] = self._rates[:, min(self._step, self._rates.shape[1] - 1)]
        self._step += 1
        after(self._env, demand.STEP_S, self._next_rate)

    # -------------------------------------------------- the Plant protocol

    @property
    def time_s(self) -> float:
        """Simulated seconds since the start."""
        return float(self._env.now)

    def advance(self, seconds: float) -> None:
        """Let simulated time pass."""
        self._env.run(until=self._env.now + seconds)

    def apply(self, actions: Sequence[Action]) -> list[Outcome]:
        """Carry out each action as far as the cluster's own bounds allow it; an unknown target is rejected."""
        return [self._apply(action) for action in actions]

    def _apply(self, action: Action) -> Outcome:
        names = (
            [s.name for s in self.cluster.services]
            if action.kind == "replicas"
            else [p.name for p in self.cluster.pools]
        )
        if action.target not in names:
            return Outcome("rejected", action.value, f"no such target; known: {names}")
        index = names.index(action.target)
        if action.kind == "replicas":
            service = self.cluster.services[index]
            value = min(max(action.value, service.min_replicas), service.max_replicas)
            if value != self.state.wanted[index]:
                self._replicas.scale(index, value)
        else:
            pool = self.cluster.pools[index]
            if pool.provision == "pending":
                return Outcome("rejected", int(self.state.nodes_wanted[index]), "this pool sizes itself")
            value = min(max(action.value, pool.min_nodes), pool.max_nodes)
            if value != self.state.nodes_wanted[index]:
                self._nodes.resize(index, value)
        return Outcome("applied", value, "" if value == action.value else f"the cluster allows {value}")

    def window(self) -> Window:
        """A window for a further observer, beginning now."""
        return Window(self._env.now, self.state.books.copy())

    def observe(self) -> Observation:
        """Averages since the last observation, counts as of now; what could not be measured is NaN."""
        return self.look(self._window)

    def look(self, last: Window) -> Observation:
        """The observation of someone who last looked at `last`, which is moved to now."""
        self._books.settle()
        state, now = self.state, self._env.now
        quarter_from_s, quarter_from = self._quarter[0]
        read_services(
            self._service_values,
            state.books,
            last.books,
            now - last.time_s,
            quarter_from,
            now - quarter_from_s,
            state.wanted,
            state.count,
            state.queue,
            state.blind_until_s > now,
        )
        read_pools(
            self._pool_values,
            state.node_count,
            np.where(self._self_sizing, state.node_count[:, BOOTING] + state.node_count[:, UP], state.nodes_wanted),
            state.node_pool,
            state.node_free,
        )
        last.books[:], last.time_s = state.books, now
        return observe.assemble(self._columns, now, self._start_s + now, self._service_values, self._pool_values)
