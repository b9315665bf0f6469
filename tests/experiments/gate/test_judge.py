"""The gate: what passes, what is refused, what it cannot tell, and that no rule is idle."""

import math
from pathlib import Path

import polars as pl
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from experiments.gate.judge import judge
from experiments.gate.rules import Evidence, Rules
from experiments.gate.verdict import Check, Verdict, from_json, to_json
from twin.errors import SchemaError, UsageError

CONF = Path(__file__).parents[3] / "conf" / "gate"
VALUE = pl.col("value")


def where(kpi: str, controller: str = "learned", **more: object) -> pl.Expr:
    condition = (pl.col("kpi") == kpi) & (pl.col("controller") == controller)
    for column, wanted in more.items():
        condition &= pl.col(column) == wanted
    return condition


def set_to(condition: pl.Expr, value: pl.Expr | float | None) -> pl.Expr:
    return pl.when(condition).then(value).otherwise(VALUE)


def check(verdict: Verdict, name: str) -> Check:
    (found,) = (c for c in verdict.checks if c.name == name)
    return found


def failing(verdict: Verdict) -> list[str]:
    return [c.name for c in verdict.checks if c.result != "pass"]


def test_a_candidate_that_is_cheaper_and_no_later_passes(build, rules):
    verdict = judge(build(), rules)
    assert (verdict.decision, failing(verdict)) == ("pass", [])
    assert verdict.confidence >= 0.8
    assert verdict.sentence.startswith("Pass: mlp@1 (learned) in place of hpa; best is cost in ")
    assert verdict.sentence.endswith("all 14 checks hold, confidence 92 %.")


def test_the_same_evidence_gives_the_same_verdict(build, rules):
    assert judge(build(), rules) == judge(build(), rules)


def test_a_dearer_candidate_is_refused(build, rules):
    verdict = judge(build(gain=-0.2), rules)
    assert verdict.decision == "refuse"
    assert {"cost, steady", "cost, flash_crowd"} <= set(failing(verdict))
    assert "cost in flash_crowd 1.199 x the baseline" in verdict.sentence


def test_a_later_candidate_is_refused_even_in_one_scenario(build, rules):
    later = set_to(where("late_ratio", scenario="flash_crowd"), VALUE + 0.02)
    verdict = judge(build(later), rules)
    assert verdict.decision == "refuse"
    assert failing(verdict) == ["late ratio, flash_crowd, cell"]
    assert verdict.confidence < 0.2


def test_one_bad_seed_in_ten_is_not_trimmed_away(build, rules):
    """A candidate that collapses in one of ten runs must not pass."""
    collapse = set_to(where("late_ratio", scenario="steady", seed=3), VALUE + 0.5)
    verdict = judge(build(collapse), rules)
    assert verdict.decision == "needs a human"
    assert failing(verdict) == ["late ratio, steady, cell"]


def test_an_interval_across_the_threshold_needs_a_human(build, rules):
    noisy = set_to(where("late_ratio"), VALUE + 0.004 + 0.01 * ((pl.col("seed") % 2) - 0.5))
    verdict = judge(build(noisy), rules)
    assert verdict.decision == "needs a human"
    assert check(verdict, "late ratio, steady, cell").result == "cannot tell"
    assert check(verdict, "late ratio, steady, cell").value == pytest.approx(0.004, abs=0.0005)
    assert check(verdict, "late ratio, steady, cell").remedy == "run more seeds"
    assert verdict.sentence.startswith("Needs a human: ")


def test_no_benefit_beyond_chance_needs_a_human(build, rules):
    verdict = judge(build(gain=0.0), rules)
    assert verdict.decision == "needs a human"
    assert failing(verdict) == ["benefit"]
    assert "nothing beyond chance" in verdict.sentence


def test_dearer_within_the_margin_and_maybe_not_later_needs_a_human(build, rules):
    """Surely no benefit in cost, but one in the late ratio cannot be ruled out."""
    verdict = judge(build(gain=-0.03), rules)
    assert (verdict.decision, failing(verdict)) == ("needs a human", ["benefit"])


def test_the_best_of_many_comparisons_is_not_taken_at_its_word(build, rules):
    """Of four comparisons without effect the best one looks sure; corrected for the choice it does not."""
    sure = [check(judge(build(gain=0.0, draw=draw), rules), "benefit").probability or 0.0 for draw in range(20)]
    assert sum(sure) / len(sure) < 0.55


