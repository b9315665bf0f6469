"""KEDA's ScaledObject as a controller: between 0 and 1 by itself, from 1 to N by an inner HPA.

Source: the rules of its scale executor, scale handler and fallback (releases 2.17 to 2.21), and the documented
examples. Every `polling_s` it asks which triggers are active (value > activation) and decides on zero:

    active      nothing runs: start max(min_replicas, 1); else note the time, unless a trigger failed
    inactive    a trigger failed: leave it alone (with a fallback of 0 replicas: go on below)
                last active `cooldown_s` ago: to the idle or the minimal number at once, whatever the HPA's
                policies say, if that minimum is 0 or an idle number is set

Every `sync_s` the inner HPA decides on all the rest, between max(min_replicas, 1) and max_replicas. Its queries count
the failures of a trigger; after more than `failure_threshold` in a row the trigger reports target x fallback replicas.
With nothing running the HPA does not ask: no failure is counted, and no fallback wakes the service.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from agents.rules.replicas.behavior import DEFAULT, Behavior
from agents.rules.replicas.calculator import Metric, MetricKind
from agents.rules.replicas.hpa import Hpa
from twin.errors import UsageError
from twin.types import Action, Observation

FallbackBehavior = Literal["static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower"]


@dataclass(frozen=True, slots=True)
class Trigger:
    """What scales the service: the observation column `<service>.<column>`, its `threshold` for each replica.

    Above `activation` it is active. The kinds are those of `calculator.Metric`; "Utilization" and "Pods"
    are KEDA's cpu and memory scalers, which activate nothing unless there are no others. An unknown value is a failed
    query, or 0 with `empty_is_zero`, as KEDA's Prometheus scaler does by default.
    """

    column: str
    threshold: float
    activation: float = 0.0
    kind: MetricKind = "AverageValue"
    empty_is_zero: bool = False

    @property
    def external(self) -> bool:
        """Does KEDA itself query it, rather than the HPA alone?"""
        return self.kind in ("AverageValue", "Value")

    @property
    def metric(self) -> Metric:
        """The same for the inner HPA; raises UsageError for a threshold that is not positive."""
        return Metric(self.column, self.threshold, self.kind)

    def read(self, value: float) -> float:
        """The value of the query; NaN when it failed."""
        return 0.0 if self.empty_is_zero and not math.isfinite(value) else value


@dataclass(frozen=True, slots=True)
class Fallback:
    """What a trigger reports once more than `failure_threshold` queries in a row have failed."""

    failure_threshold: int
    replicas: int
    behavior: FallbackBehavior = "static"

    def __post_init__(self) -> None:
        if self.failure_threshold < 0 or self.replicas < 0 or self.behavior not in get_args(FallbackBehavior):
            raise UsageError(
                f"{self}: failure_threshold and replicas must be >= 0, behavior one of {get_args(FallbackBehavior)}"
            )

    def wish(self, current: int) -> int:
        """How many replicas it stands for when there are `current`."""
        if self.behavior == "currentReplicas":
            return current
        if self.behavior == "currentReplicasIfHigher":
            return max(current, self.replicas)
        if self.behavior == "currentReplicasIfLower":
            return min(current, self.replicas)
        return self.replicas

    def value(self, trigger: Trigger, current: int, ready: int) -> float:
        """What the trigger reports, in whole thousandths; NaN for a "Value" that nothing ready could share."""
        if trigger.kind == "Value":
            share = self.wish(current) / ready if ready else math.nan
        else:
            share = float(self.wish(current))
        thousandths = trigger.threshold * 1000.0 * share
        return math.floor(thousandths + 1e-6) / 1000.0 if math.isfinite(thousandths) else math.nan


@dataclass(frozen=True, slots=True)
class ScaledObject:
    """The numbers of a ScaledObject that the decision on zero needs.

    `direct_fallback` is what releases before 2.17 did: with no trigger active and one of them failing, the operator
    itself sets the fallback replicas at once, over the HPA.
    """

    min_replicas: int = 0
    idle_replicas: int | None = None
    cooldown_s: float = 300.0
    initial_cooldown_s: float = 0.0
    fallback: Fallback | None = None
    direct_fallback: bool = False


@dataclass(frozen=True, slots=True)
class Poll:
    """What one poll found: names of active and of failed triggers, now, and when one was last active (None: never)."""

    time_s: float
    active: tuple[str, ...]
    failed: tuple[str, ...]
    last_active_s: float | None
    created_s: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What KEDA makes of a poll: the number that it sets itself (None: the HPA's affair), and is it active now?"""

    value: int | None
    refreshed: bool
    reason: str


def request_scale(scaled: ScaledObject, current: int, poll: Poll) -> Verdict:
    """KEDA's own decision after a poll, with `current` replicas wished for."""
    return _active(scaled, current, poll) if poll.active else _inactive(scaled, current, poll)


