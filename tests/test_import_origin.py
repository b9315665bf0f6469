"""Our packages have plain names: what runs under one of them must be ours, or a run refuses to begin."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import rundir
from experiments.rundir import RunFolder, check_import_origin
from twin.errors import WorkbenchError

ROOT = Path(__file__).resolve().parent.parent
OURS = ("twin", "scenarios", "agents", "experiments", "reports")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder as other people's packages are installed in."""
    folder = tmp_path / "lib" / "site-packages"
    folder.mkdir(parents=True)
    return folder


def impostor(monkeypatch: pytest.MonkeyPatch, site: Path, package: str) -> Path:
    """Let `package` be the module that a foreign distribution installed in `site`; returns its file."""
    path = site / package / "__init__.py"
    path.parent.mkdir()
    path.write_text("")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(site)
        patch.delitem(sys.modules, package)
        foreign = importlib.import_module(package)
    monkeypatch.setitem(sys.modules, package, foreign)
    return path


def test_here_every_package_is_ours() -> None:
    for package in OURS:
        importlib.import_module(package)
    check_import_origin()


def test_every_top_level_package_with_code_is_checked() -> None:
    with_code = {path.parent.name for path in ROOT.glob("*/__init__.py") if len([*path.parent.glob("*.py")]) > 1}
    assert set(rundir._OURS) == with_code == set(OURS)


@pytest.mark.parametrize("package", OURS)
def test_a_foreign_package_of_our_name_is_named(monkeypatch: pytest.MonkeyPatch, site: Path, package: str) -> None:
    path = impostor(monkeypatch, site, package)
    with pytest.raises(WorkbenchError) as error:
        check_import_origin()
    message = str(error.value)
    assert repr(package) in message
    assert str(path) in message
    assert "use a separate environment" in message


def test_the_distribution_that_brought_it_is_named(monkeypatch: pytest.MonkeyPatch, site: Path) -> None:
    info = site / "openai_agents-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: openai-agents\nVersion: 0.1\n")
    (info / "top_level.txt").write_text("agents\n")
    impostor(monkeypatch, site, "agents")
    monkeypatch.syspath_prepend(site)
    with pytest.raises(WorkbenchError, match="openai-agents"):
        check_import_origin()


def test_no_run_begins_with_a_foreign_package(monkeypatch: pytest.MonkeyPatch, site: Path, tmp_path: Path) -> None:
    impostor(monkeypatch, site, "agents")
    with pytest.raises(WorkbenchError, match="'agents'"), RunFolder(tmp_path / "run"):
        pass
    assert not list(tmp_path.glob("run*"))


def test_a_verb_started_in_the_checkout_finds_ours_before_a_foreign_one(site: Path) -> None:
    """`python -m` puts the checkout first, so an installed namesake does not matter."""
    (site / "agents").mkdir()
    (site / "agents" / "__init__.py").write_text("raise ImportError('the foreign one')\n")
    code = "import agents.policy; from experiments.rundir import check_import_origin; check_import_origin()"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.append({str(site)!r}); {code}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
