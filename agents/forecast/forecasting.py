"""Forecasts as users of forecasting libraries know them: long frames in, long frames out.

    fitted = Forecasting([Naive()], step_s=300).fit(df)
    said = fitted.predict(12)
    said.frame  # unique_id, ds, naive, naive-lo-80, naive-hi-80, naive-q10 ... naive-q90

Frames are polars or pandas, and come back as what they were; `ds` is whole seconds or datetimes, whose zone is kept
(those without one count as UTC). Every step on the way (cleaning, fitting, calibration) sees rows up to the cutoff
and no others. What cannot be forecast is refused one by one, with the reason; the rest goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
import polars as pl

from agents.forecast import cutoff
from agents.forecast.base import DECILE_NAMES, DECILES, MEDIAN, Forecaster, Progress, part
from agents.forecast.covariates import Calendar
from agents.forecast.cutoff import Fit, Refusal, Said, State
from agents.forecast.frames import Columns
from agents.forecast.longframe import Long, Names, seconds_of
from agents.forecast.prepare import Note, Prepare, report
from twin.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

Frame = TypeVar("Frame", pl.DataFrame, "pd.DataFrame")

_NO_COLUMNS, _AS_IS = Columns(), Prepare()
LEVELS = (20, 40, 60, 80)  # central intervals that nine deciles hold


@dataclass(frozen=True, slots=True)
class Forecasts(Generic[Frame]):
    """A long frame of forecasts and where they come from.

    Attributes:
        frame: id, time, in a backtest `cutoff` (the last stamp on record) and the target, then for each model its
            median `<name>`, `<name>-lo-<level>` and `<name>-hi-<level>`, `<name>-q10` ... `<name>-q90`. NaN where a
            model could not forecast a series; a series that no model could do has no rows.
        provenance: one row per series, cutoff and model: on what the model was fitted (from, until, steps, series,
            sha256 of the arrays), how often it is fitted, and the seed.
        refused: `unique_id` and `model` ("": all of them), `cutoff` (null: the end of the frame), `reason`.
        report: what was done to each series before a model saw it, and what the models warned of: `unique_id`,
            `what`, `steps`, `from`, `to`, `note`.
    """

    frame: Frame
    provenance: pl.DataFrame
    refused: pl.DataFrame
    report: pl.DataFrame


@dataclass(frozen=True, slots=True)
class Forecasting:
    """Models and all that stands before them.

    Attributes:
        models: forecasters with different names; each is fitted on all series or on each, as it says.
        step_s: seconds of a step; or `freq`, the same as "300s", "5min", "1h", "1d".
        columns: which columns of the frame stand beside the target.
        prepare: how dirty series are made regular.
        calendar: columns known ahead that need no frame; its epoch is second 0 of the stamps.
        seed: of whatever is random in fitting.
        id_col: what the column is called that names the series; `time_col` and `target_col` likewise.
    """

    models: Sequence[Forecaster]
    step_s: int = 0
    freq: str = ""
    columns: Columns = _NO_COLUMNS
    prepare: Prepare = _AS_IS
    calendar: Calendar | None = None
    seed: int = 0
    id_col: str = "unique_id"
    time_col: str = "ds"
    target_col: str = "y"

    def __post_init__(self) -> None:
        """Refuse a step told twice or never, and names that would meet in one frame."""
        names = [model.name for model in self.models]
        taken = {self.id_col, self.time_col, self.target_col, "cutoff"}
        if not names or len(set(names)) < len(names) or taken & set(names):
            raise UsageError(f"forecasting needs a model, and different names, none of {sorted(taken)}; got {names}")
        if bool(self.step_s) == bool(self.freq) or self.every_s < 1:
            raise UsageError(f"give step_s in seconds or freq='5min'; got step_s={self.step_s} and freq={self.freq!r}")

    @property
    def every_s(self) -> int:
        """Seconds of a step."""
        return self.step_s or seconds_of(self.freq)

    def fit(self, df: Frame, static_df: Frame | None = None, *, progress: Progress | None = None) -> Fitted[Frame]:
        """All models fitted on all series that can be forecast.

        Args:
            df: id, time, target and the columns named by `columns`; rows at the end without a target are the newest
                steps, whose value is not known yet.
            static_df: id and the static columns, where `df` does not hold them.
            progress: told the share done and the model at work.

        Raises:
            UsageError: a column is missing, or no series can be forecast by any model.
        """
        table = self._read(df, static_df)
        state = cutoff.fit(self, table.rows, None, progress)
        if not any(isinstance(fit, Fit) for fit in state.fits.values()):
            reasons = [*(each.reason for each in state.refused), *(str(why) for why in state.fits.values())]
            raise UsageError(f"nothing can be forecast: {'; '.join(reasons) or 'the frame has no rows'}")
        return Fitted(self, state, table)

    def forecast(
        self,
        df: Frame,
        h: int,
        X_df: Frame | None = None,
        static_df: Frame | None = None,
        levels: Sequence[int] = (80,),
    ) -> Forecasts[Frame]:
        """`fit` and `predict` in one."""
        return self.fit(df, static_df).predict(h, X_df, levels)

    def cross_validation(
        self,
        df: Frame,
        h: int,
        n_windows: int = 1,
        step_size: int | None = None,
        refit: bool | int = True,
        static_df: Frame | None = None,
        levels: Sequence[int] = (80,),
        progress: Progress | None = None,
    ) -> Forecasts[Frame]:
        """Forecasts from `n_windows` cutoffs, `step_size` steps apart, the last of them `h` steps before the end.

        Cutoffs are moments common to all series: no model has seen any series after the moment it forecasts from.
        At each of them cleaning, fitting and calibration see the rows up to it, as they were recorded; columns known
        ahead are read from the rows after it.

        Args:
            df: as for `fit`.
            h: steps ahead.
            n_windows: how many cutoffs.
            step_size: steps between cutoffs, by default `h`.
            refit: True fits at every cutoff, k at every k-th, False once, at the first: what the models learned is
                then older than the later cutoffs, and the provenance says so.
            static_df: as for `fit`.
            levels: central intervals in %, of 20, 40, 60, 80.
            progress: told the share done.

        Raises:
            UsageError: as for `fit`, or there is no room for the windows.
        """
        apart = h if step_size is None else step_size
        every = n_windows if refit is False else int(refit)
        if min(h, n_windows, apart, every) < 1:
            raise UsageError(f"h={h}, n_windows={n_windows}, step_size={step_size} and refit={refit} must be positive")
        table = self._read(df, static_df)
        cutoffs = cutoff.cutoffs(self, table.rows, h, n_windows, apart)
        state: State | None = None
        said: list[Said] = []
        for window, cutoff_s in enumerate(cutoffs):
            if state is None or window % every == 0:
                told = part(progress, window / n_windows, min(window + every, n_windows) / n_windows)
                state = cutoff.fit(self, table.rows, cutoff_s, told)
            else:
                state = cutoff.moved_to(state, self, table.rows, cutoff_s)
            said.append(cutoff.say(self, state, h, table.rows.filter(pl.col("ds") > cutoff_s), strict=False))
        how = f"every {every} cutoffs" if every < n_windows else "once, at the first cutoff"
        return _forecasts(self, table, said, levels, how)

    def _read(self, df: Frame, static_df: Frame | None) -> Long[Frame]:
        return Long.of(df, Names(self.id_col, self.time_col, self.target_col), self.columns, static_df)


@dataclass(frozen=True, slots=True)
class Fitted(Generic[Frame]):
    """Models fitted on a frame, ready to say what comes after it."""

    recipe: Forecasting
    state: State
    table: Long[Frame]

    @property
    def refused(self) -> pl.DataFrame:
        """Which series were refused before a model saw them, and which model could not be fitted, and why."""
        unfitted = [
            Refusal(unique_id or "", name, None, why)
            for (name, unique_id), why in self.state.fits.items()
            if isinstance(why, str)
        ]
        return _refused(self.table, [*self.state.refused, *unfitted])

    @property
    def report(self) -> pl.DataFrame:
        """What was done to each series before a model saw it, and what the models warned of."""
        return _report(self.table, self.state.notes)

    def predict(
        self,
        h: int,
        X_df: Frame | None = None,
        levels: Sequence[int] = (80,),
    ) -> Forecasts[Frame]:
        """The `h` steps after the last row of each series.

        Where the newest steps are unknown the forecast is made from the last known one, further ahead, and is as wide
        as that makes it.

        Args:
            h: steps ahead.
            X_df: id, time and every column of `columns.known` for each of these steps.
            levels: central intervals in %, of 20, 40, 60, 80.

        Raises:
            UsageError: a column or a step of `X_df` is missing, or no model can say anything.
        """
        if h < 1:
            raise UsageError(f"h={h} must be at least 1 step")
        said = cutoff.say(self.recipe, self.state, h, self.table.ahead(X_df, self.recipe.columns.known), strict=True)
        return _forecasts(self.recipe, self.table, [said], levels, "once")


# ---------------------------------------------------------------- tables


def _forecasts(
    recipe: Forecasting, table: Long[Frame], said: Sequence[Said], levels: Sequence[int], how: str
) -> Forecasts[Frame]:
    """All that was said, as the user's kind of frame; raises UsageError when nothing was."""
    wrong = [level for level in levels if level not in LEVELS]
    if wrong:
        raise UsageError(f"levels={wrong[0]}: nine deciles hold central intervals of {list(LEVELS)} %")
    refusals = [refusal for each in said for refusal in each.refused]
    blocks = [_block(recipe, each, unique_id, levels) for each in said for unique_id in each.state.clean]
    frames = [block for block in blocks if block is not None]
    if not frames:
        raise UsageError(f"nothing can be forecast: {'; '.join(dict.fromkeys(r.reason for r in refusals))}")
    frame = pl.concat(frames)
    stamps = [name for name in ("ds", "cutoff") if name in frame.columns]
    return Forecasts(
        table.back(frame.sort("unique_id", *stamps[::-1]), stamps),
        _provenance(recipe, table, said, how),
        _refused(table, refusals),
        _report(table, [note for each in said for note in each.state.notes]),
    )


