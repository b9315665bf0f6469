"""Predictive scaling without training: what came a season ago, plus what that was wrong by, ahead of time.

The idea of AHPA (Zhou et al., AAAI 2023) and of predictive horizontal pod autoscalers in its plainest form: the
seasonal-naive forecast of each minute until new replicas could be ready, lifted by a quantile of its own past errors,
and never below what demand needs now. It learns online, from the demand that it sees: one season long it only reacts,
and says so.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from agents.rules.replicas.calculator import Proposal
from agents.rules.replicas.course import Course, Demand
from agents.rules.replicas.erlang import HAIR
from twin.errors import UsageError
from twin.types import Action, Observation


class Seasons:
    """Demand by step over the last `seasons` seasons of `period` steps each, and how wrong the season before it was.

    A step is a number that counts on from any beginning. Steps that nobody told stay unknown; for these the latest
    season that knows stands in.
    """

    def __init__(self, period: int, seasons: int) -> None:
        self.period = period
        self._size = period * seasons
        self._demand = np.full(self._size, np.nan)
        self._errors = np.full(self._size, np.nan)
        self._first = self._last = -1
        self._told = 0  # how often of the last step
        self._expected = math.nan  # of the last step

    @property
    def seen(self) -> int:
        """Steps between the first and the last one told, both included."""
        return self._last - self._first + 1 if self._first >= 0 else 0

    def note(self, step: int, rate_rps: float) -> None:
        """Demand was `rate_rps` in `step`; told several times, their mean counts. Steps must not go backwards."""
        if step != self._last or self._first < 0:
            self._advance(step)
        self._told += 1
        place = step % self._size
        before = self._demand[place] if self._told > 1 else rate_rps
        self._demand[place] = before + (rate_rps - before) / self._told
        self._errors[place] = self._demand[place] - self._expected

    def expected(self, steps: NDArray[np.int64]) -> NDArray[np.float64]:
        """Demand at the same time of the season before each of `steps` [n], in requests/s; NaN where none is known.

        The steps must lie after the last one told, by at most one season.
        """
        rates = np.full(steps.shape, np.nan)
        for back in range(self.period, self._size + 1, self.period):
            past = steps - back
            kept = (past >= self._first) & (past > self._last - self._size) & (past <= self._last)
            use = np.isnan(rates) & kept
            rates[use] = self._demand[past[use] % self._size]
        return rates

    def error(self, quantile: float) -> tuple[float, int]:
        """(that quantile of the known errors in requests/s, their number); (0, 0) when there are none."""
        known = self._errors[~np.isnan(self._errors)]
        return (float(np.quantile(known, quantile)), known.size) if known.size else (0.0, 0)

    def _advance(self, step: int) -> None:
        if self._first < 0:
            self._first = self._last = step
        self._expected = float(self.expected(np.array([step]))[0])
        unknown = np.arange(max(self._last + 1, step - self._size + 1), step + 1) % self._size
        self._demand[unknown] = self._errors[unknown] = np.nan
        self._last, self._told = step, 0


class Seasonal:
    """The replicas that the coming `lead_s` seconds need if they are like a season ago; its confidence is always 1.

    Unknown demand is bridged: the forecast goes on, but nothing shrinks.
    """

    def __init__(
        self,
        service: str,
        replica_rps: float,
        target_utilisation: float,
        min_replicas: int,
        max_replicas: int,
        lead_s: float = 300.0,
        quantile: float = 0.9,
        season_s: float = 86_400.0,
        seasons: int = 7,
        step_s: float = 60.0,
        patience_s: float = 300.0,
        interval_s: float = 60.0,
        name: str = "seasonal",
    ) -> None:
        """Steer `service` between `min_replicas` and `max_replicas`.

        Args:
            service: its name, as the observation's columns show it.
            replica_rps: requests/s that one ready replica can serve.
            target_utilisation: share of that (0-1) that a replica should serve.
            min_replicas: lower bound.
            max_replicas: upper bound.
            lead_s: seconds until a replica asked for now is ready, its node's boot included.
            quantile: share (0-1) of the past errors that the forecast must cover.
            season_s: seconds after which demand repeats itself.
            seasons: how many of them are remembered.
            step_s: seconds for which one number is remembered.
            patience_s: never fewer replicas than were asked for within so many seconds.
            interval_s: seconds between decisions.
            name: as the decision table shows it.

        Raises:
            UsageError: when a number makes no sense.
        """
        period = round(season_s / step_s) if step_s > 0 else 0
        if period < 1 or abs(period * step_s - season_s) > HAIR * season_s or seasons < 1:
            raise UsageError(
                f"controller {name!r}: season_s={season_s} must be a multiple of step_s={step_s}, seasons={seasons} "
                "at least 1"
            )
        if not (0 <= lead_s < season_s and 0 <= quantile <= 1):
            raise UsageError(
                f"controller {name!r}: lead_s={lead_s} must be at least 0 and below season_s={season_s}, "
                f"quantile={quantile} within 0 and 1"
            )
        if not (replica_rps > 0 and 0 < target_utilisation <= 1):
            raise UsageError(
                f"controller {name!r}: replica_rps={replica_rps} must be positive, "
                f"target_utilisation={target_utilisation} within 0 (excluded) and 1"
            )
        self.name = name
        self.interval_s = interval_s
        self._course = Course(name, service, int(min_replicas), int(max_replicas), patience_s)
        self._replica_rps, self._target = replica_rps, target_utilisation
        self._lead_s, self._quantile, self._step_s = lead_s, quantile, step_s
        self._shape = (period, int(seasons))
        self._seasons = Seasons(*self._shape)

    def reset(self) -> None:
        """Forget all demand seen, and what was asked for."""
        self._course.reset()
        self._seasons = Seasons(*self._shape)

    def decide(self, observation: Observation) -> list[Action]:
        """The replicas for what is expected; none while the wished number was never known."""
        seen = self._course.demand(observation)
        # the demand seen arrived until now: at a full minute that is the minute before
        step = math.ceil(observation.time_s / self._step_s - HAIR) - 1
        if math.isfinite(seen.now_rps) and step >= 0:
            self._seasons.note(step, seen.now_rps)
        return self._course.act(observation, self._propose(step, seen), seen.unknown)

    def _propose(self, step: int, seen: Demand) -> Proposal | None:
        period, known = self._seasons.period, self._seasons.seen
        if known < period:
            return self._react(seen, f"only {known} of the {period} steps of a first season seen")
        ahead = np.arange(step + 1, step + 1 + math.ceil(self._lead_s / self._step_s) + 1)
        season_ago = self._seasons.expected(ahead)
        if np.isnan(season_ago).all():
            return self._react(seen, f"no season knows the coming {self._lead_s:g} s")
        peak_rps = float(np.nanmax(season_ago))
        error_rps, errors = self._seasons.error(self._quantile)
        if seen.now_rps > peak_rps + error_rps:
            told = f"demand now, above the {peak_rps + error_rps:.4g} expected within {self._lead_s:g} s"
            return self._sized(seen.now_rps, told)
        told = f"{peak_rps:.4g} a season ago within {self._lead_s:g} s {error_rps:+.4g}, "
        told += f"the {self._quantile:g} quantile of {errors} errors" if errors else "no errors known yet"
        return self._sized(max(peak_rps + error_rps, 0.0), told)

    def _react(self, seen: Demand, why: str) -> Proposal | None:
        if not math.isfinite(seen.largest_rps):
            return None
        return self._sized(seen.largest_rps, f"demand now or over 15 min, for {why}")

    def _sized(self, rate_rps: float, told: str) -> Proposal:
        value = math.ceil(rate_rps / (self._replica_rps * self._target) - HAIR)
        return Proposal(value, f"{value} = ceil({rate_rps:.4g}/({self._replica_rps:g} x {self._target:g})): {told}")
