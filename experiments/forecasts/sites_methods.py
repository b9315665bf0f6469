"""The trainings that `experiments.sites` compares, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from omegaconf import DictConfig

from agents.forecast.base import Progress
from agents.forecast.federated import Federated, site_of
from agents.forecast.frames import Series
from agents.forecast.neural import Neural
from agents.forecast.private import Budget, Private
from experiments import cell
from experiments.forecasts.sites_scores import POOLED, Trained

Fit = Callable[[Sequence[Series], int, Progress | None], Trained]


def methods(cfg: DictConfig, tenants: int) -> dict[str, Fit]:
    """By name, the trainings to compare; private ones only where there are tenants enough to hide among."""
    net, rounds, budget = cell.build(cfg.net.base), cell.build(cfg.rounds), cell.build(cfg.budget)
    net = replace(net, training=replace(net.training, steps=rounds.steps))
    found: dict[str, Fit] = {}
    if net.start:
        found["nothing learned"] = partial(_one, replace(net, training=replace(net.training, steps=0)))
    found |= {POOLED: partial(_one, net), "alone": partial(_alone, net)}
    found["fedavg"] = partial(_one, Federated(net, rounds))
    found["fedprox"] = partial(_one, Federated(net, replace(rounds, proximal=cfg.proximal)))
    return found | (private(cfg, net, budget) if tenants >= cfg.least_tenants else {})


def private(cfg: DictConfig, net: Neural, budget: Budget) -> dict[str, Fit]:
    """By name, the private trainings at each epsilon, and one by sites at the budget's own."""
    plan = cell.build(cfg.private_rounds)
    quiet = replace(net, training=replace(net.training, steps=plan.steps, learning_rate=cfg.private_rate))
    found: dict[str, Fit] = {
        f"private, epsilon {epsilon:g}": partial(_one, Private(quiet, replace(budget, epsilon=float(epsilon))))
        for epsilon in cfg.epsilons
    }
    together = Federated(quiet, plan, budget)
    return found | {f"federated and private, epsilon {budget.epsilon:g}": partial(_one, together)}


def _one(recipe: Neural | Federated | Private, series: Sequence[Series], seed: int, tell: Progress | None) -> Trained:
    fitted = recipe.fit(series, seed, tell)
    return Trained(dict.fromkeys(_sites(series), fitted), getattr(fitted, "privacy", None))


def _alone(recipe: Neural, series: Sequence[Series], seed: int, tell: Progress | None) -> Trained:
    held = {site: [each for each in series if site_of(each.unique_id) == site] for site in _sites(series)}
    return Trained({site: recipe.fit(own, seed, tell) for site, own in held.items()})


def _sites(series: Sequence[Series]) -> list[str]:
    return list(dict.fromkeys(site_of(each.unique_id) for each in series))
