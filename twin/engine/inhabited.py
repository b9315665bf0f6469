"""A twin in which an incumbent is in charge: what a shadow meets in a real cluster."""

from __future__ import annotations

from collections.abc import Sequence

from twin.engine.plant import TwinPlant
from twin.loop import ControlLoop
from twin.types import Action, Controller, Limits, Observation, Outcome


class InhabitedPlant:
    """A `Plant` whose incumbent goes on deciding while someone else looks on; acting on it is still possible."""

    def __init__(self, plant: TwinPlant, incumbent: Controller, limits: Limits | None) -> None:
        """Let `incumbent` run `plant` whenever time passes."""
        self._plant = plant
        self._loop = ControlLoop(plant, incumbent, limits=limits, record=None)
        self._due_s = plant.time_s
        self._window = plant.window()

    @property
    def time_s(self) -> float:
        """Simulated seconds since the start."""
        return self._plant.time_s

    def observe(self) -> Observation:
        """What the onlooker sees since it last looked, whatever the incumbent looked at meanwhile."""
        return self._plant.look(self._window)

    def apply(self, actions: Sequence[Action]) -> list[Outcome]:
        """Carry out the onlooker's actions; the incumbent may undo them at its next turn."""
        return self._plant.apply(actions)

    def advance(self, seconds: float) -> None:
        """Let time pass, the incumbent taking its turns when they are due."""
        end_s = self._plant.time_s + seconds
        while self._plant.time_s < end_s:
            if self._plant.time_s >= self._due_s:
                self._due_s = self._plant.time_s + self._loop.controller.interval_s
                self._loop.step(min(self._due_s, end_s))
            else:
                self._plant.advance(min(self._due_s, end_s) - self._plant.time_s)
