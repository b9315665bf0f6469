"""The descheduler's policies, on the cases of its own tests, and the loops that its users reported."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import hydra
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from agents.rules.pods.descheduler import Descheduler, Policy
from agents.rules.pods.descheduler_evictor import Evictor, Rules
from agents.rules.pods.descheduler_nodes import HighNodeUtilization, LowNodeUtilization
from agents.rules.pods.descheduler_spread import RemoveDuplicates, TopologySpread, moves
from twin.errors import PolicyError, UsageError
from twin.fleet import BOOTING, DRAINING, FAILED, PENDING, READY, UP, Fleet
from twin.types import Controller, Observation, Pool, Service

CONF = Path(__file__).parents[4] / "conf" / "controller"
Hosted = Mapping[str, Mapping[str, int]]  # node -> service -> replicas
TEN = Rules(pods_per_node=10)
FIT = Rules(pods_per_node=10, node_fit=True)


def build(
    hosted: Hosted,
    *,
    requests: Mapping[str, tuple[float, float]] | None = None,
    size: tuple[float, float] = (4.0, 3.0),
    state: Mapping[str, int] | None = None,
    zone: Mapping[str, str] | None = None,
    only_on: Mapping[str, tuple[str, ...]] | None = None,
    spare: int = 99,
    pending: Mapping[str, int] | None = None,
    since_s: float = 0.0,
) -> Fleet:
    """Each node is a pool of its own; replicas ask for 0.4 cores and no memory unless `requests` says otherwise."""
    state, zone, only_on, pending = state or {}, zone or {}, only_on or {}, pending or {}
    names = sorted({service for replicas in hosted.values() for service in replicas} | set(pending))
    wanted = [sum(replicas.get(name, 0) for replicas in hosted.values()) + pending.get(name, 0) for name in names]
    pods = [
        (names.index(s), place) for place, node in enumerate(hosted) for s, n in hosted[node].items() for _ in range(n)
    ]
    pods += [(names.index(service), -1) for service, count in pending.items() for _ in range(count)]
    home = np.array([node for _, node in pods], dtype=np.int64)
    services = tuple(
        Service(name, 1.0, 1.0, 1.0, 0.1, 1, 1.0, replicas=count, min_replicas=0, max_unavailable=spare,
                pools=only_on.get(name, ()))
        for name, count in zip(names, wanted, strict=True)
    )  # fmt: skip
    return Fleet(
        time_s=1000.0,
        pools=tuple(Pool(node, *size, 1.0, 1, zone=zone.get(node, "z")) for node in hosted),
        services=services,
        node_name=tuple(hosted),
        node_pool=np.arange(len(hosted)),
        node_state=np.array([state.get(node, UP) for node in hosted], dtype=np.int8),
        node_since_s=np.zeros(len(hosted)),
        node_size=np.array([size] * len(hosted)),
        pod_name=tuple(f"{names[service]}-{i}" for i, (service, _) in enumerate(pods)),
        pod_service=np.array([service for service, _ in pods], dtype=np.int64),
        pod_node=home,
        pod_state=np.where(home < 0, PENDING, READY).astype(np.int8),
        pod_since_s=np.full(len(pods), since_s),
        pod_use=np.full((len(pods), 2), np.nan),
        request=np.array([(requests or {}).get(name, (0.4, 0.0)) for name in names]).reshape(-1, 2),
        wanted=np.array(wanted, dtype=np.int64),
        nodes_wanted=np.ones(len(hosted), dtype=np.int64),
        price_usd_h=np.ones(len(hosted)),
    )


def left(policy: Policy, fleet: Fleet, rules: Rules = TEN) -> dict[str, int]:
    """How many replicas leave each node, where any do."""
    homes = [fleet.node_name[fleet.pod_node[eviction.pod]] for eviction in policy.evictions(fleet, rules)]
    return {node: homes.count(node) for node in fleet.node_name if node in homes}


def low(below: float, above: float, *names: str, **changes) -> LowNodeUtilization:
    return LowNodeUtilization(dict.fromkeys(names, below), dict.fromkeys(names, above), **changes)


# ---------------------------------------------------------------- LowNodeUtilization


def test_a_node_at_80_percent_gives_down_to_70():
    """The project's case: 8 and 1 of 10 pods, thresholds 20 and 70: one leaves, and then 70 is not above 70."""
    hosted = {"n1": {"a": 8}, "n2": {"a": 1}, "n3": {}}
    assert left(low(20, 70, "pods"), build(hosted, requests={"a": (0.2, 0.0)}), FIT) == {"n1": 1}


