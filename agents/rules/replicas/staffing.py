"""Replicas from queueing theory: square-root staffing, and the fewest replicas by Erlang C.

The formulas and their sources are in `erlang`. Both know a steady state only: how fast demand
rises until new replicas are ready is the `headroom`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from agents.rules.replicas.calculator import Proposal
from agents.rules.replicas.course import Course
from agents.rules.replicas.erlang import Serving, fewest_replicas, fewest_told, square_root_servers, staffing_beta
from twin.errors import UsageError
from twin.types import Action, Observation


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
        self._course = Course(name, service, int(min_replicas), int(max_replicas), patience_s)
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
        return _answer(self._course, observation, self._headroom, self._propose)

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
        self._course = Course(name, service, int(min_replicas), int(max_replicas), patience_s)
        self._headroom = _positive(headroom, name, "headroom")
        self._serving = Serving(service_time_s, int(concurrency), slo_s, slo_target, service_cv)

    def reset(self) -> None:
        """Forget what was asked for."""
        self._course.reset()

    def decide(self, observation: Observation) -> list[Action]:
        """The replicas for the demand; none while the wished number was never known."""
        return _answer(self._course, observation, self._headroom, self._propose)

    def _propose(self, rate_rps: float) -> Proposal:
        replicas, rate = fewest_replicas(rate_rps, self._serving), _rate(rate_rps, self._headroom)
        return Proposal(replicas, f"{fewest_told(replicas, rate_rps, self._serving)} of {rate}")


def _answer(
    course: Course, observation: Observation, headroom: float, propose: Callable[[float], Proposal]
) -> list[Action]:
    """What `propose` asks for, given requests/s with headroom; held where no demand is known."""
    seen = course.demand(observation)
    rate_rps = headroom * seen.largest_rps
    return course.act(observation, propose(rate_rps) if math.isfinite(rate_rps) else None, seen.unknown)


def _positive(value: float, name: str, argument: str) -> float:
    if not (math.isfinite(value) and value > 0):
        raise UsageError(f"controller {name!r}: {argument}={value} must be a positive number")
    return value


def _rate(rate_rps: float, headroom: float) -> str:
    grown = "" if headroom == 1.0 else f" ({headroom:g} x {rate_rps / headroom:.4g})"
    return f"{rate_rps:.4g} requests/s{grown}"
