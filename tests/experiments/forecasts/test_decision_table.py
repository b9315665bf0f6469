"""Errors, ratios and ranks of `decision_value`, on figures that can be worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from agents.forecast.base import DECILES
from experiments.forecasts import decision_table


def row(forecaster: str, kind: str = "scaler", quantile: float | None = 0.9, **changes: float) -> dict[str, Any]:
    figures = {"scaled_crps": 0.1, "cost_usd": 100.0, "late_ratio": 0.0, "slo_violation_min": 0.0}
    errors = {"wape": 0.1, "coverage_80": 0.8, "below_ratio": 0.9, "replica_h": 10.0, "slack_ratio": 0.2}
    left = {"shortage_replica_h": 2.0, "idle_replica_h": 5.0}
    labels = {"scenario": "recorded", "seed": 0, "kind": kind, "forecaster": forecaster, "quantile": quantile}
    return {**labels, **figures, **errors, **left, **changes}


HPA = row("hpa", "rule", None, cost_usd=200.0, late_ratio=0.01, slo_violation_min=10.0)


def test_errors_of_a_forecast_that_is_off_by_one() -> None:
    truth = np.array([10.0, 10.0, np.nan])
    said = np.tile(np.linspace(7.0, 15.0, 9), (3, 1))  # the median says 11, the 80 % band 7 to 15
    found = decision_table.errors(said, truth, 0.9)
    pinball = [max(tau * (10.0 - q), (tau - 1.0) * (10.0 - q)) for tau, q in zip(DECILES, said[0], strict=True)]
    assert found == pytest.approx(
        {
            "wape": 0.1,
            "scaled_crps": 2.0 * np.mean(pinball) / 10.0,
            "scaled_pinball": 2.0 * 0.5 / 10.0,
            "coverage_80": 1.0,
            "below_ratio": 1.0,
        }
    )


def test_a_forecast_of_the_truth_has_no_error() -> None:
    truth = np.random.default_rng(0).uniform(1.0, 2.0, 50)
    found = decision_table.errors(np.tile(truth[:, None], (1, 9)), truth, 0.5)
    assert (found["wape"], found["scaled_crps"], found["scaled_pinball"]) == (0.0, 0.0, 0.0)


def test_calibrated_quantiles_cover_their_share() -> None:
    rng = np.random.default_rng(0)
    said = np.tile(np.quantile(rng.standard_normal(100_000), DECILES) + 10.0, (5000, 1))
    found = decision_table.errors(said, rng.standard_normal(5000) + 10.0, 0.7)
    assert found["coverage_80"] == pytest.approx(0.8, abs=0.02)
    assert found["below_ratio"] == pytest.approx(0.7, abs=0.02)


def test_ratios_are_to_the_baseline_on_the_same_demand() -> None:
    other = [{**each, "scenario": "surge"} for each in (row("naive"), {**HPA, "cost_usd": 400.0})]
    frame = decision_table.table([HPA, row("naive", late_ratio=0.02), *other], "hpa", 10.0, 5.0)
    assert frame["judged_usd"].to_list() == pytest.approx([220.0, 120.0, 100.0, 440.0])
    assert frame["cost_ratio"].to_list() == [1.0, 0.5, 0.25, 1.0]
    assert frame["judged_ratio"].to_list() == pytest.approx([1.0, 120.0 / 220.0, 100.0 / 440.0, 1.0])


@pytest.mark.parametrize(("minutes", "equal"), [(9.0, True), (15.0, True), (15.5, False)])
def test_equal_slo_allows_a_few_minutes_more(minutes: float, equal: bool) -> None:
    frame = decision_table.table([HPA, row("naive", slo_violation_min=minutes)], "hpa", 10.0, 5.0)
    assert frame["equal_slo"].to_list() == [True, equal]


def test_kendalls_tau_is_of_each_task_and_leaves_the_oracle_out() -> None:
    agreeing = [row(name, scaled_crps=0.1 * k, cost_usd=100.0 + k) for k, name in enumerate("abc", start=1)]
    opposed = [{**each, "quantile": 0.5, "cost_usd": 300.0 - each["cost_usd"]} for each in agreeing]
    oracle = row(decision_table.ORACLE, scaled_crps=0.0, cost_usd=999.0)
    frame = decision_table.table([HPA, oracle, *agreeing, *opposed, *opposed[:2]], "hpa", 10.0, 5.0)
    assert frame.filter(forecaster="hpa")["kendall_tau"].to_list() == [None]
    assert frame.filter(quantile=0.9)["kendall_tau"].to_list() == pytest.approx([1.0] * 4)
    assert (frame.filter(quantile=0.5)["kendall_tau"] < 0).all()


def test_an_order_of_two_or_of_equals_says_nothing() -> None:
    assert decision_table.kendall(np.array([1.0, 2.0]), np.array([1.0, 2.0])) is None
    assert decision_table.kendall(np.array([1.0, 2.0, 3.0]), np.ones(3)) is None
    assert decision_table.kendall(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])) == pytest.approx(1.0 / 3.0)


def test_the_cheapest_quantile_that_keeps_the_slo_counts_over_seeds_in_the_mean() -> None:
    late = row("naive", quantile=0.5, cost_usd=50.0, slo_violation_min=99.0)
    fine = row("naive", quantile=0.7, cost_usd=80.0, slo_violation_min=19.0)  # too much, but for the other seed
    rows = [HPA, late, fine, row("naive"), row("never", slo_violation_min=50.0)]
    again = [{**each, "seed": 1} for each in (HPA, late, {**fine, "slo_violation_min": 11.0}, rows[3], rows[4])]
    best = decision_table.best(decision_table.table([*rows, *again], "hpa", 10.0, 5.0))
    assert best.select("forecaster", "quantile", "cost_usd").rows() == [("naive", 0.7, 80.0), ("hpa", None, 200.0)]


def test_who_never_keeps_the_slo_is_the_dearest_of_its_order() -> None:
    rivals = [row(name, scaled_crps=0.1 * k, cost_usd=100.0 + k) for k, name in enumerate("abc", start=1)]
    frame = decision_table.table([HPA, *rivals], "hpa", 10.0, 5.0)
    assert decision_table.orders(frame).select("quantile", "kendall_tau").rows() == [
        (None, pytest.approx(1.0)),
        (0.9, pytest.approx(1.0)),
    ]
    late = {**rivals[0], "slo_violation_min": 99.0}  # the one of the least error
    frame = decision_table.table([HPA, late, *rivals[1:]], "hpa", 10.0, 5.0)
    assert decision_table.orders(frame)["kendall_tau"][0] == pytest.approx(-1.0 / 3.0)


def test_a_plan_is_charged_for_what_was_missing_at_the_price_of_its_quantile() -> None:
    frame = decision_table.table([HPA, row("naive"), row("naive_day", "plan", 0.8)], "hpa", 10.0, 5.0)
    assert frame["newsvendor_replica_h"].to_list() == [None, None, pytest.approx(4.0 * 2.0 + 5.0)]
