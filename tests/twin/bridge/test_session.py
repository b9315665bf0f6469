"""A session decides on the record, holds when it is blind, and always ends with its last word in the ledger."""

import inspect
import math
from dataclasses import asdict
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from twin.bridge.http_plant import HttpPlant
from twin.bridge.ledger import Ledger, records, verify
from twin.bridge.modes import MODES
from twin.bridge.server import app, serve
from twin.bridge.session import LOST, SILENT, run_session
from twin.errors import LedgerError, PolicyError, TelemetryLost, UsageError
from twin.trace import tables
from twin.types import Action, Limits, RateLimit

CONF = Path(__file__).parents[3] / "conf" / "mode"
WIDE = Limits(1, 100, RateLimit(60.0, 1000.0, 100), RateLimit(60.0, 1000.0, 100))


class Load:
    """One replica per 5 requests/s of `web`; keeps what it saw."""

    name = "load@1"
    interval_s = 60.0

    def __init__(self, reason="load"):
        self.reason = reason
        self.seen = []
        self.resets = 0

    def reset(self):
        self.resets += 1

    def decide(self, observation):
        self.seen.append(observation)
        demand = observation["web.demand_rps"]
        return [] if math.isnan(demand) else [Action("replicas", "web", math.ceil(demand / 5), self.reason, 0.9)]


def session(plant, ledger, controller=None, **arguments):
    arguments = {"limits": WIDE, "mode": "live", "steps": 5} | arguments
    return run_session(plant, controller or Load(), ledger=ledger, **arguments)


def bodies(ledger, kind):
    return [r.body for r in records(ledger.path) if r.kind == kind]


# ---------------------------------------------------------------- a quiet session


def test_a_live_session_acts_and_reports(plant, ledger):
    report = session(plant, ledger)
    assert plant.wanted["web"] == 6
    assert (report.status, report.steps, report.lost, report.silent, report.limited) == ("completed", 5, 0, 0, 0)
    assert report.decisions["applied"].to_list() == [6] * 5
    assert report.decisions["confirmed"].to_list() == [True] * 4 + [None]
    assert report.disagreement == 0.0


def test_every_decision_is_in_the_ledger_as_in_the_table(plant, ledger):
    told = []
    report = session(plant, ledger, on_decision=told.append)
    assert bodies(ledger, "decision") == report.decisions.to_dicts() == [asdict(d) for d in told]
    assert [c.name for c in tables.schema("decisions")] == report.decisions.columns
    kinds = [r.kind for r in records(ledger.path)]
    assert kinds[0] == "start"
    assert kinds[-1] == "stop"
    assert kinds.count("intent") == kinds.count("outcome") == kinds.count("decision") == 5


def test_the_report_holds_the_head_of_a_ledger_that_verifies_and_is_closed(plant, ledger):
    report = session(plant, ledger)
    assert ledger.closed
    assert verify(ledger.path, head=report.ledger_head) == report.ledger_records
    assert bodies(ledger, "stop") == [{"status": "completed", "turns": 5, "lost": 0}]


def test_the_start_says_who_acts_how_and_on_what_ground(plant, ledger):
    session(plant, ledger, about={"bundle": "ab12"}, max_changes_per_hour=9)
    [start] = bodies(ledger, "start")
    assert start["policy"] == "load@1"
    assert start["mode"] == "live"
    assert start["limits"] == asdict(WIDE)
    assert start["about"] == {"bundle": "ab12"}
    assert start["max_changes_per_hour"] == 9


def test_the_shield_is_between_decision_and_plant(plant, ledger):
    report = session(plant, ledger, limits=Limits(1, 4))
    assert plant.wanted["web"] == 4
    assert report.limited == 5
    assert report.decisions["proposed"].to_list() == [6] * 5


def test_a_session_can_end_at_a_time(plant, ledger):
    report = session(plant, ledger, steps=None, until_s=150.0)
    assert (report.steps, plant.time_s) == (3, 180.0)


def test_a_controller_starts_afresh(plant, ledger):
    controller = Load()
    session(plant, ledger, controller)
    assert controller.resets == 1


def test_decisions_that_a_guard_took_over_are_counted(plant, ledger):
    assert session(plant, ledger, Load("warming up; rule decides: load")).handed_over == 5


# ---------------------------------------------------------------- shadow


