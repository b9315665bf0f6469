"""`python -m experiments.cold_start`: forecasts of a cluster nobody has learned from, each in its turn."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from agents.forecast.backtest import Plan
from agents.forecast.base import Past
from agents.forecast.cold_start import ColdStart
from agents.forecast.frames import first
from agents.forecast.neural import Neural
from experiments import cell, present, verb
from experiments.display import Advance, Display
from experiments.forecasts import cold_start_scores as judging
from experiments.forecasts import panels
from experiments.forecasts.accuracy_rolls import Protocol
from experiments.forecasts.cold_start_scores import Asked
from experiments.rundir import RunFolder

IN_DOMAIN, TRANSFERRED, CHECKPOINT = "in_domain", "other_clusters", "checkpoint"
_CALLS = 200


def study(cfg: DictConfig, folder: RunFolder, display: Display) -> None:
    """Forecast, score, and write the table `cold_start`."""
    protocol = Protocol(cfg.horizon_steps, cfg.origins, cfg.train_share, cfg.seed)
    series = [each for each in panels.panel("cell", cfg.grid, None) if judging.cluster(each.unique_id) in cfg.clusters]
    plans = [protocol.plan(each) for each in series]
    cold: ColdStart = cell.build(cfg.forecaster).fit()
    opponents = {str(name): cell.build(wanted) for name, wanted in cfg.opponents.items()}
    asked = [judging.guessed(cell.plain(cfg.capacities), plans, protocol.h)]
    for name in cfg.clusters:
        with folder.phase(name), display.phase(f"{name}: with its history and with that of others") as advance:
            asked += _learned(cell.build(cfg.network), plans, name, protocol, advance)
    with folder.phase("opponents"), display.phase("naive and statistical methods") as advance:
        for k, (name, opponent) in enumerate(opponents.items()):
            advance(k / len(opponents), name)
            said = [judging.rolled(name, opponent.fit(first([p.series], cfg.train_share), cfg.seed), [p], protocol.h)
                    for p in plans]  # fmt: skip
            asked += [*said, *(judging.refitted(opponent, plans, protocol.h, n, cfg.seed) for n in cfg.histories)]
    with folder.phase("cold start"), display.phase("cold start") as advance:
        asked.append(judging.rolled(CHECKPOINT, cold.base, plans, protocol.h))
        for n in (*cfg.histories, None):
            asked.append(judging.cut_short(cold, plans, protocol.h, n))
    judges = judging.Judges(tuple(cfg.naive), IN_DOMAIN, cfg.day_steps, cfg.seed)
    table = judging.scores(_joined(asked), plans, cfg.grid, protocol.h, judges)
    folder.table("cold_start", table)
    folder.note(latency_ms=latency_ms(cold, protocol.h))
    shown = ("unique_id", "forecaster", "history_steps", "gain", "kept", "fallback_ratio", "coverage_80")
    display.table("Gain over the best naive method with all history", table.select(*shown))


def _learned(net: Neural, plans: Sequence[Plan], name: str, protocol: Protocol, advance: Advance) -> list[Asked]:
    """The network trained on from its checkpoint by the cluster `name` itself, and by all the others."""
    own = [plan for plan in plans if judging.cluster(plan.series.unique_id) == name]
    others = [plan for plan in plans if plan not in own]
    found = []
    for k, (who, teachers) in enumerate(((IN_DOMAIN, own), (TRANSFERRED, others))):
        advance(k / 2, who)
        seen = first([plan.series for plan in teachers], protocol.train_share)
        found.append(judging.rolled(who, net.fit(seen, protocol.seed), own, protocol.h))
    return found


def _joined(asked: Sequence[Asked]) -> list[Asked]:
    """One of each forecaster and history, with the series of all."""
    found: dict[tuple[str, int | None], Asked] = {}
    for each in asked:
        known = found.setdefault((each.name, each.history), Asked(each.name, each.history, {}))
        merged = Asked(each.name, each.history, {**known.said, **each.said}, {**known.weights, **each.weights})
        found[each.name, each.history] = merged
    return list(found.values())


def latency_ms(cold: ColdStart, h: int) -> dict[str, float]:
    """The median and the 99th percentile of one warm forecast with a full window, in ms of wall time."""
    past = Past.of(np.random.default_rng(0).standard_normal((1, cold.context)).cumsum(axis=1), ["series"], h)
    took = []
    for _ in range(_CALLS + 5):
        begun = time.perf_counter()
        cold.forecast(past, h)
        took.append(1e3 * (time.perf_counter() - begun))
    return {"p50": float(np.quantile(took[5:], 0.5)), "p99": float(np.quantile(took[5:], 0.99))}


def task(cfg: DictConfig, display: Display) -> int:
    """Judge, write the run folder and its report; returns the exit code."""
    display.line(present.identity_line("cold_start", cfg, None))
    with RunFolder(Path(cfg.out)) as folder:
        folder.identify(cfg, "cold_start", None, verb.command("cold_start"), verb.overrides())
        study(cfg, folder, display)
        folder.status("completed", "")
    return verb.conclude(folder.final, cfg, display, [])


def main() -> None:
    """The entry point."""
    verb.main("cold_start", task)


if __name__ == "__main__":
    main()
