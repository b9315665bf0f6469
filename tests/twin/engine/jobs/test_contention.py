"""Max-min fair sharing of a processor: laws of the shares, of both policies, and agreement with the plain sum."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twin.engine.jobs import fragments
from twin.engine.jobs.contention import Contended, Policy, contend, contend_machine, fair_shares
from twin.engine.jobs.machines import uniform
from twin.errors import SimulationError
from twin.trace import tables

Tasks = list[tuple[float, list[tuple[float, float]]]]
AMOUNTS = st.floats(0.01, 8.0).map(lambda x: round(x, 3))
PIECES = st.lists(
    st.tuples(st.floats(0.1, 20.0).map(lambda x: round(x, 2)), st.one_of(st.just(0.0), AMOUNTS)), max_size=5
)
TASKS = st.lists(st.tuples(st.floats(0.0, 20.0).map(lambda x: round(x, 1)), PIECES), min_size=1, max_size=6)


def play(tasks: Tasks, capacity: float, policy: Policy) -> Contended:
    pieces = [piece for _, own in tasks for piece in own]
    return contend(
        np.array([start for start, _ in tasks]),
        np.cumsum([0, *(len(own) for _, own in tasks)]),
        np.array([duration for duration, _ in pieces]),
        np.array([asked for _, asked in pieces]),
        capacity,
        policy,
    )


def work(tasks: Tasks) -> np.ndarray:
    return np.array([sum(duration * asked for duration, asked in own) for _, own in tasks])


def ends(tasks: Tasks) -> np.ndarray:
    return np.array([start + sum(duration for duration, _ in own) for start, own in tasks])


def test_golden_water_filling():
    """Of 10 the small ones get all they ask for, the large ones what is left in equal parts."""
    shares = fair_shares(np.array([8.0, 2.0, 4.0, 2.6]), 10.0)
    np.testing.assert_allclose(shares, [2.7, 2.0, 2.7, 2.6])
    np.testing.assert_array_equal(fair_shares(np.array([1.0, 0.0, 4.0]), 5.0), [1.0, 0.0, 4.0])


@given(st.lists(st.floats(0.0, 100.0), min_size=1, max_size=12), st.floats(0.1, 200.0))
def test_shares_are_max_min_fair(asked: list[float], capacity: float):
    """All of the capacity is given or every wish fulfilled; who gets less than asked gets no less than anybody."""
    wishes = np.array(asked)
    shares = fair_shares(wishes, capacity)
    assert (shares <= wishes).all()
    assert (shares >= 0.0).all()
    np.testing.assert_allclose(shares.sum(), min(wishes.sum(), capacity), rtol=1e-12)
    short = shares < wishes
    if short.any():
        assert shares[short].min() >= shares.max() * (1 - 1e-12)


def test_golden_two_tasks_on_one_core():
    """Both ask for the whole core for 10 s; the second comes after 5 s."""
    tasks: Tasks = [(0.0, [(10.0, 1.0)]), (5.0, [(10.0, 1.0)])]
    stretched = play(tasks, 1.0, "stretch")
    np.testing.assert_allclose(stretched.end_s, [15.0, 20.0])
    np.testing.assert_allclose(stretched.lost_core_s, 0.0)
    lossy = play(tasks, 1.0, "lose")
    np.testing.assert_array_equal(lossy.end_s, [10.0, 15.0])
    np.testing.assert_allclose(lossy.done_core_s, [7.5, 7.5])
    np.testing.assert_allclose(lossy.lost_core_s, [2.5, 2.5])


@given(TASKS, st.floats(0.5, 12.0))
def test_stretching_conserves_work(tasks: Tasks, capacity: float):
    found = play(tasks, capacity, "stretch")
    np.testing.assert_allclose(found.done_core_s, work(tasks), rtol=1e-9, atol=1e-9)
    assert (found.lost_core_s == 0.0).all()
    assert (found.end_s >= ends(tasks) - 1e-9).all()


@given(TASKS, st.floats(0.5, 12.0))
def test_losing_keeps_times(tasks: Tasks, capacity: float):
    found = play(tasks, capacity, "lose")
    np.testing.assert_allclose(found.end_s, ends(tasks), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(found.done_core_s + found.lost_core_s, work(tasks), rtol=1e-9, atol=1e-9)


@given(TASKS, st.floats(0.5, 12.0), st.sampled_from(["stretch", "lose"]))
def test_no_more_is_given_than_the_machine_has(tasks: Tasks, capacity: float, policy: Policy):
    """And what is given over time comes to the work done."""
    found = play(tasks, capacity, policy)
    assert (found.given_cores <= capacity).all()
    assert found.given_cores[-1] == 0.0
    given_core_s = (np.diff(found.time_s) * found.given_cores[:-1]).sum()
    assert given_core_s == pytest.approx(found.done_core_s.sum(), rel=1e-9, abs=1e-9)


EVEN = st.lists(
    st.tuples(st.integers(0, 20).map(float), st.lists(st.tuples(st.floats(0.1, 9.0), AMOUNTS), min_size=1, max_size=1)),
    min_size=1,
    max_size=6,
)


@given(EVEN, st.floats(0.5, 12.0), st.floats(1.0, 3.0))
def test_of_even_tasks_none_ends_later_with_more_capacity(tasks: Tasks, capacity: float, more: float):
    """Tasks that always ask for the same get no less of a larger machine, so none ends later."""
    slow, fast = (play(tasks, amount, "stretch").end_s for amount in (capacity, capacity * more))
    assert (fast <= slow * (1 + 1e-9)).all()


def test_an_uneven_task_may_end_later_with_more_capacity():
    """On the larger machine the first task comes to its second peak early enough to meet the other one's."""
    tasks: Tasks = [(1.0, [(5.0, 4.0), (1.0, 0.1), (1.0, 8.0)]), (1.0, [(10.0, 0.1), (1.0, 4.0), (2.0, 0.5)])]
    slow, fast = (play(tasks, capacity, "stretch").end_s for capacity in (2.0, 2.2))
    np.testing.assert_allclose(slow, [18.05, 16.1])
    assert fast[0] < slow[0]
    assert fast[1] > slow[1]


