"""One series in operation: forecast, score, watch, retrain and swap, block by block, as it would go live.

After each block of steps (an hour) the operator is shown the series on record. It takes note of what its champion had
said of that hour, looks for drift, age and lost accuracy, and challenges the champion while a reason lasts
(`retrain.Rules`; age is a reason for one try). Once a challenger was rejected no other is judged before the judging
window holds nothing but new steps: tried often enough on one window, one would win by chance. A new watch needs whole
days of the new normal, so after a drift the tests rest until there are `reference_days` of them, and age and accuracy
are what is left to look at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from agents.forecast.base import MEDIAN, Floats, Forecaster
from agents.forecast.frames import Series
from agents.forecast.operation.drift import DAY_BLOCKS, Blocks, Drift, Watch
from agents.forecast.operation.ledger import Clock, Ledger
from agents.forecast.operation.retrain import Event, Judgement, Rules, Verdict, challenge
from agents.forecast.rolling import Origins, Rolled, past_at, truth_at
from twin.errors import UsageError
from twin.trace import tables

_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Settings:
    """How a series is operated; `reference_days` are the whole days that a watch takes for normal."""

    drift: Drift = field(default_factory=Drift)
    rules: Rules = field(default_factory=Rules)
    h: int = 12
    reference_days: int = 14


@dataclass(slots=True)
class _Case:
    """A reason to retrain that is not answered yet."""

    trigger: str
    next_try: int
    tries: int = 0


@dataclass(slots=True)
class Operator:
    """The champion of one series and what becomes of it.

    Args:
        champion: fitted.
        recipe: unfitted; what challengers are made from.
        settings: how to operate.
        seed: of fits, judgements and thresholds; each try has its own.

    Attributes:
        since: the step at which the present champion took over, or was last challenged to the end.
        events: what happened.
    """

    champion: Forecaster
    recipe: Forecaster
    settings: Settings
    seed: int
    since: int = -1
    events: list[Event] = field(default_factory=list)
    _ledger: Ledger | None = None
    _watch: Watch | None = None
    _case: _Case | None = None
    _normal: int = 0  # from when on the series is as it is now
    _quiet_until: int = 0
    _judged_until: int = 0  # before that, a challenger would be judged on what another was rejected on
    _settle: int = 1 << 40  # steps to the next challenge by age, where that is less than the refresh

    def advance(self, series: Series, said: Floats) -> list[Event]:
        """What happened after one more block.

        Args:
            series: all on record, the block included.
            said: the champion's deciles [steps of the block, h, 9], from the origin before each of its steps.

        Raises:
            UsageError: a block that does not end at a whole hour of the series' clock.
        """
        now, size = len(series.values), len(said)
        if (series.start_s + now * series.step_s) % (_DAY_S // DAY_BLOCKS) or size != block_steps(series):
            raise UsageError(f"series {series.unique_id!r}: blocks are whole hours; got {size} steps up to step {now}")
        if self.since < 0:
            self.since = self._normal = now - size
        before = len(self.events)
        ledger = self._note(series, said)
        trigger = self._trigger(series, ledger)
        if trigger and self._case is None and (trigger == "age" or now >= self._quiet_until):
            self._open(trigger, series)
        if self._case is not None and now >= max(self._case.next_try, self._judged_until):
            self._try(self._case, series)
        return self.events[before:]

    def _note(self, series: Series, said: Floats) -> Ledger:
        if self._ledger is None:
            clock = Clock(series.start_s, series.step_s)
            keep = (self.settings.reference_days + 2) * clock.day_steps
            self._ledger = Ledger([series.unique_id], h=self.settings.h, keep=keep, clock=clock)
        first = len(series.values) - len(said)
        for step, row in enumerate(said, start=first):
            self._ledger.record(step, row[None])
            self._ledger.arrive(step, series.values[step : step + 1])
        return self._ledger

    # ------------------------------------------------------------ reasons

    def _trigger(self, series: Series, ledger: Ledger) -> str | None:
        rules, now = self.settings.rules, len(series.values)
        alarm = self._look(series, ledger)
        if alarm:
            return alarm
        if rules.refresh_steps is not None and now - self.since >= min(self._settle, rules.refresh_steps):
            return "age"
        if rules.accuracy_floor is not None and now - self.since >= ledger.clock.day_steps:
            accuracy = ledger.rolling(ledger.clock.day_steps)["accuracy_percent"][0, 0]
            return "accuracy" if accuracy < rules.accuracy_floor else None
        return None

    def _look(self, series: Series, ledger: Ledger) -> str | None:
        now, size, day = len(series.values), block_steps(series), ledger.clock.day_steps
        midnight = -(series.start_s // series.step_s) % day
        if self._watch is None:
            begin = max(self._normal, 1) + (midnight - max(self._normal, 1)) % day
            span = self.settings.reference_days * day
            if now >= begin + span and (now - midnight) % day == 0:
                self._watch = self.settings.drift.watch(blocks(series, ledger, now - span, size), self.seed)
            return None
        alarm = self._watch.update((now - midnight) // size - 1, blocks(series, ledger, now - size, size))
        return f"drift: {alarm.test}" if alarm else None

    # ------------------------------------------------------------ cases

    def _open(self, trigger: str, series: Series) -> None:
        drift = trigger.startswith("drift")
        now = len(series.values)
        self._case = _Case(trigger, now + (self.settings.rules.least_learn_steps if drift else 0))
        shares = self._watch.shares() if self._watch and drift else None
        reason = "" if shares is None else f"{shares.max():.2f} of the threshold"
        self._record(series, trigger, "noticed", reason)

    def _try(self, case: _Case, series: Series) -> None:
        rules, now = self.settings.rules, len(series.values)
        case.tries += 1
        trial = challenge(
            self.champion, self.recipe, [series], rules, h=self.settings.h, seed=self.seed + len(self.events)
        )[0]
        won = trial.challenger is not None and trial.judgement is not None and trial.judgement.better
        verdict: Verdict = "swapped" if won else "failed" if trial.judgement is None else "kept"
        self._record(series, case.trigger, verdict, trial.reason, trial.judgement)
        if won and trial.challenger is not None:
            self.champion = trial.challenger
        elif trial.judgement is not None:
            self._judged_until = now + rules.judge_steps
        if won or case.tries >= rules.tries or case.trigger == "age":
            self._case, self.since, self._settle = None, now, 2 * self._settle
            if case.trigger != "age":  # what was normal before is so no longer
                self._watch, self._normal, self._settle = None, now, rules.settle_steps
                self._quiet_until = now + rules.cooldown_steps
        else:
            case.next_try = now + rules.retry_steps

    def _record(
        self,
        series: Series,
        trigger: str,
        verdict: Verdict,
        reason: str,
        judged: Judgement | None = None,
    ) -> None:
        time_s = float(series.start_s + len(series.values) * series.step_s)
        losses = judged or Judgement(np.nan, np.nan, np.nan, np.nan)
        row = Event(
            time_s,
            series.unique_id,
            trigger,
            verdict,
            losses.champion,
            losses.challenger,
            losses.low,
            losses.high,
            reason,
        )
        self.events.append(row)


def block_steps(series: Series) -> int:
    """Steps of an hour; raises UsageError when that is no whole number."""
    hour = _DAY_S // DAY_BLOCKS
    if hour % series.step_s:
        raise UsageError(f"series {series.unique_id!r}: a step of {series.step_s} s does not divide an hour")
    return hour // series.step_s


def blocks(series: Series, ledger: Ledger, start: int, size: int) -> Blocks:
    """What a watch is told of the steps from `start` on, with the errors that the ledger holds."""
    values = series.values[start - 1 :]
    error = ledger.errors(start, len(series.values))[0]
    return Blocks(*(each.reshape(-1, size) for each in (values[1:], error, np.abs(np.diff(values)))))


@dataclass(frozen=True, slots=True)
class Replayed:
    """What was said by whoever was champion at the time, by the first champion throughout, and what happened."""

    operated: Rolled
    untouched: Rolled
    events: tuple[Event, ...]


def replay(
    champion: Forecaster, recipe: Forecaster, series: Series, start: int, settings: Settings, seed: int
) -> Replayed:
    """Operate the series from the step `start` on, as if it were live: nothing after an origin is looked at.

    Raises UsageError as `Operator.advance`, and when less than an hour is left.
    """
    operator = Operator(champion, recipe, settings, seed)
    said: list[tuple[Origins, Floats]] = []
    for origins in _hours(series, start):
        now = _said(operator.champion, series, origins, settings.h)
        said.append((origins, now))
        operator.advance(series.until(int(origins[-1]) + 1), now)
    if not said:
        raise UsageError(f"series {series.unique_id!r}: no whole hour after step {start}")
    origins = np.concatenate([each for each, _ in said])
    truth = truth_at(series, origins, settings.h)
    first = np.concatenate([_said(champion, series, each, settings.h) for each in np.array_split(origins, len(said))])
    return Replayed(
        Rolled(origins, np.concatenate([each for _, each in said]), truth),
        Rolled(origins, first, truth),
        tuple(operator.events),
    )


def _hours(series: Series, start: int) -> Iterator[Origins]:
    size = block_steps(series)
    begin = start + -(series.start_s // series.step_s + start) % size
    for first in range(begin, len(series.values) - size + 1, size):
        yield np.arange(first, first + size)


def _said(fitted: Forecaster, series: Series, origins: Origins, h: int) -> Floats:
    return fitted.forecast(past_at(series, origins, fitted.context, h), h)


def ledger_of(rolled: Rolled, series: Series, h: int) -> Ledger:
    """All that was said of one series and what came, as its ledger holds it at the end."""
    clock, steps = Clock(series.start_s, series.step_s), len(series.values)
    ledger = Ledger([series.unique_id], h=h, keep=steps, clock=clock)
    for origin, said in zip(rolled.origins.tolist(), rolled.said, strict=True):
        ledger.record(origin, said[None])
    for step in range(steps):
        ledger.arrive(step, series.values[step : step + 1])
    return ledger


def accuracy_by_day(replayed: Replayed, series: Series) -> pl.DataFrame:
    """The `retraining_accuracy` table: 100 (1 - WAPE) of each day's forecasts, all steps pooled."""
    day = replayed.operated.origins * series.step_s // _DAY_S
    days, place = np.unique(day, return_inverse=True)
    found: dict[str, object] = {"unique_id": [series.unique_id] * len(days), "day": days}
    for name, rolled in (("operated", replayed.operated), ("untouched", replayed.untouched)):
        known = np.isfinite(rolled.truth)
        sizes = (np.abs(rolled.said[:, :, MEDIAN] - rolled.truth), np.abs(rolled.truth))
        error, whole = (np.bincount(place, np.where(known, each, 0.0).sum(axis=1)) for each in sizes)
        found[f"{name}_percent"] = 100.0 * (1.0 - error / whole)
    return tables.conform(pl.DataFrame(found), "retraining_accuracy", "replay")
