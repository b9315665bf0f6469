"""How fast a proposal may come true: the `behavior` of the Kubernetes HPA v2, as pure functions.

Source: KEP-853 and the HPA's rules (release 1.33). The order is: stabilise, limit the rate, keep within the range.

Stabilise: the wish may not exceed the lowest recommendation of the up-window when growing, nor fall below the
highest of the down-window when shrinking. Limit: each policy allows a number of pods or a percentage of the
replicas at the start of its period; `select` takes the largest (Max) or the smallest (Min) change, or none
(Disabled). Growth by a percentage is rounded up, what is left after shrinking by a percentage is cut off.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from agents.rules.replicas.calculator import Proposal, Tolerance
from twin.errors import UsageError

Timed = Iterable[tuple[float, int]]
"""(time_s, recommended replicas), or (time_s, change of replicas)."""


@dataclass(frozen=True, slots=True)
class Policy:
    """At most `value` pods, or per cent of the replicas at the period's start, in each `period_s` seconds."""

    kind: Literal["Pods", "Percent"]
    value: int
    period_s: float = 15.0

    def __post_init__(self) -> None:
        if self.kind not in ("Pods", "Percent"):
            raise UsageError(f"scaling policy: kind={self.kind!r} must be Pods or Percent")
        if self.value <= 0 or not 0 < self.period_s <= 1800:
            raise UsageError(f"scaling policy: value={self.value} must be > 0, period_s={self.period_s} in (0, 1800]")

    def __str__(self) -> str:
        return f"{self.value}{' pods' if self.kind == 'Pods' else ' %'} per {self.period_s:g} s"


@dataclass(frozen=True, slots=True)
class ScalingRules:
    """The rules of one direction; `tolerance` is how far from its target a metric must be to act."""

    policies: Sequence[Policy]
    stabilisation_s: float = 0.0
    select: Literal["Max", "Min", "Disabled"] = "Max"
    tolerance: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "policies", tuple(self.policies))  # Hydra hands over its own list
        if not self.policies:
            raise UsageError("scaling rules need at least one policy; to switch a direction off use select: Disabled")
        if self.select not in ("Max", "Min", "Disabled"):
            raise UsageError(f"scaling rules: select={self.select!r} must be Max, Min or Disabled")
        if not 0 <= self.stabilisation_s <= 3600 or self.tolerance < 0:
            raise UsageError(
                f"scaling rules: stabilisation_s={self.stabilisation_s} must be in [0, 3600], "
                f"tolerance={self.tolerance} must be >= 0"
            )


_UP = ScalingRules((Policy("Percent", 100), Policy("Pods", 4)))
_DOWN = ScalingRules((Policy("Percent", 100),), stabilisation_s=300.0)


@dataclass(frozen=True, slots=True)
class Behavior:
    """Both directions; the defaults are those of Kubernetes: double or +4 pods per 15 s up, 300 s of patience down."""

    up: ScalingRules = _UP
    down: ScalingRules = _DOWN
    tolerance: Tolerance = field(init=False, repr=False, compare=False)
    """The tolerances of both directions."""
    window_s: float = field(init=False, repr=False, compare=False)
    """The longest stabilisation window: older recommendations may be forgotten."""
    period_s: float = field(init=False, repr=False, compare=False)
    """The longest policy period: older changes may be forgotten."""

    def __post_init__(self) -> None:
        up, down = self.up, self.down
        object.__setattr__(self, "tolerance", Tolerance(down.tolerance, up.tolerance))
        object.__setattr__(self, "window_s", max(up.stabilisation_s, down.stabilisation_s))
        object.__setattr__(self, "period_s", max(policy.period_s for policy in (*up.policies, *down.policies)))


DEFAULT = Behavior()


def settle(
    proposal: Proposal,
    current: int,
    time_s: float,
    recommendations: Timed,
    changes: Timed,
    behavior: Behavior,
    bounds: tuple[int, int],
) -> Proposal:
    """What may come true of a proposal now, and every limit that changed it.

    Args:
        proposal: what the metrics ask for.
        current: replicas wished for now, within `bounds`.
        time_s: now.
        recommendations: (time_s, replicas) of the past proposals, the first of them being the initial count.
        changes: (time_s, added or removed replicas) of the past.
        behavior: the rules.
        bounds: smallest and largest number of replicas.
    """
    stable = stabilise(proposal, current, time_s, recommendations, behavior)
    if stable.value > current:
        return _no_faster_up(stable, current, time_s, changes, behavior.up, bounds[1])
    if stable.value < current:
        return _no_faster_down(stable, current, time_s, changes, behavior.down, bounds[0])
    return stable


def stabilise(proposal: Proposal, current: int, time_s: float, recommendations: Timed, behavior: Behavior) -> Proposal:
    """The proposal held between the lowest recommendation of the up-window and the highest of the down-window."""
    wished = proposal.value
    if wished == current:
        return proposal
    if wished > current:  # only the window of the direction asked for can hold it back
        which, rules, farthest, nearest = "lowest", behavior.up, min, max
    else:
        which, rules, farthest, nearest = "highest", behavior.down, max, min
    since_s = time_s - rules.stabilisation_s
    extreme = farthest([wished, *[value for at_s, value in recommendations if at_s > since_s]])
    value = nearest(current, extreme)
    if value == wished:
        return proposal
    window = f"{which} recommendation of the last {rules.stabilisation_s:g} s"
    window += "" if value == extreme else f" is {extreme}"
    return Proposal(value, f"{proposal.reason}; held at {value}: {window}")


def rate_bound(current: int, time_s: float, changes: Timed, rules: ScalingRules, up: bool) -> tuple[int, str]:
    """How far the replicas may go in one direction now, and the policy that says so."""
    if rules.select == "Disabled":
        return current, "scaling up is disabled" if up else "scaling down is disabled"
    past = tuple(changes)
    reached = [_reach(policy, current, time_s, past, up) for policy in rules.policies]
    farthest = max if up == (rules.select == "Max") else min
    value = farthest(reached)
    policy = rules.policies[reached.index(value)]
    # a policy that was exceeded before holds the number, it does not push it back
    return (max(value, current) if up else min(value, current)), f"rate limit: {'+' if up else '-'}{policy}"


def _reach(policy: Policy, current: int, time_s: float, changes: Sequence[tuple[float, int]], up: bool) -> int:
    start = current - sum(change for at_s, change in changes if at_s > time_s - policy.period_s)
    if policy.kind == "Pods":
        return start + policy.value if up else start - policy.value
    factor = policy.value / 100
    return math.ceil(start * (1 + factor)) if up else int(start * (1 - factor))


def _no_faster_up(
    proposal: Proposal, current: int, time_s: float, changes: Timed, rules: ScalingRules, most: int
) -> Proposal:
    bound, reason = rate_bound(current, time_s, changes, rules, up=True)
    if most <= bound:
        bound, reason = most, f"at most {most} replicas"
    return proposal if proposal.value <= bound else Proposal(bound, f"{proposal.reason}; {reason}")


def _no_faster_down(
    proposal: Proposal, current: int, time_s: float, changes: Timed, rules: ScalingRules, least: int
) -> Proposal:
    bound, reason = rate_bound(current, time_s, changes, rules, up=False)
    if least >= bound:
        bound, reason = least, f"at least {least} replicas"
    return proposal if proposal.value >= bound else Proposal(bound, f"{proposal.reason}; {reason}")
