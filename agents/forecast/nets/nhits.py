"""N-HiTS (Challu et al., 2023): stacks that look at the window, and answer, each at a rate of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agents.forecast.nets.base import Dims

if TYPE_CHECKING:
    from flax import nnx

    from agents.forecast.nets.nhits_net import NHiTSNet


@dataclass(frozen=True, slots=True)
class NHiTS:
    """The settings of an N-HiTS, coarse stacks first.

    Attributes:
        pools: per stack, window steps of which the largest is kept, and steps between two knots of its backcast.
        knots: per stack, forecast steps between two knots; what lies between them is interpolated.
        width: hidden units of a stack.
        layers: hidden layers of a stack.
        dropout: share (0-1) of hidden units left out in training.
        orthogonal: whether hidden layers start orthogonal, as in the authors' programs.
        views: each k stands for the last k-th of the window, over which what was seen is averaged.
        means: means per view.
    """

    pools: tuple[int, ...] = (12, 4, 1)
    knots: tuple[int, ...] = (6, 3, 1)
    width: int = 96
    layers: int = 2
    dropout: float = 0.0
    orthogonal: bool = True
    views: tuple[int, ...] = (12, 4, 1)
    means: int = 24

    def __post_init__(self) -> None:
        """Keep the settings hashable, whatever sequences a config gave."""
        for name in ("pools", "knots", "views"):
            object.__setattr__(self, name, tuple(getattr(self, name)))

    def build(self, dims: Dims, rngs: nnx.Rngs) -> NHiTSNet:
        """An untrained network; it says "as now"."""
        from agents.forecast.nets.nhits_net import NHiTSNet

        return NHiTSNet(self, dims, rngs)
