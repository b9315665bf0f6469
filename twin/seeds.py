"""One seed per run, child generators by name: adding a random stream never shifts another one."""

from __future__ import annotations

import zlib

import numpy as np


def child(seed: int, name: str) -> np.random.Generator:
    """The generator of the stream `name` ("workload", "faults/batch", "agent") in a run with this seed."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])
