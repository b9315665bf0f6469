"""The import rules of pyproject.toml hold: data flows one way, and the bridge starts without simulator and learners."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_import_contracts() -> None:
    tool = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    assert tool, "import-linter is not installed beside this interpreter"
    done = subprocess.run([tool, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout


def test_importing_the_facade_loads_nothing_heavy() -> None:
    """`import twin` is free of the simulator: it is loaded when `simulate` is first used."""
    heavy = {"simpy", "numba", "jax", "torch", "gymnasium", "altair", "polars"}
    code = f"import sys, twin; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
