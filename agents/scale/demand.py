"""The demand that a scaler sees: as it would have been seen in a recording, and as it is observed step by step."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from agents.forecast.frames import Series, panel
from agents.policy import LONGEST_GAP
from twin.errors import UsageError
from twin.trace.trace import Trace
from twin.types import Cluster, Observation, Service

_HAIR = 1e-9  # of a step: what rounding may cost
_ENOUGH = 0.5  # share of a step that must have been observed


def column_of(service: str) -> str:
    """The observation column of a service's demand, which is also its series' name."""
    return f"{service}.demand_rps"


def seen_frame(trace: Trace, cluster: Cluster, service: Service, seed: int) -> pl.DataFrame:
    """The demand of a recording as a long frame, as the twin lets a controller see it.

    With the bursts of `seed`, averaged over each recorded step, in requests/s; `ds` counts from the trace's start.
    Raises UsageError when the recorded step is not a number of whole minutes.
    """
    from twin.engine.demand import STEP_S, arrival_rates

    per_step = trace.info.step_s / STEP_S
    if per_step < 1 or per_step % 1:
        raise UsageError(
            f"trace {trace.info.name!r} has a step of {trace.info.step_s:g} s; a forecast needs whole minutes"
        )
    steps = int(trace.duration_s // trace.info.step_s)
    place = cluster.services.index(service)
    rates = arrival_rates(trace, cluster, trace.duration_s, seed)[place, : steps * int(per_step)]
    return pl.DataFrame(
        {
            "unique_id": pl.repeat(column_of(service.name), steps, eager=True),
            "ds": np.arange(steps, dtype=np.int64) * int(trace.info.step_s),
            "y": rates.reshape(steps, -1).mean(axis=1),
        }
    )


def seen(trace: Trace, cluster: Cluster, service: Service, seed: int) -> Series:
    """As `seen_frame`, on the clock of the whole recording when `trace` is a cut of it."""
    return replace(panel(seen_frame(trace, cluster, service, seed))[0], start_s=int(trace.info.start_s))


@dataclass(slots=True)
class Heard:
    """The demand of one service as observations told it, by steps of `step_s`; nothing else is known here.

    A step counts when at least half of it was observed. Up to LONGEST_GAP unknown steps are bridged by the last known
    value; after a longer gap the series begins anew.

    Attributes:
        service: whose demand.
        step_s: seconds of a step.
        history: what was on record before, ending when the run begins; None for nothing.
        start_s: when the run begins, in s of the series' own clock; with a history, the end of that.
    """

    service: str
    step_s: int
    history: Series | None = None
    start_s: int = 0
    _values: list[float] = field(default_factory=list, init=False)
    _at_s: float | None = field(default=None, init=False)
    _sum: float = field(default=0.0, init=False)
    _known_s: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        if self.step_s < 1:
            raise UsageError(f"step_s={self.step_s} must be at least 1")
        if self.history is not None:
            if self.history.step_s != self.step_s:
                raise UsageError(
                    f"the history {self.history.unique_id!r} has a step of {self.history.step_s} s, not {self.step_s}"
                )
            self.start_s = self.history.start_s + len(self.history.values) * self.step_s
        self.forget()

    def forget(self) -> None:
        """Only the history is left."""
        self._values = [] if self.history is None else self.history.values.tolist()
        self._at_s, self._sum, self._known_s = None, 0.0, 0.0

    def note(self, observation: Observation) -> None:
        """Demand was what the observation says, since the one before it."""
        rate_rps, until_s = observation[column_of(self.service)], observation.time_s
        if self._at_s is None:  # how long the first one looks back is not known
            self._at_s = until_s
            return
        while self._at_s < until_s:
            end_s = (math.floor(self._at_s / self.step_s + _HAIR) + 1) * self.step_s
            taken_s = min(end_s, until_s) - self._at_s
            if math.isfinite(rate_rps):
                self._sum += rate_rps * taken_s
                self._known_s += taken_s
            self._at_s += taken_s
            if self._at_s >= end_s - _HAIR * self.step_s:
                self._close(end_s)

    def series(self) -> Series | None:
        """All steps that have ended since the last long gap; None when there is none, or the last is unknown."""
        values = np.array(self._values)
        if not len(values) or math.isnan(values[-1]):
            return None
        known = np.flatnonzero(np.isfinite(values))
        gaps = np.flatnonzero(np.diff(known) > LONGEST_GAP + 1)
        first = int(known[gaps[-1] + 1 if len(gaps) else 0])
        # the place of the last known step at or before each one
        held = known[np.searchsorted(known, np.arange(first, len(values)), side="right") - 1]
        before = 0 if self.history is None else len(self.history.values)
        name = column_of(self.service) if self.history is None else self.history.unique_id
        return Series(name, self.start_s + (first - before) * self.step_s, self.step_s, values[held])

    def _close(self, end_s: float) -> None:
        self._at_s = end_s
        known = self._known_s >= _ENOUGH * self.step_s
        self._values.append(self._sum / self._known_s if known else math.nan)
        self._sum = self._known_s = 0.0
