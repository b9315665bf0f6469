"""Jobs and machines as the study of shared GPUs sees pods and nodes, so that its kernels score machines for jobs.

Amounts are rounded down to thousandths. The published scores are relative to a node of 128 cores and 8 GPUs; on larger
machines those that would fall below 0 are 0.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from twin.engine.jobs.capacity import Capacity
from twin.engine.jobs.machines import ANY, CPU, GPU, WHOLE_GPU, Machines
from twin.engine.jobs.workload import F8, I8, Workload
from twin.engine.scheduling import gpu
from twin.engine.scheduling.gpu_pods import MOST_MODELS, WHOLE, Typical, from_matrix, typical_pods
from twin.engine.scheduling.tallies import DeviceShares
from twin.errors import SimulationError

_PER_MILLI = WHOLE_GPU // WHOLE
"""Millionths of a core or of a GPU in a thousandth."""
_SLOTS = 256
"""Demands whose scores are remembered for each machine."""


class GpuScores:
    """Scores of machines by policies of the study: "dot_prod", "gpu_clustering", "gpu_packing", "fgd"."""

    def __init__(self, workload: Workload, machines: Machines, policies: Iterable[str]) -> None:
        """Nothing is remembered; raises SimulationError for more than 63 models of GPUs."""
        models = sorted({labels.get("gpu_model", ANY) for labels in machines.kinds})
        if len(models) > MOST_MODELS:
            raise SimulationError(f"{len(models)} GPU models are too many to score: {MOST_MODELS} can be told apart")
        of_kind = np.array([models.index(labels.get("gpu_model", ANY)) for labels in machines.kinds])
        allowed = [sum(1 << m for m in set(of_kind[fits].tolist())) for fits in workload.fits_kind]
        self._model: I8 = of_kind[machines.kind].astype(np.int64)
        self._gpus: I8 = machines.capacity[:, GPU] // WHOLE_GPU
        self._pods = _pods(workload, np.array(allowed, dtype=np.int64)[workload.job_class])
        self._kinds, kind = np.unique(self._pods, axis=0, return_inverse=True)
        self._kind: I8 = kind.reshape(-1).astype(np.int64)
        self._times = np.maximum(workload.instances, 1)
        self._learnt = 0  # jobs
        self._typical, self._count = self._kinds[:0], self._kind[:0]
        self._memory = {policy: _nothing_known(len(machines), max(1, int(self._gpus.max()))) for policy in policies}

    def typical(self, jobs: int) -> Typical:
        """The pods that are typical of the first jobs; each counts as often as it has instances."""
        return typical_pods(from_matrix(self._pods[:jobs]), times=self._times[:jobs])

    def learn(self, jobs: int) -> None:
        """Take as typical what the first jobs ask for."""
        if jobs != self._learnt:
            typical = self.typical(jobs)
            self._typical, self._count, self._learnt = typical.pods.matrix(), typical.count, jobs
            for seen, *_ in self._memory.values():
                seen[:] = -1

    def score(self, policy: str, capacity: Capacity, shares: DeviceShares, job: int, chosen: I8, out: F8) -> None:
        """Writes the policy's score of the `chosen` machines, which have room for the job, to `out` [chosen]."""
        kind = self._kind[job]
        gpu.scores(
            gpu.POLICIES.index(policy), kind, self._kinds[kind], chosen, capacity.free[:, CPU], _PER_MILLI,
            shares.free_milli, self._gpus, self._model, shares.classes, self._typical, self._count,
            *self._memory[policy], out,
        )  # fmt: skip

    def device(self, capacity: Capacity, shares: DeviceShares, job: int, machine: int) -> int:
        """The device on which fragmentation gradient descent puts a share; -1 for other jobs."""
        pod = self._kinds[self._kind[job]]
        cpu_milli = capacity.cpu[machine] // _PER_MILLI
        free = shares.free_milli[machine]
        return gpu.fgd_device(pod, cpu_milli, free, self._model[machine], self._typical, self._count)


def device_shares(workload: Workload, machines: Machines) -> DeviceShares:
    """The devices of empty machines, ready to be kept in step with what these jobs take."""
    kinds, kind = np.unique(_pods(workload, np.ones(len(workload), dtype=np.int64)), axis=0, return_inverse=True)
    of_kind = np.array([int(gpu.class_of(pod)).bit_length() - 1 for pod in kinds])
    return DeviceShares(machines, workload.request[:, GPU], of_kind[kind.reshape(-1)])


def _nothing_known(machines: int, devices: int) -> tuple[I8, I8, I8, I8]:
    """Memory of `gpu.scores`: what was seen, the fragments, the scores and whose they are."""
    seen, known_kind = (np.full((machines, width), -1, dtype=np.int64) for width in (2 + devices, _SLOTS))
    return seen, np.zeros(machines, dtype=np.int64), np.zeros((machines, _SLOTS), dtype=np.int64), known_kind


def _pods(workload: Workload, allowed: I8) -> I8:
    """What one instance of each job asks for, as rows of a matrix of pods; memory takes no part in any score."""
    asked = workload.request[:, GPU]
    whole = asked >= WHOLE_GPU
    gpus = np.where(whole, asked // WHOLE_GPU, asked > 0)
    milli = np.where(whole, WHOLE, np.maximum(asked // _PER_MILLI, asked > 0))
    return np.column_stack([workload.request[:, CPU] // _PER_MILLI, np.zeros_like(asked), gpus, milli, allowed])
