"""The published comparison of queue disciplines by RLScheduler's protocol, repeated on a log.

    python -m experiments.rlscheduler LOG.swf [LOG.swf ...]

Ten sequences of 1,024 consecutive jobs each meet an empty cluster, once with and once without backfilling
(`scheduling.committed`); a sequence is worth its mean bounded slowdown, a heuristic the mean of its sequences. Protocol
and figures: Zhang et al., "RLScheduler: an automated HPC batch job scheduler using reinforcement learning", SC 2020,
and its artifact (github.com/DIR-LAB/deep-batch-scheduler, table of the README, kept in `published/rlscheduler.csv`).
The starts are those of the artifact. Of the logs in the table, Lublin-1 is the file `lublin_256.swf`; other logs are
run by the same protocol and have nothing to be compared with.

The cluster is one pool of processors; a log whose nodes have several gives out whole nodes. A missing estimate is the
true run time, and nobody is killed at its estimate. Of several things that happen in one second the artifact looks at
the queue after each, the twin once after all: with backfilling, and there alone, this shows in the means of logs in
whole seconds (Lublin-1: by at most 0.12 %).
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import polars as pl

import twin
from experiments.display import Display
from experiments.intervals import iqm
from experiments.study import Study, Titled, beside, interval, published
from twin.engine.jobs import machines, workload
from twin.engine.jobs.scheduler import Scheduler
from twin.engine.jobs.simulator import JobTwin
from twin.engine.jobs.workload import F8, I8, Workload
from twin.engine.scheduling.committed import Committed
from twin.engine.scheduling.orders import F1, Fcfs, Order, Sjf, Unicep, Wfp3
from twin.errors import UsageError
from twin.seeds import child
from twin.trace.trace import Trace

LENGTH = 1024
"""Jobs of a sequence."""
SEQUENCES = 10
SLICE = 10_000
"""Sequences are taken from so many first jobs of a log."""

_SEED = 1
_SHORTEST_S = 10.0
_KEY = ("log", "heuristic", "backfill")


@dataclass(frozen=True, slots=True)
class PublishedWait:
    """WFP3 or UNICEP as the published comparison ran it, by which its columns are far worse than those of FCFS.

    Its waiting time is a job's start less its arrival, and the start of whoever waits still is -1 there: w = -(1 + s).
    The score thus does not change with time and turns round what the formula is for: WFP3 puts narrow, long jobs
    first, UNICEP wide, long ones. With the true waiting time both are as good as SJF (`orders.Wfp3`, `orders.Unicep`).
    """

    order: Order
    changing: bool = False

    def keys(self, workload: Workload, jobs: I8, now_s: float) -> F8:  # noqa: ARG002
        """The order's score for a clock that always stands at -1 s."""
        return self.order.keys(workload, jobs, -1.0)


HEURISTICS: Mapping[str, Order] = MappingProxyType(
    {
        "fcfs": Fcfs(),
        "wfp3": Wfp3(),
        "unicep": Unicep(),
        "sjf": Sjf(),
        "f1": F1(),
        "wfp3_as_published": PublishedWait(Wfp3()),
        "unicep_as_published": PublishedWait(Unicep()),
    }
)


def starts(jobs: int) -> tuple[int, ...]:
    """The first jobs of the sequences of a log with that many jobs: the artifact's, drawn with its seed 1.

    Its generator is NumPy's of old, which is frozen for ever, seeded by the first 64 bits of the SHA-512 of the seed.

    Raises:
        UsageError: the log is too short to draw from.
    """
    last = min(jobs, SLICE) - LENGTH - 1
    if last <= LENGTH:
        raise UsageError(f"a log of {jobs} jobs is too short: sequences need more than {2 * LENGTH + 1}")
    digest = hashlib.sha512(str(_SEED).encode()).digest()
    rng = np.random.RandomState(np.frombuffer(digest[:8], dtype="<u4").astype(np.uint32))
    return tuple(int(rng.randint(LENGTH, last)) for _ in range(SEQUENCES))


