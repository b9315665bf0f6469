"""What forecasts were worth: accuracy never alone, but beside skill, MASE, scaled CRPS, coverage and bias.

With e = y - q50, over all forecasts of one series that are scored together:

    WAPE        sum|e| / sum|y|; accuracy = 100 (1 - WAPE)
    MASE        mean|e| over the mean error of yesterday's value within the training part
    scaled CRPS mean over the nine deciles of 2 x pinball, over mean|y|
    coverage    share of y in [q10, q90]
    bias        sum(q50 - y) / sum|y|: above 0 is too high
    skill       1 - mean|e| over that of the best, in hindsight, of four naive forecasts of the same steps: the last
                value, a day ago, a week ago, the mean before the first origin

Sources: Hyndman and Koehler (2006), IJF 22(4), for MASE; Gneiting and Raftery (2007), JASA 102, for the CRPS, which
the mean over quantile levels of 2 x pinball approaches; scaled as in Rangapuram et al. (2021), ICML 139.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Self

import numpy as np
import polars as pl
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from agents.forecast.base import DECILE_NAMES, DECILES, MEDIAN, Floats
from agents.forecast.frames import Series, panel
from agents.forecast.rolling import Origins, Rolled, past_at
from twin.errors import UsageError
from twin.trace import tables

Bools = NDArray[np.bool_]

ALL = "all"
SPREADS = ("calm", "usual", "rough")
DAYS = ("weekday", "weekend")

_SPREAD_S = 3 * 3_600
_LEAST_SPREAD_STEPS = 12
_DAY_S = 86_400
_MONDAY = 3  # days from a Monday to the first of January 1970


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of forecasts pooled over origins and steps; NaN where a forecast failed or a season is missing.

    Attributes:
        origins: how many there were.
        mae, crps: in the unit of the series: what ratios between forecasters are made of.
    """

    origins: int
    accuracy_percent: float
    wape: float
    mase: float
    scaled_crps: float
    coverage_80: float
    skill: float
    bias: float
    mae: float
    crps: float


@dataclass(frozen=True, slots=True)
class Judged:
    """The single losses of one forecaster on one series [origins, h].

    Attributes:
        truth: what came.
        error: median - truth.
        crps: mean over the deciles of 2 x pinball.
        within: 1 where the truth lay in the 80 % interval, NaN where there was none.
        naive: absolute errors of each naive forecast of the same steps; NaN where it has no such history.
        scale: what MASE divides by.
    """

    truth: Floats
    error: Floats
    crps: Floats
    within: Floats
    naive: Mapping[str, Floats]
    scale: float

    @classmethod
    def of(cls, rolled: Rolled, series: Series, day_steps: int) -> Self:
        """The losses of `rolled`; `day_steps` are the steps of `series` in a day."""
        truth, said = rolled.truth, rolled.said
        over = truth[..., None] - said
        pinball = np.maximum(DECILES * over, (DECILES - 1.0) * over)
        low, high = said[..., 0], said[..., -1]
        within = np.where(np.isnan(low), np.nan, (low <= truth) & (truth <= high))
        past = series.values[: rolled.origins.min()]
        naive = _naive(series, rolled.origins, truth, day_steps)
        return cls(truth, -over[..., MEDIAN], 2.0 * pinball.mean(axis=-1), within, naive, _scale(past, day_steps))

    def scores(self, where: Bools | None = None) -> Scores:
        """The scores of the forecasts at which `where` [origins, h] holds, by default all of them."""
        mask = np.ones(self.truth.shape, dtype=bool) if where is None else where
        size = _mean(np.abs(self.truth[mask]))
        mae, crps = _mean(np.abs(self.error[mask])), _mean(self.crps[mask])
        known = [found for each in self.naive.values() if math.isfinite(found := _mean(each[mask]))]
        wape = _share(mae, size)
        return Scores(
            origins=int(mask.any(axis=1).sum()),
            accuracy_percent=100.0 * (1.0 - wape),
            wape=wape,
            mase=_share(mae, self.scale),
            scaled_crps=_share(crps, size),
            coverage_80=_mean(self.within[mask]),
            skill=1.0 - _share(mae, min(known, default=math.nan)),
            bias=_share(_mean(self.error[mask]), size),
            mae=mae,
            crps=crps,
        )


def _mean(values: Floats) -> float:
    return float(values.mean()) if values.size else math.nan


def _share(part: float, whole: float) -> float:
    """The share of a whole; of nothing: NaN, as nothing can be said of it."""
    return part / whole if whole > 0.0 else math.nan


def _scale(past: Floats, season: int) -> float:
    return _mean(np.abs(past[season:] - past[:-season])) if len(past) > season else math.nan


def _naive(series: Series, origins: Origins, truth: Floats, day_steps: int) -> dict[str, Floats]:
    values, at = series.values, origins[:, None] + np.arange(truth.shape[1])
    sources = {"last": np.repeat(origins[:, None] - 1, truth.shape[1], axis=1), "day": at - day_steps}
    sources["week"] = at - 7 * day_steps
    guesses = {
        name: np.where(index >= 0, values[np.clip(index, 0, len(values) - 1)], np.nan)
        for name, index in sources.items()
    }
    guesses["mean"] = np.full(truth.shape, values[: origins.min()].mean())
    return {name: np.abs(truth - guess) for name, guess in guesses.items()}


# ---------------------------------------------------------------- what is scored together


def bands(h: int) -> list[tuple[int, int]]:
    """First and last step of what is scored together: all steps, their quarters 1, 2 and 3-4, then each step."""
    quarter, half = h // 4, h // 2
    wide = [(1, h), (1, quarter), (quarter + 1, half), (half + 1, h)] if quarter > 1 else [(1, h)]
    return [*wide, *((step, step) for step in range(1, h + 1))]


