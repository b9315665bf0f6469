"""The Vertical Pod Autoscaler, on the numbers of its own tests and documents, and on what its users reported."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import hydra
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from agents.rules.pods.vpa import Vpa
from agents.rules.pods.vpa_recommender import (
    DAY_S,
    MIB,
    MOST,
    Allowed,
    Bounds,
    Percentiles,
    Recommender,
    Usage,
    confidence,
    confident,
    recommend,
)
from agents.rules.pods.vpa_updater import Priority, Updater, disruptable, due, priority
from twin.errors import UsageError
from twin.types import Action, Controller, Observation

CONF = Path(__file__).parents[4] / "conf" / "controller"
NAN = float("nan")
HOUR_S = 3600.0
FLOOR_BYTES = 262_144_000  # 250 MiB, which users see as 262144k


def usage(**changes) -> Usage:
    return Usage(Recommender(**changes))


def fed(cores: float, memory_mib: float, hours: float, **changes) -> Usage:
    """The same use once a minute, for some hours."""
    held = usage(**changes)
    for minute in range(int(hours * 60) + 1):
        held.add_cpu(cores, 1.0, 60.0 * minute)
        held.add_memory(memory_mib * MIB, 60.0 * minute)
    return held


def recommended(held: Usage) -> Mapping[str, Bounds]:
    found = recommend(held)
    assert found is not None
    return found


def peaks(held: Usage) -> list[int]:
    """The buckets of memory that hold a peak."""
    return [int(bucket) for bucket in np.flatnonzero(held.memory.weights > 1e-9)]


def bucket(held: Usage, mib: float) -> int:
    return held.memory.buckets.find(mib * MIB)


def observed(
    minute: float,
    request: tuple[float, float] = (1000, 1024),
    cores: float = NAN,
    mib: float = NAN,
    kills: float = 0.0,
    wanted: float = 4,
    ready: float | None = None,
) -> Observation:
    ready = wanted if ready is None else ready
    seen = {
        "cell.wanted_replicas": wanted,
        "cell.ready_replicas": ready,
        "cell.starting_replicas": wanted - ready,
        "cell.pending_replicas": 0.0,
        "cell.cpu_use_cores": cores,
        "cell.memory_use_gib": mib / 1024,
        "cell.oom_kills": kills,
        "cell.cpu_millicores": request[0],
        "cell.memory_mib": request[1],
    }
    return Observation(60.0 * minute, tuple(seen), np.array(list(seen.values()), dtype=np.float32))


def drive(
    vpa: Vpa, minutes: int, request: tuple[int, int], cores: float, mib: float, start: int = 0
) -> list[tuple[int, int, int]]:
    """(minute, cpu, memory) at the start and after each change, when every wish comes true at once."""
    seen = [(start, *request)]
    for minute in range(start, start + minutes):
        cpu, memory = vpa.decide(observed(minute, seen[-1][1:], cores, mib))
        if (cpu.value, memory.value) != seen[-1][1:]:
            seen.append((minute, cpu.value, memory.value))
    return seen


# ---------------------------------------------------------------- the recommender


def test_the_confidence_of_nine_samples_in_sixteen_minutes():
    """9 / 1440 days; against it a multiplier of 0.1 squared makes 907.46 of 3.14."""
    held = usage()
    for step in range(9):
        held.add_cpu(1.0, 1.0, 120.0 * step)
    assert confidence(held) == 0.00625
    assert confident(3140, confidence(held), 0.1, 2.0) == 907_460
    assert confident(3_140_000_000, confidence(held), 0.1, 2.0) == pytest.approx(907_460_000_000, abs=1)


def test_confidence_in_an_interval_of_its_own():
    held = usage(confidence_s=18 * 60.0)
    for step in range(9):
        held.add_cpu(1.0, 1.0, 120.0 * step)
    assert confidence(held) == 0.5
    assert confident(3140, 0.5, 0.1, 2.0) == 4521


def test_without_history_bounds_are_the_most_and_nothing():
    assert confidence(usage()) == 0.0
    assert confident(3140, 0.0, 1.0, 1.0) == MOST
    assert confident(3140, 0.0, 1.0, -1.0) == 0
    assert confident(0, 0.0, 1.0, 1.0) == 0


@pytest.mark.parametrize(
    ("minutes", "multiplier", "exponent", "factor"),
    [
        (12 * 60, 1.0, 1.0, 3.0),
        (24 * 60, 1.0, 1.0, 2.0),
        (7 * 24 * 60, 1.0, 1.0, 1.14),
        (5, 0.001, -2.0, 0.6),
        (30, 0.001, -2.0, 0.9),
        (60, 0.001, -2.0, 0.95),
    ],
)
def test_the_documented_factors_of_confidence(minutes, multiplier, exponent, factor):
    assert confident(10_000, minutes / 1440, multiplier, exponent) == pytest.approx(10_000 * factor, rel=0.02)


def test_a_steady_use_has_the_documented_range():
    """All percentiles are the same then: after 5 minutes 0.6 of the target and up, after 12 hours 3 times it."""
    for found in recommended(fed(0.5, 800, 5 / 60)).values():
        assert found.lower == pytest.approx(found.target * 0.6, rel=0.02)
    for found in recommended(fed(0.5, 800, 12)).values():
        assert found.upper == pytest.approx(found.target * 3, rel=0.01)


def test_percentiles_of_three_samples_within_a_bucket():
    held = usage(cpu=Percentiles(target=0.2), memory=Percentiles(target=0.5), margin=0.0, weigh_by_request=False)
    for day, amount in enumerate((1.0, 2.0, 3.0)):
        held.add_cpu(amount, 1.0, day + 1.0)
        held.memory.add(amount * 1e9, 1.0, 0.0)
    found = recommended(held)
    assert found["cpu"].target == pytest.approx(1000, rel=0.05)
    assert found["memory"].target == pytest.approx(2e9, rel=0.05)


def test_a_raised_request_makes_its_samples_weigh_more():
    """Ten samples at 0.1 core with a request of 0.1, then two at 4 cores with a request of 4."""

    def median(weigh: bool) -> int:
        held = usage(cpu=Percentiles(target=0.5), weigh_by_request=weigh)
        for minute in range(12):
            cores = 0.1 if minute < 10 else 4.0
            held.add_cpu(cores, cores, 60.0 * minute)
        return recommended(held)["cpu"].target

    assert median(weigh=True) > 4000
    assert median(weigh=False) < 130


def test_unknown_negative_and_late_samples_are_left_out():
    held = usage()
    assert held.add_cpu(3.14, 1.0, 60.0)
    assert not any(held.add_cpu(cores, 1.0, at_s) for cores, at_s in ((1.0, 60.0), (-1.0, 120.0), (NAN, 120.0)))
    assert held.add_memory(5e7, 60.0)
    assert not any(held.add_memory(use, at_s) for use, at_s in ((5e7, 0.0), (-1.0, 120.0), (NAN, 120.0)))
    assert held.samples == 1


def test_memory_is_one_peak_a_day():
    """50 and 100 in one interval are one peak of 100; 20 in the next is a second one."""
    held = usage()
    held.add_memory(50 * MIB, 0.0)
    held.add_memory(100 * MIB, DAY_S / 2)
    assert peaks(held) == [bucket(held, 100)]
    held.add_memory(20 * MIB, DAY_S)
    assert peaks(held) == [bucket(held, 20), bucket(held, 100)]


@pytest.mark.parametrize(
    ("peak", "request_mib", "expected"),
    [(None, 1000, 1200), (None, 1, 101), (3000, 1000, 3600)],
    ids=["a fifth more", "at least 100 MiB more", "more than what was seen"],
)
def test_a_kill_counts_as_a_higher_peak(peak, request_mib, expected):
    held = usage()
    if peak:
        held.add_memory(peak * MIB, 0.0)
    assert held.record_oom(request_mib * MIB, 0.0)
    assert peaks(held) == [bucket(held, expected)]


def test_kills_in_a_row_do_not_run_away():
    """With the same request they are one peak; a higher request raises it."""
    held = usage()
    for request_mib in (1000, 999, 999):
        held.record_oom(request_mib * MIB, 0.0)
    assert peaks(held) == [bucket(held, 1200)]
    held.record_oom(2000 * MIB, 0.0)
    assert peaks(held) == [bucket(held, 2400)]


def test_an_old_kill_is_left_out_and_a_new_window_starts_from_the_last_peak():
    held = usage()
    held.add_memory(2000 * MIB, 40 * HOUR_S)
    assert not held.record_oom(2000 * MIB, 10 * HOUR_S)
    assert held.record_oom(1000 * MIB, 40 * HOUR_S + 2 * DAY_S)
    assert peaks(held) == [bucket(held, 2000), bucket(held, 2400)]


def test_nothing_is_recommended_before_the_first_cpu_sample():
    """Kills alone give no recommendation (reported in gardener/autoscaler #47)."""
    held = usage()
    held.record_oom(1000 * MIB, 0.0)
    assert recommend(held) is None


def test_eight_days_of_silence_forget_everything():
    held = fed(0.5, 300, 1)
    assert not held.expired(8 * DAY_S)
    assert held.expired(8 * DAY_S + HOUR_S)
    assert not usage().expired(1e9)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 50), st.floats(0, 1e5), st.booleans()), min_size=1, max_size=40),
    st.integers(1, 5000),
)
def test_bounds_are_in_order_and_above_the_floor(uses, minutes):
    held = usage()
    for step, (cores, mib, killed) in enumerate(uses):
        held.add_cpu(cores, 1.0, 60.0 * minutes * step)
        held.add_memory(mib * MIB, 60.0 * minutes * step)
        if killed:
            held.record_oom(mib * MIB, 60.0 * minutes * step)
    for floor, found in zip((25, FLOOR_BYTES), recommended(held).values(), strict=True):
        assert floor <= found.lower <= found.target <= found.upper <= MOST


