from collections.abc import Callable

import numpy as np
import pytest

from twin.types import Observation

Observe = Callable[..., Observation]


@pytest.fixture(scope="session")
def observe() -> Observe:
    """An observation of service "cell" with `wanted` replicas, all of them ready unless said otherwise."""

    def build(
        time_s: float = 0.0,
        wanted: float = 4,
        used: float = float("nan"),
        missing: float = 0,
        starting: float = 0,
        pending: float = 0,
        demand_rps: float = float("nan"),
    ) -> Observation:
        seen = {
            "cell.demand_rps": demand_rps,
            "cell.utilisation_ratio": used,
            "cell.wanted_replicas": wanted,
            "cell.ready_replicas": wanted - starting - pending,
            "cell.starting_replicas": starting,
            "cell.pending_replicas": pending,
            "cell.unmeasured_replicas": missing,
        }
        return Observation(time_s, tuple(seen), np.array(list(seen.values()), dtype=np.float32))

    return build
