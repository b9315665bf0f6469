"""The published comparison of placement policies for GPU-sharing pods, repeated on the recorded cluster.

    python -m experiments.openb FOLDER --seeds 10 [--lists default cpu050] [--policies best_fit fgd]

Alibaba's GPU cluster of 2023 ("openb": 1,213 nodes with 6,212 GPUs) is filled with recorded pods, in random order, that
ask for 130 % of its GPUs, and nothing ever ends: how much of the GPUs is allocated, after how much was asked for?
Protocol and published means: Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation
Gradient Descent", USENIX ATC 2023, and its artifact (github.com/hkust-adsl/kubernetes-scheduler-simulator,
experiments/analysis/expected_results/analysis_allo_discrete.csv: mean and standard deviation of ten seeds, kept in
`published/openb.csv`; transcribed, those at 100 % to about 0.03). Seeds draw other numbers here than there, so means
can be compared and single runs cannot. The models that a pod allows are a set here and a text there, which tells a few
more kinds of pods apart.

The lists are read as they were published, in whole thousandths and MiB and with the GPUs' shares and the allowed models
apart, which the canonical tables no longer tell. Their times are not used.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from experiments.display import Display
from experiments.study import Study, Titled, beside, interval, positive, published
from twin.engine.scheduling.gpu import POLICIES, fill
from twin.engine.scheduling.gpu_pods import ANY_MODEL, WHOLE, GpuNodes, Ints, Pods, empty_nodes, typical_pods
from twin.errors import TraceError, UsageError
from twin.seeds import child

LISTS = ("default", "cpu050", "gpushare60", "gpuspec33", "multigpu50")
RATIO = 1.3
"""GPU asked for by all pods together, relative to what the cluster has."""
FIRST_SEED = 42
PUBLISHED_SEEDS = 10

_KEY = ("list", "policy", "arrived_percent")
_NODES = {"cpu_milli": pl.Int64, "memory_mib": pl.Int64, "gpu": pl.Int64, "model": pl.String}
_PODS = {"name": pl.String, "cpu_milli": pl.Int64, "memory_mib": pl.Int64, "num_gpu": pl.Int64, "gpu_milli": pl.Int64}


def read_nodes(folder: Path) -> tuple[GpuNodes, dict[str, int]]:
    """The cluster's nodes with GPUs, empty, and the numbers of the GPU models; raises TraceError."""
    table = _read(folder / "openb_node_list_gpu_node.csv", _NODES)
    models = {model: i for i, model in enumerate(sorted(table["model"].unique()))}
    columns = table.with_columns(pl.col("model").replace_strict(models, return_dtype=pl.Int64))
    return empty_nodes(*(columns[name].to_numpy() for name in _NODES)), models


def read_pods(folder: Path, pod_list: str, models: dict[str, int]) -> Pods:
    """The pods of a list in the order of their names; raises TraceError.

    A pod that names models may run on these alone; what it says about them does not count where it asks for no GPU.
    """
    table = _read(folder / f"openb_pod_list_{pod_list}.csv", _PODS, optional="gpu_spec").sort("name")
    gpus = table["num_gpu"].to_numpy()
    allowed = np.array([_allowed(spec, models) for spec in table["gpu_spec"].fill_null("")], dtype=np.int64)
    return Pods(
        cpu_milli=table["cpu_milli"].to_numpy(),
        memory_mib=table["memory_mib"].to_numpy(),
        gpus=gpus,
        gpu_milli=np.where(gpus > 0, np.minimum(table["gpu_milli"].to_numpy(), WHOLE), 0),
        allowed=np.where(gpus > 0, allowed, ANY_MODEL),
    )


def _read(path: Path, columns: dict[str, type[pl.DataType]], optional: str | None = None) -> pl.DataFrame:
    """These columns of a CSV file without gaps, and an optional one of text that may have some."""
    try:
        table = pl.read_csv(path, infer_schema=False)
        wanted = [pl.col(name).cast(kind) for name, kind in columns.items()]
        if optional:
            wanted.append(pl.col(optional) if optional in table.columns else pl.lit("").alias(optional))
        table = table.select(wanted)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise TraceError(f"{path}: not a list of openb ({error}); give the folder of the published lists") from error
    gaps = [name for name in columns if table[name].null_count()]
    if gaps or not table.height:
        where = f"column {gaps[0]!r} has empty fields" if gaps else "it has no rows"
        raise TraceError(f"{path}: {where}; take the list as it was published")
    return table


def _allowed(spec: str, models: dict[str, int]) -> int:
    if not spec:
        return ANY_MODEL
    return sum(1 << models[model] for model in set(spec.split("|")) if model in models)


def inflate(pods: Pods, capacity: int, ratio: float, rng: np.random.Generator) -> Pods:
    """The pods in random order, thinned or repeated until they ask for `ratio` of the GPUs.

    Too many: random ones are left out until the rest asks for no more than that. Too few: random ones come again, after
    all others, until the next would ask for more.

    Args:
        pods: those of the list.
        capacity: GPU of the cluster, in thousandths.
        ratio: GPU to ask for, relative to the capacity.
        rng: draws the order, what is left out and what comes again.

    Raises:
        UsageError: no pod asks for GPU, so that no number of them fills anything.
    """
    demand = pods.demand_milli()
    if not demand.any():
        raise UsageError("no pod of the list asks for GPU; give a list in which some do")
    order = rng.permutation(len(pods))
    surplus = int(demand.sum()) - ratio * capacity
    return pods.take(_thinned(order, demand, surplus, rng) if surplus > 0 else _repeated(order, pods, -surplus, rng))


