"""Target tracking and step scaling against the worked examples of the AWS guides."""

from pathlib import Path

import hydra
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from agents.rules.replicas.aws_alarms import Alarm, alarm_state, called
from agents.rules.replicas.aws_steps import Aggregation, Step, StepPolicy, StepScaling, change_of, rounded
from agents.rules.replicas.aws_target import Target, TargetTracking, proportional
from twin.errors import UsageError
from twin.types import Action, Controller, Observation

CONF = Path(__file__).parents[4] / "conf" / "controller"
NAN = float("nan")
CPU = "cell.utilisation_ratio"


def points(drawn: str) -> list[float]:
    """Datapoints as the guide draws them, the newest on the right: 0 within, X beyond, - missing."""
    return [{"0": 0.0, "X": 1.0, "-": NAN}[mark] for mark in drawn.split()]


def drive(controller, observe, used, *, start: int, step_s: float = 60.0, begin_s: float = 0.0) -> list[int]:
    """The capacity over time when every wish comes true at once."""
    capacity = [start]
    for step, seen in enumerate(used):
        (action,) = controller.decide(observe(begin_s + step * step_s, capacity[-1], seen))
        capacity.append(action.value)
    return capacity


def last(controller, seen: list[Observation]) -> Action:
    """The last action of a sequence of observations."""
    return [controller.decide(each)[0] for each in seen][-1]


# ---------------------------------------------------------------- alarms


@pytest.mark.parametrize(
    ("drawn", "needed", "state"),
    [
        ("0 - X - X", 3, "OK"),
        ("0 - - - -", 3, "OK"),
        ("- - - - -", 3, "INSUFFICIENT_DATA"),
        ("0 X X - X", 3, "ALARM"),
        ("- - - - X", 3, "INSUFFICIENT_DATA"),
        ("X - - - -", 3, "ALARM"),
        ("- - X - -", 3, "ALARM"),
        ("0 - X - X", 2, "ALARM"),
        ("0 0 X 0 X", 2, "ALARM"),
        ("0 - X - -", 2, "OK"),
        ("- - - - 0", 2, "OK"),
        ("- - - - X", 2, "INSUFFICIENT_DATA"),
        ("- - - X -", 2, "ALARM"),
    ],
)
def test_an_alarm_with_missing_data_as_in_the_tables_of_the_guide(drawn, needed, state):
    assert alarm_state(Alarm(">", 0.5, 3, needed), points(drawn)) == state


def test_an_alarm_forgets_what_is_older_than_its_range():
    assert alarm_state(Alarm(">", 0.5, 3), points("X X X - - - - -")) == "INSUFFICIENT_DATA"
    assert alarm_state(Alarm(">", 0.5, 3), points("X X X 0 0 X")) == "OK"


def test_a_policy_does_nothing_in_a_gap_although_its_alarm_stays_on():
    assert alarm_state(Alarm(">", 0.5, 3), points("X X X -")) == "ALARM"
    assert called(Alarm(">", 0.5, 3), points("X X X -")) == "INSUFFICIENT_DATA"
    assert called(Alarm(">", 0.5, 3), points("X X X - X")) == "ALARM"
    assert called(Alarm(">", 0.5, 3), []) == "INSUFFICIENT_DATA"


def test_the_comparison_says_whether_the_threshold_itself_breaches():
    assert [Alarm(sign, 0.5, 1).breached(0.5) for sign in (">", ">=", "<", "<=")] == [False, True, False, True]
    assert [Alarm(sign, 0.5, 1).breached(0.6) for sign in (">", ">=", "<", "<=")] == [True, True, False, False]


# ---------------------------------------------------------------- target tracking


def tracking(**changes) -> TargetTracking:
    return TargetTracking(
        **{"target": "cell", "policies": [Target(CPU, 0.5)], "min_capacity": 1, "max_capacity": 100, **changes}
    )


def test_one_and_a_half_too_few_adds_two_and_one_and_a_half_too_many_removes_one():
    """The guide's example with a target of 50 %."""
    assert proportional(5, 0.65, 0.5) == 7
    assert proportional(5, 0.35, 0.5) == 4


def test_three_points_above_the_target_grow_in_proportion(observe):
    assert drive(tracking(), observe, [0.75, 0.75, 0.75], start=10) == [10, 10, 10, 15]


def test_one_point_at_the_target_resets_the_count(observe):
    assert drive(tracking(), observe, [0.75, 0.75, 0.5, 0.75, 0.75, 0.9], start=10) == [10] * 6 + [18]


