"""Energy, carbon and cost of what jobs held, told apart by who held it: tables in, one tidy table (`kpis`) out.

energy_kwh                   what was drawn. A machine draws idle_w + (full_w - idle_w) u^e, with u the used share of
                             its cores (at most 1) and e the exponent of its pool's power curve (Fan, Weber and
                             Barroso, ISCA 2007; the curves: Mastenbroek et al., CCGrid 2021)
energy_unoccupied_kwh        the part of it in which a machine that held nothing stood idle
energy_idle_ratio            share of it that would have been drawn with nothing in use
carbon_kg                    energy x carbon intensity of the grid at that time: operational, location-based emissions
carbon_unoccupied_kg         (ISO/IEC 21031:2024; GHG Protocol Scope 2 Guidance, 2015)
energy_cost_usd              energy x price of electricity at that time
energy_cost_unoccupied_usd

At each moment what a machine draws above its idle power falls to those who use it, by the cores that they use; its idle
power falls to those who hold it, by the cores that they hold, in equal parts where nobody holds a core. A machine that
holds nothing is occupied by nobody: that part belongs to its pool and to the cluster, and to no user or queue. So the
parts of all users and what was unoccupied add up to the cluster's energy, carbon and cost, as do the pools.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numba
import numpy as np
import polars as pl
from numpy.typing import NDArray

from twin.engine.jobs import fragments
from twin.engine.jobs.fragments import Fragments, Profile
from twin.engine.jobs.machines import Machines
from twin.errors import SimulationError, TraceError, UsageError
from twin.job_metrics import CLUSTER, Group
from twin.trace import tables

F8 = NDArray[np.float64]

CARBON = "carbon_g_kwh"
PRICES = ("electricity_usd_mwh", "electricity_eur_mwh")
"""Quantities of the table `prices` that `signal` reads."""
KPIS = {
    "energy_kwh": ("kWh", "lower"),
    "energy_unoccupied_kwh": ("kWh", "lower"),
    "energy_idle_ratio": ("ratio", "lower"),
    "carbon_kg": ("kgCO2eq", "lower"),
    "carbon_unoccupied_kg": ("kgCO2eq", "lower"),
    "energy_cost_usd": ("USD", "lower"),
    "energy_cost_unoccupied_usd": ("USD", "lower"),
}
"""Unit and better direction of each KPI of `kpis`."""

_TOUCH_S = 1e-6
"""Fragments that lie nearer than that follow each other without a gap, as in `fragments.profile`."""
_FOREVER_S = 1e12
_J_KWH, _J_MWH, _G_KG = 3.6e6, 3.6e9, 1e3
_MEASURES = ("energy_kwh", "carbon_kg", "energy_cost_usd")


@dataclass(frozen=True, slots=True)
class Signal:
    """A value for each moment, in steps: `value[i]` from `time_s[i]` until `until_s[i]`, in the twin's time.

    `name` says where it comes from, for messages.
    """

    name: str
    time_s: F8  # [steps], rising
    until_s: F8  # [steps], at most the next step's begin
    value: F8  # [steps]

    def integral(self, at_s: F8, begin_s: float) -> F8:
        """Value x seconds from `begin_s` to each moment of `at_s`, none of them earlier [moments]."""
        begins, ends = np.maximum(self.time_s, begin_s), np.maximum(self.until_s, begin_s)
        before = np.concatenate(([0.0], np.cumsum(self.value * (ends - begins))))
        step = np.clip(np.searchsorted(self.time_s, at_s, side="right") - 1, 0, None)
        return before[step] + self.value[step] * np.clip(at_s - begins[step], 0.0, (ends - begins)[step])

    def check(self, begin_s: float, end_s: float) -> None:
        """Raises TraceError, with the first hole, unless there is a value at each moment between the two."""
        inside = (self.until_s > begin_s) & (self.time_s < end_s)
        begins = np.append(self.time_s[inside], end_s)
        reached = np.maximum.accumulate(np.insert(self.until_s[inside], 0, begin_s))
        holes = np.flatnonzero(begins > reached + _TOUCH_S)
        if len(holes):
            hole = int(holes[0])
            raise TraceError(
                f"{self.name}: no value from {reached[hole]:.0f} s to {begins[hole]:.0f} s, of a run from "
                f"{begin_s:.0f} s to {end_s:.0f} s: give a series that covers the run, or let a value last longer "
                "(hold_s; energy.hold_s of the verb schedule)"
            )


def constant(value: float, name: str = "constant") -> Signal:
    """The same value from second 0 on."""
    return Signal(name, np.zeros(1), np.full(1, _FOREVER_S), np.full(1, float(value)))


def signal(
    prices: pl.DataFrame,
    quantity: str,
    zone: str | None = None,
    *,
    from_s: float = 0.0,
    hold_s: float | None = None,
    usd_eur: float | None = None,
) -> Signal:
    """A recorded series as a signal: carbon intensity in gCO2eq/kWh, or a price of electricity in USD/MWh.

    Args:
        prices: the canonical table; its times are the begins of the steps.
        quantity: "carbon_g_kwh", "electricity_usd_mwh" or "electricity_eur_mwh".
        zone: which grid zone; may be left out where the table holds one only.
        from_s: the recorded time that is second 0 of the run.
        hold_s: how long a value lasts at most where the next one is missing; by default as long as most do.
        usd_eur: USD for one EUR; needed for prices in EUR.

    Raises:
        UsageError: a quantity that is none of these, an unknown zone, none given where there are several, no
            `usd_eur` for prices in EUR, or a `hold_s` that is not above 0.
        TraceError: fewer than two values, so that nobody can tell how long one lasts, or two for the same time.
    """
    if quantity not in (CARBON, *PRICES):
        raise UsageError(f"quantity={quantity!r} is neither carbon nor a price; known: {[CARBON, *PRICES]}")
    check_hold(hold_s)
    rows = prices.filter(quantity=quantity)
    zones = rows["zone"].unique().sort().to_list()
    if (zone is None and len(zones) != 1) or (zone is not None and zone not in zones):
        raise UsageError(f"zone={zone!r}: the table tells {quantity} of the zones {zones}; choose one of them")
    if quantity == "electricity_eur_mwh" and not (usd_eur and usd_eur > 0):
        raise UsageError("prices are in EUR: give usd_eur, the USD for one EUR at that time, to get a cost in USD")
    rows = rows.filter(zone=zones[0] if zone is None else zone).sort("time_s")
    name, time_s = f"{quantity} of {rows['zone'][0]}", rows["time_s"].to_numpy() - from_s
    if len(time_s) < 2:
        raise TraceError(
            f"{name}: {len(time_s)} value does not tell how long it lasts; give two or more, or a constant"
        )
    gaps_s = np.diff(time_s)
    if (gaps_s <= 0).any():
        again = int(np.argmin(gaps_s > 0)) + 1
        raise TraceError(f"{name}: two values for {time_s[again] + from_s:.0f} s; keep one value for each time")
    usual_s = float(np.median(gaps_s)) if hold_s is None else hold_s
    until_s = time_s + np.minimum(np.append(gaps_s, np.inf), usual_s)
    scale = usd_eur if quantity == "electricity_eur_mwh" and usd_eur else 1.0
    return Signal(name, time_s, until_s, rows["value"].to_numpy() * scale)


def check_hold(hold_s: float | None) -> None:
    """Raises UsageError for a length that no value can last."""
    if hold_s is not None and not hold_s > 0:
        raise UsageError(f"hold_s={hold_s:g}: a value must last for more than 0 s (energy.hold_s of the verb schedule)")


def kpis(
    machines: Machines,
    placements: pl.DataFrame,
    *,
    span_s: tuple[float, float],
    outcomes: pl.DataFrame | None = None,
    by: Sequence[Group] = (),
    carbon: Signal | None = None,
    price: Signal | None = None,
    use: Fragments | None = None,
) -> pl.DataFrame:
    """The `kpis` of the whole (entity "cluster") and of each part ("user:17", "queue:night", "pool:small").

    Args:
        machines: what the jobs ran on, with their power.
        placements: schema `placements`.
        span_s: from when until when; idle machines draw power, so this is never guessed. A whole run: 0 to its end.
        outcomes: schema `outcomes`; tells users and queues, which without a name are those named "".
        by: parts to tell apart.
        carbon: intensity in gCO2eq/kWh (`signal`, `constant`); without it carbon is unscored.
        price: USD/MWh; without it cost is unscored.
        use: what the placements really use (`fragments.fragments` of these placements); all that they hold by default.

    Raises:
        UsageError: a span of no length, users or queues without outcomes, or use of other placements.
        TraceError: a signal that does not cover the span.
        SimulationError: a placement on a machine that is not among `machines`.
    """
    begin_s, end_s = span_s
    if not begin_s < end_s:
        raise UsageError(f"span_s={span_s} has no length: its end must lie after its start")
    if outcomes is None and {"user", "queue"} & set(by):
        raise UsageError("users and queues are told by outcomes: give outcomes, or leave them out of by")
    for known in (carbon, price):
        if known is not None:
            known.check(begin_s, end_s)
    signals = {"energy_kwh": (constant(1.0), _J_KWH), "carbon_kg": (carbon, _J_KWH * _G_KG)}
    signals["energy_cost_usd"] = (price, _J_MWH)
    parts = _Parts.of(machines, placements, use)
    columns: dict[str, F8] = {}
    for measure, (told, scale) in signals.items():
        if told is not None:
            dynamic, idle, unoccupied = (each / scale for each in parts.split(machines, told, span_s))
            columns[measure] = np.concatenate((dynamic + idle, unoccupied))
            if measure == "energy_kwh":
                columns["_idle_kwh"] = np.concatenate((idle, unoccupied))
    frame = _named(machines, placements, outcomes, parts).with_columns(
        **{name: pl.Series(values) for name, values in columns.items()}
    )
    return tables.conform(pl.concat([_of(kind, frame) for kind in (CLUSTER, *by)]), "kpis", "job_energy")


# ---------------------------------------------------------------- who draws what


@dataclass(frozen=True, slots=True)
class _Parts:
    """Fragments of what is held and used; their sums over each machine, and how many placements lie there."""

    held: Fragments
    used: Fragments
    of_held: Profile
    of_used: Profile
    of_count: Profile

    @staticmethod
    def of(machines: Machines, placements: pl.DataFrame, use: Fragments | None) -> _Parts:
        held = fragments.fragments(placements, tables.empty("usage"), tables.empty("jobs"), machines)
        used = held if use is None else _closed(use)
        if len(used.placement) != placements.height:
            raise UsageError(
                f"use tells of {len(used.placement)} placements, but there are {placements.height}: make it with "
                "fragments.fragments from these placements"
            )
        counted = replace(held, used=np.ones(len(held.used), dtype=np.int64))
        profiles = [fragments.profile(pieces, machines) for pieces in (held, used, counted)]
        return _Parts(held, used, *profiles)

    def split(self, machines: Machines, told: Signal, span_s: tuple[float, float]) -> tuple[F8, F8, F8]:
        """Joules x value above idle power and of idle power [placements], and of empty machines [machines]."""
        powers = [machines.power[pool] for pool in machines.pool]
        idle_w = np.array([power.idle_w for power in powers])
        above_w = np.array([power.full_w for power in powers]) - idle_w
        exponent = np.array([power.exponent for power in powers])
        machine = _machine(self.of_used)
        share = fragments.used_share(self.of_used, machines)
        draws_w = np.where(share > 0, above_w[machine] * share ** exponent[machine], 0.0)
        dynamic = _shared(self.used, self.of_used, draws_w / np.maximum(self.of_used.used, 1), told, span_s)
        # the profiles of what is held and of how many hold it have the same points
        machine, cores, count = _machine(self.of_held), self.of_held.used, self.of_count.used
        by_cores = np.where(cores > 0, idle_w[machine] / np.maximum(cores, 1), 0.0)
        by_count = np.where((cores == 0) & (count > 0), idle_w[machine] / np.maximum(count, 1), 0.0)
        idle = _shared(self.held, self.of_held, by_cores, told, span_s)
        idle += _shared(replace(self.held, used=np.ones_like(self.held.used)), self.of_held, by_count, told, span_s)
        return dynamic, idle, idle_w * _empty(self.of_count, told, span_s)


def _closed(pieces: Fragments) -> Fragments:
    """The fragments without the tiny gaps that rounding leaves between those of a placement."""
    owner = np.repeat(np.arange(len(pieces.placement)), np.diff(pieces.first))
    end_s = pieces.end_s.copy()
    follows = (owner[1:] == owner[:-1]) & (pieces.begin_s[1:] - pieces.end_s[:-1] <= _TOUCH_S)
    end_s[:-1][follows] = pieces.begin_s[1:][follows]
    return replace(pieces, end_s=end_s)


def _machine(asked: Profile) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(asked.first) - 1), np.diff(asked.first))


def _lasting(asked: Profile, told: Signal, span_s: tuple[float, float]) -> tuple[F8, F8]:
    """Value x seconds up to each point, and from it to the next one of its machine (the last: 0) [points]."""
    until = told.integral(np.clip(asked.time_s, *span_s), span_s[0])
    lasts = np.diff(until, append=0.0)
    lasts[asked.first[1:][np.diff(asked.first) > 0] - 1] = 0.0
    return until, lasts


def _shared(pieces: Fragments, asked: Profile, rate: F8, told: Signal, span_s: tuple[float, float]) -> F8:
    """Rate x value x seconds x what each placement uses [placements]; `rate` holds from each point on [points]."""
    until, lasts = _lasting(asked, told, span_s)
    before = _running(asked.first, rate * lasts)
    owner = np.repeat(np.arange(len(pieces.placement)), np.diff(pieces.first))
    sums = []
    for time_s in (pieces.begin_s, pieces.end_s):
        point = _point(asked.first, asked.time_s, pieces.machine[owner], time_s)
        into = told.integral(np.clip(time_s, *span_s), span_s[0]) - until[point]
        sums.append(before[point] + rate[point] * into)
    made = np.zeros(len(pieces.placement))
    made[pieces.placement] = np.bincount(owner, pieces.used * (sums[1] - sums[0]), len(pieces.placement))
    return made


@numba.njit(cache=True)
def _running(first: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of the values before each point, over its own machine alone: small parts keep their digits [points]."""
    sums = np.zeros(len(values))
    for machine in range(len(first) - 1):
        for i in range(first[machine] + 1, first[machine + 1]):
            sums[i] = sums[i - 1] + values[i - 1]
    return sums


