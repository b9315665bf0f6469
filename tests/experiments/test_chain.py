"""From a trained policy to a running bundle, from outside: what passes is signed and runs, the rest is refused."""

from __future__ import annotations

import json
import math
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hydra import compose, initialize_config_module

from agents import bundle
from experiments import benchmark, schema
from experiments.rundir import write_json
from tests.experiments.test_verbs import ROOT, call, no_traceback
from twin.bridge import ledger
from twin.trace import tables

SCENARIOS = ("recorded", "surge", "node_failures")
SEEDS = 12


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A briefly trained PPO policy, a key, and a benchmark folder in which that policy is clearly better."""
    folder = tmp_path_factory.mktemp("chain")
    brief = [f"learner.learn.settings.{s}" for s in ("total_steps=256", "rollout_steps=32")]
    done = call("train", "learner=ppo", "seeds=1", *brief, "display=none", f"out={folder / 'train'}")
    assert done.returncode == 0, done.stderr
    bundle.generate_key(folder / "who.key")
    write_evidence(folder / "benchmark", results(), folder / "train")
    return folder


def results(late: float = 0.001) -> pl.DataFrame:
    """Twelve paired seeds: the candidate is 10 % cheaper and as punctual."""
    rng = np.random.default_rng(0)
    kpis = {
        "cost_usd": ("cluster", "USD", 100.0),
        "late_ratio": ("cell", "ratio", late),
        "scale_events": ("cell", "count", 50.0),
        "limited_ratio": ("cell", "ratio", 0.0),
        "handover_ratio": ("cell", "ratio", 0.01),
    }
    rows = [
        (controller, scenario, seed, kpi, entity, value * factor * (1 + 0.01 * rng.standard_normal()), unit, "lower")
        for scenario in SCENARIOS
        for seed in range(SEEDS)
        for controller, factor in (("hpa", 1.0), ("ppo", 0.9))
        for kpi, (entity, unit, value) in kpis.items()
    ]
    columns = [c.name for c in tables.schema("results")]
    return tables.conform(pl.DataFrame(rows, schema=columns, orient="row"), "results", "test")


def write_evidence(folder: Path, frame: pl.DataFrame, trained: Path, *changes: str) -> None:
    """A benchmark's folder with these results, as that verb describes its comparison; `changes` are its overrides."""
    (folder / "tables").mkdir(parents=True)
    tables.write(frame, folder / "tables" / "results.parquet")
    shown = folder / "runs" / "recorded--ppo"
    shown.mkdir(parents=True)
    tables.write(tables.empty("decisions"), shown / "decisions.parquet")
    schema.register()
    with initialize_config_module("conf", version_base="1.3"):
        policy = f"policies.ppo={trained / 'policies' / 'ppo'}"
        described = benchmark.described(compose("benchmark", ["+controller@controllers.ppo=ppo", policy, *changes]))
    write_json(folder / "study.json", described)


def promote(work: Path, evidence: Path, out: Path) -> tuple[int, dict, str]:
    done = call(
        "promote", "candidate=ppo", f"evidence={evidence}", f"policy={work / 'train' / 'policies' / 'ppo'}",
        f"key={work / 'who.key'}", "display=plain", f"out={out}",
    )  # fmt: skip
    assert no_traceback(done), done.stderr
    verdict = json.loads((out / "verdicts" / "ppo.json").read_text())
    return done.returncode, verdict, done.stdout


@pytest.fixture(scope="module")
def promoted(work: Path) -> Path:
    code, verdict, _ = promote(work, work / "benchmark", work / "promote")
    assert (code, verdict["decision"]) == (0, "pass"), verdict["sentence"]
    return work / "promote" / "bundles" / "ppo"


