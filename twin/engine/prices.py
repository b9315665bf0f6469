"""What a node costs and how clean its power is, over time, as the trace recorded it."""

from __future__ import annotations

import numpy as np
import polars as pl
import simpy
from numpy.typing import NDArray

from twin.engine.books import Books
from twin.engine.clock import after
from twin.engine.state import State
from twin.errors import SimulationError
from twin.trace.trace import Trace
from twin.types import Cluster

F8 = NDArray[np.float64]

SPOT, CARBON = "spot_usd_h", "carbon_g_kwh"


class Steps:
    """A recorded value for each moment: what the last row at or before it says."""

    def __init__(self, trace: Trace, zone: str, quantity: str, wanted_by: str) -> None:
        """The series of the zone; raises SimulationError when the trace does not hold it from its start on."""
        rows = trace.prices.filter(zone=zone, quantity=quantity).sort("time_s")
        self.time_s, self.value = rows["time_s"].to_numpy(), rows["value"].to_numpy()
        if not len(self.time_s) or self.time_s[0] > 0.0:
            known = trace.prices.filter(pl.col("quantity") == quantity)["zone"].unique().sort().to_list()
            raise SimulationError(
                f"{wanted_by} needs {quantity} of zone {zone!r} from second 0 on; trace {trace.info.name!r} holds "
                f"{known or 'none'}: attach a recording with a scenario of scenarios.regions"
            )

    def means(self, edges_s: F8) -> F8:
        """The averages between each two neighbours of `edges_s` [edges - 1]."""
        ends = np.append(self.time_s[1:], np.inf)
        whole = np.concatenate(([0.0], np.cumsum(self.value[:-1] * np.diff(self.time_s))))
        step = np.searchsorted(ends, edges_s, side="right")
        until = whole[step] + self.value[step] * (edges_s - self.time_s[step])
        return np.diff(until) / np.diff(edges_s)


def follow(env: simpy.Environment, trace: Trace, cluster: Cluster, state: State, books: Books) -> None:
    """Let the price of each pool that names a series move as it was recorded.

    Raises SimulationError when the trace does not hold the series.
    """
    for index, pool in enumerate(cluster.pools):
        if not pool.price_series:
            continue
        steps = Steps(trace, pool.price_series, SPOT, f"pool {pool.name!r}")
        for time_s, value in zip(steps.time_s, steps.value, strict=True):
            if time_s <= env.now:
                state.price_usd_h[index] = value
            else:
                after(env, time_s - env.now, _set, state, books, index, float(value))


def _set(state: State, books: Books, pool: int, price_usd_h: float) -> None:
    books.settle()
    state.price_usd_h[pool] = price_usd_h


def carbon(trace: Trace, cluster: Cluster) -> list[Steps | float]:
    """The carbon intensity of each pool's power in g/kWh: recorded, or constant.

    Raises SimulationError when the trace does not hold a series that a pool names.
    """
    return [
        Steps(trace, pool.grid, CARBON, f"pool {pool.name!r}") if pool.grid else pool.carbon_g_kwh
        for pool in cluster.pools
    ]
