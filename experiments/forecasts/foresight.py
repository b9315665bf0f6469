"""Who foretells the demand of a run, and the runs that this leads to: what `decision_value` compares.

A forecaster is fitted on the training part of the recording. At each step of a run it is told what was on record
then: the recording before the run, and the run's own demand so far, scenario and bursts included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from agents.forecast.base import DECILES, Forecaster
from agents.forecast.frames import Series
from agents.scale import capacity, foretold
from agents.scale.demand import seen
from agents.scale.forecast_scaler import fitted
from experiments import cell
from experiments.cell import Cell
from experiments.forecasts import decision_table
from twin.errors import UsageError
from twin.types import Service

_BEFORE = 1_000_003  # the bursts before a run, and of the training part, are other draws than the run's own


@dataclass(frozen=True, slots=True)
class Ahead:
    """The demand of one run, with what was on record before it.

    Attributes:
        demand: in requests/s, on the recording's clock, to the end of the run.
        start_s: when the run begins on that clock.
        scored_s: when what counts begins.
        service: whose demand.
    """

    demand: Series
    start_s: int
    scored_s: int
    service: Service

    def steps_until(self, time_s: float) -> int:
        """Steps on record at that time."""
        return int((time_s - self.demand.start_s) // self.demand.step_s)


@dataclass(frozen=True, slots=True)
class Job:
    """A run to be made: its labels, what its forecasts were worth, and its cell; rules and oracles have no quantile."""

    kind: str  # scaler | plan | rule
    forecaster: str
    quantile: float | None
    scenario: str
    cell: Cell
    service: str
    errors: dict[str, float]


def evaluate(job: Job) -> dict[str, Any]:
    """One row of figures: the job's labels, its forecasts' errors, and what its run came to."""
    run, warmup_s = cell.run(job.cell)
    kpis = {(row["entity"], row["kpi"]): row["value"] for row in run.kpis(warmup_s).iter_rows(named=True)}
    own = {name: kpis[job.service, name] for name in ("late_ratio", "slo_violation_min", "replica_h", "scale_events")}
    step_s = cell.build(job.cell.scene["record"]).step_s
    left = capacity.balance(run.service_steps, run.cluster.service(job.service), warmup_s, step_s)
    return {
        "scenario": job.scenario,
        "seed": job.cell.seed,
        "kind": job.kind,
        "forecaster": job.forecaster,
        "quantile": job.quantile,
        **job.errors,
        "cost_usd": kpis["cluster", "cost_usd"],
        **own,
        "slack_ratio": 1.0 - kpis[job.service, "utilisation_ratio"],
        **left._asdict(),
    }


def cells(cfg: DictConfig) -> Iterator[tuple[str, Cell]]:
    """(scenario, cell without a controller) for each demand that is met: all who meet it meet the same."""
    if cfg.part not in ("held_out", "validation"):
        raise UsageError(f"part={cfg.part} must be held_out or validation: something must lie before it to learn from")
    scene = cell.scene(cfg)
    for label, scenario in cell.plain(cfg.scenarios).items():
        for seed in range(cfg.seed, cfg.seed + cfg.seeds):
            yield label, Cell(scene, scenario, {}, seed, part=cfg.part, days=cfg.days)


def ahead(one: Cell, service: str) -> Ahead:
    """The demand that the cell's run will meet, after what the recording holds before it."""
    trace, cluster, _, warmup_s = cell.stage(one)
    whole = cell.read_trace(one.scene["trace"])
    target = cluster.service(service)
    before = whole.between(0.0, trace.info.start_s - whole.info.start_s)
    earlier, run = seen(before, cluster, target, one.seed + _BEFORE), seen(trace, cluster, target, one.seed)
    demand = replace(earlier, values=np.concatenate([earlier.values, run.values]))
    return Ahead(demand, run.start_s, int(run.start_s + warmup_s), target)


def rules(cfg: DictConfig, cells: Sequence[tuple[str, Cell]]) -> Iterator[Job]:
    """A run of each rule on each demand; raises UsageError when the baseline is none of them."""
    if cfg.baseline not in cfg.rules:
        raise UsageError(f"baseline={cfg.baseline} is not among the rules {list(cfg.rules)}")
    for label, one in cells:
        for name, controller in cell.plain(cfg.rules).items():
            yield Job("rule", name, None, label, replace(one, controller=controller), cfg.service, {})


