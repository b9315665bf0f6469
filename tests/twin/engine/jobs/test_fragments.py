"""What jobs use over time and the energy of their machines, against a direct sum and against a published week."""

from __future__ import annotations

import heapq
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import twin
from twin.engine.jobs import fragments
from twin.engine.jobs.machines import Machines, Power, uniform
from twin.errors import SimulationError
from twin.trace import tables

SURF = Path(__file__).resolve().parents[4].parent / "shared" / "data" / "opendc-workloads" / "v5" / "surf_week"
HOSTS, WEEK_S = 277, 604_800.0
FOUR = uniform(2, 4.0, power=Power(100.0, 200.0))


def placed(*rows: tuple, machines: Machines = FOUR) -> pl.DataFrame:
    """Placements from rows of job, number of the machine, start, end and cores held."""
    frame = pl.DataFrame(rows, schema=["job", "node", "start_s", "end_s", "cpu_cores"], orient="row", strict=False)
    return tables.conform(
        frame.with_columns(node=pl.Series([machines.names[row[1]] for row in rows])), "placements", "t"
    )


def recorded(*rows: tuple, unit: str = "core") -> pl.DataFrame:
    """Steps of CPU use from rows of job, time, value and length."""
    frame = pl.DataFrame(rows, schema=["entity", "time_s", "value", "step_s"], orient="row", strict=False)
    return tables.conform(frame.with_columns(resource=pl.lit("cpu"), unit=pl.lit(unit)), "usage", "t")


def known(*rows: tuple) -> pl.DataFrame:
    """Jobs from rows of name, recorded start, instances and used cores."""
    frame = pl.DataFrame(rows, schema=["job", "start_s", "instances", "used_cpu_cores"], orient="row", strict=False)
    return tables.conform(frame, "jobs", "t")


def cores(asked: fragments.Profile, machine: int) -> list[tuple[float, float]]:
    """The points of one machine as pairs of time and cores."""
    own = slice(asked.first[machine], asked.first[machine + 1])
    return list(zip(asked.time_s[own].tolist(), (asked.used[own] / 1e6).tolist(), strict=True))


def test_use_is_carried_over_by_its_offset_from_the_recorded_start():
    pieces = fragments.fragments(
        placed(("a", 0, 100.0, 130.0, 4.0)), recorded(("a", 5.0, 1.0, 10.0), ("a", 15.0, 3.0, 10.0)),
        known(("a", 0.0, 1, None)), FOUR,
    )  # fmt: skip
    assert cores(fragments.profile(pieces, FOUR), 0) == [(105.0, 1.0), (115.0, 3.0), (125.0, 0.0)]


def test_a_job_of_unknown_start_began_with_its_first_step():
    pieces = fragments.fragments(
        placed(("a", 1, 100.0, 105.0, 4.0)), recorded(("a", 5.0, 1.0, 10.0)), known(("a", None, 1, None)), FOUR
    )
    assert cores(fragments.profile(pieces, FOUR), 1) == [(100.0, 1.0), (105.0, 0.0)]


def test_steps_last_until_the_next_one_and_leave_gaps_where_they_say_so():
    use = recorded(("a", 0.0, 1.0, None), ("a", 10.0, 2.0, 5.0), ("a", 20.0, 3.0, None))
    pieces = fragments.fragments(placed(("a", 0, 0.0, 50.0, 4.0)), use, known(("a", 0.0, 1, None)), FOUR)
    expected = [(0.0, 1.0), (10.0, 2.0), (15.0, 0.0), (20.0, 3.0), (50.0, 0.0)]
    assert cores(fragments.profile(pieces, FOUR), 0) == expected


def test_only_use_of_the_processor_is_replayed():
    """Steps of memory are none of its business, wherever they lie."""
    memory = recorded(("a", 0.0, 3.0, 10.0)).with_columns(resource=pl.lit("memory"), unit=pl.lit("GiB"))
    use = pl.concat([memory, recorded(("a", 0.0, 1.0, 10.0)), memory.with_columns(time_s=5.0)])
    pieces = fragments.fragments(placed(("a", 0, 0.0, 10.0, 4.0)), use, known(("a", 0.0, 1, None)), FOUR)
    assert cores(fragments.profile(pieces, FOUR), 0) == [(0.0, 1.0), (10.0, 0.0)]


