"""The front door for jobs: `schedule(trace, machines, scheduler) -> Replay`, `recorded(trace, machines) -> JobRun`.

Both leave the same tables, so that a policy and the recording are scored and shown alike.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from twin import job_energy, job_metrics
from twin.engine.jobs import machines as room
from twin.engine.jobs import outcomes, workload
from twin.engine.jobs.contention import POLICIES, Policy
from twin.engine.jobs.explain import Watcher
from twin.engine.jobs.machines import CPU, SIZES, Machines, Power
from twin.engine.jobs.meter import Meter
from twin.engine.jobs.overcommit import Contention, demand, overcommitted
from twin.engine.jobs.scheduler import Observer, Outage, Scheduler
from twin.engine.jobs.simulator import JobTwin
from twin.engine.jobs.workload import Workload
from twin.errors import SimulationError, TraceError, UsageError
from twin.fidelity import scorecard
from twin.fidelity.calibrate import Calibration
from twin.fidelity.calibrated import calibrated
from twin.job_energy import Signal
from twin.trace import tables
from twin.trace.trace import Trace

if TYPE_CHECKING:
    from twin.engine.jobs.window import WindowTwin

MEASURES = ("wait_s", "response_s", "bounded_slowdown")
"""What `job_cdf` tells the distribution of."""
KPIS = {"asked_core_h": ("core*h", "neither"), "lost_core_h": ("core*h", "lower"), "stretched_h": ("h", "lower")}
"""Unit and better direction of the KPIs that a replay with `Sharing` has besides."""
_STRIDES = 50
_UNKNOWN_SHOWN, _COMPARED = 3, 10_000  # names that are proposed for an unknown one, and of how many
_NOBODY = ("user:", "queue:")  # what jobs belong to that tell none


@dataclass(frozen=True, slots=True)
class JobRun:
    """What became of the jobs, as checked tables, and where they ran.

    `placements` has no row where the recording does not say where every job ran.
    """

    machines: Machines
    outcomes: pl.DataFrame
    placements: pl.DataFrame
    until_s: float
    source: Literal["twin", "recorded"]

    def tables(self) -> dict[str, pl.DataFrame]:
        """The tables by name, as a run folder holds them."""
        return {"outcomes": self.outcomes, "placements": self.placements}

    def room(self) -> dict[str, float]:
        """How many machines there are (`count`) and what they hold together; an unpublished size is left out."""
        held = dict(zip(SIZES, self.machines.total().tolist(), strict=True))
        return {"count": len(self.machines), **{size: amount for size, amount in held.items() if np.isfinite(amount)}}


@dataclass(frozen=True, slots=True)
class Replay(JobRun):
    """A replay in the twin, with the twin as it stood at the end.

    `watched` are the tables of those who looked on: `job_steps`, `explanations`. `shared` says of each job what it
    asked for, what it lost and how much longer it ran (job, asked_core_h, lost_core_h, stretched_h), where machines
    promised more than they have.
    """

    twin: JobTwin | WindowTwin
    watched: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    shared: pl.DataFrame | None = None

    def tables(self) -> dict[str, pl.DataFrame]:
        """The tables by name, as a run folder holds them."""
        return {**JobRun.tables(self), **self.watched}


@dataclass(frozen=True, slots=True)
class Sharing:
    """Machines promise `overcommit` cores for each that they have, and what jobs use is shared max-min fairly.

    What they use over time comes from the recording (in MHz with `core_mhz`), else it is what they hold. A job that
    gets less takes longer ("stretch"), or loses work and ends on time ("lose").
    """

    policy: Policy
    overcommit: float = 1.5
    core_mhz: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be shared by; raises UsageError."""
        if self.policy not in POLICIES:
            raise UsageError(f"contention policy={self.policy!r} is unknown; known: {list(POLICIES)}")
        if not (_number(self.overcommit) and 1.0 <= self.overcommit < np.inf):
            raise UsageError(f"contention overcommit={self.overcommit!r}: it must be 1 or more cores for each real one")
        if not (self.core_mhz is None or (_number(self.core_mhz) and 0.0 < self.core_mhz < np.inf)):
            raise UsageError(f"contention core_mhz={self.core_mhz!r}: the clock of a core must be above 0 MHz")


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def recorded_machines(
    trace: Trace,
    *,
    pooled: bool = False,
    power: Power | None = None,
    power_of: Mapping[str, Mapping[str, Any]] | None = None,
) -> Machines:
    """The machines that the trace recorded, with what they draw.

    Args:
        trace: holds `nodes`.
        pooled: one machine for each pool, which draws what all of it draw.
        power: of each machine that was recorded; the default curve if None.
        power_of: what differs from it in single pools, as fields of `Power` by pool.

    Raises:
        SimulationError: as `machines.of` does, or an unknown power curve.
    """
    count = dict(trace.nodes.group_by("pool", maintain_order=True).len().iter_rows())
    curves = {**dict.fromkeys(count, power or Power())}
    curves |= {pool: replace(power or Power(), **told) for pool, told in (power_of or {}).items()}
    if pooled:
        whole = {pool: (each, count.get(pool, 1)) for pool, each in curves.items()}
        curves = {
            pool: replace(each, idle_w=each.idle_w * n, full_w=each.full_w * n) for pool, (each, n) in whole.items()
        }
    return room.of(trace, pooled=pooled, power=curves)


