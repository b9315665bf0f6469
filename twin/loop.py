"""THE control loop: observe -> decide -> limit -> apply -> confirm -> record; the same for twin and live cluster.

A `Plant` is the body, a `Controller` the mind; neither knows whether the other is simulated.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import polars as pl

from twin.limits import limit
from twin.trace import tables
from twin.types import Action, Controller, Decision, Limited, Limits, Observation, Outcome, Plant

Recorder = Callable[[Decision], None]
Watcher = Callable[[Observation], None]

# the metric that reads an action back, by kind
WANTED = {"replicas": "wanted_replicas", "nodes": "wanted_nodes"}


class ControlLoop:
    """One controller in charge of one plant; `step()` is one turn of the loop.

    `record` is called with each decision once it is confirmed, that is, one step later; `close()` hands over
    what is still waiting. `watch` is called with every observation. `limits` of None means: no shield.
    """

    def __init__(
        self,
        plant: Plant,
        controller: Controller,
        *,
        limits: Limits | None,
        record: Recorder,
        watch: Watcher | None = None,
    ) -> None:
        """Take charge of `plant`; the controller forgets its past."""
        self.plant = plant
        self.controller = controller
        self.limits = limits
        self._memory_s = max(limits.grow.window_s, limits.shrink.window_s) if limits else 0.0
        self._record = record
        self._watch = watch
        self._waiting: list[_Waiting] = []
        self._history: dict[tuple[str, str], deque[tuple[float, int]]] = {}
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
        self._remember(observation, actions, current, limited, outcomes)
        self.plant.advance(min(self.controller.interval_s, until_s - observation.time_s))

    def close(self) -> None:
        """Record the decisions that no further observation will confirm."""
        for waiting in self._waiting:
            self._record(waiting.decision(self.controller.name, None))
        self._waiting = []

    def _current(self, action: Action, observation: Observation) -> int:
        """The value wished for now; when the plant cannot say, the last one it said, else the action's own."""
        history = self._history.get((action.kind, action.target))
        return wanted(observation, action, last=history[-1][1] if history else action.value)

    def _limit(self, action: Action, current: int, observation: Observation) -> Limited:
        if self.limits is None:
            return Limited(action)
        history = self._history.setdefault((action.kind, action.target), deque([(observation.time_s, current)]))
        if current != history[-1][1]:  # someone else changed it
            history.append((observation.time_s, current))
        while len(history) > 1 and history[1][0] < observation.time_s - self._memory_s:
            history.popleft()
        return limit(action, current, observation, self.limits, history)

    def _remember(
        self,
        observation: Observation,
        actions: list[Action],
        current: list[int],
        limited: list[Limited],
        outcomes: list[Outcome],
    ) -> None:
        seen = observation.digest()
        for action, now, allowed, outcome in zip(actions, current, limited, outcomes, strict=True):
            history = self._history.get((action.kind, action.target))
            if history is not None and outcome.status == "applied" and outcome.value != history[-1][1]:
                history.append((observation.time_s, outcome.value))
            self._waiting.append(_Waiting(observation.time_s, seen, action, now, allowed, outcome))

    def _confirm(self, observation: Observation) -> None:
        for waiting in self._waiting:
            wished = observation[f"{waiting.action.target}.{WANTED[waiting.action.kind]}"]
            known = wished == wished  # NaN: the plant did not say
            confirmed = wished == waiting.outcome.value if known else None
            self._record(waiting.decision(self.controller.name, confirmed))
        self._waiting = []


class _Waiting(NamedTuple):
    """A decision until the next observation confirms it."""

    time_s: float
    observation: str
    action: Action
    current: int
    limited: Limited
    outcome: Outcome

    def decision(self, policy: str, confirmed: bool | None) -> Decision:
        action, outcome = self.action, self.outcome
        return Decision(
            time_s=self.time_s,
            policy=policy,
            observation=self.observation,
            kind=action.kind,
            target=action.target,
            current=self.current,
            proposed=action.value,
            confidence=action.confidence,
            reason=action.reason,
            limited_by=self.limited.limited_by,
            allowed=self.limited.action.value,
            status=outcome.status,
            applied=outcome.value,
            message=outcome.message,
            confirmed=confirmed,
        )


def wanted(observation: Observation, action: Action, last: int | None = None) -> int:
    """The value wished for now; `last`, or the action's own value, when the plant cannot say."""
    value = observation[f"{action.target}.{WANTED[action.kind]}"]
    if value == value:  # not NaN
        return int(value)
    return action.value if last is None else last


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
