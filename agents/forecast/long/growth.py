"""What if it grows otherwise? Growth scenarios turn a forecast into another one; they are not its uncertainty.

A scenario is an assumption that somebody makes and answers for: faster growth, a launch, a lost customer. It moves all
paths and deciles of a forecast alike, by a factor for each step ahead, so its own spread stays what was measured. The
table keeps scenarios apart, and `apart` says how much of all that could happen is assumption and how much is forecast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from agents.forecast.base import DECILE_NAMES, MEDIAN
from agents.forecast.frames import Floats
from agents.forecast.long.totals import YEAR_S
from twin.errors import UsageError


@dataclass(frozen=True, slots=True)
class Launch:
    """Demand that comes (or, below 0, goes) on a date.

    Attributes:
        at_s: when it begins, in s on the series' own clock.
        share: of the demand that it adds in full size.
        ramp_s: how long it takes to that size.
    """

    at_s: float
    share: float
    ramp_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Growth:
    """What is assumed beyond the forecast.

    Attributes:
        name: in tables.
        level: factor on everything from the first step on.
        trend: factor on the forecast's own growth since the origin (0: it stops, 2: it doubles).
        growth_per_year: growth that comes on top; 0.2 is a fifth more after a year.
        launches: dated changes.
    """

    name: str
    level: float = 1.0
    trend: float = 1.0
    growth_per_year: float = 0.0
    launches: tuple[Launch, ...] = ()


def usual(slower: float = -0.1, faster: float = 0.2) -> tuple[Growth, Growth, Growth]:
    """Pessimistic, expected and optimistic growth, in growth per year beyond the forecast's own."""
    return (
        Growth("pessimistic", growth_per_year=slower),
        Growth("expected"),
        Growth("optimistic", growth_per_year=faster),
    )


def factors(growth: Growth, time_s: Floats, origin_s: float, trend: Floats | None = None) -> Floats:
    """What the scenario multiplies the demand with at each step [h].

    Args:
        growth: the scenario.
        time_s: when the steps begin [h].
        origin_s: the moment of the forecast.
        trend: the forecast's own growth since the origin as a factor [h] (of `Decomposition.parts["trend"]`), for
            scenarios that change it.

    Raises:
        UsageError: a factor below 0, or a scenario about the trend without one.
    """
    if growth.trend != 1.0 and trend is None:
        raise UsageError(f"growth {growth.name!r} changes the trend: give the forecast's own, as a factor per step")
    years = np.maximum(time_s - origin_s, 0.0) / YEAR_S
    factor = growth.level * (1.0 + growth.growth_per_year) ** years
    if trend is not None and growth.trend != 1.0:
        factor = factor * (1.0 + growth.trend * (trend - 1.0)) / trend
    for launch in growth.launches:
        grown = (time_s - launch.at_s) / launch.ramp_s if launch.ramp_s > 0.0 else np.inf
        factor = factor * (1.0 + launch.share * np.clip(grown, 0.0, 1.0) * (time_s >= launch.at_s))
    if not np.isfinite(factor).all() or (factor < 0.0).any():
        raise UsageError(f"growth {growth.name!r}: factors must be 0 or more, the least is {np.min(factor):g}")
    return factor


def applied(said: Floats, factor: Floats) -> Floats:
    """Deciles [..., h, 9] under a scenario's factors [h]; factors are not negative, so none cross.

    Paths [..., h] are multiplied as they are: `paths * factor`.
    """
    return said * factor[:, None]


def scenarios(
    said: Floats, time_s: Floats, origin_s: float, growths: Sequence[Growth], trend: Floats | None = None
) -> pl.DataFrame:
    """The forecast under every scenario: `scenario`, `time_s`, `factor`, then `q10` to `q90`, one row per step.

    Args:
        said: deciles [h, 9] of the forecast itself.
        time_s: when the steps begin [h].
        origin_s: the moment of the forecast.
        growths: the scenarios, with different names.
        trend: as in `factors`.

    Raises:
        UsageError: two scenarios of one name, or as `factors` does.
    """
    names = [growth.name for growth in growths]
    if len(set(names)) < len(names) or not names:
        raise UsageError(f"scenarios need different names, and at least one; got {names}")
    tables = []
    for growth in growths:
        factor = factors(growth, time_s, origin_s, trend)
        deciles = dict(zip(DECILE_NAMES, applied(said, factor).T, strict=True))
        columns: Mapping[str, Floats] = {"time_s": time_s.astype(np.float64), "factor": factor, **deciles}
        tables.append(pl.DataFrame({"scenario": [growth.name] * len(time_s), **columns}))
    return pl.concat(tables)


def apart(table: pl.DataFrame) -> pl.DataFrame:
    """For each step how far apart the scenarios' medians are, beside how wide the forecast itself is.

    Columns: `time_s`, `between` (greatest minus least median), `within` (the mean width of the 80 % bands).
    """
    median = pl.col(DECILE_NAMES[MEDIAN])
    return table.group_by("time_s", maintain_order=True).agg(
        (median.max() - median.min()).alias("between"),
        (pl.col(DECILE_NAMES[-1]) - pl.col(DECILE_NAMES[0])).mean().alias("within"),
    )
