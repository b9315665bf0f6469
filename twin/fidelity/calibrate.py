"""Parameters of the twin fitted to a recording, each with its uncertainty, kept as a versioned file."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from twin.errors import TraceError, UsageError
from twin.trace.trace import Trace

F8 = NDArray[np.float64]
FORMAT_VERSION = 1
LEVEL = 0.95
"""Coverage of every interval."""
_Z = 1.959963984540054  # standard normal quantile of (1 + LEVEL) / 2


@dataclass(frozen=True, slots=True)
class Estimate:
    """A fitted parameter: its value, the 95 % interval [low, high], and how many samples it rests on."""

    name: str
    value: float
    low: float
    high: float
    unit: str
    samples: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was fitted to which recording: the trace's name, the sha256 of its source and the digest of its tables.

    `created` is a moment in ISO 8601 that the caller gives, so that equal arguments make equal files.
    """

    trace: str
    sha256: str
    digest: str
    created: str
    estimates: tuple[Estimate, ...]

    def __post_init__(self) -> None:
        """Refuse what no file can hold; raises UsageError."""
        try:
            datetime.fromisoformat(self.created)
        except ValueError as error:
            raise UsageError(f"created={self.created!r} is not ISO 8601, as in 2026-01-31T12:00:00+00:00") from error
        names = [e.name for e in self.estimates]
        if len(set(names)) < len(names):
            raise UsageError(f"calibration of {self.trace!r}: a parameter is given twice among {names}")

    def __getitem__(self, name: str) -> Estimate:
        """The estimate of that name; raises UsageError listing the known ones."""
        for estimate in self.estimates:
            if estimate.name == name:
                return estimate
        known = [e.name for e in self.estimates]
        raise UsageError(f"calibration of {self.trace!r} has no {name!r}; it has {known}")

    def write(self, path: Path) -> None:
        """Write the calibration as JSON; the file appears whole or not at all."""
        told = json.dumps({"format_version": FORMAT_VERSION, **asdict(self)}, indent=2, allow_nan=False)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            partial.write_text(told + "\n", encoding="utf-8")
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def read(path: Path) -> Calibration:
    """The calibration stored at `path`; raises TraceError for a damaged file or another format version."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TraceError(f"{path}: cannot be read as a calibration: {error}") from error
    version = told.pop("format_version", None) if isinstance(told, dict) else None
    if version != FORMAT_VERSION:
        raise TraceError(
            f"{path}: calibration format {version!r}, this version reads {FORMAT_VERSION}: calibrate the trace anew"
        )
    try:
        estimates = tuple(Estimate(**each) for each in told.pop("estimates"))
        return Calibration(**told, estimates=estimates)
    except (TypeError, KeyError, UsageError) as error:
        raise TraceError(f"{path}: not a whole calibration ({error}): calibrate the trace anew") from error


def calibrate(
    trace: Trace,
    *,
    created: str,
    rng: np.random.Generator,
    capacity_cores: float | None = None,
    startup_s: F8 | None = None,
    power: tuple[F8, F8] | None = None,
) -> Calibration:
    """All that this recording lets fit; what it has no samples of is left out.

    Args:
        trace: holds `jobs`.
        created: when, in ISO 8601.
        rng: draws the bootstrap samples.
        capacity_cores: cores of the cluster, for `scheduler_latency`; by default those of the trace's nodes.
        startup_s: measured start-up delays in seconds, for `startup_delay`.
        power: utilisation (0-1) and watts of a machine at the same moments, for `power_curve`.

    Raises:
        UsageError: `created` is not ISO 8601, or given samples cannot be fitted.
    """
    cores = capacity_cores or float(trace.nodes["cpu_cores"].sum())
    found = [*scheduler_latency(trace.jobs, cores, rng=rng), *run_stretch(trace.jobs, rng=rng)]
    if startup_s is not None:
        found += startup_delay(startup_s)
    if power is not None:
        found += power_curve(*power)
    return Calibration(trace.info.name, trace.info.sha256, trace.digest(), created, tuple(found))


# ---------------------------------------------------------------- scheduler latency


def scheduler_latency(
    jobs: pl.DataFrame,
    capacity_cores: float,
    *,
    rng: np.random.Generator,
    idle_share: float = 0.5,
    at_most_s: float = 600.0,
    levels: Sequence[float] = (0.1, 0.5, 0.9),
) -> list[Estimate]:
    """`scheduler_latency_p10_s`, `_p50_s`, `_p90_s` and `scheduler_latency_zero_ratio`, with bootstrap intervals.

    A job that found nobody waiting and, itself counted in, at most `idle_share` of the cores taken had no reason to
    wait but the scheduler. Of those jobs: quantiles of the waits in (0, at_most_s], and the share of waits of 0, which
    are latencies below the recording's resolution. A longer wait had another reason (a reservation, a full queue that
    the recording does not tell) and is left out. None where fewer than two such waits are positive.
    """
    known = jobs.drop_nulls(["submit_s", "start_s", "cpu_cores"]).with_columns(
        _end=pl.coalesce("end_s", pl.col("start_s") + pl.col("run_s"), "seen_s", pl.col("start_s")),
        _cores=pl.col("cpu_cores") * pl.col("instances"),
    )
    submit, start, end = (known[c].to_numpy() for c in ("submit_s", "start_s", "_end"))
    cores = known["_cores"].to_numpy()
    # what ends as another job arrives has made room; what starts in that moment has not taken it yet, nor does a job
    # that runs for no time ever
    lasting = np.where(end > start, cores, 0.0)
    taken = _before(start, lasting, submit) - _before(end, lasting, submit, inclusive=True)
    one, at_once = np.ones(len(submit)), (start == submit).astype(np.float64)
    started = _before(start, one, submit, inclusive=True)
    started -= _before(submit, at_once, submit, inclusive=True) - _before(submit, at_once, submit)
    idle = (_before(submit, one, submit) <= started) & (taken + cores <= idle_share * capacity_cores)
    waits = (start - submit)[idle]
    waits = waits[(waits >= 0) & (waits <= at_most_s)]
    positive = waits[waits > 0]
    if len(positive) < 2:
        return []
    found = [
        _bootstrapped(f"scheduler_latency_p{level * 100:g}_s", "s", positive, _quantile(level), rng) for level in levels
    ]
    zero = (waits == 0).astype(np.float64)
    return [*found, _bootstrapped("scheduler_latency_zero_ratio", "ratio", zero, np.mean, rng)]


def _before(moments: F8, amounts: F8, at: F8, *, inclusive: bool = False) -> F8:
    """Sum of the amounts whose moment lies before each of `at`, or at it."""
    order = np.argsort(moments, kind="stable")
    sums = np.concatenate([[0.0], np.cumsum(amounts[order])])
    return sums[np.searchsorted(moments[order], at, side="right" if inclusive else "left")]


# ---------------------------------------------------------------- start-up, run time


def startup_delay(delays_s: F8) -> list[Estimate]:
    """`startup_median_s` and `startup_sigma` of the lognormal, as `twin.types.Delay` takes them.

    Fitted by maximum likelihood with the origin at 0; the intervals are those of the asymptotic covariance (variance of
    the log-median sigma^2 / n, of sigma sigma^2 / 2n). Raises UsageError for fewer than two delays or one not above 0.
    """
    from scipy import stats

    if len(delays_s) < 2 or not (np.asarray(delays_s) > 0).all() or not np.isfinite(delays_s).all():
        raise UsageError(f"start-up delays: {len(delays_s)} given; at least 2 are needed, all finite and above 0 s")
    sigma, _, median = (float(v) for v in stats.lognorm.fit(delays_s, floc=0.0))
    n = len(delays_s)
    factor, wide = math.exp(_Z * sigma / math.sqrt(n)), _Z * sigma / math.sqrt(2 * n)
    return [
        Estimate("startup_median_s", median, median / factor, median * factor, "s", n),
        Estimate("startup_sigma", sigma, max(sigma - wide, 0.0), sigma + wide, "1", n),
    ]


def run_stretch(jobs: pl.DataFrame, *, rng: np.random.Generator) -> list[Estimate]:
    """How run times lie to what was asked for, and use to request, with bootstrap intervals; the unknown is left out.

    run_limit_ratio_p10, _p50, _p90    run time over the limit or estimate that was asked for, of jobs done
    overrun_ratio                      share of them that ran longer than that
    used_cpu_ratio, used_memory_ratio  mean of used over asked for
    """
    done = jobs.filter(pl.col("status") == "done").drop_nulls(["run_s", "limit_s"]).filter(pl.col("limit_s") > 0)
    ratio = (done["run_s"] / done["limit_s"]).to_numpy()
    found = []
    if len(ratio) > 1:
        found = [
            _bootstrapped(f"run_limit_ratio_p{q * 100:g}", "ratio", ratio, _quantile(q), rng) for q in (0.1, 0.5, 0.9)
        ]
        found.append(_bootstrapped("overrun_ratio", "ratio", (ratio > 1).astype(np.float64), np.mean, rng))
    for name, asked in (("used_cpu_ratio", "cpu_cores"), ("used_memory_ratio", "memory_gib")):
        known = jobs.drop_nulls([asked, f"used_{asked}"]).filter(pl.col(asked) > 0)
        used = (known[f"used_{asked}"] / known[asked]).to_numpy()
        if len(used) > 1:
            found.append(_bootstrapped(name, "ratio", used, np.mean, rng))
    return found


# ---------------------------------------------------------------- power


def power_curve(utilisation: F8, watts: F8) -> list[Estimate]:
    """`idle_w`, `full_w` and `power_exponent` of P = idle + (full - idle) u^exponent, by least squares.

    Args:
        utilisation: used share of the processor, 0-1 [samples].
        watts: power at the same moments [samples]; pairs with a NaN are left out.

    Returns:
        The estimates with intervals from the covariance of the fit.

    Raises:
        UsageError: fewer than four samples, a utilisation outside 0-1, too few distinct ones to tell the three
            parameters apart, or no convergence.
    """
    from scipy import optimize

    known = ~(np.isnan(utilisation) | np.isnan(watts))
    u, w = np.asarray(utilisation, dtype=np.float64)[known], np.asarray(watts, dtype=np.float64)[known]
    if len(u) < 4 or (u < 0).any() or (u > 1).any() or len(np.unique(u)) < 3:
        raise UsageError(
            f"power curve: {len(u)} samples at {len(np.unique(u))} utilisations; at least 4 samples at 3 utilisations "
            "within 0-1 are needed"
        )
    low, high = float(w.min()), float(w.max())
    with warnings.catch_warnings():
        warnings.simplefilter("error", optimize.OptimizeWarning)
        try:
            best, covariance = optimize.curve_fit(
                _watts, u, w, p0=(low, high, 1.0), bounds=([0.0, 0.0, 0.05], [np.inf, np.inf, 20.0])
            )
        except (optimize.OptimizeWarning, RuntimeError, ValueError) as error:
            raise UsageError(f"power curve cannot be fitted to these {len(u)} samples: {error}") from error
    wide = _Z * np.sqrt(np.diag(covariance))
    names = (("idle_w", "W"), ("full_w", "W"), ("power_exponent", "1"))
    return [
        Estimate(name, float(v), max(float(v - d), 0.0), float(v + d), unit, len(u))
        for (name, unit), v, d in zip(names, best, wide, strict=True)
    ]


def _watts(u: F8, idle_w: float, full_w: float, exponent: float) -> F8:
    return idle_w + (full_w - idle_w) * u**exponent


# ---------------------------------------------------------------- bootstrap


def _quantile(level: float) -> Callable[[F8], np.floating]:
    return lambda values: np.quantile(values, level)


def _bootstrapped(
    name: str,
    unit: str,
    values: F8,
    statistic: Callable[[F8], np.floating],
    rng: np.random.Generator,
    rounds: int = 200,
) -> Estimate:
    """The statistic with its percentile bootstrap interval (Efron 1979)."""
    drawn = [float(statistic(values[rng.integers(0, len(values), len(values))])) for _ in range(rounds)]
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(name, float(statistic(values)), float(low), float(high), unit, len(values))
