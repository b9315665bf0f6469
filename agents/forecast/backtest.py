"""Rolling origins on the last part of each series, and what the forecasts were worth.

Fit once on the first part, then forecast from every origin of the rest with what was known there: long frames in,
a table of forecasts (`forecasts.csv`) and one of scores (`forecast_scores.csv`) out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from agents.forecast.base import DECILE_NAMES, DECILES, Floats, Forecaster, Progress, part
from agents.forecast.frames import Series, first, panel, steps_in, windows
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
    train = first(frame, fit_share)
    rows: list[pl.DataFrame] = []
    failures: list[Failure] = []
    for k, forecaster in enumerate(forecasters):
        told = part(progress, k / len(forecasters), (k + 1) / len(forecasters), f"{forecaster.name}: ")
        for fitted, plan in _fitted(forecaster, train, plans, seed, told):
            said = _forecast(fitted, plan, h)
            if isinstance(said, Exception):
                failures.append(Failure(forecaster.name, plan.series.unique_id, f"{type(said).__name__}: {said}"))
                said = np.full((len(plan.origins), h, len(DECILES)), np.nan)
            rows.append(_rows(forecaster.name, plan, said))
    return Backtest(tables.conform(pl.concat(rows), "forecasts", "backtest"), tuple(failures))


@dataclass(frozen=True, slots=True)
class _Plan:
    """One series and the origins to forecast it from."""

    series: Series
    origins: np.ndarray


def _plan(series: Series, h: int, every: int, fit_share: float) -> _Plan:
    n = len(series.values)
    origins = np.arange(steps_in(n, fit_share), n - h + 1, every)
    if not len(origins) or origins[0] == 0:
        raise UsageError(
            f"series {series.unique_id!r}: {n} steps leave no origin with {h} to come after fit_share={fit_share}"
        )
    return _Plan(series, origins)


def _fitted(
    forecaster: Forecaster, train: pl.DataFrame, plans: Sequence[_Plan], seed: int, progress: Progress | None
) -> Iterator[tuple[Forecaster | Exception, _Plan]]:
    """Each series with the forecaster fitted for it, or with the reason why it could not be."""
    pooled = _fit(forecaster, train, seed, progress) if forecaster.pooled else None
    for k, plan in enumerate(plans):
        if pooled is None:
            own = train.filter(pl.col("unique_id") == plan.series.unique_id)
            yield _fit(forecaster, own, seed, None), plan
            if progress:
                progress((k + 1) / len(plans), plan.series.unique_id)
        else:
            yield pooled, plan


def _fit(forecaster: Forecaster, train: pl.DataFrame, seed: int, progress: Progress | None) -> Forecaster | Exception:
    try:
        return forecaster.fit(train, seed, progress)
    except Exception as error:  # any library's own class; it becomes a reported Failure, and the batch goes on
        return error


def _forecast(fitted: Forecaster | Exception, plan: _Plan, h: int) -> Floats | Exception:
    if isinstance(fitted, Exception):
        return fitted
    try:
        if plan.origins[0] < fitted.context:
            raise UsageError(f"needs {fitted.context} steps of history, the first origin has {plan.origins[0]}")
        histories = windows(plan.series.values, plan.origins, fitted.context)
        said = fitted.forecast(histories, h, [plan.series.unique_id] * len(plan.origins))
        if said.shape != (len(plan.origins), h, len(DECILES)) or not (np.diff(said, axis=-1) >= 0.0).all():
            raise UsageError(f"answered {list(said.shape)} with unknown or crossing quantiles")
        return said
    except Exception as error:  # as in _fit
        return error


def _rows(name: str, plan: _Plan, said: Floats) -> pl.DataFrame:
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


# ---------------------------------------------------------------- scores


def score(forecasts: pl.DataFrame, frame: pl.DataFrame, *, season: int = 288) -> pl.DataFrame:
    """How good the forecasts were, per forecaster, series and horizon: all steps pooled ("1-12"), then each step.

    With e = y - q50: WAPE = sum|e| / sum|y|; accuracy = 100 (1 - WAPE); MASE = mean|e| over the mean error of the
    seasonal naive before the first cutoff; scaled CRPS = mean over the deciles of 2 x pinball, over mean|y|;
    coverage = share of y in [q10, q90]; skill = 1 - mean|e| over that of the best, in hindsight, of four naive
    forecasts of the same steps: the last value, a day ago, a week ago, the mean before the first cutoff.

    Args:
        forecasts: a `forecasts` table.
        frame: the series that were forecast, in full (`unique_id`, `ds`, `y`).
        season: steps per day. MASE and skill are null where no season lies before the first cutoff.

    Raises:
        UsageError: a forecast series is not in the frame.
    """
    known = {s.unique_id: s for s in panel(frame)}
    keys = ["forecaster", "unique_id"]
    scored = []
    for (_, unique_id), rows in forecasts.partition_by(keys, as_dict=True, maintain_order=True).items():
        if unique_id not in known:
            raise UsageError(f"the forecast series {unique_id!r} is not in the frame; it holds {sorted(known)}")
        judged = rows.with_columns(*_references(rows, known[unique_id], season), *_losses())
        pooled = judged.with_columns(pl.lit(f"1-{judged['step'].max()}").alias("horizon"))
        by_step = judged.with_columns(pl.col("step").cast(pl.String).alias("horizon"))
        scored += [_summary(pooled), _summary(by_step)]
    return tables.conform(pl.concat(scored), "forecast_scores", "score")


def _losses() -> list[pl.Expr]:
    y = pl.col("y")
    pinball = [
        pl.max_horizontal(level * (y - pl.col(q)), (level - 1.0) * (y - pl.col(q)))
        for level, q in zip(DECILES.tolist(), DECILE_NAMES, strict=True)
    ]
    return [
        (y - pl.col("q50")).abs().alias("error"),
        (2.0 * pl.sum_horizontal(pinball) / len(pinball)).alias("crps"),
        pl.when(pl.col("q10").is_nan())
        .then(None)
        .otherwise(y.is_between(pl.col("q10"), pl.col("q90")))
        .alias("within"),
    ]


def _references(rows: pl.DataFrame, series: Series, season: int) -> list[pl.Series]:
    """The absolute errors of the naive forecasts of these rows (NaN: no such history), and the MASE scale."""
    values = series.values
    at = ((rows["time_s"].to_numpy() - series.start_s) // series.step_s).astype(np.int64)
    origin = at - rows["step"].to_numpy() + 1
    past = values[: origin.min()]
    sources = {"last": origin - 1, "day": at - season, "week": at - 7 * season}
    guesses = {name: np.where(index >= 0, values[np.maximum(index, 0)], np.nan) for name, index in sources.items()}
    guesses["mean"] = np.full(len(at), past.mean())
    scale = np.abs(past[season:] - past[:-season]).mean() if len(past) > season else np.nan
    return [
        *(pl.Series(f"naive_{name}", np.abs(values[at] - guess)) for name, guess in guesses.items()),
        pl.Series("scale", np.full(len(at), scale)),
    ]


def _summary(judged: pl.DataFrame) -> pl.DataFrame:
    mae, size = pl.col("error").mean(), pl.col("y").abs().mean()
    best = pl.min_horizontal(*(pl.col(f"naive_{n}").mean().fill_nan(None) for n in ("last", "day", "week", "mean")))
    return judged.group_by("forecaster", "unique_id", "horizon", maintain_order=True).agg(
        pl.col("cutoff_s").n_unique().alias("origins"),
        (100.0 * (1.0 - mae / size)).alias("accuracy_percent"),
        (mae / size).alias("wape"),
        (mae / pl.col("scale").first().fill_nan(None)).alias("mase"),
        (pl.col("crps").mean() / size).alias("scaled_crps"),
        pl.col("within").mean().fill_null(np.nan).alias("coverage_80"),
        (1.0 - mae / best).alias("skill"),
    )
