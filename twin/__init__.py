"""The mirror of one cluster: its recorded trace, its digital twin, and the bridge to the real one.

The public names, imported where they are first used so that the bridge starts without the simulator:

>>> import twin
>>> sorted(twin.__all__)
['Cluster', 'Run', 'Trace', 'read', 'simulate']
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twin.simulation import Run as Run
    from twin.simulation import simulate as simulate
    from twin.trace.read import read as read
    from twin.trace.trace import Trace as Trace
    from twin.types import Cluster as Cluster

_HOMES = {
    "Cluster": "twin.types",
    "Run": "twin.simulation",
    "Trace": "twin.trace.trace",
    "read": "twin.trace.read",
    "simulate": "twin.simulation",
}

__all__ = ["Cluster", "Run", "Trace", "read", "simulate"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562
    if name not in _HOMES:
        raise AttributeError(f"module 'twin' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