def test_deviations_from_the_mean():
    """The project's case: mean 30 %, so n2 can take up to 35 %: two pods, though n1 stays above its target."""
    hosted = {"n1": {"a": 5, "fixed": 3}, "n2": {"a": 1}, "n3": {}}
    fleet = build(hosted, state={"n3": DRAINING})
    rules = Rules(pods_per_node=10, node_fit=True, exclude=("fixed",))
    assert left(low(5, 5, "cpu", "pods", use_deviation=True), fleet, rules) == {"n1": 2}


def test_overused_is_any_resource_and_underused_is_all():
    busy = {"a": (0.4, 0.6)}  # memory 60 % with three pods, CPU 30 %
    policy = low(20, 50, "cpu", "memory")
    assert left(policy, build({"n1": {"a": 3}, "n2": {}}, requests=busy)) == {"n1": 1}
    half = {"a": (0.4, 0.6), "b": (0.1, 0.75)}  # n2: CPU 2 %, memory 25 %
    assert left(policy, build({"n1": {"a": 3}, "n2": {"b": 1}}, requests=half)) == {}


def test_equal_to_a_threshold_is_below_it():
    policy = low(20, 50, "cpu")
    assert left(policy, build({"n1": {"a": 8}, "n2": {"a": 2}})) == {"n1": 3}
    assert left(policy, build({"n1": {"a": 8}, "n2": {"a": 3}})) == {}


def test_it_stops_when_the_receivers_are_full():
    """n2 may take up to 50 %: 2 cores. Of n1's pods of 0.8 a third one still goes, as 0.4 are left before it."""
    assert left(low(20, 50, "cpu"), build({"n1": {"a": 5}, "n2": {}}, requests={"a": (0.8, 0.0)})) == {"n1": 3}


def test_resources_without_a_threshold_can_fill_up_too():
    """Only CPU is judged, but n2 has no memory left: nothing can go there."""
    fleet = build({"n1": {"a": 6}, "n2": {"b": 1}}, requests={"a": (0.6, 0.1), "b": (0.1, 3.0)})
    assert left(low(20, 50, "cpu"), fleet) == {}


@pytest.mark.parametrize(
    ("hosted", "changes"),
    [
        ({"n1": {"a": 8}, "n2": {"a": 4}}, {}),
        ({"n1": {"a": 1}, "n2": {"a": 2}}, {}),
        ({"n1": {"a": 4}, "n2": {"a": 1}}, {}),
        ({"n1": {"a": 8}, "n2": {"a": 1}}, {"number_of_nodes": 1}),
    ],
    ids=["no node is underused", "all are", "none is overused", "no more than number_of_nodes"],
)
def test_when_nothing_is_done(hosted, changes):
    assert left(low(20, 50, "cpu", **changes), build(hosted)) == {}


@pytest.mark.parametrize("state", [BOOTING, FAILED, DRAINING])
def test_only_schedulable_nodes_receive(state):
    assert left(low(20, 50, "cpu"), build({"n1": {"a": 8}, "n2": {}}, state={"n2": state})) == {}


def test_the_node_with_the_most_memory_goes_first():
    """Millicores and bytes are added up as they are: n2 comes first though n1 uses more CPU."""
    hosted = {"n1": {"a": 9}, "n2": {"b": 6}, "n3": {}}
    fleet = build(hosted, requests={"a": (0.4, 0.0), "b": (0.4, 0.4)})
    assert left(low(20, 50, "cpu"), fleet, Rules(max_total=1)) == {"n2": 1}


def test_the_sentence_has_its_numbers():
    (eviction,) = low(20, 70, "pods").evictions(build({"n1": {"a": 8}, "n2": {"a": 1}, "n3": {}}), TEN)
    assert eviction.reason == "a-0 leaves n1: pods at 80 % is above 70 %, and 2 of 3 nodes are underused"


# ---------------------------------------------------------------- HighNodeUtilization

HIGH = HighNodeUtilization({"cpu": 30, "pods": 30})


def test_underused_nodes_are_emptied_even_when_they_are_closed():
    """The project's case: p1 and p7 leave, what is protected on n1 stays."""
    fleet = build({"n1": {"a": 1, "fixed": 1}, "n2": {"a": 4}, "n3": {"a": 1}}, state={"n3": DRAINING})
    rules = Rules(pods_per_node=10, node_fit=True, exclude=("fixed",))
    assert left(HIGH, fleet, rules) == {"n1": 1, "n3": 1}


