"""A linear skip beside residual blocks over pooled views of the window: the default network, and the cheapest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agents.forecast.nets.base import Dims

if TYPE_CHECKING:
    from flax import nnx

    from agents.forecast.nets.residual_net import ResidualNet


@dataclass(frozen=True, slots=True)
class ResidualMLP:
    """The settings of a residual network (after TiDE: Das et al., 2023).

    Attributes:
        width: hidden units.
        blocks: residual blocks.
        dropout: share (0-1) of a block's units left out in training.
        norm: whether a block begins with a layer norm.
        views: each k stands for the last k-th of the window, which the hidden layers see as means.
        means: means per view.
        smooth: whether the skip has one weight per mean of the views, and not one per step.
        orthogonal: whether hidden layers start orthogonal.
    """

    width: int = 128
    blocks: int = 1
    dropout: float = 0.0
    norm: bool = False
    views: tuple[int, ...] = (12, 4, 1)
    means: int = 24
    smooth: bool = False
    orthogonal: bool = False

    def __post_init__(self) -> None:
        """Keep the settings hashable, whatever sequence a config gave."""
        object.__setattr__(self, "views", tuple(self.views))

    def build(self, dims: Dims, rngs: nnx.Rngs) -> ResidualNet:
        """An untrained network; it says "as now"."""
        from agents.forecast.nets.residual_net import ResidualNet

        return ResidualNet(self, dims, rngs)
