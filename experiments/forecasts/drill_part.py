"""The part of docs/forecasting.md that a run folder of `python -m experiments.retraining` makes: noticed and mended."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from experiments import markdown
from reports import folder, wording
from twin.errors import UsageError

_DAY_S, _HOUR_S = 86_400, 3_600
_NONE = "none"


def written(runs: Sequence[Path]) -> str:
    """The part in Markdown; raises UsageError for several folders, or one that holds no such tables."""
    if len(runs) > 1:
        raise UsageError(f"{runs[1]}: a second run folder of retraining; give one")
    run, identity = runs[0], folder.identity_of(runs[0])
    parts = [markdown.shell([markdown.command(identity)])]
    accuracy, events = (folder.table_in(run, f"retraining_{name}") for name in ("accuracy", "events"))
    parts += [_drill(accuracy, events, float(identity["changed_s"])), _days(accuracy)]
    if (run / "tables" / "drift_trials.parquet").is_file():
        parts += ["Streams of 30 days made of recorded ones, with and without a change:"]
        parts += [_trials(folder.table_in(run, "drift_trials"))]
    return "\n\n".join(parts)


def _drill(accuracy: pl.DataFrame, events: pl.DataFrame, changed_s: float) -> str:
    after = events.filter(pl.col("time_s") >= changed_s)
    told = [f"The regime changes on day {changed_s / _DAY_S:g}."]
    for verdict, words in (("noticed", "it is noticed"), ("swapped", "a retrained model answers")):
        drifts = after.filter(pl.col("verdict") == verdict, pl.col("trigger").str.starts_with("drift"))
        if drifts.height:
            told.append(f"After {(drifts['time_s'][0] - changed_s) / _HOUR_S:g} h {words}.")
        else:
            told.append(f"It never happened that {words}.")
    late = accuracy.filter(pl.col("day") > changed_s / _DAY_S)
    means = [wording.number(_mean(late[name]), 3) for name in ("operated_percent", "untouched_percent")]
    return " ".join([*told, f"From the day after on, accuracy is {means[0]} %, never retrained {means[1]} %."])


def _days(accuracy: pl.DataFrame) -> str:
    rows = [
        (str(row["day"]), *(wording.number(row[name], 3) for name in ("operated_percent", "untouched_percent")))
        for row in accuracy.to_dicts()
    ]
    return markdown.table(("day", "accuracy in operation, %", "never retrained, %"), rows)


def _trials(trials: pl.DataFrame) -> str:
    """Per detector: false alarms over all series, and what of each planted change was noticed within a day."""
    rows = []
    for (name,), own in trials.partition_by("detector", as_dict=True, maintain_order=True).items():
        calm, planted = own.filter(plant=_NONE), own.filter(pl.col("plant") != _NONE)
        numbers = (
            _share(calm, "false_alarm_percent"),
            _share(planted, "in_time_percent"),
            _median(planted["delay_p50_h"]),
        )
        rows.append((str(name), *(wording.number(value, 3) for value in numbers)))
    return markdown.table(("detector", "false alarms, % of streams", "noticed within 24 h, %", "median delay, h"), rows)


def _share(rows: pl.DataFrame, column: str) -> float | None:
    """The percentage over all streams of the rows that tell one; None where none does."""
    told = rows.drop_nulls(column)
    return float((told[column] * told["runs"]).sum()) / float(told["runs"].sum()) if told.height else None


def _mean(values: pl.Series) -> float | None:
    return float(np.mean(values.to_numpy())) if len(values) else None


def _median(values: pl.Series) -> float | None:
    told = values.drop_nulls()
    return float(np.median(told.to_numpy())) if len(told) else None
