"""Placing pods that share GPUs, one by one: which node, then which of its devices; and what GPU this strands.

A node takes a pod where CPU, memory and enough devices have room and its model is allowed; pods without GPU may go
anywhere. The policy scores these nodes with whole numbers, the highest wins, and of equal ones the first in an order
that stays the same for the whole filling: scores are coarse, so this order decides often. A pod that no node can take
is refused for good. Whole devices are taken in the order of their numbers, a share from the fullest device that has
room, unless the policy says otherwise.

An idle GPU is a fragment for a pod that cannot use it: all idle GPU of a node for a pod that does not fit there or asks
for no GPU, else that of the devices with less room than the pod needs. The expectation over the pods that are typical
of a workload is the fragmentation of the node; memory takes no part in it.

Policies and measure: Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation
Gradient Descent", USENIX ATC 2023, and its artifact ("the FGD paper" below). All that is compiled stands in this one
file: a kernel kept from an earlier start would not notice a change of one that it calls in another file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from twin.engine.scheduling.gpu_pods import (
    ALLOWED,
    CPU,
    GPU_MILLI,
    GPUS,
    MEMORY,
    WHOLE,
    GpuNodes,
    Ints,
    Pods,
    Typical,
)
from twin.errors import SimulationError, UsageError

POLICIES = ("random", "dot_prod", "gpu_clustering", "gpu_packing", "best_fit", "fgd")
_RANDOM, _DOT_PROD, _GPU_CLUSTERING, _GPU_PACKING, _BEST_FIT, _FGD = range(len(POLICIES))

# the largest node of the published cluster: what scores are relative to
LARGEST_CPU_MILLI = 128_000
LARGEST_GPU_MILLI = 8_000

REFUSED = -1
_STALE, _NO_ROOM = -(1 << 30), -(1 << 29)  # below every score


@dataclass(frozen=True, slots=True)
class Filling:
    """What became of pods that arrived one by one, and of the nodes.

    `devices` is a bitmask: bit d is set where the pod has device d of its node.
    """

    node: Ints  # [pods], -1 where refused
    devices: Ints  # [pods]
    allocated_milli: Ints  # [pods], GPU given to the pods up to and with this one
    fragmented_milli: NDArray[np.float64]  # [pods], expected fragmentation of all nodes after this one
    nodes: GpuNodes  # what is left free


def fill(
    nodes: GpuNodes,
    pods: Pods,
    policy: str,
    order: Ints,
    typical: Typical,
    *,
    rng: np.random.Generator | None = None,
) -> Filling:
    """Where the pods go that arrive one by one and stay.

    Args:
        nodes: what is free at first; they are left as they are.
        pods: in their order of arrival.
        policy: one of POLICIES.
        order: all nodes, the first of which wins ties [nodes].
        typical: what fragmentation is measured against.
        rng: decides in the policy "random", is not used in others.

    Raises:
        UsageError: the policy is unknown, or "random" without a generator.
        SimulationError: `order` does not name each node once.
    """
    if policy not in POLICIES:
        raise UsageError(f"placement policy {policy!r} is unknown; known: {list(POLICIES)}")
    if not np.array_equal(np.sort(order), np.arange(len(nodes))):
        raise SimulationError(
            f"the order of nodes does not name each of the {len(nodes)} nodes once; give a permutation"
        )
    if policy == "random" and rng is None:
        raise UsageError("placement policy 'random' needs a generator; give rng")
    draws = np.empty((0, 2)) if rng is None else rng.random((len(pods), 2))
    kinds, kind = np.unique(pods.matrix(), axis=0, return_inverse=True)
    after = nodes.copy()
    node, devices, fragmented = _fill(
        POLICIES.index(policy),
        kinds,
        kind.reshape(-1).astype(np.int64),
        order.astype(np.int64),
        draws,
        after.cpu_milli,
        after.memory_mib,
        after.gpu_milli,
        after.gpus,
        after.model,
        after.classes,
        typical.pods.matrix(),
        typical.count,
    )
    allocated = np.where(node >= 0, pods.demand_milli(), 0).cumsum()
    return Filling(node, devices, allocated, fragmented / typical.count.sum(), after)


def fragmentation(nodes: GpuNodes, typical: Typical) -> NDArray[np.float64]:
    """The idle GPU that a typical pod is expected not to be able to use, in thousandths of a GPU [nodes]."""
    rows, count = typical.pods.matrix(), typical.count
    return fragments(nodes.cpu_milli, nodes.gpu_milli, nodes.model, rows, count) / count.sum()


@numba.njit(cache=True)
def _fill(
    policy: int,
    kinds: Ints,  # [kinds, 5]
    kind: Ints,  # [pods]
    order: Ints,
    draws: NDArray[np.float64],  # [pods, 2], or empty
    cpu: Ints,
    memory: Ints,
    gpu: Ints,
    gpus: Ints,
    model: Ints,
    classes: Ints,
    typical: Ints,
    count: Ints,
) -> tuple[Ints, Ints, Ints]:
    """Node, devices and fragmentation times pods for each pod; takes what they get out of the arrays of the nodes."""
    placed = np.full(len(kind), REFUSED)
    devices = np.zeros(len(kind), dtype=np.int64)
    curve = np.empty(len(kind), dtype=np.int64)
    wasted = fragments(cpu, gpu, model, typical, count)
    total = wasted.sum()
    # a score depends on the pod's kind and on the node alone: it holds until the node changes
    scores = np.full((len(kinds), len(cpu)), _STALE)
    for i in range(len(kind)):
        pod, known = kinds[kind[i]], scores[kind[i]]
        for n in range(len(cpu)):
            if known[n] == _STALE:
                known[n] = _NO_ROOM
                if fits(pod, cpu[n], memory[n], gpu[n], model[n]):
                    known[n] = _score(
                        policy, pod, cpu[n], gpu[n], gpus[n], model[n], classes[n], wasted[n], typical, count
                    )
        n = _any_of(known, order, draws[i, 0]) if policy == _RANDOM else _best_of(known, order)
        if n != REFUSED:
            device = -1
            if policy == _FGD:
                device = fgd(pod, cpu[n], gpu[n], model[n], wasted[n], typical, count)[1]
            elif policy == _RANDOM:
                device = _any_device(gpu[n], pod[GPU_MILLI], draws[i, 1])
            devices[i] = _take(pod, gpu[n], device)
            cpu[n] -= pod[CPU]
            memory[n] -= pod[MEMORY]
            classes[n] |= class_of(pod)
            total -= wasted[n]
            wasted[n] = fragment(cpu[n], gpu[n], model[n], typical, count)
            total += wasted[n]
            placed[i] = n
            scores[:, n] = _STALE
        curve[i] = total
    return placed, devices, curve


@numba.njit(cache=True)
def fragments(cpu: Ints, gpu: Ints, model: Ints, typical: Ints, count: Ints) -> Ints:
    """`fragment` of each node [nodes]."""
    out = np.empty(len(cpu), dtype=np.int64)
    for node in range(len(cpu)):
        out[node] = fragment(cpu[node], gpu[node], model[node], typical, count)
    return out


@numba.njit(cache=True)
def fragment(cpu: int, gpu: Ints, model: int, typical: Ints, count: Ints) -> int:
    """Fragmented thousandths of a GPU on a node, summed over all pods that the typical ones stand for.

    Args:
        cpu: free thousandths of a core.
        gpu: free thousandths of each device [devices].
        model: number of the GPU model.
        typical: demands [typical, 5].
        count: how many pods each stands for [typical].
    """
    idle = gpu.sum()
    if idle == 0:
        return 0
    lost = 0
    for t in range(len(typical)):
        pod = typical[t]
        lost += count[t] * (
            _too_small(gpu, pod, idle) if pod[GPUS] and cpu >= pod[CPU] and runs_on(pod, model) else idle
        )
    return lost


@numba.njit(cache=True)
def runs_on(pod: Ints, model: int) -> bool:
    """May the pod run beside GPUs of this model?"""
    return (pod[ALLOWED] >> model) & 1 == 1


@numba.njit(cache=True)
def _too_small(gpu: Ints, pod: Ints, idle: int) -> int:
    """The idle GPU on devices with less room than the pod needs, or all of it where too few devices have room."""
    enough, small = 0, 0
    for free in gpu:
        if free >= pod[GPU_MILLI]:
            enough += 1
        else:
            small += free
    return small if enough >= pod[GPUS] else idle


@numba.njit(cache=True)
def take_whole(gpu: Ints, wanted: int) -> int:
    """Takes the first `wanted` wholly free devices out of `gpu` [devices]; returns them as a bitmask."""
    devices = 0
    for d in range(len(gpu)):
        if wanted and gpu[d] == WHOLE:
            gpu[d] = 0
            devices |= 1 << d
            wanted -= 1
    return devices


@numba.njit(cache=True)
def fits(pod: Ints, cpu: int, memory: int, gpu: Ints, model: int) -> bool:
    """Has the node room for the pod, on a model that it allows?"""
    if cpu < pod[CPU] or memory < pod[MEMORY]:
        return False
    if pod[GPUS] == 0:
        return True
    return runs_on(pod, model) and (gpu >= pod[GPU_MILLI]).sum() >= pod[GPUS]


@numba.njit(cache=True)
def _best_of(scores: Ints, order: Ints) -> int:
    best, node = _NO_ROOM, REFUSED
    for n in order:
        if scores[n] > best:
            best, node = scores[n], n
    return node


@numba.njit(cache=True)
def _any_of(scores: Ints, order: Ints, draw: float) -> int:
    """Any node with room, all equally likely."""
    left = int(draw * (scores > _NO_ROOM).sum())
    for n in order:
        if scores[n] > _NO_ROOM:
            if left == 0:
                return n
            left -= 1
    return REFUSED


@numba.njit(cache=True)
def _any_device(gpu: Ints, milli: int, draw: float) -> int:
    """Any device with room, all equally likely."""
    fitting = np.flatnonzero(gpu >= milli)
    return fitting[int(draw * len(fitting))]


@numba.njit(cache=True)
def _take(pod: Ints, gpu: Ints, device: int) -> int:
    """Takes the pod's GPU out of `gpu` [devices], a share from `device` or (-1) the fullest; returns the devices."""
    if pod[GPU_MILLI] == 0 or pod[GPU_MILLI] == WHOLE:
        return take_whole(gpu, pod[GPUS])
    chosen = fullest(gpu, pod[GPU_MILLI]) if device < 0 else device
    gpu[chosen] -= pod[GPU_MILLI]
    return 1 << chosen


