"""A table as the page prints it: plain records of words and looks; no HTML here."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import quote

_TONES = {"pass": "good", "refuse": "bad", "needs a human": "unsure", "cannot tell": "unsure"}


@dataclass(frozen=True, slots=True)
class Glyph:
    """An interval drawn on 0-100: `mark` is the threshold or the baseline; None is not drawn."""

    value: float | None
    low: float | None
    high: float | None
    mark: float | None
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: `text`, a quiet second line `note`, what it sorts by, and how it looks."""

    text: str
    sort: float | str | None = None
    note: str = ""
    tone: str = ""
    shade: str = ""
    strong: bool = False
    dot: str = ""
    href: str = ""
    glyph: Glyph | None = None
    extra: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A column's title, its unit, and whether it holds numbers."""

    title: str
    unit: str = ""
    number: bool = False
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One row; `scenario` and `controller` let the page filter it."""

    cells: tuple[Cell, ...]
    scenario: str = ""
    controller: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Columns and rows, and one sentence about what is shown."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    sentence: str = ""
    links: tuple[tuple[str, str], ...] = field(default=())


def link(path: str) -> str:
    """The relative address of a file in the run folder."""
    return quote(path)


def tone(result: str) -> str:
    """good, bad or unsure for a decision or a check's result."""
    return _TONES.get(result, "unsure")
