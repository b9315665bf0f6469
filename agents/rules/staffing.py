"""Replicas from queueing theory: square-root staffing, and the fewest servers by Erlang C.

A service is seen as one M/G/c queue: Poisson arrivals, c = replicas x concurrency servers. Sources:

- Erlang (1917): the probability of waiting C in M/M/c, by the recursion of Erlang B, which neither overflows nor
  cancels;
- M/G/c: C as in M/M/c, and who waits does so exponentially, (1 + cv^2) / 2 times as long as in M/M/c (Lee and Longton
  1959, reviewed by Whitt 1993); exact for cv = 1. Service times are gamma distributed: exponential for cv = 1,
  constant for cv = 0. P(response > t) = E[P(W > t - S)] is integrated numerically;
- Halfin and Whitt (1981): with R + beta sqrt(R) servers for an offered load R, P(W > 0) tends to
  1 / (1 + beta Phi(beta) / phi(beta)), whatever the size.

Both know a steady state only: how fast demand rises until new replicas are ready is the `headroom`.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.rules.behavior import Behavior, Policy, ScalingRules, stabilise
from agents.rules.replicas import Proposal
from twin.errors import UsageError
from twin.types import Action, Observation, Service

HAIR = 1e-9
"""What a rounding error may add before a whole number is exceeded."""

_MOST_BETA = 30.0  # P(W > 0) is 1e-197 there
_NODES = 128
_TINY = 1e-12


# ---------------------------------------------------------------- formulas


def erlang_b(servers: int, offered: float) -> float:
    """The share of requests that `servers` servers without a queue turn away, at `offered` Erlang."""
    blocked = 1.0
    for n in range(1, servers + 1):
        blocked = _one_more(blocked, n, offered)
    return blocked


def erlang_c(servers: int, offered: float) -> float:
    """P(W > 0) in M/M/c with `servers` servers at `offered` Erlang; 1 when they cannot keep up."""
    return _delayed(erlang_b(servers, offered), servers, offered)


def halfin_whitt(beta: float) -> float:
    """P(W > 0) of R + beta sqrt(R) servers in the limit of a large offered load R (Halfin and Whitt 1981)."""
    density = math.exp(-0.5 * beta * beta) / math.sqrt(2.0 * math.pi)
    below = 0.5 * math.erfc(-beta / math.sqrt(2.0))
    return 1.0 / (1.0 + beta * below / density)


def staffing_beta(wait_probability: float) -> float:
    """The beta for which `halfin_whitt` is `wait_probability`; raises UsageError unless that is within (0, 1)."""
    if not 0.0 < wait_probability < 1.0:
        raise UsageError(f"staffing: wait_probability={wait_probability} must be between 0 and 1, both excluded")
    low, high = 0.0, _MOST_BETA
    while high - low > _TINY:
        beta = 0.5 * (low + high)
        low, high = (beta, high) if halfin_whitt(beta) > wait_probability else (low, beta)
    return high


def square_root_servers(offered: float, beta: float) -> int:
    """R + beta sqrt(R) servers, rounded up, for an offered load of R = `offered` Erlang."""
    return math.ceil(offered + beta * math.sqrt(offered) - HAIR)


@dataclass(frozen=True, slots=True)
class Serving:
    """How one replica serves, and what is promised.

    `concurrency` requests at a time, each for `service_time_s` on average with the coefficient of variation
    `service_cv`; at least `slo_target` of the answers within `slo_s`. Raises UsageError for a promise that no number
    of replicas can keep.
    """

    service_time_s: float
    concurrency: int
    slo_s: float
    slo_target: float = 0.95
    service_cv: float = 0.0

    def __post_init__(self) -> None:
        if not (self.service_time_s > 0 and self.concurrency >= 1 and self.service_cv >= 0 and 0 < self.slo_target < 1):
            raise UsageError(
                f"{self}: service_time_s > 0, concurrency >= 1, service_cv >= 0 and 0 < slo_target < 1 must hold"
            )
        slow = 1.0 if self.slo_s <= 0 else _spread(self.service_time_s, self.service_cv, self.slo_s).beyond
        if slow >= 1.0 - self.slo_target:
            raise UsageError(
                f"{self}: {slow:.1%} of the requests take longer than slo_s even without waiting, so no number of "
                "replicas keeps slo_target; raise slo_s or lower slo_target"
            )

    @classmethod
    def of(cls, service: Service) -> Serving:
        """How a replica of the mirrored `service` serves."""
        return cls(service.service_time_s, service.concurrency, service.slo_s, service.slo_target, service.service_cv)


def late_probability(replicas: int, rate_rps: float, serving: Serving) -> float:
    """P(response > slo_s) of `rate_rps` requests/s at `replicas` replicas; 1 when they cannot keep up."""
    servers, offered = replicas * serving.concurrency, rate_rps * serving.service_time_s
    return _late(erlang_c(servers, offered), servers, offered, serving)


def fewest_replicas(rate_rps: float, serving: Serving) -> int:
    """The smallest number of replicas with P(response > slo_s) <= 1 - slo_target; 0 without demand."""
    offered = rate_rps * serving.service_time_s
    blocked, servers = 1.0, 0
    while offered > 0.0:
        servers += 1
        blocked = _one_more(blocked, servers, offered)
        if servers > offered and servers % serving.concurrency == 0:
            late = _late(_delayed(blocked, servers, offered), servers, offered, serving)
            if late <= 1.0 - serving.slo_target + _TINY:
                break
    return servers // serving.concurrency


def _one_more(blocked: float, servers: int, offered: float) -> float:
    return offered * blocked / (servers + offered * blocked)


def _delayed(blocked: float, servers: int, offered: float) -> float:
    if servers <= offered:
        return 1.0
    return servers * blocked / (servers - offered * (1.0 - blocked))


def _late(delayed: float, servers: int, offered: float, serving: Serving) -> float:
    if servers <= offered:
        return 1.0
    mean, cv = serving.service_time_s, serving.service_cv
    decay = (servers - offered) / mean / (0.5 * (1.0 + cv * cv))
    spread = _spread(mean, cv, serving.slo_s)
    return spread.beyond + delayed * float(spread.weights @ np.exp(-decay * (serving.slo_s - spread.times_s)))


class _Spread(NamedTuple):
    """Service times up to a limit: points, their probabilities, and the probability of more."""

    times_s: NDArray[np.float64]
    weights: NDArray[np.float64]
    beyond: float


@cache
def _spread(mean_s: float, cv: float, limit_s: float) -> _Spread:
    """Gamma service times, integrated over their logarithm, in which the density is smooth for every cv."""
    if cv == 0.0:
        known = float(mean_s < limit_s)
        return _Spread(np.array([mean_s]), np.array([known]), 1.0 - known)
    shape, scale_s = 1.0 / cv**2, mean_s * cv**2
    # below `low` lies less than _TINY of the probability, beyond `high` as good as nothing
    low = math.log(scale_s) + (math.log(_TINY) + math.lgamma(shape + 1.0)) / shape
    low = max(low, math.log(mean_s * (1.0 - 8.0 * cv))) if cv < 0.12 else low
    high = math.log(min(limit_s, mean_s * (1.0 + 12.0 * cv + 40.0 * cv**2)))
    if high <= low:
        return _Spread(np.array([mean_s]), np.zeros(1), 1.0)
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    logs = 0.5 * (high - low) * (nodes + 1.0) + low
    ratio = logs - math.log(scale_s)
    share = np.exp(shape * ratio - np.exp(ratio) - math.lgamma(shape)) * weights * 0.5 * (high - low)
    return _Spread(np.exp(logs), share, max(0.0, 1.0 - float(share.sum())))


# ---------------------------------------------------------------- what rules that size one service share


class Demand(NamedTuple):
    """What is known of a service's demand, requests/s, NaN = unknown."""

    now_rps: float
    quarter_rps: float  # over the last 15 minutes

    @property
    def largest_rps(self) -> float:
        """The larger of those that are known; NaN when none is."""
        known = [rate for rate in self if math.isfinite(rate)]
        return max(known) if known else math.nan

    @property
    def unknown(self) -> str:
        """The columns that are unknown, for a sentence; "" when none is."""
        columns = zip(("demand_rps", "demand_15m_rps"), self, strict=True)
        return " and ".join(column for column, rate in columns if not math.isfinite(rate))


