"""Machines as arrays: sizes in small units, labels, taints, pools and power."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from twin.engine.jobs import machines as machine
from twin.engine.jobs.machines import CPU, GPU, MEMORY, UNITS, UNLIMITED, Machines, Power
from twin.errors import SimulationError, UsageError
from twin.trace import tables
from twin.trace.trace import Trace, TraceInfo

INFO = TraceInfo("test", "made by a test", "none", "0" * 64)


def nodes_of(*rows: dict) -> pl.DataFrame:
    full = [{"node": f"n{i}", "pool": "p", "cpu_cores": 4.0, "gpus": 0.0, **row} for i, row in enumerate(rows)]
    return tables.conform(pl.DataFrame(full, infer_schema_length=None), "nodes", "test")


def made(*rows: dict, **power: Power) -> Machines:
    return machine.from_nodes(nodes_of(*rows), power=power)


def test_uniform_machines_are_equal() -> None:
    """Names by number, one pool, one kind, memory without bound where none is told."""
    machines = machine.uniform(3, 2.5, gpus=1.0, name="w")
    assert len(machines) == 3
    assert machines.names == ("w-0", "w-1", "w-2")
    assert machines.pools == ("w",)
    assert machines.kind.tolist() == [0, 0, 0]
    assert (machines.capacity == [2_500_000, UNLIMITED, 1_000_000]).all()
    assert machines.domains["node"].tolist() == [0, 1, 2]


def test_amounts_are_whole_numbers_that_come_back() -> None:
    """A tenth of a core is exact in small units: ten of them are a core."""
    values = pl.Series([0.1, 0.3, 1e-6, 4.0])
    for resource in (CPU, GPU):
        assert machine.small(values, resource).tolist() == [100_000, 300_000, 1, 4_000_000]
    assert 10 * machine.small(pl.Series([0.1]), CPU)[0] == UNITS[CPU]
    assert machine.small(pl.Series([1.0, 0.5]), MEMORY).tolist() == [1 << 20, 1 << 19]
    assert machine.small(pl.Series([None, 1e30], dtype=pl.Float64), MEMORY).tolist() == [UNLIMITED, UNLIMITED]


def test_total_is_unknown_where_one_size_is_unknown() -> None:
    """Sums in cores, GiB and GPUs; NaN is not zero."""
    total = made({"memory_gib": 8.0, "gpus": 2.0}, {"memory_gib": None}).total()
    assert total[CPU] == 8.0
    assert np.isnan(total[MEMORY])
    assert total[GPU] == 2.0
    assert made({"memory_gib": 8.5}, {"memory_gib": 1.5}).total().tolist() == [8.0, 10.0, 0.0]


def test_a_node_whose_gpus_nobody_told_has_none() -> None:
    """Null is not a GPU without end."""
    assert made({"gpus": None}, {"gpus": 1.0}).total()[GPU] == 1.0


def test_machines_with_the_same_labels_are_of_one_kind() -> None:
    """A label set holds pool, zone, rack, GPU model and recorded labels; taints tell kinds apart too."""
    machines = made(
        {"zone": "a", "labels": "tier=gold,ssd"},
        {"zone": "a", "labels": "ssd, tier=gold"},
        {"zone": "a", "labels": "tier=gold,ssd", "taints": "spot=yes,gpu"},
        {"zone": "b", "gpu_model": "T4"},
    )
    assert machines.kind.tolist() == [0, 0, 1, 2]
    assert machines.kinds[0] == {"pool": "p", "zone": "a", "tier": "gold", "ssd": ""}
    assert machines.taints == (frozenset(), frozenset({"spot=yes", "gpu"}), frozenset())
    assert machines.kinds[2]["gpu_model"] == "T4"


def test_a_rack_is_inside_its_zone() -> None:
    """Racks of one name in two zones are two."""
    machines = made({"zone": "a", "rack": "1"}, {"zone": "b", "rack": "1"}, {"zone": "a", "rack": "1"})
    assert machines.domains["zone"].tolist() == [0, 1, 0]
    assert machines.domains["rack"].tolist() == [0, 1, 0]


def test_pooling_adds_up_each_pool() -> None:
    """One machine for each pool, in order; a sum with an unknown part is unknown."""
    nodes = nodes_of(
        {"memory_gib": 8.0, "gpus": 1.0},
        {"pool": "q", "memory_gib": None},
        {"cpu_cores": 2.0, "memory_gib": 1.0, "gpus": 2.0},
        {"pool": "q", "memory_gib": 4.0},
    )
    machines = machine.of(Trace(INFO, {"nodes": nodes}), pooled=True)
    assert machines.names == machines.pools == ("p", "q")
    assert (machines.capacity[0] / UNITS).tolist() == [6.0, 9.0, 3.0]
    assert machines.capacity[1].tolist() == [8_000_000, UNLIMITED, 0]
    assert len(machine.of(Trace(INFO, {"nodes": nodes}))) == 4


@pytest.mark.parametrize(("column", "value"), [("gpu_model", "T4"), ("taints", "spot"), ("labels", "tier=gold")])
def test_pooling_keeps_what_all_machines_of_a_pool_share(column: str, value: str) -> None:
    """A pool of machines of one GPU model is a machine of that model; its taints keep away whom they kept away."""
    nodes = nodes_of({column: value}, {column: value})
    trace = Trace(INFO, {"nodes": nodes})
    whole, pooled = machine.of(trace), machine.of(trace, pooled=True)
    assert pooled.kinds == whole.kinds
    assert pooled.taints == whole.taints


def test_power_belongs_to_pools() -> None:
    """Given by pool, the default elsewhere; a trace's machines and equal ones take it alike."""
    own = Power(50.0, 400.0, "cubic")
    assert made({}, {"pool": "q"}, q=own).power == (Power(), own)
    trace = Trace(INFO, {"nodes": nodes_of({}, {"pool": "q"})})
    assert machine.of(trace, power={"p": own, "q": own}).power == (own, own)
    assert machine.of(trace, pooled=True, power={"p": own}).power == (own, Power())
    assert machine.uniform(2, 1, power=own).power == (own,)
    assert [Power(curve=c).exponent for c in ("linear", "sqrt", "square", "cubic")] == [1.0, 0.5, 2.0, 3.0]


