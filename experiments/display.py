"""What a person sees while a verb runs: `rich` on a terminal, `plain` elsewhere, `log` with times, or `none`.

Progress and phases go to stderr, results to stdout; the last line is the path of the report or the run folder.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import polars as pl

from twin.errors import UsageError

Advance = Callable[[float, str], None]  # share done (0-1), a note

_DAY_S = 86_400.0


class Display(Protocol):
    """How a verb talks."""

    def line(self, text: str) -> None:
        """One line of information (stderr)."""
        ...

    def phase(self, name: str) -> AbstractContextManager[Advance]:
        """A context manager around one phase; what it yields is told the share done and a note."""
        ...

    def table(self, title: str, frame: pl.DataFrame) -> None:
        """A result (stdout)."""
        ...

    def result(self, text: str) -> None:
        """A result line (stdout)."""
        ...


class Plain:
    """One line per phase, no control characters."""

    def line(self, text: str) -> None:
        """Write to stderr."""
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    @contextmanager
    def phase(self, name: str) -> Iterator[Advance]:
        """Say when it is done and how long it took."""
        start = time.monotonic()
        notes = [""]

        def advance(share: float, note: str) -> None:  # noqa: ARG001 - the protocol's argument
            notes[0] = note

        yield advance
        note = f"  {notes[0]}" if notes[0] else ""
        self.line(f"  {name:<44} {time.monotonic() - start:6.1f} s{note}")

    def table(self, title: str, frame: pl.DataFrame) -> None:
        """A text table, every row and column."""
        with pl.Config(
            tbl_rows=-1,
            tbl_cols=-1,
            tbl_hide_dataframe_shape=True,
            tbl_hide_column_data_types=True,
            tbl_formatting="ASCII_MARKDOWN",
            float_precision=4,
            fmt_str_lengths=80,
            tbl_width_chars=200,
        ):
            sys.stdout.write(f"\n{title}\n{frame}\n")

    def result(self, text: str) -> None:
        """Write to stdout."""
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


class Log(Plain):
    """Plain, with the time of day on every line: for services and batch queues."""

    def line(self, text: str) -> None:
        """Log at INFO."""
        logging.getLogger("novacron").info(text.strip())


class Silent(Plain):
    """Says nothing but errors; results stay in the run folder."""

    def line(self, text: str) -> None:
        """Say nothing."""

    def table(self, title: str, frame: pl.DataFrame) -> None:
        """Say nothing."""

    def result(self, text: str) -> None:
        """Say nothing."""


class Rich(Plain):
    """A progress bar in simulated time and coloured tables, for terminals."""

    def __init__(self) -> None:
        """Write progress to stderr and results to stdout."""
        from rich.console import Console

        self._err = Console(stderr=True, highlight=False)
        self._out = Console(highlight=False)

    def line(self, text: str) -> None:
        """Write to stderr."""
        self._err.print(text, markup=False)

    @contextmanager
    def phase(self, name: str) -> Iterator[Advance]:
        """A bar while it lasts, a line when it is done."""
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        start = time.monotonic()
        columns = (
            TextColumn("  {task.description:<44}"),
            BarColumn(24),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self._err, transient=True) as progress:
            task = progress.add_task(name, total=1.0, note="")
            yield lambda share, note: progress.update(task, completed=share, note=note)
            note = progress.tasks[0].fields["note"]
        self._err.print(f"  [green]✓[/] {name:<42} {time.monotonic() - start:6.1f} s  [dim]{note}[/]")

    def table(self, title: str, frame: pl.DataFrame) -> None:
        """A table with aligned numbers."""
        from rich.table import Table

        table = Table(title=title, title_justify="left", title_style="bold")
        for column, dtype in frame.schema.items():
            table.add_column(column, justify="right" if dtype.is_numeric() else "left")
        for row in frame.iter_rows():
            table.add_row(
                *(f"{value:.4g}" if isinstance(value, float) else "–" if value is None else str(value) for value in row)
            )
        self._out.print(table)


def make(style: str) -> Display:
    """The display of that style (rich | plain | log | none | auto: by the terminal); raises UsageError for another."""
    if style == "auto":
        style = "rich" if sys.stderr.isatty() else "plain"
    styles = {"rich": Rich, "plain": Plain, "log": Log, "none": Silent}
    if style not in styles:
        raise UsageError(f"display={style} must be auto or one of {list(styles)}")
    return styles[style]()


def simulated(advance: Advance, until_s: float, label: str) -> Callable[[float], None]:
    """A progress callback in simulated time: "3 d 04 h of 14 d, 5,200x real time"."""
    started = time.monotonic()
    last = [0.0]

    def tell(time_s: float) -> None:
        now = time.monotonic()
        if now - last[0] < 0.1 and time_s < until_s:
            return
        last[0] = now
        speed = time_s / max(now - started, 1e-9)
        days, hours = int(time_s // _DAY_S), int(time_s % _DAY_S // 3600)
        whole = f"{until_s / _DAY_S:.3g} d"
        advance(time_s / until_s, f"{label}: {days} d {hours:02d} h of {whole}, {speed:,.0f}x real time")

    return tell
