"""The banners over a replay of jobs: does it hold, at which loads, and is the recording long enough to tell."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from reports import jobs_tables as printed
from reports import wording

LEAST_DAYS = 7
"""Days of arrivals below which nothing is called good: the halves of so few differ more than a replay would."""
_TOO_SHORT = "too short to judge"
_NAMED = 3  # measures that a sentence names

Banner = tuple[str, str, str]
"""Tone, word and sentence."""


def fidelity(card: pl.DataFrame, days: int | None, scheduler: str) -> Banner:
    """Whether the replay passed; noise is no pass, and a recording of less than `LEAST_DAYS` allows none.

    Args:
        card: the table `scorecard`.
        days: on how many days of the recording jobs arrived; None where it is not known.
        scheduler: what the replay was scheduled by; "" where it is not known.
    """
    judged = card.filter(pl.col("verdict") != "unscored")
    if not judged.height:
        return "unsure", "not judged", "The recording holds nothing that the replay could be compared with."
    failed, noisy = judged.filter(verdict="fail"), judged.filter(verdict="noise")
    count = f"{judged.height} judged measure{'s' * (judged.height != 1)}"
    told = f"{_beyond(failed, noisy, count)}{_policy(scheduler)}"
    short = _short(days)
    if failed.height:
        return "bad", "fail", f"{told} {short}".strip()
    if short:
        within = f"The replay is within its threshold of the recording in all of {count}, which proves little."
        return "unsure", _TOO_SHORT, f"The recording is too short to judge. {short} {told if noisy.height else within}"
    if noisy.height:
        return "bad", "not passed", told
    return "good", "pass", f"The replay is within its threshold of the recording in all of {count}."


def _beyond(failed: pl.DataFrame, noisy: pl.DataFrame, count: str) -> str:
    excuse = "no further than the recording is from itself, which is no excuse: the replay saw the same jobs."
    if not failed.height:
        return f"{noisy.height} of {count} beyond the threshold: {_named(noisy)}. That is {excuse}"
    told = f"{failed.height} of {count} beyond the threshold and any noise of the recording: {_named(failed)}."
    return f"{told} {noisy.height} more beyond the threshold, but {excuse}" if noisy.height else told


def _policy(scheduler: str) -> str:
    under = f" ({scheduler})" if scheduler else ""
    return (
        f" A policy other than the recorded one is expected to differ: the scorecard then measures the policy{under} "
        "as well as the twin."
    )


def _short(days: int | None) -> str:
    if days is None or days >= LEAST_DAYS:
        return ""
    arrived = f"Jobs arrived on {wording.count(days)} day{'s' * (days != 1)}"
    return (
        f"{arrived}, and the halves of fewer than {LEAST_DAYS} differ so much that hardly any error exceeds the noise."
    )


def _named(card: pl.DataFrame) -> str:
    """The first measures, with what was recorded and what the twin has."""
    told = []
    for row in card.head(_NAMED).iter_rows(named=True):
        unit, name = row["unit"], printed.MEASURES.get(row["measure"], wording.words(row["measure"]))
        if row["recorded"] is None or row["simulated"] is None or row["recorded"] == row["simulated"]:
            told.append(f"{name} (error {printed.quantity(row['error'], unit)})")
        else:
            twin, recorded = printed.quantity(row["simulated"], unit), printed.quantity(row["recorded"], unit)
            told.append(f"{name} (twin {twin}, recorded {recorded})")
    more = card.height - len(told)
    return "; ".join(told) + (f"; and {more} more" if more else "")


# ---------------------------------------------------------------- by offered load


def by_load(validity: pl.DataFrame) -> Banner | None:
    """Where waits hold by the table `validity` and where they do not; None where no day could be compared."""
    if not validity.height:
        return None
    holds, fails = (_listed(_ranges(validity.filter(within=within))) for within in (True, False))
    told = "By offered load as a share of capacity, a job's wait holds (by the median error)"
    if not holds:
        return "bad", "nowhere valid", f"{told} nowhere: not at {fails}."
    if fails:
        return "unsure", "partly valid", f"{told} at {holds}; it does not at {fails}."
    if validity["days"].sum() < LEAST_DAYS:
        return "unsure", _TOO_SHORT, f"{told} at {holds}: fewer than {LEAST_DAYS} days do not show that it always does."
    return "good", "valid", f"{told} wherever there was any: at {holds}."


def _ranges(rows: pl.DataFrame) -> list[tuple[float, float, int]]:
    """(from, to, days) of the bins of load, neighbours joined."""
    found: list[tuple[float, float, int]] = []
    for row in rows.sort("load_from").iter_rows(named=True):
        begin, end, days = row["load_from"], row["load_to"], row["days"]
        if found and found[-1][1] == begin:
            found[-1] = (found[-1][0], end, found[-1][2] + days)
        else:
            found.append((begin, end, days))
    return found


def _listed(ranges: Iterable[tuple[float, float, int]]) -> str:
    told = [
        f"{printed.load_range(begin, end)} ({wording.count(days)} day{'s' * (days != 1)})"
        for begin, end, days in ranges
    ]
    return " and ".join([", ".join(told[:-1]), *told[-1:]]) if len(told) > 1 else "".join(told)
