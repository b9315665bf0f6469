"""`python -m experiments.retraining`: a regime change in the twin is noticed, retrained, judged and swapped.

The demand is what a controller observes while the twin replays the scenario; before that, the drift tests are held
against streams that are stable by construction, and against planted changes.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl
from omegaconf import DictConfig

import twin
from agents.forecast import frames
from agents.forecast.frames import Series
from agents.forecast.operation import stability
from agents.forecast.operation.drill import observed_demand
from agents.forecast.operation.operator import Replayed, Settings, accuracy_by_day, block_steps, ledger_of, replay
from agents.forecast.operation.retrain import Delays, delays_h, table
from experiments import cell, present, verb
from experiments.display import Display
from experiments.rundir import RunFolder

_DAY_S = 86_400
_FIT_SHARE = 0.25  # of the recordings that stable streams are made of


def tested(cfg: DictConfig, settings: Settings) -> pl.DataFrame:
    """The `drift_trials` of the settings' tests, and of river's with their default constants."""
    recordings = [s for name in cfg.trials.recordings for s in frames.panel(frames.series(twin.read(name)))]
    fitted = cell.build(cfg.trials.forecaster).fit(frames.first(recordings, _FIT_SHARE), cfg.seed)
    days = [stability.days_of(fitted, s, frames.steps_in(len(s.values), _FIT_SHARE)) for s in recordings]
    detectors = {
        "calibrated": stability.calibrated(settings.drift),
        "ADWIN, defaults": stability.adwin(),
        "Page-Hinkley, defaults": stability.page_hinkley(),
    }
    trialled = stability.trials(
        detectors,
        days,
        runs=cfg.trials.runs,
        seed=cfg.seed,
        reference_days=settings.reference_days,
        stream_days=settings.drift.stream_days,
    )
    return stability.summary(trialled)


def observed(cfg: DictConfig) -> Series:
    """The service's demand as it is observed in the twin while the scenario plays."""
    trace, cluster, events = cell.build(cfg.scenario).apply(cell.read_trace(cfg.trace), cell.build(cfg.cluster))
    controller = cell.build(cfg.controller)
    until_s = cfg.until_s
    return observed_demand(trace, cluster, controller, cfg.service, events=events, until_s=until_s, seed=cfg.seed)


def drill(cfg: DictConfig, series: Series, settings: Settings) -> Replayed:
    """The series operated from the end of the first `learn_days` on."""
    start = cfg.learn_days * _DAY_S // series.step_s
    recipe = cell.build(cfg.forecaster)
    return replay(recipe.fit([series.until(start)], cfg.seed), recipe, series, start, settings, cfg.seed)


def told(replayed: Replayed, series: Series, h: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(`forecasts` from an origin every hour and a step, `forecast_scores` of all): with and without retraining.

    The step more lets each minute of the hour have its turn: what happens at full hours would count for everything.
    """
    ledgers = {
        "retrained": ledger_of(replayed.operated, series, h),
        "never retrained": ledger_of(replayed.untouched, series, h),
    }
    every_s = float((block_steps(series) + 1) * series.step_s)
    said = pl.concat(ledger.forecasts(name) for name, ledger in ledgers.items())
    scores = pl.concat(ledger.scores(name) for name, ledger in ledgers.items())
    return said.filter((pl.col("cutoff_s") - series.start_s) % every_s == 0.0), scores


def answered(after_s: float, delays: Delays) -> str:
    """When a change so long after the series' beginning was noticed, and when a better champion took over, in words."""
    noticed, swapped = delays
    seen = "never noticed" if noticed is None else f"noticed after {noticed:.0f} h"
    mended = "never swapped for it" if swapped is None else f"swapped after {swapped:.0f} h"
    return f"the change at {after_s / _DAY_S:g} d was {seen}; the champion was {mended}"


def task(cfg: DictConfig, display: Display) -> int:
    """Try the tests, drill, write the run folder and its report; returns the exit code."""
    trace, settings = cell.read_trace(cfg.trace), cell.build(cfg.operation)
    display.line(present.identity_line("retraining", cfg, trace))
    with RunFolder(Path(cfg.out)) as folder:
        folder.identify(cfg, "retraining", trace, verb.command("retraining"), verb.overrides())
        if cfg.trials.runs:
            with folder.phase("trials"), display.phase("drift tests on stable streams and planted changes"):
                trials = tested(cfg, settings)
            folder.table("drift_trials", trials)
            display.table(f"Drift tests: streams of {settings.drift.stream_days} days", trials)
        with folder.phase("simulate"), display.phase(f"observe {trace.info.name} in the twin"):
            series = observed(cfg)
        with folder.phase("operate"), display.phase("operate"):
            replayed = drill(cfg, series, settings)
            said, scores = told(replayed, series, settings.h)
        happened, accuracy = table(replayed.events), accuracy_by_day(replayed, series)
        changed_s = series.start_s + cfg.changed_s
        delays = delays_h(happened, changed_s)
        words = answered(cfg.changed_s, delays)
        folder.note(
            start_s=series.start_s, changed_s=changed_s, delays_h={series.unique_id: delays._asdict()}, told=words
        )
        folder.table("retraining_events", happened)
        folder.table("retraining_accuracy", accuracy)
        folder.table("forecasts", said)
        folder.table("forecast_scores", scores)
    display.table("What happened", happened.drop("unique_id"))
    display.table("Accuracy by day", accuracy.drop("unique_id"))
    display.line(words)
    present.finish(folder.final, cfg, display)
    return verb.DONE


def main() -> None:
    """The entry point."""
    verb.main("retraining", task)


if __name__ == "__main__":
    main()
