"""`python -m experiments.schedule`: the recorded jobs under a scheduler (same jobs, other policy), or as recorded."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import polars as pl
from omegaconf import DictConfig

from experiments import cell, present, verb
from experiments.display import Display, simulated
from experiments.replay import replayed, results
from experiments.rundir import RunFolder
from twin.engine.jobs.scheduler import Scheduler
from twin.errors import UsageError
from twin.job_metrics import CLUSTER
from twin.trace.trace import Trace

FOLDER = "jobs"  # of the run folder, where the tables about jobs lie
_USUAL = {"outages": "none", "engine": "reference"}  # what is not worth a word


def task(cfg: DictConfig, display: Display) -> int:
    """Replay the jobs, write the run folder and its report; returns the exit code."""
    trace = _trace_with_jobs(cfg)
    display.line(present.identity_line("schedule", cfg, trace))
    with RunFolder(Path(cfg.out)) as folder:
        folder.identify(cfg, "schedule", trace, verb.command("schedule"), verb.overrides())
        with folder.phase("schedule"), display.phase(f"schedule {trace.jobs.height} jobs") as advance:
            run = replayed(cfg, trace, simulated(advance, cfg.until_s or trace.duration_s or 1.0, "scheduled"))
        with folder.phase("score"):
            told, notes = results(cfg, trace, run)
        about = {"scheduler": described(cfg), "machines": run.room(), "assumed": notes}
        folder.note(**about, shown_from_s=trace.info.start_s)
        folder.table("kpis", told["kpis"])
        for name, frame in told.items():
            if name != "kpis":
                folder.table(name, frame, FOLDER)
    for note in notes:
        display.line(f"note: {note}")
    display.table("KPIs", told["kpis"].filter(pl.col("entity") == CLUSTER))
    if "scorecard" in told:
        display.table("Scorecard: the run against the recording", told["scorecard"])
    if "explanations" in told:
        _explain(told["explanations"], display)
    present.finish(folder.final, cfg, display)
    return verb.DONE


def _explain(told: pl.DataFrame, display: Display) -> None:
    """Whole sentences, each on a line: a table would cut them."""
    display.result("\nWhy they waited, and why they started where they did")
    for row in told.iter_rows(named=True):
        until = f" to {row['until_s']:g} s" if row["what"] == "waits" and row["until_s"] is not None else ""
        display.result(f"{row['job']} {row['what']} at {row['from_s']:g} s{until}: {row['reason']}")


def _trace_with_jobs(cfg: DictConfig) -> Trace:
    trace = cell.read_trace(cfg.trace)
    if not trace.jobs.height:
        raise UsageError(
            f"trace {trace.info.name!r} holds no jobs to schedule; use one that does: trace=jobs, "
            "trace=file trace.path=... or trace=folder trace.path=..."
        )
    return trace


def described(cfg: DictConfig) -> str:
    """What the scheduler is called where the run is shown: its order, then every rule that was chosen."""
    if cfg.replay == "recorded":
        return "the scheduler of the recording, its starts being those recorded"
    rules = [verb.choice("order"), *(f"{group} {verb.choice(group)}" for group in ("backfill", "placement"))]
    rules += [*(f"admission {rule}" for rule in cfg.admission), *(f"filter {rule}" for rule in cfg.filters)]
    rules += [f"{group} {verb.choice(group)}" for group in ("inspector", "contention") if cell.build(cfg[group])]
    return ", ".join([*rules, *_settings(cfg)])


def _settings(cfg: DictConfig) -> list[str]:
    """What differs from the defaults apart from the rules that are configuration groups of every run."""
    known = {field.name: field.default for field in fields(Scheduler)}
    told = [name for name in ("kill", "preempts") if cfg[name]]
    told += [f"retries {cfg.retries}"] if cfg.retries != known["retries"] else []
    if cfg.checkpoint.interval_s is not None:
        told.append(f"checkpoint every {cfg.checkpoint.interval_s:g} s")
    told += [f"{name} {cfg[name]:g}" for name in ("piece_cores", "missing_run_s", "missing_limit_s") if cfg[name]]
    told += [f"{group} {verb.choice(group)}" for group, usual in _USUAL.items() if verb.choice(group) != usual]
    return [*told, "calibrated"] if cfg.calibration else told


def main() -> None:
    """The entry point."""
    verb.main("schedule", task)


if __name__ == "__main__":
    main()
