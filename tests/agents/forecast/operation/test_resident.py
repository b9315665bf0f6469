from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from agents.forecast import training
from agents.forecast.base import DECILES, Forecaster, Past
from agents.forecast.conformal import Conformal
from agents.forecast.frames import Series
from agents.forecast.naive import Naive
from agents.forecast.nets.base import Dims
from agents.forecast.nets.linear import NLinear
from agents.forecast.neural import Neural
from agents.forecast.operation import resident
from agents.forecast.operation.resident import Residents
from twin.errors import UsageError

H, WINDOW = 3, 24
RNG = np.random.default_rng(0)
VALUES = RNG.uniform(5.0, 15.0, (6, 60))
IDS = [f"s{k}" for k in range(6)]


def net(seed: int, window: int = WINDOW) -> Neural:
    """A network of random weights; different seeds say different things."""
    dims, rng = Dims(window, H), np.random.default_rng(seed)
    shapes = {path: np.shape(value) for path, value in training.initial(NLinear(), dims, seed).items()}
    weights = {path: 0.1 * rng.standard_normal((1, *shape)).astype(np.float32) for path, shape in shapes.items()}
    return Neural(NLinear(), window=window, horizon=H, dims=dims, weights=weights)


@pytest.fixture(scope="module")
def models() -> dict[str, Forecaster]:
    """Three networks of one kind, one of another, one with corrected bands, and one that is no network."""
    wide = Conformal(net(3), horizon=H, stretch={"s3": np.linspace(3.0, 1.0, len(DECILES))})
    naive = Naive(1).fit([Series("s5", 0, 300, VALUES[5])], 0)
    return {"s0": net(0), "s1": net(1), "s2": net(2), "s3": wide, "s4": net(4, window=12), "s5": naive}


def past(ids: list[str] | None = None) -> Past:
    ids = ids or IDS
    return Past.of(VALUES[[IDS.index(i) for i in ids]][:, -WINDOW:], ids, H)


def alone(models: dict[str, Forecaster], unique_id: str) -> np.ndarray:
    model = models[unique_id]
    return model.forecast(past([unique_id]).last(model.context, H), H)[0]


def test_all_together_they_say_what_each_says_alone(models: dict[str, Forecaster]) -> None:
    said = Residents(models, h=H).forecast_all(past())
    for k, unique_id in enumerate(IDS):
        np.testing.assert_allclose(said[k], alone(models, unique_id), rtol=1e-4, atol=1e-4, err_msg=unique_id)
    assert len({said[k].tobytes() for k in range(3)}) == 3, "three networks, three opinions"


def test_any_of_them_can_be_asked_in_any_order(models: dict[str, Forecaster]) -> None:
    residents = Residents(models, h=H)
    ids = ["s5", "s2", "s0", "s3"]
    said = residents.forecast_all(past(ids))
    for k, unique_id in enumerate(ids):
        np.testing.assert_allclose(said[k], alone(models, unique_id), rtol=1e-4, atol=1e-4, err_msg=unique_id)


def test_what_was_never_negative_is_floored_where_bands_are_corrected_and_nowhere_else() -> None:
    """A series of spikes over nothing, and one that is negative at times: in both, as each model alone."""
    y = np.zeros((len(IDS), 2 * WINDOW))
    y[:, ::7] = RNG.uniform(50.0, 100.0, y[:, ::7].shape)
    y[4, -3] = -1.0
    y[5, 0] = -1.0  # before what the model looks at
    far = np.full(len(DECILES), 4.0)
    bands: dict[str, Forecaster] = {i: Conformal(net(int(i[1])), H, stretch={i: far}) for i in IDS[2:]}
    models: dict[str, Forecaster] = {"s0": net(0), "s1": net(1), **bands}
    residents, spiky = Residents(models, h=H), Past.of(y, IDS, H)
    for order in (IDS, IDS[::-1]):
        said = residents.forecast_all(spiky.rows([IDS.index(i) for i in order]))
        for k, unique_id in enumerate(order):
            own = spiky.rows([IDS.index(unique_id)]).last(WINDOW, H)
            np.testing.assert_allclose(said[k], models[unique_id].forecast(own, H)[0], rtol=1e-4, atol=1e-4)
        lowest = {unique_id: said[k].min() for k, unique_id in enumerate(order)}
        assert [lowest[i] for i in ("s2", "s3", "s5")] == [0.0, 0.0, 0.0]
        assert max(lowest[i] for i in ("s0", "s1", "s4")) < 0.0, "a bare network, and what can be negative"


def test_nothing_is_compiled_when_they_are_asked(models: dict[str, Forecaster]) -> None:
    residents = Residents(models, h=H)
    before = _compilations()
    residents.forecast_all(past())
    residents.forecast_all(past(["s1"]))
    residents.swap("s1", net(11))
    residents.forecast_all(past())
    assert _compilations() == before


