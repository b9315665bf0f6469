"""The vocabulary of the workbench: frozen records and protocols, with units and shapes.

Everything that crosses a room's border is one of these. Time is float seconds since the start of the
trace (`time_s`); the wall clock exists only in `twin.bridge`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from twin.errors import UsageError

if TYPE_CHECKING:
    from twin.fleet import Fleet

ActionKind = Literal["replicas", "nodes", "drain", "evict", "cpu_millicores", "memory_mib"]
OutcomeStatus = Literal["applied", "rejected", "failed", "dry-run"]
EventKind = Literal[
    "node_failure",
    "rack_failure",
    "zone_failure",
    "partition",
    "slow_nodes",
    "disk_full",
    "interruption",
    "shortage",
    "memory_leak",
    "degradation",
    "bad_deploy",
    "telemetry_loss",
    "telemetry_delay",
]
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
class Power:
    """What one node draws: idle_w + (full_w - idle_w) u^exponent at the used share u of its cores.

    The family of curves of Fan, Weber and Barroso (ISCA 2007); `exponent` = 1 is the straight line.
    """

    idle_w: float = 120.0
    full_w: float = 350.0
    exponent: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.idle_w <= self.full_w or self.exponent <= 0:
            raise UsageError(f"{self}: 0 <= idle_w <= full_w and exponent > 0 must hold")


@dataclass(frozen=True, slots=True)
class Pool:
    """A resizable group of equal nodes, bought from one provider in one zone.

    `provision="pending"` lets the mirrored cluster grow the pool for replicas that found no room and
    give back nodes that stood empty for `idle_s`, as managed node autoscalers do; with "manual" only
    an `Action` of kind "nodes" or "drain" changes its size.

    Money: each billed node (booting, up, draining) costs `price_usd_h`, or what the trace's prices `spot_usd_h` of
    zone `price_series` say at that time. The first `reserved` nodes cost `reserved_price_usd_h` instead, whether they
    run or not. A spot node is interrupted `interruptions_per_node_day` times a day, `notice_s` after a warning.
    Energy: `power`, at the trace's `carbon_g_kwh` of zone `grid`, or at the constant `carbon_g_kwh` where `grid` is "".
    """

    name: str
    cpu_cores: float
    memory_gib: float
    price_usd_h: float
    nodes: int
    min_nodes: int = 0
    max_nodes: int = 64
    provider: str = ""
    region: str = "region-a"
    zone: str = "zone-a"
    nodes_per_rack: int = 16
    instance: str = ""
    boot: Delay = Delay(120.0, 0.25)
    provision: Literal["pending", "manual"] = "pending"
    idle_s: float = 600.0
    offer: Literal["on-demand", "spot"] = "on-demand"
    price_series: str = ""
    reserved: int = 0
    reserved_price_usd_h: float = 0.0
    interruptions_per_node_day: float = 0.0
    notice_s: float = 120.0
    failures_per_node_day: float = 0.0
    repair: Delay = Delay(1800.0, 0.5)
    power: Power = Power()
    grid: str = ""
    carbon_g_kwh: float = 400.0

    def __post_init__(self) -> None:
        if not 0 <= self.min_nodes <= self.nodes <= self.max_nodes:
            raise UsageError(
                f"pool {self.name!r}: nodes={self.nodes} must lie within "
                f"min_nodes={self.min_nodes} and max_nodes={self.max_nodes}"
            )
        if self.nodes_per_rack < 1 or self.reserved < 0:
            raise UsageError(
                f"pool {self.name!r}: nodes_per_rack={self.nodes_per_rack} must be at least 1, "
                f"reserved={self.reserved} at least 0"
            )

    @property
    def size(self) -> NDArray[np.float64]:
        """What one node offers [resources]: CPU cores, memory GiB."""
        return np.array([self.cpu_cores, self.memory_gib])


@dataclass(frozen=True, slots=True)
class Call:
    """Each request of the calling service makes `per_request` calls to `callee`, one after the other, and waits."""

    callee: str
    per_request: float = 1.0


@dataclass(frozen=True, slots=True)
class Service:
    """A workload that keeps replicas up to serve demand under an SLO: the series `demand` ("" = that of its own name).

    One replica serves `concurrency` requests at a time, each taking `service_time_s` on average, spread with the
    coefficient of variation `service_cv` as `distribution` says. `unit_rps` says how many requests/s one unit of the
    recorded demand stands for: a modelling choice, printed in every report; 0 = no demand of its own, only calls.
    Where single requests were recorded with their tokens, each takes `input_token_s` and `output_token_s` a token.
    The SLO: at least `slo_target` of requests answered in `slo_s`. Who has waited `timeout_s` gives up, and asks again
    up to `retries` times, `backoff_s` later. With `load="closed"` demand counts users: each asks, waits for the
    answer, and thinks for `think_s` on average before asking again.

    A replica asks for `cpu_cores` and `memory_gib`, uses all of the CPU when all its requests are served at once (with
    less CPU it is slower in proportion), and `memory_base_gib` + `memory_per_request_gib` x requests in service; one
    that uses more memory than it asked for is killed and starts anew. `pools` says where it may run (empty:
    anywhere); `users_region` where its users are ("" = next to each replica); an answer weighs `answer_kib`.
    At most `max_unavailable` replicas may be missing by intention at once: its disruption budget.
    """

    name: str
    unit_rps: float
    cpu_cores: float
    memory_gib: float
    service_time_s: float
    concurrency: int
    slo_s: float
    demand: str = ""
    slo_target: float = 0.95
    timeout_s: float = 10.0
    replicas: int = 1
    min_replicas: int = 1
    max_replicas: int = 256
    start: Delay = Delay(30.0, 0.25)
    burst_cv: float = 0.05
    service_cv: float = 0.0
    distribution: Literal["lognormal", "gamma"] = "lognormal"
    input_token_s: float = 0.0
    output_token_s: float = 0.0
    retries: int = 0
    backoff_s: float = 1.0
    load: Literal["open", "closed"] = "open"
    think_s: float = 1.0
    calls: tuple[Call, ...] = ()
    memory_base_gib: float = 0.0
    memory_per_request_gib: float = 0.0
    pools: tuple[str, ...] = ()
    users_region: str = ""
    answer_kib: float = 0.0
    max_unavailable: int = 1

    @property
    def replica_rps(self) -> float:
        """Requests per second that one ready replica can serve, not counting the services that it calls."""
        return self.concurrency / self.service_time_s

    @property
    def series(self) -> str:
        """The name of the recorded series that it serves."""
        return self.demand or self.name

    @property
    def request(self) -> NDArray[np.float64]:
        """What one replica asks of a node at first [resources]: CPU cores, memory GiB."""
        return np.array([self.cpu_cores, self.memory_gib])

    def __post_init__(self) -> None:
        object.__setattr__(self, "calls", tuple(self.calls))
        object.__setattr__(self, "pools", tuple(self.pools))
        if not 0 <= self.min_replicas <= self.replicas <= self.max_replicas:
            raise UsageError(
                f"service {self.name!r}: replicas={self.replicas} must lie within "
                f"min_replicas={self.min_replicas} and max_replicas={self.max_replicas}"
            )
        if self.slo_s <= self.service_time_s:
            raise UsageError(
                f"service {self.name!r}: slo_s={self.slo_s} leaves no time beyond service_time_s={self.service_time_s}"
            )
        if min(self.service_cv, self.retries, self.backoff_s, self.think_s, self.max_unavailable) < 0:
            raise UsageError(
                f"service {self.name!r}: service_cv={self.service_cv}, retries={self.retries}, "
                f"backoff_s={self.backoff_s}, think_s={self.think_s} and max_unavailable={self.max_unavailable} "
                "must all be at least 0"
            )


@dataclass(frozen=True, slots=True)
class Quota:
    """What a provider grants: nodes of these `pools` (booting, up, draining) may have `cpu_cores` in all."""

    name: str
    pools: tuple[str, ...]
    cpu_cores: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "pools", tuple(self.pools))


@dataclass(frozen=True, slots=True)
class Link:
    """The way between two regions, the same in both directions: round trip, and the price of a GiB sent."""

    ends: tuple[str, str]
    latency_s: float
    egress_usd_gib: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "ends", tuple(self.ends))


@dataclass(frozen=True, slots=True)
class Cluster:
    """What is mirrored: pools of nodes, wherever they are, and the services that run on them.

    Several clusters, regions or providers are pools with other `region`, `provider` and prices; `links` say how far
    regions are apart. Regions without a link are next to each other.
    """

    name: str
    pools: tuple[Pool, ...]
    services: tuple[Service, ...]
    quotas: tuple[Quota, ...] = ()
    links: tuple[Link, ...] = ()

    def __post_init__(self) -> None:
        pools = {pool.name for pool in self.pools}
        services = {service.name for service in self.services}
        for service in self.services:
            _among(service.pools, pools, f"service {service.name!r}: pools")
            _among([call.callee for call in service.calls], services, f"service {service.name!r}: calls")
        for quota in self.quotas:
            _among(quota.pools, pools, f"quota {quota.name!r}: pools")

    def service(self, name: str) -> Service:
        """The service of that name; raises UsageError listing the known ones."""
        for service in self.services:
            if service.name == name:
                return service
        raise UsageError(f"cluster {self.name!r} has no service {name!r}; it has {[s.name for s in self.services]}")

    def link(self, one: str, other: str) -> Link:
        """The way between two regions."""
        for link in self.links:
            if {one, other} == set(link.ends):
                return link
        return Link((one, other), 0.0)


def _among(names: Iterable[str], known: set[str], where: str) -> None:
    for name in names:
        if name not in known:
            raise UsageError(f"{where}: no {name!r} in the cluster; it has {sorted(known)}")


def cluster(
    name: str,
    pools: Mapping[str, Mapping[str, Any]],
    services: Mapping[str, Mapping[str, Any]],
    quotas: Mapping[str, Mapping[str, Any]] | None = None,
    links: Sequence[Mapping[str, Any]] = (),
) -> Cluster:
    """A cluster from plain mappings of names to fields, as configuration files hold them.

    A delay is given as `{median_s, sigma}`, power as `{idle_w, full_w, exponent}`, a service's calls as
    `{callee: calls per request}`. Raises UsageError for an unknown or missing field.
    """
    return Cluster(
        name,
        tuple(_record(Pool, pool, fields) for pool, fields in pools.items()),
        tuple(_record(Service, service, fields) for service, fields in services.items()),
        tuple(_record(Quota, quota, fields) for quota, fields in (quotas or {}).items()),
        tuple(Link(**link) for link in links),
    )


def _record(kind: Callable[..., _Named], name: str, fields: Mapping[str, Any]) -> _Named:
    try:
        return kind(name=name, **{key: _field(key, value) for key, value in fields.items()})
    except TypeError as error:
        raise UsageError(f"{name!r} in the cluster: {error}") from error


def _field(key: str, value: Any) -> Any:  # noqa: ANN401 - any value that a configuration file can hold
    if key == "calls":
        return tuple(Call(callee, float(number)) for callee, number in value.items())
    if key == "power":
        return Power(**value)
    return Delay(**value) if isinstance(value, Mapping) else value


@dataclass(frozen=True, slots=True)
class Event:
    """A fault that happens at `time_s` and lasts `duration_s`; the run's `incidents` will name it.

    What `target` is, and what `magnitude` means, by kind:

    node_failure      `count` of the fullest ready nodes of a pool are down
    rack_failure      rack "<pool>/<number>" is down;  zone_failure: all nodes of a zone are down
    partition         the nodes of a zone cannot be reached: they run on and cost money, but serve nothing
    slow_nodes        `count` nodes of a pool run at `magnitude` times their speed
    disk_full         `count` nodes of a pool evict what they hold and take nothing
    interruption      `count` spot nodes of a pool are taken back after the pool's notice
    shortage          a pool gets no node beyond `magnitude` nodes
    memory_leak       each replica of a service uses `magnitude` GiB more with each hour that it runs meanwhile
    degradation       a service's speed falls steadily to `magnitude` of what it was, then is whole again
    bad_deploy        a share `magnitude` of a service's answers are errors, until it is rolled back
    telemetry_loss    a service's metrics are missing;  telemetry_delay: they are `magnitude` seconds old
    """

    time_s: float
    kind: EventKind
    target: str
    duration_s: float
    count: int = 1
    magnitude: float = 1.0
    cause: str = ""


# ---------------------------------------------------------------- what is seen, said and done


class Columns(tuple[str, ...]):
    """The names of an observation's columns; where each is and how all are hashed is worked out once."""

    @cached_property
    def places(self) -> dict[str, int]:
        """The place of each column."""
        return {column: place for place, column in enumerate(self)}

    @cached_property
    def encoded(self) -> bytes:
        """All names as bytes."""
        return "\n".join(self).encode()


