"""How good a machine is for a job by each rule, from 0 to 100, and which machine is best by their weighted mean.

LeastAllocated, MostAllocated, BalancedAllocation and the spreading of groups are computed as kube-scheduler computes
them (Kubernetes documentation, "Scheduler Configuration" and "Resource Bin Packing"; plugins NodeResourcesFit,
NodeResourcesBalancedAllocation and PodTopologySpread of version 1.33), with two differences: a job that asks for none
of a resource is not taken to ask for a little, and a resource of unpublished size takes no part.

All that is compiled here stands in this one file: a kernel kept from an earlier start would not notice a change of one
that it calls in another file.
"""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

from twin.engine.jobs.machines import CPU, GPU, MEMORY, UNLIMITED, WHOLE_GPU

Ints, Floats = NDArray[np.int64], NDArray[np.float64]

NAMES = (
    "least_allocated", "most_allocated", "balanced_allocation", "alignment",
    "spread_zone", "spread_rack", "spread_node", "lifetime", "random",
    "dot_prod", "gpu_clustering", "gpu_packing", "fgd",
)  # fmt: skip
"""The rules, in the order of their numbers; the last four are scored by the kernels of the study of shared GPUs."""
_LEAST, _MOST, _BALANCED, _ALIGNMENT, _ZONE, _RACK, _NODE, _LIFETIME, _RANDOM = range(9)
SPREADS = {"spread_zone": "zone", "spread_rack": "rack", "spread_node": "node"}
"""What kind of domain each of the spreading rules looks at."""
GPU_POLICIES = ("dot_prod", "gpu_clustering", "gpu_packing", "fgd")

# how the raw score of each rule becomes 0 to 100
_AS_IT_IS, _SHARE_OF_LARGEST, _FEWEST, _LEAST_EXTENSION = range(4)
SCALES = {
    "alignment": _SHARE_OF_LARGEST,
    **dict.fromkeys(SPREADS, _FEWEST),
    "lifetime": _LEAST_EXTENSION,
}
"""The scale of each rule that has one of its own; the others are 0 to 100 from the start."""
AS_IT_IS = _AS_IT_IS

FULL = 1_000_000_000
"""The weights of all rules together: sums of whole scores in these units are exact, so that equal ones are equal."""

_UNLIMITED, _RESOURCES = int(UNLIMITED), 3


@numba.njit(cache=True)
def judge(
    among: NDArray[np.uint8],
    start: int,
    wanted: int,
    free: Ints,
    capacity: Ints,
    request: Ints,
    devices: Ints,
    weight: Floats,
    rules: Ints,
    latest_s: Floats,
    now_s: float,
    end_s: float,
    domain: Ints,
    mates: Ints,
    seed: int,
    chosen: Ints,
    raw: Floats,
) -> tuple[int, int]:
    """(how many machines with room were found, how many were looked at); fills `chosen` and the rows of `raw`.

    Args:
        among: the machines that may be taken, as bits [machines / 8].
        start: the first machine to look at; after the last one comes number 0.
        wanted: enough machines with room.
        free: what is free [machines, resources].
        capacity: all that there is [machines, resources].
        request: what one instance asks for [resources].
        devices: free millionths of each GPU [machines, devices].
        weight: of each resource [resources].
        rules: numbers of rules, one for each row of `raw`.
        latest_s: estimated end of what lies on each machine [machines]; may be empty without "lifetime".
        now_s: the time.
        end_s: estimated end of the job if it starts now.
        domain: number of the zone, rack and node of each machine [3, machines].
        mates: instances of the job's group in each domain [domains]; may be empty without spreading.
        seed: of the random scores of this instance.
        chosen: room for the numbers of the machines found, in the order in which they were found.
        raw: room for their scores [rules, machines].
    """
    found, looked = _find(among, start, wanted, free, request, devices, chosen)
    mine = chosen[:found]
    for row in range(len(rules)):
        rule, out = rules[row], raw[row]
        if rule <= _MOST:
            allocated(mine, free, capacity, request, weight, rule == _LEAST, out)
        elif rule == _BALANCED:
            balanced(mine, free, capacity, request, weight, out)
        elif rule == _ALIGNMENT:
            alignment(mine, free, capacity, request, out)
        elif rule <= _NODE:
            for i in range(found):
                out[i] = mates[domain[rule - _ZONE, mine[i]]]
        elif rule == _LIFETIME:
            extension(mine, latest_s, now_s, end_s, out)
        elif rule == _RANDOM:
            for i in range(found):
                out[i] = 100.0 * draw(seed, mine[i])
    return found, looked