def _compilations() -> int:
    found = resident._answer(NLinear(), net(0).view), resident._answer(NLinear(), net(0, window=12).view)
    return sum(each._cache_size() for each in found)  # pyright: ignore[reportFunctionMemberAccess]


def test_a_swap_changes_one_series_and_no_other(models: dict[str, Forecaster]) -> None:
    residents = Residents(models, h=H)
    before = residents.forecast_all(past())
    residents.swap("s1", net(7))
    after = residents.forecast_all(past())
    np.testing.assert_allclose(after[1], alone({"s1": net(7)}, "s1"), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(np.delete(after, 1, axis=0), np.delete(before, 1, axis=0))
    residents.swap("s1", Naive(1).fit([Series("s1", 0, 300, VALUES[1])], 0))
    assert residents.forecast_all(past())[1, 0, 4] == VALUES[1, -1]


def test_a_swap_is_never_seen_half_done(models: dict[str, Forecaster]) -> None:
    """Asked without pause while another thread swaps: each answer is the old one or the new one, bit by bit."""
    residents = Residents(models, h=H)
    states = []
    for seed in (0, 50):
        residents.swap("s0", net(seed))
        states.append(residents.forecast_all(past()).tobytes())
    done = threading.Event()

    def swap() -> None:
        for turn in range(20):
            residents.swap("s0", net(0 if turn % 2 else 50))
        done.set()

    thread = threading.Thread(target=swap)
    thread.start()
    seen = set()
    while not done.is_set():
        seen.add(residents.forecast_all(past()).tobytes())
    thread.join()
    assert seen <= set(states)


def test_memory_is_bounded_and_said(models: dict[str, Forecaster]) -> None:
    nets = {i: models[i] for i in ("s0", "s1")}
    one = sum(value.nbytes for value in (net(0).weights or {}).values()) / 2**20
    assert Residents(nets, h=H).mib == pytest.approx(4 * one)
    shared = dict.fromkeys(IDS, models["s0"])
    assert Residents(shared, h=H).mib == pytest.approx(7 * one), "one model, and a row of the stack for each series"
    with pytest.raises(UsageError, match="most_mib"):
        Residents(nets, h=H, most_mib=3 * one)


def test_who_is_not_resident_is_not_answered_for(models: dict[str, Forecaster]) -> None:
    residents = Residents({"s0": models["s0"]}, h=H)
    for ids in (["s1"], ["s0", "s0"]):
        with pytest.raises(UsageError, match="resident"):
            residents.forecast_all(past(ids))
    with pytest.raises(UsageError, match="resident"):
        residents.swap("s1", net(0))
    with pytest.raises(UsageError, match="at least one"):
        Residents({}, h=H)
    assert residents.ids == ("s0",)
    assert residents.context == WINDOW
    with pytest.raises(UsageError, match="trained for"):
        Residents({"s0": replace(net(0))}, h=H + 1)


def test_a_past_that_no_model_could_take_is_refused_by_its_name(models: dict[str, Forecaster]) -> None:
    """In a stack as alone: an unknown tail, too little history, too little of what is known ahead."""
    residents = Residents(models, h=H)
    for k, unique_id in enumerate(IDS):
        tail = past()
        tail.y[k, -1] = np.nan
        with pytest.raises(UsageError, match=unique_id):
            residents.forecast_all(tail)
    whole = past()
    for short in (replace(whole, known=whole.known[:, :-1]), replace(whole, y=whole.y[:, 1:], seen=whole.seen[:, 1:])):
        with pytest.raises(UsageError, match="needs a past"):
            residents.forecast_all(short)
    with pytest.raises(UsageError, match=r"s0.*columns"):
        residents.forecast_all(replace(whole, known=np.zeros((len(IDS), WINDOW + H, 2))))


def test_a_series_younger_than_the_window_is_answered_as_each_does_alone(models: dict[str, Forecaster]) -> None:
    young = past()
    young.y[:4, : WINDOW - H] = np.nan
    said = Residents(models, h=H).forecast_all(young)
    for k in range(4):
        own = young.rows([k]).last(WINDOW, H)
        np.testing.assert_allclose(said[k], models[IDS[k]].forecast(own, H)[0], rtol=1e-4, atol=1e-4)


def test_more_history_and_more_of_what_is_known_than_a_model_needs_changes_nothing(
    models: dict[str, Forecaster],
) -> None:
    residents = Residents(models, h=H)
    for steps in (WINDOW, 2 * WINDOW):
        longer = Past.of(VALUES[:, -steps:], IDS, H + 2)
        np.testing.assert_array_equal(residents.forecast_all(longer), residents.forecast_all(past()))