def _active(scaled: ScaledObject, current: int, poll: Poll) -> Verdict:
    why = f"{', '.join(poll.active)} active"
    idle = scaled.idle_replicas is not None and current < scaled.min_replicas
    if current == 0 or idle:
        value = max(scaled.min_replicas, 1)
        return Verdict(value, True, f"{value}: {why}, woken from {current}")
    if poll.failed:
        return Verdict(None, False, f"{why}, but {', '.join(poll.failed)} failed: the cooldown is not put off")
    return Verdict(None, True, why)


def _inactive(scaled: ScaledObject, current: int, poll: Poll) -> Verdict:
    fallback = scaled.fallback
    if poll.failed and fallback is not None and fallback.replicas:
        value = fallback.replicas if scaled.direct_fallback else None
        found = f"{', '.join(poll.failed)} failed and nothing else is active"
        return Verdict(value, False, f"{found}: the operator sets {value}" if value else f"{found}: left to the HPA")
    if poll.failed and fallback is None:
        return Verdict(None, False, f"{', '.join(poll.failed)} failed: unknown is not inactive")
    idle = scaled.idle_replicas
    if (idle is not None and current > idle) or (current > 0 and scaled.min_replicas == 0):
        return _cooled(scaled, current, poll)
    if idle is None and current < scaled.min_replicas:
        return Verdict(scaled.min_replicas, False, f"{scaled.min_replicas}: at least {scaled.min_replicas} replicas")
    return Verdict(None, False, "no trigger is active")


def _cooled(scaled: ScaledObject, current: int, poll: Poll) -> Verdict:
    never = poll.last_active_s is None
    since_s = poll.time_s - (poll.created_s if poll.last_active_s is None else poll.last_active_s)
    wait_s = scaled.initial_cooldown_s if never else scaled.cooldown_s
    said = "no trigger was ever active" if never else f"no trigger active for {since_s:g} s"
    if since_s < wait_s:  # KEDA keeps the time of the last activity in whole seconds, so that a poll on the dot counts
        return Verdict(None, False, f"{said}, cooldown {wait_s:g} s")
    value = scaled.min_replicas if scaled.idle_replicas is None else scaled.idle_replicas
    beyond = "" if never else f", the cooldown of {wait_s:g} s is over"
    return Verdict(value, False, f"{value}: {said}{beyond}: from {current} at once, whatever the HPA's policies say")


