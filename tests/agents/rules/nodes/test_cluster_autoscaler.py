"""The Cluster Autoscaler: what its FAQ promises, what its users report, and the sentences it says."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import hydra
import numpy as np
import pytest
from omegaconf import OmegaConf

from agents.rules.nodes.cluster_autoscaler import ClusterAutoscaler, ScaleUp
from agents.rules.nodes.unneeded import ScaleDown
from tests.agents.rules.conftest import fleet_of, showing
from twin.errors import PolicyError, UsageError
from twin.fleet import BOOTING, DRAINING, FAILED, UP, Fleet
from twin.types import Action, Columns, Observation, Pool, Service

CONF = Path(__file__).parents[4] / "conf" / "controller"
WORKERS = Pool("workers", 4, 16, 0.2, 0, max_nodes=10)
LARGE = Pool("large", 16, 64, 0.8, 0, max_nodes=10)
WEB = Service("web", 1, 1, 2, 0.1, 1, 1.0, max_unavailable=100)
fleet = partial(fleet_of, pools=(WORKERS,), services=(WEB,))


def autoscaler(**changes) -> ClusterAutoscaler:
    return ClusterAutoscaler(**{"pools": ["workers"], **changes})


def scan(controller: ClusterAutoscaler, seen: Fleet, time_s: float = 0.0) -> list[Action]:
    return controller.decide(showing(replace(seen, time_s=time_s)))


def only(actions: list[Action]) -> tuple[str, str, int]:
    (action,) = actions
    return action.kind, action.target, action.value


def drained(
    controller: ClusterAutoscaler, seen: Fleet, until_s: float, start_s: float = 0.0
) -> tuple[float, list[str]]:
    """When something is drained first, and what; (inf, []) when nothing is until then."""
    for time_s in np.arange(start_s, until_s + 1, 10.0):
        names = [action.target for action in scan(controller, seen, float(time_s)) if action.kind == "drain"]
        if names:
            return float(time_s), names
    return float("inf"), []


# ---------------------------------------------------------------- growing


def test_pods_without_room_get_as_many_nodes_as_they_need():
    """Nine pods of a core: three fit on what is up, six need two nodes of four."""
    (action,) = scan(autoscaler(), fleet([(0, UP, [0])], [0] * 9))
    assert (action.kind, action.target, action.value) == ("nodes", "workers", 3)
    assert action.reason == "grown from 1 by 2 nodes for 6 of 6 pods without room, the only choice"


def test_nodes_that_boot_or_were_asked_for_count():
    """Scanned again before the nodes are up, nothing more is asked for."""
    for seen in (
        fleet([(0, UP, [0] * 4), (0, BOOTING, [])], [0] * 4),
        fleet([(0, UP, [0] * 4)], [0] * 4, wanted=[2]),  # not even booting yet
    ):
        assert only(scan(autoscaler(), seen)) == ("nodes", "workers", 2)
    assert only(scan(autoscaler(), fleet([(0, UP, [0] * 4), (0, BOOTING, [])], [0] * 5))) == ("nodes", "workers", 3)


def test_pods_of_a_draining_node_need_room_too():
    """Else growth would wait until they are evicted."""
    seen = fleet([(0, UP, [0] * 4), (0, DRAINING, [0])])
    assert only(scan(autoscaler(), seen)) == ("nodes", "workers", 2)


def test_no_pool_grows_beyond_its_most_nodes():
    """What is asked for is cut off at the bound; at the bound it says so."""
    pool = replace(WORKERS, max_nodes=3)
    assert only(scan(autoscaler(), fleet([(0, UP, [0] * 4)], [0] * 99, pools=[pool]))) == ("nodes", "workers", 3)
    full = fleet([(0, UP, [0] * 4)] * 3, [0, 0], pools=[pool])
    (action,) = scan(autoscaler(), full)
    assert action == Action("nodes", "workers", 3, "kept at 3: 2 pods without room, but it has its most nodes (3)")


def test_a_pod_that_fits_on_no_node_grows_nothing():
    """FAQ: a pod larger than every node stays pending; nodes for it would be of no use."""
    huge = replace(WEB, cpu_cores=99)
    (action,) = scan(autoscaler(), fleet([(0, UP, [])], [0], services=[huge]))
    assert action.value == 1
    assert "none of them fits on its nodes" in action.reason


def test_only_pools_where_the_service_may_run_grow():
    """What a node selector is to a cluster, the pools of a service are here."""
    picky = replace(WEB, pools=("large",))
    seen = fleet([(0, UP, [])], [0], pools=[WORKERS, LARGE], services=[picky])
    grown, kept = scan(autoscaler(pools=["workers", "large"]), seen)
    assert (grown.target, grown.value) == ("large", 1)
    assert kept.reason == "kept at 1: pool large grows for the pending pods"


@pytest.mark.parametrize(
    ("expander", "pool", "nodes"),
    [("least-waste", "workers", 2), ("least-nodes", "large", 1), ("price", "workers", 2), ("priority", "large", 1)],
)
def test_the_expander_chooses_the_pool(expander, pool, nodes):
    """FAQ: least-waste leaves the least unused, price spends the least, priority does as it was told."""
    controller = autoscaler(pools=["workers", "large"], expanders=[expander], priorities={"large": 1})
    seen = fleet([], [0] * 8, pools=[WORKERS, LARGE])
    action = scan(controller, seen)[0]
    assert (action.target, action.value) == (pool, nodes)


def test_most_pods_takes_the_pool_that_helps_most():
    """kubernetes/autoscaler #2513: it helps the most pods in one go and does not look at how they fit."""
    seen = fleet([], [0] * 8, pools=[replace(WORKERS, max_nodes=1), LARGE])
    controller = autoscaler(pools=["workers", "large"], expanders=["most-pods"])
    assert scan(controller, seen)[0].target == "large"


