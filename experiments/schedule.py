"""`python -m experiments.schedule`: the recorded jobs under a scheduler (same jobs, other policy), or as recorded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
from omegaconf import DictConfig

from experiments import cell, present, verb
from experiments.display import Display, simulated
from experiments.rundir import RunFolder
from twin.errors import UsageError
from twin.job_metrics import CLUSTER
from twin.trace.trace import Trace

FOLDER = "jobs"  # of the run folder, where the tables about jobs lie


def task(cfg: DictConfig, display: Display) -> int:
    """Replay the jobs, write the run folder and its report; returns the exit code."""
    from twin.scheduling import compared, kpis
    from twin.seeds import child

    trace = _trace_with_jobs(cfg)
    display.line(present.identity_line("schedule", cfg, trace))
    with RunFolder(Path(cfg.out)) as folder:
        folder.identify(cfg, "schedule", trace, verb.command("schedule"), verb.overrides())
        with folder.phase("schedule"), display.phase(f"schedule {trace.jobs.height} jobs") as advance:
            run = replayed(cfg, trace, simulated(advance, cfg.until_s or trace.duration_s or 1.0, "scheduled"))
        folder.note(scheduler=_scheduler(cfg), machines=run.room(), shown_from_s=trace.info.start_s)
        with folder.phase("score"):
            scored = kpis(run, trace.jobs, largest=cfg.largest, until_s=cfg.until_s)
            told = compared(run, trace.jobs, rng=child(cfg.seed, "noise floor"), until_s=cfg.until_s)
        folder.table("kpis", scored)
        for name, frame in {**run.tables(), **told}.items():
            folder.table(name, frame, FOLDER)
    display.table("KPIs", scored.filter(pl.col("entity") == CLUSTER))
    if "scorecard" in told:
        display.table("Scorecard: the run against the recording", told["scorecard"])
    present.finish(folder.final, cfg, display)
    return verb.DONE


def _trace_with_jobs(cfg: DictConfig) -> Trace:
    trace = cell.read_trace(cfg.trace)
    if not trace.jobs.height:
        raise UsageError(
            f"trace {trace.info.name!r} holds no jobs to schedule; use one that does: trace=jobs, "
            "trace=file trace.path=... or trace=folder trace.path=..."
        )
    return trace


def _scheduler(cfg: DictConfig) -> str:
    """What it is called where the run is shown."""
    if cfg.replay == "recorded":
        return "the scheduler of the recording, its starts being those recorded"
    rules = [verb.choice("order"), *(f"{group} {verb.choice(group)}" for group in ("backfill", "placement"))]
    return ", ".join([*rules, *(f"admission {rule}" for rule in cfg.admission)])


def replayed(cfg: DictConfig, trace: Trace, progress: Callable[[float], None] | None = None) -> Any:  # noqa: ANN401
    """The `twin.scheduling.JobRun` that the configuration asks for; raises UsageError for a wrong value."""
    from twin.scheduling import recorded, schedule

    machines = given(cfg.machines, trace)
    if cfg.replay == "recorded":
        return recorded(trace, machines, until_s=cfg.until_s)
    if cfg.replay != "policy":
        raise UsageError(f"replay={cfg.replay} must be policy or recorded")
    return schedule(
        trace,
        machines,
        scheduler(cfg, trace),
        outages=given(cfg.outages, trace, machines),
        piece_cores=cfg.piece_cores,
        missing_run_s=cfg.missing_run_s,
        missing_limit_s=cfg.missing_limit_s,
        until_s=cfg.until_s,
        engine=cell.build(cfg.engine),
        progress=progress,
    )


def scheduler(cfg: DictConfig, trace: Trace) -> Any:  # noqa: ANN401
    """The `twin.engine.jobs.scheduler.Scheduler` that the configuration describes."""
    from twin.engine.jobs.scheduler import Checkpoint, Scheduler

    checkpoint = None if cfg.checkpoint.interval_s is None else Checkpoint(**cell.plain(cfg.checkpoint))
    return Scheduler(
        order=cell.build(cfg.order),
        backfill=cell.build(cfg.backfill),
        placement=cell.build(cfg.placement),
        kill=cfg.kill,
        retries=cfg.retries,
        admission=tuple(given(rule, trace) for rule in cfg.admission.values()),
        preempts=cfg.preempts,
        checkpoint=checkpoint,
    )


def given(config: Any, *facts: Any) -> Any:  # noqa: ANN401 - whatever the configuration constructs
    """What a configuration constructs; where that is a function still (`_partial_`), what it makes of the facts."""
    built = cell.build(config)
    return built(*facts) if callable(built) else built


def main() -> None:
    """The entry point."""
    verb.main("schedule", task)


if __name__ == "__main__":
    main()