@dataclass(frozen=True, slots=True)
class Observation:
    """What a controller sees: `values[i]` (float32, NaN = unknown) is the metric named `columns[i]`.

    Column names are `<entity>.<metric>_<unit>`, as `twin.observe` lists them. Unknown is never zero.
    `fleet`, where the plant can give it, looks at single nodes and replicas now; it may be asked while deciding.
    """

    time_s: float
    columns: tuple[str, ...]  # made `Columns` when they are not
    values: NDArray[np.float32]  # [columns]
    fleet: Callable[[], Fleet] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.columns, Columns):
            object.__setattr__(self, "columns", Columns(self.columns))

    def __getitem__(self, column: str) -> float:
        """The value of one column; raises UsageError naming the nearest known ones."""
        try:
            return self.values.item(cast(Columns, self.columns).places[column])
        except KeyError:
            entity = column.split(".")[0]
            near = [c for c in self.columns if c.startswith(entity)] or list(self.columns)
            raise UsageError(f"no observation column {column!r}; known here: {near}") from None

    def digest(self) -> str:
        """A 16-digit hash of columns, time and values, to join decisions with what they saw."""
        h = hashlib.blake2b(digest_size=8)
        h.update(cast(Columns, self.columns).encoded)
        h.update(np.float64(self.time_s).tobytes())
        h.update(np.ascontiguousarray(self.values, dtype=np.float32).tobytes())
        return h.hexdigest()