def test_draws_come_from_the_seed():
    """Random expander: the same seed grows the same pools, another one may not."""
    seen = fleet([], [0], pools=[WORKERS, LARGE])

    def drawn(seed: int) -> list[str]:
        controller = autoscaler(pools=["workers", "large"], expanders=["random"], seed=seed)
        return [scan(controller, seen)[0].target for _ in range(12)]

    assert drawn(1) == drawn(1)
    assert set(drawn(1)) == {"workers", "large"}


def test_a_pool_that_does_not_deliver_is_left_alone_longer_each_time():
    """After 15 min the nodes are taken back and the other pool helps; 5 min of patience double to 30 min."""
    controller = autoscaler()
    seen = fleet([(0, UP, [0] * 4)], [0] * 4)
    never = replace(seen, nodes_wanted=np.array([2]))
    time_s, waits_s, actions = 0.0, [], []
    for _ in range(5):
        assert only(scan(controller, seen, time_s)) == ("nodes", "workers", 2)
        for _ in range(91):
            time_s += 10.0
            actions = scan(controller, never, time_s)
        assert only(actions) == ("nodes", "workers", 1)
        failed_s = time_s
        while scan(controller, seen, time_s)[0].value == 1:
            time_s += 10.0
        waits_s.append(time_s - failed_s)
        controller._asked.clear()  # the growth just seen is asked for again at the top of the loop
    assert waits_s == [300, 600, 1200, 1800, 1800]


def test_a_delivered_node_clears_the_pools_name():
    """A success after a failure makes the next patience short again."""
    controller = autoscaler(scale_up=ScaleUp(provision_s=100))
    seen = fleet([(0, UP, [0] * 4)], [0] * 4)
    never = replace(seen, nodes_wanted=np.array([2]))
    scan(controller, seen)
    assert "left alone for 300 s" in scan(controller, never, 110.0)[0].reason
    assert scan(controller, seen, 420.0)[0].value == 2
    scan(controller, fleet([(0, UP, [0] * 4), (0, UP, [0] * 4)]), 430.0)  # it came
    assert scan(controller, seen, 440.0)[0].value == 2
    assert "left alone for 300 s" in scan(controller, never, 550.0)[0].reason


