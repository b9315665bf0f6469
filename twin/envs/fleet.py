"""`NovaCron/Scale-Services-v1`, `-Nodes-v1` and `-Both-v1`: several services, the pools under them, or both.

Services that are not the agent's are scaled by the frame of `sizing` at one target utilisation, HPA-like; pools that
are not its own size themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Unpack

import gymnasium
import numpy as np
from numpy.typing import NDArray

from twin.envs.episode import Episode, Kind, begun, together
from twin.envs.frame import Dial, NodeDial, ReplicaDial, View, change, fleet_columns, fleet_factors, mask
from twin.envs.sizing import BOUND, SERVICE_METRICS
from twin.envs.world import THREE, Place, world
from twin.errors import UsageError
from twin.trace.trace import Trace
from twin.types import Cluster

_HOUR_S = 3600.0


class FleetEnv(gymnasium.Env[NDArray[np.float32], NDArray[np.int64]]):
    """A whole cluster of the twin as an environment.

    Observation: float32 [columns], see `fleet_columns`. Action: MultiDiscrete, first a target utilisation (`TARGETS`)
    for each service, then a change of the wished nodes (`CHANGES`) for each pool of provision "manual", as far as
    `acts_on` names them. Reward per step: -(capacity / capacity that the demand fills) - `late_price` x late share
    - `churn_price` x relative change of what the agent sets, each a mean over services or targets. Capacity is wished
    replicas; where the agent sets nodes it is money, against what the filled replicas' cores cost in the cheapest pool.
    `info` and `reset` are those of `ScaleEnv`, with sums over services and the constraint costs of the worst.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - gymnasium's own declaration

    def __init__(
        self,
        trace: Trace | str = THREE,
        cluster: Cluster | Mapping[str, Any] | None = None,
        *,
        acts_on: Sequence[Kind] = ("replicas", "nodes"),
        target: float = 0.7,
        late_price: float = 10.0,
        churn_price: float = 0.5,
        **place: Unpack[Place],
    ) -> None:
        """An environment over the whole of `trace`.

        Args:
            trace: the recording, or its name.
            cluster: what is mirrored.
            acts_on: what the agent sets: "replicas", "nodes", or both.
            target: utilisation (0-1) at which services run that are not the agent's.
            late_price: of a late share of 1 over a step.
            churn_price: of a change of everything.
            place: variants, interval_s, episode_s, limits and serving, as `world` takes them.

        Raises:
            UsageError: an argument makes no sense, or the cluster has nothing that the agent could set.
        """
        self._nodes, self._replicas = "nodes" in acts_on, "replicas" in acts_on
        if not acts_on or set(acts_on) - {"replicas", "nodes"} or not 0.0 < target <= 1.0:
            raise UsageError(
                f"acts_on={list(acts_on)} must name 'replicas', 'nodes' or both, target={target} lie within 0 and 1"
            )
        provision: Literal["pending", "manual"] = "manual" if self._nodes else "pending"
        self._world = world(trace, cluster, provision=provision, **place)
        self._cluster = cluster = self._world.cluster
        if self._nodes and not any(pool.provision == "manual" for pool in cluster.pools):
            raise UsageError(
                f"cluster {cluster.name!r}: all pools size themselves; give one provision='manual' for an agent to size"
            )
        self._target, self._prices = target, (late_price, churn_price)
        self._core_usd_h = min((pool.price_usd_h / pool.cpu_cores for pool in cluster.pools), default=0.0)
        self.columns, self._factors = fleet_columns(cluster), fleet_factors(cluster)
        self._begin()
        self.observation_space = gymnasium.spaces.Box(-BOUND, BOUND, (len(self.columns),), np.float32)
        self.action_space = gymnasium.spaces.MultiDiscrete([dial.size for dial in self._mine])
        self._episode: Episode | None = None

    def _begin(self) -> None:
        """A view that has seen nothing and dials that remember nothing."""
        cluster, width = self._cluster, len(SERVICE_METRICS)
        self._view = View(cluster, self.columns, self._factors)
        self._services = [ReplicaDial(service, width * place) for place, service in enumerate(cluster.services)]
        manual = [place for place, pool in enumerate(cluster.pools) if self._nodes and pool.provision == "manual"]
        pools = [NodeDial(cluster, place, width * len(cluster.services)) for place in manual]
        self._dials: list[Dial] = [*self._services, *pools]
        self._mine: list[Dial] = [*self._services, *pools] if self._replicas else [*pools]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """A warm cluster after one interval, so that every metric is known; raises UsageError for a wrong option."""
        super().reset(seed=seed)
        self._episode = episode = self._world.begin(self.np_random, options or {})
        self._begin()
        return self._look(episode), {**self._info(episode, limited=False), **episode.info}

    def step(self, action: NDArray[np.int64]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Wish for what the choices mean, let one interval pass, and look again."""
        episode = begun(self._episode)
        before = [dial.wanted for dial in self._mine]
        if not self._replicas:
            for dial in self._services:
                episode.wish("replicas", dial.name, dial.replicas(self._target))
        chosen = zip(self._mine, action, strict=True)
        limited = [episode.wish(dial.kind, dial.name, dial.wishes[choice]) for dial, choice in chosen]
        episode.advance()
        seen = self._look(episode)
        return seen, self._reward(episode, before), False, episode.over, self._info(episode, limited=any(limited))

    def action_masks(self) -> NDArray[np.bool_]:
        """Which choices shield, cluster and quotas would not refuse [choices of all dials]; at least one of each."""
        begun(self._episode)
        return np.array([fits for dial in self._mine for fits in mask(dial)])

    def _look(self, episode: Episode) -> NDArray[np.float32]:
        self._view.look(episode.seen)
        for dial in self._dials:
            dial.look(episode, self._view)
        return self._view.features()

    def _reward(self, episode: Episode, before: list[int]) -> float:
        late_price, churn_price = self._prices
        services = self._services
        changes = [change(was, dial.wanted) for was, dial in zip(before, self._mine, strict=True)]
        late = sum(dial.late for dial in services) / len(services)
        return -self._capacity(episode) - late_price * late - churn_price * sum(changes) / len(changes)

    def _capacity(self, episode: Episode) -> float:
        services = self._services
        if not self._nodes:
            return sum(dial.wanted / dial.full() for dial in services) / len(services)
        cores = sum(dial.full() * dial.spec.cpu_cores for dial in services)
        usd = cores * self._core_usd_h * self._world.interval_s / _HOUR_S
        return episode.kpis["cost_usd"] / usd if usd > 0 else 0.0

    def _info(self, episode: Episode, *, limited: bool) -> dict[str, Any]:
        return {
            **episode.kpis,
            **together(episode.services),
            "limited": limited,
            "action_mask": self.action_masks(),
        }