def test_it_stops_when_the_fuller_nodes_are_full():
    """The project's case: n2 has 0.4 cores left, so one of two pods leaves."""
    fleet = build({"n1": {"a": 1}, "n2": {"a": 4}, "n3": {"a": 1}}, size=(2.0, 3.0), state={"n3": DRAINING})
    assert left(HIGH, fleet, FIT) == {"n1": 1}


def test_the_emptiest_node_goes_first():
    fleet = build({"n1": {"a": 2}, "n2": {"a": 1}, "n3": {"a": 6}})
    assert left(HIGH, fleet, Rules(max_total=1)) == {"n2": 1}


def test_no_open_node_is_fuller():
    """The project's case: the only node above the threshold is closed."""
    fleet = build({"n1": {"a": 1}, "n2": {"a": 1}, "n3": {"a": 3}}, state={"n3": DRAINING})
    assert left(HighNodeUtilization({"cpu": 20, "pods": 20}), fleet, FIT) == {}


def test_no_node_below_the_threshold():
    fleet = build({"n1": {"a": 3}, "n2": {"a": 3}, "n3": {"a": 3}})
    assert left(HighNodeUtilization({"cpu": 20, "pods": 20}), fleet, FIT) == {}


def test_a_pod_that_fits_nowhere_else_stays():
    """The project's cases: too little memory on the fuller node, or not allowed to run there."""
    hosted = {"n1": {"a": 4}, "n2": {"b": 1}}
    large = build(hosted, requests={"a": (0.4, 0.5), "b": (0.4, 2.0)})
    bound = build(hosted, only_on={"b": ("n2",)})
    assert left(HIGH, large, FIT) == left(HIGH, bound, FIT) == {}
    assert left(HIGH, build(hosted), FIT) == {"n2": 1}


# ---------------------------------------------------------------- RemoveDuplicates


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((3, 0), 1),
        ((5, 3, 1), 2),
        ((2, 0, 0), 1),
        ((1, 0, 0), 0),
        ((1, 3, 5), 2),
        ((2, 2, 2, 2, 2), 0),
        ((3,), 0),
    ],
)
def test_no_node_holds_more_than_its_share(counts, expected):
    """The project's cases; the even ten on five nodes went round in circles once (#252, #263), one node too (#75)."""
    fleet = build({f"n{i}": {"a": count} for i, count in enumerate(counts)}, requests={"a": (0.1, 0.0)})
    assert sum(left(RemoveDuplicates(), fleet).values()) == expected


def test_closed_nodes_have_no_share():
    """Of (3, 0, 0) with one node closed, two share three; with both closed there is nowhere to go."""
    hosted = {"n1": {"a": 3}, "n2": {}, "n3": {}}
    assert left(RemoveDuplicates(), build(hosted, state={"n3": DRAINING})) == {"n1": 1}
    assert left(RemoveDuplicates(), build(hosted, state={"n2": DRAINING, "n3": FAILED})) == {}


def test_services_are_counted_apart():
    fleet = build({"n1": {"a": 3, "b": 3}, "n2": {}}, requests={"a": (0.1, 0.0), "b": (0.1, 0.0)})
    found = RemoveDuplicates().evictions(fleet, TEN)
    assert [fleet.pod_name[eviction.pod] for eviction in found] == ["a-2", "b-5"]


@pytest.mark.parametrize(
    ("full", "state", "only_on", "expected"),
    [(1.9, UP, (), {}), (1.5, UP, (), {"n1": 1}), (0.0, DRAINING, (), {}), (0.0, UP, ("n1",), {})],
    ids=["no room", "room", "closed", "not allowed"],
)
def test_duplicates_go_where_there_is_a_place(full, state, only_on, expected):
    fleet = build(
        {"n1": {"a": 3}, "n2": {"b": 1}},
        requests={"a": (0.4, 0.0), "b": (full, 0.0)},
        size=(2.0, 3.0),
        state={"n2": state},
        only_on={"a": only_on},
    )
    assert left(RemoveDuplicates(), fleet, FIT) == expected


# ---------------------------------------------------------------- topology spread


def zones(*counts: int, **changes) -> Fleet:
    """One node and zone for each count of replicas of "a"."""
    hosted = {f"n{i}": {"a": count} for i, count in enumerate(counts)}
    return build(hosted, zone={node: f"zone-{node}" for node in hosted}, requests={"a": (0.1, 0.0)}, **changes)


