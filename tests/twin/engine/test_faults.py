"""Faults: each kind hurts as it says, heals when it ends, and is written into the ground truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.twin.conftest import make_cluster, make_trace
from twin.engine.plant import TwinPlant
from twin.engine.scheduling.placement import LeastAllocated
from twin.engine.serving import ARRIVED, DROPPED, FAILED, SERVED
from twin.engine.state import FAILED as BROKEN
from twin.engine.state import PENDING, READY
from twin.engine.traffic import Serve, fluid, requests
from twin.errors import SimulationError
from twin.types import Action, Cluster, Delay, Event, Pool, Record

POOL = Pool("workers", 8, 32, 0.5, nodes=4, max_nodes=8, provision="manual", boot=Delay(60, 0), nodes_per_rack=2)
BOTH = pytest.mark.parametrize("serving", [fluid, requests])


def plant_of(*events: Event, serving: Serve = fluid, seed: int = 0, pool: Pool = POOL, **service: object) -> TwinPlant:
    web = replace(make_cluster(start=Delay(30, 0)).services[0], **service)  # type: ignore[arg-type]
    cluster = Cluster("test", (pool, replace(pool, name="far", zone="zone-b", nodes=0)), (web,))
    trace = make_trace(lambda t: np.full_like(t, 0.2))
    return TwinPlant(
        trace, cluster, scheduler=LeastAllocated(), events=events, record=Record(), until_s=86_400, seed=seed,
        serving=serving,
    )  # fmt: skip


def labels(plant: TwinPlant) -> list[tuple]:
    return plant.incidents.table().select("kind", "entity", "start_s", "end_s").rows()


def test_a_rack_takes_its_nodes_along() -> None:
    """Rack 1 of 2 nodes each holds the nodes 2 and 3."""
    plant = plant_of(Event(100.0, "rack_failure", "workers/1", 600.0))
    plant.advance(101.0)
    assert np.flatnonzero(plant.state.node_state == BROKEN).tolist() == [2, 3]
    assert labels(plant) == [("rack_failure", f"workers-{n}", 100.0, 700.0) for n in (2, 3)]
    assert plant.incidents.table()["cause"].unique().to_list() == ["workers/1"]
    plant.advance(700.0)
    assert plant.observe()["workers.failed_nodes"] == 0


def test_a_zone_takes_all_its_pools_along_and_no_other() -> None:
    plant = plant_of(Event(100.0, "zone_failure", "zone-a", 600.0))
    plant.apply([Action("nodes", "far", 2)])
    plant.advance(101.0)
    seen = plant.observe()
    assert (seen["workers.failed_nodes"], seen["far.failed_nodes"], seen["far.ready_nodes"]) == (4, 0, 2)


def test_behind_a_partition_nodes_cost_money_and_serve_nothing() -> None:
    plant = plant_of(Event(100.0, "partition", "zone-a", 200.0))
    plant.advance(101.0)
    seen = plant.observe()
    assert (seen["web.ready_replicas"], seen["workers.ready_nodes"]) == (0, 4)
    billed = plant.state.node_books_s[0]
    plant.advance(98.0)
    plant.observe()
    assert plant.state.node_books_s[0] - billed == pytest.approx(4 * 98.0)
    plant.advance(102.0)
    assert plant.observe()["web.ready_replicas"] == 12


def test_a_long_partition_moves_replicas_elsewhere_after_five_minutes() -> None:
    plant = plant_of(Event(100.0, "partition", "zone-a", 2000.0))
    plant.apply([Action("nodes", "far", 4)])
    plant.advance(399.0)
    assert plant.observe()["web.ready_replicas"] == 0
    plant.advance(40.0)
    plant_seen = plant.observe()
    assert plant_seen["web.ready_replicas"] == 12
    held = plant.state.replica_node[plant.state.replica_node >= 0]
    assert set(plant.state.node_pool[held]) == {1}


def test_slow_nodes_serve_at_their_speed_until_they_are_well() -> None:
    plant = plant_of(Event(100.0, "slow_nodes", "workers", 300.0, count=2, magnitude=0.5))
    plant.advance(101.0)
    assert plant.state.capacity[0] == pytest.approx(6 + 6 * 0.5)
    plant.advance(300.0)
    assert plant.state.capacity[0] == pytest.approx(12)
    assert len(labels(plant)) == 2


def test_a_full_disk_evicts_and_takes_nothing() -> None:
    plant = plant_of(Event(100.0, "disk_full", "workers", 600.0))
    plant.advance(200.0)
    closed = np.flatnonzero(plant.state.node_closed > 0)
    assert len(closed) == 1
    assert plant.state.node_replicas[closed[0]] == 0
    assert plant.observe()["web.ready_replicas"] == 12
    plant.advance(600.0)
    assert (plant.state.node_closed == 0).all()


def test_a_leak_fills_the_memory_until_replicas_are_killed_and_start_anew() -> None:
    """4 GiB asked for, 1 GiB used, 6 GiB/h leaked: after half an hour the first are killed; labels say why."""
    plant = plant_of(Event(0.0, "memory_leak", "web", 7200.0, magnitude=6.0), memory_base_gib=1.0)
    plant.advance(1700.0)
    seen = plant.observe()
    assert seen["web.memory_use_gib"] == pytest.approx(1 + 6 * 1680 / 3600, rel=0.05)
    assert seen["web.oom_kills"] == 0
    plant.advance(300.0)
    seen = plant.observe()
    assert seen["web.oom_kills"] == 12
    kinds = plant.incidents.table()["kind"].value_counts(sort=True).rows()
    assert kinds == [("oom_kill", 12), ("memory_leak", 1)]
    assert plant.state.oom_kills[0] == 12


def test_a_degraded_service_slows_down_steadily_and_is_whole_again() -> None:
    plant = plant_of(Event(0.0, "degradation", "web", 2000.0, magnitude=0.4))
    speeds = []
    for _ in range(4):
        plant.advance(499.0)
        speeds.append(float(plant.state.speed[0]))
    assert speeds == sorted(speeds, reverse=True)
    assert speeds[-1] == pytest.approx(0.4, abs=0.05)
    plant.advance(100.0)
    assert plant.state.speed[0] == 1.0


@BOTH
def test_a_bad_deploy_answers_with_errors(serving: Serve) -> None:
    plant = plant_of(Event(600.0, "bad_deploy", "web", 600.0, magnitude=0.25), serving=serving)
    plant.advance(600.0)
    assert plant.observe()["web.failed_ratio"] == 0.0
    plant.advance(600.0)
    assert plant.observe()["web.failed_ratio"] == pytest.approx(0.25, abs=0.01)
    plant.advance(600.0)
    assert plant.observe()["web.failed_ratio"] == pytest.approx(0.0, abs=1e-3)


def test_late_telemetry_is_what_was_measured_then() -> None:
    plant = plant_of(Event(600.0, "telemetry_delay", "web", 1200.0, magnitude=300.0), burst_cv=0.5)
    told, true = [], plant_of(burst_cv=0.5)
    truth = []
    for _ in range(20):
        plant.advance(60.0)
        true.advance(60.0)
        told.append(plant.observe()["web.demand_rps"])
        truth.append(true.observe()["web.demand_rps"])
    assert told[:9] == truth[:9]
    assert told[10:20] == truth[5:15]


def test_what_the_cluster_itself_knows_is_not_lost_with_telemetry() -> None:
    plant = plant_of(Event(0.0, "telemetry_loss", "web", 600.0))
    plant.advance(60.0)
    seen = plant.observe()
    assert np.isnan(seen["web.demand_rps"])
    assert np.isnan(seen["web.cpu_use_cores"])
    assert (seen["web.wanted_replicas"], seen["web.cpu_millicores"]) == (12, 2000)


def test_wear_and_scheduled_faults_are_both_in_the_ground_truth() -> None:
    worn = replace(POOL, failures_per_node_day=12.0, repair=Delay(600, 0))
    plant = plant_of(Event(5000.0, "node_failure", "workers", 60.0), pool=worn, seed=3)
    plant.advance(43_200.0)
    found = plant.incidents.table().filter(kind="node_failure")
    assert found.filter(cause="wear").height > 10
    assert found.filter(start_s=5000.0).height == 1
    assert (found["end_s"] > found["start_s"]).all()


def test_an_unknown_rack_or_zone_is_an_error_with_the_known_ones() -> None:
    with pytest.raises(SimulationError, match="workers/0"):
        plant_of(Event(1.0, "rack_failure", "workers/9", 1.0))
    with pytest.raises(SimulationError, match="zone-a"):
        plant_of(Event(1.0, "partition", "zone-x", 1.0))


KINDS = [
    ("node_failure", "workers", 1.0), ("rack_failure", "workers/0", 1.0), ("zone_failure", "zone-a", 1.0),
    ("partition", "zone-a", 1.0), ("slow_nodes", "workers", 0.3), ("disk_full", "workers", 1.0),
    ("interruption", "workers", 1.0), ("shortage", "workers", 2.0), ("memory_leak", "web", 5.0),
    ("degradation", "web", 0.2), ("bad_deploy", "web", 0.5), ("telemetry_loss", "web", 1.0),
    ("telemetry_delay", "web", 90.0),
]  # fmt: skip
faults = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(0, 3000), st.integers(1, 1500), st.integers(1, 3)), max_size=6
)
moves = st.lists(st.tuples(st.sampled_from(["web", "workers"]), st.integers(1, 20)), max_size=6)


@BOTH
@settings(max_examples=25)
@given(faults=faults, moves=moves)
def test_whatever_breaks_the_books_are_kept(serving: Serve, faults: list, moves: list) -> None:
    """arrived = served + failed + dropped + inside; no overbooked node; wanted = alive; nothing is paid twice."""
    events = [Event(float(t), kind, target, float(d), n, m) for (kind, target, m), t, d, n in faults]
    plant = plant_of(*events, serving=serving, memory_base_gib=1.0, unit_rps=100.0, retries=1)
    for target, value in [*moves, ("web", 12)]:
        plant.apply([Action("replicas" if target == "web" else "nodes", target, value)])
        plant.advance(700.0)
        plant.observe()
        state, books = plant.state, plant.state.books[0]
        ended = books[SERVED] + books[DROPPED] + books[FAILED]
        assert books[ARRIVED] == pytest.approx(ended + state.inside[0], rel=1e-9, abs=1e-6)
        assert state.count[0, PENDING:].sum() == state.wanted[0]
        assert (state.node_used <= state.node_size + 1e-9).all()
        held = np.bincount(state.replica_node[state.replica_node >= 0], minlength=len(state.node_pool))
        assert (held == state.node_replicas).all()
        assert state.capacity[0] <= state.count[0, READY] + 1e-9
        assert (state.node_closed >= 0).all()


def test_faults_of_a_kind_may_overlap_and_follow_each_other() -> None:
    """What is in force is the sum of what has begun and not ended, whichever began first."""
    plant = plant_of(
        Event(10.0, "shortage", "workers", 100.0, magnitude=6.0),
        Event(110.0, "shortage", "workers", 100.0, magnitude=5.0),
        Event(50.0, "bad_deploy", "web", 100.0, magnitude=0.5),
        Event(100.0, "bad_deploy", "web", 100.0, magnitude=0.2),
        Event(20.0, "slow_nodes", "workers", 200.0, 4, 0.5),
        Event(30.0, "slow_nodes", "workers", 50.0, 4, 0.5),
    )
    most, errors, speeds = [], [], []
    for _ in range(5):
        plant.advance(60.0)
        most.append(float(plant.state.most_nodes[0]))
        errors.append(float(plant.state.error_share[0]))
        speeds.append(float(plant.state.node_speed[0]))
    assert most == [6.0, 5.0, 5.0, 8.0, 8.0]
    assert errors == pytest.approx([0.5, 0.6, 0.2, 0.0, 0.0])
    assert speeds == [0.25, 0.5, 0.5, 1.0, 1.0]
