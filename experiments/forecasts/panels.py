"""The recorded series that forecasts are scored on, at two levels and two steps, and those to learn from beside them.

The cell level is whole clusters; the machine level is single VMs and servers. What is embedded is always there; what
lies in a folder of recordings is taken when it is there, and `absent` names what is not. Values are in the unit of the
recording. `start_s` is in Unix time by the recording's own clock where it tells its date, and 0 where it does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl

import twin
from agents.forecast import frames
from agents.forecast.base import Floats
from agents.forecast.frames import Series
from twin.errors import UsageError
from twin.trace.trace import TraceInfo

LEVELS = ("cell", "machine")
GRIDS = ("5min", "hourly")
STEP_S = 300
STEPS_IN_HOUR = 12

_EMBEDDED = {
    "google2019": ("cpu", "memory", "assigned_memory"),
    "azure_v2": ("cpu", "assigned_memory"),
    "alibaba2018": ("cpu", "memory", "net_in", "net_out", "disk"),
}
_BITBRAINS = "opendc-workloads/v1/bitbrains-small"
_NAB = "nab"
_CLOUDWATCH = (  # with a regular step of 5 min, at most two samples of it missing, and a unit that is told
    "ec2_cpu_utilization_24ae8d",
    "ec2_cpu_utilization_53ea38",
    "ec2_cpu_utilization_5f5533",
    "ec2_cpu_utilization_77c1ca",
    "ec2_cpu_utilization_825cc2",
    "ec2_cpu_utilization_c6585a",
    "ec2_network_in_257a54",
    "rds_cpu_utilization_cc0c53",
)
_SCORED_VMS = slice(0, None, 2)  # every second one in the order of the file: 25 of 50
_LEARN_SHARE = 0.75
_BEFORE_TESTS = 0.7  # of what was recorded beside a scored series: ends before the test part of any of them begins


@dataclass(frozen=True, slots=True)
class Extra:
    """A recording to learn from.

    Attributes:
        place: where it lies in the folder of recordings.
        table: the canonical table that holds it.
        names: resources, services or quantities; none: each that varies.
        summed: one series for all entities together, else one for each.
        share: of the time, from its start, that may be seen.
    """

    place: str
    table: str
    names: tuple[str, ...] = ()
    summed: bool = True
    share: float = 1.0


_EXTRAS = (
    Extra("helios-2020", "usage", ("running_gpu_num", "running_job_num", "pending_gpu_num", "gpu_utilization")),
    Extra("philly-2017", "usage", ("active_nodes",)),
    Extra("worldcup98", "demand"),
    Extra("nasa-http-1995", "demand"),
    Extra("azure-functions-2019", "demand"),
    Extra("google-2011-gcd-vms", "usage"),
    Extra("planetlab-cpu/20110303", "usage"),
    Extra("alibaba-genai-v2026", "usage", ("generative_requests", "api_requests", "queue_size", "gpu", "gpu_memory")),
    Extra(
        "opendc-workloads/gwa-t-12-bitbrains",
        "usage",
        ("memory", "net_in", "net_out", "disk_read", "disk_write"),
        share=_BEFORE_TESTS,
    ),
)
_HOURLY_EXTRAS = (
    Extra("carbon-electricitymaps", "prices", summed=False),
    Extra("grid-mix-weather", "prices", summed=False),
    Extra("electricity-price-es-2023", "prices", summed=False),
)
HOURLY_ONLY = tuple(extra.place for extra in _HOURLY_EXTRAS)  # no series of a finer step
_PLAIN = ("netman-kpi-donut/cpu4.csv", "netman-kpi-donut/server_res_eth1out_curve_6.csv")
_KEYS = {"usage": ("entity", "resource"), "demand": (None, "service"), "prices": ("zone", "quantity")}


def cell_5min(data: Path | None = None) -> list[Series]:
    """The clusters' series, 300 s a step: ten embedded ones and, from `data`, the sum of 50 VMs (MHz)."""
    embedded = [each for name, resources in _EMBEDDED.items() for each in _read(name, resources)]
    return [*embedded, *([_sum_of_vms(data)] if data and (data / _BITBRAINS).is_dir() else [])]


def machine_5min(data: Path | None = None) -> list[Series]:
    """25 VMs (MHz) and eight CloudWatch series, 300 s a step, without those that rest all through their last quarter.

    They all come from `data`; none are embedded.
    """
    vms = _vms(data)[_SCORED_VMS] if data and (data / _BITBRAINS).is_dir() else []
    servers = _servers(data, scored=True) if data and (data / _NAB).is_dir() else []
    return [each for each in (*vms, *servers) if each.values[frames.steps_in(len(each.values), _LEARN_SHARE) :].any()]


