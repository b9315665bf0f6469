"""One seed per run, child generators by name: adding a random stream never shifts another one."""

from __future__ import annotations

import zlib
from numbers import Integral

import numpy as np

from twin.errors import UsageError


def child(seed: int, name: str) -> np.random.Generator:
    """The generator of the stream `name` ("workload", "faults/batch", "agent") in a run with this seed.

    Raises UsageError for a seed that is no whole number of 0 or more.
    """
    if not isinstance(seed, Integral) or seed < 0:
        raise UsageError(f"seed={seed!r} must be a whole number of 0 or more, e.g. seed=0")
    return np.random.default_rng([seed, zlib.crc32(name.encode())])
