"""One cell of a study: one controller on one scenario with one seed, built from plain configuration.

A cell is data, so that it can be sent to another process; whoever receives it builds the same objects from it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from experiments.split import Split
from twin.errors import UsageError
from twin.trace.trace import Trace
from twin.types import Cluster

if TYPE_CHECKING:
    from twin.simulation import Run


@dataclass(frozen=True, slots=True)
class Cell:
    """`part` says which time is replayed: "held_out" (its first `days`), "validation", or "all"."""

    scene: dict[str, Any]  # trace, cluster, scheduler, limits, record, split: plain configuration
    scenario: dict[str, Any]
    controller: dict[str, Any]
    seed: int
    part: str = "held_out"
    days: float | None = None
    until_s: float | None = None


def scene(cfg: DictConfig) -> dict[str, Any]:
    """The plain configuration that all cells of a study share."""
    keys = ("trace", "cluster", "scheduler", "limits", "record", "split")
    return {key: plain(cfg[key]) for key in keys}


def plain(node: Any) -> Any:  # noqa: ANN401 - any configuration value
    """A configuration node as plain Python, interpolations resolved."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


@lru_cache(maxsize=4)
def _trace(config: str) -> Trace:
    return build(json.loads(config))


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
        events=events,
        record=build(cell.scene["record"]),
        limits=build(cell.scene["limits"]),
        until_s=cell.until_s,
        seed=cell.seed,
        progress=progress,
    )
    return done, warmup_s
