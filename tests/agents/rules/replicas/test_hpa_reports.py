"""What users of autoscalers reported, replayed through the controllers: each test is named by what they saw.

The docstring names the report. Where the real autoscaler still behaves so, the test holds it to that; where it was
mended, to the mended rule.
"""

import numpy as np
import pytest

from agents.rules.replicas.aws_target import Target, TargetTracking
from agents.rules.replicas.behavior import Behavior, Policy, ScalingRules
from agents.rules.replicas.calculator import Metric, Pods, Tolerance, propose
from agents.rules.replicas.hpa import Hpa
from agents.rules.replicas.keda import Fallback, Keda, Trigger
from twin.errors import PolicyError, UsageError
from twin.fleet import PENDING, READY, STARTING, Fleet
from twin.types import Observation, Pool, Service

NAN = float("nan")
EAGER = Behavior(down=ScalingRules((Policy("Percent", 100),)))
DEMAND = Metric("demand_rps", 10.0, "AverageValue")


def hpa(**changes) -> Hpa:
    return Hpa(**{"services": ["cell"], "target_utilisation": 0.7, "min_replicas": 1, "max_replicas": 50, **changes})


def watch(controller, observe, turns, *, start: int, step_s: float = 15.0, begin_s: float = 0.0, **always):
    """The wished numbers over time; each turn gives what is seen of the service then."""
    current = [start]
    for turn, seen in enumerate(turns):
        (action,) = controller.decide(observe(begin_s + step_s * turn, current[-1], **{**always, **seen}))
        assert action.reason
        current.append(action.value)
    return current


# ---------------------------------------------------------------- Kubernetes HPA


def test_it_shrank_although_one_metric_was_broken(observe):
    """kubernetes/kubernetes #105187 and #99394: CPU says 1, the other metric cannot be fetched; 3 must stay."""
    both = hpa(metrics=[DEMAND], behavior=EAGER, max_replicas=5)
    assert watch(both, observe, [{"used": 0.2}] * 4, start=3) == [3] * 5
    (action,) = both.decide(observe(60.0, 3, 0.2))
    assert action.reason == "held at 3: metric missing: not shrinking (demand_rps unknown)"
    assert both.decide(observe(75.0, 3, 0.2, demand_rps=5.0))[0].value == 1


def test_it_refused_to_grow_because_one_metric_was_missing(observe):
    """kubernetes/kubernetes #61007: what is known may still ask for more."""
    assert watch(hpa(metrics=[DEMAND]), observe, [{"used": 1.4}], start=3) == [3, 6]


def test_it_stays_high_although_usage_is_far_below_the_target(observe):
    """kubernetes/kubernetes #78761: 10 replicas at 38 % against 90 %; 300 s of patience, then ceil(10 x 38/90) = 5."""
    patient = hpa(target_utilisation=0.9, min_replicas=5, max_replicas=10)
    assert watch(patient, observe, [{"used": 0.38}] * 21, start=10) == [10] * 21 + [5]


def test_it_never_reaches_its_minimum_although_usage_is_below_the_target(observe):
    """kubernetes/kubernetes #78761: with few replicas rounding up holds; ceil(3 x 60/90) = 2, ceil(2 x 60/90) = 2."""
    small = hpa(target_utilisation=0.9, behavior=EAGER)
    assert watch(small, observe, [{"used": 0.6}] * 6, start=3) == [3, 2, 2, 2, 2, 2, 2]


def test_the_eleventh_replica_does_not_come(observe):
    """kubernetes/kubernetes #116984: 4 tasks each; 44 tasks on 10 are within 10 %, 45 make 12; without tolerance 11."""
    tasks = Metric("demand_rps", 4.0, "AverageValue")
    usual = hpa(target_utilisation=None, metrics=[tasks])
    assert watch(usual, observe, [{"demand_rps": load} for load in (37, 41, 44, 45)], start=9) == [9, 9, 11, 11, 11]
    usual = hpa(target_utilisation=None, metrics=[tasks])
    assert watch(usual, observe, [{"demand_rps": load} for load in (40, 41, 44, 45)], start=10) == [10, 10, 10, 10, 12]
    exact = Behavior(up=ScalingRules((Policy("Percent", 100),), tolerance=0.0))
    sharp = hpa(target_utilisation=None, metrics=[tasks], behavior=exact)
    assert watch(sharp, observe, [{"demand_rps": load} for load in (40, 41)], start=10) == [10, 10, 11]


