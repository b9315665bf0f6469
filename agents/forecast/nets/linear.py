"""Linear networks (Zeng, Chen, Zhang & Xu, 2023): few weights, hard to beat on few data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agents.forecast.nets.base import Dims

if TYPE_CHECKING:
    from flax import nnx

    from agents.forecast.nets.linear_net import LinearNet


@dataclass(frozen=True, slots=True)
class NLinear:
    """The settings of one linear map of the window minus its last value, and of all that is known beside it.

    Attributes:
        smooth: whether the window enters as means, and not step by step (Corsi, 2009): far fewer weights.
        moves: whether the sizes of past moves enter as well, so that the bands can widen where the series is restless
            (absolute moves forecast the spread: Taylor, 1986).
        dropout: share (0-1) of the inputs left out in training.
        views: each k stands for the last k-th of the window, which is cut into means.
        means: means per view.
    """

    smooth: bool = False
    moves: bool = True
    dropout: float = 0.0
    views: tuple[int, ...] = (12, 4, 1)
    means: int = 24

    def __post_init__(self) -> None:
        """Keep the settings hashable, whatever sequence a config gave."""
        object.__setattr__(self, "views", tuple(self.views))

    def build(self, dims: Dims, rngs: nnx.Rngs) -> LinearNet:
        """An untrained network; it says "as now"."""
        from agents.forecast.nets.linear_net import LinearNet

        return LinearNet(self, dims, rngs)


@dataclass(frozen=True, slots=True)
class DLinear:
    """The settings of two linear maps, of the window's moving average and of what remains.

    Attributes:
        trend: steps of the moving average; the window's ends are repeated beyond it.
        moves: as in `NLinear`.
        dropout: share (0-1) of the inputs left out in training.
        views: each k stands for the last k-th of the window, over which moves and other columns are averaged.
        means: means per view.
    """

    trend: int = 25
    moves: bool = True
    dropout: float = 0.0
    views: tuple[int, ...] = (12, 4, 1)
    means: int = 24

    def __post_init__(self) -> None:
        """Keep the settings hashable, whatever sequence a config gave."""
        object.__setattr__(self, "views", tuple(self.views))

    def build(self, dims: Dims, rngs: nnx.Rngs) -> LinearNet:
        """An untrained network; it says "as now"."""
        from agents.forecast.nets.linear_net import LinearNet

        return LinearNet(self, dims, rngs)
