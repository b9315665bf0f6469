"""`python -m experiments.calibrate`: what a recording lets fit of the twin, kept as calibration.json."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from omegaconf import DictConfig

from experiments import cell, present, verb
from experiments.display import Display
from experiments.rundir import RunFolder
from twin.errors import UsageError
from twin.scheduling import starts
from twin.trace.trace import Trace

if TYPE_CHECKING:
    from twin.fidelity.calibrate import F8, Calibration

FILE = "calibration.json"
_SAMPLED = ("utilisation", "watts")


def task(cfg: DictConfig, display: Display) -> int:
    """Fit, write the run folder and end with the file's path; returns the exit code."""
    from twin.fidelity import calibrate
    from twin.seeds import child

    trace = cell.read_trace(cfg.trace)
    if not trace.jobs.height:
        raise UsageError(f"trace {trace.info.name!r} holds no jobs to fit anything to; use one that does: trace=jobs")
    if cfg.capacity_cores is not None and not cfg.capacity_cores > 0:
        raise UsageError(f"capacity_cores={cfg.capacity_cores:g} must be above 0; null = those of the recorded nodes")
    power = power_samples(cfg.power_samples)
    display.line(present.identity_line("calibrate", cfg, trace))
    with RunFolder(Path(cfg.out)) as folder:
        folder.identify(cfg, "calibrate", trace, verb.command("calibrate"), verb.overrides())
        with folder.phase("calibrate"):
            fitted = calibrate.calibrate(
                trace,
                created=cfg.created or datetime.now(UTC).isoformat(timespec="seconds"),
                rng=child(cfg.seed, "bootstrap"),
                capacity_cores=cfg.capacity_cores,
                power=power,
            )
        fitted.write(folder.path / FILE)
        estimates = pl.DataFrame([asdict(each) for each in fitted.estimates], schema=_SCHEMA)
        folder.table("calibration", estimates)
    display.table("What the recording lets fit, with 95 % intervals", estimates)
    for part, why in unfitted(fitted, trace, cfg.capacity_cores).items():
        display.line(f"not fitted: {part}: {why}")
    cell.build(cfg.tracking).mirror(folder.final)
    display.result(str(folder.final / FILE))
    return verb.DONE


def unfitted(fitted: Calibration, trace: Trace, capacity_cores: float | None) -> dict[str, str]:
    """What was not fitted, each with what the recording lacks for it."""
    jobs, found = trace.jobs, {each.name for each in fitted.estimates}
    if not starts(jobs):
        idle = "the recording tells no starts of jobs"
    elif not (capacity_cores or trace.nodes["cpu_cores"].sum()):
        idle = "the recording tells no cores of the cluster; give capacity_cores"
    else:
        idle = "fewer than two jobs that met a cluster at most half in use, and nobody waiting, waited at all"
    lacks = {
        "scheduler_latency_p50_s": ("scheduler_latency", idle),
        "run_limit_ratio_p50": (
            "run_limit_ratio",
            "fewer than two jobs that are done tell both how long they ran and what they asked for",
        ),
        "used_cpu_ratio": ("used_cpu_ratio", "fewer than two jobs tell used_cpu_cores"),
        "used_memory_ratio": ("used_memory_ratio", "fewer than two jobs tell used_memory_gib"),
        "power_exponent": ("power curve", "no samples of it; give power_samples"),
    }
    return {part: why for name, (part, why) in lacks.items() if name not in found}


_SCHEMA = {
    "name": pl.String,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "unit": pl.String,
    "samples": pl.Int64,
}


def power_samples(path: str | None) -> tuple[F8, F8] | None:
    """Utilisation and watts from a CSV file with these two columns; raises UsageError when it is none."""
    if path is None:
        return None
    found = verb.require(path, "power_samples", "give a CSV file with columns utilisation and watts")
    remedy = "give a CSV file of numbers with columns utilisation (0 to 1) and watts"
    try:
        samples = pl.read_csv(found)
        missing = [name for name in _SAMPLED if name not in samples.columns]
        if missing:
            raise UsageError(f"power_samples={path} has no column {missing[0]}, only {samples.columns}; {remedy}")
        utilisation, watts = (samples[name].cast(pl.Float64).to_numpy() for name in _SAMPLED)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UsageError(f"power_samples={path} cannot be read as numbers; {remedy}") from error
    return utilisation, watts


def main() -> None:
    """The entry point."""
    verb.main("calibrate", task)


if __name__ == "__main__":
    main()
