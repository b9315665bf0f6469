"""`python -m experiments.forecasting_page RUN_FOLDER...`: docs/forecasting.md from the run folders of its studies.

Each verb has a part between marks of its own; the parts of verbs that no folder is given of stay as they are.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments import docs
from experiments.forecasts import (
    accuracy_part,
    cold_start_part,
    decision_part,
    drill_part,
    long_horizon_part,
    sites_part,
)
from reports import folder
from twin.errors import UsageError, WorkbenchError

PAGE = "docs/forecasting.md"
PARTS: dict[str, tuple[str, Callable[[Sequence[Path]], str]]] = {
    "accuracy": ("accuracy", accuracy_part.written),
    "long_horizon": ("long-horizon", long_horizon_part.written),
    "cold_start": ("cold-start", cold_start_part.written),
    "decision_value": ("decision-value", decision_part.written),
    "retraining": ("retraining", drill_part.written),
    "sites": ("sites", sites_part.written),
}
"""By verb, the marks of its part, and who writes it from the verb's run folders."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 when the page was written; its path goes to stdout."""
    found = argparse.ArgumentParser(
        prog="python -m experiments.forecasting_page", description="Write the tables of forecasts into their page."
    )
    found.add_argument("runs", type=Path, nargs="+", metavar="RUN_FOLDER", help=f"of {', '.join(PARTS)}")
    found.add_argument("--page", type=Path, default=docs.ROOT / PAGE, help="with the marks of what is written")
    given = found.parse_args(arguments)
    try:
        write(given.page, given.runs)
    except WorkbenchError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return error.exit_code
    sys.stdout.write(f"{given.page}\n")
    return 0


def write(page: Path, runs: Sequence[Path]) -> None:
    """Replace the parts of `page` that the run folders are of.

    Raises UsageError for a folder of another verb, tables that are not there, and a page that cannot be read or lacks
    the marks; the page then stays as it was.
    """
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{page}: cannot be read: {error.strerror}; give a page with marks of its parts") from error
    own: dict[str, list[Path]] = {}
    for run in runs:
        own.setdefault(str(folder.identity_of(run).get("verb")), []).append(run)
    for verb, folders in own.items():
        if verb not in PARTS:
            raise UsageError(f"{folders[0]}: is of {verb!r}; the page has parts of {', '.join(PARTS)}")
        marks, written = PARTS[verb]
        text = docs.replaced(text, marks, written(folders), page.name)
    partial = page.with_name(f"{page.name}.tmp")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, page)


if __name__ == "__main__":
    sys.exit(main())
