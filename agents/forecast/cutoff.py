"""Forecasting at one cutoff: what was on record then, which models were fitted on it, and what they said.

Nothing here sees a row after the cutoff, but for the columns that are known ahead, and what came, which is only
handed on.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Protocol, TypeVar

import numpy as np
import polars as pl

from agents.forecast import mend
from agents.forecast.base import DECILES, Floats, Forecaster, Progress, part
from agents.forecast.covariates import Calendar
from agents.forecast.frames import Columns, Series
from agents.forecast.prepare import LATEST_S, Clean, Note, Prepare, prepare
from agents.forecast.rolling import roll
from twin.errors import UsageError

Result = TypeVar("Result")


class Recipe(Protocol):
    """Models and all that stands before them; `agents.forecast.forecasting.Forecasting` is one."""

    @property
    def models(self) -> Sequence[Forecaster]:
        """Forecasters with different names."""
        ...

    @property
    def every_s(self) -> int:
        """Seconds of a step."""
        ...

    @property
    def columns(self) -> Columns:
        """Which columns stand beside the target."""
        ...

    @property
    def prepare(self) -> Prepare:
        """How dirty series are made regular."""
        ...

    @property
    def calendar(self) -> Calendar | None:
        """Columns known ahead that need no frame."""
        ...

    @property
    def seed(self) -> int:
        """Of whatever is random in fitting."""
        ...


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a series cannot be forecast from a cutoff (None: the end of the frame), by one model or ("") by none."""

    unique_id: str
    model: str
    cutoff_s: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Fit:
    """A model and what it was fitted on."""

    model: Forecaster
    from_s: int
    until_s: int
    steps: int
    series: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class State:
    """What was on record at a cutoff, and the models that had been fitted by then.

    `fits` holds the model, or why there is none, by name and series; None stands for all series.
    """

    cutoff_s: float | None
    clean: Mapping[str, Clean]
    fits: Mapping[tuple[str, str | None], Fit | str]
    refused: tuple[Refusal, ...]
    notes: tuple[Note, ...]

    def fit_of(self, name: str, unique_id: str) -> Fit | str:
        """The model of a series, or why there is none."""
        found = self.fits.get((name, unique_id)) or self.fits.get((name, None))
        return found or "the series could not be forecast yet when the models were fitted"


@dataclass(frozen=True, slots=True)
class Said:
    """What the models said at a cutoff: deciles [h, 9] by model and series, and what came [h] by series."""

    state: State
    h: int
    deciles: Mapping[tuple[str, str], Floats]
    truth: Mapping[str, Floats]
    refused: tuple[Refusal, ...]


def cutoffs(recipe: Recipe, rows: pl.DataFrame, h: int, n_windows: int, apart: int) -> list[float]:
    """The last moment on record of each window, in s."""
    told = pl.col("y").cast(pl.Float64, strict=False).is_finite() & (pl.col("ds").abs() <= LATEST_S)
    known = rows.filter(told)["ds"]
    if known.is_empty():
        raise UsageError("no row of the frame has a stamp and a target")
    newest, oldest = float(known.max()), float(known.min())  # pyright: ignore[reportArgumentType]
    back = [h + apart * k for k in range(n_windows)][::-1]
    if newest - back[0] * recipe.every_s < oldest:
        steps = int((newest - oldest) / recipe.every_s) + 1
        raise UsageError(f"{steps} steps have no room for {n_windows} windows of {h} steps, {apart} apart")
    return [newest - steps * recipe.every_s for steps in back]


def on_record(recipe: Recipe, rows: pl.DataFrame, cutoff_s: float | None) -> State:
    """What was on record at the cutoff, and no model yet."""
    done = prepare(rows, recipe.every_s, recipe.prepare, recipe.columns, cutoff_s)
    refused = tuple(Refusal(unique_id, "", cutoff_s, why) for unique_id, why in done.refused.items())
    return State(cutoff_s, done.clean, {}, refused, done.notes)


def moved_to(state: State, recipe: Recipe, rows: pl.DataFrame, cutoff_s: float) -> State:
    """The same models at a later cutoff."""
    return replace(on_record(recipe, rows, cutoff_s), fits=state.fits)


def fit(recipe: Recipe, rows: pl.DataFrame, cutoff_s: float | None, progress: Progress | None) -> State:
    """All models fitted on what was on record at the cutoff."""
    state = on_record(recipe, rows, cutoff_s)
    known = [_with_calendar(recipe, each.series.until(len(each.series.values)), 0) for each in state.clean.values()]
    fits: dict[tuple[str, str | None], Fit | str] = {}
    notes = list(state.notes)
    for k, model in enumerate(recipe.models if known else ()):
        told = part(progress, k / len(recipe.models), (k + 1) / len(recipe.models), f"{model.name}: ")
        if model.pooled:
            fits[model.name, None] = _fit_one(recipe, model, known, told, notes)
            continue
        for i, series in enumerate(known):
            fits[model.name, series.unique_id] = _fit_one(recipe, model, [series], None, notes)
            if told:
                told((i + 1) / len(known), series.unique_id)
    return replace(state, fits=fits, notes=tuple(notes))


def _fit_one(
    recipe: Recipe, model: Forecaster, series: Sequence[Series], progress: Progress | None, notes: list[Note]
) -> Fit | str:
    fitted = _attempt(lambda: model.fit(series, recipe.seed, progress), model.name, series[0].unique_id, notes)
    if isinstance(fitted, str):
        return fitted
    ends = [each.start_s + (len(each.values) - 1) * each.step_s for each in series]
    return Fit(
        fitted,
        min(each.start_s for each in series),
        max(ends),
        sum(len(each.values) for each in series),
        len(series),
        fingerprint(series),
    )


