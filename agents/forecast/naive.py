"""The opponents that every forecaster must beat: the last value, the value one season ago, the mean so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from agents.forecast.base import DECILES, MEDIAN, Floats, Past, Progress, check_past, fitted_to
from agents.forecast.frames import Series
from twin.errors import UsageError


@dataclass(frozen=True, slots=True)
class Naive:
    """As it was one season ago; with a season of one step: as it is now.

    The deciles are those of the forecast's own errors in the training part, for each number of steps ahead;
    an error is taken to be as likely up as down, so the median is the naive forecast itself.

    Attributes:
        season: steps.
        shorter: the season (a day) to take in place of a longer one (a week) where a series is too young for it:
            its training part does not exceed two of the longer, or the last of them is not on record. None: such a
            series is refused, and not forecast by another method under the same name.
    """

    season: int = 1
    name: str = "naive"
    shorter: int | None = None
    errors: Mapping[str, Floats] = field(default_factory=dict, repr=False, compare=False)

    @property
    def context(self) -> int:
        """One season."""
        return self.season

    @property
    def needs(self) -> int:
        """One season; the shorter one where there is one."""
        return self.shorter or self.season

    @property
    def pooled(self) -> bool:
        """One model for each series."""
        return False

    def fit(self, series: Sequence[Series], seed: int, progress: Progress | None = None) -> Self:  # noqa: ARG002
        """Keep the errors of each series; raises UsageError for one that is not longer than two seasons."""
        if not 1 <= self.needs <= self.season:
            raise UsageError(f"{self.name}: seasons are of 1 step at least, the shorter one of {self.season} at most")
        errors = {}
        for each in series:
            if len(each.values) <= 2 * self.needs:
                raise UsageError(
                    f"{self.name}: series {each.unique_id!r} has {len(each.values)} steps, "
                    f"too few to see the errors of a season of {self.needs}"
                )
            errors[each.unique_id] = each.values
        return replace(self, errors=errors)

    def forecast(self, past: Past, h: int) -> Floats:
        """Deciles [batch, h, 9]; raises UsageError when a series was not fitted, or is too short for `h`."""
        check_past(past, self, h)
        ahead = np.arange(h)
        kinds = [(i, self._season(i, bool(np.isfinite(y).all()))) for i, y in zip(past.ids, past.y, strict=True)]
        spread = {kind: self._spread(*kind, h) for kind in dict.fromkeys(kinds)}
        said = np.empty((len(kinds), h, len(DECILES)))
        for row, (unique_id, season) in enumerate(kinds):
            point = past.y[row, self.context - season :][ahead % season]
            said[row] = point[:, None] + spread[unique_id, season]
        return said

    def _season(self, unique_id: str, whole: bool) -> int:
        seen = len(fitted_to(self.errors, unique_id, self.name))
        return self.season if whole and seen > 2 * self.season else self.needs

    def _spread(self, unique_id: str, season: int, h: int) -> Floats:
        """Deciles [h, 9] of the errors of one series at each step ahead."""
        past = self.errors[unique_id]
        lags = season * -(-np.arange(1, h + 1) // season)
        if h and lags[-1] >= len(past):
            raise UsageError(
                f"{self.name}: {unique_id!r} was fitted on {len(past)} steps, too few for {lags[-1]} ahead"
            )
        by_lag = {lag: _deciles_of_errors(past, lag) for lag in np.unique(lags)}
        return np.stack([by_lag[lag] for lag in lags]) if h else np.empty((0, len(DECILES)))


def _deciles_of_errors(past: Floats, lag: int) -> Floats:
    """Deciles [9] of the errors and of their opposites; the upper half of these is the errors without their sign."""
    size = np.abs(past[lag:] - past[:-lag])
    count = len(size)
    place = DECILES[MEDIAN + 1 :] * (2 * count - 1) - count
    above = np.quantile(size, np.maximum(place, 0.0) / max(count - 1, 1))
    return np.concatenate([-above[::-1], [0.0], above])


@dataclass(frozen=True, slots=True)
class HistoricMean:
    """The mean of the training part, whatever was last: hard to beat weeks ahead.

    The deciles are those of the training part's distances from its mean, which is the median of the forecast.
    """

    name: str = "historic_mean"
    said: Mapping[str, Floats] = field(default_factory=dict, repr=False, compare=False)

    @property
    def context(self) -> int:
        """One step, and that one is not looked at."""
        return 1

    @property
    def needs(self) -> int:
        """One step."""
        return 1

    @property
    def pooled(self) -> bool:
        """One model for each series."""
        return False

    def fit(self, series: Sequence[Series], seed: int, progress: Progress | None = None) -> Self:  # noqa: ARG002
        """Keep the deciles [9] of each series; raises UsageError for one without a step."""
        empty = [s.unique_id for s in series if not len(s.values)]
        if empty:
            raise UsageError(f"{self.name}: series {empty[0]!r} has no step to take the mean of")
        return replace(self, said={s.unique_id: _around_the_mean(s.values) for s in series})

    def forecast(self, past: Past, h: int) -> Floats:
        """Deciles [batch, h, 9]; raises UsageError when a series was not fitted."""
        check_past(past, self, h)
        said = [fitted_to(self.said, i, self.name) for i in past.ids]
        return np.repeat(np.reshape(said, (-1, 1, len(DECILES))), h, axis=1)


def _around_the_mean(values: Floats) -> Floats:
    deciles = np.quantile(values, DECILES)
    # the mean of equal numbers may differ from them by rounding
    mean = np.clip(values.mean(), values.min(), values.max())
    # on a skewed series the mean may lie beyond a decile
    low, high = np.minimum(deciles[:MEDIAN], mean), np.maximum(deciles[MEDIAN + 1 :], mean)
    return np.concatenate([low, [mean], high])
