"""How well the twin mirrors what was recorded, and which of its numbers are assumptions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from twin.trace.trace import Trace

if TYPE_CHECKING:
    from twin.simulation import Run


def of_replay(trace: Trace, run: Run) -> dict[str, Any]:
    """Replayed against recorded demand per service: mean, peak, and the correlation of the steps.

    The recordings at hand hold no replicas, latencies or bills: there the twin says what it assumes instead.
    """
    rows = []
    for service in run.cluster.services:
        recorded = trace.demand.filter(service=service.series).filter(
            pl.col("time_s") + trace.info.step_s <= run.until_s
        )
        if not recorded.height:
            continue
        replayed = _binned(run.service_steps.filter(service=service.name), trace.info.step_s) / service.unit_rps
        values = recorded["value"].to_numpy()
        replayed = replayed[: len(values)]
        correlation = float(np.corrcoef(values, replayed)[0, 1]) if len(values) > 1 else None
        for quantity, a, b in (
            ("mean demand", values.mean(), replayed.mean()),
            ("peak demand", values.max(), replayed.max()),
        ):
            rows.append(_row(f"{service.name}: {quantity}", float(a), float(b), trace.services["demand_unit"][0]))
        rows.append({**_row(f"{service.name}: correlation of steps", 1.0, correlation, "ratio"), "note": "Pearson"})
    return {"rows": rows, "assumptions": _assumptions(run)}


def _binned(steps: pl.DataFrame, step_s: float) -> np.ndarray:
    """Mean arrivals per second in the recording's own steps."""
    index = ((steps["time_s"].to_numpy() - 1e-6) // step_s).astype(int)
    return np.bincount(index, weights=steps["arrived_requests"].to_numpy()) / step_s


def _row(quantity: str, recorded: float, replayed: float | None, unit: str) -> dict[str, Any]:
    error = None if replayed is None else replayed / recorded - 1.0
    return {"quantity": quantity, "recorded": recorded, "replayed": replayed, "unit": unit, "error": error, "note": ""}


def _assumptions(run: Run) -> list[str]:
    said = []
    for s in run.cluster.services:
        said.append(f"{s.name}: one unit of recorded demand is taken as {s.unit_rps:g} requests/s")
        said.append(
            f"{s.name}: a replica serves {s.concurrency} requests at a time, {s.service_time_s:g} s each; "
            f"it is ready {s.start.median_s:g} s (median) after it was placed; minutes vary by {s.burst_cv:.0%}"
        )
    for p in run.cluster.pools:
        said.append(f"{p.name}: a node costs {p.price_usd_h:g} USD/h and boots in {p.boot.median_s:g} s (median)")
    said.append("serving=fluid: waiting follows M/G/c between changes, and a fluid queue under overload")
    said.append("serving=requests: each request is followed; those of one service share one queue")
    return said
