"""The evidence for a promotion: what a benchmark's run folder and a policy's training record say."""

from __future__ import annotations

import json
from collections.abc import Iterator
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
from twin.errors import PolicyError, UsageError
from twin.simulation import simulate
from twin.trace import tables

_WINDOWS = 400  # recorded windows that the graph is held against


def gather(cfg: DictConfig, run: Path, trained: Path, parity_error: float) -> Evidence:
    """The evidence in a benchmark's run folder and a policy's training record."""
    record, compared = training(trained), study(run)
    split: Split = cell.build(compared["scene"]["split"])
    shown = sorted((run / "runs").glob(f"*--{cfg.candidate}/decisions.parquet"))
    spec = PolicySpec.read(trained)
    return Evidence(
        results=tables.read(run / "tables" / "results.parquet", "results"),
        candidate=cfg.candidate,
        baseline=cfg.baseline,
        policy=f"{spec.name}@{spec.version}",
        train_until_s=record["train_until_s"],
        held_out_from_s=split.held_out_from_s(cell.read_trace(compared["scene"]["trace"])),
        parity_error=parity_error,
        decisions=pl.concat([tables.read(path, "decisions") for path in shown]) if shown else None,
        mismatches=tuple(mismatches(cfg, compared, record, trained, shown)),
        seed=cfg.seed,
    )


def mismatches(
    cfg: DictConfig, compared: dict[str, Any], record: dict[str, Any], trained: Path, shown: list[Path]
) -> Iterator[str]:
    """Where the benchmark is not about this policy, or not the comparison that the gate asks for."""
    judged = compared["controllers"].get(cfg.candidate)
    digest = cell.policy_digest(trained)
    if digest not in json.dumps(judged):
        yield f"the benchmark's {cfg.candidate} did not run the policy in {trained.name} ({digest[:19]}...)"
    if compared["controllers"].get(cfg.baseline) != cell.plain(cfg.incumbent):
        yield f"the benchmark's {cfg.baseline} is not the incumbent that promote is configured with"
    for name, scenario in cfg.scenarios.items():
        if compared["scenarios"].get(name) != cell.plain(scenario):
            yield f"the benchmark's scenario {name} is not the one that promote is configured with"
    if record["trace_digest"] != compared["trace_digest"]:
        yield "the policy was trained on another trace than it was judged on: whether time was held out is not known"
    if compared["days"] is not None:
        yield f"only {compared['days']:g} days of the held-out time were run"
    if not shown:
        yield "no run's decisions were kept"


def study(run: Path) -> dict[str, Any]:
    """What the benchmark in the folder compared; raises UsageError when it does not say."""
    path = run / "study.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise UsageError(f"{path}: not a benchmark's folder: {error}; run python -m experiments.benchmark") from error


def training(trained: Path) -> dict[str, Any]:
    """What the policy was trained on; raises PolicyError when that is not known."""
    path = trained / "training.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {**record, "train_until_s": float(record["train_until_s"]), "trace_digest": str(record["trace_digest"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PolicyError(f"{path}: what the policy was trained on is not known: {error}; train it again") from error


def recorded_windows(scene: dict[str, Any], trained: Path, seed: int) -> NDArray[np.float32]:
    """Windows [n, steps, columns] that the policy really saw while it ran two held-out days in the twin."""
    seen: list[Window] = []
    loaded = policy.load(trained)
    infer = loaded.infer

    def watched(window: Window) -> Inference:
        seen.append(window.copy())
        return infer(window)

    split: Split = cell.build(scene["split"])
    trace = split.held_out(cell.read_trace(scene["trace"]), days=1.0)
    spec = loaded.spec
    simulate(
        trace,
        cell.build(scene["cluster"]),
        controller=GraphPolicy(spec, watched),
        limits=cell.build(scene["limits"]),
        until_s=min(trace.duration_s, split.warmup_s + DAY_S),
        seed=seed,
    )
    every = max(1, len(seen) // _WINDOWS)
    return np.stack(seen[::every]) if seen else np.empty((0, spec.steps, len(spec.columns)), np.float32)
