"""What a scheduler is made of, and what is refused before anything runs."""

from __future__ import annotations

import numpy as np
import pytest

from twin.engine.jobs import machines as machine
from twin.engine.jobs.capacity import Capacity
from twin.engine.jobs.scheduler import Outage, Scheduler, check_outages
from twin.engine.scheduling.admission import Quota
from twin.engine.scheduling.backfill import Easy, Strict
from twin.engine.scheduling.filters import AntiAffinity
from twin.engine.scheduling.inspector import Inspecting, KeepRoom
from twin.engine.scheduling.multifactor import Multifactor
from twin.engine.scheduling.orders import Fcfs
from twin.engine.scheduling.scored import Scored
from twin.errors import SimulationError, UsageError
from twin.seeds import child

PARTS = {"order": Fcfs(), "backfill": Strict()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retries": -1}, "retries=-1 must be a whole number of at least 0; 0 starts no job anew"),
        ({"retries": 1.5}, r"retries=1\.5"),
        ({"retries": np.nan}, "retries=nan"),
        ({"retries": None}, "retries=None"),
        ({"order": Fcfs}, r"order: Fcfs is a class; give an object of it, Fcfs\(\)"),
        ({"order": Multifactor}, r"order: Multifactor is a class; give an object of it, Multifactor\(\)"),
        ({"order": "fcfs"}, "order: 'fcfs' is none, as it has no method keys or look"),
        ({"order": None}, "order: None is none"),
        ({"backfill": Easy}, r"backfill: Easy is a class; give an object of it, Easy\(\)"),
        ({"backfill": "easy"}, "backfill: 'easy' is none, as it has no method start"),
        ({"placement": Scored}, "placement: Scored is a class"),
        ({"placement": "best_fit"}, "placement: 'best_fit' is none"),
        ({"inspector": KeepRoom()}, "inspector: KeepRoom.* is none, as it has no method accepts"),
        ({"admission": Quota(jobs=1)}, r"admission=Quota.* must be a tuple of rules.*admission=\(rule,\)"),
        ({"filters": AntiAffinity()}, r"filters=AntiAffinity.* must be a tuple of rules.*filters=\(rule,\)"),
        ({"filters": [AntiAffinity()]}, "must be a tuple of rules"),
        ({"admission": None}, "admission=None must be a tuple"),
        ({"admission": (Quota,)}, "admission: Quota is a class"),
        ({"filters": ("affinity",)}, "filters: 'affinity' is none, as it has no method look"),
    ],
)
def test_parts_that_are_none_are_refused(options: dict, message: str) -> None:
    """By their name, with what to give instead, when the scheduler is made."""
    with pytest.raises(UsageError, match=message):
        Scheduler(**{**PARTS, **options})


@pytest.mark.parametrize(
    "options",
    [
        {"retries": 0},
        {"order": Multifactor()},
        {"placement": Capacity.lowest_first},
        {"placement": Scored({"fgd": 1.0})},
        {"inspector": Inspecting(KeepRoom())},
        {"admission": (Quota(jobs=1),), "filters": (AntiAffinity(),)},
    ],
)
def test_parts_that_answer_their_protocol_are_taken(options: dict) -> None:
    made = Scheduler(**{**PARTS, **options})
    assert all(getattr(made, key) == value for key, value in options.items())


@pytest.mark.parametrize(
    ("outage", "message"),
    [
        (Outage(-1.0, 1.0, (0,)), "begins at -1 s: it must be 0 s or more"),
        (Outage(np.nan, 1.0, (0,)), "begins at nan s"),
        (Outage(np.inf, 1.0, (0,)), "begins at inf s"),
        (Outage(0.0, -1.0, (0,)), "duration -1 s"),
        (Outage(0.0, np.nan, (0,)), "duration nan s"),
        (Outage(0.0, 1.0, (0, 2)), "machine number 2; there are 0 to 1"),
    ],
)
def test_outages_that_cannot_be_are_refused(outage: Outage, message: str) -> None:
    """Also behind one that can be."""
    with pytest.raises(SimulationError, match=message):
        check_outages((Outage(0.0, np.inf, (0, 1)), outage), machine.uniform(2, 1))


@pytest.mark.parametrize("seed", [-1, 1.5, np.nan, "one", None])
def test_a_seed_is_a_whole_number_of_zero_or_more(seed: int) -> None:
    """Else random numbers could not be drawn again."""
    with pytest.raises(UsageError, match=r"seed=.* must be a whole number of 0 or more"):
        child(seed, "agent")


def test_a_seed_gives_the_same_numbers_whatever_its_type() -> None:
    """And others for another name."""
    assert child(7, "agent").integers(1 << 60) == child(np.int64(7), "agent").integers(1 << 60)  # pyright: ignore[reportArgumentType]
    assert child(7, "agent").integers(1 << 60) != child(7, "faults").integers(1 << 60)
