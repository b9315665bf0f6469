"""KEDA against its documented examples and the cases of its scale executor."""

import subprocess
import sys
from pathlib import Path

import hydra
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from agents.rules.replicas.behavior import Behavior, Policy, ScalingRules
from agents.rules.replicas.keda import Fallback, Keda, Poll, ScaledObject, Trigger, request_scale
from twin.errors import UsageError
from twin.types import Controller

CONF = Path(__file__).parents[4] / "conf" / "controller"
NAN = float("nan")
DEMAND = Trigger("demand_rps", 10.0)
CPU = Trigger("utilisation_ratio", 0.5, kind="Utilization")
THREE_THEN_SIX = Fallback(3, 6)
EAGER = Behavior(down=ScalingRules((Policy("Percent", 100),)))


def keda(**changes) -> Keda:
    return Keda(**{"service": "cell", "triggers": [DEMAND], **changes})


def drive(controller, observe, demand, *, start: int, used=NAN, step_s: float = 15.0, begin_s: float = 0.0):
    """The replicas over time, every wish coming true at once; `demand` is requests/s, one per turn."""
    replicas = [start]
    for turn, seen in enumerate(demand):
        (action,) = controller.decide(
            observe(begin_s + turn * step_s, replicas[-1], used if replicas[-1] else NAN, demand_rps=seen)
        )
        assert action.reason
        replicas.append(action.value)
    return replicas


# ---------------------------------------------------------------- the decision on zero, case by case


def polled(active=(), failed=(), *, last: float | None = 0.0, time_s: float = 1000.0) -> Poll:
    return Poll(time_s, active, failed, last, 0.0)


@pytest.mark.parametrize(
    ("scaled", "current", "poll", "value", "refreshed"),
    [
        (ScaledObject(), 0, polled(("q",)), 1, True),  # 0 -> 1
        (ScaledObject(5), 0, polled(("q",)), 5, True),  # 0 -> the minimum
        (ScaledObject(5, 0), 2, polled(("q",)), 5, True),  # idle mode: anything below the minimum
        (ScaledObject(5), 2, polled(("q",)), None, True),  # else the HPA's affair
        (ScaledObject(), 3, polled(("q",)), None, True),
        (ScaledObject(), 3, polled(("q",), ("p",)), None, False),  # a failure keeps the old time of activity
        (ScaledObject(), 0, polled(("q",), ("p",)), 1, True),
        (ScaledObject(), 3, polled(), 0, False),  # cooled down
        (ScaledObject(), 3, polled(last=900.0), None, False),  # cooling down
        (ScaledObject(), 3, polled(last=None), 0, False),  # never active
        (ScaledObject(initial_cooldown_s=2000.0), 3, polled(last=None), None, False),
        (ScaledObject(5, 0), 9, polled(), 0, False),
        (ScaledObject(5), 9, polled(), None, False),  # with a minimum the HPA shrinks
        (ScaledObject(5), 3, polled(), 5, False),
        (ScaledObject(5, 0), 0, polled(), None, False),
        (ScaledObject(), 3, polled(failed=("p",)), None, False),  # unknown is not inactive
        (ScaledObject(fallback=Fallback(3, 6)), 3, polled(failed=("p",)), None, False),
        (ScaledObject(fallback=Fallback(3, 0)), 3, polled(failed=("p",)), 0, False),  # a fallback of none
        (ScaledObject(fallback=Fallback(3, 6), direct_fallback=True), 9, polled(failed=("p",)), 6, False),
        (ScaledObject(fallback=Fallback(3, 6), direct_fallback=True), 9, polled(("q",), ("p",)), None, False),
    ],
)
def test_each_case_of_the_scale_executor(scaled, current, poll, value, refreshed):
    verdict = request_scale(scaled, current, poll)
    assert (verdict.value, verdict.refreshed) == (value, refreshed)
    assert verdict.reason


# ---------------------------------------------------------------- from zero, to zero