def test_fifteen_points_below_nine_tenths_of_the_target_shrink(observe):
    assert drive(tracking(), observe, [0.3] * 15, start=10) == [10] * 15 + [6]
    assert drive(tracking(), observe, [0.46] * 40, start=10) == [10] * 41  # below the target, but not far enough


def test_a_float32_on_the_target_is_not_above_it(observe):
    """0.6 arrives as 0.60000002."""
    assert drive(tracking(policies=[Target(CPU, 0.6)]), observe, [0.6] * 5, start=10) == [10] * 6


def test_what_warms_up_is_not_counted_so_one_surge_is_answered_once(observe):
    """ceil(10 x 0.75/0.5) = 15 stays 15 while the 5 warm up; a higher metric adds only what is missing to it."""
    got = drive(tracking(), observe, [0.75, 0.75, 0.75, 0.75, 0.75, 0.9], start=10)
    assert got == [10, 10, 10, 15, 15, 15, 18]


def test_after_the_cooldown_the_added_capacity_counts(observe):
    steady = [0.75] * 9
    assert drive(tracking(scale_out_cooldown_s=300), observe, steady, start=10) == [10, 10, 10, *[15] * 5, 23, 23]


def test_growing_is_not_blocked_by_the_cooldown_of_shrinking_and_ends_it(observe):
    used = [*[0.3] * 15, 0.9, 0.9, 0.9]
    assert drive(tracking(), observe, used, start=10) == [*[10] * 15, 6, 6, 6, 11]


def test_shrinking_waits_for_its_cooldown(observe):
    got = drive(tracking(scale_in_cooldown_s=300), observe, [0.3] * 21, start=10)
    assert got == [*[10] * 15, *[6] * 5, 4, 4]


def test_shrinking_waits_for_what_is_warming_up(observe):
    controller = tracking(policies=[Target(CPU, 0.5, in_periods=2)])
    got = drive(controller, observe, [0.9, 0.9, 0.9, 0.1, 0.1, 0.1, 0.1, 0.1], start=10)
    assert got == [10, 10, 10, *[18] * 5, 4]


def test_a_policy_may_be_told_not_to_shrink(observe):
    out_only = tracking(policies=[Target(CPU, 0.5, scale_in=False)])
    assert drive(out_only, observe, [0.1] * 30, start=10) == [10] * 31
    (action,) = out_only.decide(observe(1800.0, 10, 0.1))
    assert action.reason == "10 kept: cell.utilisation_ratio is low, but may not shrink it"


def test_insufficient_data_does_nothing_and_says_so(observe):
    controller = tracking()
    assert drive(controller, observe, [NAN] * 20, start=10) == [10] * 21
    (action,) = controller.decide(observe(1200.0, 10, NAN))
    assert action.reason == "10 kept: cell.utilisation_ratio unknown, insufficient data"


def test_any_policy_may_grow_but_all_must_agree_to_shrink(observe):
    both = tracking(policies=[Target(CPU, 0.5), Target("cell.demand_rps", 50.0, per_unit=True)])
    for minute in range(20):
        (action,) = both.decide(observe(60.0 * minute, 10, 0.1, demand_rps=500.0))
        assert action.value == 10
    action = last(both, [observe(60.0 * minute, 10, 0.1, demand_rps=1000.0) for minute in range(20, 23)])
    assert action.value == 20
    assert action.reason == (
        "20 = ceil(10 x 100/50) by cell.demand_rps: 3 of 3 points > 50"  # 1000 shared by 10
    )


def test_the_smallest_reduction_wins(observe):
    both = tracking(policies=[Target(CPU, 0.5), Target("cell.demand_rps", 50.0, per_unit=True)])
    assert last(both, [observe(60.0 * minute, 10, 0.1, demand_rps=300.0) for minute in range(15)]).value == 6


def test_it_also_sizes_the_nodes_of_a_pool():
    columns = ("workers.wanted_nodes", "workers.ready_nodes", CPU)
    controller = tracking(target="workers", kind="nodes")
    seen = np.array([4, 4, 0.9], dtype=np.float32)
    action = last(controller, [Observation(60.0 * minute, columns, seen) for minute in range(3)])
    assert (action.kind, action.target, action.value) == ("nodes", "workers", 8)


def test_the_bounds_hold_and_are_named(observe):
    tight = tracking(max_capacity=12)
    action = last(tight, [observe(60.0 * minute, 10, 0.9) for minute in range(3)])
    assert (action.value, action.reason) == (
        12,
        "18 = ceil(10 x 0.9/0.5) by cell.utilisation_ratio: 3 of 3 points > 0.5; at most 12",
    )
    assert tight.decide(observe(300.0, 40, 0.5))[0].value == 12


