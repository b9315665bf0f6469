"""Forecasts of the accuracy bench: equally spaced origins, failures as gaps, kept and taken over only when equal."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from agents.forecast.base import Forecaster
from agents.forecast.frames import Series
from agents.forecast.naive import Naive
from experiments.forecasts import accuracy_rolls
from experiments.forecasts.accuracy_rolls import Protocol, Rolls
from twin.errors import UsageError

PROTOCOL = Protocol(h=4, origins=5, train_share=0.75, seed=0)


@dataclass(frozen=True)
class Listener:
    """Says zeros; remembers the lengths of what it was fitted on."""

    heard: list = field(default_factory=list)
    name: str = "listener"
    context: int = 3
    needs: int = 3
    pooled: bool = True

    def fit(self, series, seed, progress=None):
        self.heard.append({each.unique_id: len(each.values) for each in series})
        return self

    def forecast(self, past, h):
        return np.zeros((len(past.ids), h, 9))


def series_of(name, steps, seed=0):
    return Series(name, 0, 300, np.random.default_rng(seed).uniform(1, 2, steps))


@pytest.fixture
def plans():
    return [PROTOCOL.plan(series_of(name, 200, seed)) for seed, name in enumerate("ab")]


def test_origins_are_equally_spaced_from_the_end_of_the_training_part_to_the_last_full_forecast():
    assert PROTOCOL.plan(series_of("a", 200)).origins.tolist() == [150, 162, 173, 184, 196]
    assert len(replace(PROTOCOL, origins=10_000).plan(series_of("a", 200)).origins) == 47


def test_a_series_without_room_for_a_forecast_is_refused():
    with pytest.raises(UsageError, match="no room"):
        PROTOCOL.plan(series_of("a", 12))


def test_who_is_fitted_sees_the_training_part_and_long_series_beside_it(plans):
    listener = Listener()
    beside = [series_of("short", 27), series_of("long", 28)]
    accuracy_rolls.rolls(listener, plans, beside, PROTOCOL)
    assert listener.heard == [{"a": 150, "b": 150, "long": 28}]


def test_who_is_not_pooled_is_fitted_on_each_series_alone(plans):
    listener = Listener(pooled=False)
    accuracy_rolls.rolls(listener, plans, [series_of("long", 90)], PROTOCOL)
    assert listener.heard == [{"a": 150}, {"b": 150}]


def test_a_failure_is_a_gap_with_its_reason(plans):
    short = [plans[0], PROTOCOL.plan(series_of("c", 90))]
    found = accuracy_rolls.rolls(Naive(40, "seasonal"), short, [], PROTOCOL)
    assert np.isfinite(found.said["a"]).all()
    assert np.isnan(found.said["c"]).all()
    assert list(found.failures) == ["c"]
    assert "too few" in found.failures["c"]


def test_a_mean_fails_where_a_member_does():
    one = Rolls({"a": np.full((1, 2, 9), 1.0), "b": np.full((1, 2, 9), 1.0)}, {})
    two = Rolls({"a": np.full((1, 2, 9), 3.0), "b": np.full((1, 2, 9), np.nan)}, {"b": "why"})
    mean = accuracy_rolls.mean_of([one, two])
    assert (mean.said["a"] == 2.0).all()
    assert np.isnan(mean.said["b"]).all()
    assert mean.failures == {"b": "why"}


def test_the_native_seasonal_naive_says_yesterday_and_learns_its_bands_from_2016_steps_before_the_first_origin():
    whole = series_of("a", 4000)
    plan = PROTOCOL.plan(whole)
    said = accuracy_rolls.native([plan], 4, 24).said["a"]
    assert said[:, :, 4].tolist() == [whole.values[at - 24 : at - 20].tolist() for at in plan.origins]
    first = int(plan.origins[0])

    def spread(changed_at: int) -> float:
        values = whole.values.copy()
        values[changed_at] += 100.0
        found = accuracy_rolls.native([replace(plan, series=replace(whole, values=values))], 4, 24).said["a"][1]
        return float(found[0, 8] - found[0, 0])

    usual = float(said[1, 0, 8] - said[1, 0, 0])
    assert spread(first - 2017) == usual
    assert spread(first + 1) == usual
    assert spread(first - 2016) > 2.0 * usual


def test_every_forecaster_has_a_row_for_each_series_band_and_regime(plans):
    found = {"last": accuracy_rolls.rolls(Naive(), plans, [], PROTOCOL), "native": accuracy_rolls.native(plans, 4, 24)}
    rows = accuracy_rolls.scores("cell", "5min", 24, plans, found, 4)
    assert set(rows.select("level", "grid").rows()) == {("cell", "5min")}
    everywhere = rows.filter(horizon="1-4", regime="all")
    assert everywhere.select("unique_id", "forecaster").rows() == [(i, name) for i in "ab" for name in found]
    errors = [
        np.abs(found["last"].said["a"][k, :, 4] - plans[0].series.values[at : at + 4])
        for k, at in enumerate(plans[0].origins)
    ]
    assert everywhere["mae"][0] == pytest.approx(np.mean(errors))


def test_what_is_kept_is_taken_over_from_the_first_folder_that_has_it(plans, tmp_path):
    found = accuracy_rolls.rolls(Naive(), plans, [], PROTOCOL)
    found = replace(found, failures={"b": "a reason"})
    accuracy_rolls.keep(tmp_path / "two" / "naive-1.npz", found)
    again = accuracy_rolls.kept("naive-1.npz", [tmp_path / "one", tmp_path / "two"])
    assert again is not None
    assert again.failures == {"b": "a reason"}
    assert all((again.said[name] == said).all() for name, said in found.said.items())
    assert accuracy_rolls.kept("naive-2.npz", [tmp_path / "two"]) is None
    assert [path.name for path in (tmp_path / "two").iterdir()] == ["naive-1.npz"]


def test_the_key_changes_with_all_that_forecasts_depend_on(plans):
    beside = [series_of("long", 90)]
    listener: Forecaster = Listener()

    def key(config=None, forecaster: Forecaster = listener, plans=plans, beside=(), protocol=PROTOCOL):
        return accuracy_rolls.key(config or {"season": 1}, forecaster, plans, beside, protocol)

    other = [plans[0], replace(plans[1], series=series_of("b", 200, seed=7))]
    later = [plans[0], replace(plans[1], origins=plans[1].origins - 1)]
    keys = [
        key(),
        key(config={"season": 2}),
        key(plans=other),
        key(plans=later),
        key(plans=plans[:1]),
        key(beside=beside),
        key(protocol=replace(PROTOCOL, seed=1)),
        key(protocol=replace(PROTOCOL, h=3)),
    ]
    assert len(set(keys)) == len(keys)
    assert key() == key(config={"season": 1})
    alone = Listener(pooled=False)
    assert key(forecaster=alone) == key(forecaster=alone, beside=beside)
