"""What is scored of forecasters without a history: the past they may see, the gain kept, the tables for a page."""

import numpy as np
import polars as pl
import pytest

from agents.forecast.backtest import Plan
from agents.forecast.frames import Series
from agents.forecast.naive import Naive
from experiments import cold_start
from experiments.forecasts import cold_start_part
from experiments.forecasts import cold_start_scores as judging
from experiments.forecasts.cold_start_scores import Asked, Judges
from twin.trace import tables

H, DAY = 4, 24
JUDGES = Judges(("naive",), "in_domain", DAY, 0)


@pytest.fixture(scope="module")
def plan() -> Plan:
    values = 10.0 + np.random.default_rng(0).standard_normal(400).cumsum()
    return Plan(Series("here/cpu", 0, 3_600, values), np.arange(300, 396, 12))


def flat(plan: Plan, share: float) -> np.ndarray:
    """Deciles with `share` of the way from the last value to the truth as their median."""
    last = plan.series.values[plan.origins - 1][:, None]
    truth = plan.series.values[plan.origins[:, None] + np.arange(H)]
    return (last + share * (truth - last))[..., None] + np.linspace(-1.0, 1.0, 9)


@pytest.fixture(scope="module")
def table(plan: Plan) -> pl.DataFrame:
    shares = {("naive", None): 0.0, ("in_domain", None): 0.5, ("cold_start", 24): 0.4, ("naive", 24): 0.0}
    asked = [
        Asked(name, history, {"here/cpu": flat(plan, share)}, {"here/cpu": 0.8} if name == "cold_start" else {})
        for (name, history), share in shares.items()
    ]
    return judging.scores([*asked, Asked("guess", 0, {})], [plan], "hourly", H, JUDGES)


def test_gain_and_the_share_of_it_that_is_kept_are_those_of_the_errors(table):
    row = table.row(by_predicate=pl.col("forecaster") == "cold_start", named=True)
    assert row["gain"] == pytest.approx(0.4)
    assert row["kept"] == pytest.approx(0.8)
    assert (row["fallback"], row["fallback_ratio"]) == ("naive", pytest.approx(0.6))
    # every origin errs by the same share less, so no draw of them says otherwise
    assert (row["gain_low"], row["gain_high"]) == (pytest.approx(0.4), pytest.approx(0.4))


def test_the_table_fits_its_schema_and_leaves_out_whom_nobody_could_ask(table):
    tables.conform(table, "cold_start", "test")
    assert set(table["forecaster"]) == {"naive", "in_domain", "cold_start"}


def test_where_no_naive_method_has_bands_the_last_value_is_the_fallback(plan):
    asked = [Asked(name, None, {"here/cpu": flat(plan, 0.0)}) for name in ("naive", "in_domain")]
    cold = Asked("cold_start", 3, {"here/cpu": flat(plan, 0.4)})
    row = judging.scores([*asked, cold], [plan], "hourly", H, JUDGES).row(-1, named=True)
    assert (row["fallback"], row["fallback_ratio"]) == ("naive", pytest.approx(0.6))


def test_nothing_is_kept_where_there_was_nothing_to_gain(plan):
    asked = [Asked(name, None, {"here/cpu": flat(plan, 0.0)}) for name in ("naive", "in_domain")]
    assert judging.scores(asked, [plan], "hourly", H, JUDGES)["kept"].to_list() == [None, None]


def test_who_is_fitted_anew_sees_the_last_steps_and_no_others(plan):
    other = Series("here/cpu", 0, 3_600, np.where(np.arange(400) < 300 - 24, 1e6, plan.series.values))
    said = [
        judging.refitted(Naive(), [Plan(series, plan.origins)], H, 24, 0).said["here/cpu"]
        for series in (plan.series, other)
    ]
    assert np.array_equal(said[0], said[1])


def test_a_method_that_needs_more_history_is_absent(plan):
    assert judging.refitted(Naive(season=24, name="seasonal_naive"), [plan], H, 24, 0).said == {}


def test_metadata_alone_are_asked_only_where_the_capacity_is_told(plan):
    assert judging.guessed({"elsewhere/cpu": 1.0}, [plan], H).said == {}
    assert judging.guessed({"here/cpu": 50.0}, [plan], H).said["here/cpu"].shape == (8, H, 9)


def test_the_page_tells_kept_fallback_and_missed_apart(table):
    def verdict(**changed: float) -> str:
        rows = table.with_columns(**{name: pl.lit(value) for name, value in changed.items()})
        return cold_start_part.verdicts(rows, 0.7)["verdict"].item()

    assert verdict() == "kept"
    assert verdict(kept=0.5, fallback_low=0.9) == "as the fallback"
    assert verdict(kept=0.5, fallback_low=1.1) == "missed"


def test_parts_of_one_forecaster_are_joined_over_clusters():
    parts = [Asked("one", None, {"a/x": np.zeros(1)}), Asked("one", None, {"b/x": np.ones(1)}), Asked("one", 3, {})]
    joined = cold_start._joined(parts)
    assert [(each.name, each.history, sorted(each.said)) for each in joined] == [
        ("one", None, ["a/x", "b/x"]), ("one", 3, []),
    ]  # fmt: skip