def test_an_unknown_wish_keeps_the_last_one_and_none_before_that(observe):
    controller = tracking()
    assert controller.decide(observe(0.0, NAN, 0.5)) == []
    controller.decide(observe(60.0, 7, 0.5))
    assert controller.decide(observe(120.0, NAN, 0.5))[0].value == 7


def test_reset_forgets_points_and_cooldowns(observe):
    controller = tracking()
    drive(controller, observe, [0.9] * 4, start=10)
    controller.reset()
    assert drive(controller, observe, [0.75, 0.75, 0.75], start=10, begin_s=600.0) == [10, 10, 10, 15]


# ---------------------------------------------------------------- step scaling

PERCENT = "PercentChangeInCapacity"
OUT = StepPolicy(CPU, Alarm(">=", 0.5, 1), [Step(0, 0.0, 0.1), Step(10, 0.1, 0.2), Step(30, 0.2, None)], PERCENT)
IN = StepPolicy(CPU, Alarm("<=", 0.5, 1), [Step(0, -0.1, 0.0), Step(-10, -0.2, -0.1), Step(-30, None, -0.2)], PERCENT)


def stepping(**changes) -> StepScaling:
    return StepScaling(
        **{"target": "cell", "policies": [OUT, IN], "min_capacity": 1, "max_capacity": 100, "cooldown_s": 0, **changes}
    )


def test_the_guides_example_10_11_14_13_10(observe):
    """Metric 60, 70, 40, 30 around a threshold of 50, every change warmed up before the next."""
    assert drive(stepping(), observe, [0.6, 0.7, 0.4, 0.3], start=10, step_s=600.0) == [10, 11, 14, 13, 10]


def test_between_the_outer_steps_nothing_changes(observe):
    assert drive(stepping(), observe, [0.41, 0.5, 0.59], start=10, step_s=600.0) == [10] * 4


def test_the_guides_example_of_a_warm_up(observe):
    """60 adds 1; 62 while it warms up adds none; 70 then makes it 13, for 30 % of the 10 that are warm."""
    assert drive(stepping(), observe, [0.6, 0.62, 0.7], start=10) == [10, 11, 11, 13]


def test_the_guides_example_of_a_cooldown(observe):
    """A step of 2, and within the cooldown a step of 3: only 1 is added."""
    steps = [Step(2, 0.0, 0.2), Step(3, 0.2, None)]
    out = StepPolicy(CPU, Alarm(">=", 0.5, 1), steps)
    assert drive(stepping(policies=[out]), observe, [0.6, 0.8], start=10) == [10, 12, 13]


@pytest.mark.parametrize(("change", "whole"), [(12.7, 12), (0.67, 1), (-0.58, -1), (-6.67, -6), (3.0, 3), (0.0, 0)])
def test_percentages_are_rounded_as_the_guide_says(change, whole):
    assert rounded(change) == whole


@pytest.mark.parametrize(
    ("kind", "adjustment", "least", "capacity", "result"),
    [
        ("ChangeInCapacity", 5, 0, 3, 8),
        ("ExactCapacity", 5, 0, 3, 5),
        (PERCENT, 10, 0, 10, 11),
        (PERCENT, 25, 2, 4, 6),  # 25 % of 4 is 1, the minimum adjustment makes it 2
        (PERCENT, -25, 2, 4, 2),
        (PERCENT, -30, 0, 13, 10),  # 3.9 is cut off
        (PERCENT, 100, 0, 29, 58),
    ],
)
def test_the_guides_adjustment_types(kind, adjustment, least, capacity, result):
    policy = StepPolicy(CPU, Alarm(">=", 0.5, 1), [Step(adjustment, 0.0, None)], kind, least)
    assert capacity + change_of(policy, policy.steps[0], capacity) == result


def test_the_policy_that_leaves_most_capacity_wins(observe):
    """+3 and +200 % of 10 together make 30."""
    policies = [
        StepPolicy(CPU, Alarm(">=", 0.5, 1), [Step(3, 0.0, None)]),
        StepPolicy(CPU, Alarm(">=", 0.6, 1), [Step(200, 0.0, None)], PERCENT),
    ]
    assert drive(stepping(policies=policies), observe, [0.9], start=10) == [10, 30]
    policies = [
        StepPolicy(CPU, Alarm("<=", 0.5, 1), [Step(-3, None, 0.0)]),
        StepPolicy(CPU, Alarm("<=", 0.6, 1), [Step(-50, None, 0.0)], PERCENT),
    ]
    assert drive(stepping(policies=policies), observe, [0.1], start=10) == [10, 7]


