"""The run folder as the page reads it: one frozen record, with None where a station is absent.

Only `identity.json` is required. What is there must be sound: a damaged file is named, never skipped.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from twin.errors import TraceError, UsageError
from twin.trace import tables

FORMAT_VERSION = 1
REPORT = "report.html"
_SEPARATOR = "--"

Facts = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ShownRun:
    """One representative run of `runs/<scenario>--<controller>/` with its tables."""

    label: str
    scenario: str
    controller: str
    service_steps: pl.DataFrame | None
    pool_steps: pl.DataFrame | None
    decisions: pl.DataFrame | None
    kpis: pl.DataFrame | None


@dataclass(frozen=True, slots=True)
class Bridge:
    """What `bridge/` holds: the closing report and the decision table."""

    report: Facts
    decisions: pl.DataFrame | None


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A run folder; `files` lists (relative path, bytes) of everything in it but the page itself."""

    path: Path
    identity: Facts
    config: str | None
    defaults: str | None
    timing: Facts
    results: pl.DataFrame | None
    summary: pl.DataFrame | None
    forecasts: pl.DataFrame | None
    forecast_scores: pl.DataFrame | None
    kpis: pl.DataFrame | None
    runs: tuple[ShownRun, ...]
    fidelity: Facts | None
    verdicts: tuple[Facts, ...]
    bridge: Bridge | None
    learning: Facts | None
    files: tuple[tuple[str, int], ...]

    @property
    def baseline(self) -> str:
        """The label of the controller that the others are compared with, or ""."""
        if self.summary is not None and self.summary.height:
            return str(self.summary["baseline"][0])
        return next((str(v["baseline"]) for v in self.verdicts if v.get("baseline")), "")

    @property
    def candidate(self) -> str:
        """The label of the controller that was judged first, or ""."""
        return next((str(v["candidate"]) for v in self.verdicts if v.get("candidate")), "")

    @property
    def controllers(self) -> tuple[str, ...]:
        """Every controller's label, in the order of the summary, then of the shown runs."""
        return _first_seen(self.summary, "controller", (run.controller for run in self.runs))

    @property
    def scenarios(self) -> tuple[str, ...]:
        """Every scenario's label, in the order of the summary, then of the shown runs."""
        return _first_seen(self.summary, "scenario", (run.scenario for run in self.runs))


def read(folder: Path) -> RunFolder:
    """The run folder at `folder`.

    Raises UsageError when there is no `identity.json`, TraceError naming the file when one is damaged, and
    SchemaError when a table does not fit its schema.
    """
    if not (folder / "identity.json").is_file():
        raise UsageError(f"{folder}: not a run folder: identity.json is missing; give the folder that a verb wrote")
    bridge = _json(folder / "bridge/report.json")
    return RunFolder(
        path=folder,
        identity=_identity(folder / "identity.json"),
        config=_text(folder / "config.yaml"),
        defaults=_text(folder / "defaults.yaml"),
        timing=_json(folder / "timing.json") or {},
        results=_table(folder / "tables", "results"),
        summary=_table(folder / "tables", "summary"),
        forecasts=_table(folder / "tables", "forecasts"),
        forecast_scores=_table(folder / "tables", "forecast_scores"),
        kpis=_table(folder / "tables", "kpis"),
        runs=tuple(_run(path) for path in sorted((folder / "runs").glob("*/"))),
        fidelity=_json(folder / "fidelity.json"),
        verdicts=tuple(v for path in sorted((folder / "verdicts").glob("*.json")) if (v := _json(path)) is not None),
        bridge=None if bridge is None else Bridge(bridge, _table(folder / "bridge", "decisions")),
        learning=_json(folder / "learning.json"),
        files=_files(folder),
    )


def _identity(path: Path) -> Facts:
    identity = _json(path) or {}
    if identity.get("format_version") != FORMAT_VERSION:
        raise TraceError(
            f"{path}: format_version is {identity.get('format_version')!r}, this code reads {FORMAT_VERSION}; "
            "write the page with the version that made the run"
        )
    return identity


def _run(path: Path) -> ShownRun:
    scenario, separator, controller = path.name.partition(_SEPARATOR)
    if not separator:
        raise TraceError(f"{path}: a shown run's folder is named <scenario>{_SEPARATOR}<controller>; rename it")
    read_table = [_table(path, table) for table in tables.RUN_TABLES]
    return ShownRun(path.name, scenario, controller, *read_table)


def _table(folder: Path, table: str) -> pl.DataFrame | None:
    path = folder / f"{table}.parquet"
    return tables.read(path, table) if path.is_file() else None


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _json(path: Path) -> Facts | None:
    if not path.is_file():
        return None
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TraceError(f"{path}: not readable as JSON: {error}; run the verb again") from error
    if not isinstance(facts, dict):
        raise TraceError(f"{path}: expected a JSON object, found {type(facts).__name__}; run the verb again")
    return facts


def _files(folder: Path) -> tuple[tuple[str, int], ...]:
    found = (path for path in folder.rglob("*") if path.is_file())
    names = ((path.relative_to(folder).as_posix(), path.stat().st_size) for path in found)
    return tuple(sorted((name, size) for name, size in names if name not in (REPORT, f"{REPORT}.tmp")))


def _first_seen(frame: pl.DataFrame | None, column: str, more: Any) -> tuple[str, ...]:  # noqa: ANN401 - any iterable
    listed = frame[column].to_list() if frame is not None else []
    return tuple(dict.fromkeys([*listed, *more]))
