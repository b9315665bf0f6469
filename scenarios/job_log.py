"""A small synthetic log of jobs on a cluster: a complete recording for tests and first steps without any data."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import polars as pl

from twin.engine.jobs import machines
from twin.engine.jobs.scheduler import Outage, Scheduler
from twin.engine.scheduling.backfill import Easy
from twin.engine.scheduling.orders import Fcfs
from twin.errors import ScenarioError
from twin.scheduling import schedule
from twin.seeds import child
from twin.trace import tables
from twin.trace.trace import Trace, TraceInfo

HOUR_S = 3600.0
_SHORT_S = HOUR_S  # jobs that ask for no more go to the queue "short"
_NODES = (("small", 3, 16.0, 64.0, 0.4), ("large", 1, 32.0, 256.0, 1.1))  # pool, machines, cores, GiB, USD/h
_DOWN = ("small-2", 20 * HOUR_S, 24 * HOUR_S)  # emptied for maintenance and given back
_CORES, _CORE_ODDS = (1, 2, 4, 8, 16), (0.30, 0.22, 0.22, 0.16, 0.10)
_MEDIAN_RUN_S, _RUN_SIGMA = 1500.0, 1.2
_MAX_RUN_S = 10 * HOUR_S
_AFTER_H = 48  # hours after the last arrival for which the grid is told: by then the jobs have ended
_LATE_ODDS, _LATENCY_S = 0.1, 120.0  # jobs whose machines take time to get ready, and how long on average


def job_log(*, seed: int = 0, jobs: int = 500, days: float = 2.0) -> Trace:
    """A log of `jobs` jobs that arrive within `days` on four machines of two pools, all of it drawn from `seed`.

    Arrivals follow the hour of day, sizes are powers of two and some jobs are gangs, run times are lognormal, estimates
    are generous and round. The recorded starts are those of first come, first served with EASY backfilling and first
    fit; a tenth of the jobs start a random while after their machines were taken (2 min on average), so that a perfect
    twin comes close and not to zero. One machine is emptied for maintenance from hour 20 to 24. The intensity of power
    rises and falls once a day, and is told for two days more. Nothing here was measured anywhere.

    Raises:
        ScenarioError: less than one job or a length that is not above zero.
    """
    if jobs < 1 or not 0 < days < np.inf:
        raise ScenarioError(f"job_log: jobs={jobs} must be 1 or more and days={days:g} above 0")
    rng = child(seed, "job_log")
    frames = {"nodes": _nodes(), "node_events": _events(), "prices": _prices(seed, rng, days)}
    drawn = _jobs(rng, jobs, days)
    told = json.dumps({"generator": "job_log", "seed": seed, "jobs": jobs, "days": days}, sort_keys=True)
    info = TraceInfo(
        name="synthetic-jobs",
        source="synthetic: no recording, drawn by scenarios.job_log",
        licence="none needed",
        sha256=hashlib.sha256(told.encode()).hexdigest(),
        epoch="2026-01-05T00:00:00+00:00",
        zone="UTC",
        notes=(f"synthetic: {told}; sha256 is that of these settings",),
    )
    return Trace(info, {**frames, "jobs": _as_recorded(Trace(info, {**frames, "jobs": drawn}), rng)})


def _jobs(rng: np.random.Generator, count: int, days: float) -> pl.DataFrame:
    hours = np.arange(np.ceil(days * 24) + 1)
    rate = 1.0 + 0.7 * np.cos(2 * np.pi * (hours - 14.0) / 24.0)
    passed = np.concatenate([[0.0], np.cumsum(rate)])[: len(hours)]
    submit_s = np.sort(np.interp(rng.random(count) * passed[-1], passed, hours)).clip(0, days * 24) * HOUR_S
    run_s = np.round((_MEDIAN_RUN_S * np.exp(_RUN_SIGMA * rng.standard_normal(count))).clip(10.0, _MAX_RUN_S))
    limit_s = np.ceil(run_s * (1.0 + rng.exponential(1.0, count)) / 900.0) * 900.0
    gang = rng.random(count) < 0.06
    cores = np.where(gang, 16, rng.choice(_CORES, count, p=_CORE_ODDS)).astype(np.float64)
    weight = 1.0 / np.arange(1, 13)
    frame = pl.DataFrame(
        {
            "job": [f"job-{i}" for i in range(1, count + 1)],
            "submit_s": np.floor(submit_s),
            "run_s": run_s,
            "limit_s": limit_s,
            "cpu_cores": cores,
            "memory_gib": np.round(cores * rng.uniform(0.5, 4.0, count), 1),
            "instances": np.where(gang, rng.integers(2, 5, count), 1),
            "deadline_s": np.floor(submit_s + limit_s + rng.uniform(8.0, 24.0, count) * HOUR_S),
            "priority": (rng.random(count) < 0.1).astype(np.float64),
            "user": [f"user-{u}" for u in rng.choice(12, count, p=weight / weight.sum()) + 1],
            "queue": np.where(limit_s <= _SHORT_S, "short", "long"),
        }
    )
    hurried = pl.Series(rng.random(count) < 0.4)
    return frame.with_columns(deadline_s=pl.when(hurried).then("deadline_s"), status=pl.lit("done"))


def _as_recorded(trace: Trace, rng: np.random.Generator) -> pl.DataFrame:
    """The trace's jobs with starts, ends and machines as the cluster's own scheduler would have left them."""
    count = trace.jobs.height
    latency_s = np.where(rng.random(count) < _LATE_ODDS, np.ceil(rng.exponential(_LATENCY_S, count)), 0.0)
    longer = trace.jobs.with_columns(pl.col("run_s") + latency_s)  # machines are held from the decision on
    where = machines.of(trace)
    away = Outage(_DOWN[1], _DOWN[2] - _DOWN[1], (where.names.index(_DOWN[0]),), drain=True)
    run = schedule(
        Trace(trace.info, {**trace.tables, "jobs": longer}), where, Scheduler(Fcfs(), Easy()), outages=[away]
    )
    alone = run.placements.filter(pl.len().over("job") == 1).select("job", "node")
    ended = run.outcomes.select("job", "end_s").join(alone, on="job", how="left")
    jobs = trace.jobs.drop("end_s", "node").join(ended, on="job", how="left", maintain_order="left")
    return tables.conform(jobs.with_columns(start_s=pl.col("end_s") - pl.col("run_s")), "jobs", trace.info.name)


def _nodes() -> pl.DataFrame:
    rows = [
        {"node": f"{pool}-{i}", "pool": pool, "cpu_cores": cores, "memory_gib": gib, "price_usd_h": price}
        for pool, count, cores, gib, price in _NODES
        for i in range(count)
    ]
    return tables.conform(pl.DataFrame(rows), "nodes", "job_log")


def _events() -> pl.DataFrame:
    node, gone_s, back_s = _DOWN
    frame = pl.DataFrame({"node": [node] * 2, "time_s": [gone_s, back_s], "event": ["remove", "add"]})
    return frame.with_columns(cause=pl.lit("maintenance"))


def _prices(seed: int, rng: np.random.Generator, days: float) -> pl.DataFrame:
    during = rng.standard_normal(int(np.ceil(days)) * 24)
    noise = np.concatenate([during, child(seed, "job_log/after").standard_normal(_AFTER_H)])
    hours = np.arange(len(noise))
    daily = 300.0 + 120.0 * np.cos(2 * np.pi * (hours - 19.0) / 24.0)
    frame = pl.DataFrame({"time_s": hours * HOUR_S, "value": np.round(daily + 15.0 * noise, 1)})
    return frame.with_columns(zone=pl.lit("synthetic"), quantity=pl.lit("carbon_g_kwh"))