def test_worse_everywhere_but_within_the_margins_is_refused_for_want_of_a_benefit(build, rules):
    worse = pl.when(where("late_ratio")).then(VALUE + 0.003).otherwise(VALUE)
    verdict = judge(build(worse, gain=-0.03), rules)
    assert (verdict.decision, failing(verdict)) == ("refuse", ["benefit"])


def test_the_baseline_against_itself_has_no_benefit(build, rules):
    verdict = judge(build(candidate="hpa"), rules)
    assert verdict.decision == "refuse"
    assert check(verdict, "benefit").result == "refuse"


def test_random_draws_of_the_same_controller_are_seldom_promoted(build, rules):
    """200 A/A draws, noise well inside the margins: at most 5 % may pass, by the level of the rules."""
    verdicts = [judge(build(gain=0.0, draw=draw, seed=draw), rules) for draw in range(200)]
    assert sum(v.decision == "pass" for v in verdicts) <= 10
    assert sum(check(v, "benefit").result == "pass" for v in verdicts) <= 10


# ------------------------------------------------ evidence that cannot be judged


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
@pytest.mark.parametrize(
    ("kpi", "entity", "controller"),
    [
        ("late_ratio", "cell", "learned"),
        ("cost_usd", "cluster", "hpa"),
        ("scale_events", "cell", "hpa"),
        ("handover_ratio", "cell", "learned"),
        ("limited_ratio", "cell", "learned"),
    ],
)
def test_a_value_that_is_no_number_refuses_and_says_which(build, rules, value, kpi, entity, controller):
    spoilt = set_to(where(kpi, controller, scenario="steady", seed=4), value)
    verdict = judge(build(spoilt), rules)
    assert verdict.decision == "refuse"
    found = check(verdict, "finite")
    assert (found.result, found.value) == ("refuse", 1)
    word = "missing" if value is None else str(value)
    assert f"{kpi} of {entity} is {word} for {controller}, scenario steady, seed 4" in found.evidence


def test_the_baseline_need_not_have_a_fallback(build, rules):
    assert judge(build(set_to(where("handover_ratio", "hpa"), None)), rules).decision == "pass"


def test_a_row_that_is_not_there_is_missing_too(build, rules):
    whole = build().results
    found = check(judge(build(results=whole.filter(~where("late_ratio", seed=2))), rules), "finite")
    assert found.value == 2
    assert "late_ratio of cell is missing for learned, scenario steady, seed 2" in found.evidence


def test_many_bad_values_are_counted_and_three_are_named(build, rules):
    found = check(judge(build(set_to(where("late_ratio"), None)), rules), "finite")
    assert found.value == 20
    assert found.evidence.count("late_ratio") == 3
    assert found.evidence.endswith("and 17 more")


def test_too_few_seeds_refuse(build, rules):
    verdict = judge(build(seeds=9), rules)
    assert verdict.decision == "refuse"
    assert check(verdict, "seeds").evidence.startswith("9 paired seeds")


def test_seeds_that_only_one_has_run_are_no_pairs(build, rules):
    whole = build().results
    odd = whole.filter((pl.col("controller") == "hpa") | (pl.col("seed") != 5) | (pl.col("scenario") != "steady"))
    found = check(judge(build(results=odd), rules), "seeds")
    assert (found.result, found.value) == ("refuse", 9)
    assert "'steady'" in found.evidence


def test_a_declared_scenario_that_was_not_run_refuses(build, loosened):
    verdict = judge(build(), loosened(scenarios=["steady", "node_failures"]))
    assert check(verdict, "scenarios").result == "refuse"
    assert "learned has not run 'node_failures'" in check(verdict, "scenarios").evidence


def test_only_the_declared_scenarios_are_judged(build, loosened):
    later = set_to(where("late_ratio", scenario="flash_crowd"), VALUE + 0.02)
    assert judge(build(later), loosened(scenarios=["steady"])).decision == "pass"


@pytest.mark.parametrize("absent", [{"candidate": "vpa"}, {"baseline": "vpa"}])
def test_a_controller_without_results_is_refused(build, rules, absent):
    verdict = judge(build(**absent), rules)
    assert verdict.decision == "refuse"
    assert "vpa has not run" in check(verdict, "scenarios").evidence


def test_no_results_at_all_are_refused(build, rules):
    verdict = judge(build(results=build().results.clear()), rules)
    assert verdict.decision == "refuse"
    assert verdict.confidence == 0.0


def test_results_without_late_ratios_are_refused(build, rules):
    verdict = judge(build(results=build().results.filter(pl.col("kpi") == "cost_usd")), rules)
    assert verdict.decision == "refuse"
    assert "late_ratio" in check(verdict, "scenarios").evidence