def test_a_policy_moves_all_three_bounds():
    assert Bounds(10, 50, MOST).within(Allowed(20, 40)) == Bounds(20, 40, 40)


def test_cpu_is_rounded_up_to_whole_steps():
    found = recommended(fed(0.3, 300, 1, round_cpu_millicores=100))["cpu"]
    assert (found.lower % 100, found.target, found.upper % 100) == (0, 400, 0)


# ---------------------------------------------------------------- the updater


@pytest.mark.parametrize(
    ("request_m", "bounds", "expected"),
    [
        (2000, Bounds(0, 10_000, MOST), Priority(False, True, 4.0)),
        (4000, Bounds(0, 2000, MOST), Priority(False, False, 0.5)),
        (2000, Bounds(0, 2000, MOST), Priority(False, False, 0.0)),
        (10, Bounds(0, 900, MOST), Priority(False, True, 89.0)),
        (4000, Bounds(6000, 10_000, 14_000), Priority(True, True, 1.5)),
        (8000, Bounds(1000, 2000, 3000), Priority(True, False, 0.75)),
    ],
)
def test_the_priority_of_one_resource(request_m, bounds, expected):
    assert priority({"cpu": request_m}, {"cpu": bounds}) == expected


def test_differences_add_up_over_resources():
    found = priority({"cpu": 10, "memory": 40}, {"cpu": Bounds(0, 15, 99), "memory": Bounds(0, 50, 99)})
    assert found == Priority(False, True, 0.75)


