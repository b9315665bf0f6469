"""What every registered environment promises: both libraries' checkers, masks, truncation, determinism, plain data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from tests.twin.conftest import make_cluster, make_trace
from twin.engine.traffic import fluid
from twin.envs import ENVIRONMENTS, register
from twin.envs.fleet import FleetEnv
from twin.envs.scale import ScaleEnv
from twin.envs.world import THREE, trace_of
from twin.errors import SimulationError, UsageError
from twin.types import Event, Limits, RateLimit, cluster

IDS = sorted(ENVIRONMENTS)
HOUR_S = 3600.0
NUMBERS = (
    "cost_usd",
    "nodes",
    "energy_kwh",
    "arrived_requests",
    "served_requests",
    "dropped_requests",
    "late_ratio",
    "replicas",
    "cost_late",
    "cost_budget",
)
PLAIN: dict[str, Any] = {
    "pools": {
        "workers": {"cpu_cores": 16, "memory_gib": 64, "price_usd_h": 0.8, "nodes": 3, "provision": "manual"},
    },
    "services": {
        "azure_v2": {
            "unit_rps": 3e-5,
            "cpu_cores": 2,
            "memory_gib": 4,
            "service_time_s": 0.16,
            "concurrency": 4,
            "slo_s": 0.5,
            "replicas": 9,
        },
    },
}


def make(name: str, **options: Any) -> Any:
    register()
    env = gymnasium.make(name, **{"episode_s": HOUR_S, **options}).unwrapped
    assert isinstance(env, ScaleEnv | FleetEnv)
    return env


def parts(env: Any, mask: np.ndarray) -> list[np.ndarray]:
    """The mask of each number of the action."""
    space = env.action_space
    sizes = [space.n] if isinstance(space, gymnasium.spaces.Discrete) else space.nvec
    assert mask.shape == (int(np.sum(sizes)),)
    return np.split(mask, np.cumsum(sizes)[:-1])


def choice(env: Any, numbers: list[int]) -> Any:
    """The action made of these numbers."""
    return np.int64(numbers[0]) if isinstance(env.action_space, gymnasium.spaces.Discrete) else np.array(numbers)


def allowed(env: Any, rng: np.random.Generator) -> Any:
    """Any action that the mask lets through."""
    return choice(env, [int(rng.choice(np.flatnonzero(part))) for part in parts(env, env.action_masks())])


def episode(env: Any, rng: np.random.Generator, **reset: Any) -> Iterator[tuple]:
    """What each step gives, after what reset gave, under allowed actions."""
    yield env.reset(**reset)
    while True:
        step = env.step(allowed(env, rng))
        yield step
        if step[3]:
            return


def digest(env: Any, seed: int, steps: int = 59) -> str:
    """A hash of all that an episode gives."""
    h, rng = hashlib.sha256(), np.random.default_rng(seed)
    for _, (seen, *rest) in zip(range(steps + 1), episode(env, rng, seed=seed), strict=False):
        h.update(seen.tobytes())
        info = rest[-1]
        h.update(repr([rest[:-1], [(key, np.asarray(info[key]).tobytes()) for key in sorted(info)]]).encode())
    return h.hexdigest()


@pytest.mark.parametrize("name", IDS)
def test_gymnasium_finds_nothing_to_complain_about(name: str) -> None:
    check_env(make(name), skip_render_check=True)


@pytest.mark.parametrize("name", IDS)
def test_stable_baselines_finds_nothing_to_complain_about(name: str) -> None:
    from stable_baselines3.common.env_checker import check_env as sb3_check_env

    sb3_check_env(make(name))


@pytest.mark.parametrize("name", IDS)
def test_it_runs_as_registered_without_arguments(name: str) -> None:
    """On an embedded recording and a cluster made for it; registering twice changes nothing."""
    register()
    register()
    env = gymnasium.make(name)
    env.reset(seed=0)
    _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
    assert np.isfinite(float(reward))
    assert not terminated
    assert not truncated
    assert env.spec is not None
    assert name in env.spec.to_json(), "what makes it is plain data"


@pytest.mark.parametrize("name", IDS)
def test_observations_are_named_float32_within_finite_bounds(name: str) -> None:
    env = make(name)
    space = env.observation_space
    assert isinstance(space, gymnasium.spaces.Box)
    assert space.shape == (len(env.columns),)
    assert len(set(env.columns)) == len(env.columns)
    assert np.isfinite(space.low).all()
    assert np.isfinite(space.high).all()
    rng = np.random.default_rng(0)
    for seen, *_ in episode(env, rng, seed=0):
        assert seen.dtype == np.float32
        assert space.contains(seen)


@pytest.mark.parametrize("name", IDS)
def test_info_holds_raw_kpis_costs_and_the_mask(name: str) -> None:
    env = make(name)
    for _, *rest in episode(env, np.random.default_rng(0), seed=0):
        info = rest[-1]
        assert all(np.isfinite(info[key]) and info[key] >= 0 for key in NUMBERS)
        assert isinstance(info["limited"], bool)
        assert info["action_mask"].dtype == np.bool_
        assert np.array_equal(info["action_mask"], env.action_masks())
        assert all(part.any() for part in parts(env, info["action_mask"]))


@pytest.mark.parametrize("name", IDS)
def test_what_the_mask_lets_through_is_not_limited(name: str) -> None:
    """Random allowed actions of an hour: the shield never had to change one, unless it left nothing else."""
    env = make(name)
    limited = [rest[-1]["limited"] for _, *rest in episode(env, np.random.default_rng(3), seed=3)]
    assert not any(limited)


@pytest.mark.parametrize("name", IDS)
def test_random_and_constant_actions_keep_every_number_finite(name: str) -> None:
    env = make(name, episode_s=HOUR_S / 2)
    env.action_space.seed(0)
    constant = env.action_space.sample()
    for action in (None, constant):
        env.reset(seed=1)
        over = False
        while not over:
            seen, reward, terminated, over, _ = env.step(env.action_space.sample() if action is None else action)
            assert np.isfinite(seen).all()
            assert np.isfinite(reward)
            assert not terminated


@pytest.mark.parametrize("name", IDS)
def test_same_seed_and_actions_same_bytes(name: str) -> None:
    """Observations, rewards and info; in another object, and in one that has lived before."""
    env = make(name)
    first = digest(env, 5)
    assert digest(make(name), 5) == first
    digest(env, 6, steps=7)
    assert digest(env, 5) == first
    assert digest(env, 6) != first


@pytest.mark.parametrize("name", IDS)
def test_an_episode_is_truncated_at_its_end_or_at_the_end_of_the_trace(name: str) -> None:
    """The first interval passes in reset; half an interval that is left at the end is a step too."""
    rng = np.random.default_rng(0)
    assert sum(1 for _ in episode(make(name), rng, seed=0)) == 60
    env = make(name, episode_s=86_400.0)
    last_s = env._world.variants[0][0].duration_s
    assert sum(1 for _ in episode(env, rng, seed=0, options={"start": last_s - 1800.0})) == 30
    assert sum(1 for _ in episode(env, rng, seed=0, options={"start": last_s - 330.0})) == 6


@pytest.mark.parametrize("name", IDS)
def test_reset_places_the_episode_and_changes_no_other_draw(name: str) -> None:
    env = make(name)
    seen, info = env.reset(seed=4)
    again, placed = env.reset(seed=4, options={"start": info["start_s"], "variant": info["variant"]})
    assert placed["start_s"] == info["start_s"]
    assert np.array_equal(seen, again)
    elsewhere, _ = env.reset(seed=4, options={"start": info["start_s"] + 7200.0})
    assert not np.array_equal(seen, elsewhere)


def test_reset_takes_another_recording_and_events() -> None:
    """By name or as a trace; the recording it was made with comes back afterwards."""
    env = make("NovaCron/Scale-Service-v1")
    _, info = env.reset(seed=0, options={"trace": "azure_v2", "start": 0.0})
    assert info["variant"] == -1
    assert info["arrived_requests"] > 1e6, "the unit of the demand is another one there"
    _, info = env.reset(seed=0, options={"start": 0.0})
    assert info["variant"] == 0
    assert info["arrived_requests"] < 1e6
    failed = []
    options = {"start": 0.0, "events": [Event(120.0, "node_failure", "steady", 600.0, count=2)]}
    for _ in zip(range(5), episode(env, np.random.default_rng(0), seed=0, options=options), strict=False):
        assert env._episode is not None
        failed.append(env._episode.seen["steady.failed_nodes"])
    assert max(failed) == 2


def test_wrong_arguments_are_named() -> None:
    env = make("NovaCron/Scale-Service-v1")
    with pytest.raises(UsageError, match="reset\\(\\) first"):
        env.step(np.int64(0))
    for _ in episode(env, np.random.default_rng(0), seed=0):
        pass
    with pytest.raises(UsageError, match="ended at 3600 s"):
        env.step(np.int64(0))
    with pytest.raises(UsageError, match="no option 'begin'"):
        env.reset(options={"begin": 0})
    with pytest.raises(UsageError, match="two intervals"):
        env.reset(options={"start": 1e9})
    with pytest.raises(UsageError, match="no service 'x'"):
        make("NovaCron/Scale-Service-v1", service="x")
    with pytest.raises(UsageError, match="no model of serving 'exact'"):
        make("NovaCron/Scale-Service-v1", serving="exact")
    with pytest.raises(UsageError, match="all pools size themselves"):
        make("NovaCron/Scale-Nodes-v1", trace=make_trace(lambda t: 0.3 + 0 * t), cluster=make_cluster())
    with pytest.raises(UsageError, match="acts_on"):
        FleetEnv(acts_on=[])
    other = make("NovaCron/Scale-Service-v1", cluster=make_cluster())
    with pytest.raises(SimulationError, match="no demand for service 'web'"):
        other.reset(seed=0)


@pytest.mark.parametrize("name", IDS)
def test_each_request_can_be_followed(name: str) -> None:
    """The model of serving is a parameter: requests are whole numbers then, and averages before."""
    env = make(name, episode_s=600.0, serving="requests")
    counts = np.array([rest[-1]["served_requests"] for _, *rest in episode(env, np.random.default_rng(0), seed=0)])
    assert np.array_equal(counts, counts.round())
    env = make(name, episode_s=600.0, serving="fluid")
    counts = np.array([rest[-1]["served_requests"] for _, *rest in episode(env, np.random.default_rng(0), seed=0)])
    assert not np.array_equal(counts, counts.round())


@pytest.mark.parametrize("name", IDS)
def test_masks_agree_with_the_space(name: str) -> None:
    """The space itself takes them for its own, and draws only what they let through."""
    env: Any = make(name)
    env.reset(seed=0)
    env.action_space.seed(0)
    split = [part.astype(np.int8) for part in parts(env, env.action_masks())]
    one = isinstance(env.action_space, gymnasium.spaces.Discrete)
    for _ in range(20):
        drawn = np.atleast_1d(env.action_space.sample(mask=split[0] if one else tuple(split)))
        assert all(part[number] for part, number in zip(split, drawn, strict=True))


@pytest.mark.parametrize("name", IDS)
def test_plain_data_makes_the_same_environment_as_objects(name: str) -> None:
    """So that it can be told to another process, or written down."""
    objects = {
        "trace": trace_of(THREE),
        "cluster": cluster("plain", **PLAIN),
        "limits": Limits(max_value=30, grow=RateLimit(60.0, 10.0, 1)),
        "serving": fluid,
    }
    told: dict[str, Any] = {"trace": THREE, "cluster": {"name": "plain", **PLAIN}, "serving": "fluid"}
    told["limits"] = {"max_value": 30, "grow": {"window_s": 60, "percent": 10, "count": 1}}
    plain = json.loads(json.dumps(told))
    assert digest(make(name, **plain), 2, steps=9) == digest(make(name, **objects), 2, steps=9)
