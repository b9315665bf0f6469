"""What a network of this room takes and gives: arrays in units of the window, deciles in the same units.

Architectures are settings until they are built, so that a config, a checkpoint and a test can hold one without JAX.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from flax import nnx


@dataclass(frozen=True, slots=True)
class Dims:
    """The sizes that a network is built for; `recall`, `seen`, `known`, `static` count columns and may be 0."""

    context: int
    horizon: int
    recall: int = 0
    seen: int = 0
    known: int = 0
    static: int = 0


class Inputs(NamedTuple):
    """What a network sees of `batch` origins; but in the window, 0 stands for what is not known.

    `window` [batch, context] is y in units of `frames.normalise` (its last value is 0), `recall`
    [batch, recall, horizon] the steps to be forecast as they were one or more seasons ago, in the same units, and
    `recalled` [batch, recall] is 1 where that is on record. `seen` [batch, context, seen] is normalised column by
    column, `known` [batch, context + horizon, known] and `static` [batch, static] come as they are.
    """

    window: Any
    recall: Any
    recalled: Any
    seen: Any
    known: Any
    static: Any


class Architecture(Protocol):
    """The settings of a family of networks."""

    def build(self, dims: Dims, rngs: nnx.Rngs) -> Callable[[Inputs], Any]:
        """An `nnx.Module` that maps Inputs to non-crossing deciles [batch, horizon, 9]; untrained it says "as now"."""
        ...
