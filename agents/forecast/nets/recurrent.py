"""A linear recurrence over patches of the window (LRU: Orvieto et al., 2023): a small state-space model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agents.forecast.nets.base import Dims

if TYPE_CHECKING:
    from flax import nnx

    from agents.forecast.nets.recurrent_net import RecurrentNet


@dataclass(frozen=True, slots=True)
class LinearRecurrence:
    """The settings of stacked linear recurrences with damped, turning states.

    Attributes:
        patch: steps that enter at once.
        width: channels inside.
        states: states of a recurrence; each turns in a plane of its own.
        layers: recurrences, each followed by a hidden layer.
        keep: least and greatest share (0-1) of a state that is kept from patch to patch at the start.
        dropout: share (0-1) of a layer's answers left out in training.
        orthogonal: whether hidden layers start orthogonal.
    """

    patch: int = 12
    width: int = 64
    states: int = 64
    layers: int = 2
    keep: tuple[float, float] = (0.5, 0.99)
    dropout: float = 0.0
    orthogonal: bool = False

    def __post_init__(self) -> None:
        """Keep the settings hashable, whatever sequence a config gave."""
        object.__setattr__(self, "keep", tuple(self.keep))

    def build(self, dims: Dims, rngs: nnx.Rngs) -> RecurrentNet:
        """An untrained network; it says "as now"."""
        from agents.forecast.nets.recurrent_net import RecurrentNet

        return RecurrentNet(self, dims, rngs)
