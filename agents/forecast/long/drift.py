"""A level that drifts: growth reverts to what is usual among series of a kind, and how fast is learned from them all.

The logarithm of the level is a Gaussian process: a line of the usual growth, an integrated Ornstein-Uhlenbeck process
(growth that differs for a while), a random walk (steps), a year of two harmonics, what is known ahead, and first-order
autoregressive noise. Changes of growth and steps that come at a rate have these covariances, so the spread grows with
the horizon as changes happen. The five scales and two means are those of the greatest posterior over a panel of series
(empirical Bayes: Rasmussen and Williams 2006, Gaussian processes for machine learning, chapters 2 and 5; the integral
of the process: Taylor, Cumberland and Sy 1994, JASA 89). A single series is left with the weak priors below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize
from scipy.stats import norm

from agents.forecast.base import DECILES
from agents.forecast.frames import Floats
from agents.forecast.long.totals import DAY_S, WEEK_S, YEAR_S
from twin.errors import UsageError

LEAST_YEARS = 1.25  # below that a year cannot be told from a trend
_COARSE = 4  # weeks of a block where scales are learned: drift is slow, and the search is 64 times as fast
_LEVEL = 4.0  # prior variance of the level: anything
_TOLD = 0.5  # a column of which more varies within weeks than between them is told within weeks
_JITTER = 1e-10
_ROUNDS = 15


@dataclass(frozen=True, slots=True)
class Beliefs:
    """What is usual among series of a kind, per year and in logarithms.

    Attributes:
        growth: mean growth.
        differs: deviation of the growth of one series at one time.
        fades: rate at which growth returns to the mean.
        wander: deviation of what steps add.
        yearly: deviation of the first harmonic of the year; half of it of the second.
        known: mean weight of columns that are known ahead.
        known_differs: deviation of that weight between series.
    """

    growth: float = 0.0
    differs: float = 0.15
    fades: float = 0.5
    wander: float = 0.05
    yearly: float = 0.05
    known: float = 0.0
    known_differs: float = 0.3


_WIDTHS = np.array([0.2, 1.0, 0.7, 1.0, 1.0, 1.0, 0.7])  # of the priors, in logarithms where positive
_POSITIVE = np.array([False, True, True, True, True, False, True])


@dataclass(frozen=True, slots=True)
class Record:
    """One positive series until an origin: `y` [steps], `known` [steps + h, columns], and its noise by step."""

    y: Floats
    start_s: float
    step_s: int
    known: Floats
    memory: float
    noise: float

    @property
    def week(self) -> int:
        """Steps of a week, at least 1."""
        return max(WEEK_S // self.step_s, 1)


@dataclass(frozen=True, slots=True)
class Drift:
    """How one series drifts: what is usual, its own noise."""

    beliefs: Beliefs
    memory: float
    noise: float

    def deciles(self, record: Record, point: Floats, sums: Floats) -> Floats:
        """Deciles [blocks, 9] of sums [blocks, h] over a forecast [h] that is not below 0; they are log-normal."""
        total = sums @ point
        width = self._deviations(ahead(self.beliefs, record, len(point))[1], point, sums)
        return total[:, None] * np.exp(width[:, None] * norm.ppf(DECILES))

    def paths(self, record: Record, point: Floats, draws: int, rng: np.random.Generator) -> Floats:
        """Drawn futures [draws, h] of a forecast [h]."""
        covariance = ahead(self.beliefs, record, len(point))[1]
        values, vectors = np.linalg.eigh(covariance)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        return point * np.exp(rng.standard_normal((draws, len(point))) @ root.T - 0.5 * self.noise**2)

    @staticmethod
    def _deviations(covariance: Floats, point: Floats, sums: Floats) -> Floats:
        """Of the logarithms of sums [blocks]: each step counts with its share of the sum."""
        shares = sums * point / (sums @ point)[:, None]
        return np.sqrt(np.einsum("bi,ij,bj->b", shares, covariance, shares, optimize=True))


@dataclass(frozen=True, slots=True)
class _Level:
    """Means of blocks [blocks] without the week: when, what is known of them, and the covariance of their noise."""

    first: int
    block: int
    years: Floats
    means: Floats
    known: Floats
    noise: Floats


@dataclass(frozen=True, slots=True)
class _Week:
    """Weights of weekdays and of the columns `told` within weeks."""

    weights: Floats
    told: np.ndarray


def suits(y: Floats, step_s: int) -> bool:
    """Whether a series is positive, long and coarse enough."""
    return step_s >= DAY_S and len(y) * step_s >= LEAST_YEARS * YEAR_S and bool(y.min() > 0.05 * np.median(y) > 0.0)


def learned(records: Sequence[Record]) -> Beliefs:
    """The beliefs of greatest posterior over all series; those of one series stay near the priors.

    Raises UsageError without any series.
    """
    if not records:
        raise UsageError("drift: no series is long and positive enough to learn from; give one of 15 months or more")
    levels = [_level(record, _week(record), _COARSE) for record in records]
    begin = _packed(Beliefs())

    def loss(moved: Floats) -> float:
        beliefs = _unpacked(begin + _WIDTHS * moved)
        return sum(_surprise(beliefs, level) for level in levels) + 0.5 * float(moved @ moved)

    found = minimize(loss, np.zeros(len(begin)), method="L-BFGS-B", bounds=[(-3, 3)] * 7, options={"maxiter": _ROUNDS})
    return _unpacked(begin + _WIDTHS * found.x)


def ahead(beliefs: Beliefs, record: Record, h: int) -> tuple[Floats, Floats]:
    """The next steps: their mean [h] in the series' unit, and the covariance [h, h] of their logarithms."""
    week = _week(record)
    level = _level(record, week, 1)
    n = len(record.y)
    steps = np.arange(n, n + h)
    years = (record.start_s + steps * record.step_s) / YEAR_S
    known = record.known[n : n + h]
    loose = known[:, ~week.told]
    origin = level.years[0] - 0.01
    inside = _kernel(beliefs, origin, (level.years, level.known)) + level.noise + _JITTER * np.eye(len(level.years))
    starts = level.first + level.block * np.arange(len(level.years))
    lag = steps[:, None] - (starts + level.block - 1)
    shape = float((record.memory ** np.arange(level.block)).mean())
    across = _kernel(beliefs, origin, (years, loose), (level.years, level.known))
    across = across + record.noise**2 * shape * record.memory**lag
    factor = cho_factor(inside)
    rest = level.means - _line(beliefs, origin, level.years, level.known) - level.means[0]
    mean = level.means[0] + _line(beliefs, origin, years, loose) + across @ cho_solve(factor, rest)
    own = record.noise**2 * record.memory ** np.abs(steps[:, None] - steps)
    covariance = _kernel(beliefs, origin, (years, loose)) + own - across @ cho_solve(factor, across.T)
    columns = _columns(record, steps, known[:, week.told])
    return np.exp(mean + columns @ week.weights + 0.5 * record.noise**2), covariance