@numba.njit(cache=True)
def _point(
    first: NDArray[np.int64], time_s: NDArray[np.float64], machine: NDArray[np.int64], at_s: NDArray[np.float64]
) -> NDArray[np.int64]:
    """The last point of each machine that is not later than each moment [moments]."""
    found = np.empty(len(at_s), dtype=np.int64)
    for i in range(len(at_s)):
        begin, end = first[machine[i]], first[machine[i] + 1]
        found[i] = begin + max(np.searchsorted(time_s[begin:end], at_s[i], side="right") - 1, 0)
    return found


def _empty(count: Profile, told: Signal, span_s: tuple[float, float]) -> F8:
    """Value x seconds in which nothing lay on each machine [machines]."""
    until, lasts = _lasting(count, told, span_s)
    machine, machines = _machine(count), len(count.first) - 1
    whole = float(told.integral(np.array(span_s[1]), span_s[0]))
    some = np.diff(count.first) > 0
    ahead, behind = np.full(machines, whole), np.zeros(machines)
    ahead[some] = until[count.first[:-1][some]]
    behind[some] = whole - until[count.first[1:][some] - 1]
    return ahead + behind + np.bincount(machine, np.where(count.used == 0, lasts, 0.0), machines)


# ---------------------------------------------------------------- parts and the whole