def schedule(
    trace: Trace,
    machines: Machines,
    scheduler: Scheduler,
    *,
    outages: Sequence[Outage] = (),
    piece_cores: float | None = None,
    missing_run_s: float | None = None,
    missing_limit_s: float | None = None,
    until_s: float | None = None,
    engine: type[JobTwin] | type[WindowTwin] = JobTwin,
    metered: bool = False,
    explain: Sequence[str] = (),
    sharing: Sharing | None = None,
    calibration: Calibration | None = None,
    rng: np.random.Generator | None = None,
    progress: Callable[[float], None] | None = None,
) -> Replay:
    """Replay the trace's jobs on machines under a scheduler: same jobs, other policy.

    Args:
        trace: holds `jobs`, and perhaps `dependencies`.
        machines: where they run, e.g. `machines.of(trace)`.
        scheduler: order of the queue, who may overtake, which machine is taken.
        outages: machines that fail or are drained.
        piece_cores: a job's cores may lie on several machines in pieces of that many; None keeps them together.
        missing_run_s: run time of jobs for which none was recorded; None refuses them, with the reason in `outcomes`.
        missing_limit_s: estimate of jobs that gave none; None takes what they really ran.
        until_s: seconds to simulate; until the last job ended by default.
        engine: the reference, or the compiled twin, which knows fewer rules and does the same with them.
        metered: also measure the queue and the machines over time, table `job_steps`.
        explain: names of jobs for which to tell why they waited and started, table `explanations`.
        sharing: machines promise more than they have, and jobs get what is there.
        calibration: what was fitted to the recording, e.g. how late its scheduler saw the jobs.
        rng: draws what the calibration leaves to chance; needed with one.
        progress: told the simulated second now and then, up to the last arrival.

    Raises:
        SimulationError: the trace holds no jobs.
        UsageError: an `until_s` that is not above 0, a job to be explained that the trace does not hold, an engine that
            is none or does not know something that is asked for, or a calibration without `rng`.
    """
    _check_until(until_s)
    _check_engine(engine)
    if isinstance(explain, str):
        raise UsageError(f"explain={explain!r} is a text, not a list of names: explain=[{explain!r}]")
    seen = machines if sharing is None else overcommitted(machines, sharing.overcommit)
    jobs = workload.of(trace, seen, piece_cores=piece_cores, missing_run_s=missing_run_s)
    if calibration is not None:
        if rng is None:
            raise UsageError("a calibration leaves some things to chance: give rng, e.g. numpy.random.default_rng(0)")
        jobs = calibrated(jobs, calibration, rng)
    jobs = workload.estimated(jobs, missing_limit_s)
    if not issubclass(engine, JobTwin):
        _check_known(
            jobs, scheduler, outages, {"metering": metered, "explanations of waits": explain, "contention": sharing}
        )
    meter = Meter() if metered else None
    watcher = Watcher(_numbers(jobs, explain)) if explain else None
    contention = None
    if sharing:
        contention = Contention(demand(jobs, trace, core_mhz=sharing.core_mhz), machines, sharing.policy)
    observers: list[Observer] = [each for each in (contention, meter, watcher) if each is not None]
    twin = engine(jobs, seen, scheduler, outages=outages, observers=observers)
    if progress is not None:
        last_s = jobs.submit_s.max(where=np.isfinite(jobs.submit_s), initial=0.0)
        last_s = last_s if until_s is None else min(last_s, max(until_s, 0.0))
        for time_s in np.linspace(0.0, last_s, _STRIDES).tolist():
            twin.run(time_s)
            progress(time_s)
    twin.run(until_s)
    watched: dict[str, pl.DataFrame] = {}
    shared = None
    if isinstance(twin, JobTwin):
        for observer in observers:
            observer.looked(twin)  # nothing told them that time passed after the last event
        watched |= {"job_steps": meter.table()} if meter else {}
        watched |= {"explanations": watcher.table(twin)} if watcher else {}
        shared = _accounts(contention, twin) if contention else None
    told, places = outcomes.outcomes(twin), outcomes.placements(twin)
    return Replay(machines, told, places, twin.now_s, "twin", twin, watched, shared)


