"""The part of docs/forecasting.md that a run folder of `python -m experiments.long_horizon` makes: months ahead.

Accuracy is never printed without skill, scaled CRPS and coverage beside it, and where series are generated, beside that
of one who knows all that is decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from experiments import markdown
from experiments.forecasts.long_scores import TOTAL
from reports import folder, wording
from twin.errors import UsageError

_TARGETS = (("1-3", 90.0, 92.0), ("12", 85.0, 88.0))  # accuracy on generated years: must, aim
_COVERED = (0.77, 0.83)
_SCORES = ("skill", "mase", "scaled_crps", "coverage_80")
_SHOWN = ("1", "2", "3", "6", "9", "12", "1-3", "4-12", TOTAL)
_LOGS = ("KTH-SP2", "RICC", "philly")
_GENERATED = (
    "Nothing recorded at hand shows a cluster for years: these are generated, with the week and the noise of the three "
    "logs, and with assumptions about growth, steps and launches. All are fitted together, and their usual drift is "
    "learned from their first parts. *Knowing* is one who is told every parameter, the level and the growth in force "
    "and what launches brought so far, and does not know noise, changes and launches to come. Only the mean and the "
    "drift are weighed here, and the drift is of the generator's own kind: this says little about real clusters."
)


def written(runs: Sequence[Path]) -> str:
    """The part of the page that a run folder of the verb makes; raises UsageError for several, or as `results` does."""
    if len(runs) > 1:
        raise UsageError(f"{runs[1]}: a second run folder of long_horizon; give one")
    return results(runs[0])


def results(run: Path) -> str:
    """All tables in Markdown; raises UsageError when the folder is none of the verb."""
    tables = {name: run / "tables" / f"{name}.parquet" for name in ("long_horizon", "coherence")}
    if not tables["long_horizon"].is_file():
        raise UsageError(f"{run}: holds no long_horizon; give a run folder of `python -m experiments.long_horizon`")
    scores = pl.read_parquet(tables["long_horizon"])
    generated, recorded = (scores.filter(source=source) for source in ("generated", "recorded"))
    identity = folder.identity_of(run)
    parts = [markdown.shell([markdown.command(identity)]), "### Generated years"]
    parts += [_GENERATED, f"{identity['series']} series.", _targets(generated), _months(generated)]
    if recorded.height:
        parts += ["### Recorded", _against_mean(recorded), _recorded(recorded)]
    if tables["coherence"].is_file():
        parts += ["### Forecasts that add up", _coherence(pl.read_parquet(tables["coherence"]))]
    return "\n\n".join(parts)


def _targets(generated: pl.DataFrame) -> str:
    rows = []
    for months, must, aim in _TARGETS:
        row = generated.row(by_predicate=pl.col("months") == months, named=True)
        value, bound = row["accuracy_percent"], row["accuracy_of_knowing_percent"]
        met = "aim" if value >= aim else "must" if value >= must else "no"
        rows.append(
            (f"accuracy, months {months}", f">= {must:g} %", f">= {aim:g} %", f"{value:.1f} %", met, f"{bound:.1f} %")
        )
    single = generated.filter(pl.col("months").is_in([str(month) for month in range(1, 13)]))["coverage_80"].to_list()
    inside = sum(_COVERED[0] <= value <= _COVERED[1] for value in single)
    measured = f"{min(single):.2f} to {max(single):.2f}; {inside} of {len(single)} inside"
    met = "must" if inside == len(single) else "no"
    rows.append(("coverage of 80 %, each month", "0.77 to 0.83", "–", measured, met, "–"))
    return markdown.table(("what", "must", "aim", "measured", "met", "knowing"), rows)


def _months(generated: pl.DataFrame) -> str:
    shown = generated.filter(pl.col("months").is_in(_SHOWN))
    rows = [(row["months"], *_row(row), _number(row["accuracy_of_knowing_percent"])) for row in shown.to_dicts()]
    return markdown.table(("months", *_HEADER, "knowing, %"), rows)


def _against_mean(recorded: pl.DataFrame) -> str:
    won, seen = [], []
    for name in _LOGS:
        own = recorded.filter(series=name)
        if own.height:
            weighed = [
                float((own[c] * own["forecasts"]).sum()) for c in ("accuracy_percent", "accuracy_of_mean_percent")
            ]
            seen.append(name)
            won += [name] if weighed[0] >= weighed[1] else []
    names = f" ({', '.join(won)})" if won else ""
    return (
        "Each series is fitted alone, on its first part. Of the logs of jobs and nodes "
        f"{len(won)} of {len(seen)} are forecast at least as well as by their mean so far{names}."
    )


def _recorded(recorded: pl.DataFrame) -> str:
    shown = recorded.filter(pl.col("months").is_in(("1", "12", "1-3", "4-12", TOTAL)))
    return markdown.table(
        ("series", "months", *_HEADER), [(row["series"], row["months"], *_row(row)) for row in shown.to_dicts()]
    )


_HEADER = ("accuracy, %", "of the mean so far, %", "skill", "MASE", "scaled CRPS", "coverage of 80 %")


def _row(row: dict[str, float | None]) -> tuple[str, ...]:
    return tuple(_number(row[name]) for name in ("accuracy_percent", "accuracy_of_mean_percent", *_SCORES))


def _coherence(table: pl.DataFrame) -> str:
    """Each method: errors over those of the nodes' own forecasts, 1 where adding up costs nothing."""
    levels = table.select("series", "level").unique(maintain_order=True).rows()
    rows = []
    for series, level in levels:
        own = table.filter(series=series, level=level)
        ratios = [
            f"{row['wape'] / row['own_wape']:.3f} / {row['scaled_crps'] / row['own_scaled_crps']:.3f}"
            for row in own.to_dicts()
        ]
        rows.append((series, level, f"{100 * own['own_wape'][0]:.2f} / {100 * own['own_scaled_crps'][0]:.2f}", *ratios))
    methods = table["method"].unique(maintain_order=True).to_list()
    said = (
        "WAPE / scaled CRPS: in percent of each node's own forecast, then of forecasts that add up, over the own ones."
    )
    return f"{said}\n\n" + markdown.table(("series", "level", "own, %", *(f"`{name}`" for name in methods)), rows)


def _number(value: float | None) -> str:
    return wording.number(value, 3)
