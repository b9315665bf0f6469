"""When a replica is started anew with what is recommended: the updater of the Vertical Pod Autoscaler.

Source: vertical-pod-autoscaler 1.x (`pkg/updater/priority`, `pkg/updater/restriction`). A replica is due when what
it asks for lies outside of the recommended range; or when it has lived for 12 h and differs by 10 % or more,
summed over resources; or when it was killed for want of memory soon after its start and the request would change.
Due replicas are evicted only while enough others run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agents.rules.pods.vpa_recommender import Bounds
from twin.errors import UsageError


@dataclass(frozen=True, slots=True)
class Updater:
    """The settings, with the project's defaults; `tolerance` is the share of replicas that may be missing."""

    min_change: float = 0.1
    lifetime_s: float = 12 * 3600.0
    quick_oom_s: float = 600.0
    min_replicas: int = 2
    tolerance: float = 0.5

    def __post_init__(self) -> None:
        if self.min_change < 0 or not 0 <= self.tolerance <= 1 or self.min_replicas < 0:
            raise UsageError(
                f"updater: min_change={self.min_change} and min_replicas={self.min_replicas} must be at least 0, "
                f"tolerance={self.tolerance} in [0, 1]"
            )


@dataclass(frozen=True, slots=True)
class Priority:
    """How much a replica's request differs from what is recommended, over all of its resources."""

    outside: bool
    grows: bool
    difference: float


def priority(request: Mapping[str, int], recommended: Mapping[str, Bounds]) -> Priority:
    """The priority of a replica with this request.

    `difference` is the sum over resources of |request - target| / request.
    """
    pairs = [(request[resource], bounds) for resource, bounds in recommended.items()]
    return Priority(
        outside=any(asked < bounds.lower or asked > bounds.upper for asked, bounds in pairs),
        grows=any(bounds.target > asked for asked, bounds in pairs),
        difference=sum(abs(max(asked, 1) - bounds.target) / max(asked, 1) for asked, bounds in pairs),
    )


def due(found: Priority, age_s: float, quick_oom: bool, updater: Updater) -> tuple[bool, str]:
    """Is a replica of that age due, and a clause that says why or why not."""
    if quick_oom and found.difference == 0:
        return False, "killed for want of memory soon after the start, but the request would not change"
    if found.outside:
        return True, "the request lies outside of the recommended range"
    if quick_oom:
        return True, f"killed for want of memory within {updater.quick_oom_s:g} s of the start"
    if age_s < updater.lifetime_s:
        return False, f"within the recommended range, and unchanged for less than {updater.lifetime_s / 3600:g} h"
    percent = f"{100 * found.difference:.0f} % from the target, resources added up,"
    if found.difference < updater.min_change:
        return False, f"within the recommended range and only {percent} after {updater.lifetime_s / 3600:g} h or more"
    return True, f"{percent} after {updater.lifetime_s / 3600:g} h or more"


def disruptable(configured: int, live: int, running: int, updater: Updater) -> tuple[bool, str]:
    """May a replica be evicted now, and a clause that says why not ("" when it may).

    Args:
        configured: replicas wished for.
        live: replicas that exist, running or not.
        running: those that run.
        updater: the settings.
    """
    if live < updater.min_replicas:
        return False, f"{live} replicas, and fewer than {updater.min_replicas} are never evicted"
    spare = int(configured * updater.tolerance)
    if running > configured - spare or (spare == 0 and running == configured):
        return True, ""
    return False, f"only {running} of {configured} replicas run, and more than {configured - spare} must"
