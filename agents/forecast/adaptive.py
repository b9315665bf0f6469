"""Bands that follow how often they were right lately: adaptive conformal prediction for any forecaster.

A fixed correction (`conformal.py`) grows wrong when the series drifts. Here each decile's distance from the median is
stretched by a factor that moves with every outcome: up when the value lay beyond the stretched decile, down when it
did not, in such proportion that it rests where the decile is right:

    log factor += rate x (1 if beyond else 0 - share of values that should lie beyond)

This is quantile tracking in the logarithm (Angelopoulos, Candes and Tibshirani, 2023, Conformal PID control for time
series prediction, eq. 5; Gibbs and Candes, 2021, Adaptive conformal inference under distribution shift): as long as
bands have a width and no factor rests at its bound, the share beyond a decile moves towards what it should be. Over
one lookback it comes near it: coverage is measured, never assumed. Every step ahead has factors of its own, and so has
every regime (calm, usual, rough: `roughness`), each moved by its own outcomes in full and by those of the others in
part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from agents.forecast.base import DECILES, MEDIAN, Floats, Forecaster, Past, Progress, part
from agents.forecast.conformal import floored, stretched
from agents.forecast.frames import Series, first, steps_in, windows
from agents.forecast.rolling import Origins, Rolled, roll
from twin.errors import UsageError

_LEAST_ORIGINS = 20
_BEYOND = np.minimum(DECILES, 1.0 - DECILES)  # share of values that should lie beyond each decile
_FACTORS = (-2.0, 2.5)  # logarithms of the least and the greatest
_UPPER = DECILES[MEDIAN] < DECILES


@dataclass(frozen=True, slots=True)
class Start:
    """What the fit leaves of one series.

    Attributes:
        factors: logarithms [regimes, h, 9].
        edges: of roughness, between the regimes [2].
        ended_s: when what the base learned from ended, on the series' clock: how it did before tells nothing.
    """

    factors: Floats
    edges: Floats
    ended_s: float


@dataclass(frozen=True, slots=True)
class Pace:
    """How outcomes move the factors, as in `Adaptive`."""

    rate: float
    spill: float


@dataclass(frozen=True, slots=True)
class Adaptive:
    """A forecaster with bands that follow its outcomes of the last `lookback` steps; its median stays as it is.

    The base is fitted twice: without the last `share` of each series, to move the factors over it; then on everything.
    A forecast begins with these factors and moves them over its own past, as far as the base did not learn from it,
    at an origin every `every` steps: what it says follows from its window, nothing is remembered from call to call.
    What was never negative stays so (`floored`).

    Attributes:
        rate: how far one outcome moves a factor's logarithm.
        spill: share of that by which it moves those of the other regimes.
        starts: per series; under "" for one never seen.
    """

    base: Forecaster
    horizon: int = 12
    every: int = 12
    lookback: int = 2016
    share: float = 0.15
    rate: float = 0.1
    spill: float = 0.5
    starts: Mapping[str, Start] = field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        """That of the base."""
        return self.base.name

    @property
    def context(self) -> int:
        """That of the base (or what tells its regime), and what it looks back on."""
        return max(self.base.context, self.horizon + 1) + self.lookback

    @property
    def needs(self) -> int:
        """That of the base."""
        return self.base.needs

    @property
    def pooled(self) -> bool:
        """As the base."""
        return self.base.pooled

    def fit(self, series: Sequence[Series], seed: int, progress: Progress | None = None) -> Self:
        """Move the factors over the last part, then fit on everything; raises UsageError as the base does."""
        early = self.base.fit(first(series, 1.0 - self.share), seed, part(progress, 0.0, 0.5))
        starts = {s.unique_id: found for s in series if (found := self._begin(early, s)) is not None}
        if not starts:
            raise UsageError(f"{self.name}: no series is long enough to see how right its bands are")
        starts[""] = Start(
            np.median([s.factors for s in starts.values()], axis=0),
            np.median([s.edges for s in starts.values()], axis=0),
            -np.inf,
        )
        return replace(self, base=self.base.fit(series, seed, part(progress, 0.5, 1.0)), starts=starts)

    def forecast(self, past: Past, h: int) -> Floats:
        """Deciles [batch, h, 9]; raises UsageError as the base does."""
        rows = [self.roll(_series(past, row), np.array([past.y.shape[1]]), h) for row in range(len(past.ids))]
        return np.concatenate([np.empty((0, h, len(DECILES))), *rows])

    def roll(self, series: Series, origins: Origins, h: int) -> Floats:
        """Deciles [origins, h, 9], as `forecast` says them."""
        self._check(h)
        if not len(origins):
            return np.empty((0, h, len(DECILES)))
        start = self.starts.get(series.unique_id, self.starts[""])
        rolled, regimes, back = self._looks(series, origins, h)
        factors = moved(rolled, regimes, back, start.factors[:, :h], self._pace)
        said = stretched(rolled.said[back[:, -1]], np.exp(factors))
        return floored(said, windows(series.values, origins, self.context))

    def settled(self, series: Sequence[Series]) -> Self:
        """One that asks the base once a forecast: its factors are those of now, from the end of each of `series`.

        What a resident model runs between two refreshes: as quick as the base, with bands as of the last refresh.
        Raises UsageError when not fitted, or settled already.
        """
        self._check(self.horizon)
        if not self.lookback:
            raise UsageError(f"{self.name}: settled already; settle the fitted one again, with the series as of now")
        starts = dict(self.starts)
        for each in series:
            origin = np.array([len(each.values)])
            rolled, regimes, back = self._looks(each, origin, self.horizon)
            start = self.starts.get(each.unique_id, self.starts[""])
            factors = scanned(rolled, regimes, back[:, :-1], origin, start.factors, self._pace)[0]
            starts[each.unique_id] = replace(start, factors=factors)
        return replace(self, starts=starts, lookback=0)

    def _check(self, h: int) -> None:
        if not self.starts:
            raise UsageError(f"{self.name}: not fitted; call fit first")
        if h > self.horizon:
            raise UsageError(f"{self.name}: its bands follow {self.horizon} steps ahead, asked for {h}")

    @property
    def _pace(self) -> Pace:
        return Pace(self.rate, self.spill)

    def _looks(self, series: Series, origins: Origins, h: int) -> tuple[Rolled, NDArray[np.int64], NDArray[np.int64]]:
        """The base's forecasts, their regimes, and per origin the places of those it looks back on, itself last."""
        young = int(np.isnan(series.values).sum())
        back = origins[:, None] - np.arange(self.lookback // self.every, -1, -1) * self.every
        back = np.maximum(back, min(young + self.base.needs, int(origins.min())))  # repeated ones are left out
        asked = np.unique(back)
        start = self.starts.get(series.unique_id, self.starts[""])
        rolled = roll(self.base, series, asked, h)
        begun_s = series.start_s + series.step_s * (asked[:, None] + np.arange(h))
        unseen = replace(rolled, truth=np.where(begun_s < start.ended_s, np.nan, rolled.truth))
        regimes = _regimes(roughness(series.values, asked, self.horizon), start.edges)
        return unseen, regimes, np.searchsorted(asked, back)

    def _begin(self, early: Forecaster, series: Series) -> Start | None:
        n = len(series.values)
        begin = max(steps_in(n, 1.0 - self.share), early.needs)
        origins = np.arange(begin, n - self.horizon + 1, max(self.every // 4, 1))
        if len(origins) < _LEAST_ORIGINS:
            return None
        known = np.arange(early.needs, n, self.every)
        edges = np.quantile(roughness(series.values, known, self.horizon), [1 / 3, 2 / 3])
        rolled = roll(early, series, origins, self.horizon)
        regimes = _regimes(roughness(series.values, origins, self.horizon), edges)
        still = np.zeros((len(edges) + 1, self.horizon, len(DECILES)))
        order = np.arange(len(origins))[None]
        factors = scanned(rolled, regimes, order, np.array([n]), still, self._pace)[0]
        return Start(factors, edges, float(series.start_s + n * series.step_s))


def moved(rolled: Rolled, regimes: NDArray[np.int64], back: NDArray[np.int64], start: Floats, pace: Pace) -> Floats:
    """The log factors [origins, h, 9] at the last origin of each row of `back` [origins, looks], places in `rolled`."""
    at = rolled.origins[back[:, -1]]
    factors = scanned(rolled, regimes, back[:, :-1], at, start, pace)
    return factors[np.arange(len(back)), regimes[back[:, -1]]]


def scanned(
    rolled: Rolled,
    regimes: NDArray[np.int64],
    back: NDArray[np.int64],
    at: NDArray[np.int64],
    start: Floats,
    pace: Pace,
) -> Floats:
    """The log factors [rows, regimes, h, 9] after the outcomes `back` [rows, looks] that were on record `at` [rows]."""
    rows = np.arange(len(back))
    factors = np.tile(start, (len(back), 1, 1, 1))
    ahead = np.arange(rolled.said.shape[1])
    median = rolled.said[..., MEDIAN]
    gaps = rolled.said - median[..., None]
    for look in range(back.shape[1]):
        one = back[:, look]
        repeated = (one == back[:, look - 1]) & (look > 0)
        known = (rolled.origins[one][:, None] + ahead < at[:, None]) & ~repeated[:, None]
        truth = np.where(known, rolled.truth[one], np.nan)
        mine = factors[rows, regimes[one]]
        off = (truth - median[one])[..., None] - np.exp(mine) * gaps[one]
        beyond = np.where(_UPPER, off > 0.0, off < 0.0)
        push = np.where(np.isnan(truth)[..., None], 0.0, pace.rate * (beyond - _BEYOND))
        factors += pace.spill * push[:, None]
        factors[rows, regimes[one]] += (1.0 - pace.spill) * push
        np.clip(factors, *_FACTORS, out=factors)
    return factors


def roughness(values: Floats, origins: Origins, steps: int) -> Floats:
    """How much the series moved from step to step in the last `steps` steps before each origin [origins]."""
    moves = np.abs(np.diff(values, prepend=values[:1]))
    total = np.concatenate([[0.0], np.nancumsum(moves)])
    return (total[origins] - total[np.maximum(origins - steps, 0)]) / steps


def _regimes(rough: Floats, edges: Floats) -> NDArray[np.int64]:
    """0 calm, 1 usual, 2 rough."""
    return np.searchsorted(edges, rough)


def _series(past: Past, row: int) -> Series:
    """The past of one origin as a series of its own."""
    context = past.y.shape[1]
    start_s = int(past.origin_s[row]) - context * past.step_s
    return Series(past.ids[row], start_s, past.step_s, past.y[row], past.known[row], past.seen[row], past.static[row])
