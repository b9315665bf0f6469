from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest

from agents.forecast.base import DECILES, Floats, Past, Progress
from agents.forecast.frames import Series
from agents.forecast.operation.operator import Operator, Settings, accuracy_by_day, ledger_of, replay
from agents.forecast.operation.retrain import Rules, challenge, delays_h, judge, table
from agents.forecast.rolling import Rolled
from twin.errors import UsageError
from twin.trace import tables

DAY, H = 24, 4
RULES = Rules(
    judge_steps=24,
    least_learn_steps=24,
    learn_steps=5 * DAY,
    refresh_steps=None,
    settle_steps=DAY,
    retry_steps=12,
    cooldown_steps=2 * DAY,
)
SETTINGS = Settings(rules=RULES, h=H, reference_days=6)


@dataclass(frozen=True, slots=True)
class Profile:
    """The mean of each hour of the day in training, with the spread of its errors."""

    hours: Floats = field(default_factory=lambda: np.zeros(DAY))
    spread: Floats = field(default_factory=lambda: np.zeros(len(DECILES)))
    name: str = "profile"
    context: int = 1
    needs: int = 1
    pooled: bool = False

    def fit(self, series: Any, seed: int, progress: Progress | None = None) -> Any:
        values, begin = series[0].values, series[0].start_s // 3600
        hour = (begin + np.arange(len(values))) % DAY
        newest = np.arange(len(values)) >= len(values) - DAY
        hours = np.array([values[newest & (hour == k)].mean() for k in range(DAY)])
        return replace(self, hours=hours, spread=np.quantile(values - hours[hour], DECILES))

    def forecast(self, past: Past, h: int) -> Floats:
        hour = (past.origin_s[:, None] // 3600 + np.arange(h)).astype(int) % DAY
        return self.hours[hour][:, :, None] + self.spread


def wave(days: int, change: int | None = None, factor: float = 1.5, seed: int = 0) -> Series:
    rng = np.random.default_rng(seed)
    steps = np.arange(days * DAY)
    y = 100.0 + 20.0 * np.sin(2 * np.pi * steps / DAY) + rng.standard_normal(len(steps))
    if change is not None:
        y[change:] *= factor
    return Series("s", 0, 3600, y)


def operated(series: Series, settings: Settings = SETTINGS, start: int = 2 * DAY) -> Any:
    recipe = Profile()
    return replay(recipe.fit([series.until(start)], 0), recipe, series, start, settings, 0)


def test_a_change_is_noticed_answered_by_a_better_champion_and_recorded() -> None:
    change = 12 * DAY
    done = operated(wave(20, change), replace(SETTINGS, rules=replace(RULES, refresh_steps=11 * DAY)))
    happened = table(done.events)
    assert happened.columns == [column.name for column in tables.schema("retraining_events")]
    noticed = happened.row(0, named=True)
    assert noticed["verdict"] == "noticed"
    assert noticed["trigger"].startswith("drift")
    assert change * 3600 < noticed["time_s"] <= (change + DAY) * 3600
    swapped = happened.filter(pl.col("verdict") == "swapped").row(0, named=True)
    assert swapped["challenger_loss"] < swapped["champion_loss"]
    assert swapped["difference_high"] < 0.0
    days = accuracy_by_day(done, wave(20, change)).filter(pl.col("day") == 18).row(0, named=True)
    assert days["operated_percent"] > 95.0
    assert days["untouched_percent"] < 75.0


def happened_at(*rows: tuple[float, str, str]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"time_s": pl.Float64, "trigger": pl.String, "verdict": pl.String}, orient="row")


