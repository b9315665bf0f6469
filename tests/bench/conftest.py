"""How the measurements are taken and shown: CPU time against a floor that is measured in the same run.

A floor is the least that the work could cost: the bare library call, or the bare loop, that it cannot do without.
Only ratios are held against bounds, and these are generous: a slow or busy machine slows both sides alike.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import simpy
from hydra import compose, initialize_config_module
from numpy.typing import NDArray
from omegaconf import DictConfig
from simpy.events import Event

import twin
from experiments import cell, schema
from twin.types import Cluster, Controller, Limits

DAY_S = 86_400.0
STEP_S = 60.0
EVENTS_A_STEP = 100  # as many arrivals as departures
_LINES = pytest.StashKey[list[str]]()

Configured = Callable[..., DictConfig]
Figure = Callable[..., float]


@pytest.fixture(scope="session")
def figure(pytestconfig: pytest.Config) -> Figure:
    """Takes note of a measured value and its floor; returns how many times the floor's cost it is."""
    lines = pytestconfig.stash.setdefault(_LINES, [])

    def note(name: str, value: float, unit: str, floor: float, *, more_is_better: bool = False) -> float:
        ratio = floor / value if more_is_better else value / floor
        lines.append(f"{name:<52}{value:>14,.3f}  {unit:<22}{floor:>14,.3f}  {ratio:>8.2f}")
        return ratio

    return note


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """One line per figure, after the tests."""
    lines = config.stash.get(_LINES, [])
    if lines:
        terminalreporter.section("measurements")
        terminalreporter.write_line(f"{'name':<52}{'value':>14}  {'unit':<22}{'floor':>14}  {'ratio':>8}")
        for line in lines:
            terminalreporter.write_line(line)


def cheapest(*calls: Callable[[], object], rounds: int = 3) -> list[float]:
    """CPU seconds of each call, the least of several rounds in which they take turns: noise only ever adds."""
    spent = [math.inf] * len(calls)
    for _ in range(rounds):
        for place, call in enumerate(calls):
            start = time.process_time()
            call()
            spent[place] = min(spent[place], time.process_time() - start)
    return spent


def on_timeout(env: simpy.Environment, delay_s: float, call: Callable[[Event], None]) -> None:
    """Call it with the event in so many simulated seconds."""
    timeout = env.timeout(delay_s)
    assert timeout.callbacks is not None
    timeout.callbacks.append(call)


def bare_steps(steps: int) -> None:
    """Arrivals and departures as callbacks, about EVENTS_A_STEP of them a step, and the clock stopped at each step."""
    env = simpy.Environment()
    rng = np.random.default_rng(0)
    gap = cycle(rng.exponential(2.0 * STEP_S / EVENTS_A_STEP, 4096).tolist())
    stay = cycle(rng.exponential(STEP_S, 4096).tolist())
    present = [0]

    def arrive(_event: Event) -> None:
        present[0] += 1
        on_timeout(env, next(stay), leave)
        on_timeout(env, next(gap), arrive)

    def leave(_event: Event) -> None:
        present[0] -= 1

    on_timeout(env, 0.0, arrive)
    for step in range(steps):
        env.run(until=(step + 1) * STEP_S)


def each_us(call: Callable[[], object], times: int) -> NDArray[np.float64]:
    """CPU microseconds of each of many calls, after a tenth as many that do not count."""
    spent = np.empty(times + times // 10)
    for place in range(len(spent)):
        start = time.process_time_ns()
        call()
        spent[place] = time.process_time_ns() - start
    return spent[times // 10 :] / 1e3


def bare_graph(path: Path) -> onnxruntime.InferenceSession:
    """The ONNX graph without a policy around it, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="session")
def configured() -> Configured:
    """Composes a verb's configuration."""
    schema.register()

    def composed(verb: str, *overrides: str) -> DictConfig:
        with initialize_config_module("conf", version_base="1.3"):
            return compose(verb, list(overrides))

    return composed


@pytest.fixture(scope="session")
def scene(configured: Configured) -> DictConfig:
    """The configuration of a plain simulation: the web cluster under the default HPA."""
    return configured("simulate")


@pytest.fixture(scope="session")
def cluster(scene: DictConfig) -> Cluster:
    return cell.build(scene.cluster)


@pytest.fixture(scope="session")
def limits(scene: DictConfig) -> Limits:
    return cell.build(scene.limits)


@pytest.fixture
def hpa(scene: DictConfig) -> Controller:
    return cell.build(scene.controller)


@pytest.fixture(scope="session")
def week() -> twin.Trace:
    """A recorded week."""
    return twin.read("google2019").between(0.0, 7 * DAY_S)


@pytest.fixture(scope="session")
def policies(tmp_path_factory: pytest.TempPathFactory, configured: Configured) -> dict[str, Path]:
    """Both learners' policies at their real sizes, trained for a moment only."""
    folder = tmp_path_factory.mktemp("policies")
    brief = {
        "ppo": ["learner.learn.settings.total_steps=256", "learner.learn.settings.rollout_steps=32"],
        "forecast_led": ["learner.learn.network.training.steps=5"],
    }
    for learner, overrides in brief.items():
        cfg = configured("train", f"learner={learner}", *overrides)
        trace = twin.read("google2019").between(0.0, 4 * DAY_S)
        cell.build(cfg.learner.learn)(folder / learner, trace=trace, cluster=cell.build(cfg.cluster), seed=0)
    return {path.name: path for path in folder.iterdir()}
