"""The part of docs/forecasting.md that a run folder of `python -m experiments.decision_value` makes: money."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from experiments import markdown
from experiments.forecasts.decision_table import best, orders
from reports import folder, wording
from twin.errors import UsageError

_COLUMNS = ("scaled_crps", "coverage_80", "cost_usd", "cost_ratio", "late_ratio", "slo_violation_min")
_HEADER = ("scaled CRPS", "coverage of 80 %", "cost, USD", "cost / HPA", "late", "SLO minutes")


def written(runs: Sequence[Path]) -> str:
    """The part in Markdown; raises UsageError for several folders, or one that holds no such table."""
    if len(runs) > 1:
        raise UsageError(f"{runs[1]}: a second run folder of decision_value; give one")
    table, config = folder.table_in(runs[0], "decision_value"), folder.config_of(runs[0])
    seeds, days = table["seed"].n_unique(), "all" if config["days"] is None else f"{config['days']:g}"
    said = (
        f"Each forecaster leads a scaler (and a capacity plan of hours) in the twin over {days} held-out "
        f"days, {seeds} seed{'s' if seeds > 1 else ''}; it is shown at its cheapest quantile that has at most "
        f"{config['allowed_min']:g} SLO minutes more than the `{config['baseline']}`. Who is missing has none."
    )
    parts = [markdown.shell([markdown.command(folder.identity_of(runs[0]))]), said]
    found, order = best(table), orders(table).filter(pl.col("quantile").is_null())
    for (scenario,), rows in found.partition_by("scenario", as_dict=True, maintain_order=True).items():
        taus = dict(order.filter(scenario=scenario).select("kind", "kendall_tau").iter_rows())
        told = "; ".join(f"{kind} {wording.number(tau, 2)}" for kind, tau in taus.items())
        parts += [f"### {scenario}", _table(rows), f"Kendall's tau of error and cost: {told}."]
    return "\n\n".join(parts)


def _table(rows: pl.DataFrame) -> str:
    lines = [
        (row["kind"], f"`{row['forecaster']}`", _number(row["quantile"]), *(_number(row[name]) for name in _COLUMNS))
        for row in rows.to_dicts()
    ]
    return markdown.table(("kind", "led by", "quantile", *_HEADER), lines)


def _number(value: float | None) -> str:
    return wording.number(value, 3)
