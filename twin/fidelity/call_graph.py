"""Who calls whom, how often, and what a request costs each service itself: a call graph fitted to recorded spans.

A span is a row of the table `requests`: it names its service, when it began, how long it took and, as `parent`, the
span that caused it. What is made of them:

- Spans of one service below each other are one request: what came in. Its response time is that of the outermost span.
- A request's own time is its response time less the time covered by the calls that it made (the union of their
  intervals, as far as they lie within it): calls side by side are not taken off twice.
- Only whole trees are taken: every span has a duration and leads up to a span without parent, the entry.
- Services that call each other in a circle: calls are kept from the most frequent pair of services to the rarest (of
  equal ones, the nearer to the entry), as long as they close no circle. What is not kept, with all below it, is own
  time of its caller.
- Between a caller's client span (within its request, with the call as its only child) and the span at the callee lies
  a gap: the network, and waiting at the callee's door, which spans do not tell apart. It is own time of the caller, or
  with `waits_at="callee"` of the callee, whose request then lasts as long as its caller saw it last. A span around one
  call that also computes is taken for a client span.

A service makes as many calls per request as its requests made in the mean, whatever came before. Where requests of
several kinds enter (a front page, a purchase), `kinds` sets them apart by the calls that they make: each of the most
frequent kinds is a service of its own, "frontend/1", "frontend/2", ..., and "frontend/other" is the rest. They share no
replicas, as in reality they do.

The twin makes calls one after the other. Where they were made side by side, own time and calls add up to more than was
recorded: `Station.sequential_mean_s` beside `response_mean_s`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from twin.engine.plant import TwinPlant
from twin.engine.scheduling.placement import MostAllocated
from twin.engine.serving import BUCKETS, EDGES_S, RESPONSE_S, SERVED, percentile
from twin.engine.traffic import Serve, requests
from twin.errors import TraceError
from twin.trace.trace import Trace
from twin.types import Cluster, Record

END_TO_END = "end-to-end"
"""The name under which `mirrored` tells of requests from outside, whichever service they enter."""

WaitsAt = Literal["caller", "callee"]
_F8 = NDArray[np.float64]
_I8 = NDArray[np.int64]
_QUIET_S = 60.0
_NO_PARENT, _UNKNOWN = -1, -2


@dataclass(frozen=True, slots=True)
class Served:
    """The requests of each service that a recording tells, with what each took itself.

    `table` has one row per request: `service`, `time_s` and `response_s`, `own_s`, `calls_s` (its calls' response
    times added up), `row` and `caller` (the row that made the call; null: from outside), `gap_s` (null: no client
    span).
    """

    name: str
    table: pl.DataFrame
    unfitted: tuple[str, ...]

    @property
    def since_s(self) -> float:
        """When the first request came."""
        return float(self.table.select(pl.col("time_s").min()).item())

    @property
    def until_s(self) -> float:
        """When the last one was answered."""
        return float(self.table.select((pl.col("time_s") + pl.col("response_s")).max()).item())

    @property
    def entries(self) -> pl.DataFrame:
        """The requests from outside, in order of time."""
        return self.table.filter(pl.col("caller").is_null()).sort("time_s", "row")


@dataclass(frozen=True, slots=True)
class Station:
    """One service of a call graph.

    `own_mean_s` and `own_cv` are mean and coefficient of variation of what a request took itself; the law
    `distribution` with these is at most `own_ks` away from the recorded shares (Kolmogorov-Smirnov). `peak` requests
    were inside at once. `sequential_mean_s` is what own time and calls one after the other add up to.
    """

    service: str
    requests: int
    entry_rps: float
    own_mean_s: float
    own_cv: float
    distribution: Literal["lognormal", "gamma"]
    own_ks: float
    response_mean_s: float
    response_p50_s: float
    response_p95_s: float
    sequential_mean_s: float
    peak: int


@dataclass(frozen=True, slots=True)
class Edge:
    """`calls` recorded calls: `per_request` of the caller in the mean, scattered with `cv` over its requests.

    `gap_s` is the mean time between the caller's client span and the span at the callee; None where no call has one.
    """

    caller: str
    callee: str
    calls: int
    per_request: float
    cv: float
    gap_s: float | None


@dataclass(frozen=True, slots=True)
class CallGraph:
    """The services of a recording and their calls, without circles; `unfitted` says what was left out, and why."""

    name: str
    stations: tuple[Station, ...]
    edges: tuple[Edge, ...]
    traces: int
    since_s: float
    until_s: float
    unfitted: tuple[str, ...]

    def calls_of(self, service: str) -> tuple[Edge, ...]:
        """The calls that a service makes, in order of name."""
        return tuple(edge for edge in self.edges if edge.caller == service)

    def tables(self) -> dict[str, pl.DataFrame]:
        """`stations` and `edges` as frames, one row each."""
        return {"stations": pl.DataFrame(self.stations), "edges": pl.DataFrame(self.edges)}


# ---------------------------------------------------------------- spans -> requests of services


class _Spans(NamedTuple):
    """Spans of whole trees; parents come as rows, depth 0 is an entry."""

    service: _I8
    names: list[str]
    start_s: _F8
    end_s: _F8
    parent: _I8
    depth: _I8
    tree: _I8

    def levels(self) -> Iterable[_I8]:
        """The rows of depth 1, 2, ..."""
        return (np.flatnonzero(self.depth == level) for level in range(1, int(self.depth.max(initial=0)) + 1))


def served(
    trace: Trace,
    *,
    waits_at: WaitsAt = "caller",
    kinds: int = 1,
    since_s: float | None = None,
    until_s: float | None = None,
) -> Served:
    """The requests of each service, from the spans of the trees that were entered in [since_s, until_s).

    Args:
        trace: its `requests` are spans.
        waits_at: whose own time the gap between client span and callee's span is.
        kinds: how many services each service is at most that is entered from outside.
        since_s: seconds since the trace's start; None for both: the stretch of most entries, in which none comes more
            than 60 s after the one before.
        until_s: likewise; None for the end.

    Raises:
        TraceError: the trace holds no whole tree of spans there.
    """
    spans, left_out = _whole_trees(trace)
    entered = spans.start_s[spans.depth == 0]
    if not len(entered):
        raise TraceError(
            f"{trace.info.name}: table requests tells no whole tree of spans (request, parent, duration_s); "
            f"{'; '.join(left_out) or 'it is empty'}; choose a recording with traces, or give calls in the cluster"
        )
    low, high = _stretch(entered, since_s, until_s)
    inside = (spans.start_s[spans.tree] >= low) & (spans.start_s[spans.tree] < high)
    if not inside.any():
        raise TraceError(
            f"{trace.info.name}: no request came in [{low:g}, {high:g}) s; they came from {entered.min():g} to "
            f"{entered.max():g} s"
        )
    spans = _only(spans, inside)
    table, circles = _requests(spans, waits_at)
    late = _outlasting(table)
    return Served(trace.info.name, _of_kinds(table, kinds), (*left_out, *circles, *late))


def _of_kinds(table: pl.DataFrame, kinds: int) -> pl.DataFrame:
    """The table with the services of entries named by kind, the most frequent first."""
    if kinds <= 1:
        return table
    called = pl.concat_str("service", pl.lit(" x "), pl.len().over("caller", "service").cast(pl.String))
    made = (
        table.filter(pl.col("caller").is_not_null())
        .select(row="caller", called=called)
        .group_by("row")
        .agg(made=pl.col("called").unique().sort().str.join(", "))
    )
    entries = table.filter(pl.col("caller").is_null()).join(made, on="row", how="left")
    entries = entries.with_columns(pl.col("made").fill_null(""))
    counted = entries.group_by("service", "made").agg(count=pl.len())
    place = pl.int_range(1, pl.len() + 1).over("service")
    ranked = counted.sort("service", -pl.col("count").cast(pl.Int64), "made").with_columns(
        place=place, of=pl.len().over("service")
    )
    lumped = (pl.col("of") > kinds) & (pl.col("place") >= kinds)
    name = pl.when(lumped).then(pl.lit("other")).otherwise(pl.col("place").cast(pl.String))
    named = ranked.select(
        "service", "made",
        kind=pl.when(pl.col("of") > 1).then(pl.concat_str("service", pl.lit("/"), name)).otherwise("service"),
    )  # fmt: skip
    kind = entries.join(named, on=["service", "made"], how="left").select("row", "kind")
    return (
        table.join(kind, on="row", how="left", maintain_order="left")
        .with_columns(service=pl.coalesce("kind", "service"))
        .drop("kind")
    )


def _stretch(entered: _F8, since_s: float | None, until_s: float | None) -> tuple[float, float]:
    if since_s is not None or until_s is not None:
        return since_s or 0.0, math.inf if until_s is None else until_s
    times = np.sort(entered)
    borders = np.flatnonzero(np.diff(times) > _QUIET_S) + 1
    densest = max(np.split(times, borders), key=len)
    return float(densest[0]), float(np.nextafter(densest[-1], np.inf))


def _whole_trees(trace: Trace) -> tuple[_Spans, tuple[str, ...]]:
    """The spans of trees that are whole, and sentences about the others."""
    rows = trace.requests.select("service", "time_s", "request", "parent", "duration_s").with_row_index("row")
    named = rows.filter(pl.col("request").is_not_null()).unique("request", keep="first", maintain_order=True)
    above = rows.join(named.select(parent="request", above="row"), on="parent", how="left", maintain_order="left")
    parent = (
        above.select(
            pl.when(pl.col("parent").is_null()).then(_NO_PARENT).otherwise(pl.col("above")).fill_null(_UNKNOWN)
        )
        .to_series()
        .cast(pl.Int64)
        .to_numpy()
    )
    depth, tree = _climbed(parent)
    duration = rows["duration_s"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    lacking = np.zeros(len(parent), dtype=np.bool_)
    lacking[tree[(tree >= 0) & ~(duration >= 0)]] = True
    lost, unmeasured = tree < 0, (tree >= 0) & lacking[tree]
    again = int(rows["request"].count()) - named.height
    told = (
        (int(lost.sum()), "spans lead up to no entry (an unknown parent): left out"),
        (int(unmeasured.sum()), "spans belong to trees in which a duration is unknown: left out"),
        (again, "spans have the name of an earlier one, which is taken to be the parent of those that name it"),
    )
    names = rows["service"].unique().sort().to_list()
    code = {name: place for place, name in enumerate(names)}
    service = rows["service"].replace_strict(code, return_dtype=pl.Int64).to_numpy()
    start = rows["time_s"].to_numpy()
    spans = _Spans(service, names, start, start + np.nan_to_num(duration), parent, depth, tree)
    return _only(spans, ~(lost | unmeasured)), tuple(f"{number} {what}" for number, what in told if number)


def _climbed(parent: _I8) -> tuple[_I8, _I8]:
    """(depth, row of the entry) of each span; -1 for those that lead up to none."""
    depth = np.where(parent == _NO_PARENT, 0, -1)
    tree = np.where(depth == 0, np.arange(len(parent)), -1)
    level = 0
    while True:
        below = np.flatnonzero((depth < 0) & (parent >= 0))
        below = below[depth[parent[below]] == level]
        if not len(below):
            return depth, tree
        level += 1
        depth[below], tree[below] = level, tree[parent[below]]


def _only(spans: _Spans, kept: NDArray[np.bool_]) -> _Spans:
    """The spans that are kept, which are whole trees, with rows counted anew."""
    row = np.cumsum(kept) - 1
    parent = np.where(spans.parent[kept] >= 0, row[spans.parent[kept]], spans.parent[kept])
    return _Spans(
        spans.service[kept], spans.names, spans.start_s[kept], spans.end_s[kept], parent, spans.depth[kept],
        row[spans.tree[kept]],
    )  # fmt: skip


def _requests(spans: _Spans, waits_at: WaitsAt) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """The table of `Served`, and a sentence for each pair of services whose calls are not kept."""
    rows = np.arange(len(spans.parent))
    head = rows.copy()
    for level in spans.levels():
        same = spans.service[level] == spans.service[spans.parent[level]]
        head[level] = np.where(same, head[spans.parent[level]], level)
    absorbed, told = _absorbed(spans, head)
    taken = np.flatnonzero((head == rows) & ~absorbed)
    above = spans.parent[taken]
    called = above >= 0
    caller = np.where(called, head[above], -1)
    children = np.bincount(spans.parent[spans.parent >= 0], minlength=len(rows))
    wrapped = called & (head[above] != above) & (children[above] == 1)
    start, end = spans.start_s[taken], spans.end_s[taken]
    seen_start = np.where(wrapped, np.minimum(start, spans.start_s[above]), start)
    seen_end = np.where(wrapped, np.maximum(end, spans.end_s[above]), end)
    gap = np.where(wrapped, (seen_end - seen_start) - (end - start), np.nan)
    if waits_at == "callee":
        start, end = seen_start, seen_end
    table = pl.DataFrame(
        {"row": taken, "service": [spans.names[place] for place in spans.service[taken]], "caller": caller,
         "time_s": start, "response_s": end - start, "gap_s": gap}
    ).with_columns(pl.col("caller").replace(-1, None), pl.col("gap_s").fill_nan(None))  # fmt: skip
    return _with_own_time(table), told


def _absorbed(spans: _Spans, head: _I8) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Which spans are own time of a caller above them, for their services would call each other in a circle."""
    rows = np.arange(len(head))
    called = np.flatnonzero((head == rows) & (spans.parent >= 0))
    pairs = pl.DataFrame(
        {"caller": spans.service[spans.parent[called]], "callee": spans.service[called], "depth": spans.depth[called]}
    )
    counted = pairs.group_by("caller", "callee").agg(calls=pl.len(), depth=pl.col("depth").mean())
    ordered = counted.sort(-pl.col("calls").cast(pl.Int64), "depth", "caller", "callee")
    kept: dict[int, set[int]] = {}
    refused: dict[tuple[int, int], int] = {}
    for caller, callee, calls, _ in ordered.iter_rows():
        kept.setdefault(caller, set()).add(callee)
        if not _acyclic(kept):
            kept[caller].discard(callee)
            refused[caller, callee] = calls
    absorbed = np.zeros(len(head), dtype=np.bool_)
    number = len(spans.names)
    closing = np.array([caller * number + callee for caller, callee in refused], dtype=np.int64)
    for level in spans.levels():
        above = spans.parent[level]
        back = (head[level] == level) & np.isin(spans.service[above] * number + spans.service[level], closing)
        absorbed[level] = absorbed[above] | back
    return absorbed, tuple(
        f"{calls} calls of {spans.names[callee]} by {spans.names[caller]} close a circle: they and what is below them "
        f"count as own time of {spans.names[caller]}"
        for (caller, callee), calls in refused.items()
    )


