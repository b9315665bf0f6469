"""Training under a budget: the accountant, the bound on one tenant, the noise, and what is stated of the result."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dp_accounting import dp_event as dp
from dp_accounting import rdp
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.forecast import clipped, frames, training
from agents.forecast.base import Past
from agents.forecast.federated import Federated, Rounds
from agents.forecast.frames import Series
from agents.forecast.nets.linear import NLinear
from agents.forecast.neural import Neural, Training, Windows, beginnings
from agents.forecast.private import Budget, Privacy, Private, calibrated, drawn, spent, stacked, tenant_of, tenants_of
from twin.errors import PolicyError, UsageError
from twin.seeds import child

ROOT = Path(__file__).resolve().parents[3]
NET = Neural(NLinear(), window=24, horizon=4, training=Training(steps=20, batch=16, learning_rate=5e-3))
LOUD = Budget(epsilon=math.inf, sampling=1.0, clip=1e6, windows=8)


@pytest.fixture(scope="module")
def series(long, wave) -> list[Series]:
    return frames.panel(long(**{f"site/vm{k}/cpu": wave(300, seed=k, day=48) for k in range(6)}))


@pytest.fixture(scope="module")
def data(series) -> Windows:
    return Windows.of(NET, series)


@pytest.fixture(scope="module")
def arrays(data) -> dict[str, jax.Array]:
    return {name: jnp.asarray(values) for name, values in data.arrays.items()}


def plan(steps: int = 20, **changes: Any) -> clipped.Clipped:
    net = NET.sized((0, 0, 0))
    recipe = training.Recipe(net.architecture, replace(net, weights={"": np.zeros(1)}).view, steps, 5e-3, 1e-4, "auto")
    return clipped.Clipped(recipe, **changes)


def fresh(seed: int = 0) -> dict[str, jax.Array]:
    view = plan().recipe.view
    return {path: value[None] for path, value in training.initial(NET.architecture, view.dims, seed).items()}


def norm(tree: Any) -> float:
    return math.sqrt(sum(float((np.asarray(value, np.float64) ** 2).sum()) for value in jax.tree.leaves(tree)))


# ---------------------------------------------------------------- the accountant


def gaussian_delta(epsilon: float, sigma: float) -> float:
    """Of one Gaussian sum, exactly: Balle and Wang (2018), ICML, theorem 8."""
    cdf = NormalDist().cdf
    return cdf(0.5 / sigma - epsilon * sigma) - math.exp(epsilon) * cdf(-0.5 / sigma - epsilon * sigma)


@pytest.mark.parametrize(("noise", "steps"), [(1.0, 1), (2.0, 4), (20.0, 100), (10.0, 400)])
def test_without_sampling_epsilon_is_that_of_the_analytic_gaussian(noise, steps):
    epsilon = spent(noise, 1.0, steps, 1e-5)
    # n sums with noise s tell as much as one with s / sqrt(n)
    assert gaussian_delta(epsilon, noise / math.sqrt(steps)) <= 1e-5 * (1 + 1e-6)
    assert gaussian_delta(epsilon * 0.999, noise / math.sqrt(steps)) > 1e-5


@pytest.mark.parametrize(
    ("noise", "sampling", "steps", "moments", "now"),
    [
        (4.0, 0.01, 10_000, 1.26, 0.947),  # Abadi et al. (2016), section 3.2: epsilon 1.26 by the moments accountant
        (1.1, 256 / 60_000, 14_063, 2.92, 2.38),  # the MNIST tutorial of TensorFlow Privacy: 2.92 for 60 epochs
    ],
)
def test_epsilon_is_below_published_ones_of_looser_accountants(noise, sampling, steps, moments, now):
    epsilon = spent(noise, sampling, steps, 1e-5)
    assert epsilon < moments
    assert epsilon == pytest.approx(now, rel=0.01)


@pytest.mark.parametrize(("noise", "sampling", "steps"), [(2.28, 0.5, 50), (4.0, 0.1, 300)])
def test_epsilon_is_a_little_below_that_of_the_renyi_accountant(noise, sampling, steps):
    other = rdp.RdpAccountant(orders=[1.5, *range(2, 129)])
    other.compose(dp.SelfComposedDpEvent(dp.PoissonSampledDpEvent(sampling, dp.GaussianDpEvent(noise)), steps))
    bound = other.get_epsilon(1e-5)
    assert 0.7 * bound < spent(noise, sampling, steps, 1e-5) < bound


def test_the_calibrated_noise_spends_the_budget_and_no_more():
    noise = calibrated(8.0, 1e-5, 0.5, 20)
    assert spent(noise, 0.5, 20, 1e-5) <= 8.0 < spent(noise - 5e-3, 0.5, 20, 1e-5)


def test_more_steps_more_sampling_and_less_noise_all_tell_more():
    here = spent(2.0, 0.3, 50, 1e-5)
    assert here < min(spent(2.0, 0.3, 60, 1e-5), spent(2.0, 0.4, 50, 1e-5), spent(1.8, 0.3, 50, 1e-5))
    assert spent(0.0, 0.3, 50, 1e-5) == math.inf
    assert calibrated(math.inf, 1e-5, 0.3, 50) == 0.0


@pytest.mark.parametrize(
    "wrong", [{"epsilon": 0.0}, {"delta": 1.0}, {"sampling": 0.0}, {"clip": 0.0}, {"clip": math.inf}]
)
def test_a_budget_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(UsageError):
        Budget(**wrong)


# ---------------------------------------------------------------- one tenant


def odd(values: np.ndarray) -> Series:
    return Series("site/odd/cpu", 0, 300, values)


SPIKES = np.where(np.arange(300) % 37 == 0, 1e12, 1e-9)
ODD = {
    "spikes": odd(SPIKES),
    "steps": odd(np.where(np.arange(300) % 50 < 25, -1e9, 1e9)),
    "still": odd(np.full(300, 7.0)),
    "zeros": odd(np.zeros(300)),
    "growth": odd(np.exp(np.arange(300) / 5.0)),
}


@jax.jit
def summed(arrays: dict[str, jax.Array], places: jax.Array, absent: jax.Array) -> Any:
    return clipped.contributions(plan(), 0.05, fresh(), arrays)(fresh(), places, is_padding_example=absent)


@pytest.mark.parametrize("name", ODD)
def test_no_tenant_moves_the_sum_by_more_than_the_clip_norm(series, name):
    joined = Windows.of(NET, [*series, ODD[name]])
    tables = {key: jnp.asarray(values) for key, values in joined.arrays.items()}
    tenants = list(tenants_of(joined).values())
    places = jnp.asarray(np.stack([starts[-8:] for starts in tenants]))
    everyone = summed(tables, places, jnp.zeros(len(tenants), bool))
    for k in range(len(tenants)):
        without = summed(tables, places, jnp.asarray(np.arange(len(tenants)) == k))
        assert norm(jax.tree.map(lambda a, b: a - b, everyone, without)) <= 0.05 * (1 + 1e-4)


def test_all_series_of_a_tenant_are_one_contribution(series):
    own = [replace(series[0], unique_id="site/vm0/memory"), *series, replace(series[1], unique_id="site/vm1/disk")]
    found = tenants_of(Windows.of(NET, own))
    assert sorted(found) == [f"site/vm{k}" for k in range(6)]
    assert len(found["site/vm0"]) == len(found["site/vm1"]) == 2 * len(found["site/vm2"])
    assert [tenant_of(name) for name in ("a/b/cpu", "a/cpu", "alone")] == ["a/b", "a", "alone"]


@settings(max_examples=20, deadline=None)
@given(st.floats(0.05, 1.0), st.integers(0, 2**31), st.integers(1, 60))
def test_tenants_are_drawn_by_their_own_coins_and_nobody_drawn_is_left_out(sampling, seed, count):
    starts = [np.arange(100 * k, 100 * k + 10 + k) for k in range(count)]
    budget = Budget(sampling=sampling, windows=3)
    places, absent = drawn(starts, budget, 40, np.random.default_rng(seed))
    chosen = np.random.default_rng(seed).random((40, count)) < sampling
    for step in range(40):
        present = places[step][~absent[step]] // 100
        assert sorted(present[:, 0]) == list(np.flatnonzero(chosen[step]))
        assert (present == present[:, :1]).all()
    assert places.shape[1] <= max(count, 1)


# ---------------------------------------------------------------- noise


def test_without_noise_and_clip_it_is_ordinary_training(arrays, data):
    starts = list(tenants_of(data).values())
    places, absent = drawn(starts, LOUD, 10, np.random.default_rng(0))
    assert not absent.any()
    state = clipped.start(plan(), fresh(), jax.random.key(0))
    bounds = clipped.Bounds(1e6, 0.0, len(starts))
    found = clipped.advance(plan(), bounds, state, arrays, jnp.asarray(places), jnp.asarray(absent))[0]
    ordinary = training.start(plan().recipe, [{path: value[0] for path, value in fresh().items()}])
    rows = jnp.asarray(places.reshape(1, 10, -1))
    expected: Any = training.advance(plan().recipe, ordinary, arrays, rows)[0][0]
    assert norm(jax.tree.map(lambda a, b: a - b, expected, fresh())) > 0.01
    for path, value in expected.items():
        np.testing.assert_allclose(found[path], value, atol=2e-6)


def test_the_noise_has_the_stated_deviation_and_is_new_in_each_step():
    like = {"w": jnp.zeros((200, 200))}
    adder_of: Any = clipped._noise
    state, seen = adder_of(0.0, jax.random.key(3)).init(like), []
    for _ in range(3):
        noisy, state = adder_of(0.7).update(like, state)
        seen.append(np.asarray(noisy["w"]).ravel())
    assert np.std(seen[0]) == pytest.approx(0.7, rel=4 / math.sqrt(2 * 40_000))
    assert abs(np.mean(seen[0])) < 4 * 0.7 / 200
    assert np.abs(np.corrcoef(seen) - np.eye(3)).max() < 0.02


def test_what_is_added_to_the_sum_is_the_noise_multiplier_times_the_clip(arrays):
    """Ten steps without tenants, seen through the optimiser's mean of the gradients: noise over expected tenants."""
    nobody, absent = jnp.full((10, 6, 8), 100), jnp.ones((10, 6), bool)
    state = clipped.start(plan(), fresh(), jax.random.key(1))
    after = clipped.advance(plan(), clipped.Bounds(0.1, 3e-4, 5.0), state, arrays, nobody, absent)
    leaves = jax.tree_util.tree_flatten_with_path(after[1])[0]
    means = np.concatenate([np.ravel(value) for path, value in leaves if any("mu" in str(step) for step in path)])
    kept = 0.1 * math.sqrt(sum(0.81**k for k in range(10)))  # of independent noise by Adam's running mean
    assert np.std(means) == pytest.approx(kept * 3e-4 / 5.0, rel=0.2)