def demand(service: str, observation: Observation) -> Demand:
    """What the observation says about the demand of `service`."""
    return Demand(observation[f"{service}.demand_rps"], observation[f"{service}.demand_15m_rps"])


@dataclass(slots=True)
class Course:
    """From what a rule asks for to its action on one service: within bounds, and patient before it shrinks.

    A wish is held at the highest one of the last `patience_s` seconds, the first known count being one of them (the
    stabilisation of `agents.rules.behavior`). What was asked for without full knowledge may grow a service, not shrink
    it. Raises UsageError for bounds or a patience that make no sense.
    """

    service: str
    least: int
    most: int
    patience_s: float = 0.0
    _wanted: int | None = field(default=None, init=False)
    _asked: deque[tuple[float, int]] = field(default_factory=deque, init=False)
    _behavior: Behavior = field(init=False)

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most:
            raise UsageError(
                f"scaling {self.service!r}: 0 <= min_replicas={self.least} <= max_replicas={self.most} must hold"
            )
        down = ScalingRules((Policy("Percent", 100),), stabilisation_s=self.patience_s)
        self._behavior = Behavior(down=down)

    def reset(self) -> None:
        """Forget the past."""
        self._wanted = None
        self._asked.clear()

    def current(self, observation: Observation) -> int | None:
        """The replicas wished for now, or the last known wish; None when it was never known."""
        wanted = observation[f"{self.service}.wanted_replicas"]
        if math.isfinite(wanted):
            if self._wanted is None:
                self._asked.append((observation.time_s, int(wanted)))
            self._wanted = int(wanted)
        return self._wanted

    def act(self, observation: Observation, proposal: Proposal | None, unknown: str = "") -> list[Action]:
        """The action that a proposal comes to, or none when the wished number was never known.

        Args:
            observation: what is known now.
            proposal: what the rule asks for; None when it cannot say.
            unknown: the columns that it would have needed.
        """
        current = self.current(observation)
        if current is None:
            return []
        settled = self._within(self._settle(proposal, current, observation.time_s, unknown))
        return [Action("replicas", self.service, settled.value, settled.reason)]

    def _settle(self, proposal: Proposal | None, current: int, time_s: float, unknown: str) -> Proposal:
        if proposal is None:
            return Proposal(current, f"held at {current}: {unknown} unknown")
        if unknown and proposal.value < current:
            return Proposal(current, f"{proposal.reason}; held at {current}: {unknown} unknown")
        while self._asked and self._asked[0][0] <= time_s - self.patience_s:
            self._asked.popleft()
        settled = stabilise(proposal, current, time_s, self._asked, self._behavior)
        self._asked.append((time_s, proposal.value))
        return settled

    def _within(self, proposal: Proposal) -> Proposal:
        if proposal.value < self.least:
            return Proposal(self.least, f"{proposal.reason}; at least {self.least} replicas")
        if proposal.value > self.most:
            return Proposal(self.most, f"{proposal.reason}; at most {self.most} replicas")
        return proposal