def _acyclic(graph: dict[int, set[int]]) -> bool:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError:
        return False
    return True


def _with_own_time(table: pl.DataFrame) -> pl.DataFrame:
    """With `own_s` and `calls_s`: the length of the union of a request's calls is taken off its response time."""
    whole = table.select(caller="row", low="time_s", high=pl.col("time_s") + pl.col("response_s"))
    calls = (
        table.filter(pl.col("caller").is_not_null())
        .join(whole, on="caller", how="left")
        .with_columns(
            start=pl.max_horizontal("time_s", "low"),
            end=pl.min_horizontal(pl.col("time_s") + pl.col("response_s"), "high"),
        )
        .sort("caller", "start", "row")
        .with_columns(before=pl.col("end").cum_max().shift(1).over("caller"))
    )
    fresh = pl.col("end") - pl.max_horizontal("start", "before")
    below = calls.group_by("caller").agg(covered=fresh.clip(lower_bound=0.0).sum(), calls_s=pl.col("response_s").sum())
    return (
        table.join(below.rename({"caller": "row"}), on="row", how="left", maintain_order="left")
        .with_columns(pl.col("calls_s", "covered").fill_null(0.0))
        .with_columns(own_s=(pl.col("response_s") - pl.col("covered")).clip(lower_bound=0.0))
        .drop("covered")
    )


