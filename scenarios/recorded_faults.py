"""Recorded failure logs, replayed at their instants on the pools and services of a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from scenarios.base import Scenery
from scenarios.faults import check, pool_named
from scenarios.recordings import chosen, failures, recording, windowed
from twin.errors import ScenarioError
from twin.seeds import child
from twin.trace.trace import Trace
from twin.types import Cluster, Event, Pool


@dataclass(frozen=True, slots=True)
class RecordedFailures:
    """The failures of recorded nodes (or parts of nodes) happen to nodes of a pool, when and as long as recorded.

    Each of the nodes that the pool starts with stands for `stands_for` recorded units, drawn by `seed` from all that
    were watched, those that never failed among them: in the mean pool.nodes x stands_for / watched of the recorded
    failures happen, with their clusters in time. None: the whole recording happens to the pool. Which node of the pool
    is down is the twin's choice (the fullest), for the recorded places are not those of the pool. Units that fail at
    one instant for one time are one event with their number.

    A failure lasts until the recorded repair, or all of them `repair_s`. Where no repair was recorded, the pool's own
    time of repair is drawn. Second 0 of the trace is second `offset_s` of the recording; what is longer than the trace
    is cut, what then lasts already begins at second 0.

    Logs of outages of whole services are for `RecordedOutages`.

    `path` and `format` are those of `twin.read`; an empty path means the trace's own `node_events`. `starts`, `parts`
    and `recorded_nodes` (how many were watched) are explained at `scenarios.recordings.failures`.
    """

    path: str
    pool: str
    format: str | None = None
    offset_s: float = 0.0
    stands_for: int | None = 1
    starts: Sequence[str] = ("fail",)
    parts: bool = False
    recorded_nodes: int | None = None
    repair_s: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Take any sequence, keep a tuple: equal scenarios are equal values."""
        object.__setattr__(self, "starts", tuple(self.starts))

    def apply(self, trace: Trace, cluster: Cluster) -> Scenery:
        """The trace with a note that tells the mapping, the cluster as given, and the failures.

        Raises:
            ScenarioError: an unknown pool, a recording without such failures or with fewer units than the pool stands
                for, or an offset outside of it.
            TraceError: the recording cannot be read.
        """
        pool = pool_named(self.pool, cluster)
        recorded = recording(self.path, self.format, trace)
        found = failures(recorded, starts=tuple(self.starts), parts=self.parts, watched=self.recorded_nodes)
        units = found.watched if self.stands_for is None else pool.nodes * self.stands_for
        if not 0 < units <= found.watched:
            raise ScenarioError(
                f"recording {found.name!r} watched {found.watched} units, and the {pool.nodes} nodes of pool "
                f"{pool.name!r} cannot stand for {units}; choose another stands_for, or null for all"
            )
        rng = child(self.seed, f"scenario/recorded/{pool.name}")
        taken = _sample(found.table, found.watched, units, rng)
        lasting = taken.with_columns(_durations(taken["duration_s"], self.repair_s, pool, rng))
        seen = windowed(lasting, found.name, recorded.duration_s, self.offset_s, trace.duration_s)
        note = (
            f"scenario: {seen.height} recorded failures of {found.name}, from its second {self.offset_s:g} on: {units} "
            f"of {found.watched} recorded units on the {pool.nodes} nodes of pool {pool.name!r}, seed {self.seed}"
        )
        return trace.replacing(note), cluster, _node_failures(seen, pool, found.name, cluster)