class Keda:
    """Scales one service by triggers, down to none; its confidence is always 1."""

    def __init__(
        self,
        service: str,
        triggers: Sequence[Trigger],
        min_replicas: int = 0,
        max_replicas: int = 100,
        idle_replicas: int | None = None,
        polling_s: float = 30.0,
        cooldown_s: float = 300.0,
        initial_cooldown_s: float = 0.0,
        fallback: Fallback | None = None,
        behavior: Behavior = DEFAULT,
        sync_s: float = 15.0,
        interval_s: float = 15.0,
        direct_fallback: bool = False,
        paused: bool = False,
        paused_replicas: int | None = None,
        name: str = "keda",
    ) -> None:
        """Steer `service` between `min_replicas` (or idle) and `max_replicas`.

        Args:
            service: name as the observation's columns show it.
            triggers: what scales it, one column each; the largest proposal wins.
            min_replicas: replicas while there is work; 0 also allows none.
            max_replicas: upper bound.
            idle_replicas: 0 to go to zero when idle although `min_replicas` is more; None: no idle mode.
            polling_s: seconds between looks at the triggers' activity.
            cooldown_s: seconds after the last active poll until the service goes to zero.
            initial_cooldown_s: the same before any trigger was active, from the first decision on.
            fallback: what failing triggers report.
            behavior: windows, rates and tolerances of the inner HPA.
            sync_s: seconds between the inner HPA's decisions.
            interval_s: seconds between turns; each poll and sync waits for the next turn.
            direct_fallback: fall back as releases before 2.17 did (see `ScaledObject`).
            paused: begin paused, as the annotation `paused` does.
            paused_replicas: the number to pause at, as the annotation `paused-replicas` does.
            name: as the decision table shows it.

        Raises:
            UsageError: when numbers or triggers make no sense together.
        """
        self.triggers = tuple(triggers)
        columns = [trigger.column for trigger in self.triggers]
        external = any(trigger.external for trigger in self.triggers)
        if not columns or len(set(columns)) < len(columns):
            raise UsageError(f"controller {name!r}: triggers={columns} must be at least one, each column once")
        if fallback is not None and not external:
            raise UsageError(f"controller {name!r}: a fallback needs a trigger that is neither cpu nor memory")
        if idle_replicas is not None and not idle_replicas == 0 < min_replicas:
            raise UsageError(
                f"controller {name!r}: idle_replicas={idle_replicas} must be 0 and less than "
                f"min_replicas={min_replicas}, since the HPA raises any other number to its own minimum"
            )
        if min(polling_s, sync_s, interval_s) <= 0 or min(min_replicas, cooldown_s, initial_cooldown_s) < 0:
            raise UsageError(
                f"controller {name!r}: polling_s={polling_s}, sync_s={sync_s}, interval_s={interval_s} must be > 0, "
                f"min_replicas={min_replicas}, cooldown_s={cooldown_s}, initial_cooldown_s={initial_cooldown_s} >= 0"
            )
        self.name = name
        self.interval_s = interval_s
        self.service = service
        self.scaled = ScaledObject(
            min_replicas, idle_replicas, cooldown_s, initial_cooldown_s, fallback, direct_fallback
        )
        self.polling_s = polling_s
        self._always_active = not external
        self._start_paused = (paused or paused_replicas is not None, paused_replicas)
        metrics = [trigger.metric for trigger in self.triggers]
        self._hpa = Hpa([service], None, max(1, min_replicas), max_replicas, behavior, sync_s, name, metrics)
        self.reset()

    def reset(self) -> None:
        """Forget all polls, failures and recommendations; paused only if it was built so."""
        self._hpa.reset()
        self._failures = dict.fromkeys([trigger.column for trigger in self.triggers], 0)
        self._wanted: int | None = None
        self._created_s: float | None = None
        self._last_active_s: float | None = None
        self._polled_s = self._synced_s = -math.inf
        self._last_verdict = ""
        self._paused, self._paused_replicas = self._start_paused

    def pause(self, replicas: int | None = None) -> None:
        """Stop scaling, at `replicas` or where it is; the inner HPA is given up, with its windows."""
        self._paused, self._paused_replicas = True, replicas
        self._hpa.reset()

    def resume(self) -> None:
        """Scale again."""
        self._paused, self._paused_replicas = False, None

    def decide(self, observation: Observation) -> list[Action]:
        """One action; none as long as the wished number was never known."""
        wanted = observation[f"{self.service}.wanted_replicas"]
        if wanted == wanted:  # not NaN
            self._wanted = int(wanted)
        if self._wanted is None:
            return []
        if self._created_s is None:
            self._created_s = observation.time_s
        value, reason = self._decide(self._wanted, self._created_s, observation)
        return [Action("replicas", self.service, value, reason)]

    def _decide(self, current: int, created_s: float, observation: Observation) -> tuple[int, str]:
        if self._paused:
            value = current if self._paused_replicas is None else self._paused_replicas
            return value, f"{value}: scaling is paused"
        values = {t.column: t.read(observation[f"{self.service}.{t.column}"]) for t in self.triggers}
        time_s = observation.time_s
        if _due(self._polled_s, self.polling_s, time_s):
            self._polled_s = time_s
            verdict = self._poll(current, created_s, time_s, values)
            if verdict.value is not None and verdict.value != current:
                self._hpa.overruled(self.service, verdict.value)
                return verdict.value, verdict.reason
        if current == 0:
            return 0, f"0 kept: {self._last_verdict}"
        if not _due(self._synced_s, self._hpa.interval_s, time_s):
            return current, f"{current} kept until the HPA looks again: {self._last_verdict}"
        self._synced_s = time_s
        return self._sync(current, values, observation)

    def _poll(self, current: int, created_s: float, time_s: float, values: dict[str, float]) -> Verdict:
        asked = [trigger for trigger in self.triggers if trigger.external]
        failed = tuple(t.column for t in asked if not math.isfinite(values[t.column]))
        active = tuple(t.column for t in asked if values[t.column] > t.activation)
        if self._always_active:
            active = tuple(t.column for t in self.triggers)
        verdict = request_scale(self.scaled, current, Poll(time_s, active, failed, self._last_active_s, created_s))
        if verdict.refreshed:
            self._last_active_s = time_s
        self._last_verdict = verdict.reason
        return verdict

    def _sync(self, current: int, values: dict[str, float], observation: Observation) -> tuple[int, str]:
        notes = []
        if self._hpa.bounds[0] <= current <= self._hpa.bounds[1]:  # outside of them it asks for no metrics
            notes = self._fall_back(current, values, observation)
        (action,) = self._hpa.decide(_with(observation, self.service, {**values, "wanted_replicas": current}))
        return action.value, "; ".join([*notes, action.reason])

    def _fall_back(self, current: int, values: dict[str, float], observation: Observation) -> list[str]:
        """Count the failures, put the fallback's values in the place of those that failed too often, and say so."""
        notes, fallback = [], self.scaled.fallback
        ready = observation[f"{self.service}.ready_replicas"]
        for trigger in self.triggers:
            column = trigger.column
            self._failures[column] = 0 if math.isfinite(values[column]) else self._failures[column] + 1
            failures = self._failures[column]
            if trigger.external and fallback is not None and failures > fallback.failure_threshold:
                values[column] = fallback.value(trigger, current, int(ready) if ready == ready else 0)
                notes.append(f"{column} failed {failures} times, falls back to {fallback.wish(current)} replicas")
        return notes


def _due(last_s: float, every_s: float, time_s: float) -> bool:
    return time_s - last_s >= every_s - 1e-6


def _with(observation: Observation, service: str, values: dict[str, float]) -> Observation:
    """The observation with these values of the service's columns."""
    changed = observation.values.copy()
    for column, value in values.items():
        changed[observation.columns.index(f"{service}.{column}")] = np.float32(value)
    return replace(observation, values=changed)
