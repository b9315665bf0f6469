"""A calibration put to use: jobs and machines as the recording says that they are."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from twin.engine.jobs.machines import Power
from twin.engine.jobs.workload import F8, NO_RUN_TIME, Workload
from twin.fidelity.calibrate import Calibration

_Z90 = 1.2815515655446004  # standard normal quantile of 0.9


def calibrated(workload: Workload, calibration: Calibration, rng: np.random.Generator) -> Workload:
    """The jobs with what was fitted, as far as it was; each job's draws are the same for the same generator.

    - scheduler latency: none for the share that had none, else lognormal through the fitted quantiles (of which only
      the median and the spread between the 10th and the 90th percentile are used);
    - start-up delay: held before the run begins, lognormal;
    - run times that nobody recorded: the limit times lognormal run/limit ratios.
    """
    fitted = {estimate.name: estimate.value for estimate in calibration.estimates}
    count = len(workload)
    # all are drawn whatever was fitted, so that one parameter more or less leaves the others' draws as they are
    shown, latency, startup, ratio = rng.random(count), *(rng.standard_normal(count) for _ in range(3))
    run_s, latency_s, refused = workload.run_s, workload.latency_s, workload.refused
    if "run_limit_ratio_p50" in fitted:
        unknown = ~np.isfinite(run_s) & np.isfinite(workload.limit_s)
        run_s = np.where(unknown, workload.limit_s * _through(fitted, "run_limit_ratio_p{}", ratio), run_s)
        refused = tuple("" if u and why == NO_RUN_TIME else why for u, why in zip(unknown, refused, strict=True))
    if "startup_median_s" in fitted:
        run_s = run_s + fitted["startup_median_s"] * np.exp(fitted["startup_sigma"] * startup)
    if "scheduler_latency_p50_s" in fitted:
        seen_at_once = shown < fitted.get("scheduler_latency_zero_ratio", 0.0)
        latency_s = np.where(seen_at_once, 0.0, _through(fitted, "scheduler_latency_p{}_s", latency))
    return replace(workload, run_s=run_s, latency_s=latency_s, refused=refused)


def _through(fitted: dict[str, float], name: str, normal: F8) -> F8:
    """Lognormal values with the fitted median and spread."""
    low, median, high = (fitted[name.format(level)] for level in (10, 50, 90))
    sigma = math.log(high / low) / (2 * _Z90) if low > 0 else 0.0
    return median * np.exp(sigma * normal)


def power(calibration: Calibration) -> Power:
    """The fitted power curve; raises UsageError where none was fitted."""
    return Power(calibration["idle_w"].value, calibration["full_w"].value, calibration["power_exponent"].value)
