"""Reservations, affinity and spread: where jobs may run given what runs elsewhere, and quotas of groups and queues."""

from __future__ import annotations

import itertools
from dataclasses import fields
from pathlib import Path
from typing import get_args

import numpy as np
import polars as pl
import pytest
from omegaconf import OmegaConf

from twin.engine.jobs import machines as machine
from twin.engine.jobs import workload
from twin.engine.jobs.explain import why_waiting
from twin.engine.jobs.machines import Machines
from twin.engine.jobs.scheduler import Filter, Scheduler
from twin.engine.jobs.simulator import JobTwin
from twin.engine.scheduling import orders
from twin.engine.scheduling.admission import Admission, Quota
from twin.engine.scheduling.backfill import Easy, Greedy, Strict
from twin.engine.scheduling.filters import Affinity, AntiAffinity, Relation, Reservation, Spread
from twin.errors import SimulationError, UsageError
from twin.trace.trace import Trace, TraceInfo


def zones(*counts: int, cores: float = 4.0) -> Machines:
    """Machines in zones "a", "b", ..., so many in each."""
    names = [zone for zone, count in zip("abc", counts, strict=False) for _ in range(count)]
    nodes = pl.DataFrame({"node": [f"n{i}" for i in range(len(names))], "pool": "p", "zone": names})
    return machine.from_nodes(nodes.with_columns(cpu_cores=pl.lit(cores)))


def twin_of(
    jobs: pl.DataFrame, machines: Machines, *filters: Filter, admission: tuple[Admission, ...] = (), fills: bool = False
) -> JobTwin:
    jobs = jobs.with_columns(job=pl.int_range(pl.len()).cast(pl.String), cpu_cores=pl.lit(1.0))
    made = Trace(TraceInfo("test", "made by a test", "none", "0" * 64), {"jobs": jobs})
    load = workload.estimated(workload.of(made, machines))
    backfill = Easy() if fills else Greedy()
    return JobTwin(load, machines, Scheduler(orders.Fcfs(), backfill, filters=filters, admission=admission))


def tasks(count: int, run_s: float = 100.0, group: str | None = "a") -> pl.DataFrame:
    """Jobs of one group that arrive at once."""
    frame = pl.DataFrame({"submit_s": [0.0] * count, "run_s": [run_s] * count})
    return frame.with_columns(group=pl.lit(group, dtype=pl.String))


def zone_of(twin: JobTwin, job: int) -> set[int]:
    return {int(twin.machines.domains["zone"][m]) for m, _, _ in twin.held[job]}


def test_reserved_machines_are_for_others_only_until_the_reservation_begins() -> None:
    """Who ends in time may take it before, who would not waits until it is over; its owner goes at once."""
    jobs = pl.DataFrame({"submit_s": [0.0, 0.0, 12.0], "run_s": [8.0, 12.0, 3.0], "user": ["guest", "guest", "owner"]})
    twin = twin_of(jobs, machine.uniform(1, 1), Reservation(10.0, 20.0, ("node-0",), ("owner",)))
    twin.run(9.0)
    assert why_waiting(twin, 1) == "number 1 in the queue; of 1 machines 1 are reserved for others"
    twin.run()
    assert twin.columns["start_s"].tolist() == [0.0, 30.0, 12.0]


def test_a_reservation_of_an_unknown_machine_is_refused() -> None:
    """By its name, when the twin is made."""
    with pytest.raises(SimulationError, match="names the machine 'node-7'"):
        twin_of(tasks(1), machine.uniform(1, 1), Reservation(10.0, 20.0, ("node-7",), ()))


def test_affinity_keeps_a_group_in_one_zone() -> None:
    """A group stays where its first went, whatever room there is elsewhere; a task of no group goes anywhere."""
    jobs = pl.concat([tasks(5, group="a"), tasks(1, group=None)])
    twin = twin_of(jobs, zones(1, 1), Affinity("zone", "group"))
    twin.run(1.0)
    assert [job for job in range(6) if job in twin.held] == [0, 1, 2, 3, 5]
    assert {zone for job in range(4) for zone in zone_of(twin, job)} == {0}
    assert "have none of its group near" in why_waiting(twin, 4)


