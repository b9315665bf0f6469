"""Several forecasters as one: their deciles averaged, each with the weight that its rolling errors have earned.

Quantiles are averaged, and not densities: the average of sharp and honest forecasts then stays sharp (Lichtendahl,
Grushka-Cockayne and Winkler, 2013, Is it better to average probabilities or quantiles?, Management Science 59).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Self

import numpy as np
from numpy.typing import NDArray

from agents.forecast.base import DECILES, MEDIAN, Floats, Forecaster, Past, Progress, fitted_to, part
from agents.forecast.frames import Series, first, steps_in
from agents.forecast.rolling import Origins, past_at, roll, truth_at
from twin.errors import UsageError
from twin.seeds import child

_LEAST_ORIGINS = 8  # of a series, to weigh by itself: with fewer it takes the weights of all
_ROUNDS = 200  # of exponentiated gradient
_RATE = 2.0
_LEAST_WEIGHT = 0.01  # a member below it is not asked


@dataclass(frozen=True, slots=True)
class Stack:
    """A weighted mean of the members' deciles, for every step ahead.

    The members are fitted twice: without the last `share` of each series, at least `least_steps`, to see their errors
    there at an origin every `every` steps; then on everything. The weights minimise the pinball loss over those
    origins, on the simplex (exponentiated gradient: Kivinen and Warmuth, 1997), first over all series together with a
    pull of strength `pull` (0: none) towards even weights, then for each series towards the weights of all: few
    origins tell little, and even weights are hard to beat. Where a member failed on a series it gets no weight there.

    Attributes:
        weights: per series [members], and under "" those of all, for a series never seen.
    """

    members: Mapping[str, Forecaster]
    horizon: int = 12
    share: float = 0.15
    least_steps: int = 0
    every: int = 12
    pull: float = 0.3
    name: str = "stack"
    weights: Mapping[str, Floats] = field(default_factory=dict, repr=False, compare=False)

    @property
    def context(self) -> int:
        """The longest of the members'."""
        return max(member.context for member in self.members.values())

    @property
    def needs(self) -> int:
        """The least that a member needs: those that need more are left out until there is more."""
        return min(member.needs for member in self.members.values())

    @property
    def pooled(self) -> bool:
        """One model over all series, whose weights are learned together."""
        return True

    def fit(self, series: Sequence[Series], seed: int, progress: Progress | None = None) -> Self:
        """See the members' errors, weigh them, fit them on everything.

        Raises UsageError when no series is long enough to see errors on, or no member could be fitted.
        """
        early = self._members(first(series, 1.0 - self.share, self.least_steps), seed, part(progress, 0.0, 0.5))
        losses = {s.unique_id: found for s in series if (found := self._losses(early, s)) is not None}
        if not losses:
            raise UsageError(f"{self.name}: no series is long enough to see the members' errors on its last part")
        members = self._members(series, seed, part(progress, 0.5, 1.0))
        return replace(self, members=members, weights=weigh(losses, self.pull))

    def forecast(self, past: Past, h: int) -> Floats:
        """Deciles [batch, h, 9]; raises UsageError when no member can forecast one of the series."""
        said = np.empty((len(past.ids), h, len(DECILES)))
        young = np.isnan(past.y).sum(axis=1)
        kinds = list(zip(past.ids, young.tolist(), strict=True))  # who can answer depends on both
        for kind in dict.fromkeys(kinds):
            rows = np.flatnonzero([each == kind for each in kinds])
            own = past.rows(rows)
            said[rows] = self._mixed(kind[0], [partial(_asked, each, own, h) for each in self.members.values()])
        return said

    def roll(self, series: Series, origins: Origins, h: int) -> Floats:
        """Deciles [origins, h, 9], as `forecast` says them."""
        old = origins >= self.context + int(np.isnan(series.values).sum())
        said = np.empty((len(origins), h, len(DECILES)))
        if old.any():
            asks = [partial(_rolled, each, series, origins[old], h) for each in self.members.values()]
            said[old] = self._mixed(series.unique_id, asks)
        if not old.all():
            said[~old] = self.forecast(past_at(series, origins[~old], self.context, h), h)
        return said

    def _members(self, series: Sequence[Series], seed: int, progress: Progress | None) -> dict[str, Forecaster]:
        fitted, reasons, count = {}, [], len(self.members)
        for k, (name, member) in enumerate(self.members.items()):
            tell = part(progress, k / count, (k + 1) / count, f"{name}: ")
            alone = member.pooled or isinstance(member, Each)
            own = int(child(seed, name).integers(2**31))  # two networks of one kind shall not be one
            try:
                fitted[name] = (member if alone else Each(member)).fit(series, own, tell)
            except UsageError as error:
                fitted[name] = Each(member, {each.unique_id: str(error) for each in series})
                reasons.append(str(error))
        if len(reasons) == count:
            raise UsageError(f"{self.name}: no member could be fitted: {'; '.join(reasons)}")
        return fitted

    def _losses(self, fitted: Mapping[str, Forecaster], series: Series) -> Losses | None:
        """What each member said of the last part of a series, or None when it has too few origins to tell."""
        n = len(series.values)
        start = max(steps_in(n, 1.0 - self.share, self.least_steps), self.needs)
        origins = np.arange(start, n - self.horizon + 1, self.every)
        if len(origins) < _LEAST_ORIGINS:
            return None
        said = [_or_none(partial(_rolled, each, series, origins, self.horizon)) for each in fitted.values()]
        return Losses.of(said, truth_at(series, origins, self.horizon))

    def _mixed(self, unique_id: str, asks: Sequence[Callable[[], Floats]]) -> Floats:
        """The mean of those that answer, by their weights."""
        if not self.weights:
            raise UsageError(f"{self.name}: not fitted; call fit first")
        weights = self.weights.get(unique_id, self.weights[""])
        answers = [
            (w, said) for w, ask in zip(weights, asks, strict=True) if w > 0 and (said := _or_none(ask)) is not None
        ]
        if not answers:
            raise UsageError(f"{self.name}: no member can forecast {unique_id!r}: its history is too short for them")
        total = sum(w for w, _ in answers)
        return np.sum([w / total * said for w, said in answers], axis=0)


