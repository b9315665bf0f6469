"""The controller around an inference: warm-up, gaps, nonsense, and words."""

from __future__ import annotations

import numpy as np
import pytest

from agents.policy import LONGEST_GAP, GraphPolicy, Inference, PolicySpec, Window, load
from twin.errors import PolicyError
from twin.types import Observation

SPEC = PolicySpec("p", "1", ("web.demand_rps",), 3, 60.0, ("web",), ("mean",), "mean {mean:.0f}: {replicas}", "none")


def said(window: Window) -> Inference:
    return Inference(np.array([window.mean()], np.float32), 0.9, np.array([window.mean()], np.float32))


def see(value: float, column: str = "web.demand_rps") -> Observation:
    return Observation(0.0, ("other", column), np.array([7.0, value], np.float32))


def decide(policy: GraphPolicy, values: list[float]) -> list[int | None]:
    answers = [policy.decide(see(value)) for value in values]
    return [answer[0].value if answer else None for answer in answers]


def test_it_is_silent_until_the_window_is_full() -> None:
    assert decide(GraphPolicy(SPEC, said), [3.0, 6.0, 9.0, 12.0]) == [None, None, 6, 9]


def test_an_unknown_step_is_silent_and_bridged_by_the_last_known_value() -> None:
    assert decide(GraphPolicy(SPEC, said), [3.0, 3.0, 3.0, np.nan, 6.0]) == [None, None, 3, None, 4]


def test_a_longer_gap_fills_the_window_anew() -> None:
    values = [3.0] * 3 + [np.nan] * (LONGEST_GAP + 1) + [6.0] * 3
    assert decide(GraphPolicy(SPEC, said), values)[-3:] == [None, None, 6]


def test_a_window_never_begins_with_the_unknown() -> None:
    assert decide(GraphPolicy(SPEC, said), [np.nan, 3.0, 3.0, 3.0]) == [None, None, None, 3]


def test_reset_forgets() -> None:
    policy = GraphPolicy(SPEC, said)
    decide(policy, [3.0, 3.0, 3.0])
    policy.reset()
    assert decide(policy, [3.0]) == [None]


def test_the_reason_carries_the_signals() -> None:
    policy = GraphPolicy(SPEC, said)
    decide(policy, [3.0, 3.0])
    action = policy.decide(see(3.2))[0]
    assert (action.reason, action.confidence) == ("mean 3: 4", 0.9)


def test_a_rounding_hair_costs_no_replica() -> None:
    policy = GraphPolicy(SPEC, lambda _: Inference(np.array([5.0000005], np.float32), 0.9, np.zeros(1, np.float32)))
    assert decide(policy, [1.0, 1.0, 1.0])[-1] == 5


@pytest.mark.parametrize("wrong", [(np.nan, 0.9), (np.inf, 0.9), (3.0, np.nan)])
def test_nonsense_is_an_error(wrong: tuple[float, float]) -> None:
    policy = GraphPolicy(SPEC, lambda _: Inference(np.array([wrong[0]], np.float32), wrong[1], np.zeros(1, np.float32)))
    with pytest.raises(PolicyError, match="answered"):
        decide(policy, [1.0, 1.0, 1.0])


def test_a_plant_that_lacks_a_column_is_named() -> None:
    with pytest.raises(PolicyError, match=r"needs the column 'web\.demand_rps'"):
        GraphPolicy(SPEC, said).decide(see(1.0, "api.demand_rps"))


def test_a_folder_without_a_policy_says_how_to_get_one(tmp_path) -> None:
    with pytest.raises(PolicyError, match=r"experiments\.train"):
        load(tmp_path)
    (tmp_path / "policy.json").write_text("[1, 2]")
    with pytest.raises(PolicyError, match="not a policy"):
        load(tmp_path)
