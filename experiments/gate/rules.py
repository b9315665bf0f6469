"""What is judged and by which rules: `Evidence`, `Rules`, and how the checks read the evidence in pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from experiments.intervals import check_cells
from twin.errors import UsageError
from twin.trace import tables

CLUSTER = "cluster"
COST, LATE, CHURN = "cost_usd", "late_ratio", "scale_events"
LIMITED, HANDOVER = "limited_ratio", "handover_ratio"


class Cell(NamedTuple):
    """What a value of the results is about."""

    controller: str
    scenario: str
    kpi: str
    entity: str


@dataclass(frozen=True, slots=True)
class Rules:
    """The thresholds of the gate; their values live in `conf/gate/`.

    Attributes:
        scenarios: held-out scenarios that both must have run; none named: all that are in the results.
        min_seeds: paired seeds that each scenario needs.
        level: probability with which all comparisons together are right (shared out by Bonferroni).
        max_late_increase: how much larger the late ratio may be than the baseline's, as a difference of ratios.
        max_cost_ratio: how much the candidate may cost, as a multiple of the baseline.
        max_limited_ratio: largest share of decisions that a limit may have changed.
        max_handover_ratio: largest share of decisions that the fallback may have taken.
        max_churn_ratio: how many scale events there may be, as a multiple of the baseline's.
        max_parity_error: largest difference between the exported policy's answers and the trained one's.
        min_confidence: below it a human decides.
    """

    scenarios: Sequence[str]
    min_seeds: int
    level: float
    max_late_increase: float
    max_cost_ratio: float
    max_limited_ratio: float
    max_handover_ratio: float
    max_churn_ratio: float
    max_parity_error: float
    min_confidence: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "scenarios", tuple(self.scenarios))  # Hydra hands over its own list
        if not (0.5 < self.level < 1.0 and 0.0 <= self.min_confidence <= 1.0 and self.min_seeds >= 2):
            raise UsageError(
                f"gate: level={self.level} must be in (0.5, 1), min_confidence={self.min_confidence} in [0, 1], "
                f"min_seeds={self.min_seeds} at least 2"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What is known of a candidate.

    Attributes:
        results: `results` table of the held-out runs of candidate and baseline (others may be in it).
        candidate: label of the judged controller in `results`.
        baseline: label of the controller whose place it would take.
        policy: id and version of the judged policy.
        train_until_s: end of what the policy was trained on, in seconds of the recording.
        held_out_from_s: start of what it is judged on.
        parity_error: largest difference between exported and trained policy (None: not measured).
        decisions: `decisions` table of the candidate's runs (None: not kept).
        mismatches: where the results are not about this policy, or not the comparison that is asked for.
        seed: of the bootstrap.
        cells: what `results` tell of the two, as (controller, scenario, KPI, entity) -> seed -> value; derived.

    Raises:
        SchemaError: a table does not fit its schema.
        UsageError: a cell is in `results` twice.
    """

    results: pl.DataFrame
    candidate: str
    baseline: str
    policy: str
    train_until_s: float
    held_out_from_s: float
    parity_error: float | None
    decisions: pl.DataFrame | None = None
    mismatches: tuple[str, ...] = ()
    seed: int = 0
    cells: Mapping[Cell, Mapping[int, float | None]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        results = tables.conform(self.results, "results", "evidence")
        check_cells(results)
        object.__setattr__(self, "results", results)
        if self.decisions is not None:
            object.__setattr__(self, "decisions", tables.conform(self.decisions, "decisions", "evidence"))
        cells: dict[Cell, dict[int, float | None]] = {}
        known = results.filter(pl.col("controller").is_in([self.candidate, self.baseline])).sort("seed")
        for *cell, seed, value in known.select(*Cell._fields, "seed", "value").iter_rows():
            cells.setdefault(Cell(*cell), {})[seed] = value
        object.__setattr__(self, "cells", cells)


def scenarios(evidence: Evidence, rules: Rules) -> list[str]:
    """The scenarios to judge: the declared ones, or else all that candidate or baseline ran."""
    return list(rules.scenarios) or sorted({cell.scenario for cell in evidence.cells})


def services(evidence: Evidence) -> list[str]:
    """The services with a late ratio, in alphabetical order."""
    return sorted({cell.entity for cell in evidence.cells if cell.kpi == LATE})


def runs(evidence: Evidence, controller: str, scenario: str) -> list[int]:
    """The seeds with which a controller ran a scenario, in order."""
    found = (seeds for cell, seeds in evidence.cells.items() if cell[:2] == (controller, scenario))
    return sorted(set().union(*found))


def by_seed(evidence: Evidence, controller: str, scenario: str, kpi: str, entity: str) -> dict[int, float]:
    """Seed -> value of one KPI, where it is finite."""
    found = evidence.cells.get(Cell(controller, scenario, kpi, entity), {})
    return {seed: value for seed, value in found.items() if value is not None and math.isfinite(value)}


def paired(evidence: Evidence, scenario: str, kpi: str, entity: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The candidate's and the baseline's values of one KPI, for the seeds that both ran."""
    candidate = by_seed(evidence, evidence.candidate, scenario, kpi, entity)
    baseline = by_seed(evidence, evidence.baseline, scenario, kpi, entity)
    common = [seed for seed in candidate if seed in baseline]
    return np.array([candidate[seed] for seed in common]), np.array([baseline[seed] for seed in common])
