"""What became of the jobs: the tables, and why somebody waits, in cases made by hand."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from twin.engine.jobs import explain, outcomes, workload
from twin.engine.jobs import machines as machine
from twin.engine.jobs.machines import Machines
from twin.engine.jobs.scheduler import Outage, Scheduler
from twin.engine.jobs.simulator import JobTwin
from twin.engine.scheduling.backfill import Easy, Greedy, Strict
from twin.engine.scheduling.orders import Fcfs
from twin.trace import tables
from twin.trace.trace import Trace, TraceInfo

FCFS = Scheduler(Fcfs(), Strict())
FILTERS = [
    "have other labels, GPU models or taints",
    "are closed",
    "have too few free cores",
    "have too little free memory",
    "have too few free GPUs",
    "have no GPU with a large enough share free",
    "has room",
]


def twin_of(
    *rows: dict,
    machines: Machines,
    scheduler: Scheduler = FCFS,
    outages: Sequence[Outage] = (),
    edges: Sequence[tuple[str, str]] = (),
    until_s: float | None = None,
) -> JobTwin:
    """Jobs "0", "1", ... of a core and 10 s at second 0, but for what is told."""
    full = [{"job": str(i), "submit_s": 0.0, "run_s": 10.0, "cpu_cores": 1.0, **row} for i, row in enumerate(rows)]
    jobs = tables.conform(pl.DataFrame(full, infer_schema_length=None), "jobs", "test")
    dependencies = pl.DataFrame(list(edges), schema={"job": pl.String, "parent": pl.String}, orient="row")
    trace = Trace(TraceInfo("test", "by hand", "none", "0" * 64), {"jobs": jobs, "dependencies": dependencies})
    load = workload.estimated(workload.of(trace, machines))
    twin = JobTwin(load, machines, scheduler, outages=outages)
    twin.run(until_s)
    return twin


def nodes(*rows: dict) -> Machines:
    full = [
        {"node": f"n{i}", "pool": "p", "cpu_cores": 4.0, "memory_gib": 8.0, "gpus": 0.0, **row}
        for i, row in enumerate(rows)
    ]
    return machine.from_nodes(tables.conform(pl.DataFrame(full, infer_schema_length=None), "nodes", "test"))


def counted(twin: JobTwin, job: int) -> list[int]:
    found = explain.rejections(twin, job)
    assert list(found) == FILTERS
    assert sum(found.values()) == len(twin.machines)
    return list(found.values())


def test_one_row_for_each_job_whatever_became_of_it() -> None:
    """Every state, with its times; what never happened is null."""
    twin = twin_of(
        {"run_s": 4.0, "user": "u", "queue": "q", "deadline_s": 9.0},
        {"limit_s": 5.0},
        {"cpu_cores": 3.0},
        {"submit_s": 1.0, "status": "cancelled", "end_s": 3.0},
        {"submit_s": 1.0, "run_s": 90.0, "limit_s": 100.0},
        {"submit_s": 2.0},
        {"submit_s": 2.0},
        {"submit_s": 40.0},
        machines=machine.uniform(1, 1, 2),
        scheduler=Scheduler(Fcfs(), Strict(), kill=True),
        edges=[("6", "4")],
        until_s=20.0,
    )
    frame = outcomes.outcomes(twin)
    assert frame["job"].to_list() == [str(i) for i in range(8)]
    assert frame["state"].to_list() == [
        "done", "killed", "refused", "cancelled", "running", "waiting", "held", "expected",
    ]  # fmt: skip
    assert frame["start_s"].to_list() == [0.0, 4.0, None, None, 9.0, None, None, None]
    assert frame["end_s"].to_list() == [4.0, 9.0, None, 3.0, None, None, None, None]
    assert frame["wait_s"].to_list() == [0.0, 4.0, None, None, 8.0, None, None, None]
    assert frame["run_s"].to_list() == [4.0, 5.0, 0.0, 0.0, 11.0, 0.0, 0.0, 0.0]
    assert frame["attempts"].to_list() == [1, 1, 0, 0, 1, 0, 0, 0]
    assert frame["reason"][0] is None
    assert "larger than any machine" in frame["reason"][2]
    assert frame["reason"][5] == "number 1 in the queue; of 1 machines 1 have too few free cores"
    assert frame["reason"][6] == "waits for 1 other jobs to be done"
    assert frame.row(0, named=True)["user"] == "u"
    assert frame.row(0, named=True)["queue"] == "q"
    assert frame["deadline_s"].to_list()[:2] == [9.0, None]


def test_tables_are_as_their_schemas_say() -> None:
    """Columns, types and order, also where nothing ran yet."""
    for until_s in (0.0, 5.0, None):
        twin = twin_of({"submit_s": 1.0}, {"submit_s": 2.0}, machines=machine.uniform(1, 1), until_s=until_s)
        for name, frame in (("outcomes", outcomes.outcomes(twin)), ("placements", outcomes.placements(twin))):
            assert frame.columns == [column.name for column in tables.schema(name)]
            assert frame.dtypes == [column.dtype for column in tables.schema(name)]
            assert_frame_equal(tables.conform(frame, name, "test"), frame)
            for column in tables.schema(name):
                assert not (column.required and frame[column.name].null_count())


def test_a_job_without_arrival_is_told_of_too() -> None:
    """No job is lost: it is refused, with the reason."""
    frame = outcomes.outcomes(twin_of({}, {"submit_s": None}, machines=machine.uniform(1, 1)))
    assert frame["state"].to_list() == ["done", "refused"]
    assert "when it arrived" in frame["reason"][1]


def test_sizes_are_of_all_instances_together() -> None:
    """Three instances of half a core, 2 GiB and a quarter of a GPU."""
    twin = twin_of(
        {"cpu_cores": 0.5, "memory_gib": 2.0, "gpus": 0.25, "instances": 3}, machines=machine.uniform(1, 4, 8, 1)
    )
    for frame in (outcomes.outcomes(twin), outcomes.placements(twin)):
        assert frame.select("cpu_cores", "memory_gib", "gpus").row(0) == (1.5, 6.0, 0.75)


def test_memory_that_nobody_told_stays_unknown() -> None:
    """As the schemas say: null, not zero."""
    twin = twin_of({"memory_gib": None}, {"memory_gib": 0.5}, machines=machine.uniform(1, 4, 8))
    assert outcomes.outcomes(twin)["memory_gib"].to_list() == [None, 0.5]
    assert outcomes.placements(twin)["memory_gib"].to_list() == [None, 0.5]


def test_placements_hold_every_attempt_on_every_machine() -> None:
    """A gang over two machines that one of them fails at 4 s, and what runs still ends now."""
    twin = twin_of(
        {"instances": 3, "cpu_cores": 2.0},
        machines=machine.uniform(2, 4),
        outages=[Outage(4.0, 3.0, (1,))],
        until_s=9.0,
    )
    frame = outcomes.placements(twin)
    assert frame.select("job", "node", "start_s", "end_s", "instances", "cpu_cores").rows() == [
        ("0", "node-0", 0.0, 4.0, 2, 4.0),
        ("0", "node-1", 0.0, 4.0, 1, 2.0),
        ("0", "node-0", 7.0, 9.0, 2, 4.0),
        ("0", "node-1", 7.0, 9.0, 1, 2.0),
    ]
    told = outcomes.outcomes(twin).row(0, named=True)
    assert (told["state"], told["attempts"], told["start_s"], told["end_s"]) == ("running", 2, 7.0, None)
    assert (told["wait_s"], told["run_s"]) == (0.0, 6.0)


def test_each_filter_counts_the_machines_that_it_rejects_first() -> None:
    """One machine for each filter; a machine is counted once, by the first filter that it does not pass."""
    machines = nodes(
        {"zone": "y", "gpus": 1.0},
        {"gpus": 1.0},
        {"cpu_cores": 0.5, "memory_gib": 0.5},
        {"memory_gib": 0.5},
        {},
        {"gpus": 1.0},
    )
    wish = {"cpu_cores": 1.0, "memory_gib": 1.0, "gpus": 0.6, "requires": "zone!=y"}
    hold = {"cpu_cores": 0.0, "gpus": 0.4, "requires": "zone!=y"}
    twin = twin_of(hold, wish, wish, machines=machines, outages=[Outage(0.0, 99.0, (1,))], until_s=1.0)
    assert twin.held[0] == ((5, 1, (0,)),)
    assert twin.held[1] == ((5, 1, (0,)),)
    assert counted(twin, 2) == [1, 1, 1, 1, 2, 0, 0]
    assert explain.why_waiting(twin, 2) == (
        "number 1 in the queue; of 6 machines 1 have other labels, GPU models or taints, 1 are closed, "
        "1 have too few free cores, 1 have too little free memory, 2 have too few free GPUs"
    )


def test_shares_on_different_devices_are_no_larger_share() -> None:
    """0.4 is left on each of two devices: 0.8 in all, but none has room for 0.6."""
    share = {"gpus": 0.6, "cpu_cores": 0.0}
    twin = twin_of(share, share, share, machines=nodes({"gpus": 2.0}), until_s=1.0)
    assert counted(twin, 2) == [0, 0, 0, 0, 0, 1, 0]
    assert "1 have no GPU with a large enough share free" in explain.why_waiting(twin, 2)


def test_whoever_has_room_waits_for_those_ahead() -> None:
    """Strictly nobody overtakes; greedily it has started and waits for nothing."""
    jobs = ({"cpu_cores": 3.0}, {"cpu_cores": 4.0}, {"cpu_cores": 1.0})
    strict = twin_of(*jobs, machines=nodes({}), until_s=1.0)
    assert explain.why_waiting(strict, 1) == "number 1 in the queue; of 1 machines 1 have too few free cores"
    assert counted(strict, 2)[-1] == 1
    assert explain.why_waiting(strict, 2) == "number 2 in the queue, behind 1 that go first"
    greedy = twin_of(*jobs, machines=nodes({}), scheduler=Scheduler(Fcfs(), Greedy()), until_s=1.0)
    assert explain.why_waiting(greedy, 2) == ""


def test_a_gang_with_room_for_a_part_is_not_said_to_wait_for_nobody() -> None:
    """The first in the queue has nobody ahead: what it lacks is room for all of its instances."""
    twin = twin_of({"cpu_cores": 4.0}, {"cpu_cores": 4.0, "instances": 2}, machines=nodes({}, {}), until_s=1.0)
    reason = explain.why_waiting(twin, 1)
    assert "behind 0" not in reason
    assert "1 have too few free cores" in reason


@pytest.mark.parametrize("backfill", [Strict(), Greedy(), Easy()])
def test_whoever_does_not_wait_has_no_reason(backfill: Strict | Greedy | Easy) -> None:
    """Done, running and expected jobs."""
    twin = twin_of(
        {"run_s": 1.0}, {}, {"submit_s": 9.0}, machines=nodes({}), scheduler=Scheduler(Fcfs(), backfill), until_s=2.0
    )
    assert [explain.why_waiting(twin, job) for job in range(3)] == ["", "", ""]
    assert outcomes.outcomes(twin)["state"].to_list() == ["done", "running", "expected"]


def test_asking_changes_nothing() -> None:
    """A twin that was asked goes on as one that was not."""
    jobs = [{"cpu_cores": 1.0 + i % 4, "submit_s": float(i)} for i in range(12)]
    asked, silent = (twin_of(*jobs, machines=nodes({}), until_s=7.0) for _ in range(2))
    outcomes.outcomes(asked)
    outcomes.placements(asked)
    asked.run()
    silent.run()
    assert_frame_equal(outcomes.placements(asked), outcomes.placements(silent))
    assert_frame_equal(outcomes.outcomes(asked), outcomes.outcomes(silent))
