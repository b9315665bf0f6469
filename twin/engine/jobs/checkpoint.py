"""Checkpoint-restart in closed form: what checkpoints cost a run, and what they save of it.

A run works for `interval_s`, then stops for `cost_s` to write its state, and so on; no checkpoint is written once all
work is done. A checkpoint holds the state at which its writing began and counts once it is written whole: an
interruption while it is written falls back to the one before (the cycle of Young, CACM 17(9), 1974). An interval of 0
or infinity means that nothing is ever written.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twin.errors import SimulationError


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Every job writes its state after each `interval_s` of work, which takes `cost_s`."""

    interval_s: float
    cost_s: float


def busy_s(work_s: float, checkpoint: Checkpoint | None) -> float:
    """Seconds at full pace that this work takes, checkpoints included."""
    return work_s if checkpoint is None else float(stretched_run_s(work_s, checkpoint.interval_s, checkpoint.cost_s))


def done_s(busy_s: float, checkpoint: Checkpoint | None) -> float:
    """Seconds of work done after that time at full pace, written or not."""
    return busy_s if checkpoint is None else float(work_done_s(busy_s, checkpoint.interval_s, checkpoint.cost_s))


def saved_s(busy_s: float, checkpoint: Checkpoint | None) -> float:
    """Seconds of work that survive an interruption after that time at full pace."""
    return 0.0 if checkpoint is None else float(work_kept_s(busy_s, checkpoint.interval_s, checkpoint.cost_s))


def stretched_run_s(run_s: ArrayLike, interval_s: ArrayLike, cost_s: ArrayLike) -> NDArray[np.float64]:
    """Wall seconds that `run_s` seconds of work take with their checkpoints; all broadcast against each other.

    Raises:
        SimulationError: an amount is negative or not a number.
    """
    run, interval, cost = _checked(run_s=run_s, interval_s=interval_s, cost_s=cost_s)
    # a checkpoint at the very end would save nothing, so that a run of n whole intervals writes n - 1
    return run + cost * np.maximum(np.ceil(_intervals(run, interval)) - 1.0, 0.0)


def work_kept_s(elapsed_s: ArrayLike, interval_s: ArrayLike, cost_s: ArrayLike) -> NDArray[np.float64]:
    """Seconds of work that survive an interruption `elapsed_s` wall seconds after the start; all broadcast.

    Only for an interruption before the end of the run, that is `elapsed_s` < `stretched_run_s`.

    Raises:
        SimulationError: an amount is negative or not a number.
    """
    elapsed, interval, cost = _checked(elapsed_s=elapsed_s, interval_s=interval_s, cost_s=cost_s)
    written = np.floor(_intervals(elapsed, interval + cost))
    # without an interval nothing is written; the product may lie an ulp above what has passed
    return np.minimum(written * np.where(np.isfinite(interval), interval, 0.0), elapsed)


def work_done_s(elapsed_s: ArrayLike, interval_s: ArrayLike, cost_s: ArrayLike) -> NDArray[np.float64]:
    """Seconds of work done `elapsed_s` wall seconds after the start, written or not; all broadcast.

    Raises:
        SimulationError: an amount is negative or not a number.
    """
    elapsed, interval, cost = _checked(elapsed_s=elapsed_s, interval_s=interval_s, cost_s=cost_s)
    cycles = np.floor(_intervals(elapsed, interval + cost))
    each = np.where(np.isfinite(interval), interval, 0.0)  # without an interval there is no cycle to count
    since = np.maximum(elapsed - cycles * (each + cost), 0.0)
    return np.minimum(cycles * each + np.minimum(since, interval), elapsed)


def _intervals(time_s: NDArray[np.float64], length_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """How many of `length_s` fit into `time_s`, with fractions."""
    return np.divide(time_s, length_s, out=np.zeros(np.broadcast(time_s, length_s).shape), where=length_s > 0)


def _checked(**amounts: ArrayLike) -> list[NDArray[np.float64]]:
    """The amounts as arrays, none of them negative; an interval of 0 becomes infinity: both mean no checkpoint."""
    arrays = []
    for name, amount in amounts.items():
        values = np.asarray(amount, dtype=np.float64)
        if not (values >= 0).all() or (name != "interval_s" and np.isinf(values).any()):
            raise SimulationError(f"{name} holds {amount!r}: every amount must be a time of 0 s or more")
        arrays.append(np.where(values == 0, np.inf, values) if name == "interval_s" else values)
    return arrays
