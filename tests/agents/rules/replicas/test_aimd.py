"""The saw-tooth: when it adds, when it takes away, what it does when it cannot know."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.rules.replicas.aimd import Aimd
from twin.errors import UsageError
from twin.types import Controller, Observation

NAN = float("nan")


def look(turn=0, wanted=20.0, late=NAN, demand_rps=100.0, p95_s=NAN) -> Observation:
    seen = {
        "cell.wanted_replicas": wanted,
        "cell.late_ratio": late,
        "cell.latency_p95_s": p95_s,
        "cell.demand_rps": demand_rps,
    }
    return Observation(60.0 * turn, tuple(seen), np.array(list(seen.values()), dtype=np.float32))


def aimd(**changes) -> Aimd:
    return Aimd(**{"service": "cell", "min_replicas": 2, "max_replicas": 40, "patience": 3, **changes})


def drive(controller: Aimd, late: list[float], start: int) -> list[int]:
    replicas = [start]
    for turn, share in enumerate(late):
        replicas.append(controller.decide(look(turn, replicas[-1], share))[0].value)
    return replicas


def test_it_adds_when_late_and_takes_a_share_after_patience():
    assert drive(aimd(), [0.2, 0.2, 0, 0, 0, 0, 0, 0], start=20) == [20, 24, 28, 28, 28, 25, 25, 25, 22]


def test_every_late_turn_begins_patience_anew():
    assert drive(aimd(), [0, 0, 0.2, 0, 0, 0.2, 0, 0, 0], start=20) == [20, 20, 20, 24, 24, 24, 28, 28, 28, 25]


def test_the_threshold_itself_is_quiet():
    controller = aimd(threshold=0.5, patience=1)
    assert (
        controller.decide(look(late=0.5))[0].reason == "18 = floor(0.9 x 20): late_ratio 0.5 <= 0.5, quiet turn 1 of 1"
    )
    assert controller.decide(look(late=0.75))[0].reason == "24 = 20 + 4: late_ratio 0.75 > 0.5"


def test_the_latency_may_be_the_signal():
    controller = aimd(signal="latency_p95_s", threshold=0.5)
    assert controller.decide(look(late=0.0, p95_s=0.75))[0].reason == "24 = 20 + 4: latency_p95_s 0.75 > 0.5"


def test_the_unknown_holds_and_begins_patience_anew():
    assert drive(aimd(), [0, 0, NAN, 0, 0, 0], start=20) == [20, 20, 20, 20, 20, 20, 18]
    assert aimd().decide(look())[0].reason == "held at 20: late_ratio unknown"


def test_nobody_asking_is_quiet():
    controller = aimd(patience=2)
    assert controller.decide(look(demand_rps=0.0))[0].reason == "held at 20: no requests, quiet turn 1 of 2"
    assert controller.decide(look(demand_rps=0.0))[0].value == 18


def test_one_replica_at_least_is_taken_away():
    assert aimd(patience=1, factor=0.99).decide(look(wanted=3, late=0.0))[0].value == 2


def test_nothing_is_said_before_the_wished_number_is_known():
    controller = aimd(patience=1)
    assert controller.decide(look(wanted=NAN, late=0.0)) == []
    assert controller.decide(look(1, 20.0, 0.0))[0].value == 18
    assert controller.decide(look(2, NAN, 0.2))[0].value == 24  # on from the last known 20


def test_reset_forgets_the_quiet_turns():
    controller = aimd()
    assert isinstance(controller, Controller)
    drive(controller, [0, 0], start=20)
    controller.reset()
    assert drive(controller, [0, 0, 0], start=20)[-2:] == [20, 18]


@settings(max_examples=60)
@given(late=st.lists(st.one_of(st.just(NAN), st.floats(0, 1)), min_size=1, max_size=60), start=st.integers(2, 40))
def test_it_stays_within_bounds_and_moves_only_when_told(late, start):
    replicas = drive(aimd(), late, start)
    for before, after, share in zip(replicas, replicas[1:], late, strict=False):
        assert 2 <= after <= 40
        seen = float(np.float32(share))
        if after > before:
            assert seen > 0.05
        if after < before:
            assert seen <= 0.05


@pytest.mark.parametrize(
    "wrong", [{"signal": "cpu"}, {"step": 0}, {"factor": 1.0}, {"patience": 0}, {"threshold": -1}, {"min_replicas": 99}]
)
def test_nonsense_is_refused(wrong):
    with pytest.raises(UsageError):
        aimd(**wrong)