def _check_until(until_s: float | None) -> None:
    """Raises UsageError unless there is time before it."""
    if until_s is not None and not until_s > 0:
        raise UsageError(f"until_s={until_s:g}: it must be above 0 s, where every run begins; None runs to the end")


def _check_engine(engine: object) -> None:
    """Raises UsageError unless it is the class of an engine."""
    from twin.engine.jobs.window import WindowTwin

    if not (isinstance(engine, type) and issubclass(engine, (JobTwin, WindowTwin))):
        raise UsageError(f"engine={engine!r} is no engine: give the class JobTwin or WindowTwin")


def _check_known(jobs: Workload, scheduler: Scheduler, outages: Sequence[Outage], asked: Mapping[str, object]) -> None:
    """Raises UsageError when the compiled engine does not know something that is asked for."""
    from twin.engine.jobs.window import supported

    more = next((words for words, value in asked.items() if value), "")
    unknown = supported(jobs, scheduler, outages=outages) or more
    if unknown:
        raise UsageError(f"engine=compiled does not know {unknown}: use engine=reference, which knows every rule")


def _numbers(jobs: Workload, names: Sequence[str]) -> list[int]:
    """The numbers of the jobs of these names."""
    number = {name: job for job, name in enumerate(jobs.names)}
    for name in names:
        if name not in number:
            known = jobs.names[:_COMPARED]
            near = difflib.get_close_matches(name, known, n=_UNKNOWN_SHOWN) or known[:_UNKNOWN_SHOWN]
            raise UsageError(
                f"explain names the job {name!r}, which is not among the {len(number)} jobs of the trace; "
                f"did you mean {' or '.join(map(repr, near))}?"
            )
    return [number[name] for name in names]


def _accounts(contention: Contention, twin: JobTwin) -> pl.DataFrame:
    """What each job asked for, lost and took longer so far: job, asked_core_h, lost_core_h, stretched_h."""
    contention.settle(twin)
    hours = {"asked_core_h": contention.asked_core_s, "lost_core_h": contention.lost_core_s}
    hours["stretched_h"] = contention.stretched_s
    return pl.DataFrame({"job": twin.workload.names, **{name: each / 3600.0 for name, each in hours.items()}})


def recorded(trace: Trace, machines: Machines, *, until_s: float | None = None) -> JobRun:
    """The recording itself as a run: the recorded starts and ends, and where the jobs lay as far as that is told.

    Args:
        trace: holds `jobs` with their recorded starts.
        machines: what utilisation is measured against.
        until_s: the recording as it stood then; whole by default.

    Raises:
        SimulationError: the trace recorded no start of a job whose arrival it knows.
        UsageError: `until_s` is not above 0.
    """
    _check_until(until_s)
    if not starts(trace.jobs):
        raise SimulationError(
            f"{trace.info.name!r} recorded no starts of jobs, so that there is nothing to show: replay=policy"
        )
    jobs = trace.jobs if until_s is None else as_of(trace.jobs, until_s)
    told = scorecard.as_outcomes(jobs).sort("submit_s", maintain_order=True)
    if until_s is not None:
        ahead = pl.col("submit_s") > until_s
        told = told.with_columns(state=pl.when(ahead).then(pl.lit("expected")).otherwise("state"))
    last = told.select(pl.max_horizontal("submit_s", "end_s", pl.col("start_s") + pl.col("run_s")).max()).item()
    return JobRun(
        machines, told, _recorded_places(jobs, told, machines), last if until_s is None else until_s, "recorded"
    )


def starts(jobs: pl.DataFrame) -> int:
    """How many jobs (schema `jobs`) have a recorded start and arrival: what a replay can be compared with."""
    return jobs.filter(pl.col("start_s").is_not_null() & pl.col("submit_s").is_not_null()).height


