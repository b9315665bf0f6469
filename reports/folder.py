"""The run folder as the page reads it: one frozen record, with None where a station is absent.

Only `identity.json` is required. What is there must be sound: a damaged file is named, never skipped.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import yaml

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
    incidents: pl.DataFrame | None
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
    identity = identity_of(folder)
    bridge = document(folder / "bridge/report.json")
    return RunFolder(
        path=folder,
        identity=identity,
        config=text_of(folder / "config.yaml"),
        defaults=text_of(folder / "defaults.yaml"),
        timing=document(folder / "timing.json") or {},
        results=table_of(folder / "tables", "results"),
        summary=table_of(folder / "tables", "summary"),
        forecasts=table_of(folder / "tables", "forecasts"),
        forecast_scores=table_of(folder / "tables", "forecast_scores"),
        kpis=table_of(folder / "tables", "kpis"),
        runs=tuple(_run(path) for path in sorted((folder / "runs").glob("*/"))),
        fidelity=document(folder / "fidelity.json"),
        verdicts=tuple(v for path in sorted((folder / "verdicts").glob("*.json")) if (v := document(path)) is not None),
        bridge=None if bridge is None else Bridge(bridge, table_of(folder / "bridge", "decisions")),
        learning=document(folder / "learning.json"),
        files=listing(folder),
    )


def identity_of(folder: Path) -> Facts:
    """What `identity.json` in the folder says.

    Raises UsageError when there is none, TraceError when it is damaged or of another version.
    """
    path = folder / "identity.json"
    if not path.is_file():
        raise UsageError(f"{folder}: not a run folder: identity.json is missing; give the folder that a verb wrote")
    identity = document(path) or {}
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
    found = {table: table_of(path, table) for table in tables.RUN_TABLES}
    return ShownRun(path.name, scenario, controller, **found)


def table_of(folder: Path, table: str) -> pl.DataFrame | None:
    """The Parquet table in the folder, or None; raises SchemaError when it does not fit its schema."""
    path = folder / f"{table}.parquet"
    return tables.read(path, table) if path.is_file() else None


def config_of(run: Path) -> dict[str, Any]:
    """The configuration that a run folder was made with; raises UsageError when it holds none."""
    text = text_of(run / "config.yaml")
    if text is None:
        raise UsageError(f"{run}: holds no config.yaml; give the run folder of a verb")
    return dict(yaml.safe_load(text))


def table_in(run: Path, table: str) -> pl.DataFrame:
    """A table of a run folder; raises UsageError when it holds none of that name, SchemaError as `table_of`."""
    found = table_of(run / "tables", table)
    if found is None:
        raise UsageError(f"{run}: holds no table {table}; give the run folder of a verb that writes it")
    return found


def step_s(steps: pl.DataFrame) -> float:
    """The recording step of a step table: the shortest time between two rows (60 s when there is only one)."""
    between = steps["time_s"].unique().sort().diff().drop_nulls()
    return float(between.min()) if len(between) else 60.0  # pyright: ignore[reportArgumentType]


def text_of(path: Path) -> str | None:
    """What a text file holds, or None when there is none."""
    return path.read_text(encoding="utf-8") if path.is_file() else None


def document(path: Path) -> Facts | None:
    """The JSON object in a file, or None when there is no file; raises TraceError when it is none."""
    if not path.is_file():
        return None
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TraceError(f"{path}: not readable as JSON: {error}; run the verb again") from error
    if not isinstance(facts, dict):
        raise TraceError(f"{path}: expected a JSON object, found {type(facts).__name__}; run the verb again")
    return facts


def listing(folder: Path) -> tuple[tuple[str, int], ...]:
    """(relative path, bytes) of every file in the folder but the page itself, by name."""
    found = (path for path in folder.rglob("*") if path.is_file())
    names = ((path.relative_to(folder).as_posix(), path.stat().st_size) for path in found)
    return tuple(sorted((name, size) for name, size in names if name not in (REPORT, f"{REPORT}.tmp")))


def _first_seen(frame: pl.DataFrame | None, column: str, more: Any) -> tuple[str, ...]:  # noqa: ANN401 - any iterable
    listed = frame[column].to_list() if frame is not None else []
    return tuple(dict.fromkeys([*listed, *more]))
