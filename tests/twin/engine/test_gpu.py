"""GPU-sharing nodes take pods one by one: no law of capacity is broken, and each policy chooses as it is documented."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twin.engine.scheduling import gpu
from twin.engine.scheduling.gpu import POLICIES, fill, fragmentation
from twin.engine.scheduling.gpu_pods import (
    ANY_MODEL,
    GpuNodes,
    Ints,
    Pods,
    Typical,
    empty_nodes,
    from_matrix,
    typical_pods,
)
from twin.errors import SimulationError, UsageError

CPU_ONLY = (2_000, 512, 0, 0, ANY_MODEL)
SHARE = (1_000, 512, 1, 300, ANY_MODEL)
HALF = (1_000, 512, 1, 500, ANY_MODEL)
ONE = (4_000, 1_024, 1, 1_000, ANY_MODEL)
TWO = (8_000, 2_048, 2, 1_000, ANY_MODEL)


def ints(values: object) -> Ints:
    return np.array(values, dtype=np.int64)


def pods_of(*rows: tuple[int, ...]) -> Pods:
    return from_matrix(ints(rows).reshape(-1, 5))


def nodes_of(
    gpu_milli: list[list[int]], *, cpu: int | list[int] = 64_000, classes: list[int] | None = None
) -> GpuNodes:
    """Nodes with this much free on each device, all of model 0 and with ample memory."""
    count = len(gpu_milli)
    return GpuNodes(
        cpu_milli=np.broadcast_to(ints(cpu), count).copy(),
        memory_mib=np.full(count, 1 << 20),
        gpu_milli=ints(gpu_milli),
        gpus=np.full(count, len(gpu_milli[0])),
        model=np.zeros(count, dtype=np.int64),
        classes=ints(classes or [0] * count),
    )


def first_choice(policy: str, nodes: GpuNodes, pod: tuple[int, ...], typical: Typical | None = None) -> int:
    """The node that one pod gets; earlier nodes win ties."""
    pods = pods_of(pod)
    return int(fill(nodes, pods, policy, np.arange(len(nodes)), typical or typical_pods(pods)).node[0])


def stated_fragmentation(nodes: GpuNodes, typical: Typical) -> np.ndarray:
    """The definition, written out over [nodes, typical, devices]."""
    asked, weight = typical.pods, typical.count / typical.count.sum()
    free = nodes.gpu_milli[:, None, :]
    idle = nodes.gpu_milli.sum(axis=1)[:, None]
    room = free >= asked.gpu_milli[None, :, None]
    allowed = (asked.allowed[None, :] >> nodes.model[:, None]) & 1 == 1
    usable = (asked.gpus > 0) & allowed & (nodes.cpu_milli[:, None] >= asked.cpu_milli)
    usable &= room.sum(axis=2) >= asked.gpus
    return np.where(usable, np.where(room, 0, free).sum(axis=2), idle) @ weight


demands = st.one_of(
    st.tuples(st.integers(0, 30_000), st.integers(0, 4_000), st.just(0), st.just(0), st.just(ANY_MODEL)),
    st.tuples(st.integers(0, 30_000), st.integers(0, 4_000), st.just(1), st.integers(1, 1_000), st.integers(1, 7)),
    st.tuples(st.integers(0, 30_000), st.integers(0, 4_000), st.integers(1, 4), st.just(1_000), st.integers(1, 7)),
)
workloads = st.lists(demands, min_size=1, max_size=40).map(lambda rows: pods_of(*rows))
clusters = st.lists(
    st.tuples(st.integers(1_000, 128_000), st.integers(1_000, 16_000), st.integers(0, 4), st.integers(0, 2)),
    min_size=1,
    max_size=8,
).map(lambda rows: empty_nodes(*ints(rows).T))
fillings = settings(max_examples=60, deadline=None)


@fillings
@given(clusters, workloads, st.sampled_from(POLICIES), st.integers(0, 99))
def test_no_pod_gets_what_a_node_does_not_have(nodes: GpuNodes, pods: Pods, policy: str, seed: int) -> None:
    """Replayed pod by pod: room and model hold, shares lie on one device, whole devices were idle, and a pod is
    refused only where no node has room."""
    rng = np.random.default_rng(seed)
    typical, left = typical_pods(pods), nodes.copy()
    filling = fill(nodes, pods, policy, rng.permutation(len(nodes)), typical, rng=rng)
    for i, (cpu, memory, gpus, milli, allowed) in enumerate(pods.matrix()):
        room = (left.cpu_milli >= cpu) & (left.memory_mib >= memory)
        if gpus:
            room &= ((left.gpu_milli >= milli).sum(axis=1) >= gpus) & ((allowed >> left.model) & 1 == 1)
        n = filling.node[i]
        assert room[n] if n >= 0 else not room.any()
        taken = [d for d in range(left.gpu_milli.shape[1]) if filling.devices[i] >> d & 1]
        assert len(taken) == (gpus if n >= 0 else 0)
        if n >= 0:
            assert milli < 1_000 or all(left.gpu_milli[n, taken] == 1_000)
            left.gpu_milli[n, taken] -= milli
            left.cpu_milli[n] -= cpu
            left.memory_mib[n] -= memory
        assert min(left.gpu_milli.min(), left.cpu_milli.min(), left.memory_mib.min()) >= 0
        assert filling.allocated_milli[i] == nodes.gpu_milli.sum() - left.gpu_milli.sum()
        assert filling.fragmented_milli[i] == pytest.approx(stated_fragmentation(left, typical).sum())
    for name in ("cpu_milli", "memory_mib", "gpu_milli"):
        np.testing.assert_array_equal(getattr(filling.nodes, name), getattr(left, name))


@fillings
@given(clusters, workloads, st.sampled_from(POLICIES), st.integers(0, 40))
def test_filling_goes_on_where_it_stopped(nodes: GpuNodes, pods: Pods, policy: str, cut: int) -> None:
    """What is left after the first pods is all that later ones depend on; the nodes given are not changed."""
    typical, order, cut = typical_pods(pods), np.arange(len(nodes)), min(cut, len(pods))
    whole = fill(nodes, pods, policy, order, typical, rng=np.random.default_rng(3))
    rng = np.random.default_rng(3)
    early = fill(nodes, pods.take(np.arange(cut)), policy, order, typical, rng=rng)
    late = fill(early.nodes, pods.take(np.arange(cut, len(pods))), policy, order, typical, rng=rng)
    np.testing.assert_array_equal(whole.node, np.concatenate([early.node, late.node]))
    np.testing.assert_array_equal(whole.devices, np.concatenate([early.devices, late.devices]))


@fillings
@given(clusters, workloads, workloads, st.integers(0, 99))
def test_fragmentation_is_its_definition(nodes: GpuNodes, running: Pods, workload: Pods, seed: int) -> None:
    rng, typical = np.random.default_rng(seed), typical_pods(workload)
    used = fill(nodes, running, "random", np.arange(len(nodes)), typical, rng=rng).nodes
    np.testing.assert_allclose(fragmentation(used, typical), stated_fragmentation(used, typical))


def after_share(nodes: GpuNodes, n: int, device: int, pod: Pods) -> GpuNodes:
    moved = nodes.copy()
    moved.gpu_milli[n, device] -= pod.gpu_milli[0]
    moved.cpu_milli[n] -= pod.cpu_milli[0]
    return moved


@fillings
@given(clusters, workloads, workloads, st.integers(1, 999), st.integers(0, 99))
def test_fgd_goes_down_the_steepest_slope(
    nodes: GpuNodes, running: Pods, workload: Pods, milli: int, seed: int
) -> None:
    """A share goes to the node and device with the highest trunc(100 sigmoid(F - F')); the first one wins ties."""
    rng, typical = np.random.default_rng(seed), typical_pods(workload)
    used = fill(nodes, running, "random", np.arange(len(nodes)), typical, rng=rng).nodes
    pod, order = pods_of((500, 64, 1, milli, ANY_MODEL)), rng.permutation(len(nodes))
    before, best, expected = stated_fragmentation(used, typical), -1, (-1, 0)
    for n in order:
        for d in range(used.gpu_milli.shape[1]):
            if used.gpu_milli[n, d] >= milli and used.cpu_milli[n] >= 500 and used.memory_mib[n] >= 64:
                after = stated_fragmentation(after_share(used, n, d, pod), typical)[n]
                # half a billionth: sums of floats here are sums of whole numbers there
                score = int(100 / (1 + math.exp(-(before[n] - after) / 1_000)) + 5e-10)
                if score > best:
                    best, expected = score, (n, 1 << d)
    filling = fill(used, pod, "fgd", order, typical)
    assert (filling.node[0], filling.devices[0]) == expected


def test_fgd_fills_a_broken_gpu_before_it_breaks_another() -> None:
    """Whole GPUs are asked for as often as halves: half a GPU is worth less than half of a whole one."""
    typical = Typical(pods_of(ONE, HALF), ints([1, 1]))
    assert first_choice("fgd", nodes_of([[1_000, 1_000], [1_000, 500]]), HALF, typical) == 1
    filling = fill(nodes_of([[1_000, 500]]), pods_of(HALF), "fgd", np.arange(1), typical)
    assert filling.devices[0] == 0b10


def test_fgd_keeps_cpu_beside_idle_gpus() -> None:
    """A pod without GPU goes where no GPU is stranded by the CPU that it takes."""
    typical = Typical(pods_of(ONE), ints([1]))
    assert first_choice("fgd", nodes_of([[1_000], [0]], cpu=5_000), CPU_ONLY, typical) == 1


def test_dot_prod_looks_at_what_is_asked_for_and_best_fit_at_what_is_left() -> None:
    nodes, pod = nodes_of([[1_000, 0], [1_000, 1_000]], cpu=[128_000, 32_000]), (0, 0, 1, 1_000, ANY_MODEL)
    assert first_choice("dot_prod", nodes, pod) == 0
    assert first_choice("best_fit", nodes, pod) == 1


def test_gpu_clustering_puts_like_beside_like() -> None:
    """Own class alone, then own among others, then an empty node, then others alone."""
    share, one = gpu.class_of(ints(SHARE)), gpu.class_of(ints(ONE))
    free, ranked = [500, 1_000], [one, 0, share | one, share]
    for best in (3, 2, 1, 0):
        assert first_choice("gpu_clustering", nodes_of([free] * (best + 1), classes=ranked[: best + 1]), SHARE) == best


def test_gpu_clustering_remembers_what_it_placed() -> None:
    pods = pods_of(SHARE, ONE, SHARE, CPU_ONLY)
    filling = fill(nodes_of([[1_000, 1_000]] * 2), pods, "gpu_clustering", np.arange(2), typical_pods(pods))
    np.testing.assert_array_equal(filling.node, [0, 1, 0, 0])
    np.testing.assert_array_equal(filling.nodes.classes, [gpu.class_of(ints(pod)) for pod in (SHARE, ONE)])


def test_gpu_packing_takes_used_devices_then_used_nodes_then_idle_ones() -> None:
    free = [[1_000, 1_000], [200, 1_000], [900, 0], [400, 0]]
    for best in (3, 2, 1, 0):
        assert first_choice("gpu_packing", nodes_of(free[: best + 1]), SHARE) == best
    assert first_choice("gpu_packing", nodes_of(free[:2]), ONE) == 1


def test_random_gives_every_node_and_device_with_room_the_same_chance() -> None:
    nodes, order = nodes_of([[1_000, 200], [300, 1_000], [100, 100]]), ints([2, 1, 0])
    pods, seen = pods_of(SHARE), []
    for seed in range(600):
        filling = fill(nodes, pods, "random", order, typical_pods(pods), rng=np.random.default_rng(seed))
        seen.append((int(filling.node[0]), int(filling.devices[0])))
    shares = {choice: seen.count(choice) / len(seen) for choice in set(seen)}
    assert shares == pytest.approx({(0, 0b01): 0.5, (1, 0b01): 0.25, (1, 0b10): 0.25}, abs=0.08)


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        # 100 (1 - (0.5 x 4/128 + 1.5/8 x 1/8) / 2) = 98.05
        (lambda: gpu.dot_prod(ints(ONE), 64_000, ints([1_000, 500])), 98),
        # 100 (1 - (60/128 + 0.5/8) / 2) = 73.4
        (lambda: gpu.best_fit(ints(ONE), 64_000, ints([1_000, 500])), 73),
        # floor(25 x 6.5/8) = 20
        (lambda: gpu.gpu_clustering(ints(ONE), ints([1_000, 500]), 2), 95),
        (lambda: gpu.gpu_clustering(ints(ONE), ints([1_000, 500]), 3), 70),
        (lambda: gpu.gpu_clustering(ints(ONE), ints([1_000, 500]), 0), 45),
        (lambda: gpu.gpu_clustering(ints(ONE), ints([1_000, 500]), 1), 20),
        (lambda: gpu.gpu_clustering(ints(CPU_ONLY), ints([1_000, 500]), 1), 0),
        (lambda: gpu.gpu_packing(ints(SHARE), ints([1_000, 490]), 2), 96),
        (lambda: gpu.gpu_packing(ints(SHARE), ints([1_000, 200]), 2), 49),
        (lambda: gpu.gpu_packing(ints(TWO), ints([1_000, 1_000, 200]), 3), 48),
        (lambda: gpu.gpu_packing(ints(TWO), ints([1_000] * 8), 8), 25),
        (lambda: gpu.gpu_packing(ints(CPU_ONLY), ints([1_000, 490]), 2), 0),
    ],
)
def test_scores_by_hand(score: object, expected: int) -> None:
    assert callable(score)
    assert score() == expected


