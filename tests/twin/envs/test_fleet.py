"""What the masks, the reward and the KPIs of the environments say, each against what the twin really did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.twin.conftest import make_cluster, make_trace
from twin.envs.fleet import FleetEnv
from twin.envs.frame import CHANGES
from twin.envs.scale import ScaleEnv
from twin.envs.sizing import TARGETS
from twin.types import Cluster, Delay, Limits, Power, Quota, RateLimit

TRACE = make_trace(lambda t: 0.25 + 0.1 * np.sin(2 * np.pi * t / 7200.0))
STAY = CHANGES.index(0)
FREE = RateLimit(60.0, 1000.0, 1000)


def manual(quotas: tuple[Quota, ...] = (), **pool: Any) -> Cluster:
    """One service on two pools of 8-core nodes that only an agent sizes."""
    cluster = make_cluster()
    settings: dict[str, Any] = {"provision": "manual", "boot": Delay(30.0, 0.0), "min_nodes": 1, **pool}
    workers = replace(cluster.pools[0], **settings)
    return replace(cluster, pools=(workers, replace(workers, name="more", nodes=1)), quotas=quotas)


def nodes_env(cluster: Cluster, **options: Any) -> FleetEnv:
    given: dict[str, Any] = {"acts_on": ["nodes"], "episode_s": 3600.0, **options}
    return FleetEnv(TRACE, cluster, **given)


def wanted(env: ScaleEnv | FleetEnv, column: str) -> int:
    assert env._episode is not None
    return int(env._episode.seen[column])


# ---------------------------------------------------------------- masks


@settings(max_examples=12, deadline=None)
@given(
    least=st.integers(1, 14),
    room=st.integers(0, 8),
    grow=st.integers(0, 3),
    shrink=st.integers(0, 3),
    before=st.lists(st.integers(0, len(TARGETS) - 1), max_size=3),
)
def test_a_choice_is_masked_exactly_when_it_would_be_refused(
    least: int, room: int, grow: int, shrink: int, before: Sequence[int]
) -> None:
    """For each target: played from the same state, the wished replicas are those asked for, or the mask is off.

    Only where the mask would be empty, the choice that comes nearest is let through although it is cut.
    """
    limits = Limits(
        min_value=least,
        max_value=least + room,
        grow=RateLimit(60.0, 0.0, grow),
        shrink=RateLimit(120.0, 0.0, shrink),
    )
    env = ScaleEnv(TRACE, make_cluster(), "web", episode_s=3600.0, limits=limits)
    kept, masks = [], None
    for choice in range(len(TARGETS)):
        env.reset(seed=0, options={"start": 0.0})
        for earlier in before:
            env.step(np.int64(earlier))
        masks = env.action_masks()
        asked = env._dial.wishes[choice]
        env.step(np.int64(choice))
        kept.append(wanted(env, "web.wanted_replicas") == asked)
    assert masks is not None
    if any(kept):
        assert masks.tolist() == kept
    else:
        assert masks.sum() == 1


def test_one_choice_is_left_when_all_would_be_refused() -> None:
    """Where the shield allows one number only, the choice that comes nearest to it; taking it works."""
    for number, nearest in ((2, min), (60, max)):
        limits = Limits(min_value=number, max_value=number, grow=FREE, shrink=FREE)
        env = ScaleEnv(TRACE, make_cluster(), "web", episode_s=3600.0, limits=limits)
        env.reset(seed=0)
        (left,) = np.flatnonzero(env.action_masks())
        assert env._dial.wishes[left] == nearest(env._dial.wishes)
        *_, info = env.step(np.int64(left))
        assert info["limited"]
        assert info["replicas"] == number


def test_a_pool_at_its_bounds_takes_no_change_beyond_them() -> None:
    """min_nodes 3, max_nodes 5, 4 nodes: -2, +2 and +4 are off; the shield's own bound of 4 takes +1 away too."""
    cluster = manual(nodes=4, min_nodes=1, max_nodes=5)
    cluster = replace(cluster, pools=(replace(cluster.pools[0], min_nodes=3), cluster.pools[1]))
    env = nodes_env(cluster, limits=Limits(grow=FREE, shrink=FREE))
    env.reset(seed=0)
    assert [c for c, fits in zip(CHANGES, env.action_masks()[: len(CHANGES)], strict=True) if fits] == [-1, 0, 1]
    env = nodes_env(cluster, limits=Limits(max_nodes=4, grow=FREE, shrink=FREE))
    env.reset(seed=0)
    assert [c for c, fits in zip(CHANGES, env.action_masks()[: len(CHANGES)], strict=True) if fits] == [-1, 0]


def test_a_quota_takes_away_what_the_provider_would_not_grant() -> None:
    """4 + 1 nodes of 8 cores under 50 cores: one more in either pool, then none, until a node is given back."""
    cluster = manual((Quota("region", ("workers", "more"), 50.0),), nodes=4)
    env = nodes_env(cluster, limits=Limits(grow=FREE, shrink=FREE))
    env.reset(seed=0)
    grow = [change > 0 for change in CHANGES]

    def growth() -> list[list[int]]:
        halves = np.split(env.action_masks(), 2)
        return [[c for c, fits, up in zip(CHANGES, half, grow, strict=True) if fits and up] for half in halves]

    assert growth() == [[1], [1]]
    env.step(np.array([STAY, CHANGES.index(1)]))
    assert growth() == [[], []]
    assert env.action_masks()[STAY], "what is wished for may stay"
    env.step(np.array([CHANGES.index(-2), STAY]))
    for _ in range(15):  # the nodes drain
        env.step(np.array([STAY, STAY]))
    assert growth() == [[1, 2], [1, 2]]