def extra_5min(data: Path | None = None) -> list[Series]:
    """Series to learn from and never to score, 300 s a step; nothing of them lies in the time that judges."""
    return list(_extra_5min(data))


def extra_hourly(data: Path | None = None) -> list[Series]:
    """The same as means of an hour, and hourly series of the power grid: mix, carbon intensity, price."""
    found = [hourly(each) for each in extra_5min(data) if len(each.values) >= STEPS_IN_HOUR]
    if data is not None:
        hours = [extra for extra in _HOURLY_EXTRAS if (data / extra.place).exists()]
        found += [series for extra in hours for series in _extra(data, extra, STEP_S * STEPS_IN_HOUR)]
    return [each for each in found if np.ptp(each.values) > 0.0]


def machines_5min(data: Path, places: Mapping[str, str]) -> list[Series]:
    """Every machine's CPU in recordings in `data`, by a name for each place, 300 s a step, but those that never vary.

    The ids are "<name>/<machine>/cpu".
    """
    found = []
    for name, place in places.items():
        for each in _extra(data, Extra(place, "usage", ("cpu",), summed=False), STEP_S):
            rest = each.unique_id.partition("/")[2]
            found += [replace(each, unique_id=f"{name}/{rest}")] if np.ptp(each.values) > 0.0 else []
    return found


def panel(level: str, grid: str, data: Path | None) -> list[Series]:
    """The series of one level (cell, machine) on one grid (5min, hourly).

    Raises UsageError for another level or grid, or when nothing of the panel is there.
    """
    if level not in LEVELS or grid not in GRIDS:
        raise UsageError(f"no panel {level!r} {grid!r}; levels are {', '.join(LEVELS)}, grids {', '.join(GRIDS)}")
    found = (cell_5min if level == "cell" else machine_5min)(data)
    if not found:
        raise UsageError(f"level={level}: nothing of it is in data={data}; give the folder of recordings with data=")
    return found if grid == "5min" else [hourly(each) for each in found]


def extras(grid: str, data: Path | None) -> list[Series]:
    """What may be learned from beside a panel of this grid (5min, hourly)."""
    return extra_5min(data) if grid == "5min" else extra_hourly(data)


def absent(level: str, data: Path | None) -> list[str]:
    """The recordings that belong to the panel of `level` (cell or machine) and are not in `data`."""
    places = (_BITBRAINS,) if level == "cell" else (_BITBRAINS, _NAB)
    return [place for place in places if data is None or not (data / place).is_dir()]


def cluster(unique_id: str) -> str:
    """What a series was recorded in together with others; the machines of NAB have nothing to do with each other."""
    place = unique_id.partition("/")[0]
    return unique_id if place == _NAB else place


def hourly(series: Series) -> Series:
    """Means of twelve steps of 300 s; what is left over at the end is dropped."""
    hours = len(series.values) // STEPS_IN_HOUR
    means = series.values[: hours * STEPS_IN_HOUR].reshape(hours, STEPS_IN_HOUR).mean(axis=1)
    return replace(series, step_s=series.step_s * STEPS_IN_HOUR, values=means)


# ---------------------------------------------------------------- recordings


def _read(name: str, resources: Sequence[str]) -> list[Series]:
    found = {s.unique_id: s for s in frames.panel(frames.series(twin.read(name), resources))}
    return [found[f"{name}/{resource}"] for resource in resources]


def _vms(data: Path) -> list[Series]:
    """All 50 VMs in the order of the file, each over its own time."""
    trace = twin.read(str(data / _BITBRAINS))
    start_s = _unix_s(trace.info)
    parts = trace.usage.partition_by("entity", as_dict=True, maintain_order=True)
    return [_held(f"bitbrains/{key[0]}/cpu", rows, start_s) for key, rows in parts.items()]