@numba.njit(cache=True)
def fullest(gpu: Ints, milli: int) -> int:
    """The first of the devices with the least room of those that have `milli`, or -1."""
    device = -1
    for d in range(len(gpu)):
        if gpu[d] >= milli and (device < 0 or gpu[d] < gpu[device]):
            device = d
    return device


@numba.njit(cache=True)
def _score(
    policy: int,
    pod: Ints,
    cpu: int,
    gpu: Ints,
    gpus: int,
    model: int,
    classes: int,
    wasted: int,
    typical: Ints,
    count: Ints,
) -> int:
    if policy == _DOT_PROD:
        return dot_prod(pod, cpu, gpu)
    if policy == _GPU_CLUSTERING:
        return gpu_clustering(pod, gpu, classes)
    if policy == _GPU_PACKING:
        return gpu_packing(pod, gpu, gpus)
    if policy == _BEST_FIT:
        return best_fit(pod, cpu, gpu)
    if policy == _FGD:
        return fgd(pod, cpu, gpu, model, wasted, typical, count)[0]
    return 0


@numba.njit(cache=True)
def scores(
    policy: int,
    kind: int,
    pod: Ints,
    nodes: Ints,
    cpu: Ints,
    cpu_unit: int,
    gpu: Ints,
    gpus: Ints,
    model: Ints,
    classes: Ints,
    typical: Ints,
    count: Ints,
    seen: Ints,
    wasted: Ints,
    known: Ints,
    known_kind: Ints,
    out: NDArray[np.float64],
) -> None:
    """Writes the policy's score of some nodes, 0 at the least, to `out` [nodes].

    What was computed before holds for as long as a node looks the same, which is checked and not believed: whoever
    goes on with another cluster may give the same memory.

    Args:
        policy: number of one of POLICIES.
        kind: number of the pod's demand.
        pod: demand [5] that fits on each of the nodes.
        nodes: which of the following.
        cpu: free CPU, in units of which `cpu_unit` are a thousandth of a core [all nodes].
        cpu_unit: those.
        gpu: free thousandths of each device [all nodes, devices].
        gpus: devices [all nodes].
        model: number of the GPU model [all nodes].
        classes: kinds of GPU pods that run there, as bits [all nodes].
        typical: demands [typical, 5].
        count: how many pods each stands for [typical].
        seen: CPU, kinds and devices of each node when it was looked at last; -1 at first [all nodes, 2 + devices].
        wasted: `fragment` then [all nodes].
        known: scores then [all nodes, slots].
        known_kind: of which kinds; -1 for none [all nodes, slots].
        out: room for the scores.
    """
    slot = kind % known.shape[1]
    for i in range(len(nodes)):
        n = int(nodes[i])
        cpu_milli = cpu[n] // cpu_unit
        same = seen[n, 0] == cpu_milli and seen[n, 1] == classes[n]
        for d in range(gpu.shape[1]):
            same &= seen[n, d + 2] == gpu[n, d]
        if not same:
            seen[n, 0], seen[n, 1] = cpu_milli, classes[n]
            seen[n, 2:] = gpu[n]
            known_kind[n] = -1
            if policy == _FGD:
                wasted[n] = fragment(cpu_milli, gpu[n], model[n], typical, count)
        if known_kind[n, slot] != kind:
            known_kind[n, slot] = kind
            score = _score(policy, pod, cpu_milli, gpu[n], gpus[n], model[n], classes[n], wasted[n], typical, count)
            known[n, slot] = max(score, 0)
        out[i] = known[n, slot]