@pytest.mark.parametrize(
    ("sizes", "moved"),
    [
        ((1, 2), 0),
        ((1, 3), 1),
        ((2, 5), 1),
        ((0, 4), 2),
        ((2, 3, 3), 0),
        ((0, 0, 6), 4),
        ((0, 0, 4, 4), 4),
        ((1, 1, 1), 0),
        ((), 0),
    ],
)
def test_moves_bring_sizes_within_the_skew(sizes, moved):
    found = moves(sizes, 1)
    assert sum(count for *_, count in found) == moved
    after = list(sizes)
    for giver, taker, count in found:
        after[giver] -= count
        after[taker] += count
    assert max(after, default=0) - min(after, default=0) <= 1


@given(st.lists(st.integers(0, 30), min_size=1, max_size=8), st.integers(1, 4))
def test_moves_conserve_and_never_overshoot_the_mean(drawn, skew):
    sizes = sorted(drawn)
    after = list(sizes)
    for giver, taker, count in moves(sizes, skew):
        assert count > 0
        after[giver] -= count
        after[taker] += count
    mean = sum(sizes) / len(sizes)
    assert sum(after) == sum(sizes)
    assert all(min(size, int(mean)) <= now <= max(size, mean + 1) for size, now in zip(sizes, after, strict=True))


@pytest.mark.parametrize(
    ("counts", "expected"), [((2, 1), {}), ((3, 1), {"n0": 1}), ((5, 2), {"n0": 1}), ((4, 0), {"n0": 2})]
)
def test_crowded_zones_give(counts, expected):
    """The project's cases with two zones."""
    assert left(TopologySpread(), zones(*counts)) == expected


def test_only_zones_where_it_may_run_count():
    """The project's cases: three of six zones are closed to it, so (3, 3, 2) is even and (4, 3, 1) gives one."""
    allowed = {"a": ("n3", "n4", "n5")}
    assert left(TopologySpread(), zones(0, 0, 0, 3, 3, 2, only_on=allowed)) == {}
    assert left(TopologySpread(), zones(0, 0, 0, 4, 3, 1, only_on=allowed)) == {"n3": 1}


def test_protected_replicas_stay_and_the_others_go():
    fleet = zones(4, 0, since_s=950.0)
    fleet.pod_since_s[:2] = 0.0
    found = TopologySpread().evictions(fleet, Rules(min_pod_age_s=100.0))
    assert sorted(eviction.pod for eviction in found) == [0, 1]


def test_without_room_in_the_other_zone_nobody_moves():
    """Whatever node_fit says."""
    fleet = build(
        {"n1": {"a": 4}, "n2": {"b": 1}},
        zone={"n1": "x", "n2": "y"},
        requests={"a": (0.4, 0.0), "b": (3.9, 0.0)},
        only_on={"b": ("n2",)},
    )
    assert left(TopologySpread(), fleet, TEN) == {}


# ---------------------------------------------------------------- the shared rules


CROWD = build({"n1": {"a": 8, "b": 4}, "n2": {"b": 8}, "n3": {}}, requests={"a": (0.1, 0.0), "b": (0.1, 0.0)})


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (Rules(), {"n1": 5, "n2": 4}),
        (Rules(max_per_node=2), {"n1": 2, "n2": 2}),
        (Rules(max_per_service=3), {"n1": 3, "n2": 3}),
        (Rules(max_total=4), {"n1": 4}),
        (Rules(max_total=0), {}),
        (Rules(exclude=("a",)), {"n2": 4}),
        (Rules(min_replicas=9), {"n2": 4}),
        (Rules(min_pod_age_s=1001.0), {}),
    ],
)
def test_the_rules_of_eviction(rules, expected):
    """Of 8 a on one node 5 leave, of 12 b with 4 and 8 on two nodes 4, unless a rule says otherwise."""
    assert left(RemoveDuplicates(), CROWD, rules) == expected


def test_a_disruption_budget_is_kept():
    fleet = build({"n1": {"a": 8}, "n2": {}}, spare=2)
    assert left(RemoveDuplicates(), fleet) == {"n1": 2}
    short = build({"n1": {"a": 8}, "n2": {}}, spare=2, pending={"a": 1})
    assert left(RemoveDuplicates(), short) == {"n1": 1}


