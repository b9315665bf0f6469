"""Machines that fail or are drained: what they take and lose, and what is refused."""

from __future__ import annotations

import pytest

from tests.twin.engine.jobs.conftest import World, simple, states, twin_of
from twin.engine.jobs import machines as machine
from twin.engine.jobs.scheduler import Outage, Scheduler
from twin.engine.jobs.simulator import JobTwin
from twin.engine.scheduling import orders
from twin.engine.scheduling.backfill import Strict
from twin.errors import SimulationError


def test_outages_take_nothing_new_and_failures_lose_all(ended: list[tuple[World, JobTwin]]) -> None:
    """Nothing starts on a closed machine; a failure ends what runs at once; a drained machine lets it finish."""
    crossed = 0
    for world, twin in ended:
        for outage in world.outages:
            until_s = outage.time_s + outage.duration_s
            for _, place_, _, start_s, end_s in twin.history:
                if place_ in outage.machines:
                    assert not outage.time_s <= start_s < until_s
                    across = start_s < outage.time_s < end_s
                    assert outage.drain or not across
                    crossed += across
    assert crossed


def test_failures_restart_a_job_as_often_as_it_may() -> None:
    """Failing at 5 s and 15 s: with two retries it is done at 28 s, with one it has failed at 15 s."""
    trace = simple([(0, 10, 1)])
    outages = (Outage(5.0, 2.0, (0,)), Outage(15.0, 3.0, (0,)))
    for retries, state, end_s, ran_s in ((2, "done", 28.0, 23.0), (1, "failed", 15.0, 13.0), (0, "failed", 5.0, 5.0)):
        scheduler = Scheduler(orders.Fcfs(), Strict(), retries=retries)
        twin = twin_of(trace, machine.uniform(1, 1), scheduler, outages=outages)
        twin.run()
        assert states(twin) == {"0": state}
        assert (twin.columns["end_s"][0], twin.columns["ran_s"][0]) == (end_s, ran_s)


def test_overlapping_outages_keep_a_machine_closed_until_the_last_ends() -> None:
    """Closed twice, opened twice."""
    outages = (Outage(0.0, 10.0, (0,)), Outage(5.0, 20.0, (0,), drain=True))
    twin = twin_of(simple([(1, 1, 1)]), machine.uniform(1, 1), Scheduler(orders.Fcfs(), Strict()), outages=outages)
    twin.run()
    assert twin.columns["start_s"].tolist() == [25.0]


def test_an_outage_of_no_length_is_over_at_once() -> None:
    """It ends what runs there, and the machine takes jobs again at the same moment."""
    outages = (Outage(5.0, 0.0, (0,)),)
    twin = twin_of(simple([(0, 10, 1)]), machine.uniform(1, 1), Scheduler(orders.Fcfs(), Strict()), outages=outages)
    twin.run()
    assert states(twin) == {"0": "done"}
    assert twin.columns["end_s"].tolist() == [15.0]


@pytest.mark.parametrize("number", [1, -1])
def test_an_outage_of_a_machine_that_is_not_there_is_refused(number: int) -> None:
    """One machine, number 0."""
    with pytest.raises(SimulationError, match="machine"):
        twin_of(
            simple([(0, 1, 1)]),
            machine.uniform(1, 1),
            Scheduler(orders.Fcfs(), Strict()),
            outages=(Outage(0.0, 1.0, (number,)),),
        )


def test_an_outage_does_not_end_before_it_begins() -> None:
    """Refused when the twin is made, not when the clock is there."""
    with pytest.raises(SimulationError, match="duration"):
        twin_of(
            simple([(0, 1, 1)]),
            machine.uniform(1, 1),
            Scheduler(orders.Fcfs(), Strict()),
            outages=(Outage(5.0, -2.0, (0,)),),
        )
