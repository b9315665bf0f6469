"""A small patch transformer (PatchTST: Nie et al., 2023): stretches of the window are its tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agents.forecast.nets.base import Dims
from twin.errors import UsageError

if TYPE_CHECKING:
    from flax import nnx

    from agents.forecast.nets.patch_net import PatchNet


@dataclass(frozen=True, slots=True)
class PatchTransformer:
    """The settings of a patch transformer; what is recalled, known or static is a token each.

    Attributes:
        patch: steps of a token.
        width: numbers of a token inside.
        layers: transformer layers.
        heads: attention heads; they divide `width`.
        dropout: share (0-1) of a layer's answers left out in training.
        orthogonal: whether hidden layers start orthogonal.
    """

    patch: int = 16
    width: int = 64
    layers: int = 2
    heads: int = 4
    dropout: float = 0.0
    orthogonal: bool = False

    def __post_init__(self) -> None:
        """Raise UsageError where the heads do not divide the width."""
        if self.width % self.heads:
            raise UsageError(f"a patch transformer's {self.heads} heads must divide its width {self.width}")

    def build(self, dims: Dims, rngs: nnx.Rngs) -> PatchNet:
        """An untrained network; it says "as now"."""
        from agents.forecast.nets.patch_net import PatchNet

        return PatchNet(self, dims, rngs)
