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

if TYPE_CHECKING:
    from twin.fidelity.calibrate import F8

FILE = "calibration.json"


def task(cfg: DictConfig, display: Display) -> int:
    """Fit, write the run folder and its report; returns the exit code."""
    from twin.fidelity import calibrate
    from twin.seeds import child

    trace = cell.read_trace(cfg.trace)
    if not trace.jobs.height:
        raise UsageError(f"trace {trace.info.name!r} holds no jobs to fit anything to; use one that does: trace=jobs")
    display.line(present.identity_line("calibrate", cfg, trace))
    with RunFolder(Path(cfg.out)) as folder:
        folder.identify(cfg, "calibrate", trace, verb.command("calibrate"), verb.overrides())
        with folder.phase("calibrate"):
            fitted = calibrate.calibrate(
                trace,
                created=cfg.created or datetime.now(UTC).isoformat(timespec="seconds"),
                rng=child(cfg.seed, "bootstrap"),
                capacity_cores=cfg.capacity_cores,
                power=_power(cfg.power_samples),
            )
        fitted.write(folder.path / FILE)
        estimates = pl.DataFrame([asdict(each) for each in fitted.estimates], schema=_SCHEMA)
        folder.table("calibration", estimates)
    display.table("What the recording lets fit, with 95 % intervals", estimates)
    if not fitted.estimates:
        display.line("nothing could be fitted: waits of jobs that met an idle cluster, limits and use are not recorded")
    present.finish(folder.final, cfg, display)
    return verb.DONE


_SCHEMA = {
    "name": pl.String,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "unit": pl.String,
    "samples": pl.Int64,
}


def _power(path: str | None) -> tuple[F8, F8] | None:
    """Utilisation and watts from a CSV file with these two columns; raises UsageError when it is none."""
    if path is None:
        return None
    try:
        samples = pl.read_csv(verb.require(path, "power_samples", "give a CSV file with columns utilisation and watts"))
        utilisation, watts = (samples[name].cast(pl.Float64).to_numpy() for name in ("utilisation", "watts"))
    except pl.exceptions.PolarsError as error:
        raise UsageError(f"power_samples={path}: not a CSV file of numbers utilisation,watts: {error}") from error
    return utilisation, watts


def main() -> None:
    """The entry point."""
    verb.main("calibrate", task)


if __name__ == "__main__":
    main()
