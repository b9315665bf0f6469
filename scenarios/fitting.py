"""Distributions of times between failures and of times to repair: drawn from, and fitted to recordings.

Exponential, Weibull and lognormal: in nine years of failures at LANL (Schroeder and Gibson, DSN 2006) times between
failures follow a Weibull distribution with a falling hazard (shape 0.7 to 0.8) and times to repair a lognormal one;
the exponential distribution, which has no memory, fits neither.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from twin.errors import ScenarioError

Family = Literal["exponential", "weibull", "lognormal"]
FAMILIES: tuple[Family, ...] = ("exponential", "weibull", "lognormal")
LEAST = 10
"""Fewer samples say too little about a shape."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """A distribution of positive times.

    `scale_s` is the mean of an exponential, the scale of a Weibull, the median of a lognormal distribution; `shape`
    the shape of a Weibull (1 = exponential), the sigma of a lognormal one (0 = always `scale_s`), and nothing to an
    exponential one.
    """

    family: Family
    scale_s: float
    shape: float = 1.0

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ScenarioError(f"no distribution {self.family!r}; there are {list(FAMILIES)}")
        low, high = (0.01, 100.0) if self.family == "weibull" else (0.0, 20.0)
        if not (0 < self.scale_s < math.inf and low <= self.shape <= high):
            raise ScenarioError(
                f"{self}: scale_s must be a number > 0, shape from 0.01 to 100 (0 to 20, the sigma of a lognormal)"
            )

    @property
    def mean_s(self) -> float:
        """The mean, in seconds."""
        if self.family == "weibull":
            return self.scale_s * math.gamma(1.0 + 1.0 / self.shape)
        return self.scale_s * (math.exp(self.shape**2 / 2.0) if self.family == "lognormal" else 1.0)

    def draw(self, rng: np.random.Generator, size: int) -> NDArray[np.float64]:
        """Times in seconds [size]."""
        if self.family == "lognormal":
            return self.scale_s * np.exp(self.shape * rng.standard_normal(size))
        power = 1.0 / self.shape if self.family == "weibull" else 1.0
        return self.scale_s * rng.standard_exponential(size) ** power

    def wait(self, rng: np.random.Generator) -> float:
        """The time in seconds from a moment that knows of no event to the next event.

        Such a moment falls into a gap the more likely the longer it is (density x f(x) / mean), and anywhere in it.
        With this first gap a renewal process is stationary: T seconds hold T / mean events in the mean, from the first
        second on (Cox, Renewal Theory, 1962, section 2.2).
        """
        if self.family == "lognormal":
            gap = self.scale_s * math.exp(self.shape**2 + self.shape * rng.standard_normal())
        else:
            power = 1.0 / self.shape if self.family == "weibull" else 1.0
            gap = self.scale_s * rng.standard_gamma(1.0 + power) ** power
        return float(gap * rng.random())

    def arrivals(self, end_s: float, rng: np.random.Generator) -> NDArray[np.float64]:
        """The instants in [0, end_s) of a stationary renewal process with these gaps."""
        block = math.ceil(min(end_s / self.mean_s, 1e6)) + 16
        times = np.array([self.wait(rng)])
        while times[-1] < end_s:
            times = np.concatenate([times, times[-1] + np.cumsum(self.draw(rng, block))])
        return times[times < end_s]


@dataclass(frozen=True, slots=True)
class Fitted:
    """A distribution fitted to `samples` by maximum likelihood, and how well it fits.

    `ks` is the Kolmogorov-Smirnov statistic, the largest distance between the two distribution functions (its usual
    p-value does not hold for parameters that were fitted to the same samples); `aic` = 2 parameters - 2 log-likelihood.
    """

    distribution: Distribution
    samples: int
    ks: float
    log_likelihood: float
    aic: float

    def __str__(self) -> str:
        """One line for notes and reports."""
        law = self.distribution
        shape = "" if law.family == "exponential" else f", shape {law.shape:.3g}"
        return (
            f"{law.family} (scale {law.scale_s:.6g} s{shape}; KS {self.ks:.3f}, AIC {self.aic:.1f}, n {self.samples})"
        )


def fit(samples: NDArray[np.float64]) -> Fitted:
    """The best fit of the families by AIC to positive times in seconds [n]; raises ScenarioError as `fits` does."""
    return fits(samples)[0]


def fits(samples: NDArray[np.float64]) -> tuple[Fitted, ...]:
    """The maximum-likelihood fits of all families to positive times in seconds [n], the best by AIC first.

    Raises:
        ScenarioError: fewer than ten samples, samples that are no positive numbers, or all of them equal.
    """
    times = np.asarray(samples, dtype=np.float64)
    if times.size < LEAST or not (np.isfinite(times) & (times > 0)).all() or np.ptp(times) == 0:
        raise ScenarioError(
            f"cannot fit a distribution to {times.size} times: at least {LEAST} are needed, all of them numbers > 0 "
            "and not all equal; leave out gaps of 0 s"
        )
    logs = np.log(times)
    shape = _weibull_shape(logs)
    scale_s = math.exp(logs.max() + math.log(np.mean(np.exp(shape * (logs - logs.max())))) / shape)
    candidates = (
        Distribution("exponential", float(times.mean())),
        Distribution("weibull", scale_s, shape),
        Distribution("lognormal", math.exp(logs.mean()), float(logs.std())),
    )
    return tuple(sorted((_judged(each, times) for each in candidates), key=lambda fitted: fitted.aic))


def _weibull_shape(logs: NDArray[np.float64]) -> float:
    """The root of the profile likelihood's derivative, sum(x^k ln x) / sum(x^k) - 1/k - mean(ln x), rising in k."""
    from scipy.optimize import brentq

    below = logs - logs.max()  # so that no power overflows

    def slope(shape: float) -> float:
        weights = np.exp(shape * below)
        return float(weights @ below / weights.sum() - 1.0 / shape - below.mean())

    low, high = 1e-3, 1.0
    while slope(high) < 0:
        high *= 2.0
    while slope(low) > 0:
        low /= 2.0
    return float(brentq(slope, low, high, xtol=1e-12, rtol=1e-12))  # pyright: ignore[reportArgumentType]


def _judged(distribution: Distribution, times: NDArray[np.float64]) -> Fitted:
    frozen = _scipy(distribution)
    likelihood = float(frozen.logpdf(times).sum())
    ordered = frozen.cdf(np.sort(times))
    steps = np.arange(times.size + 1) / times.size
    ks = float(max((steps[1:] - ordered).max(), (ordered - steps[:-1]).max()))
    parameters = 1 if distribution.family == "exponential" else 2
    return Fitted(distribution, times.size, ks, likelihood, 2.0 * parameters - 2.0 * likelihood)


def _scipy(distribution: Distribution) -> Any:  # noqa: ANN401 - scipy names no public type of frozen distributions
    from scipy import stats

    if distribution.family == "exponential":
        return stats.expon(scale=distribution.scale_s)
    family = stats.weibull_min if distribution.family == "weibull" else stats.lognorm
    return family(distribution.shape, scale=distribution.scale_s)
