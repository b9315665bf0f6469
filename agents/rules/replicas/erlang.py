"""How many servers keep a promise: square-root staffing and Erlang C, as pure functions.

A service is seen as one M/G/c queue: Poisson arrivals, c = replicas x concurrency servers. Sources:

- Erlang (1917): the probability of waiting C in M/M/c, by the recursion of Erlang B, which neither overflows nor
  cancels;
- M/G/c: C as in M/M/c, and who waits does so exponentially, (1 + cv^2) / 2 times as long as in M/M/c (Lee and Longton
  1959, reviewed by Whitt 1993); exact for cv = 1. Service times are gamma distributed: exponential for cv = 1,
  constant for cv = 0. P(response > t) = E[P(W > t - S)] is integrated numerically;
- Halfin and Whitt (1981): with R + beta sqrt(R) servers for an offered load R, P(W > 0) tends to
  1 / (1 + beta Phi(beta) / phi(beta)), whatever the size.

The twin's fluid model (`twin.engine.erlang`) has formulas of its own: the plant is not to be judged by its
controllers, and the bridge runs these without a compiler.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from twin.errors import UsageError
from twin.types import Service

HAIR = 1e-9
"""What a rounding error may add before a whole number is exceeded."""

_MOST_BETA = 30.0  # P(W > 0) is 1e-197 there
_NODES = 128
_TINY = 1e-12


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


def fewest_told(replicas: int, rate_rps: float, serving: Serving) -> str:
    """The beginning of a sentence about what `fewest_replicas` answered, to be followed by "of <demand>"."""
    late = late_probability(replicas, rate_rps, serving) if rate_rps > 0 else 0.0
    return (
        f"{replicas} = fewest replicas with at most {1.0 - serving.slo_target:.3g} beyond {serving.slo_s:g} s: "
        f"by Erlang C {late:.2g}"
    )


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
