"""The shield, as laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twin.limits import limit
from twin.types import Action, ActionKind, Limits, Observation, RateLimit

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


@pytest.mark.parametrize(("kind", "metric"), [("cpu_millicores", "cpu_use_cores"), ("memory_mib", "memory_use_gib")])
def test_what_a_replica_asks_for_is_not_shrunk_while_its_use_is_unknown(kind: ActionKind, metric: str) -> None:
    """Demand is known, the use of that resource is not: it may grow, but not shrink."""
    columns = ("web.demand_rps", f"web.{metric}")
    blind = Observation(1000.0, columns, np.array([100.0, np.nan], dtype=np.float32))
    seeing = Observation(1000.0, columns, np.array([100.0, 1.0], dtype=np.float32))
    less, more = Action(kind, "web", 900), Action(kind, "web", 1100)
    history = [(0.0, 1000)]
    assert limit(less, 1000, blind, LIMITS, history).action.value == 1000
    assert limit(less, 1000, seeing, LIMITS, history).action.value == 900
    assert limit(more, 1000, blind, LIMITS, history).action.value == 1100


def test_nodes_have_a_range_of_their_own() -> None:
    """A pool may be emptied where a service may not; and the other way round for the most."""
    limits = Limits(min_value=4, max_value=8, min_nodes=0, max_nodes=20, shrink=RateLimit(1.0, 100.0, 100))
    seen = Observation(0.0, ("workers.ready_nodes", "web.demand_rps"), np.array([3.0, 1.0], dtype=np.float32))
    wishes: list[tuple[Action, int]] = [
        (Action("nodes", "workers", 0), 3),
        (Action("replicas", "web", 0), 5),
        (Action("nodes", "workers", 12), 10),
        (Action("replicas", "web", 9), 7),
    ]
    values = [limit(action, now, seen, limits, [(0.0, now)]).action.value for action, now in wishes]
    assert values == [0, 4, 12, 8]
