"""Rules about who may start at all, displacement by priority, checkpoints, and twins kept in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from twin.engine.jobs import machines, outcomes, snapshot, workload
from twin.engine.jobs.machines import CPU, UNITS
from twin.engine.jobs.scheduler import Checkpoint, Outage, Scheduler
from twin.engine.jobs.simulator import JobTwin
from twin.engine.scheduling import backfill, orders
from twin.engine.scheduling.admission import Admission, CleanHours, Quota, Windows
from twin.errors import SimulationError, UsageError
from twin.trace.trace import Trace, TraceInfo

HOUR_S = 3600.0
MONDAY = "1996-09-23T00:00:00+02:00"


def trace(rows: list[dict]) -> Trace:
    jobs = pl.DataFrame([{"job": str(i), "cpu_cores": 1.0, **row} for i, row in enumerate(rows)])
    return Trace(TraceInfo("made", "made", "none", "0" * 64), {"jobs": jobs})


def crowd(seed: int, count: int = 300) -> Trace:
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(120.0, count))
    return trace(
        [
            {
                "submit_s": float(arrivals[i]),
                "run_s": float(rng.exponential(HOUR_S)),
                "limit_s": 4 * HOUR_S,
                "cpu_cores": float(rng.integers(1, 5)),
                "user": f"u{rng.integers(3)}",
                "priority": float(rng.integers(3)),
            }
            for i in range(count)
        ]
    )


def twin_of(made: Trace, scheduler: Scheduler, cores: float = 16, outages: tuple[Outage, ...] = ()) -> JobTwin:
    park = machines.uniform(2, cores)
    return JobTwin(workload.estimated(workload.of(made, park)), park, scheduler, outages=outages)


def test_nothing_runs_over_a_boundary_and_who_is_barred_blocks_nobody() -> None:
    """At 7 on a Monday a job of two hours waits until 8, and one of half an hour behind it does not."""
    made = trace([{"submit_s": 7 * HOUR_S, "run_s": 2 * HOUR_S}, {"submit_s": 7 * HOUR_S, "run_s": HOUR_S / 2}])
    windows = Windows(MONDAY, "Europe/Stockholm")
    twin = twin_of(made, Scheduler(orders.Fcfs(), backfill.Strict(), admission=(windows,)))
    twin.run()
    assert twin.columns["start_s"].tolist() == [8 * HOUR_S, 7 * HOUR_S]
    assert windows.next_s(4 * 86_400 + 17 * HOUR_S) == 7 * 86_400 + 8 * HOUR_S  # the weekend is one window


def test_a_job_longer_than_any_window_is_told_not_waited_for() -> None:
    """The run ends, and the job says why it waits."""
    made = trace([{"submit_s": 0.0, "run_s": 90 * HOUR_S}])
    rule = Windows(MONDAY, "Europe/Stockholm")
    twin = twin_of(made, Scheduler(orders.Fcfs(), backfill.Strict(), admission=(rule,)))
    twin.run()
    told = outcomes.outcomes(twin).row(0, named=True)
    assert told["state"] == "waiting"
    assert "working hours" in told["reason"]


@pytest.mark.parametrize("rule", [backfill.Strict(), backfill.Greedy(), backfill.Easy()])
def test_a_quota_is_never_exceeded(rule: backfill.Backfill) -> None:
    """Nobody ever holds more cores or jobs than the quota, and everybody is done in the end."""
    twin = twin_of(crowd(1), Scheduler(orders.Fcfs(), rule, admission=(Quota(cpu_cores=8, jobs=3),)))
    most = np.zeros(3)
    while any(state < 4 for state in twin.columns["state"].tolist()):
        twin.run(twin.now_s + 600.0)
        most = np.maximum(most, np.max([twin.holdings.of("user", job)[1] for job in range(len(twin.workload))], axis=0))
    assert 6 * UNITS[CPU] < most[0] <= 8 * UNITS[CPU]
    assert most[2] == 3


def test_jobs_with_time_to_spare_wait_for_a_clean_hour() -> None:
    """What can wait starts where the forecast of that hour is low; what cannot wait starts at once."""
    rows = [{"submit_s": 0.0, "run_s": HOUR_S, "deadline_s": 20 * HOUR_S}, {"submit_s": 0.0, "run_s": HOUR_S}]

    def forecast(hour: int) -> list[float]:
        return [100.0 if (hour + i) % 24 != 5 else 10.0 for i in range(24)]

    rule = CleanHours(forecast, share=0.01)
    twin = twin_of(trace(rows), Scheduler(orders.Fcfs(), backfill.Strict(), admission=(rule,)))
    twin.run()
    assert twin.columns["start_s"].tolist() == [5 * HOUR_S, 0.0]


@pytest.mark.parametrize("checkpoint", [None, Checkpoint(600.0, 10.0)])
def test_displaced_jobs_come_back_and_lose_no_more_than_they_must(checkpoint: Checkpoint | None) -> None:
    """Everyone is done; who was displaced ran longer than its work, with checkpoints less so."""
    made = crowd(2)
    twin = twin_of(
        made, Scheduler(orders.HighestPriority(), backfill.Strict(), preempts=True, checkpoint=checkpoint), cores=40
    )
    twin.run()
    columns, load = twin.columns, twin.workload
    assert set(columns["state"].tolist()) == {4}
    displaced = columns["attempts"] > 1
    assert displaced.sum() > 10
    assert (load.priority[displaced] < 2).all()
    assert (columns["ran_s"] >= load.run_s - 1e-6).all()
    assert not twin.held
    assert (twin.capacity.free == twin.machines.capacity).all()


def test_checkpoints_save_work() -> None:
    """A job of an hour that loses its machine after 50 minutes begins again after its last whole checkpoint."""
    made = trace([{"submit_s": 0.0, "run_s": HOUR_S}])
    outage = (Outage(3000.0, 60.0, (0,)),)
    kept = Scheduler(orders.Fcfs(), backfill.Strict(), checkpoint=Checkpoint(600.0, 0.0))
    lost = Scheduler(orders.Fcfs(), backfill.Strict())
    ends = []
    for scheduler in (kept, lost):
        twin = twin_of(made, scheduler, outages=outage)
        twin.run()
        ends.append(float(twin.columns["end_s"][0]))
    assert ends == [3600.0, 6600.0]  # the second machine takes it at once


@pytest.mark.parametrize("at_s", [0.0, 5000.0, 20_000.0])
def test_a_saved_twin_goes_on_as_if_it_had_not_stopped(tmp_path: Path, at_s: float) -> None:
    """Saved and loaded anywhere, all columns and the history are the same in the end."""
    outages = (Outage(4000.0, 3000.0, (0,)),)
    scheduler = Scheduler(orders.Sjf(), backfill.Easy(), preempts=True, checkpoint=Checkpoint(600.0, 5.0))
    whole, part = (twin_of(crowd(3), scheduler, outages=outages) for _ in range(2))
    whole.run()
    part.run(at_s)
    snapshot.save(part, tmp_path / "twin.npz")
    again = snapshot.load(tmp_path / "twin.npz", part.workload, part.machines, scheduler, outages)
    again.run()
    assert all((whole.columns[name] == again.columns[name]).all() for name in whole.columns)
    assert whole.history == again.history


def test_a_twin_of_other_jobs_is_not_loaded(tmp_path: Path) -> None:
    """The fingerprint refuses another workload, and a damaged file is said to be one."""
    scheduler = Scheduler(orders.Fcfs(), backfill.Strict())
    one, other = twin_of(crowd(4), scheduler), twin_of(crowd(5), scheduler)
    snapshot.save(one, tmp_path / "twin.npz")
    with pytest.raises(SimulationError, match="other jobs"):
        snapshot.load(tmp_path / "twin.npz", other.workload, other.machines, scheduler)
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    with pytest.raises(SimulationError, match="no saved twin"):
        snapshot.load(tmp_path / "bad.npz", one.workload, one.machines, scheduler)


# -------------------------------------------------- what is told wrongly


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"of": "user-12"}, r"of='user-12' must be a list: of=\[user-12\]"),
        ({"of": 12}, r"of=12 must be a list: of=\[12\]"),
        ({"of": [12]}, r"of holds 12, which is no name: put it in quotes, of=\['12'\]"),
        ({"cpu_cores": -1.0}, r"cpu_cores=-1\.0 must be an amount of 0 or more; None is no bound"),
        ({"cpu_cores": np.nan}, "cpu_cores=nan"),
        ({"cpu_cores": np.inf}, "cpu_cores=inf"),
        ({"gpus": -0.5}, r"gpus=-0\.5"),
        ({"gpus": "two"}, "gpus='two'"),
        ({"jobs": 0}, "jobs=0 must be a whole number of at least 1"),
        ({"jobs": 1.5}, r"jobs=1\.5 must be a whole number"),
        ({"jobs": np.nan}, "jobs=nan"),
        ({"jobs": 1, "by": "pool"}, "by='pool' is unknown; known: user, group, queue"),
    ],
)
def test_a_quota_that_cannot_be_meant_is_refused(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Quota(**options)


def test_a_quota_is_of_whole_names() -> None:
    """A quota of user-12 does not bound user-1; a bound beyond all counting bounds nobody."""
    made = trace([{"submit_s": 0.0, "run_s": 9.0, "user": f"user-{i}"} for i in (1, 1, 12, 12)])
    rules = (Quota(jobs=1, of=("user-12",)), Quota(cpu_cores=1e300))
    twin = twin_of(made, Scheduler(orders.Fcfs(), backfill.Greedy(), admission=rules))
    twin.run()
    assert twin.columns["start_s"].tolist() == [0.0, 0.0, 0.0, 9.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"zone": "Mars"}, "zone='Mars' is no IANA time zone; give one such as Europe/Berlin"),
        ({"zone": ""}, "zone='' is no IANA"),
        ({"zone": "../x"}, "is no IANA"),
        ({"zone": None}, "zone=None is no IANA"),
        ({"epoch": "yesterday"}, "epoch='yesterday' is no time in ISO 8601, such as 2026-01-05T00:00:00"),
        ({"epoch": 0}, "epoch=0 is no time"),
        ({"hours": (8, 24)}, "hours=24 must be a list of whole hours from 0 to 23"),
        ({"hours": (-1,)}, "hours=-1"),
        ({"hours": (8.5,)}, r"hours=8\.5"),
        ({"hours": 8}, r"hours=8 must be a list .* e\.g\. \[8, 17\]"),
        ({"hours": "8"}, "hours='8' must be a list"),
        ({"hours": ()}, "at least one hour"),
        ({"working_days": (7,)}, "working_days=7 must be a list of days from 0, Monday, to 6"),
        ({"working_days": 1}, "working_days=1 must be a list"),
        ({"working_days": ()}, "one working day"),
    ],
)
def test_windows_that_cannot_be_meant_are_refused(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Windows(**{"epoch": MONDAY, "zone": "Europe/Stockholm", **options})


def test_windows_take_lists_as_they_take_tuples() -> None:
    """A configuration holds lists."""
    told = {"epoch": "2026-01-05", "zone": "UTC"}
    listed = Windows(**told, hours=[0, 23], working_days=[0])  # pyright: ignore[reportArgumentType]
    assert listed == Windows(**told, hours=(0, 23), working_days=(0,))
    assert listed.next_s(0.0) == 23 * HOUR_S


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": -0.1}, r"share=-0\.1 must be a share of the coming hours, from 0 to 1"),
        ({"share": 30}, "share=30"),
        ({"share": np.nan}, "share=nan"),
        ({"horizon_h": 0}, "horizon_h=0 must be a whole number of hours, at least 1"),
        ({"horizon_h": 1.5}, r"horizon_h=1\.5"),
    ],
)
def test_clean_hours_that_cannot_be_meant_are_refused(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        CleanHours(lambda _hour: [1.0], **options)


@pytest.mark.parametrize(
    ("rule", "counts"),
    [
        (Quota(jobs=1), "user"),
        (Quota(jobs=1, by="group"), "group"),
        (Quota(jobs=1, by="queue"), "queue"),
        (Windows(MONDAY, "Europe/Stockholm"), None),
        (CleanHours(lambda _hour: [1.0]), None),
    ],
)
def test_a_rule_says_whose_holdings_it_counts(rule: Admission, counts: str | None) -> None:
    """So that only these are counted."""
    assert rule.counts == counts
