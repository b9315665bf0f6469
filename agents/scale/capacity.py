"""Capacity plans: how many replicas or nodes to hold in each hour (or day) to come, from a forecast of its peak.

What a period needs is a newsvendor's question: with `shortage_cost` for each missing and `idle_cost` for each idle
replica, the cheapest stock is the quantile shortage_cost / (shortage_cost + idle_cost) of what will be asked for
(Arrow, Harris and Marschak 1951, Optimal inventory policy, Econometrica 19). A plan is fixed some steps ahead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
import polars as pl

from agents.forecast.base import DECILES, MEDIAN, Floats, Forecaster, Past, Progress, check_past
from agents.forecast.frames import Series
from agents.forecast.rolling import roll
from twin.errors import UsageError
from twin.types import Action, ActionKind, Controller, Observation, Pool, Service

_HAIR = 1e-9
_LEAST_GAP = 1e-3  # of the median, as for the confidence of a scaler


@dataclass(frozen=True, slots=True)
class Newsvendor:
    """What it costs when a replica is missing, or idle, for an hour; only their ratio chooses the stock."""

    shortage_cost: float
    idle_cost: float

    def __post_init__(self) -> None:
        if not (self.shortage_cost > 0 and self.idle_cost > 0):
            raise UsageError(
                f"shortage_cost={self.shortage_cost} and idle_cost={self.idle_cost} must both be positive numbers"
            )

    @property
    def quantile(self) -> float:
        """The share of what may be asked for that should be covered (0-1)."""
        return self.shortage_cost / (self.shortage_cost + self.idle_cost)


def quantile_of(deciles: Floats, level: float) -> Floats:
    """The quantile `level` (0-1) of distributions given by `deciles` [..., 9].

    Linear between them; beyond the outer ones the tail 0.1 / (1 + d), d in gaps between the last two: the same
    distribution that `agents.scale.sizing.confidence` reads. Raises UsageError for a level that is no quantile.
    """
    if not 0.0 < level < 1.0:
        raise UsageError(f"quantile {level} must be above 0 and below 1")
    least = _LEAST_GAP * np.abs(deciles[..., MEDIAN])
    if level > DECILES[-1]:
        gap = np.maximum(deciles[..., -1] - deciles[..., -2], least)
        return deciles[..., -1] + (0.1 / (1.0 - level) - 1.0) * gap
    if level < DECILES[0]:
        gap = np.maximum(deciles[..., 1] - deciles[..., 0], least)
        return deciles[..., 0] - (0.1 / level - 1.0) * gap
    place = 10.0 * level - 1.0
    low = min(int(place), len(DECILES) - 2)
    return deciles[..., low] + (place - low) * (deciles[..., low + 1] - deciles[..., low])


def coarse(series: Series, step_s: int) -> Series:
    """The peaks of a series over whole steps of `step_s`, from the first one that it knows in full.

    Raises UsageError when that is no multiple of the series' own step, or longer than the series.
    """
    if step_s % series.step_s or series.start_s % series.step_s:
        raise UsageError(f"step_s={step_s} must be a multiple of the {series.step_s} s of {series.unique_id!r}")
    each = step_s // series.step_s
    skipped = -(series.start_s // series.step_s) % each
    count = (len(series.values) - skipped) // each
    if count < 1:
        raise UsageError(f"series {series.unique_id!r} is shorter than one step of {step_s} s")
    peaks = series.values[skipped : skipped + count * each].reshape(count, each).max(axis=1)
    return Series(series.unique_id, series.start_s + skipped * series.step_s, step_s, peaks)


@dataclass(frozen=True, slots=True)
class Highest:
    """The rule of thumb as a forecaster: the highest of the last `context` steps plus a `share` of it, for certain."""

    context: int = 168
    share: float = 0.2
    name: str = "peak + 20 %"

    @property
    def needs(self) -> int:
        """One step; it takes what there is."""
        return 1

    @property
    def pooled(self) -> bool:
        """Nothing is learned."""
        return False

    def fit(self, series: Sequence[Series], seed: int, progress: Progress | None = None) -> Self:  # noqa: ARG002
        """Itself."""
        return self

    def forecast(self, past: Past, h: int) -> Floats:
        """Deciles [batch, h, 9], all the same; raises UsageError for an unknown last step."""
        check_past(past, self, h)
        return np.tile((1.0 + self.share) * np.nanmax(past.y, axis=1)[:, None, None], (1, h, len(DECILES)))


@dataclass(frozen=True, slots=True)
class Planning:
    """When plans are made, and how a peak becomes replicas.

    `periods` steps are planned at a time, `lead_steps` before the first of them begins.
    """

    newsvendor: Newsvendor
    target_utilisation: float = 0.9
    periods: int = 24
    lead_steps: int = 2

    def __post_init__(self) -> None:
        if self.periods < 1 or self.lead_steps < 0 or not 0 < self.target_utilisation <= 1:
            raise UsageError(
                f"periods={self.periods} must be at least 1, lead_steps={self.lead_steps} at least 0, "
                f"target_utilisation={self.target_utilisation} in (0, 1]"
            )


@dataclass(frozen=True, slots=True)
class Plan:
    """Replicas to hold in each step of `step_s` from `start_s` (s of the recording's clock) on, for `peak_rps`.

    `said` holds the deciles [steps, 9] that the plan was made of, `truth` what came [steps].
    """

    start_s: int
    step_s: int
    replicas: tuple[int, ...]
    peak_rps: tuple[float, ...]
    said: Floats
    truth: Floats

    def table(self) -> pl.DataFrame:
        """One row per step: time_s (its beginning on the recording's clock), peak_rps planned for, replicas to hold."""
        times = self.start_s + self.step_s * np.arange(len(self.replicas), dtype=np.float64)
        return pl.DataFrame({"time_s": times, "peak_rps": self.peak_rps, "replicas": self.replicas})


def plan(fitted: Forecaster, demand: Series, planning: Planning, service: Service, begin: int) -> Plan:
    """The plans for all whole spans of `periods` steps from `begin` on, one after the other, each as it was made then.

    Args:
        fitted: a forecaster of `demand`.
        demand: peaks in requests/s by step (`coarse`); what comes after a plan was made does not enter it.
        planning: when plans are made, and for what.
        service: whose replicas.
        begin: steps on record when the first plan begins to hold.

    Raises:
        UsageError: too little history before the first plan, or no whole span after it; as `fitted.forecast`.
    """
    lead, periods = planning.lead_steps, planning.periods
    origins = np.arange(begin - lead, len(demand.values) - lead - periods + 1, periods)
    if not len(origins) or origins[0] < fitted.needs:
        raise UsageError(
            f"{fitted.name}: a plan of {periods} steps made {lead} steps ahead needs {fitted.needs} steps before it; "
            f"{begin} of {len(demand.values)} lie before the first"
        )
    rolled = roll(fitted, demand, origins, lead + periods)
    said = rolled.said[:, lead:].reshape(-1, len(DECILES))
    peak_rps = np.maximum(quantile_of(said, planning.newsvendor.quantile), 0.0)
    wish = np.ceil(peak_rps / (service.replica_rps * planning.target_utilisation) - _HAIR)
    replicas = np.clip(wish, service.min_replicas, service.max_replicas).astype(int)
    start_s = demand.start_s + begin * demand.step_s
    truth = rolled.truth[:, lead:].ravel()
    return Plan(start_s, demand.step_s, tuple(replicas.tolist()), tuple(peak_rps.tolist()), said, truth)


def nodes_for(replicas: Sequence[int], service: Service, pool: Pool) -> list[int]:
    """The nodes of `pool` that hold so many replicas and nothing else, within the pool's bounds.

    Raises UsageError when not one replica fits a node.
    """
    each = int((pool.size / service.request + _HAIR).min())
    if each < 1:
        raise UsageError(f"no replica of {service.name!r} fits a node of {pool.name!r}")
    return [min(max(-(-count // each), pool.min_nodes), pool.max_nodes) for count in replicas]


class PlannedCapacity:
    """Holds what a plan says, from early enough before each step; with a `scaler`, the plan is the least it may hold.

    Its confidence is the plan's own: the share of what may be asked for that it covers. Before its first and after
    its last step it holds those.
    """

    def __init__(
        self,
        target: str,
        counts: Sequence[int],
        step_s: float,
        start_s: float = 0.0,
        ready_s: float = 300.0,
        coverage: float = 1.0,
        kind: ActionKind = "replicas",
        scaler: Controller | None = None,
        interval_s: float = 60.0,
        name: str = "plan",
    ) -> None:
        """Hold `counts` of `target`.

        Args:
            target: a service, or a pool for nodes.
            counts: how many in each step.
            step_s: seconds of a step.
            start_s: when the first step begins, in s of the run.
            ready_s: seconds until what is asked for now is ready; the plan of a step is asked for so much earlier.
            coverage: the plan's quantile.
            kind: "replicas" or "nodes".
            scaler: whose wishes for the same target stand where they are above the plan.
            interval_s: seconds between decisions; with a scaler its own.
            name: as the decision table shows it.

        Raises:
            UsageError: an empty plan, or one that makes no sense.
        """
        if not counts or min(counts) < 0 or not step_s > 0 or ready_s < 0 or kind not in ("replicas", "nodes"):
            raise UsageError(
                f"controller {name!r}: counts={list(counts)[:3]}... must be at least one count >= 0, step_s={step_s} "
                f"positive, ready_s={ready_s} at least 0, kind={kind!r} replicas or nodes"
            )
        self.name = name
        self.interval_s = scaler.interval_s if scaler else interval_s
        self._target, self._scaler = target, scaler
        self._kind: ActionKind = kind
        self._counts, self._step_s, self._start_s = [int(count) for count in counts], step_s, start_s
        self._ready_s, self._coverage = ready_s, coverage

    def reset(self) -> None:
        """The plan stays; the scaler forgets its past."""
        if self._scaler:
            self._scaler.reset()

    def decide(self, observation: Observation) -> list[Action]:
        """The most that the plan asks for until what is asked for now is ready, or more where the scaler wants it."""
        least, until = self._held(observation.time_s)
        reason = f"{least} planned until {until * self._step_s + self._start_s:.0f} s (q{100 * self._coverage:.0f})"
        planned = Action(self._kind, self._target, least, reason, self._coverage)
        asked = self._scaler.decide(observation) if self._scaler else []
        own = [a for a in asked if (a.kind, a.target) == (self._kind, self._target)]
        others = [a for a in asked if a not in own]
        above = [replace(a, reason=f"above the plan's {least}: {a.reason}") for a in own if a.value > least]
        return [*others, *(above or [planned])]

    def _held(self, time_s: float) -> tuple[int, int]:
        """(the count to hold now, the step at whose end that may change)."""
        last = len(self._counts) - 1
        now = math.floor((time_s - self._start_s) / self._step_s + _HAIR)
        soon = math.floor((time_s + self._ready_s + self.interval_s - self._start_s) / self._step_s - _HAIR)
        first, end = min(max(now, 0), last), min(max(soon, 0), last)
        return max(self._counts[first : end + 1]), end + 1


class Balance(NamedTuple):
    """What was missing and what stood idle: minutes, and replicas x hours."""

    shortage_min: float
    shortage_replica_h: float
    idle_replica_h: float


def balance(service_steps: pl.DataFrame, service: Service, since_s: float, step_s: float) -> Balance:
    """The balance of a run's steps of `step_s` after `since_s`: ready replicas against those that arrivals filled."""
    rows = service_steps.filter(pl.col("service") == service.name, pl.col("time_s") > since_s)
    needed = rows["arrived_requests"].to_numpy() / (step_s * service.replica_rps)
    spare = rows["ready_replica_s"].to_numpy() / step_s - needed
    hours = step_s / 3600.0
    short = np.maximum(-spare, 0.0)
    return Balance(
        float((short > 0).sum()) * step_s / 60.0,
        float(short.sum()) * hours,
        float(np.maximum(spare, 0.0).sum()) * hours,
    )
