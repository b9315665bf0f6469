"""`python -m experiments.accuracy`: what forecasters are worth on the recorded series of one level and one grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from omegaconf import DictConfig

from agents.forecast.backtest import Plan
from experiments import cell, present, verb
from experiments.display import Display
from experiments.forecasts import accuracy_levels, accuracy_rolls, panels
from experiments.forecasts.accuracy_rolls import FOLDER, Protocol, Rolls
from experiments.rundir import RunFolder
from twin.errors import UsageError

NATIVE, STATISTICAL = accuracy_levels.NATIVE, accuracy_levels.STATISTICAL


def study(cfg: DictConfig, folder: RunFolder, display: Display) -> list[str]:
    """Forecast, score and write the tables; returns what failed, in words."""
    protocol = Protocol(cfg.horizon_steps, cfg.origins, cfg.train_share, cfg.seed)
    data = None if cfg.data is None else verb.require(cfg.data, "data", "give the folder of recordings, or null")
    plans = [protocol.plan(series) for series in panels.panel(cfg.level, cfg.grid, data)]
    for place in panels.absent(cfg.level, data):
        display.line(f"not scored: {place} is not in data={cfg.data}")
    beside = panels.extras(cfg.grid, data) if cfg.extras else []
    found = {NATIVE: accuracy_rolls.native(plans, protocol.h, cfg.day_steps)}
    for name in cfg.forecasters:
        with folder.phase(name), display.phase(name) as advance:
            found[str(name)] = _rolls(cfg, str(name), plans, beside, protocol, folder, advance)
    members = [found[name] for name in cfg.statistical if name in found]
    found |= {STATISTICAL: accuracy_rolls.mean_of(members)} if members else {}
    scores = accuracy_rolls.scores(cfg.level, cfg.grid, cfg.day_steps, plans, found, protocol.h)
    folder.table("accuracy_scores", scores)
    folder.note(
        absent=panels.absent(cfg.level, data),
        candidate=cfg.candidate,
        statistical=[name for name in cfg.statistical if name in found],
        failures={name: dict(each.failures) for name, each in found.items() if each.failures},
    )
    show(scores, cfg.seed, display)
    asked = [(name, found[str(name)]) for name in cfg.forecasters]
    return [f"{name} on {i}: {why}" for name, each in asked for i, why in each.failures.items()]


def _check_grid(cfg: DictConfig) -> None:
    """Raises UsageError for an option that stands as it is in conf/forecaster, where it is set for steps of 300 s."""
    for name in cfg.forecasters:
        known = min(_horizons(cell.plain(cfg.forecasters[name])), default=cfg.horizon_steps)
        if known < cfg.horizon_steps:
            raise UsageError(
                f"forecasters.{name} is set for {known} steps ahead, and grid={cfg.grid} judges {cfg.horizon_steps}: "
                "conf/accuracy.yaml has no settings by grid for it; set its horizon, and every season, context and "
                f"least_steps it has, in steps of this grid: forecasters.{name}.horizon={cfg.horizon_steps} ..."
            )


def _horizons(config: Any) -> Iterator[int]:  # noqa: ANN401 - any plain configuration value
    """Every `horizon` in a configuration and in what it is made of."""
    for key, value in config.items() if isinstance(config, dict) else ():
        if key == "horizon":
            yield value
        yield from _horizons(value)


def _rolls(
    cfg: DictConfig,
    name: str,
    plans: Sequence[Plan],
    beside: Sequence[panels.Series],
    protocol: Protocol,
    folder: RunFolder,
    advance: accuracy_rolls.Progress,
) -> Rolls:
    config = cell.plain(cfg.forecasters[name])
    forecaster = cell.build(cfg.forecasters[name])
    file = f"{name}-{accuracy_rolls.key(config, forecaster, plans, beside, protocol)}.npz"
    here = folder.path / FOLDER
    earlier = [] if name in cfg.fresh else [Path(path) / FOLDER for path in cfg.earlier]
    found = accuracy_rolls.kept(file, [here, *earlier])
    if found is None:
        found = accuracy_rolls.rolls(forecaster, plans, beside, protocol, advance)
    accuracy_rolls.keep(here / file, found)
    return found


def show(scores: pl.DataFrame, seed: int, display: Display) -> None:
    """All steps pooled, one row per forecaster over all series; the run folder holds each series and step."""
    claimed = ("accuracy_percent", "worst_percent") if scores["level"][0] == "cell" else ()
    columns = ("skill", "mase", "scaled_crps", "coverage_80", "bias", "crps_ratio", "mae_ratio")
    found = accuracy_levels.levels(scores, seed).select("forecaster", *claimed, *columns)
    display.table("All series and steps, by scaled CRPS against the seasonal naive", found)


def task(cfg: DictConfig, display: Display) -> int:
    """Score, write the run folder and its report; returns the exit code (4 when a forecaster failed)."""
    _check_grid(cfg)
    display.line(present.identity_line("accuracy", cfg, None))
    with RunFolder(Path(cfg.out), resumable=True) as folder:
        folder.identify(cfg, "accuracy", None, verb.command("accuracy"), verb.overrides())
        failed = study(cfg, folder, display)
        folder.status("partly failed" if failed else "completed", "; ".join(failed))
    return verb.conclude(folder.final, cfg, display, failed)


def main() -> None:
    """The entry point."""
    verb.main("accuracy", task)


if __name__ == "__main__":
    main()
