"""The demand of a service as the twin's observations show it: what an operator of forecasts sees of a replay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from agents.forecast.frames import Series
from twin.errors import UsageError
from twin.trace.trace import Trace
from twin.types import Action, Cluster, Controller, Event, Observation


@dataclass(slots=True)
class Listener:
    """A controller that lets another decide, and takes note of one observed column each time.

    Attributes:
        times_s: when each observation was made.
        values: what it showed.
    """

    inner: Controller
    column: str
    times_s: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        """That of the other."""
        return self.inner.name

    @property
    def interval_s(self) -> float:
        """That of the other."""
        return self.inner.interval_s

    def reset(self) -> None:
        """Forget what was seen."""
        self.times_s.clear()
        self.values.clear()
        self.inner.reset()

    def decide(self, observation: Observation) -> list[Action]:
        """The other's actions."""
        self.times_s.append(observation.time_s)
        self.values.append(float(observation.values[observation.columns.index(self.column)]))
        return self.inner.decide(observation)


def observed_demand(
    trace: Trace,
    cluster: Cluster,
    controller: Controller,
    service: str,
    *,
    events: Sequence[Event] = (),
    until_s: float | None = None,
    step_s: int = 300,
    seed: int = 0,
) -> Series:
    """The demand of `service`, in requests/s, as a controller saw it in a replay: means over steps of `step_s`.

    Raises:
        UsageError: the controller looks too rarely for such steps.
        SimulationError: as `twin.simulate`.
    """
    from twin.simulation import simulate
    from twin.types import Record

    listener = Listener(controller, f"{service}.demand_rps")
    record = Record(step_s=step_s, decisions=False)
    simulate(trace, cluster, controller=listener, events=events, record=record, until_s=until_s, seed=seed)
    # an observation at the very end of a step shows that step
    step = ((np.array(listener.times_s) - 1e-9) // step_s).astype(np.int64)
    known = step >= 0
    counts = np.bincount(step[known])
    if not counts.all():
        raise UsageError(
            f"{controller.name} looks every {controller.interval_s:g} s, too rarely for steps of {step_s} s"
        )
    sums = np.bincount(step[known], np.array(listener.values)[known])
    start_s = int(trace.info.start_s or 0)
    return Series(f"{trace.info.name}/observed/{service}", start_s, step_s, sums / counts)