@numba.njit(cache=True)
def _find(
    among: NDArray[np.uint8], start: int, wanted: int, free: Ints, request: Ints, devices: Ints, chosen: Ints
) -> tuple[int, int]:
    found, machines = 0, len(free)
    cpu, memory, gpu = request[CPU], request[MEMORY], request[GPU]
    m = start
    for step in range(machines):
        roomy = (among[m >> 3] >> (m & 7)) & 1 and free[m, CPU] >= cpu and free[m, MEMORY] >= memory
        if roomy and (not gpu or _gpu_times(m, gpu, devices, 1)):
            chosen[found] = m
            found += 1
            if found == wanted:
                return found, step + 1
        m += 1
        if m == machines:
            m = 0
    return found, machines


@numba.njit(cache=True)
def have_room(among: NDArray[np.uint8], free: Ints, request: Ints, devices: Ints, instances: int) -> bool:
    """Do as many instances fit on the machines together? Arguments as for `judge`."""
    for m in range(len(free)):
        if (among[m >> 3] >> (m & 7)) & 1:
            room = instances
            for r in range(GPU):
                if request[r] and free[m, r] < request[r] * room:
                    room = free[m, r] // request[r]
            if request[GPU] and room:
                room = _gpu_times(m, request[GPU], devices, room)
            instances -= room
            if instances <= 0:
                return True
    return False


