"""The long forecaster: candidates weighed by how they did inside the training part, with the historic mean as guard.

Months ahead the historic mean is hard to beat. So every candidate is run from rolling origins in the training part,
and its weight is prior x (loss)^-n, with n independent forecasts seen: the likelihood of n Laplace errors of that
scale (pseudo-Bayesian averaging). Where less than a year is on record nine tenths of the prior are the mean's, which
won on recorded logs of that length; a model that proves itself takes over. With a longer record the prior is even:
on generated years (other seeds than those reported) that was better than any lead of the mean. Where several series
of fifteen months or more are fitted together, the drift that is usual among them takes the guard's place, with nine
tenths of the prior, and its spread is taken where it prevails. The horizon is cut in three, because what serves the
first month need not serve the twelfth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Self

import numpy as np

from agents.forecast.base import DECILES, Floats, Past, Progress, check_past, fitted_to
from agents.forecast.frames import Series
from agents.forecast.long import drift
from agents.forecast.long.candidates import FAMILIES, History, decomposed
from agents.forecast.long.spread import Spread, measured
from agents.forecast.long.structural import Decomposition
from agents.forecast.long.totals import DAY_S, YEAR_S
from twin.errors import UsageError

_EDGES_S = (28 * DAY_S, 91 * DAY_S)  # a month, a quarter, and what comes after
_GUARD = 0.9  # prior of the historic mean where less than a year is on record, or of a drift learned from several
_PANEL = 2  # series that a usual drift is learned from, at least
_MEMORY_S = 28 * DAY_S  # errors a month apart count as independent
_BLOCKS_S = (7 * DAY_S, 28 * DAY_S, 91 * DAY_S, 182 * DAY_S, 364 * DAY_S)


@dataclass(frozen=True, slots=True)
class Fitted:
    """What was learned from one series: `weights` of the candidates in each part of the horizon, and the spread.

    `drift` is None where none was learned; where it `prevails` at the end of the horizon its spread is taken.
    """

    weights: tuple[Mapping[str, float], ...]
    spread: Spread
    least: float
    drift: drift.Drift | None = None

    @property
    def prevails(self) -> bool:
        """Whether the drift has more than half of the weight at the end of the horizon."""
        return self.drift is not None and next((w for w in reversed(self.weights) if w), {}).get("drift", 0.0) > 0.5


@dataclass(frozen=True, slots=True)
class Guarded:
    """A forecaster of daily, weekly or monthly series, weeks to a year ahead.

    Attributes:
        horizon: steps ahead that it is judged for in training; it may be asked for others.
        context: steps of history that a forecast looks at.
        needs: steps of history that it cannot do without.
        families: which candidates compete, of `candidates.FAMILIES`.
        origins: forecasts made in the training part.
        damping_years: memory of the slope of the trend.
    """

    horizon: int
    context: int
    needs: int
    families: tuple[str, ...] = ("mean", "seasonal_naive", "smoothing", "structural", "drift")
    origins: int = 10
    damping_years: float = 1.0
    name: str = "structural"
    fits: Mapping[str, Fitted] = field(default_factory=dict, repr=False, compare=False)

    @property
    def pooled(self) -> bool:
        """One model for each series; only what drift is usual is learned from all of them."""
        return False

    def fit(self, series: Sequence[Series], seed: int, progress: Progress | None = None) -> Self:  # noqa: ARG002
        """Weigh the candidates and measure the spread of each series.

        Raises UsageError for an unknown family, or a series with less than a quarter more steps than `needs`.
        """
        unknown = [family for family in self.families if family not in FAMILIES]
        if unknown or not self.families:
            raise UsageError(f"{self.name}: families {unknown or '(none)'}; known are {sorted(FAMILIES)}")
        fits, drifts = {}, self._drifts(series) if "drift" in self.families else {}
        for k, each in enumerate(series):
            fits[each.unique_id] = self._learn(each, drifts.get(each.unique_id))
            if progress:
                progress((k + 1) / len(series), each.unique_id)
        return replace(self, fits=fits)

    def forecast(self, past: Past, h: int) -> Floats:
        """Deciles [batch, h, 9] of each step; raises UsageError when a series was not fitted."""
        return self.forecast_totals(past, [1] * h)

    def forecast_totals(self, past: Past, lengths: Sequence[int]) -> Floats:
        """Deciles [batch, blocks, 9] of the totals of consecutive blocks of so many steps each, from the origin on.

        Deciles of steps do not add up to those of a month: errors of neighbouring steps are alike. These are right
        for the total.
        """
        sums = np.repeat(np.eye(len(lengths)), lengths, axis=1)
        rows = []
        for row, point in enumerate(self.means(past, sums.shape[1])):
            fit = fitted_to(self.fits, past.ids[row], self.name)
            if fit.drift is not None and fit.prevails:
                rows.append(fit.drift.deciles(self._history(past, row, sums.shape[1]).record(), point, sums))
                continue
            variance = np.einsum("bi,ij,bj->b", sums, fit.spread.covariance(point), sums, optimize=True)
            said = fit.spread.deciles(sums @ point, variance)
            rows.append(np.maximum(said, 0.0) if fit.least >= 0.0 else said)
        return np.stack(rows) if rows else np.empty((0, len(lengths), len(DECILES)))

    def means(self, past: Past, h: int) -> Floats:
        """The weighted mean of the candidates [batch, h]; raises UsageError when a series was not fitted."""
        check_past(past, self, h)
        rows = []
        for row, unique_id in enumerate(past.ids):
            fit = fitted_to(self.fits, unique_id, self.name)
            rows.append(_mixed(self._candidates(self._history(past, row, h)), fit.weights, past.step_s))
        return np.stack(rows) if rows else np.empty((0, h))

    def paths(self, past: Past, h: int, draws: int, seed: int) -> Floats:
        """Drawn futures [batch, draws, h]: their sums over steps have the spread of `forecast_totals`."""
        rng = np.random.default_rng(seed)
        rows = []
        for row, point in enumerate(self.means(past, h)):
            fit = fitted_to(self.fits, past.ids[row], self.name)
            if fit.drift is not None and fit.prevails:
                rows.append(fit.drift.paths(self._history(past, row, h).record(), point, draws, rng))
                continue
            drawn = fit.spread.paths(point, draws, rng)
            rows.append(np.maximum(drawn, 0.0) if fit.least >= 0.0 else drawn)
        return np.stack(rows) if rows else np.empty((0, draws, h))

    def decompose(self, past: Past, h: int) -> list[Decomposition]:
        """What each past is made of, with `h` steps to come: trend, week, year, what is known, change points."""
        return [decomposed(self._history(past, row, h)) for row in range(len(past.ids))]

    def _candidates(self, past: History) -> dict[str, Floats]:
        return {name: said for family in self.families for name, said in FAMILIES[family](past).items()}

    def _drifts(self, series: Sequence[Series]) -> dict[str, drift.Drift]:
        """The drift of each series that has one, where enough of them do."""
        suited = [each for each in series if drift.suits(each.values[-self.context :], each.step_s)]
        if len(suited) < _PANEL:
            return {}
        records = {}
        for each in suited:
            whole = self._until(each, len(each.values), 0)
            parts = decomposed(whole)
            records[each.unique_id] = replace(whole.record(), memory=parts.memory, noise=parts.noise)
        beliefs = drift.learned(list(records.values()))
        return {name: drift.Drift(beliefs, record.memory, record.noise) for name, record in records.items()}

    def _history(self, past: Past, row: int, h: int) -> History:
        fit = self.fits.get(past.ids[row])
        return replace(_history(past, row, h, self.damping_years), drift=fit.drift if fit else None)

    def _learn(self, series: Series, own: drift.Drift | None = None) -> Fitted:
        n = len(series.values)
        last = n - max(min(self.horizon, n // 5), 1)
        first = max(self.needs, n // 2)
        if last < first:
            raise UsageError(
                f"{self.name}: series {series.unique_id!r} has {n} steps; {self.needs} and a quarter more are needed"
            )
        origins = np.unique(np.linspace(first, last, self.origins).round().astype(np.int64))
        pasts = [replace(self._until(series, int(o), min(self.horizon, n - int(o))), drift=own) for o in origins]
        said = [self._candidates(past) for past in pasts]
        truth = [series.values[o : o + self.horizon] for o in origins]
        lead = _GUARD if n * series.step_s < YEAR_S or own is not None else 0.0
        weights = tuple(
            _weights(said, truth, span, (n - first) / min(span.stop - span.start, _MEMORY_S / series.step_s), lead)
            for span in _spans(self.horizon, series.step_s)
        )
        spread = self._spread(series, said, truth, weights, n - first)
        return Fitted(weights, spread, float(series.values.min()), own)

    def _until(self, series: Series, origin: int, h: int) -> History:
        start = max(origin - self.context, 0)
        known = series.known[start : origin + h] if series.known.ndim > 1 and series.known.shape[1] else None
        return History(
            series.values[start:origin],
            float(series.start_s + start * series.step_s),
            series.step_s,
            h,
            np.zeros((origin - start + h, 0)) if known is None else known,
            self.damping_years,
        )

    def _spread(
        self,
        series: Series,
        said: list[dict[str, Floats]],
        truth: list[Floats],
        weights: tuple[Mapping[str, float], ...],
        seen: int,
    ) -> Spread:
        scales = bool(series.values.min() >= 0.0)
        errors = np.full((len(said), self.horizon), np.nan)
        for row, (each, came) in enumerate(zip(said, truth, strict=True)):
            point = _mixed(each, weights, series.step_s)
            errors[row, : len(came)] = (came - point) / (point if scales else 1.0)
        memory = decomposed(self._until(series, len(series.values), 0)).memory
        blocks = (1, *(b // series.step_s for b in _BLOCKS_S if series.step_s < b <= self.horizon * series.step_s))
        return measured(errors, memory, max(seen / self.horizon, len(said) / 2), blocks, scales=scales)


def _history(past: Past, row: int, h: int, damping_years: float) -> History:
    """One row of a past, without the steps before the series began."""
    y = past.y[row]
    unknown = int(np.argmax(np.isfinite(y)))
    start_s = float(past.origin_s[row] - (len(y) - unknown) * past.step_s)
    return History(y[unknown:], start_s, past.step_s, h, past.known[row, unknown : len(y) + h], damping_years)


def _spans(horizon: int, step_s: int) -> list[slice]:
    """The parts of a horizon that have weights of their own."""
    edges = sorted({0, *(min(round(edge / step_s), horizon) for edge in _EDGES_S), horizon})
    return [slice(a, b) for a, b in pairwise(edges)]


def _weights(
    said: list[dict[str, Floats]], truth: list[Floats], span: slice, independent: float, lead: float
) -> dict[str, float]:
    """The weight of each candidate in one part of the horizon; the guard has at least the share `lead` of the prior."""
    losses: dict[str, list[float]] = {}
    for each, came in zip(said, truth, strict=True):
        part = came[span]
        if not len(part):
            continue
        for name, values in each.items():
            error = values[span] - part
            losses.setdefault(name, []).append(0.5 * (np.abs(error).mean() + abs(error.mean())))
    if not losses:
        return {}
    most = max(losses, key=lambda name: len(losses[name]))
    guard = next((name for name in ("drift", "mean") if len(losses.get(name, ())) > len(losses[most]) // 2), most)
    independent = min(independent, len(said)) / len(losses[most])
    odds = max(lead / (1.0 - lead) * (len(losses) - 1), 1.0)
    score = {}
    for name, each in losses.items():
        # a candidate that needs more history was seen at the later origins only: compare it there
        shared = min(len(each), len(losses[guard]))
        same = float(np.sum(losses[guard][-shared:]))
        ratio = max(float(np.sum(each[-shared:])), 1e-9 * same, 1e-300) / max(same, 1e-300)
        prior = odds if name == guard else 1.0
        score[name] = prior * ratio ** -(independent * shared)
    return {name: value / sum(score.values()) for name, value in score.items()}


def _mixed(said: Mapping[str, Floats], weights: Sequence[Mapping[str, float]], step_s: int) -> Floats:
    """The weighted mean of the candidates [h]; after the last judged step the last weights hold on."""
    h = len(next(iter(said.values())))
    point = np.zeros(h)
    spans = _spans(max(h, 1), step_s)
    last: Mapping[str, float] = dict.fromkeys(said, 1.0)
    for k, span in enumerate(spans):
        last = (weights[k] if k < len(weights) else {}) or last
        have = {name: weight for name, weight in last.items() if name in said}
        share = sum(have.values())
        point[span] = sum(weight / share * said[name][span] for name, weight in have.items())
    return point
