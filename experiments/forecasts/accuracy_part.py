"""The part of docs/forecasting.md that run folders of `python -m experiments.accuracy` make.

Accuracy is never printed without skill, MASE, scaled CRPS and coverage beside it, and never for single machines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from agents.forecast.scoring import ALL, DAYS, SPREADS
from experiments import markdown
from experiments.forecasts.accuracy_levels import STATISTICAL, widest
from experiments.forecasts.accuracy_targets import Panel, targets
from reports import folder, wording
from twin.errors import UsageError

_TITLES = {
    ("cell", "5min"): "Whole clusters, 5 to 60 min ahead",
    ("cell", "hourly"): "Whole clusters, 1 to 24 h ahead",
    ("machine", "5min"): "Single machines, 5 to 60 min ahead",
    ("machine", "hourly"): "Single machines, 1 to 24 h ahead",
}
_UNITS = {"5min": ("min", 5), "hourly": ("h", 1)}
_WISHED = {("cell", "5min"): 98.0, ("cell", "hourly"): 95.0}
_SCORES = ("skill", "mase", "scaled_crps", "coverage_80", "bias")
_HEADER = ("skill", "MASE", "scaled CRPS", "coverage of 80 %", "bias, %")
_WHY = (
    "A percentage says how even a series is before it says how good a forecast is. The sum over thousands of machines "
    "is even where their work is independent; where batch jobs fill what services leave, or one disk is a large part "
    "of the whole, the next step alone may differ by more than the error that was wished for, and nothing in the "
    "past says by how much. Single machines rest and jump: there the error may exceed what is measured, so no accuracy "
    "is claimed for them."
)


def written(runs: Sequence[Path]) -> str:
    """The part of the page that run folders of the bench make; raises UsageError as `read` and `results` do."""
    return results([read(run) for run in runs])


def read(run: Path) -> Panel:
    """What a run folder holds; raises UsageError when it is none of the accuracy bench."""
    path = run / "tables" / "accuracy_scores.parquet"
    if not path.is_file():
        raise UsageError(f"{run}: holds no accuracy_scores; give a run folder of `python -m experiments.accuracy`")
    scores = pl.read_parquet(path).with_columns(pl.col("accuracy_percent").fill_nan(None))
    return Panel(scores["level"][0], scores["grid"][0], scores, folder.identity_of(run))


def results(panels: Sequence[Panel]) -> str:
    """All tables in Markdown; raises UsageError when two folders are of the same level and grid."""
    ordered = sorted(panels, key=lambda panel: list(_TITLES).index(panel.place))
    if len({panel.place for panel in ordered}) < len(ordered):
        raise UsageError("two run folders are of the same level and grid; give one of each")
    parts = [
        markdown.shell(markdown.command(panel.identity) for panel in ordered),
        *_absences(ordered),
        "## Targets",
        _targets(ordered),
    ]
    for panel in ordered:
        parts += [f"## {_TITLES[panel.place]}", _protocol(panel), _forecasters(panel)]
        parts += [_statement(panel), _series(panel), _steps(panel)] if panel.level == "cell" else [_spread(panel)]
        parts += ["Coverage of the 80 % interval, mean over series:", _coverage(panel)]
        parts += [f"The same of `{panel.candidate}` at each step:", _coverage_by_step(panel), _failures(panel)]
    return "\n\n".join(part for part in [*parts, "## Why not everywhere", _WHY] if part)


def _absences(panels: Sequence[Panel]) -> list[str]:
    said = [f"{_TITLES[p.place]}: not scored, for it was not there: {', '.join(p.absent)}." for p in panels if p.absent]
    missing = [title for place, title in _TITLES.items() if place not in {panel.place for panel in panels}]
    return [*said, *([f"Not run: {'; '.join(missing)}."] if missing else [])]


def _targets(panels: Sequence[Panel]) -> str:
    rows = [(t.horizon, t.what, t.shown(t.must), t.shown(t.aim), t.measured, t.met) for t in targets(panels)]
    return markdown.table(("horizon", "what", "must", "aim", "measured", "met"), rows)


def _protocol(panel: Panel) -> str:
    pooled = panel.scores.filter(horizon=widest(panel.scores), regime=ALL)
    return (
        f"{pooled['unique_id'].n_unique()} series, fitted once on the first three quarters (together with others: up "
        "to where their cluster is first judged), "
        f"{pooled['origins'].max()} origins in the last one. CRPS against yesterday's value with normal bands, MAE "
        f"against the mean of {', '.join(f'`{name}`' for name in panel.statistical) or 'no statistical model'}: "
        "geometric means over series with 95 % bootstrap intervals; series of one cluster move together, so that "
        "another set of clusters would differ by more. Skill, MASE and scaled CRPS are medians over "
        "series, coverage and bias means."
    )


def _forecasters(panel: Panel) -> str:
    claimed = panel.level == "cell"
    rows = []
    for row in panel.levels().iter_rows(named=True):
        accuracy = (_number(row["accuracy_percent"]), _number(row["worst_percent"])) if claimed else ()
        ratios = (_interval(row, "crps_ratio"), _interval(row, "mae_ratio"))
        rows.append((f"`{row['forecaster']}`", *accuracy, *_measures(row), *ratios))
    header = (*(("accuracy, median, %", "worst, %") if claimed else ()), *_HEADER, "CRPS ratio", "MAE ratio")
    return markdown.table(("forecaster", *header), rows)


def _series(panel: Panel) -> str:
    """Each series: the statistical mean and the candidate."""
    pooled = panel.scores.filter(horizon=widest(panel.scores), regime=ALL)
    named = [name for name in (STATISTICAL, panel.candidate) if name in pooled["forecaster"]]
    rows = [
        (row["unique_id"], f"`{row['forecaster']}`", _number(row["accuracy_percent"]), *_measures(row))
        for row in pooled.filter(pl.col("forecaster").is_in(named)).sort("unique_id", maintain_order=True).to_dicts()
    ]
    return markdown.table(("series", "forecaster", "accuracy, %", *_HEADER), rows)


def _steps(panel: Panel) -> str:
    """The candidate at single steps and bands of them, medians over series."""
    unit, length = _UNITS[panel.grid]
    last = int(widest(panel.scores).rpartition("-")[2])
    wanted = [str(step) for step in (1, last // 4, last // 2, last)]
    rows = []
    for name in dict.fromkeys((STATISTICAL, panel.candidate)):
        for step in wanted:
            found = panel.levels(horizon=step).filter(forecaster=name)
            for row in found.iter_rows(named=True):
                ahead = f"{int(step) * length} {unit}"
                rows.append((ahead, f"`{name}`", _number(row["accuracy_percent"]), *_measures(row)))
    return markdown.table(("ahead", "forecaster", "accuracy, median, %", *_HEADER), rows)


def _spread(panel: Panel) -> str:
    """How the candidate's scores differ from machine to machine."""
    pooled = panel.scores.filter(horizon=widest(panel.scores), regime=ALL, forecaster=panel.candidate)
    if not pooled.height:
        return ""
    rows = []
    for column, title in (("wape", "WAPE"), ("mase", "MASE"), ("skill", "skill"), ("scaled_crps", "scaled CRPS")):
        values = [pooled[column].quantile(q, interpolation="linear") for q in (0.25, 0.5, 0.75)]
        rows.append((title, *map(_number, values)))
    return markdown.table((f"`{panel.candidate}` over machines", "lower quartile", "median", "upper quartile"), rows)


