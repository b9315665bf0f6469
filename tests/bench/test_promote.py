"""What promoting costs: the gate's judgement, and trusting a bundle."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from omegaconf import DictConfig

from agents import bundle, policy
from experiments import cell
from experiments.gate.judge import judge
from experiments.gate.rules import Evidence, Rules
from tests.bench.conftest import DAY_S, Configured, Figure, bare_graph, cheapest
from twin.trace import tables
from twin.types import Limits

pytestmark = pytest.mark.bench

SEEDS = 10
DRAWS = 10_000  # of the gate's bootstrap
WINDOWS = 400  # as many as a promotion records
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
# kpi, entity, level, noise
KPIS = (
    ("cost_usd", "cluster", 100.0, 1.0),
    ("late_ratio", "cell", 0.02, 0.0005),
    ("scale_events", "cell", 50.0, 0.0),
    ("limited_ratio", "cell", 0.02, 0.0),
    ("handover_ratio", "cell", 0.03, 0.0),
)


def evidence_for(rules: Rules) -> Evidence:
    """Runs of a candidate that is a little cheaper than its baseline and else equal."""
    rng = np.random.default_rng(0)
    rows = [
        (controller, scenario, seed, kpi, entity, level * saved + noise * rng.normal(), "", "lower")
        for controller, gain in (("learned", 0.1), ("hpa", 0.0))
        for scenario in rules.scenarios
        for seed in range(SEEDS)
        for kpi, entity, level, noise in KPIS
        for saved in [1.0 - gain * (kpi == "cost_usd")]
    ]
    frame = pl.DataFrame(rows, schema=[column.name for column in tables.schema("results")], orient="row")
    return Evidence(frame, "learned", "hpa", "mlp@1", DAY_S, DAY_S, 1e-6)


def test_a_judgement(figure: Figure, configured: Configured) -> None:
    """All checks, beside the bare resampling of cost and late ratio in every scenario."""
    cfg: DictConfig = configured("promote")
    rules: Rules = cell.build(cfg.gate)
    evidence = evidence_for(rules)
    assert judge(evidence, rules).decision == "pass"

    def bare() -> None:
        rng = np.random.default_rng(0)
        for _ in range(2 * len(rules.scenarios)):
            values = rng.normal(size=SEEDS)
            np.sort(values[rng.integers(SEEDS, size=(DRAWS, SEEDS))].mean(axis=1))

    judged_s, bare_s = cheapest(lambda: judge(evidence, rules), bare, rounds=5)
    name = f"gate, a judgement ({len(rules.scenarios)} scenarios x {SEEDS} seeds)"
    assert figure(name, 1e3 * judged_s, "ms CPU", 1e3 * bare_s) <= 8


@pytest.fixture(scope="module", params=["ppo", "forecast_led"])
def signed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, policies: dict[str, Path]
) -> tuple[str, Path]:
    """(learner, its bundle with as many parity windows as a promotion records)."""
    source = policies[request.param]
    spec = policy.PolicySpec.read(source)
    rng = np.random.default_rng(0)
    windows = rng.uniform(100.0, 900.0, (WINDOWS, spec.steps, len(spec.columns))).astype(np.float32)
    graph_sha256 = hashlib.sha256((source / "graph.onnx").read_bytes()).hexdigest()
    out = tmp_path_factory.mktemp("bundles") / request.param
    bundle.create(
        out,
        source,
        verdict={"decision": "pass", "candidate": request.param, "graph_sha256": graph_sha256},
        evidence={"trace_digest": "00ff", "seeds": [1], "windows_s": {}},
        limits=Limits(),
        parity=bundle.Parity.record(policy.load(source).infer, windows),
        key=KEY,
    )
    return request.param, out


def test_trusting_a_bundle(figure: Figure, signed: tuple[str, Path]) -> None:
    """`verify` beside bare hashing and one signature, `open` beside loading the graph and running every window."""
    learner, folder = signed
    key = KEY.public_key()

    def hashed() -> None:
        for path in folder.iterdir():
            hashlib.sha256(path.read_bytes())
        key.verify(bytes.fromhex((folder / "manifest.sig").read_text()), (folder / "manifest.json").read_bytes())

    def run() -> None:
        session = bare_graph(folder / "graph.onnx")
        with np.load(folder / "parity.npz") as arrays:
            for window in arrays["windows"]:
                session.run(None, {"window": window[None]})

    def bound(name: str, call: Callable[[], object], floor: Callable[[], object], most: float) -> None:
        spent_s, bare_s = cheapest(call, floor, rounds=5)
        assert figure(f"bundle of {learner}, {name}", 1e3 * spent_s, "ms CPU", 1e3 * bare_s) <= most

    bound("verify", lambda: bundle.verify(folder, key), hashed, 5)
    bound(f"open ({WINDOWS} parity windows)", lambda: bundle.open(folder, key), run, 5)
