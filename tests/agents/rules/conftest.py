from collections.abc import Callable, Sequence

import numpy as np
import pytest

from twin.fleet import BOOTING, PENDING, READY, UP, Fleet
from twin.types import Columns, Observation, Pool, Service

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


def fleet_of(
    nodes: Sequence[tuple[int, int, Sequence[int]]],
    pending: Sequence[int] = (),
    *,
    pools: Sequence[Pool],
    services: Sequence[Service],
    wanted: Sequence[int] | None = None,
    time_s: float = 0.0,
    since_s: float = 0.0,
) -> Fleet:
    """A fleet of (pool, state, services of the pods) and pods that wait since `since_s`; names tell pool and place."""
    pods = [(service, n) for n, (_, _, held) in enumerate(nodes) for service in held]
    pods += [(service, -1) for service in pending]
    of = np.array([service for service, _ in pods], dtype=np.int64)
    on = np.array([node for _, node in pods], dtype=np.int64)
    have = [sum(pool == n and state in (UP, BOOTING) for pool, state, _ in nodes) for n in range(len(pools))]
    return Fleet(
        time_s,
        tuple(pools),
        tuple(services),
        tuple(f"{pools[pool].name}-{n}" for n, (pool, _, _) in enumerate(nodes)),
        np.array([pool for pool, _, _ in nodes], dtype=np.int64),
        np.array([state for _, state, _ in nodes], dtype=np.int8),
        np.zeros(len(nodes)),
        np.array([pools[pool].size for pool, _, _ in nodes], dtype=float).reshape(-1, 2),
        tuple(f"p{n}" for n in range(len(pods))),
        of,
        on,
        np.where(on >= 0, READY, PENDING).astype(np.int8),
        np.where(on >= 0, 0.0, since_s),
        np.full((len(pods), 2), np.nan),
        np.array([service.request for service in services], dtype=float),
        np.bincount(of, minlength=len(services)),
        np.array(have if wanted is None else wanted),
        np.array([pool.price_usd_h for pool in pools]),
    )


def showing(fleet: Fleet) -> Observation:
    """An observation that knows nothing but its fleet."""
    return Observation(fleet.time_s, Columns(), np.zeros(0, dtype=np.float32), lambda: fleet)
