"""`NovaCron/Scale-v0`: choose how full one service's replicas shall be, minute by minute, in the twin.

An action is an index into `TARGETS`: the utilisation at which the replicas shall run. The wished replicas follow
from the demand, in the frame of a rule (`replicas_for`), so that an untrained agent is already a sane scaler and
nothing it can say is absurd. The shield of `twin.limits` stands between wish and cluster, in training too.

An episode is a day (by default) from a random hour of the training window. It is truncated at its end, never
terminated: a cluster does not end.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from twin.engine.plant import TwinPlant
from twin.engine.scheduling.placement import MostAllocated
from twin.envs.sizing import BOUND, STEPS, TARGETS, columns, features, replicas_for, scales
from twin.errors import UsageError
from twin.limits import limit
from twin.trace.trace import Trace
from twin.types import Action, Cluster, Event, Limits, Record

_HOUR_S = 3600.0
_DAY_S = 86_400.0


class ScaleEnv(gymnasium.Env[NDArray[np.float32], np.int64]):
    """One service of the twin as an environment.

    Observation: float32 [columns], see `columns` and `scales`. Action: Discrete over `TARGETS`.
    Reward per step: -(wished replicas / replicas that the demand fills) - `late_price` x late share
    - `churn_price` x relative change. `late_price` = 10: using up the SLO's error budget of 5 % late
    requests costs as much as 50 % more capacity. Raw KPIs and constraint costs are in `info`.

    Each episode meets the recording as it is or one of `variants`, chosen at random: (trace, events) that a scenario
    made of it. `reset(options={"start_s": ..., "variant": ...})` places it instead (variant 0 is the recording).
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - gymnasium's own declaration

    def __init__(
        self,
        trace: Trace,
        cluster: Cluster,
        service: str,
        *,
        variants: Sequence[tuple[Trace, Sequence[Event]]] = (),
        interval_s: float = 60.0,
        episode_s: float = _DAY_S,
        limits: Limits | None = None,
        late_price: float = 10.0,
        churn_price: float = 0.5,
    ) -> None:
        """An environment over the whole of `trace`; raises UsageError when the trace is shorter than an episode."""
        shortest_s = min(each.duration_s for each in (trace, *(variant for variant, _ in variants)))
        if shortest_s < episode_s:
            raise UsageError(f"an episode of {episode_s:g} s does not fit a trace of {shortest_s:g} s")
        self._variants = ((trace, ()), *variants)
        self._hours = int((shortest_s - episode_s) // _HOUR_S) + 1
        self._cluster, self._service = cluster, cluster.service(service)
        self._interval_s, self._episode_s = interval_s, episode_s
        self._limits = limits or Limits()
        self._late_price, self._churn_price = late_price, churn_price
        self.columns = columns(cluster, service)
        self._factors = scales(cluster, service)
        self.observation_space = gymnasium.spaces.Box(-BOUND, BOUND, (len(self.columns),), np.float32)
        self.action_space = gymnasium.spaces.Discrete(len(TARGETS))
        self._plant: TwinPlant | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """A warm cluster after one interval, so that every metric is known."""
        super().reset(seed=seed)
        asked = options or {}
        variant = int(asked.get("variant", self.np_random.integers(len(self._variants))))
        start_s = float(asked.get("start_s", self.np_random.integers(self._hours) * _HOUR_S))
        end_s = start_s + self._episode_s
        trace, events = self._variants[variant]
        self._plant = TwinPlant(
            trace.between(start_s, end_s),
            self._cluster,
            scheduler=MostAllocated(),
            events=[replace(e, time_s=e.time_s - start_s) for e in events if start_s <= e.time_s < end_s],
            record=Record(step_s=math.inf),
            until_s=self._episode_s,
            seed=int(self.np_random.integers(2**31)),
        )
        self._known = np.zeros(len(self.columns), dtype=np.float32)
        self._demand: deque[float] = deque(maxlen=STEPS)
        self._look()
        self._history = [(0.0, self._service.replicas)]
        return self._features(), {"start_s": start_s, "variant": variant}

    def step(self, action: np.int64) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Wish for the replicas of that target utilisation, let one interval pass, and look again."""
        assert self._plant is not None, "reset() comes first"
        name = self._service.name
        before = int(self._seen[f"{name}.wanted_replicas"])
        demand = np.array([*self._demand, self._known[1]], dtype=np.float32)
        wish = replicas_for(demand, max(before, 1), float(TARGETS[int(action)]), self._service.replica_rps)
        # while demand is unknown nothing is decided: whoever guards the policy does that
        proposed = Action("replicas", name, before if self._blind else math.ceil(wish - 1e-3))
        allowed = limit(proposed, before, self._seen, self._limits, self._history)
        wanted = self._plant.apply([allowed.action])[0].value
        if wanted != before:
            self._history.append((self._seen.time_s, wanted))
        self._look()
        reward, info = self._judge(before, wanted, bool(allowed.limited_by))
        return self._features(), reward, False, self._plant.time_s >= self._episode_s, info

    def _look(self) -> None:
        assert self._plant is not None, "reset() comes first"
        self._plant.advance(self._interval_s)
        self._seen = self._plant.observe()
        row = np.array([self._seen[c] for c in self.columns], dtype=np.float32)
        self._blind = bool(np.isnan(row[0]))
        self._known = np.where(np.isnan(row), self._known, row)  # the last known value stands in, as in deployment
        self._demand.append(float(self._known[0]))

    def _judge(self, before: int, wanted: int, limited: bool) -> tuple[float, dict[str, Any]]:
        name = self._service.name
        late = self._seen[f"{name}.late_ratio"]
        late = 0.0 if math.isnan(late) else late  # nothing arrived, or nothing was measured
        # against the quarter hour's demand: a minute's is noise that no action can change
        full = max(float(self._known[1]) / self._service.replica_rps, 1.0)
        churn = abs(wanted - before) / max(before, 1)
        reward = -wanted / full - self._late_price * min(late, 1.0) - self._churn_price * churn
        info = {"late_ratio": late, "replicas": wanted, "cost_late": min(late, 1.0), "limited": limited}
        return float(reward), info

    def _features(self) -> NDArray[np.float32]:
        return features(self._known, self._factors)
