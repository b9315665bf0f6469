"""What Karpenter may do to nodes, and what a move is worth: policies, budgets, and the score of the policy Balanced.

Source: the NodePool API of kubernetes-sigs/karpenter (1.8) and its design `designs/balanced-consolidation.md`. All
pools under a controller are one NodePool here, and pools stand for instance types.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from twin.errors import UsageError

Policy = Literal["WhenEmpty", "WhenEmptyOrUnderutilized", "Balanced"]
Reason = Literal["Empty", "Underutilized"]


@dataclass(frozen=True, slots=True)
class Budget:
    """At most so many nodes ("10%" of all, rounded up, or "3") may be going at once, for these reasons (none: any)."""

    nodes: str = "10%"
    reasons: Sequence[Reason] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", str(self.nodes))
        object.__setattr__(self, "reasons", tuple(self.reasons))
        if not self.nodes.removesuffix("%").isdigit():
            raise UsageError(f"disruption budget: nodes={self.nodes!r} must be a whole number or a percentage")

    def allowed(self, nodes: int) -> int:
        """How many of that many nodes may be going at once."""
        if self.nodes.endswith("%"):
            return math.ceil(nodes * int(self.nodes[:-1]) / 100)
        return int(self.nodes)


@dataclass(frozen=True, slots=True)
class Disruption:
    """When nodes are done away with, with the defaults of Karpenter.

    Nodes count only `after_s` after the last pod came or went. "Balanced" wants a move's share of the savings to be at
    least 1/`threshold` of its share of the disruption. `pod_costs` says what evicting a pod of a service costs beside
    others (-10 to 10, 1 where nothing is said). A move is looked at again `validate_s` after it was found.
    """

    policy: Policy = "WhenEmptyOrUnderutilized"
    after_s: float = 0.0
    budgets: Sequence[Budget] = (Budget(),)
    threshold: float = 2.0
    spot_to_spot: bool = False
    validate_s: float = 15.0
    pod_costs: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "budgets", tuple(self.budgets))
        if self.policy not in ("WhenEmpty", "WhenEmptyOrUnderutilized", "Balanced"):
            raise UsageError(f"consolidation policy {self.policy!r}: WhenEmpty, WhenEmptyOrUnderutilized or Balanced")
        if self.threshold <= 0 or min(self.after_s, self.validate_s) < 0:
            raise UsageError(
                f"consolidation: threshold={self.threshold} must be > 0, after_s={self.after_s} and "
                f"validate_s={self.validate_s} at least 0"
            )

    def approves(self, score: float) -> bool:
        """Is a move of that score worth it under "Balanced"?"""
        return score >= 1.0 / self.threshold - 1e-9

    def budget(self, reason: Reason, nodes: int, going: int) -> int:
        """How many more of `nodes` nodes may go for that reason while `going` are on their way or not ready."""
        mine = [budget.allowed(nodes) for budget in self.budgets if not budget.reasons or reason in budget.reasons]
        return max(min(mine, default=nodes) - going, 0)


@dataclass(frozen=True, slots=True)
class Move:
    """Nodes that go, the pool of the one that replaces them ("" = none), and what that saves."""

    reason: Reason
    nodes: tuple[str, ...]
    replacement: str
    before_usd_h: float
    after_usd_h: float

    @property
    def savings_usd_h(self) -> float:
        """What the move saves."""
        return self.before_usd_h - self.after_usd_h


def score(savings: float, disruption: float, total_cost: float, total_disruption: float) -> float:
    """How much of all costs a move saves for each share of all disruption it causes; 0 when it saves nothing."""
    if savings <= 0.0 or total_cost <= 0.0:
        return 0.0
    if disruption <= 0.0 or total_disruption <= 0.0:
        return math.inf
    return (savings / total_cost) / (disruption / total_disruption)
