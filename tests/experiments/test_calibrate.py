"""The verb calibrate: what it writes, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from twin.fidelity import calibrate
from twin.trace import tables

ROOT = Path(__file__).resolve().parents[2]


def run(*overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "experiments.calibrate", "display=plain", *overrides]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_file_holds_what_the_table_shows(tmp_path: Path) -> None:
    """The power curve that made the samples lies in its interval; the same command gives the same bytes."""
    rng = np.random.default_rng(0)
    used = rng.random(60)
    samples = tmp_path / "power.csv"
    watts = 90.0 + 160.0 * used**0.8 + rng.normal(0.0, 1.0, 60)
    pl.DataFrame({"utilisation": used, "watts": watts}).write_csv(samples)
    given = ("created=2026-01-01T00:00:00+00:00", f"power_samples={samples}")
    first, second = (run(f"out={tmp_path / name}", *given) for name in "ab")
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert (tmp_path / "a/calibration.json").read_bytes() == (tmp_path / "b/calibration.json").read_bytes()
    fitted = calibrate.read(tmp_path / "a/calibration.json")
    told = tables.read(tmp_path / "a/tables/calibration.parquet", "calibration")
    assert told["name"].to_list() == [each.name for each in fitted.estimates]
    for name, true in (("idle_w", 90.0), ("full_w", 250.0), ("power_exponent", 0.8)):
        assert fitted[name].low < true < fitted[name].high


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("power_samples=nowhere.csv", "power_samples=nowhere.csv does not exist"),
        ("created=yesterday", "created='yesterday' is not ISO 8601"),
        ("trace=google2019", "holds no jobs to fit anything to"),
    ],
)
def test_what_cannot_be_is_one_message(override: str, words: str, tmp_path: Path) -> None:
    """Which key is wrong and what to do; nothing is written."""
    done = run(f"out={tmp_path / 'out'}", override)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert not (tmp_path / "out").exists()
