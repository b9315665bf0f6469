"""The evidence for a promotion: what a benchmark's run folder and a policy's training record say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from omegaconf import DictConfig

from agents import policy
from agents.policy import GraphPolicy, Inference, PolicySpec, Window
from experiments import cell
from experiments.gate.rules import Evidence
from experiments.split import DAY_S, Split
from twin.errors import PolicyError
from twin.simulation import simulate
from twin.trace import tables

_WINDOWS = 400  # recorded windows that the graph is held against


def gather(cfg: DictConfig, run: Path, trained: Path, parity_error: float) -> Evidence:
    """The evidence in a benchmark's run folder and a policy's training record."""
    record = training(trained)
    split: Split = cell.build(cfg.split)
    shown = sorted((run / "runs").glob(f"*--{cfg.candidate}/decisions.parquet"))
    spec = PolicySpec.read(trained)
    return Evidence(
        results=tables.read(run / "tables" / "results.parquet", "results"),
        candidate=cfg.candidate,
        baseline=cfg.baseline,
        policy=f"{spec.name}@{spec.version}",
        train_until_s=record["train_until_s"],
        held_out_from_s=split.held_out_from_s(cell.read_trace(cfg.trace)),
        parity_error=parity_error,
        decisions=pl.concat([tables.read(path, "decisions") for path in shown]) if shown else None,
        seed=cfg.seed,
    )


def training(trained: Path) -> dict[str, Any]:
    """What the policy was trained on; raises PolicyError when that is not known."""
    path = trained / "training.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise PolicyError(f"{path}: what the policy was trained on is not known: {error}; train it again") from error


def recorded_windows(cfg: DictConfig, trained: Path) -> NDArray[np.float32]:
    """Windows [n, steps, columns] that the policy really saw while it ran two held-out days in the twin."""
    seen: list[Window] = []
    loaded = policy.load(trained)
    infer = loaded.infer

    def watched(window: Window) -> Inference:
        seen.append(window.copy())
        return infer(window)

    split: Split = cell.build(cfg.split)
    trace = split.held_out(cell.read_trace(cfg.trace), days=1.0)
    spec = loaded.spec
    simulate(
        trace,
        cell.build(cfg.cluster),
        controller=GraphPolicy(spec, watched),
        limits=cell.build(cfg.limits),
        until_s=min(trace.duration_s, split.warmup_s + DAY_S),
        seed=cfg.seed,
    )
    every = max(1, len(seen) // _WINDOWS)
    return np.stack(seen[::every]) if seen else np.empty((0, spec.steps, len(spec.columns)), np.float32)
