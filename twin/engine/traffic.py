"""Which model serves the requests of a run: averages (`fluid`), or each request (`requests`)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from twin.engine.fluid import Fluid
from twin.engine.requests import Requests
from twin.engine.serving import Serving
from twin.engine.state import State
from twin.trace.trace import Trace
from twin.types import Cluster, Service

Serve = Callable[[Cluster, State, Trace, int], Serving]
"""(cluster, state, trace, seed) -> the model"""


def fluid(cluster: Cluster, state: State, trace: Trace, seed: int) -> Serving:  # noqa: ARG001 - all models take these
    """Averages in closed form: any traffic, microseconds a step."""
    return Fluid(cluster, state)


def requests(cluster: Cluster, state: State, trace: Trace, seed: int) -> Serving:
    """Each request, event by event: exact, at some millions of events a second.

    A service whose requests were recorded one by one (the trace's `requests`) gets exactly these, in place of its
    demand series; a request's time in service is as recorded, or follows from its tokens, or is drawn.
    """
    recorded = {
        place: arrivals
        for place, service in enumerate(cluster.services)
        if (arrivals := _recorded(trace, service)) is not None
    }
    return Requests(cluster, state, seed, recorded)


def _recorded(trace: Trace, service: Service) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """(arrival, time in service or NaN) of each recorded request from outside, in s, in order of arrival."""
    rows = trace.requests.filter(pl.col("service") == service.series, pl.col("parent").is_null()).sort("time_s")
    if not rows.height:
        return None
    return rows["time_s"].to_numpy(), service_s(rows, service)


def service_s(rows: pl.DataFrame, service: Service) -> NDArray[np.float64]:
    """How long each recorded request is in service: by its tokens where the service says so, else as recorded."""
    if service.input_token_s or service.output_token_s:
        tokens = rows.select(
            pl.col("input_tokens").fill_null(0.0) * service.input_token_s
            + pl.col("output_tokens").fill_null(0.0) * service.output_token_s
        )
        return tokens.to_series().to_numpy()
    return rows["duration_s"].cast(pl.Float64).fill_null(np.nan).to_numpy()
