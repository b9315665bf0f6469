"""What a forecaster is: fitted once on a long frame, then asked for many rolling origins at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, Self, TypeVar, runtime_checkable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from twin.errors import UsageError

Floats = NDArray[np.float64]
Progress = Callable[[float, str], None]  # share done (0-1), one short sentence

DECILES: Floats = np.arange(1, 10) / 10.0
MEDIAN = len(DECILES) // 2
DECILE_NAMES = tuple(f"q{10 * k}" for k in range(1, 10))


@runtime_checkable
class Forecaster(Protocol):
    """Nine deciles of the next steps from the last `context` steps.

    The past is handed over as windows and not remembered, so that what a forecast may know is exactly
    what stands in its window: a rolling backtest is one call, and no forecast can see its future.
    """

    @property
    def name(self) -> str:
        """The name in tables and charts."""
        ...

    @property
    def context(self) -> int:
        """Steps of history that a forecast needs."""
        ...

    @property
    def pooled(self) -> bool:
        """One model over all series (True), or one for each (False)."""
        ...

    def fit(self, frame: pl.DataFrame, seed: int, progress: Progress | None = None) -> Self:
        """A forecaster fitted on everything in `frame` (`unique_id`, `ds`, `y`); this one stays as it is.

        Raises:
            UsageError: a series is too short, irregular, or holds an unknown value.
        """
        ...

    def forecast(self, histories: Floats, h: int, ids: Sequence[str]) -> Floats:
        """Deciles [batch, h, 9], never crossing, of the `h` steps after each history [batch, context].

        `ids` names the series of each row.

        Raises:
            UsageError: not fitted (on this series), or `h` or the history is not what the model was made for.
        """
        ...


_Model = TypeVar("_Model")


def fitted_to(models: Mapping[str, _Model], unique_id: str, name: str) -> _Model:
    """The model of one series; raises UsageError when it was not fitted on that series."""
    try:
        return models[unique_id]
    except KeyError:
        raise UsageError(
            f"{name}: not fitted on the series {unique_id!r}; fitted on {sorted(models) or 'none: call fit first'}"
        ) from None


def check_histories(histories: Floats, context: int, ids: Sequence[str], name: str) -> None:
    """Raise UsageError unless `histories` is [len(ids), context] and known everywhere."""
    if histories.shape != (len(ids), context):
        raise UsageError(f"{name}: needs histories [{len(ids)}, {context}], got {list(histories.shape)}")
    unknown = ~np.isfinite(histories).all(axis=1)
    if unknown.any():
        raise UsageError(f"{name}: the history of {ids[int(unknown.argmax())]!r} holds unknown values; fill it first")


def part(progress: Progress | None, start: float, end: float, prefix: str = "") -> Progress | None:
    """A progress callback for the part of the work that lies between `start` and `end` (0-1) of the whole."""
    if progress is None:
        return None
    return lambda share, note: progress(start + (end - start) * share, prefix + note)
