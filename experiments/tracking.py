"""Trackers mirror the run folder; nothing is computed for them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Protocol

import polars as pl


class Tracker(Protocol):
    """Whoever wants a copy of a finished run folder."""

    def mirror(self, folder: Path) -> None:
        """Copy the finished run folder."""
        ...


class NoTracker:
    """Keeps the run folder as it is."""

    def mirror(self, folder: Path) -> None:
        """Do nothing."""


class Wandb:
    """Mirrors the run folder into Weights & Biases: config, KPIs as summary, tables, the report as an artifact.

    Offline unless the environment says otherwise (WANDB_MODE): no account, no network.
    """

    def __init__(self, project: str, folder: str) -> None:
        """Write the tracker's own files under `folder`."""
        self._project, self._folder = project, folder

    def mirror(self, folder: Path) -> None:
        """Log the run folder as one W&B run, named after it."""
        import wandb
        import yaml

        identity = json.loads((folder / "identity.json").read_text(encoding="utf-8"))
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        Path(self._folder).mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("WANDB_MODE", "offline")
        run = wandb.init(
            project=self._project,
            dir=self._folder,
            name=identity["run_id"],
            job_type=identity["verb"],
            group=folder.parent.name,
            config=config,
            reinit="finish_previous",
        )
        for path in sorted((folder / "tables").glob("*.parquet")):
            frame = pl.read_parquet(path)
            if path.stem == "kpis":
                for row in frame.iter_rows(named=True):
                    run.summary[f"{row['entity']}/{row['kpi']}"] = row["value"]
            run.log(
                {
                    path.stem: wandb.Table(
                        columns=[*frame.columns], data=[list(row) for row in frame.head(10_000).rows()]
                    )
                }
            )
        artifact = wandb.Artifact(f"{identity['verb']}-{identity['run_id']}", type="run-folder")
        artifact.add_dir(str(folder))
        run.log_artifact(artifact)
        run.finish()
