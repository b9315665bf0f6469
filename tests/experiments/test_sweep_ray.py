"""A sweep through Ray: its jobs run in other processes, and still end in one table and one exit code.

Nothing leaves this machine: Ray stays on loopback, reports to nobody, and is gone afterwards.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = (
    "hydra/launcher=ray",
    "+hydra.launcher.ray.init.num_cpus=2",
    "+hydra.launcher.ray.init.include_dashboard=false",
)
BRIEF = ("until_s=7200", "display=plain")
COMPLETE = {"config.yaml", "defaults.yaml", "fidelity.json", "identity.json", "report.html", "timing.json"}
_GONE_S = 20.0


@pytest.fixture
def home() -> Iterator[Path]:
    """A home of its own for Ray's files; its path is short, since a socket's may not be long."""
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        # with it, Ray does not ask the network which cloud this is
        (Path(folder) / "ray_bootstrap_config.yaml").write_text("provider: {type: local}\n")
        yield Path(folder)


def multirun(home: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    settings = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "HOME": str(home),
        "RAY_AUTH_MODE": "token",  # nobody else on this machine may send it work
        "RAY_AUTH_TOKEN": os.urandom(32).hex(),
        "RAY_TMPDIR": str(home),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # in Ray's words: stay on loopback
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "experiments.simulate", "--multirun", *LAUNCHER, *BRIEF, *overrides]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=settings, check=False)


def left_behind(home: Path) -> list[str]:
    """Processes that still carry this Ray's folder in their command line, after a while to end in."""
    deadline = time.monotonic() + _GONE_S
    while found := [line for line in _command_lines() if str(home) in line]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    return found


def _command_lines() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            continue


def test_a_sweep_through_ray_leaves_complete_folders_and_its_table(home: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    done = multirun(home, "controller=hold,hpa", f"hydra.sweep.dir={sweep}")
    assert done.returncode == 0, done.stderr
    for name in ("hold", "hpa"):
        (job,) = sweep.glob(f"*controller={name}*")
        assert {path.name for path in job.iterdir()} == COMPLETE | {"runs", "tables"}
        assert pl.read_parquet(job / "tables" / "kpis.parquet").height > 0
    table = pl.read_csv(sweep / "sweep.csv")
    assert table["controller"].to_list() == ["hold", "hpa"]
    assert table["cost_usd"].is_finite().all()
    assert "Sweep sweep: 2 jobs" in done.stdout
    assert not list(sweep.rglob("*.partial"))
    assert left_behind(home) == []


def test_a_job_that_fails_in_another_process_shows_in_table_and_exit_code(home: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    done = multirun(home, "controller=ppo", "policies.ppo=/nowhere", f"hydra.sweep.dir={sweep}")
    assert done.returncode == 1, done.stderr
    table = pl.read_csv(sweep / "sweep.csv")
    assert table["controller"].to_list() == ["ppo"]
    assert "nowhere" in table["error"][0]
    assert "Traceback" not in done.stderr
    assert left_behind(home) == []
