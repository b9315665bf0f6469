"""The simulated plant: SimPy owns the clock, the state lies in arrays, and the loop sees a `Plant`."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import simpy
from numpy.typing import NDArray

from twin import observe
from twin.engine import demand, prices
from twin.engine.acts import Acts
from twin.engine.books import Books
from twin.engine.clock import after
from twin.engine.evictions import Evictions
from twin.engine.faults import Faults, Plight
from twin.engine.incidents import Incidents
from twin.engine.memory import Memory
from twin.engine.meters import Meters
from twin.engine.nodes import Nodes
from twin.engine.reading import TELEMETRY, UNMEASURED, read_pools, read_services, read_shares
from twin.engine.replicas import Replicas
from twin.engine.serving import ARRIVED
from twin.engine.state import READY, initial
from twin.engine.traffic import Serve, fluid
from twin.trace.trace import Trace
from twin.types import Action, Cluster, Event, Observation, Outcome, Placement, Record

_QUARTER_STEPS = int(900 / demand.STEP_S)


@dataclass(slots=True)
class Window:
    """Where one observer last looked: its averages are taken from there. `past` is what late telemetry needs."""

    time_s: float
    books: NDArray[np.float64]
    responses: NDArray[np.float64]
    kills: NDArray[np.int64]
    interrupted: NDArray[np.int64]
    past: deque[tuple[float, NDArray[np.float64]]] = field(default_factory=deque)


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
        serving: Serve = fluid,
    ) -> None:
        """A warm cluster at second 0: initial nodes up, initial replicas ready.

        Raises SimulationError when the trace does not hold the demand or a price, or an event has no target.
        """
        self.cluster = cluster
        self._start_s = trace.info.start_s
        self.rates_rps = demand.arrival_rates(trace, cluster, until_s, seed)  # [services, steps of demand.STEP_S]
        self._env = env = simpy.Environment()
        self.state = state = initial(cluster)
        self._books = books = Books(env, cluster, state, serving(cluster, state, trace, seed))
        self._nodes = nodes = Nodes(
            env, cluster, state, books, seed, on_up=self._node_up, on_down=self._node_down, on_drain=self._node_drains
        )
        self._replicas = Replicas(
            env, cluster, state, books, scheduler, seed,
            on_shortage=nodes.grow_for, on_empty=nodes.emptied, on_ready=self._replica_ready,
        )  # fmt: skip
        self._evictions = Evictions(env, cluster, state, self._replicas)
        self.incidents = Incidents()
        self._acts = Acts(env, cluster, state, nodes, self._replicas, self._evictions)
        for index, service in enumerate(cluster.services):
            self._replicas.scale(index, service.replicas)
        self._replicas.settle_in()
        prices.follow(env, trace, cluster, state, books)
        self._latest_s = max((event.magnitude for event in events if event.kind == "telemetry_delay"), default=0.0)
        self._loses_telemetry = any(event.kind == "telemetry_loss" for event in events)
        self._quarter: deque[tuple[float, NDArray[np.float64]]] = deque(maxlen=_QUARTER_STEPS)
        self._step = 0
        self._minute = state.books.copy()
        self._next_rate()
        memory = Memory(env, cluster, state, self._replicas, self.incidents)
        faults = Faults(Plight(env, cluster, state, nodes, self._replicas, memory, self.incidents))
        faults.schedule(events)
        faults.wear(seed, until_s)
        self.meters = Meters(env, cluster, state, books, record.step_s, prices.carbon(trace, cluster))
        self._window = self.window()
        self._columns = observe.columns(cluster)
        self._service_values = np.empty((len(cluster.services), len(observe.SERVICE_METRICS)))
        self._pool_values = np.empty((len(cluster.pools), len(observe.POOL_METRICS)))
        self._self_sizing = np.array([pool.provision == "pending" for pool in cluster.pools])

    def _node_up(self) -> None:
        self._replicas.place_pending()

    def _node_down(self, node: int, killed: bool) -> None:
        self._replicas.clear(node, killed)

    def _node_drains(self, node: int) -> None:
        self._evictions.ask(self._replicas.on(node))

    def _replica_ready(self, _service: int) -> None:
        self._evictions.turn()

    def _next_rate(self) -> None:
        self._books.settle()
        self._quarter.append((self._env.now, self.state.books[:, ARRIVED].copy()))
        read_shares(self.state.busy, self.state.working, self.state.books, self._minute)
        self.state.rate_rps[:] = self.rates_rps[:, min(self._step, self.rates_rps.shape[1] - 1)]
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
        return [self._acts.carry_out(action) for action in actions]

    def window(self) -> Window:
        """A window for a further observer, beginning now."""
        state = self.state
        return Window(
            self._env.now,
            state.books.copy(),
            state.responses.copy(),
            state.oom_kills.copy(),
            state.interrupted.copy(),
        )

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
            state.responses - last.responses,
            state.request,
            state.cores,
            state.memory_use_gib,
            state.oom_kills - last.kills,
        )
        self._lose_telemetry(last)
        read_pools(
            self._pool_values,
            state.node_count,
            state.nodes_wanted,
            self._self_sizing,
            state.node_pool,
            state.node_free,
            state.price_usd_h,
            state.interrupted - last.interrupted,
        )
        last.books[:], last.responses[:], last.time_s = state.books, state.responses, now
        last.kills[:], last.interrupted[:] = state.oom_kills, state.interrupted
        return observe.assemble(
            self._columns, now, self._start_s + now, self._service_values, self._pool_values, self._acts.fleet
        )

    def _lose_telemetry(self, last: Window) -> None:
        """What is late is what was known then; what is lost is unknown, now and when it would come late."""
        state, now = self.state, self._env.now
        if self._loses_telemetry:
            self._unknown(state.blind_until_s > now)
        if self._latest_s <= 0:
            return
        last.past.append((now, self._service_values.copy()))
        while len(last.past) > 1 and last.past[1][0] <= now - self._latest_s:
            last.past.popleft()
        for service in np.flatnonzero((state.delay_s > 0) & (state.blind_until_s <= now)):
            seen = [row for time_s, row in last.past if time_s <= now - state.delay_s[service]]
            if seen:
                self._service_values[service, TELEMETRY] = seen[-1][service, TELEMETRY]
            else:
                self._unknown(np.arange(len(state.wanted)) == service)

    def _unknown(self, services: NDArray[np.bool_]) -> None:
        """Nothing is measured of these services [services]."""
        self._service_values[np.ix_(services, TELEMETRY)] = np.nan
        self._service_values[services, UNMEASURED] = self.state.count[services, READY]
