"""`python -m experiments.decision_value`: forecasters judged by what is decided upon them, beside their error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from omegaconf import DictConfig

from agents.scale import capacity
from experiments import cell, present, verb
from experiments.display import Advance, Display
from experiments.forecasts import decision_table, foresight
from experiments.forecasts.decision_table import ORACLE
from experiments.forecasts.foresight import Job
from experiments.parallel import run_all
from experiments.rundir import RunFolder
from twin.errors import WorkbenchError


def jobs(cfg: DictConfig, folder: Path, advance: Advance) -> tuple[list[Job], list[str]]:
    """All runs, the forecasts and plans that lead them made and written into `folder`; and what failed, in words."""
    demands = list(foresight.cells(cfg))
    todo = list(foresight.rules(cfg, demands))
    met = [(label, one, foresight.ahead(one, cfg.service)) for label, one in demands]
    todo += foresight.scalers(cfg, ORACLE, None, met, folder / "forecasts")
    todo += foresight.plans(cfg, ORACLE, None, met, folder / "plans")
    asked = [*((name, False) for name in cfg.forecasters), *((name, True) for name in cfg.capacity.forecasters)]
    failed: list[str] = []
    for count, (name, planned) in enumerate(asked):
        advance(count / len(asked), f"plans by {name}" if planned else name)
        try:
            todo += _led(cfg, name, planned, met, folder)
        except Exception as error:  # any library's own class; it is reported, and the others go on
            failed.append(f"{'plans by ' if planned else ''}{name}: {type(error).__name__}: {error}")
    advance(1.0, f"{len(todo)} runs")
    return todo, failed


def _led(cfg: DictConfig, name: str, planned: bool, met: Sequence[Any], folder: Path) -> list[Job]:
    if not planned:
        forecaster = foresight.learned(cfg, cfg.forecasters[name])
        return list(foresight.scalers(cfg, name, forecaster, met, folder / "forecasts"))
    shaped = partial(capacity.coarse, step_s=int(cfg.capacity.step_s))
    forecaster = foresight.learned(cfg, cfg.capacity.forecasters[name], shaped)
    return list(foresight.plans(cfg, name, forecaster, met, folder / "plans"))


def runs(todo: Sequence[Job], workers: int, advance: Advance) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows of all runs, in the order of `todo`, and what failed, in words."""
    done: dict[int, dict[str, Any]] = {}
    failed: list[str] = []
    places = {id(job): place for place, job in enumerate(todo)}
    for count, (job, result) in enumerate(run_all(foresight.evaluate, todo, workers), start=1):
        if isinstance(result, WorkbenchError):
            failed.append(f"{job.scenario} / {job.forecaster} / seed {job.cell.seed}: {result}")
        else:
            done[places[id(job)]] = result
        advance(count / len(todo), f"{count} of {len(todo)} runs{f', {len(failed)} failed' if failed else ''}")
    return [done[place] for place in sorted(done)], failed


def study(cfg: DictConfig, folder: RunFolder, display: Display) -> list[str]:
    """Make all forecasts and runs, write the table; returns what failed, in words."""
    with folder.phase("forecasts"), display.phase(f"forecasts by {len(cfg.forecasters)} forecasters") as advance:
        todo, failed = jobs(cfg, folder.path, advance)
    with folder.phase("runs"), display.phase(f"{len(todo)} runs on the same demand") as advance:
        rows, broken = runs(todo, cfg.workers, advance)
    if not rows:
        raise WorkbenchError(f"no run succeeded; the first: {broken[0]}")
    frame = decision_table.table(rows, cfg.baseline, cfg.late_price, cfg.allowed_min)
    folder.table("decision_value", frame)
    frame.write_csv(folder.path / "decision_value.csv")
    show(frame, cfg.baseline, display)
    return [*failed, *broken]


def show(frame: pl.DataFrame, baseline: str, display: Display) -> None:
    """All rows, then who is cheapest at the baseline's SLO, then whether a lower error made a lower cost."""
    for title, rows in _by_scenario(frame):
        display.table(title, rows)
    display.table(f"Cheapest at the SLO of {baseline}", decision_table.best(frame))
    title = "Kendall's tau of error and cost (1: the same order); without a quantile: each at its cheapest, above"
    display.table(title, decision_table.orders(frame))


def _by_scenario(frame: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    columns = ("kind", "forecaster", "quantile", "wape", "scaled_crps", "coverage_80", "below_ratio", "cost_usd")
    columns += ("late_ratio", "slo_violation_min", "replica_h", "slack_ratio", "shortage_min", "cost_ratio")
    for (scenario, seed), rows in frame.group_by("scenario", "seed", maintain_order=True):
        yield f"Decisions on {scenario}, seed {seed}", rows.select(*columns, "judged_ratio")


def task(cfg: DictConfig, display: Display) -> int:
    """Compare, write the run folder and its report; returns the exit code (4 when something failed)."""
    trace = cell.read_trace(cfg.trace)
    display.line(present.identity_line("decision_value", cfg, trace))
    with RunFolder(Path(cfg.out)) as folder:
        folder.identify(cfg, "decision_value", trace, verb.command("decision_value"), verb.overrides())
        failed = study(cfg, folder, display)
        folder.status("partly failed" if failed else "completed", "; ".join(failed))
    return verb.conclude(folder.final, cfg, display, failed)


def main() -> None:
    """The entry point."""
    verb.main("decision_value", task)


if __name__ == "__main__":
    main()
