"""The contract that every configured forecaster keeps: no forecast knows what came at or after its origin.

Each is fitted once, briefly, on two series that stop at a cut, and then forecasts from origins around it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from agents.forecast.backtest import backtest
from agents.forecast.base import Forecaster, Past
from agents.forecast.conformal import Conformal
from agents.forecast.covariates import Calendar
from agents.forecast.forecasting import Forecasting
from agents.forecast.frames import Columns, Series
from agents.forecast.naive import Naive
from agents.forecast.prepare import Prepare
from agents.forecast.rolling import past_at, roll
from experiments import schema

OPTIONS = sorted(path.stem for path in (Path(__file__).parents[3] / "conf" / "forecaster").glob("*.yaml"))
STEP, DAY, CUT, STEPS, H = 300, 24, 312, 360, 4
ORIGINS = np.array([CUT, CUT + 7, CUT + 20])
CHANGE = CUT + 7  # from here on, the other world is another one
STEP_OF = {"structural_daily": 86_400, "structural_weekly": 604_800}

# no configured number of these is larger here: what a forecaster may know does not depend on its size
CAPS = {
    "context": 72,
    "window": 48,
    "lookback": 96,
    "needs": 30,
    "least_steps": 48,
    "fit_steps": 80,
    "horizon": H,
    "season": DAY,
    "shorter": 12,
    "every": 2,
    "origins": 4,
    "steps": 20,
    "batch": 16,
    "width": 8,
    "members": 1,
    "seasons": DAY,
    "lags": 2 * DAY,
    "states": 8,
    "layers": 1,
    "blocks": 1,
    "means": 8,
}


def small(config: Any, key: str = "") -> Any:
    """The configuration with no number above its cap, and no network begun from a checkpoint of another size."""
    if isinstance(config, dict):
        return {name: small(value, name) for name, value in config.items()}
    if isinstance(config, list):
        return list(dict.fromkeys(small(value, key) for value in config))
    if key == "start":
        return None
    return min(config, CAPS[key]) if isinstance(config, int) and key in CAPS else config


def made(name: str, seed: int, step_s: int = STEP, steps: int = STEPS) -> Series:
    """A daily wave that follows a known column, with another series recorded beside it."""
    rng = np.random.default_rng(seed)
    known = np.stack([np.sin(2 * np.pi * np.arange(steps + H) / DAY), rng.normal(size=steps + H)], axis=1)
    y = 10 + 3 * known[:steps, 0] + 0.3 * known[:steps, 1] + 0.3 * rng.normal(size=steps)
    columns = Columns(("sin", "plan"), ("other",), ("size",))
    return Series(name, 0, step_s, y, known, y[:, None] + rng.normal(size=(steps, 1)), np.array([float(seed)]), columns)


def other_world(series: Series, at: int) -> Series:
    """The same series up to a step; from there on other values, of another size."""
    rng = np.random.default_rng(99)
    values, seen = series.values.copy(), series.seen.copy()
    values[at:], seen[at:] = rng.uniform(0, 1e3, len(values) - at), rng.uniform(0, 1e3, (len(seen) - at, 1))
    return replace(series, values=values, seen=seen)


@dataclass(frozen=True)
class Case:
    """A fitted forecaster and the series it was fitted on, in full."""

    fitted: Forecaster
    series: list[Series]


@pytest.fixture(scope="module", params=OPTIONS)
def case(request: pytest.FixtureRequest) -> Case:
    schema.register()
    with initialize_config_module("conf", version_base="1.3"):
        config = compose("backtest", [f"+forecaster@forecasters.it={request.param}"]).forecasters.it
    plain = OmegaConf.to_container(config, resolve=True)
    # what learns nothing is as quick as it is, and no other network fits its checkpoint
    forecaster = instantiate(plain if request.param == "cold_start" else small(plain), _convert_="all")
    series = [made(name, seed, STEP_OF.get(request.param, STEP)) for seed, name in enumerate(("a", "b"))]
    return Case(forecaster.fit([each.until(CUT) for each in series], 0), series)


def test_what_comes_at_or_after_an_origin_changes_no_forecast_made_there(case):
    """Nor the calibration that goes with it: all nine deciles are the same."""
    for series in case.series:
        one = roll(case.fitted, series, ORIGINS, H)
        two = roll(case.fitted, other_world(series, CHANGE), ORIGINS, H)
        before = CHANGE >= ORIGINS
        assert np.isfinite(one.said).all()
        assert (np.diff(one.said) >= 0.0).all()
        np.testing.assert_array_equal(one.said[before], two.said[before])
        assert not np.array_equal(one.truth, two.truth)


def test_a_forecast_from_many_origins_is_that_from_one(case):
    """So what holds in a backtest holds where a forecaster serves."""
    series = case.series[0]
    many = roll(case.fitted, series, ORIGINS, H).said
    for row, origin in enumerate(ORIGINS):
        cut = replace(series.until(origin), known=series.known[: origin + H])
        alone = roll(case.fitted, cut, np.array([origin]), H).said[0]
        np.testing.assert_allclose(many[row], alone, rtol=1e-4, atol=1e-4)


def test_nothing_of_another_series_in_the_batch_changes_a_forecast(case):
    pasts = [past_at(series, ORIGINS, case.fitted.context, H) for series in case.series]
    shuffled = np.random.default_rng(0).permutation(pasts[1].known, axis=1)
    others = [
        pasts[1],
        replace(pasts[1], known=shuffled),
        replace(pasts[1], y=5 * pasts[1].y + 3, seen=-pasts[1].seen, static=-pasts[1].static),
    ]
    said = [case.fitted.forecast(joined(pasts[0], other), H)[: len(ORIGINS)] for other in others]
    for changed in said[1:]:
        np.testing.assert_array_equal(changed, said[0])


def joined(one: Past, two: Past) -> Past:
    arrays = {name: np.concatenate([getattr(one, name), getattr(two, name)]) for name in FIELDS}
    return Past(ids=[*one.ids, *two.ids], step_s=one.step_s, **arrays)


FIELDS = ("y", "origin_s", "seen", "known", "static")


# ---------------------------------------------------------------- what stands around a model


@dataclass(frozen=True)
class Witness:
    """Says the last value, and keeps the newest moment that it was ever shown in fitting."""

    newest_s: list = field(default_factory=list)
    name: str = "witness"
    pooled: bool = True
    context: int = 1
    needs: int = 1

    def fit(self, series, seed, progress=None):
        self.newest_s.append(max(s.start_s + (len(s.values) - 1) * s.step_s for s in series))
        lengths = {len(array) for s in series for array in (s.values, s.known, s.seen)}
        assert len(lengths) == 1, "a column is longer than the values it stands beside"
        return self

    def forecast(self, past, h):
        return np.broadcast_to(past.y[:, -1:, None], (len(past.ids), h, 9))


def long_frame(series: list[Series]) -> pl.DataFrame:
    return pl.concat(
        pl.DataFrame(
            {
                "unique_id": [each.unique_id] * len(each.values),
                "ds": np.arange(len(each.values)) * STEP,
                "y": each.values,
                "sin": each.known[: len(each.values), 0],
                "plan": each.known[: len(each.values), 1],
                "other": each.seen[:, 0],
                "size": each.static[0],
            }
        )
        for each in series
    )


@dataclass(frozen=True)
class Planned(Witness):
    """Says what the plan says."""

    def forecast(self, past, h):
        return np.broadcast_to(past.known[:, -h:, :1], (len(past.ids), h, 9))


def test_what_is_known_ahead_of_another_series_changes_no_forecast():
    series = [made("a", 0), made("b", 1)]
    frame = long_frame(series)
    ahead = pl.DataFrame(
        {
            "unique_id": np.repeat(["a", "b"], H),
            "ds": np.tile(STEP * (STEPS + np.arange(H)), 2),
            "plan": np.arange(2.0 * H),
        }
    )
    fitted = Forecasting([Planned()], step_s=STEP, columns=Columns(("plan",))).fit(frame)
    other = ahead.with_columns(plan=pl.when(pl.col("unique_id") == "a").then("plan").otherwise(-(pl.col("plan") ** 2)))
    one, two = (fitted.predict(H, each).frame for each in (ahead, other.sample(fraction=1.0, shuffle=True, seed=0)))
    assert one.filter(unique_id="a")["witness"].to_list() == [0, 1, 2, 3]
    assert one.filter(unique_id="a").equals(two.filter(unique_id="a"))
    assert not one.filter(unique_id="b").equals(two.filter(unique_id="b"))


@pytest.mark.parametrize("refit", [True, 2, False])
def test_the_fitted_model_of_a_backtest_saw_nothing_after_its_cutoff(refit):
    witness = Witness()
    recipe = Forecasting([witness], step_s=STEP, columns=made("a", 0).columns, calendar=Calendar())
    # the second series ends early: its cutoffs are those of the first all the same
    frame = long_frame([made("a", 0), made("b", 1, steps=STEPS - 9)])
    said = recipe.cross_validation(frame, H, n_windows=5, step_size=3, refit=refit)
    cutoffs = [STEP * (STEPS - 1 - H - 3 * k) for k in range(5)][::-1]
    fitted = {True: cutoffs, 2: cutoffs[::2], False: cutoffs[:1]}[refit]
    assert witness.newest_s == fitted
    assert (said.provenance["trained_until"] <= said.provenance["cutoff"]).all()


def test_the_fitted_model_of_the_benchmark_saw_nothing_of_its_last_part():
    witness = Witness()
    frame = long_frame([made("a", 0)]).select("unique_id", "ds", "y")
    backtest([replace(witness, pooled=False)], frame, h=H, origins_every=5, fit_share=0.75)
    assert witness.newest_s == [STEP * (int(0.75 * STEPS) - 1)]


EVERYTHING = Prepare(outliers_sigma=3.0, hampel_steps=3, shifts="rescale", linear_steps=3)
MODELS = (Naive(), Conformal(Naive(DAY, "seasonal"), horizon=H, least_steps=48, every=1))


@settings(max_examples=8)
@given(seed=st.integers(0, 9999), window=st.integers(0, 2))
def test_other_rows_after_a_cutoff_change_nothing_that_was_said_at_it(seed, window):
    """Values, holes, doubles, columns: cleaning, fitting, calibration and provenance up to a cutoff stay the same."""
    rng = np.random.default_rng(seed)
    frame = long_frame([made("a", seed), made("b", seed + 1)])
    first = STEP * (STEPS - 1 - H - 6)  # after it, a missing row would hide what is known ahead
    frame = frame.filter(pl.Series(rng.random(len(frame)) > 0.03) | (pl.col("ds") > first))
    cutoff = STEP * (STEPS - 1 - H - 3 * (2 - window))
    later = pl.col("ds") > cutoff
    changed = frame.with_columns(
        y=pl.when(later).then(pl.Series(rng.uniform(0, 1e4, len(frame)))).otherwise("y"),
        other=pl.when(later).then(None).otherwise("other"),
    )
    changed = pl.concat([changed, changed.filter(later).with_columns(pl.col("ds") - 20)])
    recipe = Forecasting(MODELS, step_s=STEP, columns=Columns(("sin",), ("other",), ("size",)), prepare=EVERYTHING)
    one, two = (recipe.cross_validation(each, H, 3, 3) for each in (frame, changed))
    for table in ("frame", "provenance", "refused"):
        rows = [getattr(said, table).filter(pl.col("cutoff") <= cutoff) for said in (one, two)]
        assert rows[0].drop("y", strict=False).equals(rows[1].drop("y", strict=False), null_equal=True)
    assert len(one.frame.filter(pl.col("cutoff") <= cutoff)) == 2 * H * (window + 1)


def test_a_model_that_peeks_is_caught():
    """The contract can fail: a forecaster that reads the value to come is told apart from one that does not."""

    @dataclass(frozen=True)
    class Peeking(Witness):
        def roll(self, series, origins, h):
            return np.broadcast_to(series.values[origins, None, None], (len(origins), h, 9))

    with pytest.raises(AssertionError):
        test_what_comes_at_or_after_an_origin_changes_no_forecast_made_there(Case(Peeking(), [made("a", 0)]))
