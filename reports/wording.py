"""Numbers and times as people read them: pure functions value -> text."""

from __future__ import annotations

import math

DASH = "–"
THIN = "\u202f"  # a narrow space that does not break


def number(value: float | None, digits: int = 3) -> str:
    """The value with `digits` significant digits and grouped thousands; a dash when it is unknown."""
    if value is None or not math.isfinite(value):
        return DASH
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if size < -4:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    text = f"{value:,.{max(digits - 1 - size, 0)}f}".replace(",", THIN)
    return text.rstrip("0").rstrip(".") if "." in text else text


def count(value: int) -> str:
    """A whole number in full, with grouped thousands."""
    return f"{value:,}".replace(",", THIN)


def interval(low: float | None, high: float | None) -> str:
    """The two ends, or "" when either is unknown."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"{number(low)}{THIN}{DASH}{THIN}{number(high)}"


def ratio(value: float | None) -> str:
    """A ratio to the baseline: "0.62×"."""
    if value is None or not math.isfinite(value):
        return DASH
    return f"{value:.2f}×" if value < 10 else f"{number(value)}×"


def clock(time_s: float) -> str:
    """Seconds since the trace's start as day and time of day: "d2 04:30"."""
    minutes = math.floor(time_s / 60.0)
    return f"d{minutes // 1440} {minutes // 60 % 24:02d}:{minutes % 60:02d}"


def duration(seconds: float | None) -> str:
    """A length of time in its natural unit: "41 s", "12 min", "3 h", "7 d"."""
    if seconds is None or not math.isfinite(seconds):
        return DASH
    for unit, length in (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= 2 * length or (seconds >= length and seconds % length == 0):
            return f"{number(seconds / length)} {unit}"
    return f"{number(seconds)} s"


def size(count: int) -> str:
    """Bytes in B, kB or MB."""
    for unit, length in (("MB", 1e6), ("kB", 1e3)):
        if count >= length:
            return f"{number(count / length)} {unit}"
    return f"{count} B"


def words(name: str) -> str:
    """A snake_case name as words: "late_ratio" -> "late ratio"."""
    return name.replace("_", " ")
