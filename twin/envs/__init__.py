"""Gymnasium environments over the twin: `twin.envs.register()`, then `gymnasium.make("NovaCron/Scale-v0", ...)`."""

from __future__ import annotations


def register() -> None:
    """Make the environments known to `gymnasium.make`; calling it again changes nothing."""
    import gymnasium

    if "NovaCron/Scale-v0" not in gymnasium.registry:
        gymnasium.register(id="NovaCron/Scale-v0", entry_point="twin.envs.scale:ScaleEnv")
