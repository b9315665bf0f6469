"""The ground truth: every fault that happened in the twin, from when to when, where, of what kind and why."""

from __future__ import annotations

import polars as pl

from twin.trace import tables


class Incidents:
    """Collects the rows of the run's `incidents` table."""

    def __init__(self) -> None:
        """Nothing has happened yet."""
        self._rows: list[tuple[str, float, float, str, str, str, float]] = []

    def note(self, kind: str, entity: str, start_s: float, end_s: float, cause: str, share: float = 1.0) -> None:
        """A fault of that kind befell (a `share` of) an entity from `start_s` to `end_s`, in seconds of the run.

        `cause` is the entity that was its root cause: for a replica that a node took along, the node.
        """
        self._rows.append((f"{kind}-{len(self._rows) + 1}", start_s, end_s, entity, kind, cause or entity, share))

    def table(self) -> pl.DataFrame:
        """The `incidents` table so far, in the order in which the faults began."""
        if not self._rows:
            return tables.empty("incidents")
        names = ["incident", "start_s", "end_s", "entity", "kind", "cause", "share"]
        frame = pl.DataFrame(self._rows, schema=names, orient="row")
        return tables.conform(frame.sort("start_s", maintain_order=True), "incidents", "incidents")
