"""What a forecaster is made of, as far as it matters for its graph.

Import this module only where a forecaster is exported: its networks need JAX.
"""

from __future__ import annotations

from collections.abc import Iterator

from agents.forecast.adaptive import Adaptive
from agents.forecast.base import Forecaster
from agents.forecast.conformal import Conformal
from agents.forecast.ensemble import Each, Stack
from agents.forecast.federated import Federated
from agents.forecast.neural import Neural
from agents.forecast.private import Private
from agents.forecast.statistical import MSTL, AutoARIMA, AutoETS, AutoTheta
from agents.forecast.training import View


def leaves(forecaster: Forecaster) -> Iterator[Forecaster]:
    """The fitted forecasters that are not made of others."""
    match forecaster:
        case Conformal() | Adaptive():
            yield from leaves(forecaster.base)
        case Federated() | Private():
            yield forecaster.net
        case Stack():
            for member in forecaster.members.values():
                yield from leaves(member)
        case Each():
            for model in forecaster.models.values():
                if not isinstance(model, str):
                    yield from leaves(model)
        case _:
            yield forecaster


def views(forecaster: Forecaster) -> list[View]:
    """How its trained networks look at a past, each way once."""
    return list(dict.fromkeys(leaf.view for leaf in leaves(forecaster) if isinstance(leaf, Neural) and leaf.weights))


def steps_needed(forecaster: Forecaster) -> int:
    """The steps of history that its graph cannot do without: at least its `needs`.

    What is made for windows of one length (a decomposition, a filter from the window's beginning) is stated for whole
    windows only.
    """
    whole = (leaf.context for leaf in leaves(forecaster) if _whole(leaf))
    return max([forecaster.needs, *whole])


def _whole(leaf: Forecaster) -> bool:
    return isinstance(leaf, MSTL | AutoTheta | AutoARIMA) or (isinstance(leaf, AutoETS) and leaf.season > 1)