@numba.njit(cache=True)
def fgd_device(pod: Ints, cpu: int, gpu: Ints, model: int, typical: Ints, count: Ints) -> int:
    """The device that fragmentation gradient descent gives a share, -1 for other pods; arguments as for `fgd`."""
    return fgd(pod, cpu, gpu, model, fragment(cpu, gpu, model, typical, count), typical, count)[1]


@numba.njit(cache=True)
def dot_prod(pod: Ints, cpu: int, gpu: Ints) -> int:
    """Alignment of demand and room, the least first: trunc(100 (1 - (c p / C^2 + g q / G^2) / 2)).

    c, g: free CPU and GPU of the node; p, q: those that the pod asks for; C, G: those of the largest node. After
    Grandl et al., "Multi-resource packing for cluster schedulers" (SIGCOMM 2014), as compared in the FGD paper.
    """
    cpu_term = cpu / LARGEST_CPU_MILLI * (pod[CPU] / LARGEST_CPU_MILLI)
    gpu_term = gpu.sum() / LARGEST_GPU_MILLI * (pod[GPUS] * pod[GPU_MILLI] / LARGEST_GPU_MILLI)
    return int(100.0 * (1.0 - (cpu_term + gpu_term) / 2.0))


@numba.njit(cache=True)
def class_of(pod: Ints) -> int:
    """The kind of a GPU pod as one bit: a share, or 1, 2, 4 or more whole devices; 0 for a pod without GPU."""
    if pod[GPUS] == 0:
        return 0
    if pod[GPU_MILLI] < WHOLE:
        return 1
    if pod[GPUS] == 1:
        return 2
    if pod[GPUS] == 2:
        return 4
    return 8 if pod[GPUS] <= 4 else 16


