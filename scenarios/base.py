"""A scenario: a named, hashable, composable what-if over a trace and the cluster that is to serve it."""

from __future__ import annotations

from typing import Protocol

from twin.trace.trace import Trace
from twin.types import Cluster, Event

Scenery = tuple[Trace, Cluster, tuple[Event, ...]]


class Scenario(Protocol):
    """`apply(trace, cluster) -> (trace, cluster, events)`, a pure function; equal scenarios are equal values."""

    def apply(self, trace: Trace, cluster: Cluster) -> Scenery:
        """What is to be simulated; raises ScenarioError when the change does not fit the trace or the cluster."""
        ...
