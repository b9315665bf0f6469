"""First fit by whole services: the same as pod by pod, and never more than there is."""

import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.rules.nodes import packing, pools
from agents.rules.nodes.claims import Market, buy, claim, level
from agents.rules.nodes.expanders import Option, check, choose, estimate, price_score, waste
from agents.rules.nodes.unneeded import ScaleDown, try_without, utilisation
from tests.agents.rules.conftest import fleet_of
from twin.errors import PolicyError, UsageError
from twin.fleet import BOOTING, DRAINING, FAILED, UP
from twin.types import Columns, Observation, Pool, Service

NODE = np.array([1.0, 5000.0])  # one core and 5000 MB, as in the estimator's own tests
BIG, SMALL = Pool("big", 8, 32, 0.4, 0), Pool("small", 4, 16, 0.2, 0)
WEB = Service("web", 1, 2, 4, 0.1, 1, 1.0, max_unavailable=100)
DB = Service("db", 1, 1, 8, 0.1, 1, 1.0, pools=("big",), max_unavailable=100)
fleet = partial(fleet_of, pools=(BIG, SMALL), services=(WEB, DB), time_s=1000.0)


# ---------------------------------------------------------------- first fit


@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 16)), min_size=1, max_size=12),
    st.integers(0, 40),
    st.tuples(st.integers(0, 3), st.integers(1, 5)),
)
def test_whole_services_go_where_single_pods_would(free, count, request):
    """Filling the nodes in order gives what first fit gives pod by pod."""
    left, expected = np.array(free, dtype=float), np.zeros(len(free), dtype=int)
    for _ in range(count):
        fits = np.flatnonzero((left >= request).all(axis=1))
        if len(fits):
            left[fits[0]] -= request
            expected[fits[0]] += 1
    assert packing.fill(packing.fitting(np.array(free, dtype=float), np.array(request, float)), count).tolist() == list(
        expected
    )


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=8), st.integers(0, 60))
def test_the_claim_with_the_fewest_pods_takes_the_next(claims, count):
    """Levelling gives what giving each pod to the emptiest claim with room gives."""
    have = [pods for pods, _ in claims]
    fit = [room for _, room in claims]
    expected = [0] * len(claims)
    for _ in range(count):
        open_ones = [n for n in range(len(claims)) if expected[n] < fit[n]]
        if open_ones:
            expected[min(open_ones, key=lambda n: (have[n] + expected[n], n))] += 1
    assert level(np.array(have, dtype=int), np.array(fit, dtype=int), count).tolist() == expected


@given(st.lists(st.integers(0, 4), min_size=1, max_size=6), st.lists(st.integers(0, 1), max_size=20))
def test_nothing_is_lost_and_no_node_overflows(held, pending):
    """What is placed and what is left are all pods, and no node holds more than it has nor what it may not."""
    cluster = fleet([(n % 2, UP, [0] * min(pods, 4 - 2 * (n % 2))) for n, pods in enumerate(held)], pending)
    room = packing.room(cluster)
    counts = packing.homeless(cluster)
    before = room.held.sum()
    left = packing.place(room, counts, pools.in_state(cluster, UP), packing.by_size(cluster.request))
    assert (room.free >= -1e-6).all()
    assert (left >= 0).all()
    assert room.held.sum() - before == counts.sum() - left.sum()
    assert not room.held[cluster.node_pool == 1, 1].any()  # databases may not run on small nodes


def test_a_sum_of_tenths_fills_a_node_to_the_brim():
    """Ten pods of 0.1 cores fit on one core, whatever floating point says."""
    assert packing.fitting(np.array([[0.1 * 3 + 0.7, 10.0]]), np.array([0.1, 1.0])).tolist() == [10]


def test_homeless_are_those_that_wait_and_those_that_must_leave():
    """Pods on draining nodes need room as pending pods do; those on nodes marked by hand too."""
    cluster = fleet([(0, UP, [0]), (0, DRAINING, [0, 1])], pending=[1])
    assert packing.homeless(cluster).tolist() == [1, 2]
    assert packing.homeless(cluster, np.array([True, False])).tolist() == [2, 2]


def test_a_plant_without_a_fleet_and_a_pool_that_is_not_there_are_named():
    """Both are told to the user, with what is known."""
    with pytest.raises(PolicyError, match="shows no fleet"):
        pools.look(Observation(0.0, Columns(), np.zeros(0, dtype=np.float32)), "packer")
    with pytest.raises(PolicyError, match=r"no pool \['huge'\]; its pools are \['big', 'small'\]"):
        pools.pool_places(fleet([]), ["big", "huge"], "packer")