@numba.njit(cache=True)
def gpu_clustering(pod: Ints, gpu: Ints, classes: int) -> int:
    """Like to like: floor(25 (G - g) / G) + 75, 50, 25 or 0.

    75 where all GPU pods are of the pod's own class, 50 where some are, 25 where there are none, 0 where all are of
    other classes. g: free GPU of the node, G: that of the largest. A pod without GPU scores 0 everywhere. After Xiao
    et al., "Gandiva" (OSDI 2018), as compared in the FGD paper.
    """
    own = class_of(pod)
    if own == 0:
        return 0
    base = 25 * (LARGEST_GPU_MILLI - gpu.sum()) // LARGEST_GPU_MILLI
    if classes & own:
        return base + (75 if classes == own else 50)
    return base + (25 if classes == 0 else 0)


@numba.njit(cache=True)
def gpu_packing(pod: Ints, gpu: Ints, gpus: int) -> int:
    """Used devices first, then used nodes, then idle nodes.

    A share on a device in use that has b free: max(100 - floor(b / 100), 50). k wholly free devices of a node in use:
    max(50 - k, 33). A node of n devices, all wholly free: max(33 - n, n). A pod without GPU scores 0 everywhere. After
    Weng et al., "MLaaS in the wild" (NSDI 2022), as compared in the FGD paper.
    """
    if pod[GPUS] == 0:
        return 0
    if (gpu == WHOLE).sum() == gpus:
        return max(33 - gpus, gpus)
    free = gpu[fullest(gpu, pod[GPU_MILLI])]
    if free == WHOLE:
        return max(50 - pod[GPUS], 33)
    return max(100 - free // 100, 50)


@numba.njit(cache=True)
def best_fit(pod: Ints, cpu: int, gpu: Ints) -> int:
    """The least room left over: trunc(100 (1 - ((c - p) / C + (g - q) / G) / 2)).

    c, g: free CPU and GPU of the node; p, q: those that the pod asks for; C, G: those of the largest node. After
    Hadary et al., "Protean" (OSDI 2020), as compared in the FGD paper.
    """
    cpu_left = (cpu - pod[CPU]) / LARGEST_CPU_MILLI
    gpu_left = (gpu.sum() - pod[GPUS] * pod[GPU_MILLI]) / LARGEST_GPU_MILLI
    return int(100.0 * (1.0 - (cpu_left + gpu_left) / 2.0))


@numba.njit(cache=True)
def fgd(pod: Ints, cpu: int, gpu: Ints, model: int, before: int, typical: Ints, count: Ints) -> tuple[int, int]:
    """(score, device) of fragmentation gradient descent: the less fragmentation grows, the better.

    score = trunc(100 sigmoid((F - F') / 1000)) with F and F' the expected fragmentation in thousandths of a GPU before
    and after, and sigmoid(x) = 1 / (1 + exp(-x)); that of the best device for a share, of which the first one is
    returned. The device is -1 for a pod that asks for no share (paper: section 4).

    Args:
        pod: demand [5] that fits.
        cpu: free thousandths of a core.
        gpu: free thousandths of each device [devices].
        model: number of the GPU model.
        before: `fragment` of the node as it is.
        typical: demands [typical, 5].
        count: how many pods each stands for [typical].
    """
    left = gpu.copy()
    scale = WHOLE * count.sum()
    cpu_left = cpu - pod[CPU]
    if pod[GPU_MILLI] == 0 or pod[GPU_MILLI] == WHOLE:
        take_whole(left, pod[GPUS])
        return _steepness((before - fragment(cpu_left, left, model, typical, count)) / scale), -1
    best, device = -1, -1
    for d in range(len(gpu)):
        if gpu[d] >= pod[GPU_MILLI]:
            left[d] -= pod[GPU_MILLI]
            score = _steepness((before - fragment(cpu_left, left, model, typical, count)) / scale)
            left[d] = gpu[d]
            if score > best:
                best, device = score, d
    return best, device


@numba.njit(cache=True)
def _steepness(descent: float) -> int:
    return int(100.0 / (1.0 + math.exp(-descent)))