def test_affinity_binds_two_groups_to_their_own_zones() -> None:
    """With another group in the first zone the second one begins in the other and stays there."""
    jobs = pl.concat([tasks(4, group="a"), tasks(4, group="b")])
    twin = twin_of(jobs, zones(1, 1), Affinity("zone", "group"))
    twin.run(1.0)
    assert [zone_of(twin, job) for job in range(8)] == [{0}] * 4 + [{1}] * 4


def test_anti_affinity_takes_each_machine_once_for_a_group() -> None:
    """Three machines, four tasks: the fourth starts when the first has ended."""
    twin = twin_of(tasks(4), machine.uniform(3, 4), AntiAffinity("node", "group"))
    twin.run(1.0)
    assert sorted(m for held in twin.held.values() for m, _, _ in held) == [0, 1, 2]
    twin.run()
    assert twin.columns["start_s"].tolist() == [0.0, 0.0, 0.0, 100.0]


@pytest.mark.parametrize(("max_skew", "most"), [(1, [2, 2, 2]), (2, [3, 2, 2])])
def test_spread_bounds_the_skew(max_skew: int, most: list[int]) -> None:
    """Zones of 4, 2 and 2 cores in machines of one: jobs go by machine number as long as the skew allows it."""
    twin = twin_of(tasks(8), zones(4, 2, 2, cores=1.0), Spread("zone", max_skew, "group"))
    twin.run(1.0)
    count = [sum(zone in zone_of(twin, job) for job in twin.held) for zone in range(3)]
    assert max(count) - min(count) <= max_skew
    assert [min(a, b) for a, b in zip(count, most, strict=True)] == most


@pytest.mark.parametrize(
    "rule",
    [
        Affinity("zone", "group"),
        AntiAffinity("rack", "group"),
        Spread("zone", 2, "group"),
        Spread("node", 1, "user"),
    ],
)
def test_rules_hold_at_every_moment(rule: Filter) -> None:
    """Random jobs with random ends: whoever starts keeps to the rule at its start, and everyone ends."""
    rng = np.random.default_rng(7)
    count = 60
    jobs = pl.DataFrame(
        {
            "submit_s": np.sort(rng.integers(0, 40, count)).astype(float),
            "run_s": rng.integers(1, 20, count).astype(float),
            "group": rng.choice(["a", "b", ""], count),
            "user": rng.choice(["u", "v"], count),
        }
    ).with_columns(pl.col("group").replace("", None))
    twin = twin_of(jobs, zones(2, 3, 1), rule, fills=True)
    twin.run()
    assert (twin.columns["end_s"] >= 0).all()
    starts = sorted(twin.history, key=lambda row: (row[3], row[0]))
    for place, (job, m, _, start_s, _) in enumerate(starts):
        before = [
            row for row in starts if row[3] < start_s < row[4] or (row in starts[:place] and row[3] == start_s < row[4])
        ]
        assert _keeps(twin, rule, job, m, before)


def _keeps(twin: JobTwin, rule: Filter, job: int, m: int, before: list[tuple[int, int, int, float, float]]) -> bool:
    assert isinstance(rule, (Affinity, AntiAffinity, Spread))
    number, names = twin.workload.owners(rule.by)
    if not names[number[job]]:
        return True
    where = twin.machines.domains[rule.domain]
    near = [int(where[row[1]]) for row in before if number[row[0]] == number[job]]
    if isinstance(rule, Affinity):
        # those who start at one moment may have done so in another order: any of them may have been the first
        return not near or int(where[m]) in near or len(near) < 4
    if isinstance(rule, AntiAffinity):
        return int(where[m]) not in near
    counts = [near.count(domain) for domain in range(int(where.max()) + 1)]
    return counts[int(where[m])] < min(counts) + rule.max_skew + 1


@pytest.mark.parametrize("max_skew", [0, -1, 1.5, float("nan"), "two"])
def test_a_skew_below_one_is_refused(max_skew: int) -> None:
    """Nothing could ever start."""
    with pytest.raises(UsageError, match=r"max_skew=.* must be a whole number of at least 1"):
        Spread(max_skew=max_skew)


