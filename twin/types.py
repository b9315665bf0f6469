"""The vocabulary of the workbench: frozen records and protocols, with units and shapes.

Everything that crosses a room's border is one of these. Time is float seconds since the start of the
trace (`time_s`); the wall clock exists only in `twin.bridge`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from twin.errors import UsageError

ActionKind = Literal["replicas", "nodes"]
OutcomeStatus = Literal["applied", "rejected", "failed", "dry-run"]
EventKind = Literal["node_failure", "telemetry_loss"]
_Named = TypeVar("_Named")


# ---------------------------------------------------------------- the cluster that is mirrored


@dataclass(frozen=True, slots=True)
class Delay:
    """A lognormal delay: half of the draws fall below `median_s`; `sigma` = 0 makes it constant."""

    median_s: float
    sigma: float = 0.0

    def draw(self, rng: np.random.Generator) -> float:
        """One delay in seconds."""
        return self.median_s * float(np.exp(self.sigma * rng.standard_normal()))


@dataclass(frozen=True, slots=True)
class Pool:
    """A resizable group of equal nodes.

    `provision="pending"` lets the mirrored cluster grow the pool for replicas that found no room and
    give back nodes that stood empty for `idle_s`, as managed node autoscalers do; with "manual" only
    an `Action` of kind "nodes" changes its size.
    """

    name: str
    cpu_cores: float
    memory_gib: float
    price_usd_h: float
    nodes: int
    min_nodes: int = 0
    max_nodes: int = 64
    zone: str = "zone-a"
    boot: Delay = Delay(120.0, 0.25)
    provision: Literal["pending", "manual"] = "pending"
    idle_s: float = 600.0
    failures_per_node_day: float = 0.0
    repair: Delay = Delay(1800.0, 0.5)

    def __post_init__(self) -> None:
        if not 0 <= self.min_nodes <= self.nodes <= self.max_nodes:
            raise UsageError(
                f"pool {self.name!r}: nodes={self.nodes} must lie within "
                f"min_nodes={self.min_nodes} and max_nodes={self.max_nodes}"
            )


@dataclass(frozen=True, slots=True)
class Service:
    """A workload that keeps replicas up to serve the demand series of the same name under an SLO.

    One replica serves `concurrency` requests at a time, each taking `service_time_s` on average.
    `unit_rps` says how many requests/s one unit of the recorded demand stands for: a modelling
    choice, printed in every report. The SLO: at least `slo_target` of requests answered in `slo_s`.
    """

    name: str
    unit_rps: float
    cpu_cores: float
    memory_gib: float
    service_time_s: float
    concurrency: int
    slo_s: float
    slo_target: float = 0.95
    timeout_s: float = 10.0
    replicas: int = 1
    min_replicas: int = 1
    max_replicas: int = 256
    start: Delay = Delay(30.0, 0.25)
    burst_cv: float = 0.05

    @property
    def replica_rps(self) -> float:
        """Requests per second that one ready replica can serve."""
        return self.concurrency / self.service_time_s

    def __post_init__(self) -> None:
        if not 0 <= self.min_replicas <= self.replicas <= self.max_replicas:
            raise UsageError(
                f"service {self.name!r}: replicas={self.replicas} must lie within "
                f"min_replicas={self.min_replicas} and max_replicas={self.max_replicas}"
            )
        if self.slo_s <= self.service_time_s:
            raise UsageError(
                f"service {self.name!r}: slo_s={self.slo_s} leaves no time beyond service_time_s={self.service_time_s}"
            )


@dataclass(frozen=True, slots=True)
class Cluster:
    """What is mirrored: pools of nodes and the services that run on them."""

    name: str
    pools: tuple[Pool, ...]
    services: tuple[Service, ...]

    def service(self, name: str) -> Service:
        """The service of that name; raises UsageError listing the known ones."""
        for service in self.services:
            if service.name == name:
                return service
        raise UsageError(f"cluster {self.name!r} has no service {name!r}; it has {[s.name for s in self.services]}")


def cluster(name: str, pools: Mapping[str, Mapping[str, Any]], services: Mapping[str, Mapping[str, Any]]) -> Cluster:
    """A cluster from plain mappings of names to fields, as configuration files hold them.

    A delay is given as `{median_s, sigma}`. Raises UsageError for an unknown or missing field.
    """
    return Cluster(
        name,
        tuple(_record(Pool, pool, fields) for pool, fields in pools.items()),
        tuple(_record(Service, service, fields) for service, fields in services.items()),
    )


def _record(kind: Callable[..., _Named], name: str, fields: Mapping[str, Any]) -> _Named:
    try:
        return kind(name=name, **{k: Delay(**v) if isinstance(v, Mapping) else v for k, v in fields.items()})
    except TypeError as error:
        raise UsageError(f"{name!r} in the cluster: {error}") from error


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a scenario makes happen at `time_s` for `duration_s` seconds.

    `node_failure` takes down `count` ready nodes of pool `target`; `telemetry_loss` blanks the
    metrics of service `target`.
    """

    time_s: float
    kind: EventKind
    target: str
    duration_s: float
    count: int = 1