def test_only_the_chosen_weights_move(series):
    fitted = Private(NET, Budget(8.0, sampling=0.5, moves=("*.bias",))).fit(series, seed=0)
    begun = stacked(beginnings(NET.sized((0, 0, 0)), child(0, "forecast")))
    assert fitted.net.weights
    changed = {path for path, value in fitted.net.weights.items() if (value != begun[path]).any()}
    assert changed
    assert all(path.endswith(".bias") for path in changed)


# ---------------------------------------------------------------- what is stated, and kept


@pytest.fixture(scope="module")
def fitted(series) -> Private:
    return Private(NET, Budget(8.0, sampling=0.5)).fit(series, seed=1)


def test_the_result_states_unit_epsilon_and_how_it_was_spent(fitted):
    said = fitted.privacy
    assert said
    assert (said.unit, said.delta, said.steps, said.sampling, said.tenants) == ("tenant", 1e-5, 20, 0.5, 6)
    assert 7.9 < said.epsilon <= 8.0
    assert said.epsilon == spent(said.noise_multiplier, 0.5, 20, 1e-5)
    assert "per tenant (6 of them; noise multiplier" in str(said)


def test_the_same_seed_gives_the_same_network_and_another_seed_other_noise(series, fitted):
    again = Private(NET, Budget(8.0, sampling=0.5)).fit(series, seed=1).net.weights
    other = Private(NET, Budget(8.0, sampling=0.5)).fit(series, seed=2).net.weights
    assert fitted.net.weights
    assert again
    assert other
    assert all(np.array_equal(again[path], value) for path, value in fitted.net.weights.items())
    assert any(not np.array_equal(other[path], value) for path, value in fitted.net.weights.items())