def test_judging_on_what_was_trained_on_is_refused(build, rules):
    verdict = judge(build(train_until_s=90_000.0), rules)
    assert (verdict.decision, failing(verdict)) == ("refuse", ["held out"])
    assert "trained until 90000 s, judged from 86400 s" in verdict.sentence
    assert judge(build(train_until_s=math.nan), rules).decision == "refuse"


@pytest.mark.parametrize("error", [None, math.nan, math.inf, 1e-4, -1e-4])
def test_an_export_that_differs_or_was_not_compared_is_refused(build, rules, error):
    assert failing(judge(build(parity_error=error), rules)) == ["parity"]


def test_a_baseline_that_costs_nothing_cannot_be_compared(build, rules):
    verdict = judge(build(set_to(where("cost_usd", "hpa"), 0.0)), rules)
    assert check(verdict, "cost, steady").result == "cannot tell"
    assert check(verdict, "cost, steady").value is None
    assert "a baseline of 0" in check(verdict, "cost, steady").evidence


@pytest.mark.parametrize(
    ("candidate", "baseline", "result"),
    [(0.0, 0.0, "pass"), (5.0, 0.0, "cannot tell"), (0.0, 5.0, "pass"), (11.0, 5.0, "refuse"), (10.0, 5.0, "pass")],
)
def test_churn_is_compared_with_the_baselines(build, rules, candidate, baseline, result):
    events = set_to(where("scale_events"), candidate)
    frame = build(events).results.with_columns(value=set_to(where("scale_events", "hpa"), baseline))
    assert check(judge(build(results=frame), rules), "churn").result == result


def test_churn_counts_in_the_worst_scenario(build, rules):
    found = check(judge(build(set_to(where("scale_events", scenario="flash_crowd"), 125.0)), rules), "churn")
    assert (found.result, found.value) == ("refuse", 2.5)
    assert found.evidence == "1250 scale events against 500 in flash_crowd, cell"


def test_the_worst_scenario_counts(build, rules):
    """On average over both scenarios 7 %, in the crowd 12 %."""
    verdict = judge(build(set_to(where("handover_ratio", scenario="flash_crowd"), 0.12)), rules)
    assert failing(verdict) == ["handover"]
    assert "12 % in flash_crowd, cell" in check(verdict, "handover").evidence


def test_a_decision_without_a_reason_is_refused(build, rules):
    decisions = pl.DataFrame(
        {
            "time_s": [0.0, 60.0], "policy": "mlp@1", "observation": "0", "kind": "replicas", "target": "cell",
            "current": 4, "proposed": 5, "confidence": 0.9, "reason": ["policy decides: busy", " "], "limited_by": "",
            "allowed": 5, "status": "applied", "applied": 5, "message": "", "confirmed": True,
        }
    )  # fmt: skip
    verdict = judge(build(decisions=decisions), rules)
    assert failing(verdict) == ["explained"]
    assert "1 of 2 decisions" in verdict.sentence
    assert judge(build(decisions=decisions[:1]), rules).decision == "pass"


# ------------------------------------------------ no rule is idle


@pytest.mark.parametrize(
    ("threshold", "decision", "culprit"),
    [
        ({"min_seeds": 11}, "refuse", "seeds"),
        ({"scenarios": ["steady", "absent"]}, "refuse", "scenarios"),
        ({"level": 0.9999}, "needs a human", "benefit"),
        ({"max_late_increase": -0.005}, "refuse", "late ratio, steady, cell"),
        ({"max_cost_ratio": 0.8}, "refuse", "cost, steady"),
        ({"max_limited_ratio": 0.019}, "refuse", "limited"),
        ({"max_handover_ratio": 0.029}, "refuse", "handover"),
        ({"max_churn_ratio": 0.99}, "refuse", "churn"),
        ({"max_parity_error": 9e-7}, "refuse", "parity"),
    ],
)
def test_moving_a_threshold_past_the_evidence_flips_the_verdict(build, rules, loosened, threshold, decision, culprit):
    assert judge(build(), rules).decision == "pass"
    verdict = judge(build(), loosened(**threshold))
    assert verdict.decision == decision
    assert culprit in failing(verdict)


def test_a_confidence_below_the_minimum_needs_a_human(build, loosened):
    verdict = judge(build(), loosened(min_confidence=0.95))
    assert (verdict.decision, failing(verdict)) == ("needs a human", [])
    assert verdict.sentence.endswith("confidence 92 % is below 95 %.")


