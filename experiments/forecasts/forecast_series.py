"""A trace's series as `forecast` takes them: on one grid, up to the moment that counts as now, with what came after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl

from agents.forecast import frames
from agents.forecast.base import Floats
from agents.forecast.explain.sentence import Wording
from agents.forecast.frames import Series
from agents.forecast.prepare import Note, prepare
from twin.errors import UsageError
from twin.trace.trace import Trace


@dataclass(frozen=True, slots=True)
class Recorded:
    """What is known of a trace's series now.

    Attributes:
        series: regular, up to the last step that is known.
        refused: why a series cannot be forecast, by its name.
        notes: what was done to make them regular.
        frame: all that was recorded on the grid, before and after now: unique_id, ds, y.
        wordings: how each series is spoken of.
    """

    series: tuple[Series, ...]
    refused: Mapping[str, str]
    notes: tuple[Note, ...]
    frame: pl.DataFrame
    wordings: Mapping[str, Wording]

    def came(self, series: Series, h: int) -> Floats:
        """What was recorded in the `h` steps after the series' last one [h]; NaN where nothing was."""
        ahead = pl.DataFrame({"ds": series.start_s + series.step_s * (len(series.values) + np.arange(h))})
        own = self.frame.filter(unique_id=series.unique_id)
        found = ahead.join(own, on="ds", how="left", maintain_order="left")["y"]
        return found.fill_null(np.nan).to_numpy().astype(np.float64)


def recorded(
    trace: Trace, step_s: int, resources: Sequence[str] | None = None, until_s: float | None = None
) -> Recorded:
    """The trace's usage, or its demand where it has no usage, at `step_s`.

    Args:
        trace: a recording.
        step_s: seconds of a step; what was recorded more often is averaged over each.
        resources: which resources (services, where it is demand), by default all.
        until_s: the second of the trace that counts as now; by default its end.

    Raises:
        UsageError: nothing such was recorded, or less often than every `step_s`, or nothing before `until_s`.
    """
    whole = frames.series(trace, resources) if trace.usage.height else frames.demand(trace, resources)
    frame = means(whole, step_s)
    past = frame if until_s is None else frame.filter(pl.col("ds") + step_s <= until_s)
    if past.is_empty():
        raise UsageError(f"trace {trace.info.name!r}: no whole step of {step_s} s is on record by until_s={until_s}")
    prepared = prepare(past, step_s, cutoff_s=None if until_s is None else until_s - step_s)
    series = tuple(clean.series for clean in prepared.clean.values())
    wordings = {each.unique_id: _wording(trace, each.unique_id) for each in series}
    return Recorded(series, prepared.refused, prepared.notes, frame, wordings)


def means(frame: pl.DataFrame, step_s: int) -> pl.DataFrame:
    """The long frame as means of steps of `step_s` that begin at its multiples; steps begun or cut off are left out.

    A series that has this step already stays as it is. Raises UsageError for one that is recorded less often.
    """
    parts = frame.sort("unique_id", "ds").partition_by("unique_id", maintain_order=True)
    return pl.concat([_means(part, step_s) for part in parts])


def _means(part: pl.DataFrame, step_s: int) -> pl.DataFrame:
    recorded_s = part["ds"].diff().filter(part["ds"].diff() > 0).min()
    if not isinstance(recorded_s, int) or recorded_s > step_s:
        raise UsageError(
            f"series {part['unique_id'][0]!r} has a value every {recorded_s} s, and step_s={step_s} is finer; "
            "give a longer step"
        )
    if recorded_s == step_s:
        return part.select("unique_id", "ds", "y")
    step = pl.col("ds") // step_s * step_s
    end_s = int(part["ds"][-1]) + recorded_s
    known = part.with_columns(step.alias("ds"), pl.col("y").fill_nan(None), first=pl.col("ds").first())
    whole = known.filter(pl.col("ds") >= pl.col("first"), pl.col("ds") + step_s <= end_s)
    return whole.group_by("unique_id", "ds", maintain_order=True).agg(pl.col("y").mean())


def _wording(trace: Trace, unique_id: str) -> Wording:
    *place, what = unique_id.split("/")
    usage = trace.usage.filter(resource=what)
    if usage.height:
        subject, units = f"{what.replace('_', ' ')} of {'/'.join(place)}", usage["unit"]
    else:
        subject, units = f"demand of {what}", trace.services.filter(service=what)["demand_unit"]
    unit = str(units[0] or "") if len(units) else ""
    epoch = datetime.fromisoformat(trace.info.epoch) if trace.info.epoch else None
    return Wording(subject, unit.partition(",")[0], epoch)
