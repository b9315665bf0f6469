"""Why a forecast moves away from the last value: what each part of the past adds, by Shapley values.

The past is taken apart (`decompose`) and put together again from every subset of its groups; the forecaster asked
answers all of them in one call. A group that is absent is replaced:

    level    the last value stands on its trend and seasons, whatever it really is
    trend    the line is flat
    daily    no usual day; columns known ahead that repeat every day stay at their usual (median) value
    weekly   no usual week; likewise columns that repeat every week
    events   all other columns known ahead stay at their usual (median) value
    rest     no other movement in y; other recorded columns stay as they were last

Every past so made ends at the true last value. With all groups absent it is flat there, and what the forecaster then
still adds to the last value counts as rest. So the contributions add up to the median minus the last value.

Source: Shapley (1953), A value for n-person games; Lundberg and Lee (2017), A unified approach to interpreting model
predictions, NeurIPS: the groups are the players, and all subsets are enumerated, so nothing is sampled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import factorial

import numpy as np

from agents.forecast.base import MEDIAN, Floats, Forecaster, Past
from agents.forecast.explain.decompose import Parts, day_of, decompose, repeats
from agents.forecast.frames import Series
from agents.forecast.rolling import past_at

GROUPS = ("level", "trend", "daily", "weekly", "events", "rest")


@dataclass(frozen=True, slots=True)
class Contributions:
    """What each group adds to one forecast.

    Attributes:
        said: the deciles that the forecaster really says [h, 9].
        baseline: the last value; median = baseline + sum of `by_group`, at every step.
        by_group: one row per step ahead and a column for each of GROUPS [h, 6], in the unit of y.
        events: columns known ahead that are not at their usual value in the steps ahead, and do not repeat.
    """

    said: Floats
    baseline: float
    by_group: Floats
    events: tuple[str, ...]

    def at(self, step: int) -> dict[str, float]:
        """The contributions by name at one step ahead (0 is the first)."""
        return dict(zip(GROUPS, self.by_group[step].tolist(), strict=True))


def contributions(fitted: Forecaster, series: Series, origin: int, h: int) -> Contributions:
    """What each group adds to the forecast of `series` from `origin` (steps on record).

    Nothing after `origin` is looked at but what is known ahead. Raises UsageError as the forecaster does.
    """
    whole = past_at(series, np.array([origin]), fitted.context, h)
    parts = decompose(series, origin, fitted.context)
    usual = _usual(series, origin, h)
    groups = [g for g in GROUPS if _moves(g, whole, parts, usual)]
    subsets = [
        frozenset(g for g, has in zip(groups, kept, strict=True) if has) for kept in product((0, 1), repeat=len(groups))
    ]
    floor = 0.0 if series.values[:origin].min() >= 0.0 else -np.inf
    said = fitted.forecast(_pasts(whole, parts, usual, subsets, floor), h)
    by_subset = dict(zip(subsets, said[..., MEDIAN], strict=True))
    baseline = float(whole.y[0, -1])
    by_group = np.zeros((h, len(GROUPS)))
    for k, group in enumerate(GROUPS[:-1]):
        by_group[:, k] = shapley(by_subset, groups, group) if group in groups else 0.0
    # by the law of efficiency this is the Shapley value of the rest, and what is said of a flat past
    by_group[:, -1] = said[-1, :, MEDIAN] - baseline - by_group.sum(axis=1)
    ahead = whole.known[0, fitted.context :]
    named = [
        c
        for k, c in enumerate(series.columns.known)
        if usual.group[k] == "events" and (ahead[:, k] != usual.value[k]).any()
    ]
    return Contributions(said[-1], baseline, by_group, tuple(named))


def shapley(worth: Mapping[frozenset[str], Floats], players: Sequence[str], player: str) -> Floats:
    """The mean of what `player` adds, over all orders in which the players can come; `worth` holds every subset."""
    n = len(players)
    value = np.zeros_like(next(iter(worth.values())))
    for others in worth:
        if player not in others:
            k = len(others)
            weight = factorial(k) * factorial(n - k - 1) / factorial(n)
            value = value + weight * (worth[others | {player}] - worth[others])
    return value


@dataclass(frozen=True, slots=True)
class _Usual:
    """The usual value of each column known ahead, and the group that it belongs to."""

    value: Floats
    group: tuple[str, ...]


def _usual(series: Series, origin: int, h: int) -> _Usual:
    if not series.known.size:
        return _Usual(np.zeros(0), ())
    day = day_of(series)
    recent = series.known[max(origin - 28 * day, 0) : origin + h]
    group = tuple(repeats(column, day) or "events" for column in recent.T)
    return _Usual(np.median(series.known[max(origin - 28 * day, 0) : origin], axis=0), group)


def _moves(group: str, whole: Past, parts: Parts, usual: _Usual) -> bool:
    """Whether the past is another one without the group; if not, the group's value is 0."""
    columns = [k for k, name in enumerate(usual.group) if name == group]
    if columns and (whole.known[0][:, columns] != usual.value[columns]).any():
        return True
    if group == "rest" and whole.seen.size:
        return True
    part = _part(parts, group)
    return bool(np.nanmax(np.abs(part), initial=0.0) > 0.0)


def _part(parts: Parts, group: str) -> Floats:
    """What the group adds to the last value, at each step of the past [context]; 0 at the last."""
    if group == "events":
        return np.zeros(len(parts.trend))
    if group == "level":
        shift = np.full(len(parts.trend), -parts.rest[-1])
        shift[-1] = 0.0
        return shift
    if group == "rest":
        moved = parts.rest.copy()
        moved[-1] = 0.0
        return moved
    part: Floats = getattr(parts, group)
    return part - part[-1]


def _pasts(whole: Past, parts: Parts, usual: _Usual, subsets: Sequence[frozenset[str]], floor: float) -> Past:
    """One row per subset of groups; the last is the past as it really was."""
    count = len(subsets)
    y, known, seen = (np.repeat(a, count, axis=0) for a in (whole.y, whole.known, whole.seen))
    for row, subset in enumerate(subsets[:-1]):
        added = sum((_part(parts, group) for group in sorted(subset)), np.zeros(y.shape[1]))
        y[row] = np.where(np.isnan(whole.y[0]), np.nan, np.maximum(whole.y[0, -1] + added, floor))
        absent = [k for k, group in enumerate(usual.group) if group not in subset]
        known[row][:, absent] = usual.value[absent]
        if "rest" not in subset:
            seen[row] = seen[row, -1:]
    return replace(
        whole,
        ids=[whole.ids[0]] * count,
        y=y,
        known=known,
        seen=seen,
        origin_s=np.repeat(whole.origin_s, count),
        static=np.repeat(whole.static, count, axis=0),
    )