@given(TASKS, st.floats(0.5, 12.0), st.floats(1.0, 3.0))
def test_with_more_capacity_less_is_lost(tasks: Tasks, capacity: float, more: float):
    little, much = (play(tasks, amount, "lose").lost_core_s for amount in (capacity, capacity * more))
    assert (much <= little + 1e-9).all()


@given(TASKS, st.integers(0, 60), st.sampled_from(["stretch", "lose"]))
@settings(max_examples=60)
def test_without_contention_it_is_the_plain_sum(tasks: Tasks, extra: int, policy: Policy):
    """On a machine that is never asked for more than it has, both policies give the profile of the fragments."""
    machines = uniform(2, 48.0 + extra)
    rows = [
        (f"j{i}", machines.names[1], start, end, 1.0)
        for i, ((start, _), end) in enumerate(zip(tasks, ends(tasks), strict=True))
    ]
    lying = tables.conform(
        pl.DataFrame(rows, schema=["job", "node", "start_s", "end_s", "cpu_cores"], orient="row"), "placements", "t"
    )
    steps = [
        (f"j{i}", "cpu", sum(d for d, _ in own[:k]), asked, "core", duration)
        for i, (_, own) in enumerate(tasks)
        for k, (duration, asked) in enumerate(own)
        if asked > 0.0
    ]
    names = [c.name for c in tables.schema("usage")]
    use = pl.DataFrame(steps, schema=names, orient="row", strict=False) if steps else tables.empty("usage")
    jobs = pl.DataFrame({"job": [row[0] for row in rows]}).with_columns(start_s=0.0, used_cpu_cores=0.0)
    pieces = fragments.fragments(lying, use, tables.conform(jobs, "jobs", "t"), machines)
    asked = fragments.profile(pieces, machines)

    placement, found = contend_machine(pieces, 1, int(machines.capacity[1, 0]), policy)
    lasts = [max((t + d for job, _, t, _, _, d in steps if job == row[0]), default=0.0) for row in rows]
    quiet = [not any(job == row[0] for job, *_ in steps) for row in rows]
    expected = np.array([row[3] if none else row[2] + last for row, last, none in zip(rows, lasts, quiet, strict=True)])
    np.testing.assert_allclose(found.end_s, expected[placement], rtol=1e-12, atol=1e-9)
    assert found.lost_core_s.max() == 0.0
    moments = [(a + b) / 2 for a, b in pairwise(sorted({*asked.time_s, *found.time_s})) if b - a > 1e-6]
    for moment in moments:
        plain = np.append(0, asked.used)[np.searchsorted(asked.time_s, moment)] / 1e6
        fluid = np.append(0.0, found.given_cores)[np.searchsorted(found.time_s, moment)]
        assert fluid == pytest.approx(plain, abs=1e-9)


def test_an_empty_machine_does_nothing():
    machines = uniform(1, 1.0)
    pieces = fragments.fragments(tables.empty("placements"), tables.empty("usage"), tables.empty("jobs"), machines)
    placement, found = contend_machine(pieces, 0, 1_000_000, "stretch")
    assert len(placement) == len(found.end_s) == len(found.time_s) == 0


def test_what_cannot_be_played_is_refused():
    with pytest.raises(SimulationError, match="'wait' is unknown"):
        play([(0.0, [(1.0, 1.0)])], 1.0, "wait")  # pyright: ignore[reportArgumentType]
    with pytest.raises(SimulationError, match=r"0\.0 cores cannot run"):
        play([(0.0, [(1.0, 1.0)])], 0.0, "lose")
    with pytest.raises(SimulationError, match="duration_s of the tasks"):
        play([(0.0, [(-1.0, 1.0)])], 1.0, "lose")
    with pytest.raises(SimulationError, match="start_s of the tasks"):
        play([(np.nan, [(1.0, 1.0)])], 1.0, "lose")
    with pytest.raises(SimulationError, match="asked_cores of the tasks"):
        play([(0.0, [(1.0, np.inf)])], 1.0, "stretch")
