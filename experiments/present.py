"""How a verb introduces itself and how it ends: the identity line, the report, the tracker, the last line."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from experiments.cell import build
from experiments.display import Display
from experiments.rundir import git_state
from twin.trace.trace import Trace


def identity_line(verb: str, cfg: DictConfig, trace: Trace) -> str:
    """One line that says what is about to run on which facts."""
    git = git_state()
    commit = f"{git['commit'][:9]}{'+changes' if git['dirty'] else ''}" if git["commit"] else "no git"
    return f"{verb} {cfg.name} · seed {cfg.seed} · trace {trace.info.name} {trace.digest()} · {commit}"


def finish(folder: Path, cfg: DictConfig, display: Display) -> None:
    """Write the report, mirror the folder to the tracker, and end with the report's path."""
    from reports import page

    report = page.write(folder)
    build(cfg.tracking).mirror(folder)
    display.result(str(report))
