"""The front door of traces: `read(path, format)` finds the reader, the reader returns a checked Trace."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from twin.errors import TraceError
from twin.trace import readers
from twin.trace.trace import Trace


def formats() -> tuple[str, ...]:
    """The formats that can be read: one module each in `twin/trace/readers/`."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(readers.__path__)))


def read(path: str | Path, format: str | None = None) -> Trace:  # noqa: A002 - the published name of this argument
    """The trace recorded at `path`.

    Args:
        path: a file, a folder, or for embedded recordings the name of the series ("google2019").
        format: one of `formats()`; by default the first whose reader recognises the path.

    Raises:
        TraceError: no reader recognises the path, the format is unknown, or the recording is not sound.
    """
    known = formats()
    if format is not None and format not in known:
        raise TraceError(f"unknown trace format {format!r}; known formats: {list(known)}")
    for name in [format] if format else known:
        reader = importlib.import_module(f"twin.trace.readers.{name}")
        if format or reader.matches(path):
            return reader.read(path)
    raise TraceError(f"{path}: no reader recognises this; name one with format=, known formats: {list(known)}")
