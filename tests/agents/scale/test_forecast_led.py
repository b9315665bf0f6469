import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import twin
from agents.forecast.nets.residual import ResidualMLP
from agents.forecast.neural import Neural, Training
from agents.policy import load
from agents.scale import artefact, forecast_led
from twin.errors import PolicyError, UsageError
from twin.types import Cluster, Pool, Service

DAY_S = 86_400.0
UNTIL_S = 6 * DAY_S
NETWORK = Neural(ResidualMLP(16), training=Training(steps=50, batch=32))
# one replica serves 4 / 0.16 = 25 requests/s
SERVICE = Service("cell", 2000.0, 2.0, 4.0, 0.16, 4, 0.5, replicas=48, min_replicas=4, max_replicas=90)
CLUSTER = Cluster("web", (Pool("workers", 16, 64, 0.76, 8),), (SERVICE,))


def learn(out, trace, **changes):
    asked = {"trace": trace, "cluster": CLUSTER, "service": "cell", "seed": 5, "until_s": UNTIL_S, "network": NETWORK}
    return forecast_led.learn(out, **{**asked, **changes})


@pytest.fixture(scope="module")
def trace():
    full = twin.read("google2019").between(0.0, 8 * DAY_S)
    return full.replacing("cpu alone", usage=full.usage.filter(resource="cpu"))


@pytest.fixture(scope="module")
def policy(trace, tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy") / "forecast_led"
    learn(folder, trace)
    return folder


@pytest.fixture(scope="module")
def windows(trace):
    """What the policy sees every hour of the two days after its training, in requests/s."""
    demand = trace.demand["value"].to_numpy() * SERVICE.unit_rps
    origins = np.arange(6 * 288, 8 * 288, 12)
    seen = demand[origins[:, None] + np.arange(-288, 0)]
    return np.stack([seen, np.zeros_like(seen)], axis=-1).astype(np.float32)  # no replicas wanted: nothing to keep


@pytest.fixture(scope="module")
def infer(policy):
    return artefact.graph_inference(policy / "graph.onnx", load(policy).spec)


def test_the_graph_says_what_the_trained_network_says(policy, windows):
    assert artefact.parity(forecast_led.native(policy, NETWORK), policy, windows) <= 1e-5


def test_the_folder_is_a_policy_that_explains_itself(policy, infer, windows):
    loaded = load(policy)
    assert loaded.spec.columns == ("cell.demand_rps", "cell.wanted_replicas")
    assert (loaded.spec.steps, loaded.spec.interval_s) == (288, 300.0)
    said = infer(windows[0])
    action = loaded.actions(said)[0]
    assert action.value == np.ceil(said.replicas[0] - 1e-3)
    peak, now = said.signals[1], said.signals[2]
    assert action.reason == f"forecast peak {peak:.0f} rps in 10 min (q90; now {now:.0f}): {action.value} replicas"


def test_replicas_serve_the_peak_at_the_target_utilisation(infer, windows):
    for window in windows:
        said = infer(window)
        expected, peak, now = said.signals.tolist()
        assert now == pytest.approx(window[-1, 0])
        assert expected <= peak
        assert said.replicas[0] == pytest.approx(np.clip(max(peak, now) / (25.0 * 0.8), 4, 90), rel=1e-5)
        assert 0.0 <= said.confidence <= 0.98 + 1e-6


def test_wanted_replicas_stay_within_the_tolerance(infer, windows):
    wish = infer(windows[0]).replicas[0]
    for factor, kept in ((1.05, True), (0.93, True), (1.2, False), (0.8, False)):
        window = windows[0].copy()
        window[-1, 1] = factor * wish
        expected = factor * wish if kept else wish
        assert infer(window).replicas[0] == pytest.approx(expected, rel=1e-5)


def test_twice_the_demand_needs_twice_the_replicas(infer, windows):
    small = 0.5 * windows[3]
    assert infer(2 * small).replicas[0] == pytest.approx(2 * infer(small).replicas[0], rel=1e-4)


def test_the_services_bounds_hold_and_confidence_admits_the_shortage(infer, windows):
    assert infer(0.001 * windows[0]).replicas[0] == 4
    # 90 replicas serve 2,250 requests/s; demand is about 5,000
    short = infer(6.0 * windows[0])
    assert short.replicas[0] == 90
    assert short.confidence < 0.1


def test_nothing_at_or_after_until_s_is_looked_at(policy, trace, tmp_path):
    """A trace with another future gives the same bytes; so does the same seed a second time."""
    after = pl.when(pl.col("time_s") >= UNTIL_S).then(pl.col("value") * 7 + 1).otherwise(pl.col("value"))
    changed = trace.replacing(
        "another future", usage=trace.usage.with_columns(after), demand=trace.demand.with_columns(after)
    )
    learn(tmp_path / "other", changed)
    for name in ("graph.onnx", "policy.json", "weights.npz"):
        assert (tmp_path / "other" / name).read_bytes() == (policy / name).read_bytes(), name


def test_an_existing_folder_is_never_overwritten(policy, trace):
    before = (policy / "graph.onnx").read_bytes()
    with pytest.raises(PolicyError, match="exists"):
        learn(policy, trace)
    assert (policy / "graph.onnx").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_utilisation": 1.5}, "target_utilisation=1.5"),
        ({"quantile": 0.95}, "quantile=0.95"),
        ({"lead_steps": 0}, "lead_steps=0"),
        ({"lead_steps": 13}, "horizon of 12"),
        ({"service": "shop"}, "no service 'shop'"),
        ({"until_s": 0.5 * DAY_S}, "long enough"),
    ],
)
def test_what_cannot_be_learned_is_refused_before_anything_is_written(trace, tmp_path, changes, message):
    with pytest.raises(UsageError, match=message):
        learn(tmp_path / "policy", trace, **changes)
    assert list(tmp_path.iterdir()) == []


