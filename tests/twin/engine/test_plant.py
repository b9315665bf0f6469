"""Laws of the simulated plant: nothing is lost, nothing is overbooked, failures hurt and heal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.twin.conftest import make_cluster, make_trace
from twin.engine.plant import TwinPlant
from twin.engine.scheduling.placement import FirstFit, LeastAllocated, MostAllocated
from twin.engine.serving import ARRIVED, DROPPED, FAILED, SERVED
from twin.engine.state import BOOTING, DRAINING, GONE, PENDING, READY, UP
from twin.errors import SimulationError
from twin.types import Action, Cluster, Delay, Event, Placement, Pool, Record


def make_plant(
    cluster: Cluster, events: tuple[Event, ...] = (), placement: Placement | None = None, seed: int = 0
) -> TwinPlant:
    trace = make_trace(lambda t: np.full_like(t, 0.2))
    return TwinPlant(
        trace,
        cluster,
        scheduler=placement or MostAllocated(),
        events=events,
        record=Record(),
        until_s=86_400,
        seed=seed,
    )


def check_books(plant: TwinPlant) -> None:
    state = plant.state
    books = state.books[0]
    ended = books[SERVED] + books[DROPPED] + books[FAILED]
    assert books[ARRIVED] == pytest.approx(ended + state.inside[0], rel=1e-9, abs=1e-6)
    alive = state.replica_state != GONE
    assert alive.sum() == state.wanted[0]
    assert state.count[0, PENDING:].sum() == alive.sum()
    up = np.isin(state.node_state, (UP, DRAINING))
    assert (state.node_used <= state.node_size + 1e-9).all(), "a node is overbooked"
    used = np.bincount(state.replica_node[alive & (state.replica_node >= 0)], minlength=len(up))
    assert (used == state.node_replicas).all()
    asked = np.bincount(state.replica_node[alive & (state.replica_node >= 0)], minlength=len(up)) * 2.0
    assert state.node_used[:, 0] == pytest.approx(asked)
    billed = np.bincount(state.node_pool, weights=np.isin(state.node_state, BILLED))
    assert (billed == state.billed).all()
    assert state.capacity[0] == pytest.approx(state.count[0, READY])
    assert (used[~up] == 0).all(), "a replica runs on a node that is not up"


BILLED = (BOOTING, UP, DRAINING)
moves = st.lists(st.tuples(st.integers(1, 60), st.floats(1, 900)), min_size=1, max_size=12)
failures = st.lists(st.tuples(st.floats(1, 3000), st.integers(1, 4), st.floats(10, 2000)), max_size=4)


@settings(max_examples=25, deadline=None)
@given(moves, failures, st.sampled_from([FirstFit(), MostAllocated(), LeastAllocated()]))
def test_replicas_and_capacity_are_conserved(moves: list, failures: list, placement: Placement) -> None:
    """Whatever is wished and whatever fails: wanted = alive, no node overbooked, requests conserved."""
    events = tuple(Event(t, "node_failure", "workers", d, n) for t, n, d in failures)
    plant = make_plant(make_cluster(), events, placement)
    for wanted, wait_s in moves:
        plant.apply([Action("replicas", "web", wanted)])
        plant.advance(wait_s)
        plant.observe()
        check_books(plant)


def test_a_new_replica_is_ready_after_its_start_delay() -> None:
    plant = make_plant(make_cluster(start=Delay(30.0, 0.0)))
    plant.apply([Action("replicas", "web", 13)])
    plant.advance(29.0)
    assert plant.state.count[0, READY] == 12
    plant.advance(2.0)
    assert plant.state.count[0, READY] == 13


def test_a_full_pool_boots_nodes_for_what_found_no_room() -> None:
    """4 nodes of 8 cores hold 16 replicas of 2 cores; 20 need one node more, after its boot delay."""
    plant = make_plant(make_cluster())
    plant.apply([Action("replicas", "web", 20)])
    plant.advance(1.0)
    assert plant.observe()["web.pending_replicas"] == 4
    assert plant.observe()["workers.booting_nodes"] == 1
    plant.advance(600.0)
    seen = plant.observe()
    assert (seen["web.ready_replicas"], seen["workers.ready_nodes"]) == (20, 5)


def test_empty_nodes_are_given_back_but_not_the_last() -> None:
    plant = make_plant(make_cluster())
    plant.apply([Action("replicas", "web", 1)])
    plant.advance(1000.0)
    assert plant.observe()["workers.ready_nodes"] == 1


def test_a_pool_that_never_grows_leaves_replicas_pending_in_the_books() -> None:
    """Impossible capacity is degraded service, not an error."""
    cluster = make_cluster()
    small = Pool("workers", 8, 32, 0.5, nodes=2, min_nodes=2, max_nodes=2)
    plant = make_plant(Cluster("tight", (small,), cluster.services))
    plant.advance(600.0)
    assert plant.observe()["web.pending_replicas"] == 4


def two_services(max_nodes: int, *more_pools: Pool) -> Cluster:
    web = make_cluster().services[0]
    pool = Pool("workers", 8, 32, 0.5, nodes=2, max_nodes=max_nodes, boot=Delay(120, 0), idle_s=300)
    services = (replace(web, replicas=4), replace(web, name="api", replicas=4))
    return Cluster("two", (pool, *more_pools), services)


def make_two(cluster: Cluster) -> TwinPlant:
    trace = make_trace(lambda t: np.full_like(t, 0.05))
    both = pl.concat([trace.demand, trace.demand.with_columns(pl.lit("api").alias("service"))])
    names = pl.DataFrame({"service": ["web", "api"], "demand_unit": ["share", "share"]})
    whole = trace.replacing("two services", demand=both, services=names)
    record = Record()
    return TwinPlant(whole, cluster, scheduler=MostAllocated(), events=(), record=record, until_s=86_400, seed=0)


def test_a_replica_that_leaves_makes_room_for_one_that_waits() -> None:
    plant = make_two(two_services(max_nodes=2))
    plant.apply([Action("replicas", "api", 6)])
    plant.advance(10.0)
    assert plant.observe()["api.pending_replicas"] == 2
    plant.apply([Action("replicas", "web", 2)])
    plant.advance(60.0)
    assert plant.observe()["api.pending_replicas"] == 0


def test_two_services_short_at_once_wait_for_one_boot() -> None:
    plant = make_two(two_services(max_nodes=10))
    plant.apply([Action("replicas", "web", 8), Action("replicas", "api", 8)])
    plant.advance(121.0)
    seen = plant.observe()
    assert (seen["web.pending_replicas"], seen["api.pending_replicas"]) == (0, 0)
    assert seen["workers.ready_nodes"] == 4


def test_a_full_pool_leaves_the_rest_to_the_next() -> None:
    spare = Pool("spare", 8, 32, 0.9, nodes=0, max_nodes=5, boot=Delay(60, 0))
    plant = make_two(two_services(2, spare))
    plant.apply([Action("replicas", "web", 8)])
    plant.advance(61.0)
    seen = plant.observe()
    assert (seen["web.pending_replicas"], seen["spare.ready_nodes"]) == (0, 1)


def test_a_node_failure_costs_replicas_and_heals() -> None:
    plant = make_plant(make_cluster(), (Event(100.0, "node_failure", "workers", 600.0, 2),))
    plant.advance(101.0)
    seen = plant.observe()
    assert seen["web.ready_replicas"] < 12
    assert seen["workers.failed_nodes"] == 2
    plant.advance(1500.0)
    seen = plant.observe()
    assert (seen["web.ready_replicas"], seen["workers.failed_nodes"]) == (12, 0)


def test_lost_telemetry_is_unknown_not_zero() -> None:
    plant = make_plant(make_cluster(), (Event(100.0, "telemetry_loss", "web", 300.0),))
    plant.advance(150.0)
    seen = plant.observe()
    for metric in ("demand_rps", "utilisation_ratio", "late_ratio", "queue_requests"):
        assert np.isnan(seen[f"web.{metric}"])
    assert seen["web.ready_replicas"] == seen["web.unmeasured_replicas"] == 12
    plant.advance(300.0)
    assert not np.isnan(plant.observe()["web.demand_rps"])


def test_nothing_is_measured_before_time_passes() -> None:
    assert np.isnan(make_plant(make_cluster()).observe()["web.demand_rps"])


def test_two_observers_do_not_disturb_each_other() -> None:
    plant, alone = make_plant(make_cluster()), make_plant(make_cluster())
    window = plant.window()
    for _ in range(5):
        plant.advance(60.0)
        plant.observe()
    alone.advance(300.0)
    assert plant.look(window)["web.demand_rps"] == pytest.approx(alone.observe()["web.demand_rps"], rel=1e-6)


def test_manual_pools_are_resized_by_actions_and_drained() -> None:
    cluster = make_cluster()
    pool = Pool("workers", 8, 32, 0.5, nodes=4, max_nodes=8, provision="manual", boot=Delay(60, 0))
    plant = make_plant(Cluster("manual", (pool,), cluster.services))
    assert plant.apply([Action("nodes", "workers", 6)])[0].value == 6
    plant.advance(61.0)
    assert plant.observe()["workers.ready_nodes"] == 6
    plant.apply([Action("nodes", "workers", 3)])
    plant.advance(300.0)
    seen = plant.observe()
    assert (seen["workers.ready_nodes"], seen["web.ready_replicas"]) == (3, 12)
    check_books(plant)


def test_a_self_sizing_pool_refuses_to_be_resized() -> None:
    outcome = make_plant(make_cluster()).apply([Action("nodes", "workers", 6)])[0]
    assert outcome.status == "rejected"
    assert "sizes itself" in outcome.message


def test_an_unknown_target_is_rejected_with_the_known_ones() -> None:
    outcome = make_plant(make_cluster()).apply([Action("replicas", "wbe", 6)])[0]
    assert outcome.status == "rejected"
    assert "web" in outcome.message


def test_an_event_without_target_is_an_error_at_once() -> None:
    with pytest.raises(SimulationError, match="batch"):
        make_plant(make_cluster(), (Event(1.0, "node_failure", "batch", 1.0),))


def test_billing_counts_booting_and_ready_seconds() -> None:
    """4 nodes for an hour and a fifth from its order on."""
    cluster = make_cluster()
    pool = Pool("workers", 8, 32, 0.5, nodes=4, max_nodes=8, provision="manual", boot=Delay(60, 0))
    plant = make_plant(Cluster("manual", (pool,), cluster.services))
    plant.advance(1800.0)
    plant.apply([Action("nodes", "workers", 5)])
    plant.advance(1800.0)
    plant.meters.read()
    assert plant.meters.pool_steps()["node_s"].sum() == pytest.approx(4 * 3600 + 1800)
