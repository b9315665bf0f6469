"""How a verb introduces itself and how it ends: the identity line, the report, the tracker, the last line."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from experiments.cell import build
from experiments.display import Display
from experiments.rundir import git_state
from twin.trace.trace import Trace


def identity_line(verb: str, cfg: DictConfig, trace: Trace | None) -> str:
    """One line that says what is about to run on which facts."""
    git = git_state()
    commit = f"{git['commit'][:9]}{'+changes' if git['dirty'] else ''}" if git["commit"] else "no git"
    facts = f"trace {trace.info.name} {trace.digest()}" if trace else "no trace"
    return f"{verb if cfg.name == verb else f'{verb} {cfg.name}'} · seed {cfg.seed} · {facts} · {commit}"


def finish(folder: Path, cfg: DictConfig, display: Display) -> None:
    """Write the report, mirror the folder to the tracker, and end with the report's path."""
    try:
        from reports import page

        last = page.write(folder)  # imports what draws only when it draws
    except ModuleNotFoundError as error:  # a bridge lives without the extra `reports`
        display.line(f"no page: {error.name} is not installed")
        last = folder
    build(cfg.tracking).mirror(folder)  # the page is part of what is mirrored
    display.result(str(last))
