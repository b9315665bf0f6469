"""Energy, carbon and cost of jobs: by hand, against a sum moment by moment, and on a recorded grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import twin
from twin import job_energy
from twin.engine.jobs import fragments
from twin.engine.jobs import machines as machine
from twin.engine.jobs.machines import Machines, Power
from twin.errors import SimulationError, TraceError, UsageError
from twin.job_energy import Signal
from twin.trace import tables

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
GRID, PRICE = DATA / "carbon-electricitymaps", DATA / "electricity-price-es-2023"
HOUR_S = 3600.0


def two_pools() -> Machines:
    nodes = pl.DataFrame({"node": ["a0", "a1", "b0"], "pool": ["a", "a", "b"], "cpu_cores": [4.0, 4.0, 10.0]})
    power = {"a": Power(100.0, 300.0), "b": Power(50.0, 450.0, "square")}
    return machine.from_nodes(tables.conform(nodes, "nodes", "t"), power=power)


MACHINES = two_pools()


def placed(*rows: tuple[str, str, float, float, float]) -> pl.DataFrame:
    """Placements from rows of job, machine, start, end and cores."""
    names = {"job": pl.String, "node": pl.String, "start_s": pl.Float64, "end_s": pl.Float64, "cpu_cores": pl.Float64}
    return tables.conform(pl.DataFrame(rows, schema=names, orient="row"), "placements", "t")


def outcomes(**users: str | None) -> pl.DataFrame:
    """Who submitted each job; queues by the first letter of the job."""
    rows = [
        {"job": job, "state": "done", "run_s": 0.0, "cpu_cores": 0.0, "user": user, "queue": job[0]}
        for job, user in users.items()
    ]
    return tables.conform(pl.DataFrame(rows, infer_schema_length=None), "outcomes", "t")


def values(frame: pl.DataFrame, entity: str = "cluster") -> dict[str, Any]:
    return dict(frame.filter(entity=entity).select("kpi", "value").iter_rows())


def steps(*rows: tuple[float, float], quantity: str = "carbon_g_kwh", zone: str = "XX") -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema=["time_s", "value"], orient="row", strict=False)
    return tables.conform(frame.with_columns(zone=pl.lit(zone), quantity=pl.lit(quantity)), "prices", "t")


def test_an_hour_by_hand() -> None:
    """Two jobs share a machine for half an hour, one lies alone, and a third machine stays empty."""
    lying = placed(("x", "a0", 0.0, HOUR_S, 1.0), ("y", "a0", 0.0, HOUR_S / 2, 3.0), ("z", "b0", 0.0, HOUR_S, 5.0))
    carbon = job_energy.signal(steps((0.0, 100.0), (HOUR_S / 2, 500.0)), "carbon_g_kwh")
    told = job_energy.kpis(
        MACHINES, lying, span_s=(0.0, HOUR_S), outcomes=outcomes(x="1", y="2", z=None), by=("user", "queue", "pool"),
        carbon=carbon, price=job_energy.constant(80.0),
    )  # fmt: skip
    # kWh, kg and idle kWh: in the two half hours the first draws 75 of 300 W, then 150 W alone
    x = ((0.075 + 0.15) / 2, (0.075 * 0.1 + 0.15 * 0.5) / 2, (0.025 + 0.1) / 2)  # kWh, kg, idle kWh
    y = (0.225 / 2, 0.225 * 0.1 / 2, 0.075 / 2)
    z = (0.15, 0.15 * 0.3, 0.05)  # 50 W + 400 W x 0.5^2
    empty = (0.1, 0.1 * 0.3, 0.1)
    for entity, (kwh, kg, idle) in (("user:1", x), ("user:2", y), ("user:", z), ("queue:z", z)):
        got = values(told, entity)
        assert got["energy_kwh"] == pytest.approx(kwh)
        assert got["carbon_kg"] == pytest.approx(kg)
        assert got["energy_cost_usd"] == pytest.approx(kwh * 0.08)
        assert got["energy_idle_ratio"] == pytest.approx(idle / kwh)
        assert got["energy_unoccupied_kwh"] is None
    pool, whole = values(told, "pool:a"), values(told)
    assert pool["energy_kwh"] == pytest.approx(x[0] + y[0] + empty[0])
    assert (pool["energy_unoccupied_kwh"], values(told, "pool:b")["energy_unoccupied_kwh"]) == (pytest.approx(0.1), 0.0)
    assert whole["carbon_kg"] == pytest.approx(x[1] + y[1] + z[1] + empty[1])
    assert whole["carbon_unoccupied_kg"] == pytest.approx(empty[1])
    assert whole["energy_cost_unoccupied_usd"] == pytest.approx(0.008)
    units = dict(told.select("kpi", "unit").unique().iter_rows())
    assert units == {kpi: unit for kpi, (unit, _) in job_energy.KPIS.items()}


def test_real_use_draws_and_what_is_held_pays_for_idle() -> None:
    """Who uses nothing pays no dynamic power, but its part of the idle power of what it holds."""
    lying = placed(("x", "a0", 0.0, HOUR_S, 2.0), ("y", "a0", 0.0, HOUR_S, 2.0))
    jobs = pl.DataFrame({"job": ["x", "y"], "used_cpu_cores": [0.0, 1.0]})
    use = fragments.fragments(lying, tables.empty("usage"), tables.conform(jobs, "jobs", "t"), MACHINES)
    told = job_energy.kpis(
        MACHINES, lying, span_s=(0.0, HOUR_S), outcomes=outcomes(x="x", y="y"), by=("user",), use=use
    )
    assert values(told, "user:x")["energy_kwh"] == pytest.approx(0.05)
    assert values(told, "user:y")["energy_kwh"] == pytest.approx(0.05 + 0.05)  # a quarter of 200 W
    assert values(told, "user:x")["energy_idle_ratio"] == 1.0
    assert values(told)["carbon_kg"] is None
    assert values(told)["energy_cost_usd"] is None


def test_without_cores_idle_power_is_shared_evenly() -> None:
    lying = placed(("x", "a0", 0.0, HOUR_S, 0.0), ("y", "a0", 0.0, HOUR_S, 0.0))
    told = job_energy.kpis(MACHINES, lying, span_s=(0.0, HOUR_S), outcomes=outcomes(x="x", y="y"), by=("user",))
    assert values(told, "user:x")["energy_kwh"] == values(told, "user:y")["energy_kwh"] == pytest.approx(0.05)


def test_without_jobs_all_is_unoccupied() -> None:
    told = values(job_energy.kpis(MACHINES, placed(), span_s=(0.0, 2 * HOUR_S), by=("pool",)))
    assert told["energy_kwh"] == told["energy_unoccupied_kwh"] == pytest.approx(0.5)
    assert told["energy_idle_ratio"] == 1.0


# -------------------------------------------------- laws


def random_placements(rng: np.random.Generator, count: int) -> pl.DataFrame:
    """Whole seconds, so that one second after the other is exact; more than a machine has where it falls so."""
    begin = rng.integers(0, 50, count)
    rows = [
        (f"j{i}", MACHINES.names[rng.integers(3)], float(b), float(b + rng.integers(0, 40)),
         float(rng.choice([0.0, 0.5, 1.0, 3.0])))
        for i, b in enumerate(begin.tolist())
    ]  # fmt: skip
    return placed(*rows)


def second_by_second(
    lying: pl.DataFrame, used: dict[str, float], intensity: np.ndarray, span: tuple[int, int]
) -> dict[str, float]:
    """Joules x intensity of each job, and "" for what was unoccupied."""
    sums: dict[str, float] = {}
    for second in range(*span):
        for m, name in enumerate(MACHINES.names):
            power, cores = MACHINES.power[MACHINES.pool[m]], MACHINES.capacity[m, 0] / 1e6
            there = lying.filter(pl.col("start_s") <= second, pl.col("end_s") > second, pl.col("node") == name)
            jobs: list[str] = there["job"].to_list()
            held: list[float] = there["cpu_cores"].to_list()
            use: list[float] = [used.get(job, cores_) for job, cores_ in zip(jobs, held, strict=True)]
            above = (power.full_w - power.idle_w) * min(sum(use) / cores, 1.0) ** power.exponent
            for job, h, u in zip(jobs, held, use, strict=True):
                part = power.idle_w * (h / sum(held) if sum(held) else 1 / len(held))
                part += above * u / sum(use) if sum(use) else 0.0
                sums[job] = sums.get(job, 0.0) + part * intensity[second]
            if not jobs:
                sums[""] = sums.get("", 0.0) + power.idle_w * intensity[second]
    return sums


@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 2**32 - 1), measured=st.booleans())
def test_parts_are_those_of_a_sum_second_by_second(seed: int, measured: bool) -> None:
    """Each user's part, what was unoccupied, and that together they are the cluster's: energy and carbon."""
    rng = np.random.default_rng(seed)
    lying = random_placements(rng, int(rng.integers(0, 15)))
    used = {job: float(rng.choice([0.0, 0.25, 2.0])) for job in lying["job"]} if measured else {}
    jobs = pl.DataFrame({"job": list(used), "used_cpu_cores": list(used.values())}, schema_overrides={"job": pl.String})
    use = fragments.fragments(lying, tables.empty("usage"), tables.conform(jobs, "jobs", "t"), MACHINES)
    times = np.arange(-10.0, 110.0, 10.0)
    intensity = rng.uniform(-50, 400, len(times))
    carbon = job_energy.signal(steps(*zip(times.tolist(), intensity.tolist(), strict=True)), "carbon_g_kwh")
    span = (5, 80)
    told = job_energy.kpis(
        MACHINES, lying, span_s=span, outcomes=outcomes(none="n", **{job: job for job in lying["job"]}),
        by=("user", "pool"), carbon=carbon, use=use if measured else None,
    )  # fmt: skip
    seconds = intensity[((np.arange(100) + 10) // 10)]
    for kpi, scale, each in (("energy_kwh", 3.6e6, np.ones(100)), ("carbon_kg", 3.6e9, seconds)):
        expected = second_by_second(lying, used, each, span)
        stem, unit = kpi.rsplit("_", 1)
        for job in lying["job"]:
            assert values(told, f"user:{job}")[kpi] == pytest.approx(
                expected.get(job, 0.0) / scale, rel=1e-9, abs=1e-12
            )
        rest = values(told)[f"{stem}_unoccupied_{unit}"]
        assert rest == pytest.approx(expected.get("", 0.0) / scale, rel=1e-9, abs=1e-12)
        whole = pytest.approx(sum(expected.values()) / scale, rel=1e-9, abs=1e-12)
        assert values(told)[kpi] == whole
        for kind, more in (("user:", rest), ("pool:", 0.0)):
            parts = told.filter(pl.col("kpi") == kpi, pl.col("entity").str.starts_with(kind))["value"].to_numpy()
            assert parts.sum() + more == whole


def test_the_energy_is_that_of_the_machines_with_recorded_use() -> None:
    """Steps that touch up to rounding are no gaps: the sum over users is what the machines drew."""
    rng = np.random.default_rng(5)
    lying = random_placements(rng, 40)
    rows = [(job, 0.1 + 0.7 * i, float(rng.uniform(0, 3)), 0.7) for job in lying["job"] for i in range(40)]
    usage = pl.DataFrame(rows, schema=["entity", "time_s", "value", "step_s"], orient="row")
    usage = tables.conform(usage.with_columns(resource=pl.lit("cpu"), unit=pl.lit("core")), "usage", "t")
    jobs = tables.conform(lying.select("job", start_s=pl.lit(0.1)), "jobs", "t")
    use = fragments.fragments(lying, usage, jobs, MACHINES)
    told = job_energy.kpis(
        MACHINES,
        lying,
        span_s=(3.0, 77.0),
        outcomes=outcomes(**{job: job for job in lying["job"]}),
        by=("user",),
        use=use,
    )
    drawn_j = fragments.energy_j(fragments.profile(use, MACHINES), MACHINES, 3.0, 77.0).sum()
    assert values(told)["energy_kwh"] == pytest.approx(drawn_j / 3.6e6, rel=1e-9)


# -------------------------------------------------- signals


def test_a_signal_that_does_not_cover_the_run_is_refused_with_the_hole_and_the_remedy() -> None:
    carbon = job_energy.signal(steps((0.0, 1.0), (10.0, 2.0), (20.0, 3.0), (50.0, 4.0)), "carbon_g_kwh")
    carbon.check(0.0, 30.0)
    for span, hole in (((0.0, 35.0), "30 s to 35 s"), ((-5.0, 5.0), "-5 s to 0 s"), ((55.0, 70.0), "60 s to 70 s"),
                       ((40.0, 55.0), "40 s to 50 s"), ((90.0, 95.0), "90 s to 95 s")):  # fmt: skip
        with pytest.raises(
            TraceError, match=f"no value from {hole}.*give a series.*energy.hold_s of the verb schedule"
        ):
            job_energy.kpis(MACHINES, placed(), span_s=span, carbon=carbon)
    longer = job_energy.signal(steps((0.0, 1.0), (10.0, 2.0), (20.0, 3.0), (50.0, 4.0)), "carbon_g_kwh", hold_s=30.0)
    longer.check(0.0, 80.0)
    assert longer.integral(np.array([80.0]), 0.0)[0] == pytest.approx(10 + 20 + 90 + 120)


def test_a_signal_is_shifted_to_the_runs_begin() -> None:
    carbon = job_energy.signal(steps((100.0, 1.0), (110.0, 2.0)), "carbon_g_kwh", from_s=105.0)
    assert carbon.integral(np.array([0.0, 5.0, 15.0]), 0.0).tolist() == [0.0, 5.0, 25.0]


def test_what_cannot_be_a_signal_is_refused() -> None:
    both = pl.concat([steps((0.0, 1.0), (1.0, 1.0)), steps((0.0, 1.0), (1.0, 1.0), zone="YY")])
    with pytest.raises(UsageError, match="choose one"):
        job_energy.signal(both, "carbon_g_kwh")
    with pytest.raises(UsageError, match="'ZZ'"):
        job_energy.signal(both, "carbon_g_kwh", "ZZ")
    with pytest.raises(UsageError, match="neither carbon nor a price"):
        job_energy.signal(both, "spot_usd_h", "XX")
    with pytest.raises(TraceError, match="two or more"):
        job_energy.signal(steps((0.0, 1.0)), "carbon_g_kwh")
    with pytest.raises(TraceError, match="two values for 7 s"):
        job_energy.signal(steps((0.0, 1.0), (7.0, 1.0), (7.0, 2.0)), "carbon_g_kwh")
    with pytest.raises(UsageError, match="hold_s=-1: a value must last"):
        job_energy.signal(steps((0.0, 1.0), (1.0, 1.0)), "carbon_g_kwh", hold_s=-1.0)
    with pytest.raises(UsageError, match="usd_eur"):
        job_energy.signal(steps((0.0, 1.0), (1.0, 1.0), quantity="electricity_eur_mwh"), "electricity_eur_mwh")


def test_what_does_not_fit_together_is_refused() -> None:
    lying = placed(("x", "a0", 0.0, 1.0, 1.0))
    with pytest.raises(UsageError, match="no length"):
        job_energy.kpis(MACHINES, lying, span_s=(1.0, 1.0))
    with pytest.raises(UsageError, match="give outcomes"):
        job_energy.kpis(MACHINES, lying, span_s=(0.0, 1.0), by=("user",))
    with pytest.raises(SimulationError, match="'x' is not among the outcomes"):
        job_energy.kpis(MACHINES, lying, span_s=(0.0, 1.0), outcomes=outcomes(y="y"))
    use = fragments.fragments(placed(), tables.empty("usage"), tables.empty("jobs"), MACHINES)
    with pytest.raises(UsageError, match="0 placements"):
        job_energy.kpis(MACHINES, lying, span_s=(0.0, 1.0), use=use)


# -------------------------------------------------- a recorded grid


@pytest.mark.skipif(not GRID.is_dir(), reason=f"the recorded grids are not in {GRID}")
def test_a_week_on_recorded_grids() -> None:
    """Idle machines emit their power x the mean of the recorded hours; Sweden's grid is cleaner than Poland's."""
    prices = pl.concat([twin.read(str(GRID / f"{zone}_2021-2024.parquet")).prices for zone in ("SE", "PL")])
    week = (0.0, 7 * 24 * HOUR_S)
    told = {}
    for zone in ("SE", "PL"):
        carbon = job_energy.signal(prices, "carbon_g_kwh", zone, from_s=180 * 24 * HOUR_S)
        told[zone] = values(job_energy.kpis(MACHINES, placed(), span_s=week, carbon=carbon))["carbon_kg"]
        hours = prices.filter(pl.col("zone") == zone)["value"].to_numpy()[180 * 24 :][: 7 * 24]
        assert told[zone] == pytest.approx(0.25 * hours.sum() / 1e3, rel=1e-9)
    assert told["SE"] < told["PL"] / 5
    late = job_energy.signal(prices, "carbon_g_kwh", "SE", from_s=4 * 365 * 24 * HOUR_S)
    with pytest.raises(TraceError, match="no value from"):
        late.check(*week)


@pytest.mark.skipif(not PRICE.is_dir(), reason=f"the recorded prices are not in {PRICE}")
def test_a_year_at_recorded_prices() -> None:
    """A constant power costs power x the mean price x the year, summer time or not."""
    prices = twin.read(str(PRICE)).prices
    price = job_energy.signal(prices, "electricity_eur_mwh", "ES", usd_eur=1.08)
    year_s = 8760 * HOUR_S
    told = values(job_energy.kpis(MACHINES, placed(), span_s=(0.0, year_s), price=price))
    assert told["energy_cost_usd"] == pytest.approx(0.25e-3 * prices["value"].to_numpy().sum() * 1.08, rel=1e-9)


def test_a_constant_holds_from_second_zero() -> None:
    assert isinstance(job_energy.constant(3.0), Signal)
    assert job_energy.constant(3.0).integral(np.array([1e8 + 0.5]), 1e8)[0] == 1.5
