import numpy as np
import pytest

from agents.forecast.base import Forecaster, Past
from agents.forecast.frames import Series
from agents.forecast.naive import Naive
from agents.forecast.rolling import past_at
from agents.scale import foretold
from twin.errors import PolicyError, UsageError

DEMAND = Series("cell.demand_rps", 3000, 300, 100.0 + 10.0 * np.random.default_rng(0).standard_normal(60))
NAIVE = Naive(season=3).fit([DEMAND.until(30)], 0)


@pytest.fixture
def told():
    return foretold.foretell(NAIVE, DEMAND, 30, 2)


def test_it_says_what_the_forecaster_says_of_the_same_past(told):
    assert isinstance(told, Forecaster)
    for origin in (30, 45, 60):
        expected = NAIVE.forecast(past_at(DEMAND, np.array([origin]), 3, 2), 2)
        assert np.array_equal(told.forecast(past_at(DEMAND, np.array([origin]), 1, 2), 2), expected)
    assert told.fit([], 0) is told


def test_what_came_stands_beside_it(told):
    assert told.truth[0].tolist() == DEMAND.values[30:32].tolist()
    assert np.isnan(told.truth[-1]).all()


def test_the_oracle_knows_what_will_come():
    oracle = foretold.truth(DEMAND, 30, 2)
    said = oracle.forecast(past_at(DEMAND, np.array([40]), 1, 2), 2)
    assert np.array_equal(said, np.repeat(DEMAND.values[None, 40:42, None], 9, axis=2))
    assert (oracle.said[-1] == DEMAND.values[-1]).all()  # beyond the record


def test_another_demand_than_that_foretold_is_refused(told):
    past = past_at(DEMAND, np.array([40]), 1, 2)
    other = Past(past.ids, past.y * 1.05, past.origin_s, 300, past.seen, past.known, past.static)
    with pytest.raises(PolicyError, match="cannot be foretold"):
        told.forecast(other, 2)


@pytest.mark.parametrize(("origin", "h"), [(29, 2), (40, 3)])
def test_an_origin_or_horizon_of_which_nothing_was_said_is_refused(told, origin, h):
    with pytest.raises(UsageError, match="foretold 2 steps"):
        told.forecast(past_at(DEMAND, np.array([origin]), 1, h), h)


def test_too_little_history_is_refused():
    with pytest.raises(UsageError, match="needs 3 steps"):
        foretold.foretell(NAIVE, DEMAND, 2, 2)


def test_it_comes_back_from_its_file_whole(told, tmp_path):
    told.write(tmp_path / "deep" / "told.npz")
    back = foretold.read(tmp_path / "deep" / "told.npz")
    assert (back.name, back.begin, back.demand.unique_id, back.demand.start_s) == ("naive", 30, "cell.demand_rps", 3000)
    assert np.array_equal(back.said, told.said)
    assert np.array_equal(back.demand.values, DEMAND.values)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["told.npz"]


def test_a_damaged_file_is_refused(tmp_path):
    (tmp_path / "told.npz").write_bytes(b"PK")
    for name in ("told.npz", "absent.npz"):
        with pytest.raises(PolicyError, match="make them again"):
            foretold.read(tmp_path / name)
