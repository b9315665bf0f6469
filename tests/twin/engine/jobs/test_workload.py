"""Jobs as arrays: what was asked, where it may run, and why some never can."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from twin.engine.jobs import machines as machine
from twin.engine.jobs import workload
from twin.engine.jobs.machines import CPU, GPU, MEMORY, Machines
from twin.engine.jobs.workload import Workload, accepts
from twin.errors import SimulationError, TraceError, UsageError
from twin.trace import tables
from twin.trace.trace import Trace, TraceInfo

INFO = TraceInfo("test", "made by a test", "none", "0" * 64)


def trace_of(*rows: dict, edges: tuple[tuple[str, str], ...] = ()) -> Trace:
    """Jobs "0", "1", ... of a core and a second each, but for what is told."""
    full = [{"job": str(i), "submit_s": 0.0, "run_s": 1.0, "cpu_cores": 1.0, **row} for i, row in enumerate(rows)]
    dependencies = pl.DataFrame(edges, schema={"job": pl.String, "parent": pl.String}, orient="row")
    jobs = tables.conform(pl.DataFrame(full, infer_schema_length=None), "jobs", "test")
    return Trace(INFO, {"jobs": jobs, "dependencies": dependencies})


def load(*rows: dict, machines: Machines | None = None, edges: tuple = (), **options: float) -> Workload:
    return workload.of(trace_of(*rows, edges=edges), machines or machine.uniform(2, 4, 8, 2), **options)


def nodes(*rows: dict) -> Machines:
    full = [{"node": f"n{i}", "pool": "p", "cpu_cores": 4.0, "gpus": 0.0, **row} for i, row in enumerate(rows)]
    return machine.from_nodes(tables.conform(pl.DataFrame(full, infer_schema_length=None), "nodes", "test"))


def test_jobs_come_in_order_of_arrival() -> None:
    """Equal arrivals in recorded order; those without arrival last."""
    made = load({"submit_s": 5.0}, {"submit_s": None}, {"submit_s": 1.0}, {"submit_s": 5.0})
    assert made.names.to_list() == ["2", "0", "3", "1"]
    assert made.submit_s.tolist() == [1.0, 5.0, 5.0, np.inf]
    assert len(made) == 4


def test_sizes_are_in_small_units_and_unknown_ones_ask_for_nothing() -> None:
    """Instances stand beside the size of one; `cores` is of all together."""
    made = load(
        {"cpu_cores": 0.5, "memory_gib": 2.0, "gpus": 0.25, "instances": 3},
        {"cpu_cores": None, "memory_gib": None, "gpus": None, "instances": None},
    )
    assert made.request.tolist() == [[500_000, 2 << 20, 250_000], [0, 0, 0]]
    assert made.instances.tolist() == [3, 1]
    assert made.cores(np.arange(2)).tolist() == [1.5, 0.0]
    assert made.refused == ("", "")


def test_more_than_one_gpu_means_whole_ones() -> None:
    """1.5 becomes 2; shares below one and whole ones stay."""
    made = load(*({"gpus": gpus} for gpus in (0.3, 1.0, 1.5, 2.0)))
    assert made.request[:, GPU].tolist() == [300_000, 1_000_000, 2_000_000, 2_000_000]


def test_pieces_let_a_job_lie_on_several_machines() -> None:
    """5 cores in pieces of 2 are three pieces; memory is split between them; small jobs stay as they are."""
    made = load({"cpu_cores": 5.0, "memory_gib": 3.0}, {"cpu_cores": 1.0, "instances": 2}, piece_cores=2.0)
    assert made.instances.tolist() == [3, 2]
    assert made.request[:, CPU].tolist() == [2_000_000, 1_000_000]
    assert made.request[0, MEMORY] == 1 << 20
    assert made.refused == ("", "")


def test_pieces_do_not_multiply_gpus() -> None:
    """A job of 4 cores and 2 GPUs asks for 2 GPUs, however its cores are cut."""
    made = load({"cpu_cores": 4.0, "gpus": 2.0}, piece_cores=2.0)
    assert (made.request[0] * made.instances[0])[GPU] == 2_000_000


@pytest.mark.parametrize("piece_cores", [0.0, -1.0, 1e-9, float("nan"), float("inf"), 1e30])
def test_pieces_must_be_of_some_size(piece_cores: float) -> None:
    """Nothing, less than nothing, less than the smallest unit, no number, and more than can be counted."""
    with pytest.raises(UsageError, match=r"piece_cores=.* must be a number of cores"):
        load({}, piece_cores=piece_cores)


def test_no_jobs_are_refused() -> None:
    """The trace is named."""
    with pytest.raises(SimulationError, match="'test' holds no jobs"):
        workload.of(Trace(INFO, {}), machine.uniform(1, 1))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"cpu_cores": 5.0}, "larger than any machine"),
        ({"memory_gib": 8.5}, "larger than any machine"),
        ({"gpus": 3.0}, "larger than any machine"),
        ({"instances": 9}, "together are too small"),
        ({"cpu_cores": 3.0, "instances": 3}, "together are too small"),
        ({"gpu_model": "H100"}, "labels, the GPU model"),
        ({"requires": "disk=ssd"}, "labels"),
        ({"requires": "zone=x,zone!=x"}, "labels"),
        ({"run_s": None}, "how long it ran"),
        ({"submit_s": None}, "when it arrived"),
        ({"instances": 0}, "no instance"),
    ],
)
def test_who_can_never_run_is_refused_with_a_reason(row: dict, reason: str) -> None:
    """Two machines of 4 cores, 8 GiB and 2 GPUs; the other job is not touched."""
    made = load(row, {})
    refused = dict(zip(made.names, made.refused, strict=True))
    assert reason in refused["0"]
    assert not refused["1"]


@pytest.mark.parametrize(
    ("share", "instances", "fits"), [(0.6, 4, True), (0.6, 5, False), (0.4, 8, True), (0.4, 9, False)]
)
def test_shares_that_fit_no_device_are_refused(share: float, instances: int, fits: bool) -> None:
    """Four devices take one share of 0.6 or two of 0.4 each: what is left over on each adds up to nothing."""
    assert (not load({"gpus": share, "cpu_cores": 0.0, "instances": instances}).refused[0]) == fits


def test_a_share_of_a_machine_without_a_whole_gpu_is_refused() -> None:
    """Half a GPU is no device; whoever could never start is told so."""
    made = load({"gpus": 0.5}, machines=nodes({"gpus": 0.5}))
    assert made.refused[0]


def test_asking_for_no_memory_is_no_reason_to_refuse() -> None:
    """Zero memory fits anywhere, on machines without memory too; some memory does not."""
    made = load({"memory_gib": 0.0}, {"memory_gib": 0.1}, machines=nodes({"memory_gib": 0.0}))
    assert made.refused[0] == ""
    assert "larger than any machine" in made.refused[1]


def test_a_missing_run_time_can_be_given() -> None:
    """Only where none was recorded."""
    made = load({"run_s": None}, {"run_s": 3.0}, missing_run_s=7.0)
    assert made.run_s.tolist() == [7.0, 3.0]
    assert made.refused == ("", "")


@pytest.mark.parametrize("missing_run_s", [-1.0, float("nan"), float("inf"), "long"])
def test_a_missing_run_time_must_be_a_time(missing_run_s: float) -> None:
    """Else jobs would end before they start, or never."""
    with pytest.raises(UsageError, match=r"missing_run_s=.* must be a time of 0 s or more"):
        load({"run_s": None}, missing_run_s=missing_run_s)
    assert load({"run_s": None}, missing_run_s=0.0).run_s.tolist() == [0.0]


@pytest.mark.parametrize("missing_s", [-1.0, float("nan"), "long"])
def test_a_missing_estimate_must_be_a_time(missing_s: float) -> None:
    """Else the order of the queue would mean nothing."""
    with pytest.raises(UsageError, match=r"missing_s=.* must be a time of 0 s or more"):
        workload.estimated(load({"limit_s": None}), missing_s)


def test_owners_are_users_groups_and_queues() -> None:
    """Numbers and names of each kind; nothing else owns jobs."""
    made = load({"user": "u", "group": "g", "queue": "q"}, {"user": "u", "queue": "r"})
    for by, number, names in (("user", [0, 0], ("u",)), ("group", [0, 1], ("g", "")), ("queue", [0, 1], ("q", "r"))):
        found, told = made.owners(by)  # pyright: ignore[reportArgumentType]
        assert (found.tolist(), told) == (number, names)
    with pytest.raises(UsageError, match="by='zone' is unknown; known: user, group, queue"):
        made.owners("zone")  # pyright: ignore[reportArgumentType]


def test_whoever_gave_up_waiting_would_have_run_as_long_as_asked() -> None:
    """Cancelled, never started, with an end: then it gave up. One that started did not."""
    gave_up = {"status": "cancelled", "end_s": 9.0, "run_s": None, "limit_s": 60.0}
    made = load(gave_up, {**gave_up, "start_s": 1.0, "run_s": 8.0}, {**gave_up, "limit_s": None}, {"end_s": 9.0})
    assert made.cancel_s.tolist() == [9.0, np.inf, 9.0, np.inf]
    assert made.run_s.tolist() == [60.0, 8.0, np.inf, 1.0]
    assert "how long it ran" in made.refused[2]


def test_estimates_fill_only_what_is_missing() -> None:
    """The true run time, or one number for all."""
    made = load({"limit_s": 5.0, "run_s": 9.0}, {"limit_s": None, "run_s": 9.0})
    assert made.limit_s.tolist() == [5.0, np.inf]
    assert workload.estimated(made).limit_s.tolist() == [5.0, 9.0]
    assert workload.estimated(made, 3.0).limit_s.tolist() == [5.0, 3.0]


def test_dependencies_are_counted_and_listed() -> None:
    """By number in order of arrival; a parent named twice counts as it stands."""
    made = load({"submit_s": 2.0}, {"submit_s": 1.0}, {}, edges=(("0", "1"), ("0", "2"), ("1", "2")))
    assert made.names.to_list() == ["2", "1", "0"]
    assert made.parents.tolist() == [0, 1, 2]
    begin, children = made.children
    assert begin.tolist() == [0, 2, 3, 3]
    assert children.tolist() == [1, 2, 2]


def test_circles_of_dependencies_are_refused_at_load() -> None:
    """By itself, and by way of others; strangers too."""
    with pytest.raises(TraceError, match="waits for itself"):
        trace_of({}, {}, {}, edges=(("0", "1"), ("1", "2"), ("2", "0")))
    with pytest.raises(TraceError, match="waits for itself"):
        trace_of({}, edges=(("0", "0"),))
    with pytest.raises(TraceError, match="not in the table 'jobs'"):
        trace_of({}, edges=(("0", "x"),))


def test_users_and_queues_are_kept() -> None:
    """Users by number; whoever is not told is one user of no name."""
    made = load({"user": "b"}, {"user": None}, {"user": "b", "queue": "q"})
    assert [made.users[u] for u in made.user] == ["b", "", "b"]
    assert made.queue.to_list() == [None, None, "q"]


LABELS = {"pool": "p", "zone": "x", "gpu_model": "A100", "tier": "gold", "ssd": ""}


@pytest.mark.parametrize(
    ("wish", "taints", "fits"),
    [
        ({}, (), True),
        ({"gpu_model": "A100"}, (), True),
        ({"gpu_model": "H100|A100"}, (), True),
        ({"gpu_model": "A10"}, (), False),
        ({"requires": "tier=gold"}, (), True),
        ({"requires": "tier=silver|gold,zone=x"}, (), True),
        ({"requires": "tier=gold,zone=y"}, (), False),
        ({"requires": "zone!=y"}, (), True),
        ({"requires": "zone!=x|y"}, (), False),
        ({"requires": "colour=red"}, (), False),
        ({"requires": "colour!=red"}, (), True),
        ({"requires": "pool=p"}, (), True),
        ({"requires": "ssd"}, (), True),
        ({"requires": "nvme"}, (), False),
        ({}, ("spot=yes",), False),
        ({"tolerates": "spot"}, ("spot=yes",), True),
        ({"tolerates": "spot=yes"}, ("spot=yes",), True),
        ({"tolerates": "spot=no"}, ("spot=yes",), False),
        ({"tolerates": "spot"}, ("spot=yes", "gpu"), False),
        ({"tolerates": "spot,gpu"}, ("spot=yes", "gpu"), True),
    ],
)
def test_labels_and_taints(wish: dict[str, str], taints: tuple[str, ...], fits: bool) -> None:
    """Allowed values with | between them, `!=` forbids, every taint must be tolerated, a bare key must be there."""
    full = {"gpu_model": "", "requires": "", "tolerates": "", **wish}
    assert accepts(LABELS, frozenset(taints), full) == fits


def test_classes_say_which_kinds_a_job_accepts() -> None:
    """Jobs of equal wishes share a class."""
    machines = nodes({"zone": "x"}, {"zone": "y"}, {"zone": "y", "taints": "spot"})
    made = load({}, {"requires": "zone=y"}, {"requires": "zone=y", "tolerates": "spot"}, {}, machines=machines)
    assert made.job_class[0] == made.job_class[3]
    assert made.fits_kind[made.job_class].tolist() == [
        [True, True, False], [False, True, False], [False, True, True], [True, True, False],
    ]  # fmt: skip