@numba.njit(cache=True)
def _gpu_times(m: int, gpu: int, devices: Ints, most: int) -> int:
    """How often that much of a GPU, or so many whole ones, are free on machine m; `most` at the most."""
    room = 0
    if gpu < WHOLE_GPU:
        for d in range(devices.shape[1]):
            if devices[m, d] >= gpu:
                room += devices[m, d] // gpu
                if room >= most:
                    return most
        return room
    for d in range(devices.shape[1]):
        if devices[m, d] == WHOLE_GPU:
            room += 1
    return min(most, room // (gpu // WHOLE_GPU))


@numba.njit(cache=True)
def allocated(
    chosen: Ints, free: Ints, capacity: Ints, request: Ints, weight: Floats, least: bool, out: Floats
) -> None:
    """LeastAllocated or MostAllocated: the share of each resource that is free or taken with the job, averaged.

    floor of the weighted mean of floor(100 left / capacity) or floor(100 taken / capacity). GPUs count for jobs that
    ask for some. Writes the score of each of the `chosen` machines to `out`; other arguments as for `judge`.
    """
    for i in range(len(chosen)):
        m, score, together = chosen[i], 0.0, 0.0
        for r in range(_RESOURCES):
            all_of_it = capacity[m, r]
            if weight[r] and (request[r] or r != GPU) and 0 < all_of_it < _UNLIMITED:
                left = free[m, r] - request[r]
                amount = left if least else all_of_it - left
                # the quotient of whole numbers below 2^46 never rounds up to the next one
                score += weight[r] * int(100.0 * amount / all_of_it)
                together += weight[r]
        out[i] = int(score / together) if together else 0


@numba.njit(cache=True)
def balanced(chosen: Ints, free: Ints, capacity: Ints, request: Ints, weight: Floats, out: Floats) -> None:
    """BalancedAllocation: floor(100 (1 - standard deviation of the taken shares of all resources with a weight)).

    A job that asks for nothing scores 0 everywhere. Arguments as for `allocated`.
    """
    asks = request[CPU] or request[MEMORY] or request[GPU]
    for i in range(len(chosen)):
        m, number, first, second, third = chosen[i], 0, 0.0, 0.0, 0.0
        for r in range(_RESOURCES):
            all_of_it = capacity[m, r]
            if weight[r] and (request[r] or r != GPU) and 0 < all_of_it < _UNLIMITED:
                first, second, third = min(1.0, (all_of_it - free[m, r] + request[r]) / all_of_it), first, second
                number += 1
        deviation = 0.0
        if number == 2:
            deviation = abs((first - second) / 2.0)
        elif number == 3:
            mean = (first + second + third) / 3.0
            deviation = math.sqrt(((first - mean) ** 2 + (second - mean) ** 2 + (third - mean) ** 2) / 3.0)
        out[i] = int(100.0 * (1.0 - deviation)) if asks else 0


@numba.njit(cache=True)
def alignment(chosen: Ints, free: Ints, capacity: Ints, request: Ints, out: Floats) -> None:
    """The dot product of what is free and what is asked for, as shares of the machine: the larger, the better.

    Grandl et al., "Multi-resource packing for cluster schedulers", SIGCOMM 2014. Arguments as for `allocated`.
    """
    for i in range(len(chosen)):
        m, product = chosen[i], 0.0
        for r in range(_RESOURCES):
            all_of_it = capacity[m, r]
            if 0 < all_of_it < _UNLIMITED:
                product += free[m, r] / all_of_it * (request[r] / all_of_it)
        out[i] = product


@numba.njit(cache=True)
def extension(chosen: Ints, latest_s: Floats, now_s: float, end_s: float, out: Floats) -> None:
    """By how many seconds the job would put off the time at which a machine is empty: the fewer, the better.

    Barbalho et al., "Virtual machine allocation with lifetime predictions", MLSys 2023. Arguments as for `judge`.
    """
    for i in range(len(chosen)):
        latest = latest_s[chosen[i]]
        out[i] = 0.0 if latest >= end_s else end_s - max(latest, now_s)


@numba.njit(cache=True)
def draw(seed: int, number: int) -> float:
    """A number in [0, 1) that looks random and depends on nothing but the two that are given."""
    return (_mixed(seed, number) >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@numba.njit(cache=True)
def mixed(seed: int, job: int, attempt: int, instance: int) -> int:
    """A seed of its own for each instance of each attempt of each job."""
    return _small(_mixed(_small(_mixed(_small(_mixed(seed, job)), attempt)), instance))


@numba.njit(cache=True)
def _small(z: np.uint64) -> int:
    # without its last bit it is a number with a sign
    return int(z >> np.uint64(1))


@numba.njit(cache=True)
def _mixed(seed: int, number: int) -> np.uint64:
    """SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014."""
    z = np.uint64(seed) + np.uint64(0x9E3779B97F4A7C15) * np.uint64(number + 1)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@numba.njit(cache=True)
def settle(raw: Floats, scale: Ints, weight: Ints, found: int, scaled: Floats, total: Floats) -> int:
    """The place in `chosen` of the best of the `found` machines; of equal ones the first.

    Args:
        raw: scores [rules, machines].
        scale: how each becomes 0 to 100 [rules].
        weight: of each rule, FULL together [rules].
        found: machines that have scores.
        scaled: room for the scores from 0 to 100 [rules, machines].
        total: room for the weighted sums, up to 100 FULL [machines].
    """
    total[:found] = 0.0
    for row in range(len(scale)):
        _scale(scale[row], raw[row, :found], scaled[row, :found])
        for i in range(found):
            total[i] += weight[row] * scaled[row, i]
    best = 0
    for i in range(1, found):
        if total[i] > total[best]:
            best = i
    return best


@numba.njit(cache=True)
def _scale(scale: int, raw: Floats, scaled: Floats) -> None:
    if scale == _AS_IT_IS:
        scaled[:] = raw
        return
    least, largest = raw.min(), 0.0
    for value in raw:
        if largest < value < np.inf:
            largest = value
    for i in range(len(raw)):
        if scale == _SHARE_OF_LARGEST:
            scaled[i] = int(100.0 * raw[i] / largest) if largest else 0.0
        elif scale == _FEWEST:
            # as PodTopologySpread with one constraint of skew 1, whose weight of domains cancels
            scaled[i] = int(100.0 * (largest + least - raw[i]) / largest) if largest else 100.0
        elif raw[i] == np.inf:
            scaled[i] = 0.0
        else:
            scaled[i] = int(100.0 * (largest - raw[i]) / largest) if largest else 100.0
