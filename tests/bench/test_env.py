"""What a step of the environment costs, everything included, beside SimPy's own event loop."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

from tests.bench.conftest import EVENTS_A_STEP, Figure, bare_steps, cheapest
from twin import Trace
from twin.envs.scale import ScaleEnv
from twin.envs.sizing import TARGETS
from twin.envs.world import cluster_for
from twin.types import Cluster

pytestmark = pytest.mark.bench

STEPS = 1400
RATE_RPS = 0.8
AT_MOST = 0.30 / 0.18  # a step of 0.30 ms where the floor takes 0.18 ms
AVERAGES_AT_MOST = 2.0  # so little traffic is followed in less time than the averages of any traffic take


def small(week: Trace) -> Cluster:
    """A service of RATE_RPS on average, whose requests take a second each."""
    cluster = cluster_for(week)
    service = cluster.services[0]
    unit_rps = service.unit_rps * RATE_RPS / (14 * service.replica_rps)  # the default is 20 replicas, 70 % full
    service = replace(
        service, unit_rps=unit_rps, service_time_s=1.0, service_cv=1.0, concurrency=1, slo_s=3.0, replicas=2,
        min_replicas=1, max_replicas=10,
    )  # fmt: skip
    return replace(cluster, services=(service,))


@pytest.mark.parametrize(("serving", "at_most"), [("requests", AT_MOST), ("fluid", AVERAGES_AT_MOST)])
def test_a_step_with_masks_and_info(
    figure: Figure, week: Trace, serving: Literal["requests", "fluid"], at_most: float
) -> None:
    """Action, shield, a simulated minute, observation, reward, mask and info; the start of the episode is not in it."""
    env = ScaleEnv(week, small(week), serving=serving)
    actions = np.random.default_rng(0).integers(len(TARGETS), size=STEPS)
    arrived = 0.0

    def work() -> None:
        nonlocal arrived
        for action in actions:
            *_, info = env.step(action)
            arrived += info["arrived_requests"]

    spent_s, floor_s = np.inf, np.inf
    for seed in range(5):
        env.reset(seed=seed)
        each = cheapest(work, lambda: bare_steps(STEPS), rounds=1)
        spent_s, floor_s = min(spent_s, each[0]), min(floor_s, each[1])
    assert arrived / (5 * STEPS) == pytest.approx(EVENTS_A_STEP / 2, rel=0.1)
    name = f"environment, a step, {serving} (floor: {EVENTS_A_STEP} events)"
    ratio = figure(name, 1e6 * spent_s / STEPS, "us CPU", 1e6 * floor_s / STEPS)
    assert ratio <= at_most