def test_from_zero_to_one_by_keda_and_on_by_the_hpa(observe):
    """The HPA's default rate then allows +4 and doubling per sync."""
    assert drive(keda(), observe, [0, 0, 200, 200, 200, 200], start=0) == [0, 0, 0, 1, 5, 10, 20]


def test_only_a_poll_wakes_it(observe):
    """With an interval of 60 s, work that comes at 15 s waits until 60 s."""
    assert drive(keda(polling_s=60.0), observe, [0, 5, 5, 5, 5], start=0) == [0, 0, 0, 0, 0, 1]


def test_activity_must_exceed_the_activation(observe):
    shy = [Trigger("demand_rps", 10.0, activation=5.0)]
    assert drive(keda(triggers=shy), observe, [5.0] * 4, start=0) == [0] * 5
    assert drive(keda(triggers=shy), observe, [5.1] * 2, start=0) == [0, 1, 1]


def test_below_the_activation_it_is_inactive_even_when_the_threshold_asks_for_many(observe):
    """Activation has the higher priority: 40 messages at 10 each are 4 replicas, yet an activation of 50 means none."""
    assert drive(keda(triggers=[Trigger("demand_rps", 10.0, activation=50.0)]), observe, [40] * 3, start=4)[-1] == 0


def test_the_documented_example_of_an_idle_number(observe):
    """Idle 0, minimum 10, maximum 100: at once to 10, as needed up to 100, and back to 0."""
    idle = keda(idle_replicas=0, min_replicas=10, max_replicas=100)
    up = drive(idle, observe, [0, 0, 5000, 5000, 5000, 5000, 5000, 5000], start=0)
    assert up == [0, 0, 0, 10, 20, 40, 80, 100, 100]
    down = drive(idle, observe, [0] * 21, start=100, begin_s=120.0)
    assert down[-1] == 0
    assert [value for value in down if 0 < value < 10] == []


def test_after_the_cooldown_it_drops_to_zero_whatever_the_policies_say(observe):
    """A policy of one pod a minute would need 50 minutes."""
    gentle = Behavior(down=ScalingRules((Policy("Pods", 1, 60),), stabilisation_s=300))
    controller = keda(behavior=gentle)
    got = drive(controller, observe, [500, *[0] * 25], start=50)
    assert got[:21] == [50] * 21  # last active at 0 s, polls at 30 s, ...: the cooldown ends at 300 s
    assert got[21] == 0


def test_the_drop_says_why(observe):
    controller = keda()
    drive(controller, observe, [500, *[0] * 19], start=50)
    (action,) = controller.decide(observe(300.0, 50, NAN, demand_rps=0.0))
    assert action.reason == (
        "0: no trigger active for 300 s, the cooldown of 300 s is over: from 50 at once, "
        "whatever the HPA's policies say"
    )


def test_with_a_minimum_the_cooldown_does_nothing_and_the_hpa_shrinks(observe):
    """300 s of the HPA's own window, then to the minimum; the cooldown of 30 s is not looked at."""
    got = drive(keda(min_replicas=2, cooldown_s=30.0), observe, [500, *[0] * 21], start=50)
    assert got == [50] * 21 + [2, 2]


def test_one_failing_trigger_does_not_let_the_time_of_activity_move(observe):
    """Active until 300 s, but with a failure beside it from 30 s on: the drop follows the first inactive poll."""
    two = keda(triggers=[DEMAND, Trigger("latency_p95_s", 1.0, kind="Value")])
    current = 5
    for turn in range(23):
        seen = observe(15.0 * turn, current, NAN, demand_rps=50.0 if turn < 20 else 0.0)
        failing = np.append(seen.values, np.float32(NAN if 2 <= turn < 20 else 0.0))
        both = type(seen)(seen.time_s, (*seen.columns, "cell.latency_p95_s"), failing)
        current = two.decide(both)[0].value
        assert current == (5 if turn < 20 else 0)


def test_cpu_alone_never_sleeps_and_beside_others_never_wakes(observe):
    assert drive(keda(triggers=[CPU], min_replicas=1), observe, [NAN] * 60, start=4, used=0.01)[-1] == 1
    assert drive(keda(triggers=[CPU, DEMAND]), observe, [0] * 3, start=4, used=0.9) == [4, 0, 0, 0]