def test_policies_share_the_limits_and_no_replica_leaves_twice():
    fleet = build({"n1": {"a": 8}, "n2": {}}, zone={"n1": "x", "n2": "y"}, spare=5)
    policies = [RemoveDuplicates(), TopologySpread(), low(20, 30, "cpu")]
    seen = Observation(0.0, (), np.zeros(0, dtype=np.float32), lambda: fleet)
    names = [action.target for action in Descheduler(policies).decide(seen)]
    assert len(names) == len(set(names)) == 5
    names = [action.target for action in Descheduler(policies, Rules(max_per_node=2)).decide(seen)]
    assert len(names) == 2


POLICIES = [RemoveDuplicates(), TopologySpread(), low(30, 50, "cpu", "pods"), HighNodeUtilization({"cpu": 40})]
counts = st.fixed_dictionaries({service: st.integers(0, 6) for service in "abc"})


@settings(max_examples=60, deadline=None)
@given(
    st.lists(counts, min_size=1, max_size=5),
    st.lists(st.sampled_from([UP, UP, DRAINING, FAILED]), min_size=5, max_size=5),
    st.integers(0, 4),
    st.integers(0, 3),
    st.sampled_from(POLICIES),
)
def test_no_policy_exceeds_limits_or_budgets(hosts, states, spare, limit, policy):
    hosted = {f"n{i}": host for i, host in enumerate(hosts)}
    fleet = build(
        hosted,
        state={f"n{i}": state for i, state in enumerate(states)},
        zone={f"n{i}": "xy"[i % 2] for i in range(5)},
        spare=spare,
    )
    rules = Rules(node_fit=True, max_per_node=limit, pods_per_node=30)
    found = policy.evictions(fleet, rules)
    assert found == policy.evictions(fleet, rules)
    pods = [eviction.pod for eviction in found]
    assert len(set(pods)) == len(pods)
    assert all(np.bincount(fleet.pod_service[pods], minlength=len(fleet.services)) <= fleet.disruptable)
    assert all(np.bincount(fleet.pod_node[pods], minlength=len(hosted)) <= limit)
    evictor = Evictor(fleet, rules)
    assert all(evictor.fits(pod) for pod in pods)
    assert all(fleet.node_state[fleet.pod_node[pod]] in (UP, DRAINING) for pod in pods)


# ---------------------------------------------------------------- the loops that users reported

Scheduler = Callable[[Mapping[str, float]], str]  # free cores of the nodes with room -> one of them


def most_allocated(free: Mapping[str, float]) -> str:
    return min(free, key=lambda node: free[node])


def least_allocated(free: Mapping[str, float]) -> str:
    return max(free, key=lambda node: free[node])


def play(policy: Policy, hosted: Hosted, scheduler: Scheduler, cycles: int, rules: Rules = TEN, **built):
    """What is hosted after each cycle: replicas are evicted, then the scheduler places each anew, in turn."""
    state, history = {node: dict(services) for node, services in hosted.items()}, []
    for _ in range(cycles):
        fleet = build(state, **built)
        gone = [eviction.pod for eviction in policy.evictions(fleet, rules)]
        names = [fleet.services[fleet.pod_service[pod]].name for pod in gone]
        for pod, name in zip(gone, names, strict=True):
            state[fleet.node_name[fleet.pod_node[pod]]][name] -= 1
        for name in names:
            now = build(state, **built)
            asked = now.request[[service.name for service in now.services].index(name)]
            fits = {
                node: now.node_free[i, 0] for i, node in enumerate(state) if (now.node_free[i] >= asked - 1e-9).all()
            }
            node = scheduler(fits)
            state[node][name] = state[node].get(name, 0) + 1
        history.append((len(gone), {node: {s: n for s, n in held.items() if n} for node, held in state.items()}))
    return history


def test_evicted_pods_return_to_the_same_node():
    """kubernetes-sigs/descheduler #994 and #616: spread by the one, packed by the other, every cycle anew."""
    hosted = {"n1": {"a": 5}, "n2": {}}
    built = {"requests": {"a": (0.8, 0.0)}}
    history = play(low(20, 50, "cpu"), hosted, most_allocated, 6, FIT, **built)
    assert history == [(3, hosted)] * 6


def test_a_scheduler_of_the_same_mind_ends_it():
    """With LeastAllocated the same fleet is even after one cycle."""
    built = {"requests": {"a": (0.8, 0.0)}}
    history = play(low(20, 50, "cpu"), {"n1": {"a": 5}, "n2": {}}, least_allocated, 4, FIT, **built)
    assert [evicted for evicted, _ in history] == [3, 0, 0, 0]


