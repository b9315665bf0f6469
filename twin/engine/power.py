"""What nodes draw: the power curve of each pool over what its nodes are busy with, compiled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twin import fleet
from twin.engine.compiling import compiler
from twin.engine.state import DRAINING, READY, UP, State
from twin.types import Cluster

F8, I8, S1 = NDArray[np.float64], NDArray[np.int64], NDArray[np.int8]

compiled = compiler([Path(name) for name in (__file__, fleet.__file__)], _nrt=True)


def curves(cluster: Cluster) -> F8:
    """idle_w, full_w and exponent of each pool's nodes [pools, 3]."""
    return np.array([(p.power.idle_w, p.power.full_w, p.power.exponent) for p in cluster.pools]).reshape(-1, 3)


def drawn_w(curve: F8, state: State, work_s: F8, ready_s: F8) -> F8:
    """Mean power of each pool's nodes [pools] in a step in which services worked for `work_s` of `ready_s`.

    The replicas are taken to have been on the nodes where they are at the end of the step. A replica uses its cores
    in proportion to how much its service worked; a booting node draws idle power, one that is off or failed nothing.
    """
    return _drawn_w(
        curve, work_s, ready_s, state.billed, state.node_pool, state.node_state, state.node_size,
        state.replica_service, state.replica_node, state.replica_state, state.replica_request, state.cores,
    )  # fmt: skip


@compiled
def _drawn_w(
    curve: F8,
    work_s: F8,
    ready_s: F8,
    billed: I8,
    node_pool: I8,
    node_state: S1,
    node_size: F8,
    replica_service: I8,
    replica_node: I8,
    replica_state: S1,
    replica_request: F8,
    cores: F8,
) -> F8:
    used = np.zeros(len(node_pool))
    for r in range(len(replica_node)):
        s = replica_service[r]
        if replica_state[r] == READY and replica_node[r] >= 0 and ready_s[s] > 0.0:
            used[replica_node[r]] += min(replica_request[r, 0], cores[s]) * work_s[s] / ready_s[s]
    watts = curve[:, 0] * billed
    for n in range(len(node_pool)):
        if node_state[n] == UP or node_state[n] == DRAINING:
            p = node_pool[n]
            share = min(used[n] / node_size[n, 0], 1.0)
            watts[p] += (curve[p, 1] - curve[p, 0]) * share ** curve[p, 2]
    return watts
