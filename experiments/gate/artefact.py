"""Is what would be deployed what was judged?"""

from __future__ import annotations

import math

from experiments.gate.rules import Evidence, Rules
from experiments.gate.verdict import Check, Result


def parity(evidence: Evidence, rules: Rules) -> list[Check]:
    """The exported policy answers as the trained one did."""
    error = evidence.parity_error
    if error is not None and not math.isfinite(error):
        error = None
    result: Result = "pass" if error is not None and abs(error) <= rules.max_parity_error else "refuse"
    return [
        Check(
            "parity",
            f"exported and trained policy differ by at most {rules.max_parity_error:g} on the same observations",
            rules.max_parity_error,
            error,
            None,
            None,
            result,
            "the difference was not measured, or is not a number" if error is None else f"largest difference {error:g}",
            "export again, and compare on recorded observations; what differs is not what was judged",
        )
    ]
