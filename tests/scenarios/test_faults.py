"""Scheduled faults: when they happen, and what is refused because it cannot happen to this cluster."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from scenarios import faults
from scenarios.compose import Compose
from scenarios.faults import Faults, NodeFailures, TelemetryLoss
from tests.twin.conftest import make_cluster, make_trace
from twin.errors import ScenarioError, WorkbenchError
from twin.types import Cluster, Delay, Event, EventKind, Pool, Service

FLAT = make_trace(lambda t: 0.0 * t + 0.2, days=3.0)
CLUSTER = make_cluster()
SPOT = replace(CLUSTER, pools=(replace(CLUSTER.pools[0], offer="spot"),))
TARGETS = {"pool": "workers", "rack": "workers/1", "zone": "zone-a", "service": "web"}
CONF = Path(__file__).resolve().parents[2] / "conf" / "scenario"


def like_web() -> Cluster:
    """The names of conf/cluster/web.yaml."""
    workers = Pool("workers", 16, 64, 0.76, nodes=8, min_nodes=2, max_nodes=40)
    return Cluster("web", (workers,), (Service("cell", 2000.0, 2, 4, 0.16, 4, 0.5, start=Delay(45.0)),))


@pytest.mark.parametrize("kind", get_args(EventKind))
def test_every_kind_of_event_can_be_scheduled(kind: EventKind) -> None:
    scenario = Faults(kind, TARGETS[faults.PLACES[kind]], 600.0, 300.0, 86_400.0, 2, 0.5, "why")
    trace, cluster, events = scenario.apply(FLAT, SPOT)
    assert (trace, cluster) == (FLAT, SPOT)
    assert events == tuple(
        Event(600.0 + day * 86_400.0, kind, scenario.target, 300.0, 2, 0.5, "why") for day in range(3)
    )


def test_without_a_period_a_fault_happens_once() -> None:
    _, _, events = Faults("zone_failure", "zone-a", 5000.0, 60.0).apply(FLAT, CLUSTER)
    assert events == (Event(5000.0, "zone_failure", "zone-a", 60.0),)


def test_node_failures_and_telemetry_losses_are_forms_of_it() -> None:
    _, _, failed = NodeFailures("workers", 2, 1000.0, 86_400.0, 600.0).apply(FLAT, CLUSTER)
    assert failed == Faults("node_failure", "workers", 1000.0, 600.0, 86_400.0, 2).apply(FLAT, CLUSTER)[2]
    assert failed[1] == Event(87_400.0, "node_failure", "workers", 600.0, 2)
    _, _, lost = TelemetryLoss("web", 500.0, 86_400.0, 60.0).apply(FLAT, CLUSTER)
    assert lost[2] == Event(173_300.0, "telemetry_loss", "web", 60.0)
    assert len(failed) == len(lost) == 3


@pytest.mark.parametrize("kind", get_args(EventKind))
def test_an_unknown_target_is_refused_with_the_known_ones(kind: EventKind) -> None:
    known = {"pool": "workers", "rack": "workers/0 to workers/1", "zone": "zone-a", "service": "web"}
    with pytest.raises(ScenarioError, match=re.escape(f"'{known[faults.PLACES[kind]]}'")):
        Faults(kind, "nowhere", 0.0, 60.0).apply(FLAT, SPOT)


@pytest.mark.parametrize("rack", ["workers", "workers/2", "workers/-1", "workers/x", "batch/0", "/0", ""])
def test_racks_are_those_that_the_largest_pool_fills(rack: str) -> None:
    """20 nodes at most, 16 to a rack: racks 0 and 1."""
    with pytest.raises(ScenarioError, match="no rack"):
        Faults("rack_failure", rack, 0.0, 60.0).apply(FLAT, CLUSTER)


@pytest.mark.parametrize(
    ("scenario", "what"),
    [
        (Faults("slow_nodes", "workers", 0.0, 60.0, magnitude=1.2), r"magnitude=1.2 must be in \(0, 1\]"),
        (Faults("slow_nodes", "workers", 0.0, 60.0, magnitude=0.0), "magnitude=0"),
        (Faults("degradation", "web", 0.0, 60.0, magnitude=-0.1), "magnitude"),
        (Faults("bad_deploy", "web", 0.0, 60.0, magnitude=2.0), "magnitude"),
        (Faults("memory_leak", "web", 0.0, 60.0, magnitude=0.0), "magnitude"),
        (Faults("telemetry_delay", "web", 0.0, 60.0, magnitude=np.nan), "magnitude"),
        (Faults("shortage", "workers", 0.0, 60.0, magnitude=-1.0), "magnitude"),
        (Faults("node_failure", "workers", 0.0, 0.0), "duration_s=0"),
        (Faults("node_failure", "workers", 0.0, np.nan), "duration_s=nan"),
        (Faults("node_failure", "workers", 0.0, 60.0, count=0), "count=0"),
        (Faults("node_failure", "workers", -1.0, 60.0), "time -1 s"),
        (Faults("node_failure", "workers", 0.0, 60.0, every_s=-5.0), "every_s=-5"),
        (Faults("node_failure", "workers", 1e9, 60.0), "after the trace ends"),
        (Faults("interruption", "workers", 0.0, 0.0), "on demand"),
        (Faults("meteor", "workers", 0.0, 60.0), "no such kind"),  # pyright: ignore[reportArgumentType]
    ],
)
def test_what_makes_no_fault_is_refused(scenario: Faults, what: str) -> None:
    with pytest.raises(ScenarioError, match=what):
        scenario.apply(FLAT, CLUSTER)


def test_a_shortage_of_every_node_and_an_instant_interruption_are_faults() -> None:
    assert Faults("shortage", "workers", 0.0, 60.0, magnitude=0.0).apply(FLAT, CLUSTER)[2][0].magnitude == 0.0
    assert Faults("interruption", "workers", 0.0, 0.0, count=3).apply(FLAT, SPOT)[2][0].count == 3


@pytest.mark.parametrize("option", sorted(path.stem for path in CONF.glob("*.yaml")))
def test_every_option_without_a_recording_fits_the_web_cluster(option: str) -> None:
    config = OmegaConf.load(CONF / f"{option}.yaml")
    if OmegaConf.missing_keys(config):
        assert option.startswith(("recorded_", "fitted_")), "only a recording may be left to be named"
        return
    week = make_trace(lambda t: 0.0 * t + 0.2, days=7.0)
    scenario = instantiate(config, _convert_="all")
    assert scenario == instantiate(config, _convert_="all")
    if option == "microservices":
        with pytest.raises(WorkbenchError, match="spans"):
            scenario.apply(week, like_web())
        return
    trace, cluster, events = scenario.apply(week, like_web())
    for event in events:
        faults.check(event, cluster)
    assert list(events) == sorted(events, key=lambda event: event.time_s)
    changed = bool(events) or trace.digest() != week.digest() or cluster != like_web()
    assert changed == (option != "as_recorded")


def test_a_bad_day_names_many_kinds() -> None:
    scenario = instantiate(OmegaConf.load(CONF / "bad_day.yaml"), _convert_="all")
    assert isinstance(scenario, Compose)
    kinds = {event.kind for event in scenario.apply(make_trace(lambda t: 0 * t + 0.2), like_web())[2]}
    assert kinds == {"slow_nodes", "bad_deploy", "shortage", "node_failure", "telemetry_loss"}
