"""The machines that jobs run on, as arrays: what each can hold, where it stands, what it costs and draws.

Amounts are whole numbers of small units, so that what is taken and given back adds up exactly: millionths of a core
and of a GPU, KiB of memory.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from twin.errors import SimulationError, UsageError
from twin.trace.trace import Trace

CPU, MEMORY, GPU = range(3)
RESOURCES = ("cpu", "memory", "gpu")
SIZES = ("cpu_cores", "memory_gib", "gpus")
"""The columns of trace tables that hold each resource."""
UNITS = np.array([1e6, float(1 << 20), 1e6])
"""Small units in a core, a GiB and a GPU."""
WHOLE_GPU = int(UNITS[GPU])
UNLIMITED = np.int64(1) << 62
"""Capacity of a resource whose size nobody published."""
ANY = ""
"""A label of a machine that is not told."""
LARGEST = float(np.finfo(np.float64).max)
"""The largest number that is not infinite."""
ABOVE_ZERO = float(np.nextafter(0.0, 1.0))
"""The smallest number above 0."""
NUMBERS = (int, float, np.integer, np.floating)


EXPONENTS = {"linear": 1.0, "sqrt": 0.5, "square": 2.0, "cubic": 3.0}
"""Power curves by name: the power of the used share."""


@dataclass(frozen=True, slots=True)
class Power:
    """Watts of a machine: `idle_w` when nothing runs, `full_w` at full load, and the curve between them.

    With u the used share of the processor: "linear" u, "sqrt" u^0.5, "square" u^2, "cubic" u^3, or that power of u.

    Raises:
        UsageError: a power is negative or no number, `idle_w` is above `full_w`, or the curve is unknown.
    """

    idle_w: float = 100.0
    full_w: float = 300.0
    curve: str | float = "linear"

    def __post_init__(self) -> None:
        for key, value in (("idle_w", self.idle_w), ("full_w", self.full_w)):
            check_number(key, value, "a power of 0 W or more")
        if self.idle_w > self.full_w:
            raise UsageError(
                f"idle_w={self.idle_w:g} is above full_w={self.full_w:g}: a machine draws most at full load; give "
                "full_w at least as much as idle_w"
            )
        if isinstance(self.curve, (int, float)):
            if not 0 < self.curve < np.inf:
                raise UsageError(f"a power curve of u^{self.curve:g} cannot be: the power must be above 0")
        elif not isinstance(self.curve, str) or self.curve not in EXPONENTS:
            raise UsageError(f"power curve {self.curve!r} is unknown; known: {sorted(EXPONENTS)}, or a power of u")

    @property
    def exponent(self) -> float:
        """The power of u."""
        return EXPONENTS[self.curve] if isinstance(self.curve, str) else float(self.curve)


# ---------------------------------------------------------------- what somebody configured


def check_number(
    key: str, value: object, wanted: str, *, least: float = 0.0, most: float = LARGEST, whole: bool = False
) -> None:
    """Raises UsageError, "key=value must be `wanted`", unless it is a number from `least` to `most`; NaN never is."""
    kinds = (int, np.integer) if whole else NUMBERS
    if not (isinstance(value, kinds) and least <= value <= most):
        raise UsageError(f"{key}={value!r} must be {wanted}")


def check_choice(key: str, value: object, known: Sequence[str]) -> None:
    """Raises UsageError unless it is one of the known words."""
    if value not in known:
        raise UsageError(f"{key}={value!r} is unknown; known: {', '.join(known)}")


def check_names(key: str, names: object) -> None:
    """Raises UsageError unless these are several names; a text would be taken for its letters."""
    if isinstance(names, str) or not isinstance(names, Collection):
        raise UsageError(f"{key}={names!r} must be a list: {key}=[{names}]")
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise UsageError(f"{key} holds {wrong[0]!r}, which is no name: put it in quotes, {key}=['{wrong[0]}']")


# ---------------------------------------------------------------- the machines


@dataclass(frozen=True, slots=True)
class Machines:
    """Machines in a fixed order; a pool is a group of equal ones.

    `capacity` is in small units. `kinds` are the distinct sets of labels, `kind` the set that each machine has; a
    label set holds whatever a job may ask for by name: pool, zone, rack, gpu_model and the recorded labels.
    """

    names: tuple[str, ...]
    capacity: NDArray[np.int64]  # [machines, resources]
    pools: tuple[str, ...]
    pool: NDArray[np.int32]  # [machines]
    domains: Mapping[str, NDArray[np.int32]]  # "zone", "rack", "node": number of the domain of each machine
    kinds: tuple[Mapping[str, str], ...]
    kind: NDArray[np.int32]  # [machines]
    taints: tuple[frozenset[str], ...]  # of each kind
    price_usd_h: NDArray[np.float64]  # [machines]
    power: tuple[Power, ...]  # of each pool

    def __len__(self) -> int:
        return len(self.names)

    def total(self) -> NDArray[np.float64]:
        """Cores, GiB and GPUs of all machines together [resources]; NaN where a size was not published."""
        known = np.where(self.capacity >= UNLIMITED, np.nan, self.capacity / UNITS)
        return known.sum(axis=0)


def uniform(
    count: int,
    cpu_cores: float,
    memory_gib: float | None = None,
    gpus: float = 0.0,
    *,
    name: str = "node",
    power: Power | None = None,
) -> Machines:
    """`count` equal machines.

    Raises:
        UsageError: there is none, or a size is negative or no number.
    """
    check_number("count", count, "a whole number of machines, at least 1", least=1, whole=True)
    for key, size in (("cpu_cores", cpu_cores), ("memory_gib", memory_gib), ("gpus", gpus)):
        if size is not None or key == "cpu_cores":
            check_number(key, size, "a size of 0 or more", most=np.inf)
    frame = pl.DataFrame(
        {"node": [f"{name}-{i}" for i in range(count)], "pool": [name] * count}, schema_overrides={"node": pl.String}
    ).with_columns(cpu_cores=pl.lit(cpu_cores), memory_gib=pl.lit(memory_gib, dtype=pl.Float64), gpus=pl.lit(gpus))
    return from_nodes(frame, power={name: power} if power else None)


def of(trace: Trace, *, pooled: bool = False, power: Mapping[str, Power] | None = None) -> Machines:
    """The machines that the trace recorded.

    Args:
        trace: holds `nodes`.
        pooled: one machine for each pool that holds everything of it, for logs in which a job's processors may lie
            anywhere and nobody recorded where.
        power: curves by pool; a pool without one has the default.

    Raises:
        SimulationError: the trace holds no machines, or one of unknown CPU capacity.
    """
    if not trace.nodes.height:
        raise SimulationError(f"{trace.info.name!r} holds no machines: give machines, e.g. machines=uniform")
    return from_nodes(merged(trace.nodes) if pooled else trace.nodes, power=power)


def merged(nodes: pl.DataFrame) -> pl.DataFrame:
    """One row for each pool, with the sum of what its machines hold and whatever label they all share.

    A size is null where that of any of them is.
    """
    sizes = [name for name in (*SIZES, "price_usd_h") if name in nodes.columns]
    marks = [name for name in ("gpu_model", "zone", "rack", "labels", "taints") if name in nodes.columns]
    whole = [pl.when(pl.col(name).is_not_null().all()).then(pl.col(name).sum()) for name in sizes]
    shared = [pl.when(pl.col(name).n_unique() == 1).then(pl.col(name).first()) for name in marks]
    grouped = nodes.group_by("pool", maintain_order=True)
    return grouped.agg(*whole, *shared).with_columns(node=pl.col("pool"))


def from_nodes(nodes: pl.DataFrame, *, power: Mapping[str, Power] | None = None) -> Machines:
    """Machines from rows of the canonical table `nodes`.

    Raises:
        SimulationError: there is none, one has no CPU, or `power` names an unknown pool.
    """
    if not nodes.height:
        raise SimulationError("there are no machines to run anything on")
    if nodes["cpu_cores"].null_count():
        name = nodes.filter(pl.col("cpu_cores").is_null())["node"][0]
        raise SimulationError(f"the CPU capacity of machine {name!r} is unknown; leave it out or give its cores")
    pools = tuple(nodes["pool"].unique(maintain_order=True))
    unknown = sorted(set(power or {}) - set(pools))
    if unknown:
        raise SimulationError(f"power names the unknown pool {unknown[0]!r}; known: {list(pools)}")
    # nobody would leave out GPUs, as one does an ample memory
    nodes = nodes.with_columns(gpus=_column(nodes, "gpus").fill_null(0.0))
    kinds, kind = _distinct(_labels(nodes))
    return Machines(
        names=tuple(nodes["node"]),
        capacity=np.column_stack(
            [small(_column(nodes, c), i) for i, c in enumerate(("cpu_cores", "memory_gib", "gpus"))]
        ),
        pools=pools,
        pool=_codes(nodes["pool"]),
        domains={
            "zone": _codes(_text(nodes, "zone")),
            "rack": _codes(_text(nodes, "zone") + "/" + _text(nodes, "rack")),
            "node": np.arange(nodes.height, dtype=np.int32),
        },
        kinds=tuple(labels for labels, _ in kinds),
        kind=kind,
        taints=tuple(taints for _, taints in kinds),
        price_usd_h=_column(nodes, "price_usd_h").fill_null(0.0).to_numpy(),
        power=tuple((power or {}).get(pool, Power()) for pool in pools),
    )


def small(values: pl.Series, resource: int) -> NDArray[np.int64]:
    """Amounts in small units; what is unknown is unlimited."""
    filled = (values.cast(pl.Float64) * UNITS[resource]).round().fill_null(float(UNLIMITED))
    return np.minimum(filled.to_numpy(), float(UNLIMITED)).astype(np.int64)


def _column(nodes: pl.DataFrame, name: str) -> pl.Series:
    return nodes[name] if name in nodes.columns else pl.Series(name, [None] * nodes.height, dtype=pl.Float64)


def _text(nodes: pl.DataFrame, name: str) -> pl.Series:
    found = nodes[name] if name in nodes.columns else pl.Series(name, [None] * nodes.height, dtype=pl.String)
    return found.cast(pl.String).fill_null(ANY)


def _codes(values: pl.Series) -> NDArray[np.int32]:
    number = {value: i for i, value in enumerate(values.unique(maintain_order=True))}
    return np.array([number[value] for value in values], dtype=np.int32)


def _labels(nodes: pl.DataFrame) -> list[tuple[dict[str, str], frozenset[str]]]:
    columns = {name: _text(nodes, name) for name in ("pool", "zone", "rack", "gpu_model", "labels", "taints")}
    rows = zip(*columns.values(), strict=True)
    made = []
    for *own, labels, taints in rows:
        told = {name: value for name, value in zip(columns, own, strict=False) if value} | pairs(labels)
        made.append((told, frozenset(filter(None, taints.split(",")))))
    return made


def pairs(text: str) -> dict[str, str]:
    """`key=value` pairs with commas between them; a key alone has the value ""."""
    return {
        key.strip(): value.strip() for key, _, value in (each.partition("=") for each in text.split(",")) if key.strip()
    }


def _distinct(
    labels: Sequence[tuple[dict[str, str], frozenset[str]]],
) -> tuple[list[tuple[dict[str, str], frozenset[str]]], NDArray[np.int32]]:
    number: dict[tuple, int] = {}
    kinds = []
    of_each = np.empty(len(labels), dtype=np.int32)
    for i, (told, taints) in enumerate(labels):
        key = (tuple(sorted(told.items())), taints)
        if key not in number:
            number[key] = len(kinds)
            kinds.append((told, taints))
        of_each[i] = number[key]
    return kinds, of_each