# ---------------------------------------------------------------- the controllers


class SquareRootStaffing:
    """R + beta sqrt(R) servers for the larger demand of now and of 15 minutes; its confidence is always 1.

    It promises how many requests wait at all, so it needs no SLO; how long they wait it does not know.
    """

    def __init__(
        self,
        service: str,
        service_time_s: float,
        concurrency: int,
        min_replicas: int,
        max_replicas: int,
        wait_probability: float = 0.05,
        headroom: float = 1.0,
        patience_s: float = 300.0,
        interval_s: float = 60.0,
        name: str = "square-root-staffing",
    ) -> None:
        """Steer `service` between `min_replicas` and `max_replicas`.

        Args:
            service: its name, as the observation's columns show it.
            service_time_s: mean seconds that a request is served.
            concurrency: requests that one replica serves at a time.
            min_replicas: lower bound.
            max_replicas: upper bound.
            wait_probability: share of the requests (0-1) that may have to wait.
            headroom: what demand is multiplied by, for what it may rise until new replicas are ready.
            patience_s: never fewer replicas than were asked for within so many seconds.
            interval_s: seconds between decisions.
            name: as the decision table shows it.

        Raises:
            UsageError: when a number makes no sense.
        """
        self.name = name
        self.interval_s = interval_s
        self._course = Course(service, int(min_replicas), int(max_replicas), patience_s)
        self._headroom = _positive(headroom, name, "headroom")
        self._service_time_s = _positive(service_time_s, name, "service_time_s")
        self._concurrency = int(_positive(concurrency, name, "concurrency"))
        self._wait_probability = wait_probability
        self._beta = staffing_beta(wait_probability)

    def reset(self) -> None:
        """Forget what was asked for."""
        self._course.reset()

    def decide(self, observation: Observation) -> list[Action]:
        """The replicas for the demand; none while the wished number was never known."""
        seen = demand(self._course.service, observation)
        rate_rps = self._headroom * seen.largest_rps
        proposal = self._propose(rate_rps) if math.isfinite(rate_rps) else None
        return self._course.act(observation, proposal, seen.unknown)

    def _propose(self, rate_rps: float) -> Proposal:
        offered, each = rate_rps * self._service_time_s, self._concurrency
        replicas = math.ceil(square_root_servers(offered, self._beta) / each)
        servers = f"ceil({offered:.4g} + {self._beta:.3g} sqrt({offered:.4g})) servers"
        return Proposal(
            replicas,
            f"{replicas} = {servers} / {each} per replica, so that {self._wait_probability:.3g} "
            f"of {_rate(rate_rps, self._headroom)} wait",
        )


