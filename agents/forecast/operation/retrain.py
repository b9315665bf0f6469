"""When a champion is retrained, and when its challenger takes over: only if it is better where neither has learned.

The challenger is fitted on everything up to the judging window, the newest `judge_steps`. Champion and challenger
forecast that window from the same rolling origins, and are compared by their mean pinball loss. Losses of origins an
hour apart hang together, so the interval of the difference comes from a bootstrap of blocks of one horizon each; the
challenger wins where the whole interval lies below zero. Every step leaves a row of `retraining_events`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agents.forecast.base import DECILES, Floats, Forecaster
from agents.forecast.frames import Series
from agents.forecast.rolling import Rolled, roll
from twin.errors import UsageError
from twin.seeds import child
from twin.trace import tables

Verdict = Literal["noticed", "swapped", "kept", "failed"]

_RESAMPLES = 2000
_HOUR_S = 3_600.0


@dataclass(frozen=True, slots=True)
class Rules:
    """When to retrain and how to judge; in steps of the series.

    Attributes:
        judge_steps: the newest steps, that both are judged on and the challenger does not learn from.
        least_learn_steps: what a challenger needs of the time since a drift began, before its first try.
        learn_steps: how much of the past before the judging window is learned from; None for all of it.
        refresh_steps: the age at which a champion is challenged without any other reason; None for never.
        settle_steps: the same after a drift, while there is more to learn every day; it doubles up to refresh_steps.
        accuracy_floor: rolling accuracy of a day, in percent, below which it is challenged; None for never.
        retry_steps: from one try to the next while a reason lasts; judge_steps, if more, where one was rejected.
        tries: how often it is tried before a drift, or lost accuracy, counts as answered.
        cooldown_steps: from the end of a drift, or of lost accuracy, to the next reason that is listened to.
        confidence: of the interval that must lie below zero (0-1).
    """

    judge_steps: int = 144
    least_learn_steps: int = 144
    learn_steps: int | None = None
    refresh_steps: int | None = 7 * 288
    settle_steps: int = 288
    accuracy_floor: float | None = None
    retry_steps: int = 72
    tries: int = 6
    cooldown_steps: int = 2 * 288
    confidence: float = 0.9

    def __post_init__(self) -> None:
        if min(self.judge_steps, self.retry_steps, self.tries) < 1 or not 0.0 < self.confidence < 1.0:
            raise UsageError(f"{self}: judge_steps, retry_steps and tries are 1 or more, confidence in (0, 1)")


@dataclass(frozen=True, slots=True)
class Judgement:
    """Mean pinball losses on the judging window in the series' unit, and the interval of challenger - champion."""

    champion: float
    challenger: float
    low: float
    high: float

    @property
    def better(self) -> bool:
        """The challenger is better, and not by chance."""
        return self.high < 0.0


@dataclass(frozen=True, slots=True)
class Event:
    """One row of `retraining_events`; scores are NaN where nothing was judged."""

    time_s: float
    unique_id: str
    trigger: str
    verdict: Verdict
    champion_loss: float
    challenger_loss: float
    difference_low: float
    difference_high: float
    reason: str


def table(events: Sequence[Event]) -> pl.DataFrame:
    """The events as a `retraining_events` table, in their order."""
    names = list(Event.__dataclass_fields__)
    rows = [[getattr(event, name) for name in names] for event in events]
    schema = tables.empty("retraining_events").schema
    return tables.conform(pl.DataFrame(rows, schema=schema, orient="row"), "retraining_events", "operator")


class Delays(NamedTuple):
    """Hours from a change to the alarm, and to the swap that answered it; None where there was none."""

    noticed_h: float | None
    swapped_h: float | None


def delays_h(events: pl.DataFrame, changed_s: float) -> Delays:
    """How soon a change was answered: the first alarm of drift after it, and the first swap for drift from then on.

    Args:
        events: the `retraining_events` of one series.
        changed_s: when it changed, on the same clock; what comes at that very second has seen nothing of it.
    """
    drifts = events.filter(pl.col("trigger").str.starts_with("drift"), pl.col("time_s") > changed_s)
    noticed_s = min(drifts.filter(verdict="noticed")["time_s"].to_list(), default=None)
    if noticed_s is None:
        return Delays(None, None)
    answers = drifts.filter(pl.col("time_s") >= noticed_s, verdict="swapped")["time_s"].to_list()
    swapped_h = (min(answers) - changed_s) / _HOUR_S if answers else None
    return Delays((noticed_s - changed_s) / _HOUR_S, swapped_h)


