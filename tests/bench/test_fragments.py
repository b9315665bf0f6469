"""Fragments of use per CPU second: the plain sum over machines, and the fluid that shares an overcommitted one."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tests.bench.conftest import Figure, cheapest
from twin.engine.jobs import fragments
from twin.engine.jobs.contention import contend
from twin.engine.jobs.machines import Power, uniform

pytestmark = pytest.mark.bench

JOBS, STEPS, HOSTS = 6_000, 350, 250
STEP_S = 30.0


def test_fragments_per_cpu_second(figure: Figure):
    """From tables to joules where each host holds one job at a time, and two; the floor is one sort of the steps."""
    rng = np.random.default_rng(1)
    names = pl.Series([f"job-{i:05d}" for i in range(JOBS)])
    usage = pl.DataFrame(
        {
            "entity": names.gather(np.repeat(np.arange(JOBS), STEPS)),
            "time_s": np.tile(np.arange(STEPS) * STEP_S, JOBS),
            "value": rng.integers(0, 1601, JOBS * STEPS) * 21.0,
            "step_s": STEP_S,
        }
    ).with_columns(resource=pl.lit("cpu"), unit=pl.lit("MHz"))
    jobs = pl.DataFrame({"job": names}).with_columns(start_s=0.0, instances=1, used_cpu_cores=1.0)
    machines = uniform(HOSTS, 16.0, power=Power(32.0, 180.0, "sqrt"))

    def lying(at_once: int) -> pl.DataFrame:
        turn, host = np.divmod(np.arange(JOBS), HOSTS)
        start_s = turn // at_once * STEPS * STEP_S + turn % at_once * 7.0
        return pl.DataFrame({"job": names, "start_s": start_s, "end_s": start_s + STEPS * STEP_S}).with_columns(
            node=pl.Series([machines.names[i] for i in host]), instances=1, cpu_cores=16.0
        )

    def joules(placements: pl.DataFrame) -> None:
        pieces = fragments.fragments(placements, usage, jobs, machines, core_mhz=2100.0)
        fragments.energy_j(fragments.profile(pieces, machines), machines, 0.0, 1e6)

    alone, paired = lying(1), lying(2)
    alone_s, paired_s, floor_s = cheapest(
        lambda: joules(alone), lambda: joules(paired), lambda: usage.sort("value", "time_s")
    )
    count, floor = JOBS * STEPS, JOBS * STEPS / floor_s
    assert count / alone_s >= 1.5e6
    figure("use, a job a host", count / alone_s, "fragments/CPU s", floor, more_is_better=True)
    figure("use, two jobs a host", count / paired_s, "fragments/CPU s", floor, more_is_better=True)


@pytest.mark.parametrize("tasks", [2, 16])
def test_contended_fragments_per_cpu_second(figure: Figure, tasks: int):
    """Tasks that together ask for twice what their machine has; the floor is a sort of as many numbers."""
    rng = np.random.default_rng(tasks)
    each = 200_000 // tasks
    duration_s, asked = rng.uniform(10.0, 30.0, tasks * each), rng.uniform(0.0, 64.0 / tasks, tasks * each)
    first = np.arange(tasks + 1) * each

    def fluid() -> None:
        contend(np.zeros(tasks), first, duration_s, asked, 16.0, "stretch")

    fluid()
    spent_s, floor_s = cheapest(fluid, lambda: np.sort(duration_s))
    count = tasks * each
    assert count / spent_s >= 1e5
    figure(
        f"contention, {tasks} tasks a host", count / spent_s, "fragments/CPU s", count / floor_s, more_is_better=True
    )
