"""What recorded failure logs tell: which units failed when and for how long, and how many were watched."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from twin.errors import ScenarioError
from twin.trace.read import read
from twin.trace.trace import Trace

_BACK = ("repair", "add")


@dataclass(frozen=True, slots=True)
class Failures:
    """The failures of a recording, in order of time: `unit`, `time_s`, `duration_s` (null: no repair told), `cause`.

    `watched` is the number of units that could have failed: nodes, or parts of nodes.
    """

    name: str
    table: pl.DataFrame
    watched: int


def recording(path: str, format: str | None, trace: Trace) -> Trace:  # noqa: A002 - named as in twin.read
    """The recording at `path`; with an empty path the trace itself. Raises TraceError where it cannot be read."""
    return read(path, format) if path else trace


def failures(
    recorded: Trace, *, starts: tuple[str, ...] = ("fail",), parts: bool = False, watched: int | None = None
) -> Failures:
    """The failures that a recording's `node_events` tell.

    A unit is a whole node; with `parts`, a part of a node (a GPU, a disk), and events of whole nodes are left out. It
    fails at each event of `starts`, and is repaired at its next "repair" or "add", unless it fails again before: then
    the recording tells no repair. A part that is all that its node has is replaced where the next one is added.

    Args:
        recorded: holds `node_events`.
        starts: events that are failures; ("fail", "remove") for logs that call every absence a removal.
        parts: take parts of nodes.
        watched: how many units were watched; by default the rows of `nodes`, times the parts that a node has.

    Raises:
        ScenarioError: nothing of the kind was recorded, or more units failed than were watched.
    """
    whole = pl.col("component").is_null() & (pl.col("share") >= 1.0)
    events = recorded.node_events.with_columns(pl.col("share").fill_null(1.0)).filter(
        ~whole if parts else whole, pl.col("event").is_in((*starts, *_BACK))
    )
    single = pl.col("component").is_null() | (pl.col("share") >= 1.0)
    unit = pl.when(single).then("node").otherwise(pl.concat_str("node", pl.lit("/"), "component"))
    timed = (
        events.with_columns(unit=unit, down=pl.col("event").is_in(starts))
        .sort("unit", "time_s", maintain_order=True)
        .unique(["unit", "time_s", "down"], keep="first", maintain_order=True)
        .with_columns(ends_s=pl.col("time_s").shift(-1).over("unit"), again=pl.col("down").shift(-1).over("unit"))
    )
    lasted = pl.when(~pl.col("again") & (pl.col("ends_s") > pl.col("time_s"))).then(pl.col("ends_s") - pl.col("time_s"))
    down = timed.filter("down").sort("time_s", "unit")
    if not down.height:
        kind = "parts" if parts else "whole nodes"
        raise ScenarioError(
            f"recording {recorded.info.name!r} tells no {' or '.join(starts)} of {kind}; choose another one, "
            f"parts={not parts}, or other starts"
        )
    known = watched or _watched(recorded, events if parts else None)
    if known < down["unit"].n_unique():
        raise ScenarioError(
            f"recording {recorded.info.name!r}: {down['unit'].n_unique()} units failed, more than the {known} that "
            "were watched; give the true number in recorded_nodes"
        )
    return Failures(recorded.info.name, down.select("unit", "time_s", "cause", duration_s=lasted), known)


def _watched(recorded: Trace, parts: pl.DataFrame | None) -> int:
    """All nodes that the recording names, times the parts of one where parts are meant."""
    nodes = recorded.nodes.height or recorded.node_events["node"].n_unique()
    if parts is None:
        return nodes
    share = parts.select(pl.col("share").filter(pl.col("share") > 0).median()).item()
    return nodes * (round(1.0 / share) if share else 1)


def windowed(table: pl.DataFrame, name: str, recorded_s: float, offset_s: float, end_s: float) -> pl.DataFrame:
    """What of a table (`time_s`, `duration_s`) falls between `offset_s` and `end_s` seconds later, from there counted.

    What began before and still lasts begins at second 0 and lasts for the rest. Raises ScenarioError for an offset
    outside the recording, which is `recorded_s` long.
    """
    if not 0.0 <= offset_s < recorded_s:
        raise ScenarioError(f"offset_s={offset_s:g} lies outside recording {name!r}, which lasts {recorded_s:g} s")
    ends_s = pl.col("time_s") + pl.col("duration_s")
    return (
        table.with_columns(pl.col("time_s") - offset_s)
        .filter(pl.col("time_s") < end_s, (ends_s > 0) | (pl.col("time_s") >= 0))
        .with_columns(
            pl.col("time_s").clip(lower_bound=0.0), duration_s=ends_s - pl.col("time_s").clip(lower_bound=0.0)
        )
    )


def chosen(name: str | None, known: list[str], what: str, recorded: str) -> str:
    """The one that is named, or the only one; raises ScenarioError listing those that the recording holds."""
    if name is None and len(known) == 1:
        return known[0]
    if name is None or name not in known:
        asked = f"no {what} {name!r}" if name is not None else f"not just one {what}: choose one"
        raise ScenarioError(f"recording {recorded!r} has {asked}; it has {known[:20]}")
    return name
