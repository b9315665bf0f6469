"""Drawn failures obey their law, and laws fitted to samples are those that made them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scenarios.drawn_faults import DrawnFailures, FittedFailures, gaps
from scenarios.fitting import FAMILIES, Distribution, Family, fit, fits
from scenarios.recordings import failures
from tests.twin.conftest import make_cluster, make_trace
from twin.errors import ScenarioError
from twin.trace.read import read
from twin.trace.trace import Trace, TraceInfo

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
DAY_S = 86_400.0
MONTH = make_trace(lambda t: 0.0 * t + 0.2, days=30.0)
CLUSTER = make_cluster()
HALF_AN_HOUR = Distribution("lognormal", 1800.0, 0.0)
LAWS = [
    Distribution("exponential", 5000.0),
    Distribution("weibull", 4000.0, 0.7),
    Distribution("weibull", 4000.0, 2.5),
    Distribution("lognormal", 3000.0, 1.2),
]


def data(folder: str) -> str:
    if not (DATA / folder).is_dir():
        pytest.skip(f"the recording {folder} is not on this machine")
    return str(DATA / folder)


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_the_law_that_made_the_samples_is_found_again(law: Distribution) -> None:
    rng = np.random.default_rng(1)
    found = fit(law.draw(rng, 20_000))
    assert found.distribution.mean_s == pytest.approx(law.mean_s, rel=0.05)
    if law.family != "exponential":  # a Weibull of shape 1 is as good, now and then by chance better
        assert found.distribution.family == law.family
        assert found.distribution.scale_s == pytest.approx(law.scale_s, rel=0.05)
        assert found.distribution.shape == pytest.approx(law.shape, rel=0.03)
    else:
        assert found.distribution.family == "exponential" or found.distribution.shape == pytest.approx(1.0, rel=0.03)
    assert found.ks < 1.63 / np.sqrt(20_000), "within the 1 % bound of the Kolmogorov-Smirnov test"


@pytest.mark.parametrize("family", ["weibull", "lognormal"])
def test_the_fit_is_scipys_maximum(family: Family) -> None:
    from scipy import stats

    times = Distribution("weibull", 100.0, 0.6).draw(np.random.default_rng(2), 3000)
    found = next(each for each in fits(times) if each.distribution.family == family)
    theirs = stats.weibull_min if family == "weibull" else stats.lognorm
    parameters = theirs.fit(times, floc=0)
    assert found.distribution.shape == pytest.approx(parameters[0], rel=1e-3)
    assert found.distribution.scale_s == pytest.approx(parameters[2], rel=1e-3)
    assert found.log_likelihood >= theirs.logpdf(times, *parameters).sum() - 1e-6
    assert found.ks == pytest.approx(
        stats.kstest(times, theirs(found.distribution.shape, scale=found.distribution.scale_s).cdf).statistic
    )
    assert found.aic == pytest.approx(4.0 - 2.0 * found.log_likelihood)


def test_a_golden_fit_of_the_exponential() -> None:
    """Mean 2 of four times 1 to 3: the likelihood is -n (ln 2 + 1)."""
    times = np.tile([1.0, 1.5, 2.5, 3.0], 3)
    exponential = next(each for each in fits(times) if each.distribution.family == "exponential")
    assert exponential.distribution == Distribution("exponential", 2.0)
    assert exponential.log_likelihood == pytest.approx(-12 * (np.log(2.0) + 1.0))
    assert exponential.aic == pytest.approx(2.0 + 24 * (np.log(2.0) + 1.0))
    assert exponential.ks == pytest.approx(1.0 - np.exp(-0.5))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(1e-3, 1e9), min_size=10, max_size=60).filter(lambda x: max(x) > 1.01 * min(x)),
    st.floats(1e-2, 1e2),
)
def test_a_fit_scales_with_the_unit_of_time(samples: list[float], unit: float) -> None:
    one, other = fits(np.array(samples)), fits(np.array(samples) * unit)
    by_family = {each.distribution.family: each for each in other}
    for each in one:
        scaled = by_family[each.distribution.family]
        assert scaled.distribution.scale_s == pytest.approx(each.distribution.scale_s * unit, rel=1e-5)
        assert scaled.distribution.shape == pytest.approx(each.distribution.shape, rel=1e-5)
        assert scaled.ks == pytest.approx(each.ks, abs=1e-5)
    assert [each.aic for each in one] == sorted(each.aic for each in one)
    assert {each.distribution.family for each in one} == set(FAMILIES)


@pytest.mark.parametrize("samples", [[1.0] * 20, [1.0, 2.0], [0.0, *range(1, 20)], [np.nan, *range(1, 20)]])
def test_what_cannot_be_fitted_is_refused(samples: list[float]) -> None:
    with pytest.raises(ScenarioError, match="cannot fit"):
        fit(np.array(samples, dtype=float))


@pytest.mark.parametrize(
    ("family", "scale_s", "shape"),
    [
        ("gamma", 1.0, 1.0),
        ("weibull", 0.0, 1.0),
        ("weibull", 1.0, 0.0),
        ("weibull", 1.0, np.nan),
        ("lognormal", 1.0, -1.0),
        ("lognormal", np.inf, 1.0),
    ],
)
def test_no_distributions(family: Family, scale_s: float, shape: float) -> None:
    with pytest.raises(ScenarioError):
        Distribution(family, scale_s, shape)


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_the_mean_is_that_of_the_draws(law: Distribution) -> None:
    drawn = law.draw(np.random.default_rng(4), 200_000)
    assert drawn.min() > 0
    assert drawn.mean() == pytest.approx(law.mean_s, rel=0.02)


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_a_stationary_process_holds_time_over_mean_gap_events_from_the_start(law: Distribution) -> None:
    """Exact for any window, the first one too; a process that began with an event would hold more or fewer."""
    rng = np.random.default_rng(5)
    end_s = 1.5 * law.mean_s
    counts = np.array([law.arrivals(end_s, rng).size for _ in range(8000)])
    assert counts.mean() == pytest.approx(1.5, abs=4 * counts.std() / np.sqrt(8000))


def test_the_rate_law_of_a_scenario() -> None:
    """8 streams, each every 2 days in the mean, half of them kept, for 30 days: 60 faults."""
    laws = Distribution("weibull", 2 * DAY_S / 1.2658, 0.7), HALF_AN_HOUR
    numbers = np.array([
        len(DrawnFailures("node_failure", "workers", *laws, streams=8, share=0.5, seed=seed).apply(MONTH, CLUSTER)[2])
        for seed in range(60)
    ])  # fmt: skip
    assert numbers.mean() == pytest.approx(60.0, abs=4 * numbers.std() / np.sqrt(60))


def test_drawn_faults_are_in_order_within_the_trace_and_as_told() -> None:
    scenario = DrawnFailures("slow_nodes", "workers", LAWS[3], Distribution("lognormal", 600.0, 0.5), 2, 0.4, streams=3)
    trace, cluster, events = scenario.apply(MONTH, CLUSTER)
    assert (trace, cluster) == (MONTH, CLUSTER)
    times = [event.time_s for event in events]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] < MONTH.duration_s
    assert {(e.kind, e.target, e.count, e.magnitude) for e in events} == {("slow_nodes", "workers", 2, 0.4)}
    assert np.median([e.duration_s for e in events]) == pytest.approx(600.0, rel=0.1)


def test_same_seed_same_events_another_seed_others() -> None:
    draws = [DrawnFailures("node_failure", "workers", LAWS[1], LAWS[3], seed=seed).apply(MONTH, CLUSTER)[2]
             for seed in (0, 0, 1)]  # fmt: skip
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]
    assert DrawnFailures("node_failure", "workers", LAWS[1], LAWS[3]) == DrawnFailures(
        "node_failure", "workers", LAWS[1], LAWS[3]
    )


@pytest.mark.parametrize(
    "scenario",
    [
        DrawnFailures("node_failure", "batch", LAWS[0], LAWS[0]),
        DrawnFailures("node_failure", "workers", LAWS[0], LAWS[0], streams=0),
        DrawnFailures("node_failure", "workers", LAWS[0], LAWS[0], share=1.1),
        DrawnFailures("slow_nodes", "workers", LAWS[0], LAWS[0], magnitude=3.0),
        DrawnFailures("node_failure", "workers", Distribution("exponential", 0.01), LAWS[0]),
    ],
)
def test_what_does_not_fit_is_refused(scenario: DrawnFailures) -> None:
    with pytest.raises(ScenarioError):
        scenario.apply(MONTH, CLUSTER)


def synthetic(folder: Path, law: Distribution, repair: Distribution) -> str:
    """A log of 500 nodes that fail by one law and are repaired by another, for 3000 failures."""
    rng = np.random.default_rng(6)
    fails_s = np.cumsum(law.draw(rng, 3000))
    node = [f"n{i % 500}" for i in range(3000)]
    events = pl.DataFrame({
        "node": node * 2,
        "time_s": np.concatenate([fails_s, fails_s + repair.draw(rng, 3000)]),
        "event": ["fail"] * 3000 + ["repair"] * 3000,
    }).sort("time_s")  # fmt: skip
    nodes = pl.DataFrame({"node": sorted(set(node)), "pool": "old"})
    info = TraceInfo("log", "made by a test", "none", "0" * 64)
    Trace(info, {"nodes": nodes, "node_events": events}).write(folder)
    return str(folder)


def test_a_fitted_scenario_draws_as_the_recording_came(tmp_path: Path) -> None:
    """All of a recorded system: the rate and the median repair are those of the log."""
    law, repair = Distribution("weibull", 3000.0, 0.7), Distribution("lognormal", 900.0, 0.8)
    path = synthetic(tmp_path / "log", law, repair)
    scenario = FittedFailures(path, "workers", stands_for=None)
    trace, _, events = scenario.apply(MONTH, CLUSTER)
    assert trace.digest() == MONTH.digest()
    assert "between failures weibull" in trace.info.notes[-1]
    assert "repair lognormal" in trace.info.notes[-1]
    expected = MONTH.duration_s / law.mean_s
    assert len(events) == pytest.approx(expected, rel=0.2)
    assert np.median([e.duration_s for e in events]) == pytest.approx(900.0, rel=0.2)
    part = FittedFailures(path, "workers", stands_for=25, repair_s=60.0).apply(MONTH, CLUSTER)[2]
    assert len(part) == pytest.approx(expected * 4 * 25 / 500, rel=0.35)
    assert {e.duration_s for e in part} == {60.0}
    with pytest.raises(ScenarioError, match="cannot stand for"):
        FittedFailures(path, "workers", stands_for=200).apply(MONTH, CLUSTER)


@pytest.mark.parametrize("folder", ["hpc-disk-failures", "titan-gpu-failures"])
def test_recorded_failures_have_a_memory(folder: str) -> None:
    """Schroeder and Gibson's finding on logs of other machines: Weibull, falling hazard, far before the exponential."""
    ranked = fits(gaps_without_ties(folder))
    aic = {each.distribution.family: each.aic for each in ranked}
    assert ranked[0].distribution.family == "weibull"
    assert ranked[0].distribution.shape < 0.7
    assert aic["weibull"] < aic["lognormal"] < aic["exponential"] - 1000.0
    assert ranked[0].ks < 0.5 * next(e.ks for e in ranked if e.distribution.family == "exponential")


def gaps_without_ties(folder: str) -> np.ndarray:
    return gaps(failures(read(data(folder)), parts=True))


def test_recorded_gpu_failures_are_drawn_at_the_recorded_rate() -> None:
    """Titan's failures came every 7.7 hours in the mean over 5.7 years, two at one instant counted once."""
    scenario = FittedFailures(data("titan-gpu-failures"), "workers", stands_for=None, parts=True, repair_s=3600.0)
    year = make_trace(lambda t: 0.0 * t + 0.2, days=365.0)
    events = scenario.apply(year, CLUSTER)[2]
    recorded = gaps_without_ties("titan-gpu-failures")
    assert len(events) == pytest.approx(365 * DAY_S / recorded.mean(), rel=0.15)