def as_of(jobs: pl.DataFrame, until_s: float) -> pl.DataFrame:
    """The recorded jobs as one knew them at `until_s`: what started later waits, what ended later runs."""
    end_s = pl.coalesce("end_s", pl.col("start_s") + pl.col("run_s"))
    waits = (pl.coalesce("start_s", "end_s") > until_s).fill_null(value=False)
    runs = ~waits & pl.col("start_s").is_not_null() & (end_s > until_s).fill_null(value=False)
    so_far_s = pl.min_horizontal("run_s", until_s - pl.col("start_s"))
    return jobs.with_columns(
        status=pl.when(waits).then(pl.lit("waiting")).when(runs).then(pl.lit("running")).otherwise("status"),
        start_s=pl.when(~waits).then("start_s"),
        end_s=pl.when(~waits & ~runs).then("end_s"),
        run_s=pl.when(runs).then(so_far_s).when(~waits).then("run_s"),
        seen_s=pl.when(runs).then(until_s).when(~waits).then(pl.col("seen_s").clip(upper_bound=until_s)),
    )


def _recorded_places(jobs: pl.DataFrame, told: pl.DataFrame, machines: Machines) -> pl.DataFrame:
    """What lay where, if every job that started names one of the machines; else nothing."""
    ran = told.filter(pl.col("start_s").is_not_null()).join(jobs.select("job", "node", "instances"), on="job")
    if not ran["node"].is_in(machines.names).fill_null(value=False).all():
        return tables.empty("placements")
    end_s = pl.col("start_s") + pl.col("run_s")
    held = ran.select("job", "node", "start_s", "instances", "cpu_cores", "memory_gib", "gpus", end_s=end_s)
    return tables.conform(held.sort("start_s", "job", "node"), "placements", "recording")


# ---------------------------------------------------------------- what it was worth


@dataclass(frozen=True, slots=True)
class Grid:
    """What a kWh emits and costs over time, as far as that is known; `missing` says why the rest is not."""

    carbon: Signal | None = None
    price: Signal | None = None
    missing: tuple[str, ...] = ()

    def over(self, span_s: tuple[float, float]) -> Grid:
        """Without what has a hole between the two moments; what is not known throughout is not scored."""
        known: dict[str, Signal | None] = {"carbon": self.carbon, "price": self.price}
        missing = list(self.missing)
        for name, told in known.items():
            try:
                if told is not None:
                    told.check(*span_s)
            except TraceError as hole:
                known[name] = None
                missing.append(f"not scored: {hole}")
        return Grid(known["carbon"], known["price"], tuple(missing))


def grid(
    trace: Trace,
    *,
    carbon_zone: str | None = None,
    price_zone: str | None = None,
    usd_eur: float | None = None,
    hold_s: float | None = None,
) -> Grid:
    """What the trace recorded of carbon intensity and electricity prices; nothing where it recorded none.

    Args:
        trace: its `prices` are read.
        carbon_zone: whose carbon intensity; needed where the trace holds several.
        price_zone: whose price, likewise.
        usd_eur: USD for one EUR, for prices in EUR.
        hold_s: how long a value lasts at most where the next one is missing; by default as long as most do.

    Raises:
        UsageError: a zone was chosen that the trace does not hold, or a `hold_s` that is not above 0.
    """
    job_energy.check_hold(hold_s)
    quantities = set(trace.prices["quantity"])
    priced = next((each for each in job_energy.PRICES if each in quantities), job_energy.PRICES[0])
    found: dict[str, Signal | None] = {}
    missing: list[str] = []
    for quantity, zone in ((job_energy.CARBON, carbon_zone), (priced, price_zone)):
        found[quantity] = None
        try:
            if quantity in quantities or zone is not None:
                found[quantity] = job_energy.signal(trace.prices, quantity, zone, hold_s=hold_s, usd_eur=usd_eur)
        except (TraceError, UsageError) as reason:
            if zone is not None and isinstance(reason, UsageError):
                raise
            missing.append(f"not scored: {reason}")
    return Grid(found[job_energy.CARBON], found[priced], tuple(missing))


def span(run: JobRun, until_s: float | None = None) -> tuple[float, float]:
    """From the first arrival until the run was cut at `until_s`, or its last job ended."""
    ends = pl.max_horizontal("submit_s", "end_s", pl.col("start_s") + pl.col("run_s"))
    first, last = run.outcomes.select(pl.col("submit_s").min(), ends.max().alias("end_s")).row(0)
    return (first or 0.0, (last or 0.0) if until_s is None else until_s)


