"""The HPA as a controller: its turns, its windows, its sentences."""

import subprocess
import sys
from pathlib import Path

import hydra
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from agents.rules.hold import Hold
from agents.rules.replicas.behavior import DEFAULT, Behavior, Policy, ScalingRules
from agents.rules.replicas.calculator import Metric
from agents.rules.replicas.hpa import Hpa
from agents.rules.static import Static
from twin.errors import UsageError
from twin.types import Controller, Observation

CONF = Path(__file__).parents[4] / "conf" / "controller"
DEMAND = Metric("demand_rps", 50.0, "AverageValue")
NAN = float("nan")


def hpa(**changes) -> Hpa:
    return Hpa(**{"services": ["cell"], "target_utilisation": 0.6, "min_replicas": 1, "max_replicas": 10, **changes})


def drive(controller: Hpa, observe, used, *, start: int, steps: int, step_s: float = 15.0) -> list[int]:
    """The replicas over time when every wish comes true at once; `used` is one value or one per step."""
    replicas = [start]
    for step in range(steps):
        seen = used[step] if isinstance(used, list) else used
        (action,) = controller.decide(observe(step * step_s, replicas[-1], seen))
        replicas.append(action.value)
    return replicas


def test_ninety_percent_against_sixty_goes_4_6_9_10(observe):
    """As a real control plane did, with at most 10 replicas."""
    assert drive(hpa(), observe, 0.9, start=4, steps=4) == [4, 6, 9, 10, 10]


def test_the_first_count_is_a_recommendation_too(observe):
    """A drop of the load right after the start shrinks nothing for 300 s."""
    assert drive(hpa(), observe, 0.3, start=8, steps=22) == [8] * 21 + [4, 4]


def test_the_worked_example_of_the_window(observe):
    """Recommendations 10 9 8 9 9 8 9 8 9 8, one a minute, keep 10; then 7 releases to 9."""
    exact = ScalingRules((Policy("Pods", 4, 60),), tolerance=0.0)
    slow = Behavior(exact, ScalingRules((Policy("Pods", 5, 60),), stabilisation_s=600, tolerance=0.0))
    one_each = hpa(behavior=slow, interval_s=60.0, metrics=[DEMAND], target_utilisation=9.0, max_replicas=20)
    replicas = [10]
    for minute, wish in enumerate([10, 9, 8, 9, 9, 8, 9, 8, 9, 8, 7]):
        (action,) = one_each.decide(observe(60.0 * minute, replicas[-1], 0.0, demand_rps=50.0 * wish))
        replicas.append(action.value)
    assert replicas == [10] * 11 + [9]


def test_a_rate_limit_spans_several_turns(observe):
    careful = Behavior(up=ScalingRules((Policy("Pods", 2, 60),)))
    assert drive(hpa(behavior=careful), observe, 3.0, start=1, steps=9) == [1, 3, 3, 3, 3, 5, 5, 5, 5, 7]


def test_changes_made_by_others_count_in_the_period(observe):
    careful = hpa(behavior=Behavior(up=ScalingRules((Policy("Pods", 2, 60),))))
    careful.decide(observe(0.0, 4, 0.6))
    (action,) = careful.decide(observe(15.0, 6, 3.0))  # someone else added 2
    assert action.value == 6
    assert action.reason.endswith("rate limit: +2 pods per 60 s")


def test_no_metric_holds_and_says_so(observe):
    (action,) = hpa().decide(observe(0.0, 5))
    assert (action.value, action.reason) == (5, "held at 5: no valid metric (utilisation_ratio unknown)")


def test_a_missing_metric_never_shrinks(observe):
    impatient = Behavior(down=ScalingRules((Policy("Percent", 100),)))
    both = hpa(metrics=[DEMAND], behavior=impatient)
    both.decide(observe(0.0, 8, 0.6, demand_rps=400.0))
    (action,) = both.decide(observe(15.0, 8, NAN, demand_rps=100.0))
    assert action.value == 8
    assert action.reason == "held at 8: metric missing: not shrinking (utilisation_ratio unknown)"
    (action,) = both.decide(observe(30.0, 8, NAN, demand_rps=500.0))
    assert action.value == 10
    (action,) = both.decide(observe(45.0, 8, 0.2, demand_rps=100.0))
    assert action.value == 3


def test_a_hold_without_metrics_is_no_recommendation(observe):
    """Blind turns leave no trace in the window: the load seen before them still counts."""
    blind = hpa()
    assert drive(blind, observe, [0.3, *[NAN] * 20, 0.3], start=8, steps=22)[-1] == 4


def test_an_unknown_wish_keeps_the_last_one_and_none_before_that(observe):
    controller = hpa()
    assert controller.decide(observe(0.0, NAN, 0.9)) == []
    controller.decide(observe(15.0, 4, 0.6))
    (action,) = controller.decide(observe(30.0, NAN, NAN))
    assert action.value == 4


def test_outside_of_the_bounds_it_goes_to_the_bound_at_once(observe):
    assert hpa().decide(observe(0.0, 40, 0.9))[0].value == 10
    assert hpa(min_replicas=3).decide(observe(0.0, 1, 0.1))[0].value == 3


def test_zero_wished_replicas_switch_it_off(observe):
    assert hpa().decide(observe(0.0, 0, NAN))[0].value == 0


