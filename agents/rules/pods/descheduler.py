"""The Kubernetes descheduler as a controller: it evicts replicas that a scheduler would place elsewhere today.

One cycle, every 5 min by default: each policy in turn looks at the same fleet and evicts within shared limits
(`descheduler_evictor`). It does not say where a replica goes: that is the scheduler's choice, which may
well be the node that it came from. It remembers nothing from one cycle to the next, so nothing keeps it from evicting
the same service for the same reason again and again. Its confidence is always 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from agents.rules.nodes.pools import look
from agents.rules.pods.descheduler_evictor import DEFAULT, Eviction, Rules
from twin.errors import UsageError
from twin.fleet import Fleet
from twin.types import Action, Observation


class Policy(Protocol):
    """One of the descheduler's plugins."""

    def evictions(self, fleet: Fleet, rules: Rules = ..., earlier: Iterable[Eviction] = ...) -> list[Eviction]:
        """What it evicts, given the rules and what was evicted before it in the same cycle."""
        ...


class Descheduler:
    """Evicts replicas by the given policies."""

    def __init__(
        self,
        policies: Sequence[Policy],
        rules: Rules = DEFAULT,
        interval_s: float = 300.0,
        name: str = "descheduler",
    ) -> None:
        """Run `policies` in their order, every `interval_s`, within `rules`; raises UsageError when there are none."""
        if not policies:
            raise UsageError(f"controller {name!r}: policies must not be empty")
        self.name = name
        self.interval_s = interval_s
        self.policies = tuple(policies)
        self.rules = rules

    def reset(self) -> None:
        """There is no past to forget."""

    def decide(self, observation: Observation) -> list[Action]:
        """One action of kind "evict" for each replica; raises PolicyError where single replicas cannot be seen."""
        fleet = look(observation, self.name)
        found: list[Eviction] = []
        for policy in self.policies:
            found += policy.evictions(fleet, self.rules, found)
        return [Action("evict", fleet.pod_name[eviction.pod], 1, eviction.reason) for eviction in found]