# ---------------------------------------------------------------- what is seen, said and done


@cache
def _places(columns: tuple[str, ...]) -> dict[str, int]:
    return {column: place for place, column in enumerate(columns)}


@cache
def _encoded(columns: tuple[str, ...]) -> bytes:
    return "\n".join(columns).encode()


@dataclass(frozen=True, slots=True)
class Observation:
    """What a controller sees: `values[i]` (float32, NaN = unknown) is the metric named `columns[i]`.

    Column names are `<entity>.<metric>_<unit>`, as `twin.observe` lists them. Unknown is never zero.
    """

    time_s: float
    columns: tuple[str, ...]
    values: NDArray[np.float32]  # [columns]

    def __getitem__(self, column: str) -> float:
        """The value of one column; raises UsageError naming the nearest known ones."""
        try:
            return self.values.item(_places(self.columns)[column])
        except KeyError:
            entity = column.split(".")[0]
            near = [c for c in self.columns if c.startswith(entity)] or list(self.columns)
            raise UsageError(f"no observation column {column!r}; known here: {near}") from None

    def digest(self) -> str:
        """A 16-digit hash of columns, time and values, to join decisions with what they saw."""
        h = hashlib.blake2b(digest_size=8)
        h.update(_encoded(self.columns))
        h.update(np.float64(self.time_s).tobytes())
        h.update(np.ascontiguousarray(self.values, dtype=np.float32).tobytes())
        return h.hexdigest()


@dataclass(frozen=True, slots=True)
class Action:
    """A wish: let service or pool `target` have `value` replicas or nodes.

    `confidence` is the deciding policy's own probability (0-1) that the action is right; what that
    means is documented by each policy. `reason` is one sentence for the person on call.
    """

    kind: ActionKind
    target: str
    value: int
    reason: str = ""
    confidence: float = 1.0


@dataclass(frozen=True, slots=True)
class Limited:
    """An action after the shield: what may be applied, and the limit that changed it ("" = none)."""

    action: Action
    limited_by: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the plant says about one action: the value now wished for, and why if it is not the asked one."""

    status: OutcomeStatus
    value: int
    message: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """One row of the decision table: who saw what, wished what, what was allowed and what came of it.

    `confirmed` is filled at the next observation: did the plant report the applied value back?
    None means that it was never read back (the run ended, or the metric was unknown).
    """

    time_s: float
    policy: str
    observation: str
    kind: str
    target: str
    current: int
    proposed: int
    confidence: float
    reason: str
    limited_by: str
    allowed: int
    status: str
    applied: int
    message: str
    confirmed: bool | None = None


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `percent` of the value `window_s` seconds ago, or `count`, whichever allows more."""

    window_s: float
    percent: float
    count: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What no controller may exceed, in the twin and live alike (see `twin.limits`).

    Bounds are per target; a target without bounds uses the plant's own. A missing metric blocks
    shrinking: unknown is never zero.
    """

    min_value: int = 1
    max_value: int = 256
    grow: RateLimit = RateLimit(60.0, 100.0, 4)
    shrink: RateLimit = RateLimit(300.0, 50.0, 2)
    hold_on_unknown: bool = True


@dataclass(frozen=True, slots=True)
class Record:
    """What a run writes down: one telemetry row per entity every `step_s`, and the decisions or not."""

    step_s: float = 60.0
    decisions: bool = True


# ---------------------------------------------------------------- the two protocols


@runtime_checkable
class Plant(Protocol):
    """A body that can be observed and acted upon: the twin, or a live cluster."""

    @property
    def time_s(self) -> float:
        """Seconds since the plant's epoch."""
        ...

    def observe(self) -> Observation:
        """What is known now; unknown metrics are NaN."""
        ...

    def apply(self, actions: Sequence[Action]) -> list[Outcome]:
        """One outcome per action, in order."""
        ...

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass: simulated time in the twin, waiting in a live cluster."""
        ...


@runtime_checkable
class Controller(Protocol):
    """Whatever looks at an observation and says what should be."""

    @property
    def name(self) -> str:
        """Policy id and version, as the decision table shows it."""
        ...

    @property
    def interval_s(self) -> float:
        """Seconds between decisions."""
        ...

    def reset(self) -> None:
        """Forget the past: a new run begins."""
        ...

    def decide(self, observation: Observation) -> list[Action]:
        """The wished values; a target left out stays as it is."""
        ...


@runtime_checkable
class Placement(Protocol):
    """The mirrored cluster's own scheduler: which node takes a replica."""

    def choose(self, free: NDArray[np.float64], request: NDArray[np.float64]) -> int:
        """The index of a node with room in `free` [nodes, resources] for `request` [resources], or -1."""
        ...
