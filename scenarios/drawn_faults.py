"""Faults drawn from distributions: given ones, or those fitted to a recorded failure log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from scenarios.base import Scenery
from scenarios.faults import check, pool_named
from scenarios.fitting import LEAST, Distribution, Fitted, fit
from scenarios.recordings import Failures, failures, recording
from twin.errors import ScenarioError
from twin.seeds import child
from twin.trace.trace import Trace
from twin.types import Cluster, Event, EventKind

_MOST = 1_000_000


@dataclass(frozen=True, slots=True)
class DrawnFailures:
    """Faults of one kind at instants of renewal processes: gaps and durations are drawn by `seed`.

    `streams` independent processes run at once (one for each node, say), each stationary from second 0 on. Each fault
    happens with probability `share`. The trace's T seconds so hold streams x share x T / between.mean_s of them in the
    mean. `kind`, `target`, `count` and `magnitude` are those of `twin.types.Event`. Two such scenarios of the same kind
    and target in one composition need different seeds.
    """

    kind: EventKind
    target: str
    between: Distribution
    lasting: Distribution
    count: int = 1
    magnitude: float = 1.0
    streams: int = 1
    share: float = 1.0
    seed: int = 0

    def apply(self, trace: Trace, cluster: Cluster) -> Scenery:
        """The trace and the cluster as given, with the faults.

        Raises:
            ScenarioError: the cluster has no such target, or a field makes no fault of this kind.
        """
        check(Event(0.0, self.kind, self.target, self.lasting.mean_s, self.count, self.magnitude), cluster)
        if self.streams < 1 or not 0.0 <= self.share <= 1.0:
            raise ScenarioError(f"streams={self.streams} must be at least 1, share={self.share:g} in [0, 1]")
        expected = self.streams * trace.duration_s / self.between.mean_s
        if expected > _MOST:
            raise ScenarioError(f"{self.between} would draw {expected:,.0f} faults; at most {_MOST:,} are sensible")
        rng = child(self.seed, f"scenario/drawn/{self.kind}/{self.target}")
        all_s = np.concatenate([self.between.arrivals(trace.duration_s, rng) for _ in range(self.streams)])
        times_s = np.sort(all_s[rng.random(all_s.size) < self.share])
        lasts_s = self.lasting.draw(rng, times_s.size)
        events = tuple(
            Event(time_s, self.kind, self.target, last_s, self.count, self.magnitude)
            for time_s, last_s in zip(times_s.tolist(), lasts_s.tolist(), strict=True)
        )
        return trace, cluster, events


@dataclass(frozen=True, slots=True)
class FittedFailures:
    """Failures of a pool's nodes, drawn as those of a recording came: another history of the same kind.

    Gaps between the recorded failures, and their durations, are fitted by maximum likelihood (`scenarios.fitting.fit`:
    exponential, Weibull or lognormal, whichever has the least AIC). Failures of the recorded system are drawn, and each
    falls on the pool with probability pool.nodes x stands_for / watched: the pool is that part of it (with
    `stands_for` None, all of it). Failures at one recorded instant count as one. With fewer than ten recorded repairs,
    or with `repair_s` given, that time or the pool's own time of repair takes the place of the fitted one.

    The other fields are those of `scenarios.recorded_faults.RecordedFailures`.
    """

    path: str
    pool: str
    format: str | None = None
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
        """The trace with a note that tells the fits, the cluster as given, and the failures.

        Raises:
            ScenarioError: an unknown pool, one that stands for more units than were watched, or a recording with too
                few failures to fit.
            TraceError: the recording cannot be read.
        """
        pool = pool_named(self.pool, cluster)
        recorded = recording(self.path, self.format, trace)
        found = failures(recorded, starts=tuple(self.starts), parts=self.parts, watched=self.recorded_nodes)
        share = 1.0 if self.stands_for is None else pool.nodes * self.stands_for / found.watched
        if not 0.0 < share <= 1.0:
            raise ScenarioError(
                f"recording {found.name!r} watched {found.watched} units, and the {pool.nodes} nodes of pool "
                f"{pool.name!r} cannot stand for {self.stands_for} of them each; choose another stands_for"
            )
        between, repair = fit(gaps(found)), self._repair(found)
        lasting = repair or Distribution("lognormal", self.repair_s or pool.repair.median_s,
                                         0.0 if self.repair_s else pool.repair.sigma)  # fmt: skip
        law = lasting.distribution if isinstance(lasting, Fitted) else lasting
        drawn = DrawnFailures("node_failure", pool.name, between.distribution, law, share=share, seed=self.seed)
        note = (
            f"scenario: failures of pool {pool.name!r} drawn with seed {self.seed} as those of {found.name} came: "
            f"between failures {between}, repair {lasting}, share of the recorded system {share:g}"
        )
        _, _, events = drawn.apply(trace, cluster)
        return trace.replacing(note), cluster, events

    def _repair(self, found: Failures) -> Fitted | None:
        told = found.table["duration_s"].drop_nulls().to_numpy()
        return fit(told) if self.repair_s is None and told.size >= LEAST else None


def gaps(found: Failures) -> np.ndarray:
    """The times in seconds between the failures of a recording [instants - 1], those at one instant being one."""
    return np.diff(found.table.select(pl.col("time_s").unique().sort())["time_s"].to_numpy())
