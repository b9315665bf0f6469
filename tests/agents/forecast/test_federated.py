"""Sites that share no data: what leaves them, what their average is, and a training that is cut."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.forecast import frames, training
from agents.forecast.base import Past
from agents.forecast.federated import Federated, Local, Rounds, federate, masked, mean, opened, site_of
from agents.forecast.frames import Series
from agents.forecast.nets.linear import NLinear
from agents.forecast.neural import Neural, Stored, Training
from agents.forecast.private import Budget
from agents.forecast.rolling import roll
from twin.errors import PolicyError, UsageError

NET = Neural(NLinear(), window=24, horizon=4, training=Training(batch=16, learning_rate=5e-3))
ROUNDS = Rounds(rounds=3, local_steps=5)


@pytest.fixture(scope="module")
def series(long, wave) -> list[Series]:
    waves = {f"{site}/{k}/cpu": wave(400, seed=7 * k + len(site), day=48) for site in ("a", "bb") for k in range(2)}
    return [*frames.panel(long(**waves)), *frames.panel(long(**{"c/0/cpu": 5.0 * wave(300, seed=9, day=48)}))]


@pytest.fixture(scope="module")
def begun() -> Stored:
    return {"kernel": np.ones((1, 3, 2), np.float32), "bias": np.zeros((1, 2), np.float32)}


@pytest.fixture(scope="module")
def fitted(series) -> Federated:
    return Federated(NET, ROUNDS).fit(series, seed=3)


def weights(fitted: Federated) -> dict[str, np.ndarray]:
    assert fitted.net.weights
    return dict(fitted.net.weights)


def equal(a: Federated, b: Federated) -> bool:
    return all(np.array_equal(weights(a)[path], value) for path, value in weights(b).items())


class Fixed:
    """A site that answers every round with the same weights, or is away."""

    def __init__(self, name: str, answer: Stored, count: int, away: Callable[[int], bool] = lambda _: False) -> None:
        self.name, self.answer, self.count, self.away = name, answer, count, away

    def train(self, weights: Stored, turn: int) -> tuple[Stored, int]:
        if self.away(turn):
            raise ConnectionError(self.name)
        return self.answer, self.count


def shifted(like: Stored, by: float) -> Stored:
    return {path: value + np.float32(by) for path, value in like.items()}


def test_a_site_shows_nothing_but_its_name_its_training_and_its_certificate(series):
    local = Local("a", NET, series[:2], ROUNDS, seed=0)
    assert {name for name in dir(local) if not name.startswith("_")} == {"name", "train", "certificate"}


def test_the_average_counts_each_site_as_often_as_it_has_series(begun):
    found = mean([(shifted(begun, 1.0), 1), (shifted(begun, 4.0), 3)])
    for path, value in found.items():
        np.testing.assert_allclose(value, begun[path] + 3.25)


def test_one_site_alone_learns_what_its_own_steps_teach_it(series):
    own = series[:2]
    local = Local("a", NET, own, Rounds(1, 5), seed=3)
    alone = Federated(NET, Rounds(1, 5)).fit(own, seed=3)
    fresh = training.initial(NET.architecture, NET.sized((0, 0, 0)).dims, 0)  # pyright: ignore[reportArgumentType]
    start = Federated(NET, Rounds(0, 5)).fit(own, seed=3)
    assert weights(start).keys() == fresh.keys()
    again, count = local.train(weights(start), 0)
    assert count == 2
    for path, value in weights(alone).items():
        np.testing.assert_allclose(value, again[path], rtol=1e-6)


def test_the_network_learns_from_all_sites(series):
    def error(net: Federated) -> float:
        rolled = [roll(net, s, np.arange(len(s.values) - 40, len(s.values) - 3), 4) for s in series]
        return float(np.mean([np.abs(r.said[..., 4] - r.truth).mean() / np.ptp(r.truth) for r in rolled]))

    longer = Federated(NET, Rounds(8, 25)).fit(series, seed=3)
    assert error(longer) < 0.8 * error(Federated(NET, Rounds(0, 1)).fit(series, seed=3))
    assert longer.history[0].sites == ("a", "bb", "c")
    assert longer.history[-1].moved < longer.history[1].moved  # the learning rate falls over all rounds


def test_the_same_seed_gives_the_same_weights(series, fitted):
    assert equal(fitted, Federated(NET, ROUNDS).fit(series, seed=3))
    assert not equal(fitted, Federated(NET, ROUNDS).fit(series, seed=4))


def test_the_order_of_the_sites_does_not_matter(series, fitted):
    again = Federated(NET, ROUNDS).fit(series[::-1], seed=3)
    # within a site the order of its series decides which windows are drawn
    same = Federated(NET, ROUNDS).fit([*series[2:], *series[:2]], seed=3)
    for path, value in weights(fitted).items():
        np.testing.assert_allclose(weights(same)[path], value, atol=1e-6)
    assert again.history[0].sites == ("c", "bb", "a")


def test_a_stronger_pull_keeps_the_sites_nearer_to_what_they_were_given(series):
    moved = []
    for pull in (0.0, 10.0, 1000.0):
        local = Local("a", NET, series[:2], Rounds(1, 20, proximal=pull), seed=0)
        start = weights(Federated(NET, Rounds(0, 20)).fit(series, seed=3))
        after, _ = local.train(start, 0)
        moved.append(sum(float(((after[path] - start[path]) ** 2).sum()) for path in start))
    assert moved[0] > moved[1] > moved[2]


# ---------------------------------------------------------------- rounds that somebody misses


def test_a_site_that_is_away_is_left_out_of_its_round_only(begun):
    here = Fixed("here", shifted(begun, 1.0), 1)
    often = Fixed("often", shifted(begun, 3.0), 1, away=lambda turn: turn == 1)
    found, history = federate(begun, [here, often], Rounds(2, 1), seed=0)
    assert [each.sites for each in history] == [("here", "often"), ("here",)]
    np.testing.assert_allclose(found["bias"], begun["bias"] + 1.0)


@pytest.mark.parametrize("secure", [False, True])
def test_too_few_sites_leave_the_weights_as_they_were(begun, secure):
    sites = [Fixed("here", shifted(begun, 1.0), 1), Fixed("away", begun, 1, away=lambda _: True)]
    found, history = federate(begun, sites, Rounds(2, 1, secure=secure, least_sites=2), seed=0)
    assert all(np.array_equal(found[path], begun[path]) for path in begun)
    assert history[0].moved == 0.0


def test_a_training_that_was_cut_goes_on_to_the_same_weights(series, fitted, tmp_path):
    kept = tmp_path / "rounds.npz"

    def cut(share: float, note: str) -> None:
        if share > 0.5:
            raise KeyboardInterrupt(note)

    with pytest.raises(KeyboardInterrupt):
        Federated(NET, ROUNDS, checkpoint=kept).fit(series, 3, cut)
    resumed = Federated(NET, ROUNDS, checkpoint=kept).fit(series, 3)
    assert len(resumed.history) == 1
    assert equal(resumed, fitted)
    assert list(tmp_path.iterdir()) == [kept]


def test_rounds_of_another_training_are_refused(begun, tmp_path):
    kept = tmp_path / "rounds.npz"
    site = Fixed("a", begun, 1)
    federate(begun, [site], Rounds(1, 1), 0, checkpoint=kept)
    with pytest.raises(PolicyError, match="another training"):
        federate(begun, [site], Rounds(1, 1), 1, checkpoint=kept)
    kept.write_bytes(b"half")
    with pytest.raises(PolicyError, match="not the rounds"):
        federate(begun, [site], Rounds(1, 1), 0, checkpoint=kept)


def test_sites_need_names_of_their_own(begun):
    with pytest.raises(UsageError, match="different names"):
        federate(begun, [Fixed("a", begun, 1)] * 2, Rounds(1, 1), seed=0)
    with pytest.raises(UsageError, match="different names"):
        federate(begun, [], Rounds(1, 1), seed=0)


def test_sites_with_other_columns_are_refused(series):
    odd = replace(series[-1], static=np.ones(2))
    with pytest.raises(UsageError, match="columns"):
        Federated(NET, ROUNDS).fit([series[0], odd], seed=0)


def test_a_private_site_has_no_pull(series):
    with pytest.raises(UsageError, match="pull"):
        Local("a", NET, series[:2], Rounds(1, 5, proximal=0.1), 0, Budget())


# ---------------------------------------------------------------- secure sums


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_masks_cancel_in_the_sum_of_all_sites_and_only_there(count, seed):
    rng = np.random.default_rng(seed)
    names = [f"site {k}" for k in range(count)]
    held = {name: ({"w": rng.normal(0, 10, (2, 50)).astype(np.float32)}, int(rng.integers(1, 300))) for name in names}
    sent = [masked(*held[name], name, names, seed, 0) for name in names]
    np.testing.assert_allclose(opened(sent, held[names[0]][0])["w"], mean(list(held.values()))["w"], atol=2e-6)
    if count > 1:
        rest = mean([held[name] for name in names[1:]])["w"]
        assert (np.abs(opened(sent[1:], held[names[0]][0])["w"] - rest) > 0.01).mean() > 0.9


def test_what_one_site_sends_is_evenly_spread_whatever_its_weights_are():
    names = ["a", "b"]
    flat = [{"w": np.full(20_000, value, np.float32)} for value in (0.0, 3.0)]
    for weights in flat:
        sent = masked(weights, 5, "a", names, 1, 0)
        first = np.bincount((sent >> np.uint64(60)).astype(np.int64), minlength=16)
        expected = len(sent) / 16
        assert ((first - expected) ** 2 / expected).sum() < 45.0  # chi-squared, 15 degrees of freedom: p < 1e-4


def test_masks_are_new_in_every_round():
    weights = {"w": np.ones(8, np.float32)}
    one, two = (masked(weights, 1, "a", ["a", "b"], 0, turn) for turn in (0, 1))
    assert (one != two).all()


def test_secure_rounds_learn_what_open_ones_learn(series, fitted):
    secure = Federated(NET, replace(ROUNDS, secure=True)).fit(series, seed=3)
    for path, value in weights(fitted).items():
        np.testing.assert_allclose(weights(secure)[path], value, atol=1e-5)


def test_a_site_is_the_first_part_of_a_name():
    assert [site_of(name) for name in ("a/1/cpu", "a/cpu", "alone")] == ["a", "a", "alone"]


def test_the_network_is_saved_and_loaded(fitted, tmp_path: Path):
    fitted.save(tmp_path / "net.npz")
    loaded = NET.load(tmp_path / "net.npz")
    past = Past.of(np.linspace(1, 2, 24)[None], ["x"], 4)
    np.testing.assert_allclose(loaded.forecast(past, 4), fitted.forecast(past, 4), atol=1e-2)