def test_nothing_is_done_with_a_sick_cluster():
    """FAQ: with more than 3 and more than 45 % of the nodes not ready it stops."""
    seen = fleet([(0, UP, [])] * 4 + [(0, FAILED, [])] * 4, [0] * 50)
    (action,) = scan(autoscaler(), seen)
    assert (action.value, "4 of 8 nodes are not ready" in action.reason) == (4, True)


# ---------------------------------------------------------------- shrinking


def test_an_unneeded_node_goes_after_ten_minutes_and_says_so_before():
    """FAQ: below 50 %, its pods fit elsewhere, for more than 10 minutes; meanwhile the sentence counts."""
    controller, seen = autoscaler(), fleet([(0, UP, [0, 0]), (0, UP, [0])])
    reason = [scan(controller, seen, 10.0 * step)[0].reason for step in range(25)][-1]
    assert reason == "kept at 2: 1 node unneeded, the longest since 240 s of 600 s"
    time_s, names = drained(controller, seen, 700, start_s=250)
    assert (time_s, names) == (610.0, ["workers-1"])


def test_a_node_at_half_stays():
    """FAQ: the threshold is exclusive, and the larger of CPU and memory counts."""
    assert drained(autoscaler(), fleet([(0, UP, [0, 0]), (0, UP, [0, 0])]), 1200) == (float("inf"), [])
    wide = replace(WEB, cpu_cores=0.1, memory_gib=9)
    assert drained(autoscaler(), fleet([(0, UP, [0]), (0, UP, [])], services=[wide]), 1200)[1] == ["workers-1"]


def test_a_low_node_stays_when_its_pods_fit_nowhere():
    """kubernetes/autoscaler #4125: below the threshold, but no room elsewhere; removal would cycle nodes forever."""
    light, heavy = replace(WEB, name="light", cpu_cores=1.96), replace(WEB, name="heavy", cpu_cores=2.4)
    seen = fleet([(0, UP, [0]), (0, UP, [1])], services=[light, heavy])  # 49 % and 60 %: 4.36 of 4 cores together
    controller = autoscaler()
    assert drained(controller, seen, 1500) == (float("inf"), [])
    assert "no node below 50% whose pods fit elsewhere" in scan(controller, seen, 1510.0)[0].reason


def test_a_busy_small_node_stays_although_large_ones_stand_empty():
    """kubernetes/autoscaler #1838: at 70 % the small node is not even considered, whatever it would save."""
    busy = replace(WEB, cpu_cores=2.8, memory_gib=1)
    seen = fleet([(0, UP, [0]), (1, UP, [0])], pools=[WORKERS, LARGE], services=[busy])
    assert drained(autoscaler(), seen, 1500) == (float("inf"), [])


def test_empty_nodes_go_ten_at_once_and_full_ones_one_by_one():
    """Max-scale-down-parallelism 10, max-drain-parallelism 1."""
    seen = fleet([(0, UP, [])] * 14 + [(0, UP, [0, 0])])
    assert len(drained(autoscaler(), seen, 700)[1]) == 10
    low = fleet([(0, UP, [0])] * 6)
    assert drained(autoscaler(), low, 700)[1] == ["workers-0"]
    leaving = fleet([(0, UP, [0])] * 6 + [(0, DRAINING, [0])])
    assert drained(autoscaler(), leaving, 1200) == (float("inf"), [])


def test_the_fewest_nodes_stay():
    """min_nodes bounds every removal, and the sentence says so."""
    pool = replace(WORKERS, nodes=2, min_nodes=2)
    controller, seen = autoscaler(), fleet([(0, UP, [])] * 3, pools=[pool])
    assert len(drained(controller, seen, 700)[1]) == 1
    at_least = fleet([(0, UP, [])] * 2, pools=[pool])
    controller = autoscaler()
    assert drained(controller, at_least, 700) == (float("inf"), [])
    assert scan(controller, at_least, 710.0)[0].reason.endswith("but the pool has its fewest nodes (2)")