def test_without_steps_a_job_uses_its_mean_or_all_that_it_holds():
    jobs = known(("mean", 0.0, 2, 0.5), ("all", 0.0, 1, None))
    lying = placed(("mean", 0, 0.0, 10.0, 4.0), ("all", 1, 0.0, 10.0, 3.0)).with_columns(
        instances=pl.Series([2, 1], dtype=pl.Int64)
    )
    asked = fragments.profile(fragments.fragments(lying, recorded(), jobs, FOUR), FOUR)
    assert cores(asked, 0) == [(0.0, 1.0), (10.0, 0.0)]
    assert cores(asked, 1) == [(0.0, 3.0), (10.0, 0.0)]


@pytest.mark.parametrize(("unit", "value"), [("core", 2.0), ("MHz", 4200.0), ("percent", 50.0), ("%", 50.0)])
def test_units_of_use_mean_the_same(unit: str, value: float):
    """Two of the four cores that a job holds, however that is told."""
    pieces = fragments.fragments(
        placed(("a", 0, 0.0, 10.0, 4.0)), recorded(("a", 0.0, value, 10.0), unit=unit), known(("a", 0.0, 1, None)),
        FOUR, core_mhz=2100.0,
    )  # fmt: skip
    assert pieces.used.tolist() == [2_000_000]


def test_use_of_a_job_falls_evenly_to_its_instances():
    lying = placed(("a", 0, 0.0, 10.0, 4.0), ("a", 1, 0.0, 10.0, 2.0)).with_columns(instances=pl.Series([3, 1]))
    asked = fragments.profile(
        fragments.fragments(lying, recorded(("a", 0.0, 2.0, 10.0)), known(("a", 0.0, 4, None)), FOUR), FOUR
    )
    assert cores(asked, 0) == [(0.0, 1.5), (10.0, 0.0)]
    assert cores(asked, 1) == [(0.0, 0.5), (10.0, 0.0)]


def test_a_resumed_job_goes_on_where_it_stopped():
    use = recorded(("a", 0.0, 1.0, 10.0), ("a", 10.0, 2.0, 10.0))
    lying = placed(("a", 1, 50.0, 65.0, 4.0), ("a", 0, 0.0, 5.0, 4.0))
    pieces = fragments.fragments(lying, use, known(("a", 0.0, 1, None)), FOUR, done_s=np.array([5.0, 0.0]))
    asked = fragments.profile(pieces, FOUR)
    assert cores(asked, 0) == [(0.0, 1.0), (5.0, 0.0)]
    assert cores(asked, 1) == [(50.0, 1.0), (55.0, 2.0), (65.0, 0.0)]
    assert pieces.placement.tolist() == [1, 0]


def test_nothing_placed_draws_idle_power():
    pieces = fragments.fragments(placed(), recorded(), known(), FOUR)
    asked = fragments.profile(pieces, FOUR)
    assert fragments.energy_j(asked, FOUR, 10.0, 20.0).tolist() == [1000.0, 1000.0]
    assert fragments.overcommitted(asked, FOUR).height == 0


@pytest.mark.parametrize(
    ("curve", "u_to_e"), [("linear", 0.25), ("sqrt", 0.5), ("square", 0.0625), ("cubic", 0.015625)]
)
def test_golden_energy_of_each_curve(curve: str, u_to_e: float):
    """One of four cores for 10 of 30 s, cut to the 5 s that lie in the time asked about."""
    machines = uniform(1, 4.0, power=Power(100.0, 200.0, curve))
    pieces = fragments.fragments(
        placed(("a", 0, 0.0, 10.0, 1.0), machines=machines), recorded(), known(("a", None, 1, None)), machines
    )
    joules = fragments.energy_j(fragments.profile(pieces, machines), machines, 5.0, 30.0)
    assert joules == pytest.approx([100.0 * 25.0 + 100.0 * u_to_e * 5.0])


def test_overcommitted_machines_are_named_and_draw_full_power():
    lying = placed(("a", 1, 0.0, 10.0, 3.0), ("b", 1, 4.0, 12.0, 2.5), ("c", 0, 0.0, 5.0, 4.0))
    asked = fragments.profile(fragments.fragments(lying, recorded(), known(("a", None, 1, None)), FOUR), FOUR)
    found = fragments.overcommitted(asked, FOUR)
    assert found.rows() == [(FOUR.names[1], 6.0, 5.5)]
    share = fragments.used_share(asked, FOUR)
    assert share.max() == 1.0
    assert fragments.energy_j(asked, FOUR, 4.0, 10.0)[1] == pytest.approx(200.0 * 6.0)


