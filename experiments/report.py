"""`python -m experiments.report run=FOLDER`: write a run folder's page again."""

from __future__ import annotations

from omegaconf import DictConfig

from experiments import verb
from experiments.display import Display


def task(cfg: DictConfig, display: Display) -> int:
    """Write the page and end with its path; returns the exit code."""
    from reports import page

    folder = verb.require(cfg.run, "run", "give the folder of a finished run: run=runs/...")
    display.result(str(page.write(folder)))
    return verb.DONE


def main() -> None:
    """The entry point."""
    verb.main("report", task)


if __name__ == "__main__":
    main()
