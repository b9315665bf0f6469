"""Colours: one per controller wherever it is drawn, and one scale from worse to better.

The hues are those of Okabe and Ito, "Color Universal Design" (2008), less black and yellow, which vanish on
a dark or a light page. The baseline is grey: it is what the others are seen against.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable

HUES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
BASELINE = "#82878F"
BETTER_RGB = (0, 114, 178)
WORSE_RGB = (213, 94, 0)
_DASHES = ([1, 0], [6, 2], [2, 2])
_STRONGEST = 0.62  # more would drown the number written on it


def styles(labels: Iterable[str], baseline: str = "") -> dict[str, tuple[str, list[int]]]:
    """The (colour, dash) of each label, equal whenever the labels are, in whatever order they come.

    Each label has a preferred hue by its checksum and takes the next free one when that is taken; hues repeat
    with another dash only when all are in use.
    """
    taken: dict[tuple[str, int], str] = {}
    for label in sorted(set(labels) - {baseline}):
        slots = [(HUES[(zlib.crc32(label.encode()) + k) % len(HUES)], d) for d in range(3) for k in range(len(HUES))]
        taken[next((slot for slot in slots if slot not in taken), slots[-1])] = label
    found = {label: (hue, _DASHES[dash]) for (hue, dash), label in taken.items()}
    return {label: found.get(label, (BASELINE, _DASHES[0])) for label in labels}


def strength(ratio: float | None, better: str) -> float:
    """How much better (above 0) or worse (below 0) than the baseline, from -1 to 1: a factor of two is full."""
    if ratio is None or math.isnan(ratio) or better not in ("lower", "higher"):
        return 0.0
    change = -1.0 if ratio <= 0 else max(-1.0, min(1.0, math.log2(ratio)))
    return -change if better == "lower" else change


def shade(ratio: float | None, better: str) -> str:
    """The CSS colour behind a ratio: blue is better, orange worse, "" without a difference or a direction."""
    amount = strength(ratio, better)
    if abs(amount) < 0.005:
        return ""
    red, green, blue = BETTER_RGB if amount > 0 else WORSE_RGB
    return f"rgba({red},{green},{blue},{abs(amount) * _STRONGEST:.2f})"
