"""Selection finds what a series was made of, drops noise, and is the same every time."""

from dataclasses import replace

import numpy as np
import pytest

import twin
from agents.forecast.frames import Columns, Series, panel, series
from agents.forecast.select import select
from twin.errors import UsageError


def made(seed=0, steps=1500, unit=1.0):
    """y follows its value 5 steps ago, a known column at the same step and a static one; all else is noise."""
    rng = np.random.default_rng(seed)
    known, seen = rng.normal(size=(steps, 2)), rng.normal(size=(steps, 1))
    y = np.zeros(steps)
    for t in range(5, steps):
        y[t] = 0.6 * y[t - 5] + known[t, 0] + 0.3 * rng.normal()
    columns = Columns(("plan", "noise"), ("other",), ("size",))
    return Series(f"s{seed}", 0, 300, unit * (y + 10), known, seen, np.array([seed]), columns)


def test_what_made_the_series_is_kept_and_noise_is_dropped():
    found = select([made()], [1, 2, 5, 7])
    assert found.lags == (5,)
    assert found.columns == Columns(("plan",), (), ())
    assert found.table["feature"].to_list()[:2] == ["plan", "lag_5"]
    assert found.errors["kept"] <= 1.01 * found.errors["all"] < found.errors["last"]


def test_a_lag_is_counted_from_the_origin_and_a_known_column_is_read_at_the_forecast_step():
    found = select([made()], [1, 2, 3, 4, 5], h=3)
    assert found.lags == (3,)
    assert found.columns.known == ("plan",)


def test_a_panel_is_judged_in_the_units_of_each_series():
    found = select([made(0), made(1, unit=1e6), made(2, steps=400, unit=1e-6)], [1, 5])
    assert found.lags == (5,)


def test_the_same_seed_gives_the_same_table_and_the_unit_changes_no_choice():
    one, two = (select([made()], [1, 5], seed=3) for _ in range(2))
    assert one.table.equals(two.table)
    scaled = select([made(unit=1e5)], [1, 5], seed=3)
    assert scaled.lags == one.lags
    np.testing.assert_allclose(scaled.table["gain"], one.table["gain"], atol=1e-6)


def test_columns_known_beyond_the_end_of_the_series_change_nothing():
    whole = made()
    cut = 1200
    short = replace(whole, values=whole.values[:cut], known=whole.known[:cut], seen=whole.seen[:cut])
    other = replace(short, known=np.concatenate([short.known, np.full((50, 2), 1e9)]))
    assert select([short], [1, 5]).table.equals(select([other], [1, 5]).table)


def test_a_day_ago_helps_the_cpu_of_a_recorded_cell_and_a_column_of_noise_does_not():
    (cpu,) = panel(series(twin.read("google2019"), ["cpu"]))
    noise = np.random.default_rng(0).normal(size=(len(cpu.values), 1))
    found = select([replace(cpu, seen=noise, columns=Columns(seen=("noise",)))], [1, 100, 277], h=12)
    assert 277 in found.lags
    assert 1 in found.lags
    assert found.columns.seen == ()


def test_of_a_random_walk_nothing_tells_more_than_its_last_value():
    walk = Series("walk", 0, 300, np.random.default_rng(0).normal(size=2000).cumsum())
    found = select([walk], [1, 2, 50])
    assert found.lags == ()
    assert found.errors["kept"] == found.errors["last"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: select([], [1]), "needs series"),
        (lambda: select([made()], [0]), "must be positive"),
        (lambda: select([made()], [1, 1]), "named twice"),
        (lambda: select([replace(made(), columns=Columns())], []), "needs candidates"),
        (lambda: select([made(steps=30)], [1]), "too few steps"),
    ],
)
def test_what_cannot_be_selected_is_refused(call, message):
    with pytest.raises(UsageError, match=message):
        call()
