"""The statistical forecasters, from statsforecast: opponents to beat, and members of ensembles.

Each is fitted once per series and then run forward from every origin with its parameters fixed. Parameters come
from the last `fit_steps` training steps; state, season and error variance from the `context` steps before the
origin, or as many of them as the series has. The deciles are those of the normal distribution that each method
gives. The formulas are statsforecast's own; what it would work out anew at each origin, though nothing but the
window has changed, is done here once or for all windows at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import Any, Literal, Self, cast

import numpy as np

from agents.forecast.base import DECILES, Floats, Past, Progress, check_past, fitted_to
from agents.forecast.frames import Series
from agents.forecast.seasons import classical, mstl, repeated
from twin.errors import UsageError

Fit = Mapping[str, Any]  # a fitted model as statsforecast keeps it

Z: Floats = np.array([NormalDist().inv_cdf(level) for level in DECILES.tolist()])
_LEAST_STEPS = 20  # fewer tell nothing about the size of errors
_LARGEST = 1e100  # squares of errors must stay finite
_LONGEST_ETS_SEASON = 24  # each step of the season is a state to fit; R's ets() draws the same line

# On intermittent series the bands of exponential smoothing and Theta explode (GIFT-Eval counts 7 times the error of
# the seasonal naive): no decile leaves the values of the training part and of the window by more than this many
# times their range. A walk leaves its own range by one such length rarely, by three never within a forecast.
# What was never negative is an amount and stays one, however steep its way down to zero.
REACH = 3.0


@dataclass(frozen=True, slots=True)
class _Known:
    """The model of one series (None: it never moved while it was fitted) and the range it was fitted in."""

    fit: Fit | None
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class _Statistical(ABC):
    """What all methods share: a model per series, its windows, and honest bounds."""

    fit_steps: int = 2016
    context: int = 864
    name: str = ""
    models: Mapping[str, _Known] = field(default_factory=dict, repr=False, compare=False)

    @property
    @abstractmethod
    def _seasons(self) -> tuple[int, ...]:
        """The lengths of the seasons that must be seen twice; 1 for none."""

    @abstractmethod
    def _fit(self, values: Floats) -> Fit:
        """The model of one series."""

    @abstractmethod
    def _forward(self, fit: Fit, windows: Floats, h: int) -> tuple[Floats, Floats]:
        """Mean and standard deviation [batch, h] after windows [batch, steps]; not finite where they explode."""

    @property
    def needs(self) -> int:
        """Two of the longest season, and no fewer than 20 steps."""
        return max(_LEAST_STEPS, 2 * max(self._seasons))

    @property
    def pooled(self) -> bool:
        """One model for each series."""
        return False

    def fit(self, series: Sequence[Series], seed: int, progress: Progress | None = None) -> Self:  # noqa: ARG002
        """One model per series; raises UsageError for one that is too short or too large to be fitted."""
        self._check()
        models: dict[str, _Known] = {}
        for k, each in enumerate(series):
            models[each.unique_id] = self._known(each)
            if progress:
                progress((k + 1) / len(series), each.unique_id)
        return replace(self, models=models)

    def forecast(self, past: Past, h: int) -> Floats:
        """Deciles [batch, h, 9]; raises UsageError when a series was not fitted, or is younger than `needs`."""
        check_past(past, self, h)
        said = np.empty((len(past.ids), h, len(DECILES)))
        # windows of one series and one length go together, so that what does not depend on the origin is done once
        together: dict[tuple[str, int], list[int]] = {}
        for row, (unique_id, steps) in enumerate(zip(past.ids, np.isfinite(past.y).sum(axis=1), strict=True)):
            together.setdefault((unique_id, int(steps)), []).append(row)
        for (unique_id, steps), rows in together.items():
            known = fitted_to(self.models, unique_id, self.name)
            said[rows] = self._deciles(known, past.y[rows, self.context - steps :], h)
        return said

    def _check(self) -> None:
        least = max(self.needs, 2 * max(self._seasons))
        if min(self._seasons) < 1 or min(self.fit_steps, self.context) < least:
            raise UsageError(
                f"{self.name}: seasons of {self._seasons} steps need fit_steps and context >= {least}; "
                f"got {self.fit_steps} and {self.context}"
            )

    def _known(self, series: Series) -> _Known:
        values = series.values[-self.fit_steps :]
        where = f"{self.name}: series {series.unique_id!r}"
        if len(values) < self.needs:
            raise UsageError(f"{where} has {len(values)} steps, and a fit needs {self.needs}")
        if np.abs(series.values).max() > _LARGEST:
            raise UsageError(f"{where} goes beyond {_LARGEST:g}; give it in a larger unit")
        low, high = float(series.values.min()), float(series.values.max())
        if np.ptp(values) == 0.0:
            return _Known(None, low, high)
        try:
            with np.errstate(all="ignore"):
                return _Known(self._fit(values), low, high)
        except Exception as error:  # the library raises bare ones
            raise UsageError(f"{where} cannot be fitted: {type(error).__name__}: {error}") from error

    def _deciles(self, known: _Known, windows: Floats, h: int) -> Floats:
        """Deciles [batch, h, 9] of windows [batch, steps] of one series."""
        low = np.minimum(known.low, windows.min(axis=1))[:, None]
        high = np.maximum(known.high, windows.max(axis=1))[:, None]
        span = high - low
        # a window that never moved is forecast as it is, and so says every method; one of a series that never moved
        # while it was fitted is a walk as far as anybody knows
        mean = np.repeat(windows[:, -1:], h, axis=1)
        deviation = np.diff(windows, axis=1).std(axis=1)[:, None] * np.sqrt(np.arange(1, h + 1))
        moves = np.ptp(windows, axis=1) > 0.0
        if known.fit is not None and moves.any():
            with np.errstate(all="ignore"):
                mean[moves], deviation[moves] = self._forward(known.fit, windows[moves], h)
        widest = (1.0 + 2.0 * REACH) * span
        mean = np.where(np.isfinite(mean), mean, windows[:, -1:])
        deviation = np.where(np.isfinite(deviation), np.minimum(deviation, widest), widest)
        said = mean[:, :, None] + deviation[:, :, None] * Z
        least = np.where(low >= 0.0, np.maximum(low - REACH * span, 0.0), low - REACH * span)
        return np.clip(said, least[:, :, None], (high + REACH * span)[:, :, None])


# ---------------------------------------------------------------- exponential smoothing


@dataclass(frozen=True, slots=True)
class AutoETS(_Statistical):
    """Exponential smoothing, chosen by corrected Akaike criterion.

    Without a season by default: at a 5 min step a day is 288 steps, too long for exponential smoothing; within the
    hour the level and a damped trend carry the forecast. At an hourly step `season` is 24.
    """

    name: str = "auto_ets"
    season: int = 1

    @property
    def _seasons(self) -> tuple[int, ...]:
        return (self.season,)

    def _check(self) -> None:
        _Statistical._check(self)
        if self.season > _LONGEST_ETS_SEASON:
            raise UsageError(
                f"{self.name}: a season of {self.season} steps is too long for exponential smoothing (at most "
                f"{_LONGEST_ETS_SEASON}); use auto_theta or mstl, or a longer step"
            )

    def _fit(self, values: Floats) -> Fit:
        from statsforecast.ets import ets_f

        return ets_f(values, m=self.season)

    def _forward(self, fit: Fit, windows: Floats, h: int) -> tuple[Floats, Floats]:
        return _smoothed(fit, windows, h)


def _smoothed(fit: Fit, windows: Floats, h: int) -> tuple[Floats, Floats]:
    """Mean and standard deviation [batch, h] of exponential smoothing run through windows [batch, steps]."""
    from statsforecast.ets import forecast_ets, forward_ets

    ran = [forward_ets({**fit, "par": _started(fit, window)}, window) for window in windows]
    said = [forecast_ets(one, h, level=[80]) for one in ran]
    mean = np.stack([one["mean"] for one in said])
    return mean, (np.stack([one["hi-80"] for one in said]) - mean) / Z[-1]


def _started(fit: Fit, window: Floats) -> Floats:
    """The parameters with the state at this window's start: the fitted one is that of another window.

    The trend is the one that the fit ended with: where it hardly ever changes, a window alone would not find it again.
    """
    _, trend, season, _ = fit["components"]
    states: list[Floats] = [fit["states"][-1][1:2] if trend == "A" else np.zeros(0)]
    level = window[0]
    if season != "N":
        pattern = classical(window, fit["m"], multiplicative=season == "M")
        if pattern is None:  # no product in this window: no season
            pattern = np.ones(len(window))
        level = level / pattern[0] if season == "M" else level - pattern[0]
        states.append(pattern[: fit["m"]][::-1])
    return np.concatenate([fit["par"][:4], [level], *states])


# ---------------------------------------------------------------- season and trend by loess


@dataclass(frozen=True, slots=True)
class MSTL(_Statistical):
    """One or more seasons taken out by loess (MSTL), the rest by exponential smoothing without a season.

    A season that training or window do not hold twice is left out there, as long as the shortest one is held.
    """

    context: int = 2016
    name: str = "mstl"
    seasons: tuple[int, ...] = (288,)

    @property
    def needs(self) -> int:
        """Twice the shortest season."""
        return max(_LEAST_STEPS, 2 * min(self.seasons))

    @property
    def _seasons(self) -> tuple[int, ...]:
        return tuple(sorted(self.seasons))

    def _check(self) -> None:
        _Statistical._check(self)
        if min(self._seasons) < 2 or len(set(self._seasons)) < len(self._seasons):
            raise UsageError(f"{self.name}: seasons are different and of two steps at least; got {self._seasons}")

    def _fit(self, values: Floats) -> Fit:
        from statsforecast.ets import ets_f

        seasons = self._held(len(values))
        fit = ets_f(values - mstl(values[None], seasons).sum(axis=0)[0], m=1, model="ZZN")
        return {**fit, "seasons": seasons}

    def _held(self, steps: int) -> tuple[int, ...]:
        return tuple(season for season in self._seasons if 2 * season <= steps)

    def _forward(self, fit: Fit, windows: Floats, h: int) -> tuple[Floats, Floats]:
        held = self._held(windows.shape[1])
        seasons = tuple(season for season in fit["seasons"] if season in held)
        parts = mstl(windows, seasons)
        mean, deviation = _smoothed(fit, windows - parts.sum(axis=0), h)
        ahead = [repeated(part[:, -season:], h) for part, season in zip(parts, seasons, strict=True)]
        return mean + np.sum(ahead, axis=0), deviation


# ---------------------------------------------------------------- Theta


@dataclass(frozen=True, slots=True)
class AutoTheta(_Statistical):
    """Theta after a classical decomposition, where a test finds the season.

    `variant` is standard, optimised, dynamic or dynamic optimised (STM, OTM, DSTM, DOTM), or None for the one that
    fits best. Source: Fiorucci, Pellegrini, Louzada, Petropoulos and Koehler (2016), Models for optimising the theta
    method and their relationship to state space models, International Journal of Forecasting 32.
    """

    context: int = 2016
    name: str = "auto_theta"
    season: int = 288
    variant: Literal["STM", "OTM", "DSTM", "DOTM"] | None = None

    @property
    def _seasons(self) -> tuple[int, ...]:
        return (self.season,)

    def _fit(self, values: Floats) -> Fit:
        from statsforecast.theta import auto_theta

        return cast("Fit", auto_theta(values, m=self.season, model=self.variant))

    def _forward(self, fit: Fit, windows: Floats, h: int) -> tuple[Floats, Floats]:
        mean, deviation = np.empty((2, len(windows), h))
        growth = theta_growth(fit["par"]["alpha"], fit["par"]["theta"], windows.shape[1], h)
        for row, window in enumerate(windows):
            factor, offset = _theta_season(fit, window)
            level, error = _theta_level((window - offset) / factor, fit, h)
            ahead = repeated(factor[-self.season :], h), repeated(offset[-self.season :], h)
            mean[row] = level * ahead[0] + ahead[1]
            deviation[row] = error * growth * ahead[0]
        return mean, deviation


def _theta_season(fit: Fit, window: Floats) -> tuple[Floats, Floats]:
    """Factor and offset [steps] of the season in a window; whether there is one was found out by the fit."""
    factor, offset = np.ones(len(window)), np.zeros(len(window))
    if not fit.get("decompose", False):
        return factor, offset
    product = classical(window, fit["m"], multiplicative=True) if fit["decomposition_type"] != "additive" else None
    if product is not None:
        return product, offset
    added = classical(window, fit["m"], multiplicative=False)
    return factor, offset if added is None else added


def _theta_level(window: Floats, fit: Fit, h: int) -> tuple[Floats, float]:
    """The mean [h] and the standard deviation of the errors of Theta run through a window without season.

    The level starts where the first error is zero. The deviation is that of the errors without season;
    statsforecast 2.1.1 puts an additive season back into them, which widens the bands by the season's own swing.
    """
    from statsforecast.theta import auto_theta, forecast_theta

    alpha, theta = fit["par"]["alpha"], fit["par"]["theta"]
    start = window[0] / theta
    ran = cast("Fit", auto_theta(window, 1, fit["modeltype"], start, alpha, theta, nmse=1))
    return forecast_theta(ran, h)["mean"], float(np.std(ran["residuals"][3:], ddof=1))


def theta_growth(alpha: float, theta: float, steps: int, h: int) -> Floats:
    """Standard deviation [h] of what Theta says so far ahead after `steps` steps, in those of one error.

    statsforecast draws 200 paths to see it; the recursion is linear in the errors, so following each error of the
    next `h` steps on its own gives what infinitely many paths would.
    """
    level, average, slope, intercept = np.zeros((4, h))
    variance = np.empty(h)
    for k, error in enumerate(np.eye(h)):
        i, faded = steps + k, (1.0 - alpha) ** (steps + k)
        line = intercept * faded + slope * (1.0 - faded * (1.0 - alpha)) / alpha
        path = level + (1.0 - 1.0 / theta) * line + error
        variance[k] = path @ path
        level = alpha * path + (1.0 - alpha) * level
        average = (i * average + path) / (i + 1)
        slope = ((i - 1) * slope + 6.0 * (path - average) / (i + 1)) / (i + 2)
        intercept = average - slope * (i + 2) / 2.0
    return np.sqrt(variance)


# ---------------------------------------------------------------- ARIMA


@dataclass(frozen=True, slots=True)
class AutoARIMA(_Statistical):
    """ARIMA chosen by corrected Akaike criterion: slow to fit (minutes with a season), so nothing runs it unasked."""

    name: str = "auto_arima"
    season: int = 1

    @property
    def _seasons(self) -> tuple[int, ...]:
        return (self.season,)

    def _fit(self, values: Floats) -> Fit:
        from statsforecast.models import AutoARIMA as Model

        return Model(season_length=self.season).fit(values).model_

    def _forward(self, fit: Fit, windows: Floats, h: int) -> tuple[Floats, Floats]:
        from statsforecast.arima import forecast_arima, forward_arima

        said = [forecast_arima(forward_arima(fit, window), h, level=[80]) for window in windows]
        mean = np.stack([one["mean"] for one in said])
        return mean, (np.stack([one["upper"]["80%"] for one in said]) - mean) / Z[-1]
