"""The Kubernetes Vertical Pod Autoscaler as a controller: how much each replica asks for, not how many there are.

One turn, every 60 s: the use of the last minute is remembered and a recommendation made
(`vpa_recommender`), then it is decided whether replicas are started anew with it
(`vpa_updater`). Mode "Off" only says what it would do; "Initial" would give it to new replicas only, and
since all replicas of a service ask for the same, it changes nothing here either.

Where the observation knows less than a cluster does, it is read so: the mean CPU use of the ready replicas is one
sample, the highest memory use stands for all of them, and a replica is as old as the request that it was started with.
As metrics servers give both or nothing, a turn in which one controlled resource is unknown is no sample. A kill is
soon after the start when the request, or a kill before it, is less than 10 minutes old. Its confidence is always 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from agents.rules.pods.vpa_recommender import MIB, MOST, Allowed, Bounds, Recommender, Usage, recommend
from agents.rules.pods.vpa_updater import Updater, disruptable, due, priority
from twin.errors import UsageError
from twin.types import Action, ActionKind, Observation

Mode = Literal["Off", "Initial", "Auto"]

_KINDS: Mapping[str, ActionKind] = {"cpu": "cpu_millicores", "memory": "memory_mib"}
_UNITS = {"cpu": 1, "memory": MIB}  # of the recommender's amounts in one of the action's
_RECOMMENDER, _UPDATER, _ANY = Recommender(), Updater(), Allowed()


@dataclass(slots=True)
class _Past:
    """What is remembered of one service."""

    usage: Usage
    request: dict[str, int] = field(default_factory=dict)
    since_s: float = 0.0
    killed_s: float = -math.inf
    quick_oom: bool = False


class Vpa:
    """Sets what each replica of a service asks for by what it has used."""

    def __init__(
        self,
        services: Sequence[str],
        mode: Mode = "Auto",
        recommender: Recommender = _RECOMMENDER,
        updater: Updater = _UPDATER,
        cpu_millicores: Allowed = _ANY,
        memory_mib: Allowed = _ANY,
        resources: Sequence[str] = ("cpu", "memory"),
        interval_s: float = 60.0,
        name: str = "vpa",
    ) -> None:
        """Size the replicas of `services`.

        Args:
            services: names as the observation's columns show them.
            mode: "Auto" acts; "Off" and "Initial" change nothing and say what is recommended.
            recommender: how use becomes a recommendation.
            updater: when it is acted upon.
            cpu_millicores: what a replica may ask for.
            memory_mib: what a replica may ask for.
            resources: which of "cpu" and "memory" are controlled.
            interval_s: seconds between decisions.
            name: as the decision table shows it.

        Raises:
            UsageError: when a name of a mode or resource is unknown or a list is empty.
        """
        if not services or not resources or not set(resources) <= set(_KINDS):
            raise UsageError(
                f"controller {name!r}: services={list(services)} must not be empty, "
                f"resources={list(resources)} must be some of {list(_KINDS)}"
            )
        if mode not in get_args(Mode):
            raise UsageError(f"controller {name!r}: mode={mode!r} must be one of {get_args(Mode)}")
        self.name = name
        self.interval_s = interval_s
        self.services = tuple(services)
        self.mode: Mode = mode
        self.recommender = recommender
        self.updater = updater
        self.allowed = {"cpu": cpu_millicores, "memory": memory_mib}
        self.resources = tuple(resources)
        self._past: dict[str, _Past] = {}

    def reset(self) -> None:
        """Forget all use."""
        self._past.clear()

    def decide(self, observation: Observation) -> list[Action]:
        """One action for each service and controlled resource; none for a service whose request is unknown."""
        return [action for service in self.services for action in self._actions(service, observation)]

    def _actions(self, service: str, observation: Observation) -> list[Action]:
        seen = {resource: observation[f"{service}.{kind}"] for resource, kind in _KINDS.items()}
        if any(math.isnan(value) for value in seen.values()):
            return []
        request = {resource: int(value) for resource, value in seen.items()}
        past = self._remember(service, request, observation)
        recommended = self._recommended(past.usage)
        if recommended is None:
            return [
                Action(_KINDS[resource], service, request[resource], f"held at {request[resource]}: no sample yet")
                for resource in self.resources
            ]
        acts, why = self._verdict(service, past, recommended, observation)
        return [
            self._action(service, resource, request[resource], recommended[resource], acts, why)
            for resource in self.resources
        ]

    def _remember(self, service: str, request: dict[str, int], observation: Observation) -> _Past:
        time_s, past = observation.time_s, self._past.get(service)
        if past is None or past.usage.expired(time_s):
            past = self._past[service] = _Past(Usage(self.recommender), request, time_s)
        elif request != past.request:
            past.request, past.since_s, past.quick_oom = request, time_s, False
        use = {"cpu": observation[f"{service}.cpu_use_cores"], "memory": observation[f"{service}.memory_use_gib"]}
        if not any(math.isnan(use[resource]) for resource in self.resources):
            past.usage.add_cpu(use["cpu"], request["cpu"] / 1000, time_s)
            past.usage.add_memory(use["memory"] * 1024 * MIB, time_s)
        if observation[f"{service}.oom_kills"] > 0:
            past.usage.record_oom(request["memory"] * MIB, time_s)
            past.quick_oom = time_s - max(past.since_s, past.killed_s) < self.updater.quick_oom_s
            past.killed_s = time_s
        return past

    def _recommended(self, usage: Usage) -> dict[str, Bounds] | None:
        """In the actions' units, rounded up, and as the policy allows."""
        found = recommend(usage)
        if found is None:
            return None
        return {
            resource: _in_units(found[resource], _UNITS[resource]).within(self.allowed[resource])
            for resource in self.resources
        }

    def _verdict(
        self, service: str, past: _Past, recommended: Mapping[str, Bounds], observation: Observation
    ) -> tuple[bool, str]:
        if self.mode != "Auto":
            return False, f"mode {self.mode}"
        found = priority(past.request, recommended)
        wanted, why = due(found, observation.time_s - past.since_s, past.quick_oom, self.updater)
        if not wanted:
            return False, why
        counts = [observation[f"{service}.{state}_replicas"] for state in ("wanted", "ready", "starting", "pending")]
        if any(math.isnan(count) for count in counts):
            return False, f"{why}, but how many replicas run is unknown"
        configured, ready, starting, pending = (int(count) for count in counts)
        allowed, hindrance = disruptable(configured, ready + starting + pending, ready, self.updater)
        return allowed, why if allowed else f"{why}, but {hindrance}"

    def _action(self, service: str, resource: str, current: int, bounds: Bounds, acts: bool, why: str) -> Action:
        kind = _KINDS[resource]
        upper = bounds.upper if bounds.upper < MOST // _UNITS[resource] else "any"
        recommended = f"{bounds.target} recommended, {bounds.lower} to {upper} accepted"
        if not acts:
            return Action(kind, service, current, f"held at {current}: {why}; {recommended}")
        return Action(kind, service, bounds.target, f"{bounds.target} instead of {current}: {why}; {recommended}")


def _in_units(bounds: Bounds, unit: int) -> Bounds:
    return Bounds(*(-(-amount // unit) for amount in (bounds.lower, bounds.target, bounds.upper)))