@pytest.mark.parametrize("kind", [Affinity, AntiAffinity, Spread])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"domain": "pool"}, "domain='pool' is unknown; known: zone, rack, node"),
        ({"by": "queue"}, "by='queue' is unknown; known: user, group"),
    ],
)
def test_unknown_words_are_refused_when_they_are_told(kind: type, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        kind(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"users": "alice"}, r"users='alice' must be a list: users=\[alice\]"),
        ({"machines": "node-0"}, r"machines='node-0' must be a list: machines=\[node-0\]"),
        ({"machines": None}, "machines=None must be a list"),
        ({"users": [7]}, r"users holds 7, which is no name: put it in quotes, users=\['7'\]"),
        ({"time_s": -1.0}, r"time_s=-1\.0 must be a time of 0 s or more"),
        ({"time_s": float("nan")}, "time_s=nan"),
        ({"time_s": float("inf")}, "time_s=inf"),
        ({"duration_s": -1.0}, r"duration_s=-1\.0"),
        ({"duration_s": float("nan")}, "duration_s=nan"),
    ],
)
def test_a_reservation_that_cannot_be_meant_is_refused(options: dict, message: str) -> None:
    """A text would be taken for its letters; a time that is none would reserve nothing."""
    told = {"time_s": 10.0, "duration_s": 20.0, "machines": ("node-0",), "users": ("alice",)}
    with pytest.raises(UsageError, match=message):
        Reservation(**{**told, **options})


def test_a_reservation_may_last_for_ever() -> None:
    """Others never get these machines again."""
    twin = twin_of(tasks(1), machine.uniform(1, 1), Reservation(10.0, np.inf, ("node-0",), ()))
    twin.run()
    assert twin.columns["start_s"].tolist() == [-1.0]


@pytest.mark.parametrize("by", get_args(Relation))
def test_the_reason_speaks_of_the_right_owner(by: Relation) -> None:
    names = [kind(by=by).name for kind in (Affinity, AntiAffinity, Spread)]
    assert names == [f"have none of its {by} near", f"have one of its {by} near", f"hold too many of its {by}"]
    jobs = tasks(2).with_columns(user=pl.lit("u"))
    twin = twin_of(jobs, machine.uniform(1, 4), AntiAffinity(by=by))
    twin.run(1.0)
    assert f"have one of its {by} near" in why_waiting(twin, 1)


@pytest.mark.parametrize("kind", [Affinity, AntiAffinity, Spread])
def test_a_configuration_and_its_class_have_the_same_defaults(kind: type) -> None:
    """Whoever writes a rule in Python gets what the verb composes."""
    place = Path(__file__).resolve().parents[3] / "conf" / "filters"
    told = [rule for path in sorted(place.glob("*.yaml")) for rule in OmegaConf.load(path).values()]
    mine = [dict(rule) for rule in told if rule["_target_"].endswith(f".{kind.__name__}")]
    assert len(mine) == 1
    del mine[0]["_target_"]
    assert mine[0] == {field.name: field.default for field in fields(kind) if field.name != "sees_residents"}


@pytest.mark.parametrize("by", ["group", "queue"])
def test_an_array_runs_only_so_many_tasks_at_a_time(by: str) -> None:
    """Two of five at a time; tasks of no array are not bounded."""
    jobs = pl.concat([tasks(5, 10.0), tasks(5, 10.0, None)]).with_columns(queue=pl.col("group"))
    rule = Quota(jobs=2, by="group" if by == "group" else "queue")
    twin = twin_of(jobs, machine.uniform(4, 4), admission=(rule,))
    twin.run(1.0)
    assert why_waiting(twin, 2) == f"number 1 in the queue; the quota of its {by} keeps it from starting"
    twin.run()
    assert twin.columns["start_s"].tolist() == [0.0, 0.0, 10.0, 10.0, 20.0, *itertools.repeat(0.0, 5)]


def test_filters_and_strictness() -> None:
    """A head that a filter keeps out blocks those behind it, as one without room does."""
    jobs = pl.DataFrame({"submit_s": [0.0, 0.0, 1.0], "run_s": [10.0, 10.0, 1.0], "group": ["a", "a", "b"]})
    greedy = twin_of(jobs, machine.uniform(1, 4), AntiAffinity("node", "group"))
    strict = JobTwin(
        greedy.workload, greedy.machines, Scheduler(orders.Fcfs(), Strict(), filters=(AntiAffinity("node", "group"),))
    )
    for twin, start_s in ((greedy, 1.0), (strict, 10.0)):
        twin.run()
        assert twin.columns["start_s"].tolist() == [0.0, 10.0, start_s]