@dataclass(frozen=True, slots=True)
class RecordedOutages:
    """The recorded outages of a service happen to a service (or a zone), when and as long as recorded.

    Such archives tell what users or operators saw: that a share of the service was gone, and for how long; neither why
    nor where. Therefore an outage is by default a `bad_deploy`: that share of the answers are errors until its end, and
    nothing is said about machines. With kind="zone_failure" or "partition" all nodes of zone `target` are gone for that
    time: a stronger reading, for outages of at least `least_share`. Outages that overlap stay apart. Left out are those
    without an end or with share 0.

    `entity` is the recorded service (may be left out where there is one); path, format and offset as in
    `RecordedFailures`; the recording's `incidents` are read.
    """

    path: str
    target: str
    entity: str | None = None
    kind: Literal["bad_deploy", "zone_failure", "partition"] = "bad_deploy"
    format: str | None = None
    offset_s: float = 0.0
    least_share: float = 0.0

    def apply(self, trace: Trace, cluster: Cluster) -> Scenery:
        """The trace with a note, the cluster as given, and the outages.

        Raises:
            ScenarioError: an unknown target or recorded service, or an offset outside the recording.
            TraceError: the recording cannot be read.
        """
        if self.kind not in ("bad_deploy", "zone_failure", "partition"):
            raise ScenarioError(f"an outage is a bad_deploy, a zone_failure or a partition, not a {self.kind!r}")
        check(Event(0.0, self.kind, self.target, 1.0), cluster)
        recorded = recording(self.path, self.format, trace)
        known = recorded.incidents["entity"].drop_nulls().unique().sort().to_list()
        entity = chosen(self.entity, known, "entity", recorded.info.name)
        share = pl.col("share").fill_null(1.0)
        rows = recorded.incidents.filter(
            pl.col("entity") == entity, share > 0, share >= self.least_share, pl.col("end_s") > pl.col("start_s")
        ).select("incident", time_s="start_s", duration_s=pl.col("end_s") - pl.col("start_s"), share=share)
        seen = windowed(rows, recorded.info.name, recorded.duration_s, self.offset_s, trace.duration_s)
        events = tuple(
            Event(time_s, self.kind, self.target, lasts_s, 1, min(share, 1.0), f"{recorded.info.name}: {incident}")
            for incident, time_s, lasts_s, share in seen.sort("time_s").iter_rows()
        )
        note = (
            f"scenario: {len(events)} recorded outages of {entity} ({recorded.info.name}, from its second "
            f"{self.offset_s:g} on) as {self.kind} of {self.target!r}"
        )
        return trace.replacing(note), cluster, events


@dataclass(frozen=True, slots=True)
class RecordedSpot:
    """The spot capacity of a recorded zone limits a spot pool: preempted and short when the recording was.

    Such recordings tell how many of the `asked` instances were to be had at each tick (by default the most that ever
    were). `nodes` of the pool (by default those it starts with) stand for all that were asked for, so that of them
    floor(nodes x had / asked) are to be had. While that is less than `nodes`, the pool is short: it gets no node beyond
    it. When it falls, the difference is taken back. When all are there nothing is known of how many more there would
    be, and the pool may grow to its own limit.

    The nodes are gone at the recorded instant: their warning, and the shortage, begin the pool's notice before it, but
    not before the last change of the count. Path, format and offset as in `RecordedFailures`; `entity` is the recorded
    zone and shape (may be left out where there is one); the recording's usage series `spot_instances` is read. What
    the recording does not reach is free of shortages.
    """

    path: str
    pool: str
    entity: str | None = None
    format: str | None = None
    offset_s: float = 0.0
    nodes: int | None = None
    asked: int | None = None

    def apply(self, trace: Trace, cluster: Cluster) -> Scenery:
        """The trace with a note, the cluster as given, and interruptions and shortages.

        Raises:
            ScenarioError: no such pool, or not of spot nodes, no such recorded entity, or an offset outside.
            TraceError: the recording cannot be read.
        """
        check(Event(0.0, "interruption", self.pool, 0.0), cluster)
        pool = pool_named(self.pool, cluster)
        recorded = recording(self.path, self.format, trace)
        ticks = recorded.usage.filter(resource="spot_instances").sort("time_s")
        entity = chosen(self.entity, ticks["entity"].unique().sort().to_list(), "entity", recorded.info.name)
        ticks = ticks.filter(entity=entity)
        most = self.asked or int(ticks.select(pl.col("value").max()).item())
        nodes = self.nodes or pool.nodes
        if most < 1 or nodes < 1:
            raise ScenarioError(
                f"{entity!r} of recording {recorded.info.name!r} never had an instance, or pool {pool.name!r} starts "
                "without nodes; give asked and nodes"
            )
        step_s = ticks["step_s"].fill_null(recorded.info.step_s)
        lasting = ticks.with_columns(
            duration_s=(pl.col("time_s").shift(-1) - pl.col("time_s")).fill_null(step_s),
            had=(pl.col("value").clip(0, most) * nodes / most + 1e-9).floor().cast(pl.Int64),
        )
        ends_s = lasting.select((pl.col("time_s") + pl.col("duration_s")).max()).item()
        seen = windowed(lasting, recorded.info.name, ends_s, self.offset_s, trace.duration_s)
        changed = seen.filter((pl.col("had") != pl.col("had").shift(1)).fill_null(value=True))
        events = _market(
            changed["time_s"].to_list(),
            changed["had"].to_list(),
            min(ends_s - self.offset_s, trace.duration_s),
            nodes,
            pool,
            f"{recorded.info.name}: {entity}",
        )
        note = (
            f"scenario: recorded spot market of {entity} ({recorded.info.name}, from its second {self.offset_s:g} on): "
            f"the {most} asked for are {nodes} nodes of pool {pool.name!r}"
        )
        return trace.replacing(note), cluster, events