def test_unready_and_unmeasured_replicas_are_read_from_the_observation(observe):
    assert hpa().decide(observe(0.0, 6, 0.9, starting=1, pending=1))[0].value == 6
    assert hpa().decide(observe(0.0, 6, 0.9))[0].value == 9
    waiting = hpa(max_replicas=20).decide(observe(0.0, 6, 1.8, starting=1, pending=1))[0]
    assert (waiting.value, waiting.reason) == (12, "12 = ceil(6 x 1.20/0.60), 2 unready counted as 0.00")
    blind = hpa(max_replicas=20).decide(observe(0.0, 6, 1.8, missing=2))[0]
    assert (blind.value, blind.reason) == (12, "12 = ceil(6 x 1.20/0.60), 2 missing counted as 0.00")


def test_reset_forgets_the_windows(observe):
    controller = hpa()
    controller.decide(observe(0.0, 8, 0.6))
    controller.reset()
    controller.decide(observe(15.0, 4, 0.6))
    assert drive(controller, observe, 0.6, start=4, steps=1) == [4, 4]
    assert len(controller._past["cell"].recommendations) == 3


def test_the_memory_stays_bounded(observe):
    controller = hpa()
    drive(controller, observe, [0.9, 0.3] * 250, start=5, steps=500)
    past = controller._past["cell"]
    assert len(past.recommendations) <= 300 / 15 + 2
    assert len(past.changes) <= 2


def test_columns_that_move_between_two_turns_are_found_again(observe):
    """As when a plant comes to show more, or another plant is looked at."""
    steady, moved = hpa(), hpa()
    for step, used in enumerate((0.6, 0.9, 1.2)):
        seen = observe(15.0 * step, 4, used)
        order = np.roll(np.arange(len(seen.columns)), step)
        turned = Observation(seen.time_s, tuple(seen.columns[place] for place in order), seen.values[order])
        assert moved.decide(turned) == steady.decide(seen)


def test_each_service_is_read_from_its_own_columns(observe):
    """Two services side by side get what each would get alone."""
    one, other = observe(0.0, 4, 0.9), observe(0.0, 6, 1.8, starting=1, pending=1)
    both = Observation(
        0.0,
        (*one.columns, *(name.replace("cell.", "web.") for name in other.columns)),
        np.concatenate((one.values, other.values)),
    )
    answers = hpa(services=["web", "cell"], max_replicas=20).decide(both)
    assert [(a.target, a.value) for a in answers] == [("web", 12), ("cell", 6)]


def test_an_unknown_service_names_the_column(observe):
    with pytest.raises(UsageError, match=r"web\.wanted_replicas"):
        hpa(services=["web"]).decide(observe(0.0, 4, 0.6))


@pytest.mark.parametrize(
    "wrong", [{"services": []}, {"min_replicas": 11}, {"min_replicas": -1}, {"target_utilisation": 0}]
)
def test_nonsense_is_refused(wrong):
    with pytest.raises(UsageError):
        hpa(**wrong)


turn = st.tuples(st.one_of(st.just(NAN), st.floats(0, 3)), st.one_of(st.just(NAN), st.floats(0, 5000)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(start=st.integers(1, 10), turns=st.lists(turn, min_size=1, max_size=40), missing=st.integers(0, 2))
def test_always_within_bounds_and_never_shrinking_blind(observe, start, turns, missing):
    controller = hpa(min_replicas=1, metrics=[DEMAND], behavior=Behavior(down=ScalingRules((Policy("Percent", 100),))))
    current = start
    for step, (used, demand) in enumerate(turns):
        seen = observe(15.0 * step, current, used, missing=min(missing, current), demand_rps=demand)
        (action,) = controller.decide(seen)
        assert 1 <= action.value <= 10
        assert action.reason
        if np.isnan(used) or np.isnan(demand):
            assert action.value >= current
        current = action.value


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(past=st.lists(st.floats(0, 3), max_size=25), low=st.floats(0, 3), high=st.floats(0, 3))
def test_after_any_past_more_load_never_gets_fewer_replicas(observe, past, low, high):
    answers = []
    for last in sorted((low, high)):
        controller = hpa(max_replicas=30)
        answers.append(drive(controller, observe, [*past, last], start=5, steps=len(past) + 1)[-1])
    assert answers[0] <= answers[1]


@pytest.mark.parametrize("name", ["hold", "static", "hpa"])
def test_every_yaml_builds_a_controller_that_decides(name, observe):
    controller = hydra.utils.instantiate(OmegaConf.load(CONF / f"{name}.yaml"))
    assert isinstance(controller, Controller)
    controller.reset()
    actions = controller.decide(observe(0.0, 4, 0.9))
    assert [a.target for a in actions] == ([] if name == "hold" else ["cell"])


def test_the_yaml_holds_the_defaults_of_kubernetes():
    assert hydra.utils.instantiate(OmegaConf.load(CONF / "hpa.yaml")).behavior == DEFAULT


def test_static_holds_what_it_was_told(observe):
    controller = Static({"cell": 7})
    assert controller.decide(observe(0.0, 4, 3.0))[0].value == 7
    with pytest.raises(UsageError, match="-1"):
        Static({"cell": -1})
    with pytest.raises(UsageError, match="replicas"):
        Static({})


def test_hold_decides_nothing(observe):
    assert Hold().decide(observe()) == []


def test_rules_need_no_simulator_and_no_learner():
    """A bundle's fallback must start where neither is installed."""
    code = (
        "import sys, agents.rules.replicas.hpa, agents.rules.guarded, agents.rules.hold, agents.rules.static;"
        "print([m for m in ('simpy', 'jax', 'torch', 'scipy', 'gymnasium', 'polars') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=CONF.parents[1], check=True)
    assert done.stdout.strip() == "[]"
