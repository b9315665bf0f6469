"""The forecasts that the accuracy bench scores: made once for each forecaster, kept in the run, taken over again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from agents import forecast
from agents.forecast.backtest import Failure, Plan, before_judged, gap, rolling
from agents.forecast.base import Floats, Forecaster, Progress
from agents.forecast.frames import Series, first, steps_in
from agents.forecast.rolling import Rolled, truth_at
from agents.forecast.scoring import Judged, native_seasonal_naive, regimes, scored
from experiments.forecasts.panels import cluster
from twin.errors import UsageError

FOLDER = "rolled"
_LEAST_SPANS = 4
_NATIVE_STEPS = 2016  # at most, on every grid: what the bands of the native seasonal naive are taken from


@dataclass(frozen=True, slots=True)
class Protocol:
    """How forecasters are asked: fitted once on the first part, then from equally spaced origins of the rest.

    Attributes:
        h: steps ahead.
        origins: at most so many for each series.
        train_share: of each series, by time, that is learned from (0-1).
        seed: of whatever is random in fitting.
    """

    h: int
    origins: int
    train_share: float
    seed: int

    def plan(self, series: Series) -> Plan:
        """The origins of one series; raises UsageError when there is no room for one."""
        n = len(series.values)
        start = steps_in(n, self.train_share)
        if self.origins < 1 or start == 0 or start > n - self.h:
            raise UsageError(
                f"series {series.unique_id!r}: {n} steps leave no room for {self.origins} origins with {self.h} steps "
                f"to come after train_share={self.train_share}"
            )
        return Plan(series, np.unique(np.linspace(start, n - self.h, self.origins).round().astype(np.int64)))


@dataclass(frozen=True, slots=True)
class Rolls:
    """What one forecaster said of each series: deciles [origins, h, 9], NaN where it failed, and why it did."""

    said: Mapping[str, Floats]
    failures: Mapping[str, str]


def rolls(
    forecaster: Forecaster,
    plans: Sequence[Plan],
    beside: Sequence[Series],
    protocol: Protocol,
    progress: Progress | None = None,
) -> Rolls:
    """The forecasts of all plans; `beside` are further series that a pooled forecaster learns from.

    Of these, short ones are left out: who learns holds some of each series back, and what is left must do.
    """
    least = _LEAST_SPANS * (forecaster.needs + protocol.h)
    long = [each for each in beside if len(each.values) >= least]
    train = first([plan.series for plan in plans], protocol.train_share)
    train = [*(before_judged(train, plans, protocol.h, cluster) if forecaster.pooled else train), *long]
    said, failures = {}, {}
    for plan, found in rolling(forecaster, plans, protocol.h, train=train, seed=protocol.seed, progress=progress):
        if isinstance(found, Failure):
            failures[plan.series.unique_id] = found.message
        said[plan.series.unique_id] = gap(plan, protocol.h) if isinstance(found, Failure) else found
    return Rolls(said, failures)


def mean_of(members: Sequence[Rolls]) -> Rolls:
    """The mean of the members' deciles; it fails where one of them does."""
    failures = {unique_id: why for member in members for unique_id, why in member.failures.items()}
    return Rolls({i: np.mean([each.said[i] for each in members], axis=0) for i in members[0].said}, failures)


def native(plans: Sequence[Plan], h: int, day_steps: int) -> Rolls:
    """What the native seasonal naive says: the value one day ago, with bands from the part that is learned from.

    Raises UsageError when that part of a series is not longer than a day.
    """
    said = {}
    for plan in plans:
        past = plan.series.values[: plan.origins[0]][-_NATIVE_STEPS:]
        said[plan.series.unique_id] = native_seasonal_naive(plan.series, plan.origins, h, day_steps, past)
    return Rolls(said, {})


def scores(
    level: str, grid: str, day_steps: int, plans: Sequence[Plan], found: Mapping[str, Rolls], h: int
) -> pl.DataFrame:
    """The `accuracy_scores` rows: every forecaster of `found` on every series, by band and regime."""
    rows = []
    for plan in plans:
        series = plan.series
        truth, where = truth_at(series, plan.origins, h), regimes(series, plan.origins, h, int(plan.origins[0]))
        for name, each in found.items():
            judged = Judged.of(Rolled(plan.origins, each.said[series.unique_id], truth), series, day_steps)
            named = {"level": level, "grid": grid, "forecaster": name, "unique_id": series.unique_id}
            rows += [{**named, **row} for row in scored(judged, where)]
    return pl.DataFrame(rows)


# ---------------------------------------------------------------- kept


def key(
    config: Mapping[str, Any],
    forecaster: Forecaster,
    plans: Sequence[Plan],
    beside: Sequence[Series],
    protocol: Protocol,
) -> str:
    """What the forecasts depend on, as 16 hexadecimal digits.

    That is the configuration, everything in `agents.forecast` (sources and shipped networks), the series, the origins
    and the protocol.
    """
    digest = hashlib.sha256(json.dumps([config, dataclasses.asdict(protocol)], sort_keys=True).encode())
    for path in sorted(Path(forecast.__path__[0]).rglob("*")):
        if path.suffix in (".py", ".npz"):
            digest.update(path.read_bytes())
    for each in (*(plan.series for plan in plans), *(beside if forecaster.pooled else ())):
        digest.update(f"{each.unique_id} {each.start_s} {each.step_s}".encode())
        digest.update(each.values.tobytes())
    for plan in plans:
        digest.update(plan.origins.tobytes())
    return digest.hexdigest()[:16]


def keep(path: Path, found: Rolls) -> None:
    """Write the forecasts as NPZ; the file appears whole or not at all."""
    partial = path.with_name(f"{path.stem}.tmp.npz")
    partial.parent.mkdir(parents=True, exist_ok=True)
    arrays = {f"said/{unique_id}": said for unique_id, said in found.said.items()}
    np.savez_compressed(partial, failures=np.array(json.dumps(dict(found.failures))), **arrays)  # pyright: ignore[reportArgumentType] - names of arrays
    os.replace(partial, path)


def kept(name: str, folders: Sequence[Path]) -> Rolls | None:
    """The forecasts kept under that file name in the first of the folders that has it; None: in none of them."""
    path = next((folder / name for folder in folders if (folder / name).is_file()), None)
    if path is None:
        return None
    with np.load(path, allow_pickle=False) as arrays:
        said = {n.removeprefix("said/"): arrays[n] for n in arrays.files if n.startswith("said/")}
        return Rolls(said, json.loads(str(arrays["failures"])))
