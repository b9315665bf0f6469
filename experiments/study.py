"""Studies: published or recorded figures are met again, or it is said by how much they are missed.

A study is a module with a `STUDY` and a command, `python -m experiments.NAME`, that prints its tables. Published
figures lie in `published/NAME.csv`.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from experiments.display import Display, Plain
from experiments.intervals import means
from twin.errors import WorkbenchError

LEVEL = 0.95
"""Of every interval."""

_PUBLISHED = Path(__file__).parent / "published"

Titled = tuple[str, pl.DataFrame]


@dataclass(frozen=True, slots=True)
class Study:
    """A comparison as a command.

    `arguments` adds to the command line what the study needs; `tables` gives its results, each with a title, as they
    come, and tells a display about its phases.
    """

    name: str
    about: str
    arguments: Callable[[argparse.ArgumentParser], None]
    tables: Callable[[argparse.Namespace, Display], Iterator[Titled]]

    def parser(self) -> argparse.ArgumentParser:
        """What the command line takes."""
        found = argparse.ArgumentParser(prog=f"python -m experiments.{self.name}", description=self.about)
        self.arguments(found)
        return found

    def main(self, arguments: Sequence[str] | None = None) -> int:
        """Print the tables; 0, or the exit code of what went wrong."""
        given = self.parser().parse_args(arguments)
        display = Plain()  # it shows every digit, and digits are what is compared
        try:
            for title, table in self.tables(given, display):
                display.table(title, table)
        except WorkbenchError as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            return error.exit_code
        return 0


def positive(text: str) -> int:
    """An argument that is a whole number above zero; raises argparse's error for another."""
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return number


def published(name: str) -> pl.DataFrame:
    """The published figures of a study, as they were printed."""
    return pl.read_csv(_PUBLISHED / f"{name}.csv")


def interval(values: ArrayLike, rng: np.random.Generator) -> tuple[float | None, float | None]:
    """Lower and upper end of the 95 % bootstrap interval of the mean; None for too few values to tell."""
    low, high = means(values, rng).interval(LEVEL)
    return (None, None) if math.isnan(low) else (low, high)


def beside(measured: pl.DataFrame, known: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """The measured rows, each with the published one of the same key (null where there is none), and how far it is.

    Adds the other columns of `known`, among them `published`, and: difference (mean less published), inside (does the
    published value lie between low and high?).
    """
    both = measured.join(known, on=list(key), how="left", maintain_order="left")
    return both.with_columns(
        difference=pl.col("mean") - pl.col("published"), inside=pl.col("published").is_between("low", "high")
    )
