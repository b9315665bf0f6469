"""Pools: drains respect budgets, spot nodes are taken back, quotas and shortages bind, and the bill is exact."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.twin.conftest import make_cluster, make_trace
from twin.engine.plant import TwinPlant
from twin.engine.scheduling.placement import LeastAllocated, MostAllocated
from twin.engine.state import BOOTING, DRAINING, PENDING, READY, STARTING, UP
from twin.errors import SimulationError, UsageError
from twin.types import Action, Cluster, Delay, Event, Link, Pool, Quota, Record, Service

WORKERS = Pool("workers", 8, 32, 0.5, nodes=4, max_nodes=8, provision="manual", boot=Delay(60, 0))


def plant_of(*pools: Pool, events: tuple[Event, ...] = (), prices: pl.DataFrame | None = None, **more: object):
    trace = make_trace(lambda t: np.full_like(t, 0.2))
    if prices is not None:
        trace = trace.replacing("prices", prices=prices)
    service = more.pop("service", make_cluster(start=Delay(30, 0)).services[0])
    cluster = Cluster("test", pools, (service,), **more)  # type: ignore[arg-type]
    record = Record()
    return TwinPlant(trace, cluster, scheduler=LeastAllocated(), events=events, record=record, until_s=86_400, seed=0)


def service(**fields: object) -> Service:
    return replace(make_cluster(start=Delay(30, 0)).services[0], **fields)  # type: ignore[arg-type]


def test_a_drain_keeps_the_disruption_budget_and_then_gives_the_node_back() -> None:
    """12 replicas on 4 nodes: the 3 of one node leave one after the other, each when the last is ready again."""
    plant = plant_of(WORKERS)
    assert plant.apply([Action("drain", "workers-0", 1)])[0].status == "applied"
    fewest = 12
    for _ in range(120):
        plant.advance(1.0)
        fewest = min(fewest, int(plant.state.count[0, READY]))
    assert fewest == 11
    assert plant.state.node_state[0] not in (UP, DRAINING)
    seen = plant.observe()
    assert (seen["workers.ready_nodes"], seen["workers.wanted_nodes"], seen["web.ready_replicas"]) == (3, 3, 12)


def test_a_wider_budget_drains_faster() -> None:
    plant = plant_of(WORKERS, service=service(max_unavailable=3))
    plant.apply([Action("drain", "workers-0", 1)])
    plant.advance(1.0)
    assert plant.state.count[0, READY] == 9
    assert plant.observe()["workers.ready_nodes"] == 3


def test_a_budget_of_zero_holds_a_drain_up_until_its_deadline() -> None:
    plant = plant_of(WORKERS, service=service(max_unavailable=0))
    plant.apply([Action("drain", "workers-0", 1)])
    plant.advance(599.0)
    assert plant.observe()["workers.draining_nodes"] == 1
    plant.advance(2.0)
    seen = plant.observe()
    assert (seen["workers.draining_nodes"], seen["web.ready_replicas"]) == (0, 9)


def test_a_draining_node_takes_nothing_new_and_is_billed_until_it_is_empty() -> None:
    plant = plant_of(WORKERS, service=service(max_unavailable=0))
    plant.apply([Action("drain", "workers-0", 1)])
    plant.apply([Action("replicas", "web", 16)])
    plant.advance(60.0)
    assert plant.state.node_replicas[0] == 3
    assert plant.state.billed[0] == 4


def test_unknown_nodes_self_sizing_pools_and_nodes_that_are_not_up_refuse_a_drain() -> None:
    plant = plant_of(WORKERS, replace(WORKERS, name="auto", provision="pending"))
    messages = [plant.apply([Action("drain", name, 1)])[0].message for name in ("nowhere-7", "auto-0", "workers-7")]
    assert "workers-0" in messages[0]
    assert "sizes itself" in messages[1]
    assert "not there" in messages[2]


def test_an_eviction_moves_one_replica_if_its_budget_allows() -> None:
    plant = plant_of(WORKERS)
    before = plant.state.replica_born[:12].copy()
    outcomes = plant.apply([Action("evict", f"web-{before[0]}", 1), Action("evict", f"web-{before[1]}", 1)])
    assert [o.status for o in outcomes] == ["applied", "rejected"]
    assert "budget" in outcomes[1].message
    plant.advance(60.0)
    assert plant.state.count[0, READY] == 12
    assert plant.apply([Action("evict", "web-999", 1)])[0].status == "rejected"


# ---------------------------------------------------------------- spot


def test_an_interrupted_node_leaves_after_its_notice_and_a_manual_pool_replaces_it() -> None:
    spot = replace(WORKERS, offer="spot", notice_s=120.0)
    events = (Event(100.0, "interruption", "workers", 0.0, 1),)
    plant = plant_of(spot, events=events, service=service(max_unavailable=0))
    plant.advance(101.0)
    seen = plant.observe()
    assert (seen["workers.draining_nodes"], seen["workers.booting_nodes"]) == (1, 1)
    assert seen["workers.interrupted_nodes"] == 1
    plant.advance(118.0)
    assert plant.observe()["workers.draining_nodes"] == 1
    plant.advance(2.0)
    seen = plant.observe()
    assert (seen["workers.draining_nodes"], seen["workers.ready_nodes"]) == (0, 4)
    assert plant.incidents.table()["kind"].to_list() == ["interruption"]


def test_drawn_interruptions_come_at_their_rate_and_are_the_same_for_all() -> None:
    spot = replace(WORKERS, nodes=8, interruptions_per_node_day=4.0)
    counts = []
    for moves in (0, 1):
        plant = plant_of(spot)
        plant.apply([Action("replicas", "web", 12 + 4 * moves)])
        plant.advance(86_000.0)
        counts.append(int(plant.state.interrupted[0]))
    assert counts[0] == pytest.approx(32, abs=3 * np.sqrt(32))
    assert counts[1] == pytest.approx(counts[0], abs=3)  # but for slots that were not up at the moment


# ---------------------------------------------------------------- quotas, shortages, choices of pools


def test_a_quota_binds_all_its_pools_together() -> None:
    """32 of 40 cores are taken: one more node of either pool, not two."""
    other = replace(WORKERS, name="others", nodes=0)
    plant = plant_of(WORKERS, other, quotas=(Quota("region", ("workers", "others"), 40.0),))
    plant.apply([Action("nodes", "workers", 8), Action("nodes", "others", 8)])
    assert plant.state.node_count[:, BOOTING].tolist() == [1, 0]


def test_in_a_shortage_nothing_is_to_be_had_and_afterwards_the_pool_fills_up() -> None:
    plant = plant_of(WORKERS, events=(Event(10.0, "shortage", "workers", 600.0, magnitude=5.0),))
    plant.advance(11.0)
    plant.apply([Action("nodes", "workers", 7)])
    plant.advance(100.0)
    assert plant.observe()["workers.ready_nodes"] == 5
    plant.advance(600.0)
    assert plant.observe()["workers.ready_nodes"] == 7


def test_replicas_stay_in_the_pools_that_their_service_may_use() -> None:
    private = replace(WORKERS, name="private", nodes=2)
    plant = plant_of(WORKERS, private, service=service(pools=("private",)))
    nodes = plant.state.replica_node[plant.state.replica_node >= 0]
    assert {plant.cluster.pools[p].name for p in plant.state.node_pool[nodes]} == {"private"}
    assert plant.state.count[0, PENDING] == 4  # 12 wished for, 8 fit


def test_unknown_names_in_a_cluster_are_errors_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="'workers'"):
        Cluster("c", (WORKERS,), (service(pools=("private",)),))
    with pytest.raises(UsageError, match="quota"):
        Cluster("c", (WORKERS,), (service(),), (Quota("q", ("nowhere",), 1.0),))


# ---------------------------------------------------------------- money


steps = st.lists(st.tuples(st.integers(1, 8), st.integers(1, 200)), min_size=1, max_size=8)


@settings(max_examples=20)
@given(steps)
def test_billing_is_exact_to_the_second(steps: list[tuple[int, int]]) -> None:
    """The bill is the sum over all seconds of the nodes that are there x their price, counted one second at a time."""
    plant = plant_of(replace(WORKERS, price_usd_h=3600.0), service=service(replicas=4))
    counted = 0
    for size, seconds in steps:
        plant.apply([Action("nodes", "workers", size)])
        for _ in range(seconds):
            plant.advance(0.5)  # whatever happens, happens on a whole second
            counted += int(np.isin(plant.state.node_state, (BOOTING, UP, DRAINING)).sum())
            plant.advance(0.5)
    plant.observe()
    assert plant.state.node_books_s[0] == pytest.approx(counted, abs=1e-6)
    assert plant.state.cost_usd[0] == pytest.approx(counted, abs=1e-6)


def test_a_node_is_paid_from_its_order_to_its_return() -> None:
    """One node of 3,600 USD/h ordered at 100 s, given back at 450 s: 350 USD more, to the second."""
    base = plant_of(replace(WORKERS, price_usd_h=3600.0))
    more = plant_of(replace(WORKERS, price_usd_h=3600.0))
    for plant, size in ((base, 4), (more, 5)):
        plant.advance(100.0)
        plant.apply([Action("nodes", "workers", size)])
        plant.advance(350.0)
        plant.apply([Action("drain", "workers-4", 1)] if size == 5 else [])
        plant.advance(550.0)
        plant.observe()
    assert more.state.cost_usd[0] - base.state.cost_usd[0] == pytest.approx(350.0, abs=1e-9)


def test_reserved_nodes_are_paid_whether_they_run_or_not() -> None:
    """6 reserved at 1 USD/h, 4 running: 6 USD/h; with 8 running, 2 more at the list price of 2 USD/h."""
    pool = replace(WORKERS, price_usd_h=2.0, reserved=6, reserved_price_usd_h=1.0, boot=Delay(0.0, 0))
    plant = plant_of(pool)
    plant.advance(3600.0)
    plant.observe()
    assert plant.state.cost_usd[0] == pytest.approx(6.0)
    plant.apply([Action("nodes", "workers", 8)])
    plant.advance(3600.0)
    plant.observe()
    assert plant.state.cost_usd[0] == pytest.approx(6.0 + 6.0 + 4.0)


def test_recorded_prices_are_paid_as_they_moved() -> None:
    rows = {"zone": "z", "time_s": [0.0, 1800.0, 5400.0], "quantity": "spot_usd_h", "value": [1.0, 3.0, 0.5]}
    plant = plant_of(replace(WORKERS, price_series="z"), prices=pl.DataFrame(rows))
    plant.advance(7200.0)
    seen = plant.observe()
    assert plant.state.cost_usd[0] == pytest.approx(4 * (0.5 * 1.0 + 1.0 * 3.0 + 0.5 * 0.5))
    assert seen["workers.price_usd_h"] == 0.5


def test_a_price_that_was_not_recorded_is_an_error_at_once() -> None:
    with pytest.raises(SimulationError, match="spot_usd_h of zone 'z'"):
        plant_of(replace(WORKERS, price_series="z"))


def test_answers_to_another_region_are_late_by_the_way_and_paid_by_the_gib() -> None:
    near, far = replace(WORKERS, region="here"), replace(WORKERS, name="far", region="there")
    links = (Link(("here", "there"), 0.1, 0.08),)
    costs = []
    for pool in (near, far):
        plant = plant_of(pool, links=links, service=service(users_region="here", answer_kib=1024.0, burst_cv=0.0))
        plant.advance(600.0)
        seen = plant.observe()
        costs.append((seen["web.latency_p50_s"], float(plant.state.egress_usd[0])))
    assert costs[0][0] == pytest.approx(0.16, rel=0.1)
    assert costs[1][0] == pytest.approx(0.26, rel=0.1)
    assert costs[0][1] == 0.0
    assert costs[1][1] == pytest.approx(200 * 600 / 1024 * 0.08, rel=0.02)


# ---------------------------------------------------------------- energy


def test_idle_nodes_draw_idle_power_and_busy_ones_more() -> None:
    idle = plant_of(WORKERS, service=service(replicas=1, unit_rps=0.0))
    busy = plant_of(WORKERS, service=service(replicas=12))
    for plant in (idle, busy):
        plant.advance(3600.0)
        plant.meters.read()
    drawn = [float(plant.meters.pool_steps()["energy_kwh"].sum()) for plant in (idle, busy)]
    power = WORKERS.power
    assert drawn[0] == pytest.approx(4 * power.idle_w / 1000)
    # 200 rps fill 8 of 12 replicas of 2 cores: 16 of 32 cores
    assert drawn[1] == pytest.approx(4 * (power.idle_w + 0.5 * (power.full_w - power.idle_w)) / 1000, rel=0.02)


def test_carbon_follows_the_recorded_grid() -> None:
    rows = {"zone": "grid", "time_s": [0.0, 1830.0], "quantity": "carbon_g_kwh", "value": [100.0, 300.0]}
    plant = plant_of(replace(WORKERS, grid="grid"), prices=pl.DataFrame(rows), service=service(unit_rps=0.0))
    plant.advance(3600.0)
    plant.meters.read()
    kwh_s = 4 * WORKERS.power.idle_w / 3.6e6
    grams = float(plant.meters.pool_steps()["carbon_g"].sum())
    assert grams == pytest.approx(kwh_s * (1830 * 100.0 + 1770 * 300.0))


def test_what_a_replica_asks_for_is_changed_within_its_budget() -> None:
    plant = plant_of(WORKERS, service=service(replicas=4))
    plant.apply([Action("memory_mib", "web", 6 * 1024), Action("cpu_millicores", "web", 1000)])
    fewest = 4
    for _ in range(300):
        plant.advance(1.0)
        fewest = min(fewest, int(plant.state.count[0, READY]))
    held = plant.state.replica_node >= 0
    assert plant.state.replica_request[held].tolist() == [[1.0, 6.0]] * 4
    assert fewest == 3
    assert plant.state.count[0, STARTING] == 0
    assert plant.state.capacity[0] == pytest.approx(2.0)  # half the CPU, half the speed
    assert plant.observe()["web.cpu_millicores"] == 1000


def test_packing_and_spreading_place_differently() -> None:
    trace = make_trace(lambda t: np.full_like(t, 0.2))
    used = []
    for scheduler in (MostAllocated(), LeastAllocated()):
        cluster = Cluster("c", (replace(WORKERS, nodes=8),), (service(replicas=8),))
        plant = TwinPlant(trace, cluster, scheduler=scheduler, events=(), record=Record(), until_s=600, seed=0)
        used.append(int((plant.state.node_replicas > 0).sum()))
    assert used == [2, 8]
