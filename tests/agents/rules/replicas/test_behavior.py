"""Stabilisation and rates against the worked examples of KEP-853."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.rules.replicas.behavior import DEFAULT, Behavior, Policy, ScalingRules, rate_bound, settle, stabilise
from agents.rules.replicas.calculator import Proposal
from twin.errors import UsageError

FAR = (0, 10_000)


def settled(value: int, current: int, *, time_s=0.0, changes=(), behavior=DEFAULT, past=(), bounds=FAR) -> Proposal:
    return settle(Proposal(value, "wished"), current, time_s, past, changes, behavior, bounds)


def test_shrinking_follows_the_highest_recommendation_of_its_window():
    """Story 5: one recommendation a minute, a window of ten; the old 10 holds, and releases to 9 when it has aged."""
    slow = Behavior(down=ScalingRules((Policy("Pods", 5, 60),), stabilisation_s=600))
    recommended = [10, 9, 8, 9, 9, 8, 9, 8, 9, 8, 7]
    past: list[tuple[float, int]] = []
    replicas = []
    for minute, value in enumerate(recommended):
        replicas.append(stabilise(Proposal(value, ""), 10, 60.0 * minute, past, slow).value)
        past.append((60.0 * minute, value))
    assert replicas == [10] * 10 + [9]


def test_growing_follows_the_lowest_recommendation_of_its_window():
    """Story 6: with 300 s of patience a spike does not grow; when the 2 has aged, the 3 counts."""
    patient = Behavior(up=ScalingRules((Policy("Pods", 20, 60),), stabilisation_s=300))
    past: list[tuple[float, int]] = []
    replicas = []
    for minute, value in enumerate([2, 3, 19, 10, 3, 4, 7]):
        replicas.append(stabilise(Proposal(value, ""), 2, 60.0 * minute, past, patient).value)
        past.append((60.0 * minute, value))
    assert replicas == [2, 2, 2, 2, 2, 3, 3]


def test_the_default_grows_at_once_and_shrinks_after_300_s():
    past = [(0.0, 10)]
    assert settled(20, 10, time_s=15, past=past).value == 20
    assert settled(5, 10, time_s=299, past=past).value == 10
    assert settled(5, 10, time_s=300, past=past).value == 5


def test_a_held_number_says_which_recommendation_holds_it():
    assert settled(5, 10, time_s=15, past=[(0.0, 10)]).reason == (
        "wished; held at 10: highest recommendation of the last 300 s"
    )


@pytest.mark.parametrize(("current", "most"), [(1, 5), (3, 7), (4, 8), (5, 10), (50, 100)])
def test_the_default_doubles_or_adds_four_whichever_is_more(current, most):
    assert settled(1000, current).value == most


def test_story_1_nine_hundred_percent_a_minute():
    """1 -> 10 -> 100 -> 1000, one step a minute."""
    fast = Behavior(up=ScalingRules((Policy("Percent", 900, 60),)))
    replicas, changes = [1], []
    for minute in range(3):
        value = settled(5000, replicas[-1], time_s=60.0 * minute, changes=changes, behavior=fast).value
        changes.append((60.0 * minute, value - replicas[-1]))
        replicas.append(value)
    assert replicas == [1, 10, 100, 1000]


def test_a_rate_counts_from_the_replicas_at_the_periods_start():
    """+4 pods a minute: one step of 4, then none until the minute is over."""
    rules = ScalingRules((Policy("Pods", 4, 60),))
    changes = [(0.0, 4)]
    assert [rate_bound(5, t, changes, rules, up=True)[0] for t in (15.0, 30.0, 59.9, 60.0)] == [5, 5, 5, 9]


def test_what_was_removed_in_the_period_may_come_back():
    """Started the period with 10, now 6: +4 pods allow 14."""
    assert rate_bound(6, 30, [(0.0, -4)], ScalingRules((Policy("Pods", 4, 60),)), up=True)[0] == 14


def test_an_exceeded_rate_holds_and_does_not_push_back():
    rules = ScalingRules((Policy("Pods", 4, 60),))
    assert rate_bound(12, 30, [(0.0, 8)], rules, up=True)[0] == 12
    assert rate_bound(2, 30, [(0.0, -8)], rules, up=False)[0] == 2


def test_percent_growth_is_rounded_up_and_percent_shrink_cut_off():
    ten = ScalingRules((Policy("Percent", 10, 60),))
    assert rate_bound(1, 0, (), ten, up=True)[0] == 2
    assert rate_bound(11, 0, (), ten, up=True)[0] == 13  # 12.1
    assert rate_bound(11, 0, (), ten, up=False)[0] == 9  # 9.9
    assert rate_bound(1, 0, (), ten, up=False)[0] == 0


@pytest.mark.parametrize(("select", "up", "down"), [("Max", 20, 5), ("Min", 14, 6), ("Disabled", 10, 10)])
def test_select_takes_the_largest_change_the_smallest_or_none(select, up, down):
    up_rules = ScalingRules((Policy("Percent", 100, 60), Policy("Pods", 4, 60)), select=select)
    down_rules = ScalingRules((Policy("Percent", 50, 60), Policy("Pods", 4, 60)), select=select)
    both = Behavior(up_rules, down_rules)
    assert settled(1000, 10, behavior=both).value == up
    assert settled(0, 10, behavior=both).value == down


def test_a_limit_says_which_policy_or_bound_it_was():
    assert settled(1000, 1).reason == "wished; rate limit: +4 pods per 15 s"
    assert settled(1000, 10).reason == "wished; rate limit: +100 % per 15 s"
    assert settled(1000, 10, bounds=(1, 12)).reason == "wished; at most 12 replicas"
    assert settled(0, 10, bounds=(3, 12)).reason == "wished; at least 3 replicas"
    off = Behavior(down=ScalingRules((Policy("Percent", 100),), select="Disabled"))
    assert settled(0, 10, behavior=off).reason == "wished; scaling down is disabled"


@pytest.mark.parametrize(
    "build",
    [
        lambda: Policy("Pods", 0),
        lambda: Policy("Pods", 4, 0.0),
        lambda: Policy("Pods", 4, 1801.0),
        lambda: Policy("pods", 4),  # type: ignore[arg-type]
        lambda: ScalingRules(()),
        lambda: ScalingRules((Policy("Pods", 4),), stabilisation_s=3601),
        lambda: ScalingRules((Policy("Pods", 4),), tolerance=-0.1),
        lambda: ScalingRules((Policy("Pods", 4),), select="Most"),  # type: ignore[arg-type]
    ],
)
def test_what_kubernetes_refuses_is_refused(build):
    with pytest.raises(UsageError):
        build()


timed = st.lists(st.tuples(st.floats(0, 600), st.integers(0, 60)), max_size=12)
moved = st.lists(st.tuples(st.floats(0, 600), st.integers(-20, 20)), max_size=6)
policies = st.lists(
    st.builds(Policy, st.sampled_from(["Pods", "Percent"]), st.integers(1, 200), st.floats(15, 600)),
    min_size=1,
    max_size=3,
)
rules = st.builds(ScalingRules, policies, st.floats(0, 600), st.sampled_from(["Max", "Min", "Disabled"]))


@given(
    value=st.integers(0, 200),
    current=st.integers(1, 60),
    time_s=st.floats(0, 900),
    past=timed,
    changes=moved,
    behavior=st.builds(Behavior, rules, rules),
)
def test_the_result_lies_within_the_bounds_and_between_now_and_some_recommendation(
    value, current, time_s, past, changes, behavior
):
    got = settle(Proposal(value, ""), current, time_s, past, changes, behavior, (1, 60)).value
    assert 1 <= got <= 60
    wished = [current, value, *(v for _, v in past)]
    assert min(max(min(wished), 1), current) <= got <= max(wished)


@given(low=st.integers(0, 200), high=st.integers(0, 200), current=st.integers(1, 60), past=timed, changes=moved)
def test_a_higher_proposal_never_gets_fewer_replicas(low, high, current, past, changes):
    low, high = sorted((low, high))
    assert (
        settled(low, current, time_s=600, past=past, changes=changes, bounds=(1, 60)).value
        <= settled(high, current, time_s=600, past=past, changes=changes, bounds=(1, 60)).value
    )


@given(
    value=st.integers(0, 60),
    current=st.integers(0, 60),
    time_s=st.floats(0, 900),
    past=timed,
    behavior=st.builds(Behavior, rules, rules),
)
def test_stabilising_keeps_now_between_the_lowest_and_the_highest_of_the_windows(
    value, current, time_s, past, behavior
):
    """What the rule says, word for word: min(max(now, lowest of the up-window), highest of the down-window)."""
    lowest = min([value, *(v for t, v in past if t > time_s - behavior.up.stabilisation_s)])
    highest = max([value, *(v for t, v in past if t > time_s - behavior.down.stabilisation_s)])
    held = min(max(current, lowest), highest)
    got = stabilise(Proposal(value, "wished"), current, time_s, past, behavior)
    assert got.value == held
    assert (got.reason == "wished") == (held == value)


def test_a_behaviour_remembers_as_long_as_its_longest_window_and_period():
    up = ScalingRules((Policy("Pods", 4, 60), Policy("Percent", 10, 120)), stabilisation_s=30, tolerance=0.2)
    down = ScalingRules((Policy("Pods", 4, 90),), stabilisation_s=600, tolerance=0.3)
    both = Behavior(up, down)
    assert (both.window_s, both.period_s) == (600, 120)
    assert (both.tolerance.up, both.tolerance.down) == (0.2, 0.3)
