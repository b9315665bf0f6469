"""The Kubernetes HPA v2 as a controller: the incumbent that every other scaler is measured against.

One turn, every 15 s by default: what each metric asks for (`calculator`), the largest of it, then how
fast that may come true (`behavior`). With any metric unknown it never shrinks. Its past is the
recommendations and the changes of the wished number, whoever made them: so the windows stay right when another
policy acts and this one only stands by.

Where the observation knows less than a cluster does, it is read so: placed but not ready, or without a node, is
"unready"; ready without metrics is "missing"; all replicas of a service request the same. A CPU sample that began
before a replica was ready makes it "unready" too (in Kubernetes: within its first 5 minutes); that needs
`cpu_sample_s` and a plant that shows its single replicas.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from agents.rules.replicas.behavior import DEFAULT, Behavior, settle
from agents.rules.replicas.calculator import Metric, Pods, Proposal, combine, propose
from twin.errors import PolicyError, UsageError
from twin.fleet import READY
from twin.types import Action, Columns, Observation

CPU_COLUMNS = ("utilisation_ratio", "cpu_use_cores")
# what is read of each service before its metrics: the wished number, then what `_pods` takes
COUNTS = ("wanted_replicas", "ready_replicas", "unmeasured_replicas", "starting_replicas", "pending_replicas")


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
        target_utilisation: float | None,
        min_replicas: int,
        max_replicas: int,
        behavior: Behavior = DEFAULT,
        interval_s: float = 15.0,
        name: str = "hpa",
        metrics: Sequence[Metric] = (),
        cpu_sample_s: float = 0.0,
    ) -> None:
        """Steer `services` between `min_replicas` and `max_replicas`.

        Args:
            services: names as the observation's columns show them.
            target_utilisation: share of the request (0-1) that a ready replica should use; None: not looked at.
            min_replicas: lower bound of each service.
            max_replicas: upper bound of each service.
            behavior: windows, rates and tolerances.
            interval_s: seconds between decisions.
            name: as the decision table shows it.
            metrics: further metrics beside the utilisation; the largest proposal wins.
            cpu_sample_s: how long a CPU sample takes; who became ready within it counts as unready (0: nobody).

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
        utilisation = () if target_utilisation is None else (Metric("utilisation_ratio", target_utilisation),)
        self.metrics = (*utilisation, *metrics)
        if not self.metrics:
            raise UsageError(f"controller {name!r}: give it a target_utilisation or metrics, it has nothing to go by")
        self.cpu_sample_s = cpu_sample_s
        self._past: dict[str, _Past] = {}
        self._columns: tuple[str, ...] = ()
        self._places: NDArray[np.intp] = np.empty((0, 0), np.intp)

    def reset(self) -> None:
        """Forget all recommendations and changes."""
        self._past.clear()

    def overruled(self, service: str, replicas: int) -> None:
        """Take note of a number that a master of this HPA has set: unlike others' changes, no change of the period."""
        if service in self._past:
            self._past[service].wanted = replicas

    def decide(self, observation: Observation) -> list[Action]:
        """One action per service; none for a service whose wished number was never known."""
        rows = zip(self.services, self._read(observation), strict=True)
        return [a for service, seen in rows if (a := self._action(service, seen, observation)) is not None]

    def _read(self, observation: Observation) -> list[list[float]]:
        """Of each service its COUNTS and metrics; their places are looked up anew only when the columns change."""
        if observation.columns is not self._columns:
            columns = (*COUNTS, *(metric.column for metric in self.metrics))
            places = [[_place(f"{service}.{column}", observation) for column in columns] for service in self.services]
            self._places, self._columns = np.array(places), observation.columns
        return observation.values[self._places].tolist()

    def _action(self, service: str, seen: list[float], observation: Observation) -> Action | None:
        wanted, past = seen[0], self._past.get(service)
        if wanted != wanted:  # NaN: the plant cannot say
            if past is None:
                return None
            wanted = past.wanted
        past = self._remember(service, int(wanted), observation.time_s)
        proposal = self._decide(service, past, seen, observation)
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

    def _decide(self, service: str, past: _Past, seen: list[float], observation: Observation) -> Proposal:
        current, (least, most) = past.wanted, self.bounds
        if current == 0 and least > 0:
            return Proposal(0, "0 kept: with no replicas wished for, scaling is switched off")
        if not least <= current <= most:
            bound = min(max(current, least), most)
            return Proposal(bound, f"{bound}: {current} is outside of {least} to {most}")
        proposals = self._proposals(service, current, seen, observation)
        proposal = combine(current, self.metrics, proposals)
        if proposal is None:
            return Proposal(current, f"held at {current}: {self._unknown(proposals)}")
        time_s = observation.time_s
        settled = settle(proposal, current, time_s, past.recommendations, past.changes, self.behavior, self.bounds)
        past.recommendations.append((time_s, proposal.value))
        return settled

    def _proposals(
        self, service: str, current: int, seen: list[float], observation: Observation
    ) -> list[Proposal | None]:
        pods = sampled = _pods(seen[1 : len(COUNTS)])
        if self.cpu_sample_s > 0:
            fresh = min(self._fresh(service, observation), pods.measured)
            sampled = replace(pods, measured=pods.measured - fresh, unready=pods.unready + fresh)
        tolerance = self.behavior.tolerance
        return [
            propose(metric, value, current, sampled if metric.column in CPU_COLUMNS else pods, tolerance)
            for metric, value in zip(self.metrics, seen[len(COUNTS) :], strict=True)
        ]

    def _fresh(self, service: str, observation: Observation) -> int:
        """How many replicas are ready for less than one CPU sample."""
        if observation.fleet is None:
            raise PolicyError(
                f"{self.name}: cpu_sample_s={self.cpu_sample_s:g} needs the single replicas, which this plant "
                "does not show; set it to 0"
            )
        fleet = observation.fleet()
        mine = fleet.pod_service == [each.name for each in fleet.services].index(service)
        young = fleet.time_s - fleet.pod_since_s < self.cpu_sample_s
        return int((mine & young & (fleet.pod_state == READY)).sum())

    def _unknown(self, proposals: Sequence[Proposal | None]) -> str:
        columns = [m.column for m, proposal in zip(self.metrics, proposals, strict=True) if proposal is None]
        what = "no valid metric" if len(columns) == len(proposals) else "metric missing: not shrinking"
        return f"{what} ({', '.join(columns)} unknown)"


def _place(column: str, observation: Observation) -> int:
    _ = observation[column]  # of an unknown column it says which are known
    return cast(Columns, observation.columns).places[column]


def _pods(seen: list[float]) -> Pods:
    """The replicas; what is unknown (NaN) counts as none, and then nobody can say how many exist."""
    ready, missing, starting, pending = [int(value) if value == value else 0 for value in seen]
    total = sum(seen)
    existing = ready + starting + pending if total == total else None
    return Pods(max(ready - missing, 0), missing, starting + pending, existing)


def _forget(past: deque[tuple[float, int]], until_s: float) -> None:
    while past and past[0][0] <= until_s:
        past.popleft()
