"""What a forecaster is: fitted once on series, then asked for many origins at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from agents.forecast.frames import Series
from twin.errors import UsageError

Floats = NDArray[np.float64]
Progress = Callable[[float, str], None]  # share done (0-1), one short sentence

DECILES: Floats = np.arange(1, 10) / 10.0
MEDIAN = len(DECILES) // 2
DECILE_NAMES = tuple(f"q{10 * k}" for k in range(1, 10))


@dataclass(frozen=True, slots=True)
class Past:
    """What may be known at each of `batch` origins, and nothing later but what is known ahead.

    Attributes:
        ids: the series of each row.
        y: the `context` steps that end right before the origin [batch, context]. NaN stands before the beginning
            of a series that is younger, and nowhere else.
        origin_s: when the first step to forecast begins [batch], in s on the series' own clock.
        step_s: seconds of a step.
        seen: other series recorded at the steps of `y` [batch, context, columns].
        known: what is known ahead (calendar, events, plans), from the first step of `y` to the last one that is
            forecast [batch, context + h, columns].
        static: what never changes about the series [batch, columns].
    """

    ids: Sequence[str]
    y: Floats
    origin_s: Floats
    step_s: int
    seen: Floats
    known: Floats
    static: Floats

    @classmethod
    def of(cls, y: Floats, ids: Sequence[str], h: int, step_s: int = 300) -> Self:
        """The past of series that have values and nothing else."""
        batch, context = y.shape
        return cls(
            ids,
            y,
            np.full(batch, float(context * step_s)),
            step_s,
            np.zeros((batch, context, 0)),
            np.zeros((batch, context + h, 0)),
            np.zeros((batch, 0)),
        )

    def rows(self, at: Sequence[int] | NDArray[np.int64]) -> Past:
        """Some of the origins."""
        ids = [self.ids[k] for k in at]
        return Past(ids, self.y[at], self.origin_s[at], self.step_s, self.seen[at], self.known[at], self.static[at])

    def last(self, context: int, h: int) -> Past:
        """The same origins with no more than `context` steps of history, for `h` steps ahead."""
        start = self.y.shape[1] - context
        return Past(
            self.ids,
            self.y[:, start:],
            self.origin_s,
            self.step_s,
            self.seen[:, start:],
            self.known[:, start : start + context + h],
            self.static,
        )


@runtime_checkable
class Forecaster(Protocol):
    """Nine deciles of the next steps from the last `context` steps.

    The past is handed over and not remembered, so that what a forecast may know is exactly what stands in it:
    a rolling backtest is one call, and no forecast can see its future.
    """

    @property
    def name(self) -> str:
        """The name in tables and charts."""
        ...

    @property
    def context(self) -> int:
        """Steps of history that a forecast looks at."""
        ...

    @property
    def needs(self) -> int:
        """Steps of history that a forecast cannot do without; at most `context`."""
        ...

    @property
    def pooled(self) -> bool:
        """One model over all series (True), or one for each (False)."""
        ...

    def fit(self, series: Sequence[Series], seed: int, progress: Progress | None = None) -> Self:
        """A forecaster fitted on all of `series`; this one stays as it is.

        Raises:
            UsageError: a series is too short, or the series do not fit together.
        """
        ...

    def forecast(self, past: Past, h: int) -> Floats:
        """Deciles [batch, h, 9], never crossing, of the `h` steps after each origin.

        Raises:
            UsageError: not fitted (on this series), or `h` or the past is not what the model was made for.
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


def check_past(past: Past, forecaster: Forecaster, h: int) -> None:
    """Raise UsageError unless `past` has the forecaster's shape, and its last `needs` steps are known everywhere."""
    name, shape = forecaster.name, (len(past.ids), forecaster.context)
    if past.y.shape != shape or past.known.shape[1] != forecaster.context + h:
        raise UsageError(
            f"{name}: needs a past of {list(shape)} and what is known {h} steps ahead; got {list(past.y.shape)} "
            f"and {past.known.shape[1] - past.y.shape[1]} steps"
        )
    unknown = ~np.isfinite(past.y[:, forecaster.context - forecaster.needs :]).all(axis=1)
    if unknown.any():
        raise UsageError(
            f"{name}: needs the last {forecaster.needs} steps of {past.ids[int(unknown.argmax())]!r}, and some of them "
            "are unknown; fill them, or forecast from a later origin"
        )


def part(progress: Progress | None, start: float, end: float, prefix: str = "") -> Progress | None:
    """A progress callback for the part of the work that lies between `start` and `end` (0-1) of the whole."""
    if progress is None:
        return None
    return lambda share, note: progress(start + (end - start) * share, prefix + note)
