"""Spans become a cluster whose demand are the recorded requests from outside; parameters say what spans do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

import twin
from agents.rules.hold import Hold
from scenarios.compose import Compose
from scenarios.faults import Faults
from scenarios.microservices import Microservices
from twin.engine.traffic import fluid, requests
from twin.errors import ScenarioError, TraceError
from twin.fidelity import call_graph
from twin.trace.trace import Trace, TraceInfo
from twin.types import Call, Cluster, Delay, Pool

CONF = Path(__file__).resolve().parents[2] / "conf" / "scenario" / "microservices.yaml"
LAB = Cluster("lab", (Pool("workers", 64, 256, 1.0, nodes=2),), ())
FIRST_S, EVERY_S, NUMBER = 100.0, 0.5, 1000


@pytest.fixture(scope="module")
def trace() -> Trace:
    """From second 100 on, twice a second: a shop that takes 0.3 s, two calls of a stock of 0.1 s between them."""
    spans = []
    for k in range(NUMBER):
        at = FIRST_S + k * EVERY_S
        spans += [("shop", at, f"s{k}", None, 0.5)]
        spans += [("stock", at + 0.1 + 0.2 * call, f"t{k}-{call}", f"s{k}", 0.1) for call in (0, 1)]
    columns = ("service", "time_s", "request", "parent", "duration_s")
    rows = pl.DataFrame(spans, schema=columns, orient="row", infer_schema_length=None)
    late = pl.DataFrame({"incident": ["early", "inside"], "start_s": [1.0, 130.0], "entity": "x", "kind": "slow"})
    services = pl.DataFrame({"service": ["shop", "stock"], "demand_unit": "requests/s"})
    frames = {"requests": rows, "services": services, "incidents": late}
    return Trace(TraceInfo("made", "made by a test", "none", "0" * 64), frames)


def mean_s(run: twin.Run, service: str) -> float:
    rows = run.service_steps.filter(pl.col("service") == service, pl.col("latency_p50_s").is_not_null())
    return float(rows.select(pl.col("latency_p50_s").mean()).item())


def test_services_calls_and_demand_are_those_of_the_spans(trace: Trace) -> None:
    replay, cluster, events = Microservices(cpu_cores=0.25).apply(trace, LAB)
    assert events == ()
    assert (cluster.pools, cluster.links) == (LAB.pools, LAB.links)
    shop, stock = (cluster.service(name) for name in ("shop", "stock"))
    assert (shop.service_time_s, stock.service_time_s) == (pytest.approx(0.3), pytest.approx(0.1))
    assert (shop.calls, stock.calls) == ((Call("stock", 2.0),), ())
    assert (shop.unit_rps, stock.unit_rps) == (1.0, 0.0)
    assert (shop.cpu_cores, shop.concurrency, shop.slo_s) == (0.25, 4, pytest.approx(0.75))
    arrivals = replay.demand["value"].to_numpy().sum() * replay.info.step_s
    assert arrivals == pytest.approx(NUMBER), "every entry is demand"
    assert replay.requests.select("service", "time_s", "duration_s").row(2) == ("shop", 1.0, pytest.approx(0.3))
    assert replay.requests.height == NUMBER
    assert replay.info.start_s == FIRST_S
    assert replay.incidents.select("incident", "start_s").rows() == [("inside", 30.0)]
    assert "1000 recorded traces as services and calls" in replay.info.notes[-1]


def test_what_is_replayed_can_be_chosen(trace: Trace) -> None:
    drawn, _, _ = Microservices(replay="arrivals").apply(trace, LAB)
    rates, _, _ = Microservices(replay="demand", step_s=10.0).apply(trace, LAB)
    assert drawn.requests["duration_s"].null_count() == NUMBER
    assert rates.requests.is_empty()
    assert rates.demand["value"].to_list()[:49] == pytest.approx([2.0] * 49)
    part, _, _ = Microservices(since_s=150.0, until_s=200.0).apply(trace, LAB)
    assert part.requests.height == 100


def test_single_services_differ_and_equal_scenarios_are_equal(trace: Trace) -> None:
    one = Microservices(services={"stock": {"replicas": 3, "cpu_cores": 2.0}, "shop": {"slo_s": 9.0}})
    other = Microservices(services={"shop": {"slo_s": 9.0}, "stock": {"cpu_cores": 2.0, "replicas": 3}})
    assert one == other
    assert hash(one) == hash(other)
    assert replace(one, room=2.0) != one
    (replay, cluster, _), (again, same, _) = one.apply(trace, LAB), other.apply(trace, LAB)
    assert cluster == same
    assert replay.digest() == again.digest()
    stock = cluster.service("stock")
    assert (stock.replicas, stock.cpu_cores, stock.concurrency) == (3, 2.0, 2), "4 places for 1 inside, on 3 replicas"
    assert cluster.service("shop").slo_s == 9.0


def test_fields_are_written_as_in_a_cluster_file(trace: Trace) -> None:
    scenario = Microservices(services={"stock": {"pools": ["workers"], "start": {"median_s": 5.0, "sigma": 0.1}}})
    stock = scenario.apply(trace, LAB)[1].service("stock")
    assert (stock.pools, stock.start) == (("workers",), Delay(5.0, 0.1))
    assert isinstance(hash(scenario), int)
    with pytest.raises(ScenarioError, match="is no delay"):
        Microservices(services={"stock": {"calls": {"shop": 1.0}}})


@pytest.mark.parametrize(
    ("scenario", "says"),
    [
        (Microservices(replay="all"), "replay is requests, arrivals or demand"),  # pyright: ignore[reportArgumentType]
        (Microservices(room=0.0), "must be numbers > 0"),
        (Microservices(step_s=float("inf")), "must be numbers > 0"),
        (Microservices(services={"stok": {"replicas": 1}}), "no service 'stok' in the spans of 'made'; they tell"),
        (Microservices(services={"stock": {"replica": 1}}), r"services.stock: .*'replica'"),
        (Microservices(services={"stock": {"replicas": 0}}), r"services.stock: .*replicas=0"),
    ],
)
def test_what_does_not_fit_is_refused(scenario: Microservices, says: str, trace: Trace) -> None:
    with pytest.raises(ScenarioError, match=says):
        scenario.apply(trace, LAB)


def test_a_trace_without_spans_is_refused() -> None:
    with pytest.raises(TraceError, match="no whole tree of spans"):
        Microservices().apply(Trace(TraceInfo("none", "made", "none", "0" * 64), {}), LAB)


def test_the_replay_is_the_recording_under_both_models(trace: Trace) -> None:
    """Constant times and plenty of room: 0.5 s, whichever way it is computed."""
    for replayed, serving in (("requests", requests), ("demand", fluid)):
        scenario = Microservices(replay=replayed)  # pyright: ignore[reportArgumentType]
        replay, cluster, _ = scenario.apply(trace, LAB)
        table = call_graph.mirrored(scenario.recorded(trace), replay, cluster, serving=serving)
        error = table.filter(measure="mean_s")["error"].abs()
        assert error.max() == pytest.approx(0.0, abs=0.02)  # pyright: ignore[reportArgumentType]


def test_a_slow_stock_is_felt_at_the_shop(trace: Trace) -> None:
    """At half its speed each of two calls takes 0.1 s more: 0.7 s instead of 0.5 s."""
    slow = Faults("slow_nodes", "stores", 1.0, 1e4, None, 1, 0.5)
    pools = (replace(LAB.pools[0], name="fronts"), replace(LAB.pools[0], name="stores", nodes=1))
    apart = {"shop": {"pools": ("fronts",)}, "stock": {"pools": ("stores",)}}
    seen = []
    for scenario in (Microservices(services=apart), Compose([Microservices(services=apart), slow])):
        replay, cluster, events = scenario.apply(trace, Cluster("two", pools, ()))
        run = twin.simulate(replay, cluster, controller=Hold(), events=events, serving=requests, until_s=400.0)
        seen.append(mean_s(run, "shop"))
    assert seen[0] == pytest.approx(0.5, rel=0.06)
    assert seen[1] == pytest.approx(0.7, rel=0.06)


def test_the_option_is_the_scenario() -> None:
    assert instantiate(OmegaConf.load(CONF), _convert_="all") == Microservices(waits_at="callee", kinds=8)