def _attempt(work: Callable[[], Result], model: str, unique_id: str, notes: list[Note]) -> Result | str:
    """What the work gives, or in words why it gives nothing; what it warns of becomes a note."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            return work()
        except UsageError as error:
            return str(error)
        except Exception as error:  # any library's own class: this model is refused, the others go on
            return f"{type(error).__name__}: {error}"
        finally:
            texts = dict.fromkeys(f"{model}: {each.category.__name__}: {each.message}" for each in heard)
            notes += [Note(unique_id, "warning", 0, np.nan, np.nan, text) for text in texts]


def say(recipe: Recipe, state: State, h: int, ahead: pl.DataFrame, *, strict: bool) -> Said:
    """The forecasts of all models at the state's cutoff.

    Args:
        recipe: what the forecasts are made of.
        state: what is on record, and the fitted models.
        h: steps ahead.
        ahead: rows after the cutoff: what is known ahead and, in a backtest, what came.
        strict: whether unknown columns of the steps to come are the user's mistake, or a refusal of one series.
    """
    own = {str(key[0]): rows for key, rows in ahead.partition_by("unique_id", as_dict=True).items()}
    deciles: dict[tuple[str, str], Floats] = {}
    truth: dict[str, Floats] = {}
    refused, notes = list(state.refused), list(state.notes)
    for unique_id, clean in state.clean.items():
        rows = own.get(unique_id, ahead.clear())
        try:
            series = _with_calendar(recipe, known_ahead(clean, rows, h, recipe.prepare), clean.stale + h)
        except UsageError as error:
            if strict:
                raise
            refused.append(Refusal(unique_id, "", state.cutoff_s, str(error)))
            continue
        truth |= {unique_id: on_steps(clean, rows, ("y",), h, recipe.prepare)[:, 0]} if "y" in rows.columns else {}
        for model in recipe.models:
            answer = _answer(state, model.name, series, clean.stale, h, notes)
            if isinstance(answer, str):
                refused.append(Refusal(unique_id, model.name, state.cutoff_s, answer))
            else:
                deciles[model.name, unique_id] = answer
    return Said(replace(state, notes=tuple(notes)), h, deciles, truth, tuple(refused))


def _answer(state: State, name: str, series: Series, stale: int, h: int, notes: list[Note]) -> Floats | str:
    """The deciles [h, 9] of one model for one series, or why there are none."""
    fit = state.fit_of(name, series.unique_id)
    if isinstance(fit, str):
        return fit
    steps = len(series.values)
    if steps < fit.model.needs:
        return f"{name} needs {fit.model.needs} steps of history; {series.unique_id!r} has {steps}"
    origins = np.array([steps], dtype=np.int64)
    said = _attempt(lambda: roll(fit.model, series, origins, stale + h).said, name, series.unique_id, notes)
    if isinstance(said, str):
        return said + (f" (its newest {stale} steps are unknown, so it is asked for {stale + h})" if stale else "")
    if said.shape != (1, stale + h, len(DECILES)) or not np.isfinite(said).all() or (np.diff(said) < 0.0).any():
        return f"{name} answered {list(said.shape)} with unknown or crossing quantiles"
    return said[0, stale:]


def _with_calendar(recipe: Recipe, series: Series, ahead: int) -> Series:
    """The series with the calendar's columns among those known ahead."""
    if recipe.calendar is None:
        return series
    steps = len(series.values) + ahead
    made = recipe.calendar.at(series.start_s, series.step_s, steps)
    columns = replace(series.columns, known=(*series.columns.known, *recipe.calendar.columns))
    told = series.known[:steps] if series.columns.known else np.zeros((steps, 0))
    return replace(series, known=np.concatenate([told, made], axis=1), columns=columns)


def fingerprint(series: Sequence[Series]) -> str:
    """The sha256 of all that models learn from: names, times and arrays, in their order."""
    digest = sha256()
    for each in series:
        digest.update(repr((each.unique_id, each.start_s, each.step_s, each.columns)).encode())
        for values in (each.values, each.known, each.seen, each.static):
            digest.update(repr(values.shape).encode() + np.ascontiguousarray(values, np.float64).tobytes())
    return digest.hexdigest()


def known_ahead(clean: Clean, rows: pl.DataFrame, h: int, settings: Prepare) -> Series:
    """The series with what is known of its `h` steps to come, as `rows` (`ds` in s, the known columns) say it.

    Raises UsageError when a step of a column is missing.
    """
    series, names = clean.series, clean.series.columns.known
    if not names:
        return series
    ahead = on_steps(clean, rows, names, h, settings)
    unknown = np.argwhere(~np.isfinite(ahead))
    if len(unknown):
        step, column = unknown[0]
        raise UsageError(
            f"series {series.unique_id!r}: {names[column]!r} must be known for all {h} steps ahead; give its value at "
            f"{clean.end_s + int(step) * series.step_s} s (step {int(step) + 1})"
        )
    return replace(series, known=np.concatenate([series.known[: len(series.values) + clean.stale], ahead]))


def on_steps(clean: Clean, rows: pl.DataFrame, names: Sequence[str], h: int, settings: Prepare) -> Floats:
    """What `rows` (`ds` in s) hold of the `h` steps after the end of the record [h, names]; NaN where nothing."""
    offset = (rows["ds"].to_numpy() - clean.end_s) / clean.series.step_s
    index = np.round(np.clip(np.nan_to_num(offset, nan=-1.0), -1, h)).astype(np.int64)
    near = (index >= 0) & (index < h) & (np.abs(offset - index) <= settings.tolerance)
    table = rows.select(pl.col(name).cast(pl.Float64) for name in names).to_numpy()
    return mend.merged(index[near], table[near], h, settings.duplicates)