@pytest.mark.parametrize(
    ("events", "found"),
    [
        ([], (None, None)),
        ([(3, "drift: level", "noticed"), (4, "drift: level", "kept"), (6, "drift: level", "swapped")], (1, 4)),
        ([(3, "drift: level", "noticed"), (3, "drift: level", "swapped"), (9, "drift: level", "swapped")], (1, 1)),
        ([(2, "drift: level", "noticed"), (3, "drift: level", "swapped")], (None, None)),  # saw nothing of the change
        (
            [(3, "age", "noticed"), (3, "age", "swapped"), (5, "drift: error", "noticed"), (5, "age", "swapped")],
            (3, None),
        ),
        ([(3, "drift: level", "swapped"), (5, "drift: error", "noticed"), (7, "drift: error", "swapped")], (3, 5)),
    ],
    ids=["nothing", "answered", "at once", "before", "age is no answer", "an older alarm's swap"],
)
def test_a_delay_runs_from_the_change_to_the_first_alarm_of_drift_and_the_swap_that_answers_it(
    events: list[tuple[int, str, str]], found: tuple[float | None, float | None]
) -> None:
    """The change comes at hour 2."""
    assert delays_h(happened_at(*((3600.0 * hour, why, verdict) for hour, why, verdict in events)), 2 * 3600.0) == found


def test_a_series_that_stays_as_it_is_is_left_alone() -> None:
    done = operated(wave(20))
    assert done.events == ()
    np.testing.assert_array_equal(done.operated.said, done.untouched.said)


def test_nothing_after_an_origin_is_looked_at() -> None:
    """What is said up to the change, and what happens, is the same whatever comes later."""
    calm, moved = operated(wave(15)), operated(wave(15, 12 * DAY))
    before = calm.operated.origins < 12 * DAY
    np.testing.assert_array_equal(calm.operated.said[before], moved.operated.said[before])
    shorter = operated(wave(18, 12 * DAY).until(15 * DAY))
    assert [e for e in operated(wave(18, 12 * DAY)).events if e.time_s <= 15 * DAY * 3600] == list(shorter.events)


def test_age_is_a_reason_for_one_try_and_a_challenger_no_better_is_not_taken() -> None:
    done = operated(wave(20), replace(SETTINGS, rules=replace(RULES, refresh_steps=4 * DAY)))
    happened = table(done.events)
    assert set(happened["trigger"]) == {"age"}
    noticed = happened.filter(pl.col("verdict") == "noticed")["time_s"].to_list()
    assert np.diff(noticed).tolist() == [4 * DAY * 3600.0] * (len(noticed) - 1)
    tried = happened.filter(pl.col("verdict") != "noticed")
    assert tried.height == len(noticed)
    assert ((tried["difference_high"] < 0.0) == (tried["verdict"] == "swapped")).all()


def test_lost_accuracy_is_a_reason_even_where_no_drift_test_is_armed() -> None:
    rules = replace(RULES, accuracy_floor=90.0)
    done = operated(wave(10, 5 * DAY), replace(SETTINGS, rules=rules))
    assert done.events[0].trigger == "accuracy"
    assert done.events[0].time_s <= 6 * DAY * 3600
    assert "swapped" in [event.verdict for event in done.events]


def test_a_reason_that_nothing_answers_cannot_thrash() -> None:
    """The level moves to and fro: after its tries a case is closed, and no other opened before the cooldown ends."""
    rules = replace(RULES, tries=2, accuracy_floor=99.9)
    done = operated(wave(16), replace(SETTINGS, rules=rules))
    opened = [place for place, event in enumerate(done.events) if event.verdict == "noticed"]
    assert len(opened) >= 3
    for begin, place in pairwise(opened):
        assert place - begin - 1 <= rules.tries
        closed, again = done.events[place - 1], done.events[place]
        assert again.time_s - closed.time_s >= RULES.cooldown_steps * 3600


@pytest.mark.parametrize(
    "rules", [replace(RULES, accuracy_floor=99.9), replace(RULES, refresh_steps=6, retry_steps=1)], ids=["floor", "age"]
)
def test_a_rejected_challenger_is_not_followed_by_another_on_the_same_evidence(rules: Rules) -> None:
    """Whatever asks for it: two tries with nobody swapped between them share no judged origin."""
    done = operated(wave(12), replace(SETTINGS, rules=rules))
    tried = [event for event in done.events if event.verdict != "noticed"]
    between = [later.time_s - earlier.time_s for earlier, later in pairwise(tried) if earlier.verdict == "kept"]
    assert len(between) >= 3
    assert min(between) >= RULES.judge_steps * 3600