# ---------------------------------------------------------------- fallback


@pytest.mark.parametrize(
    ("behavior", "replicas", "current", "result"),
    [
        ("static", 6, 4, 6),
        ("currentReplicas", 3, 6, 6),
        ("currentReplicasIfHigher", 3, 6, 6),
        ("currentReplicasIfHigher", 6, 3, 6),
        ("currentReplicasIfLower", 6, 3, 3),
        ("currentReplicasIfLower", 3, 6, 3),
    ],
)
def test_the_documented_examples_of_each_behavior(observe, behavior, replicas, current, result):
    controller = keda(fallback=Fallback(3, replicas, behavior), behavior=EAGER)
    assert drive(controller, observe, [NAN] * 6, start=current)[-1] == result


def test_it_falls_back_when_the_failures_exceed_the_threshold(observe):
    """Three failed queries of the HPA are borne, at the fourth the fallback's 6 replicas count."""
    assert drive(keda(fallback=THREE_THEN_SIX), observe, [NAN] * 5, start=4) == [4, 4, 4, 4, 6, 6]


def test_one_good_answer_starts_the_count_again(observe):
    got = drive(keda(fallback=THREE_THEN_SIX), observe, [NAN, NAN, NAN, 40, NAN, NAN, NAN, NAN], start=4)
    assert got == [4] * 8 + [6]


def test_the_metric_is_the_threshold_times_the_fallback():
    assert THREE_THEN_SIX.value(DEMAND, 4, 4) == 60.0
    assert Fallback(3, 6).value(Trigger("demand_rps", 0.3), 4, 4) == 1.8
    assert Fallback(3, 6).value(Trigger("latency_p95_s", 0.2, kind="Value"), 4, 3) == 0.4  # shared by the ready
    assert np.isnan(Fallback(3, 6).value(Trigger("latency_p95_s", 0.2, kind="Value"), 4, 0))


def test_a_fallback_within_the_tolerance_changes_nothing(observe):
    """10 for 11 is a ratio of 0.91: the HPA's tolerance holds."""
    assert drive(keda(fallback=Fallback(0, 10), behavior=EAGER), observe, [NAN] * 3, start=11) == [11] * 4


def test_a_fallback_of_a_fraction_asks_for_the_very_number(observe):
    tiny = [Trigger("demand_rps", 0.3)]
    assert drive(keda(triggers=tiny, fallback=Fallback(0, 6)), observe, [NAN] * 2, start=3) == [3, 6, 6]


def test_a_fallback_says_so(observe):
    controller = keda(fallback=THREE_THEN_SIX)
    drive(controller, observe, [NAN] * 3, start=4)
    (action,) = controller.decide(observe(45.0, 4, NAN))
    assert action.reason == "demand_rps failed 4 times, falls back to 6 replicas; 6 = ceil(60/10)"


def test_without_a_fallback_failing_triggers_hold(observe):
    assert drive(keda(behavior=EAGER), observe, [500, *[NAN] * 50], start=50) == [50] * 52


def test_an_empty_answer_may_be_read_as_zero(observe):
    """As KEDA's Prometheus scaler does by default."""
    empty = keda(triggers=[Trigger("demand_rps", 10.0, empty_is_zero=True)])
    assert drive(empty, observe, [500, *[NAN] * 20], start=50)[-1] == 0


# ---------------------------------------------------------------- pause, bounds, the rest


def test_paused_where_it_is_or_at_a_number(observe):
    assert drive(keda(paused=True), observe, [5000] * 4, start=3) == [3] * 5
    assert drive(keda(paused_replicas=0), observe, [5000] * 4, start=3) == [3, 0, 0, 0, 0]