def learned(cfg: DictConfig, config: DictConfig, shaped: Callable[[Series], Series] | None = None) -> Forecaster:
    """The forecaster of a configuration, fitted on the service's demand in the training part of the recording."""
    split, whole, cluster = cell.build(cfg.split), cell.read_trace(cfg.trace), cell.build(cfg.cluster)
    return fitted(cell.build(config), whole, cluster, cfg.service, split, cfg.seed + _BEFORE, shaped)


def scalers(
    cfg: DictConfig, name: str, forecaster: Forecaster | None, met: Sequence[tuple[str, Cell, Ahead]], folder: Path
) -> Iterator[Job]:
    """The runs led by one forecaster (None: by the truth), a quantile at a time; its forecasts go into `folder`."""
    for label, one, what in met:
        begin = what.steps_until(what.start_s)
        told = (
            foretold.truth(what.demand, begin, cfg.lead_steps, name)
            if forecaster is None
            else foretold.foretell(forecaster, what.demand, begin, cfg.lead_steps)
        )
        path = folder / f"{label}--{one.seed}--{name}.npz"
        told.write(path)
        skip = what.steps_until(what.scored_s) - begin
        for quantile in cfg.quantiles if forecaster else [None]:
            controller = {
                "_target_": "agents.scale.foretold.scaler",
                "path": str(path),
                "service": cfg.service,
                "sizing": _sizing(cfg, what.service, quantile or DECILES[-1]),
                "start_s": what.start_s,
                "tolerance": cfg.tolerance,
            }
            errors = decision_table.errors(told.said[skip:], told.truth[skip:], quantile or DECILES[-1])
            yield Job("scaler", name, quantile, label, replace(one, controller=controller), cfg.service, errors)


def _sizing(cfg: DictConfig, service: Service, quantile: float) -> dict[str, Any]:
    return {
        "_target_": "agents.scale.sizing.Sizing",
        "replica_rps": service.replica_rps,
        "target_utilisation": cfg.target_utilisation,
        "quantile": float(quantile),
        "lead_steps": cfg.lead_steps,
        "min_replicas": service.min_replicas,
        "max_replicas": service.max_replicas,
    }


def plans(
    cfg: DictConfig, name: str, forecaster: Forecaster | None, met: Sequence[tuple[str, Cell, Ahead]], folder: Path
) -> Iterator[Job]:
    """The runs that hold the plans made of one forecaster (None: of the truth), one for each price of a shortage.

    The plans go into `folder`, as CSV files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = cfg.capacity
    for label, one, what in met:
        peaks = capacity.coarse(what.demand, int(settings.step_s))
        begin = (what.scored_s - peaks.start_s) // peaks.step_s
        span = settings.lead_steps + settings.periods
        knows = forecaster or foretold.truth(peaks, begin - settings.lead_steps, span, name)
        for price in settings.shortage_costs if forecaster else settings.shortage_costs[:1]:
            made = capacity.plan(knows, peaks, _planning(cfg, price), what.service, begin)
            level = capacity.Newsvendor(price, 1.0).quantile
            errors = decision_table.errors(made.said, made.truth, level)
            made.table().write_csv(folder / f"{label}--{one.seed}--{name}--q{100 * level:.0f}.csv")
            held = replace(one, controller=_held(made, level, what))
            yield Job("plan", name, level if forecaster else None, label, held, cfg.service, errors)


def _planning(cfg: DictConfig, price: float) -> capacity.Planning:
    settings = cfg.capacity
    return capacity.Planning(
        capacity.Newsvendor(price, 1.0), settings.target_utilisation, settings.periods, settings.lead_steps
    )


def _held(plan: capacity.Plan, level: float, what: Ahead) -> dict[str, Any]:
    return {
        "_target_": "agents.scale.capacity.PlannedCapacity",
        "target": what.service.name,
        "counts": list(plan.replicas),
        "step_s": plan.step_s,
        "start_s": plan.start_s - what.start_s,
        "coverage": level,
    }
