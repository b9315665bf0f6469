"""`python -m experiments.accuracy`: what forecasters are worth on the recorded series of one level and one grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
from omegaconf import DictConfig

from agents.forecast.backtest import Plan
from agents.forecast.rolling import Rolled, truth_at
from agents.forecast.scoring import Judged, native_seasonal_naive, regimes, scored
from experiments import cell, present, verb
from experiments.display import Display
from experiments.forecasts import accuracy_levels, accuracy_rolls, panels
from experiments.forecasts.accuracy_rolls import FOLDER, Protocol, Rolls
from experiments.rundir import RunFolder

NATIVE, STATISTICAL = accuracy_levels.NATIVE, accuracy_levels.STATISTICAL
_FIT_STEPS = 2016  # a week of 300 s: what the errors of the seasonal naive are taken from


def study(cfg: DictConfig, folder: RunFolder, display: Display) -> list[str]:
    """Forecast, score and write the tables; returns what failed, in words."""
    protocol = Protocol(cfg.horizon_steps, cfg.origins, cfg.train_share, cfg.seed)
    data = None if cfg.data is None else verb.require(cfg.data, "data", "give the folder of recordings, or null")
    plans = [protocol.plan(series) for series in panels.panel(cfg.level, cfg.grid, data)]
    for place in panels.absent(cfg.level, data):
        display.line(f"not scored: {place} is not in data={cfg.data}")
    beside = panels.extras(cfg.grid, data) if cfg.extras else []
    found = {NATIVE: _native(plans, protocol, cfg.day_steps)}
    for name in cfg.forecasters:
        with folder.phase(name), display.phase(name) as advance:
            found[str(name)] = _rolls(cfg, str(name), plans, beside, protocol, folder, advance)
    members = [found[name] for name in cfg.statistical if name in found]
    found |= {STATISTICAL: accuracy_rolls.mean_of(members)} if members else {}
    scores = _scores(cfg, plans, found, protocol)
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


def _native(plans: Sequence[Plan], protocol: Protocol, day_steps: int) -> Rolls:
    said = {}
    for plan in plans:
        past = plan.series.values[: plan.origins[0]][-_FIT_STEPS:]
        said[plan.series.unique_id] = native_seasonal_naive(plan.series, plan.origins, protocol.h, day_steps, past)
    return Rolls(said, {})


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


def _scores(cfg: DictConfig, plans: Sequence[Plan], found: Mapping[str, Rolls], protocol: Protocol) -> pl.DataFrame:
    rows = []
    for plan in plans:
        series = plan.series
        truth = truth_at(series, plan.origins, protocol.h)
        where = regimes(series, plan.origins, protocol.h, int(plan.origins[0]))
        for name, each in found.items():
            judged = Judged.of(Rolled(plan.origins, each.said[series.unique_id], truth), series, cfg.day_steps)
            named = {"level": cfg.level, "grid": cfg.grid, "forecaster": name, "unique_id": series.unique_id}
            rows += [{**named, **row} for row in scored(judged, where)]
    return pl.DataFrame(rows)


def show(scores: pl.DataFrame, seed: int, display: Display) -> None:
    """All steps pooled, one row per forecaster over all series; the run folder holds each series and step."""
    claimed = ("accuracy_percent", "worst_percent") if scores["level"][0] == "cell" else ()
    columns = ("skill", "mase", "scaled_crps", "coverage_80", "bias", "crps_ratio", "mae_ratio")
    found = accuracy_levels.levels(scores, seed).select("forecaster", *claimed, *columns)
    display.table("All series and steps, by scaled CRPS against the seasonal naive", found)


def task(cfg: DictConfig, display: Display) -> int:
    """Score, write the run folder and its report; returns the exit code (4 when a forecaster failed)."""
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