@pytest.mark.parametrize("policy", [name for name in POLICIES if name != "random"])
def test_the_first_in_order_wins_ties(policy: str) -> None:
    pods = pods_of(ONE)
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        assert fill(nodes_of([[1_000]] * 3), pods, policy, ints(order), typical_pods(pods)).node[0] == order[0]


def test_a_share_goes_to_the_fullest_device_with_room() -> None:
    filling = fill(
        nodes_of([[1_000, 200, 400, 400]]), pods_of(SHARE), "best_fit", np.arange(1), typical_pods(pods_of(ONE))
    )
    assert filling.devices[0] == 0b100


def test_typical_pods_are_the_most_frequent_without_memory() -> None:
    """Three of four kinds reach 90 %; of two equally frequent ones the larger comes first."""
    heavier = (*ONE[:1], 9_999, *ONE[2:])
    typical = typical_pods(pods_of(*[SHARE] * 6, ONE, heavier, CPU_ONLY, TWO), 0.9)
    np.testing.assert_array_equal(typical.count, [6, 2, 1])
    np.testing.assert_array_equal(typical.pods.gpus, [1, 1, 2])
    assert not typical.pods.memory_mib.any()
    assert len(typical_pods(pods_of(SHARE, ONE), 1.0).count) == 2


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((1, 1, 2, 500, ANY_MODEL), "pod 1 asks for 500 thousandths of each of 2 GPUs"),
        ((1, 1, 1, 1_500, ANY_MODEL), "pod 1 asks for 1500"),
        ((1, 1, 0, 500, ANY_MODEL), "pod 1 asks for 500"),
        ((-1, 1, 0, 0, ANY_MODEL), "pod 1 asks for a negative amount"),
    ],
)
def test_impossible_pods_are_refused(row: tuple[int, ...], message: str) -> None:
    with pytest.raises(SimulationError, match=message):
        pods_of(ONE, row)


def test_wrong_arguments_are_refused() -> None:
    nodes, pods = nodes_of([[1_000]] * 2), pods_of(ONE)
    typical, order = typical_pods(pods), np.arange(2)
    with pytest.raises(UsageError, match=r"'worst_fit' is unknown; known: .*'fgd'"):
        fill(nodes, pods, "worst_fit", order, typical)
    with pytest.raises(UsageError, match="needs a generator"):
        fill(nodes, pods, "random", order, typical)
    with pytest.raises(SimulationError, match="each of the 2 nodes once"):
        fill(nodes, pods, "fgd", ints([0, 0]), typical)
    with pytest.raises(SimulationError, match="share of 0"):
        typical_pods(pods, 0.0)
    with pytest.raises(SimulationError, match="no nodes"):
        empty_nodes(*ints([]).reshape(4, 0))
    with pytest.raises(SimulationError, match="from 0 to 62"):
        empty_nodes(ints([1]), ints([1]), ints([1]), ints([63]))
    with pytest.raises(SimulationError, match="differ in length"):
        Pods(ints([1]), ints([1]), ints([0]), ints([0, 0]), ints([0]))
