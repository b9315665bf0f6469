"""What a week of many services costs: engine, controller and loop together, and the share of each."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest

from agents.rules.replicas.hpa import Hpa
from tests.bench.conftest import DAY_S, Figure, each_us
from twin import Trace, simulate
from twin.engine.plant import TwinPlant
from twin.loop import ControlLoop
from twin.trace.trace import TraceInfo
from twin.types import Action, Cluster, Limits, Pool, Record, Service

pytestmark = pytest.mark.bench

WEEK_S = 7 * DAY_S
STEP_S = 300.0
INTERVAL_S = 15.0
NAMES = [f"s{number:02d}" for number in range(50)]
NODES = 1000
REPLICAS = (4, 160)
DECISIONS = int(WEEK_S / INTERVAL_S) * len(NAMES)
BOUND_S = 60.0


@pytest.fixture(scope="module")
def waves() -> Trace:
    """A week of daily waves with some noise, those of the services spread over the day."""
    rng = np.random.default_rng(0)
    times_s = np.arange(int(WEEK_S / STEP_S)) * STEP_S
    late = np.arange(len(NAMES))[:, None] / len(NAMES)
    noise = rng.standard_normal((len(NAMES), len(times_s))).clip(-3, 3)
    share = 0.25 + 0.15 * np.sin(2 * np.pi * (times_s / DAY_S + late)) + 0.01 * noise
    demand = pl.DataFrame(
        {"service": np.repeat(NAMES, len(times_s)), "time_s": np.tile(times_s, len(NAMES)), "value": share.ravel()}
    )
    services = pl.DataFrame({"service": NAMES, "demand_unit": ["share"] * len(NAMES)})
    info = TraceInfo("waves", "made for this measurement", "none", "0" * 64, step_s=STEP_S)
    return Trace(info, {"demand": demand, "services": services})


@pytest.fixture(scope="module")
def many() -> Cluster:
    """50 services on up to 1,000 nodes that now and then fail; three replicas fill a node, about 900 nodes are used."""
    pool = Pool("workers", 16, 64, 0.76, nodes=NODES, max_nodes=NODES, failures_per_node_day=0.02)
    least, most = REPLICAS
    services = [
        Service(name, 4000.0, 5, 20, 0.16, 4, 0.5, replicas=60, min_replicas=least, max_replicas=most, service_cv=0.5)
        for name in NAMES
    ]
    return Cluster("many", (pool,), tuple(services))


def clocked(patch: pytest.MonkeyPatch, spent_s: dict[str, float], owner: type, method: str) -> None:
    """Let the CPU time of that method be added up under its name."""
    plain: Callable[..., Any] = getattr(owner, method)

    def call(*args: Any) -> Any:
        start_s = time.process_time()
        answer = plain(*args)
        spent_s[method] += time.process_time() - start_s
        return answer

    patch.setattr(owner, method, call)


def test_a_week_of_50_services_on_1000_nodes_under_hpa(
    figure: Figure, monkeypatch: pytest.MonkeyPatch, waves: Trace, many: Cluster
) -> None:
    """Two million decisions behind the shield, not written down; tables included."""
    spent_s = defaultdict[str, float](float)
    controller = Hpa(NAMES, 0.8, *REPLICAS, interval_s=INTERVAL_S)
    limits = Limits(min_value=REPLICAS[0], max_value=REPLICAS[1])

    def run(until_s: float) -> float:
        start_s = time.process_time()
        simulate(
            waves, many, controller=controller, limits=limits, record=Record(decisions=False), until_s=until_s, seed=0
        )
        return time.process_time() - start_s

    run(600.0)  # compiles what is compiled once
    with monkeypatch.context() as patch:
        for method in ("observe", "apply", "advance"):
            clocked(patch, spent_s, TwinPlant, method)
        clocked(patch, spent_s, Hpa, "decide")
        clocked(patch, spent_s, ControlLoop, "step")
        whole_s = run(WEEK_S)
    decide_s = spent_s["decide"]
    loop_s = spent_s["step"] - decide_s - sum(spent_s[method] for method in ("observe", "apply", "advance"))
    engine_s = whole_s - decide_s - loop_s
    figure("50 services, 1,000 nodes: a week under HPA (floor: engine)", whole_s, "CPU s", engine_s)
    wish_us = float(np.median(each_us(lambda: [Action("replicas", name, 60, "60 kept") for name in NAMES], 1000)))
    for name, part_s in {"engine": engine_s, "controller": decide_s, "loop": loop_s}.items():
        shown = f"{name}, {part_s:.1f} s = {part_s / whole_s:.0%} (floor: one Action)"
        figure(shown, 1e6 * part_s / DECISIONS, "us CPU a decision", wish_us / len(NAMES))
    assert whole_s <= BOUND_S
