"""What became of the jobs of KTH-SP2, beside what the twin says would have become of them, and why jobs waited there.

    python -m experiments.kth LOG.swf

The log of the IBM SP2 of the Royal Institute of Technology (KTH) in Stockholm, 1996-97: 28,489 jobs on 100 nodes under
EASY, by its header. EASY alone does not explain it. Nearly no job was started that by its estimate would have run over
8 or 17 o'clock of a working day (`admission.Windows`), which the header does not say. Its clock shows standard time all
year: where the hours are taken from the local clock, summer time breaks the rule by an hour in every month that has it.
From June on the rule was kept for most jobs only.

Three replays are held against the recording: EASY alone, and EASY with the rule by either clock. The rule was read off
the recording that it is judged by: this explains, it does not foretell.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
from numpy.typing import NDArray

import twin
from experiments.display import Display
from experiments.study import Study, Titled
from twin.engine.jobs import machines
from twin.engine.jobs.scheduler import Scheduler
from twin.engine.scheduling.admission import Windows
from twin.engine.scheduling.backfill import Easy
from twin.engine.scheduling.orders import Fcfs
from twin.errors import UsageError
from twin.fidelity.scorecard import Thresholds, scorecard
from twin.scheduling import schedule
from twin.seeds import child
from twin.trace.trace import Trace

STANDARD = "Etc/GMT-1"
"""Central European time without summer time; the sign is turned round in names of this kind."""
MEASURES = ("wait_mean_s", "wait_median_s", "wait_p95_s", "wait_ks", "utilisation_mae", "utilisation_bias")
COARSE_S = 600.0
"""The log keeps waits in whole minutes: waits below this are not told apart in `wait_ks_coarse`."""
REASONS: Mapping[str, str] = MappingProxyType(
    {
        "no_room": "too few nodes were free",
        "boundary": "there was room, but it would have run over a boundary",
        "reserved": "there was room, but it would have delayed an earlier job that might start",
        "overtaking": "there was room, and EASY would have let it overtake",
        "first": "there was room, and of all that might start it came first",
    }
)

_RESOLUTION_S = 60.0

F8, I8 = NDArray[np.float64], NDArray[np.int64]


def windows(trace: Trace, zone: str | None = None) -> Windows:
    """The rule of 8 and 17 o'clock by the clock of a zone, the trace's own by default.

    Raises:
        UsageError: the trace does not say when it began, or where.
    """
    if not trace.info.epoch or not trace.info.zone:
        raise UsageError(
            f"{trace.info.name!r} tells no start or zone; give a log with UnixStartTime and TimeZoneString"
        )
    return Windows(trace.info.epoch, zone or trace.info.zone)


def rules(trace: Trace) -> dict[str, tuple[Windows, ...]]:
    """The admission of each replay by name: none, the rule by the local clock, and by standard time."""
    return {"easy": (), "local_clock": (windows(trace),), "standard_time": (windows(trace, STANDARD),)}


def replay(trace: Trace, admission: tuple[Windows, ...]) -> pl.DataFrame:
    """The table `outcomes` under EASY with that admission, jobs in order of arrival; the nodes are one pool."""
    scheduler = Scheduler(Fcfs(), Easy(), admission=admission)
    outcomes = schedule(trace, machines.of(trace, pooled=True), scheduler).outcomes
    return outcomes.sort("submit_s", maintain_order=True)


# ---------------------------------------------------------------- how near


def card(trace: Trace, outcomes: pl.DataFrame, rng: np.random.Generator | None = None) -> pl.DataFrame:
    """The scorecard's waits and utilisation, and two measures more; its columns. `rng` draws its noise floor.

    wait_ks_coarse          Kolmogorov-Smirnov distance of the waits, all below ten minutes taken as ten minutes
    wait_rank_correlation   Spearman's, of recorded and simulated waits job by job
    """
    from scipy import stats

    cores = float(trace.nodes["cpu_cores"].sum())
    told = scorecard(trace.jobs, outcomes, capacity_cores=cores, rng=rng)
    real, made = _waits(trace, outcomes)
    coarse = stats.ks_2samp(np.maximum(real, COARSE_S), np.maximum(made, COARSE_S), method="asymp").statistic  # pyright: ignore[reportAttributeAccessIssue]
    rank = float(stats.spearmanr(real, made).statistic)  # pyright: ignore[reportAttributeAccessIssue]
    most = Thresholds().ks
    verdict = "pass" if coarse <= most else "fail"
    own = [
        ("wait_ks_coarse", None, None, float(coarse), None, most, verdict, "ratio"),
        ("wait_rank_correlation", 1.0, rank, 1.0 - rank, None, None, "unscored", "ratio"),
    ]
    chosen = told.filter(pl.col("measure").is_in(MEASURES))
    return pl.concat([chosen, pl.DataFrame(own, schema=told.schema, orient="row")])


def _waits(trace: Trace, outcomes: pl.DataFrame) -> tuple[F8, F8]:
    """Recorded and simulated waits of the jobs that started in both, job by job."""
    real = trace.jobs.select("job", real=pl.col("start_s") - pl.col("submit_s"))
    both = real.join(outcomes.select("job", "wait_s"), on="job").drop_nulls()
    return both["real"].to_numpy(), both["wait_s"].to_numpy()


# ---------------------------------------------------------------- the rule, read off the recording


def crossing(start_s: F8, limit_s: F8, rule: Windows) -> NDArray[np.bool_]:
    """Which starts lead, by the estimate, over the next boundary by more than the log's minute."""
    boundary_s = np.array([rule.next_s(float(at)) for at in start_s])
    return start_s + limit_s > boundary_s + _RESOLUTION_S


