"""What networks are worth on each site's held-out time, and what their training cost against the pooled one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from agents.forecast.base import Forecaster
from agents.forecast.federated import Federated, site_of
from agents.forecast.frames import Series, steps_in
from agents.forecast.neural import Neural
from agents.forecast.private import Privacy, Private
from agents.forecast.rolling import Origins, roll
from agents.forecast.scoring import Judged

ALL = "all"
POOLED = "pooled"
KEPT = ("accuracy_percent", "wape", "skill", "mase", "scaled_crps", "coverage_80", "bias")

_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Trained:
    """A network for each site, which may be the same one, and what is certified of it."""

    by_site: Mapping[str, Neural | Federated | Private]
    privacy: Privacy | None = None


def scores(
    trained: Mapping[str, Trained], series: Sequence[Series], train_share: float, every: int, h: int
) -> pl.DataFrame:
    """One row per method and site, and per method over all sites: `KEPT`, the prices and what is certified."""
    held: dict[str, list[Series]] = {}
    for each in series:
        held.setdefault(site_of(each.unique_id), []).append(each)
    rows = []
    for method, found in trained.items():
        own = {site: of_site(found.by_site[site], some, train_share, every, h) for site, some in held.items()}
        own[ALL] = {name: float(np.mean([each[name] for each in own.values()])) for name in KEPT}
        rows += [{"method": method, "site": site, **_said(found.privacy), **each} for site, each in own.items()]
    table = pl.DataFrame(rows, infer_schema_length=None)
    pooled = table.filter(method=POOLED).select("site", pooled_wape="wape", pooled_crps="scaled_crps")
    priced = table.join(pooled, on="site", how="left", maintain_order="left")
    return priced.with_columns(
        price_percent=100.0 * (pl.col("wape") / pl.col("pooled_wape") - 1.0),
        crps_price_percent=100.0 * (pl.col("scaled_crps") / pl.col("pooled_crps") - 1.0),
    ).drop("pooled_wape", "pooled_crps")


def _said(privacy: Privacy | None) -> dict[str, Any]:
    names = ("epsilon", "delta", "tenants", "noise_multiplier")
    return {"unit": privacy.unit if privacy else "", **{name: getattr(privacy, name, None) for name in names}}


def of_site(fitted: Forecaster, series: Sequence[Series], train_share: float, every: int, h: int) -> dict[str, float]:
    """The scores of one site: a resource's errors are added over its tenants, resources are meant."""
    resources: dict[str, list[Judged]] = {}
    for each in series:
        origins = judging_origins(each, train_share, every, h)
        judged = Judged.of(roll(fitted, each, origins, h), each, _DAY_S // each.step_s)
        resources.setdefault(each.unique_id.rpartition("/")[2], []).append(judged)
    found = [asdict(together(each).scores()) for each in resources.values()]
    return {name: float(np.mean([each[name] for each in found])) for name in KEPT}


def judging_origins(series: Series, train_share: float, every: int, h: int) -> Origins:
    """Where forecasts of `h` steps begin after the first part of a series, every so many steps."""
    n = len(series.values)
    return np.arange(steps_in(n, train_share), n - h + 1, every)


def together(judged: Sequence[Judged]) -> Judged:
    """The losses of several series of one unit as those of one."""
    naive = {name: np.concatenate([each.naive[name] for each in judged]) for name in judged[0].naive}
    truth, error, crps, within = (
        np.concatenate([getattr(each, name) for each in judged]) for name in ("truth", "error", "crps", "within")
    )
    weight = np.array([each.truth.size for each in judged], dtype=np.float64)
    scale = float(np.average([each.scale for each in judged], weights=weight))
    return Judged(truth, error, crps, within, naive, scale)