def test_noise_costs_accuracy_and_a_smaller_epsilon_costs_more(series):
    """Six tenants are far too few to hide among: the price shows at once."""

    def loss(epsilon: float) -> float:
        net = replace(NET, training=replace(NET.training, steps=100))
        budget = Budget(epsilon, sampling=1.0, clip=1.0)
        found = Private(net, budget).fit(series, 0).net
        past = np.stack([s.values[k : k + 28] for s in series for k in range(200, 270, 7)])
        said = found.forecast(Past.of(past[:, :24], ["x"] * len(past), 4), 4)
        return float(np.abs(said[..., 4] - past[:, 24:]).mean())

    assert loss(math.inf) < loss(8.0) < loss(0.5)


def test_the_certificate_is_kept_with_the_weights_and_bound_to_them(fitted, tmp_path):
    fitted.save(tmp_path / "net.npz")
    loaded = Private(NET).load(tmp_path / "net.npz")
    assert loaded.privacy == fitted.privacy
    Federated(replace(fitted.net), Rounds()).save(tmp_path / "net.npz")  # other bytes or not: the same weights
    assert Private(NET).load(tmp_path / "net.npz").privacy == fitted.privacy
    other = replace(fitted.net, weights={path: value + 1 for path, value in (fitted.net.weights or {}).items()})
    other.save(tmp_path / "net.npz")
    with pytest.raises(PolicyError, match="not the weights"):
        Private(NET).load(tmp_path / "net.npz")
    (tmp_path / "net.privacy.json").unlink()
    with pytest.raises(PolicyError, match="certificate"):
        Private(NET).load(tmp_path / "net.npz")