def by_month(trace: Trace, outcomes: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """What the rule and the replays look like in each month of arrival.

    Columns: month, jobs; over_local, over_standard (recorded starts that lead over a boundary, by either clock),
    over_easy (those of EASY alone, by standard time); recorded_wait_s, and the mean wait of each replay (NAME_wait_s).
    """
    jobs = trace.jobs.sort("submit_s", maintain_order=True)
    local, standard = windows(trace), windows(trace, STANDARD)
    limit_s, start_s = jobs["limit_s"].to_numpy(), jobs["start_s"].to_numpy()
    easy_s = outcomes["easy"]["start_s"].to_numpy()
    epoch, zone = datetime.fromisoformat(standard.epoch), ZoneInfo(STANDARD)
    months = [f"{(epoch + timedelta(seconds=at)).astimezone(zone):%Y-%m}" for at in jobs["submit_s"]]
    table = pl.DataFrame(
        {
            "month": months,
            "over_local": crossing(start_s, limit_s, local),
            "over_standard": crossing(start_s, limit_s, standard),
            "over_easy": crossing(easy_s, limit_s, standard),
            "recorded_wait_s": jobs["start_s"] - jobs["submit_s"],
            **{f"{name}_wait_s": each["wait_s"] for name, each in outcomes.items()},
        }
    )
    over, waits = pl.col("^over_.*$").sum(), pl.col("^.*_wait_s$").mean()
    return table.group_by("month", maintain_order=True).agg(pl.len().alias("jobs"), over, waits)


# ---------------------------------------------------------------- why they waited


def reasons(trace: Trace, rule: Windows) -> pl.DataFrame:
    """What kept recorded jobs waiting: the share of their waiting time for each of `REASONS`.

    Between two events of the recording (arrival, start, end, boundary) each waiting job has the first reason that
    holds at the beginning. The last two contradict EASY with this rule, or the log. Columns: reason, hours, share,
    says.
    """
    jobs = trace.jobs.sort("submit_s", maintain_order=True)
    submit_s, start_s, cores, limit_s = (jobs[c].to_numpy() for c in ("submit_s", "start_s", "cpu_cores", "limit_s"))
    end_s = start_s + jobs["run_s"].to_numpy()
    boundaries_s = _boundaries(rule, float(end_s.max()))
    moments = np.unique(np.concatenate([submit_s, start_s, end_s, boundaries_s]))
    free = float(trace.nodes["cpu_cores"].sum()) - _used(moments, start_s, end_s, cores)
    length_s = np.diff(moments, append=moments[-1])
    next_s = boundaries_s[np.searchsorted(boundaries_s, moments, side="right").clip(max=len(boundaries_s) - 1)]
    moment, job = _waiting(moments, submit_s, start_s)
    fits = cores[job] <= free[moment]
    may = moments[moment] + limit_s[job] <= next_s[moment]
    behind = fits & may & _any_before(moment, may)
    shadow_s, extra = _promises(moments, free, moment[may], job[may], (start_s, end_s, cores, limit_s))
    delays = (moments[moment] + limit_s[job] > shadow_s[moment]) & (cores[job] > extra[moment])
    held = np.select([~fits, ~may, behind & delays, behind], [0, 1, 2, 3], default=4)
    hours = np.bincount(held, weights=length_s[moment], minlength=len(REASONS)) / 3600.0
    return pl.DataFrame(
        {"reason": list(REASONS), "hours": hours, "share": hours / hours.sum(), "says": list(REASONS.values())}
    )


def _promises(moments: F8, free: F8, moment: I8, job: I8, jobs: tuple[F8, F8, F8, F8]) -> tuple[F8, F8]:
    """EASY's promise to the first of those who may start: by when it can by the estimates, and what is left then.

    Args:
        moments: seconds [moments].
        free: cores that nobody holds [moments].
        moment: of each pair of a moment and a job that may start, in order [pairs].
        job: of each pair; the first of a moment is the one that is promised [pairs].
        jobs: start, end, cores and estimate of all jobs.
    """
    start_s, end_s, cores, limit_s = jobs
    begun = np.argsort(start_s, kind="stable")
    longest_s = float((end_s - start_s).max())
    shadow_s, extra = moments.copy(), np.full(len(moments), np.inf)
    at, first = np.unique(moment, return_index=True)
    for m, head in zip(at.tolist(), job[first].tolist(), strict=True):
        extra[m] = free[m] - cores[head]
        if extra[m] < 0:
            recent = slice(*np.searchsorted(start_s, [moments[m] - longest_s, moments[m]], side="right", sorter=begun))
            running = begun[recent][end_s[begun[recent]] > moments[m]]
            ends_s = np.maximum(start_s[running] + limit_s[running], moments[m])
            order = np.argsort(ends_s, kind="stable")
            left = extra[m] + cores[running[order]].cumsum()
            enough = int(np.searchsorted(left, 0.0))
            shadow_s[m] = ends_s[order][enough] if enough < len(left) else np.inf
            extra[m] = left[enough] if enough < len(left) else 0.0
    return shadow_s, extra


def _boundaries(rule: Windows, until_s: float) -> F8:
    found = [rule.next_s(0.0)]
    while found[-1] <= until_s:
        found.append(rule.next_s(found[-1]))
    return np.array(found)


def _used(moments: F8, start_s: F8, end_s: F8, cores: F8) -> F8:
    """Cores held from each moment on [moments]."""
    change = np.zeros(len(moments))
    np.add.at(change, np.searchsorted(moments, start_s), cores)
    np.add.at(change, np.searchsorted(moments, end_s), -cores)
    return change.cumsum()


def _waiting(moments: F8, submit_s: F8, start_s: F8) -> tuple[I8, I8]:
    """Pairs of a moment and a job that waits from it on, by moment and then by arrival."""
    first, last = np.searchsorted(moments, submit_s), np.searchsorted(moments, start_s)
    count = last - first
    job = np.repeat(np.arange(len(count)), count)
    moment = np.arange(len(job)) - np.repeat(count.cumsum() - count, count) + first[job]
    order = np.argsort(moment, kind="stable")
    return moment[order], job[order]


def _any_before(group: I8, true: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Is an earlier element of the same group true? The groups come one after the other."""
    before = true.cumsum() - true
    return before > before[np.searchsorted(group, group)]


# ---------------------------------------------------------------- the command


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("log", type=Path, metavar="LOG", help="KTH-SP2 in the Standard Workload Format")


def _tables(given: argparse.Namespace, display: Display) -> Iterator[Titled]:
    trace = twin.read(given.log)
    outcomes: dict[str, pl.DataFrame] = {}
    for name, admission in rules(trace).items():
        with display.phase(f"{name}: replay of {trace.jobs.height:,} jobs"):
            outcomes[name] = replay(trace, admission)
        yield f"{name}: the replay beside the recording", card(trace, outcomes[name], child(0, "kth/halves"))
    yield "by month: starts over a boundary, and mean waits", by_month(trace, outcomes)
    for zone in (windows(trace).zone, STANDARD):
        yield f"why recorded jobs waited, hours by {zone}", reasons(trace, windows(trace, zone))


STUDY = Study("kth", "Replay KTH-SP2 and compare with what was recorded.", _arguments, _tables)

if __name__ == "__main__":
    sys.exit(STUDY.main())