def horizon(first: int, last: int) -> str:
    """The name of a band: "1-12", or "3" for a single step."""
    return str(first) if first == last else f"{first}-{last}"


def regimes(series: Series, origins: Origins, h: int, train_steps: int) -> dict[str, Bools]:
    """By name, which single forecasts [origins, h] were made in that regime.

    Calm, usual and rough: the standard deviation of the last three hours before the origin (at least twelve steps)
    lies in the lower, middle or upper third of those in the first `train_steps` steps. Weekday and weekend, where
    `start_s` is in Unix time: the day of the step that is forecast. Nothing after the origin is looked at.
    """
    window = max(_LEAST_SPREAD_STEPS, _SPREAD_S // series.step_s)
    found: dict[str, Bools] = {}
    if train_steps >= window and int(origins.min()) >= window:
        spread = sliding_window_view(series.values, window).std(axis=1)  # [i] is that of the window that begins at i
        low, high = np.quantile(spread[: train_steps - window + 1], [1 / 3, 2 / 3])
        rank = (spread[origins - window] > low).astype(int) + (spread[origins - window] > high)
        found = {name: np.repeat((rank == k)[:, None], h, axis=1) for k, name in enumerate(SPREADS)}
    if series.start_s > 0:
        begin_s = series.start_s + series.step_s * (origins[:, None] + np.arange(h))
        weekend = (begin_s // _DAY_S + _MONDAY) % 7 >= 5
        found |= dict(zip(DAYS, (~weekend, weekend), strict=True))
    return found


def scored(judged: Judged, regimes: Mapping[str, Bools]) -> Iterator[dict[str, str | float | int]]:
    """A row of `Scores` with `horizon` and `regime`: every band over all origins, all steps in each regime."""
    count, h = judged.truth.shape
    step = np.broadcast_to(np.arange(1, h + 1), (count, h))
    for first, last in bands(h):
        yield {
            "horizon": horizon(first, last),
            "regime": ALL,
            **asdict(judged.scores((first <= step) & (step <= last))),
        }
    for name, where in regimes.items():
        if where.any():
            yield {"horizon": horizon(1, h), "regime": name, **asdict(judged.scores(where))}


# ---------------------------------------------------------------- a common measure


def native_seasonal_naive(series: Series, origins: Origins, h: int, season: int, past: Floats) -> Floats:
    """Deciles [origins, h, 9] of the value one season ago with normal bands: what ratios of the CRPS are taken to.

    The variance is the mean squared error of the same forecast within `past`, times the seasons ahead: the native
    bands of statsforecast's SeasonalNaive. Raises UsageError when `past` is not longer than a season.
    """
    if len(past) <= season or int(origins.min()) < season:
        raise UsageError(f"series {series.unique_id!r}: {len(past)} steps hold no season of {season} and its errors")
    sigma = math.sqrt(float(np.mean((past[season:] - past[:-season]) ** 2)))
    point = past_at(series, origins, season, h).y[:, np.arange(h) % season]
    z = np.array([NormalDist().inv_cdf(level) for level in DECILES])
    ahead = np.sqrt(1.0 + np.arange(h) // season)
    return point[..., None] + sigma * ahead[:, None] * z


# ---------------------------------------------------------------- a table of forecasts


def score(forecasts: pl.DataFrame, frame: pl.DataFrame, *, season: int = 288) -> pl.DataFrame:
    """The scores per forecaster, series and horizon: all steps pooled ("1-12"), then each step.

    Args:
        forecasts: a `forecasts` table; of each origin all steps.
        frame: the series that were forecast, in full (`unique_id`, `ds`, `y`).
        season: steps per day. MASE and skill are NaN where no season lies before the first cutoff.

    Raises:
        UsageError: a forecast series is not in the frame, or an origin lacks some of its steps.
    """
    known = {s.unique_id: s for s in panel(frame)}
    keys = ["forecaster", "unique_id"]
    found = []
    for (name, unique_id), rows in forecasts.partition_by(keys, as_dict=True, maintain_order=True).items():
        if unique_id not in known:
            raise UsageError(f"the forecast series {unique_id!r} is not in the frame; it holds {sorted(known)}")
        series = known[str(unique_id)]
        judged = Judged.of(_rolled(rows, series), series, season)
        h = judged.truth.shape[1]
        step = np.broadcast_to(np.arange(1, h + 1), judged.truth.shape)
        named = [(f"1-{h}", judged.scores()), *((str(k), judged.scores(step == k)) for k in range(1, h + 1))]
        found += [
            {"forecaster": name, "unique_id": unique_id, "horizon": each, **asdict(scores)} for each, scores in named
        ]
    columns = [column.name for column in tables.schema("forecast_scores")]
    return tables.conform(pl.DataFrame(found).select(columns), "forecast_scores", "score")


def _rolled(rows: pl.DataFrame, series: Series) -> Rolled:
    rows = rows.sort("cutoff_s", "step")
    h = int(rows["step"].n_unique())
    if (rows["step"].to_numpy() != np.tile(np.arange(1, h + 1), rows.height // h + 1)[: rows.height]).any():
        raise UsageError(f"the forecasts of {series.unique_id!r} must hold all steps, from 1 on, of each origin")
    cutoff_s = rows["cutoff_s"].to_numpy()[::h]
    origins = np.rint((cutoff_s - series.start_s) / series.step_s).astype(np.int64)
    said = rows.select(DECILE_NAMES).to_numpy().reshape(-1, h, len(DECILES))
    return Rolled(origins, said, rows["y"].to_numpy().reshape(-1, h))
