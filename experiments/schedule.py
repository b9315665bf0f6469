"""`python -m experiments.schedule`: the recorded jobs under a scheduler (same jobs, other policy), or as recorded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from omegaconf import DictConfig

from experiments import cell, present, verb
from experiments.display import Display, simulated
from experiments.rundir import RunFolder
from twin.errors import UsageError
from twin.job_metrics import CLUSTER
from twin.trace.trace import Trace

if TYPE_CHECKING:
    from twin.scheduling import JobRun

FOLDER = "jobs"  # of the run folder, where the tables about jobs lie


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
        display.table("Why they waited, and why they started where they did", told["explanations"])
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


def described(cfg: DictConfig) -> str:
    """What the scheduler is called where the run is shown: its order, then every rule that was chosen."""
    if cfg.replay == "recorded":
        return "the scheduler of the recording, its starts being those recorded"
    rules = [verb.choice("order"), *(f"{group} {verb.choice(group)}" for group in ("backfill", "placement"))]
    rules += [*(f"admission {rule}" for rule in cfg.admission), *(f"filter {rule}" for rule in cfg.filters)]
    rules += [f"{group} {verb.choice(group)}" for group in ("inspector", "contention") if cell.build(cfg[group])]
    return ", ".join(rules)


def replayed(cfg: DictConfig, trace: Trace, progress: Callable[[float], None] | None = None) -> JobRun:
    """The run that the configuration asks for; raises UsageError for a wrong value.

    Queue and machines are metered where the engine has observers, which the compiled one has not.
    """
    from twin.engine.jobs.simulator import JobTwin
    from twin.scheduling import recorded, schedule

    machines = given(cfg.machines, trace)
    if cfg.replay == "recorded":
        if cfg.explain:
            raise UsageError("replay=recorded tells no reasons: explain needs replay=policy")
        return recorded(trace, machines, until_s=cfg.until_s)
    if cfg.replay != "policy":
        raise UsageError(f"replay={cfg.replay} must be policy or recorded")
    engine = cell.build(cfg.engine)
    return schedule(
        trace,
        machines,
        scheduler(cfg, trace),
        outages=given(cfg.outages, trace, machines),
        piece_cores=cfg.piece_cores,
        missing_run_s=cfg.missing_run_s,
        missing_limit_s=cfg.missing_limit_s,
        until_s=cfg.until_s,
        engine=engine,
        metered=issubclass(engine, JobTwin),
        explain=tuple(cfg.explain),
        sharing=cell.build(cfg.contention),
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
        filters=tuple(given(rule, trace) for rule in cfg.filters.values()),
        inspector=cell.build(cfg.inspector),
        preempts=cfg.preempts,
        checkpoint=checkpoint,
    )


def given(config: Any, *facts: Any) -> Any:  # noqa: ANN401 - whatever the configuration constructs
    """What a configuration constructs; where that is a function still (`_partial_`), what it makes of the facts."""
    built = cell.build(config)
    return built(*facts) if callable(built) else built


def results(cfg: DictConfig, trace: Trace, run: JobRun) -> tuple[dict[str, pl.DataFrame], list[str]]:
    """The run's tables by name, and in sentences what is assumed in them and what they do not hold.

    Raises UsageError for a zone of the grid that the trace does not hold.
    """
    from twin.scheduling import compared, grid, kpis, span
    from twin.seeds import child

    known = grid(trace, **cell.plain(cfg.energy)).over(span(run, cfg.until_s))
    told = {
        "kpis": kpis(run, trace.jobs, largest=cfg.largest, until_s=cfg.until_s, grid=known),
        **run.tables(),
        **compared(run, trace.jobs, rng=child(cfg.seed, "noise floor"), until_s=cfg.until_s),
    }
    return told, [*_assumed(cfg, run), *known.missing]


def _assumed(cfg: DictConfig, run: JobRun) -> list[str]:
    """What the figures rest on that nobody measured, and what could not be measured."""
    from twin.engine.jobs.machines import Power

    found = []
    power = cell.build(cfg.machines.get("power")) or Power()
    if not run.placements.height:
        found.append("no energy: it is not known which machine each job lay on")
    elif power == Power() and not cfg.machines.get("power_of"):
        found.append(
            f"energy is assumed: each machine draws {power.idle_w:g} to {power.full_w:g} W, {power.curve} in the held "
            "share of its cores; set machines.power"
        )
    if run.source == "twin" and "job_steps" not in run.tables():
        found.append("no table job_steps: the compiled engine does not meter queue and machines; use engine=reference")
    return found


def main() -> None:
    """The entry point."""
    verb.main("schedule", task)


if __name__ == "__main__":
    main()