@pytest.mark.parametrize(
    ("spoil", "threshold"),
    [
        (set_to(where("late_ratio"), VALUE + 0.02), {"max_late_increase": 0.03}),
        (set_to(where("cost_usd", scenario="steady"), VALUE * 1.3), {"max_cost_ratio": 1.4}),
        (set_to(where("limited_ratio"), 0.2), {"max_limited_ratio": 0.2}),
        (set_to(where("handover_ratio"), 0.2), {"max_handover_ratio": 0.2}),
        (set_to(where("scale_events"), 200.0), {"max_churn_ratio": 4.0}),
    ],
)
def test_what_is_refused_passes_under_a_looser_rule(build, rules, loosened, spoil, threshold):
    assert judge(build(spoil), rules).decision == "refuse"
    assert judge(build(spoil), loosened(**threshold)).decision == "pass"


def test_the_rule_states_how_the_error_is_shared_out(build, rules):
    """Two scenarios, one service: four comparisons of 98.75 % make 95 %."""
    for name in ("cost, steady", "late ratio, steady, cell", "benefit"):
        assert "98.75 % (95 % for 4 comparisons, Bonferroni)" in check(judge(build(), rules), name).rule


def test_seeds_that_cannot_carry_the_level_leave_it_open(build, loosened):
    """Six agreeing seeds are chance more often than 98.75 % allows."""
    verdict = judge(build(seeds=6), loosened(min_seeds=6))
    assert verdict.decision == "needs a human"
    assert "cannot be judged by 6 seeds" in check(verdict, "cost, steady").evidence
    assert "needs 8" in check(verdict, "cost, steady").evidence


# ------------------------------------------------ data in, data out


def test_a_verdict_survives_json(build, rules):
    for evidence in (build(), build(gain=-0.2), build(seeds=3), build(set_to(where("late_ratio"), math.nan))):
        verdict = judge(evidence, rules)
        assert from_json(to_json(verdict)) == verdict


def test_json_is_strict():
    odd = Check("x", "r", 1.0, math.nan, -math.inf, math.inf, "cannot tell", "e", "m")
    text = to_json(Verdict("refuse", "a", "b", 0.0, "s", (odd,)))
    assert "NaN" not in text
    assert "Infinity" not in text
    assert from_json(text).checks[0].value is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"decision": NaN}', '{"checks": [{}]}'])
def test_other_json_is_no_verdict(text):
    with pytest.raises(UsageError, match="not a verdict"):
        from_json(text)


def test_an_unknown_decision_is_no_verdict(build, rules):
    text = to_json(judge(build(), rules)).replace('"decision": "pass"', '"decision": "maybe"')
    with pytest.raises(UsageError, match="maybe"):
        from_json(text)


def test_evidence_is_checked_at_the_border(build):
    frame = build().results
    with pytest.raises(UsageError, match="more than once"):
        build(results=pl.concat([frame, frame[:1]]))
    with pytest.raises(SchemaError, match="kpi"):
        build(results=frame.drop("kpi"))


def test_judging_changes_nothing(build, rules):
    evidence = build()
    before = evidence.results.clone()
    judge(evidence, rules)
    assert evidence.results.equals(before)


@pytest.mark.parametrize("wrong", [{"level": 0.4}, {"level": 1.0}, {"min_confidence": 1.1}, {"min_seeds": 1}])
def test_senseless_rules_are_refused(loosened, wrong):
    with pytest.raises(UsageError, match="gate"):
        loosened(**wrong)


def test_strict_is_stricter_in_everything():
    with initialize_config_dir(str(CONF), version_base=None):
        default, strict = (instantiate(compose(config_name=name)) for name in ("default", "strict"))
    assert isinstance(strict, Rules)
    assert strict.min_seeds > default.min_seeds
    assert strict.level > default.level
    assert strict.min_confidence > default.min_confidence
    for name in ("late_increase", "cost_ratio", "limited_ratio", "handover_ratio", "churn_ratio"):
        assert getattr(strict, f"max_{name}") < getattr(default, f"max_{name}")
    assert strict.max_parity_error <= default.max_parity_error


def test_other_controllers_in_the_results_are_ignored(build, rules):
    frame = build().results
    other = frame.filter(pl.col("controller") == "hpa").with_columns(controller=pl.lit("aimd"), value=pl.lit(math.nan))
    evidence: Evidence = build(results=pl.concat([frame, other]))
    assert judge(evidence, rules) == judge(build(), rules)
