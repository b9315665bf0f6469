"""What a few seeds can say: interquartile means, bootstrap intervals, paired comparisons, the `summary` table.

For reports: the interquartile mean with a percentile bootstrap interval (`summarise`). For judging: the plain mean
of paired values with the same bootstrap widened for small samples (`Means`), since a trimmed mean would hide the one
bad seed in ten that a gate is there to find.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from twin.errors import UsageError
from twin.seeds import child
from twin.trace import tables

_RESAMPLES = 2_000
_DRAWS = 10_000
_KEY = ("controller", "scenario", "kpi", "entity")


def iqm(values: ArrayLike) -> float:
    """The interquartile mean: the mean without the lowest and the highest quarter (NaN for no values)."""
    array = np.asarray(values, dtype=np.float64)
    return float(stats.trim_mean(array, 0.25)) if array.size else math.nan


def bootstrap_interval(values: ArrayLike, seed: int | np.random.Generator, level: float = 0.95) -> tuple[float, float]:
    """Lower and upper end of the percentile bootstrap interval of the interquartile mean.

    One value says nothing about its spread: (NaN, NaN). Equal values give that value twice.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size < 2:
        return math.nan, math.nan
    if (array == array[0]).all():
        return float(array[0]), float(array[0])
    interval = stats.bootstrap(
        (array,),
        lambda x, axis: stats.trim_mean(x, 0.25, axis=axis),
        n_resamples=_RESAMPLES,
        confidence_level=level,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def paired_ratios(candidate: ArrayLike, baseline: ArrayLike) -> NDArray[np.float64]:
    """Candidate / baseline, value by value; where the baseline is 0: 1 if both are, else NaN (no ratio)."""
    above, below = np.asarray(candidate, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    ratios = np.full(above.shape, np.nan)
    np.divide(above, below, out=ratios, where=below != 0)
    ratios[(below == 0) & (above == 0)] = 1.0
    return ratios


@dataclass(frozen=True, slots=True)
class Means:
    """The mean of `count` values and its sorted bootstrap `draws`.

    The percentile bootstrap is too narrow for few values. `interval` takes its quantiles farther out, by the
    factor sqrt(n / (n - 1)) and Student's t for the normal distribution (the expanded percentile interval of
    Hesterberg, The American Statistician 69(4), 2015); `probability_below` widens in the same way. Both know what n
    agreeing seeds can carry: no interval whose tails are thinner than 2^-n, the chance that n coins agree, and no
    probability beyond (n + 1) / (n + 2), Laplace's rule of succession.
    """

    value: float
    count: int
    draws: NDArray[np.float64]

    def interval(self, level: float) -> tuple[float, float]:
        """The two-sided interval of that level; (NaN, NaN) for fewer than `values_needed(level)` values."""
        if self.count < values_needed(level):
            return math.nan, math.nan
        quantile = stats.t.ppf(0.5 + level / 2, self.count - 1) * math.sqrt(self.count / (self.count - 1))
        tail = float(stats.norm.cdf(-quantile))
        low, high = np.quantile(self.draws, [tail, 1.0 - tail])
        return float(low), float(high)

    def probability_below(self, bound: float, chances: int = 1) -> float:
        """How sure it is that the true mean is at most `bound`; 0 for fewer than two values.

        `chances`: of how many means this one was picked because it looked best (Bonferroni).
        """
        if self.count < 2:
            return 0.0
        share = float(np.searchsorted(self.draws, bound, side="right")) / len(self.draws)
        quantile = stats.norm.ppf(share) * math.sqrt((self.count - 1) / self.count)
        doubt = chances * float(stats.t.sf(quantile, self.count - 1))
        most = (self.count + 1) / (self.count + 2)
        return min(max(1.0 - doubt, 1.0 - most), most)


def values_needed(level: float) -> int:
    """How many values a two-sided interval of that level needs: fewer would agree by chance too often."""
    return max(2, math.ceil(math.log2(2.0 / (1.0 - level))))


def means(values: ArrayLike, rng: np.random.Generator) -> Means:
    """The bootstrapped mean of finite values."""
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        return Means(math.nan, 0, array)
    if (array == array[0]).all():
        return Means(float(array[0]), array.size, np.full(_DRAWS, array[0]))
    draws = array[rng.integers(array.size, size=(_DRAWS, array.size))].mean(axis=1)
    return Means(float(array.mean()), array.size, np.sort(draws))


def summarise(results: pl.DataFrame, baseline: str, seed: int) -> pl.DataFrame:
    """The `summary` table of a `results` table: each KPI of each controller, raw and as a ratio to the baseline.

    A ratio is taken seed by seed (common random numbers) and summarised like the values. Values that are null or
    not finite are unscored: `seeds` counts the others. A ratio is null as soon as one of its pairs has none, because
    leaving that pair out would flatter the controller.

    Args:
        results: a `results` table.
        baseline: the controller that ratios are taken to.
        seed: of the bootstrap; the same seed gives the same bytes.

    Raises:
        SchemaError: `results` is not a results table.
        UsageError: `baseline` is not in it, or a cell (controller, scenario, seed, KPI, entity) is there twice.
    """
    frame = tables.conform(results, "results", "results")
    check_cells(frame)
    if baseline not in frame["controller"]:
        known = sorted(frame["controller"].unique())
        raise UsageError(f"results have no controller {baseline!r} to compare with; they have {known}")
    groups = dict(frame.group_by(_KEY, maintain_order=True))
    rows = [_summary_row(key, group, groups.get((baseline, *key[1:])), baseline, seed) for key, group in groups.items()]
    dtypes = {c.name: c.dtype for c in tables.schema("summary")}
    return tables.conform(pl.DataFrame(rows, schema=dtypes, orient="row"), "summary", "summary")


def check_cells(results: pl.DataFrame) -> None:
    """Raise UsageError when a cell of a `results` table is there twice."""
    cell = (*_KEY, "seed")
    twice = results.filter(results.select(cell).is_duplicated())
    if twice.height:
        where = ", ".join(f"{name} {twice[name][0]!r}" for name in cell)
        raise UsageError(f"results hold the same cell more than once: {where}; keep one run of each seed")


def _summary_row(
    key: Sequence[object], group: pl.DataFrame, base: pl.DataFrame | None, baseline: str, seed: int
) -> tuple[object, ...]:
    scored = _scored(group)
    values = scored["value"].to_numpy()
    rng = child(seed, "/".join(map(str, key)))
    value = (iqm(values), *bootstrap_interval(values, rng))
    ratio = _ratio(scored, base, rng) if base is not None else (math.nan,) * 3
    controller, scenario, kpi, entity = key
    labels = (controller, scenario, kpi, entity, group["unit"][0], group["better"][0], scored.height)
    return (*labels, *map(_known, value), *map(_known, ratio), baseline)


def _ratio(scored: pl.DataFrame, base: pl.DataFrame, rng: np.random.Generator) -> tuple[float, float, float]:
    pairs = scored.join(_scored(base), on="seed", suffix="_baseline", maintain_order="left")
    ratios = paired_ratios(pairs["value"].to_numpy(), pairs["value_baseline"].to_numpy())
    if not len(ratios) or np.isnan(ratios).any():
        return math.nan, math.nan, math.nan
    return iqm(ratios), *bootstrap_interval(ratios, rng)


def _scored(group: pl.DataFrame) -> pl.DataFrame:
    return group.filter(pl.col("value").is_finite()).select("seed", "value", "unit", "better").sort("seed")


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