def _outlasting(table: pl.DataFrame) -> tuple[str, ...]:
    """A sentence about calls that went on after their caller had answered, where there are such."""
    ends = pl.col("time_s") + pl.col("response_s")
    callers = table.select(caller="row", answered=ends)
    late = table.join(callers, on="caller", how="inner").filter(ends > pl.col("answered") + 1e-9).height
    return (f"{late} calls went on after their caller had answered: the twin's caller waits for them",) if late else ()


# ---------------------------------------------------------------- requests of services -> call graph


def fit(recorded: Served) -> CallGraph:
    """The call graph of recorded requests; counts and means are conserved exactly.

    For each service: requests = entries + calls by others. The mean response time is own time plus calls where calls
    were made one after the other, and less than that where some were made side by side.
    """
    table = recorded.table
    span_s = max(recorded.until_s - recorded.since_s, 1e-9)
    groups = table.sort("service", "time_s", "row").partition_by("service", as_dict=True, maintain_order=True)
    stations = tuple(_station(str(service), rows, span_s) for (service,), rows in groups.items())
    edges = _edges(table)
    return CallGraph(
        recorded.name, stations, edges, recorded.entries.height, recorded.since_s, recorded.until_s, recorded.unfitted
    )


def _station(service: str, rows: pl.DataFrame, span_s: float) -> Station:
    own, response = rows["own_s"].to_numpy(), rows["response_s"].to_numpy()
    mean = float(own.mean())
    cv = float(own.std() / mean) if mean > 0 else 0.0
    law, distance = _law(own, mean, cv)
    p50, p95 = np.quantile(response, [0.5, 0.95]).tolist()
    return Station(
        service=service,
        requests=rows.height,
        entry_rps=int(rows["caller"].null_count()) / span_s,
        own_mean_s=mean,
        own_cv=cv,
        distribution=law,
        own_ks=distance,
        response_mean_s=float(response.mean()),
        response_p50_s=p50,
        response_p95_s=p95,
        sequential_mean_s=mean + float(rows["calls_s"].to_numpy().mean()),
        peak=_peak(rows["time_s"].to_numpy(), response),
    )


