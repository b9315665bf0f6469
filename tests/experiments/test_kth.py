"""KTH-SP2 beside its replays: the parts by hand, and what the real log says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import twin
from experiments import kth
from twin.errors import UsageError
from twin.trace.trace import Trace, TraceInfo

LOG = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "swf-pwa" / "KTH-SP2" / "log.swf"
needs_log = pytest.mark.skipif(not LOG.exists(), reason=f"{LOG} is not here: a log of the Parallel Workloads Archive")
HOUR_S = 3600.0


def recorded(jobs: list[tuple[float, float, float, float, float]], epoch: str = "1997-07-07T00:00:00+01:00") -> Trace:
    """Jobs (submit, start, run, cores, limit) in hours on four nodes; second 0 is a Monday, midnight in winter time."""
    columns = ("submit_s", "start_s", "run_s", "cpu_cores", "limit_s")
    frame = pl.DataFrame(jobs, schema=dict.fromkeys(columns, pl.Float64), orient="row").with_columns(
        pl.col("submit_s", "start_s", "run_s", "limit_s") * HOUR_S, job=pl.int_range(pl.len()).cast(pl.String)
    )
    nodes = pl.DataFrame({"node": list("abcd"), "pool": ["n"] * 4, "cpu_cores": [1.0] * 4})
    info = TraceInfo("drawn", "test", "test", "0" * 64, epoch=epoch, zone="Europe/Stockholm")
    return Trace(info, {"jobs": frame, "nodes": nodes})


def shares(trace: Trace) -> dict[str, float]:
    """Hours of waiting for each reason that anyone had."""
    found = kth.reasons(trace, kth.windows(trace, kth.STANDARD))
    return {reason: hours for reason, hours in found.select("reason", "hours").iter_rows() if hours}


def test_who_finds_too_few_nodes_waits_for_room() -> None:
    assert shares(recorded([(0, 0, 2, 4, 2), (1, 2, 1, 1, 1)])) == {"no_room": 1.0}


def test_who_would_run_over_a_boundary_waits_for_it() -> None:
    """Arrived at 7 for two hours, started at 8."""
    assert shares(recorded([(7, 8, 1, 1, 2)])) == {"boundary": 1.0}
    assert shares(recorded([(6, 8, 1, 1, 2)])) == {"first": 2.0}  # would have been over by 8


def test_who_would_delay_the_first_is_held_back_and_who_would_not_is_not() -> None:
    """Three of four nodes until 3; job 1 wants all of them; one node is left for an hour or two, not for three."""
    first = [(0.0, 0.0, 3.0, 3.0, 3.0), (1.0, 3.0, 1.0, 4.0, 1.0)]
    # waits from 1 until 4 for an hour's work, of which the last hour there is no room
    assert shares(recorded([*first, (1, 4, 1, 1, 1)])) == {"no_room": 3.0, "overtaking": 2.0}
    assert shares(recorded([*first, (1, 4, 3, 1, 3)])) == {"no_room": 3.0, "reserved": 2.0}
    # one node more than the first will need: it may stay as long as it likes
    narrow = [(0.0, 0.0, 3.0, 3.0, 3.0), (1.0, 3.0, 1.0, 3.0, 1.0)]
    assert shares(recorded([*narrow, (1, 3, 3, 1, 3)])) == {"no_room": 2.0, "overtaking": 2.0}


def test_who_starts_at_a_moment_counts_for_what_is_promised_then() -> None:
    """All come at once: job 0 starts and is waited for by job 1, which the last one would delay."""
    jobs = [(0.0, 0.0, 3.0, 3.0, 3.0), (0.0, 3.0, 1.0, 4.0, 1.0), (0.0, 4.0, 4.0, 1.0, 4.0)]
    assert shares(recorded(jobs)) == {"no_room": 4.0, "reserved": 3.0}


def test_who_stands_before_a_free_machine_comes_first() -> None:
    """And whoever came later stands behind it."""
    assert shares(recorded([(0, 2, 1, 1, 1), (0, 2, 1, 1, 1)])) == {"overtaking": 2.0, "first": 2.0}


def test_a_start_crosses_a_boundary_by_more_than_a_minute() -> None:
    rule = kth.windows(recorded([(0, 0, 1, 1, 1)]), kth.STANDARD)
    start_s = np.array([7.0, 7.0, 7.0]) * HOUR_S
    assert kth.crossing(start_s, HOUR_S + np.array([0.0, 60.0, 61.0]), rule).tolist() == [False, False, True]


def test_summer_time_moves_the_local_boundary_by_an_hour() -> None:
    trace = recorded([(0, 0, 1, 1, 1)])
    assert kth.windows(trace).next_s(0.0) == 7 * HOUR_S
    assert kth.windows(trace, kth.STANDARD).next_s(0.0) == 8 * HOUR_S


def test_a_log_without_a_clock_is_refused() -> None:
    with pytest.raises(UsageError, match="UnixStartTime"):
        kth.windows(recorded([(0, 0, 1, 1, 1)], epoch=""))


# ---------------------------------------------------------------- the real log


@pytest.fixture(scope="module")
def log() -> Trace:
    return twin.read(LOG)


@pytest.fixture(scope="module")
def spring(log: Trace) -> Trace:
    """Who arrived from 2 March to 1 May 1997: four weeks of winter time and a month of summer time."""
    jobs = log.jobs.filter(pl.col("submit_s").is_between(160 * 24 * HOUR_S, 220 * 24 * HOUR_S))
    return Trace(log.info, {"jobs": jobs, "nodes": log.nodes})


@pytest.fixture(scope="module")
def replays(spring: Trace) -> dict[str, pl.DataFrame]:
    return {name: kth.replay(spring, admission) for name, admission in kth.rules(spring).items()}


@needs_log
def test_each_step_of_the_rule_explains_more(spring: Trace, replays: dict[str, pl.DataFrame]) -> None:
    """EASY alone, with the rule by the local clock, by standard time: waits from ten minutes on, and their ranks."""
    assert spring.jobs.height == 4_953
    assert list(replays) == ["easy", "local_clock", "standard_time"]
    cards = [
        {row["measure"]: row for row in kth.card(spring, outcomes).iter_rows(named=True)}
        for outcomes in replays.values()
    ]
    assert cards[0]["wait_mean_s"]["recorded"] == pytest.approx(18_655, abs=1)
    assert [card["wait_mean_s"]["simulated"] for card in cards] == pytest.approx([7_717, 19_183, 16_717], abs=20)
    assert [card["wait_ks_coarse"]["error"] for card in cards] == pytest.approx([0.095, 0.063, 0.018], abs=0.002)
    ranks = [card["wait_rank_correlation"]["simulated"] for card in cards]
    assert ranks == pytest.approx([0.222, 0.450, 0.515], abs=0.005)


@needs_log
def test_only_who_keeps_the_rule_never_starts_over_a_boundary(spring: Trace, replays: dict[str, pl.DataFrame]) -> None:
    """EASY starts one job in seven over a boundary; by the local clock the hour of summer time remains."""
    over = [kth.by_month(spring, {"easy": outcomes})["over_easy"].to_list() for outcomes in replays.values()]
    assert over[0][0] > 300
    assert over[0][1] > 300
    assert over[1][0] < 50
    assert over[1][1] > 300
    assert sum(over[2]) == 0


@needs_log
def test_the_rule_was_kept_by_standard_time_until_june(log: Trace) -> None:
    """One start in a hundred leads over a boundary; the local clock sees many more in months of summer time."""
    itself = log.jobs.select("start_s", wait_s=pl.col("start_s") - pl.col("submit_s"))
    table = kth.by_month(log, {"easy": itself})
    before = pl.col("month") < "1997-06"
    early, late = table.filter(before).sum(), table.filter(~before).sum()
    assert table["jobs"].sum() == 28_489
    assert early["over_standard"][0] / early["jobs"][0] < 0.01
    assert early["over_local"][0] > 4 * early["over_standard"][0]
    assert 0.1 < late["over_standard"][0] / late["jobs"][0] < 0.25
    winter = table.filter((pl.col("month") > "1996-10") & (pl.col("month") < "1997-03"))
    assert winter.height == 4
    assert winter["over_local"].to_list() == winter["over_standard"].to_list()
    # the recording beside itself
    assert table["over_easy"].to_list() == table["over_standard"].to_list()
    assert table["easy_wait_s"].to_list() == table["recorded_wait_s"].to_list()


@needs_log
def test_recorded_waits_are_whole_minutes(log: Trace) -> None:
    """But for 46, so that distributions of waits agree from ten minutes on and not below."""
    waits_s = log.jobs["start_s"] - log.jobs["submit_s"]
    assert (waits_s % 60 != 0).sum() == 46


@needs_log
def test_the_machine_was_smaller_in_its_first_weeks(log: Trace) -> None:
    """Never more than 86 of 100 nodes were in use before day 24, all of them afterwards."""
    ends_s = log.jobs["start_s"] + log.jobs["run_s"]
    changes = [*zip(ends_s, -log.jobs["cpu_cores"]), *zip(log.jobs["start_s"], log.jobs["cpu_cores"])]  # noqa: B905
    times_s, cores = (np.array(column) for column in zip(*sorted(changes), strict=True))
    used = cores.cumsum()
    early = times_s < 24 * 24 * HOUR_S
    assert used[early].max() == 86
    assert used[~early].max() >= 100


@needs_log
def test_five_sixths_of_the_recorded_waiting_has_a_reason(log: Trace) -> None:
    found = kth.reasons(log, kth.windows(log, kth.STANDARD))
    share = dict(found.select("reason", "share").iter_rows())
    assert share == pytest.approx(
        {"no_room": 0.464, "boundary": 0.330, "reserved": 0.043, "overtaking": 0.147, "first": 0.015}, abs=0.002
    )
    waited_s = (log.jobs["start_s"] - log.jobs["submit_s"]).to_numpy()
    assert found["hours"].sum() == pytest.approx(waited_s.sum() / HOUR_S)
