"""TSMixer (Chen et al., 2023): layers that mix the steps of each channel, then the channels of each step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agents.forecast.nets.base import Dims

if TYPE_CHECKING:
    from flax import nnx

    from agents.forecast.nets.tsmixer_net import TSMixerNet


@dataclass(frozen=True, slots=True)
class TSMixer:
    """The settings of a TSMixer over the window, what was seen and what is known.

    Attributes:
        width: channels inside.
        blocks: mixing blocks over the past; one more mixes the steps to come.
        dropout: share (0-1) of mixed values left out in training.
        views: each k stands for the last k-th of the window, which is cut into means: the steps that are mixed.
        means: means per view.
        orthogonal: whether hidden layers start orthogonal.
    """

    width: int = 32
    blocks: int = 2
    dropout: float = 0.0
    views: tuple[int, ...] = (12, 4, 1)
    means: int = 24
    orthogonal: bool = False

    def __post_init__(self) -> None:
        """Keep the settings hashable, whatever sequence a config gave."""
        object.__setattr__(self, "views", tuple(self.views))

    def build(self, dims: Dims, rngs: nnx.Rngs) -> TSMixerNet:
        """An untrained network; it says "as now"."""
        from agents.forecast.nets.tsmixer_net import TSMixerNet

        return TSMixerNet(self, dims, rngs)
