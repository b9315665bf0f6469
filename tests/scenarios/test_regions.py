"""Prices and grids as data: pools name series, traces hold them, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from scenarios.compose import Compose
from scenarios.regions import GridOf, PriceChange, Repriced
from tests.twin.conftest import make_cluster, make_trace
from twin.errors import ScenarioError
from twin.trace.trace import Trace, TraceInfo

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
DAY_S = 86_400.0
FLAT = make_trace(lambda t: 0.0 * t + 0.2, days=2.0)
CLUSTER = make_cluster()


@pytest.fixture
def prices(tmp_path: Path) -> str:
    """Three days of hours: carbon of two zones, spot prices and electricity of one."""
    hours = np.arange(72)
    series = [
        ("N", "carbon_g_kwh", 100.0 + hours),
        ("S", "carbon_g_kwh", 500.0 + hours),
        ("N", "spot_usd_h", 0.1 + 0.01 * (hours % 24)),
        ("N", "electricity_eur_mwh", np.where(hours % 2, 90.0, 30.0)),
        ("W", "electricity_usd_mwh", np.where(hours % 4 == 0, -40.0, 60.0)),
    ]
    frames = [
        pl.DataFrame({"zone": zone, "time_s": hours * 3600.0, "quantity": quantity, "value": values})
        for zone, quantity, values in series
    ]
    info = TraceInfo("prices", "made by a test", "none", "0" * 64, step_s=3600.0)
    Trace(info, {"prices": pl.concat(frames)}).write(tmp_path / "prices")
    return str(tmp_path / "prices")


def test_a_price_change_multiplies_and_may_change_the_offer() -> None:
    cluster = replace(CLUSTER, pools=(replace(CLUSTER.pools[0], reserved=2, reserved_price_usd_h=0.3),))
    trace, changed, events = PriceChange("workers", 0.5, "spot").apply(FLAT, cluster)
    assert (trace, events) == (FLAT, ())
    pool = changed.pools[0]
    assert (pool.price_usd_h, pool.reserved_price_usd_h, pool.offer) == (0.25, 0.15, "spot")
    assert replace(pool, price_usd_h=0.5, reserved_price_usd_h=0.3, offer="on-demand") == cluster.pools[0]


def test_a_grid_is_joined_from_its_offset_and_only_for_the_traces_time(prices: str) -> None:
    trace, cluster, events = GridOf("workers", prices, "S", offset_s=5400.0).apply(FLAT, CLUSTER)
    assert events == ()
    assert cluster.pools[0] == replace(CLUSTER.pools[0], grid="S")
    rows = trace.prices
    assert rows["zone"].unique().to_list() == ["S"]
    assert rows.select("time_s", "value").rows()[:3] == [(0.0, 501.0), (1800.0, 502.0), (5400.0, 503.0)]
    assert rows.height == 49
    assert trace.duration_s == FLAT.duration_s, "prices do not make a trace longer"
    assert trace.demand.equals(FLAT.demand)


def test_a_recorded_spot_price_is_the_price_of_a_node(prices: str) -> None:
    trace, cluster, _ = Repriced("workers", prices).apply(FLAT, CLUSTER)
    assert cluster.pools[0] == replace(CLUSTER.pools[0], price_series="N")
    assert trace.prices["quantity"].unique().to_list() == ["spot_usd_h"]
    assert trace.prices["value"].to_list()[:3] == pytest.approx([0.1, 0.11, 0.12])


def test_another_quantity_moves_the_pools_own_price_around_its_mean(prices: str) -> None:
    trace, cluster, _ = Repriced("workers", prices, quantity="electricity_eur_mwh", share=0.5).apply(FLAT, CLUSTER)
    assert cluster.pools[0].price_series == "workers/N"
    assert trace.prices["value"].to_list()[:2] == pytest.approx([0.5 * (0.5 + 0.25), 0.5 * (0.5 + 0.75)])
    assert trace.prices["value"].mean() == pytest.approx(CLUSTER.pools[0].price_usd_h)
    assert set(trace.prices["quantity"]) == {"spot_usd_h"}


def test_a_price_below_zero_is_zero(prices: str) -> None:
    trace, _, _ = Repriced("workers", prices, quantity="electricity_usd_mwh").apply(FLAT, CLUSTER)
    assert trace.prices["value"].min() == 0.0


def test_a_price_change_makes_a_recorded_series_dearer_too(prices: str) -> None:
    both = Compose([Repriced("workers", prices), PriceChange("workers", 2.0)])
    trace, cluster, _ = both.apply(FLAT, CLUSTER)
    assert cluster.pools[0].price_series == "N x2"
    dear, cheap = (trace.prices.filter(zone=zone)["value"] for zone in ("N x2", "N"))
    assert dear.to_list() == pytest.approx((cheap * 2).to_list())


def test_two_pools_may_share_a_grid_but_a_zone_has_one_series(prices: str) -> None:
    two = replace(CLUSTER, pools=(*CLUSTER.pools, replace(CLUSTER.pools[0], name="more")))
    one = GridOf("workers", prices, "N")
    trace, cluster, _ = Compose([one, GridOf("more", prices, "N")]).apply(FLAT, two)
    assert [pool.grid for pool in cluster.pools] == ["N", "N"]
    assert trace.digest() == one.apply(FLAT, two)[0].digest()
    with pytest.raises(ScenarioError, match="another carbon_g_kwh"):
        Compose([one, GridOf("more", prices, "N", offset_s=3600.0)]).apply(FLAT, two)


def test_the_traces_own_prices_may_be_named(prices: str) -> None:
    trace, _, _ = GridOf("workers", prices, "N").apply(FLAT, CLUSTER)
    same, cluster, _ = GridOf("workers", "").apply(trace, CLUSTER)
    assert same.digest() == trace.digest()
    assert cluster.pools[0].grid == "N"


def test_what_does_not_fit_is_refused(prices: str) -> None:
    for scenario, what in [
        (PriceChange("batch", 1.0), "no pool"),
        (PriceChange("workers", 0.0), "factor"),
        (GridOf("workers", prices), "not just one zone"),
        (GridOf("workers", prices, "X"), "no zone 'X'"),
        (GridOf("workers", prices, "N", offset_s=2 * DAY_S), "choose another offset_s"),
        (GridOf("workers", prices, "N", offset_s=-1.0), "choose another offset_s"),
        (GridOf("workers", ""), "holds no prices of 'carbon_g_kwh'"),
        (Repriced("workers", prices, quantity="electricity_eur_mwh", share=2.0), "share=2"),
    ]:
        with pytest.raises(ScenarioError, match=what):
            scenario.apply(FLAT, CLUSTER)
    series = replace(CLUSTER, pools=(replace(CLUSTER.pools[0], price_series="N"),))
    with pytest.raises(ScenarioError, match="join it with Repriced"):
        PriceChange("workers", 2.0).apply(FLAT, series)


def test_recorded_carbon_of_a_grid_covers_a_trace() -> None:
    path = DATA / "carbon-electricitymaps"
    if not path.is_dir():
        pytest.skip("the recording carbon-electricitymaps is not on this machine")
    trace, cluster, _ = GridOf("workers", str(path), "DE", offset_s=180 * DAY_S).apply(FLAT, CLUSTER)
    assert cluster.pools[0].grid == "DE"
    assert trace.prices.height == 48
    assert trace.prices["value"].is_between(50, 900).all()
