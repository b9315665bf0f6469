"""What is free where: against a plain list of free amounts, whatever is taken and given back."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from twin.engine.jobs import machines as machine
from twin.engine.jobs import workload
from twin.engine.jobs.capacity import Capacity, Held, Ordering, place
from twin.engine.jobs.machines import CPU, GPU, MEMORY, WHOLE_GPU, Machines
from twin.engine.jobs.workload import Workload
from twin.trace import tables
from twin.trace.trace import Trace, TraceInfo

ORDERINGS: tuple[Ordering, ...] = (Capacity.lowest_first, Capacity.fullest_first, Capacity.emptiest_first)


def jobs_of(machines: Machines, *rows: dict) -> Workload:
    full = [{"job": str(i), "submit_s": 0.0, "run_s": 1.0, "cpu_cores": 1.0, **row} for i, row in enumerate(rows)]
    frame = tables.conform(pl.DataFrame(full, infer_schema_length=None), "jobs", "test")
    return workload.of(Trace(TraceInfo("test", "made by a test", "none", "0" * 64), {"jobs": frame}), machines)


def empty(machines: Machines, *rows: dict) -> Capacity:
    return Capacity(machines, jobs_of(machines, *rows))


def mixed(rng: np.random.Generator, *, odd: bool) -> Machines:
    """Machines of three shapes; odd sizes fall between the levels of the index."""
    cores = [3.7, 8.123, 16.0] if odd else [4.0, 8.0, 16.0]
    nodes = pl.DataFrame(
        [
            {
                "node": f"n{i}", "pool": "p", "cpu_cores": cores[rng.integers(3)],
                "memory_gib": [None, 8.0, 32.0][rng.integers(3)], "gpus": float(rng.integers(0, 4)),
                "zone": "xy"[rng.integers(2)],
            }
            for i in range(9)
        ],
        infer_schema_length=None,
    )  # fmt: skip
    return machine.from_nodes(tables.conform(nodes, "nodes", "test"))


def rows(rng: np.random.Generator, count: int, *, odd: bool) -> list[dict]:
    cores = [0.0, 0.3, 1.017, 2.0, 5.55] if odd else [0.0, 0.5, 1.0, 2.0, 8.0]
    return [
        {
            "cpu_cores": cores[rng.integers(5)],
            "memory_gib": [None, 0.7, 4.0][rng.integers(3)],
            "gpus": [0.0, 0.0, 0.3, 0.6, 1.0, 2.0][rng.integers(6)],
            "instances": int(rng.choice([1, 1, 2, 4])),
            "requires": [None, None, "zone=x"][rng.integers(3)],
        }
        for _ in range(count)
    ]


class Books:
    """The same, with a list for each machine and a search over all of them."""

    def __init__(self, machines: Machines, load: Workload) -> None:
        self.machines, self.load = machines, load
        self.free = [list(map(int, row)) for row in machines.capacity]
        self.devices = [[WHOLE_GPU] * int(row[GPU] // WHOLE_GPU) for row in machines.capacity]
        self.closed: set[int] = set()

    def fits(self, job: int, m: int) -> int:
        """Instances that go onto the machine, found by putting one after the other."""
        cpu, memory, gpu = map(int, self.load.request[job])
        free, devices = self.free[m].copy(), self.devices[m].copy()
        for count in range(int(self.load.instances[job])):
            whole = -(-gpu // WHOLE_GPU)
            roomy = [d for d, share in enumerate(devices) if share >= min(gpu, WHOLE_GPU)]
            if cpu > free[CPU] or memory > free[MEMORY] or len(roomy) < whole:
                return count
            free[CPU] -= cpu
            free[MEMORY] -= memory
            for d in roomy[:whole]:
                devices[d] -= min(gpu, WHOLE_GPU)
        return int(self.load.instances[job])

    def change(self, job: int, held: Held, sign: int) -> None:
        for m, instances, devices in held:
            for r in range(3):
                self.free[m][r] += sign * instances * int(self.load.request[job, r])
            for d in devices:
                self.devices[m][d] += sign * min(int(self.load.request[job, GPU]), WHOLE_GPU)

    def candidates(self, job: int) -> list[int]:
        fits = self.load.fits_kind[self.load.job_class[job]][self.machines.kind]
        return [m for m in range(len(self.machines)) if fits[m] and m not in self.closed and self.fits(job, m)]

    def ordered(self, job: int, ordering: Ordering) -> list[int]:
        sign = (0, 1, -1)[ORDERINGS.index(ordering)]
        return sorted(self.candidates(job), key=lambda m: (sign * self.free[m][CPU], m))


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("ordering", ORDERINGS, ids=lambda o: o.__name__)
def test_the_index_finds_what_a_search_finds(ordering: Ordering, odd: bool) -> None:
    """Same machines with room in the same order, same gangs, same books, in any row of takes, returns and closings."""
    refused = started = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        machines = mixed(rng, odd=odd)
        load = jobs_of(machines, *rows(rng, 60, odd=odd))
        capacity, books, held = Capacity(machines, load), Books(machines, load), {}
        for job in rng.permutation(60).tolist():
            for m in range(len(machines)):
                assert min(capacity.room(job, m), int(load.instances[job])) == books.fits(job, m)
            best = books.ordered(job, ordering)
            assert list(ordering(capacity, job, capacity.candidates(job))) == best
            got = place(capacity, job, ordering)
            enough = sum(books.fits(job, m) for m in best) >= load.instances[job]
            assert (got is not None) == enough
            refused, started = refused + (got is None), started + enough
            if got is not None:
                expected, left = [], int(load.instances[job])
                for m in best:
                    if left:
                        expected.append((m, min(left, books.fits(job, m))))
                        left -= expected[-1][1]
                assert [(m, n) for m, n, _ in got] == expected
                held[job] = got
                books.change(job, got, -1)
            if held and rng.random() < 0.5:
                leaver = list(held)[rng.integers(len(held))]
                books.change(leaver, held[leaver], 1)
                capacity.give_back(leaver, held.pop(leaver))
            m = int(rng.integers(len(machines)))
            if rng.random() < 0.2:
                (capacity.reopen if m in books.closed else capacity.close)(m)
                books.closed ^= {m}
            assert capacity.free.tolist() == books.free
            assert all(list(mine) == books.devices[i] for i, mine in capacity.devices.items())
            assert all(share >= 0 for mine in books.devices for share in mine)
        for job, mine in held.items():
            capacity.give_back(job, mine)
        assert np.array_equal(capacity.free, machines.capacity)
        assert set(capacity.devices) == {m for m, mine in enumerate(books.devices) if mine}
        assert all(set(mine) == {WHOLE_GPU} for mine in capacity.devices.values())
    assert refused > 20
    assert started > 100


def test_a_gang_without_room_for_all_takes_nothing() -> None:
    """Two machines of two cores take four, not five."""
    capacity = empty(machine.uniform(2, 2), {"instances": 4}, {"instances": 3}, {"instances": 2})
    assert place(capacity, 1, Capacity.lowest_first) == ((0, 2, ()), (1, 1, ()))
    before = capacity.free.copy()
    assert place(capacity, 2, Capacity.lowest_first) is None
    assert np.array_equal(capacity.free, before)


def test_shares_lie_on_one_device_and_whole_gpus_alone() -> None:
    """A share goes to the fullest device with room; two halves of two devices are no whole one."""
    rows_ = [{"gpus": share, "cpu_cores": 0.0} for share in (0.6, 0.3, 0.6, 1.0, 0.1)]
    capacity = empty(machine.uniform(1, 1, gpus=2.0), *rows_)
    assert place(capacity, 0, Capacity.lowest_first) == ((0, 1, (0,)),)
    assert place(capacity, 1, Capacity.lowest_first) == ((0, 1, (0,)),)
    assert capacity.devices[0] == (100_000, WHOLE_GPU)
    assert place(capacity, 2, Capacity.lowest_first) == ((0, 1, (1,)),)
    assert place(capacity, 3, Capacity.lowest_first) is None
    assert place(capacity, 4, Capacity.lowest_first) == ((0, 1, (0,)),)
    assert capacity.devices[0] == (0, 400_000)


def test_a_copy_is_independent() -> None:
    """What is taken in one is not taken in the other, in amounts, devices, levels and closings."""
    capacity = empty(machine.uniform(2, 4, 8, 1), {"cpu_cores": 4.0, "memory_gib": 1.0, "gpus": 1.0}, {})
    copy = capacity.copy()
    held = place(copy, 0, Capacity.fullest_first)
    copy.close(1)
    assert held == ((0, 1, (0,)),)
    assert np.array_equal(capacity.free, capacity.machines.capacity)
    assert capacity.devices == {0: (WHOLE_GPU,), 1: (WHOLE_GPU,)}
    assert list(capacity.fullest_first(1, capacity.candidates(1))) == [0, 1]
    assert list(copy.fullest_first(1, copy.candidates(1))) == []
    assert place(capacity, 0, Capacity.fullest_first) == held


def test_a_closed_machine_gives_nothing_and_takes_back() -> None:
    """Closing moves nothing that lies there."""
    capacity = empty(machine.uniform(1, 1), {}, {})
    held = place(capacity, 0, Capacity.lowest_first)
    assert held is not None
    capacity.close(0)
    capacity.give_back(0, held)
    assert place(capacity, 1, Capacity.lowest_first) is None
    capacity.reopen(0)
    assert place(capacity, 1, Capacity.lowest_first) == held


def test_no_more_than_is_spare_is_taken() -> None:
    """The bound holds on its machines alone, and shrinks by what was taken."""
    capacity = empty(machine.uniform(2, 4), {"instances": 5}, {"cpu_cores": 2.0})
    spare = {0: [1_000_000, 0, 0]}
    assert place(capacity, 0, Capacity.lowest_first, spare) == ((0, 1, ()), (1, 4, ()))
    assert spare == {0: [0, 0, 0]}
    assert place(capacity, 1, Capacity.lowest_first, spare) is None
    assert place(capacity, 1, Capacity.lowest_first) == ((0, 1, ()),)


def test_ten_tenths_fill_a_core_exactly() -> None:
    """No rounding is left behind."""
    capacity = empty(machine.uniform(1, 1), *({"cpu_cores": 0.1} for _ in range(11)))
    held = [place(capacity, job, Capacity.fullest_first) for job in range(11)]
    assert held == [((0, 1, ()),)] * 10 + [None]
    assert capacity.free[0, CPU] == 0
