"""An inspector delays starts, a bounded number of times, and changes nothing where it accepts everything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from twin.engine.jobs import machines, snapshot, workload
from twin.engine.jobs.scheduler import Scheduler
from twin.engine.jobs.simulator import DONE, JobTwin
from twin.engine.jobs.workload import F8
from twin.engine.scheduling import orders
from twin.engine.scheduling.backfill import Backfill, Easy, Greedy, Strict
from twin.engine.scheduling.conservative import Conservative
from twin.engine.scheduling.inspector import FEATURES, Inspecting, KeepRoom, rejections
from twin.errors import UsageError
from twin.trace.trace import Trace, TraceInfo

HOUR_S = 3600.0
BACKFILLS = pytest.mark.parametrize(
    "backfill", [Strict(), Greedy(), Easy(), Conservative()], ids=lambda b: type(b).__name__
)


def trace(rows: list[dict]) -> Trace:
    jobs = pl.DataFrame([{"job": str(i), "cpu_cores": 1.0, **row} for i, row in enumerate(rows)])
    return Trace(TraceInfo("made", "made", "none", "0" * 64), {"jobs": jobs})


def twin_of(rows: list[dict], backfill: Backfill, inspector: Inspecting | None, cores: float = 8.0) -> JobTwin:
    park = machines.uniform(2, cores / 2)
    load = workload.estimated(workload.of(trace(rows), park))
    return JobTwin(load, park, Scheduler(orders.Sjf(), backfill, inspector=inspector))


def crowd(seed: int, count: int = 120) -> list[dict]:
    rng = np.random.default_rng(seed)
    arrivals = np.sort(rng.uniform(0, 10 * HOUR_S, count))
    run_s = rng.lognormal(6.5, 1.5, count)
    return [
        {
            "submit_s": float(arrivals[i]),
            "run_s": float(run_s[i]),
            "limit_s": float(2 * run_s[i]),
            "cpu_cores": float(rng.integers(1, 5)),
        }
        for i in range(count)
    ]


def never(_features: F8) -> float:
    return 0.0


@BACKFILLS
def test_who_accepts_everything_changes_nothing(backfill: Backfill) -> None:
    plain, inspected = twin_of(crowd(1), backfill, None), twin_of(crowd(1), backfill, Inspecting(lambda _: 1.0))
    for twin in (plain, inspected):
        twin.run()
    for name, column in plain.columns.items():
        assert np.array_equal(column, inspected.columns[name])


@BACKFILLS
def test_rejections_are_bounded_and_nobody_starves(backfill: Backfill) -> None:
    """An inspector that never accepts rejects each job that often, and all are done in the end."""
    twin = twin_of(crowd(2), backfill, Inspecting(never, most=5, again_s=50.0))
    twin.run()
    assert (rejections(twin) == 5).all()
    assert (twin.columns["state"] == DONE).all()
    assert np.array_equal(twin.capacity.free, twin.machines.capacity)


def test_a_rejected_job_alone_starts_after_so_many_times() -> None:
    """Three rejections and 600 s after each: it starts at 1800 s although nothing else happens."""
    twin = twin_of([{"submit_s": 0.0, "run_s": 10.0}], Strict(), Inspecting(never, most=3))
    twin.run()
    assert twin.columns["start_s"].tolist() == [1800.0]


def test_the_features_are_what_they_say() -> None:
    """8 cores; one job of 2 cores runs, one of 3 that has waited 60 s is about to start, one of 4 waits with it."""
    seen: dict[str, float] = {}

    def policy(features: F8) -> float:
        seen.update(zip(FEATURES, features.tolist(), strict=True))
        return float(features[FEATURES.index("wait_s")] > 0 or features[FEATURES.index("estimate_s")] == 1e4)

    rows = [
        {"submit_s": 0.0, "run_s": 1e4, "cpu_cores": 2.0},
        {"submit_s": 40.0, "run_s": 100.0, "cpu_cores": 3.0},
        {"submit_s": 40.0, "run_s": 200.0, "cpu_cores": 4.0},
    ]
    twin = twin_of(rows, Strict(), Inspecting(policy, most=10, again_s=60.0))
    twin.run(99.0)
    twin.queue, queue = list(twin.queue), list(twin.queue)
    found = dict(zip(FEATURES, Inspecting(policy, most=10, again_s=60.0).features(twin, 1).tolist(), strict=True))
    assert [job for _, job in queue] == [1, 2]
    assert found == {
        "wait_s": 59.0,
        "estimate_s": 100.0,
        "cores_share": 3 / 8,
        "left_share": 6 / 8,  # asked out of turn: it holds nothing yet
        "rejected_share": 0.1,
        "waiting_jobs": 1.0,
        "slowdown_growth": 60 / 100 + 60 / 200,
    }
    twin.run(100.0)
    assert seen["left_share"] in (3 / 8, 2 / 8)  # beside the second or the third job
    assert twin.columns["start_s"].tolist()[1] == 100.0


def test_room_is_kept_for_short_jobs_to_come() -> None:
    """8 cores: the second long job would take the last half, so that a short one finds it when it comes."""
    rows = [
        {"submit_s": 0.0, "run_s": 6 * HOUR_S, "cpu_cores": 4.0},
        {"submit_s": 0.0, "run_s": 7 * HOUR_S, "cpu_cores": 4.0},
        {"submit_s": 60.0, "run_s": 120.0, "cpu_cores": 4.0},
    ]
    twin = twin_of(rows, Greedy(), Inspecting(KeepRoom(), most=2, again_s=600.0))
    twin.run()
    assert twin.columns["start_s"].tolist() == [0.0, 600.0, 60.0]  # rejected at 0 s and at 180 s
    wide = [{"submit_s": 0.0, "run_s": 6 * HOUR_S, "cpu_cores": 4.0, "instances": 2}]
    twin = twin_of(wide, Greedy(), Inspecting(KeepRoom()))
    twin.run()
    assert twin.columns["start_s"].tolist() == [0.0]  # it would never leave room


def test_a_fork_and_a_saved_twin_go_on_as_the_twin_does(tmp_path: Path) -> None:
    park = machines.uniform(2, 4.0)
    load = workload.estimated(workload.of(trace(crowd(3)), park))
    scheduler = Scheduler(orders.Sjf(), Easy(), inspector=Inspecting(KeepRoom(long_s=900.0), most=20))
    twin = JobTwin(load, park, scheduler)
    twin.run(5 * HOUR_S)
    assert rejections(twin).sum() > 0
    fork = twin.fork()
    snapshot.save(twin, tmp_path / "twin.npz")
    loaded = snapshot.load(tmp_path / "twin.npz", load, park, scheduler)
    for each in (twin, fork, loaded):
        each.run()
    for other in (fork, loaded):
        assert np.array_equal(twin.columns["start_s"], other.columns["start_s"])
        assert np.array_equal(rejections(twin), rejections(other))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"most": -1}, "most=-1 must be"),
        ({"most": np.nan}, "most=nan must be"),
        ({"again_s": 0.0}, "again_s=0"),
        ({"again_s": np.inf}, "again_s=inf"),
        ({"again_s": "soon"}, "again_s='soon' must be a time above 0 s"),
    ],
)
def test_wrong_settings_are_refused(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Inspecting(never, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": 2}, "keep=2 must be a share of all cores, from 0 to 1"),
        ({"keep": -0.1}, "keep=-0"),
        ({"keep": np.nan}, "keep=nan"),
        ({"long_s": -1.0}, r"long_s=-1\.0 must be a time of 0 s or more"),
        ({"long_s": np.nan}, "long_s=nan"),
    ],
)
def test_room_is_a_share_of_all_cores(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        KeepRoom(**options)
    assert KeepRoom(keep=1.0, long_s=0.0).keep == 1.0
