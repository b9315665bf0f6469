"""The opponents that every forecaster must beat: the last value, or the value one season ago."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import polars as pl

from agents.forecast.base import DECILES, Floats, Progress, check_histories, fitted_to
from agents.forecast.frames import panel
from twin.errors import UsageError


@dataclass(frozen=True, slots=True)
class Naive:
    """As it was one season ago; with a season of one step: as it is now.

    The deciles are those of the forecast's own errors in the training part, for each number of steps ahead;
    an error is taken to be as likely up as down, so the median is the naive forecast itself.
    """

    season: int = 1
    name: str = "naive"
    errors: Mapping[str, Floats] = field(default_factory=dict, repr=False, compare=False)

    @property
    def context(self) -> int:
        """One season."""
        return self.season

    @property
    def pooled(self) -> bool:
        """One model for each series."""
        return False

    def fit(self, frame: pl.DataFrame, seed: int, progress: Progress | None = None) -> Self:  # noqa: ARG002
        """Keep the errors of each series; raises UsageError for one that is not longer than two seasons."""
        errors = {}
        for each in panel(frame):
            if len(each.values) <= 2 * self.season:
                raise UsageError(
                    f"{self.name}: series {each.unique_id!r} has {len(each.values)} steps, "
                    f"too few to see the errors of a season of {self.season}"
                )
            errors[each.unique_id] = each.values
        return replace(self, errors=errors)

    def forecast(self, histories: Floats, h: int, ids: Sequence[str]) -> Floats:
        """Deciles [batch, h, 9]; raises UsageError when a series was not fitted, or is too short for `h`."""
        check_histories(histories, self.context, ids, self.name)
        seasons_back = -(-np.arange(1, h + 1) // self.season)
        point = histories[:, np.arange(h) % self.season]
        spread = {i: self._spread(i, seasons_back * self.season) for i in dict.fromkeys(ids)}
        return point[:, :, None] + np.stack([spread[i] for i in ids])

    def _spread(self, unique_id: str, lags: np.ndarray) -> Floats:
        past = fitted_to(self.errors, unique_id, self.name)
        if lags[-1] >= len(past):
            raise UsageError(
                f"{self.name}: {unique_id!r} was fitted on {len(past)} steps, too few for {lags[-1]} ahead"
            )
        by_lag = {lag: _deciles_of_errors(past, lag) for lag in np.unique(lags)}
        return np.stack([by_lag[lag] for lag in lags])


def _deciles_of_errors(past: Floats, lag: int) -> Floats:
    error = past[lag:] - past[:-lag]
    return np.quantile(np.concatenate([error, -error]), DECILES)
