"""The part of docs/forecasting.md that run folders of `python -m experiments.sites` make: the price of privacy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments import markdown
from experiments.forecasts.sites_scores import ALL
from reports import folder, wording
from twin.errors import UsageError

_COLUMNS = ("accuracy_percent", "skill", "mase", "scaled_crps", "coverage_80", "price_percent")
_HEADER = ("accuracy, %", "skill", "MASE", "scaled CRPS", "coverage of 80 %", "WAPE above pooled, %")


def written(runs: Sequence[Path]) -> str:
    """The part in Markdown; raises UsageError for two folders of one panel, or one that holds no such table."""
    tables = {run: folder.table_in(run, "sites_scores") for run in runs}
    names = [table["panel"][0] for table in tables.values()]
    if len(set(names)) < len(names):
        raise UsageError("two run folders of sites are of the same panel; give one of each")
    parts = [markdown.shell(markdown.command(folder.identity_of(run)) for run in runs)]
    for run, table in tables.items():
        limits = folder.config_of(run)["targets"]
        claimed = table["panel"][0] != "machines"  # no accuracy is claimed for single machines
        shown = slice(0 if claimed else 1, None)
        rows = []
        for row in table.to_dicts():
            method, site = row["method"], row["site"]
            epsilon = f"{row['epsilon']:g} ({row['unit']})" if row["epsilon"] is not None else wording.DASH
            price, limit = row["price_percent"], limits.get(method) if site == ALL else None
            met = wording.DASH if limit is None else f"<= {limit:g}: {'met' if price <= limit else 'missed'}"
            numbers = [wording.number(row[name], 3) for name in _COLUMNS[shown]]
            rows.append((method, site, epsilon, *numbers, met))
        header = ("method", "site", "epsilon", *_HEADER[shown], "target, %")
        parts += [f"### {table['panel'][0]}", markdown.table(header, rows)]
    return "\n\n".join(parts)
