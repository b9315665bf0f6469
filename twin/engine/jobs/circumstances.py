"""What a trace's facts say about the circumstances of a replay: its outages, its clock, how clean its power was."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import polars as pl

from twin.engine.jobs.machines import Machines
from twin.engine.jobs.scheduler import Outage
from twin.engine.jobs.workload import F8, NEVER
from twin.engine.scheduling.admission import CleanHours, Windows
from twin.errors import UsageError
from twin.trace.trace import Trace

_GONE, _BACK = ("fail", "remove"), ("add", "repair")
_DAY_H = 24


def outages(trace: Trace, machines: Machines, *, drained: Collection[str] = ("remove",)) -> tuple[Outage, ...]:
    """The outages that the trace recorded of whole machines, in order of time.

    A machine is gone from "fail" or "remove" until "repair" or "add"; one that is first heard of as coming back was not
    there before, and one that never comes back stays away. Events of parts and shares of machines are left out.

    Args:
        trace: holds `node_events`.
        machines: those of the trace, one by one.
        drained: the events before which what ran there could finish; at the others it is lost.

    Raises:
        UsageError: the trace recorded no events of whole machines, or one of a machine that is not among `machines`.
    """
    whole = pl.col("component").is_null() & (pl.col("share").fill_null(1.0) >= 1.0)
    events = trace.node_events.filter(whole, pl.col("event").is_in((*_GONE, *_BACK))).sort(
        "time_s", maintain_order=True
    )
    if not events.height:
        raise UsageError(f"trace {trace.info.name!r} recorded no events of whole machines; use outages=none")
    number = {name: machine for machine, name in enumerate(machines.names)}
    found: list[Outage] = []
    for (node,), rows in events.group_by("node", maintain_order=True):
        if node not in number:
            raise UsageError(
                f"node_events of trace {trace.info.name!r}: machine {node!r} is not among the {len(machines)} that "
                "jobs run on; use machines=recorded, or outages=none"
            )
        found += _of_machine(rows, number[str(node)], drained)
    return tuple(sorted(found, key=lambda outage: (outage.time_s, outage.machines)))


def _of_machine(events: pl.DataFrame, machine: int, drained: Collection[str]) -> list[Outage]:
    found: list[Outage] = []
    gone: tuple[float, bool] | None = (0.0, True) if events["event"][0] in _BACK else None
    for time_s, event in events.select("time_s", "event").iter_rows():
        if event in _GONE and gone is None:
            gone = (time_s, event in drained)
        elif event in _BACK and gone is not None:
            if time_s > gone[0]:
                found.append(Outage(gone[0], time_s - gone[0], (machine,), drain=gone[1]))
            gone = None
    return found if gone is None else [*found, Outage(gone[0], NEVER, (machine,), drain=gone[1])]


def working_hours(
    trace: Trace,
    *,
    hours: tuple[int, ...] = (8, 17),
    working_days: tuple[int, ...] = (0, 1, 2, 3, 4),
    epoch: str | None = None,
    zone: str | None = None,
) -> Windows:
    """The rule `Windows` by the trace's own clock.

    Args:
        trace: its `epoch` and `zone` are taken where they are not given.
        hours: boundaries that no job may run over, by its estimate.
        working_days: days that have them; Monday is 0.
        epoch: wall-clock time of second 0 (ISO 8601).
        zone: whose hours are meant (IANA).

    Raises:
        UsageError: the trace does not tell its clock and it is not given.
    """
    clock = {"epoch": epoch or trace.info.epoch, "zone": zone or trace.info.zone}
    for key, value in clock.items():
        if not value:
            example = {"epoch": "2026-01-05T00:00:00", "zone": "Europe/Berlin"}[key]
            raise UsageError(
                f"trace {trace.info.name!r} does not tell its {key}, and working hours need one; "
                f"give admission.working_hours.{key}={example}"
            )
    return Windows(clock["epoch"], clock["zone"], hours, working_days)


@dataclass(frozen=True, slots=True, eq=False)
class Persistence:
    """Tomorrow will be like the last day that is known: hour by hour, and nothing of the future is looked at."""

    values: F8  # [hours], NaN where nothing was recorded
    horizon_h: int = _DAY_H

    def __call__(self, hour: int) -> list[float]:
        """What the coming hours hold [horizon_h], `hour` first; nothing before a whole day is known."""
        known = min(hour, len(self.values))
        ahead = np.arange(hour, hour + self.horizon_h)
        back = ahead - _DAY_H * np.ceil((ahead - known + 1) / _DAY_H).astype(np.int64)
        if known < _DAY_H or np.isnan(self.values[back]).any():
            return []
        return self.values[back].tolist()


def clean_hours(
    trace: Trace,
    *,
    share: float = 0.3,
    horizon_h: int = _DAY_H,
    quantity: str = "carbon_g_kwh",
    zone: str | None = None,
) -> CleanHours:
    """The rule `CleanHours` by a forecast of the series that the trace recorded, made of its past alone.

    The forecast is yesterday's hour, the one that every other forecast has to beat. An hour in which nothing was
    recorded keeps the last value before it.

    Args:
        trace: holds `prices` with the quantity.
        share: the lowest share of the coming hours is clean.
        horizon_h: so many hours are coming.
        quantity: what is forecast, as `prices` names it.
        zone: whose; needed where the trace holds several.

    Raises:
        UsageError: the trace does not hold the series, or several zones of it and none was chosen.
    """
    series = trace.prices.filter(pl.col("quantity") == quantity)
    zones = series["zone"].unique().sort().to_list()
    if not zones:
        raise UsageError(
            f"trace {trace.info.name!r} holds no prices of {quantity!r} to forecast; leave clean_hours out of admission"
        )
    if (zone or zones[0]) not in zones or (zone is None and len(zones) > 1):
        raise UsageError(
            f"trace {trace.info.name!r} holds {quantity!r} of {zones}; choose one with admission.clean_hours.zone"
        )
    own = series.filter(pl.col("zone") == (zone or zones[0]), pl.col("time_s") >= 0)
    hourly = own.group_by(hour=(pl.col("time_s") // 3600).cast(pl.Int64)).agg(pl.col("value").mean())
    values = np.full(1 + int(hourly["hour"].to_numpy().max(initial=-1)), np.nan)
    values[hourly["hour"].to_numpy()] = hourly["value"].to_numpy()
    filled = pl.Series(values).fill_nan(None).forward_fill().to_numpy()
    return CleanHours(Persistence(filled, horizon_h), share, horizon_h)
