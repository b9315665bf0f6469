"""Tables and commands as the generated parts of the documentation show them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_PLACES = ("data=", "display=", "earlier=", "fresh=")  # of one machine, or without a say in the figures


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; a bar in a cell becomes a slash."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def command(identity: Mapping[str, Any]) -> str:
    """What was typed to make a run folder, with FOLDER for the place of recordings."""
    typed = [text for text in identity["overrides"] if not text.startswith(_PLACES)]
    data = ["data=FOLDER"] if any(text.startswith("data=") for text in identity["overrides"]) else []
    return shlex.join(["python", "-m", f"experiments.{identity['verb']}", *typed, *data])


def shell(lines: Iterable[str]) -> str:
    """Commands as a block."""
    return "```bash\n" + "\n".join(lines) + "\n```"
