"""The front door: determinism, common random numbers, the books, and clear errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

import twin
from tests.twin.conftest import Follow, make_cluster
from twin.engine.traffic import Serve, fluid, requests
from twin.errors import SimulationError
from twin.trace import tables
from twin.types import Action, Cluster, Event, Observation


def test_same_seed_same_bytes(trace: twin.Trace, cluster: Cluster, tmp_path: Path) -> None:
    """Two runs with one seed write identical files; another seed does not."""
    written = []
    for place, seed in (("a", 7), ("b", 7), ("c", 8)):
        run = twin.simulate(trace, cluster, controller=Follow(), seed=seed, until_s=43_200)
        folder = tmp_path / place
        folder.mkdir()
        for name, frame in run.tables().items():
            tables.write(frame, folder / f"{name}.parquet")
        written.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert written[0] == written[1]
    assert written[0] != written[2]


def test_controllers_with_one_seed_meet_the_same_demand(trace: twin.Trace, cluster: Cluster) -> None:
    low, high = (twin.simulate(trace, cluster, controller=Follow(t), seed=1, until_s=43_200) for t in (0.5, 0.9))
    arrived = [run.service_steps["arrived_requests"] for run in (low, high)]
    assert arrived[0].to_list() == pytest.approx(arrived[1].to_list())
    assert low.kpis().equals(high.kpis()) is False


def test_replayed_demand_is_the_recorded_one(trace: twin.Trace) -> None:
    """Without noise the mean of the arrivals is the mean of the recording."""
    run = twin.simulate(trace, make_cluster(burst_cv=0.0), controller=Follow())
    recorded = trace.demand["value"].to_numpy().mean()
    replayed = run.service_steps["arrived_requests"].to_numpy().sum() / run.until_s / 1000.0
    assert replayed == pytest.approx(recorded, rel=1e-3)


def test_the_last_step_is_metered(trace: twin.Trace, cluster: Cluster) -> None:
    run = twin.simulate(trace, cluster, controller=Follow(), until_s=3600)
    assert run.service_steps["time_s"].max() == 3600
    assert run.service_steps.height == 60


def test_a_controller_of_an_odd_interval_stops_on_time(trace: twin.Trace, cluster: Cluster) -> None:
    run = twin.simulate(trace, cluster, controller=Follow(interval_s=37.0), until_s=3600)
    assert run.service_steps["time_s"].max() == 3600


def test_every_decision_is_recorded_and_confirmed(trace: twin.Trace, cluster: Cluster) -> None:
    run = twin.simulate(trace, cluster, controller=Follow(), until_s=7200)
    decisions = run.decisions
    assert decisions.height == 120
    assert decisions.filter(pl.col("confirmed").is_null()).height == 1  # the last is never read back
    assert decisions["confirmed"].drop_nulls().all()
    assert (decisions["status"] == "applied").all()


def test_more_capacity_costs_more_and_is_later_less(trace: twin.Trace, cluster: Cluster) -> None:
    def kpis(target: float) -> dict[str, float]:
        run = twin.simulate(trace, cluster, controller=Follow(target), seed=3)
        return dict(run.kpis(3600).select("kpi", "value").iter_rows())

    roomy, tight = kpis(0.6), kpis(0.97)
    assert roomy["cost_usd"] > tight["cost_usd"]
    assert roomy["late_ratio"] < tight["late_ratio"]
    assert 0 <= tight["late_ratio"] <= 1


def test_until_beyond_the_trace_is_an_error(trace: twin.Trace, cluster: Cluster) -> None:
    with pytest.raises(SimulationError, match="until_s"):
        twin.simulate(trace, cluster, controller=Follow(), until_s=1e9)


def test_a_service_without_demand_is_an_error(trace: twin.Trace) -> None:
    cluster = make_cluster()
    other = replace(cluster, services=(replace(cluster.services[0], name="api"),))
    with pytest.raises(SimulationError, match="no demand for service 'api'"):
        twin.simulate(trace, other, controller=Follow())


def test_telemetry_loss_holds_and_recovers(trace: twin.Trace, cluster: Cluster) -> None:
    loss = Event(3600.0, "telemetry_loss", "web", 900.0)
    run = twin.simulate(trace, cluster, controller=Follow(), events=[loss], until_s=7200)
    blind = run.decisions.filter(pl.col("reason") == "unknown", pl.col("time_s") > 0)
    assert blind["time_s"].to_list() == [3600.0 + 60 * i for i in range(1, 15)]
    assert (blind["applied"] == blind["current"]).all()


@pytest.mark.parametrize("serving", [fluid, requests])
@pytest.mark.parametrize("until_s", [7.0, 90.0])
@pytest.mark.parametrize("part", ["all", "no services", "no pools", "nothing", "no room"])
def test_small_and_empty_worlds_run_to_their_end(
    trace: twin.Trace, cluster: Cluster, serving: Serve, until_s: float, part: str
) -> None:
    """Less than a step, without services, pools or nodes: tables and KPIs are whole, if short."""
    none = replace(cluster.pools[0], nodes=0, min_nodes=0, max_nodes=0)
    fields = {"no services": {"services": ()}, "no pools": {"pools": ()}, "no room": {"pools": (none,)}}
    fields["nothing"] = {"services": (), "pools": ()}
    small = replace(cluster, **fields.get(part, {}))
    run = twin.simulate(trace, small, controller=Idle(), until_s=until_s, serving=serving)
    steps = 1 if until_s < 60 else 2
    assert run.service_steps.height == steps * len(small.services)
    assert run.pool_steps.height == steps * len(small.pools)
    assert run.kpis().height == 5 + 13 * len(small.services)


class Idle(Follow):
    """Wishes for nothing."""

    def decide(self, observation: Observation) -> list[Action]:
        return []


def test_the_wait_of_a_step_is_what_its_requests_waited(trace: twin.Trace) -> None:
    """Who is given too few replicas waits; with plenty nobody does, and no step repeats another."""
    waits = []
    for replicas in (9, 60):
        tight = make_cluster(replicas=replicas)
        run = twin.simulate(trace, tight, controller=Idle(), until_s=7200)
        waits.append(run.service_steps["wait_s"])
    assert waits[0].n_unique() > 50
    assert waits[0].sum() > 100 * waits[1].sum()