# ---------------------------------------------------------------- the estimator and the expanders


@pytest.mark.parametrize(
    ("size", "asks", "counts", "most", "nodes", "placed"),
    [
        ((1.0, 2000.0), [(0.35, 1000.0)], [10], 1000, 5, [10]),  # two by memory, not three by CPU
        (NODE, [(0.5, 1000.0)], [20], 5, 5, [10]),  # the bound on nodes cuts it off
        (NODE, [(0.05, 1000.0), (0.5, 1000.0)], [10, 10], 5, 5, [0, 10]),  # the larger ones first
        (NODE, [(0.05, 100.0), (0.095, 190.0)], [50_000, 1000], 3000, 2595, [50_000, 1000]),
        (NODE, [(2.0, 1.0)], [3], 10, 0, [0]),  # fits on no node
    ],
)
def test_the_estimator_of_the_cluster_autoscaler(size, asks, counts, most, nodes, placed):
    """The cases of its own tests (binpacking_estimator_test.go), and its benchmark of 51,000 pods."""
    found, held = estimate(np.array(size), np.array(asks), np.array(counts), most)
    assert (found, held.tolist()) == (nodes, placed)


def option(pool: str, nodes: int = 1, pods: int = 1, cores: float = 0.5, gib: float = 1.0, size=(8.0, 16.0), usd=0.1):
    return Option(pool, nodes, pods, np.array([cores, gib]), np.array(size), usd)


def test_least_waste_prefers_the_pool_that_leaves_least():
    """The case of waste_test.go: for one small pod rather little memory than much, and rather few cores."""
    balanced, highmem, lowcpu = option("balanced"), option("highmem", size=(8.0, 32.0)), option("lowcpu", size=(4, 16))
    rng = np.random.default_rng(0)
    assert choose([balanced, highmem], ["least-waste"], rng).pool == "balanced"
    assert choose([balanced, highmem, lowcpu], ["least-waste"], rng).pool == "lowcpu"
    assert waste(balanced) == pytest.approx(0.9375 + 0.9375)


def test_most_pods_does_not_care_for_a_tight_fit():
    """kubernetes/autoscaler #2513: for one pod of 0.7 cores a node of 1 core and one of 4 are the same to most-pods."""
    small, large = option("group1", cores=0.7, size=(1.0, 1.0)), option("group2", cores=0.7, size=(4.0, 4.0))
    drawn = {choose([small, large], ["most-pods"], np.random.default_rng(seed)).pool for seed in range(20)}
    assert drawn == {"group1", "group2"}
    assert choose([small, large], ["least-waste"], np.random.default_rng(0)).pool == "group1"


def test_expanders_narrow_each_others_choice():
    """A tie of the first is settled by the second; least-nodes wants few nodes, most-pods many pods."""
    few, many, more = option("few", nodes=1), option("many", nodes=3), option("more", nodes=4, pods=9)
    rng = np.random.default_rng(0)
    assert choose([many, few], ["most-pods", "least-nodes"], rng).pool == "few"
    assert choose([many, few, more], ["most-pods", "least-nodes"], rng).pool == "more"


def test_priority_takes_the_highest_and_leaves_out_who_has_none():
    """Pools that nobody gave a priority lose against those that have one; without any, all are equal."""
    options = [option("spot"), option("on-demand"), option("other")]
    rng = np.random.default_rng(0)
    assert choose(options, ["priority", "random"], rng, priorities={"spot": 50, "on-demand": 10}).pool == "spot"
    assert choose(options[1:], ["priority"], rng, priorities={"on-demand": -5}).pool == "on-demand"
    assert choose(options, ["priority"], rng, priorities={"absent": 1}) in options


def test_price_weighs_money_and_how_well_the_nodes_suit_the_cluster():
    """A node eight times too large is eight times as bad; the penalty fades as many are added."""
    right, large = option("right", size=(8.0, 30.0), usd=0.4), option("large", size=(64.0, 30.0), usd=0.4)
    assert price_score(large, 50) == pytest.approx(8 * price_score(right, 50))
    many = option("large", nodes=200, size=(64.0, 30.0), usd=0.4)
    plain = (200 * 0.4 + 0.0187579) / (0.5 * 0.033174 + 0.004446 + 0.0187579)
    assert price_score(many, 50) == pytest.approx(plain, rel=1e-3)
    cheap = option("cheap", size=(8.0, 30.0), usd=0.1)
    assert choose([right, cheap], ["price"], np.random.default_rng(0), cluster_nodes=50).pool == "cheap"


