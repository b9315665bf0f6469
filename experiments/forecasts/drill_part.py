"""The part of docs/forecasting.md that a run folder of `python -m experiments.retraining` makes: noticed and mended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from experiments import markdown
from reports import folder, wording
from twin.errors import UsageError

_DAY_S = 86_400
_NONE = "none"


def written(runs: Sequence[Path]) -> str:
    """The part in Markdown; raises UsageError for several folders, or one without such tables and facts."""
    if len(runs) > 1:
        raise UsageError(f"{runs[1]}: a second run folder of retraining; give one")
    run, identity = runs[0], folder.identity_of(runs[0])
    parts = [markdown.shell([markdown.command(identity)])]
    accuracy = folder.table_in(run, "retraining_accuracy")
    missing = [name for name in ("start_s", "changed_s", "delays_h") if name not in identity]
    if missing:
        raise UsageError(f"{run}: identity.json says nothing of {', '.join(missing)}; run the retraining again")
    parts += [_drill(accuracy, identity), _days(accuracy)]
    if (run / "tables" / "drift_trials.parquet").is_file():
        days = folder.config_of(run)["operation"]["drift"]["stream_days"]
        parts += [f"Streams of {days} days made of recorded ones, with and without a change:"]
        parts += [_trials(folder.table_in(run, "drift_trials"))]
    return "\n\n".join(parts)


def _drill(accuracy: pl.DataFrame, identity: Mapping[str, Any]) -> str:
    # days of accuracy count from the series' beginning, wherever it was cut from
    changed = (identity["changed_s"] - identity["start_s"]) / _DAY_S
    told = [f"The regime changes on day {changed:g}."]
    (delays,) = identity["delays_h"].values()  # the verb operates one series
    for name, words in (("noticed_h", "it is noticed"), ("swapped_h", "a retrained model answers")):
        if delays[name] is None:
            told.append(f"It never happened that {words}.")
        else:
            told.append(f"After {wording.number(delays[name], 3)} h {words}.")
    late = accuracy.filter(pl.col("day") > changed)
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
