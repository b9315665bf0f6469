"""What pods ask for that share GPUs, what nodes have free for them, and which pods are typical of a workload.

Amounts are whole thousandths of a core, MiB and thousandths of a GPU, so that sums are exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twin.errors import SimulationError

WHOLE = 1_000
"""Thousandths in a GPU."""
ANY_MODEL = -1
"""`allowed` of a pod that runs on every model: all bits are set."""
MOST_MODELS = 63
"""Models that a bitmask of 64 bits with a sign can tell apart."""

# columns of the matrix of pods [pods, 5]
CPU, MEMORY, GPUS, GPU_MILLI, ALLOWED = range(5)

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Pods:
    """What pods ask for, in their order of arrival; one entry a pod in each array.

    A pod asks for `gpus` devices and `gpu_milli` of each: 0 of none, 1 to 999 of one (a share), or 1,000 of any number.
    Bit m of `allowed` is set where the pod may run beside GPUs of model m.

    Raises:
        SimulationError: arrays of different lengths, a negative amount, or a share of several devices.
    """

    cpu_milli: Ints
    memory_mib: Ints
    gpus: Ints
    gpu_milli: Ints
    allowed: Ints

    def __post_init__(self) -> None:
        matrix = self.matrix()
        if matrix.size and matrix[:, :ALLOWED].min() < 0:
            pod = int(np.argwhere(matrix[:, :ALLOWED] < 0)[0, 0])
            raise SimulationError(f"pod {pod} asks for a negative amount; give amounts from 0")
        share = (self.gpus == 1) & (self.gpu_milli > 0) & (self.gpu_milli < WHOLE)
        whole = (self.gpus > 0) & (self.gpu_milli == WHOLE)
        none = (self.gpus == 0) & (self.gpu_milli == 0)
        wrong = np.flatnonzero(~(share | whole | none))
        if wrong.size:
            pod = int(wrong[0])
            asked = f"{self.gpu_milli[pod]} thousandths of each of {self.gpus[pod]} GPUs"
            raise SimulationError(f"pod {pod} asks for {asked}; give a share of one GPU, or whole GPUs, or none at all")

    def __len__(self) -> int:
        return len(self.cpu_milli)

    def matrix(self) -> Ints:
        """The pods as rows of CPU, MEMORY, GPUS, GPU_MILLI, ALLOWED [pods, 5]; SimulationError for uneven arrays."""
        columns = (self.cpu_milli, self.memory_mib, self.gpus, self.gpu_milli, self.allowed)
        if len({column.shape for column in columns}) > 1:
            raise SimulationError(f"arrays of pods differ in length: {[len(column) for column in columns]}")
        return np.stack(columns, axis=1).astype(np.int64)

    def demand_milli(self) -> Ints:
        """The thousandths of GPUs that each pod asks for altogether [pods]."""
        return self.gpus * self.gpu_milli

    def take(self, index: Ints) -> Pods:
        """The pods at these places, in this order."""
        return from_matrix(self.matrix()[index])


def from_matrix(rows: Ints) -> Pods:
    """Pods from rows of CPU, MEMORY, GPUS, GPU_MILLI, ALLOWED [pods, 5]."""
    return Pods(*(np.ascontiguousarray(rows[:, column]) for column in (CPU, MEMORY, GPUS, GPU_MILLI, ALLOWED)))


@dataclass(frozen=True, slots=True)
class GpuNodes:
    """What nodes have free; one entry a node in each array.

    `gpu_milli` has 0 for devices that a node lacks, `gpus` counts those that it has. `classes` tells what kinds of GPU
    pods run on a node, as a bitmask (0 on an empty one).
    """

    cpu_milli: Ints  # [nodes]
    memory_mib: Ints  # [nodes]
    gpu_milli: Ints  # [nodes, devices]
    gpus: Ints  # [nodes]
    model: Ints  # [nodes], 0 to 62
    classes: Ints  # [nodes]

    def __len__(self) -> int:
        return len(self.cpu_milli)

    def copy(self) -> GpuNodes:
        """The same nodes in arrays of their own."""
        return GpuNodes(
            self.cpu_milli.copy(),
            self.memory_mib.copy(),
            self.gpu_milli.copy(),
            self.gpus.copy(),
            self.model.copy(),
            self.classes.copy(),
        )


def empty_nodes(cpu_milli: Ints, memory_mib: Ints, gpus: Ints, model: Ints) -> GpuNodes:
    """Nodes on which nothing runs.

    Raises:
        SimulationError: there is no node, or a model beyond the 63 that can be told apart.
    """
    if not len(gpus):
        raise SimulationError("there are no nodes to place pods on; give at least one")
    if model.min() < 0 or model.max() >= MOST_MODELS:
        raise SimulationError(
            f"GPU models are numbered from 0 to {MOST_MODELS - 1}, not {model.min()} to {model.max()}"
        )
    devices = np.arange(max(1, int(gpus.max())))
    gpu_milli = np.where(devices < gpus[:, None], WHOLE, 0).astype(np.int64)
    columns = (cpu_milli, memory_mib, gpu_milli, gpus, model, np.zeros(len(gpus)))
    return GpuNodes(*(np.array(column, dtype=np.int64) for column in columns))


@dataclass(frozen=True, slots=True)
class Typical:
    """The pods that stand for a workload, and how many of its pods each stands for."""

    pods: Pods
    count: Ints  # [typical]


def typical_pods(pods: Pods, share: float = 0.95, times: Ints | None = None) -> Typical:
    """The most frequent demands that together make up at least `share` of the pods, the most frequent first.

    Pods are alike that agree in all but memory; CPU-only ones count too. Of equally frequent ones the larger comes
    first (by CPU, GPU share, number of GPUs, models). Each pod counts as many `times` [pods], once by default.

    Raises:
        SimulationError: there are no pods, or `share` is not in (0, 1].
    """
    if not len(pods) or not 0.0 < share <= 1.0:
        raise SimulationError(
            f"{len(pods)} pods and a share of {share} tell nothing typical; give pods and 0 < share <= 1"
        )
    rows = pods.matrix()
    rows[:, MEMORY] = 0
    kinds, kind = np.unique(rows, axis=0, return_inverse=True)
    count = np.bincount(kind.reshape(-1), times).astype(np.int64)
    order = np.lexsort((kinds[:, ALLOWED], kinds[:, GPUS], kinds[:, GPU_MILLI], kinds[:, CPU], count))[::-1]
    enough = int(np.searchsorted(count[order].cumsum(), share * count.sum() - 1e-9)) + 1
    return Typical(from_matrix(kinds[order[:enough]]), count[order[:enough]])
