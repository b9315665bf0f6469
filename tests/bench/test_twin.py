"""What simulating costs beside SimPy's own event loop."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import simpy
from simpy.events import Event

from experiments.cell import build
from tests.bench.conftest import DAY_S, EVENTS_A_STEP, STEP_S, Figure, bare_steps, cheapest, on_timeout
from twin import Trace, simulate
from twin.engine.plant import TwinPlant
from twin.envs.scale import ScaleEnv
from twin.envs.sizing import TARGETS
from twin.types import Cluster, Controller, Limits, Record

pytestmark = pytest.mark.bench

WEEK_S = 7 * DAY_S
WIDTH = 16  # events that wait at the same time


def events_of(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> int:
    """How many events SimPy processes in that work, counted one by one."""
    count, plain = [0], simpy.Environment.step

    def counting(env: simpy.Environment) -> None:
        count[0] += 1
        plain(env)

    with monkeypatch.context() as patch:
        patch.setattr(simpy.Environment, "step", counting)
        work()
    return count[0]


def bare_events(count: int) -> None:
    """Nothing but `count` Timeouts, each with one callback."""
    env = simpy.Environment()
    left = [count]

    def tick(_event: Event) -> None:
        left[0] -= 1
        if left[0] >= WIDTH:
            on_timeout(env, 1.0, tick)

    for place in range(WIDTH):
        on_timeout(env, place / WIDTH, tick)
    env.run()
    assert left == [0]


def test_a_week_of_the_web_cluster_under_hpa(
    figure: Figure,
    monkeypatch: pytest.MonkeyPatch,
    week: Trace,
    cluster: Cluster,
    hpa: Controller,
    limits: Limits,
) -> None:
    """Decisions, shield, records and tables included, one decision every 15 s."""

    def work() -> None:
        simulate(week, cluster, controller=hpa, limits=limits)

    events = events_of(monkeypatch, work)
    spent_s, bare_s = cheapest(work, lambda: bare_events(events))
    figure(
        "twin, a week under HPA at 15 s", WEEK_S / spent_s, "simulated s / CPU s", WEEK_S / bare_s, more_is_better=True
    )
    ratio = figure(f"twin, per event ({events:,} in the week)", 1e6 * spent_s / events, "us CPU", 1e6 * bare_s / events)
    assert ratio <= 50


def test_the_engine_alone_for_a_week(
    figure: Figure, monkeypatch: pytest.MonkeyPatch, week: Trace, cluster: Cluster
) -> None:
    """Nobody looks and nobody decides: demand, queues, faults and meters."""

    def work() -> None:
        plant = TwinPlant(
            week,
            cluster,
            scheduler=build({"_target_": "twin.engine.scheduling.placement.MostAllocated"}),
            events=(),
            record=Record(),
            until_s=WEEK_S,
            seed=0,
        )
        plant.advance(WEEK_S)

    events = events_of(monkeypatch, work)
    spent_s, bare_s = cheapest(work, lambda: bare_events(events))
    ratio = figure(f"engine, per event ({events:,} in a week)", 1e6 * spent_s / events, "us CPU", 1e6 * bare_s / events)
    assert ratio <= 20


def test_a_step_of_the_environment(figure: Figure, week: Trace, cluster: Cluster, limits: Limits) -> None:
    """Action, a simulated minute, observation and reward; a day's reset is in it."""
    env = ScaleEnv(week, cluster, "cell", limits=limits)
    actions = np.random.default_rng(0).integers(len(TARGETS), size=int(DAY_S / STEP_S) - 1)

    def work() -> None:
        env.reset(seed=0)
        for action in actions:
            env.step(action)

    spent_s, bare_s = cheapest(work, lambda: bare_steps(len(actions)))
    value, floor = (1e6 * s / len(actions) for s in (spent_s, bare_s))
    ratio = figure(f"environment, a step (floor: {EVENTS_A_STEP} events)", value, "us CPU", floor)
    assert ratio <= 4  # random actions: some sixteen replicas come or go a minute
