"""The end of a `--multirun`: a row per job, changed overrides as columns, the best of each KPI marked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from experiments import display
from twin.trace import tables

_HEADLINE = ("score", "cost_usd", "late_ratio", "slo_violation_min", "utilisation_ratio", "scale_events")
_HEADLINE += ("wait_mean_s", "bounded_slowdown_mean", "deadline_miss_ratio", "utilisation_cpu_ratio")
_HEADLINE += ("lost_core_h", "stretched_h")  # what promised cores cost: without it they always look best
_HEADLINE += ("mae_ratio", "accuracy_percent", "coverage_80", "fit_s", "forecast_ms")
_HIGHER = ("utilisation_ratio", "utilisation_cpu_ratio", "accuracy_percent")
_NEITHER = ("coverage_80",)  # shown without a star


class SweepTable(Callback):
    """Reads the sweep's run folders when all jobs are done: works for every launcher."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:  # noqa: ANN401 - Hydra's signature
        """Print the table and write `sweep.csv` into the sweep's folder."""
        folder = Path(config.hydra.sweep.dir)
        HydraConfig.instance().set_config(config)  # jobs in other processes did not tell this one where they ran
        rows = read(folder)
        if not rows:
            return
        frame = pl.DataFrame(rows, infer_schema_length=None)
        frame.write_csv(folder / "sweep.csv")
        show = display.make(config.display)
        show.table(f"Sweep {folder.name}: {len(rows)} jobs (* = best)", marked(frame))
        show.result(str(folder / "sweep.csv"))


def read(folder: Path) -> list[dict[str, Any]]:
    """One row per job of the sweep, in order, failed ones with their error."""
    rows = []
    for job, noted in notes(folder):
        row: dict[str, Any] = {"job": job, **columns(noted["overrides"])}
        kpis = Path(noted["folder"]) / "tables" / "kpis.parquet"
        if not noted["error"] and kpis.exists():
            scored = tables.read(kpis, "kpis").filter(pl.col("kpi").is_in(_HEADLINE))
            scored = scored.sort(pl.col("entity") == "cluster", maintain_order=True)  # the whole where it is scored
            row.update(dict(scored.select("kpi", "value").iter_rows()))
        rows.append({**row, "error": noted["error"]})
    names = dict.fromkeys(name for row in rows for name in row if name != "error")
    return [{name: row.get(name) for name in (*names, "error")} for row in rows]


def note(folder: Path, job: int, content: dict[str, Any]) -> None:
    """Write how job number `job` of the sweep ended: `overrides`, `folder`, `exit_code`, `error` ("" when none)."""
    path = folder / "jobs" / f"{job}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, sort_keys=True), encoding="utf-8")


def notes(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """(job number, its note) for every job of the sweep that has ended."""
    found = sorted((folder / "jobs").glob("*.json"), key=lambda path: int(path.stem))
    return [(path.stem, json.loads(path.read_text(encoding="utf-8"))) for path in found]


def columns(overrides: Sequence[str]) -> dict[str, str]:
    """What each override set, by its key."""
    return dict(text.lstrip("+~").split("=", 1) for text in overrides if "=" in text)


def marked(frame: pl.DataFrame) -> pl.DataFrame:
    """The table with a star at the best value of each KPI: the highest of utilisation and accuracy, else the lowest."""
    marks = []
    for kpi in (k for k in _HEADLINE if k in frame.columns):
        best = pl.col(kpi).max() if kpi in _HIGHER else pl.col(kpi).min()
        starred = pl.col(kpi) == best if kpi not in _NEITHER else pl.lit(False)
        star = pl.when(starred).then(pl.lit(" *")).otherwise(pl.lit(""))
        marks.append(
            pl.when(pl.col(kpi).is_null()).then(None).otherwise(pl.col(kpi).round(5).cast(pl.String) + star).alias(kpi)
        )
    return frame.with_columns(marks)
