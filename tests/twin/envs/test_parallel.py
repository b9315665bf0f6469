"""Services as agents: the library's own test, the capacity price, determinism, and the end of an episode."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from pettingzoo.test import parallel_api_test, parallel_seed_test

from tests.twin.conftest import make_cluster, make_trace
from twin.envs.parallel import PRICE, ScaleParallelEnv
from twin.envs.sizing import TARGETS
from twin.trace.trace import Trace
from twin.types import Cluster

AGENTS = ["web", "shop"]


def two(nodes: int) -> tuple[Trace, Cluster]:
    """Two services of 12 replicas with 2 cores each, on that many nodes of 8 cores: 6 nodes hold all of them."""
    trace, cluster = make_trace(lambda t: 0.2 + 0 * t), make_cluster(burst_cv=0.0)
    web = cluster.services[0]
    shop = {
        table: pl.concat([trace.tables[table], trace.tables[table].with_columns(pl.lit("shop").alias("service"))])
        for table in ("demand", "services")
    }
    pool = replace(cluster.pools[0], provision="manual", nodes=nodes)
    return trace.replacing("two", **shop), replace(
        cluster, pools=(pool,), services=(web, replace(web, name="shop", cpu_cores=1.0))
    )


def make(nodes: int = 6, **options: Any) -> ScaleParallelEnv:
    given: dict[str, Any] = {"episode_s": 1800.0, **options}
    return ScaleParallelEnv(*two(nodes), **given)


def same(number: int) -> dict[str, np.int64]:
    return {agent: np.int64(number) for agent in AGENTS}


def test_pettingzoo_finds_nothing_to_complain_about() -> None:
    parallel_api_test(make(), num_cycles=200)
    parallel_seed_test(make, num_cycles=20)


def test_it_runs_without_arguments() -> None:
    env = ScaleParallelEnv()
    seen, infos = env.reset(seed=0)
    assert set(seen) == set(infos) == set(env.possible_agents) == {"google2019", "alibaba2018", "azure_v2"}


def test_each_agent_sees_its_own_metrics_the_clock_and_the_price() -> None:
    env = make()
    seen, infos = env.reset(seed=0)
    for agent in AGENTS:
        assert all(column.startswith((f"{agent}.", "clock.", PRICE)) for column in env.columns[agent])
        assert env.columns[agent][-1] == PRICE
        assert seen[agent].shape == (len(env.columns[agent]),)
        assert seen[agent].dtype == np.float32
        assert env.observation_space(agent).contains(seen[agent])
        assert np.array_equal(infos[agent]["action_mask"], env.action_masks(agent))
        assert env.action_masks(agent).shape == (len(TARGETS),)


def test_the_price_follows_its_rule() -> None:
    """price <- max(0, price + step x (asked - there) / there); 8 cores there: both ask for more than that."""
    env = make(nodes=1, price_step=0.02)
    env.reset(seed=0)
    price = 0.0
    for number in (0, 0, 5, 9, 9):
        _, _, _, _, infos = env.step(same(number))
        assert env._episode is not None
        ready = env._episode.seen["workers.ready_nodes"]
        asked = 2.0 * infos["web"]["replicas"] + 1.0 * infos["shop"]["replicas"]
        price = max(0.0, price + 0.02 * (asked - 8.0 * ready) / (8.0 * ready))
        assert env.price == infos["shop"]["price"] == pytest.approx(price)


def test_the_price_rises_while_capacity_is_short_and_falls_to_nothing_when_it_is_not() -> None:
    short, ample = make(nodes=2), make(nodes=20)
    prices: dict[int, list[float]] = {2: [], 20: []}
    for nodes, env in ((2, short), (20, ample)):
        env.reset(seed=0)
        for _ in range(10):
            env.step(same(0))
            prices[nodes].append(env.price)
    assert (np.diff([0.0, *prices[2]]) > 0).all()
    assert prices[20] == [0.0] * 10
    ample.price = 0.5
    for _ in range(3):
        ample.step(same(0))
    assert ample.price < 0.5


def test_an_agent_pays_the_price_it_saw_for_the_cores_it_asks_for() -> None:
    """The same steps with and without a price differ by price x cores, and the price is seen."""
    free, priced = make(nodes=2, price_step=0.0), make(nodes=2, price_step=0.05)
    for env in (free, priced):
        env.reset(seed=0)
    for number in (3, 3, 6):
        paid = priced.price
        _, without, *_ = free.step(same(number))
        seen, rewards, _, _, infos = priced.step(same(number))
        for agent, cores in (("web", 2.0), ("shop", 1.0)):
            own = cores * infos[agent]["replicas"]
            assert without[agent] - rewards[agent] == pytest.approx(paid * own)
            assert seen[agent][-1] == pytest.approx(min(priced.price * cores * 12, 10.0), rel=1e-6)
    assert priced.price > 0


def test_all_end_together_at_the_end_of_the_episode() -> None:
    env = make()
    env.reset(seed=0)
    steps, truncated = 0, {}
    while env.agents:
        _, _, terminated, truncated, _ = env.step(same(4))
        steps += 1
        assert not any(terminated.values())
    assert set(truncated) == set(AGENTS)
    assert all(truncated.values())
    assert steps == 29
    assert env.step({}) == ({}, {}, {}, {}, {})


def test_same_seed_and_actions_same_bytes() -> None:
    def digest(seed: int) -> str:
        env, h, rng = make(nodes=3), hashlib.sha256(), np.random.default_rng(0)
        seen, infos = env.reset(seed=seed)
        while env.agents:
            h.update(repr((seen, infos)).encode())
            seen, rewards, _, _, infos = env.step({agent: rng.integers(len(TARGETS)) for agent in AGENTS})
            h.update(repr(rewards).encode())
        return h.hexdigest()

    assert digest(3) == digest(3)
    assert digest(3) != digest(4)
