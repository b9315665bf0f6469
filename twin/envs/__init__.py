"""Gymnasium environments over the twin; `register` is the entry point that gymnasium calls."""

from __future__ import annotations


def register() -> None:
    """Make `NovaCron/Scale-v0` known to `gymnasium.make`."""
    import gymnasium

    gymnasium.register(id="Scale-v0", entry_point="twin.envs.scale:ScaleEnv")
