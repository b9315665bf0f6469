"""Recorded demand -> arrival rates: what every controller of a run meets, drawn once per seed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twin.errors import SimulationError
from twin.seeds import child
from twin.trace.trace import Trace
from twin.types import Cluster, Service

STEP_S = 60.0


def arrival_rates(trace: Trace, cluster: Cluster, until_s: float, seed: int) -> NDArray[np.float64]:
    """Arrivals per second [services, steps of STEP_S], the same for every controller with this seed.

    The recorded averages are joined linearly between the middles of their steps; each minute is multiplied
    by gamma noise with mean 1 and coefficient of variation `service.burst_cv`, which stands for what the
    averaging hid. Raises SimulationError when the trace holds no demand for a service or ends too early.
    """
    steps = int(np.ceil(until_s / STEP_S)) + 1
    rates = np.zeros((len(cluster.services), steps))
    for index, service in enumerate(cluster.services):
        rates[index] = _rates(trace, service, steps, child(seed, f"workload/{service.name}"))
    return rates


def _rates(trace: Trace, service: Service, steps: int, rng: np.random.Generator) -> NDArray[np.float64]:
    if service.unit_rps == 0:
        return np.zeros(steps)
    series = trace.demand.filter(service=service.series)
    if not series.height:
        known = trace.services["service"].to_list()
        raise SimulationError(
            f"trace {trace.info.name!r} holds no demand for service {service.series!r}; it holds {known}"
        )
    middles = series["time_s"].to_numpy() + trace.info.step_s / 2
    if series["time_s"][0] > trace.info.step_s:
        raise SimulationError(
            f"trace {trace.info.name!r}: the demand of {service.name!r} begins at {series['time_s'][0]:g} s; "
            "cut the trace there with between()"
        )
    times = (np.arange(steps) + 0.5) * STEP_S
    if times[-2 if steps > 1 else -1] > middles[-1] + trace.info.step_s:
        raise SimulationError(
            f"trace {trace.info.name!r} ends at {middles[-1] + trace.info.step_s / 2:g} s, before until_s={times[-2]:g}"
        )
    rates = np.interp(times, middles, series["value"].to_numpy()) * service.unit_rps
    if service.burst_cv > 0:
        shape = service.burst_cv**-2
        rates = rates * rng.gamma(shape, 1.0 / shape, size=steps)
    return rates