def test_a_pod_too_large_for_the_target_wanders_for_ever():
    """kubernetes-sigs/descheduler #1695: it overloads every node that it comes to, and is evicted every 5 minutes."""
    built = {"requests": {"big": (3.2, 0.0)}}
    history = play(low(25, 70, "cpu"), {"n1": {"big": 1}, "n2": {}, "n3": {}}, least_allocated, 6, FIT, **built)
    assert [evicted for evicted, _ in history] == [1] * 6


def test_duplicates_come_back_when_the_other_nodes_are_full():
    """kubernetes-sigs/descheduler #1237, #827: nodes without room count as places to go, unless node_fit is on."""
    hosted = {"n1": {"a": 4}, "n2": {"b": 1}, "n3": {"c": 1}}
    built = {"requests": {"a": (0.4, 0.0), "b": (3.9, 0.0), "c": (3.9, 0.0)}}
    assert play(RemoveDuplicates(), hosted, least_allocated, 5, TEN, **built) == [(2, hosted)] * 5
    assert play(RemoveDuplicates(), hosted, least_allocated, 5, FIT, **built) == [(0, hosted)] * 5


def test_packing_moves_a_pod_to_an_emptier_node():
    """kubernetes-sigs/descheduler #1461: node_fit takes any node with room, also one emptier than the pod's own.

    The pods of 1.6 cores on n2 do not fit on n1, the only fuller node; n3 has room, so one leaves, cycle after cycle.
    """
    hosted = {"n1": {"b": 1}, "n2": {"a": 1}, "n3": {"c": 1}}
    built = {"requests": {"a": (1.6, 0.0), "b": (3.2, 0.0), "c": (2.0, 0.0)}, "only_on": {"c": ("n3",), "b": ("n1",)}}
    history = play(HighNodeUtilization({"cpu": 60}), hosted, least_allocated, 4, FIT, **built)
    assert [evicted for evicted, _ in history] == [1] * 4


# ---------------------------------------------------------------- the controller


def test_it_evicts_by_name_and_says_why():
    fleet = build({"n1": {"a": 3}, "n2": {}})
    seen = Observation(0.0, (), np.zeros(0, dtype=np.float32), lambda: fleet)
    (action,) = Descheduler([RemoveDuplicates()]).decide(seen)
    assert (action.kind, action.target, action.value, action.confidence) == ("evict", "a-2", 1, 1.0)
    assert action.reason == "a-2 leaves n1: 3 of 3 replicas are there, and 2 nodes could hold 2 each"


def test_a_plant_without_a_fleet_is_refused():
    with pytest.raises(PolicyError, match="shows no fleet"):
        Descheduler([RemoveDuplicates()]).decide(Observation(0.0, (), np.zeros(0, dtype=np.float32)))


def test_the_configuration_makes_a_controller():
    made = hydra.utils.instantiate(OmegaConf.load(CONF / "descheduler.yaml"), _convert_="all")
    assert isinstance(made, Controller)
    assert isinstance(made, Descheduler)
    assert made.policies == (RemoveDuplicates(), TopologySpread(), low(20, 50, "cpu", "memory", "pods"))
    assert made.rules == Rules(node_fit=True)
    fleet = build({"n1": {"cell": 6}, "n2": {}})
    seen = Observation(0.0, (), np.zeros(0, dtype=np.float32), lambda: fleet)
    assert [action.target for action in made.decide(seen)][:3] == ["cell-3", "cell-4", "cell-5"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Descheduler([]),
        lambda: low(20, 50),
        lambda: low(20, 150, "cpu"),
        lambda: low(60, 50, "cpu"),
        lambda: low(20, 50, "disk"),
        lambda: LowNodeUtilization({"cpu": 20}, {"memory": 50}),
        lambda: TopologySpread(0),
        lambda: Rules(pods_per_node=0),
        lambda: Rules(max_total=-1),
    ],
)
def test_nonsense_is_refused(make):
    with pytest.raises(UsageError):
        make()


def test_it_needs_no_simulator():
    """The bridge runs it where none of these is installed."""
    heavy = ("simpy", "numba", "jax", "torch", "gymnasium", "scipy")
    rooms = "agents.rules.pods.descheduler, agents.rules.pods.descheduler_nodes, agents.rules.pods.descheduler_spread"
    code = f"import sys, {rooms}; sys.exit(any(name in sys.modules for name in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=CONF.parents[1], check=False).returncode == 0
