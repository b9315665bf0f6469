"""Where training ends and held-out time begins: one rule for training, validation, benchmark and gate."""

from __future__ import annotations

from dataclasses import dataclass

from twin.errors import UsageError
from twin.trace.trace import Trace

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Split:
    """A trace cut in time, on whole days: train | validation | held out.

    `train_share` of the days (rounded down) come before the held-out part; the last `validation_days` of them
    choose between trained policies. `warmup_s` before the held-out part is replayed but not scored.
    """

    train_share: float = 0.75
    validation_days: int = 3
    warmup_s: float = DAY_S

    def held_out_from_s(self, trace: Trace) -> float:
        """The second at which held-out time begins; raises UsageError when the trace is too short to split."""
        days = int(trace.duration_s // DAY_S * self.train_share)
        if days <= self.validation_days or days * DAY_S < self.warmup_s:
            raise UsageError(
                f"trace {trace.info.name!r} has {trace.duration_s / DAY_S:.1f} days: too short to keep "
                f"{self.validation_days} validation days and a held-out part at train_share={self.train_share:g}"
            )
        return days * DAY_S

    def train(self, trace: Trace) -> Trace:
        """What learners may see."""
        return trace.between(0.0, self.held_out_from_s(trace) - self.validation_days * DAY_S)

    def validation(self, trace: Trace) -> Trace:
        """What chooses between trained policies, with its warm-up before it."""
        end_s = self.held_out_from_s(trace)
        return trace.between(max(0.0, end_s - self.validation_days * DAY_S - self.warmup_s), end_s)

    def held_out(self, trace: Trace, days: float | None = None) -> Trace:
        """What judges, with its warm-up before it; only the first `days` days of it when given."""
        start_s = self.held_out_from_s(trace)
        end_s = trace.duration_s if days is None else min(trace.duration_s, start_s + days * DAY_S)
        return trace.between(start_s - self.warmup_s, end_s)


@dataclass(frozen=True, slots=True)
class Whole:
    """A short recording, judged as a whole after the first `warmup_s` seconds: nothing of it may be learned from."""

    warmup_s: float

    def held_out_from_s(self, trace: Trace) -> float:
        """The second at which judging begins; raises UsageError when the trace ends before it."""
        if not 0 <= self.warmup_s < trace.duration_s:
            raise UsageError(
                f"trace {trace.info.name!r} has {trace.duration_s:g} s: warmup_s={self.warmup_s:g} leaves none to judge"
            )
        return self.warmup_s

    def train(self, trace: Trace) -> Trace:
        """Never returns: there is nothing to learn from that does not also judge; raises UsageError."""
        raise UsageError(
            f"trace {trace.info.name!r} is judged as a whole, so that nobody may learn from it; choose split=default"
        )

    def validation(self, trace: Trace) -> Trace:
        """Never returns, as `train`; raises UsageError."""
        return self.train(trace)

    def held_out(self, trace: Trace, days: float | None = None) -> Trace:
        """What judges, with its warm-up before it; only the first `days` days of it when given."""
        start_s = self.held_out_from_s(trace)
        return trace if days is None else trace.between(0.0, min(trace.duration_s, start_s + days * DAY_S))
