"""The replay of jobs that a configuration asks for, and what it says: what the verb `schedule` is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import polars as pl
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from experiments import cell, verb
from twin.errors import SimulationError, UsageError
from twin.trace.trace import Trace

if TYPE_CHECKING:
    from twin.fidelity.calibrate import Calibration
    from twin.scheduling import JobRun


def replayed(cfg: DictConfig, trace: Trace, progress: Callable[[float], None] | None = None) -> JobRun:
    """The run that the configuration asks for; raises UsageError for a wrong value, before anything runs if it can.

    Queue and machines are metered where the engine has observers, which the compiled one has not.
    """
    _check(cfg, trace)
    with _wrongly_configured():
        return _replayed(cfg, trace, progress)


def _check(cfg: DictConfig, trace: Trace) -> None:
    """Raises UsageError for a value that cannot be."""
    from twin.job_energy import check_hold

    if cfg.replay not in ("policy", "recorded"):
        raise UsageError(f"replay={cfg.replay} must be policy or recorded")
    first_s = trace.jobs["submit_s"].min()
    if cfg.until_s is not None and not cfg.until_s > max(0.0, cast("float | None", first_s) or 0.0):
        first = "" if first_s is None else f", and after the first arrival at {first_s:g} s"
        raise UsageError(f"until_s={cfg.until_s:g} must be above 0{first}; null runs until the last job ended")
    if cfg.largest < 0:
        raise UsageError(f"largest={cfg.largest} must be 0 or more users, queues and pools that the KPIs tell apart")
    check_hold(cfg.energy.hold_s)


@contextmanager
def _wrongly_configured() -> Iterator[None]:
    """What the twin calls impossible here was asked for by the configuration: a UsageError."""
    try:
        yield
    except (SimulationError, HydraException) as error:
        cause = error if isinstance(error, SimulationError) else error.__cause__  # Hydra wraps what it constructs
        if not isinstance(cause, (SimulationError, UsageError)):
            raise
        raise UsageError(str(cause)) from error


def _replayed(cfg: DictConfig, trace: Trace, progress: Callable[[float], None] | None) -> JobRun:
    from twin.engine.jobs.simulator import JobTwin
    from twin.scheduling import recorded, schedule
    from twin.seeds import child

    fitted = _fitted(cfg.calibration)
    machines = given(_measured(cfg.machines, fitted), trace)
    if cfg.replay == "recorded":
        if cfg.explain:
            raise UsageError("replay=recorded tells no reasons: explain needs replay=policy")
        return recorded(trace, machines, until_s=cfg.until_s)
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
        calibration=fitted,
        rng=child(cfg.seed, "calibration"),
        progress=progress,
    )


def _fitted(path: str | None) -> Calibration | None:
    """The calibration stored at the path, if there is one."""
    from twin.fidelity.calibrate import read

    return (
        None if path is None else read(verb.require(path, "calibration", "make one: python -m experiments.calibrate"))
    )


def _measured(machines: DictConfig, fitted: Calibration | None) -> DictConfig:
    """The machines' configuration with the power curve that was fitted, if one was."""
    if fitted is None or all(each.name != "power_exponent" for each in fitted.estimates):
        return machines
    curve = {"idle_w": "idle_w", "full_w": "full_w", "curve": "power_exponent"}
    power = {key: fitted[name].value for key, name in curve.items()}
    return cast("DictConfig", OmegaConf.merge(machines, {"power": power}))


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

    found = _of_sharing(run)
    power = cell.build(cfg.machines.get("power")) or Power()
    if not run.outcomes["start_s"].count():
        found.append("no energy: no job started")
    elif not run.placements.height:
        found.append("no energy: it is not known which machine each job lay on")
    elif power == Power() and not cfg.machines.get("power_of"):
        found.append(
            f"energy is assumed: each machine draws {power.idle_w:g} to {power.full_w:g} W, {power.curve} in the held "
            "share of its cores; set machines.power"
        )
    if run.source == "twin" and "job_steps" not in run.tables():
        found.append("no table job_steps: the compiled engine does not meter queue and machines; use engine=reference")
    return found


def _of_sharing(run: JobRun) -> list[str]:
    """What the figures mean where machines promised more cores than they have."""
    from twin.scheduling import Replay

    if not isinstance(run, Replay) or run.shared is None:
        return []
    return [
        "utilisation is of the cores that there are, and counts what jobs hold: with promised cores it may exceed 1",
        "energy follows the held share of the promised cores, not what jobs really used of them",
    ]
