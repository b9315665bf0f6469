"""A call graph is what the spans say: nothing is counted twice, nothing is lost, and what does not fit is told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scenarios.microservices import Microservices
from twin.errors import TraceError
from twin.fidelity import call_graph
from twin.fidelity.call_graph import CallGraph, Edge, Served, Station
from twin.trace.read import read
from twin.trace.trace import Trace, TraceInfo
from twin.types import Cluster, Pool

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"
Span = tuple[str, float, str | None, str | None, float | None]
COLUMNS = ("service", "time_s", "request", "parent", "duration_s")
LAB = Cluster("lab", (Pool("workers", 64, 256, 1.0, nodes=2),), ())


def trace_of(spans: Sequence[Span]) -> Trace:
    rows = pl.DataFrame(spans, schema=COLUMNS, orient="row", infer_schema_length=None)
    services = rows.select("service").unique().with_columns(demand_unit=pl.lit("requests/s"))
    return Trace(TraceInfo("made", "made by a test", "none", "0" * 64), {"requests": rows, "services": services})


@dataclass
class Shop:
    """Makes spans as the twin serves requests: own time in pieces, and calls one after the other between them."""

    rng: np.random.Generator
    own_s: dict[str, float]
    calls: dict[str, tuple[tuple[str, int], ...]]
    cv: float = 0.5
    gap_s: float = 0.0  # around each call, inside of a client span
    spans: list[Span] = field(default_factory=list)

    def enter(self, service: str, time_s: float, parent: str | None = None) -> float:
        """Serve a request and all that it causes; returns when it was answered."""
        name, at = f"{len(self.spans)}", time_s
        self.spans.append((service, time_s, name, parent, None))
        callees = [callee for callee, number in self.calls.get(service, ()) for _ in range(number)]
        sigma = math.sqrt(math.log1p(self.cv**2))
        own_s = self.own_s[service] * math.exp(sigma * self.rng.standard_normal() - sigma**2 / 2)
        for callee in callees:
            at = self._call(service, callee, at + own_s / (len(callees) + 1), name)
        at += own_s / (len(callees) + 1)
        self._end(name, at)
        return at

    def _call(self, service: str, callee: str, time_s: float, parent: str) -> float:
        if not self.gap_s:
            return self.enter(callee, time_s, parent)
        client = f"{len(self.spans)}"
        self.spans.append((service, time_s, client, parent, None))
        end_s = self.enter(callee, time_s + self.gap_s, client) + self.gap_s
        self._end(client, end_s)
        return end_s

    def _end(self, name: str, end_s: float) -> None:
        service, time_s, _, parent, _ = self.spans[int(name)]
        self.spans[int(name)] = (service, time_s, name, parent, end_s - time_s)


OWN_S = {"web": 0.05, "cart": 0.02, "stock": 0.1}
CALLS = {"web": (("cart", 2), ("stock", 1)), "cart": (("stock", 1),)}


def shop(number: int = 500, seed: int = 1, every_s: float = 0.5, **fields: object) -> Trace:
    made = Shop(np.random.default_rng(seed), OWN_S, CALLS, **fields)  # pyright: ignore[reportArgumentType]
    for k in range(number):
        made.enter("web", k * every_s)
    return trace_of(made.spans)


def by_name(graph: CallGraph) -> tuple[dict[str, Station], dict[tuple[str, str], Edge]]:
    return {s.service: s for s in graph.stations}, {(e.caller, e.callee): e for e in graph.edges}


def own_of(recorded: Served) -> dict[str, float]:
    return dict(recorded.table.group_by("service").agg(pl.col("own_s").sum().round(9)).iter_rows())


# ---------------------------------------------------------------- what made the spans is found again


def test_known_own_times_and_calls_are_found_again() -> None:
    graph = call_graph.fit(call_graph.served(shop(2000)))
    stations, edges = by_name(graph)
    assert {name: s.own_mean_s for name, s in stations.items()} == pytest.approx(OWN_S, rel=0.03)
    assert [s.own_cv for s in graph.stations] == pytest.approx([0.5] * 3, rel=0.06)
    assert {s.distribution for s in graph.stations} == {"lognormal"}
    assert max(s.own_ks for s in graph.stations) < 0.04
    made = {pair: edge.per_request for pair, edge in edges.items()}
    assert made == {("cart", "stock"): 1.0, ("web", "cart"): 2.0, ("web", "stock"): 1.0}
    assert {edge.cv for edge in graph.edges} == {0.0}
    assert graph.traces == 2000
    assert stations["web"].entry_rps == pytest.approx(2.0, rel=0.01)
    assert stations["stock"].entry_rps == 0.0
    assert graph.unfitted == ()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.sampled_from([0.0, 0.004]))
def test_nothing_is_lost(seed: int, number: int, gap_s: float) -> None:
    """Requests = entries + calls; own time + calls = response; all own time together = response of all entries."""
    recorded = call_graph.served(shop(number, seed, gap_s=gap_s), since_s=0.0)
    table, graph = recorded.table, call_graph.fit(recorded)
    stations, edges = by_name(graph)
    for name, station in stations.items():
        called = sum(edge.calls for (_, callee), edge in edges.items() if callee == name)
        assert station.requests == called + round(station.entry_rps * (graph.until_s - graph.since_s))
        assert station.sequential_mean_s == pytest.approx(station.response_mean_s)
    assert sum(s.requests for s in graph.stations) == 6 * number
    whole = table.select(pl.col("own_s") + pl.col("calls_s")).to_series().to_numpy()
    assert whole == pytest.approx(table["response_s"].to_numpy())
    assert table["own_s"].sum() == pytest.approx(recorded.entries["response_s"].sum())


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.001, 0.05))
def test_a_gap_moves_from_the_caller_to_the_callee_and_nothing_else_does(seed: int, gap_s: float) -> None:
    trace = shop(40, seed, gap_s=gap_s)
    at_caller, at_callee = (call_graph.served(trace, waits_at=side, since_s=0.0) for side in ("caller", "callee"))
    assert sum(own_of(at_caller).values()) == pytest.approx(sum(own_of(at_callee).values()))
    moved = own_of(at_caller)["web"] - own_of(at_callee)["web"]
    assert moved == pytest.approx(40 * 3 * 2 * gap_s, abs=1e-6)
    gaps = [edge.gap_s for edge in call_graph.fit(at_caller).edges]
    assert gaps == pytest.approx([2 * gap_s] * 3)
    assert [e.gap_s for e in call_graph.fit(call_graph.served(shop(3), since_s=0.0)).edges] == [None] * 3


# ---------------------------------------------------------------- rules, by hand


def golden(spans: Sequence[Span], **asked: object) -> Served:
    return call_graph.served(trace_of(spans), since_s=0.0, **asked)  # pyright: ignore[reportArgumentType]


def test_spans_of_one_service_are_one_request() -> None:
    """Outer, inner and innermost span of the shop are one request of 1 s; a call below any of them is its call."""
    recorded = golden(
        [("shop", 0.0, "a", None, 1.0), ("shop", 0.1, "b", "a", 0.8), ("shop", 0.2, "c", "b", 0.5),
         ("stock", 0.3, "d", "c", 0.2), ("stock", 0.35, "e", "d", 0.1)]
    )  # fmt: skip
    assert recorded.table.select("service", "response_s").rows() == [("shop", 1.0), ("stock", 0.2)]
    assert own_of(recorded) == {"shop": 0.8, "stock": 0.2}


def test_calls_side_by_side_are_not_taken_off_twice_and_the_error_of_a_sequence_is_told() -> None:
    """0.2-0.6 and 0.4-0.9 cover 0.7 of 1 s; one after the other they would take 0.9, and all 1.2."""
    recorded = golden(
        [("shop", 0.0, "a", None, 1.0), ("x", 0.2, "b", "a", 0.4), ("y", 0.4, "c", "a", 0.5), ("y", 0.5, "d", "a", 0.0)]
    )
    station = by_name(call_graph.fit(recorded))[0]["shop"]
    assert station.own_mean_s == pytest.approx(0.3)
    assert station.response_mean_s == 1.0
    assert station.sequential_mean_s == pytest.approx(1.2)


def test_a_call_that_outlasts_its_caller_covers_only_what_lies_within_and_is_told() -> None:
    recorded = golden([("shop", 0.0, "a", None, 1.0), ("mail", 0.7, "b", "a", 2.0)])
    assert own_of(recorded) == {"shop": 0.7, "mail": 2.0}
    assert recorded.unfitted == ("1 calls went on after their caller had answered: the twin's caller waits for them",)


def test_a_callee_whose_clock_is_early_covers_only_what_lies_within() -> None:
    """0.5 s from -0.3 s on cover 0.2 s; what begins after the end covers nothing."""
    recorded = golden([("shop", 1.0, "a", None, 1.0), ("x", 0.7, "b", "a", 0.5), ("x", 2.5, "c", "a", 0.1)])
    assert own_of(recorded) == {"shop": 0.8, "x": 0.6}


def test_a_span_around_several_calls_is_no_client_span() -> None:
    """What lies between the two calls is the shop's own, whoever's the gaps are."""
    recorded = golden(
        [("shop", 0.0, "a", None, 1.0), ("shop", 0.1, "b", "a", 0.8), ("x", 0.2, "c", "b", 0.1),
         ("x", 0.6, "d", "b", 0.1)], waits_at="callee",
    )  # fmt: skip
    assert own_of(recorded) == {"shop": 0.8, "x": 0.2}
    assert call_graph.fit(recorded).edges[0].gap_s is None


def test_a_circle_is_opened_at_its_rarest_call_which_becomes_own_time() -> None:
    """Shop calls stock calls shop: the inner shop, and the stock that it calls, are own time of the outer stock."""
    recorded = golden(
        [("shop", 0.0, "a", None, 1.0), ("stock", 0.1, "b", "a", 0.8), ("shop", 0.2, "c", "b", 0.5),
         ("stock", 0.3, "d", "c", 0.1)]
    )  # fmt: skip
    assert own_of(recorded) == {"shop": 0.2, "stock": 0.8}
    assert [(edge.caller, edge.callee, edge.calls) for edge in call_graph.fit(recorded).edges] == [("shop", "stock", 1)]
    assert recorded.unfitted == (
        "1 calls of shop by stock close a circle: they and what is below them count as own time of stock",
    )


def test_a_circle_that_no_single_trace_closes_is_opened_too() -> None:
    spans: list[Span] = [("x", float(k), f"x{k}", None, 0.5) for k in range(3)]
    spans += [("y", k + 0.1, f"xy{k}", f"x{k}", 0.1) for k in range(3)]
    spans += [("y", 3.0, "y", None, 0.5), ("x", 3.1, "yx", "y", 0.1)]
    graph = call_graph.fit(golden(spans))
    assert [(edge.caller, edge.callee, edge.per_request) for edge in graph.edges] == [("x", "y", 1.0)]
    assert by_name(graph)[0]["y"].requests == 4
    assert len(graph.unfitted) == 1


def test_trees_that_are_not_whole_are_left_out_and_counted() -> None:
    whole: list[Span] = [("shop", 0.0, "a", None, 1.0), ("stock", 0.1, "b", "a", 0.2)]
    broken: list[Span] = [
        ("shop", 1.0, "p", "gone", 1.0), ("stock", 1.1, "q", "p", 0.1),  # the parent was not recorded
        ("shop", 2.0, "r", None, 1.0), ("stock", 2.1, "s", "r", None),  # a duration was not recorded
        ("shop", 3.0, "t", "u", 1.0), ("stock", 3.1, "u", "t", 1.0),  # parents of each other
    ]  # fmt: skip
    recorded = golden([*whole, *broken])
    assert recorded.table.drop("row", "caller").equals(golden(whole).table.drop("row", "caller"))
    assert recorded.unfitted == (
        "4 spans lead up to no entry (an unknown parent): left out",
        "2 spans belong to trees in which a duration is unknown: left out",
    )
    with pytest.raises(TraceError, match=r"no whole tree of spans .*left out.*; choose a recording"):
        golden(broken)


def test_the_stretch_of_most_entries_is_taken_unless_one_is_asked_for() -> None:
    """Ten entries, two minutes of silence, three entries."""
    spans: list[Span] = [("shop", float(k), f"a{k}", None, 0.5) for k in range(10)]
    spans += [("shop", 129.0 + k, f"b{k}", None, 0.5) for k in range(3)]
    trace = trace_of(spans)
    assert call_graph.served(trace).table.height == 10
    later = call_graph.served(trace, since_s=129.0, until_s=131.0)
    assert (later.table.height, later.since_s, later.until_s) == (2, 129.0, 130.5)
    with pytest.raises(TraceError, match=r"no request came in \[50, 60\) s; they came from 0 to 131 s"):
        call_graph.served(trace, since_s=50.0, until_s=60.0)


def test_kinds_are_set_apart_by_their_calls_and_the_rest_is_together() -> None:
    """Three front pages call nobody, two look at the stock, one also pays: with two kinds the last three are one."""
    spans: list[Span] = [("shop", float(k), f"a{k}", None, 0.5) for k in range(6)]
    spans += [("stock", k + 0.1, f"s{k}", f"a{k}", 0.1) for k in (3, 4, 5)]
    spans += [("pay", 5.3, "p", "a5", 0.1)]
    counts = [
        {s.service: s.requests for s in call_graph.fit(golden(spans, kinds=kinds)).stations} for kinds in (1, 2, 3, 9)
    ]
    called = {"stock": 3, "pay": 1}
    assert counts[0] == {"shop": 6, **called}
    assert counts[1] == {"shop/1": 3, "shop/other": 3, **called}
    assert counts[2] == counts[3] == {"shop/1": 3, "shop/2": 2, "shop/3": 1, **called}
    alike = golden(spans[:3], kinds=5)
    assert set(alike.table["service"]) == {"shop"}, "one kind keeps its name"


def test_the_peak_is_who_was_inside_at_once() -> None:
    spans: list[Span] = [("shop", 0.0, "a", None, 1.0), ("shop", 0.5, "b", None, 2.0), ("shop", 1.0, "c", None, 1.0)]
    assert call_graph.fit(golden(spans)).stations[0].peak == 2


def test_the_law_that_made_own_times_is_chosen() -> None:
    rng = np.random.default_rng(4)
    for law, own in (("gamma", rng.gamma(0.5, 0.2, 800)), ("lognormal", np.exp(rng.normal(-3, 1.0, 800)))):
        station = call_graph.fit(golden([("s", k * 1.0, f"{k}", None, float(x)) for k, x in enumerate(own)])).stations[
            0
        ]
        assert station.distribution == law
        assert station.own_ks < 0.06


# ---------------------------------------------------------------- the mirror


def errors(recorded: Served, replay: Trace, cluster: Cluster) -> dict[tuple[str, str], float]:
    table = call_graph.mirrored(recorded, replay, cluster)
    return {(service, measure): error for service, measure, *_, error in table.iter_rows()}


def test_a_twin_like_recording_is_mirrored_and_a_wrong_cluster_is_found_out() -> None:
    trace, scenario = shop(1500, every_s=0.2), Microservices()
    recorded = scenario.recorded(trace)
    replay, cluster, _ = scenario.apply(trace, LAB)
    right = errors(recorded, replay, cluster)
    assert {service for service, _ in right} == {"web", "cart", "stock", call_graph.END_TO_END}
    assert all(right[service, "requests"] == 0 for service, _ in right)
    assert max(abs(error) for (_, measure), error in right.items() if measure == "mean_s") < 0.04
    assert max(abs(error) for error in right.values()) < 0.12
    slow = tuple(replace(s, service_time_s=2 * s.service_time_s) if s.name == "stock" else s for s in cluster.services)
    wrong = errors(recorded, replay, replace(cluster, services=slow))
    assert wrong["stock", "mean_s"] == pytest.approx(1.0, abs=0.1)
    three = 3 * OWN_S["stock"]
    whole = OWN_S["web"] + 2 * OWN_S["cart"] + three
    assert wrong[call_graph.END_TO_END, "mean_s"] == pytest.approx(three / whole, abs=0.05), (
        "it travels along the calls"
    )


def test_what_the_twin_cannot_resolve_is_unknown() -> None:
    """Response times below the twin's first bucket have a mean, but no percentiles."""
    spans: list[Span] = [("shop", float(k), f"{k}", None, 0.0002) for k in range(30)]
    scenario = Microservices()
    replay, cluster, _ = scenario.apply(trace_of(spans), LAB)
    table = call_graph.mirrored(scenario.recorded(trace_of(spans)), replay, cluster).filter(service="shop")
    assert table["simulated"].is_null().to_list() == [False, False, True, True]
    assert table["error"].is_null().to_list() == [False, False, True, True]