def _law(own: _F8, mean: float, cv: float) -> tuple[Literal["lognormal", "gamma"], float]:
    """The law with that mean and spread that is nearer to the values, and how far it is away."""
    if not (cv > 1e-9 and mean > 0):
        return "lognormal", 0.0
    from scipy.special import gammainc, ndtr

    values = np.sort(own)
    variance = math.log1p(cv**2)
    with np.errstate(divide="ignore"):
        normal = (np.log(values / mean) + variance / 2) / math.sqrt(variance)
    lognormal = _distance(np.asarray(ndtr(normal)))
    gamma = _distance(np.asarray(gammainc(cv**-2, values / (mean * cv**2))))
    return ("lognormal", lognormal) if lognormal <= gamma else ("gamma", gamma)


def _distance(shares: _F8) -> float:
    """The Kolmogorov-Smirnov distance of sorted values from the law that gives them these shares."""
    steps = np.arange(len(shares) + 1) / len(shares)
    return float(max((steps[1:] - shares).max(), (shares - steps[:-1]).max()))


def _peak(time_s: _F8, response_s: _F8) -> int:
    """The most requests inside at one time; who leaves at an instant makes room for who comes then."""
    moments = np.concatenate([time_s + response_s, time_s])
    change = np.repeat([-1, 1], len(time_s))
    return max(int(np.cumsum(change[np.argsort(moments, kind="stable")]).max()), 1)