class ErlangStaffing:
    """The fewest replicas that keep the SLO by Erlang C, for the larger demand of now and of 15 minutes.

    Its confidence is always 1.
    """

    def __init__(
        self,
        service: str,
        service_time_s: float,
        concurrency: int,
        slo_s: float,
        min_replicas: int,
        max_replicas: int,
        slo_target: float = 0.95,
        service_cv: float = 0.0,
        headroom: float = 1.0,
        patience_s: float = 300.0,
        interval_s: float = 60.0,
        name: str = "erlang-staffing",
    ) -> None:
        """Steer `service` between `min_replicas` and `max_replicas`.

        Args:
            service: its name, as the observation's columns show it.
            service_time_s: mean seconds that a request is served.
            concurrency: requests that one replica serves at a time.
            slo_s: seconds within which an answer is in time.
            min_replicas: lower bound.
            max_replicas: upper bound.
            slo_target: share of the answers (0-1) that must be in time.
            service_cv: coefficient of variation of the service times.
            headroom: what demand is multiplied by, for what it may rise until new replicas are ready.
            patience_s: never fewer replicas than were asked for within so many seconds.
            interval_s: seconds between decisions.
            name: as the decision table shows it.

        Raises:
            UsageError: when a number makes no sense, or no number of replicas can keep the SLO.
        """
        self.name = name
        self.interval_s = interval_s
        self._course = Course(service, int(min_replicas), int(max_replicas), patience_s)
        self._headroom = _positive(headroom, name, "headroom")
        self._serving = Serving(service_time_s, int(concurrency), slo_s, slo_target, service_cv)

    def reset(self) -> None:
        """Forget what was asked for."""
        self._course.reset()

    def decide(self, observation: Observation) -> list[Action]:
        """The replicas for the demand; none while the wished number was never known."""
        seen = demand(self._course.service, observation)
        rate_rps = self._headroom * seen.largest_rps
        proposal = self._propose(rate_rps) if math.isfinite(rate_rps) else None
        return self._course.act(observation, proposal, seen.unknown)

    def _propose(self, rate_rps: float) -> Proposal:
        replicas, rate = fewest_replicas(rate_rps, self._serving), _rate(rate_rps, self._headroom)
        return Proposal(replicas, f"{fewest_told(replicas, rate_rps, self._serving)} of {rate}")


def fewest_told(replicas: int, rate_rps: float, serving: Serving) -> str:
    """The beginning of a sentence about what `fewest_replicas` answered, to be followed by "of <demand>"."""
    late = late_probability(replicas, rate_rps, serving) if rate_rps > 0 else 0.0
    return (
        f"{replicas} = fewest replicas with at most {1.0 - serving.slo_target:.3g} beyond {serving.slo_s:g} s: "
        f"by Erlang C {late:.2g}"
    )


def _positive(value: float, name: str, argument: str) -> float:
    if not (math.isfinite(value) and value > 0):
        raise UsageError(f"controller {name!r}: {argument}={value} must be a positive number")
    return value


def _rate(rate_rps: float, headroom: float) -> str:
    grown = "" if headroom == 1.0 else f" ({headroom:g} x {rate_rps / headroom:.4g})"
    return f"{rate_rps:.4g} requests/s{grown}"
