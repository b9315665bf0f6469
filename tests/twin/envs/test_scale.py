"""One service's environment: the reward's direction, variants, and that training and deployment are one dynamics."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np
import polars as pl
import pytest
from gymnasium.utils.seeding import np_random

import twin
from tests.twin.conftest import make_cluster, make_trace
from twin.envs.scale import ScaleEnv
from twin.envs.sizing import STEPS, TARGETS, replicas_for
from twin.types import Action, Event, Limits, Observation

TRACE = make_trace(lambda t: 0.25 + 0.1 * np.sin(2 * np.pi * t / 86_400))


def make_env(**options: Any) -> ScaleEnv:
    return ScaleEnv(TRACE, make_cluster(), "web", episode_s=3600.0, **options)


def seen_of(env: ScaleEnv) -> Observation:
    assert env._episode is not None
    return env._episode.seen


def rollout(env: ScaleEnv, action: int, seed: int) -> tuple[list[np.ndarray], list[float], dict]:
    seen, _ = env.reset(seed=seed)
    observations, rewards = [seen], []
    while True:
        seen, reward, terminated, truncated, info = env.step(np.int64(action))
        observations.append(seen)
        rewards.append(reward)
        assert not terminated
        if truncated:
            return observations, rewards, info


def test_same_seed_same_episode() -> None:
    first, second, other = rollout(make_env(), 3, 1), rollout(make_env(), 3, 1), rollout(make_env(), 3, 2)
    assert np.array_equal(np.stack(first[0]), np.stack(second[0]))
    assert first[1] == second[1]
    assert first[1] != other[1]


def test_an_episode_is_truncated_at_its_end() -> None:
    assert len(rollout(make_env(), 0, 1)[1]) == 59  # the first of 60 minutes passes in reset


def test_fuller_replicas_cost_less_and_are_late_more() -> None:
    roomy, tight = (rollout(make_env(late_price=0.0), action, 1) for action in (0, len(TARGETS) - 1))
    assert np.mean(tight[1]) > np.mean(roomy[1])
    priced = [rollout(make_env(late_price=1000.0), action, 1) for action in (0, len(TARGETS) - 1)]
    assert np.mean(priced[1][1]) < np.mean(priced[0][1])


def test_an_episode_can_be_placed() -> None:
    _, info = make_env().reset(seed=1, options={"start": 7200.0})
    assert info["start_s"] == 7200.0


def test_variants_are_met_and_their_events_fall_on_time() -> None:
    """The second variant doubles demand; the third fails two nodes 10 minutes into the episode that starts at 1 h."""
    double = TRACE.replacing("doubled", demand=TRACE.demand.with_columns(pl.col("value") * 2))
    failing = (TRACE, [Event(4200.0, "node_failure", "workers", 600.0, 2)])
    env = make_env(variants=[(double, ()), failing])
    seen = {}
    for variant in range(3):
        env.reset(seed=3, options={"start": 3600.0, "variant": variant})
        failed = []
        for _ in range(15):
            env.step(np.int64(0))
            failed.append(seen_of(env)["workers.failed_nodes"])
        seen[variant] = (seen_of(env)["web.demand_rps"], max(failed))
    assert seen[1][0] == pytest.approx(2 * seen[0][0], rel=1e-6)
    assert [failed for _, failed in seen.values()] == [0, 0, 2]
    chosen = {env.reset(seed=seed)[1]["variant"] for seed in range(20)}
    assert chosen == {0, 1, 2}


def test_lost_telemetry_and_idle_minutes_leave_the_environment_finite() -> None:
    """While demand is unknown nothing is decided, and what the agent sees stays the last known."""
    blind = (TRACE, [Event(900.0, "telemetry_loss", "web", 600.0), Event(2000.0, "node_failure", "workers", 600.0, 9)])
    idle = TRACE.replacing("idle", demand=TRACE.demand.with_columns(pl.col("value") * 0))
    env = make_env(variants=[blind, (idle, ())])
    for variant in (1, 2):
        env.reset(seed=1, options={"start": 0.0, "variant": variant})
        wanted = []
        for step in range(59):
            seen, reward, *_, info = env.step(np.int64(step % 10))
            assert np.isfinite(seen).all()
            assert np.isfinite(reward)
            wanted.append(info["replicas"])
        if variant == 1:
            assert len(set(wanted[16:23])) == 1


def test_wanted_replicas_stay_within_the_tolerance() -> None:
    demand = np.array([95.0, 100.0, 90.0], dtype=np.float32)
    assert replicas_for(demand, 5.0, 0.8, 25.0) == 5.0
    assert replicas_for(demand, 5.4, 0.8, 25.0) == 5.4
    assert replicas_for(demand, 6.0, 0.8, 25.0) == pytest.approx(5.0)


class SameTarget:
    """The environment's frame at one target, as a controller: what a policy deployed from it does."""

    def __init__(self, target: float) -> None:
        self.target = target
        self.reset()

    @property
    def name(self) -> str:
        return "same-target"

    @property
    def interval_s(self) -> float:
        return 60.0

    def reset(self) -> None:
        self.minutes: deque[float] = deque(maxlen=STEPS)

    def decide(self, observation: Observation) -> list[Action]:
        if np.isnan(observation["web.demand_rps"]):
            return []
        self.minutes.append(observation["web.demand_rps"])
        demand = np.array([*self.minutes, observation["web.demand_15m_rps"]], dtype=np.float32)
        wish = replicas_for(demand, observation["web.wanted_replicas"], self.target, 25.0)
        return [Action("replicas", "web", math.ceil(wish - 1e-3))]


@pytest.mark.parametrize("action", [0, 6, 9])
def test_training_and_deployment_are_one_dynamics(action: int) -> None:
    """An episode and `simulate` under the same wishes, limits and seed: the same replicas, minute by minute."""
    limits = Limits(max_value=40)
    restless = make_trace(lambda t: 0.25 + 0.15 * np.sin(2 * np.pi * t / 2400))
    env = ScaleEnv(restless, make_cluster(), "web", episode_s=3600.0, limits=limits)
    env.reset(seed=5, options={"start": 7200.0, "variant": 0})
    rng = np_random(5)[0]  # what reset drew before the plant's seed: a variant, an hour
    rng.integers(1)
    rng.integers(48)
    seed = int(rng.integers(2**31))
    trained = [env.step(np.int64(action))[4]["replicas"] for _ in range(59)]
    run = twin.simulate(
        restless.between(7200.0, 10_800.0),
        make_cluster(),
        controller=SameTarget(float(TARGETS[action])),
        limits=limits,
        seed=seed,
    )
    assert run.decisions["applied"].to_list() == trained
    assert len(set(trained)) > 1, "nothing moved: the comparison says nothing"