def test_an_unknown_expander_is_named():
    """So is an empty list."""
    with pytest.raises(UsageError, match="cheapest"):
        check(["least-waste", "cheapest"])
    with pytest.raises(UsageError, match="choose one"):
        check([])


# ---------------------------------------------------------------- what goes, what is bought


def test_nodes_found_unneeded_together_make_room_for_each_other():
    """Of three nodes with one pod each two can go, not three: the pods of the first went to the last."""
    cluster = fleet([(1, UP, [0]), (1, UP, [0]), (1, UP, [0])])
    trial = try_without(cluster, packing.room(cluster), [1], ScaleDown(utilisation=0.6))
    assert trial.unneeded == [0]
    assert set(trial.stuck) == {1, 2}
    roomy = fleet([(0, UP, [0]), (0, UP, [0]), (0, UP, [0])])
    trial = try_without(roomy, packing.room(roomy), [0], ScaleDown())
    assert trial.unneeded == [0, 1]
    assert set(trial.stuck) == {2}


def test_empty_nodes_and_known_ones_are_tried_first_and_draining_ones_not_at_all():
    """The order decides who goes when not all can; failed nodes count, those of other pools do not."""
    cluster = fleet([(0, UP, [0]), (0, UP, [0]), (0, UP, []), (0, DRAINING, []), (0, FAILED, []), (1, UP, [])])
    trial = try_without(cluster, packing.room(cluster), [0], ScaleDown(), known={"big-1"}, most=3)
    assert trial.unneeded == [2, 4, 1]


@pytest.mark.parametrize(("known", "most"), [(0, 20), (5, 25), (10_000, 610)])
def test_how_many_unneeded_nodes_are_worth_knowing(known, most):
    """Two removals more than known, and no more than can be removed while one waits (planner.go)."""
    assert ScaleDown().most_unneeded(known, 10.0) == most


def test_utilisation_is_the_larger_share():
    """Of CPU (2 of 8) and memory (12 of 32) memory counts."""
    cluster = fleet([(0, UP, [1, 0]), (0, BOOTING, [])])
    assert utilisation(cluster, packing.room(cluster)).tolist() == [0.375, 0.0]


def shop(sizes, prices, left=100) -> Market:
    pools = len(sizes)
    return Market(
        np.array(sizes, dtype=float),
        np.array(prices),
        np.zeros(pools, dtype=bool),
        np.full(pools, left),
        np.ones((2, pools), dtype=bool),
    )


def test_karpenter_packs_into_the_largest_and_buys_the_cheapest_that_holds_it():
    """Five pods of two cores fill one node of eight and open another; the rest is bought as small as it is."""
    market = shop([(8, 32), (4, 16), (2, 8)], [0.4, 0.2, 0.1])
    claims, left = claim(market, np.array([[2.0, 4.0], [1.0, 1.0]]), np.array([5, 0]), [0, 1])
    assert claims.pods.tolist() == [4, 1]
    assert not left.any()
    assert buy(claims, market) == (pytest.approx([1, 0, 1]), 0)


def test_a_pool_that_is_sold_out_is_passed_over():
    """Two claims, one cheap node left: the second is bought dearer, the third cannot be had."""
    market = shop([(2, 8), (2, 8)], [0.1, 0.3], left=1)
    claims, _ = claim(market, np.array([[2.0, 4.0], [1.0, 1.0]]), np.array([3, 0]), [0, 1])
    bought, unserved = buy(claims, market)
    assert bought.tolist() == [1, 1]
    assert unserved == 1


@given(st.lists(st.integers(0, 30), min_size=2, max_size=2))
def test_claims_hold_what_was_asked_for(counts):
    """Every pod is in a claim that at least one pool can hold."""
    market = shop([(8, 32), (4, 16)], [0.4, 0.2])
    request = np.array([[2.0, 4.0], [1.0, 8.0]])
    claims, left = claim(market, request, np.array(counts), packing.by_size(request))
    assert not left.any()
    assert claims.pods.sum() == sum(counts)
    assert claims.asked.sum(axis=0) == pytest.approx(np.array(counts) @ request)
    assert claims.possible.any(axis=1).all()
    assert len(claims) >= math.ceil(max(np.array(counts) @ request / (8, 32)) - 1e-9)


def test_a_copy_of_a_room_is_independent():
    """Trying something out changes nothing."""
    room = packing.room(fleet([(0, UP, [0])]))
    after = room.copy()
    packing.settle(after, 0, 2, np.array([0]))
    assert room.held.tolist() == [[1, 0]]
    assert after.held.tolist() == [[3, 0]]