def test_a_challenger_that_was_never_judged_is_tried_again_without_waiting_for_new_evidence() -> None:
    @dataclass(frozen=True, slots=True)
    class Broken(Profile):
        def fit(self, series: Any, seed: int, progress: Progress | None = None) -> Any:
            raise RuntimeError("out of memory")

    series, rules = wave(6), replace(RULES, accuracy_floor=99.9)
    champion = Profile().fit([series.until(2 * DAY)], 0)
    done = replay(champion, Broken(), series, 2 * DAY, replace(SETTINGS, rules=rules), 0)
    failed = [event.time_s for event in done.events if event.verdict == "failed"]
    assert np.diff(failed)[:3].tolist() == [RULES.retry_steps * 3600.0] * 3


def test_a_challenger_that_cannot_be_fitted_leaves_the_champion_and_a_record() -> None:
    @dataclass(frozen=True, slots=True)
    class Broken(Profile):
        def fit(self, series: Any, seed: int, progress: Progress | None = None) -> Any:
            raise RuntimeError("out of memory")

    series = wave(5)
    trial = challenge(Profile().fit([series], 0), Broken(), [series], RULES, h=H, seed=0)[0]
    assert trial.challenger is None
    assert "out of memory" in trial.reason
    operator = Operator(
        Profile().fit([wave(3)], 0), Broken(), replace(SETTINGS, rules=replace(RULES, refresh_steps=1)), 0
    )
    said = operator.champion.forecast(Past.of(series.values[:1, None], ["s"], H, 3600), H)
    events = operator.advance(series.until(DAY * 3), said)
    assert [event.verdict for event in events] == ["noticed", "failed"]


def test_the_challenger_does_not_learn_from_what_both_are_judged_on() -> None:
    learned = []

    @dataclass(frozen=True, slots=True)
    class Spy(Profile):
        def fit(self, series: Any, seed: int, progress: Progress | None = None) -> Any:
            learned.append(series[0])
            return Profile.fit(self, series, seed, progress)

    series = wave(9)
    challenge(Profile().fit([series], 0), Spy(), [series], RULES, h=H, seed=0)
    assert learned[0].start_s == 3 * DAY * 3600, "the newest five days before the judging window"
    np.testing.assert_array_equal(learned[0].values, series.values[3 * DAY : 8 * DAY])


def test_a_difference_by_chance_is_not_a_better_model() -> None:
    rng = np.random.default_rng(0)
    origins = np.arange(60)
    truth = rng.standard_normal((60, H))

    def rolled(noise: float) -> Rolled:
        return Rolled(origins, truth[:, :, None] + noise * rng.standard_normal((60, H, 1)) + DECILES - 0.5, truth)

    won = sum(judge(rolled(1.0), rolled(1.0), 0.9, seed).better for seed in range(100))
    assert won <= 15, "one in twenty, and a few for the short record"
    assert judge(rolled(1.0), rolled(0.3), 0.9, 0).better
    assert not judge(rolled(0.3), rolled(1.0), 0.9, 0).better
    with pytest.raises(UsageError, match="same origins"):
        judge(rolled(1.0), Rolled(origins + 1, truth[:, :, None] + DECILES, truth), 0.9, 0)


def test_the_ledger_of_a_replay_has_the_scores_of_what_was_said() -> None:
    series = wave(8)
    done = operated(series)
    ledger = ledger_of(done.operated, series, H)
    scores = ledger.scores("operated").filter(pl.col("horizon").str.contains("-")).row(0, named=True)
    ended = done.operated.ended(len(series.values)).all(axis=1)
    truth, median = done.operated.truth[ended], done.operated.said[ended][:, :, 4]
    assert scores["origins"] == ended.sum() == 6 * DAY - H + 1
    assert scores["accuracy_percent"] == pytest.approx(100.0 * (1.0 - np.abs(truth - median).sum() / truth.sum()))
    assert np.isfinite(scores["mase"]), "measured by the days before the first forecast"


def test_blocks_that_are_no_hours_are_refused() -> None:
    operator = Operator(Profile(), Profile(), SETTINGS, 0)
    series = wave(2)
    with pytest.raises(UsageError, match="whole hours"):
        operator.advance(series, np.zeros((2, H, 9)))
    with pytest.raises(UsageError, match="divide an hour"):
        operator.advance(replace(wave(3).until(60), step_s=7 * 60), np.zeros((1, H, 9)))
