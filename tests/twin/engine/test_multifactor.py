"""Multifactor priority: fair shares as in Slurm's documentation, usage that fades, and what follows for the queue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from twin.engine.jobs import machines, snapshot, workload
from twin.engine.jobs.scheduler import Outage, Scheduler
from twin.engine.jobs.simulator import JobTwin
from twin.engine.scheduling import fair_share
from twin.engine.scheduling.backfill import Easy, Strict
from twin.engine.scheduling.fair_share import charge, classic, faded, fair_tree, tree
from twin.engine.scheduling.multifactor import Multifactor
from twin.engine.scheduling.orders import Fcfs
from twin.errors import UsageError
from twin.trace.trace import Trace, TraceInfo

DAY_S = 86_400.0
FAIR_ONLY = Multifactor(age=0.0, size=0.0, queue=0.0)


def trace(rows: list[dict]) -> Trace:
    jobs = pl.DataFrame([{"job": str(i), "cpu_cores": 1.0, **row} for i, row in enumerate(rows)])
    return Trace(TraceInfo("made", "made", "none", "0" * 64), {"jobs": jobs})


def twin_of(rows: list[dict], order: Multifactor, cores: float = 1.0, outages: tuple[Outage, ...] = ()) -> JobTwin:
    park = machines.uniform(1, cores)
    return JobTwin(
        workload.estimated(workload.of(trace(rows), park)), park, Scheduler(order, Strict()), outages=outages
    )


def crowd(seed: int, count: int = 200) -> list[dict]:
    rng = np.random.default_rng(seed)
    arrivals = np.sort(rng.uniform(0, 20_000, count))
    return [
        {
            "submit_s": float(arrivals[i]),
            "run_s": float(rng.exponential(900)),
            "limit_s": 3600.0,
            "cpu_cores": float(rng.integers(1, 5)),
            "user": f"u{rng.integers(5)}",
            "queue": str(rng.choice(["long", "short"])),
            "priority": float(rng.integers(3)),
        }
        for i in range(count)
    ]


def usage_by_hand(twin: JobTwin, half_life_s: float) -> np.ndarray:
    """What is left now of everything that lay anywhere, from the history."""
    left = np.zeros(len(twin.workload.users))
    rows = [(job, start_s, end_s) for job, _, _, start_s, end_s in twin.history]
    rows += [(job, float(twin.columns["start_s"][job]), twin.now_s) for job in twin.held]
    for job, start_s, end_s in rows:
        amount, _ = quad(lambda t: 2 ** (-(twin.now_s - t) / half_life_s), start_s, end_s)
        left[twin.workload.user[job]] += amount * twin.workload.cores(np.array([job]))[0]
    return left


# -------------------------------------------------- fair shares


def test_the_documented_example_comes_out() -> None:
    """Two accounts of 40 and 60 shares with children of 30, 10, 25 and 35, seen as a tree of two levels.

    Accounts A and D, users B, C, E and F used 0.2, 0.25, 0.25 and 0 of the machine: the effective usage of the second
    tier of Slurm's example is 0.3875, 0.3, 0.25 and 0.1458.
    """
    shares = tree(
        ("B", "C", "E", "F"),
        {"B": "A", "C": "A", "E": "D", "F": "D"},
        {"A": 40, "D": 60, "B": 30, "C": 10, "E": 25, "F": 35},
    )
    assert (shares.of_account * shares.of_cluster[shares.account]).tolist() == pytest.approx([0.3, 0.1, 0.25, 0.35])
    # usage elsewhere in the machine makes up the rest of it there: here all usage is 0.7
    effective = np.array([0.3875, 0.3, 0.25, 0.25 * 35 / 60]) / 0.7
    found = classic(np.array([0.2, 0.25, 0.25, 0.0]), shares)
    assert found == pytest.approx(2 ** (-effective / [0.3, 0.1, 0.25, 0.35]))


def test_users_of_one_account_come_out_as_documented() -> None:
    """Account C of the example: 0.25 of the machine used by user 2, none by user 3; factors 0.35 and 0.59 by hand.

    U_C = 0.25 and S = 0.05 each, were C at the first tier with an unused sibling: U_E = 0.25, 0.125 of all usage.
    """
    shares = tree(("2", "3", "rest"), {"2": "C", "3": "C"}, {"C": 10, "rest": 90})
    assert classic(np.array([0.25, 0.0, 0.75]), shares)[:2].tolist() == pytest.approx(
        [2 ** (-0.25 / 0.05), 2 ** (-0.125 / 0.05)]
    )
    assert classic(np.array([0.25, 0.0, 0.75]), shares, damping=5.0)[0] == pytest.approx(2 ** (-0.25 / 0.05 / 5))


def test_just_ones_share_is_a_half_and_no_usage_at_all_is_one() -> None:
    shares = tree(("a", "b"), {}, {"a": 3})
    assert classic(np.array([75.0, 25.0]), shares).tolist() == [0.5, 0.5]
    assert classic(np.zeros(2), shares).tolist() == [1.0, 1.0]


def test_fair_tree_ranks_accounts_before_their_users() -> None:
    """Account x had less than its share: both of its users go before those of y; ties share the better rank."""
    shares = tree(("x1", "x2", "y1", "y2", "y3"), {u: u[0] for u in ("x1", "x2", "y1", "y2", "y3")}, {})
    found = fair_tree(np.array([39.0, 1.0, 0.0, 30.0, 30.0]), shares)
    assert found.tolist() == [0.8, 1.0, 0.6, 0.4, 0.4]


def test_a_user_and_an_account_of_one_name_are_two() -> None:
    """Unless shares are told for the name; shares must be above 0."""
    shares = tree(("a", "b"), {"b": "a"}, {})
    assert shares.of_cluster.tolist() == [0.5, 0.5]
    with pytest.raises(UsageError, match="'a', which is a user and an account"):
        tree(("a", "b"), {"b": "a"}, {"a": 2.0})
    with pytest.raises(UsageError, match="'b' are 0"):
        tree(("a", "b"), {}, {"b": 0.0})


@given(
    st.lists(st.floats(0, 1e6), min_size=3, max_size=3),
    st.lists(st.floats(0.1, 100), min_size=3, max_size=3),
    st.sampled_from(["classic", "equal", "tree"]),
)
def test_more_usage_per_share_never_gives_the_better_factor(used: list[float], owns: list[float], which: str) -> None:
    """Users beside each other; under one account by ranks, and by the classic factor where their shares are equal."""
    names: tuple[str, ...] = ("a", "b", "c")
    told: dict[str, float] = {} if which == "equal" else dict(zip(names, owns, strict=True))
    usage, shares = np.array(used), tree(names, {} if which == "classic" else dict.fromkeys(names, "all"), told)
    factor = fair_tree(usage, shares) if which == "tree" else classic(usage, shares)
    by_share = usage / (shares.of_account * shares.of_cluster[shares.account])
    assert (factor >= 0).all()
    assert (factor <= 1).all()
    for one in range(3):
        for other in range(3):
            if by_share[one] > by_share[other] * (1 + 1e-9):
                assert factor[one] <= factor[other]


def test_the_classic_factor_can_turn_siblings_of_unequal_shares_round() -> None:
    """A known weakness, kept: what an account used weighs on each of its users alike, whatever their shares."""
    shares = tree(("a", "b"), dict.fromkeys("ab", "all"), {"a": 12, "b": 11})
    usage = np.array([12.1, 11.0])
    assert usage[0] / 12 > usage[1] / 11
    factor = classic(usage, shares)
    assert factor[0] > factor[1]
    ranks = fair_tree(usage, shares)
    assert ranks[0] < ranks[1]


# -------------------------------------------------- usage


@given(st.floats(0, 1e5), st.floats(0, 1e5), st.floats(0, 1e5), st.floats(10, 1e6), st.floats(0, 1))
def test_usage_is_the_integral_it_says_adds_up_and_halves(
    begin_s: float, held_s: float, since_s: float, half_life_s: float, cut: float
) -> None:
    """Two parts of a stretch charge what the whole does; a half-life later half of it is left."""
    middle_s, until_s = begin_s + cut * held_s, begin_s + held_s
    now_s = until_s + since_s

    def left(a_s: float, b_s: float, at_s: float = now_s) -> float:
        return charge(np.array([3.0]), np.array([a_s]), np.array([b_s]), at_s, half_life_s)[0]

    whole = left(begin_s, until_s)
    assert left(begin_s, middle_s) + left(middle_s, until_s) == pytest.approx(whole, rel=1e-7, abs=1e-9)
    assert left(begin_s, until_s, now_s + half_life_s) == pytest.approx(whole / 2, rel=1e-7, abs=1e-9)
    assert faded(np.array([whole]), half_life_s, half_life_s)[0] == whole / 2
    assert whole <= 3.0 * (until_s - begin_s) * (1 + 1e-9)  # what is left of held_s beside begin_s


def test_without_fading_usage_is_core_seconds() -> None:
    assert charge(np.array([4.0]), np.array([10.0]), np.array([25.0]), 1e9, np.inf).tolist() == [60.0]


@pytest.mark.parametrize("until_s", [5000.0, 12_345.0, 40_000.0])
def test_the_accounts_hold_what_the_history_says(until_s: float) -> None:
    """Also of those who lost their machine on the way; as of the last computation."""
    order = Multifactor(half_life_s=3000.0, every_s=100.0)
    twin = twin_of(crowd(1), order, 16.0, outages=(Outage(3000.0, 500.0, (0,)), Outage(9000.0, 10.0, (0,))))
    twin.run(until_s)
    probe = twin.fork()
    probe.now_s = until_s + 100.0  # the next computation
    order.look(probe)
    assert probe.notes["multifactor:usage"] == pytest.approx(usage_by_hand(probe, 3000.0), rel=1e-6)


def test_a_fork_to_it_knows_what_was_used_before() -> None:
    """Jobs that ran under another order are charged as if this one had always been there."""
    park = machines.uniform(1, 16.0)
    load = workload.estimated(workload.of(trace(crowd(2)), park))
    twin = JobTwin(load, park, Scheduler(Fcfs(), Strict()))
    twin.run(9000.0)
    order = Multifactor(half_life_s=3000.0)
    fork = twin.fork(Scheduler(order, Strict()))
    order.look(fork)
    assert fork.notes["multifactor:usage"] == pytest.approx(usage_by_hand(fork, 3000.0), rel=1e-6)


# -------------------------------------------------- the order of the queue


def test_whoever_used_less_goes_first() -> None:
    """One core: a's first job runs for an hour; of the two that then wait, b's goes first though it came later."""
    rows = [
        {"submit_s": 0.0, "run_s": 3600.0, "user": "a"},
        {"submit_s": 10.0, "run_s": 60.0, "user": "a"},
        {"submit_s": 20.0, "run_s": 60.0, "user": "b"},
    ]
    twin = twin_of(rows, FAIR_ONLY)
    twin.run()
    assert twin.columns["start_s"].tolist() == [0.0, 3660.0, 3600.0]


def test_priorities_are_constant_between_computations() -> None:
    """Computed each hour: at 3500 s those of the start still hold, at which nobody had used anything."""
    rows = [
        {"submit_s": 0.0, "run_s": 3500.0, "user": "a"},
        {"submit_s": 10.0, "run_s": 60.0, "user": "a"},
        {"submit_s": 20.0, "run_s": 60.0, "user": "b"},
    ]
    for every_s, expected in ((3600.0, [0.0, 3500.0, 3560.0]), (300.0, [0.0, 3560.0, 3500.0])):
        twin = twin_of(rows, Multifactor(age=0.0, size=0.0, queue=0.0, every_s=every_s))
        twin.run()
        assert twin.columns["start_s"].tolist() == expected


def test_a_new_order_is_seen_at_its_computation_though_nothing_happens() -> None:
    """A wide job blocks a narrow one; once its age no longer makes up for its usage, the narrow one starts.

    Of 4 cores 3 are held for a day by a; a's job of 4 cores is first by age, until a's usage shows at 300 s.
    """
    rows = [
        {"submit_s": 0.0, "run_s": DAY_S, "user": "a", "cpu_cores": 3.0},
        {"submit_s": 10.0, "run_s": 60.0, "user": "a", "cpu_cores": 4.0},
        {"submit_s": 20.0, "run_s": 60.0, "user": "b", "cpu_cores": 1.0},
    ]
    twin = twin_of(rows, FAIR_ONLY, cores=4.0)
    twin.run()
    assert twin.columns["start_s"].tolist() == [0.0, DAY_S, 300.0]


def test_starving_ends_through_age() -> None:
    """A user with all the usage waits behind others who keep coming, until its age weighs more than its share."""
    others = [{"submit_s": 100.0 * i, "run_s": 100.0, "user": f"u{i}"} for i in range(1, 200)]
    rows = [
        {"submit_s": 0.0, "run_s": 100.0, "user": "a"},
        {"submit_s": 1.0, "run_s": 100.0, "user": "a"},
        *others,
    ]
    starts = {}
    for age in (0.0, 4.0, 1000.0):
        order = Multifactor(age=age, fair_share=1.0, size=0.0, queue=0.0, max_age_s=6000.0, every_s=50.0)
        twin = twin_of(rows, order)
        twin.run()
        starts[age] = float(twin.columns["start_s"][1])
    assert starts[1000.0] <= starts[4.0] < starts[0.0]
    assert starts[4.0] <= 2000.0  # 4 x 1500 / 6000 = 1, the most that a share can weigh
    assert starts[0.0] > 10_000.0


@pytest.mark.parametrize(
    ("order", "first"),
    [
        (Multifactor(favour="large", queue=0.0), 0),
        (Multifactor(favour="small", queue=0.0), 1),
        (Multifactor(favour="short", queue=0.0), 2),
        (Multifactor(size=0.0, queues={"q3": 5.0}), 3),
        (Multifactor(size=0.0, priority=100.0), 4),
    ],
)
def test_each_factor_counts(order: Multifactor, first: int) -> None:
    """Equal jobs but for the largest, the smallest, the shortest for its size, one queue and one recorded priority."""
    rows = [
        {"submit_s": 0.0, "run_s": 1.0, "limit_s": 36_000.0, "cpu_cores": 2.0, "queue": f"q{i}", "priority": 0.0}
        for i in range(5)
    ]
    rows[0]["cpu_cores"], rows[1]["cpu_cores"], rows[2]["limit_s"], rows[4]["priority"] = 4.0, 1.0, 60.0, 3.0
    twin = twin_of(rows, order, cores=4.0)
    order_now = order.look(twin)
    assert int(np.argmin(order_now.keys(twin.workload, np.arange(5), 0.0))) == first


def test_the_sum_is_that_of_the_documentation() -> None:
    """Half the age, a fair share of 1, half the cores and half the highest queue, each times its weight."""
    order = Multifactor(max_age_s=7200.0, priority=100.0, queues={"x": 2.0, "y": 4.0})
    twin = twin_of([{"submit_s": 0.0, "run_s": 1.0, "cpu_cores": 4.0, "queue": "x", "priority": 3.0}], order, cores=8.0)
    twin.now_s = 3600.0
    key = order.look(twin).keys(twin.workload, np.arange(1), 3600.0)
    assert key.tolist() == [-(1000.0 * 0.5 + 10_000.0 * 1.0 + 1000.0 * 0.5 + 1000.0 * 0.5 + 100.0 * 1.0)]


def test_an_idle_cluster_is_not_looked_at_for_ever() -> None:
    """All machines are drained for good: the twin ends, with its jobs waiting."""
    order = Multifactor(max_age_s=3600.0)
    twin = twin_of([{"submit_s": 5.0, "run_s": 1.0}], order, outages=(Outage(0.0, np.inf, (0,), drain=True),))
    twin.run()
    assert twin.now_s <= 2 * 3600.0
    assert len(twin.queue) == 1


def test_a_fork_and_a_saved_twin_go_on_as_the_twin_does(tmp_path: Path) -> None:
    park = machines.uniform(1, 16.0)
    load = workload.estimated(workload.of(trace(crowd(3)), park))
    scheduler = Scheduler(Multifactor(half_life_s=5000.0, queues={"short": 3.0}), Easy())
    twin = JobTwin(load, park, scheduler)
    twin.run(7777.0)
    fork = twin.fork()
    snapshot.save(twin, tmp_path / "twin.npz")
    loaded = snapshot.load(tmp_path / "twin.npz", load, park, scheduler)
    for each in (twin, fork, loaded):
        each.run()
    for other in (fork, loaded):
        assert np.array_equal(twin.columns["start_s"], other.columns["start_s"])
        assert np.array_equal(twin.columns["end_s"], other.columns["end_s"])


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(UsageError, match="every_s=0"):
        Multifactor(every_s=0.0)
    with pytest.raises(UsageError, match="large, small or short"):
        Multifactor(favour="wide")  # pyright: ignore[reportArgumentType]
    with pytest.raises(UsageError, match="max_age_s and every_s must be finite"):
        Multifactor(max_age_s=np.inf)
    assert np.isinf(Multifactor(half_life_s=np.inf).half_life_s)
    assert fair_share.tree((), {}, {}).account.shape == (0,)


@pytest.mark.parametrize("name", ["age", "fair_share", "size", "queue", "priority"])
@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf, "much"])
def test_weights_are_numbers_of_zero_or_more(name: str, weight: float) -> None:
    """As Slurm's are: a negative one would turn the queue round."""
    options: dict = {name: weight}
    with pytest.raises(UsageError, match=f"{name}=.* must be a weight of 0 or more"):
        Multifactor(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"damping": 0.0}, "damping=0"),
        ({"half_life_s": np.nan}, "half_life_s=nan must be above 0"),
        ({"max_age_s": "week"}, "max_age_s='week' must be above 0"),
        ({"queues": {"night": -1.0}}, r"queues\.night=-1\.0 must be a priority of 0 or more"),
    ],
)
def test_times_and_priorities_are_positive_numbers(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Multifactor(**options)


def test_a_fork_with_another_period_computes_by_its_own() -> None:
    """Computed each hour, then each minute: from the next look on the fork looks at whole minutes."""
    rows = [{"submit_s": at, "run_s": 3000.0, "limit_s": 3000.0, "user": "a"} for at in (0.0, 1.0, 20.0)]
    twin = twin_of(rows, Multifactor(every_s=3600.0))
    twin.run(10.0)
    fork = twin.fork(Scheduler(Multifactor(every_s=60.0), Strict()))
    fork.run(130.0)
    calculated_s, looks_s, _ = fork.notes["multifactor:clock"].tolist()
    assert (calculated_s, looks_s) == (120.0, 180.0)