@given(st.data())
@settings(max_examples=60)
def test_profile_equals_a_direct_sum(data: st.DataObject):
    """At any moment a machine is asked for the sum of the fragments that lie on it then."""
    whole = st.integers(0, 20).map(float)
    rows = data.draw(st.lists(st.tuples(whole, whole, st.integers(0, 1)), max_size=6))
    lying = placed(*((f"j{i}", m, start, start + long, 2.0) for i, (start, long, m) in enumerate(rows)))
    steps = [
        (f"j{i}", 3.0 * k, data.draw(st.sampled_from([0.0, 0.5, 2.1])), data.draw(st.sampled_from([2.0, 3.0])))
        for i in range(0, len(rows), 2)
        for k in range(4)
    ]
    jobs = known(*((f"j{i}", 0.0, 1, 0.7) for i in range(len(rows))))
    shuffled = data.draw(st.permutations(steps))
    pieces = fragments.fragments(lying, recorded(*shuffled), jobs, FOUR)
    asked = fragments.profile(pieces, FOUR)
    for m in range(2):
        points = cores(asked, m)
        assert not points or points[-1][1] == 0.0
        for moment in np.arange(0.25, 45.0, 0.5):
            found = next((use for time_s, use in reversed(points) if time_s <= moment), 0.0)
            total = 0.0
            for i, (start, long, where) in enumerate(rows):
                if where == m and start <= moment < start + long:
                    told = [v for job, t, v, s in steps if job == f"j{i}" and t <= moment - start < t + s]
                    total += sum(told) if i % 2 == 0 else 0.7
            assert found == pytest.approx(total)


def test_what_cannot_be_replayed_is_refused_with_a_remedy():
    lying, jobs = placed(("a", 0, 0.0, 10.0, 4.0)), known(("a", 0.0, 1, None))
    with pytest.raises(SimulationError, match="give core_mhz"):
        fragments.fragments(lying, recorded(("a", 0.0, 1.0, 1.0), unit="MHz"), jobs, FOUR)
    with pytest.raises(SimulationError, match="'jiffies' cannot be replayed"):
        fragments.fragments(lying, recorded(("a", 0.0, 1.0, 1.0), unit="jiffies"), jobs, FOUR)
    with pytest.raises(SimulationError, match="none of the 2 machines"):
        fragments.fragments(lying.with_columns(node=pl.lit("moon")), recorded(), jobs, FOUR)
    asked = fragments.profile(fragments.fragments(lying, recorded(), jobs, FOUR), FOUR)
    with pytest.raises(SimulationError, match="before the begin"):
        fragments.energy_j(asked, FOUR, 2.0, 1.0)


@pytest.mark.skipif(not SURF.is_dir(), reason="the OpenDC week of SURF is not here: shared/data/opendc-workloads")
def test_the_week_of_surf_draws_what_opendc_says():
    """277 hosts of 16 cores at 2,100 MHz, 32 to 180 W by a square root: 12,896.147 MJ, one task a host."""
    trace = twin.read(SURF)
    length = trace.usage.group_by("entity").agg(length=pl.col("step_s").sum())
    # a task that was cut off by the end of the recording runs for as long as its fragments
    jobs = trace.jobs.join(length, left_on="job", right_on="entity", how="left").with_columns(
        run=pl.coalesce("run_s", "length")
    )
    machines = uniform(HOSTS, 16.0, power=Power(32.0, 180.0, "sqrt"))
    free, busy, host = list(range(HOSTS)), [], []
    for submit_s, run_s in jobs.select("submit_s", "run").iter_rows():
        while busy and busy[0][0] <= submit_s:
            heapq.heappush(free, heapq.heappop(busy)[1])
        host.append(heapq.heappop(free))
        heapq.heappush(busy, (submit_s + run_s, host[-1]))
    lying = jobs.select(
        "job",
        start_s="submit_s",
        end_s=pl.col("submit_s") + pl.col("run"),
        instances="instances",
        cpu_cores="cpu_cores",
    ).with_columns(node=pl.Series([machines.names[i] for i in host]))
    pieces = fragments.fragments(lying, trace.usage, trace.jobs, machines, core_mhz=2100.0)
    asked = fragments.profile(pieces, machines)

    assert lying.height == 6_295
    assert len(pieces.used) == 2_323_475
    assert lying["end_s"].max() == WEEK_S
    assert fragments.overcommitted(asked, machines).height == 0
    assert fragments.energy_j(asked, machines, 0.0, WEEK_S).sum() == pytest.approx(12_896.147523e6, abs=1.0)