def losses(rolled: Rolled) -> Floats:
    """The mean pinball loss of each origin [n], over steps and deciles."""
    over = rolled.truth[:, :, None] - rolled.said
    return np.maximum(DECILES * over, (DECILES - 1.0) * over).mean(axis=(1, 2))


def judge(champion: Rolled, challenger: Rolled, confidence: float, seed: int) -> Judgement:
    """Who was better on the same origins.

    Raises UsageError when the origins differ, or there are none.
    """
    if not np.array_equal(champion.origins, challenger.origins) or not len(champion.origins):
        raise UsageError("champion and challenger must be judged on the same origins, at least one")
    mine, other = losses(champion), losses(challenger)
    low, high = _interval(other - mine, champion.said.shape[1], confidence, child(seed, "forecast"))
    return Judgement(float(mine.mean()), float(other.mean()), low, high)


def _interval(differences: Floats, block: int, confidence: float, rng: np.random.Generator) -> tuple[float, float]:
    """The interval of the mean of `differences`, by a bootstrap of blocks that may begin anywhere (circular)."""
    count = len(differences)
    blocks = -(-count // block)
    starts = rng.integers(count, size=(_RESAMPLES, blocks))
    drawn = differences[(starts[:, :, None] + np.arange(block)) % count].reshape(_RESAMPLES, -1)[:, :count]
    tail = 0.5 * (1.0 - confidence)
    low, high = np.quantile(drawn.mean(axis=1), [tail, 1.0 - tail])
    return float(low), float(high)


class Trial(NamedTuple):
    """A challenger and how it was judged; None and words where it could not be fitted or asked."""

    challenger: Forecaster | None
    judgement: Judgement | None
    reason: str


def challenge(
    champion: Forecaster, recipe: Forecaster, series: Sequence[Series], rules: Rules, *, h: int, seed: int
) -> list[Trial]:
    """The trial on each series, all on record up to now.

    A pooled recipe is fitted once on all of them, any other on each alone. A fit that fails is a result: the
    champion stays.
    """
    early = [_learned(each, rules) for each in series]
    pooled = _fit(recipe, early, seed) if recipe.pooled else None
    return [
        _trial(champion, pooled or _fit(recipe, [known], seed), each, rules, h, seed)
        for each, known in zip(series, early, strict=True)
    ]


def _learned(series: Series, rules: Rules) -> Series:
    end = len(series.values) - rules.judge_steps
    if rules.learn_steps is None or end <= rules.learn_steps:
        return series.until(end)
    return cut(series.until(end), end - rules.learn_steps)


def cut(series: Series, start: int) -> Series:
    """The series without its first `start` steps."""
    return replace(
        series,
        start_s=series.start_s + start * series.step_s,
        values=series.values[start:],
        known=series.known[start:],
        seen=series.seen[start:],
    )


def _fit(recipe: Forecaster, series: Sequence[Series], seed: int) -> Forecaster | str:
    try:
        return recipe.fit(series, seed)
    except Exception as error:  # any library's own class; it becomes a recorded failure, and the champion stays
        return f"{type(error).__name__}: {error}"


def _trial(champion: Forecaster, fitted: Forecaster | str, series: Series, rules: Rules, h: int, seed: int) -> Trial:
    if isinstance(fitted, str):
        return Trial(None, None, f"could not be fitted: {fitted}")
    end = len(series.values)
    origins: NDArray[np.int64] = np.arange(end - rules.judge_steps, end - h + 1)
    try:
        judged = judge(roll(champion, series, origins, h), roll(fitted, series, origins, h), rules.confidence, seed)
    except Exception as error:  # as in _fit
        return Trial(None, None, f"could not be judged: {type(error).__name__}: {error}")
    gain = 100.0 * (1.0 - judged.challenger / judged.champion) if judged.champion > 0.0 else 0.0
    words = f"loss {abs(gain):.1f} % {'lower' if gain >= 0.0 else 'higher'} on the last {len(origins)} origins"
    if not judged.better:
        return Trial(
            fitted, judged, f"{words}: not better with {100 * rules.confidence:g} % confidence, the champion stays"
        )
    return Trial(fitted, judged, words)