# ---------------------------------------------------------------- recordings


@pytest.fixture(scope="module")
def nezha() -> Trace:
    folder = DATA / "nezha-rca" / "rca_data" / "2022-08-22"
    if not folder.is_dir():
        pytest.skip("the recording nezha-rca is not on this machine")
    return read(folder)


def test_nezha_online_boutique_golden(nezha: Trace) -> None:
    """247 traces; the calls are those that the reader counts; they are made one after the other."""
    graph = call_graph.fit(call_graph.served(nezha))
    stations, edges = by_name(graph)
    assert (graph.traces, len(stations), len(edges), graph.unfitted) == (247, 10, 13, ())
    counted = nezha.calls.filter(pl.col("count").is_not_null())
    told = {(caller, callee): count for caller, callee, count in counted.iter_rows()}
    assert {pair: edge.calls for pair, edge in edges.items()} == told
    assert edges["frontend", "currencyservice"].per_request == pytest.approx(759 / 247)
    assert stations["frontend"].response_p50_s == pytest.approx(6.1486, abs=1e-3)
    assert all(s.sequential_mean_s == pytest.approx(s.response_mean_s, rel=1e-5) for s in graph.stations)
    assert stations["currencyservice"].peak == 1, "one request at a time has a span: the others wait before theirs"
    assert edges["frontend", "currencyservice"].gap_s == pytest.approx(2.6865, abs=1e-3)


def test_nezha_is_mirrored_better_with_kinds(nezha: Trace) -> None:
    """Requests that all call alike miss the slow pages; eight kinds of pages hit the tail within a fifth."""
    tails = []
    for kinds in (1, 8):
        scenario = Microservices(waits_at="callee", kinds=kinds)
        replay, cluster, _ = scenario.apply(nezha, LAB)
        found = errors(scenario.recorded(nezha), replay, cluster)
        assert found[call_graph.END_TO_END, "mean_s"] == pytest.approx(0.0, abs=0.12)
        tails.append(found[call_graph.END_TO_END, "p95_s"])
    assert tails[0] < -0.4
    assert abs(tails[1]) < 0.2


def test_petshop_tells_that_services_call_but_not_how_often() -> None:
    folder = DATA / "petshop-rca" / "low_traffic"
    if not folder.is_dir():
        pytest.skip("the recording petshop-rca is not on this machine")
    with pytest.raises(TraceError, match="tells no whole tree of spans"):
        call_graph.served(read(folder))
