"""What a long simulation keeps in memory: its tables and decisions, in proportion to the time it simulates."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bench.conftest import DAY_S, Figure

pytestmark = pytest.mark.bench

ROOT = Path(__file__).resolve().parents[2]
DAYS = (1, 14, 28)

# the kernel's own peak for this process: getrusage would begin with that of the process that started it
CODE = """
import json, re, sys
from pathlib import Path
from hydra import compose, initialize_config_module
import twin
from experiments import cell, schema

schema.register()
with initialize_config_module("conf", version_base="1.3"):
    cfg = compose("simulate")
parts = {name: cell.build(cfg[name]) for name in ("controller", "limits", "record")}
run = twin.simulate(cell.read_trace(cfg.trace), cell.build(cfg.cluster), until_s=float(sys.argv[1]), **parts)
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
tables = run.tables()
print(json.dumps({
    "peak_mib": int(peak.group(1)) / 1024,
    "rows": {name: frame.height for name, frame in tables.items()},
    "tables_mib": sum(frame.estimated_size() for frame in tables.values()) / 2**20,
}))
"""


@pytest.fixture(scope="module")
def runs() -> dict[int, dict[str, Any]]:
    """What simulating so many days left behind, each in a process of its own."""
    return {days: simulated(days) for days in DAYS}


def simulated(days: int) -> dict[str, Any]:
    command = [sys.executable, "-c", CODE, str(days * DAY_S)]
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, env=settings, check=True)
    return json.loads(done.stdout)


def test_telemetry_rows_grow_with_the_simulated_time(runs: dict[int, dict[str, Any]]) -> None:
    for days, run in runs.items():
        minutes = days * DAY_S / 60
        assert run["rows"] == {"service_steps": minutes, "pool_steps": minutes, "decisions": 4 * minutes}


def test_the_peak_of_four_weeks(figure: Figure, runs: dict[int, dict[str, Any]]) -> None:
    """A process that simulates a day already holds the libraries; beyond it, only what is recorded may grow."""
    day, half, whole = runs[1]["peak_mib"], runs[14]["peak_mib"], runs[28]["peak_mib"]
    ratio = figure("memory, peak of 28 days (floor: of one day)", whole, "MiB", day)
    figure("memory, 28 days beyond one (floor: the tables)", whole - day, "MiB", runs[28]["tables_mib"])
    assert ratio <= 3
    assert whole - day <= 3 * (half - day), "more than in proportion to the time"
