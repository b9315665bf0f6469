"""`python -m experiments.promote`: judge a policy on a benchmark's evidence; sign it when it passes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import polars as pl
from omegaconf import DictConfig

from agents import bundle
from agents.policy import Infer
from agents.scale import artefact
from experiments import cell, evidence, present, verb
from experiments.display import Display
from experiments.gate import verdict as verdicts
from experiments.gate.judge import judge
from experiments.gate.rules import Evidence
from experiments.gate.verdict import Verdict
from experiments.rundir import RunFolder


def study(cfg: DictConfig, folder: RunFolder, display: Display) -> Verdict:
    """Judge, write `verdicts/<candidate>.json`, and `bundles/<candidate>` when it passed; returns the verdict."""
    run = verb.require(cfg.evidence, "evidence", "give the folder of a benchmark: evidence=runs/benchmark/...")
    trained = verb.require(cfg.policy, "policy", "give a trained policy: policy=runs/train/.../policies/ppo")
    key_file = verb.require(cfg.key, "key", "make one with: python -m agents.bundle keygen PATH")
    key = bundle.load_private_key(key_file)
    scene = evidence.study(run)["scene"]
    evidence.training(trained)  # what is missing is said before anything is computed
    cell.policy_digest(trained)
    graph_sha256 = hashlib.sha256((trained / "graph.onnx").read_bytes()).hexdigest()
    native: Infer = cell.build(cfg.learner.native)(trained)
    with folder.phase(f"judge {cfg.candidate}"), display.phase(f"judge {cfg.candidate}") as advance:
        windows = evidence.recorded_windows(scene, trained, cfg.seed)
        found = evidence.gather(cfg, run, trained, artefact.parity(native, trained, windows))
        verdict = judge(found, cell.build(cfg.gate))
        advance(1.0, verdict.decision)
    target = folder.path / "verdicts" / f"{cfg.candidate}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(verdicts.to_json(verdict), encoding="utf-8")
    show(verdict, display)
    if verdict.decision == "pass":
        answers = bundle.Parity.record(native, windows)
        sign(cfg, folder, run, trained, verdict, found, answers, graph_sha256, key)
    return verdict


def sign(
    cfg: DictConfig,
    folder: RunFolder,
    run: Path,
    trained: Path,
    verdict: Verdict,
    found: Evidence,
    parity: bundle.Parity,
    graph_sha256: str,
    key: bundle.Ed25519PrivateKey,
) -> None:
    """Write the signed bundle `bundles/<candidate>` and the public key that verifies it."""
    training, compared = evidence.training(trained), evidence.study(run)
    facts = {
        **training,
        "seeds": sorted(set(found.results["seed"].to_list())),
        "windows_s": {"train": [0.0, found.train_until_s], "held_out_from": found.held_out_from_s},
        "baseline": found.baseline,
        "parity_error": found.parity_error,
        "guard": compared["controllers"][cfg.candidate],
        "study_sha256": hashlib.sha256((run / "study.json").read_bytes()).hexdigest(),
        "results_sha256": hashlib.sha256((run / "tables" / "results.parquet").read_bytes()).hexdigest(),
    }
    out = folder.path / "bundles" / cfg.candidate
    out.parent.mkdir(exist_ok=True)
    bundle.create(
        out,
        trained,
        verdict={**json.loads(verdicts.to_json(verdict)), "graph_sha256": graph_sha256},
        evidence=facts,
        limits=cell.build(compared["scene"]["limits"]),  # those that it was judged within
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
    run = verb.require(cfg.evidence, "evidence", "give the folder of a benchmark: evidence=runs/benchmark/...")
    trace = cell.read_trace(evidence.study(run)["scene"]["trace"])
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
