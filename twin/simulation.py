"""The front door of the twin: `simulate(trace, cluster, controller=...) -> Run`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from twin import loop, metrics
from twin.engine.demand import STEP_S
from twin.engine.plant import TwinPlant
from twin.engine.scheduling.placement import MostAllocated
from twin.engine.traffic import Serve, fluid
from twin.errors import SimulationError
from twin.trace.trace import Trace
from twin.types import Clairvoyant, Cluster, Controller, Decision, Event, Limits, Placement, Record


@dataclass(frozen=True, slots=True)
class Run:
    """What one simulation left behind: checked tables and how it ended."""

    cluster: Cluster
    service_steps: pl.DataFrame
    pool_steps: pl.DataFrame
    decisions: pl.DataFrame
    incidents: pl.DataFrame
    seed: int
    until_s: float
    status: Literal["completed"] = "completed"

    def kpis(self, since_s: float = 0.0) -> pl.DataFrame:
        """The `kpis` table of what happened after `since_s` (a warm-up before it does not count)."""
        return metrics.kpis(self.cluster, self.service_steps, self.pool_steps, self.decisions, since_s=since_s)

    def tables(self) -> dict[str, pl.DataFrame]:
        """The tables by name, as a run folder holds them."""
        return {name: getattr(self, name) for name in ("service_steps", "pool_steps", "decisions", "incidents")}


def simulate(
    trace: Trace,
    cluster: Cluster,
    *,
    controller: Controller,
    scheduler: Placement | None = None,
    events: Sequence[Event] = (),
    record: Record | None = None,
    limits: Limits | None = None,
    serving: Serve = fluid,
    until_s: float | None = None,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Run:
    """Replay the trace's demand on the cluster under a controller.

    Args:
        trace: recorded facts; `trace.demand` holds a series for each of the cluster's services.
        cluster: the pools and services that are mirrored.
        controller: who decides; it is reset first.
        scheduler: the cluster's own placement of replicas on nodes; packs (MostAllocated) by default.
        events: what a scenario makes happen.
        record: what is written down.
        limits: the shield between decision and plant; None for no shield.
        serving: how requests are served: averages (`traffic.fluid`), or one by one (`traffic.requests`).
        until_s: seconds to simulate; the whole trace by default.
        seed: same seed, same tables; controllers with the same seed meet the same demand and faults.
        progress: told the simulated time after each turn of the loop.

    Raises:
        SimulationError: the trace lacks the demand, or `until_s` lies outside it.
    """
    until = trace.duration_s if until_s is None else float(until_s)
    if not 0 < until <= trace.duration_s:
        raise SimulationError(
            f"until_s={until:g} must lie in (0, {trace.duration_s:g}], the length of {trace.info.name!r}"
        )
    record = record or Record()
    plant = TwinPlant(
        trace,
        cluster,
        scheduler=scheduler or MostAllocated(),
        events=events,
        record=record,
        until_s=until,
        seed=seed,
        serving=serving,
    )
    rows: list[Decision] = []
    control = loop.ControlLoop(plant, controller, limits=limits, record=rows.append if record.decisions else None)
    if isinstance(controller, Clairvoyant):
        controller.foresee(plant.rates_rps, STEP_S, cluster)
    loop.run(control, until, progress)
    plant.meters.read()  # the clock stops just before what happens at `until`
    return Run(
        cluster=cluster,
        service_steps=plant.meters.service_steps(),
        pool_steps=plant.meters.pool_steps(),
        decisions=loop.decision_table(rows),
        incidents=plant.incidents.table(),
        seed=seed,
        until_s=until,
    )
