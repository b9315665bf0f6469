"""What was forecast, what came, and how right it was: a bounded record that costs little to keep up to date.

All series share one clock: step `k` begins at `start_s + k * step_s`. A forecast made when `origin` steps were on
record speaks of the steps `origin ... origin + h - 1`. The newest `keep` origins and steps are held in rings; what is
older is forgotten. Truth may be late, out of order, in parts, twice, or never come: losses are those of what is on
record, in whatever order it came. Beside the steps that are kept lie those by which they are scored: the origins that
spoke of the oldest of them, and the values that came a horizon and a day before.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from zipfile import BadZipFile

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agents.forecast.base import DECILE_NAMES, DECILES, MEDIAN, Floats
from agents.forecast.scoring import score
from twin.errors import PolicyError, UsageError
from twin.trace import tables

LOSSES = ("size", "error", "crps", "within", "last", "day")
"""Of each single forecast: |y|, |y - q50|, mean over deciles of 2 x pinball, 1 in [q10, q90], naive errors."""

_NEVER = -1
_EMPTY = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True)
class Clock:
    """When steps are, and how many of them make a day."""

    start_s: int = 0
    step_s: int = 300

    @property
    def day_steps(self) -> int:
        """Steps per day."""
        return 86_400 // self.step_s


class Ledger:
    """Live forecasts of several series.

    Args:
        ids: the series; rows of every array given to the ledger are in this order.
        h: steps ahead.
        keep: origins and steps held, at least `h`, and a day and a step for the errors of yesterday's value.
        clock: that of all series.

    Raises:
        UsageError: no series, one twice, or `keep` too small.
    """

    def __init__(self, ids: Sequence[str], *, h: int = 12, keep: int = 864, clock: Clock = Clock()) -> None:
        if not ids or len(set(ids)) < len(ids) or h < 1:
            raise UsageError(f"a ledger needs different series and h of 1 or more; got {list(ids)[:5]} and h={h}")
        if keep < max(h, clock.day_steps + 1):
            raise UsageError(f"keep={keep} must be at least {max(h, clock.day_steps + 1)}: the horizon, and a day")
        self.ids = tuple(ids)
        self.h = h
        self.keep = keep
        self.clock = clock
        count = len(ids)
        origins, steps = keep + h - 1, keep + max(h, clock.day_steps)
        self._said = np.full((origins, count, h, len(DECILES)), np.nan)
        self._origin = np.full(origins, _EMPTY, np.int64)
        self._y = np.full((steps, count), np.nan)
        self._step = np.full(steps, _EMPTY, np.int64)
        self._losses = np.full((keep, count, h, len(LOSSES)), np.nan, np.float32)
        self._scored = np.full(keep, _EMPTY, np.int64)
        self._back = np.arange(h)

    @property
    def newest(self) -> int:
        """The last step on record; -1 before the first."""
        return max(int(self._step.max()), _NEVER)

    @property
    def oldest(self) -> int:
        """The first step and origin that are kept."""
        return max(int(self._step.max()), int(self._origin.max()), _NEVER) + 1 - self.keep

    def record(self, origin: int, said: Floats) -> None:
        """Keep the deciles [series, h, 9] that were said when `origin` steps were on record; NaN rows: nothing said.

        An origin may be recorded again with what was missing. Raises UsageError for another shape, or an origin that
        the ring has passed.
        """
        if said.shape != self._said.shape[1:]:
            raise UsageError(f"the ledger takes deciles {list(self._said.shape[1:])}; got {list(said.shape)}")
        if origin < max(self.oldest, 0):
            raise UsageError(f"origin {origin} is too old for this ledger, which keeps {self.keep}")
        _put(self._said, self._origin, origin, said)
        for step in range(origin, min(origin + self.h, self.newest + 1)):
            self._score(step)

    def arrive(self, step: int, y: Floats) -> Floats:
        """Take the truth [series] of a step and return the absolute errors one step ahead [series].

        NaN stands for a value that is not known (yet), and for the error of what was not forecast. A step may arrive
        again with what was missing, or was corrected. Raises UsageError for another shape, or a step that the ring
        has passed.
        """
        if y.shape != (len(self.ids),) or step < max(self.oldest, 0):
            raise UsageError(f"step {step} with {list(y.shape)} values is too old, or not one for each series")
        newest = self.newest
        _put(self._y, self._step, step, y)
        slot = step % self.keep
        if self._scored[slot] != step:
            self._scored[slot] = step
            self._losses[slot] = np.nan
        self._score(step)
        if step < newest:  # the naive errors of later ones are told by it
            for later in {*range(step + 1, step + self.h + 1), step + self.clock.day_steps}:
                self._score(later)
        return self._losses[slot, :, 0, 1].astype(np.float64)

    def _score(self, step: int) -> None:
        """Take the losses of a step, if it is kept."""
        slot = step % self.keep
        if self._scored[slot] != step:
            return
        y = self._values(np.array([step]))[0]
        origins = step - self._back
        places = origins % len(self._origin)
        said = self._said[places, :, self._back]  # [h, series, 9]
        made = self._origin[places] == origins
        over = y[:, None] - said
        found = self._losses[slot].transpose(1, 0, 2)  # [h, series, losses], a view
        found[:, :, 0] = np.abs(y)
        found[:, :, 1] = np.abs(over[:, :, MEDIAN])
        found[:, :, 2] = 2.0 * np.maximum(DECILES * over, (DECILES - 1.0) * over).mean(axis=2)
        found[:, :, 3] = (over[:, :, 0] >= 0.0) & (over[:, :, -1] <= 0.0)
        found[:, :, 4] = np.abs(y - self._values(origins - 1))
        found[:, :, 5] = np.abs(y - self._values(np.array([step - self.clock.day_steps])))
        found[~made] = np.nan
        found[~np.isfinite(over[:, :, MEDIAN])] = np.nan

    def _values(self, steps: NDArray[np.int64]) -> Floats:
        places = steps % len(self._step)
        return np.where((self._step[places] == steps)[:, None], self._y[places], np.nan)

    def losses(self, window: int | None = None) -> NDArray[np.float32]:
        """The single losses of the newest `window` steps [steps, series, h, losses]; NaN where there is none."""
        start = self.newest + 1 - min(window or self.keep, self.keep)
        return self._losses[(self._scored >= start) & (self._scored >= 0)]

    def errors(self, start: int, end: int) -> Floats:
        """Absolute errors one step ahead [series, steps] of the steps `start` to `end - 1`; NaN where none is held."""
        steps = np.arange(start, end)
        places = steps % self.keep
        found = self._losses[places, :, 0, 1].T.astype(np.float64)
        return np.where(self._scored[places] == steps, found, np.nan)

    def rolling(self, window: int | None = None) -> dict[str, Floats]:
        """Scores over the newest `window` steps, each [series, 1 + h]: all steps ahead pooled, then each.

        `accuracy_percent` (100 (1 - WAPE)), `skill` (1 - mean|e| over that of the better of the last value and
        yesterday's), `mase` (mean|e| over that of yesterday's value in all that is kept), `scaled_crps`,
        `coverage_80`, and `origins`: how many forecasts came true.
        """
        sums, counts = _sums(self.losses(window))
        yesterday, days = _sums(self.losses()[..., 5:])
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = sums / counts
            scale = (yesterday / days)[..., 0]
            size, error = mean[..., 0], mean[..., 1]
            return {
                "accuracy_percent": 100.0 * (1.0 - error / size),
                "skill": 1.0 - error / np.fmin(mean[..., 4], mean[..., 5]),
                "mase": error / scale,
                "scaled_crps": mean[..., 2] / size,
                "coverage_80": mean[..., 3],
                "origins": counts[..., 1],
            }

    # ------------------------------------------------------------ tables

    def forecasts(self, name: str) -> pl.DataFrame:
        """The kept forecasts of which every step has come, as a `forecasts` table; `name` is the forecaster's."""
        order = np.argsort(self._origin)
        origins = self._origin[order[self._origin[order] >= max(self.oldest, 0)]]
        at = origins[:, None] + self._back
        truth = self._values(at.ravel()).reshape(len(origins), self.h, len(self.ids)).transpose(2, 0, 1)
        said = self._said[origins % len(self._origin)].transpose(1, 0, 2, 3)
        done = np.isfinite(truth.sum(axis=2) + said.sum(axis=(2, 3)))  # one that is not known makes the sum unknown
        rows = [self._rows(name, k, origins[done[k]], said[k, done[k]], truth[k, done[k]]) for k in range(len(said))]
        return tables.conform(pl.concat(rows), "forecasts", "ledger")

    def _rows(self, name: str, place: int, origins: NDArray[np.int64], said: Floats, truth: Floats) -> pl.DataFrame:
        start, step = self.clock.start_s, self.clock.step_s
        many = len(origins) * self.h
        return pl.DataFrame(
            {
                "forecaster": pl.repeat(name, many, eager=True, dtype=pl.String),
                "unique_id": pl.repeat(self.ids[place], many, eager=True, dtype=pl.String),
                "cutoff_s": np.repeat(start + step * origins, self.h).astype(np.float64),
                "step": np.tile(self._back + 1, len(origins)),
                "time_s": (start + step * (origins[:, None] + self._back)).ravel().astype(np.float64),
                "y": truth.ravel(),
                **{q: said[:, :, k].ravel().astype(np.float64) for k, q in enumerate(DECILE_NAMES)},
            }
        )

    def scores(self, name: str) -> pl.DataFrame:
        """The `forecast_scores` table of `forecasts(name)`; empty when none has come true yet."""
        told = self.forecasts(name)
        frame = self._frame()
        told = told.join(frame.group_by("unique_id").agg(pl.col("ds").min().alias("begin")), on="unique_id")
        told = told.filter(pl.col("cutoff_s") > pl.col("begin")).drop("begin")
        if not told.height:
            return tables.empty("forecast_scores")
        return score(told, frame, season=self.clock.day_steps)

    def _frame(self) -> pl.DataFrame:
        """The newest values of each series without a gap, long."""
        steps = np.arange(max(self.newest - self.keep + 1, 0), self.newest + 1)
        values = self._values(steps)
        parts = []
        for k, unique_id in enumerate(self.ids):
            unknown = np.flatnonzero(~np.isfinite(values[:, k]))
            gone = unknown[-1] + 1 if len(unknown) else 0
            parts.append(
                pl.DataFrame({"ds": self.clock.start_s + self.clock.step_s * steps[gone:], "y": values[gone:, k]})
                .with_columns(pl.lit(unique_id).alias("unique_id"))
                .select("unique_id", "ds", "y")
            )
        return pl.concat(parts)

    # ------------------------------------------------------------ on disk

    def save(self, path: Path) -> None:
        """Write everything into one .npz file, whole or not at all."""
        facts = {
            "ids": self.ids,
            "h": self.h,
            "keep": self.keep,
            "start_s": self.clock.start_s,
            "step_s": self.clock.step_s,
        }
        packed = io.BytesIO()
        np.savez(packed, facts=np.frombuffer(json.dumps(facts).encode(), np.uint8), **self._arrays())  # pyright: ignore[reportArgumentType]
        partial = path.with_name(path.name + ".tmp")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(packed.getbuffer())
        os.replace(partial, path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """The ledger stored at `path`; raises PolicyError when it is absent, damaged or not one."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                facts = json.loads(stored["facts"].tobytes())
                clock = Clock(facts["start_s"], facts["step_s"])
                found = cls(facts["ids"], h=facts["h"], keep=facts["keep"], clock=clock)
                for name, array in found._arrays().items():
                    array[...] = stored[name]
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile, UsageError) as error:
            raise PolicyError(f"{path}: not a ledger of forecasts: {error!r}; start a new one") from error
        return found

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {
            "said": self._said,
            "origin": self._origin,
            "y": self._y,
            "step": self._step,
            "losses": self._losses,
            "scored": self._scored,
        }


def _put(ring: Floats, keys: NDArray[np.int64], key: int, values: Floats) -> None:
    """Take `values` into the ring under their key; NaN leaves what stands there under the same key."""
    slot = key % len(keys)
    ring[slot] = np.where(np.isfinite(values), values, ring[slot]) if keys[slot] == key else values
    keys[slot] = key


def _sums(losses: Floats | NDArray[np.float32]) -> tuple[Floats, Floats]:
    """(sums, counts) [series, 1 + h, losses] of what is known; before the single steps ahead, that of all of them."""
    known = np.isfinite(losses)
    parts = np.where(known, losses, 0.0).sum(axis=0, dtype=np.float64), known.sum(axis=0).astype(np.float64)
    sums, counts = (np.concatenate([each.sum(axis=1, keepdims=True), each], axis=1) for each in parts)
    return sums, counts
