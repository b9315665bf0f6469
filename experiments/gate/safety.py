"""Does the candidate behave? Limits, handovers and churn, each in its worst scenario, and a reason for everything."""

from __future__ import annotations

import math
from statistics import fmean

from experiments.gate.rules import (
    CHURN,
    HANDOVER,
    LIMITED,
    Evidence,
    Rules,
    by_seed,
    paired,
    scenarios,
    services,
)
from experiments.gate.verdict import Check, Result


def limited(evidence: Evidence, rules: Rules) -> list[Check]:
    """The limits had to step in seldom."""
    return [
        _worst_share(
            "limited",
            LIMITED,
            f"limits change at most {100 * rules.max_limited_ratio:g} % of the decisions",
            rules.max_limited_ratio,
            "train with the limits in the loop, so that the policy wishes what it may have",
            evidence,
            rules,
        )
    ]


def handover(evidence: Evidence, rules: Rules) -> list[Check]:
    """The fallback had to decide seldom."""
    return [
        _worst_share(
            "handover",
            HANDOVER,
            f"the fallback takes at most {100 * rules.max_handover_ratio:g} % of the decisions",
            rules.max_handover_ratio,
            "read the reasons in the decision table: failures, low confidence, or a long warm-up",
            evidence,
            rules,
        )
    ]


def churn(evidence: Evidence, rules: Rules) -> list[Check]:
    """It scales not much more often than the baseline."""
    ratios = {}
    for scenario in scenarios(evidence, rules):
        for service in services(evidence):
            candidate, baseline = (float(side.sum()) for side in paired(evidence, scenario, CHURN, service))
            ratio = candidate / baseline if baseline else 1.0 if not candidate else math.inf
            ratios[ratio, scenario, service] = f"{candidate:g} scale events against {baseline:g}"
    worst = max(ratios, default=None)
    value = worst[0] if worst else math.nan
    result: Result = "cannot tell" if not math.isfinite(value) else _within(value, rules.max_churn_ratio)
    return [
        Check(
            "churn",
            f"over all seeds of a scenario there are at most {rules.max_churn_ratio:g} x the baseline's scale events",
            rules.max_churn_ratio,
            value if math.isfinite(value) else None,
            None,
            None,
            result,
            f"{ratios[worst]} in {worst[1]}, {worst[2]}" if worst else "no scale events were counted",
            "penalise changes in training, or widen the policy's dead band",
        )
    ]


def explained(evidence: Evidence, rules: Rules) -> list[Check]:  # noqa: ARG001 - every check takes both
    """Every decision says why; not checked when the decisions were not kept."""
    if evidence.decisions is None:
        return []
    reasons = evidence.decisions["reason"].str.strip_chars()
    silent = int((reasons == "").sum())
    return [
        Check(
            "explained",
            "every decision carries a reason",
            0.0,
            float(silent),
            None,
            None,
            _within(silent, 0),
            f"{silent} of {len(reasons)} decisions have no reason",
            "let the policy word a reason for each action",
        )
    ]


def _worst_share(name: str, kpi: str, rule: str, most: float, remedy: str, evidence: Evidence, rules: Rules) -> Check:
    shares = {}
    for scenario in scenarios(evidence, rules):
        for service in services(evidence):
            values = [*by_seed(evidence, evidence.candidate, scenario, kpi, service).values()]
            if values:
                shares[fmean(values), scenario, service] = values
    worst = max(shares, default=None)
    if worst is None:
        return Check(name, rule, most, None, None, None, "cannot tell", f"{kpi} was not recorded", remedy)
    value, scenario, service = worst
    low, high = min(shares[worst]), max(shares[worst])
    found = f"{100 * value:.3g} % in {scenario}, {service}, the worst; {100 * low:.3g} to {100 * high:.3g} % by seed"
    return Check(name, rule, most, value, low, high, _within(value, most), found, remedy)


def _within(value: float, most: float) -> Result:
    return "pass" if value <= most else "refuse"