def _packed(beliefs: Beliefs) -> Floats:
    values = np.array(astuple(beliefs))
    return np.where(_POSITIVE, np.log(np.where(_POSITIVE, values, 1.0)), values)


def _unpacked(values: Floats) -> Beliefs:
    return Beliefs(*np.where(_POSITIVE, np.exp(np.where(_POSITIVE, values, 0.0)), values).tolist())


def _columns(record: Record, steps: np.ndarray, told: Floats) -> Floats:
    """Columns [steps, week - 1 + told] of the steps' places in the week and of what is told within weeks."""
    place = (round(record.start_s / record.step_s) + steps) % record.week
    days = (place[:, None] == np.arange(record.week - 1)).astype(float) - (place[:, None] == record.week - 1)
    return np.concatenate([days, told], axis=1)


def _week(record: Record) -> _Week:
    """Least squares of the logarithms within each week: the drift between weeks has no say."""
    n, known = len(record.y), record.known[: len(record.y)]
    first = n % record.week

    def within(values: Floats) -> Floats:
        blocks = values[first:].reshape(n // record.week, record.week, *values.shape[1:])
        return (blocks - blocks.mean(axis=1, keepdims=True)).reshape(values[first:].shape)

    told = within(known).var(axis=0) > _TOLD * known[first:].var(axis=0)
    x = within(_columns(record, np.arange(n), known[:, told]))
    gram = x.T @ x + 1e-3 * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, x.T @ within(np.log(record.y))).astype(np.float64)
    return _Week(weights, told)


def _level(record: Record, week: _Week, weeks: int) -> _Level:
    n, block = len(record.y), record.week * weeks
    first = n % block
    count = n // block
    clean = np.log(record.y) - _columns(record, np.arange(n), record.known[:n, week.told]) @ week.weights
    middle = first + block * np.arange(count) + (block - 1) / 2
    lags = np.arange(block)[:, None] - np.arange(block)
    alike = np.array([(record.memory ** np.abs(block * k + lags)).mean() for k in range(count)])
    between = np.abs(np.arange(count)[:, None] - np.arange(count))
    loose = record.known[first:n, ~week.told].reshape(count, block, int((~week.told).sum())).mean(axis=1)
    years = (record.start_s + middle * record.step_s) / YEAR_S
    means = clean[first:].reshape(count, block).mean(axis=1)
    return _Level(first, block, years, means, loose, record.noise**2 * alike[between])


def _line(beliefs: Beliefs, origin: float, years: Floats, known: Floats) -> Floats:
    return beliefs.growth * (years - origin) + beliefs.known * known.sum(axis=1)


def _kernel(
    beliefs: Beliefs, origin: float, here: tuple[Floats, Floats], there: tuple[Floats, Floats] | None = None
) -> Floats:
    """Covariance of the level between moments and what is known of them: (years [n], known [n, columns]) each."""
    (a, x), (b, z) = here, here if there is None else there
    a, b = a[:, None] - origin, b[None] - origin
    rate, both = beliefs.fades, np.minimum(a, b)
    turned = 2.0 * rate * both - 1.0 + np.exp(-rate * a) + np.exp(-rate * b) - np.exp(-rate * np.abs(a - b))
    angle = 2.0 * np.pi * (a - b)
    year = beliefs.yearly**2 * (np.cos(angle) + 0.25 * np.cos(2.0 * angle))
    drift = beliefs.wander**2 * both + (beliefs.differs / rate) ** 2 * turned
    return _LEVEL + drift + year + beliefs.known_differs**2 * (x @ z.T)


def _surprise(beliefs: Beliefs, level: _Level) -> float:
    """Negative logarithm of the likelihood, but for a constant."""
    origin = level.years[0] - 0.01
    size = len(level.years)
    covariance = _kernel(beliefs, origin, (level.years, level.known)) + level.noise + _JITTER * np.eye(size)
    root = np.linalg.cholesky(covariance)
    rest = level.means - level.means[0] - _line(beliefs, origin, level.years, level.known)
    scaled = solve_triangular(root, rest, lower=True)
    return 0.5 * float(scaled @ scaled) + float(np.log(np.diag(root)).sum())
