"""The replica calculator against the HPA's documented rules, worked by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.rules.replicas.calculator import Metric, Pods, Proposal, Tolerance, combine, propose
from twin.errors import UsageError

CPU = Metric("utilisation_ratio", 0.6)
TENTH = Tolerance()


def asked(
    seen: float, current: int, pods: Pods | None = None, metric: Metric = CPU, tolerance: Tolerance = TENTH
) -> int:
    proposal = propose(metric, seen, current, pods or Pods(current), tolerance)
    assert proposal is not None
    return proposal.value


@pytest.mark.parametrize(
    ("seen", "current", "wished"),
    [
        (0.90, 4, 6),  # ceil(1.5 n), as seen on a real HPA: 4 -> 6 -> 9
        (0.90, 6, 9),
        (0.90, 9, 14),
        (1.20, 4, 8),  # twice the target doubles
        (0.30, 4, 2),  # half the target halves
        (0.90, 8, 12),
        (0.31, 3, 2),  # 51 % of the target: rounded up
        (0.00, 7, 0),
    ],
)
def test_ceil_of_ratio_times_replicas(seen, current, wished):
    assert asked(seen, current) == wished


@pytest.mark.parametrize(
    ("seen", "wished"),
    [(0.66, 10), (0.67, 12), (0.54, 10), (0.53, 9), (0.6699, 10), (0.5399, 9)],
)
def test_nothing_changes_up_to_and_including_the_tolerance(seen, wished):
    """The edges 54 % and 66 % of 60 % are inside; per cents are cut off, so 66.99 % is 66 %."""
    assert asked(seen, 10) == wished


def test_a_float32_utilisation_is_read_as_the_percent_it_means():
    import numpy as np

    for percent in range(201):
        assert asked(float(np.float32(percent / 100)), 100, metric=Metric("u", 0.01), tolerance=Tolerance(0, 0)) == (
            100 * percent
        )


def test_each_direction_has_its_own_tolerance():
    tight_up = Tolerance(down=0.5, up=0.0)
    assert asked(0.61, 100, tolerance=tight_up) == 102
    assert asked(0.31, 100, tolerance=tight_up) == 100
    assert asked(0.29, 100, tolerance=tight_up) == 49


def test_the_kep_example_of_a_five_percent_tolerance():
    """Ratio 1.07 with 100 replicas: nothing at 10 %, 107 at 5 %."""
    full = Metric("utilisation_ratio", 1.0)
    assert asked(1.07, 100, metric=full) == 100
    assert asked(1.07, 100, metric=full, tolerance=Tolerance(0.1, 0.05)) == 107


@pytest.mark.parametrize(
    ("pods", "current", "seen", "wished"),
    [
        (Pods(4, unready=6), 10, 0.90, 10),  # 4 x 90 / 10 = 36 %: the direction turns
        (Pods(4, unready=2), 6, 0.90, 6),  # 4 x 90 / 6 = 60 %: on target
        (Pods(4, unready=2), 6, 1.80, 12),  # 4 x 180 / 6 = 120 %: twice
        (Pods(4, unready=6), 10, 0.30, 2),  # shrinking ignores the unready: ceil(4 x 0.5)
        (Pods(8, missing=2), 10, 0.90, 12),  # 72 %: ceil(10 x 1.2)
        (Pods(8, missing=2), 10, 0.30, 8),  # (2.4 + 2) / 10 = 44 %: ceil(10 x 0.733)
        (Pods(5, missing=5), 10, 0.45, 10),  # (2.25 + 5) / 10 = 72 %: the direction turns
        (Pods(5, missing=5), 10, 0.60, 10),  # on target: the missing do not matter
        (Pods(4, missing=1), 3, 0.40, 3),  # 52 %: ceil(5 x 0.867) = 5 would grow on a wish to shrink
        (Pods(4, missing=2, unready=2), 8, 2.40, 16),  # 120 %: both count as 0
    ],
)
def test_silent_replicas_count_against_the_direction(pods, current, seen, wished):
    assert asked(seen, current, pods) == wished


def test_missing_replicas_count_as_the_target_when_it_exceeds_the_request():
    """Target 150 %: (8 x 30 % + 2 x 150 %) / 10 = 54 %, ceil(10 x 0.36) = 4; with 100 % it would be 3."""
    assert asked(0.30, 10, Pods(8, missing=2), Metric("u", 1.5)) == 4


def test_a_total_is_shared_out():
    demand = Metric("demand_rps", 50.0, "AverageValue")
    assert asked(500.0, 4, metric=demand) == 10
    assert asked(501.0, 4, metric=demand) == 11
    assert asked(540.0, 10, metric=demand) == 10  # within tolerance of 10 x 50
    assert asked(120.0, 0, metric=demand) == 3


def test_a_level_is_kept():
    latency = Metric("latency_p95_s", 0.2, "Value")
    assert asked(0.4, 4, metric=latency) == 8
    assert asked(0.21, 4, metric=latency) == 4
    assert asked(0.4, 6, Pods(3, missing=1, unready=2), latency) == 8  # the 4 ready ones
    assert asked(0.5, 0, metric=latency) == 3


def test_unknown_is_not_zero():
    assert propose(CPU, float("nan"), 4, Pods(4), TENTH) is None
    assert propose(CPU, 0.5, 4, Pods(0, missing=4), TENTH) is None
    assert propose(Metric("demand_rps", 1.0, "AverageValue"), float("inf"), 4, Pods(4), TENTH) is None


def test_the_largest_proposal_wins_and_says_so():
    metrics = [CPU, Metric("demand_rps", 50.0, "AverageValue")]
    chosen = combine(4, metrics, [Proposal(5, "five"), Proposal(7, "seven")])
    assert chosen is not None
    assert chosen.value == 7
    assert chosen.reason == "seven by demand_rps, the largest of 2 proposals"


def test_with_a_metric_missing_the_largest_may_grow_but_not_shrink():
    metrics = [CPU, Metric("demand_rps", 50.0, "AverageValue")]
    assert combine(4, metrics, [None, Proposal(3, "")]) is None
    assert combine(4, metrics, [None, None]) is None
    grown = combine(4, metrics, [None, Proposal(6, "")])
    assert grown is not None
    assert grown.value == 6


def test_the_sentence_shows_the_arithmetic():
    said = propose(CPU, 0.9, 8, Pods(8), TENTH)
    assert said is not None
    assert said.reason == "12 = ceil(8 x 0.90/0.60)"
    refilled = propose(CPU, 0.3, 10, Pods(8, missing=2), TENTH)
    assert refilled is not None
    assert refilled.reason == "8 = ceil(10 x 0.44/0.60), 2 missing counted as 1.00"
    kept = propose(CPU, 0.61, 10, Pods(10), TENTH)
    assert kept is not None
    assert kept.reason == "10 kept: 0.61/0.60 is within -0.1/+0.1 of 1"


def test_a_target_must_be_positive_and_of_a_known_kind():
    for target in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="target"):
            Metric("utilisation_ratio", target)
    with pytest.raises(UsageError, match="AverageValue"):
        Metric("utilisation_ratio", 0.5, "average")  # type: ignore[arg-type]


pods_strategy = st.builds(Pods, st.integers(1, 60), st.integers(0, 20), st.integers(0, 20))


@given(pods=pods_strategy, low=st.floats(0, 3), high=st.floats(0, 3), target=st.floats(0.05, 1.5))
def test_more_load_never_asks_for_fewer_replicas(pods, low, high, target):
    low, high = sorted((low, high))
    current = pods.measured + pods.missing + pods.unready
    metric = Metric("utilisation_ratio", target)
    assert asked(low, current, pods, metric) <= asked(high, current, pods, metric)


@given(measured=st.integers(1, 60), missing=st.integers(1, 20), used=st.floats(0, 3), target=st.floats(0.05, 1.5))
def test_a_missing_replica_never_makes_the_change_larger(measured, missing, used, target):
    """Compared with all of them reporting the same, silence moves less in either direction."""
    current = measured + missing
    metric = Metric("utilisation_ratio", target)
    whole = asked(used, current, Pods(current), metric)
    partly = asked(used, current, Pods(measured, missing), metric)
    assert min(whole, current) <= partly <= max(whole, current)
