"""`python -m experiments.backtest`: forecasters over rolling origins on the last part of a trace's series."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from omegaconf import DictConfig

import twin
from agents.forecast import backtest, frames
from experiments import cell, present, verb
from experiments.display import Display
from experiments.rundir import RunFolder


def study(cfg: DictConfig, folder: RunFolder, display: Display) -> list[str]:
    """Backtest all forecasters on the trace's series; returns what failed, in words.

    The extra traces are learned from (their own first part) beside the trace, but not scored.
    """
    trace = cell.read_trace(cfg.trace)
    series = frames.series(trace)
    others = [frames.series(twin.read(name)) for name in cfg.extra_traces]
    forecasters = [cell.build(forecaster) for forecaster in cfg.forecasters.values()]
    with folder.phase("backtest"), display.phase(f"backtest {len(forecasters)} forecasters") as advance:
        done = backtest.backtest(
            forecasters,
            pl.concat([series, *others]),
            h=cfg.horizon_steps,
            origins_every=cfg.every_steps,
            fit_share=cfg.train_share,
            seed=cfg.seed,
            progress=advance,
        )
    own = pl.col("unique_id").is_in(series["unique_id"].unique().to_list())
    forecasts = done.forecasts.filter(own)
    scores = backtest.score(forecasts, series)
    folder.table("forecasts", forecasts)
    folder.table("forecast_scores", scores)
    show(scores, display)
    return [f"{f.forecaster} on {f.unique_id}: {f.message}" for f in done.failures]


def show(scores: pl.DataFrame, display: Display) -> None:
    """The scores over all steps, one row per series and forecaster; the run folder holds each step."""
    columns = ("unique_id", "forecaster", "accuracy_percent", "mase", "scaled_crps", "coverage_80", "skill")
    pooled = scores.filter(pl.col("horizon").str.contains("-")).sort("unique_id", "scaled_crps")
    display.table("Forecasts on held-out time, all steps pooled (best of each series first)", pooled.select(columns))


def task(cfg: DictConfig, display: Display) -> int:
    """Backtest, write the run folder and its report; returns the exit code (4 when a forecaster failed)."""
    trace = cell.read_trace(cfg.trace)
    display.line(present.identity_line("backtest", cfg, trace))
    with RunFolder(Path(cfg.out)) as folder:
        folder.identify(cfg, "backtest", trace, verb.command("backtest"), verb.overrides())
        failed = study(cfg, folder, display)
        folder.status("partly failed" if failed else "completed", "; ".join(failed))
    return verb.conclude(folder.final, cfg, display, failed)


def main() -> None:
    """The entry point."""
    verb.main("backtest", task)


if __name__ == "__main__":
    main()