def test_prices_are_by_machine_and_zero_where_untold() -> None:
    """USD per hour."""
    assert made({"price_usd_h": 1.5}, {}).price_usd_h.tolist() == [1.5, 0.0]


def test_what_cannot_be_is_refused_with_what_to_do() -> None:
    """No machines, unknown CPU, power of an unknown pool."""
    with pytest.raises(SimulationError, match="give machines"):
        machine.of(Trace(INFO, {}))
    with pytest.raises(SimulationError, match="no machines"):
        machine.from_nodes(nodes_of({}).clear())
    with pytest.raises(SimulationError, match=r"'n1' is unknown; leave it out or give"):
        made({}, {"cpu_cores": None})
    with pytest.raises(SimulationError, match=r"unknown pool 'x'; known: \['p'\]"):
        made({}, x=Power())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"idle_w": -1.0}, r"idle_w=-1\.0 must be a power of 0 W or more"),
        ({"full_w": float("nan")}, "full_w=nan must be a power"),
        ({"full_w": float("inf")}, "full_w=inf must be a power"),
        ({"idle_w": "much"}, "idle_w='much' must be a power"),
        ({"idle_w": 400}, r"idle_w=400 is above full_w=300.*give full_w at least as much"),
        ({"curve": "wild"}, r"'wild' is unknown; known: .*'linear'"),
        ({"curve": None}, "power curve None is unknown"),
        ({"curve": 0.0}, r"u\^0 cannot be: the power must be above 0"),
        ({"curve": float("nan")}, "must be above 0"),
    ],
)
def test_power_that_cannot_be_is_refused_when_it_is_told(options: dict, message: str) -> None:
    """Negative, no number, more without load than with it, and curves that nobody knows."""
    with pytest.raises(UsageError, match=message):
        Power(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "count=0 must be a whole number of machines, at least 1"),
        ({"count": 1.5}, r"count=1\.5"),
        ({"cpu_cores": -4.0}, r"cpu_cores=-4\.0 must be a size of 0 or more"),
        ({"cpu_cores": None}, "cpu_cores=None"),
        ({"memory_gib": float("nan")}, "memory_gib=nan"),
        ({"gpus": -1.0}, "gpus=-1"),
        ({"gpus": "two"}, "gpus='two'"),
    ],
)
def test_sizes_that_cannot_be_are_refused(options: dict, message: str) -> None:
    """Also of machines of which there is none; memory alone may be unknown."""
    with pytest.raises(UsageError, match=message):
        machine.uniform(**{"count": 2, "cpu_cores": 4.0, **options})


def test_power_at_the_edges_is_taken() -> None:
    """A machine may draw nothing, or the same whatever it does."""
    assert Power(0, 0).full_w == 0
    assert Power(200.0, 200.0, 0.7).exponent == 0.7


def test_pairs_are_read_as_they_stand() -> None:
    """Spaces around, empty pieces and bare keys."""
    assert machine.pairs(" a = 1 ,, b,c=x|y,") == {"a": "1", "b": "", "c": "x|y"}
    assert machine.pairs("") == {}
