"""Averages and single requests are two ways to compute the same service: they must agree, and each with theory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

import twin
from tests.twin.conftest import Follow, make_cluster, make_trace
from twin.engine.plant import TwinPlant
from twin.engine.scheduling.placement import MostAllocated
from twin.engine.serving import BUSY_S, INSIDE_S, READY_S, RESPONSE_S, WAIT_S
from twin.engine.traffic import Serve, fluid, requests
from twin.types import Call, Cluster, Delay, Event, Pool, Record, Service

BOTH = pytest.mark.parametrize("serving", [fluid, requests])
ROOMY = Pool("workers", 64, 256, 1.0, nodes=2, max_nodes=2)
STORES = Pool("stores", 64, 256, 1.0, nodes=2, max_nodes=2)


def plant_of(cluster: Cluster, serving: Serve, level: float = 0.2, events: tuple[Event, ...] = ()) -> TwinPlant:
    trace = make_trace(lambda t: np.full_like(t, level))
    more = [replace_service(trace, service.name) for service in cluster.services if service.name != "web"]
    if more:
        names = [service.name for service in cluster.services]
        units = pl.DataFrame({"service": names, "demand_unit": ["share"] * len(names)})
        trace = trace.replacing("more services", demand=pl.concat([trace.demand, *more]), services=units)
    return TwinPlant(
        trace, cluster, scheduler=MostAllocated(), events=events, record=Record(), until_s=86_400, seed=1,
        serving=serving,
    )  # fmt: skip


def replace_service(trace: twin.Trace, name: str) -> pl.DataFrame:
    return trace.demand.with_columns(pl.lit(name).alias("service"))


def test_both_models_tell_the_same_of_a_day_under_a_controller(trace: twin.Trace) -> None:
    cluster = make_cluster(unit_rps=100.0, replicas=3, service_cv=0.7, slo_s=0.6, start=Delay(30, 0.2))
    kpis = [
        dict(
            twin.simulate(trace, cluster, controller=Follow(0.75), serving=serving, until_s=86_400, seed=2)
            .kpis(3600.0)
            .filter(pl.col("entity") != "workers")
            .select("kpi", "value")
            .iter_rows()
        )
        for serving in (fluid, requests)
    ]
    average, single = kpis
    assert average["cost_usd"] == pytest.approx(single["cost_usd"], rel=0.02)
    assert average["utilisation_ratio"] == pytest.approx(single["utilisation_ratio"], rel=0.02)
    assert average["latency_p95_s"] == pytest.approx(single["latency_p95_s"], rel=0.1)
    assert average["late_ratio"] == pytest.approx(single["late_ratio"], abs=0.01)


@BOTH
def test_littles_law_holds_on_a_run(trace: twin.Trace, serving: Serve) -> None:
    """Requests inside, integrated over time, are the sum of their response times, but for those still inside."""
    cluster = make_cluster(unit_rps=300.0, replicas=5, service_cv=1.0, distribution="gamma")
    plant = plant_of(cluster, serving, level=0.3)
    plant.advance(20_000.0)
    plant.observe()
    books = plant.state.books[0]
    assert books[INSIDE_S] == pytest.approx(books[RESPONSE_S], rel=0.01)
    assert books[WAIT_S] <= books[RESPONSE_S]


def shop(**back: object) -> Cluster:
    """A caller whose requests each make two calls to a slower service."""
    web = replace(
        make_cluster(unit_rps=100.0, replicas=4, service_time_s=0.05, concurrency=16, slo_s=1.0).services[0],
        calls=(Call("store", 2.0),),
        pools=("workers",),
        service_cv=0.5,
        burst_cv=0.0,
    )
    fields: dict = {"replicas": 4, "service_cv": 0.5, "burst_cv": 0.0, "pools": ("stores",), **back}
    store = Service("store", 0.0, 2, 4, 0.1, 4, 1.0, **fields)
    return Cluster("shop", (ROOMY, STORES), (web, store))


def test_latency_adds_along_a_call_and_both_models_agree() -> None:
    """0.05 s of one's own and two calls of 0.1 s: at least 0.25 s on average, whichever way it is computed."""
    means = []
    for serving in (fluid, requests):
        plant = plant_of(shop(), serving)
        plant.advance(3600.0)
        seen = plant.observe()
        books = plant.state.books
        means.append(books[0, RESPONSE_S] / books[0, 0])
        assert books[1, 0] == pytest.approx(2 * books[0, 0], rel=0.05), "two calls each"
        assert seen["store.demand_rps"] > 0
    assert min(means) > 0.25 * 0.99
    assert means[0] == pytest.approx(means[1], rel=0.1)


@BOTH
def test_a_slow_callee_backs_up_its_caller(serving: Serve) -> None:
    """With the store at a tenth of its speed the caller is full of waiting requests, and its CPU says nothing of it."""
    well = plant_of(shop(), serving)
    ill = plant_of(shop(), serving, events=(Event(1.0, "slow_nodes", "stores", 1e5, 2, 0.1),))
    seen, full = [], []
    for plant in (well, ill):
        plant.advance(1200.0)
        seen.append(plant.observe())
        full.append(plant.state.books[0, BUSY_S] / plant.state.books[0, READY_S])
    assert full[1] > 3 * full[0]
    assert seen[1]["web.utilisation_ratio"] < 2 * seen[0]["web.utilisation_ratio"]
    assert seen[1]["web.late_ratio"] > 0.5
    assert seen[0]["web.late_ratio"] < 0.05


def test_a_retry_storm_outlives_its_cause_only_with_retries() -> None:
    """Two minutes without half of the capacity: who asks again keeps the queue full for longer."""
    busy = {"unit_rps": 430.0, "replicas": 4, "timeout_s": 2.0, "burst_cv": 0.0, "service_cv": 0.5}
    late = []
    for retries in (0, 5):
        cluster = make_cluster(**busy, retries=retries, backoff_s=1.0)
        plant = plant_of(cluster, requests, events=(Event(600.0, "slow_nodes", "workers", 120.0, 4, 0.4),))
        plant.advance(720.0)
        plant.observe()
        plant.advance(60.0)
        late.append(plant.observe()["web.late_ratio"])
    assert late[1] > late[0]


def test_recorded_requests_are_replayed_at_their_moments() -> None:
    trace = make_trace(lambda t: np.full_like(t, 0.2))
    rows = pl.DataFrame(
        {
            "service": "web",
            "time_s": [10.0, 20.0, 20.5],
            "input_tokens": [100.0, 0.0, 50.0],
            "output_tokens": [10.0, 5.0, 0.0],
        }
    )
    trace = trace.replacing("requests", requests=rows)
    cluster = make_cluster(input_token_s=0.001, output_token_s=0.02, replicas=1)
    plant = TwinPlant(
        trace, cluster, scheduler=MostAllocated(), events=(), record=Record(), until_s=3600, seed=0, serving=requests
    )
    plant.advance(60.0)
    plant.observe()
    books = plant.state.books[0]
    assert books[0] == 3
    assert books[RESPONSE_S] == pytest.approx(0.3 + 0.1 + 0.05)