@pytest.mark.parametrize(
    ("hours", "found", "quick_oom", "acts"),
    [
        (13, Priority(False, True, 0.25), False, False),
        (13, Priority(False, True, 4.0), False, True),
        (13, Priority(True, False, 0.25), False, True),
        (11, Priority(False, True, 4.0), False, False),
        (11, Priority(True, False, 0.9), False, True),
        (11, Priority(False, True, 0.25), True, True),
        (11, Priority(False, True, 0.0), True, False),
        (13, Priority(True, True, 0.0), True, False),
    ],
)
def test_who_is_due(hours, found, quick_oom, acts):
    """With a least change of 0.5: outside of the range, or 12 h old and far off, or killed soon after the start."""
    assert due(found, hours * HOUR_S, quick_oom, Updater(min_change=0.5))[0] is acts


@pytest.mark.parametrize(
    ("configured", "live", "running", "allowed"),
    [(4, 4, 4, True), (4, 4, 3, True), (4, 4, 2, False), (1, 1, 1, False), (2, 2, 2, True), (2, 2, 1, False)],
)
def test_at_most_half_of_the_replicas_may_be_missing(configured, live, running, allowed):
    assert disruptable(configured, live, running, Updater())[0] is allowed


def test_where_no_share_is_whole_one_goes_when_all_run():
    patient = Updater(tolerance=0.1)
    assert disruptable(5, 5, 5, patient)[0]
    assert not disruptable(5, 5, 4, patient)[0]


# ---------------------------------------------------------------- the controller


def test_a_generous_request_is_taken_back_once_the_upper_bound_has_come_down():
    """Using 0.5 of 2 cores, bound x (1 + 1 / days) passes 2 cores after some ten hours; then nothing changes."""
    changes = drive(Vpa(["cell"]), 30 * 60, (2000, 1024), 0.5, 800)
    assert len(changes) == 2
    minute, cpu, _ = changes[1]
    assert 575 <= cpu <= 575 * 1.05
    assert cpu * (1 + 1440 / minute) < 2000 <= cpu * (1 + 1440 / (minute - 1))


def test_within_the_range_it_waits_for_12_hours():
    """30 % off is not outside of the range: it comes true at hour 12, and not before."""
    (_, first) = drive(Vpa(["cell"]), 13 * 60, (800, 1024), 0.5, 850)
    assert first[0] == 12 * 60


