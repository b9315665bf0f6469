"""`python -m experiments.long_horizon`: forecasts of one to twelve months, and what making forecasts add up costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from omegaconf import DictConfig

from agents.forecast.long.guarded import Guarded
from experiments import cell, present, verb
from experiments.display import Display
from experiments.forecasts import coherence, long_scores
from experiments.rundir import RunFolder
from scenarios.synthesis.years import Habits, Plan


def study(cfg: DictConfig, folder: RunFolder, display: Display) -> None:
    """Fit, forecast and score; write `long_horizon` and, where asked, `coherence`."""
    data = None if cfg.data is None else verb.require(cfg.data, "data", "give the folder of recordings, or null")
    forecaster: Guarded = cell.build(cfg.forecaster)
    with folder.phase("recorded"), display.phase("recorded"):
        recorded = list(long_scores.recorded(data)) if data else []
        alone = [(long, long_scores.fitted([long], forecaster)) for long in recorded]
        rows = [long_scores.measure(*each) for each in alone]
    told = long_scores.habits_of(recorded) or [Habits(**cell.plain(habits)) for habits in cfg.habits]
    with folder.phase("generated"), display.phase("generated"):
        drawn = list(long_scores.generated(told, range(cfg.first_seed, cfg.first_seed + cfg.series), Plan()))
        together = long_scores.fitted(drawn, replace(forecaster, families=tuple(cfg.together)))
        rows += [long_scores.measure(long, together) for long in drawn]
    scores = long_scores.scores(pl.concat(rows, how="diagonal"))
    folder.table("long_horizon", scores)
    display.table("Months ahead", scores.drop("mase", "scaled_crps"))
    with folder.phase("coherence"), display.phase("coherence"):
        tables = [coherence.times(name) for name in cfg.timed]
        tables += [coherence.parts(data)] if data else []
    if tables:
        folder.table("coherence", pl.concat(tables))
    folder.note(series=len(drawn), habits="recorded" if recorded else "configured", weight_of_drift=_weight(together))


def _weight(forecaster: Guarded) -> float | None:
    """The mean weight of the drift at the end of the horizon, over series; null without series."""
    weights = [fit.weights[-1].get("drift", 0.0) for fit in forecaster.fits.values()]
    return float(np.mean(weights)) if weights else None


def task(cfg: DictConfig, display: Display) -> int:
    """Score, write the run folder and its report; returns the exit code."""
    display.line(present.identity_line("long_horizon", cfg, None))
    with RunFolder(Path(cfg.out)) as folder:
        folder.identify(cfg, "long_horizon", None, verb.command("long_horizon"), verb.overrides())
        study(cfg, folder, display)
    return verb.conclude(folder.final, cfg, display, [])


def main() -> None:
    """The entry point."""
    verb.main("long_horizon", task)


if __name__ == "__main__":
    main()
