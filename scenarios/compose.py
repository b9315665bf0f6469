"""Scenarios one after the other, as one scenario."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scenarios.base import Scenario, Scenery
from twin.trace.trace import Trace
from twin.types import Cluster, Event


@dataclass(frozen=True, slots=True)
class Compose:
    """Applies `parts` in order; their events add up."""

    parts: Sequence[Scenario]

    def __post_init__(self) -> None:
        """Take any sequence, keep a tuple: equal compositions are equal values."""
        object.__setattr__(self, "parts", tuple(self.parts))

    def apply(self, trace: Trace, cluster: Cluster) -> Scenery:
        """What the last part leaves, with the events of all, in time order."""
        events: list[Event] = []
        for part in self.parts:
            trace, cluster, more = part.apply(trace, cluster)
            events += more
        return trace, cluster, tuple(sorted(events, key=lambda event: event.time_s))