def test_pause_and_resume(observe):
    controller = keda()
    controller.pause(7)
    (action,) = controller.decide(observe(0.0, 3, NAN, demand_rps=500.0))
    assert (action.value, action.reason) == (7, "7: scaling is paused")
    controller.resume()
    assert controller.decide(observe(15.0, 7, NAN, demand_rps=500.0))[0].value == 14
    controller.pause()
    controller.reset()
    assert controller.decide(observe(0.0, 7, NAN, demand_rps=500.0))[0].value == 14


def test_the_hpa_keeps_its_own_interval(observe):
    """Turns each 5 s, syncs each 15 s: the HPA may double at 0, 15 and 30 s only."""
    got = drive(keda(interval_s=5.0), observe, [5000] * 7, start=10, step_s=5.0)
    assert got == [10, 20, 20, 20, 40, 40, 40, 80]


def test_a_start_by_keda_is_no_change_of_the_hpas_period(observe):
    """At most 2 more in each 60 s: 0 -> 1 by KEDA does not use that up."""
    slow = Behavior(up=ScalingRules((Policy("Pods", 2, 60),)))
    controller = keda(behavior=slow)
    drive(controller, observe, [20, 20], start=1)
    assert drive(controller, observe, [0] * 22, start=2, begin_s=30.0)[-1] == 0
    assert drive(controller, observe, [500] * 3, start=0, begin_s=360.0) == [0, 1, 3, 3]


def test_an_unknown_wish_keeps_the_last_one_and_none_before_that(observe):
    controller = keda()
    assert controller.decide(observe(0.0, NAN, NAN, demand_rps=50.0)) == []
    controller.decide(observe(15.0, 5, NAN, demand_rps=50.0))
    assert controller.decide(observe(30.0, NAN, NAN, demand_rps=50.0))[0].value == 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"triggers": []},
        {"triggers": [DEMAND, DEMAND]},
        {"triggers": [Trigger("demand_rps", 0.0)]},
        {"triggers": [CPU], "fallback": THREE_THEN_SIX},
        {"idle_replicas": 0},
        {"idle_replicas": 2, "min_replicas": 5},
        {"min_replicas": 8, "max_replicas": 4},
        {"polling_s": 0.0},
        {"cooldown_s": -1.0},
    ],
)
def test_nonsense_is_refused(wrong):
    with pytest.raises(UsageError):
        keda(**wrong)


@pytest.mark.parametrize("wrong", [(-1, 6), (3, -1), (3, 6, "sometimes")])
def test_a_fallback_that_keda_refuses_is_refused(wrong):
    with pytest.raises(UsageError):
        Fallback(*wrong)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    start=st.integers(0, 20),
    demand=st.lists(st.one_of(st.just(NAN), st.just(0.0), st.floats(0, 2000)), min_size=1, max_size=50),
    least=st.integers(0, 3),
    fallback=st.sampled_from([None, THREE_THEN_SIX]),
)
def test_always_within_bounds_and_never_down_on_a_failed_query(observe, start, demand, least, fallback):
    controller = keda(min_replicas=least, max_replicas=20, fallback=fallback, behavior=EAGER)
    current = start
    for turn, seen in enumerate(demand):
        (action,) = controller.decide(observe(15.0 * turn, current, NAN, demand_rps=seen))
        assert 0 <= action.value <= 20
        assert action.reason
        if np.isnan(seen) and fallback is None:
            assert action.value >= current
        current = action.value


def test_the_yaml_builds_a_controller_that_decides(observe):
    controller = hydra.utils.instantiate(OmegaConf.load(CONF / "keda.yaml"), _convert_="all")
    assert isinstance(controller, Controller)
    controller.reset()
    assert drive(controller, observe, [1200.0] * 2, start=40) == [40, 60, 60]


def test_rules_need_no_simulator_and_no_learner():
    """The live side starts where neither is installed."""
    code = (
        "import sys, agents.rules.replicas.keda, agents.rules.replicas.aws_target, agents.rules.replicas.aws_steps;"
        "print([m for m in ('simpy', 'jax', 'torch', 'scipy', 'gymnasium', 'polars', 'numba') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=CONF.parents[1], check=True)
    assert done.stdout.strip() == "[]"