def _block(recipe: Forecasting, said: Said, unique_id: str, levels: Sequence[int]) -> pl.DataFrame | None:
    """The rows of one series at one cutoff; None when no model could do it, or nothing came in a backtest."""
    names = [model.name for model in recipe.models]
    truth = said.truth.get(unique_id)
    if all((name, unique_id) not in said.deciles for name in names):
        return None
    if truth is not None and np.isnan(truth).all():
        return None
    clean = said.state.clean[unique_id]
    ds = clean.end_s + clean.series.step_s * np.arange(said.h)
    found: dict[str, object] = {"unique_id": [unique_id] * said.h, "ds": ds}
    if truth is not None:
        found |= {"cutoff": np.full(said.h, clean.end_s - clean.series.step_s), "y": truth}
    for name in names:
        deciles = said.deciles.get((name, unique_id), np.full((said.h, len(DECILES)), np.nan))
        found[name] = deciles[:, MEDIAN]
        for level in levels:
            reach = level // 20
            found |= {
                f"{name}-lo-{level}": deciles[:, MEDIAN - reach],
                f"{name}-hi-{level}": deciles[:, MEDIAN + reach],
            }
        found |= {f"{name}-{quantile}": deciles[:, k] for k, quantile in enumerate(DECILE_NAMES)}
    return pl.DataFrame(found)