def test_what_passes_becomes_a_bundle_that_verifies(work: Path, promoted: Path) -> None:
    manifest = bundle.verify(promoted, bundle.load_public_key(work / "who.key.pub"))
    assert manifest.decision == "pass"
    assert set(manifest.columns) >= {"cell.demand_rps", "cell.wanted_replicas"}
    verdict = json.loads((promoted / "verdict.json").read_text())
    assert {check["name"] for check in verdict["checks"]} >= {"parity", "benefit", "held out"}


def test_a_refusal_is_a_result_with_code_3_and_without_a_bundle(work: Path, tmp_path: Path) -> None:
    its_lateness = (pl.col("controller") == "ppo") & (pl.col("kpi") == "late_ratio")
    late = results().with_columns(pl.when(its_lateness).then(0.2).otherwise("value").alias("value"))
    write_evidence(tmp_path / "benchmark", late, work / "train")
    code, verdict, shown = promote(work, tmp_path / "benchmark", tmp_path / "out")
    assert code == 3
    assert verdict["decision"] == "refuse"
    assert verdict["sentence"] in shown
    assert not (tmp_path / "out" / "bundles").exists()


def test_a_nan_metric_refuses_and_says_where(work: Path, tmp_path: Path) -> None:
    broken = results().with_row_index().with_columns(
        pl.when(pl.col("index") == 7).then(math.nan).otherwise("value").alias("value")
    )  # fmt: skip
    where = broken.row(7, named=True)
    write_evidence(tmp_path / "benchmark", broken.drop("index"), work / "train")
    code, verdict, _ = promote(work, tmp_path / "benchmark", tmp_path / "out")
    assert code == 3
    finite = next(check for check in verdict["checks"] if check["name"] == "finite")
    assert finite["result"] == "refuse"
    for word in (where["controller"], where["scenario"], str(where["seed"]), where["kpi"]):
        assert word in finite["evidence"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["scenarios.surge.factor=1.0"], "scenario surge is not the one"),
        (["controllers.hpa.target_utilisation=0.5"], "hpa is not the incumbent"),
        (["days=0.5"], "only 0.5 days"),
        (["trace=azure_v2"], "trained on another trace"),
    ],
)
def test_evidence_of_an_easier_comparison_is_refused(work: Path, tmp_path: Path, changes: list[str], said: str) -> None:
    write_evidence(tmp_path / "benchmark", results(), work / "train", *changes)
    code, verdict, _ = promote(work, tmp_path / "benchmark", tmp_path / "out")
    assert code == 3
    provenance = next(check for check in verdict["checks"] if check["name"] == "provenance")
    assert (provenance["result"], said in provenance["evidence"]) == ("refuse", True), provenance["evidence"]


def test_evidence_of_another_policy_is_refused(work: Path, tmp_path: Path) -> None:
    """The very same label and numbers, but another graph was benchmarked."""
    other = Path(shutil.copytree(work / "train", tmp_path / "train"))
    spec = other / "policies" / "ppo" / "policy.json"
    spec.write_text(spec.read_text().replace("seed-0", "seed-7"))
    write_evidence(tmp_path / "benchmark", results(), other)
    code, verdict, _ = promote(work, tmp_path / "benchmark", tmp_path / "out")
    assert code == 3
    assert "did not run the policy" in next(c for c in verdict["checks"] if c["name"] == "provenance")["evidence"]


def test_the_limits_that_are_signed_are_those_that_were_judged(work: Path, tmp_path: Path) -> None:
    write_evidence(tmp_path / "benchmark", results(), work / "train", "limits.max_value=77")
    code, verdict, _ = promote(work, tmp_path / "benchmark", tmp_path / "out")
    assert code == 0, verdict["sentence"]
    made = bundle.verify(tmp_path / "out" / "bundles" / "ppo", bundle.load_public_key(work / "who.key.pub"))
    assert made.limits.max_value == 77


