"""What was learned of a season, what becomes of it, and what happens before and without it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.rules.replicas.seasonal import Seasonal, Seasons
from twin.errors import UsageError
from twin.types import Controller, Observation

NAN = float("nan")
PERIOD = 24  # steps of a season in these tests


def look(step: int, wanted=10.0, now=NAN, quarter=NAN) -> Observation:
    """As seen at the end of `step`."""
    seen = {"cell.wanted_replicas": wanted, "cell.demand_rps": now, "cell.demand_15m_rps": quarter}
    return Observation(60.0 * (step + 1), tuple(seen), np.array(list(seen.values()), dtype=np.float32))


def seasonal(**changes) -> Seasonal:
    """A replica serves 10 requests/s as wished; what is asked for now is ready in 3 steps."""
    sizes = {"replica_rps": 20.0, "target_utilisation": 0.5, "min_replicas": 1, "max_replicas": 500}
    times = {"lead_s": 180.0, "season_s": 60.0 * PERIOD, "seasons": 3, "patience_s": 0.0}
    return Seasonal(**{"service": "cell", **sizes, **times, **changes})


def drive(controller: Seasonal, rates, first: int = 0, start: int = 10) -> list[int]:
    replicas = [start]
    for step, rate in enumerate(rates, first):
        replicas.append(controller.decide(look(step, replicas[-1], rate, rate))[0].value)
    return replicas[1:]


def day(step: int) -> float:
    """100 requests/s, but 400 in steps 12 to 15 of each season."""
    return 400.0 if 12 <= step % PERIOD < 16 else 100.0


# ---------------------------------------------------------------- what is remembered


def test_the_season_before_is_expected():
    seasons = Seasons(4, 2)
    for step, rate in enumerate([1.0, 2.0, 3.0, 4.0, 5.0]):
        seasons.note(step, rate)
    assert seasons.expected(np.array([5, 6, 7, 8])).tolist() == [2.0, 3.0, 4.0, 5.0]


def test_a_step_told_twice_counts_with_its_mean():
    seasons = Seasons(2, 2)
    for step, rate in [(0, 1.0), (0, 3.0), (1, 5.0), (2, 4.0), (2, 8.0)]:
        seasons.note(step, rate)
    assert seasons.expected(np.array([3, 4])).tolist() == [5.0, 6.0]
    assert seasons.error(1.0) == (4.0, 1)  # 6 where 2 was expected


def test_a_gap_is_bridged_by_the_season_before_it():
    seasons = Seasons(4, 3)
    for step in (0, 1, 2, 3, 4, 7):
        seasons.note(step, float(step))
    assert seasons.expected(np.array([8, 9, 10, 11])).tolist() == [4.0, 1.0, 2.0, 7.0]


def test_what_is_older_than_the_memory_is_forgotten():
    seasons = Seasons(2, 2)
    for step in (0, 1, 5):
        seasons.note(step, 1.0)
    assert np.isnan(seasons.expected(np.array([6]))).all()
    assert seasons.expected(np.array([7])).tolist() == [1.0]
    assert seasons.seen == 6


@settings(max_examples=60)
@given(
    rates=st.lists(st.one_of(st.just(NAN), st.floats(0, 1e4)), min_size=1, max_size=40),
    period=st.integers(1, 6),
    number=st.integers(1, 3),
)
def test_the_ring_remembers_what_a_plain_list_would(rates, period, number):
    seasons, errors = Seasons(period, number), []
    told: dict[int, float] = {}

    def before(step: int, last: int) -> float:
        ago = [step - back * period for back in range(1, number + 1)]
        return next((told[s] for s in ago if s in told and s > last - period * number), NAN)

    last = -1
    for step, rate in enumerate(rates):
        if math.isnan(rate):
            continue
        errors.append((step, rate - before(step, last)))
        seasons.note(step, rate)
        told[step], last = rate, step
    known = [e for s, e in errors if not math.isnan(e) and s > last - period * number]
    assert seasons.error(0.5) == ((pytest.approx(np.median(known)), len(known)) if known else (0.0, 0))
    ahead = np.arange(last + 1, last + 1 + period)
    expected = [before(int(step), last) for step in ahead]
    assert np.array_equal(seasons.expected(ahead), np.array(expected), equal_nan=True)


# ---------------------------------------------------------------- what becomes of it


def test_the_first_season_only_reacts_and_says_so():
    controller = seasonal()
    assert drive(controller, [day(step) for step in range(PERIOD)]) == [10] * 12 + [40] * 4 + [10] * 8
    fresh = seasonal().decide(look(0, 10, 90.0, 120.0))[0]
    assert fresh.reason == (
        "12 = ceil(120/(20 x 0.5)): demand now or over 15 min, for only 1 of the 24 steps of a first season seen"
    )


def test_then_replicas_are_wished_before_they_are_needed():
    """The rise of step 12 is answered at the end of step 8, 180 s before step 12 begins."""
    controller = seasonal()
    drive(controller, [day(step) for step in range(PERIOD)])
    second = drive(controller, [day(step) for step in range(PERIOD, 2 * PERIOD)], first=PERIOD)
    assert second == [10] * 8 + [40] * 8 + [10] * 8
    assert all(value >= day(step) / 10.0 for step, value in enumerate(second))


def test_the_quantile_of_past_errors_is_added():
    controller = seasonal(quantile=1.0)
    drive(controller, [100.0] * PERIOD + [130.0])
    (action,) = controller.decide(look(PERIOD + 1, 10, 100.0, 100.0))
    assert action.value == 13
    assert action.reason == ("13 = ceil(130/(20 x 0.5)): 100 a season ago within 180 s +30, the 1 quantile of 2 errors")


def test_never_below_what_demand_needs_now():
    controller = seasonal(quantile=0.5)
    drive(controller, [100.0] * (PERIOD + 6))
    (action,) = controller.decide(look(PERIOD + 6, 10, 250.0, 120.0))
    assert (action.value, action.reason) == (
        25,
        "25 = ceil(250/(20 x 0.5)): demand now, above the 100 expected within 180 s",
    )


def test_unknown_demand_grows_by_the_forecast_and_never_shrinks():
    controller = seasonal()
    drive(controller, [day(step) for step in range(PERIOD)])
    blind = drive(controller, [NAN] * PERIOD, first=PERIOD)
    assert blind == [10] * 8 + [40] * 16
    assert seasonal().decide(look(0))[0].reason == "held at 10: demand_rps and demand_15m_rps unknown"


def test_a_season_with_a_hole_falls_back_to_demand_now():
    controller = seasonal(seasons=1)
    drive(controller, [100.0] * 10 + [NAN] * 10 + [100.0] * 4)
    drive(controller, [100.0] * 10, first=PERIOD)
    (action,) = controller.decide(look(PERIOD + 10, 10, 90.0, 100.0))
    assert action.value == 10
    assert action.reason.endswith("for no season knows the coming 180 s")


def test_it_is_patient_and_bounded_as_told():
    controller = seasonal(patience_s=300.0, max_replicas=30)
    assert drive(controller, [400.0] + [100.0] * 6, start=10) == [30, 30, 30, 30, 30, 10, 10]


def test_reset_forgets_the_season():
    controller = seasonal()
    assert isinstance(controller, Controller)
    drive(controller, [100.0] * (PERIOD + 2))
    controller.reset()
    assert "only 1 of the 24 steps" in controller.decide(look(PERIOD + 2, 10, 100.0, 100.0))[0].reason


def test_asked_more_often_than_it_remembers_it_takes_means():
    """Four observations a step, 15 s apart."""
    controller = seasonal(interval_s=15.0)
    for quarter in range(4 * PERIOD):
        seen = look(0, 10, 80.0 if quarter % 2 else 120.0, 100.0)
        controller.decide(Observation(15.0 * (quarter + 1), seen.columns, seen.values))
    (action,) = controller.decide(look(PERIOD, 10, 100.0, 100.0))
    assert action.reason.endswith("100 a season ago within 180 s +0, the 0.9 quantile of 1 errors")


@settings(max_examples=40, deadline=None)
@given(
    rates=st.lists(st.one_of(st.just(NAN), st.floats(0, 4000)), min_size=1, max_size=4 * PERIOD),
    quantile=st.floats(0, 1),
)
def test_the_wish_covers_demand_now_whatever_was_learned(rates, quantile):
    controller, current = seasonal(quantile=quantile), 10
    for step, rate in enumerate(rates):
        (action,) = controller.decide(look(step, current, rate, rate))
        assert 1 <= action.value <= 500
        assert action.value * 10.0 >= rate * (1 - 1e-6) if rate == rate else action.value >= current
        current = action.value


@pytest.mark.parametrize(
    "wrong",
    [{"season_s": 100.0}, {"step_s": 0.0}, {"seasons": 0}, {"lead_s": 9999.0}, {"quantile": 1.1}, {"replica_rps": 0.0},
     {"target_utilisation": 0.0}, {"min_replicas": 600}],
)  # fmt: skip
def test_nonsense_is_refused(wrong):
    with pytest.raises(UsageError):
        seasonal(**wrong)