def test_one_replica_a_little_too_busy_stays_alone(observe):
    """kubernetes/kubernetes #116984: 77 % against 70 % is inside the tolerance; 78 % doubles a single replica."""
    assert watch(hpa(), observe, [{"used": 0.77}] * 3, start=1) == [1] * 4
    assert watch(hpa(), observe, [{"used": 0.78}], start=1) == [1, 2]


def test_a_rolling_update_raised_the_wished_number(observe):
    """kubernetes/kubernetes #138505: 10 wished for, 12 exist by surge, the load is right: the wish becomes 12."""
    surging = hpa(target_utilisation=None, metrics=[DEMAND])
    seen = observe(0.0, 10, demand_rps=115.0)
    values = seen.values.copy()
    values[seen.columns.index("cell.ready_replicas")] = 12
    (action,) = surging.decide(Observation(0.0, seen.columns, values))
    assert (action.value, action.reason) == (12, "12 kept: 115/(12 x 10) is within -0.1/+0.1 of 1, and 12 exist")


def test_after_somebody_set_more_than_the_maximum_it_comes_back_at_once(observe):
    """kubernetes/kubernetes #75247: above the maximum neither metrics nor windows are asked."""
    assert watch(hpa(max_replicas=15), observe, [{"used": NAN}], start=16) == [16, 15]


def fleet_of(states_since: list[tuple[int, float]], time_s: float) -> Fleet:
    """A fleet of one service "cell" on one node, its pods in these states since these times."""
    number = len(states_since)
    service = Service("cell", 1.0, 1.0, 1.0, 0.1, 1, 0.5)
    return Fleet(
        time_s=time_s,
        pools=(Pool("workers", 16.0, 64.0, 1.0, 1),),
        services=(service,),
        node_name=("workers-0",),
        node_pool=np.zeros(1, dtype=np.int64),
        node_state=np.full(1, 2, dtype=np.int8),
        node_since_s=np.zeros(1),
        node_size=np.array([[16.0, 64.0]]),
        pod_name=tuple(f"cell-{place}" for place in range(number)),
        pod_service=np.zeros(number, dtype=np.int64),
        pod_node=np.zeros(number, dtype=np.int64),
        pod_state=np.array([state for state, _ in states_since], dtype=np.int8),
        pod_since_s=np.array([since for _, since in states_since]),
        pod_use=np.full((number, 2), NAN),
        request=np.ones((1, 2)),
        wanted=np.array([number], dtype=np.int64),
        nodes_wanted=np.ones(1, dtype=np.int64),
        price_usd_h=np.ones(1),
    )


def test_replicas_hot_from_their_own_start_made_it_grow_and_grow(observe):
    """kubernetes/kubernetes #28692 and #29989: a CPU sample that began before a replica was ready does not count.

    Six replicas at 105 %, two of them ready for 10 s: 4 x 105 / 6 = 70 % is on target; counted in full it would be 9.
    """
    time_s = 1000.0
    pods = [*[(READY, 0.0)] * 4, *[(READY, time_s - 10.0)] * 2]
    seen = observe(time_s, 6, 1.05)
    with_fleet = Observation(time_s, seen.columns, seen.values, lambda: fleet_of(pods, time_s))
    (action,) = hpa(cpu_sample_s=30.0).decide(with_fleet)
    assert (action.value, action.reason) == (
        6,
        "6 kept: 0.70/0.70 is within -0.1/+0.1 of 1, 2 unready counted as 0.00",
    )
    assert hpa().decide(with_fleet)[0].value == 9
    older = [(state, since - 60.0) for state, since in pods]
    settled = Observation(time_s, seen.columns, seen.values, lambda: fleet_of(older, time_s))
    assert hpa(cpu_sample_s=30.0).decide(settled)[0].value == 9


def test_starting_and_pending_replicas_are_not_fresh_ones(observe):
    """Only the ready are looked at for their sample; the others are unready anyhow, and counted once."""
    time_s = 1000.0
    pods = [*[(READY, 0.0)] * 4, (STARTING, time_s - 5.0), (PENDING, time_s - 5.0)]
    seen = observe(time_s, 6, 1.05, starting=1, pending=1)
    with_fleet = Observation(time_s, seen.columns, seen.values, lambda: fleet_of(pods, time_s))
    assert hpa(cpu_sample_s=30.0).decide(with_fleet) == hpa().decide(with_fleet)


