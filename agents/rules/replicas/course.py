"""From what a rule asks for to its action on one service: what all rules here that size one service share."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from agents.rules.replicas.behavior import Behavior, Policy, ScalingRules, stabilise
from agents.rules.replicas.calculator import Proposal
from twin.errors import UsageError
from twin.types import Action, Observation


class Demand(NamedTuple):
    """What is known of a service's demand, requests/s, NaN = unknown."""

    now_rps: float
    quarter_rps: float  # over the last 15 minutes

    @property
    def largest_rps(self) -> float:
        """The larger of those that are known; NaN when none is."""
        known = [rate for rate in self if math.isfinite(rate)]
        return max(known) if known else math.nan

    @property
    def unknown(self) -> str:
        """The columns that are unknown, for a sentence; "" when none is."""
        columns = zip(("demand_rps", "demand_15m_rps"), self, strict=True)
        return " and ".join(column for column, rate in columns if not math.isfinite(rate))


@dataclass(slots=True)
class Course:
    """From what a rule asks for to its action on one service: within bounds, and patient before it shrinks.

    A wish is held at the highest one of the last `patience_s` seconds, the first known count being one of them (the
    stabilisation of `behavior`). What was asked for without full knowledge may grow a service,
    not shrink it. Raises UsageError, in the name of the `controller`, for bounds or a patience that make no sense.
    """

    controller: str
    service: str
    least: int
    most: int
    patience_s: float = 0.0
    _wanted: int | None = field(default=None, init=False)
    _asked: deque[tuple[float, int]] = field(default_factory=deque, init=False)
    _behavior: Behavior = field(init=False)

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most:
            raise UsageError(
                f"controller {self.controller!r}: 0 <= min_replicas={self.least} <= max_replicas={self.most} must hold"
            )
        down = ScalingRules((Policy("Percent", 100),), stabilisation_s=self.patience_s)
        self._behavior = Behavior(down=down)

    def reset(self) -> None:
        """Forget the past."""
        self._wanted = None
        self._asked.clear()

    def demand(self, observation: Observation) -> Demand:
        """What the observation says about the demand of the service."""
        return Demand(observation[f"{self.service}.demand_rps"], observation[f"{self.service}.demand_15m_rps"])

    def current(self, observation: Observation) -> int | None:
        """The replicas wished for now, or the last known wish; None when it was never known."""
        wanted = observation[f"{self.service}.wanted_replicas"]
        if math.isfinite(wanted):
            if self._wanted is None:
                self._asked.append((observation.time_s, int(wanted)))
            self._wanted = int(wanted)
        return self._wanted

    def act(self, observation: Observation, proposal: Proposal | None, unknown: str = "") -> list[Action]:
        """The action that a proposal comes to, or none when the wished number was never known.

        Args:
            observation: what is known now.
            proposal: what the rule asks for; None when it cannot say.
            unknown: the columns that it would have needed.
        """
        current = self.current(observation)
        if current is None:
            return []
        settled = self._within(self._settle(proposal, current, observation.time_s, unknown))
        return [Action("replicas", self.service, settled.value, settled.reason)]

    def _settle(self, proposal: Proposal | None, current: int, time_s: float, unknown: str) -> Proposal:
        if proposal is None:
            return Proposal(current, f"held at {current}: {unknown} unknown")
        if unknown and proposal.value < current:
            return Proposal(current, f"{proposal.reason}; held at {current}: {unknown} unknown")
        while self._asked and self._asked[0][0] <= time_s - self.patience_s:
            self._asked.popleft()
        settled = stabilise(proposal, current, time_s, self._asked, self._behavior)
        self._asked.append((time_s, proposal.value))
        return settled

    def _within(self, proposal: Proposal) -> Proposal:
        if proposal.value < self.least:
            return Proposal(self.least, f"{proposal.reason}; at least {self.least} replicas")
        if proposal.value > self.most:
            return Proposal(self.most, f"{proposal.reason}; at most {self.most} replicas")
        return proposal
