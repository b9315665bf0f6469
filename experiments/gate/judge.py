"""The promotion gate: evidence and rules in, a verdict out; a pure function without side effects.

Any check that refuses refuses; otherwise any that cannot tell, or a confidence below the rules' minimum, calls a
human; otherwise the candidate passes. Checks never raise for what the evidence lacks: they refuse, and say so.
"""

from __future__ import annotations

from collections.abc import Callable

from experiments.gate import artefact, data, performance, safety
from experiments.gate.rules import Evidence, Rules
from experiments.gate.verdict import Check, DecisionWord, Verdict

CHECKS: tuple[Callable[[Evidence, Rules], list[Check]], ...] = (
    data.provenance,
    data.complete,
    data.seeds,
    data.finite,
    data.held_out,
    performance.late,
    performance.cost,
    performance.benefit,
    safety.limited,
    safety.handover,
    safety.churn,
    safety.explained,
    artefact.parity,
)


def judge(evidence: Evidence, rules: Rules) -> Verdict:
    """The verdict on `evidence.candidate`; the same evidence and rules give the same verdict."""
    checks = tuple(check for family in CHECKS for check in family(evidence, rules))
    estimated = [check.probability for check in checks if check.probability is not None]
    confidence = min(estimated, default=0.0)
    decision = _decide(checks, confidence, rules)
    sentence = _sentence(decision, checks, confidence, evidence, rules)
    return Verdict(decision, evidence.candidate, evidence.baseline, confidence, sentence, checks)


def _decide(checks: tuple[Check, ...], confidence: float, rules: Rules) -> DecisionWord:
    results = {check.result for check in checks}
    if "refuse" in results:
        return "refuse"
    return "needs a human" if "cannot tell" in results or confidence < rules.min_confidence else "pass"


def _sentence(
    decision: DecisionWord, checks: tuple[Check, ...], confidence: float, evidence: Evidence, rules: Rules
) -> str:
    who = f"{evidence.policy} ({evidence.candidate}) in place of {evidence.baseline}"
    if decision == "pass":
        return f"Pass: {who}; {_gain(checks)}; all {len(checks)} checks hold, confidence {_percent(confidence)}."
    decisive = [c for c in checks if c.result == ("refuse" if decision == "refuse" else "cannot tell")]
    opening = "Refuse" if decision == "refuse" else "Needs a human"
    if not decisive:
        return f"{opening}: {who}; confidence {_percent(confidence)} is below {_percent(rules.min_confidence)}."
    more = f" (and {len(decisive) - 1} more)" if len(decisive) > 1 else ""
    first = decisive[0]
    return f"{opening}: {who}; {first.evidence}; threshold {first.threshold:g}{more}."


def _gain(checks: tuple[Check, ...]) -> str:
    (gain,) = (check for check in checks if check.name == "benefit")
    risks = [check.high for check in checks if check.name.startswith("late ratio") and check.high is not None]
    return f"{gain.evidence}; no late ratio rises by more than {max(*risks, 0.0):.4g}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