@dataclass(frozen=True, slots=True)
class Action:
    """A wish: let service or pool `target` have `value` replicas or nodes.

    Of the other kinds, "drain" empties and gives back the node `target`, "evict" starts the replica `target` anew
    wherever there is room (`value` is 1 for both), "cpu_millicores" and "memory_mib" set what each replica of a
    service asks for.

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

    `min_value` and `max_value` bound the replicas of each service, `min_nodes` and `max_nodes` the nodes of each pool;
    the plant has bounds of its own beside them. A missing metric blocks shrinking: unknown is never zero. Drains and
    evictions together are at most `disruptions.count` in each `disruptions.window_s`, those that the plant refused
    included; what a replica asks for moves by at most `resize.percent` in each `resize.window_s`.
    """

    min_value: int = 1
    max_value: int = 256
    grow: RateLimit = RateLimit(60.0, 100.0, 4)
    shrink: RateLimit = RateLimit(300.0, 50.0, 2)
    hold_on_unknown: bool = True
    disruptions: RateLimit = RateLimit(60.0, 0.0, 10)
    resize: RateLimit = RateLimit(60.0, 100.0, 100)
    min_nodes: int = 0
    max_nodes: int = 1000


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
class Clairvoyant(Protocol):
    """A controller that may see the future: an upper bound to compare with, never to be deployed."""

    def foresee(self, rates_rps: NDArray[np.float64], step_s: float, cluster: Cluster) -> None:
        """What will arrive: requests/s [services, steps], one column for each `step_s` from second 0 on."""
        ...


@runtime_checkable
class Placement(Protocol):
    """The mirrored cluster's own scheduler: which node takes a replica."""

    def choose(self, free: NDArray[np.float64], request: NDArray[np.float64]) -> int:
        """The index of a node with room in `free` [nodes, resources] for `request` [resources], or -1."""
        ...
