"""`python -m experiments.sites`: the price of training over sites that share no data, and of hiding every tenant.

It needs no connection: with `panel=own data=DIR` it retrains on a recording in a local folder, and the run folder holds
the networks to take away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
from omegaconf import DictConfig

import twin
from agents.forecast import frames
from agents.forecast.backtest import Plan, before_judged
from agents.forecast.federated import site_of
from agents.forecast.frames import Series
from agents.forecast.private import tenant_of
from experiments import present, verb
from experiments.display import Display
from experiments.forecasts import panels
from experiments.forecasts.sites_methods import methods
from experiments.forecasts.sites_scores import ALL, Trained, judging_origins, scores
from experiments.rundir import RunFolder
from twin.errors import UsageError

NETWORKS = "networks"
SHOWN = (
    "method",
    "site",
    "epsilon",
    "accuracy_percent",
    "price_percent",
    "skill",
    "mase",
    "scaled_crps",
    "coverage_80",
)


def read(cfg: DictConfig) -> list[Series]:
    """The series of the panel; raises UsageError for a panel whose recordings are not there."""
    if cfg.panel == "cells":
        return panels.cell_5min(Path(cfg.data) if cfg.data else None)
    data = verb.require(cfg.data, "data", "give the folder of recordings")
    if cfg.panel == "machines":
        return panels.machines_5min(data, cfg.machines)
    if cfg.panel == "own":
        return frames.panel(frames.series(twin.read(str(data))))
    raise UsageError(f"panel={cfg.panel}: it is cells, machines or own")


def study(cfg: DictConfig, folder: RunFolder, display: Display) -> tuple[pl.DataFrame, list[str]]:
    """(`sites_scores` of every training, what is certified of the private ones), their networks kept in the folder.

    Learned from is the first part of each series, up to where its site is first judged, scored the rest.
    """
    series = read(cfg)
    early = unjudged(series, cfg.train_share, cfg.every_steps, cfg.net.base.horizon)
    tenants = len({tenant_of(each.unique_id) for each in series})
    if tenants < cfg.least_tenants:
        display.line(f"no private training: {tenants} tenants are too few to hide among (least_tenants)")
    trained: dict[str, Trained] = {}
    for name, fit in methods(cfg, tenants).items():
        with folder.phase(name), display.phase(f"{name}: {len(series)} series") as advance:
            trained[name] = fit(early, cfg.seed, advance)
        keep(folder.path / NETWORKS, name, trained[name])
    with folder.phase("score"), display.phase("score"):
        found = scores(trained, series, cfg.train_share, cfg.every_steps, cfg.net.base.horizon)
    certified = [f"{name}: {each.privacy}" for name, each in trained.items() if each.privacy]
    return found.select(pl.lit(cfg.panel).alias("panel"), pl.all()), certified


def unjudged(series: Sequence[Series], train_share: float, every: int, h: int) -> list[Series]:
    """The first part of each series that nothing of its site is judged in; those that have none are left out."""
    plans = [Plan(each, judging_origins(each, train_share, every, h)) for each in series]
    early = before_judged(frames.first(series, train_share), plans, h, site_of)
    return [each for each in early if len(each.values)]


def keep(folder: Path, name: str, trained: Trained) -> None:
    """Write the networks of one training, those under a budget with their certificates."""
    stem = name.replace(", ", "-").replace(" ", "_")
    distinct = {id(each): (site, each) for site, each in trained.by_site.items()}
    for site, each in distinct.values():
        path = folder / (f"{stem}.npz" if len(distinct) == 1 else f"{stem}-{site}.npz")
        each.save(path)


def targets(found: pl.DataFrame, limits: Mapping[str, float]) -> list[str]:
    """In words, whether each method that has a limit kept within it: over all sites, and where it is worst."""
    told = []
    for name, limit in limits.items():
        prices = dict(found.filter(method=name).select("site", "price_percent").iter_rows())
        if prices:
            price, worst = prices.pop(ALL), max(prices, key=lambda site: prices[site])
            verdict = "met" if price <= limit else "missed"
            told.append(
                f"{name}: {price:+.1f} % WAPE against pooled, at worst {prices[worst]:+.1f} % ({worst}); "
                f"target {limit:g} % over all sites: {verdict}"
            )
    return told


def task(cfg: DictConfig, display: Display) -> int:
    """Compare, write the run folder and its report; returns the exit code."""
    display.line(present.identity_line("sites", cfg, None))
    with RunFolder(Path(cfg.out)) as folder:
        folder.identify(cfg, "sites", None, verb.command("sites"), verb.overrides())
        found, certified = study(cfg, folder, display)
        folder.table("sites_scores", found)
    display.table("Held-out time of the same series", found.select(SHOWN))
    for line in (*certified, *targets(found, cfg.targets)):
        display.line(line)
    return verb.conclude(folder.final, cfg, display, [])


def main() -> None:
    """The entry point."""
    verb.main("sites", task)


if __name__ == "__main__":
    main()
