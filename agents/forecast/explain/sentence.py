"""One forecast in one plain sentence: what, how far, by when, how sure, why, and when it was last like this."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from agents.forecast.base import DECILES, MEDIAN, Floats
from agents.forecast.explain.contributions import Contributions
from agents.forecast.explain.similar import SimilarDay

CLEAR_PERCENT = 80.0  # below this a human should look
_VAGUE_PERCENT = 50.0
_FLAT = 0.01  # of the value now: no more than this is no movement
_TOLD = 0.2  # of the largest contribution: no less than this is worth a word
_ALIKE = 1.0  # a day further away than this resembles the last one little
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
# hour at which each part of the day begins
_HOURS = ((0, "nightly"), (5, "morning"), (11, "midday"), (14, "afternoon"), (17, "evening"), (22, "nightly"))


@dataclass(frozen=True, slots=True)
class Wording:
    """How a forecast is spoken of.

    Attributes:
        subject: what is forecast, as the sentence begins ("CPU of cell a").
        unit: of the values, "" for none.
        epoch: the date and time at 0 s of the series' clock; None where it is not known: then times are spans.
        tolerance: share of the forecast within which it counts as right, see `confidence_percent`.
    """

    subject: str
    unit: str = ""
    epoch: datetime | None = None
    tolerance: float = 0.1


def confidence_percent(deciles: Floats, tolerance: float = 0.1) -> float:
    """How likely (0-100) the value will be within `tolerance` (a share) of the median, going by the deciles [9].

    Between two deciles the chance is spread evenly; beyond the outer ones it is taken to fall off exponentially, as
    steeply as between the outer two. It is as honest as the deciles are, no more.
    """
    reach = tolerance * abs(deciles[MEDIAN])
    low, high = (_chance_below(deciles, deciles[MEDIAN] + sign * reach) for sign in (-1.0, 1.0))
    return 100.0 * (high - low) if reach > 0.0 else 100.0 * float(deciles[0] == deciles[-1])


def _chance_below(deciles: Floats, value: float) -> float:
    if value < deciles[0]:
        return float(DECILES[0] * _tail(deciles[0] - value, deciles[1] - deciles[0]))
    if value > deciles[-1]:
        return float(1.0 - DECILES[0] * _tail(value - deciles[-1], deciles[-1] - deciles[-2]))
    # equal deciles make a step; of its ends the middle one stands for all
    return float((np.interp(value, deciles, DECILES) - np.interp(-value, -deciles[::-1], DECILES) + 1.0) / 2.0)


def _tail(beyond: float, gap: float) -> float:
    # the density in the gap is 0.1 / gap, and so is that of an exponential tail of weight 0.1 where it begins
    return float(np.exp(-beyond / gap)) if gap > 0.0 else 0.0


def sentence(
    why: Contributions,
    wording: Wording,
    *,
    origin_s: float,
    step_s: int,
    similar: Sequence[SimilarDay] = (),
    fallback: str = "",
) -> str:
    """One or more plain sentences on the last step that is forecast; the same words for the same numbers.

    Args:
        why: the forecast and what adds to it.
        wording: names and units.
        origin_s: when the first step ahead begins, on the series' clock.
        step_s: seconds of a step.
        similar: past days, the nearest first.
        fallback: why another forecaster than the usual one answers, "" where it does not.
    """
    ahead = why.said[-1]
    now, then = why.baseline, float(ahead[MEDIAN])
    change, band = then - now, float(ahead[-1] - ahead[0])
    digits = _digits(max(abs(change), band / 2.0, 1e-3 * abs(now)))
    at = _time(wording, origin_s, step_s * len(why.said))
    said = [f"{wording.subject} is expected to {_movement(now, then, band, digits, wording.unit)} "]
    said.append(f"(80 %: {_number(ahead[0], digits)} to {_number(ahead[-1], digits)}) {at}")
    said.append(_because(why, wording, origin_s, digits, flat=_is_flat(now, then, band)))
    said.append(_like(similar, wording, origin_s) + ".")
    sure = confidence_percent(ahead, wording.tolerance)
    if sure < CLEAR_PERCENT:
        how = "very uncertain" if sure < _VAGUE_PERCENT else "uncertain"
        said.append(
            f" This is {how}: the chance of being within {100 * wording.tolerance:.0f} % of it is {sure:.0f} %; "
            "a human should look."
        )
    if fallback:
        said.append(f" A fallback made this forecast: {fallback}.")
    return "".join(said)


def _is_flat(now: float, then: float, band: float) -> bool:
    return abs(then - now) <= max(_FLAT * abs(now), 0.05 * band)


def _movement(now: float, then: float, band: float, digits: int, unit: str) -> str:
    unit = f" {unit}" if unit else ""
    if _is_flat(now, then, band):
        return f"stay at about {_number(then, digits)}{unit}"
    verb = "rise" if then > now else "fall"
    return f"{verb} from {_number(now, digits)} to {_number(then, digits)}{unit}"


def _because(why: Contributions, wording: Wording, origin_s: float, digits: int, *, flat: bool) -> str:
    """The main reason in the direction of the change, and one that matters beside it."""
    parts = why.at(-1)
    change = sum(parts.values())
    largest = max(abs(value) for value in parts.values())
    if largest == 0.0 or (flat and largest <= 2.0 * _FLAT * abs(why.baseline)):
        return ""
    ranked = sorted(parts, key=lambda name: -abs(parts[name]))
    main = next((name for name in ranked if flat or parts[name] * change > 0.0), ranked[0])
    others = [n for n in ranked if n != main and abs(parts[n]) >= _TOLD * largest]
    told = [
        f"{_reason(n, parts[n], why, wording, origin_s)} ({_signed(parts[n], digits)})" for n in (main, *others[:1])
    ]
    if flat:
        return f", because {' and '.join(told)} nearly cancel out" if others else f", in spite of {told[0]}"
    if not others:
        return f", because of {told[0]}"
    verb = "adds" if parts[others[0]] > 0.0 else "takes away"
    second = _reason(others[0], parts[others[0]], why, wording, origin_s)
    return f", mainly because of {told[0]}; {second} {verb} {_number(abs(parts[others[0]]), digits)}"


def _reason(group: str, value: float, why: Contributions, wording: Wording, origin_s: float) -> str:
    way = "rise" if value > 0.0 else "fall"
    if group == "daily":
        return f"the usual {_part_of_day(wording, origin_s)}{way}" + ("" if wording.epoch else " at this time of day")
    if group == "events":
        return f"what is planned ({', '.join(why.events)})" if why.events else "the end of what was planned"
    return {
        "level": "the return to its level",
        "trend": "the trend",
        "weekly": f"the usual {way} on this day of the week",
        "rest": "other recent movement",
    }[group]


def _part_of_day(wording: Wording, origin_s: float) -> str:
    if wording.epoch is None:
        return ""
    hour = (wording.epoch + timedelta(seconds=origin_s)).hour
    return [name for start, name in _HOURS if start <= hour][-1] + " "


def _time(wording: Wording, origin_s: float, ahead_s: float) -> str:
    if wording.epoch is None:
        return f"within {_span(ahead_s)}"
    start, end = (wording.epoch + timedelta(seconds=s) for s in (origin_s, origin_s + ahead_s))
    days = (end.date() - start.date()).days
    return f"by {end:%H:%M}" + ("" if days == 0 else " tomorrow" if days == 1 else f" in {days} days")


def _span(seconds: float) -> str:
    if seconds < 7200 and seconds % 3600:
        return f"{seconds / 60:g} min"
    return f"{seconds / 3600:g} h" if seconds < 2 * 86400 else f"{seconds / 86400:.3g} days"


def _like(similar: Sequence[SimilarDay], wording: Wording, origin_s: float) -> str:
    if not similar or similar[0].distance > _ALIKE:
        return ""
    return f"; most like {_day(similar[0].days_ago, wording, origin_s)}"


def _day(days_ago: int, wording: Wording, origin_s: float) -> str:
    if days_ago == 1:
        return "yesterday"
    weeks, days = divmod(days_ago, 7)
    ago = f"{weeks} week{'s' * (weeks > 1)} ago" if weeks and not days else f"{days_ago} days ago"
    if wording.epoch is None:
        return f"the day {ago}"
    return f"{_WEEKDAYS[(wording.epoch + timedelta(seconds=origin_s, days=-days_ago)).weekday()]} {ago}"


def _digits(matters: float) -> int:
    """Decimals that show two figures of what matters."""
    return int(np.clip(1 - np.floor(np.log10(matters)), 0, 9)) if matters > 0.0 else 0


def _number(value: float, digits: int) -> str:
    # no minus before a zero
    return f"{round(float(value), digits) + 0.0:,.{digits}f}"


def _signed(value: float, digits: int) -> str:
    return ("+" if value >= 0.0 else "-") + _number(abs(value), digits)