def _edges(table: pl.DataFrame) -> tuple[Edge, ...]:
    callers = table.select(caller="row", by="service")
    calls = table.filter(pl.col("caller").is_not_null()).join(callers, on="caller", how="left")
    made = calls.group_by("by", "service", "caller").agg(n=pl.len().cast(pl.Float64))
    squares = made.group_by("by", "service").agg(calls=pl.col("n").sum(), squares=(pl.col("n") ** 2).sum())
    gaps = calls.group_by("by", "service").agg(gap=pl.col("gap_s").mean())
    total = table.group_by(by="service").agg(requests=pl.len())
    rows = squares.join(gaps, on=["by", "service"]).join(total, on="by").sort("by", "service")
    return tuple(
        Edge(
            row["by"],
            row["service"],
            int(row["calls"]),
            (mean := row["calls"] / row["requests"]),
            math.sqrt(max(row["squares"] / row["requests"] - mean**2, 0.0)) / mean,
            row["gap"],
        )
        for row in rows.iter_rows(named=True)
    )


# ---------------------------------------------------------------- how well a replay mirrors it


def mirrored(
    recorded: Served,
    replay: Trace,
    cluster: Cluster,
    *,
    serving: Serve = requests,
    seed: int = 0,
    drain_s: float = 600.0,
) -> pl.DataFrame:
    """Recorded against simulated response times: `service`, `measure`, `recorded`, `simulated`, `error` (relative).

    The measures are requests (answered), mean_s, p50_s and p95_s, for each recorded service and "end-to-end", which is
    all services that are entered from outside. The replay is followed for `drain_s` beyond its end, so that slow
    requests are answered too. The twin counts response times in buckets of a tenth, from 1 ms on: percentiles are exact
    to 5 %, and unknown (null) below.

    Args:
        recorded: what the cluster was fitted to.
        replay: the trace that the cluster serves: demand, or requests from outside.
        cluster: holds the recorded services; others are not compared.
        serving: the model of the services.
        seed: of the twin.
        drain_s: seconds after the end of the replay in which nothing more arrives.
    """
    until_s = replay.duration_s + drain_s
    plant = TwinPlant(
        _with_quiet(replay, until_s), cluster, scheduler=MostAllocated(), events=(), record=Record(), until_s=until_s,
        seed=seed, serving=serving,
    )  # fmt: skip
    plant.advance(until_s)
    plant.observe()
    state, entries = plant.state, set(recorded.entries["service"])
    frames = []
    for name, services in [*((s.name, {s.name}) for s in cluster.services), (END_TO_END, entries)]:
        places = [place for place, service in enumerate(cluster.services) if service.name in services]
        took = recorded.table if name != END_TO_END else recorded.entries
        response = took.filter(pl.col("service").is_in(list(services)))["response_s"].to_numpy()
        if len(response):
            frames.append(
                _compared(name, response, state.books[places].sum(axis=0), state.responses[places].sum(axis=0))
            )
    return pl.concat(frames).with_columns(
        error=pl.when(pl.col("recorded") > 0).then(pl.col("simulated") / pl.col("recorded") - 1.0)
    )