def test_a_request_that_someone_else_changes_is_young_again():
    vpa = Vpa(["cell"])
    assert len(drive(vpa, 11 * 60, (800, 1024), 0.5, 850)) == 1
    assert drive(vpa, 13 * 60, (810, 1024), 0.5, 850, start=11 * 60)[1][0] == 23 * 60


def test_after_eight_days_of_silence_it_begins_anew():
    vpa = Vpa(["cell"])
    drive(vpa, 60, (600, 1024), 0.5, 850)
    vpa.decide(observed(9 * 1440, (600, 1024)))
    (cpu, _) = vpa.decide(observed(9 * 1440 + 1, (600, 1024), 0.5, 850))
    assert "to any accepted" in cpu.reason


def test_starvation_is_mended_at_once():
    """Using 1 core with a request of 0.2: below the lower bound as soon as there is any history."""
    changes = drive(Vpa(["cell"]), 60, (200, 1024), 1.0, 850)
    assert changes[1][0] <= 2
    assert changes[1][1] > 1000


def test_a_quick_kill_is_answered_with_more_memory():
    vpa = Vpa(["cell"])
    vpa.decide(observed(0, (1000, 512), 0.9, 400))
    cpu, memory = vpa.decide(observed(1, (1000, 512), 0.9, 500, kills=1))
    assert memory.value >= 1.15 * (512 + 100)
    assert "killed for want of memory within 600 s" in memory.reason
    assert cpu.value != 1000  # both resources are set when a replica starts anew


def test_a_quick_kill_is_remembered_until_enough_replicas_run():
    vpa = Vpa(["cell"])
    vpa.decide(observed(0, (1000, 512), 0.9, 400))
    _, held = vpa.decide(observed(1, (1000, 512), 0.9, 500, kills=3, ready=1))
    assert held.value == 512
    assert "only 1 of 4 replicas run" in held.reason
    _, done = vpa.decide(observed(2, (1000, 512), 0.9, 500))
    assert done.value > 512


def test_a_kill_after_a_long_life_acts_through_the_range():
    """The day's peak is half of all weight or more, so that even the lower bound passes what was asked for."""
    vpa = Vpa(["cell"])
    for minute in range(60):
        vpa.decide(observed(minute, (1000, 700), 0.8, 500))
    _, memory = vpa.decide(observed(60, (1000, 700), 0.8, 500, kills=1))
    assert 1.2 * 1.15 * 700 <= memory.value <= 1.2 * 1.15 * 700 * 1.06
    assert "outside of the recommended range" in memory.reason


@pytest.mark.parametrize("mode", ["Off", "Initial"])
def test_the_other_modes_change_nothing_and_say_what_they_would(mode):
    vpa = Vpa(["cell"], mode=mode)
    turns = [vpa.decide(observed(minute, (100, 512), 1.0, 300)) for minute in range(120)]
    assert {tuple(action.value for action in actions) for actions in turns} == {(100, 512)}
    assert f"mode {mode}" in turns[-1][0].reason
    assert "recommended" in turns[-1][0].reason


def test_only_controlled_resources_are_touched():
    actions = Vpa(["cell"], resources=["memory"]).decide(observed(0, (1000, 9000), 0.1, 300))
    assert [action.kind for action in actions] == ["memory_mib"]


def test_what_is_unknown_is_said():
    vpa = Vpa(["cell"])
    assert vpa.decide(observed(0, (NAN, 512), 1.0, 300)) == []
    (cpu, _) = vpa.decide(observed(0, (1000, 512)))
    assert cpu == Action("cpu_millicores", "cell", 1000, "held at 1000: no sample yet")
    vpa.decide(observed(1, (100, 512), 1.0, 300))
    (cpu, _) = vpa.decide(observed(2, (100, 512), 1.0, 300, wanted=NAN))
    assert "how many replicas run is unknown" in cpu.reason


def test_reset_forgets():
    vpa = Vpa(["cell"])
    first = drive(vpa, 200, (200, 1024), 1.0, 850)
    vpa.reset()
    assert drive(vpa, 200, (200, 1024), 1.0, 850) == first


# ---------------------------------------------------------------- what users reported


