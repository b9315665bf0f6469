"""The oracle: it knows all arrivals in advance, as no controller ever will.

An upper bound for the others to be measured against, never to be deployed: live, nobody tells it the future, and then
it refuses to decide. What it does not know is chance in the cluster: boot delays, failures, interruptions.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from agents.rules.replicas.erlang import HAIR, Serving, fewest_replicas, fewest_told
from twin.errors import PolicyError, UsageError
from twin.types import Action, Cluster, Observation, Service


class Oracle:
    """Has the replicas ready that the coming `lead_s` seconds will need, and gives them back when demand falls.

    It sizes for the highest rate until a replica asked for at the next decision would be ready: by Erlang C for the
    service's own SLO, or to `target_utilisation` where that is given (Erlang C takes each step for a steady state,
    which at the edge of saturation it is not). It needs no measurement, so lost telemetry does not hold it up. It knows
    what users will ask, not what other services will call. Its confidence is always 1.
    """

    def __init__(
        self,
        service: str,
        lead_s: float = 400.0,
        target_utilisation: float | None = None,
        interval_s: float = 60.0,
        name: str = "oracle",
    ) -> None:
        """Steer `service` within its own bounds.

        Args:
            service: its name in the cluster.
            lead_s: seconds until a replica asked for now is surely ready, its node's boot included.
            target_utilisation: share (0-1) of what a replica can serve that it should serve; None = by Erlang C.
            interval_s: seconds between decisions.
            name: as the decision table shows it.

        Raises:
            UsageError: when a number makes no sense.
        """
        if not (lead_s >= 0 and (target_utilisation is None or 0 < target_utilisation <= 1)):
            raise UsageError(
                f"controller {name!r}: lead_s={lead_s} must be at least 0, "
                f"target_utilisation={target_utilisation} within 0 (excluded) and 1"
            )
        self.name = name
        self.interval_s = interval_s
        self._service, self._lead_s, self._target = service, lead_s, target_utilisation
        self._known: Service | None = None
        self._rates_rps: NDArray[np.float64] = np.zeros(0)
        self._step_s = 1.0

    def foresee(self, rates_rps: NDArray[np.float64], step_s: float, cluster: Cluster) -> None:
        """Learn what will arrive; a run that follows begins at second 0.

        Args:
            rates_rps: requests/s [services, steps], services in the cluster's order.
            step_s: seconds that one step lasts.
            cluster: what will serve them.

        Raises:
            PolicyError: when that is no future of this cluster.
            UsageError: when the cluster lacks the service, or no number of its replicas can keep the SLO.
        """
        service = cluster.service(self._service)
        if self._target is None:
            Serving.of(service)  # refuses a promise that cannot be kept before the run, not in it
        rates = np.asarray(rates_rps, dtype=np.float64)
        if rates.ndim != 2 or rates.shape[0] != len(cluster.services) or rates.shape[1] == 0 or not step_s > 0:
            raise PolicyError(
                f"{self.name}: a future of shape {rates.shape} in steps of {step_s} s; expected "
                f"[{len(cluster.services)} services, steps > 0] and step_s > 0"
            )
        if not np.isfinite(rates).all():
            raise PolicyError(f"{self.name}: the future has unknown rates; fill the gaps of the demand before")
        self._known, self._step_s = service, step_s
        self._rates_rps = rates[cluster.services.index(service)]

    def reset(self) -> None:
        """Forget the past, of which there is none; the future stays, it belongs to the run."""

    def decide(self, observation: Observation) -> list[Action]:
        """The replicas that will be needed; raises PolicyError when it was never told the future."""
        service = self._known
        if service is None:
            raise PolicyError(
                f"{self.name} was never told what will arrive: it is an upper bound for simulated runs, not to be "
                "deployed; choose another controller"
            )
        span_s = self._lead_s + self.interval_s
        needed, told = self._needed(service, self._highest_rps(observation.time_s, span_s))
        value = min(max(needed, service.min_replicas), service.max_replicas)
        bound = "" if value == needed else f"; kept within {service.min_replicas} to {service.max_replicas}"
        return [Action("replicas", service.name, value, f"{told}, the most in the coming {span_s:g} s{bound}")]

    def _highest_rps(self, from_s: float, span_s: float) -> float:
        last = self._rates_rps.size - 1  # beyond what is known, demand stays as it was last
        first = min(math.floor(from_s / self._step_s + HAIR), last)
        end = max(math.ceil((from_s + span_s) / self._step_s - HAIR), first + 1)
        return float(self._rates_rps[first:end].max())

    def _needed(self, service: Service, rate_rps: float) -> tuple[int, str]:
        if self._target is None:
            serving = Serving.of(service)
            value = fewest_replicas(rate_rps, serving)
            return value, f"{fewest_told(value, rate_rps, serving)} of {rate_rps:.4g} requests/s"
        value = math.ceil(rate_rps / (service.replica_rps * self._target) - HAIR)
        return value, f"{value} = ceil({rate_rps:.4g} requests/s/({service.replica_rps:g} x {self._target:g}))"
