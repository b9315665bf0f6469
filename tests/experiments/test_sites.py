"""The table of the verb: a site adds the errors of its tenants; prices are against the pooled network."""

import numpy as np
import polars as pl
import pytest

from agents.forecast.base import Forecaster, Past
from agents.forecast.frames import Series
from agents.forecast.private import Privacy
from experiments.forecasts.sites_scores import ALL, POOLED, Trained, of_site, scores
from experiments.sites import targets
from twin.trace import tables


class Off:
    """A forecaster whose median is `by` too high everywhere of a flat series."""

    name, context, needs, pooled = "off", 4, 1, True

    def __init__(self, by: float) -> None:
        self.by = by

    def fit(self, series, seed, progress=None) -> "Off":
        return self

    def forecast(self, past: Past, h: int) -> np.ndarray:
        return np.repeat(past.y[:, -1:, None] + self.by + np.linspace(-1, 1, 9), h, axis=1)


def flat(unique_id: str, level: float, steps: int = 60) -> Series:
    return Series(unique_id, 0, 300, np.full(steps, level))


def off(by: float) -> Forecaster:
    return Off(by)  # pyright: ignore[reportReturnType]


def test_tenants_of_a_resource_are_added_and_resources_are_meant():
    own = [flat("s/1/cpu", 10.0), flat("s/2/cpu", 30.0), flat("s/1/memory", 4.0)]
    found = of_site(off(2.0), own, 0.5, 6, 4)
    # cpu: 2 + 2 of 10 + 30; memory: 2 of 4
    assert found["wape"] == pytest.approx((4 / 40 + 2 / 4) / 2)
    assert found["coverage_80"] == 0.0


def test_prices_are_against_the_pooled_network_of_the_same_site():
    series = [flat("a/1/cpu", 10.0), flat("b/1/cpu", 10.0)]
    privacy = Privacy(8.0, 1e-5, "tenant", 2.0, 0.2, 50, 0.5, 2)
    both = {"a": off(2.0), "b": off(1.0)}
    trained = {
        POOLED: Trained(both),  # pyright: ignore[reportArgumentType]
        "private": Trained({"a": off(2.2), "b": off(1.5)}, privacy),  # pyright: ignore[reportArgumentType]
    }
    found = scores(trained, series, 0.5, 6, 4)
    prices = dict(found.filter(method="private").select("site", "price_percent").iter_rows())
    assert prices == pytest.approx({"a": 10.0, "b": 50.0, ALL: 100 * (3.7 / 3.0 - 1)})
    assert (found.filter(method=POOLED)["price_percent"] == 0.0).all()
    assert found.filter(method="private")["epsilon"].to_list() == [8.0] * 3
    assert found.filter(method=POOLED)["epsilon"].is_null().all()
    table = found.select(pl.lit("cells").alias("panel"), pl.all())
    assert tables.conform(table, "sites_scores", "sites_scores").height == 6
    (said,) = targets(found, {"private": 15.0, "absent": 5.0})
    assert said == ("private: +23.3 % WAPE against pooled, at worst +50.0 % (b); target 15 % over all sites: missed")
