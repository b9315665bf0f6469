"""Forecasts made beforehand for a demand that is on record, each from what was known at its origin.

A twin's demand does not depend on who scales, so the forecasts that lead a run can be made at once, scored, and then
handed to as many runs as one likes. `truth` is the forecaster without error: it says what will come.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self
from zipfile import BadZipFile

import numpy as np

from agents.forecast.base import DECILES, Floats, Forecaster, Past, Progress, check_past
from agents.forecast.frames import Series
from agents.forecast.rolling import roll, truth_at
from agents.scale.forecast_scaler import ForecastScaler
from agents.scale.sizing import Sizing
from twin.envs.sizing import TOLERANCE
from twin.errors import PolicyError, UsageError

_SAME = 1e-3  # relative: demand is observed as float32, over intervals whose ends are rounded


@dataclass(frozen=True, slots=True)
class Foretold:
    """The forecasts of `name` for one series, as a forecaster; it must meet the demand that they were made from.

    Attributes:
        name: of the forecaster that made them.
        demand: the series, with what came.
        begin: steps on record at the first origin; there is an origin at each step from there on.
        said: deciles [origins, h, 9].
    """

    name: str
    demand: Series
    begin: int
    said: Floats

    @property
    def context(self) -> int:
        """One step: it says whether this is the demand that was forecast."""
        return 1

    @property
    def needs(self) -> int:
        """One step."""
        return 1

    @property
    def pooled(self) -> bool:
        """One series."""
        return False

    @property
    def truth(self) -> Floats:
        """What came [origins, h]; NaN where it is not on record."""
        return truth_at(self.demand, self._origins, self.said.shape[1])

    @property
    def _origins(self) -> np.ndarray:
        return np.arange(self.begin, self.begin + len(self.said))

    def fit(self, series: Sequence[Series], seed: int, progress: Progress | None = None) -> Self:  # noqa: ARG002
        """Itself: it has been fitted."""
        return self

    def forecast(self, past: Past, h: int) -> Floats:
        """Deciles [batch, h, 9]; raises UsageError for an origin or `h` of which nothing was said.

        Raises PolicyError when the last step of a past is not what the forecasts were made from.
        """
        check_past(past, self, h)
        at = np.rint((past.origin_s - self.demand.start_s) / self.demand.step_s).astype(np.int64)
        if h > self.said.shape[1] or (at < self.begin).any() or (at >= self.begin + len(self.said)).any():
            raise UsageError(
                f"{self.name}: foretold {self.said.shape[1]} steps at {len(self.said)} origins from {self.begin} on; "
                f"asked for {h} steps at {at.tolist()[:3]}"
            )
        known = self.demand.values[at - 1]
        if not np.allclose(past.y[:, -1], known, rtol=_SAME, atol=_SAME * np.abs(self.demand.values).mean()):
            raise PolicyError(
                f"{self.name}: foretold for a demand of {known[0]:.4g}, met {past.y[0, -1]:.4g} at "
                f"{past.origin_s[0]:.0f} s: demand that depends on the scaler, or telemetry that is lost, cannot be "
                "foretold; let the forecaster itself decide"
            )
        return self.said[at - self.begin, :h]

    def write(self, path: Path) -> None:
        """Write `path` (.npz), whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.stem}.tmp.npz")
        whole = np.array([self.demand.start_s, self.demand.step_s, self.begin])
        names = np.array([self.name, self.demand.unique_id])
        np.savez(partial, names=names, whole=whole, values=self.demand.values, said=self.said)
        os.replace(partial, path)


def read(path: Path) -> Foretold:
    """The forecasts at `path`; raises PolicyError when they are absent or damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            (name, unique_id), (start_s, step_s, begin) = stored["names"].tolist(), stored["whole"].tolist()
            return Foretold(name, Series(unique_id, start_s, step_s, stored["values"]), begin, stored["said"])
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise PolicyError(f"{path}: not forecasts made beforehand: {error!r}; make them again") from error


def foretell(fitted: Forecaster, demand: Series, begin: int, h: int) -> Foretold:
    """What `fitted` says at each step from `begin` (steps on record) on, from what is known there.

    Raises UsageError when fewer steps than it needs lie before `begin`, when what it says is no forecast, or as its
    `forecast` does.
    """
    if not fitted.needs <= begin <= len(demand.values):
        raise UsageError(
            f"{fitted.name}: needs {fitted.needs} steps of history; {begin} of {len(demand.values)} lie before the run"
        )
    origins = np.arange(begin, len(demand.values) + 1)
    said = roll(fitted, demand, origins, h).said
    if said.shape != (len(origins), h, len(DECILES)) or not (np.diff(said, axis=-1) >= 0.0).all():
        raise UsageError(f"{fitted.name}: answered {list(said.shape)} with unknown or crossing quantiles")
    return Foretold(fitted.name, demand, begin, said)


def truth(demand: Series, begin: int, h: int, name: str = "oracle") -> Foretold:
    """The forecaster without error: all deciles are what will come; beyond the record, its last value.

    It bounds what a forecast can know, not what a rule can make of one: a coarser forecast may happen to fit the nodes
    better.
    """
    origins = np.arange(begin, len(demand.values) + 1)
    came = truth_at(replace(demand, values=np.concatenate([demand.values, np.full(h, demand.values[-1])])), origins, h)
    return Foretold(name, demand, begin, np.repeat(came[:, :, None], len(DECILES), axis=2))


def scaler(
    path: str | Path, service: str, sizing: Sizing, start_s: float, tolerance: float = TOLERANCE
) -> ForecastScaler:
    """A scaler led by the forecasts at `path`, for a run that begins at `start_s` of the recording's clock.

    Raises PolicyError as `read`.
    """
    told = read(Path(path))
    name = f"forecast-{told.name}-q{100 * sizing.quantile:.0f}"
    return ForecastScaler(told, service, sizing, told.demand.step_s, None, start_s, tolerance, name)