# ---------------------------------------------------------------- what actions do


def test_changes_of_nodes_come_true_and_services_scale_themselves() -> None:
    """The agent sets nodes only: the frame keeps the replicas at the target utilisation."""
    env = nodes_env(manual(nodes=4), target=0.7)
    env.reset(seed=0, options={"start": 0.0})
    env.step(np.array([CHANGES.index(2), CHANGES.index(-1)]))
    assert [wanted(env, f"{pool}.wanted_nodes") for pool in ("workers", "more")] == [6, 1]
    replicas, filled = [], []
    for _ in range(50):
        env.step(np.array([STAY, STAY]))
        replicas.append(wanted(env, "web.wanted_replicas"))
        filled.append(env._services[0].full())
    assert len(set(replicas)) > 1
    assert np.mean(np.array(filled) / replicas) == pytest.approx(0.7, abs=0.1)


def test_both_take_replicas_first_then_nodes() -> None:
    env = FleetEnv(TRACE, manual(nodes=4), episode_s=3600.0)
    assert env.action_space == gymnasium.spaces.MultiDiscrete([len(TARGETS), len(CHANGES), len(CHANGES)])
    env.reset(seed=0)
    asked = env._services[0].wishes[9]
    *_, info = env.step(np.array([9, CHANGES.index(1), STAY]))
    assert info["replicas"] == wanted(env, "web.wanted_replicas") == asked
    assert wanted(env, "workers.wanted_nodes") == 5


def test_several_services_earn_the_mean_of_what_each_alone_would() -> None:
    """One service: the same reward as in the environment of one service, step by step."""
    one = ScaleEnv(TRACE, make_cluster(), "web", episode_s=3600.0)
    several = FleetEnv(TRACE, make_cluster(), acts_on=["replicas"], episode_s=3600.0)
    for env in (one, several):
        env.reset(seed=1, options={"start": 0.0})
    for number in np.random.default_rng(0).integers(len(TARGETS), size=30):
        _, alone, *_ = one.step(np.int64(number))
        _, together, *_ = several.step(np.array([number]))
        assert together == pytest.approx(alone, rel=1e-9)


# ---------------------------------------------------------------- KPIs


def test_money_and_energy_are_those_of_the_nodes() -> None:
    """5 nodes at 0.50 USD an hour and 100 W whatever they do: 60 s cost 5 x 0.5 / 60 USD and take 5 x 100 W x 60 s."""
    env = nodes_env(manual(nodes=4, power=Power(100.0, 100.0)))
    env.reset(seed=0)
    for _ in range(5):
        *_, info = env.step(np.array([STAY, STAY]))
        assert info["nodes"] == 5
        assert info["cost_usd"] == pytest.approx(5 * 0.5 / 60)
        assert info["energy_kwh"] == pytest.approx(5 * 100.0 * 60 / 3.6e6)


def test_dearer_capacity_is_worth_less() -> None:
    """Under the same services more nodes earn a lower reward, by their share of the money that the demand costs."""
    means = []
    for nodes in (6, 12):
        env = nodes_env(manual(nodes=nodes), late_price=0.0)
        env.reset(seed=0, options={"start": 0.0})
        means.append(np.mean([env.step(np.array([STAY, STAY]))[1] for _ in range(30)]))
    assert means[1] < means[0] < 0
    assert means[1] / means[0] == pytest.approx(13 / 7, rel=0.05)


def test_the_error_budget_used_is_that_of_the_whole_episode() -> None:
    """Bad requests / (5 % of the arrivals), both since the episode began; too few replicas overspend it."""
    env = ScaleEnv(TRACE, make_cluster(replicas=6, max_replicas=8), "web", episode_s=3600.0)
    *_, first = env.reset(seed=0, options={"start": 0.0})
    infos = [first]
    while not infos[-1].get("over"):
        *_, truncated, info = env.step(np.int64(9))
        infos.append({**info, "over": truncated})
    arrived = np.array([info["arrived_requests"] for info in infos])
    bad = np.array([info["late_ratio"] for info in infos]) * arrived
    used = np.cumsum(bad) / (0.05 * np.cumsum(arrived))
    assert [info["cost_budget"] for info in infos] == pytest.approx(used.tolist(), rel=0.02)
    assert used[-1] > 1.0
    assert all(0.0 <= info["cost_late"] <= 1.0 for info in infos)


def test_requests_are_accounted_for() -> None:
    """Arrived = served + dropped + what is still inside, over an episode in which each request is followed."""
    env = ScaleEnv(TRACE, make_cluster(replicas=8, max_replicas=10), "web", episode_s=900.0, serving="requests")
    *_, info = env.reset(seed=0, options={"start": 0.0})
    total = dict.fromkeys(("arrived_requests", "served_requests", "dropped_requests"), 0.0)
    over = False
    while True:
        total = {key: value + info[key] for key, value in total.items()}
        if over:
            break
        *_, over, info = env.step(np.int64(5))
    assert env._episode is not None
    inside = float(env._episode._plant.state.inside[0])
    assert total["arrived_requests"] == total["served_requests"] + total["dropped_requests"] + inside
    assert total["dropped_requests"] > 0
