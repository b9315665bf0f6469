"""What overlaps: faults on the same nodes, next lives of a slot, drains beside failures, budgets beside resizes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.twin.conftest import make_cluster, make_trace
from twin.engine.plant import TwinPlant
from twin.engine.scheduling.placement import LeastAllocated
from twin.engine.state import BOOTING, DRAINING, FAILED, OFF, READY, STARTING, UP
from twin.types import Action, Cluster, Delay, Event, Pool, Quota, Record, Service

POOL = Pool("workers", 8, 32, 0.5, nodes=4, max_nodes=8, provision="manual", boot=Delay(60, 0))
AUTO = replace(POOL, provision="pending")


def web(**fields: object) -> Service:
    return replace(make_cluster(start=Delay(30, 0)).services[0], **fields)  # type: ignore[arg-type]


def plant_of(*pools: Pool, events: tuple[Event, ...] = (), quotas: tuple[Quota, ...] = (), **fields: object):
    cluster = Cluster("test", pools, (web(**fields),), quotas)
    trace = make_trace(lambda t: np.full_like(t, 0.2))
    return TwinPlant(trace, cluster, scheduler=LeastAllocated(), events=events, record=Record(), until_s=86_400, seed=0)


def ready(plant: TwinPlant) -> int:
    return int(plant.state.count[0, READY])


# ---------------------------------------------------------------- all at once


def law_of_nodes(plant: TwinPlant) -> None:
    """Counts are true, quotas hold, a manual pool has what it wants as far as there is room, nothing is overbooked."""
    state, pools = plant.state, plant.cluster.pools
    held = state.replica_node >= 0
    used = np.zeros_like(state.node_used)
    np.add.at(used, state.replica_node[held], state.replica_request[held])
    assert state.node_used == pytest.approx(used, abs=1e-9)
    assert (used <= state.node_size + 1e-6).all()
    assert np.isin(state.node_state[state.replica_node[held]], (UP, DRAINING)).all()
    reached = state.cut[state.node_pool[state.replica_node[state.replica_state == READY]]] == 0
    assert reached.all(), "a replica that cannot be reached is ready"
    assert (8 * state.billed[[0, 2]].sum(), 8 * state.billed[[1, 2]].sum()) <= (72, 56)
    for index, pool in enumerate(pools):
        mine = state.node_pool == index
        count = np.bincount(state.node_state[mine], minlength=5)
        assert (count == state.node_count[index]).all()
        assert state.billed[index] == count[[BOOTING, UP, DRAINING]].sum()
        if pool.provision == "manual":
            wanted = state.nodes_wanted[index]
            assert pool.min_nodes <= wanted <= pool.max_nodes
            assert count[BOOTING] + count[UP] <= wanted
            lacks = wanted - count[[BOOTING, UP, FAILED]].sum()
            assert lacks <= 0 or count[OFF] == 0 or plant._nodes._room(index) <= 0


WEAR = replace(
    POOL, min_nodes=1, failures_per_node_day=10.0, repair=Delay(300, 0.5), interruptions_per_node_day=10.0, idle_s=120.0
)
PLACES = {
    "nodes": [("workers", 8), ("far", 8)], "replicas": [("web", 20), ("api", 20)], "cpu_millicores": [("web", 4000)],
    "memory_mib": [("api", 9000)], "drain": [(f"{pool}-{n}", 1) for pool in ("workers", "far") for n in range(8)],
}  # fmt: skip
TROUBLES = [
    ("rack_failure", "workers/0"), ("zone_failure", "zone-a"), ("zone_failure", "zone-b"), ("partition", "zone-a"),
    ("partition", "zone-b"), ("slow_nodes", "auto"), ("disk_full", "auto"), ("interruption", "workers"),
    ("shortage", "workers"), ("memory_leak", "web"),
]  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_whatever_overlaps_the_laws_hold_and_all_heals(seed: int) -> None:
    """Three pools under two quotas, worn and taken back; ten random faults; random wishes, resizes and drains."""
    rng = np.random.default_rng(seed)
    pools = (
        replace(WEAR, nodes_per_rack=2),
        replace(WEAR, name="auto", provision="pending", zone="zone-b", nodes=1),
        replace(WEAR, name="far", zone="zone-b", nodes=0, min_nodes=0),
    )
    services = (web(unit_rps=100.0, memory_base_gib=1.0), web(name="api", demand="web", replicas=4, max_unavailable=0))
    quotas = (Quota("one", ("workers", "far"), 72.0), Quota("other", ("auto", "far"), 56.0))
    events = [
        Event(float(rng.integers(3000)), kind, target, float(rng.integers(1, 1500)), int(rng.integers(1, 4)), 2.0)  # type: ignore[arg-type]
        for kind, target in (TROUBLES[rng.integers(len(TROUBLES))] for _ in range(10))
    ]
    plant = TwinPlant(
        make_trace(lambda t: np.full_like(t, 0.2)), Cluster("test", pools, services, quotas),
        scheduler=LeastAllocated(), events=events, record=Record(), until_s=9000, seed=seed,
    )  # fmt: skip
    kinds = list(PLACES)
    paid_usd = 0.0
    for _ in range(50):
        wishes = []
        for kind in rng.choice(kinds, size=rng.integers(4)):
            target, most = PLACES[kind][rng.integers(len(PLACES[kind]))]
            wishes.append(Action(kind, target, int(rng.integers(max(most // 10, 1), most + 1))))
        plant.apply(wishes)
        plant.advance(float(rng.integers(1, 120)))
        plant.observe()
        law_of_nodes(plant)
        assert plant.state.cost_usd.sum() >= paid_usd
        paid_usd = float(plant.state.cost_usd.sum())
    plant.advance(3000.0)
    law_of_nodes(plant)
    assert not plant.state.cut.any()
    assert not plant.state.down.any()
    assert (plant.state.most_nodes == 8).all()


# ---------------------------------------------------------------- partitions


def test_what_starts_behind_a_partition_is_not_ready_before_it_ends() -> None:
    """4 replicas are wished for at 90 s; they would be ready at 120 s, amid the cut from 100 s to 300 s."""
    plant = plant_of(POOL, events=(Event(100.0, "partition", "zone-a", 200.0),))
    plant.advance(90.0)
    plant.apply([Action("replicas", "web", 16)])
    plant.advance(209.0)
    assert (ready(plant), int(plant.state.count[0, STARTING])) == (0, 16)
    plant.advance(2.0)
    assert ready(plant) == 16


def test_partitions_that_overlap_are_one() -> None:
    """From 100 s to 300 s and from 200 s to 450 s: nothing is ready before 450 s, and at 400 s all give up."""
    events = (Event(100.0, "partition", "zone-a", 200.0), Event(200.0, "partition", "zone-a", 250.0))
    plant = plant_of(POOL, events=events)
    plant.advance(301.0)
    assert ready(plant) == 0
    plant.advance(100.0)
    assert plant.observe()["web.pending_replicas"] == 12
    plant.advance(100.0)
    assert ready(plant) == 12


def test_nodes_ordered_behind_a_partition_are_behind_it_too() -> None:
    """A manual pool doubles at 200 s; its new nodes are up and paid, but out of reach until 1,000 s."""
    plant = plant_of(POOL, events=(Event(100.0, "partition", "zone-a", 900.0),))
    plant.advance(200.0)
    plant.apply([Action("nodes", "workers", 8)])
    plant.advance(600.0)
    seen = plant.observe()
    assert (seen["workers.ready_nodes"], seen["web.ready_replicas"], seen["web.pending_replicas"]) == (8, 0, 12)
    plant.advance(300.0)
    assert ready(plant) == 12


def test_a_self_sizing_pool_does_not_grow_behind_a_partition() -> None:
    plant = plant_of(replace(AUTO, idle_s=5000.0), events=(Event(100.0, "partition", "zone-a", 900.0),))
    plant.advance(900.0)
    seen = plant.observe()
    assert (seen["workers.ready_nodes"], seen["workers.booting_nodes"], seen["web.ready_replicas"]) == (4, 0, 0)
    plant.advance(200.0)
    assert ready(plant) == 12


def test_a_node_repaired_behind_a_partition_is_still_cut_off() -> None:
    events = (Event(100.0, "partition", "zone-a", 600.0), Event(150.0, "node_failure", "workers", 100.0, 4))
    plant = plant_of(POOL, events=events)
    plant.advance(500.0)
    assert plant.observe()["workers.ready_nodes"] == 4
    assert ready(plant) == 0


# ---------------------------------------------------------------- zones


@pytest.mark.parametrize("pool", [POOL, AUTO])
def test_a_zone_that_is_down_brings_no_node_up(pool: Pool) -> None:
    """One node boots when the zone fails at 100 s, more are wished for later: none is up before 1,100 s."""
    plant = plant_of(pool, events=(Event(100.0, "zone_failure", "zone-a", 1000.0),))
    plant.advance(90.0)
    plant.apply([Action("nodes", "workers", 5), Action("replicas", "web", 18)])
    assert plant.state.node_count[0, BOOTING] == 1
    plant.advance(110.0)
    plant.apply([Action("nodes", "workers", 6)])
    plant.advance(890.0)
    seen = plant.observe()
    assert (seen["workers.ready_nodes"], seen["workers.booting_nodes"], seen["web.ready_replicas"]) == (0, 0, 0)
    plant.advance(120.0)
    assert ready(plant) == 18
    assert plant.state.node_count[0, UP] == (6 if pool is POOL else 5)


# ---------------------------------------------------------------- next lives


def test_a_disk_of_an_earlier_life_does_not_open_a_full_one() -> None:
    """Full from 100 s, failed at 200 s and repaired whole at 300 s, full again from 400 s to 2,000 s."""
    one = replace(POOL, nodes=1)
    events = (
        Event(100.0, "disk_full", "workers", 1000.0),
        Event(200.0, "node_failure", "workers", 100.0),
        Event(400.0, "disk_full", "workers", 1600.0),
    )
    plant = plant_of(one, events=events, replicas=4)
    ups = []
    for _ in range(21):
        plant.advance(100.0)
        ups.append(ready(plant))
    assert ups[3] == 4, "repaired, whole"
    assert set(ups[4:19]) == {0}, "full until the second fault ends"
    plant.advance(100.0)
    assert ready(plant) == 4


def test_a_slowness_of_an_earlier_life_does_not_slow_the_next() -> None:
    one = replace(POOL, nodes=1)
    events = (
        Event(100.0, "slow_nodes", "workers", 2000.0, magnitude=0.5),
        Event(200.0, "node_failure", "workers", 100.0),
        Event(400.0, "slow_nodes", "workers", 200.0, magnitude=0.5),
    )
    plant = plant_of(one, events=events, replicas=4)
    plant.advance(500.0)
    assert plant.state.capacity[0] == pytest.approx(2.0)
    plant.advance(200.0)
    assert plant.state.capacity[0] == pytest.approx(4.0)
    plant.advance(1500.0)
    assert plant.state.capacity[0] == pytest.approx(4.0)


# ---------------------------------------------------------------- what a manual pool wants


def test_a_full_pool_replaces_an_interrupted_node_once_that_has_left() -> None:
    """All 4 slots are taken: the replacement is ordered when the notice of 120 s is over."""
    full = replace(POOL, max_nodes=4, offer="spot")
    plant = plant_of(full, events=(Event(100.0, "interruption", "workers", 0.0),), max_unavailable=0)
    plant.advance(221.0)
    assert plant.state.node_count[0].tolist()[BOOTING] == 1
    plant.advance(60.0)
    assert plant.observe()["workers.ready_nodes"] == 4


def test_what_a_quota_refused_is_ordered_when_another_pool_gives_back() -> None:
    other = replace(POOL, name="others", nodes=0)
    plant = plant_of(POOL, other, quotas=(Quota("region", ("workers", "others"), 32.0),), replicas=4)
    plant.apply([Action("nodes", "others", 2)])
    assert plant.state.node_count[1, BOOTING] == 0
    plant.apply([Action("nodes", "workers", 2)])
    plant.advance(200.0)
    assert plant.state.node_count[:, UP].tolist() == [2, 2]


def test_a_drain_leaves_the_pool_its_fewest_nodes() -> None:
    plant = plant_of(replace(POOL, min_nodes=3))
    outcomes = plant.apply([Action("drain", f"workers-{node}", 1) for node in range(2)])
    assert [outcome.status for outcome in outcomes] == ["applied", "rejected"]
    assert "at least 3" in outcomes[1].message
    assert plant.state.nodes_wanted[0] == 3


def test_a_failed_node_that_was_replaced_is_not_wanted_any_more() -> None:
    """4 wanted; one fails; with 5 wanted two boot, so that 5 stay without it: giving it back changes no wish."""
    plant = plant_of(POOL, events=(Event(100.0, "node_failure", "workers", 5000.0),))
    plant.advance(101.0)
    plant.apply([Action("nodes", "workers", 5)])
    plant.advance(100.0)
    failed = int(np.flatnonzero(plant.state.node_state == FAILED)[0])
    plant.apply([Action("drain", f"workers-{failed}", 1)])
    plant.advance(1.0)
    assert (plant.state.nodes_wanted[0], plant.state.node_count[0, UP]) == (5, 5)


def test_a_draining_node_that_fails_is_not_repaired_into_the_pool() -> None:
    plant = plant_of(POOL, events=(Event(50.0, "node_failure", "workers", 100.0, 4),), max_unavailable=0)
    plant.apply([Action("drain", "workers-0", 1)])
    plant.advance(51.0)
    assert plant.state.node_state[0] == DRAINING, "the fullest ready nodes failed"
    plant = plant_of(POOL, events=(Event(50.0, "rack_failure", "workers/0", 100.0),), max_unavailable=0)
    plant.apply([Action("drain", "workers-0", 1)])
    plant.advance(700.0)
    assert (plant.state.nodes_wanted[0], plant.state.node_count[0, UP], plant.state.billed[0]) == (3, 3, 3)


def test_a_pool_that_waits_no_time_for_idle_nodes_keeps_its_fewest() -> None:
    plant = plant_of(replace(AUTO, idle_s=0.0, min_nodes=2), replicas=1)
    plant.advance(3600.0)
    assert plant.observe()["workers.ready_nodes"] == 2


# ---------------------------------------------------------------- budgets


def test_a_resize_taken_back_moves_nobody() -> None:
    """2,000 -> 1,000 -> 2,000 millicores at once: only the first replica, which was let go at once, has moved."""
    plant = plant_of(POOL)
    before = plant.state.replica_born[:12].tolist()
    plant.apply([Action("cpu_millicores", "web", 1000), Action("cpu_millicores", "web", 2000)])
    plant.advance(900.0)
    assert len(set(before) & set(plant.state.replica_born.tolist())) >= 11
    held = plant.state.replica_node >= 0
    assert (plant.state.replica_request[held, 0] == 2.0).all()


def test_what_waits_for_leave_waits_once() -> None:
    """A budget of zero never lets go; a resize each minute must not make the queue longer each time."""
    plant = plant_of(POOL, max_unavailable=0)
    for turn in range(20):
        plant.apply([Action("cpu_millicores", "web", 1000 + turn)])
        plant.advance(60.0)
    assert len(plant._evictions._waiting) == 12


def test_a_name_that_is_no_number_is_refused() -> None:
    assert plant_of(POOL).apply([Action("evict", "web-²", 1)])[0].status == "rejected"


# ---------------------------------------------------------------- what a fleet tells


def test_a_fleet_counts_what_each_replica_was_placed_with() -> None:
    """While 12 replicas roll from 2 to 1 cores one by one, what is free is what the cluster has free."""
    plant = plant_of(POOL)
    plant.apply([Action("cpu_millicores", "web", 1000)])
    plant.advance(155.0)
    fleet = plant.observe().fleet()  # type: ignore[misc]
    up = fleet.node_state == UP
    assert fleet.node_free[up] == pytest.approx(plant.state.node_free[plant.state.node_state == UP])
    assert sorted(set(fleet.pod_request[:, 0].tolist())) == [1.0, 2.0]


def test_a_replica_uses_no_more_than_it_can() -> None:
    """Asking for 4 cores, a replica that can use 2 uses at most 2; before a minute has passed nobody knows."""
    plant = plant_of(POOL, max_unavailable=12, replicas=8, unit_rps=1000.0)
    assert np.isnan(plant.observe().fleet().pod_use).all()  # type: ignore[misc]
    plant.apply([Action("cpu_millicores", "web", 4000)])
    plant.advance(600.0)
    fleet = plant.observe().fleet()  # type: ignore[misc]
    use = fleet.pod_use[fleet.pod_state == READY, 0]
    assert len(use) == 8
    assert (use <= 2.0 + 1e-9).all()
    assert use.mean() == pytest.approx(2.0, rel=0.05)


def test_two_fleets_are_independent_of_each_other_and_of_the_cluster() -> None:
    plant = plant_of(POOL)
    one, two = plant._acts.fleet(), plant._acts.fleet()
    for name in ("node_state", "node_size", "pod_node", "pod_request", "request", "wanted", "nodes_wanted"):
        getattr(one, name)[...] = 3
        assert not (getattr(two, name) == 3).all(), name
    assert (plant.state.wanted == 12).all()


# ---------------------------------------------------------------- memory


def test_a_leak_begins_when_it_begins() -> None:
    """Replicas that are 2 h old have lost nothing when a leak of 6 GiB/h begins, and 1 GiB ten minutes later."""
    plant = plant_of(POOL, events=(Event(7200.0, "memory_leak", "web", 1200.0, magnitude=6.0),))
    plant.advance(7200.0 + 601.0)
    seen = plant.observe()
    assert seen["web.oom_kills"] == 0
    assert seen["web.memory_use_gib"] == pytest.approx(1.0)
    plant.advance(700.0)
    assert np.isnan(plant.observe()["web.memory_use_gib"]), "nobody looks any more"


def test_the_memory_of_nobody_is_unknown() -> None:
    plant = plant_of(POOL, memory_base_gib=1.0, min_replicas=0)
    plant.advance(61.0)
    assert plant.observe()["web.memory_use_gib"] == pytest.approx(1.0)
    plant.apply([Action("replicas", "web", 0)])
    plant.advance(120.0)
    assert np.isnan(plant.observe()["web.memory_use_gib"])


# ---------------------------------------------------------------- telemetry


def test_what_was_lost_does_not_come_late() -> None:
    """Lost after 300 s until 600 s, and 300 s late from 900 s or 700 s on: what was lost then is unknown ever after."""
    events = (
        Event(300.0, "telemetry_loss", "web", 300.0),
        Event(900.0, "telemetry_delay", "web", 1200.0, magnitude=300.0),
    )
    plant = plant_of(POOL, events=events)
    told = []
    for _ in range(22):
        plant.advance(60.0)
        told.append(bool(np.isnan(plant.observe()["web.demand_rps"])))
    assert told == [60 * turn in range(360, 600) for turn in range(1, 23)], "what is of 600 s on comes from 900 s on"
    plant = plant_of(POOL, events=(events[0], replace(events[1], time_s=700.0)))
    told = []
    for _ in range(22):
        plant.advance(60.0)
        told.append(bool(np.isnan(plant.observe()["web.demand_rps"])))
    blind = [*range(360, 600, 60), *range(720, 900, 60)]
    assert told == [60 * turn in blind for turn in range(1, 23)]


def test_late_telemetry_before_the_first_counts_all_as_unmeasured() -> None:
    plant = plant_of(POOL, events=(Event(0.0, "telemetry_delay", "web", 600.0, magnitude=300.0),))
    plant.advance(60.0)
    seen = plant.observe()
    assert np.isnan(seen["web.demand_rps"])
    assert seen["web.unmeasured_replicas"] == 12


def test_only_as_much_of_the_past_is_kept_as_late_telemetry_needs() -> None:
    plant = plant_of(POOL, events=(Event(600.0, "telemetry_delay", "web", 600.0, magnitude=300.0),))
    for _ in range(60):
        plant.advance(60.0)
        plant.observe()
    assert len(plant._window.past) == 6


# ---------------------------------------------------------------- meters


def test_the_meters_say_the_same_however_often_they_are_read() -> None:
    """Money, node-seconds, energy and waits of a pool that grows and shrinks: read every 15 s, or once."""
    found = []
    for step_s in (15.0, np.inf):
        cluster = Cluster("test", (replace(POOL, reserved=2, reserved_price_usd_h=0.2),), (web(burst_cv=0.0),))
        plant = TwinPlant(
            make_trace(lambda t: np.full_like(t, 0.2)), cluster, scheduler=LeastAllocated(), events=(),
            record=Record(step_s=step_s), until_s=86_400, seed=0,
        )  # fmt: skip
        for nodes, replicas in ((8, 20), (3, 9), (5, 16)):
            plant.apply([Action("nodes", "workers", nodes), Action("replicas", "web", replicas)])
            plant.advance(1200.0)
        plant.meters.read()
        pools, services = plant.meters.pool_steps(), plant.meters.service_steps()
        found.append([float(pools[name].sum()) for name in ("node_s", "cost_usd", "energy_kwh")])
        found[-1].append(float(services["wait_s"].sum()))
    assert found[0] == pytest.approx(found[1], rel=1e-3)
    assert found[0][3] > 0


def test_energy_counts_the_cores_that_a_replica_can_use() -> None:
    """Asking for 4 cores where it can use 2, a replica draws no more for the same work."""
    drawn = []
    for cores in (2000, 4000):
        plant = plant_of(replace(POOL, nodes=8), replicas=12, max_unavailable=12, burst_cv=0.0)
        plant.apply([Action("cpu_millicores", "web", cores)])
        plant.advance(600.0)
        plant.meters.read()
        before = float(plant.meters.pool_steps()["energy_kwh"].sum())
        plant.advance(3600.0)
        plant.meters.read()
        drawn.append(float(plant.meters.pool_steps()["energy_kwh"].sum()) - before)
    assert drawn[1] == pytest.approx(drawn[0], rel=1e-6)
