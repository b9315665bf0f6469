from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import polars as pl
import pytest
from omegaconf import OmegaConf

from experiments.gate.rules import Evidence, Rules

CONF = Path(__file__).parents[3] / "conf" / "gate"
SCENARIOS = ("steady", "flash_crowd")
# kpi, entity, unit, level, noise
KPIS = (
    ("cost_usd", "cluster", "USD", 100.0, 1.0),
    ("late_ratio", "cell", "ratio", 0.02, 0.0005),
    ("scale_events", "cell", "count", 50.0, 0.0),
    ("limited_ratio", "cell", "ratio", 0.02, 0.0),
    ("handover_ratio", "cell", "ratio", 0.03, 0.0),
)

Build = Callable[..., Evidence]


def results(rng: np.random.Generator, seeds: int, gain: float) -> pl.DataFrame:
    """Runs of "learned" and "hpa"; `gain` is the share of the cost that the learned one saves."""
    rows = [
        (controller, scenario, seed, kpi, entity, level * saved + noise * rng.normal(), unit, "lower")
        for controller in ("learned", "hpa")
        for scenario in SCENARIOS
        for seed in range(seeds)
        for kpi, entity, unit, level, noise in KPIS
        for saved in [1.0 - gain * (kpi == "cost_usd" and controller == "learned")]
    ]
    names = ["controller", "scenario", "seed", "kpi", "entity", "value", "unit", "better"]
    return pl.DataFrame(rows, schema=names, orient="row")


@pytest.fixture(scope="session")
def build() -> Build:
    """Evidence of a candidate that is 10 % cheaper and else equal, with any field changed, and `spoil` applied."""

    def evidence(
        spoil: pl.Expr | None = None, seeds: int = 10, gain: float = 0.1, draw: int = 1, **changes: Any
    ) -> Evidence:
        frame = results(np.random.default_rng(draw), seeds, gain)
        if spoil is not None:
            frame = frame.with_columns(value=spoil)
        fields = {
            "results": frame,
            "candidate": "learned",
            "baseline": "hpa",
            "policy": "mlp@1",
            "train_until_s": 86_400.0,
            "held_out_from_s": 86_400.0,
            "parity_error": 1e-6,
        }
        return Evidence(**{**fields, **changes})

    return evidence


@pytest.fixture(scope="session")
def rules() -> Rules:
    # the thresholds that ship; the scenarios are those of these tests: whatever is in the results
    return hydra.utils.instantiate(OmegaConf.load(CONF / "default.yaml"), scenarios=[])


@pytest.fixture(scope="session")
def loosened(rules) -> Callable[..., Rules]:
    """The default rules with some of them changed."""
    return lambda **changes: replace(rules, **changes)
