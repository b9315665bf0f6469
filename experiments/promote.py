"""`python -m experiments.promote`: judge a policy on a benchmark's evidence; sign it when it passes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from omegaconf import DictConfig

from agents import bundle, policy
from agents.policy import GraphPolicy, Infer, Inference, PolicySpec, Window
from agents.scale import artefact
from experiments import cell, present, verb
from experiments.display import Display
from experiments.gate import verdict as verdicts
from experiments.gate.judge import judge
from experiments.gate.rules import Evidence
from experiments.gate.verdict import Verdict
from experiments.rundir import RunFolder
from experiments.split import DAY_S, Split
from twin.errors import PolicyError
from twin.simulation import simulate
from twin.trace import tables

_WINDOWS = 400  # recorded windows that the graph is held against


def study(cfg: DictConfig, folder: RunFolder, display: Display) -> Verdict:
    """Judge, write `verdicts/<candidate>.json`, and `bundles/<candidate>` when it passed; returns the verdict."""
    run = verb.require(cfg.evidence, "evidence", "give the folder of a benchmark: evidence=runs/benchmark/...")
    trained = verb.require(cfg.policy, "policy", "give a trained policy: policy=runs/train/.../policies/ppo")
    key_file = verb.require(cfg.key, "key", "make one with: python -m agents.bundle keygen PATH")
    key = bundle.load_private_key(key_file)
    graph_sha256 = hashlib.sha256((trained / "graph.onnx").read_bytes()).hexdigest()
    native: Infer = cell.build(cfg.learner.native)(trained)
    with folder.phase(f"judge {cfg.candidate}"), display.phase(f"judge {cfg.candidate}") as advance:
        windows = recorded_windows(cfg, trained)
        evidence = gather(cfg, run, trained, artefact.parity(native, trained, windows))
        verdict = judge(evidence, cell.build(cfg.gate))
        advance(1.0, verdict.decision)
    target = folder.path / "verdicts" / f"{cfg.candidate}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(verdicts.to_json(verdict), encoding="utf-8")
    show(verdict, display)
    if verdict.decision == "pass":
        answers = bundle.Parity.record(native, windows)
        sign(cfg, folder, trained, verdict, evidence, answers, graph_sha256, key)
    return verdict


def gather(cfg: DictConfig, run: Path, trained: Path, parity_error: float) -> Evidence:
    """The evidence in a benchmark's run folder and a policy's training record."""
    training = _training(trained)
    split: Split = cell.build(cfg.split)
    shown = sorted((run / "runs").glob(f"*--{cfg.candidate}/decisions.parquet"))
    spec = PolicySpec.read(trained)
    return Evidence(
        results=tables.read(run / "tables" / "results.parquet", "results"),
        candidate=cfg.candidate,
        baseline=cfg.baseline,
        policy=f"{spec.name}@{spec.version}",
        train_until_s=training["train_until_s"],
        held_out_from_s=split.held_out_from_s(cell.read_trace(cfg.trace)),
        parity_error=parity_error,
        decisions=pl.concat([tables.read(path, "decisions") for path in shown]) if shown else None,
        seed=cfg.seed,
    )


def _training(trained: Path) -> dict[str, Any]:
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


def sign(
    cfg: DictConfig,
    folder: RunFolder,
    trained: Path,
    verdict: Verdict,
    evidence: Evidence,
    parity: bundle.Parity,
    graph_sha256: str,
    key: bundle.Ed25519PrivateKey,
) -> None:
    """Write the signed bundle `bundles/<candidate>` and the public key that verifies it."""
    training = _training(trained)
    facts = {
        **training,
        "seeds": sorted(set(evidence.results["seed"].to_list())),
        "windows_s": {"train": [0.0, evidence.train_until_s], "held_out_from": evidence.held_out_from_s},
        "baseline": evidence.baseline,
        "parity_error": evidence.parity_error,
    }
    out = folder.path / "bundles" / cfg.candidate
    out.parent.mkdir(exist_ok=True)
    bundle.create(
        out,
        trained,
        verdict={**json.loads(verdicts.to_json(verdict)), "graph_sha256": graph_sha256},
        evidence=facts,
        limits=cell.build(cfg.limits),
        parity=parity,
        key=key,
    )


def show(verdict: Verdict, display: Display) -> None:
    """The verdict's sentence and its checks."""
    rows = [
        {k: asdict(check)[k] for k in ("name", "result", "value", "low", "high", "threshold")}
        for check in verdict.checks
    ]
    display.table(f"Gate: {verdict.candidate} against {verdict.baseline}", pl.DataFrame(rows, infer_schema_length=None))
    display.result(verdict.sentence)


def task(cfg: DictConfig, display: Display) -> int:
    """Judge and perhaps sign, write the run folder and its report; returns 0 when it passed, else 3."""
    trace = cell.read_trace(cfg.trace)
    display.line(present.identity_line("promote", cfg, trace))
    with RunFolder(Path(cfg.out)) as folder:
        folder.identify(cfg, "promote", trace, verb.command("promote"), verb.overrides())
        verdict = study(cfg, folder, display)
    if verdict.decision == "pass":
        display.line(f"bundle: {folder.final / 'bundles' / cfg.candidate}")
    present.finish(folder.final, cfg, display)
    return verb.DONE if verdict.decision == "pass" else verb.REFUSED


def main() -> None:
    """The entry point."""
    verb.main("promote", task)


if __name__ == "__main__":
    main()
