"""What nodes cost and how clean their power is: other offers, and recorded series that pools follow.

A trace gains rows of table `prices`; a pool names the series (`price_series`, `grid`) that holds for it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import polars as pl

from scenarios.base import Scenery
from scenarios.faults import pool_named
from scenarios.recordings import chosen, recording
from twin.errors import ScenarioError
from twin.trace.trace import Trace
from twin.types import Cluster, Pool

SPOT = "spot_usd_h"
CARBON = "carbon_g_kwh"


@dataclass(frozen=True, slots=True)
class PriceChange:
    """Nodes of a pool cost `factor` times as much, reserved ones too, and are bought as `offer` (None: as before)."""

    pool: str
    factor: float
    offer: Literal["spot", "on-demand"] | None = None

    def apply(self, trace: Trace, cluster: Cluster) -> Scenery:
        """The trace (with a dearer copy of the pool's price series, if it has one), the cluster, and no events.

        Raises:
            ScenarioError: an unknown pool, a factor that is not > 0, or a price series that the trace does not hold.
        """
        pool = pool_named(self.pool, cluster)
        if not 0.0 < self.factor < float("inf") or self.offer not in (None, "spot", "on-demand"):
            raise ScenarioError(f"{self}: factor must be a number > 0, offer spot, on-demand or null")
        changed = replace(
            pool,
            price_usd_h=pool.price_usd_h * self.factor,
            reserved_price_usd_h=pool.reserved_price_usd_h * self.factor,
            offer=self.offer or pool.offer,
        )
        if pool.price_series:
            rows = _held(trace, pool.price_series, SPOT).with_columns(
                pl.col("value") * self.factor, zone=pl.lit(f"{pool.price_series} x{self.factor:g}")
            )
            trace = _joined(trace, rows, f"scenario: {self}")
            changed = replace(changed, price_series=f"{pool.price_series} x{self.factor:g}")
        return trace, _with_pool(cluster, changed), ()


@dataclass(frozen=True, slots=True)
class Repriced:
    """Nodes of a pool cost what a recorded series says.

    A series of `spot_usd_h` is the price of a node itself. One of another quantity (electricity_eur_mwh, ...) moves the
    pool's own price: the part `share` of it in proportion to the series, at its mean over the trace the same as before,
    and never below 0. Second 0 of the trace is second `offset_s` of the recording, which must reach the trace's end.

    `path` and `format` are those of `twin.read`, an empty path means the trace's own prices; `zone` may be left out
    where the recording holds one.
    """

    pool: str
    path: str
    zone: str | None = None
    quantity: str = SPOT
    format: str | None = None
    offset_s: float = 0.0
    share: float = 1.0

    def apply(self, trace: Trace, cluster: Cluster) -> Scenery:
        """The trace with the series, the cluster with a pool that follows it, and no events.

        Raises:
            ScenarioError: an unknown pool or series, or one that does not cover the trace.
            TraceError: the recording cannot be read.
        """
        pool = pool_named(self.pool, cluster)
        rows = _series(recording(self.path, self.format, trace), self.quantity, self.zone, self.offset_s, trace)
        if self.quantity != SPOT:
            rows = _in_proportion(rows, pool, self.share)
        changed = replace(pool, price_series=rows["zone"][0])
        note = f"scenario: pool {pool.name!r} priced by recorded {self.quantity}, from its second {self.offset_s:g} on"
        return _joined(trace, rows, note), _with_pool(cluster, changed), ()


@dataclass(frozen=True, slots=True)
class GridOf:
    """The nodes of a pool draw power whose carbon intensity was recorded in a grid zone.

    Fields as in `Repriced`. Choose an `offset_s` that begins at the trace's time of day and year: sun and wind follow
    the clock.
    """

    pool: str
    path: str
    zone: str | None = None
    format: str | None = None
    offset_s: float = 0.0

    def apply(self, trace: Trace, cluster: Cluster) -> Scenery:
        """The trace with the zone's `carbon_g_kwh`, the cluster with a pool on that grid, and no events.

        Raises:
            ScenarioError: an unknown pool or zone, or a recording that does not cover the trace.
            TraceError: the recording cannot be read.
        """
        pool = pool_named(self.pool, cluster)
        rows = _series(recording(self.path, self.format, trace), CARBON, self.zone, self.offset_s, trace)
        changed = replace(pool, grid=rows["zone"][0])
        note = f"scenario: pool {pool.name!r} on the recorded grid {changed.grid}, from its second {self.offset_s:g} on"
        return _joined(trace, rows, note), _with_pool(cluster, changed), ()


def _series(recorded: Trace, quantity: str, zone: str | None, offset_s: float, trace: Trace) -> pl.DataFrame:
    """Rows of `prices` of one recorded series over the trace's time; the value at second 0 is told at second 0."""
    found = recorded.prices.filter(quantity=quantity)
    name = recorded.info.name
    if not found.height:
        has = recorded.prices["quantity"].unique().sort().to_list()
        raise ScenarioError(f"recording {name!r} holds no prices of {quantity!r}; it has {has}")
    rows = found.filter(zone=chosen(zone, found["zone"].unique().sort().to_list(), "zone", name))
    if recorded is trace:
        return rows
    step_s = rows.select(pl.col("time_s").diff().median().fill_null(recorded.info.step_s)).item()
    first_s, ends_s = rows["time_s"][0], rows["time_s"][-1] + step_s
    if offset_s < first_s or offset_s + trace.duration_s > ends_s:
        raise ScenarioError(
            f"{quantity} of {rows['zone'][0]!r} is recorded from {first_s:g} to {ends_s:g} s, and the trace would need "
            f"{offset_s:g} to {offset_s + trace.duration_s:g} s; choose another offset_s or a shorter trace"
        )
    moved = rows.with_columns(pl.col("time_s") - offset_s)
    # a trace ends one of its steps after its last row: a later row would make it longer
    within = moved.filter(pl.col("time_s") <= trace.duration_s - trace.info.step_s)
    known = (pl.col("time_s").shift(-1) > 0).fill_null(value=True)
    return within.filter(known).with_columns(pl.col("time_s").clip(lower_bound=0.0))


def _in_proportion(rows: pl.DataFrame, pool: Pool, share: float) -> pl.DataFrame:
    """Prices of a pool's node that follow a series, under the name "<pool>/<zone>"."""
    mean = rows.select(pl.col("value").mean()).item()
    if not 0.0 <= share <= 1.0 or not mean > 0:
        raise ScenarioError(f"share={share:g} must be in [0, 1] and the mean of the series, {mean:g}, above 0")
    price = pool.price_usd_h * (1.0 - share + share * pl.col("value") / mean)
    return rows.with_columns(
        price.clip(lower_bound=0.0).alias("value"),
        zone=pl.concat_str(pl.lit(f"{pool.name}/"), "zone"),
        quantity=pl.lit(SPOT),
    )


def _held(trace: Trace, zone: str, quantity: str) -> pl.DataFrame:
    rows = trace.prices.filter(zone=zone, quantity=quantity)
    if not rows.height:
        raise ScenarioError(f"trace {trace.info.name!r} holds no {quantity} of {zone!r}; join it with Repriced first")
    return rows


def _joined(trace: Trace, rows: pl.DataFrame, note: str) -> Trace:
    """The trace with one more series; one that it holds already must be the same."""
    zone, quantity = rows["zone"][0], rows["quantity"][0]
    there = trace.prices.filter(zone=zone, quantity=quantity)
    if not there.height:
        return trace.replacing(note, prices=pl.concat([trace.prices, rows.select(trace.prices.columns)]))
    if not there.equals(rows.select(there.columns)):
        raise ScenarioError(f"trace {trace.info.name!r} holds another {quantity} of {zone!r}; one zone has one series")
    return trace.replacing(note)


def _with_pool(cluster: Cluster, changed: Pool) -> Cluster:
    return replace(cluster, pools=tuple(changed if pool.name == changed.name else pool for pool in cluster.pools))
