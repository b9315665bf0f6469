"""Exponential smoothing chosen by information criterion, from statsforecast: the statistical baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import polars as pl

from agents.forecast.base import DECILE_NAMES, Floats, Progress, check_histories, fitted_to
from agents.forecast.frames import panel

# central intervals of 80, 60, 40 and 20 % and the mean are the nine deciles of a symmetric distribution
_LEVELS = [20, 40, 60, 80]
_KEYS = ("lo-80", "lo-60", "lo-40", "lo-20", "mean", "hi-20", "hi-40", "hi-60", "hi-80")


@dataclass(frozen=True, slots=True)
class AutoETS:
    """Non-seasonal AutoETS: fitted once per series, then run forward from each origin with fixed parameters.

    At a 5 min step a day is 288 steps, too long a season for exponential smoothing; within the hour the level
    and a damped trend carry the forecast. The smoothing parameters are those of the last `fit_steps` training
    steps; the state and the error variance come from the `context` steps before the origin.
    """

    fit_steps: int = 2016
    context: int = 864
    name: str = "auto_ets"
    models: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def pooled(self) -> bool:
        """One model for each series."""
        return False

    def fit(self, frame: pl.DataFrame, seed: int, progress: Progress | None = None) -> Self:  # noqa: ARG002
        """Choose and fit one model per series."""
        from statsforecast.models import AutoETS as Model

        models = {s.unique_id: Model(season_length=1).fit(s.values[-self.fit_steps :]) for s in panel(frame)}
        return replace(self, models=models)

    def forecast(self, histories: Floats, h: int, ids: Sequence[str]) -> Floats:
        """Deciles [batch, h, 9]; raises UsageError when a series was not fitted."""
        check_histories(histories, self.context, ids, self.name)
        rows = [_forward(fitted_to(self.models, i, self.name), y, h) for i, y in zip(ids, histories, strict=True)]
        # the native bands of a vanishing variance may differ from their mean by rounding
        return np.maximum.accumulate(np.stack(rows), axis=-1) if rows else np.empty((0, h, len(DECILE_NAMES)))


def _forward(model: Any, history: Floats, h: int) -> Floats:  # noqa: ANN401 - statsforecast has no types
    from statsforecast.models import AutoETS as Model

    # the fitted start is that of another window: begin at this one's first value, with no trend
    started = Model(season_length=1)
    parameters = model.model_["par"].copy()
    parameters[4:] = 0.0
    parameters[4] = history[0]
    started.model_ = {**model.model_, "par": parameters}
    said = started.forward(history, h, level=_LEVELS)
    return np.stack([said[key] for key in _KEYS], axis=-1)