def kpis(
    run: JobRun, jobs: pl.DataFrame, *, largest: int, until_s: float | None = None, grid: Grid | None = None
) -> pl.DataFrame:
    """The table `kpis` of the whole and of its largest parts.

    Energy is that of machines that draw by the held share of the cores that they promise; what draws where is known
    only of a run whose placements are.

    Args:
        run: what is scored.
        jobs: schema `jobs`, for what was really used.
        largest: of the users, queues and pools those are told apart that held most core-hours.
        until_s: the span ends here if the run was cut there; by default at its last moment.
        grid: carbon and price of the energy, known throughout the span; without it both are unscored.

    Raises:
        UsageError: `until_s` does not lie after the first arrival, or `largest` is below 0.
        TraceError: `grid` has a hole within the span (`Grid.over` leaves out what has).
    """
    if not largest >= 0:
        raise UsageError(f"largest={largest}: it counts users, queues and pools that are told apart, 0 or more")
    known, told = run.placements.height > 0, grid or Grid()
    span_s = span(run, until_s)
    by: tuple[job_metrics.Group, ...] = ("user", "queue", "pool") if known else ("user", "queue")
    frame = job_metrics.kpis(
        run.outcomes,
        machines=run.machines,
        placements=run.placements if known else None,
        jobs=jobs,
        by=by,
        span_s=None if until_s is None else span_s,
    )
    held = frame.filter(pl.col("kpi") == "core_h", ~pl.col("entity").is_in(_NOBODY)).with_columns(
        _kind=pl.col("entity").str.split(":").list.first(), _held=pl.col("value").fill_null(0.0)
    )
    ranked = held.sort("_held", "entity", descending=[True, False])
    kept = ranked.group_by("_kind", maintain_order=True).head(largest)["entity"]
    frames = [frame]
    if known and span_s[0] < span_s[1]:
        drawn = run.twin.machines if isinstance(run, Replay) else run.machines
        energy = job_energy.kpis(
            drawn,
            run.placements,
            span_s=span_s,
            outcomes=run.outcomes,
            by=by,
            carbon=told.carbon,
            price=told.price,
        )
        frames += [energy, job_metrics.stranding(drawn, run.placements, span_s=span_s)]
    if isinstance(run, Replay) and run.shared is not None:
        frames.append(_shared(run.shared.join(run.outcomes.select("job", "user", "queue"), on="job")))
    whole = pl.concat(frames)
    return whole.filter((pl.col("entity") == job_metrics.CLUSTER) | pl.col("entity").is_in(kept.implode()))


def _shared(accounts: pl.DataFrame) -> pl.DataFrame:
    """The KPIs of what jobs asked for and lost, of the whole, of users and of queues."""
    owners = {job_metrics.CLUSTER: pl.lit(job_metrics.CLUSTER)}
    owners |= {kind: pl.lit(f"{kind}:") + pl.col(kind).fill_null("") for kind in ("user", "queue")}
    sums = [
        accounts.group_by(entity=entity, maintain_order=True).agg(pl.col(list(KPIS)).sum()).sort("entity")
        for entity in owners.values()
    ]
    tidy = pl.concat(sums).unpivot(index="entity", variable_name="kpi")
    facts = pl.DataFrame([(kpi, *each) for kpi, each in KPIS.items()], schema=["kpi", "unit", "better"], orient="row")
    return tables.conform(tidy.join(facts, on="kpi", maintain_order="left"), "kpis", "sharing")


def compared(
    run: JobRun, jobs: pl.DataFrame, *, rng: np.random.Generator, until_s: float | None = None
) -> dict[str, pl.DataFrame]:
    """The tables `job_cdf`, and, where the trace recorded starts, `scorecard` and `validity` against them.

    Args:
        run: what is compared with the recording; the recording compared with itself has no error.
        jobs: schema `jobs`: the recording.
        rng: draws the halves of the scorecard's noise floor.
        until_s: where the run was cut: the recording is then taken as it stood at that moment.
    """
    known = starts(jobs) > 0
    real = jobs if until_s is None else as_of(jobs, until_s)
    told = {run.source: run.outcomes} | ({"recorded": scorecard.as_outcomes(real)} if known else {})
    curves = [
        job_metrics.cdf(frame, measure).select(
            pl.col("column").alias("measure"), pl.lit(source).alias("source"), "share", "value"
        )
        for measure in MEASURES
        for source, frame in told.items()
    ]
    found = {"job_cdf": pl.concat(curves)}
    if known:
        cores = float(run.machines.total()[CPU])
        places = run.placements if run.placements.height else None
        found["scorecard"] = scorecard.scorecard(real, run.outcomes, placements=places, capacity_cores=cores, rng=rng)
        found["validity"] = scorecard.validity(real, run.outcomes, capacity_cores=cores)
    return {name: tables.conform(frame, name, name) for name, frame in found.items()}