@pytest.mark.parametrize("mode", ["shadow", "dry-run"])
def test_a_shadow_touches_nothing_and_measures_its_distance_from_the_incumbent(plant, ledger, mode):
    def incumbent(plant):
        plant.wanted["web"] = {60.0: 5, 120.0: 6, 180.0: 9}[plant.time]

    plant.incumbent = incumbent
    report = session(plant, ledger, mode=mode, steps=3)
    assert plant.applied == []
    assert report.decisions["proposed"].to_list() == [6, 6, 6]
    assert report.decisions["status"].to_list() == ["dry-run"] * 3
    assert report.decisions["current"].to_list() == [3, 5, 6]
    # the last decision is never read back: |6 - 5| and |6 - 6|
    assert report.disagreement == 0.5


def test_a_distance_that_was_never_known_is_none(plant, ledger):
    plant.wanted["web"] = math.nan
    report = session(plant, ledger, mode="shadow")
    assert report.disagreement is None


# ---------------------------------------------------------------- blindness


def test_a_lost_observation_holds_and_the_next_one_goes_on(plant, ledger):
    plant.lost_turns = {1, 3}
    controller = Load()
    report = session(plant, ledger, controller)
    assert (report.status, report.steps, report.lost) == ("completed", 5, 2)
    assert len(plant.applied) == 3
    assert plant.time_s == 300.0
    assert len(bodies(ledger, "observation-lost")) == 2
    assert report.decisions["time_s"].to_list() == [0.0, 120.0, 240.0]
    assert report.decisions["confirmed"].to_list() == [True, True, None]


def test_the_controller_is_told_of_the_gap_and_what_it_then_wishes_is_not_done(plant, ledger):
    """A window of observations must not close over a hole, or its steps are no intervals any more."""

    class Stubborn(Load):
        def decide(self, observation):
            super().decide(observation)
            return [Action("replicas", "web", 1)]

    plant.lost_turns = {1, 2}
    controller = Stubborn()
    session(plant, ledger, controller, steps=4)
    assert [o.time_s for o in controller.seen] == [0.0, 60.0, 120.0, 180.0]
    assert [math.isnan(o["web.wanted_replicas"]) for o in controller.seen] == [False, True, True, False]
    assert len(plant.applied) == 2


def test_too_many_losses_in_a_row_end_the_session_cleanly(plant, ledger):
    plant.lost_turns = {1, 3, 4, 5}
    report = session(plant, ledger, steps=100, max_lost=3)
    assert report.status == LOST == "aborted: telemetry lost"
    assert (report.lost, report.steps) == (4, 6)
    assert ledger.closed
    assert bodies(ledger, "stop") == [{"status": LOST, "turns": 6, "lost": 4}]
    assert len(bodies(ledger, "decision")) == report.decisions.height == 2


def test_a_plant_that_never_answers_ends_the_session_cleanly(ledger):
    with HttpPlant("http://127.0.0.1:9", timeout_s=0.2) as nobody:
        report = session(nobody, ledger, steps=None, until_s=1e9, max_lost=2)
    assert report.status == LOST
    assert report.decisions.height == 0
    assert verify(ledger.path) == report.ledger_records


def test_a_clock_that_is_lost_after_acting_does_not_act_twice(plant, ledger):
    pass_time, look, cached = plant.advance, plant.observe, {}
    fail = [True]

    def advance(seconds):
        if fail:
            fail.pop()
            raise TelemetryLost("the clock did not answer")
        pass_time(seconds)

    def snapshot():
        """As a metrics source that is read again before its next scrape."""
        if plant.time_s not in cached:
            cached[plant.time_s] = look()
        return cached[plant.time_s]

    plant.advance, plant.observe = advance, snapshot
    report = session(plant, ledger, steps=3)
    assert (report.status, report.lost) == ("completed", 1)
    assert report.decisions["time_s"].to_list() == [0.0, 0.0, 60.0]
    assert report.decisions["status"].to_list() == ["applied"] * 3
    assert len(plant.applied) == 2


def test_the_watchdog_notes_a_silence_and_counts_it(plant, ledger):
    plant.demand["web"] = math.nan
    report = session(plant, ledger, steps=7, silent_after=3)
    assert report.silent == 7
    assert bodies(ledger, "note") == [{"event": SILENT, "turns": 3}, {"event": SILENT, "turns": 6}]


