"""The Kubernetes HPA v2 as a controller: the incumbent that every other scaler is measured against.

One turn, every 15 s by default: what each metric asks for (`agents.rules.replicas`), the largest of it, then how
fast that may come true (`agents.rules.behavior`). With any metric unknown it never shrinks. Its past is the
recommendations and the changes of the wished number, whoever made them: so the windows stay right when another
policy acts and this one only stands by.

Where the observation knows less than a cluster does, it is read so: placed but not ready, or without a node, is
"unready"; ready without metrics is "missing"; all replicas of a service request the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from agents.rules.behavior import DEFAULT, Behavior, settle
from agents.rules.replicas import Metric, Pods, Proposal, combine, propose
from twin.errors import UsageError
from twin.types import Action, Observation


@dataclass(slots=True)
class _Past:
    """What is remembered of one service."""

    wanted: int
    decided_s: float
    recommendations: deque[tuple[float, int]] = field(default_factory=deque)
    changes: deque[tuple[float, int]] = field(default_factory=deque)


class Hpa:
    """Scales each service to a target utilisation, and to further metrics if given; its confidence is always 1."""

    def __init__(
        self,
        services: Sequence[str],
        target_utilisation: float,
        min_replicas: int,
        max_replicas: int,
        behavior: Behavior = DEFAULT,
        interval_s: float = 15.0,
        name: str = "hpa",
        metrics: Sequence[Metric] = (),
    ) -> None:
        """Steer `services` between `min_replicas` and `max_replicas`.

        Args:
            services: names as the observation's columns show them.
            target_utilisation: share of the request (0-1) that a ready replica should use.
            min_replicas: lower bound of each service.
            max_replicas: upper bound of each service.
            behavior: windows, rates and tolerances.
            interval_s: seconds between decisions.
            name: as the decision table shows it.
            metrics: further metrics beside the utilisation; the largest proposal wins.

        Raises:
            UsageError: when a bound, a target or the list of services makes no sense.
        """
        if not services or not 0 <= min_replicas <= max_replicas:
            raise UsageError(
                f"controller {name!r}: services={list(services)} must not be empty, and "
                f"0 <= min_replicas={min_replicas} <= max_replicas={max_replicas}"
            )
        self.name = name
        self.interval_s = interval_s
        self.services = tuple(services)
        self.bounds = (int(min_replicas), int(max_replicas))
        self.behavior = behavior
        self.metrics = (Metric("utilisation_ratio", target_utilisation), *metrics)
        self._past: dict[str, _Past] = {}

    def reset(self) -> None:
        """Forget all recommendations and changes."""
        self._past.clear()

    def decide(self, observation: Observation) -> list[Action]:
        """One action per service; none for a service whose wished number was never known."""
        return [a for service in self.services if (a := self._action(service, observation)) is not None]

    def _action(self, service: str, observation: Observation) -> Action | None:
        wanted = observation[f"{service}.wanted_replicas"]
        past = self._past.get(service)
        if wanted != wanted:  # NaN: the plant cannot say
            if past is None:
                return None
            wanted = past.wanted
        past = self._remember(service, int(wanted), observation.time_s)
        proposal = self._decide(service, past, observation)
        return Action("replicas", service, proposal.value, proposal.reason)

    def _remember(self, service: str, wanted: int, time_s: float) -> _Past:
        past = self._past.get(service)
        if past is None:
            past = self._past[service] = _Past(wanted, time_s)
            past.recommendations.append((time_s, wanted))
        elif wanted != past.wanted:
            past.changes.append((past.decided_s, wanted - past.wanted))
        past.wanted, past.decided_s = wanted, time_s
        _forget(past.recommendations, time_s - self.behavior.window_s)
        _forget(past.changes, time_s - self.behavior.period_s)
        return past

    def _decide(self, service: str, past: _Past, observation: Observation) -> Proposal:
        current, (least, most) = past.wanted, self.bounds
        if current == 0 and least > 0:
            return Proposal(0, "0 kept: with no replicas wished for, scaling is switched off")
        if not least <= current <= most:
            bound = min(max(current, least), most)
            return Proposal(bound, f"{bound}: {current} is outside of {least} to {most}")
        proposals = self._proposals(service, current, observation)
        proposal = combine(current, self.metrics, proposals)
        if proposal is None:
            return Proposal(current, f"held at {current}: {self._unknown(proposals)}")
        time_s = observation.time_s
        settled = settle(proposal, current, time_s, past.recommendations, past.changes, self.behavior, self.bounds)
        past.recommendations.append((time_s, proposal.value))
        return settled

    def _proposals(self, service: str, current: int, observation: Observation) -> list[Proposal | None]:
        pods, tolerance = _pods(service, observation), self.behavior.tolerance
        return [
            propose(metric, observation[f"{service}.{metric.column}"], current, pods, tolerance)
            for metric in self.metrics
        ]

    def _unknown(self, proposals: Sequence[Proposal | None]) -> str:
        columns = [m.column for m, proposal in zip(self.metrics, proposals, strict=True) if proposal is None]
        what = "no valid metric" if len(columns) == len(proposals) else "metric missing: not shrinking"
        return f"{what} ({', '.join(columns)} unknown)"


def _pods(service: str, observation: Observation) -> Pods:
    ready, missing, starting, pending = (
        _count(observation[f"{service}.{metric}_replicas"]) for metric in ("ready", "unmeasured", "starting", "pending")
    )
    return Pods(max(ready - missing, 0), missing, starting + pending)


def _count(value: float) -> int:
    return int(value) if value == value else 0


def _forget(past: deque[tuple[float, int]], until_s: float) -> None:
    while past and past[0][0] <= until_s:
        past.popleft()
