"""One cell of a study: one controller on one scenario with one seed, built from plain configuration.

A cell is data, so that it can be sent to another process; whoever receives it builds the same objects from it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from experiments.split import Split
from twin.errors import PolicyError, UsageError
from twin.trace.trace import Trace
from twin.types import Cluster

if TYPE_CHECKING:
    from twin.simulation import Run


@dataclass(frozen=True, slots=True)
class Cell:
    """`part` says which time is replayed: "held_out" (its first `days`), "validation", or "all"."""

    scene: dict[str, Any]  # trace, cluster, scheduler, serving, limits, record, split: plain configuration
    scenario: dict[str, Any]
    controller: dict[str, Any]
    seed: int
    part: str = "held_out"
    days: float | None = None
    until_s: float | None = None


def scene(cfg: DictConfig) -> dict[str, Any]:
    """The plain configuration that all cells of a study share."""
    keys = ("trace", "cluster", "scheduler", "serving", "limits", "record", "split")
    return {key: plain(cfg[key]) for key in keys}


def plain(node: Any) -> Any:  # noqa: ANN401 - any configuration value
    """A configuration node as plain Python, interpolations resolved."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


@lru_cache(maxsize=4)
def _trace(config: str) -> Trace:
    return build(json.loads(config))


def fingerprinted(config: Any) -> Any:  # noqa: ANN401 - any plain configuration value
    """The configuration with every policy folder replaced by the digest of the graph and spec in it.

    What a controller does depends on those bytes, not on where they lie.
    """
    if isinstance(config, list):
        return [fingerprinted(each) for each in config]
    if not isinstance(config, dict):
        return config
    if config.get("_target_") == "agents.policy.load":
        return {**config, "folder": policy_digest(Path(str(config["folder"])))}
    return {key: fingerprinted(value) for key, value in config.items()}


def policy_digest(folder: Path) -> str:
    """SHA-256 over `graph.onnx` and `policy.json`; raises PolicyError when there is no policy in the folder."""
    digest = hashlib.sha256()
    for name in ("graph.onnx", "policy.json"):
        try:
            digest.update((folder / name).read_bytes())
        except OSError as error:
            raise PolicyError(f"{folder}: no policy: {error}; train one with python -m experiments.train") from error
    return f"sha256:{digest.hexdigest()}"


def code_digest() -> str:
    """A digest of the code that decides what a cell says: twin, scenarios, agents."""
    digest = hashlib.blake2b(digest_size=8)
    root = Path(__file__).resolve().parent.parent
    for package in ("twin", "scenarios", "agents"):
        for path in sorted((root / package).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def read_trace(config: Any) -> Trace:  # noqa: ANN401 - any configuration value
    """The trace that a configuration names; the last ones read are kept in memory."""
    return _trace(json.dumps(plain(config), sort_keys=True))


def build(config: Any) -> Any:  # noqa: ANN401 - whatever the configuration constructs
    """What a configuration's `_target_` constructs, lists and dicts being plain ones."""
    return instantiate(config, _convert_="all")


def stage(cell: Cell) -> tuple[Trace, Cluster, tuple, float]:
    """(trace, cluster, events, warm-up seconds) of the cell, the scenario applied."""
    split: Split = build(cell.scene["split"])
    whole = read_trace(cell.scene["trace"])
    if cell.part == "held_out":
        trace, warmup_s = split.held_out(whole, cell.days), split.warmup_s
    elif cell.part == "validation":
        trace, warmup_s = split.validation(whole), split.warmup_s
    elif cell.part == "all":
        trace, warmup_s = whole, 0.0
    else:
        raise UsageError(f"part={cell.part} must be all, validation or held_out")
    cluster: Cluster = build(cell.scene["cluster"])
    return (*build(cell.scenario).apply(trace, cluster), warmup_s)


def run(cell: Cell, progress: Callable[[float], None] | None = None) -> tuple[Run, float]:
    """(the run, its warm-up seconds): `run.kpis(warmup_s)` scores what came after."""
    from twin.simulation import simulate

    trace, cluster, events, warmup_s = stage(cell)
    done = simulate(
        trace,
        cluster,
        controller=build(cell.controller),
        scheduler=build(cell.scene["scheduler"]),
        serving=build(cell.scene["serving"]),
        events=events,
        record=build(cell.scene["record"]),
        limits=build(cell.scene["limits"]),
        until_s=cell.until_s,
        seed=cell.seed,
        progress=progress,
    )
    return done, warmup_s
