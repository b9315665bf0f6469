"""What deciding costs: the loop around a controller, and a policy around its graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agents import policy
from tests.bench.conftest import Figure, bare_graph, cheapest, each_us
from twin import observe
from twin.loop import ControlLoop
from twin.types import Action, Cluster, Decision, Limits, Observation, Outcome

pytestmark = pytest.mark.bench

TURNS = 20_000
DECISIONS = 5_000
INTERVAL_S = 15.0


class Still:
    """A plant that always shows the same, does what it is told, and whose time passes by itself."""

    def __init__(self, cluster: Cluster) -> None:
        columns = observe.columns(cluster)
        self.seen = Observation(0.0, columns, np.ones(len(columns), np.float32))
        self.done = [Outcome("applied", 1)]

    @property
    def time_s(self) -> float:
        return self.seen.time_s

    def observe(self) -> Observation:
        return self.seen

    def apply(self, actions: Sequence[Action]) -> list[Outcome]:
        return self.done

    def advance(self, seconds: float) -> None:
        self.seen = replace(self.seen, time_s=self.seen.time_s + seconds)


class Same:
    """A controller that wishes for the same again."""

    name = "same"
    interval_s = INTERVAL_S

    def __init__(self, target: str) -> None:
        self.wish = [Action("replicas", target, 1, "as before")]

    def reset(self) -> None:
        """Nothing to forget."""

    def decide(self, observation: Observation) -> list[Action]:
        return self.wish


def test_the_loop_around_a_plant_and_a_controller_that_cost_nothing(
    figure: Figure, cluster: Cluster, limits: Limits
) -> None:
    """Shield, digest, confirmation and the decision's row, beside calling plant and controller by hand."""
    controller = Same(cluster.services[0].name)

    def by_hand() -> None:
        plant = Still(cluster)
        for _ in range(TURNS):
            plant.apply(controller.decide(plant.observe()))
            plant.advance(INTERVAL_S)

    def by_the_loop() -> None:
        plant, rows = Still(cluster), list[Decision]()
        loop = ControlLoop(plant, controller, limits=limits, record=rows.append)
        for _ in range(TURNS):
            loop.step()
        loop.close()
        assert len(rows) == TURNS

    looped_s, bare_s = cheapest(by_the_loop, by_hand)
    ratio = figure("control loop, a decision", 1e6 * looped_s / TURNS, "us CPU", 1e6 * bare_s / TURNS)
    assert ratio <= 30


@pytest.mark.parametrize("learner", ["ppo", "forecast_led"])
def test_a_policys_decision(figure: Figure, policies: dict[str, Path], learner: str) -> None:
    """Observation in, action with reason and confidence out, beside one bare run of the graph."""
    controller = policy.load(policies[learner])
    spec = controller.spec
    graph = bare_graph(policies[learner] / "graph.onnx")
    # a plant that shows what the policy reads after much else
    columns = (*(f"other.{place}" for place in range(20)), *spec.columns)
    values = np.random.default_rng(0).uniform(400.0, 900.0, (spec.steps, len(columns))).astype(np.float32)
    seen = [Observation(spec.interval_s * step, columns, row) for step, row in enumerate(values)]
    answers = [controller.decide(observation) for observation in seen]
    assert len(answers[-1]) == 1, "the window is full now"
    window = np.ascontiguousarray(values[None, :, -len(spec.columns) :])

    decided = each_us(lambda: controller.decide(seen[-1]), DECISIONS)
    bare = each_us(lambda: graph.run(None, {"window": window}), DECISIONS)
    ratios = [
        figure(f"policy {learner}, a decision, p{p}", np.percentile(decided, p), "us CPU", np.percentile(bare, p))
        for p in (50, 99)
    ]
    assert ratios[0] <= 6
