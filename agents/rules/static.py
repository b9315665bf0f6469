"""The controller that holds given numbers: a fixed (over-)provisioning, as many clusters are run."""

from __future__ import annotations

from collections.abc import Mapping

from twin.errors import UsageError
from twin.types import Action, Observation


class Static:
    """Wishes the same number of replicas for each service, whatever it sees; its confidence is always 1."""

    def __init__(self, replicas: Mapping[str, int], name: str = "static", interval_s: float = 60.0) -> None:
        """Hold `replicas` (service -> count); raises UsageError when a count is negative or there is none."""
        self.name = name
        self.interval_s = interval_s
        self.replicas = {service: int(count) for service, count in replicas.items()}
        if not self.replicas or min(self.replicas.values()) < 0:
            raise UsageError(f"controller {name!r}: replicas={self.replicas} must give a count >= 0 for each service")

    def reset(self) -> None:
        """There is no past to forget."""

    def decide(self, observation: Observation) -> list[Action]:  # noqa: ARG002 - the Controller protocol gives it
        """The given count for each service."""
        return [
            Action("replicas", service, count, f"{count}: a fixed number, whatever the demand")
            for service, count in self.replicas.items()
        ]
