"""KPIs of jobs from hand-made tables, by hand-made arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twin import job_metrics
from twin.engine.jobs import machines as machine
from twin.engine.jobs.machines import Machines
from twin.errors import SimulationError, UsageError
from twin.trace import tables


def outcome(job: str, submit: float, start: float | None, end: float | None, **more: Any) -> dict[str, Any]:
    run = 0.0 if start is None or end is None else end - start
    made = {
        "job": job,
        "state": "done",
        "submit_s": submit,
        "start_s": start,
        "end_s": end,
        "run_s": run,
        "attempts": 1,
    }
    made |= {"wait_s": None if start is None else start - submit, "cpu_cores": 1.0, "memory_gib": None, "user": "a"}
    return made | more


def outcomes(*rows: dict[str, Any]) -> pl.DataFrame:
    return tables.conform(pl.DataFrame(rows, infer_schema_length=None), "outcomes", "test")


def place(job: str, node: str, start: float, end: float, cores: float, memory: float | None = 0.0) -> dict[str, Any]:
    return {"job": job, "node": node, "start_s": start, "end_s": end, "cpu_cores": cores, "memory_gib": memory}


def placed(*rows: dict[str, Any]) -> pl.DataFrame:
    return tables.conform(pl.DataFrame(rows, infer_schema_length=None), "placements", "test")


def two_pools() -> Machines:
    nodes = pl.DataFrame(
        {"node": ["s0", "s1", "b0"], "pool": ["small", "small", "big"], "cpu_cores": [2.0, 2.0, 8.0],
         "memory_gib": [4.0, 4.0, 16.0], "gpus": 0.0, "price_usd_h": [1.0, 1.0, 4.0]}
    )  # fmt: skip
    return machine.from_nodes(nodes)


def values(frame: pl.DataFrame, entity: str = "cluster") -> dict[str, float | None]:
    return dict(frame.filter(entity=entity).select("kpi", "value").iter_rows())


FOUR = (
    outcome("1", 0.0, 0.0, 100.0, limit_s=200.0, deadline_s=100.0),
    outcome("2", 0.0, 90.0, 100.0, limit_s=20.0, deadline_s=99.0, user="b", state="done"),
    outcome("3", 10.0, 40.0, 40.0, user="b", state="failed"),
    outcome("4", 20.0, None, None, user="b", state="waiting", attempts=0, deadline_s=1e9),
)


def test_waits_slowdowns_and_counts_are_those_of_the_hand_made_schedule() -> None:
    told = values(job_metrics.kpis(outcomes(*FOUR), machines=machine.uniform(2, 1.0)))
    assert told["jobs"] == 4
    assert (told["done_jobs"], told["failed_jobs"], told["waiting_jobs"]) == (2, 1, 1)
    assert told["wait_mean_s"] == pytest.approx(40.0)  # 0, 90, 30
    assert told["wait_median_s"] == 30.0
    assert told["wait_p95_s"] == pytest.approx(84.0)
    assert told["response_mean_s"] == pytest.approx((100 + 100 + 30) / 3)
    assert told["slowdown_mean"] == pytest.approx((1 + 10 + 31) / 3)  # a run of 0 s counts 1 + wait
    assert told["bounded_slowdown_mean"] == pytest.approx((1 + 10 + 3) / 3)  # runs count as 10 s at least
    assert told["deadline_miss_ratio"] == 0.5  # the one that waits may still make it
    assert told["limit_slack_ratio"] == pytest.approx(0.5)
    assert told["makespan_s"] == 100.0
    assert told["throughput_jobs_h"] == pytest.approx(2 / (100 / 3600))
    assert told["core_h"] == pytest.approx(110 / 3600)
    assert told["utilisation_cpu_ratio"] == pytest.approx(110 / 200)
    assert told["fairness_core_share"] == pytest.approx(110**2 / (2 * (100**2 + 10**2)))
    assert told["fairness_slowdown"] == pytest.approx(7.5**2 / (2 * (1 + 6.5**2)))
    assert told["restarts"] == 0  # who never started was not started again


def test_what_has_no_data_is_unscored_and_not_zero() -> None:
    told = values(job_metrics.kpis(outcomes(FOUR[3])))
    for kpi in ("wait_mean_s", "slowdown_mean", "utilisation_cpu_ratio", "cost_usd", "core_h", "limit_slack_ratio",
                "restart_ratio", "makespan_s", "fairness_slowdown", "cpu_slack_ratio"):  # fmt: skip
        assert told[kpi] is None, kpi
    assert set(values(job_metrics.kpis(tables.empty("outcomes"))).values()) == {None}
    assert set(told) == set(job_metrics.KPIS)


def test_memory_of_which_one_part_is_unknown_is_unscored() -> None:
    cluster = machine.uniform(2, 4.0, 8.0)
    known = outcome("1", 0.0, 0.0, 10.0, memory_gib=4.0)
    assert values(job_metrics.kpis(outcomes(known), machines=cluster))["utilisation_memory_ratio"] == pytest.approx(
        0.25
    )
    both = outcomes(known, outcome("2", 0.0, 0.0, 10.0))
    assert values(job_metrics.kpis(both, machines=cluster))["utilisation_memory_ratio"] is None


def test_restarts_are_the_starts_beyond_the_first() -> None:
    rows = [outcome("1", 0.0, 0.0, 9.0, attempts=3), outcome("2", 0.0, 0.0, 9.0)]
    told = values(job_metrics.kpis(outcomes(*rows)))
    assert (told["restarts"], told["restart_ratio"]) == (2, 0.5)


def test_only_what_is_decided_counts_for_deadlines() -> None:
    """Missed: done late, refused, waiting beyond it. Met: done by it. Neither: cancelled, or still in time."""
    rows = [
        outcome("1", 0.0, 0.0, 100.0, deadline_s=99.0),
        outcome("2", 0.0, 0.0, 100.0, deadline_s=100.0),
        outcome("3", 0.0, None, None, state="refused", attempts=0, deadline_s=500.0),
        outcome("4", 0.0, None, None, state="waiting", attempts=0, deadline_s=50.0),
        outcome("5", 0.0, None, 20.0, state="cancelled", attempts=0, deadline_s=10.0),
        outcome("6", 0.0, None, None, state="waiting", attempts=0, deadline_s=500.0),
    ]
    assert values(job_metrics.kpis(outcomes(*rows)))["deadline_miss_ratio"] == pytest.approx(3 / 4)


def test_slack_of_limits_is_that_of_jobs_done() -> None:
    """A killed job used all of its limit by definition."""
    rows = [outcome("1", 0.0, 0.0, 50.0, limit_s=200.0), outcome("2", 0.0, 0.0, 90.0, limit_s=90.0, state="killed")]
    assert values(job_metrics.kpis(outcomes(*rows)))["limit_slack_ratio"] == pytest.approx(0.75)


def test_the_makespan_begins_with_the_first_arrival_and_who_is_yet_to_come_does_not_count() -> None:
    rows = [outcome("1", 50.0, 60.0, 100.0), outcome("2", 70.0, None, None, state="expected", attempts=0)]
    told = values(job_metrics.kpis(outcomes(*rows)))
    assert (told["makespan_s"], told["jobs"]) == (50.0, 1)


def test_gpus_are_counted_apart_from_cores() -> None:
    nodes = pl.DataFrame({"node": ["g"], "pool": ["p"], "cpu_cores": [8.0], "memory_gib": [8.0], "gpus": [4.0]})
    row = outcome("1", 0.0, 0.0, 1800.0, gpus=3.0)
    told = values(job_metrics.kpis(outcomes(row), machines=machine.from_nodes(nodes), span_s=(0.0, 3600.0)))
    assert (told["gpu_h"], told["core_h"]) == pytest.approx((1.5, 0.5))
    assert (told["utilisation_gpu_ratio"], told["utilisation_cpu_ratio"]) == pytest.approx((3 / 8, 1 / 16))


def test_who_got_nothing_counts_for_fairness_and_one_user_alone_is_neither_fair_nor_unfair() -> None:
    rows = [outcome("1", 0.0, 0.0, 100.0), outcome("2", 0.0, None, None, user="b", state="waiting", attempts=0)]
    told = job_metrics.kpis(outcomes(*rows), by=("user",))
    assert values(told)["fairness_core_share"] == pytest.approx(0.5)
    assert values(told)["fairness_slowdown"] == 1.0  # of those of whom anything is known
    for kpi in ("fairness_core_share", "fairness_slowdown"):
        assert values(told, "user:a")[kpi] is None


def test_a_job_that_was_given_up_late_holds_nothing_after_its_run() -> None:
    """Started at 10, lost its machine at 15, cancelled at 100: 5 core-seconds, from its start."""
    row = outcome("1", 0.0, 10.0, 100.0, run_s=5.0, state="cancelled")
    told = values(job_metrics.kpis(outcomes(row), machines=machine.uniform(1, 1.0), span_s=(0.0, 50.0)))
    assert told["utilisation_cpu_ratio"] == pytest.approx(0.1)


def test_a_span_cuts_what_is_held_and_keeps_what_arrived_before() -> None:
    told = values(job_metrics.kpis(outcomes(FOUR[0]), machines=machine.uniform(1, 1.0), span_s=(50.0, 200.0)))
    assert told["jobs"] is None  # it arrived before
    assert told["utilisation_cpu_ratio"] == pytest.approx(50 / 150)
    with pytest.raises(UsageError, match="no length"):
        job_metrics.kpis(outcomes(FOUR[0]), span_s=(5.0, 5.0))


def test_used_against_asked_is_weighted_by_run_time() -> None:
    jobs = tables.conform(
        pl.DataFrame({"job": ["1", "2"], "cpu_cores": [2.0, 1.0], "used_cpu_cores": [1.0, 1.0], "instances": [2, 1]}),
        "jobs", "test",
    )  # fmt: skip
    told = values(job_metrics.kpis(outcomes(*FOUR[:2]), jobs=jobs))
    assert told["cpu_slack_ratio"] == pytest.approx(1 - (2 * 100 + 1 * 10) / (4 * 100 + 1 * 10))
    assert told["memory_slack_ratio"] is None


def test_cost_is_that_of_hours_held_or_powered_and_split_over_what_lay_there() -> None:
    rows = outcomes(outcome("1", 0.0, 0.0, 3600.0), outcome("2", 0.0, 0.0, 3600.0, user="b", cpu_cores=6.0))
    places = placed(place("1", "s0", 0, 3600, 1.0), place("2", "b0", 0, 1800, 6.0), place("2", "b0", 900, 1800, 1.0))
    told = job_metrics.kpis(rows, machines=two_pools(), placements=places, by=("user", "pool"))
    assert values(told)["cost_usd"] == pytest.approx(1.0 + 2.0)
    assert values(told, "user:b")["cost_usd"] == pytest.approx(2.0)
    assert values(told, "pool:small")["utilisation_cpu_ratio"] == pytest.approx(1 / 4)
    assert values(told, "pool:big")["jobs"] == 1  # one job, in two pieces
    powered = job_metrics.kpis(
        rows, machines=two_pools(), placements=places, by=("pool",), powered_h=np.array([1.0, 1.0, 1.0])
    )
    assert values(powered)["cost_usd"] == pytest.approx(6.0)
    assert values(powered, "pool:small")["cost_usd"] == pytest.approx(2.0)


def test_pools_need_placements_and_placements_known_machines() -> None:
    with pytest.raises(UsageError, match="by pool"):
        job_metrics.kpis(outcomes(*FOUR), by=("pool",))
    with pytest.raises(SimulationError, match="'x9'"):
        job_metrics.kpis(outcomes(*FOUR), machines=two_pools(), placements=placed(place("1", "x9", 0, 1, 1.0)))


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 99), st.integers(1, 300), st.integers(0, 4)), min_size=1))
def test_the_parts_add_up_to_the_whole(rows: list[tuple[int, int, int, int]]) -> None:
    made = [
        outcome(str(i), float(s), float(s + w), float(s + w + r), user=str(u), queue=str(u % 2), cpu_cores=1.0 + u)
        for i, (s, w, r, u) in enumerate(rows)
    ]
    nodes = ("s0", "s1", "b0")
    places = [
        place(o["job"], nodes[i % 3], o["start_s"], o["end_s"], o["cpu_cores"], float(i % 3))
        for i, o in enumerate(made)
    ]
    told = job_metrics.kpis(
        outcomes(*made), machines=two_pools(), placements=placed(*places), by=("user", "queue", "pool")
    )
    for kind in ("user", "queue", "pool"):
        parts = told.filter(pl.col("entity").str.starts_with(f"{kind}:"))
        added = ["jobs", "done_jobs", "core_h", "cost_usd"]
        for kpi in added + ([] if kind == "pool" else ["utilisation_cpu_ratio", "utilisation_memory_ratio"]):
            assert parts.filter(kpi=kpi)["value"].sum() == pytest.approx(values(told)[kpi]), (kind, kpi)


@given(st.lists(st.just(0.0) | st.floats(1e-300, 1e300), min_size=1, max_size=30))
def test_jains_index_lies_between_one_nth_and_one(given_: list[float]) -> None:
    index = pl.DataFrame({"x": given_}, schema={"x": pl.Float64}).select(job_metrics.jain(pl.col("x"))).item()
    if max(given_) == 0:
        assert index is None
    else:
        assert 1 / len(given_) - 1e-9 <= index <= 1 + 1e-9


def test_jains_index_is_one_for_equals_and_one_nth_for_a_single_taker() -> None:
    frame = pl.DataFrame({"equal": [3.0, 3.0, 3.0], "one": [0.0, 5.0, 0.0]})
    assert frame.select(job_metrics.jain(pl.all())).row(0) == pytest.approx((1.0, 1 / 3))


def test_a_distribution_gives_the_smallest_value_that_a_share_does_not_exceed() -> None:
    told = job_metrics.cdf(outcomes(*FOUR), "wait_s", 4)
    assert told["share"].to_list() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert told["value"].to_list() == [0.0, 0.0, 30.0, 90.0]
    assert job_metrics.cdf(outcomes(FOUR[3]), "wait_s").height == 0
    with pytest.raises(UsageError, match="wait_min"):
        job_metrics.cdf(outcomes(*FOUR), "wait_min")
    with pytest.raises(UsageError, match="at least 2"):
        job_metrics.cdf(outcomes(*FOUR), "wait_s", 1)


def test_room_beside_an_exhausted_resource_is_stranded() -> None:
    """s0 has no memory left and 1 core free; free in all: 1 + 2 + 8 cores, 0 + 4 + 16 GiB."""
    places = placed(place("1", "s0", 0.0, 50.0, 1.0, 4.0))
    told = values(job_metrics.stranding(two_pools(), places, at_s=10.0))
    assert told["stranded_cpu_ratio"] == pytest.approx(1 / 11)
    assert told["stranded_memory_ratio"] == 0.0
    assert told["fragmentation_cpu_ratio"] == pytest.approx(1 - 8 / 11)
    assert told["empty_machines"] == 2
    assert told["stranded_gpu_ratio"] is None  # nobody has any
    assert values(job_metrics.stranding(two_pools(), places, at_s=50.0))["empty_machines"] == 3  # ends are exclusive


def test_over_a_span_room_is_weighed_by_time() -> None:
    places = placed(place("1", "s0", 0.0, 50.0, 1.0, 4.0))
    told = values(job_metrics.stranding(two_pools(), places, span_s=(0.0, 100.0)))
    assert told["stranded_cpu_ratio"] == pytest.approx(50 / (50 * 11 + 50 * 12))
    assert told["empty_machines"] == pytest.approx(2.5)
    assert told["fragmentation_cpu_ratio"] == pytest.approx((1 - 8 / 11 + 1 - 8 / 12) / 2)


def test_both_exhausted_strands_nothing_and_least_widens_what_counts_as_exhausted() -> None:
    full = placed(place("1", "s0", 0.0, 50.0, 2.0, 4.0), place("2", "b0", 0.0, 50.0, 1.0, 15.0))
    assert values(job_metrics.stranding(two_pools(), full, at_s=1.0))["stranded_cpu_ratio"] == 0.0
    told = values(job_metrics.stranding(two_pools(), full, at_s=1.0, least=(1.0, 2.0, 1.0)))
    assert told["stranded_cpu_ratio"] == pytest.approx(7 / 9)
    with pytest.raises(UsageError, match="either"):
        job_metrics.stranding(two_pools(), full)
