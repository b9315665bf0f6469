"""The verb calibrate: what it writes, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from experiments.calibrate import power_samples, unfitted
from scenarios.job_log import job_log
from twin.errors import UsageError
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
    assert first.stdout.splitlines()[-1] == str(tmp_path / "a/calibration.json")
    assert not (tmp_path / "a/report.html").exists()
    assert "not fitted: used_cpu_ratio: fewer than two jobs tell used_cpu_cores" in first.stderr
    assert "not fitted: power curve" not in first.stderr
    assert (tmp_path / "a/calibration.json").read_bytes() == (tmp_path / "b/calibration.json").read_bytes()
    fitted = calibrate.read(tmp_path / "a/calibration.json")
    told = tables.read(tmp_path / "a/tables/calibration.parquet", "calibration")
    assert told["name"].to_list() == [each.name for each in fitted.estimates]
    for name, true in (("idle_w", 90.0), ("full_w", 250.0), ("power_exponent", 0.8)):
        assert fitted[name].low < true < fitted[name].high


def test_what_is_not_fitted_is_named_with_the_reason() -> None:
    """A log without starts and limits, one whose cluster is unknown, and one in which nobody waited for nothing."""
    log = job_log(jobs=60, days=1)
    told = {}
    for name, frames in {
        "bare": {"jobs": log.jobs.with_columns(start_s=None, end_s=None, node=None, limit_s=None)},
        "unknown": {"nodes": log.nodes.clear(), "node_events": log.node_events.clear()},
        "prompt": {"jobs": log.jobs.with_columns(start_s="submit_s", end_s=pl.col("submit_s") + pl.col("run_s"))},
    }.items():
        trace = log.replacing(name, **frames)
        if name == "unknown":
            trace = trace.replacing(name, jobs=trace.jobs.with_columns(node=pl.lit(None, pl.String)))
        rng = np.random.default_rng(0)
        fitted = calibrate.calibrate(trace, created="2026-01-01T00:00:00+00:00", rng=rng)
        told[name] = unfitted(fitted, trace, None)
    assert "no starts" in told["bare"]["scheduler_latency"]
    assert "what they asked for" in told["bare"]["run_limit_ratio"]
    assert "give capacity_cores" in told["unknown"]["scheduler_latency"]
    assert "waited at all" in told["prompt"]["scheduler_latency"]
    assert "run_limit_ratio" not in told["prompt"]
    assert all("power_samples" in each["power curve"] for each in told.values())


def test_samples_of_power_that_are_none_are_refused_in_words_of_ours(tmp_path: Path) -> None:
    """Other columns, words instead of numbers, an empty file, bytes that are no text, a folder."""
    for name, content, words in (
        ("columns", b"load,power\n0.1,90\n", "has no column utilisation, only ['load', 'power']"),
        ("words", b"utilisation,watts\nlow,90\n", "cannot be read as numbers; give a CSV file"),
        ("empty", b"", "cannot be read as numbers"),
        ("bytes", bytes(range(256)), "power_samples="),
    ):
        path = tmp_path / f"{name}.csv"
        path.write_bytes(content)
        with pytest.raises(UsageError) as refused:
            power_samples(str(path))
        assert words in str(refused.value)
        assert not any(hint in str(refused.value) for hint in ("infer_schema", "ignore_errors", "strict", "polars"))
    with pytest.raises(UsageError, match="cannot be read as numbers"):
        power_samples(str(tmp_path))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("power_samples=nowhere.csv", "power_samples=nowhere.csv does not exist"),
        ("created=yesterday", "created='yesterday' is not ISO 8601"),
        ("capacity_cores=0", "capacity_cores=0 must be above 0"),
        ("trace=google2019", "holds no jobs to fit anything to"),
    ],
)
def test_what_cannot_be_is_one_message(override: str, words: str, tmp_path: Path) -> None:
    """Which key is wrong and what to do; nothing is written."""
    done = run(f"out={tmp_path / 'out'}", override)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert not (tmp_path / "out").exists()
