"""One stretch of bridge work: a controller in charge of (or in the shadow beside) a live plant, on the record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import polars as pl

from twin.bridge.ledger import Ledger
from twin.bridge.modes import Actuator, Mode, known_value, never
from twin.errors import TelemetryLost, UsageError
from twin.loop import ControlLoop, decision_table
from twin.metrics import HANDOVER
from twin.types import ActionKind, Controller, Decision, Limits, Observation, Plant

LOST = "aborted: telemetry lost"
SILENT = "watchdog: no valid decision"


@dataclass(frozen=True, slots=True)
class SessionReport:
    """What one session did.

    `status` is "completed", "stopped" or "aborted: telemetry lost". `decisions` is the table of that name.
    `handed_over` counts decisions that a rule took in place of the policy, `limited` those that the shield changed,
    `unsent` those that the plant never got or did not carry out (status "rejected" or "failed"), `lost` the
    turns in which telemetry was lost, `silent` those without a decision.
    `disagreement` is the mean of |proposed - value that the plant wished for at the next observation|, in replicas
    or nodes: how far a shadow is from the incumbent; None when it was never known. `ledger_head` is the hash of the
    session's last record: kept elsewhere, it shows a ledger that was cut off.
    """

    status: str
    steps: int
    decisions: pl.DataFrame
    handed_over: int
    limited: int
    unsent: int
    lost: int
    silent: int
    disagreement: float | None
    ledger_records: int
    ledger_head: str


def run_session(
    plant: Plant,
    controller: Controller,
    *,
    limits: Limits | None,
    mode: Mode,
    ledger: Ledger,
    steps: int | None = None,
    until_s: float | None = None,
    on_decision: Callable[[Decision], None] | None = None,
    stop: Callable[[], bool] = never,
    paused: Callable[[], bool] = never,
    max_lost: int = 5,
    silent_after: int = 5,
    max_changes_per_hour: int | None = None,
    about: Mapping[str, Any] | None = None,
) -> SessionReport:
    """The report of a session that turned the control loop until its end; the ledger is closed then, whatever happened.

    Args:
        plant: the body; in mode "dry-run" and "shadow" its `apply` is never called.
        controller: who decides; it is reset first.
        limits: the shield between decision and plant.
        mode: "dry-run", "shadow" or "live".
        ledger: open, of this session alone.
        steps: turns of the loop; or
        until_s: the plant's time at which to end. Exactly one of the two.
        on_decision: told each decision once it is confirmed.
        stop: asked before each turn and right before acting.
        paused: asked right before acting.
        max_lost: so many lost observations in a row end the session.
        silent_after: so many turns in a row without a decision make the watchdog write a note.
        max_changes_per_hour: see `Actuator`.
        about: what else the ledger's "start" record shall say, such as the bundle's id.

    Raises:
        UsageError: neither or both of `steps` and `until_s`, or a count below 1.
        WorkbenchError: the controller or the plant refused; the ledger's last record says so.
    """
    if (steps is None) == (until_s is None):
        raise UsageError("give either steps or until_s")
    if max_lost < 1 or silent_after < 1:
        raise UsageError(f"max_lost={max_lost} and silent_after={silent_after} must be at least 1")
    with ledger:
        actuator = Actuator(plant, mode, ledger, max_changes_per_hour=max_changes_per_hour, paused=paused, stopped=stop)
        session = _Session(actuator, controller, limits, ledger, on_decision, silent_after)
        ledger.append(
            "start",
            {
                "policy": controller.name,
                "interval_s": controller.interval_s,
                "mode": mode,
                "limits": asdict(limits) if limits else None,
                "max_lost": max_lost,
                "max_changes_per_hour": max_changes_per_hour,
                "about": dict(about or {}),
            },
        )
        status = ""
        try:
            status = session.turn_until(lambda: _over(actuator, session.turns, steps, until_s), stop, max_lost)
        except BaseException as error:
            status = f"failed: {error!r}"
            raise
        finally:
            session.finish(status)
        return session.report(status)


def _over(actuator: Actuator, done: int, steps: int | None, until_s: float | None) -> bool:
    return done >= steps if steps is not None else actuator.time_s >= (until_s or 0.0)


class _Session:
    """The loop with its counters; `run_session` is its only user."""

    def __init__(
        self,
        actuator: Actuator,
        controller: Controller,
        limits: Limits | None,
        ledger: Ledger,
        on_decision: Callable[[Decision], None] | None,
        silent_after: int,
    ) -> None:
        self._actuator, self._controller, self._ledger = actuator, controller, ledger
        self._on_decision = on_decision
        self._silent_after = silent_after
        self._seen: Observation | None = None
        self._observed = False  # in this turn
        self._rows: list[Decision] = []
        self._distances: list[int] = []
        self.turns = self._lost = self._lost_in_row = self._silent = self._silent_in_row = 0
        self._loop = ControlLoop(actuator, controller, limits=limits, record=self._record, watch=self._watch)

    def turn_until(self, over: Callable[[], bool], stop: Callable[[], bool], max_lost: int) -> str:
        """Turn the loop until it is over, stopped, or blind; the status in which it ended."""
        while not stop():
            asked = self._actuator.asked
            self._observed = False
            try:
                if over():
                    return "completed"
                self._loop.step()
                self._lost_in_row = 0
            except TelemetryLost:
                self._hold()
            self.turns += 1
            self._watchdog(silent=self._actuator.asked == asked)
            if self._lost_in_row >= max_lost:
                return LOST
        return "stopped"

    def finish(self, status: str) -> None:
        """Record the decisions that nothing will confirm, and the end."""
        if self._ledger.closed:  # it failed itself, and its error is on its way up
            return
        self._observed = False
        try:
            self._loop.close()
        finally:
            self._ledger.append("stop", {"status": status, "turns": self.turns, "lost": self._lost})

    def report(self, status: str) -> SessionReport:
        rows = self._rows
        return SessionReport(
            status=status,
            steps=self.turns,
            decisions=decision_table(rows),
            handed_over=sum(HANDOVER in row.reason for row in rows),
            limited=sum(bool(row.limited_by) for row in rows),
            unsent=sum(row.status in ("rejected", "failed") for row in rows),
            lost=self._lost,
            silent=self._silent,
            disagreement=float(np.mean(self._distances)) if self._distances else None,
            ledger_records=self._ledger.count,
            ledger_head=self._ledger.head,
        )

    def _hold(self) -> None:
        """Do nothing for one interval, and let the controller know that there was something it did not see."""
        self._lost += 1
        self._lost_in_row += 1
        if self._observed:  # it was the clock that got lost, after the decision
            return
        if self._seen:
            time_s = self._seen.time_s + self._lost_in_row * self._controller.interval_s
            unknown = np.full(len(self._seen.columns), np.nan, np.float32)
            self._controller.decide(Observation(time_s, self._seen.columns, unknown))  # what it wishes now is not done
        with suppress(TelemetryLost):  # the actuator wrote it down, and this turn counts as lost already
            self._actuator.advance(self._controller.interval_s)

    def _watchdog(self, *, silent: bool) -> None:
        self._silent += silent
        self._silent_in_row = self._silent_in_row + 1 if silent else 0
        if silent and self._silent_in_row % self._silent_after == 0:
            self._ledger.append("note", {"event": SILENT, "turns": self._silent_in_row})

    def _watch(self, observation: Observation) -> None:
        self._seen, self._observed = observation, True

    def _record(self, decision: Decision) -> None:
        """Take one decision; the observation after it tells what the plant wished for meanwhile."""
        if self._observed and self._seen:
            had = known_value(self._seen, cast(ActionKind, decision.kind), decision.target)
            if had is not None:
                self._distances.append(abs(decision.proposed - had))
        self._rows.append(decision)
        self._ledger.append("decision", asdict(decision))
        if self._on_decision:
            self._on_decision(decision)
