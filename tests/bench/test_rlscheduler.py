"""The means that RLScheduler's comparison published come out again, over all ten sequences."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

import twin
from experiments import rlscheduler
from experiments.study import published
from tests.bench.conftest import Figure

LOG = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "swf-pwa" / "lublin_256.swf"
pytestmark = [
    pytest.mark.bench,
    pytest.mark.skipif(not LOG.exists(), reason=f"{LOG} is not here: a log of the Parallel Workloads Archive"),
]

EXACT = 6
"""Published means that are met to the last printed digit: all without backfilling, and SJF with it. The others feel the
seconds in which a job ends and another arrives, and differ by at most 0.12 %."""


def test_the_published_means_are_met(figure: Figure) -> None:
    """Ten means of Lublin-1 within 0.5 %, six of them to the last printed digit; the floor is FCFS alone."""
    names = published("rlscheduler").filter(log="lublin_256")["heuristic"].unique().to_list()
    trace = twin.read(LOG)
    start = time.process_time()
    rlscheduler.run(trace, ["fcfs"])
    floor_s = time.process_time() - start
    start = time.process_time()
    table = rlscheduler.summary(rlscheduler.run(trace, sorted(names)))
    figure("RLScheduler's table of Lublin-1", time.process_time() - start, "CPU s", floor_s)
    mean, told = table["mean"].to_numpy(), table["published"].to_numpy()
    exact = np.abs(mean - told) < 0.00501
    assert table.height == 10
    assert mean == pytest.approx(told, rel=0.005)
    assert exact[~table["backfill"].to_numpy()].all()
    assert exact.sum() == EXACT
    assert table["inside"].all()
    assert table["inside"].null_count() == 0