def _compared(name: str, response_s: _F8, books: _F8, counts: _F8) -> pl.DataFrame:
    answered = float(books[SERVED])
    simulated = [answered, float(books[RESPONSE_S]) / answered if answered else None]
    simulated += [_percentile(counts, level) for level in (0.5, 0.95)]
    told = [float(len(response_s)), float(response_s.mean()), *np.quantile(response_s, [0.5, 0.95]).tolist()]
    return pl.DataFrame(
        {
            "service": name,
            "measure": ["requests", "mean_s", "p50_s", "p95_s"],
            "recorded": told,
            "simulated": simulated,
        },
        schema_overrides={"simulated": pl.Float64},
    )


def _percentile(counts: _F8, level: float) -> float | None:
    value = percentile(counts.astype(np.float64).reshape(BUCKETS), level)
    return value if value > EDGES_S[0] else None


def _with_quiet(replay: Trace, until_s: float) -> Trace:
    """The trace with demand 0 from its end on."""
    step_s = replay.info.step_s
    times = np.arange(replay.duration_s, until_s + step_s, step_s)
    quiet = [
        pl.DataFrame({"service": service, "time_s": times, "value": 0.0})
        for service in replay.demand["service"].unique().sort()
    ]
    demand = pl.concat([replay.demand.select("service", "time_s", "value"), *quiet])
    return replay.replacing("followed until all is answered", demand=demand.sort("service", "time_s"))