def _named(machines: Machines, placements: pl.DataFrame, outcomes: pl.DataFrame | None, parts: _Parts) -> pl.DataFrame:
    """Pool, user and queue of each placement, then of each empty machine, which has neither user nor queue."""
    pool = np.empty(placements.height, dtype=np.int64)
    pool[parts.held.placement] = machines.pool[parts.held.machine]
    names = pl.Series(machines.pools, dtype=pl.String)
    who = placements.select("job")
    if outcomes is None:
        who = who.with_columns(user=pl.lit(None, pl.String), queue=pl.lit(None, pl.String))
    else:
        known = outcomes.select("job", pl.col("user", "queue").fill_null(""))
        who = who.join(known, on="job", how="left", maintain_order="left")
        if who["user"].null_count():
            job = who.filter(pl.col("user").is_null())["job"][0]
            raise SimulationError(f"placements: job {job!r} is not among the outcomes; give those of the same run")
    held = who.select("user", "queue", pool=names.gather(pool), empty=pl.lit(value=False))
    empty = pl.DataFrame({"pool": names.gather(machines.pool.astype(np.int64))}).with_columns(empty=pl.lit(value=True))
    return pl.concat([held, empty], how="diagonal")


def _of(kind: str, frame: pl.DataFrame) -> pl.DataFrame:
    entity = pl.lit(CLUSTER) if kind == CLUSTER else pl.lit(f"{kind}:") + pl.col(kind)
    parts = frame.with_columns(entity=entity).filter(pl.col("entity").is_not_null())
    sums = {}
    for measure in _MEASURES:
        stem, unit = measure.rsplit("_", 1)
        told, whole = measure in frame.columns, kind in (CLUSTER, "pool")
        sums[measure] = pl.col(measure).sum() if told else pl.lit(None)
        rest = pl.col(measure).filter("empty").sum() if told and whole else pl.lit(None)
        sums[f"{stem}_unoccupied_{unit}"] = rest
    idle = pl.col("_idle_kwh").sum() / pl.col("energy_kwh").sum()
    wide = parts.group_by("entity").agg(**sums, energy_idle_ratio=idle)
    order = pl.DataFrame(
        [(kpi, place, unit, better) for place, (kpi, (unit, better)) in enumerate(KPIS.items())],
        schema=["kpi", "_place", "unit", "better"],
        orient="row",
    )
    tidy = wide.select("entity", pl.col(list(KPIS)).cast(pl.Float64).fill_nan(None))
    tidy = tidy.unpivot(index="entity", variable_name="kpi").join(order, on="kpi")
    return tidy.sort("entity", "_place").drop("_place")
