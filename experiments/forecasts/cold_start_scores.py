"""What forecasters without a history are worth: asked with a past cut short, scored against those who have one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl

from agents.forecast.backtest import Plan
from agents.forecast.base import Floats, Forecaster
from agents.forecast.cold_start import NETWORK, ColdStart, guess
from agents.forecast.rolling import Rolled, past_at, roll, truth_at
from agents.forecast.scoring import Judged
from twin.errors import UsageError
from twin.seeds import child

_DRAWS = 2_000
_ENDS = (0.025, 0.975)


@dataclass(frozen=True, slots=True)
class Asked:
    """The forecasts of one forecaster with so much history in sight.

    Attributes:
        name: of the forecaster.
        history: steps that it could see; None: all there were.
        said: deciles [origins, h, 9] by series; a series that it could not do is absent.
        weights: of the checkpoint by series, where one was asked.
    """

    name: str
    history: int | None
    said: Mapping[str, Floats]
    weights: Mapping[str, float] = field(default_factory=dict)


def cluster(unique_id: str) -> str:
    """Whose series it is: what stands before the resource."""
    return unique_id.partition("/")[0]


def rolled(name: str, fitted: Forecaster, plans: Sequence[Plan], h: int) -> Asked:
    """What a fitted forecaster says with all history in sight."""
    return Asked(name, None, {p.series.unique_id: roll(fitted, p.series, p.origins, h).said for p in plans})


def cut_short(cold: ColdStart, plans: Sequence[Plan], h: int, history: int | None) -> Asked:
    """What a cold start says with the last `history` steps in sight."""
    said, weights = {}, {}
    for plan in plans:
        past = past_at(plan.series, plan.origins, cold.context, h)
        y = past.y.copy()
        y[:, : cold.context - (history or cold.context)] = np.nan
        deciles, answers = cold.answers(replace(past, y=y), h)
        said[plan.series.unique_id] = deciles
        weights[plan.series.unique_id] = float(np.mean([each.weights[NETWORK] for each in answers]))
    return Asked(cold.name, history, said, weights)


def refitted(forecaster: Forecaster, plans: Sequence[Plan], h: int, history: int, seed: int) -> Asked:
    """What a forecaster says that is fitted anew at each origin on the last `history` steps, and sees no others."""
    said = {}
    for plan in plans:
        try:
            said[plan.series.unique_id] = np.stack(
                [_refit(forecaster, plan, at, h, history, seed) for at in plan.origins]
            )
        except UsageError:  # too little history for it: absent from the table, as `Asked` says
            continue
    return Asked(forecaster.name, history, said)


def _refit(forecaster: Forecaster, plan: Plan, at: int, h: int, history: int, seed: int) -> Floats:
    values = plan.series.values[max(int(at) - history, 0) : int(at)]
    seen = replace(plan.series, values=values)
    return roll(forecaster.fit([seen], seed), seen, np.array([len(values)]), h).said[0]


def guessed(capacities: Mapping[str, float], plans: Sequence[Plan], h: int) -> Asked:
    """What metadata alone say of the series whose capacity (in the unit of the series) is told."""
    said = {}
    for plan in plans:
        unique_id = plan.series.unique_id
        if unique_id in capacities:
            found = guess(unique_id.rpartition("/")[2], "cell", capacities[unique_id], h).said
            said[unique_id] = np.tile(found, (len(plan.origins), 1, 1))
    return Asked("guess", 0, said)


# ---------------------------------------------------------------- scores


@dataclass(frozen=True, slots=True)
class Judges:
    """Whom forecasts are held against, by name: naive methods, and the network that learned the cluster itself.

    The first of `naive` is the last value.
    """

    naive: tuple[str, ...]
    in_domain: str
    day_steps: int
    seed: int


def scores(asked: Sequence[Asked], plans: Iterable[Plan], grid: str, h: int, judges: Judges) -> pl.DataFrame:
    """A `cold_start` table: one row per forecaster, history and series."""
    return pl.DataFrame(
        [row for plan in plans for row in _rows(asked, plan, grid, h, judges)], infer_schema_length=None
    )


def _rows(asked: Sequence[Asked], plan: Plan, grid: str, h: int, judges: Judges) -> list[dict[str, Any]]:
    series = plan.series
    truth = truth_at(series, plan.origins, h)
    mine = [each for each in asked if series.unique_id in each.said]
    judged = {
        (each.name, each.history): Judged.of(
            Rolled(plan.origins, each.said[series.unique_id], truth), series, judges.day_steps
        )
        for each in mine
    }
    errors = {key: np.abs(each.error).mean(axis=1) for key, each in judged.items()}
    naive = min((errors[name, None] for name in judges.naive), key=np.mean)
    learned = 1.0 - float(errors[judges.in_domain, None].mean() / naive.mean())
    draws = child(judges.seed, f"cold_start/{series.unique_id}").integers(len(naive), size=(_DRAWS, len(naive)))
    rows = []
    for each in mine:
        key = each.name, each.history
        told = judged[key].scores()
        ratio, low, high = ratio_of(errors[key], naive, draws)
        row = {"grid": grid, "cluster": cluster(series.unique_id), "unique_id": series.unique_id}
        row |= {"forecaster": each.name, "history_steps": each.history, "origins": told.origins, "mae": told.mae}
        row |= {"scaled_crps": told.scaled_crps, "coverage_80": told.coverage_80}
        row |= {"gain": 1.0 - ratio, "gain_low": 1.0 - high, "gain_high": 1.0 - low}
        row |= {"kept": (1.0 - ratio) / learned if learned > 0.0 else None}
        row |= _fallback(errors, key, judges.naive, draws)
        rows.append(row | {"network_weight": each.weights.get(series.unique_id)})
    return rows


def _fallback(
    errors: Mapping[tuple[str, int | None], Floats],
    key: tuple[str, int | None],
    naive: Sequence[str],
    draws: np.ndarray[Any, Any],
) -> dict[str, Any]:
    known = [(name, key[1]) for name in naive if (name, key[1]) in errors]
    if not known and key[1]:  # bands need more history than that, the last value itself does not: it is the same
        known = [(naive[0], None)]
    best = min(known, key=lambda k: errors[k].mean(), default=None)
    names = ("fallback_ratio", "fallback_low", "fallback_high")
    if best is None:
        return {"fallback": None, **dict.fromkeys(names)}
    return {"fallback": best[0], **dict(zip(names, ratio_of(errors[key], errors[best], draws), strict=True))}


def ratio_of(mine: Floats, theirs: Floats, draws: np.ndarray[Any, Any]) -> tuple[float, float, float]:
    """(ratio of the mean errors [origins], the ends of its 95 % bootstrap interval); `draws` [draws, origins]."""
    low, high = np.quantile(mine[draws].sum(axis=1) / theirs[draws].sum(axis=1), _ENDS)
    return float(mine.mean() / theirs.mean()), float(low), float(high)