def test_a_plant_without_single_replicas_is_told_so(observe):
    with pytest.raises(PolicyError, match="cpu_sample_s=30"):
        hpa(cpu_sample_s=30.0).decide(observe(0.0, 4, 0.7))


def test_memory_of_missing_replicas_counts_as_the_target():
    """A mean that is no share of the request: shrinking, the silent count as the target; growing, as nothing."""
    memory = Metric("memory_use_gib", 4.0, "Pods")
    tight = Tolerance(0.0, 0.0)

    def asked(seen: float, pods: Pods, tolerance: Tolerance = tight) -> int:
        proposal = propose(memory, seen, pods.measured + pods.missing + pods.unready, pods, tolerance)
        assert proposal is not None
        return proposal.value

    assert asked(2.0, Pods(10)) == 5
    assert asked(2.0, Pods(6, missing=4)) == 7  # (6 x 2 + 4 x 4) / 10 = 2.8: ceil(10 x 0.7)
    assert asked(6.0, Pods(6, missing=2)) == 9  # 6 x 6 / 8 = 4.5: ceil(8 x 1.125)
    assert asked(4.2, Pods(10), Tolerance()) == 10
    assert propose(memory, 2.0, 4, Pods(0, missing=4), tight) is None


def test_without_any_metric_it_has_nothing_to_go_by():
    with pytest.raises(UsageError, match="nothing to go by"):
        hpa(target_utilisation=None)


# ---------------------------------------------------------------- KEDA


def keda(**changes) -> Keda:
    return Keda(**{"service": "cell", "triggers": [Trigger("demand_rps", 10.0)], **changes})


def test_five_replicas_went_straight_to_zero_past_the_policies(observe):
    """kedacore/keda #7204 and #7770: the cooldown of 300 s ends, N falls to 0; the HPA alone would go 5, 4, 3, ..."""
    gentle = Behavior(down=ScalingRules((Policy("Pods", 1, 60),)))
    turns = [{"demand_rps": 50.0}, *[{"demand_rps": 0.0}] * 20]
    got = watch(keda(behavior=gentle, cooldown_s=60.0), observe, turns, start=5)
    assert got[:6] == [5, 5, 4, 4, 4, 0]
    assert watch(keda(behavior=gentle, min_replicas=1, cooldown_s=60.0), observe, turns, start=5)[:7] == [
        *[5, 5, 4, 4, 4],
        *[4, 3],
    ]


def test_the_cooldown_has_no_effect_with_a_minimum_of_one(observe):
    """kedacore/keda #737 and #6844: 60 s of cooldown, yet it takes the HPA's 300 s to go from 2 to 1."""
    turns = [{"demand_rps": 20.0}, *[{"demand_rps": 0.0}] * 20]
    got = watch(keda(min_replicas=1, max_replicas=3, cooldown_s=60.0), observe, turns, start=2)
    assert got == [2] * 21 + [1]


def test_a_new_object_took_a_running_service_to_zero_at_once(observe):
    """kedacore/keda #5008: never active means no cooldown; an initial cooldown was added for that."""
    assert watch(keda(), observe, [{"demand_rps": 0.0}], start=3) == [3, 0]
    assert watch(keda(initial_cooldown_s=120.0), observe, [{"demand_rps": 0.0}] * 9, start=3) == [*[3] * 9, 0]


def test_an_empty_answer_at_peak_shrank_everything(observe):
    """kedacore/keda #3065: read as 0 it shrinks after the window; as a failed query it holds."""
    turns = [{"demand_rps": 400.0}, *[{"demand_rps": NAN}] * 30]
    as_zero = Trigger("demand_rps", 10.0, empty_is_zero=True)
    assert watch(keda(triggers=[as_zero], min_replicas=2), observe, turns, start=40)[-1] == 2
    assert watch(keda(min_replicas=2), observe, turns, start=40) == [40] * 32


