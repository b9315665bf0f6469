from dataclasses import replace

import numpy as np
import pytest

from agents.scale.sizing import Sizing, peaks, sized
from twin.errors import UsageError

FORECAST = np.linspace(8.0, 16.0, 9)[None, None] + np.array([0.0, 1.0])[None, :, None]  # two steps, q90 is 16 and 17


def sizing(**changes):
    return replace(Sizing(25.0, 0.8, 0.9, 2, 4, 90), **changes)


def replicas(now=0.0, wanted=0.0, tolerance=0.1, **changes):
    return float(sized(FORECAST, np.array([now]), np.array([wanted]), sizing(**changes), tolerance)[0])


@pytest.mark.parametrize(("quantile", "peak"), [(0.1, 9.0), (0.5, 13.0), (0.9, 17.0)])
def test_the_chosen_decile_at_its_highest_is_served_at_the_target(quantile, peak):
    assert peaks(FORECAST, sizing(quantile=quantile))[0] == pytest.approx(peak)
    assert replicas(quantile=quantile) == pytest.approx(peak / 0.8)


def test_never_below_what_demand_needs_now():
    assert replicas(now=20.0) == pytest.approx(20.0 / 0.8)


def test_wanted_replicas_stay_within_the_tolerance_and_no_further():
    wish = 17.0 / 0.8
    assert replicas(wanted=wish / 1.09) == pytest.approx(wish / 1.09)
    assert replicas(wanted=wish / 1.11) == pytest.approx(wish)
    assert replicas(wanted=wish / 1.09, tolerance=0.02) == pytest.approx(wish)


def test_bounds_hold_last():
    assert replicas(max_replicas=10) == 10
    assert replicas(min_replicas=40, wanted=21.0) == 40


def test_jax_and_numpy_say_the_same():
    import jax.numpy as jnp

    rng = np.random.default_rng(0)
    deciles = np.sort(rng.uniform(5.0, 30.0, (200, 2, 9)), axis=-1).astype(np.float32)
    now, wanted = rng.uniform(0.0, 60.0, (2, 200)).astype(np.float32)
    for quantile in (0.1, 0.5, 0.9):
        said = sized(*map(jnp.asarray, (deciles, now, wanted)), sizing=sizing(quantile=quantile))
        np.testing.assert_allclose(said, sized(deciles, now, wanted, sizing(quantile=quantile)), rtol=1e-5)


@pytest.mark.parametrize("wrong", [{"target_utilisation": 0.0}, {"quantile": 0.95}, {"lead_steps": 0}])
def test_what_cannot_be_meant_is_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        sizing(**wrong)
