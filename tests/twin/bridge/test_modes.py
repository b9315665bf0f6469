"""The actuator port: nothing is touched outside mode live, nothing unrecorded inside it."""

import json

import numpy as np
import pytest

from twin.bridge.http_plant import TelemetryLost
from twin.bridge.ledger import records, verify
from twin.bridge.modes import Actuator, known_value
from twin.errors import BridgeError, LedgerError, UsageError
from twin.loop import ControlLoop
from twin.types import Action, Limits, Observation, Outcome, Plant


def up(value=5, target="web"):
    return Action("replicas", target, value, "more load", 0.9)


def chain(ledger):
    return [(r.kind, r.body) for r in records(ledger.path)]


class Untouchable:
    """The plant of the mutation test: whoever acts on it fails the test."""

    def __init__(self, plant):
        self.plant = plant
        self.observe, self.advance = plant.observe, plant.advance

    @property
    def time_s(self):
        return self.plant.time_s

    def apply(self, actions):
        raise AssertionError("dry-run touched the plant")


# ---------------------------------------------------------------- outside live


@pytest.mark.parametrize("mode", ["dry-run", "shadow"])
@pytest.mark.parametrize("paused", [True, False])
@pytest.mark.parametrize("stopped", [True, False])
@pytest.mark.parametrize("cap", [None, 0, 1])
def test_outside_live_no_path_touches_the_plant(plant, ledger, mode, paused, stopped, cap):
    port = Actuator(
        Untouchable(plant), mode, ledger, max_changes_per_hour=cap, paused=lambda: paused, stopped=lambda: stopped
    )
    assert [o.status for o in port.apply([up()])] == ["dry-run"]  # before anything was seen
    for _ in range(3):
        port.observe()
        outcomes = port.apply([up(), up(), up(1, "api"), Action("nodes", "main", 9)])
        assert [(o.status, o.value) for o in outcomes] == [
            ("dry-run", 3),
            ("dry-run", 3),
            ("dry-run", 2),
            ("dry-run", 4),
        ]
        port.advance(60.0)
    assert plant.applied == []


def test_outside_live_the_port_does_not_even_hold_the_plants_apply(plant, ledger):
    port = Actuator(plant, "shadow", ledger)
    assert plant.apply not in vars(port).values()
    assert plant not in vars(port).values()


def test_an_unknown_value_is_answered_with_the_wish(plant, ledger, make_plant):
    port = Actuator(plant, "dry-run", ledger)
    plant.wanted["web"] = float("nan")
    port.observe()
    assert port.apply([up(7)]) == [Outcome("dry-run", 7, "dry-run: not sent")]


def test_dry_run_decisions_match_live_ones_up_to_what_is_done(make_plant, ledger, tmp_path):
    """A first decision is the same in both modes; only its outcome differs."""

    class Five:
        name, interval_s = "five@1", 60.0

        def reset(self):
            """Nothing is kept."""

        def decide(self, observation):
            return [up(5)]

    rows = {}
    for mode in ("dry-run", "live"):
        decisions = []
        loop = ControlLoop(Actuator(make_plant(), mode, ledger), Five(), limits=Limits(), record=decisions.append)
        loop.step()
        loop.close()
        rows[mode] = decisions[0]
    assert rows["dry-run"].allowed == rows["live"].allowed == 5
    assert (rows["dry-run"].status, rows["dry-run"].applied) == ("dry-run", 3)
    assert (rows["live"].status, rows["live"].applied) == ("applied", 5)


# ---------------------------------------------------------------- live


def test_the_intent_is_on_the_disk_before_the_plant_is_called(plant, ledger):
    seen = []
    real = plant.apply
    plant.apply = lambda actions: seen.append(chain(ledger)) or real(actions)
    port = Actuator(plant, "live", ledger)
    port.observe()
    assert port.apply([up()]) == [Outcome("applied", 5)]
    [(kind, intent)] = seen[0]
    assert kind == "intent"
    assert (intent["current"], intent["value"], intent["target"], intent["mode"]) == (3, 5, "web", "live")
    assert (intent["reason"], intent["confidence"]) == ("more load", 0.9)
    (_, _), (kind, outcome) = chain(ledger)
    assert (kind, outcome) == ("outcome", {"key": intent["key"], "status": "applied", "value": 5, "message": ""})


def test_nothing_is_done_unrecorded(plant, ledger):
    port = Actuator(plant, "live", ledger)
    port.observe()
    ledger.close()
    with pytest.raises(LedgerError):
        port.apply([up()])
    assert plant.applied == []


def test_the_same_wish_on_the_same_observation_is_carried_out_once(plant, ledger):
    port = Actuator(plant, "live", ledger)
    port.observe()
    first = port.apply([up(), up()])
    again = port.apply([up()])
    assert first == [Outcome("applied", 5)] * 2
    assert again == first[:1]
    assert plant.applied == [[up()]]
    plant.advance(60.0)
    port.observe()
    port.apply([up()])
    assert plant.applied == [[up()], [up()]]
    keys = [body["key"] for kind, body in chain(ledger) if kind == "intent"]
    assert len(set(keys)) == 2


def test_an_unanswered_call_is_failed_and_the_loop_lives_on(plant, ledger):
    def lost(actions):
        raise TelemetryLost("no answer")

    plant.apply = lost
    port = Actuator(plant, "live", ledger)
    port.observe()
    assert port.apply([up(), up(1, "api")]) == [Outcome("failed", 3, "no answer"), Outcome("failed", 2, "no answer")]
    assert [kind for kind, _ in chain(ledger)] == ["intent", "intent", "outcome", "outcome"]