def test_the_fallback_overrode_a_healthy_cpu_trigger(observe):
    """kedacore/keda #6659: CPU asks for 12, the failing query's fallback is 3.

    Before release 2.17 the operator set 3 at every poll, and the HPA fought back; since then the larger one holds.
    """
    both = [Trigger("utilisation_ratio", 0.5, kind="Utilization"), Trigger("demand_rps", 10.0)]
    old = keda(triggers=both, min_replicas=1, fallback=Fallback(3, 3), direct_fallback=True)
    assert watch(old, observe, [{"used": 0.5}] * 4, start=12) == [12, 3, 3, 3, 3]
    (action,) = old.decide(observe(60.0, 12, 0.5))
    assert action.value == 3
    assert action.reason == "demand_rps failed and nothing else is active: the operator sets 3"
    new = keda(triggers=both, min_replicas=1, fallback=Fallback(3, 3), behavior=EAGER)
    assert watch(new, observe, [{"used": 0.5}] * 12, start=12) == [12] * 13


def test_the_fallback_came_before_the_failure_threshold(observe):
    """kedacore/keda #6053: the operator's own fallback, before release 2.17, counted no failures."""
    old = keda(fallback=Fallback(10, 6), direct_fallback=True)
    assert watch(old, observe, [{"demand_rps": NAN}], start=4) == [4, 6]
    assert watch(keda(fallback=Fallback(10, 6)), observe, [{"demand_rps": NAN}] * 10, start=4) == [4] * 11


def test_the_fallback_does_not_wake_a_sleeping_service(observe):
    """kedacore/keda #7411: at 0 the HPA asks for nothing, so no failure is counted and no fallback comes."""
    asleep = keda(fallback=Fallback(3, 6))
    assert watch(asleep, observe, [{"demand_rps": NAN}] * 20, start=0) == [0] * 21
    (action,) = asleep.decide(observe(300.0, 0))
    assert action.reason == "0 kept: demand_rps failed and nothing else is active: left to the HPA"


def test_pausing_stops_the_scale_down_of_an_outage(observe):
    """kedacore/keda #944 and #3304: production is down, CPU falls to 0 %; paused, the number stays."""
    controller = keda(triggers=[Trigger("utilisation_ratio", 0.5, kind="Utilization")], min_replicas=1)
    watch(controller, observe, [{"used": 0.5}] * 2, start=30)
    controller.pause()
    assert watch(controller, observe, [{"used": 0.0}] * 40, start=30, begin_s=30.0) == [30] * 41


# ---------------------------------------------------------------- AWS


def tracking(*policies: Target) -> TargetTracking:
    return TargetTracking("cell", policies, 1, 100)


def test_three_minutes_to_grow_are_an_eternity(observe):
    """aws/containers-roadmap #1208 and #2113: the periods of the alarms are not the user's; growth comes at the third.

    The alarm sees the third point at 120 s: the HPA would have doubled eight times by then.
    """
    turns = [{"used": 1.0}] * 3
    assert watch(tracking(Target("cell.utilisation_ratio", 0.5)), observe, turns, start=4, step_s=60.0) == [4, 4, 4, 8]
    fast = hpa(target_utilisation=0.5, max_replicas=1000)
    assert watch(fast, observe, [{"used": 1.0}] * 8, start=4)[-1] == 1000


def test_shrinking_takes_a_quarter_of_an_hour(observe):
    """aws-samples/amazon-aurora-labs-for-mysql #3: the low alarm has 15 datapoints."""
    turns = [{"used": 0.1}] * 15
    got = watch(tracking(Target("cell.utilisation_ratio", 0.5)), observe, turns, start=10, step_s=60.0)
    assert got == [10] * 15 + [2]


def test_two_policies_and_it_does_not_shrink(observe):
    """aws/copilot-cli #4298: CPU is low, the other metric is not; all must be ready to scale in."""
    both = tracking(Target("cell.utilisation_ratio", 0.5), Target("cell.demand_rps", 10.0, per_unit=True))
    turns = [{"used": 0.05, "demand_rps": 95.0}] * 40
    assert watch(both, observe, turns, start=10, step_s=60.0) == [10] * 41
    (action,) = both.decide(observe(2400.0, 10, 0.05, demand_rps=95.0))
    assert action.reason == (
        "10 kept: cell.utilisation_ratio is low, but others are not; "
        "cell.demand_rps has neither 3 of 3 points > 10 nor 15 of 15 points < 9"
    )


def test_an_idle_service_without_data_never_shrinks(observe):
    """awsdocs/amazon-ecs-developer-guide #150: a metric that stops is insufficient data, not a low one."""
    turns = [*[{"used": 0.4}] * 14, *[{"used": NAN}] * 60]
    got = watch(tracking(Target("cell.utilisation_ratio", 0.5)), observe, turns, start=10, step_s=60.0)
    assert got == [10] * 75
