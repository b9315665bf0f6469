"""The one actuator port: every change of a real cluster passes through here, or does not happen.

Mode "live" acts. Mode "dry-run" decides and writes down; "shadow" is the same beside an incumbent that goes on
acting. Outside "live" the port does not hold the plant's `apply` at all, so no path through it can act.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar, get_args

from twin.bridge.ledger import Ledger
from twin.errors import TelemetryLost, UsageError, WorkbenchError
from twin.loop import wanted
from twin.types import Action, ActionKind, Observation, Outcome, Plant

Mode = Literal["dry-run", "shadow", "live"]
MODES: tuple[str, ...] = get_args(Mode)
HOUR_S = 3600.0

_UNKNOWN = -1  # no plant wishes for so many replicas or nodes
_T = TypeVar("_T")


def never() -> bool:
    """False: nobody paused or stopped anything."""
    return False


def known_value(observation: Observation, kind: ActionKind, target: str) -> int | None:
    """The value that the plant wishes for now, or None when it cannot say; raises UsageError for an unknown target."""
    value = wanted(observation, Action(kind, target, _UNKNOWN))
    return None if value == _UNKNOWN else value


class Actuator:
    """A `Plant` around another that writes every intent and outcome to the ledger and acts in mode "live" only.

    Each action is one decision with an idempotency key made of what was seen and what is wished: the same wish on
    the same observation is carried out once, and answered with the first outcome after that.
    """

    def __init__(
        self,
        plant: Plant,
        mode: Mode,
        ledger: Ledger,
        *,
        max_changes_per_hour: int | None = None,
        paused: Callable[[], bool] = never,
        stopped: Callable[[], bool] = never,
    ) -> None:
        """Guard `plant`.

        Args:
            plant: the body; outside mode "live" only its eyes and its clock are kept.
            mode: "dry-run", "shadow" or "live".
            ledger: where intents, outcomes and losses go, before and after the fact.
            max_changes_per_hour: how many changes of a value any hour of the plant's time may see; None for no cap.
            paused: asked right before acting; while true, nothing is touched.
            stopped: likewise; once true, this port never acts again.

        Raises:
            UsageError: an unknown mode or a negative cap.
        """
        if mode not in MODES:
            raise UsageError(f"mode={mode!r} is none of {list(MODES)}")
        if max_changes_per_hour is not None and max_changes_per_hour < 0:
            raise UsageError(f"max_changes_per_hour={max_changes_per_hour} must be 0 or more, or null for no cap")
        self.mode = mode
        self.asked = 0  # actions so far, whatever came of them
        self._observe, self._advance, self._time_s = plant.observe, plant.advance, lambda: plant.time_s
        self._touch = plant.apply if mode == "live" else None
        self._ledger = ledger
        self._cap = max_changes_per_hour
        self._changes: deque[float] = deque()
        self._paused, self._stopped = paused, stopped
        self._ended = False
        self._held = ""
        self._seen: Observation | None = None
        self._done: dict[str, Outcome] = {}  # this observation's actions: no other can have the same key

    @property
    def time_s(self) -> float:
        """Seconds since the plant's epoch; a loss is passed on as TelemetryLost."""
        return self._noting_loss(self._time_s)

    def observe(self) -> Observation:
        """What the plant shows; a loss is written down and passed on as TelemetryLost."""
        observation = self._noting_loss(self._observe)
        if self._seen is None or observation.digest() != self._seen.digest():
            self._done = {}
        self._seen = observation
        return observation

    def advance(self, seconds: float) -> None:
        """Let the plant's time pass; a lost clock is written down and passed on as TelemetryLost."""
        self._noting_loss(lambda: self._advance(seconds))

    def apply(self, actions: Sequence[Action]) -> list[Outcome]:
        """One outcome per action, in order, each intended in the ledger before it is tried.

        Outside "live": status "dry-run" and the value wished for now. In "live": what the plant said; "rejected"
        while paused, after a stop, and beyond the cap; "failed" when the plant did not answer as it must, in which
        case it may or may not have acted, and the next observation tells.

        Raises:
            UsageError: the plant does not observe the action's target.
            LedgerError: an intent or outcome could not be written; without the intent nothing was touched.
        """
        self.asked += len(actions)
        keys = [self._key(action) for action in actions]
        new = {key: action for key, action in zip(keys, actions, strict=True) if key not in self._done}
        for key, action in new.items():
            self._ledger.append("intent", self._intent(key, action))
        self._done |= self._carry_out(new)
        return [self._done[key] for key in keys]

    def _noting_loss(self, ask: Callable[[], _T]) -> _T:
        try:
            return ask()
        except TelemetryLost as error:
            self._ledger.append("observation-lost", {"reason": str(error)})
            raise

    def _carry_out(self, new: dict[str, Action]) -> dict[str, Outcome]:
        if self._touch is None:
            said = {
                key: Outcome("dry-run", self._wanted(action), f"{self.mode}: not sent") for key, action in new.items()
            }
        else:
            said = self._refuse(new)
            said |= self._act(self._touch, {key: action for key, action in new.items() if key not in said})
        for key in new:
            self._ledger.append("outcome", _outcome_body(key, said[key]))
        return said

    def _refuse(self, new: dict[str, Action]) -> dict[str, Outcome]:
        """The outcomes of those actions that may not be sent now."""
        reason = self._hold_reason()
        if reason:
            return {key: Outcome("rejected", self._wanted(action), reason) for key, action in new.items()}
        refused = {}
        for key, action in new.items():
            if self._is_change(action) and not self._room_for_change():
                message = f"cap: {self._cap} changes within an hour are reached"
                refused[key] = Outcome("rejected", self._wanted(action), message)
        return refused

    def _act(self, touch: Callable[[Sequence[Action]], list[Outcome]], todo: dict[str, Action]) -> dict[str, Outcome]:
        if not todo:
            return {}
        try:
            outcomes = touch(list(todo.values()))
        except WorkbenchError as error:
            return self._all_failed(todo, str(error))
        except Exception as error:  # a defect of the plant: it goes on up, but not without its outcome
            for key, outcome in self._all_failed(todo, repr(error)).items():
                self._ledger.append("outcome", _outcome_body(key, outcome))
            raise
        if len(outcomes) != len(todo):
            return self._all_failed(todo, f"the plant gave {len(outcomes)} outcomes for {len(todo)} actions")
        return dict(zip(todo, outcomes, strict=True))

    def _all_failed(self, todo: dict[str, Action], message: str) -> dict[str, Outcome]:
        return {key: Outcome("failed", self._wanted(action), message) for key, action in todo.items()}

    def _hold_reason(self) -> str:
        """Why nothing may be touched now ("" = go on); each change of it is a note in the ledger."""
        self._ended = self._ended or self._stopped()
        reason = "paused: nothing is touched" if self._paused() else ""
        if self._ended:
            reason = "stopped: this session acts no more"
        if reason != self._held:
            self._ledger.append("note", {"event": "hold", "reason": reason or "resumed"})
            self._held = reason
        return reason

    def _room_for_change(self) -> bool:
        """Whether one more change fits under the cap; if so, it is counted, whatever comes of it."""
        if self._cap is None:
            return True
        now = self._now()
        while self._changes and self._changes[0] <= now - HOUR_S:
            self._changes.popleft()
        if len(self._changes) >= self._cap:
            return False
        self._changes.append(now)
        return True

    def _now(self) -> float:
        return self._seen.time_s if self._seen else self.time_s

    def _wanted(self, action: Action) -> int:
        return wanted(self._seen, action) if self._seen else action.value

    def _is_change(self, action: Action) -> bool:
        """Whether the action asks for another value than the plant has; True when that is unknown."""
        return self._seen is None or known_value(self._seen, action.kind, action.target) != action.value

    def _key(self, action: Action) -> str:
        seen = self._seen.digest() if self._seen else ""
        text = f"{seen}|{action.kind}|{action.target}|{action.value}"
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()

    def _intent(self, key: str, action: Action) -> dict[str, object]:
        return {
            "key": key,
            "mode": self.mode,
            "time_s": self._now(),
            "observation": self._seen.digest() if self._seen else "",
            "kind": action.kind,
            "target": action.target,
            "current": self._wanted(action),
            "value": int(action.value),
            "reason": action.reason,
            "confidence": float(action.confidence),
        }


def _outcome_body(key: str, outcome: Outcome) -> dict[str, object]:
    return {"key": key, "status": outcome.status, "value": int(outcome.value), "message": outcome.message}
