"""A forecaster that is never trusted blindly: when its model fails, a simple one answers, and it is written down.

Each series is guarded by itself. Its model is at fault at an origin when it raises, says NaN, infinite or crossing
deciles, leaves the bounds, is older than allowed, or has been worse than the fallback over the last tracked day. It
answers again once it has been without fault for `return_s`. Time is that of the origins, never the wall clock; truth
is what later pasts show, so nothing but the calls themselves is needed to keep track.

A series at rest has no width, and the last value forecasts it without any error: measured by these, every other
answer would be a fault. So bounds are never narrower than a share of the values themselves, reach from what the series
did lately as well, and a loss that is next to nothing of the values is no fault, however little the fallback's is.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import polars as pl

from agents.forecast.base import DECILES, Floats, Forecaster, Past, Progress, part
from agents.forecast.frames import Series
from twin.errors import UsageError

_DAY_S = 86_400.0
_LEAST_WIDTH = 0.1  # of the values: what a range counts for at least
_NOTHING = 1e-6  # the width of a range of nothing but zeros
_LEAST_LOSS = 1e-3  # of the values: where nothing moved, the networks' bands are as wide (frames.normalise)
_ROUNDING = 1e-9  # of a decile: so far they may cross, and are put in order
_ENDS = (np.fmin.reduce, np.fmax.reduce)  # what is not on record counts for nothing


@dataclass(frozen=True, slots=True)
class Limits:
    """What a guarded model may say, and for how long it is trusted.

    Attributes:
        reach: how far beyond the range of its training values and of those in its past a decile may lie, in widths
            of that range, which counts for a tenth of the largest value at least.
        lowest, highest: physical bounds in the series' unit; a decile beyond is a fault.
        most_age_s: from the end of its training; None for no limit.
        worse: the model is at fault when its mean pinball loss of the last tracked day is above so many times that
            of the fallback, and above a thousandth of the values; None to keep no track.
        least_tracked_s: how much of a day must be tracked before that is judged.
        return_s: how long a model must be without fault before it answers again.
    """

    reach: float = 3.0
    lowest: float = -np.inf
    highest: float = np.inf
    most_age_s: float | None = None
    worse: float | None = 1.0
    least_tracked_s: float = _DAY_S / 2
    return_s: float = 3_600.0

    def __post_init__(self) -> None:
        if self.reach < 0.0 or self.lowest >= self.highest or self.return_s < 0.0:
            raise UsageError(f"{self}: reach and return_s are 0 or more, and lowest below highest")


@dataclass(frozen=True, slots=True)
class Switch:
    """From `time_s` on somebody else answers for a series; `answers` is "model" or "fallback"."""

    time_s: float
    unique_id: str
    answers: str
    reason: str


@dataclass(slots=True)
class _Track:
    """What is remembered of one series."""

    faulty_s: float | None = None  # when it was last at fault
    answers: str = "model"
    said: deque[tuple[float, Floats, Floats]] = field(default_factory=deque)  # origin_s, model's, fallback's
    losses: deque[tuple[float, float, float, float]] = field(default_factory=deque)  # ... and the mean |value|


class Guarded:
    """A forecaster and the simple one that answers in its place.

    Args:
        model: what shall answer.
        fallback: what answers else; what it raises is raised.
        limits: what counts as a fault.

    Attributes:
        switches: each change of who answers, in the order of the origins.
        counts: forecasts by reason for which the fallback answered; "" for those of the model.
    """

    def __init__(self, model: Forecaster, fallback: Forecaster, limits: Limits = Limits()) -> None:
        self.model = model
        self.fallback = fallback
        self.limits = limits
        self.switches: list[Switch] = []
        self.counts: Counter[str] = Counter()
        self._ranges: Mapping[str, tuple[float, float]] = {}
        self._trained_s: Mapping[str, float] = {}
        self._tracks: dict[str, _Track] = {}

    @property
    def name(self) -> str:
        """That of the model."""
        return self.model.name

    @property
    def context(self) -> int:
        """What both need."""
        return max(self.model.context, self.fallback.context)

    @property
    def needs(self) -> int:
        """What the fallback cannot do without: a past too short for the model alone is a fault of the model."""
        return self.fallback.needs

    @property
    def pooled(self) -> bool:
        """As the model."""
        return self.model.pooled

    def fit(self, series: Sequence[Series], seed: int, progress: Progress | None = None) -> Self:
        """Both fitted, with nothing tracked yet; raises UsageError as they do."""
        model = self.model.fit(series, seed, part(progress, 0.0, 0.9))
        return type(self)(model, self.fallback.fit(series, seed, part(progress, 0.9, 1.0)), self.limits).trained(series)

    def trained(self, series: Sequence[Series]) -> Self:
        """This one, told what its fitted model was trained on: the range of the bounds, and the start of its age."""
        self._ranges = {s.unique_id: (float(s.values.min()), float(s.values.max())) for s in series}
        self._trained_s = {s.unique_id: float(s.start_s + s.step_s * len(s.values)) for s in series}
        return self

    def forecast(self, past: Past, h: int) -> Floats:
        """Deciles [batch, h, 9]; raises UsageError only as the fallback does."""
        safe = self.fallback.forecast(past.last(self.fallback.context, h), h)
        said, faults = self._ask(past, h)
        answer = safe.copy()
        for row in np.argsort(past.origin_s, kind="stable"):
            fault = faults[row] or self._wrong(past, int(row), said[row])
            if self._trusted(past, int(row), said[row], safe[row], fault):
                answer[row] = np.maximum.accumulate(said[row], axis=-1)
        return answer

    def since(self) -> dict[str, Switch]:
        """The series for which the fallback answers now, with when and why it began."""
        newest = {switch.unique_id: switch for switch in self.switches}
        return {unique_id: switch for unique_id, switch in newest.items() if switch.answers == "fallback"}

    def events(self) -> pl.DataFrame:
        """The switches as a table: `time_s, unique_id, answers, reason`."""
        columns = {"time_s": pl.Float64, "unique_id": pl.String, "answers": pl.String, "reason": pl.String}
        return pl.DataFrame([[getattr(s, name) for name in columns] for s in self.switches], columns, orient="row")

    # ------------------------------------------------------------ faults

    def _ask(self, past: Past, h: int) -> tuple[Floats, list[str]]:
        """What the model says [batch, h, 9], and why it said nothing; one by one where it raises for all."""
        view = past.last(self.model.context, h)
        try:
            return _checked(self.model.forecast(view, h), len(past.ids), h), [""] * len(past.ids)
        except Exception as error:  # any library's own class: whatever it is, it becomes a recorded fault
            reason = f"raised {type(error).__name__}"
        if len(past.ids) == 1:
            return np.full((1, h, len(DECILES)), np.nan), [reason]
        parts = [self._ask(_row(past, row), h) for row in range(len(past.ids))]
        return np.concatenate([said for said, _ in parts]), [faults[0] for _, faults in parts]

    def _wrong(self, past: Past, row: int, said: Floats) -> str:
        """What is wrong with an answer [h, 9], in words that do not change from one origin to the next."""
        unique_id, limits = past.ids[row], self.limits
        if not np.isfinite(said).all():
            return "not finite"
        if (np.diff(said, axis=-1) < -_ROUNDING * np.abs(said).max()).any():
            return "crossing"
        low, high = self._bounds(unique_id, past.y[row])
        if said.min() < low or said.max() > high:
            return "out of bounds"
        age_s = past.origin_s[row] - self._trained_s.get(unique_id, past.origin_s[row])
        if limits.most_age_s is not None and age_s > limits.most_age_s:
            return "too old"
        return ""

    def _bounds(self, unique_id: str, y: Floats) -> tuple[float, float]:
        """Between what a decile may lie: as far as `limits.reach` goes beyond what the series did, if that is known."""
        limits = self.limits
        if unique_id not in self._ranges:
            return limits.lowest, limits.highest
        low, high = (float(each(y, initial=seen)) for each, seen in zip(_ENDS, self._ranges[unique_id], strict=True))
        room = limits.reach * max(high - low, _LEAST_WIDTH * max(abs(low), abs(high)), _NOTHING)
        return max(low - room, limits.lowest), min(high + room, limits.highest)

    def _trusted(self, past: Past, row: int, said: Floats, safe: Floats, fault: str) -> bool:
        """Whether the model answers at this origin; tracks and records."""
        unique_id, now = past.ids[row], float(past.origin_s[row])
        track = self._tracks.setdefault(unique_id, _Track())
        if self.limits.worse is not None:
            self._score(track, past, row)
            if not fault:  # what was at fault has been answered for; it shall not weigh on the track for a day
                track.said.append((now, said, safe))
            fault = fault or self._worse(track, now)
        track.faulty_s = now if fault else track.faulty_s
        trusted = track.faulty_s is None or now - track.faulty_s >= max(self.limits.return_s, 1e-9)
        reason = "" if trusted else fault or "on probation"
        self.counts[reason] += 1
        answers = "model" if trusted else "fallback"
        if answers != track.answers:
            track.answers = answers
            self.switches.append(Switch(now, unique_id, answers, reason or f"no fault for {self.limits.return_s:g} s"))
        return trusted

    # ------------------------------------------------------------ track

    def _score(self, track: _Track, past: Past, row: int) -> None:
        """Take the losses of what was said earlier and has come true in this past."""
        now, y = float(past.origin_s[row]), past.y[row]
        while track.said:
            origin_s, mine, other = track.said[0]
            begin = len(y) - round((now - origin_s) / past.step_s)
            if begin + len(mine) > len(y):
                break
            track.said.popleft()
            truth = y[begin : begin + len(mine)]
            if begin >= 0 and np.isfinite(truth).all():
                size = float(np.abs(truth).mean())
                track.losses.append((origin_s, _loss(mine, truth), _loss(other, truth), size))

    def _worse(self, track: _Track, now: float) -> str:
        assert self.limits.worse is not None
        while track.losses and track.losses[0][0] < now - _DAY_S:
            track.losses.popleft()
        if not track.losses or now - track.losses[0][0] < self.limits.least_tracked_s:
            return ""
        mine, other, size = (float(np.mean([loss[k] for loss in track.losses])) for k in (1, 2, 3))
        return "worse than the fallback" if not mine <= max(self.limits.worse * other, _LEAST_LOSS * size) else ""


def _checked(said: Floats, batch: int, h: int) -> Floats:
    if said.shape != (batch, h, len(DECILES)):
        raise UsageError(f"answered {list(said.shape)}, and not {[batch, h, len(DECILES)]}")
    return said


def _row(past: Past, row: int) -> Past:
    at = slice(row, row + 1)
    return Past(
        past.ids[at], past.y[at], past.origin_s[at], past.step_s, past.seen[at], past.known[at], past.static[at]
    )


def _loss(said: Floats, truth: Floats) -> float:
    over = truth[:, None] - said
    return float(np.maximum(DECILES * over, (DECILES - 1.0) * over).mean())