def test_a_plant_that_breaks_its_contract_is_failed(plant, ledger):
    plant.apply = lambda actions: []
    port = Actuator(plant, "live", ledger)
    port.observe()
    [outcome] = port.apply([up()])
    assert (outcome.status, outcome.value) == ("failed", 3)
    assert "0 outcomes for 1 actions" in outcome.message


def test_a_defect_of_the_plant_goes_up_but_leaves_its_outcome(plant, ledger):
    def broken(actions):
        raise ZeroDivisionError("a defect")

    plant.apply = broken
    port = Actuator(plant, "live", ledger)
    port.observe()
    with pytest.raises(ZeroDivisionError):
        port.apply([up()])
    assert chain(ledger)[-1][1]["status"] == "failed"
    assert "a defect" in chain(ledger)[-1][1]["message"]


def test_an_unknown_target_is_refused_before_anything_is_written(plant, ledger):
    port = Actuator(plant, "live", ledger)
    port.observe()
    with pytest.raises(UsageError, match="nobody"):
        port.apply([up(5, "nobody")])
    assert chain(ledger) == []


def test_numbers_of_numpy_are_written_as_plain_ones(plant, ledger):
    port = Actuator(plant, "live", ledger)
    port.observe()
    port.apply([Action("replicas", "web", np.int64(5), "", np.float32(0.5))])  # pyright: ignore[reportArgumentType]
    assert chain(ledger)[0][1]["value"] == 5


# ---------------------------------------------------------------- pause, stop, cap


def test_while_paused_nothing_is_touched_and_each_change_of_state_is_noted(plant, ledger):
    paused = [True]
    port = Actuator(plant, "live", ledger, paused=lambda: paused[0])
    statuses = []
    for state in (True, True, False, False, True):
        paused[0] = state
        port.observe()
        statuses.append(port.apply([up()])[0].status)
        port.advance(60.0)
    assert statuses == ["rejected", "rejected", "applied", "applied", "rejected"]
    notes = [body["reason"] for kind, body in chain(ledger) if kind == "note"]
    assert notes == ["paused: nothing is touched", "resumed", "paused: nothing is touched"]


def test_a_stop_is_final(plant, ledger):
    stopped = [True]
    port = Actuator(plant, "live", ledger, stopped=lambda: stopped[0])
    port.observe()
    [outcome] = port.apply([up()])
    assert (outcome.status, outcome.value) == ("rejected", 3)
    stopped[0] = False
    port.advance(60.0)
    port.observe()
    assert port.apply([up()])[0].message == "stopped: this session acts no more"
    assert plant.applied == []


def test_the_cap_counts_changes_of_the_last_hour_however_fast_the_loop(plant, ledger):
    port = Actuator(plant, "live", ledger, max_changes_per_hour=2)
    changed_at = []
    for step in range(150):
        port.observe()
        before = plant.wanted["web"]
        port.apply([up(3 + (step + 1) % 2)])
        if plant.wanted["web"] != before:
            changed_at.append(plant.time_s)
        port.advance(60.0)
    for start in changed_at:
        assert sum(start <= t < start + 3600.0 for t in changed_at) <= 2
    assert len(changed_at) >= 4


def test_wishes_that_change_nothing_do_not_use_up_the_cap(plant, ledger):
    port = Actuator(plant, "live", ledger, max_changes_per_hour=1)
    for value, status in ((3, "applied"), (3, "applied"), (6, "applied"), (6, "applied"), (7, "rejected")):
        port.observe()
        assert port.apply([up(value)])[0].status == status
        port.advance(60.0)
    assert plant.wanted["web"] == 6


def test_a_cap_rejects_only_what_goes_beyond_it(plant, ledger):
    port = Actuator(plant, "live", ledger, max_changes_per_hour=1)
    port.observe()
    outcomes = port.apply([up(5), up(1, "api"), Action("nodes", "main", 4)])
    assert [o.status for o in outcomes] == ["applied", "rejected", "applied"]
    assert outcomes[1] == Outcome("rejected", 2, "cap: 1 changes within an hour are reached")


# ---------------------------------------------------------------- eyes and clock


def test_a_lost_observation_is_recorded_and_passed_on(plant, ledger):
    plant.lost_turns = {0}
    port = Actuator(plant, "live", ledger)
    with pytest.raises(TelemetryLost):
        port.observe()
    assert chain(ledger) == [("observation-lost", {"reason": "the metrics source gave no answer"})]
    assert isinstance(port.observe(), Observation)


def test_the_port_is_a_plant(plant, ledger):
    port = Actuator(plant, "dry-run", ledger)
    assert isinstance(port, Plant)
    port.advance(90.0)
    assert port.time_s == plant.time_s == 90.0


def test_wrong_settings_are_refused(plant, ledger):
    with pytest.raises(UsageError, match="none of"):
        Actuator(plant, "Live", ledger)  # pyright: ignore[reportArgumentType]
    with pytest.raises(UsageError, match="0 or more"):
        Actuator(plant, "live", ledger, max_changes_per_hour=-1)


def test_known_value_says_none_for_unknown(plant):
    plant.wanted["web"] = float("nan")
    seen = plant.observe()
    assert known_value(seen, "replicas", "web") is None
    assert known_value(seen, "nodes", "main") == 4


def test_losing_telemetry_is_a_refusal_of_the_bridge():
    assert issubclass(TelemetryLost, BridgeError)


def test_the_ledger_of_a_port_verifies(plant, ledger):
    port = Actuator(plant, "live", ledger)
    for value in range(1, 6):
        port.observe()
        port.apply([up(value)])
        port.advance(15.0)
    assert verify(ledger.path) == 10
    assert all(json.loads(line) for line in ledger.path.read_bytes().splitlines())
