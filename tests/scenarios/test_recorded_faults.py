"""Recorded failures, outages and spot markets happen when and as long as they were recorded."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from scenarios.recorded_faults import RecordedFailures, RecordedOutages, RecordedSpot
from scenarios.recordings import failures
from tests.twin.conftest import make_cluster, make_trace
from twin.errors import ScenarioError
from twin.trace.read import read
from twin.trace.trace import Trace, TraceInfo
from twin.types import Event

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
DAY_S = 86_400.0
FLAT = make_trace(lambda t: 0.0 * t + 0.2, days=3.0)
CLUSTER = make_cluster()
SPOT = replace(CLUSTER, pools=(replace(CLUSTER.pools[0], offer="spot", nodes=8, notice_s=120.0),))


def data(folder: str) -> str:
    if not (DATA / folder).is_dir():
        pytest.skip(f"the recording {folder} is not on this machine")
    return str(DATA / folder)


def written(folder: Path, tables: dict[str, list[dict[str, Any]]], step_s: float = 0.0) -> str:
    """A folder of canonical tables."""
    frames = {name: pl.DataFrame(rows, infer_schema_length=None) for name, rows in tables.items()}
    Trace(TraceInfo("log", "made by a test", "none", "0" * 64, step_s=step_s), frames).write(folder)
    return str(folder)


def event(node: str, time_s: float, event: str, **more: Any) -> dict[str, Any]:
    return {"node": node, "time_s": time_s, "event": event, "component": None, "cause": None, "share": 1.0, **more}


LOG = [
    event("a", 100.0, "fail", cause="power"),
    event("a", 400.0, "repair"),
    event("b", 100.0, "fail", cause="power"),
    event("b", 400.0, "repair"),
    event("c", 500.0, "fail"),
    event("c", 900.0, "fail"),
    event("c", 1000.0, "add"),
    event("d", 600.0, "remove"),
    event("d", 650.0, "add"),
    event("e", 700.0, "fail", component="disk3", share=0.25),
    event("z", 300_000.0, "fail"),
    event("z", 300_100.0, "repair"),
]
NODES = [{"node": name, "pool": "old"} for name in "abcdefgz"]


@pytest.fixture
def log(tmp_path: Path) -> str:
    return written(tmp_path / "log", {"nodes": NODES, "node_events": LOG})


def test_failures_and_repairs_are_paired_by_unit(log: str) -> None:
    found = failures(read(log))
    assert found.watched == 8
    assert found.table.select("unit", "time_s", "duration_s").rows() == [
        ("a", 100.0, 300.0),
        ("b", 100.0, 300.0),
        ("c", 500.0, None),  # failed again before a repair was told
        ("c", 900.0, 100.0),
        ("z", 300_000.0, 100.0),
    ]


def test_parts_and_removals_are_failures_where_they_are_asked_for(log: str) -> None:
    parts = failures(read(log), parts=True)
    assert parts.table.select("unit", "time_s", "duration_s").rows() == [("e/disk3", 700.0, None)]
    assert parts.watched == 8 * 4, "a disk is a quarter of its node"
    gone = failures(read(log), starts=("remove",))
    assert gone.table.select("unit", "time_s", "duration_s").rows() == [("d", 600.0, 50.0)]


def test_the_whole_recording_is_replayed_at_its_instants_and_cut_at_the_end(log: str) -> None:
    scenario = RecordedFailures(log, "workers", stands_for=None, repair_s=60.0)
    trace, cluster, events = scenario.apply(FLAT, CLUSTER)
    assert cluster == CLUSTER
    assert trace.digest() == FLAT.digest()
    assert "8 of 8 recorded units on the 4 nodes" in trace.info.notes[-1]
    assert [(e.time_s, e.count, e.duration_s) for e in events] == [(100.0, 2, 60.0), (500.0, 1, 60.0), (900.0, 1, 60.0)]
    assert {(e.kind, e.target) for e in events} == {("node_failure", "workers")}
    assert events[0].cause == "log: power"


def test_recorded_durations_hold_and_unknown_ones_are_the_pools(log: str) -> None:
    _, _, events = RecordedFailures(log, "workers", stands_for=None).apply(FLAT, CLUSTER)
    assert {e.time_s: e.duration_s for e in events if e.time_s != 500.0} == {100.0: 300.0, 900.0: 100.0}
    drawn = next(e.duration_s for e in events if e.time_s == 500.0)
    assert drawn > 0
    sure = replace(CLUSTER, pools=(replace(CLUSTER.pools[0], repair=replace(CLUSTER.pools[0].repair, sigma=0.0)),))
    _, _, events = RecordedFailures(log, "workers", stands_for=None).apply(FLAT, sure)
    assert next(e.duration_s for e in events if e.time_s == 500.0) == 1800.0


def test_an_offset_chooses_the_beginning_and_what_lasts_then_goes_on(log: str) -> None:
    _, _, events = RecordedFailures(log, "workers", stands_for=None, offset_s=250.0, repair_s=300.0).apply(
        FLAT, CLUSTER
    )
    assert [(e.time_s, e.duration_s, e.count) for e in events] == [
        (0.0, 150.0, 2),
        (250.0, 300.0, 1),
        (650.0, 300.0, 1),
    ]
    _, _, late = RecordedFailures(log, "workers", stands_for=None, offset_s=200_000.0).apply(FLAT, CLUSTER)
    assert late == (Event(100_000.0, "node_failure", "workers", 100.0, cause="log: failure"),)


def test_a_pool_stands_for_its_part_of_the_recorded_nodes() -> None:
    """4 of 8 nodes are drawn: half of the failures of single nodes in the mean over seeds, never others."""
    own = make_trace(lambda t: 0.0 * t + 0.2, days=0.1).replacing(
        "with failures", node_events=pl.DataFrame(LOG[:-2]), nodes=pl.DataFrame(NODES)
    )
    counts = Counter()
    for seed in range(150):
        _, _, events = RecordedFailures("", "workers", seed=seed, repair_s=60.0).apply(own, CLUSTER)
        counts.update({e.time_s: e.count for e in events})
    assert set(counts) == {100.0, 500.0, 900.0}
    assert counts[500.0] == counts[900.0], "both failures of one node happen, or none"
    assert counts[500.0] / 150 == pytest.approx(0.5, abs=4 * 0.041)
    assert counts[100.0] / 150 == pytest.approx(1.0, abs=4 * 0.054)


def test_same_seed_same_events_and_equal_scenarios_are_equal(log: str) -> None:
    one, two = (RecordedFailures(log, "workers", starts=starts, seed=3) for starts in (["fail"], ("fail",)))
    assert one == two
    assert hash(one) == hash(two)
    assert one.apply(FLAT, CLUSTER)[2] == two.apply(FLAT, CLUSTER)[2]


def test_a_trace_that_tells_its_own_failures_is_its_own_recording() -> None:
    own = FLAT.replacing("with failures", node_events=pl.DataFrame(LOG), nodes=pl.DataFrame(NODES))
    _, _, events = RecordedFailures("", "workers", stands_for=None, repair_s=60.0).apply(own, CLUSTER)
    assert [e.time_s for e in events] == [100.0, 500.0, 900.0, 300_000.0]


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"pool": "batch"}, "no pool 'batch'"),
        ({"stands_for": 3}, "cannot stand for 12"),
        ({"stands_for": 0}, "cannot stand for 0"),
        ({"offset_s": 1e9}, "lies outside"),
        ({"offset_s": -1.0}, "lies outside"),
        ({"starts": ["add"]}, None),
        ({"recorded_nodes": 2}, "more than the 2"),
        ({"parts": True, "starts": ("remove",)}, "tells no remove of parts"),
        ({"repair_s": 0.0, "stands_for": None}, "duration_s=0"),
    ],
)
def test_what_does_not_fit_is_refused(log: str, more: dict[str, Any], what: str | None) -> None:
    scenario = RecordedFailures(**{"path": log, "pool": "workers", **more})
    if what is None:
        assert scenario.apply(FLAT, CLUSTER)[2] is not None
        return
    with pytest.raises(ScenarioError, match=what):
        scenario.apply(FLAT, CLUSTER)


# ---------------------------------------------------------------- outages


@pytest.fixture
def outages(tmp_path: Path) -> str:
    rows = [("x", 100.0, 300.0, 0.4), ("x", 5000.0, 6000.0, 1.0), ("x", 7000.0, None, 1.0), ("x", 8000.0, 8100.0, 0.0)]
    incidents = [
        {"incident": f"x/{i}", "start_s": start, "end_s": end, "entity": name, "kind": "outage", "share": share}
        for i, (name, start, end, share) in enumerate(rows)
    ]
    return written(tmp_path / "outages", {"incidents": incidents})


def test_an_outage_is_a_share_of_answers_that_are_errors(outages: str) -> None:
    _, cluster, events = RecordedOutages(outages, "web").apply(FLAT, CLUSTER)
    assert cluster == CLUSTER
    assert events == (
        Event(100.0, "bad_deploy", "web", 200.0, 1, 0.4, "log: x/0"),
        Event(5000.0, "bad_deploy", "web", 1000.0, 1, 1.0, "log: x/1"),
    )


def test_whole_outages_may_be_read_as_failures_of_a_zone(outages: str) -> None:
    scenario = RecordedOutages(outages, "zone-a", kind="zone_failure", least_share=0.9, offset_s=5500.0)
    _, _, events = scenario.apply(FLAT, CLUSTER)
    assert [(e.kind, e.target, e.time_s, e.duration_s) for e in events] == [("zone_failure", "zone-a", 0.0, 500.0)]


def test_unknown_services_are_refused(outages: str) -> None:
    with pytest.raises(ScenarioError, match="no service 'api'"):
        RecordedOutages(outages, "api").apply(FLAT, CLUSTER)
    with pytest.raises(ScenarioError, match="no entity 'y'"):
        RecordedOutages(outages, "web", entity="y").apply(FLAT, CLUSTER)
    with pytest.raises(ScenarioError, match="not a 'node_failure'"):
        RecordedOutages(outages, "web", kind="node_failure").apply(FLAT, CLUSTER)  # pyright: ignore[reportArgumentType]


def test_recorded_outages_of_a_public_service_are_replayed_one_by_one() -> None:
    path = data("service-outages-opendc")
    with pytest.raises(ScenarioError, match="not just one entity"):
        RecordedOutages(path, "web").apply(FLAT, CLUSTER)
    whole = make_trace(lambda t: 0.0 * t + 0.2, days=60.0)
    entity = "Gmail"
    _, _, events = RecordedOutages(path, "web", entity=entity).apply(whole, CLUSTER)
    told = read(path).incidents.filter(pl.col("entity") == entity, pl.col("start_s") < 60 * DAY_S, pl.col("share") > 0)
    assert [e.time_s for e in events] == told["start_s"].to_list()
    assert len(events) > 20
    assert [e.magnitude for e in events] == told["share"].to_list()


# ---------------------------------------------------------------- spot markets


def ticks(tmp_path: Path, counts: list[int], step_s: float = 300.0) -> str:
    rows = [
        {"entity": "z", "resource": "spot_instances", "time_s": i * step_s, "value": float(n), "unit": "instance",
         "step_s": step_s}
        for i, n in enumerate(counts)
    ]  # fmt: skip
    return written(tmp_path / "spot", {"usage": rows}, step_s)


def test_a_falling_count_takes_nodes_back_and_leaves_a_shortage(tmp_path: Path) -> None:
    """4 were asked for, 8 nodes stand for them; all changes downwards begin with the notice of 120 s."""
    path = ticks(tmp_path, [4, 4, 3, 3, 0, 0, 4, 4])
    _, _, events = RecordedSpot(path, "workers").apply(FLAT, SPOT)
    cause = "log: z"
    assert events == (
        Event(480.0, "shortage", "workers", 600.0, 1, 6.0, cause),
        Event(480.0, "interruption", "workers", 0.0, 2, cause=cause),
        Event(1080.0, "shortage", "workers", 720.0, 1, 0.0, cause),
        Event(1080.0, "interruption", "workers", 0.0, 6, cause=cause),
    )


def test_what_is_missing_at_the_start_is_taken_back_then(tmp_path: Path) -> None:
    path = ticks(tmp_path, [4, 1, 1, 1])
    _, _, events = RecordedSpot(path, "workers", offset_s=450.0).apply(FLAT, SPOT)
    assert [(e.time_s, e.kind, e.duration_s) for e in events] == [(0.0, "shortage", 750.0), (0.0, "interruption", 0.0)]
    assert (events[0].magnitude, events[1].count) == (2.0, 6)


def test_changes_closer_than_the_notice_keep_their_order(tmp_path: Path) -> None:
    path = ticks(tmp_path, [1, 0, 1, 0, 0, 1], step_s=30.0)
    _, _, events = RecordedSpot(path, "workers").apply(FLAT, SPOT)
    assert [(e.time_s, e.kind, e.duration_s) for e in events] == [
        (0.0, "shortage", 60.0),
        (0.0, "interruption", 0.0),
        (60.0, "shortage", 90.0),
        (60.0, "interruption", 0.0),
    ]


def test_a_market_needs_spot_nodes(tmp_path: Path) -> None:
    path = ticks(tmp_path, [1, 0])
    with pytest.raises(ScenarioError, match="on demand"):
        RecordedSpot(path, "workers").apply(FLAT, CLUSTER)
    with pytest.raises(ScenarioError, match="never had an instance"):
        RecordedSpot(ticks(tmp_path / "none", [0, 0]), "workers").apply(FLAT, SPOT)


def test_every_recorded_preemption_is_replayed_at_its_instant() -> None:
    """Nodes are gone one notice after the event: at the recorded tick, as long as no other change is in between."""
    path = data("spot-availability-skypilot") + "/preemption/4-node/aws-08-03-2023"
    trace = make_trace(lambda t: 0.0 * t + 0.2, days=17.0)
    _, _, events = RecordedSpot(path, "workers", entity="us-east-2a/v100_1").apply(trace, SPOT)
    recorded = read(path)
    gone = recorded.node_events.filter(
        pl.col("node") == "us-east-2a/v100_1", pl.col("event") == "remove", pl.col("time_s") < trace.duration_s
    )
    taken = [e for e in events if e.kind == "interruption"]
    assert [e.time_s + 120.0 for e in taken] == gone["time_s"].to_list()
    assert [e.count for e in taken] == (gone["share"] * 8).round().cast(pl.Int64).to_list()
    had = recorded.usage.filter(entity="us-east-2a/v100_1")
    short_s = had.filter(pl.col("value") < 4).height * 300.0
    # each fall lengthens the shortage, or turns the one before it, by the notice
    told_s = sum(e.duration_s for e in events if e.kind == "shortage")
    assert short_s <= told_s <= short_s + 120.0 * len(taken)


def test_recorded_gpu_failures_fall_on_a_pool_in_proportion() -> None:
    """Titan: 18,687 GPUs; a pool of 4 nodes, each for 500 of them, gets 2,000 / 18,687 of their failures."""
    path = data("titan-gpu-failures")
    whole = failures(read(path), parts=True)
    assert whole.watched == 18_687
    year = make_trace(lambda t: 0.0 * t + 0.2, days=365.0)
    start_s = 2 * 365 * DAY_S
    during = whole.table.filter(pl.col("time_s").is_between(start_s, start_s + 365 * DAY_S, closed="left")).height
    numbers = [
        sum(
            e.count
            for e in RecordedFailures(
                path, "workers", parts=True, stands_for=500, offset_s=start_s, repair_s=60.0, seed=seed
            ).apply(year, CLUSTER)[2]
        )
        for seed in range(3)
    ]
    expected = during * 2000 / 18_687
    assert expected > 50
    assert sum(numbers) / 3 == pytest.approx(expected, rel=0.25)
