"""One episode of the twin: the shield before it, time passing, and what each interval brought, as raw KPIs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from twin.engine.plant import TwinPlant
from twin.engine.power import curves, drawn_w
from twin.engine.serving import ARRIVED, DROPPED, FAILED, LATE, READY_S, SERVED, WORK_S
from twin.errors import UsageError
from twin.limits import limit
from twin.loop import WANTED
from twin.types import Action, Cluster, Limits, Observation

Kind = Literal["replicas", "nodes"]
_J_KWH = 3.6e6
_ANY = 10**9  # beyond every bound


@dataclass(slots=True)
class _Target:
    """What may be wished for one service or pool: the plant's own bounds, and what was wished when."""

    least: int
    most: int
    column: str
    highest: Action
    lowest: Action
    history: list[tuple[float, int]]


class Episode:
    """The twin under an agent's wishes; the same seed and wishes give the same episode.

    After each interval `seen` is what was observed, `kpis` holds its money, billed nodes and energy, and `services`
    each service's requests, lateness and wished replicas. There `cost_late` is the late share, at most 1, and
    `cost_budget` the share of the error budget that was used up since the episode began: bad requests / those that
    the SLO allows; above 1 it is overspent.
    """

    def __init__(
        self, plant: TwinPlant, limits: Limits, interval_s: float, length_s: float, info: Mapping[str, Any]
    ) -> None:
        """Let the first interval pass. `info` says where the episode is."""
        self.info = dict(info)
        self.cluster: Cluster = plant.cluster
        self._curves = curves(plant.cluster)
        self.seen: Observation
        self.kpis: dict[str, float]
        self.services: list[dict[str, float]]
        self._plant, self._limits, self._interval_s, self._length_s = plant, limits, interval_s, length_s
        services, pools = self.cluster.services, self.cluster.pools
        self._targets = {
            **{("replicas", s.name): _target("replicas", s.name, s.min_replicas, s.max_replicas) for s in services},
            **{("nodes", p.name): _target("nodes", p.name, p.min_nodes, p.max_nodes) for p in pools},
        }
        self._allowed = [1.0 - service.slo_target for service in services]
        self._bad = [0.0] * len(services)
        self._arrived = [0.0] * len(services)
        self._books, self._usd = plant.state.books.copy(), 0.0
        self.advance()
        for target in self._targets.values():
            target.history.append((0.0, int(self.seen[target.column])))

    @property
    def over(self) -> bool:
        """Has the last interval passed?"""
        return self._plant.time_s >= self._length_s

    def wanted(self, kind: Kind, name: str) -> int:
        """The number wished for now."""
        return int(self.seen[self._targets[kind, name].column])

    def bounds(self, kind: Kind, name: str) -> tuple[int, int]:
        """The lowest and the highest number that shield and cluster leave as it is now."""
        target, now = self._targets[kind, name], self.wanted(kind, name)
        # the shield moves a wish that lies outside of an interval to its end; so asking for too much tells the ends
        low, high = (
            limit(each, now, self.seen, self._limits, target.history).action.value
            for each in (target.lowest, target.highest)
        )
        return min(max(low, target.least), target.most), min(max(high, target.least), target.most)

    def wish(self, kind: Kind, name: str, value: int) -> bool:
        """Wish for a number, as far as shield and cluster allow; did the shield change it?"""
        target, now = self._targets[kind, name], self.wanted(kind, name)
        allowed = limit(Action(kind, name, value), now, self.seen, self._limits, target.history)
        wanted = self._plant.apply([allowed.action])[0].value
        if wanted != now:
            target.history.append((self.seen.time_s, wanted))
        return bool(allowed.limited_by)

    def advance(self) -> None:
        """Let an interval pass, or what is left of the episode, and look; raises UsageError when nothing is left."""
        if self.over:
            raise UsageError(f"the episode ended at {self._length_s:g} s; call reset() to begin another one")
        passed_s = min(self._interval_s, self._length_s - self._plant.time_s)
        self._plant.advance(passed_s)
        self.seen = self._plant.observe()
        state = self._plant.state
        step, wanted = state.books - self._books, state.wanted.tolist()
        self._books = state.books.copy()
        self.kpis = self._money_and_energy(step, passed_s)
        self.services = [self._service(index, row, wanted[index]) for index, row in enumerate(step.tolist())]

    def _money_and_energy(self, step: NDArray[np.float64], passed_s: float) -> dict[str, float]:
        state, before_usd = self._plant.state, self._usd
        self._usd = sum(state.cost_usd.tolist()) + sum(state.egress_usd.tolist())
        watts = drawn_w(self._curves, state, step[:, WORK_S], step[:, READY_S])
        return {
            "cost_usd": self._usd - before_usd,
            "nodes": sum(state.billed.tolist()),
            "energy_kwh": sum(watts.tolist()) * passed_s / _J_KWH,
        }

    def _service(self, index: int, row: list[float], wanted: int) -> dict[str, float]:
        bad, arrived = row[LATE] + row[DROPPED] + row[FAILED], row[ARRIVED]
        self._bad[index] += bad
        self._arrived[index] += arrived
        late = min(bad / arrived, 1.0) if arrived > 0 else float(bad > 0)
        allowed = self._allowed[index] * self._arrived[index]
        return {
            "arrived_requests": arrived,
            "served_requests": row[SERVED],
            "dropped_requests": row[DROPPED],
            "late_ratio": late,
            "replicas": wanted,
            "cost_late": late,
            # where the SLO allows none, each bad request is one budget
            "cost_budget": self._bad[index] / allowed if allowed > 0 else self._bad[index],
        }


def begun(episode: Episode | None) -> Episode:
    """The episode; raises UsageError when there is none yet."""
    if episode is None:
        raise UsageError("no episode has begun; call reset() first")
    return episode


def together(services: list[dict[str, float]]) -> dict[str, float]:
    """The KPIs of all services: sums, the late share of all requests, and the costs of whichever is worst off."""
    if len(services) == 1:
        return services[0]
    total = {
        name: sum(each[name] for each in services)
        for name in ("arrived_requests", "served_requests", "dropped_requests", "replicas")
    }
    late = sum(each["late_ratio"] * each["arrived_requests"] for each in services)
    return {
        **total,
        "late_ratio": late / total["arrived_requests"] if total["arrived_requests"] > 0 else 0.0,
        "cost_late": max(each["cost_late"] for each in services),
        "cost_budget": max(each["cost_budget"] for each in services),
    }


def _target(kind: Kind, name: str, least: int, most: int) -> _Target:
    return _Target(least, most, f"{name}.{WANTED[kind]}", Action(kind, name, _ANY), Action(kind, name, -_ANY), [])