def test_a_signed_policy_runs_beside_a_twin_and_leaves_a_ledger_that_verifies(
    work: Path, promoted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "bridge"
    trusted = f"trusted_key={work / 'who.key.pub'}"
    done = call("bridge", f"bundle={promoted}", trusted, "hours=0.5", "display=plain", f"out={out}")
    assert done.returncode == 0, done.stderr
    report = json.loads((out / "bridge" / "report.json").read_text())
    assert (report["mode"], report["status"], report["lost"]) == ("dry-run", "completed", 0)
    assert ledger.verify(out / "bridge" / "ledger.jsonl") == report["ledger_records"]
    decisions = tables.read(out / "bridge" / "decisions.parquet", "decisions")
    assert (decisions["status"] == "dry-run").all()
    assert decisions["reason"].str.contains("policy decides|rule decides").all()


def test_live_mode_changes_the_plant(work: Path, promoted: Path, tmp_path: Path) -> None:
    out = tmp_path / "bridge"
    trusted = f"trusted_key={work / 'who.key.pub'}"
    done = call("bridge", "mode=live", f"bundle={promoted}", trusted, "hours=4", "display=plain", f"out={out}")
    assert done.returncode == 0, done.stderr
    decisions = tables.read(out / "bridge" / "decisions.parquet", "decisions")
    changed = decisions.filter(pl.col("status") == "applied", pl.col("applied") != pl.col("current"))
    assert changed.height > 0
    assert changed["confirmed"].drop_nulls().all()


@pytest.mark.parametrize("file", ["graph.onnx", "manifest.json", "manifest.sig", "parity.npz", "verdict.json"])
def test_one_flipped_bit_stops_everything(work: Path, promoted: Path, tmp_path: Path, file: str) -> None:
    tampered = Path(shutil.copytree(promoted, tmp_path / "bundle"))
    raw = bytearray((tampered / file).read_bytes())
    raw[len(raw) // 2] ^= 1
    (tampered / file).write_bytes(raw)
    trusted = f"trusted_key={work / 'who.key.pub'}"
    done = call("bridge", f"bundle={tampered}", trusted, "hours=0.1", "display=plain", f"out={tmp_path / 'bridge'}")
    assert done.returncode == 1
    assert no_traceback(done)
    assert "BundleError" in done.stderr
    assert file in done.stderr or "manifest" in done.stderr
    assert not list(tmp_path.glob("bridge*"))


def test_a_stop_keeps_the_ledger_and_ends_cleanly(work: Path, promoted: Path, tmp_path: Path) -> None:
    """SIGINT in mode live: the turn at hand is finished, the chain is closed, nothing of it is lost."""
    out = tmp_path / "bridge"
    command = [sys.executable, "-m", "experiments.bridge", "mode=live", f"bundle={promoted}"]
    command += [f"trusted_key={work / 'who.key.pub'}", "hours=190", "display=plain", f"out={out}"]
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    chain = tmp_path / "bridge.partial" / "bridge" / "ledger.jsonl"
    deadline = time.monotonic() + 60
    while not (chain.exists() and chain.stat().st_size > 5000) and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 0, errors
    report = json.loads((out / "bridge" / "report.json").read_text())
    assert report["status"] == "stopped"
    verified = subprocess.run(
        [sys.executable, "-m", "twin.bridge", "verify", str(out / "bridge" / "ledger.jsonl")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert verified.returncode == 0, verified.stderr
    assert f"{report['ledger_records']} records" in verified.stdout


def test_training_twice_gives_the_same_bytes(work: Path, tmp_path: Path) -> None:
    brief = [f"learner.learn.settings.{s}" for s in ("total_steps=256", "rollout_steps=32")]
    done = call("train", "learner=ppo", "seeds=1", *brief, "display=none", f"out={tmp_path / 'again'}")
    assert done.returncode == 0, done.stderr
    for name in ("graph.onnx", "policy.json", "training.json"):
        first, again = (folder / "policies" / "ppo" / name for folder in (work / "train", tmp_path / "again"))
        assert first.read_bytes() == again.read_bytes(), name
