"""Gymnasium environments over the twin: `twin.envs.register()`, then `gymnasium.make("NovaCron/Scale-Service-v1")`.

id                          the agent chooses                                          action space
NovaCron/Scale-Service-v1   how full one service's replicas run                        Discrete
NovaCron/Scale-Services-v1  the same for each service                                  MultiDiscrete
NovaCron/Scale-Nodes-v1     how many nodes each pool has more or fewer                 MultiDiscrete
NovaCron/Scale-Both-v1      both                                                       MultiDiscrete

Without arguments each takes place in an embedded recording; `twin.envs.parallel` holds the PettingZoo environment.
"""

from __future__ import annotations

_SERVICE, _FLEET = "twin.envs.scale:ScaleEnv", "twin.envs.fleet:FleetEnv"
ENVIRONMENTS: dict[str, tuple[str, dict[str, list[str]]]] = {
    "NovaCron/Scale-Service-v1": (_SERVICE, {}),
    "NovaCron/Scale-Services-v1": (_FLEET, {"acts_on": ["replicas"]}),
    "NovaCron/Scale-Nodes-v1": (_FLEET, {"acts_on": ["nodes"]}),
    "NovaCron/Scale-Both-v1": (_FLEET, {"acts_on": ["replicas", "nodes"]}),
}
"""id -> where its class is, and what the id fixes of the class's arguments"""


def register() -> None:
    """Make the environments known to `gymnasium.make`; calling it again changes nothing."""
    import gymnasium

    for name, (entry_point, kwargs) in ENVIRONMENTS.items():
        if name not in gymnasium.registry:
            gymnasium.register(id=name, entry_point=entry_point, kwargs=kwargs)