def _provenance(recipe: Forecasting, table: Long[Frame], said: Sequence[Said], how: str) -> pl.DataFrame:
    rows = [
        {
            "unique_id": unique_id,
            "model": name,
            "cutoff": said_then.state.clean[unique_id].end_s - recipe.every_s,
            "fitted": how,
            "trained_from": fit.from_s,
            "trained_until": fit.until_s,
            "trained_steps": fit.steps,
            "trained_series": fit.series,
            "fingerprint": fit.fingerprint,
            "seed": recipe.seed,
        }
        for said_then in said
        for name, unique_id in said_then.deciles
        if not isinstance(fit := said_then.state.fit_of(name, unique_id), str)
    ]
    return table.told(pl.DataFrame(rows), ("cutoff", "trained_from", "trained_until"))


def _refused(table: Long[Frame], refusals: Sequence[Refusal]) -> pl.DataFrame:
    schema = {"unique_id": pl.String, "model": pl.String, "cutoff": pl.Float64, "reason": pl.String}
    rows = [(each.unique_id, each.model, each.cutoff_s, each.reason) for each in refusals]
    return table.told(pl.DataFrame(rows, schema=schema, orient="row"), ("cutoff",))


def _report(table: Long[Frame], notes: Sequence[Note]) -> pl.DataFrame:
    made = report(list(dict.fromkeys(notes)))
    return table.told(made.rename({"from_s": "from", "to_s": "to"}), ("from", "to"))