def test_a_disruption_budget_keeps_the_node():
    """FAQ: a PodDisruptionBudget that allows no eviction prevents removal."""
    strict = replace(WEB, max_unavailable=0)
    seen = fleet([(0, UP, [0]), (0, UP, [0])], services=[strict])
    assert drained(autoscaler(), seen, 1500) == (float("inf"), [])
    assert drained(autoscaler(), replace(seen, services=(WEB,)), 1500)[1] == ["workers-0"]


def test_nothing_goes_for_ten_minutes_after_growth():
    """scale-down-delay-after-add: unneeded time runs on, removal waits."""
    controller = autoscaler(scale_down=ScaleDown(unneeded_s=100))
    assert scan(controller, fleet([(0, UP, [0] * 4)], [0]), 0.0)[0].value == 2
    idle = fleet([(0, UP, [0] * 4), (0, UP, [])])
    assert "nothing goes within 600 s of the last growth (200 s ago)" in scan(controller, idle, 200.0)[0].reason
    assert drained(controller, idle, 900, start_s=210) == (600.0, ["workers-1"])


def test_a_refused_drain_pauses_removal_for_three_minutes():
    """A node that was told to go and is still up at the next scan is a failed removal."""
    controller, seen = autoscaler(), fleet([(0, UP, []), (0, UP, [0, 0])])
    first_s, _ = drained(controller, seen, 700)
    (action,) = scan(controller, seen, first_s + 10)
    assert "failed removal" in action.reason
    assert drained(controller, seen, 2000, start_s=first_s + 20)[0] > first_s + 190


def test_an_unready_node_goes_after_twenty_minutes():
    """scale-down-unready-time."""
    seen = fleet([(0, UP, [0, 0, 0]), (0, FAILED, [])], wanted=[1])
    assert drained(autoscaler(), seen, 1400) == (1210.0, ["workers-1"])


def test_a_node_that_failed_the_trial_is_looked_at_again_after_five_minutes():
    """unremovable-node-recheck-timeout: room that appears in between is seen late."""
    controller = autoscaler()
    services = [replace(WEB, name=f"asks-{cores}", cpu_cores=cores) for cores in (1.9, 2.4, 2.0)]
    stuck = fleet([(0, UP, [0]), (0, UP, [1])], services=services)
    scan(controller, stuck)
    roomy = fleet([(0, UP, [0]), (0, UP, [2])], services=services)
    assert drained(controller, roomy, 1500, start_s=10) == (910.0, ["workers-0"])
    assert drained(autoscaler(), roomy, 1500, start_s=10) == (620.0, ["workers-0"])


# ---------------------------------------------------------------- as a controller


def test_it_forgets_and_says_what_it_cannot_use():
    """Reset forgets unneeded time; a plant without a fleet, an unknown pool or no pool are errors."""
    controller, seen = autoscaler(), fleet([(0, UP, []), (0, UP, [0, 0])])
    drained(controller, seen, 600)
    controller.reset()
    assert drained(controller, seen, 1300, start_s=600)[0] == 1210.0
    with pytest.raises(PolicyError, match="no fleet"):
        controller.decide(Observation(0.0, Columns(), np.zeros(0, dtype=np.float32)))
    with pytest.raises(PolicyError, match="no pool"):
        scan(autoscaler(pools=["elsewhere"]), seen)
    with pytest.raises(UsageError, match="must not be empty"):
        autoscaler(pools=[])
    with pytest.raises(UsageError, match="utilisation"):
        ScaleDown(utilisation=2.0)
    with pytest.raises(UsageError, match="most_backoff_s"):
        ScaleUp(backoff_s=600, most_backoff_s=300)


def test_the_configuration_is_the_autoscalers_own():
    """conf/controller/cluster_autoscaler.yaml holds the defaults."""
    built = hydra.utils.instantiate(OmegaConf.load(CONF / "cluster_autoscaler.yaml"))
    assert isinstance(built, ClusterAutoscaler)
    assert (built.up, built.down, built.expanders) == (ScaleUp(), ScaleDown(), ("least-waste",))