def _coverage(panel: Panel) -> str:
    bands = [name for name in panel.scores["horizon"].unique(maintain_order=True) if "-" in name]
    steps = bands[-1].rpartition("-")[2]
    regimes = [name for name in (*SPREADS, *DAYS) if name in panel.scores["regime"]]
    unit, length = _UNITS[panel.grid]
    columns = [(band, ALL) for band in (*bands, "1", steps)] + [(bands[0], regime) for regime in regimes]
    means = panel.scores.group_by("forecaster", "horizon", "regime").agg(pl.col("coverage_80").mean())
    known = {(f, h, r): value for f, h, r, value in means.iter_rows()}
    rows = [
        (f"`{name}`", *(_number(known.get((name, *column)), digits=2) for column in columns))
        for name in panel.levels()["forecaster"]
    ]
    header = [regime if regime != ALL else _ahead(band, length, unit) for band, regime in columns]
    return markdown.table(("forecaster", *header), rows)


def _coverage_by_step(panel: Panel) -> str:
    unit, length = _UNITS[panel.grid]
    rows = panel.scores.filter(pl.col("horizon").str.contains("-").not_(), forecaster=panel.candidate, regime=ALL)
    means = rows.group_by("horizon", maintain_order=True).agg(pl.col("coverage_80").mean())
    header = [unit, *(str(int(step) * length) for step in means["horizon"])]
    return markdown.table(header, [("coverage", *(_number(value, digits=2) for value in means["coverage_80"]))])


def _failures(panel: Panel) -> str:
    found = [
        f"`{name}` on {', '.join(series)}" for name, series in panel.identity["failures"].items() if name != STATISTICAL
    ]
    return f"Failed, and shown as a dash: {'; '.join(found)}." if found else ""


def _ahead(band: str, length: int, unit: str) -> str:
    return "-".join(str(int(step) * length) for step in band.split("-")) + f" {unit}"


def _statement(panel: Panel) -> str:
    """Where the wished percentage is reached and where it is not, with the unevenness of the series."""
    wished = _WISHED[panel.place]
    pooled = panel.scores.filter(horizon=widest(panel.scores), regime=ALL)
    best = pooled.sort("accuracy_percent", descending=True, nulls_last=True).group_by("unique_id", maintain_order=True)
    best = best.first().sort("accuracy_percent", descending=True)
    own = pooled.filter(forecaster=panel.candidate)
    reached = own.filter(pl.col("accuracy_percent") >= wished)["unique_id"].to_list()
    said = f"{wished:g} % over all steps: `{panel.candidate}` reaches it on {len(reached)} of {own.height} series"
    said += f" ({', '.join(reached)})." if reached else "."
    short = best.filter(pl.col("accuracy_percent") < wished)
    if not short.height:
        return said
    jumps = dict(
        panel.scores.filter(horizon="1", regime=ALL, forecaster="naive").select("unique_id", "wape").iter_rows()
    )
    told = [
        f"{row['unique_id']} {_number(row['accuracy_percent'])} %"
        + (f" (changes by {_number(100 * jumps[row['unique_id']])} % from one step to the next)" if jumps else "")
        for row in short.to_dicts()
    ]
    return f"{said} No forecaster here reaches it, the best in hindsight included, on: {'; '.join(told)}."


def _measures(row: dict[str, float]) -> tuple[str, ...]:
    return (*(_number(_rounded(row[name])) for name in _SCORES[:-1]), _number(_rounded(100.0 * row["bias"]), digits=2))


def _rounded(value: float) -> float:
    """Without what is rounding of the arithmetic, so that no skill shows as none."""
    return round(value, 4) if math.isfinite(value) else value


def _interval(row: dict[str, float], name: str) -> str:
    ends = wording.interval(row[f"{name}_low"], row[f"{name}_high"])
    return f"{_number(row[name])}{f' ({ends})' if ends else ''}"


def _number(value: float | None, digits: int = 3) -> str:
    return wording.number(value, digits)
