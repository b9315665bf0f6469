"""Services as agents that share a cluster: a PettingZoo parallel environment with a price on capacity.

Each agent scales its own service in the frame of `NovaCron/Scale-Service-v1` and sees its own metrics only. What ties
them together is the cores that the nodes have. Their price is the dual variable of that constraint: a subgradient step
raises it while more is asked for than there is, and lowers it, never below 0, while some is left (Low and Lapsley,
Optimization Flow Control, IEEE/ACM Transactions on Networking 7(6), 1999, do so for the links of a network).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Unpack

import gymnasium
import numpy as np
from gymnasium.utils.seeding import np_random
from numpy.typing import NDArray
from pettingzoo import ParallelEnv

from twin.envs.episode import Episode, begun
from twin.envs.frame import ReplicaDial, View, mask
from twin.envs.sizing import BOUND, SERVICE_METRICS, TARGETS, service_factors
from twin.envs.world import OPTIONS, THREE, Place, world
from twin.observe import CLOCK
from twin.trace.trace import Trace
from twin.types import Cluster

PRICE = "cluster.price"

Seen = NDArray[np.float32]


class ScaleParallelEnv(ParallelEnv[str, Seen, np.int64]):
    """One agent per service, named like it.

    Observation: float32, the agent's `columns`: its service's metrics, the clock, the capacity price. Action: Discrete
    over `TARGETS`. Reward: that of `NovaCron/Scale-Service-v1` for the service, minus price x cores that it asks for.

    The price (reward per core and step) starts at 0. After each step it becomes

        max(0, price + price_step x (cores asked for - cores of ready nodes) / cores of ready nodes).

    An agent pays the price that it saw when it chose. `info[agent]` holds the service's KPIs and constraint costs, the
    cluster's money and nodes (see `Episode`), the action mask, and whether the shield changed the wish.
    """

    metadata = {"name": "novacron_scale_parallel_v1", "render_modes": []}  # noqa: RUF012 - pettingzoo's declaration

    def __init__(
        self,
        trace: Trace | str = THREE,
        cluster: Cluster | Mapping[str, Any] | None = None,
        *,
        price_step: float = 0.01,
        provision: Literal["pending", "manual"] = "manual",
        late_price: float = 10.0,
        churn_price: float = 0.5,
        **place: Unpack[Place],
    ) -> None:
        """An environment over the whole of `trace`.

        Args:
            trace: the recording, or its name.
            cluster: what is mirrored.
            price_step: how far the price moves while twice as much is asked for as there is.
            provision: of the default cluster's pools: "manual" is a cluster of fixed size.
            late_price: of a late share of 1 over a step.
            churn_price: of a change of all replicas.
            place: variants, interval_s, episode_s, limits and serving, as `world` takes them.

        Raises:
            UsageError: an argument makes no sense, or the cluster has no services.
        """
        self._world = world(trace, cluster, provision=provision, **place)
        self._cluster = cluster = self._world.cluster
        self._price_step, self._prices = price_step, (late_price, churn_price)
        self.price = 0.0
        self.possible_agents = [service.name for service in cluster.services]
        self.agents: list[str] = []
        self.columns = {
            name: (*(f"{name}.{metric}" for metric in SERVICE_METRICS), *CLOCK, PRICE) for name in self.possible_agents
        }
        self._stakes = np.array([s.cpu_cores * max(s.replicas, 1) for s in cluster.services])
        width = len(SERVICE_METRICS) + len(CLOCK) + 1
        self._seen_spaces: dict[str, gymnasium.spaces.Space[Seen]] = {
            name: gymnasium.spaces.Box(-BOUND, BOUND, (width,), np.float32) for name in self.possible_agents
        }
        self._choice_spaces: dict[str, gymnasium.spaces.Space[np.int64]] = {
            name: gymnasium.spaces.Discrete(len(TARGETS)) for name in self.possible_agents
        }
        self.np_random, _ = np_random()
        self._episode: Episode | None = None

    def observation_space(self, agent: str) -> gymnasium.spaces.Space[Seen]:
        """What the agent sees."""
        return self._seen_spaces[agent]

    def action_space(self, agent: str) -> gymnasium.spaces.Space[np.int64]:
        """What the agent chooses from."""
        return self._choice_spaces[agent]

    def action_masks(self, agent: str) -> NDArray[np.bool_]:
        """Which targets ask for replicas that shield and service would not refuse [targets]; at least one."""
        begun(self._episode)
        return np.array(mask(self._dials[self.possible_agents.index(agent)]))

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Seen], dict[str, dict[str, Any]]]:
        """A warm cluster after one interval and a price of 0.

        Options are those of `World.begin`; others, which the library's wrappers may pass on, are not looked at.
        """
        if seed is not None:
            self.np_random, _ = np_random(seed)
        asked = {key: value for key, value in (options or {}).items() if key in OPTIONS}
        self._episode = episode = self._world.begin(self.np_random, asked)
        self.agents = list(self.possible_agents)
        self.price = 0.0
        self._dials = [ReplicaDial(service, 0) for service in self._cluster.services]
        self._views = [
            View(self._cluster, self.columns[s.name][:-1], np.array([*service_factors(s), 1.0, 1.0], dtype=np.float32))
            for s in self._cluster.services
        ]
        seen = self._look(episode)
        infos = self._infos(episode, dict.fromkeys(self.agents, False))
        return seen, {agent: {**info, **episode.info} for agent, info in infos.items()}

    def step(
        self, actions: dict[str, np.int64]
    ) -> tuple[dict[str, Seen], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Wish for what all agents chose, let one interval pass, look again, and move the price."""
        episode, dials, paid = begun(self._episode), self._dials, self.price
        if not self.agents:
            return {}, {}, {}, {}, {}
        before = [dial.wanted for dial in dials]
        limited = {d.name: episode.wish("replicas", d.name, d.wishes[int(actions[d.name])]) for d in dials}
        episode.advance()
        self.price = self._next_price(episode)
        seen = self._look(episode)
        own_cores = [dial.wanted * dial.spec.cpu_cores for dial in dials]
        rewards = {
            dial.name: dial.reward(was, *self._prices) - paid * cores
            for dial, was, cores in zip(dials, before, own_cores, strict=True)
        }
        infos = self._infos(episode, limited)
        ended = dict.fromkeys(self.agents, episode.over)
        if episode.over:
            self.agents = []
        return seen, rewards, dict.fromkeys(ended, False), ended, infos

    def _next_price(self, episode: Episode) -> float:
        cluster, seen = self._cluster, episode.seen
        asked = sum(episode.wanted("replicas", s.name) * s.cpu_cores for s in cluster.services)
        there = sum(seen[f"{pool.name}.ready_nodes"] * pool.cpu_cores for pool in cluster.pools)
        # with no node ready the want is measured in nodes
        cores = there or max((pool.cpu_cores for pool in cluster.pools), default=1.0)
        return max(0.0, self.price + self._price_step * (asked - there) / cores)

    def _look(self, episode: Episode) -> dict[str, Seen]:
        seen = {}
        for dial, view, stake in zip(self._dials, self._views, self._stakes, strict=True):
            view.look(episode.seen)
            dial.look(episode, view)
            price = min(self.price * stake, BOUND)  # what the initial replicas would pay
            seen[dial.name] = np.append(view.features(), np.float32(price))
        return seen

    def _infos(self, episode: Episode, limited: dict[str, bool]) -> dict[str, dict[str, Any]]:
        return {
            dial.name: {
                **episode.kpis,
                **mine,
                "price": self.price,
                "limited": limited[dial.name],
                "action_mask": np.array(mask(dial)),
            }
            for dial, mine in zip(self._dials, episode.services, strict=True)
        }
