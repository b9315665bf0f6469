"""The shield, as laws."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from twin.limits import limit
from twin.types import Action, Limits, Observation, RateLimit

LIMITS = Limits(min_value=2, max_value=50, grow=RateLimit(60, 100, 4), shrink=RateLimit(300, 50, 2))


def seen(time_s: float, demand: float = 100.0) -> Observation:
    return Observation(time_s, ("web.demand_rps",), np.array([demand], dtype=np.float32))


def wish(value: int) -> Action:
    return Action("replicas", "web", value, "because", 0.9)


counts = st.integers(2, 50)


@given(st.integers(-5, 1000), counts)
def test_the_range_always_holds(value: int, current: int) -> None:
    allowed = limit(wish(value), current, seen(1000), LIMITS, [(0.0, current)]).action.value
    assert LIMITS.min_value <= allowed <= LIMITS.max_value


@given(st.integers(-5, 1000), counts)
def test_what_is_within_the_limits_is_not_touched(value: int, current: int) -> None:
    limited = limit(wish(value), current, seen(1000), LIMITS, [(0.0, current)])
    assert (limited.limited_by == "") == (limited.action == wish(value))


@given(st.integers(0, 49), counts)
def test_unknown_is_never_shrunk(value: int, current: int) -> None:
    limited = limit(wish(value), current, seen(1000, np.nan), LIMITS, [(0.0, current)])
    if value < current:
        assert limited.action.value == current
        assert limited.limited_by.startswith("unknown")


@given(st.lists(st.tuples(st.integers(0, 200), st.floats(1, 50)), min_size=1, max_size=30))
def test_a_faster_loop_gets_no_larger_steps(wishes: list[tuple[int, float]]) -> None:
    """Within any 60 s a value at most doubles (or gains 4), however often it is asked."""
    time_s, current, history = 0.0, 10, [(0.0, 10)]
    for value, wait_s in wishes:
        time_s += wait_s
        allowed = limit(wish(value), current, seen(time_s), LIMITS, history).action.value
        if allowed != current:
            history.append((time_s, allowed))
        current = allowed
        in_window = [v for i, (t, v) in enumerate(history) if t > time_s - 60 or _valid_at(history, i, time_s - 60)]
        lowest = min(in_window)
        assert current <= max(2 * lowest, lowest + 4)


def _valid_at(history: list[tuple[float, int]], index: int, time_s: float) -> bool:
    later = history[index + 1 :]
    return history[index][0] <= time_s and (not later or later[0][0] > time_s)


def test_the_reason_names_the_limit() -> None:
    assert "rate: at most 100 % or 4 per 60 s" in limit(wish(50), 4, seen(100), LIMITS, [(0, 4)]).limited_by
    assert "range: 2 to 50" in limit(wish(60), 40, seen(100), LIMITS, [(0, 40)]).limited_by


@given(st.integers(-5, 1000), counts, st.lists(st.tuples(st.floats(0, 1000), counts), max_size=6))
def test_what_stays_as_it_is_breaks_no_rate(value: int, current: int, past: list[tuple[float, int]]) -> None:
    """Whatever was set before: only a change can be too fast, and one that is goes a part of its way or not at all."""
    history = [(0.0, current), *sorted(past)]
    assert limit(wish(current), current, seen(1000), LIMITS, history).limited_by == ""
    allowed = limit(wish(value), current, seen(1000), LIMITS, history)
    if "rate" in allowed.limited_by and "range" not in allowed.limited_by:
        assert min(value, current) <= allowed.action.value <= max(value, current)