def test_damaged_weights_are_refused(policy, tmp_path):
    np.savez(tmp_path / "weights.npz", stretch=np.ones(9))
    with pytest.raises(PolicyError, match="missing"):
        forecast_led.native(tmp_path, NETWORK)


# ---------------------------------------------------------------- confidence

DECILES = np.arange(1, 10) / 10
FORECAST = np.array([10.0, 11, 12, 13, 14, 15, 16, 17, 18])


@pytest.mark.parametrize("k", range(9))
def test_confidence_at_a_decile_is_that_decile(k):
    assert forecast_led.confidence(FORECAST[None, None], FORECAST[k : k + 1])[0] == pytest.approx(DECILES[k])


def test_confidence_beyond_the_outer_deciles_has_the_stated_tails():
    asked = np.array([18.0 + 1, 18.0 + 3, 18.0 + 1e6, 10.0 - 1])
    said = forecast_led.confidence(np.tile(FORECAST, (4, 1, 1)), asked)
    np.testing.assert_allclose(said, [0.95, 0.975, 0.98, 0.05])


def test_the_chances_to_be_short_add_up_over_the_steps():
    both = np.stack([FORECAST, FORECAST + 1.0])[None]
    assert forecast_led.confidence(both, np.array([18.0]))[0] == pytest.approx(1 - 0.1 - 0.2)


@settings(deadline=None)
@given(arrays(np.float64, (1, 2, 9), elements=st.floats(0.0, 100.0)), st.floats(0.0, 200.0), st.floats(0.0, 50.0))
def test_more_capacity_is_never_less_certain(deciles, capacity, more):
    deciles = np.sort(deciles, axis=-1)
    low, high = (forecast_led.confidence(deciles, np.array([c]))[0] for c in (capacity, capacity + more))
    assert 0.0 <= low <= high + 1e-9 <= 0.98 + 2e-9