def prepared(trace: Trace) -> Trace:
    """The log as the protocol sees it: jobs that ran, in whole nodes of a single pool of processors.

    Raises:
        UsageError: its nodes differ in size, so that no job's number of nodes is known.
    """
    per_node = trace.nodes["cpu_cores"].unique()
    if len(per_node) != 1 or per_node[0] is None:
        raise UsageError(f"{trace.info.name!r} needs equal nodes of known size; give a log with MaxNodes in its header")
    # a run time that nobody recorded is 10 s in the protocol
    ran = trace.jobs.with_columns(pl.col("run_s").fill_null(_SHORTEST_S)).filter(pl.col("run_s") > 0)
    whole = (pl.col("cpu_cores") / per_node[0]).ceil() * per_node[0]
    jobs = ran.with_columns(cpu_cores=whole, memory_gib=pl.lit(None, dtype=pl.Float64))
    return Trace(trace.info, {"nodes": trace.nodes, "jobs": jobs})


def sequences(trace: Trace) -> Iterator[tuple[Workload, machines.Machines]]:
    """The jobs of each sequence and the empty pool that they meet, of a prepared log; raises UsageError."""
    pool = machines.of(trace, pooled=True)
    for start in starts(trace.jobs.height):
        window = Trace(trace.info, {"nodes": trace.nodes, "jobs": trace.jobs[start : start + LENGTH]})
        yield workload.estimated(workload.of(window, pool)), pool


def replay(load: Workload, pool: machines.Machines, order: Order, *, backfill: bool) -> float:
    """The mean bounded slowdown of a sequence: waiting and running over running, in at least 10 s, at least 1."""
    mirror = JobTwin(load, pool, Scheduler(order, Committed(fill=backfill)), history=False)
    mirror.run()
    waited_s = mirror.columns["start_s"] - load.submit_s
    return float(np.maximum((waited_s + load.run_s) / np.maximum(load.run_s, _SHORTEST_S), 1.0).mean())


def run(trace: Trace, heuristics: Iterable[str] = tuple(HEURISTICS)) -> pl.DataFrame:
    """One row for each heuristic, with and without backfilling, and sequence.

    Columns: log, heuristic, backfill, sequence, slowdown (mean bounded slowdown of its jobs).

    Raises:
        UsageError: a heuristic is unknown, or the log cannot be run by the protocol.
    """
    names = tuple(heuristics)
    unknown = sorted(set(names) - set(HEURISTICS))
    if unknown:
        raise UsageError(f"heuristic {unknown[0]!r} is unknown; known: {list(HEURISTICS)}")
    drawn = list(sequences(prepared(trace)))
    rows = [
        (trace.info.name, name, backfill, number, replay(load, pool, HEURISTICS[name], backfill=backfill))
        for backfill in (False, True)
        for name in names
        for number, (load, pool) in enumerate(drawn)
    ]
    return pl.DataFrame(rows, schema=[*_KEY, "sequence", "slowdown"], orient="row")


def summary(runs: pl.DataFrame) -> pl.DataFrame:
    """Each heuristic's mean over the sequences, how sure it is, and the published mean where there is one.

    Columns: log, heuristic, backfill, mean, iqm, low, high (95 % bootstrap of the mean over the sequences), published,
    difference, inside.
    """
    rows = []
    for key, group in runs.group_by(_KEY, maintain_order=True):
        values = group["slowdown"].to_numpy()
        ends = interval(values, child(0, "/".join(map(str, key))))
        rows.append((*key, float(values.mean()), iqm(values), *ends))
    kept = {name: runs.schema[name] for name in _KEY}
    numbers = dict.fromkeys(("mean", "iqm", "low", "high"), pl.Float64)
    return beside(pl.DataFrame(rows, schema={**kept, **numbers}, orient="row"), published("rlscheduler"), _KEY)


def _arguments(parser: argparse.ArgumentParser) -> None:
    told = "job logs in the Standard Workload Format"
    parser.add_argument("logs", type=Path, nargs="+", metavar="LOG", help=told)


def _tables(given: argparse.Namespace, display: Display) -> Iterator[Titled]:
    for path in given.logs:
        with display.phase(f"{path.name}: {len(HEURISTICS)} heuristics, {SEQUENCES} sequences"):
            found = summary(run(twin.read(path)))
        yield f"{path.name}: mean bounded slowdown", found.drop("log")


STUDY = Study(
    "rlscheduler",
    "Run RLScheduler's heuristics on logs and compare with the published means.",
    _arguments,
    _tables,
)

if __name__ == "__main__":
    sys.exit(STUDY.main())
