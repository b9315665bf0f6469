"""Can the evidence be judged at all? Finite, paired, complete, held out."""

from __future__ import annotations

import math
from collections.abc import Iterator

import polars as pl

from experiments.gate.rules import (
    CHURN,
    CLUSTER,
    COST,
    HANDOVER,
    LATE,
    LIMITED,
    Evidence,
    Rules,
    judged,
    runs,
    scenarios,
    services,
)
from experiments.gate.verdict import Check, Result

_SHOWN = 3


def finite(evidence: Evidence, rules: Rules) -> list[Check]:
    """Every judged KPI of every run is a finite number."""
    bad = [
        f"{kpi} of {entity} is {_word(value)} for {controller}, scenario {scenario}, seed {seed}"
        for (controller, scenario, seed), kpi, entity, value in _cells(evidence, rules)
        if value is None or not math.isfinite(value)
    ]
    shown = "; ".join(bad[:_SHOWN]) + (f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else "")
    return [
        _counted(
            "finite",
            "every judged KPI of every run is a finite number",
            0.0,
            len(bad),
            not bad,
            shown or "all judged KPIs are finite",
            "find out why the run could not be scored, and repeat it; no value is made up for it",
        )
    ]


def seeds(evidence: Evidence, rules: Rules) -> list[Check]:
    """Every scenario was run with enough seeds by both."""
    pairs = {
        scenario: len(runs(evidence, evidence.candidate, scenario) & runs(evidence, evidence.baseline, scenario))
        for scenario in scenarios(evidence, rules)
    }
    worst = min(pairs, key=lambda scenario: pairs[scenario], default="")
    least = pairs.get(worst, 0)
    return [
        _counted(
            "seeds",
            f"each scenario was run by both controllers with at least {rules.min_seeds} common seeds",
            rules.min_seeds,
            least,
            least >= rules.min_seeds,
            f"{least} paired seeds in scenario {worst!r}, the fewest of {len(pairs)} scenarios",
            f"run candidate and baseline with the same {rules.min_seeds} seeds or more",
        )
    ]


def complete(evidence: Evidence, rules: Rules) -> list[Check]:
    """Every declared scenario was run by both."""
    declared = scenarios(evidence, rules)
    missing = [
        f"{controller} has not run {scenario!r}"
        for scenario in declared
        for controller in (evidence.candidate, evidence.baseline)
        if not runs(evidence, controller, scenario)
    ]
    if not declared:
        missing = [f"there are no results of {evidence.candidate} and {evidence.baseline}"]
    return [
        _counted(
            "scenarios",
            "every declared scenario was run by candidate and baseline",
            0.0,
            len(missing),
            not missing,
            "; ".join(missing) or f"all {len(declared)} scenarios were run by both: {', '.join(declared)}",
            "run the missing scenarios; a scenario that was left out may be the one that fails",
        )
    ]


def held_out(evidence: Evidence, rules: Rules) -> list[Check]:  # noqa: ARG001 - every check takes both
    """Judging begins where training ended, or later."""
    gap_s = evidence.held_out_from_s - evidence.train_until_s
    return [
        _counted(
            "held out",
            "the recording that is judged on begins when the one that was trained on has ended",
            0.0,
            gap_s,
            gap_s >= 0,
            f"trained until {evidence.train_until_s:g} s, judged from {evidence.held_out_from_s:g} s",
            "judge on a later part of the recording, or train on an earlier one",
        )
    ]


def _counted(name: str, rule: str, threshold: float, value: float, holds: bool, evidence: str, remedy: str) -> Check:
    result: Result = "pass" if holds else "refuse"
    return Check(name, rule, float(threshold), float(value), None, None, result, evidence, remedy)


def _cells(evidence: Evidence, rules: Rules) -> Iterator[tuple[tuple, str, str, float | None]]:
    """((controller, scenario, seed), KPI, entity, value) of what each run must tell; None: it does not."""
    wanted = scenarios(evidence, rules)
    both = [(COST, CLUSTER), *((kpi, service) for service in services(evidence) for kpi in (LATE, CHURN))]
    own = [(kpi, service) for service in services(evidence) for kpi in (LIMITED, HANDOVER)]
    rows = judged(evidence).filter(pl.col("scenario").is_in(wanted)).sort("controller", "scenario", "seed")
    for run, group in rows.group_by(["controller", "scenario", "seed"], maintain_order=True):
        told = {(kpi, entity): value for kpi, entity, value in group.select("kpi", "entity", "value").iter_rows()}
        for kpi, entity in both + (own if run[0] == evidence.candidate else []):
            yield run, kpi, entity, told.get((kpi, entity))


def _word(value: float | None) -> str:
    return "missing" if value is None else str(value)
