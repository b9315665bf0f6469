"""What the gate says: checks, and the verdict that they add up to; both are plain data with a strict JSON form."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Literal, NoReturn

from twin.errors import UsageError

Result = Literal["pass", "refuse", "cannot tell"]
DecisionWord = Literal["pass", "refuse", "needs a human"]


@dataclass(frozen=True, slots=True)
class Check:
    """One rule held against the evidence.

    `value` with its interval `low` to `high` is compared with `threshold`; None: there is no such number. `rule` is
    the rule as a sentence, `evidence` what was found, `remedy` what to do when it does not pass. `probability` is how
    sure it is that the rule holds (None: the rule is counted, not estimated).
    """

    name: str
    rule: str
    threshold: float
    value: float | None
    low: float | None
    high: float | None
    result: Result
    evidence: str
    remedy: str
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """May the candidate take the baseline's place?

    `confidence` is the smallest probability, over the checks of performance, that the check's rule holds; it is about
    promoting, so it is low when the verdict is a refusal.
    """

    decision: DecisionWord
    candidate: str
    baseline: str
    confidence: float
    sentence: str
    checks: tuple[Check, ...]


def to_json(verdict: Verdict) -> str:
    """The verdict as strict JSON: numbers that are not finite become null."""
    return json.dumps(_finite(asdict(verdict)), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def from_json(text: str) -> Verdict:
    """The verdict that `to_json` wrote; raises UsageError when the text is anything else."""
    try:
        raw = json.loads(text, parse_constant=_no_constant)
        checks = tuple(Check(**check) for check in raw.pop("checks"))
        verdict = Verdict(checks=checks, **raw)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"not a verdict: {error}; the gate writes one as verdict.json") from error
    words = {"pass", "refuse", "needs a human"}
    if verdict.decision not in words:
        raise UsageError(f"not a verdict: decision={verdict.decision!r} must be one of {sorted(words)}")
    return verdict


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON number")


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
