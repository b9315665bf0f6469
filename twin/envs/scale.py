"""`NovaCron/Scale-Service-v1`: choose how full one service's replicas shall be, minute by minute, in the twin.

An action is an index into `TARGETS`: the utilisation at which the replicas shall run. The wished replicas follow
from the demand, in the frame of a rule (`replicas_for`), so that an untrained agent is already a sane scaler and
nothing it can say is absurd. The shield of `twin.limits` stands between wish and cluster, in training too.

An episode is a day (by default) from a random hour of the training window. It is truncated at its end, never
terminated: a cluster does not end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

import gymnasium
import numpy as np
from numpy.typing import NDArray

from twin.envs.episode import Episode, begun
from twin.envs.frame import ReplicaDial, View, mask
from twin.envs.sizing import BOUND, TARGETS, columns, scales
from twin.envs.world import ONE, Place, world
from twin.trace.trace import Trace
from twin.types import Cluster


class ScaleEnv(gymnasium.Env[NDArray[np.float32], np.int64]):
    """One service of the twin as an environment.

    Observation: float32 [columns], see `columns` and `scales`. Action: Discrete over `TARGETS`.
    Reward per step: -(wished replicas / replicas that the demand fills) - `late_price` x late share
    - `churn_price` x relative change. `late_price` = 10: using up the SLO's error budget of 5 % late
    requests costs as much as 50 % more capacity. Raw KPIs and constraint costs (see `Episode`), the action mask and
    whether the shield changed the wish (`limited`) are in `info`.

    `reset(options={"trace": ..., "events": ..., "variant": ..., "start": ...})` places the episode, see `World.begin`.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - gymnasium's own declaration

    def __init__(
        self,
        trace: Trace | str = ONE,
        cluster: Cluster | Mapping[str, Any] | None = None,
        service: str | None = None,
        *,
        late_price: float = 10.0,
        churn_price: float = 0.5,
        **place: Unpack[Place],
    ) -> None:
        """An environment over the whole of `trace`.

        Args:
            trace: the recording, or its name.
            cluster: what is mirrored.
            service: the one to scale; the cluster's first by default.
            late_price: of a late share of 1 over a step.
            churn_price: of a change of all replicas.
            place: variants, interval_s, episode_s, limits and serving, as `world` takes them.

        Raises:
            UsageError: an argument makes no sense, or the cluster has no such service.
        """
        self._world = world(trace, cluster, **place)
        cluster = self._world.cluster
        self._service = cluster.services[0] if service is None else cluster.service(service)
        self._at = cluster.services.index(self._service)
        self._prices = late_price, churn_price
        self.columns = columns(cluster, self._service.name)
        self._factors = scales(cluster, self._service.name)
        self.observation_space = gymnasium.spaces.Box(-BOUND, BOUND, (len(self.columns),), np.float32)
        self.action_space = gymnasium.spaces.Discrete(len(TARGETS))
        self._episode: Episode | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """A warm cluster after one interval, so that every metric is known; raises UsageError for a wrong option."""
        super().reset(seed=seed)
        self._episode = episode = self._world.begin(self.np_random, options or {})
        self._view = View(self._world.cluster, self.columns, self._factors)
        self._dial = ReplicaDial(self._service, 0)
        return self._look(episode), {**self._info(episode, limited=False), **episode.info}

    def step(self, action: np.int64) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Wish for the replicas of that target utilisation, let one interval pass, and look again."""
        episode, dial = begun(self._episode), self._dial
        before = dial.wanted
        limited = episode.wish("replicas", dial.name, dial.wishes[int(action)])
        episode.advance()
        seen = self._look(episode)
        reward = dial.reward(before, *self._prices)
        return seen, reward, False, episode.over, self._info(episode, limited=limited)

    def action_masks(self) -> NDArray[np.bool_]:
        """Which targets ask for replicas that shield and service would not refuse [targets]; at least one."""
        begun(self._episode)
        return np.array(mask(self._dial))

    def _look(self, episode: Episode) -> NDArray[np.float32]:
        self._view.look(episode.seen)
        self._dial.look(episode, self._view)
        return self._view.features()

    def _info(self, episode: Episode, *, limited: bool) -> dict[str, Any]:
        mine = episode.services[self._at]
        return {**episode.kpis, **mine, "limited": limited, "action_mask": self.action_masks()}