def test_without_noise_the_certificate_says_infinite(series, tmp_path):
    fitted = Private(NET, LOUD).fit(series, seed=0)
    fitted.save(tmp_path / "net.npz")
    loaded = Private(NET).load(tmp_path / "net.npz").privacy
    assert loaded == fitted.privacy == Privacy(math.inf, 1e-5, "tenant", 0.0, 1e6, 20, 1.0, 6)


def test_nothing_is_certified_before_it_is_trained(tmp_path):
    with pytest.raises(UsageError, match="not trained under a budget"):
        Private(NET).save(tmp_path / "net.npz")


def test_sites_that_train_under_a_budget_state_it_for_their_own_tenants(series):
    halves = [replace(s, unique_id=s.unique_id.replace("site", "ab"[k % 2])) for k, s in enumerate(series)]
    fitted = Federated(NET, Rounds(2, 10, secure=True), Budget(8.0, sampling=0.5)).fit(halves, seed=0)
    assert fitted.privacy
    # a tenant is at one site only: all rounds of that site count, those of others do not
    assert (fitted.privacy.steps, fitted.privacy.tenants) == (20, 3)
    assert fitted.privacy.epsilon == spent(fitted.privacy.noise_multiplier, 0.5, 20, 1e-5)


def test_who_is_drawn_comes_from_the_seed_and_never_from_the_tenants():
    one, two = (drawn([np.arange(k, k + 9)] * 4, Budget(), 5, child(7, "sampling"))[1] for k in (0, 50))
    assert np.array_equal(one, two)


# ---------------------------------------------------------------- no network

OFFLINE = """
import socket, sys
from pathlib import Path
import numpy as np

class Refused(socket.socket):
    def __init__(self, *args, **kwargs):
        raise RuntimeError("a socket was opened")

def refuse(*args, **kwargs):
    raise RuntimeError("the network was asked")

socket.socket = Refused
socket.create_connection = socket.getaddrinfo = refuse

import twin
from agents.forecast import frames
from agents.forecast.federated import Federated, Rounds
from agents.forecast.nets.linear import NLinear
from agents.forecast.neural import Neural, Training
from agents.forecast.private import Budget, Private
from agents.forecast.rolling import roll

folder, out = map(Path, sys.argv[1:])
series = frames.panel(frames.series(twin.read(str(folder))))
net = Neural(NLinear(), window=24, horizon=4, training=Training(steps=50, batch=16))
for recipe in (net, Federated(net, Rounds(2, 5, secure=True)), Private(net, Budget(sampling=1.0))):
    fitted = recipe.fit(series, 0)
    path = out / (type(recipe).__name__ + ".npz")
    fitted.save(path)
    loaded = recipe.load(path) if isinstance(recipe, Private) else net.load(path)
    said = roll(loaded, series[0], np.arange(100, 200, 10), 4).said
    assert np.isfinite(said).all()
    print(type(recipe).__name__, said.shape)
"""


def test_training_saving_loading_and_forecasting_open_no_socket(tmp_path):
    import twin

    folder = tmp_path / "recording"
    twin.read("google2019").between(0, 86_400).write(folder)
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, str(folder), str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{name} (10, 4, 9)" for name in ("Neural", "Federated", "Private")]
