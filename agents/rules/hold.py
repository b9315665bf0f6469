"""The controller that does nothing: what the others must beat."""

from __future__ import annotations

from twin.types import Action, Observation


class Hold:
    """Leaves everything as it is; since it decides nothing, the decision table has no row of it."""

    def __init__(self, name: str = "hold", interval_s: float = 60.0) -> None:
        """Look every `interval_s` seconds, and do nothing."""
        self.name = name
        self.interval_s = interval_s

    def reset(self) -> None:
        """There is no past to forget."""

    def decide(self, observation: Observation) -> list[Action]:  # noqa: ARG002 - the Controller protocol gives it
        """No action."""
        return []
