"""Can the evidence be judged at all? Finite, paired, complete, held out."""

from __future__ import annotations

import math
from collections.abc import Iterator

from experiments.gate.rules import (
    CHURN,
    CLUSTER,
    COST,
    HANDOVER,
    LATE,
    LIMITED,
    Cell,
    Evidence,
    Rules,
    runs,
    scenarios,
    services,
)
from experiments.gate.verdict import Check, Result

_SHOWN = 3


def finite(evidence: Evidence, rules: Rules) -> list[Check]:
    """Every judged KPI of every run is a finite number."""
    bad = [
        f"{cell.kpi} of {cell.entity} is {_word(value)} for {cell.controller}, scenario {cell.scenario}, seed {seed}"
        for cell, seed, value in _cells(evidence, rules)
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
        scenario: len({*runs(evidence, evidence.candidate, scenario)} & {*runs(evidence, evidence.baseline, scenario)})
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
            f"{least} paired seeds in scenario {worst!r}, the fewest of {len(pairs)}"
            if pairs
            else "no scenario was run",
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
    if not services(evidence):
        missing.append(f"no service of {evidence.candidate} or {evidence.baseline} has a {LATE}")
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


def provenance(evidence: Evidence, rules: Rules) -> list[Check]:  # noqa: ARG001 - every check takes both
    """The results are about this very policy, and from the comparison that is asked for."""
    found = evidence.mismatches
    return [
        _counted(
            "provenance",
            "the results are of this policy's graph, on its training trace, under the declared scenarios, in full",
            0.0,
            len(found),
            not found,
            "; ".join(found) or "policy, trace, scenarios and incumbent are those that were benchmarked",
            "benchmark this policy under the scenarios and against the incumbent that promote is configured with",
        )
    ]


def _counted(name: str, rule: str, threshold: float, value: float, holds: bool, evidence: str, remedy: str) -> Check:
    result: Result = "pass" if holds else "refuse"
    return Check(name, rule, float(threshold), float(value), None, None, result, evidence, remedy)


def _cells(evidence: Evidence, rules: Rules) -> Iterator[tuple[Cell, int, float | None]]:
    """What each run must tell, and what it does tell; None: nothing."""
    names = services(evidence)
    both = [(COST, CLUSTER), *((kpi, service) for service in names for kpi in (LATE, CHURN))]
    own = [(kpi, service) for service in names for kpi in (LIMITED, HANDOVER)]
    for scenario in scenarios(evidence, rules):
        for controller, judged in ((evidence.candidate, both + own), (evidence.baseline, both)):
            for kpi, entity in judged:
                cell = Cell(controller, scenario, kpi, entity)
                told = evidence.cells.get(cell, {})
                for seed in runs(evidence, controller, scenario):
                    yield cell, seed, told.get(seed)


def _word(value: float | None) -> str:
    return "missing" if value is None else str(value)
