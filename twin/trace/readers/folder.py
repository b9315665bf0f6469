"""A folder of canonical tables: `trace.json` beside one .parquet or .csv per table (what `Trace.write` makes)."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

from twin.errors import TraceError
from twin.trace import tables
from twin.trace.trace import FORMAT_VERSION, Trace, TraceInfo


def matches(path: str | Path) -> bool:
    """Is there a `trace.json` in that folder?"""
    return (Path(path) / "trace.json").is_file()


def read(path: str | Path) -> Trace:
    """The trace in the folder; raises TraceError naming file, row and column."""
    folder = Path(path)
    info = _info(folder / "trace.json")
    frames = {}
    for table in tables.TRACE_TABLES:
        files = [f for f in (folder / f"{table}.parquet", folder / f"{table}.csv") if f.is_file()]
        if len(files) > 1:
            raise TraceError(f"{folder}: both {files[0].name} and {files[1].name} are there; keep one")
        if files:
            frames[table] = tables.read(files[0], table)
    return Trace(info, frames)


def _info(path: Path) -> TraceInfo:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise TraceError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(raw, dict) or raw.pop("format_version", None) != FORMAT_VERSION:
        raise TraceError(f"{path}: format_version must be {FORMAT_VERSION}")
    known = {f.name for f in fields(TraceInfo)}
    unknown = sorted(set(raw) - known)
    missing = sorted({"name", "source", "licence", "sha256"} - set(raw))
    if unknown or missing:
        raise TraceError(f"{path}: unknown keys {unknown}, missing keys {missing}; known: {sorted(known)}")
    raw.update({key: tuple(raw[key]) for key in ("notes", "missing") if key in raw})
    return TraceInfo(**raw)
