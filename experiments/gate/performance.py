"""Is the candidate good enough in every scenario, and better than the baseline in at least one?

All comparisons are paired seed by seed and share one error level by Bonferroni: with m comparisons (scenarios x
(services + cost)) each interval has the level 1 - (1 - level) / m, so that all of them hold together with `level`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from experiments.gate.rules import CLUSTER, COST, LATE, Evidence, Rules, paired, scenarios, services
from experiments.gate.verdict import Check, Result
from experiments.intervals import Means, means, paired_ratios, values_needed
from twin.seeds import child


@dataclass(frozen=True, slots=True)
class _Comparison:
    """One KPI of one entity in one scenario: candidate minus baseline (late), or divided by it (cost).

    `low` to `high` is the interval of level `level`, one of `chances` comparisons.
    """

    scenario: str
    kpi: str
    entity: str
    estimate: Means
    level: float
    chances: int
    low: float
    high: float
    sides: str

    @property
    def neutral(self) -> float:
        """The value that means: no difference."""
        return 1.0 if self.kpi == COST else 0.0

    @property
    def numbers(self) -> tuple[float | None, float | None, float | None]:
        """Value, low and high; None where there is no such number."""
        value, low, high = (x if math.isfinite(x) else None for x in (self.estimate.value, self.low, self.high))
        return value, low, high

    def better(self, chances: int = 1) -> float:
        """How sure it is that the candidate is better, when it was picked out of `chances`."""
        return self.estimate.probability_below(float(np.nextafter(self.neutral, -np.inf)), chances)

    def __str__(self) -> str:
        what = f"{'cost' if self.kpi == COST else f'late ratio of {self.entity}'} in {self.scenario}"
        if not self.estimate.count:
            return f"{what} cannot be compared: no common seed, or a baseline of 0"
        if math.isnan(self.high):
            return (
                f"{what} cannot be judged by {self.estimate.count} seeds: an interval of {_percent(self.level)} "
                f"needs {values_needed(self.level)}"
            )
        sign, unit = ("", " x the baseline") if self.kpi == COST else ("+", "")
        interval = f"{self.low:{sign}.4g} to {self.high:{sign}.4g}"
        return f"{what} {self.estimate.value:{sign}.4g}{unit} ({interval}; {self.sides})"


def late(evidence: Evidence, rules: Rules) -> list[Check]:
    """In every scenario no service answers late noticeably more often."""
    most = rules.max_late_increase
    rule = f"the late ratio exceeds the baseline's by at most {most:g}"
    return [
        _not_worse(f"late ratio, {c.scenario}, {c.entity}", rule, most, c)
        for c in _comparisons(evidence, rules, (LATE,))
    ]


def cost(evidence: Evidence, rules: Rules) -> list[Check]:
    """In every scenario it costs at most so much more."""
    most = rules.max_cost_ratio
    rule = f"the cost is at most {most:g} x the baseline's"
    return [_not_worse(f"cost, {c.scenario}", rule, most, c) for c in _comparisons(evidence, rules, (COST,))]


def benefit(evidence: Evidence, rules: Rules) -> list[Check]:
    """Somewhere it is better: cheaper, or late less often, by more than chance.

    The numbers are the improvement of the best comparison: saved share of the cost, or late ratio taken off.
    """
    compared = _comparisons(evidence, rules, (COST, LATE))
    if not compared:
        return []  # without scenarios there is nothing to compare, and `complete` refuses
    best = max(compared, key=lambda c: (c.high < c.neutral, c.better()))
    result: Result = "cannot tell"
    if best.high < best.neutral:
        result = "pass"
    elif all(c.low >= c.neutral for c in compared):
        result = "refuse"
    value, low, high = (None if x is None else best.neutral - x for x in best.numbers)
    return [
        Check(
            name="benefit",
            rule=f"in at least one scenario cost or late ratio is better than the baseline's, {_stated(best)}",
            threshold=0.0,
            value=value,
            low=high,
            high=low,
            result=result,
            evidence=f"{'best' if result == 'pass' else 'nothing beyond chance: best'} is {best}",
            remedy="run more seeds, or keep the baseline: there may be nothing to gain",
            probability=best.better(best.chances),
        )
    ]


def _comparisons(evidence: Evidence, rules: Rules, kpis: Sequence[str]) -> list[_Comparison]:
    judged = [(COST, CLUSTER), *((LATE, service) for service in services(evidence))]
    named = [(scenario, kpi, entity) for scenario in scenarios(evidence, rules) for kpi, entity in judged]
    level = 1.0 - (1.0 - rules.level) / max(len(named), 1)
    return [_compare(evidence, *each, level, len(named)) for each in named if each[1] in kpis]


def _compare(evidence: Evidence, scenario: str, kpi: str, entity: str, level: float, chances: int) -> _Comparison:
    candidate, baseline = paired(evidence, scenario, kpi, entity)
    values = paired_ratios(candidate, baseline) if kpi == COST else candidate - baseline
    if np.isnan(values).any():  # leaving out the seed that has no ratio would flatter the candidate
        values = values[:0]
    estimate = means(values, child(evidence.seed, f"{scenario}/{kpi}/{entity}"))
    sides = f"{candidate.mean():.4g} against {baseline.mean():.4g}, {len(values)} seeds" if len(values) else ""
    return _Comparison(scenario, kpi, entity, estimate, level, chances, *estimate.interval(level), sides)


def _not_worse(name: str, rule: str, most: float, c: _Comparison) -> Check:
    value, low, high = c.numbers
    result: Result = "pass" if c.high <= most else "refuse" if c.low > most else "cannot tell"
    return Check(
        name=name,
        rule=f"{rule}, {_stated(c)}",
        threshold=most,
        value=value,
        low=low,
        high=high,
        result=result,
        evidence=str(c),
        remedy="run more seeds" if result == "cannot tell" else "train for this scenario, or keep the baseline",
        probability=c.estimate.probability_below(most),
    )


def _stated(c: _Comparison) -> str:
    family = 1.0 - (1.0 - c.level) * c.chances
    return f"by an interval of {_percent(c.level)} ({_percent(family)} for {c.chances} comparisons, Bonferroni)"


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"