def test_100_t_memory_and_100_g_cpu():
    """kubernetes/autoscaler #5569: with hardly any history the upper bound is the largest amount there is.

    It is a bound and not a target: nothing is ever asked for on the ground of it, and the sentence does not name it.
    """
    found = recommended(fed(0.3, 800, 0))
    assert (found["cpu"].upper, found["memory"].upper) == (100_000_000_000 * 1000, 100 * 10**12)
    assert found["memory"].target < 1200 * MIB
    (cpu, memory) = Vpa(["cell"]).decide(observed(0, (1000, 1024), 0.3, 800))
    assert (cpu.value, memory.value) == (1000, 1024)
    assert "to any accepted" in memory.reason


def test_never_less_than_250_mib():
    """kubernetes/autoscaler #2125 and #5242: a pod that uses 35 Mi is told 262144k for ever."""
    found = recommended(fed(0.01, 35, 72))
    assert found["memory"] == Bounds(FLOOR_BYTES, FLOOR_BYTES, FLOOR_BYTES)
    assert found["cpu"].lower == found["cpu"].target == 25


def test_the_floor_is_shared_among_containers():
    """kubernetes/autoscaler #2004: each of three containers jumps to 87381333 bytes."""
    assert recommended(fed(0.01, 35, 24, containers=3))["memory"].target == 87_381_333


def test_a_single_replica_is_never_sized():
    """kubernetes/autoscaler #1665: recommended, but not applied, with one replica."""
    vpa = Vpa(["cell"])
    turns = [vpa.decide(observed(minute, (100, 512), 1.0, 300, wanted=1)) for minute in range(1000)]
    assert {actions[0].value for actions in turns} == {100}
    assert "fewer than 2 are never evicted" in turns[-1][0].reason
    alone = Vpa(["cell"], updater=Updater(min_replicas=1))
    alone.decide(observed(0, (100, 512), 1.0, 300, wanted=1))
    assert alone.decide(observed(1, (100, 512), 1.0, 300, wanted=1))[0].value > 1000


def test_missing_metrics_recommend_the_floor():
    """kubernetes/autoscaler #6612: without measurements lower bound, target and upper bound are all the floor.

    A service would be shrunk to it; so the controller takes no sample while anything that it controls is unknown.
    """
    held = usage()
    held.add_cpu(0.9, 1.0, 0.0)
    held.add_cpu(0.9, 1.0, 60.0)
    assert recommended(held)["memory"] == Bounds(FLOOR_BYTES, FLOOR_BYTES, FLOOR_BYTES)
    vpa = Vpa(["cell"])
    for minute in range(3):
        (_, memory) = vpa.decide(observed(minute, (1000, 4096), 0.9))
        assert (memory.value, memory.reason) == (4096, "held at 4096: no sample yet")
    only_cpu = Vpa(["cell"], resources=["cpu"])
    assert "recommended" in only_cpu.decide(observed(0, (1000, 4096), 0.9))[0].reason


def test_kills_at_ever_higher_requests_run_away_unless_a_policy_says_stop():
    """kubernetes/autoscaler #1182: a leak that fills whatever it gets drove the target to 1.17 TB."""

    def leaking(**policy) -> list[int]:
        vpa, asked = Vpa(["cell"], **policy), [1024]
        for minute in range(30):
            (_, memory) = vpa.decide(observed(minute, (1000, asked[-1]), 0.9, asked[-1], kills=1))
            asked.append(memory.value)
        return asked

    assert leaking()[-1] > 1_000_000  # MiB
    assert max(leaking(memory_mib=Allowed(0, 8192))) == 8192


# ---------------------------------------------------------------- how it is made


def test_the_configuration_makes_a_controller_with_the_defaults():
    vpa = hydra.utils.instantiate(OmegaConf.load(CONF / "vpa.yaml"), _convert_="all")
    assert isinstance(vpa, Controller)
    assert isinstance(vpa, Vpa)
    assert (vpa.recommender, vpa.updater) == (Recommender(), Updater())
    assert [action.value for action in vpa.decide(observed(0, (1000, 1024), 0.3, 800))] == [1000, 1024]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Vpa([]),
        lambda: Vpa(["cell"], mode="Recreate"),  # pyright: ignore[reportArgumentType]
        lambda: Vpa(["cell"], resources=["disk"]),
        lambda: Recommender(containers=0),
        lambda: Recommender(oom_ratio=0.5),
        lambda: Updater(tolerance=2.0),
        lambda: Allowed(5, 4),
    ],
)
def test_nonsense_is_refused(make):
    with pytest.raises(UsageError):
        make()


def test_it_needs_no_simulator():
    """The bridge runs it where none of these is installed."""
    heavy = ("simpy", "numba", "jax", "torch", "gymnasium", "scipy")
    code = f"import sys, agents.rules.pods.vpa; sys.exit(any(name in sys.modules for name in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=CONF.parents[1], check=False).returncode == 0
