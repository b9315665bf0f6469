"""A few days of the drill that `experiments.retraining` runs in full."""

from __future__ import annotations

import numpy as np
import pytest

import twin
from agents.forecast.frames import Series
from agents.forecast.nets.linear import NLinear
from agents.forecast.neural import Neural, Training
from agents.forecast.operation.drill import observed_demand
from agents.forecast.operation.operator import Settings, accuracy_by_day, replay
from agents.forecast.operation.retrain import Rules
from agents.rules.hold import Hold
from scenarios.workload import DemandSurge
from twin.errors import UsageError
from twin.types import Cluster, cluster

WEB: Cluster = cluster(
    name="web",
    pools={"workers": {"cpu_cores": 16, "memory_gib": 64, "price_usd_h": 0.76, "nodes": 8}},
    services={
        "cell": {
            "unit_rps": 2000,
            "cpu_cores": 2,
            "memory_gib": 4,
            "service_time_s": 0.16,
            "concurrency": 4,
            "slo_s": 0.5,
            "replicas": 60,
            "burst_cv": 0.05,
        }
    },
)


@pytest.fixture(scope="module")
def seen() -> Series:
    """Google's demand as observed in the twin; from day 9 on, an hour of 1.6 times the demand every three hours."""
    trace = twin.read("google2019").between(0.0, 11 * 86_400.0)
    surge = DemandSurge(factor=1.6, first_s=9 * 86_400, hold_s=3600, ramp_s=600, every_days=1 / 8)
    changed, web, events = surge.apply(trace, WEB)
    return observed_demand(changed, web, Hold(interval_s=300), "cell", events=events)


def test_the_twin_shows_the_demand_that_was_recorded_with_its_bursts(seen: Series) -> None:
    recorded = twin.read("google2019").demand["value"].to_numpy()[: 9 * 288] * 2000
    # the last step has not ended when the last observation is made
    assert len(seen.values) == 11 * 288 - 1
    assert np.corrcoef(seen.values[: 9 * 288], recorded)[0, 1] > 0.95
    assert seen.values[: 9 * 288].mean() == pytest.approx(recorded.mean(), rel=0.02)


def test_a_regime_change_in_the_twin_is_noticed_retrained_and_swapped(seen: Series) -> None:
    recipe = Neural(NLinear(), window=144, lags=(36,), training=Training(steps=50, batch=64))
    rules = Rules(learn_steps=4 * 288, refresh_steps=None)
    settings = Settings(rules=rules, reference_days=5)
    champion = recipe.fit([seen.until(3 * 288)], 0)
    done = replay(champion, recipe, seen, 3 * 288, settings, 0)
    change_s = 9 * 86_400.0
    first = done.events[0]
    assert (first.verdict, first.trigger.split(":")[0]) == ("noticed", "drift")
    assert change_s < first.time_s <= change_s + 86_400.0
    swapped = [event for event in done.events if event.verdict == "swapped"]
    assert swapped
    assert swapped[0].time_s <= change_s + 2 * 86_400.0
    last = accuracy_by_day(done, seen).row(-1, named=True)
    assert last["operated_percent"] > last["untouched_percent"] + 1.0


def test_a_controller_that_looks_too_rarely_shows_no_series() -> None:
    trace = twin.read("google2019").between(0.0, 86_400.0)
    with pytest.raises(UsageError, match="too rarely"):
        observed_demand(trace, WEB, Hold(interval_s=900), "cell")
