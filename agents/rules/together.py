"""Several controllers in charge of one cluster, each at its own interval: a scaler of replicas beside one of nodes.

Who may decide what is settled by the order in which they are given: a number (of replicas, of nodes, of what replicas
ask for) belongs to the first controller of the list that ever wished something for it. What a later one wishes for it
is not done; the owner's next action tells of it. Single nodes and replicas (drain, evict) have no lasting owner: of
two equal actions at one time the first is done.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from twin.errors import UsageError
from twin.types import Action, Clairvoyant, Cluster, Controller, Observation

_DEEDS = ("drain", "evict")


class Together:
    """Asks each of its controllers when it is due; their actions stand one after the other.

    `interval_s` is the greatest common divisor of theirs, in whole milliseconds, so that each finds its own rhythm
    counted from the first observation. What an observation averages "since the last one" is then averaged over that
    common interval for all of them: intervals that are multiples of each other keep it long. The future is forwarded to
    those that want to know it, and the confidence of an action is that of whoever decided it.
    """

    def __init__(self, controllers: Sequence[Controller] | Mapping[str, Controller], name: str = "") -> None:
        """Put `controllers` in charge, the first having the first word.

        Args:
            controllers: in order; the keys of a mapping are for those who write it.
            name: as the decision table shows it; theirs joined by " + " when empty.

        Raises:
            UsageError: when there is none, or one has no interval.
        """
        given = controllers.values() if isinstance(controllers, Mapping) else controllers
        self.controllers = tuple(given)
        if not self.controllers:
            raise UsageError(f"controller {name or 'together'!r}: controllers is empty; give at least one")
        self.name = name or " + ".join(controller.name for controller in self.controllers)
        self.interval_s = _common_s(self.controllers)
        self._forget()

    def reset(self) -> None:
        """Forget the past of all."""
        for controller in self.controllers:
            controller.reset()
        self._forget()

    def foresee(self, rates_rps: NDArray[np.float64], step_s: float, cluster: Cluster) -> None:
        """Tell what will arrive to those of them that want to know it."""
        for controller in self.controllers:
            if isinstance(controller, Clairvoyant):
                controller.foresee(rates_rps, step_s, cluster)

    def decide(self, observation: Observation) -> list[Action]:
        """The actions of all that are due now, in their order."""
        actions: dict[tuple[str, str], Action] = {}
        for place, controller in enumerate(self.controllers):
            if self._due(place, observation.time_s):
                for action in controller.decide(observation):
                    self._admit(place, action, actions)
        return [self._told(key, action) for key, action in actions.items()]

    def _forget(self) -> None:
        self._due_s: dict[int, float] = {}
        self._owner: dict[tuple[str, str], int] = {}
        self._overruled: dict[tuple[str, str], str] = {}

    def _due(self, place: int, time_s: float) -> bool:
        """Is it this controller's turn? If so, when the next one is gets noted."""
        due_s, interval_s = self._due_s.get(place, time_s), self.controllers[place].interval_s
        # half of the common step is what a clock may be early by
        if time_s < due_s - 0.5 * self.interval_s:
            return False
        missed = max(0, math.floor((time_s + 0.5 * self.interval_s - due_s) / interval_s))
        self._due_s[place] = due_s + (missed + 1) * interval_s
        return True

    def _admit(self, place: int, action: Action, actions: dict[tuple[str, str], Action]) -> None:
        key = (action.kind, action.target)
        if action.kind in _DEEDS:
            actions.setdefault(key, action)
            return
        owner = min(self._owner.get(key, place), place)
        if place > owner:
            later, first = self.controllers[place].name, self.controllers[owner].name
            self._overruled[key] = f"{later} wished {action.value}, but {first} decides this"
            return
        self._owner[key] = owner
        actions[key] = action

    def _told(self, key: tuple[str, str], action: Action) -> Action:
        overruled = self._overruled.pop(key, None)
        return replace(action, reason=f"{action.reason}; {overruled}") if overruled else action


def _common_s(controllers: Sequence[Controller]) -> float:
    whole_ms = [round(1000.0 * controller.interval_s) for controller in controllers]
    for controller, interval_ms in zip(controllers, whole_ms, strict=True):
        if interval_ms < 1:
            raise UsageError(f"controller {controller.name!r}: interval_s={controller.interval_s} is below 1 ms")
    return math.gcd(*whole_ms) / 1000.0