def test_losses_are_silence_too(plant, ledger):
    plant.lost_turns = {1, 2, 3}
    report = session(plant, ledger, silent_after=3)
    assert report.silent == 3
    assert bodies(ledger, "note") == [{"event": SILENT, "turns": 3}]


# ---------------------------------------------------------------- ends


def test_a_stop_ends_before_the_next_turn(plant, ledger):
    report = session(plant, ledger, steps=100, stop=lambda: plant.time_s >= 120.0)
    assert (report.status, report.steps) == ("stopped", 2)
    assert bodies(ledger, "stop")[0]["status"] == "stopped"


def test_a_stop_while_deciding_keeps_that_decision_from_the_plant(plant, ledger):
    pressed = []

    class Pressed(Load):
        def decide(self, observation):
            pressed.append(True)
            return super().decide(observation)

    report = session(plant, ledger, Pressed(), stop=lambda: bool(pressed))
    assert plant.applied == []
    assert (report.status, report.unsent) == ("stopped", 1)


def test_a_pause_rejects_until_it_is_over(plant, ledger):
    report = session(plant, ledger, paused=lambda: plant.time_s < 120.0)
    assert report.decisions["status"].to_list() == ["rejected", "rejected", "applied", "applied", "applied"]
    assert report.unsent == 2


def test_a_cap_on_changes_reaches_the_port(plant, ledger):
    report = session(plant, ledger, max_changes_per_hour=0)
    assert plant.applied == []
    assert report.unsent == 5


def test_a_policy_that_fails_ends_on_the_record(plant, ledger):
    class Broken(Load):
        def decide(self, observation):
            if observation.time_s:
                raise PolicyError("the graph answered nan")
            return super().decide(observation)

    with pytest.raises(PolicyError):
        session(plant, ledger, Broken())
    assert ledger.closed
    assert "the graph answered nan" in bodies(ledger, "stop")[0]["status"]
    assert len(bodies(ledger, "decision")) == 1
    assert len(plant.applied) == 1


def test_an_interrupt_ends_on_the_record(plant, ledger):
    def interrupted(decision):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        session(plant, ledger, on_decision=interrupted)
    assert bodies(ledger, "stop")[0]["status"] == "failed: KeyboardInterrupt()"


def test_a_ledger_that_fails_ends_the_session_before_anything_else_is_done(plant, ledger):
    def sabotage(plant):
        with ledger.path.open("ab") as file:
            file.write(b"x")

    plant.incumbent = sabotage
    with pytest.raises(LedgerError, match="somebody else"):
        session(plant, ledger)
    assert len(plant.applied) == 1


def test_either_steps_or_a_time_must_be_given(plant, ledger):
    for both in ({"steps": None}, {"steps": 3, "until_s": 5.0}):
        with pytest.raises(UsageError, match="either"):
            session(plant, ledger, **both)
    with pytest.raises(UsageError, match="at least 1"):
        session(plant, ledger, max_lost=0)


# ---------------------------------------------------------------- whole, over HTTP, and as configured


def test_over_http_a_session_decides_exactly_as_next_to_the_plant(make_plant, tmp_path, clock):
    tables_of = []
    for remote in (False, True):
        plant = make_plant()
        plant.incumbent = lambda p: p.demand.update(web=30.0 + 10.0 * math.sin(p.time / 300.0))
        with Ledger.open(tmp_path / f"{remote}.jsonl", type(clock)()) as ledger:
            if remote:
                with serve(app(plant, "secret", simulated=True)) as url, HttpPlant(url, "secret") as there:
                    report = session(there, ledger, steps=20)
            else:
                report = session(plant, ledger, steps=20)
        tables_of.append(report.decisions)
    assert tables_of[0].equals(tables_of[1])
    assert tables_of[0]["applied"].n_unique() > 1
    assert (tmp_path / "False.jsonl").read_bytes() == (tmp_path / "True.jsonl").read_bytes()


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda p: p.stem)
def test_a_mode_of_the_configuration_runs(plant, ledger, path):
    conf = OmegaConf.load(path)
    assert set(conf) <= set(inspect.signature(run_session).parameters)
    assert conf.mode in MODES
    report = session(plant, ledger, steps=3, **{str(key): value for key, value in conf.items()})
    assert report.status == "completed"
    assert bool(plant.applied) == (conf.mode == "live")
