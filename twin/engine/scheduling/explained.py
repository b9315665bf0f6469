"""Why a machine won: the scores of the best machines, from the very code that decides."""

from __future__ import annotations

import polars as pl

from twin.engine.jobs.simulator import JobTwin
from twin.engine.scheduling.scored import Scored
from twin.engine.scheduling.scores import FULL
from twin.errors import UsageError

_SCHEMA = {
    "rank": pl.Int64, "machine": pl.String, "rule": pl.String, "raw": pl.Float64, "score": pl.Float64,
    "weight": pl.Float64, "total": pl.Float64,
}  # fmt: skip


def explain(twin: JobTwin, job: int, *, best: int = 3) -> pl.DataFrame:
    """The scores of the best machines for an instance of the job as things stand, one row a machine and rule.

    Columns: rank (1 wins), machine, rule, raw (in the rule's own terms: points, seconds, instances), score (0 to 100),
    weight (1 together) and total (0 to 100, the weighted mean). No row where no machine has room. With sampling, the
    machines that the next decision would look at.

    Raises:
        UsageError: the twin's scheduler does not place by scores.
    """
    placement = twin.scheduler.placement
    if not isinstance(placement, Scored):
        raise UsageError(f"{placement!r} gives no scores to explain; choose a placement of the class Scored")
    looking = placement.look(twin)
    desk = looking.desk
    found, _, _ = looking.judge(twin.capacity, job, twin.candidates(job))
    rows = [
        (
            rank,
            twin.machines.names[int(desk.chosen[place])],
            rule,
            float(desk.raw[row, place]),
            float(desk.scaled[row, place]),
            float(desk.weight[row] / FULL),
            float(desk.total[place] / FULL),
        )
        for rank, place in enumerate(looking.ranking(found)[:best].tolist(), start=1)
        for row, rule in enumerate(desk.rules)
    ]
    return pl.DataFrame(rows, schema=_SCHEMA, orient="row")


def reason(explained: pl.DataFrame) -> str:
    """What `explain` found, as one sentence."""
    if not explained.height:
        return "no machine has room"
    winner = explained.filter(rank=1)
    points = ", ".join(
        f"{rule.replace('_', ' ')} {score:.0f}" for rule, score in winner.select("rule", "score").iter_rows()
    )
    told = f"{winner['machine'][0]} won with {winner['total'][0]:.1f}: {points}"
    second = explained.filter(rank=2)
    if not second.height:
        return f"{told}; no other machine was looked at that has room"
    return f"{told}; runner-up {second['machine'][0]} with {second['total'][0]:.1f}"
