"""Rolling origins on the last part of each series, and what the forecasts were worth.

Fit once on the first part, then forecast from every origin of the rest with what was known there: long frames in,
a table of forecasts (`forecasts.csv`) and one of scores (`forecast_scores.csv`) out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from agents.forecast.base import DECILE_NAMES, DECILES, Floats, Forecaster, Progress, part
from agents.forecast.frames import Series, first, panel, steps_in
from agents.forecast.rolling import Origins, roll
from agents.forecast.scoring import score as score
from twin.errors import UsageError
from twin.trace import tables


@dataclass(frozen=True, slots=True)
class Failure:
    """A forecaster that could not do a series, and why."""

    forecaster: str
    unique_id: str
    message: str


@dataclass(frozen=True, slots=True)
class Backtest:
    """The forecasts of all that worked; where a forecaster failed its quantiles are NaN, and `failures` says why.

    NaN, not absent: a failed series shows up as a gap in every table and chart, and its scores are NaN.
    """

    forecasts: pl.DataFrame
    failures: tuple[Failure, ...]


def backtest(
    forecasters: Sequence[Forecaster],
    frame: pl.DataFrame,
    *,
    h: int = 12,
    origins_every: int = 24,
    fit_share: float = 0.75,
    seed: int = 0,
    progress: Progress | None = None,
) -> Backtest:
    """The forecasts of every forecaster, on every series, from every origin.

    Args:
        forecasters: unfitted, with different names; each is fitted on the first `fit_share` of the series.
        frame: `unique_id`, `ds`, `y`.
        h: steps ahead.
        origins_every: steps between origins; the first is the end of the fitted part.
        fit_share: share of each series, by time, that may be learned from (0-1).
        seed: of whatever is random in fitting.
        progress: told the share done and the forecaster at work.

    Raises:
        UsageError: two forecasters of one name, a frame that is not regular, or no room for one origin.
    """
    names = [f.name for f in forecasters]
    if len(set(names)) < len(names) or not names:
        raise UsageError(f"a backtest needs at least one forecaster, and different names; got {names}")
    series = panel(frame)
    plans = [_plan(each, h, origins_every, fit_share) for each in series]
    train = first(series, fit_share)
    rows: list[pl.DataFrame] = []
    failures: list[Failure] = []
    for k, forecaster in enumerate(forecasters):
        told = part(progress, k / len(forecasters), (k + 1) / len(forecasters), f"{forecaster.name}: ")
        seen = before_judged(train, plans, h) if forecaster.pooled else train
        for plan, said in rolling(forecaster, plans, h, train=seen, seed=seed, progress=told):
            if isinstance(said, Failure):
                failures.append(said)
            rows.append(_rows(forecaster.name, plan, gap(plan, h) if isinstance(said, Failure) else said))
    return Backtest(tables.conform(pl.concat(rows), "forecasts", "backtest"), tuple(failures))


@dataclass(frozen=True, slots=True)
class Plan:
    """One series and the origins to forecast it from."""

    series: Series
    origins: Origins


def rolling(
    forecaster: Forecaster,
    plans: Sequence[Plan],
    h: int,
    *,
    train: Sequence[Series],
    seed: int,
    progress: Progress | None = None,
) -> Iterator[tuple[Plan, Floats | Failure]]:
    """Each plan with its deciles [origins, h, 9], or with the reason why there are none; nothing is raised.

    Args:
        forecaster: unfitted.
        plans: what to forecast.
        h: steps ahead.
        train: what may be learned from: the first part of each plan's series, in their order, and after them further
            series, which only a forecaster that is pooled sees.
        seed: of whatever is random in fitting.
        progress: told the share done.
    """
    for fitted, plan in _fitted(forecaster, train, plans, seed, progress):
        said = _forecast(fitted, plan, h)
        if isinstance(said, Exception):
            yield plan, Failure(forecaster.name, plan.series.unique_id, f"{type(said).__name__}: {said}")
        else:
            yield plan, said


def before_judged(
    train: Sequence[Series], plans: Sequence[Plan], h: int, together: Callable[[str], str] = lambda _: ""
) -> list[Series]:
    """Each series of `train` up to the earliest moment that judges a series recorded together with it.

    Who learns from many series must not learn from one what he is asked about another.

    Args:
        train: the first parts of series.
        plans: where they, and others, are judged.
        h: steps ahead.
        together: what a series (by id) was recorded in, by default all in one.
    """
    spans: dict[str, list[tuple[int, int]]] = {}
    for plan in plans:
        start_s, step_s = plan.series.start_s, plan.series.step_s
        span_s = (start_s + step_s * int(plan.origins[0]), start_s + step_s * (int(plan.origins[-1]) + h))
        spans.setdefault(together(plan.series.unique_id), []).append(span_s)
    return [each.until(_untold(each, spans.get(together(each.unique_id), []))) for each in train]


def _untold(series: Series, spans: Sequence[tuple[int, int]]) -> int:
    """How many steps of a series come before all of the judged spans, but those that were over when it began."""
    starts = [start_s for start_s, end_s in spans if end_s > series.start_s]
    end_s = min(starts, default=series.start_s + series.step_s * len(series.values))
    return max(min((end_s - series.start_s) // series.step_s, len(series.values)), 0)


def gap(plan: Plan, h: int) -> Floats:
    """The deciles [origins, h, 9] of a forecaster that failed: all NaN."""
    return np.full((len(plan.origins), h, len(DECILES)), np.nan)


def _plan(series: Series, h: int, every: int, fit_share: float) -> Plan:
    n = len(series.values)
    origins = np.arange(steps_in(n, fit_share), n - h + 1, every)
    if not len(origins) or origins[0] == 0:
        raise UsageError(
            f"series {series.unique_id!r}: {n} steps leave no origin with {h} to come after fit_share={fit_share}"
        )
    return Plan(series, origins)


def _fitted(
    forecaster: Forecaster, train: Sequence[Series], plans: Sequence[Plan], seed: int, progress: Progress | None
) -> Iterator[tuple[Forecaster | Exception, Plan]]:
    """Each series with the forecaster fitted for it, or with the reason why it could not be."""
    pooled = _fit(forecaster, train, seed, progress) if forecaster.pooled else None
    for k, plan in enumerate(plans):
        if pooled is None:
            yield _fit(forecaster, [train[k]], seed, None), plan
            if progress:
                progress((k + 1) / len(plans), plan.series.unique_id)
        else:
            yield pooled, plan


def _fit(
    forecaster: Forecaster, train: Sequence[Series], seed: int, progress: Progress | None
) -> Forecaster | Exception:
    try:
        return forecaster.fit(train, seed, progress)
    except Exception as error:  # any library's own class; it becomes a reported Failure, and the batch goes on
        return error


def _forecast(fitted: Forecaster | Exception, plan: Plan, h: int) -> Floats | Exception:
    if isinstance(fitted, Exception):
        return fitted
    try:
        if plan.origins[0] < fitted.needs:
            raise UsageError(f"needs {fitted.needs} steps of history, the first origin has {plan.origins[0]}")
        said = roll(fitted, plan.series, plan.origins, h).said
        if said.shape != (len(plan.origins), h, len(DECILES)) or not (np.diff(said, axis=-1) >= 0.0).all():
            raise UsageError(f"answered {list(said.shape)} with unknown or crossing quantiles")
        return said
    except Exception as error:  # as in _fit
        return error


def _rows(name: str, plan: Plan, said: Floats) -> pl.DataFrame:
    count, h, _ = said.shape
    ahead = np.arange(h)
    at = plan.origins[:, None] + ahead
    start, step = plan.series.start_s, plan.series.step_s
    return pl.DataFrame(
        {
            "forecaster": pl.repeat(name, count * h, eager=True),
            "unique_id": pl.repeat(plan.series.unique_id, count * h, eager=True),
            "cutoff_s": np.repeat(start + step * plan.origins, h).astype(np.float64),
            "step": np.tile(ahead + 1, count),
            "time_s": (start + step * at).ravel().astype(np.float64),
            "y": plan.series.values[at].ravel(),
            **{q: said[:, :, k].ravel() for k, q in enumerate(DECILE_NAMES)},
        }
    )
