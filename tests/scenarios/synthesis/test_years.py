"""Generated years are what was said of them: the truth adds up, habits come back, equal seeds give equal bytes."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scenarios.synthesis.years import KNOWN, Habits, Plan, draw, foreseen, habits
from twin.errors import ScenarioError

DAY_S, HOUR_S = 86_400, 3_600
TOLD = Habits((0.1, 0.1, 0.1, 0.1, 0.1, -0.2, -0.3), tuple(np.sin(np.arange(24) / 12 * np.pi) / 5), 0.1, 0.5)
CALM = Plan(growth=(0.0, 0.0), changes_per_year=0.0, yearly=0.0, launches_per_year=0.0, holiday=0.0)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 999), st.integers(1, 800), st.sampled_from([DAY_S, HOUR_S]))
def test_the_truth_adds_up_to_the_series(seed: int, days: int, step_s: int) -> None:
    drawn = draw(TOLD, Plan(days=days), np.random.default_rng(seed), step_s)
    assert len(drawn.values) == days * DAY_S // step_s
    assert np.log(drawn.values) == pytest.approx(sum(drawn.parts.values()))
    assert drawn.known.shape == (len(drawn.values), len(KNOWN))
    assert (drawn.values == draw(TOLD, Plan(days=days), np.random.default_rng(seed), step_s).values).all()


def test_changes_and_launches_are_where_the_truth_says() -> None:
    plan = replace(CALM, changes_per_year=2.0, step=0.2, launches_per_year=2.0)
    drawn = draw(TOLD, plan, np.random.default_rng(1))
    jumps = np.flatnonzero(np.abs(np.diff(drawn.parts["trend"])) > 1e-6) + 1
    assert jumps.tolist() == list(drawn.changes)
    announced = drawn.known[:, 1]
    begun = np.flatnonzero(np.diff(np.diff(announced, prepend=0.0), prepend=0.0) > 1e-6)
    assert set(drawn.launches) <= set(begun.tolist())
    assert announced[-1] > 0.0


def test_holidays_are_those_of_the_country_and_no_weekends() -> None:
    drawn = draw(TOLD, replace(CALM, begin=date(2018, 1, 1), country="SE", holiday=-0.5), np.random.default_rng(0))
    assert drawn.known[0, 0] == 1.0  # New Year's Day 2018, a Monday
    assert drawn.parts["holidays"][0] == -0.5
    assert not drawn.known[5:7, 0].any()


def test_habits_are_found_again_in_what_was_drawn_with_them() -> None:
    drawn = draw(TOLD, replace(CALM, days=2_000), np.random.default_rng(2), HOUR_S)
    found = habits(drawn.values, HOUR_S)
    assert found.week == pytest.approx(np.asarray(TOLD.week) - np.mean(TOLD.week), abs=0.02)
    assert found.day == pytest.approx(np.asarray(TOLD.day) - np.mean(TOLD.day), abs=0.01)
    assert found.noise == pytest.approx(TOLD.noise, rel=0.1)
    assert found.memory == pytest.approx(TOLD.memory, abs=0.08)


def test_a_recording_that_begins_on_thursday_noon_has_the_same_week() -> None:
    drawn = draw(TOLD, replace(CALM, days=700), np.random.default_rng(3), HOUR_S)
    late = habits(drawn.values[84:], HOUR_S, 84 * HOUR_S)
    assert late.week == pytest.approx(habits(drawn.values, HOUR_S).week, abs=0.02)


def test_growth_is_the_planned_one() -> None:
    drawn = draw(TOLD, replace(CALM, growth=(0.2, 0.0)), np.random.default_rng(4))
    assert drawn.parts["trend"][1_460] - drawn.parts["trend"][0] == pytest.approx(0.2 * 1_460 / 365.25)


def test_what_cannot_be_drawn_or_fitted_is_refused() -> None:
    with pytest.raises(ScenarioError, match="step_s"):
        draw(TOLD, CALM, np.random.default_rng(0), 60)
    with pytest.raises(ScenarioError, match="28 days"):
        habits(np.ones(20), DAY_S)


def test_who_knows_all_errs_by_what_is_not_decided_alone() -> None:
    certain = replace(Plan(), changes_per_year=0.0, launch_error=0.0)
    silent = replace(TOLD, noise=0.0)
    drawn = draw(silent, certain, np.random.default_rng(3))
    assert foreseen(drawn, silent, certain, 900, 364) == pytest.approx(drawn.values[900:1264], rel=1e-9)
    drawn = draw(TOLD, certain, np.random.default_rng(3))
    ratio = np.array([drawn.values[o : o + 364] / foreseen(drawn, TOLD, certain, o, 364) for o in range(500, 1000, 7)])
    assert ratio.mean() == pytest.approx(1.0, abs=0.02)


def test_growth_that_is_known_returns_to_the_usual_at_the_rate_of_changes() -> None:
    plan = replace(CALM, growth=(0.1, 0.3), changes_per_year=1e-6)
    silent = replace(TOLD, noise=0.0)
    drawn = draw(silent, plan, np.random.default_rng(4))
    often = replace(plan, changes_per_year=50.0)
    known = np.log(foreseen(drawn, silent, often, 700, 364))
    assert known[-1] - known[363 - 350] == pytest.approx(0.1 * 350 / 365.25, abs=0.02)
    with_own = np.log(foreseen(drawn, silent, plan, 700, 364))
    assert with_own == pytest.approx(np.log(drawn.values[700:1064]), abs=1e-6)