def _thinned(order: Ints, demand: Ints, surplus: float, rng: np.random.Generator) -> Ints:
    leaving = rng.permutation(len(order))
    gone = int(np.searchsorted(demand[order[leaving]].cumsum(), surplus)) + 1
    return np.delete(order, leaving[:gone])


def _repeated(order: Ints, pods: Pods, room: float, rng: np.random.Generator) -> Ints:
    """The room is compared with a pod's share of one device but used up by all its devices, as published."""
    demand, again = pods.demand_milli(), []
    while True:
        pod = int(rng.integers(len(pods)))
        if pods.gpu_milli[pod] > room:
            return np.concatenate([order, np.array(again, dtype=np.int64)])
        again.append(pod)
        room -= int(demand[pod])


def run(folder: Path, pod_list: str, policy: str, seed: int, ratio: float = RATIO) -> pl.DataFrame:
    """How full the cluster is while the pods of a list arrive: one row for each percent of its GPUs asked for.

    The same seed gives the same pods and the same order of nodes to every policy. Columns: list, policy, seed,
    arrived_percent (GPU asked for so far, rounded; refused pods included), allocated_percent, fragmented_percent (GPU
    given to pods, and idle GPU that a typical pod of the list is expected not to be able to use; means over all
    arrivals that round to this percent).

    Raises:
        TraceError: the folder does not hold the list, or not as published.
        UsageError: the policy is unknown.
    """
    nodes, models = read_nodes(folder)
    pods = read_pods(folder, pod_list, models)
    capacity = int(nodes.gpu_milli.sum())
    arrivals = inflate(pods, capacity, ratio, child(seed, "openb/arrivals"))
    order = child(seed, "openb/order").permutation(len(nodes))
    filling = fill(nodes, arrivals, policy, order, typical_pods(pods), rng=child(seed, "openb/draws"))
    curve = pl.DataFrame(
        {
            "arrived_percent": np.rint(100 * arrivals.demand_milli().cumsum() / capacity).astype(np.int64),
            "allocated_percent": (100 * filling.allocated_milli / capacity).round(2),
            "fragmented_percent": 100 * filling.fragmented_milli / capacity,
        }
    )
    means = curve.group_by("arrived_percent", maintain_order=True).mean()
    return means.select(
        pl.lit(pod_list).alias("list"), pl.lit(policy).alias("policy"), pl.lit(seed).alias("seed"), pl.all()
    )


def study(folder: Path, pod_list: str, policies: Sequence[str], seeds: Sequence[int]) -> pl.DataFrame:
    """The rows of `run` for every policy and seed on a list; raises what `run` raises."""
    return pl.concat([run(folder, pod_list, policy, seed) for policy in policies for seed in seeds])


def summary(runs: pl.DataFrame) -> pl.DataFrame:
    """Mean and spread over the seeds where a mean was published, and how far from it, in percent of the GPUs.

    Columns: list, policy, arrived_percent, seeds, mean, low, high (allocated GPU; null for too few seeds), sd (the
    sample's standard deviation, null for one seed), fragmented (mean), published, published_sd, difference, inside,
    standard_errors (the difference in units of its standard error, since the published mean is one of ten draws too).
    """
    known = published("openb")
    rows = []
    for key, group in runs.join(known, on=_KEY, how="semi").group_by(_KEY, maintain_order=True):
        values = group["allocated_percent"]
        ends = interval(values.to_numpy(), child(0, "/".join(map(str, key))))
        rows.append((*key, len(values), values.mean(), *ends, values.std(), group["fragmented_percent"].mean()))
    names = ("seeds", "mean", "low", "high", "sd", "fragmented")
    numbers = {"seeds": pl.Int64} | dict.fromkeys(names[1:], pl.Float64)
    kept = {name: runs.schema[name] for name in _KEY}
    both = beside(pl.DataFrame(rows, schema={**kept, **numbers}, orient="row"), known, _KEY)
    variance = pl.col("sd") ** 2 / pl.col("seeds") + pl.col("published_sd") ** 2 / PUBLISHED_SEEDS
    return both.with_columns(standard_errors=pl.col("difference") / variance.sqrt())


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where the published lists lie")
    parser.add_argument("--seeds", type=positive, default=10, help="how many, from 42 on (default: 10)")
    parser.add_argument("--lists", nargs="+", choices=LISTS, default=LISTS, help="pod lists (default: all)")
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=POLICIES, help="(default: all)")


def _tables(given: argparse.Namespace, display: Display) -> Iterator[Titled]:
    seeds = range(FIRST_SEED, FIRST_SEED + given.seeds)
    for name in given.lists:
        with display.phase(f"{name}: {len(given.policies)} policies, {given.seeds} seeds"):
            found = summary(study(given.folder, name, given.policies, seeds))
        yield f"{name}: allocated GPU in percent of the cluster's", found.drop("list")


STUDY = Study("openb", "Fill the openb GPU cluster and compare with the published means.", _arguments, _tables)

if __name__ == "__main__":
    sys.exit(STUDY.main())
