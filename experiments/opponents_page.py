"""docs/opponents.md: what the benchmarks of `experiments.opponents` found, as tables and in sentences."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from experiments import docs, markdown
from reports import folder, wording
from twin.errors import UsageError

SUITES = {"opponents": "Who scales replicas", "node_opponents": "Who buys nodes"}
_AGAINST = {"opponents": ("hpa",), "node_opponents": ("cluster_autoscaler", "hpa")}
_CELLS = (
    "Cost in USD / late requests in % / minutes of violated SLO / changes of the wished replicas or of their size, and "
    "below each its ratio to `hpa`: interquartile means over the seeds. Where HPA has none of it, there is no ratio."
)
_LARGEST = 100.0  # a ratio to nearly nothing says only that
_KPIS = (("cost_usd", 1.0), ("late_ratio", 100.0), ("slo_violation_min", 1.0), ("scale_events", 1.0))


def write(page: Path, out: Path, recordings: Sequence[str], command: str) -> None:
    """Replace the results in `page` by those of the run folders in `out`; raises UsageError when there are none."""
    found = summaries(out, recordings)
    try:
        before = page.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"{page}: cannot be read: {error.strerror}; give a page with the marks of `results`"
        ) from error
    text = docs.replaced(before, "results", results(found, out, recordings, command), page.name)
    partial = page.with_name(f"{page.name}.tmp")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, page)


def summaries(out: Path, recordings: Sequence[str]) -> pl.DataFrame:
    """The headline KPIs of all run folders in `out`: suite, recording, and the columns of `summary`."""
    frames = []
    for suite in SUITES:
        for recording in recordings:
            path = out / f"{suite}-{recording}" / "tables" / "summary.parquet"
            if path.exists():
                named = {"suite": pl.lit(suite), "recording": pl.lit(recording)}
                frames.append(pl.read_parquet(path).with_columns(**named))
    if not frames:
        raise UsageError(f"{out}: no run folder of this benchmark; run it first")
    return pl.concat(frames).filter(pl.col("kpi").is_in([kpi for kpi, _ in _KPIS]))


def results(found: pl.DataFrame, out: Path, recordings: Sequence[str], command: str) -> str:
    """All tables in Markdown."""
    absent = [name for name in recordings if name not in found["recording"].unique()]
    parts = [f"```bash\n{command}\n```", *([f"Not run here: {', '.join(absent)}."] if absent else [])]
    for suite, frame in _by(found, "suite"):
        parts.append(f"## {SUITES[suite]}")
        for baseline in _AGAINST[suite]:
            parts += [f"Cost / lateness against `{baseline}`:", headline(frame, baseline)]
        parts.append(findings(frame, _AGAINST[suite][0]))
    parts += ["## Each recording", _CELLS]
    for recording, frame in _by(found, "recording"):
        parts += [f"### {recording}", *(detail(each) for _, each in _by(frame, "suite"))]
    runs = found.select("suite", "recording").unique(maintain_order=True).iter_rows()
    typed = "\n".join(_run(folder.identity_of(out / f"{suite}-{recording}")) for suite, recording in runs)
    return "\n\n".join([*parts, "## Each run", f"```bash\n{typed}\n```"])


def relative(frame: pl.DataFrame, baseline: str) -> pl.DataFrame:
    """Of each controller on each recording: cost and lateness as ratios to the baseline's, mean values over scenarios.

    Columns: recording, controller, cost, late (null where the baseline was never late).
    """
    over = frame.group_by("recording", "controller", "kpi", maintain_order=True).agg(pl.col("value").mean())
    base = over.filter(controller=baseline).select("recording", "kpi", base="value")
    ratios = over.join(base, on=["recording", "kpi"], maintain_order="left").with_columns(
        ratio=pl.when(pl.col("base") > 0).then(pl.col("value") / pl.col("base"))
    )
    wide = ratios.pivot("kpi", index=["recording", "controller"], values="ratio", maintain_order=True)
    return wide.select("recording", "controller", cost="cost_usd", late="late_ratio")


def headline(frame: pl.DataFrame, baseline: str) -> str:
    """One table of a suite: controllers x recordings, cost and lateness against the baseline; the cheapest first."""
    ratios = relative(frame, baseline)
    names = ratios["recording"].unique(maintain_order=True).to_list()
    told = {(r["controller"], r["recording"]): f"{_ratio(r['cost'])} / {_ratio(r['late'])}" for r in ratios.to_dicts()}
    mean = ratios.group_by("controller", maintain_order=True).agg(pl.col("cost").mean()).sort("cost")
    rows = [
        (
            f"`{row['controller']}`",
            _ratio(row["cost"]),
            *(told.get((row["controller"], n), wording.DASH) for n in names),
        )
        for row in mean.to_dicts()
    ]
    return markdown.table(("controller", "cost, mean", *names), rows)


def findings(frame: pl.DataFrame, baseline: str) -> str:
    """What a suite shows, in sentences that are counted from it."""
    ratios = relative(frame, baseline).filter(pl.col("controller") != baseline)
    recordings = ratios["recording"].n_unique()
    better = ratios.filter(pl.col("cost") < 1.0, pl.col("late") <= 1.0).group_by("controller").len()
    both = [f"`{name}` ({times})" for name, times in better.sort("len", "controller", descending=[True, False]).rows()]
    least, most = pl.col("cost").min().alias("least"), pl.col("cost").max().alias("most")
    spread = ratios.group_by("controller").agg(least, most).sort(pl.col("most") / pl.col("least"), "controller")
    wide = spread.row(-1, named=True)
    said = [
        f"Cheaper than `{baseline}` and not later (on so many of {recordings} recordings): "
        f"{', '.join(both) or 'none'}.",
        f"Most depends on the recording for `{wide['controller']}`: {_ratio(wide['least'])} to {_ratio(wide['most'])} "
        f"times the cost of `{baseline}`.",
    ]
    late = ratios.drop_nulls("late").sort("late", "controller")
    if late.height:
        worst = late.row(-1, named=True)
        said.append(
            f"The latest of all were the answers under `{worst['controller']}` on {worst['recording']}, late "
            f"{_ratio(worst['late'])} times as often as under `{baseline}`."
        )
    return " ".join(said)


def detail(frame: pl.DataFrame) -> str:
    """The table of a suite on one recording: controllers x scenarios; in a cell values, below them their ratios."""
    known = {(r["controller"], r["scenario"], r["kpi"]): r for r in frame.to_dicts()}
    scenarios = frame["scenario"].unique(maintain_order=True).to_list()
    rows = []
    for controller in frame["controller"].unique(maintain_order=True):
        cells = []
        for scenario in scenarios:
            found = [known.get((controller, scenario, kpi), {}) for kpi, _ in _KPIS]
            values = [_value(row.get("value"), scale) for row, (_, scale) in zip(found, _KPIS, strict=True)]
            cells.append(f"{' / '.join(values)}<br>{' / '.join(_ratio(row.get('ratio')) for row in found)}")
        rows.append((f"`{controller}`", *cells))
    return markdown.table(("controller", *scenarios), rows)


def _by(frame: pl.DataFrame, column: str) -> Iterator[tuple[str, pl.DataFrame]]:
    for name in frame[column].unique(maintain_order=True):
        yield name, frame.filter(pl.col(column) == name)


def _run(identity: folder.Facts) -> str:
    """What was run, as it would be typed, with the trace it ran on; recordings by the name of their folder."""
    typed = [re.sub(r"^(trace\.path=).*/", r"\1FOLDER/", text) for text in identity["overrides"]]
    command = shlex.join(["python", "-m", "experiments.benchmark", *typed])
    return f"{command} # {identity['trace']['name']} {identity['trace']['digest']}"


def _value(value: float | None, scale: float) -> str:
    return wording.number(None if value is None else round(scale * value, 3))  # a tail of a queue is never zero


def _ratio(value: float | None) -> str:
    return f"> {_LARGEST:g}" if value is not None and value > _LARGEST else wording.number(value)