def _sum_of_vms(data: Path) -> Series:
    """The sum over the VMs; where a VM was not there, or not recorded for more than a day, it adds nothing."""
    vms = _vms(data)
    start_s = min(vm.start_s for vm in vms)
    firsts = [(vm.start_s - start_s) // STEP_S for vm in vms]
    total = np.zeros(max(first + len(vm.values) for first, vm in zip(firsts, vms, strict=True)))
    for first, vm in zip(firsts, vms, strict=True):
        total[first : first + len(vm.values)] += vm.values
    return Series("bitbrains/cpu", start_s, STEP_S, total)


def _servers(data: Path, *, scored: bool) -> list[Series]:
    trace = twin.read(str(data / _NAB))
    start_s = _unix_s(trace.info)
    parts = trace.usage.partition_by("entity", as_dict=True, maintain_order=True)
    named = {str(key[0]).rpartition("/")[2]: rows for key, rows in parts.items()}
    wanted = _CLOUDWATCH if scored else tuple(name for name in named if name not in _CLOUDWATCH)
    return [_held(f"nab/{name}", named[name], start_s) for name in wanted if name in named]


def _held(unique_id: str, rows: pl.DataFrame, start_s: int) -> Series:
    """On a grid of 300 s: at the middle of a step, the sample that was begun last; missing ones are held."""
    rows = rows.sort("time_s", maintain_order=True)
    begin_s, lasts_s = rows["time_s"].to_numpy(), rows["step_s"].to_numpy()
    first = int((begin_s[0] + STEP_S / 2) // STEP_S)
    steps = max(int((begin_s[-1] + lasts_s[-1]) // STEP_S) - first, 1)
    middle_s = (first + np.arange(steps) + 0.5) * STEP_S
    at = np.searchsorted(begin_s, middle_s, side="right") - 1
    return Series(unique_id, start_s + first * STEP_S, STEP_S, rows["value"].to_numpy()[np.maximum(at, 0)].copy())


@lru_cache(maxsize=1)  # seconds to read, and both grids are made of it
def _extra_5min(data: Path | None) -> tuple[Series, ...]:
    found = [each.until(int(len(each.values) * _BEFORE_TESTS)) for each in _read("google2019", ("cpi",))]
    if data is None:
        return tuple(found)
    found += [series for extra in _EXTRAS if (data / extra.place).exists() for series in _extra(data, extra, STEP_S)]
    found += [_plain(data / name) for name in _PLAIN if (data / name).is_file()]
    if (data / _BITBRAINS).is_dir():
        vms = _vms(data)
        end_s = min(vm.start_s for vm in vms) + _BEFORE_TESTS * max(len(vm.values) for vm in vms) * STEP_S
        others = [vm for k, vm in enumerate(vms) if k % 2]
        found += [vm.until(max(int((end_s - vm.start_s) // STEP_S), 0)) for vm in others]
    if (data / _NAB).is_dir():
        found += [s.until(int(len(s.values) * _BEFORE_TESTS)) for s in _servers(data, scored=False)]
    return tuple(each for each in found if len(each.values) and np.ptp(each.values) > 0.0)


def _extra(data: Path, extra: Extra, step_s: int) -> list[Series]:
    trace = twin.read(str(data / extra.place))
    table: pl.DataFrame = getattr(trace, extra.table)
    entity, name = _KEYS[extra.table]
    member = pl.col(entity or name).alias("member")
    rows = table.select(member, pl.col(name).alias("name") if entity else pl.lit("demand").alias("name"),
                        "time_s", "value").drop_nulls()  # fmt: skip
    rows = rows.filter(pl.col("name").is_in(extra.names)) if extra.names else rows
    keys = ["name"] if extra.summed else ["member", "name"]
    prefix, start_s = extra.place.partition("/")[0], _unix_s(trace.info)
    found = []
    for key, part in rows.partition_by(keys, as_dict=True, maintain_order=True).items():
        first, values = _binned(part, step_s)
        unique_id = "/".join((prefix, *map(str, key)))
        kept = values[: int(len(values) * extra.share)]
        found.append(Series(unique_id, start_s + first * step_s, step_s, kept))
    return found


def _binned(rows: pl.DataFrame, step_s: int) -> tuple[int, Floats]:
    """The sum over members of their means in each step, and the first step; a step without samples holds the last."""
    step = (pl.col("time_s") // step_s).cast(pl.Int64).alias("step")
    means = rows.group_by(step, "member").agg(pl.col("value").mean())
    sums = means.group_by("step").agg(pl.col("value").sum()).sort("step")
    at = sums["step"].to_numpy()
    every = np.arange(at[0], at[-1] + 1)
    return int(at[0]), sums["value"].to_numpy()[np.searchsorted(at, every, side="right") - 1].astype(np.float64)


def _plain(path: Path) -> Series:
    """A CSV of Unix time and value with a complete step of 300 s."""
    rows = pl.read_csv(path, columns=["timestamp", "value"]).sort("timestamp")
    series = rows.select(unique_id=pl.lit(f"{path.parent.name}/{path.stem}"), ds="timestamp", y="value")
    return frames.panel(series)[0]


def _unix_s(info: TraceInfo) -> int:
    """The recording's start by its own clock, as if that were UTC: days begin where they began there; 0: not told."""
    if not info.epoch:
        return 0
    return int(datetime.fromisoformat(info.epoch).replace(tzinfo=UTC).timestamp())