def _sample(table: pl.DataFrame, watched: int, units: int, rng: np.random.Generator) -> pl.DataFrame:
    """The failures of `units` of the watched units, drawn without replacement."""
    failed = table["unit"].unique().sort()
    drawn = np.zeros(watched, dtype=bool)
    drawn[rng.permutation(watched)[:units]] = True
    return table.filter(pl.col("unit").is_in(failed.filter(pl.Series(drawn[: failed.len()])).implode()))


def _durations(recorded_s: pl.Series, repair_s: float | None, pool: Pool, rng: np.random.Generator) -> pl.Series:
    if repair_s is not None:
        return pl.Series("duration_s", np.full(recorded_s.len(), repair_s))
    drawn_s = pl.Series([pool.repair.draw(rng) for _ in range(recorded_s.len())], dtype=pl.Float64)
    return recorded_s.fill_null(drawn_s).alias("duration_s")


def _node_failures(seen: pl.DataFrame, pool: Pool, name: str, cluster: Cluster) -> tuple[Event, ...]:
    cause = pl.col("cause").fill_null("failure")
    rows = seen.group_by("time_s", "duration_s", cause).len().sort("time_s", "duration_s", "cause")
    events = tuple(
        Event(time_s, "node_failure", pool.name, lasts_s, count, cause=f"{name}: {cause}")
        for time_s, lasts_s, cause, count in rows.iter_rows()
    )
    for event in events:
        check(event, cluster)
    return events


def _market(
    times_s: list[float], had: list[int], end_s: float, nodes: int, pool: Pool, cause: str
) -> tuple[Event, ...]:
    """Shortages and interruptions of a pool that has `had[i]` of `nodes` from `times_s[i]` on, until `end_s`."""
    lost = [max(before - now, 0) for before, now in zip([nodes, *had[:-1]], had, strict=True)]
    begins: list[float] = []
    for time_s, fewer in zip(times_s, lost, strict=True):
        last_s = begins[-1] if begins else 0.0
        begins.append(max(last_s, time_s - pool.notice_s) if fewer else time_s)
    events: list[Event] = []
    for begin_s, until_s, now, fewer in zip(begins, [*begins[1:], end_s], had, lost, strict=True):
        if now < nodes and until_s > begin_s:
            events.append(Event(begin_s, "shortage", pool.name, until_s - begin_s, 1, float(now), cause))
        if fewer:
            events.append(Event(begin_s, "interruption", pool.name, 0.0, fewer, cause=cause))
    return tuple(events)