def test_the_metric_is_aggregated_over_the_alarms_points(observe):
    def after(aggregation: Aggregation) -> int:
        steps = [Step(1, 0.0, 0.2), Step(2, 0.2, 0.3), Step(4, 0.3, None)]
        policy = StepPolicy(CPU, Alarm(">=", 0.5, 3), steps, aggregation=aggregation)
        return drive(stepping(policies=[policy]), observe, [0.6, 0.7, 0.9], start=10)[-1]

    assert [after("Minimum"), after("Average"), after("Maximum")] == [11, 12, 14]


def test_reductions_keep_their_cooldown_and_wait_for_the_warm_up(observe):
    slow = stepping(cooldown_s=120.0, warmup_s=120.0)
    assert drive(slow, observe, [0.6, 0.3, 0.3, 0.3, 0.3], start=10) == [10, 11, 11, 8, 8, 6]


def test_a_step_says_how_it_came_to_its_number(observe):
    (action,) = stepping().decide(observe(0.0, 10, 0.7))
    assert action.reason == "13 = 10 +3 (+30 %): cell.utilisation_ratio 0.7 is +0.2 from 0.5"
    (action,) = stepping().decide(observe(0.0, 10, NAN))
    assert action.value == 10
    assert "unknown, insufficient data" in action.reason
    warm = stepping()
    drive(warm, observe, [0.6], start=10)
    assert warm.decide(observe(60.0, 11, 0.62))[0].reason == (
        "11 kept: 11 = 10 +1 (+10 %): cell.utilisation_ratio 0.62 is +0.12 from 0.5 is not above the 11 wished for, "
        "1 of them still warming up"
    )


@pytest.mark.parametrize(
    "steps",
    [
        [],
        [Step(1, 0.0, 0.1), Step(2, 0.2, None)],  # a gap
        [Step(1, 0.0, 0.2), Step(2, 0.1, None)],  # an overlap
        [Step(1, 0.0, 0.1)],  # nothing above 0.1
        [Step(-1, -0.1, 0.0)],  # nothing below -0.1
        [Step(1, None, None)],
        [Step(1, 0.2, 0.1)],
    ],
)
def test_steps_that_aws_refuses_are_refused(steps):
    with pytest.raises(UsageError, match="step"):
        StepPolicy(CPU, Alarm(">=", 0.5, 1), steps)


@pytest.mark.parametrize(
    "build",
    [
        lambda: tracking(policies=[]),
        lambda: tracking(min_capacity=9, max_capacity=3),
        lambda: tracking(kind="pods"),
        lambda: stepping(policies=[]),
        lambda: stepping(warmup_s=-1),
        lambda: Target(CPU, 0.0),
        lambda: Alarm(">", 0.5, 3, 4),
        lambda: Alarm("!=", 0.5),  # type: ignore[arg-type]
        lambda: StepPolicy(CPU, Alarm(">=", 0.5, 1), [Step(1, 0.0, None)], min_adjustment=2),
        lambda: StepPolicy(CPU, Alarm(">=", 0.5, 1), [Step(-1, 0.0, None)], "ExactCapacity"),
        lambda: StepPolicy(CPU, Alarm(">=", 0.5, 1), [Step(1, 0.0, None)], "Double"),  # type: ignore[arg-type]
    ],
)
def test_nonsense_is_refused(build):
    with pytest.raises(UsageError):
        build()


# ---------------------------------------------------------------- both


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(start=st.integers(3, 30), used=st.lists(st.one_of(st.just(NAN), st.floats(0, 3)), min_size=1, max_size=40))
@pytest.mark.parametrize("build", [tracking, stepping])
def test_always_within_bounds_with_a_reason_and_still_without_data(build, observe, start, used):
    controller = build(min_capacity=3, max_capacity=30)
    current = start
    for minute, seen in enumerate(used):
        (action,) = controller.decide(observe(60.0 * minute, current, seen))
        assert 3 <= action.value <= 30
        assert action.reason
        if np.isnan(seen):
            assert action.value == current
        current = action.value


@pytest.mark.parametrize("name", ["aws_target", "aws_steps"])
def test_every_yaml_builds_a_controller_that_decides(name, observe):
    controller = hydra.utils.instantiate(OmegaConf.load(CONF / f"{name}.yaml"), _convert_="all")
    assert isinstance(controller, Controller)
    controller.reset()
    capacity = drive(controller, observe, [0.95] * 3, start=40)
    assert capacity[-1] > 40
