"""THE control loop: observe -> decide -> limit -> apply -> confirm -> record; the same for twin and live cluster.

A `Plant` is the body, a `Controller` the mind; neither knows whether the other is simulated.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import polars as pl

from twin.errors import UsageError
from twin.limits import DISRUPTIONS, limit
from twin.trace import tables
from twin.types import Action, Controller, Decision, Limited, Limits, Observation, Outcome, Plant

Recorder = Callable[[Decision], None]
Watcher = Callable[[Observation], None]

# the metric that reads an action back, by kind; what became of a single node or replica is not read back
WANTED = {
    "replicas": "wanted_replicas",
    "nodes": "wanted_nodes",
    "cpu_millicores": "cpu_millicores",
    "memory_mib": "memory_mib",
}


class ControlLoop:
    """One controller in charge of one plant; `step()` is one turn of the loop.

    `record` is called with each decision once it is confirmed, that is, one step later; `close()` hands over
    what is still waiting. `watch` is called with every observation. None of `limits` means no shield, None of
    `record` that nobody wants to know.
    """

    def __init__(
        self,
        plant: Plant,
        controller: Controller,
        *,
        limits: Limits | None,
        record: Recorder | None,
        watch: Watcher | None = None,
    ) -> None:
        """Take charge of `plant`; the controller forgets its past. Raises UsageError if time would never pass."""
        if not controller.interval_s > 0:
            raise UsageError(f"controller {controller.name!r}: interval_s={controller.interval_s} must be above 0")
        self.plant = plant
        self.controller = controller
        self.limits = limits
        self._memory_s = max(limits.grow.window_s, limits.shrink.window_s, limits.resize.window_s) if limits else 0.0
        self._record = record
        self._watch = watch
        self._waiting: _Turn | None = None
        self._history: dict[tuple[str, str], deque[tuple[float, int]]] = {}
        self._disruptions: deque[tuple[float, int]] = deque()
        controller.reset()

    def step(self, until_s: float = math.inf) -> None:
        """Observe, confirm what was applied before, decide, limit, apply; then let time pass.

        One interval passes, or less when `until_s` comes first.
        """
        observation = self.plant.observe()
        if self._watch:
            self._watch(observation)
        self._confirm(observation)
        actions = self.controller.decide(observation)
        current = [self._current(action, observation) for action in actions]
        limited = [self._limit(action, now, observation) for action, now in zip(actions, current, strict=True)]
        outcomes = self.plant.apply([each.action for each in limited])
        self._remember(actions, outcomes, observation.time_s)
        if self._record:
            self._waiting = _Turn(observation.time_s, observation.digest(), actions, current, limited, outcomes)
        self.plant.advance(min(self.controller.interval_s, until_s - observation.time_s))

    def close(self) -> None:
        """Record the decisions that no further observation will confirm."""
        self._confirm(None)

    def _current(self, action: Action, observation: Observation) -> int:
        """The value wished for now; when the plant cannot say, the last one it said, else the action's own."""
        history = self._history.get((action.kind, action.target))
        return wanted(observation, action, last=history[-1][1] if history else action.value)

    def _limit(self, action: Action, current: int, observation: Observation) -> Limited:
        if self.limits is None:
            return Limited(action)
        if action.kind in DISRUPTIONS:
            return self._spare(action, observation, self.limits)
        history = self._history.get((action.kind, action.target))
        if history is None:
            history = self._history[action.kind, action.target] = deque(((observation.time_s, current),))
        elif current != history[-1][1]:  # someone else changed it
            history.append((observation.time_s, current))
        while len(history) > 1 and history[1][0] < observation.time_s - self._memory_s:
            history.popleft()
        return limit(action, current, observation, self.limits, history)

    def _spare(self, action: Action, observation: Observation, limits: Limits) -> Limited:
        """All disruptions share one budget, whatever their targets."""
        while self._disruptions and self._disruptions[0][0] <= observation.time_s - limits.disruptions.window_s:
            self._disruptions.popleft()
        allowed = limit(action, 0, observation, limits, self._disruptions)
        if allowed.action.value > 0:
            self._disruptions.append((observation.time_s, allowed.action.value))
        return allowed

    def _remember(self, actions: list[Action], outcomes: list[Outcome], time_s: float) -> None:
        """What was applied is the last value that the plant is known to have, should it fall silent."""
        for action, outcome in zip(actions, outcomes, strict=True):
            history = self._history.get((action.kind, action.target))
            if history is not None and outcome.status == "applied" and outcome.value != history[-1][1]:
                history.append((time_s, outcome.value))

    def _confirm(self, observation: Observation | None) -> None:
        """Record what waits, as far as an observation (None: there is none) confirms it."""
        if self._record and self._waiting:
            for decision in self._waiting.decisions(self.controller.name, observation):
                self._record(decision)
        self._waiting = None


class _Turn(NamedTuple):
    """The decisions of one turn until the next observation confirms them."""

    time_s: float
    observation: str
    actions: list[Action]
    current: list[int]
    limited: list[Limited]
    outcomes: list[Outcome]

    def decisions(self, policy: str, seen: Observation | None) -> Iterator[Decision]:
        for action, current, limited, outcome in zip(
            self.actions, self.current, self.limited, self.outcomes, strict=True
        ):
            wished = math.nan if seen is None else _read_back(seen, action)
            yield Decision(
                time_s=self.time_s,
                policy=policy,
                observation=self.observation,
                kind=action.kind,
                target=action.target,
                current=current,
                proposed=action.value,
                confidence=action.confidence,
                reason=action.reason,
                limited_by=limited.limited_by,
                allowed=limited.action.value,
                status=outcome.status,
                applied=outcome.value,
                message=outcome.message,
                confirmed=wished == outcome.value if wished == wished else None,  # NaN: the plant did not say
            )


def wanted(observation: Observation, action: Action, last: int | None = None) -> int:
    """The value wished for now; `last`, or the action's own value, when the plant cannot say."""
    if action.kind not in WANTED:
        return 0
    value = _read_back(observation, action)
    if value == value:  # not NaN
        return int(value)
    return action.value if last is None else last


def _read_back(observation: Observation, action: Action) -> float:
    """The value that the plant reports for what the action sets; NaN where nothing reports it."""
    column = WANTED.get(action.kind)
    return math.nan if column is None else observation[f"{action.target}.{column}"]


def run(loop: ControlLoop, until_s: float, progress: Callable[[float], None] | None = None) -> None:
    """Turn the loop until the plant's clock reaches `until_s`; `progress` is told the plant's time."""
    while loop.plant.time_s < until_s:
        loop.step(until_s)
        if progress:
            progress(loop.plant.time_s)
    loop.close()


def decision_table(rows: Sequence[Decision]) -> pl.DataFrame:
    """The `decisions` table of these rows."""
    if not rows:
        return tables.empty("decisions")
    columns = {c.name: [getattr(row, c.name) for row in rows] for c in tables.schema("decisions")}
    dtypes = {c.name: c.dtype for c in tables.schema("decisions")}
    return tables.conform(pl.DataFrame(columns, schema=dtypes), "decisions", "decisions")
