"""A series as trend with change points + week + year + what is known ahead, by generalised ridge regression.

Each part has its own prior width, found by maximising the evidence (MacKay 1992, Bayesian interpolation, Neural
Computation 4): a part that the data do not speak for shrinks to nothing. The noise is first-order autoregressive and
whitened before (Cochrane and Orcutt 1949, JASA 44), so that a slow wander is not taken for a season. A positive
series is decomposed by its logarithm: parts multiply.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from agents.forecast.frames import Floats
from agents.forecast.long import seasons
from agents.forecast.long.totals import DAY_S, MONTH_S, WEEK_S, YEAR_S
from agents.forecast.long.trend import changes, damped

_LOOKS = 2  # for change points
_ROUNDS = 3  # whitening and weights in turns
_EVIDENCE = 12
_MEMORY_MOST = 0.97
_YEARLY_AFTER_S = 1.25 * YEAR_S
_SEGMENT_LEAST_S = 84 * DAY_S
_LOG_ABOVE = 0.05  # of the median: a series that never falls below is decomposed by its logarithm
_PARAMETERS = 3  # of a change: where, level, slope


@dataclass(frozen=True, slots=True)
class Decomposition:
    """What a series was made of, and will be.

    Attributes:
        parts: "trend", "week", "year", "known" [steps + h] each, of those that could be looked for; they add up, or
            multiply where `multiplies`.
        fitted: all parts together [steps + h], in the series' own unit: a mean, not a median.
        flat: the same with the trend held from the origin on [steps + h].
        changes: the steps at which level or slope of the trend changed.
        slope: of the trend at the origin, per year; a share of the level where parts multiply.
        memory: autocorrelation of the noise from step to step.
        noise: deviation of the noise; a share of the level where parts multiply.
    """

    parts: Mapping[str, Floats]
    fitted: Floats
    flat: Floats
    changes: tuple[int, ...]
    slope: float
    memory: float
    noise: float
    multiplies: bool


def decompose(
    values: Floats,
    start_s: float,
    step_s: int,
    h: int = 0,
    known: Floats | None = None,
    *,
    damping_years: float = 1.0,
    yearly: bool = True,
) -> Decomposition:
    """The decomposition of a series, with `h` steps to come.

    Args:
        values: the series [steps], finite.
        start_s: when it begins, in s on its own clock (0: midnight of a Monday, for the names of the days).
        step_s: seconds of a step.
        h: steps to come.
        known: regressors (holidays, launches) [steps + h, columns].
        damping_years: the slope of the trend fades with this memory.
        yearly: look for a yearly season, where fifteen months or more are on record.
    """
    n = len(values)
    multiplies = bool(values.min() > _LOG_ABOVE * np.median(values) > 0.0)
    y = np.log(values) if multiplies else values
    time_s = start_s + step_s * np.arange(n + h, dtype=np.float64)
    parts = _columns(time_s, n, step_s, known, yearly=yearly)
    at = _changes(y, parts, n, step_s)
    line, ahead = _trend(n, h, at, damping_years * YEAR_S / step_s)
    groups = {"trend": line, **parts}
    weights, memory, rest = _regress(y, {name: part[:n] for name, part in groups.items()})
    said = {name: part @ weights[name] for name, part in groups.items()}
    level = y.mean() - sum(float(part[:n].mean()) for part in said.values())
    said["trend"] = said["trend"] + level
    held = np.where(np.arange(n + h) < n, said["trend"], said["trend"][n - 1])
    slope = float(ahead @ weights["trend"]) * YEAR_S / step_s
    carried = rest[-1] * memory ** np.arange(1, h + 1)
    total = sum(said.values(), np.concatenate([np.zeros(n), carried]))
    smear = float(np.exp(rest).mean()) if multiplies else 1.0  # Duan (1983): the mean, not the median
    raw = {True: lambda z: np.exp(z) * smear, False: lambda z: z}[multiplies]
    return Decomposition(
        {name: np.exp(part) if multiplies else part for name, part in said.items()},
        raw(total),
        raw(total - said["trend"] + held),
        tuple(at),
        slope,
        memory,
        float(rest.std()),
        multiplies,
    )


def _columns(time_s: Floats, n: int, step_s: int, known: Floats | None, *, yearly: bool) -> dict[str, Floats]:
    """The columns [steps + h, ...] of every part but the trend, centred where the series is on record."""
    columns = {}
    if n * step_s >= 2 * WEEK_S and step_s <= DAY_S:
        columns["week"] = seasons.week(time_s)
    if yearly and n * step_s >= _YEARLY_AFTER_S:
        columns["year"] = seasons.year(time_s, step_s)
    if known is not None and known.shape[1]:
        columns["known"] = known
    return {name: part - part[:n].mean(axis=0) for name, part in columns.items()}


def _trend(n: int, h: int, at: list[int], memory: float) -> tuple[Floats, Floats]:
    """Columns [steps + h, 1 + 2 changes] of slope, new slopes and new levels, and their slopes at the origin.

    A new slope turns about the middle of what follows it, so that it leaves the mean level there as it is.
    """
    t = np.arange(n + h, dtype=np.float64)
    t[n:] = n - 1 + damped(t[n:] - (n - 1), memory)
    scale = max(n - 1, 1)
    columns, slopes = [(t - t[:n].mean()) / scale], [1.0 / scale]
    for change in at:
        after = np.arange(n + h) >= change
        columns += [after * (t - t[change:n].mean()) / scale, after - after[:n].mean()]
        slopes += [1.0 / scale, 0.0]
    return np.stack(columns, axis=1), np.array(slopes)


def _changes(y: Floats, parts: Mapping[str, Floats], n: int, step_s: int) -> list[int]:
    """The steps at which the trend changes, found in means of weeks after the seasons are taken out."""
    block = max(WEEK_S // step_s, 1)
    shortest = max(_SEGMENT_LEAST_S // (block * step_s), 3)
    if n // block < 2 * shortest:
        return []
    bends = _bends(n, max(3 * MONTH_S // step_s, 2))
    first, found = n % block, list[int]()
    for _ in range(_LOOKS):
        # a bend cannot jump: the next look goes by what was found, lest the year is bent to make the jump
        groups = {
            "trend": _trend(n, 0, found, 1.0)[0] if found else bends,
            **{name: part[:n] for name, part in parts.items()},
        }
        weights, memory, rest = _regress(y, groups)
        level = y - sum((groups[name] @ weights[name] for name in parts), np.zeros(n))
        means = level[first:].reshape(-1, block).mean(axis=1)
        # the long-run variance of the mean of a block: autocorrelated noise wanders, and a wander is not a change
        variance = rest.var() * (1.0 + memory) / (1.0 - memory) / block
        penalty = _PARAMETERS * np.log(len(means)) * variance
        found = [first + block * at for at in changes(means, penalty, int(shortest))]
    return found


def _bends(n: int, every: int) -> Floats:
    """A smooth trend for a first look: a line that may bend every so many steps [n, columns]."""
    t = np.arange(n, dtype=np.float64)
    hinges = np.maximum(t[:, None] - np.arange(0, n - every // 2, every), 0.0) / n
    return hinges - hinges.mean(axis=0)


def _regress(y: Floats, groups: Mapping[str, Floats]) -> tuple[dict[str, Floats], float, Floats]:
    """The weights of every group, the memory of the noise, and the noise [n]."""
    x = np.concatenate(list(groups.values()), axis=1)
    sizes = [part.shape[1] for part in groups.values()]
    rest = centred = y - y.mean()
    memory, weights = 0.0, np.zeros(x.shape[1])
    for _ in range(_ROUNDS):
        weights = _ridge(_whitened(x, memory), _whitened(centred, memory), sizes)
        rest = centred - x @ weights
        spread = float(rest @ rest)
        memory = float(np.clip(rest[1:] @ rest[:-1] / spread, 0.0, _MEMORY_MOST)) if spread > 0.0 else 0.0
    split = np.split(weights, np.cumsum(sizes)[:-1])
    return dict(zip(groups, split, strict=True)), memory, rest


def _whitened(x: Floats, memory: float) -> Floats:
    first = np.sqrt(1.0 - memory**2) * x[:1]
    return np.concatenate([first, x[1:] - memory * x[:-1]])


def _ridge(x: Floats, y: Floats, sizes: list[int]) -> Floats:
    """Weights [columns] with a prior width for each group, by fixed-point steps of the evidence."""
    group = np.repeat(np.arange(len(sizes)), sizes)
    gram, together, n = x.T @ x, x.T @ y, len(y)
    size = np.maximum(np.diag(gram), 1e-12)
    noise = max(float(y @ y) / n, 1e-300)
    precision = np.bincount(group, size / n, len(sizes)) / np.maximum(sizes, 1) / noise
    weights = np.zeros(x.shape[1])
    for _ in range(_EVIDENCE):
        spread = np.linalg.inv(gram / noise + np.diag(precision[group]) + 1e-10 * np.diag(size) / noise)
        weights = spread @ together / noise
        told = 1.0 - precision[group] * np.diag(spread)
        free = np.bincount(group, told, len(sizes))
        power = np.bincount(group, weights**2, len(sizes))
        precision = np.clip(free, 1e-6, None) / np.maximum(power, 1e-300)
        precision = np.minimum(precision, 1e12 * np.bincount(group, size / n, len(sizes)) / noise + 1e-300)
        rest = y - x @ weights
        noise = max(float(rest @ rest) / max(n - free.sum(), 1.0), 1e-300)
    return weights
