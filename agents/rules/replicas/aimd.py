"""Additive increase, multiplicative decrease: no model, only whether answers came late.

The rule by which TCP shares a line (Chiu and Jain 1989), the other way round: here the sign of trouble adds capacity
and quiet takes a share of it away, so replicas move as a saw-tooth around the fewest that keep the SLO. It needs to
know nothing about the service, and pays for that by being late itself: the tooth's tip is answers beyond the SLO.
"""

from __future__ import annotations

import math
from typing import Literal

from agents.rules.replicas.calculator import Proposal
from agents.rules.replicas.course import Course
from twin.errors import UsageError
from twin.types import Action, Observation

Signal = Literal["late_ratio", "latency_p95_s"]


class Aimd:
    """Adds `step` replicas whenever `signal` is above `threshold`, keeps `factor` of them after `patience` quiet turns.

    Without any demand nobody can be late: that is quiet. A signal that is unknown otherwise holds the replicas, and
    patience begins anew. Its confidence is always 1.
    """

    def __init__(
        self,
        service: str,
        min_replicas: int,
        max_replicas: int,
        threshold: float = 0.05,
        signal: Signal = "late_ratio",
        step: int = 4,
        factor: float = 0.9,
        patience: int = 10,
        interval_s: float = 60.0,
        name: str = "aimd",
    ) -> None:
        """Steer `service` between `min_replicas` and `max_replicas`.

        Args:
            service: its name, as the observation's columns show it.
            min_replicas: lower bound.
            max_replicas: upper bound.
            threshold: the highest `signal` that is quiet: a share (0-1) of late answers, or seconds.
            signal: "late_ratio" or "latency_p95_s".
            step: replicas added in a late turn.
            factor: share (0-1) of the replicas kept after `patience` quiet turns, rounded down.
            patience: quiet turns in a row before shrinking.
            interval_s: seconds between decisions.
            name: as the decision table shows it.

        Raises:
            UsageError: when a number makes no sense.
        """
        if signal not in ("late_ratio", "latency_p95_s"):
            raise UsageError(f"controller {name!r}: signal={signal!r} must be late_ratio or latency_p95_s")
        if not (threshold >= 0 and step >= 1 and 0 < factor < 1 and patience >= 1):
            raise UsageError(
                f"controller {name!r}: threshold={threshold} must be at least 0, step={step} and patience={patience} "
                f"at least 1, factor={factor} between 0 and 1"
            )
        self.name = name
        self.interval_s = interval_s
        self._course = Course(name, service, int(min_replicas), int(max_replicas))
        self._signal, self._threshold = signal, threshold
        self._step, self._factor, self._patience = int(step), factor, int(patience)
        self._quiet = 0

    def reset(self) -> None:
        """Forget how long it has been quiet."""
        self._course.reset()
        self._quiet = 0

    def decide(self, observation: Observation) -> list[Action]:
        """More, fewer or as many replicas; none while the wished number was never known."""
        current = self._course.current(observation)
        if current is None:
            return []
        proposal = self._propose(current, observation)
        return self._course.act(observation, proposal, self._signal if proposal is None else "")

    def _propose(self, current: int, observation: Observation) -> Proposal | None:
        service = self._course.service
        level = observation[f"{service}.{self._signal}"]
        idle = not math.isfinite(level) and observation[f"{service}.demand_rps"] == 0.0
        if not (idle or math.isfinite(level)):
            self._quiet = 0
            return None
        if level > self._threshold:
            self._quiet = 0
            value = current + self._step
            return Proposal(value, f"{value} = {current} + {self._step}: {self._shown(level)} > {self._threshold:g}")
        self._quiet += 1
        shown = "no requests" if idle else f"{self._shown(level)} <= {self._threshold:g}"
        turns = f"quiet turn {self._quiet} of {self._patience}"
        if self._quiet < self._patience:
            return Proposal(current, f"held at {current}: {shown}, {turns}")
        self._quiet = 0
        value = math.floor(current * self._factor)
        return Proposal(value, f"{value} = floor({self._factor:g} x {current}): {shown}, {turns}")

    def _shown(self, level: float) -> str:
        return f"{self._signal} {level:.3g}"