@dataclass(frozen=True, slots=True)
class Each:
    """A forecaster that is fitted series by series: one that cannot be fitted spoils none of the others."""

    base: Forecaster
    models: Mapping[str, Forecaster | str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        """That of the base."""
        return self.base.name

    @property
    def context(self) -> int:
        """That of the base."""
        return self.base.context

    @property
    def needs(self) -> int:
        """That of the base."""
        return self.base.needs

    @property
    def pooled(self) -> bool:
        """One model for each series."""
        return False

    def fit(self, series: Sequence[Series], seed: int, progress: Progress | None = None) -> Self:
        """One fitted model per series, or the reason why there is none."""
        models: dict[str, Forecaster | str] = {}
        for k, each in enumerate(series):
            try:
                models[each.unique_id] = self.base.fit([each], seed)
            except UsageError as error:
                models[each.unique_id] = str(error)
            if progress:
                progress((k + 1) / len(series), each.unique_id)
        return replace(self, models=models)

    def forecast(self, past: Past, h: int) -> Floats:
        """Deciles [batch, h, 9]; raises UsageError for a series without a model."""
        said = np.empty((len(past.ids), h, len(DECILES)))
        for unique_id in dict.fromkeys(past.ids):
            model = fitted_to(self.models, unique_id, self.name)
            if isinstance(model, str):
                raise UsageError(model)
            rows = np.flatnonzero([each == unique_id for each in past.ids])
            said[rows] = model.forecast(past.rows(rows), h)
        return said


def _asked(member: Forecaster, past: Past, h: int) -> Floats:
    return member.forecast(past.last(member.context, h), h)


def _rolled(member: Forecaster, series: Series, origins: Origins, h: int) -> Floats:
    return roll(member, series, origins, h).said


def _or_none(ask: Callable[[], Floats]) -> Floats | None:
    """The answer, or None from a member that cannot give one for these series: it is left out of them."""
    try:
        return ask()
    except UsageError:
        return None


# ---------------------------------------------------------------- weights


@dataclass(frozen=True, slots=True)
class Losses:
    """What the members said of one series: deciles [members, origins, h, 9] in units of its mean error, and the truth.

    `able` [members] says who could answer; the deciles of the others are zeros.
    """

    said: Floats
    truth: Floats
    able: NDArray[np.bool_]

    @classmethod
    def of(cls, said: Sequence[Floats | None], truth: Floats) -> Losses | None:
        """None when nobody answered."""
        answers = [each for each in said if each is not None]
        if not answers:
            return None
        errors = [np.abs(each[..., MEDIAN] - truth).mean() for each in answers]
        unit = float(np.mean(errors)) or 1.0
        stacked = np.stack([np.zeros_like(answers[0]) if each is None else each for each in said])
        return cls(stacked / unit, truth / unit, np.array([each is not None for each in said]))

    def slope(self, weights: Floats) -> Floats:
        """How the mean pinball loss of the weighted mean changes with each weight [members]."""
        mixed = np.tensordot(weights, self.said, axes=1)
        # d pinball / d quantile: (y < q) - level
        push = (self.truth[..., None] < mixed) - DECILES
        return (self.said * push).mean(axis=(1, 2, 3))


def weigh(losses: Mapping[str, Losses], pull: float) -> dict[str, Floats]:
    """The weights [members] of each series, and under "" those of all together."""
    series = list(losses.values())
    count = len(series[0].able)
    shared = _descend(series, np.full(count, 1.0 / count), pull)
    return {"": shared} | {name: _descend([each], _able(shared, each), pull) for name, each in losses.items()}


def _descend(series: Sequence[Losses], start: Floats, pull: float) -> Floats:
    """The weights on the simplex of least mean loss + pull x their Kullback-Leibler divergence from `start`."""
    able = start > 0.0
    home = np.log(np.where(able, start, 1.0))
    logs, weights = home, start
    for _ in range(_ROUNDS):
        slope = np.mean([each.slope(_able(weights, each)) for each in series], axis=0)
        # the step towards `start` is taken in closed form: however strong the pull, it cannot overshoot
        logs = (logs - _RATE * (slope - slope @ weights) + _RATE * pull * home) / (1.0 + _RATE * pull)
        logs = logs - logs[able].max()
        weights = np.where(able, np.exp(np.minimum(logs, 0.0)), 0.0)
        weights = weights / weights.sum()
    kept = np.where(weights < _LEAST_WEIGHT, 0.0, weights)
    return kept / kept.sum()


def _able(weights: Floats, losses: Losses) -> Floats:
    kept = weights * losses.able
    return kept / kept.sum() if kept.any() else losses.able / losses.able.sum()
