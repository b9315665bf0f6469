"""The decaying histogram, on the worked numbers of the Vertical Pod Autoscaler's own tests."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.rules.pods.histogram import Buckets, DecayingHistogram, exponential, linear
from twin.errors import UsageError

HOUR_S = 3600.0
TINY = 1e-15
START_S = 1_234_567_890.0


def histogram(buckets: Buckets | None = None, half_life_s: float = HOUR_S, epsilon: float = TINY) -> DecayingHistogram:
    return DecayingHistogram(buckets or linear(10.0, 1.0), half_life_s, epsilon)


def test_an_empty_histogram_says_zero_for_any_percentile():
    assert [histogram().percentile(share) for share in (-0.5, 0.0, 0.5, 1.0, 1.5)] == [0.0] * 5


@pytest.mark.parametrize("half_life_s", [HOUR_S, math.inf])
def test_percentiles_of_1_2_3_4_weighing_1_2_3_4(half_life_s):
    """Without time passing, decay changes nothing; a percentile is the end of its bucket."""
    held = histogram(half_life_s=half_life_s)
    for value in (1, 2, 3, 4):
        held.add(value, value, START_S)
    assert [held.percentile(p / 10) for p in range(11)] == [2, 2, 3, 3, 4, 4, 4, 5, 5, 5, 5]


def test_percentiles_beyond_0_and_1_are_the_ends():
    held = histogram(linear(1.0, 0.1), math.inf)
    held.add(0.1, 0.1, 0.0)
    held.add(0.2, 0.2, 0.0)
    assert held.percentile(-0.1) == pytest.approx(0.2, rel=1e-15)
    assert held.percentile(1.1) == pytest.approx(0.3, rel=1e-15)
    held.add(0.0, 0.1, 0.0)
    held.add(1.0, 0.2, 0.0)
    assert held.percentile(-0.1) == pytest.approx(0.1, rel=1e-15)
    assert held.percentile(1.1) == pytest.approx(1.0, rel=1e-15)


def test_a_heavy_sample_is_almost_forgotten_after_20_half_lives():
    held = histogram()
    held.add(2, 1000, START_S)
    held.add(1, 1, START_S + 20 * HOUR_S)
    assert (held.percentile(0.999), held.percentile(1.0)) == (2, 3)


def test_past_100_half_lives_the_reference_moves_and_the_old_is_gone():
    held = histogram()
    held.add(2, 1, START_S)
    held.add(1, 1, START_S + 101 * HOUR_S)
    assert held.percentile(1.0) == 2
    assert held.total < 4


def test_four_samples_an_hour_apart():
    """Weights 1/8, 2/4, 3/2 and 4: the percentiles change at 2 %, 10 % and 34 %."""
    held = histogram()
    for value in (1, 2, 3, 4):
        held.add(value, value, START_S + value * HOUR_S)
    shares = (0.0, 0.02, 0.03, 0.10, 0.11, 0.34, 0.35, 1.0)
    assert [held.percentile(share) for share in shares] == [2, 2, 3, 3, 4, 4, 5, 5]


def test_a_bucket_lighter_than_epsilon_is_empty():
    held = histogram(linear(1.0, 0.1), math.inf)
    held.add(0.1, 2.5 * TINY, 0.0)
    assert not held.empty
    held.subtract(0.1, TINY, 0.0)
    assert not held.empty
    held.subtract(0.1, TINY, 0.0)
    assert held.empty
    assert held.total == pytest.approx(0.0, abs=TINY)


def test_a_light_sample_does_not_empty_a_histogram():
    held = histogram(linear(1.0, 0.1), math.inf)
    for value, weight in ((9.9, 3.0), (0.1, 0.3), (999.9, 0.3)):
        held.add(value, weight * TINY, 0.0)
        assert not held.empty


def test_the_buckets_of_cpu_and_memory():
    """10 millicores and 10 MB, each bucket 5 % wider: 176 buckets up to 1000 cores, and to 1 TB."""
    cpu, memory = exponential(1000.0, 0.01, 1.05), exponential(1e12, 1e7, 1.05)
    assert (cpu.count, memory.count) == (176, 176)
    assert (cpu.start(0), cpu.start(1)) == (0.0, pytest.approx(0.01))
    assert cpu.start(2) == pytest.approx(0.0205)
    assert cpu.start(cpu.count - 1) >= 1000.0 > cpu.start(cpu.count - 2)
    assert memory.find(5e12) == memory.count - 1


@given(value=st.floats(0.0, 990.0))
def test_a_value_lies_in_its_bucket(value):
    buckets = exponential(1000.0, 0.01, 1.05)
    bucket = buckets.find(value)
    hair = 1 + 1e-9
    assert buckets.start(bucket) <= value * hair
    assert value <= buckets.start(bucket + 1) * hair


samples = st.lists(st.tuples(st.floats(0.0, 900.0), st.floats(0.1, 64.0), st.integers(0, 200)), min_size=1, max_size=30)


@settings(max_examples=50, deadline=None)
@given(samples, st.floats(0.0, 1.0))
def test_percentiles_bound_the_weighted_share(drawn, share):
    """At least the share of the decayed weight lies below the percentile, and it rises with the share."""
    held = histogram(exponential(1000.0, 0.01, 1.05), 24 * HOUR_S, 1e-4)
    for value, weight, hour in sorted(drawn, key=lambda sample: sample[2]):
        held.add(value, weight, hour * HOUR_S)
    bound = held.percentile(share)
    decayed = [(value, weight * 2 ** (hour / 24)) for value, weight, hour in drawn]
    below = sum(weight for value, weight in decayed if value <= bound * (1 + 1e-9))
    assert below >= share * sum(weight for _, weight in decayed) * (1 - 1e-9)
    assert bound <= held.percentile(1.0)


@settings(max_examples=50, deadline=None)
@given(samples)
def test_taking_back_undoes_adding(drawn):
    held = histogram(exponential(1000.0, 0.01, 1.05), 24 * HOUR_S, 1e-4)
    held.add(5.0, 1.0, 0.0)
    before = held.percentile(1.0)
    for value, weight, hour in drawn:
        held.add(value, weight, hour * HOUR_S)
    for value, weight, hour in reversed(drawn):
        held.subtract(value, weight, hour * HOUR_S)
    assert held.percentile(1.0) in (before, 0.0)  # less than epsilon left over counts as nothing


@pytest.mark.parametrize(
    "make",
    [
        lambda: Buckets(0.0, 1.05, 10),
        lambda: Buckets(0.1, 0.9, 10),
        lambda: histogram(half_life_s=0.0),
        lambda: histogram(epsilon=0.0),
    ],
)
def test_nonsense_is_refused(make):
    with pytest.raises(UsageError):
        make()
