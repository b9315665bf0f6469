"""How a forecast of demand becomes replicas and a confidence: one rule, for arrays of numpy and JAX alike.

    peak       = the chosen decile of demand, at its highest over the next `lead_steps` steps
    replicas   = max(peak, demand now) / (replica_rps x target_utilisation), within the service's own bounds;
                 the wanted ones stay while they run within a tolerance of the target, as the HPA's do
    confidence = P(demand stays within what those replicas can serve when full, at every one of these steps)

All demand here is in units of what one replica can serve when full, so every number is near one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from agents.forecast.base import DECILES, MEDIAN
from twin.envs.sizing import TOLERANCE
from twin.errors import UsageError

CONFIDENCE_MEANING = (
    "probability that demand stays within what the proposed replicas can serve at full use, at every step until new "
    "ones are ready (at least: errors of different steps are added); linear between the forecast deciles; beyond the "
    "outer ones a heavy tail, 0.1 / (1 + d), d being the distance in gaps between the last two; never above 0.98"
)
_MOST_CONFIDENT = 0.98
_LEAST_GAP = 1e-3  # of the median: no gap between two deciles is taken to be narrower


@dataclass(frozen=True, slots=True)
class Sizing:
    """How a forecast becomes replicas; all rates are requests/s."""

    replica_rps: float
    target_utilisation: float
    quantile: float
    lead_steps: int
    min_replicas: int
    max_replicas: int

    def __post_init__(self) -> None:
        if not 0.0 < self.target_utilisation <= 1.0 or self.lead_steps < 1:
            raise UsageError(
                f"target_utilisation={self.target_utilisation} must be in (0, 1], "
                f"lead_steps={self.lead_steps} at least 1"
            )
        if not np.isclose(self.quantile, DECILES).any():
            raise UsageError(f"quantile={self.quantile} is not one that is forecast: {DECILES.tolist()}")

    @property
    def decile(self) -> int:
        """The chosen quantile's place among the deciles."""
        return int(np.argmin(np.abs(DECILES - self.quantile)))


def peaks(deciles: Any, sizing: Sizing) -> Any:  # noqa: ANN401 - numpy and JAX arrays alike
    """The chosen decile at its highest [batch], from `deciles` [batch, steps, 9]."""
    return deciles[:, :, sizing.decile].max(axis=1)


def sized(
    deciles: Any,  # noqa: ANN401 - numpy and JAX arrays alike, as all below
    now: Any,  # noqa: ANN401
    wanted: Any,  # noqa: ANN401
    sizing: Sizing,
    tolerance: float = TOLERANCE,
) -> Any:  # noqa: ANN401
    """Replicas [batch], not yet whole, from `deciles` [batch, steps, 9], demand `now` and `wanted` replicas [batch]."""
    xp = deciles.__array_namespace__()
    wish = xp.maximum(peaks(deciles, sizing), now) / sizing.target_utilisation
    kept = xp.maximum(wanted, 1.0)
    steady = xp.where(xp.abs(wish / kept - 1.0) <= tolerance, kept, wish)
    return xp.clip(steady, sizing.min_replicas, sizing.max_replicas)


def confidence(deciles: Any, capacity: Any) -> Any:  # noqa: ANN401 - numpy and JAX arrays alike
    """P(demand <= `capacity` [batch] at every step) from `deciles` [batch, steps, 9], at most 0.98.

    The chances of the single steps to be short are added (Boole's inequality), so the true probability is not lower.
    """
    xp = deciles.__array_namespace__()
    gaps = xp.maximum(deciles[..., 1:] - deciles[..., :-1], _LEAST_GAP * xp.abs(deciles[..., MEDIAN, None]) + 1e-9)
    beyond = capacity[:, None, None] - deciles
    within = 0.1 * xp.clip(beyond[..., :-1] / gaps, 0.0, 1.0).sum(axis=-1)
    over = xp.maximum(beyond[..., -1], 0.0) / gaps[..., -1]
    under = xp.maximum(-beyond[..., 0], 0.0) / gaps[..., 0]
    met = 0.1 + within + 0.1 * over / (1.0 + over) - 0.1 * under / (1.0 + under)
    return xp.clip(1.0 - (1.0 - met).sum(axis=-1), 0.0, _MOST_CONFIDENT)
