"""The drift: what is usual among series is found, spreads grow as changes happen, used where it was learned."""

from __future__ import annotations

import numpy as np
import pytest

from agents.forecast.base import MEDIAN
from agents.forecast.frames import Columns, Series
from agents.forecast.long import drift
from agents.forecast.long.drift import Beliefs, Drift, Record
from agents.forecast.long.guarded import Guarded
from agents.forecast.rolling import past_at
from twin.errors import UsageError

DAY_S, DAYS = 86_400, 1_000
QUICK = Guarded(horizon=84, context=DAYS + 84, needs=28, families=("mean", "drift"), origins=3)


def grown(growth: float, rng: np.random.Generator, days: int = DAYS) -> np.ndarray:
    return 100.0 * np.exp(growth * np.arange(days) / 365.25 + 0.05 * rng.standard_normal(days))


def record(values: np.ndarray, known: np.ndarray | None = None, h: int = 0) -> Record:
    return Record(values, 0.0, DAY_S, np.zeros((len(values) + h, 0)) if known is None else known, 0.0, 0.05)


def panel(growths: list[float]) -> list[Series]:
    rng = np.random.default_rng(0)
    return [Series(f"s{k}", 0, DAY_S, grown(growth, rng)) for k, growth in enumerate(growths)]


def test_the_usual_growth_is_that_of_the_panel() -> None:
    rng = np.random.default_rng(1)
    alike = [record(grown(0.2, rng)) for _ in range(8)]
    mixed = [record(grown(growth, rng)) for growth in (-0.4, -0.2, 0.2, 0.4) * 2]
    found = drift.learned(alike)
    assert found.growth == pytest.approx(0.2, abs=0.03)
    assert drift.learned(mixed).differs > 2.0 * found.differs
    assert drift.learned(alike) == found


def test_growth_goes_on_where_it_lasts_and_returns_to_the_usual_where_it_fades() -> None:
    values = grown(0.4, np.random.default_rng(2))
    lasting, fading = Beliefs(0.0, 0.4, 0.01), Beliefs(0.0, 0.4, 4.0)
    ends = [np.log(drift.ahead(beliefs, record(values, h=364), 364)[0][-28:].mean()) for beliefs in (lasting, fading)]
    level = np.log(values[-28:].mean())
    assert ends[0] - level == pytest.approx(0.4, abs=0.08)
    assert ends[1] - level < 0.2


def test_the_variance_grows_with_the_horizon_by_what_wanders() -> None:
    values = grown(0.1, np.random.default_rng(3))
    still, moving = (
        np.diag(drift.ahead(Beliefs(0.1, 1e-3, 0.5, wander, 1e-3), record(values, h=365), 365)[1])
        for wander in (1e-4, 0.2)
    )
    assert still[-1] == pytest.approx(still[0], rel=0.05)
    assert moving[-1] - moving[0] == pytest.approx(0.04, rel=0.1)


def test_an_announced_launch_and_a_holiday_are_in_the_forecast() -> None:
    rng = np.random.default_rng(4)
    known = np.zeros((DAYS + 84, 2))
    known[::50, 0] = 1.0
    known[300:, 1], known[DAYS + 28 :, 1] = 0.3, 0.6
    values = grown(0.0, rng) * np.exp(-0.5 * known[:DAYS, 0] + known[:DAYS, 1])
    beliefs = Beliefs(known=1.0, known_differs=0.1)
    point = drift.ahead(beliefs, record(values, known, 84), 84)[0]
    assert np.log(point[35:49].mean() / point[5:19].mean()) == pytest.approx(0.3, abs=0.06)
    assert np.log(point[0] / point[1]) == pytest.approx(-0.5, abs=0.08)


def test_deciles_of_sums_rise_and_drawn_futures_have_the_same() -> None:
    values = grown(0.1, np.random.default_rng(5))
    past, own = record(values, h=84), Drift(Beliefs(), 0.0, 0.05)
    point, sums = drift.ahead(own.beliefs, past, 84)[0], np.repeat(np.eye(3), 28, axis=1)
    said = own.deciles(past, point, sums)
    assert (np.diff(said, axis=1) > 0.0).all()
    assert said[:, MEDIAN] == pytest.approx(sums @ point)
    drawn = own.paths(past, point, 4_000, np.random.default_rng(6)) @ sums.T
    bands = np.quantile(drawn, [0.1, 0.9], axis=0).T
    assert bands == pytest.approx(said[:, [0, 8]], rel=0.02)


def test_several_long_series_are_led_by_their_usual_drift_and_a_single_one_is_not() -> None:
    series = panel([0.3, 0.3, 0.3])
    together, alone = QUICK.fit(series, 0), QUICK.fit(series[:1], 0)
    assert together.fits["s0"].prevails
    assert alone.fits["s0"].drift is None
    past = past_at(series[0], np.array([DAYS]), QUICK.context, 84)
    assert together.forecast(past, 84)[0, :, MEDIAN].mean() > 1.05 * alone.forecast(past, 84)[0, :, MEDIAN].mean()
    assert together.paths(past, 84, 20, 1).shape == (1, 20, 84)


def test_short_series_and_those_with_zeros_have_no_drift() -> None:
    rng = np.random.default_rng(7)
    assert drift.suits(grown(0.1, rng), DAY_S)
    assert not drift.suits(grown(0.1, rng, 400), DAY_S)
    assert not drift.suits(np.maximum(grown(0.1, rng) - 100.0, 0.0), DAY_S)
    assert not drift.suits(grown(0.1, rng), 3_600)
    with pytest.raises(UsageError, match="15 months"):
        drift.learned([])


def test_the_future_does_not_change_the_forecast_of_a_panel() -> None:
    values, known = grown(0.2, np.random.default_rng(8), DAYS + 84), np.zeros((DAYS + 84, 1))
    columns = Columns(known=("event",))
    full = Series("s0", 0, DAY_S, values, known, columns=columns)
    other = Series("s0", 0, DAY_S, np.where(np.arange(len(values)) < DAYS, values, 1.0), known, columns=columns)
    said = [
        QUICK.fit([each.until(DAYS), *panel([0.1])], 0).forecast(past_at(each, np.array([DAYS]), QUICK.context, 84), 84)
        for each in (full, other)
    ]
    assert (said[0] == said[1]).all()
