"""The shield: what a controller may change, as a pure function used in the twin, in shadow and live.

Rules, in order, each named in the decision's `limited_by`:

- *unknown*: what is judged by a metric that is missing is never shrunk (unknown is not zero): replicas by demand, what
  they ask for by their use of it, nodes by how many are ready;
- *rate*: within a window a value grows or shrinks by at most `percent` or `count`, whichever allows more,
  counted from the lowest (or highest) value in the window, so that a faster loop gets no larger steps;
- *range*: at least `min_value` and at most `max_value` replicas, `min_nodes` and `max_nodes` nodes.

What a replica asks for (`cpu_millicores`, `memory_mib`) knows no range; its rate is `resize`, in both directions. A
single node or replica (`drain`, `evict`) is left alone when the `disruptions` of the window are used up, all targets
counted together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from twin.types import Action, Limited, Limits, Observation, RateLimit

SIZES = ("replicas", "nodes")
DISRUPTIONS = ("drain", "evict")
# the metric without which a value is not made smaller
_JUDGED_BY = {
    "replicas": "demand_rps",
    "nodes": "ready_nodes",
    "cpu_millicores": "cpu_use_cores",
    "memory_mib": "memory_use_gib",
}
History = Sequence[tuple[float, int]]


def limit(action: Action, current: int, observation: Observation, limits: Limits, history: History) -> Limited:
    """The action as far as the limits allow it.

    Args:
        action: what the policy proposes.
        current: the value wished for now.
        observation: what is known now.
        limits: the bounds.
        history: (time_s, value) of past changes of this target, oldest first, including the initial value.
    """
    if action.kind in DISRUPTIONS:
        return _spare(action, observation.time_s, limits.disruptions, history)
    value, reasons = action.value, []
    if value < current and limits.hold_on_unknown and _unknown(action, observation):
        value = current
        reasons.append("unknown: metrics are missing, so nothing is shrunk")
    if value != current:  # what stays breaks no rate
        grow, shrink = rates(action, limits)
        low, high = _rate_bounds(current, observation.time_s, (grow, shrink), history)
        if not low <= value <= high:
            window = grow if value > high else shrink
            value = min(max(value, low), high)
            reasons.append(f"rate: at most {window.percent:g} % or {window.count} per {window.window_s:g} s")
    least, most = ranges(action, limits)
    if not least <= value <= most:
        value = int(min(max(value, least), most))
        reasons.append(f"range: {least:g} to {most:g}")
    return Limited(replace(action, value=value) if reasons else action, "; ".join(reasons))


def ranges(action: Action, limits: Limits) -> tuple[int, float]:
    """The least and the most that what the action sets may be."""
    if action.kind == "replicas":
        return limits.min_value, limits.max_value
    return (limits.min_nodes, limits.max_nodes) if action.kind == "nodes" else (1, math.inf)


def rates(action: Action, limits: Limits) -> tuple[RateLimit, RateLimit]:
    """How fast what the action sets may grow, and shrink."""
    return (limits.grow, limits.shrink) if action.kind in SIZES else (limits.resize, limits.resize)


def _spare(action: Action, time_s: float, budget: RateLimit, history: History) -> Limited:
    """The disruption, or none (value 0) when the window has seen enough; `history` holds (time_s, 1) of each."""
    seen = sum(number for at_s, number in history if at_s > time_s - budget.window_s)
    if action.value <= 0 or seen + action.value <= budget.count:
        return Limited(action)
    return Limited(replace(action, value=0), f"disruptions: at most {budget.count} per {budget.window_s:g} s")


def _unknown(action: Action, observation: Observation) -> bool:
    return math.isnan(observation[f"{action.target}.{_JUDGED_BY[action.kind]}"])


def _rate_bounds(
    current: int, time_s: float, allowed: tuple[RateLimit, RateLimit], history: History
) -> tuple[int, int]:
    grow, shrink = allowed
    grown_from = _extreme_in_window(current, time_s - grow.window_s, history, min)
    shrunk_from = _extreme_in_window(current, time_s - shrink.window_s, history, max)
    high = grown_from + _room(grown_from, grow)
    low = shrunk_from - _room(shrunk_from, shrink)
    return min(low, current), max(high, current)


def _room(value: int, rate: RateLimit) -> int:
    return max(math.ceil(value * rate.percent / 100.0), rate.count)


def _extreme_in_window(current: int, since_s: float, history: History, pick: Callable[[Sequence[int]], int]) -> int:
    """The lowest (or highest) value wished for since `since_s`, the one valid at `since_s` included."""
    values = [current]
    for time_s, value in reversed(history):
        values.append(value)
        if time_s <= since_s:
            break
    return pick(values)
