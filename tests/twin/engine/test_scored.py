"""Machines are chosen by scores: as the published formulas say, as the study of shared GPUs chooses, and by law."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from twin.engine.jobs import machines as machine
from twin.engine.jobs import snapshot, workload
from twin.engine.jobs.capacity import Held, place
from twin.engine.jobs.machines import GPU, WHOLE_GPU, Machines
from twin.engine.jobs.scheduler import Observer, Outage, Scheduler
from twin.engine.jobs.simulator import JobTwin
from twin.engine.jobs.workload import I8
from twin.engine.scheduling import orders, scores
from twin.engine.scheduling.backfill import Backfill, Easy, Greedy, Strict
from twin.engine.scheduling.explained import explain, reason
from twin.engine.scheduling.gpu import fill
from twin.engine.scheduling.gpu_pods import Pods, empty_nodes, typical_pods
from twin.engine.scheduling.gpu_scores import GpuScores, device_shares
from twin.engine.scheduling.scored import Scored, enough
from twin.engine.scheduling.tallies import DeviceShares
from twin.errors import SimulationError, UsageError
from twin.trace import tables
from twin.trace.trace import Trace, TraceInfo

CONF = Path(__file__).resolve().parents[3] / "conf" / "placement"
SCORED = [path for path in sorted(CONF.glob("*.yaml")) if ".Scored" in path.read_text(encoding="utf-8")]
few = settings(max_examples=12)


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    """All rules ran once: where nothing is kept from an earlier start, no test waits for the compiler."""
    for weights in MIXES:
        random_twin(0, weights).run(20.0)


def nodes_of(*rows: dict) -> Machines:
    full = [{"node": f"node-{i}", "pool": "p", "cpu_cores": 10.0, **row} for i, row in enumerate(rows)]
    return machine.from_nodes(tables.conform(pl.DataFrame(full, infer_schema_length=None), "nodes", "test"))


def twin_of(machines: Machines, jobs: list[dict], placement: Scored, **options) -> JobTwin:
    full = [{"job": str(i), "submit_s": float(i), "run_s": 1e6, "cpu_cores": 1.0, **row} for i, row in enumerate(jobs)]
    frame = tables.conform(pl.DataFrame(full, infer_schema_length=None), "jobs", "test")
    load = workload.of(Trace(TraceInfo("test", "made by a test", "none", "0" * 64), {"jobs": frame}), machines)
    outages, observers = options.pop("outages", ()), options.pop("observers", ())
    scheduler = Scheduler(orders.Fcfs(), options.pop("backfill", Greedy()), placement, **options)
    return JobTwin(workload.estimated(load), machines, scheduler, outages=outages, observers=observers)


def homes(twin: JobTwin) -> dict[int, tuple[int, ...]]:
    """The machines of each running job, one entry an instance."""
    return {j: tuple(sorted(m for m, n, _ in held for _ in range(n))) for j, held in twin.held.items()}


# -------------------------------------------------- the published formulas, worked by hand


def one_machine(free: list[float], capacity: list[float], request: list[float]) -> tuple[I8, I8, I8, I8]:
    """Number, what is free, all that there is and what is asked, as the rules take them."""
    free_, capacity_, request_ = ((np.array(amounts) * 1e6).astype(np.int64) for amounts in (free, capacity, request))
    return np.zeros(1, dtype=np.int64), free_[None], capacity_[None], request_


@pytest.mark.parametrize(
    ("weight", "least", "score"),
    [
        ((1.0, 1.0, 0.0), True, 32),  # (40 + 25) / 2
        ((3.0, 1.0, 0.0), True, 36),  # (3 * 40 + 25) / 4
        ((1.0, 1.0, 0.0), False, 67),  # (60 + 75) / 2
        ((1.0, 1.0, 2.0), False, 44),  # (60 + 75 + 2 * 22) / 4, 22 of 22.5
    ],
)
def test_allocated(weight: tuple[float, ...], least: bool, score: int) -> None:
    """6 of 10 cores and 10 of 20 GiB are free before 2 cores and 5 GiB are taken; 4 of 4 GPUs before 0.9."""
    out = np.empty(1)
    scores.allocated(*one_machine([6, 10, 4], [10, 20, 4], [2, 5, 0.9]), np.array(weight), least, out)
    assert out[0] == score


@pytest.mark.parametrize(
    ("free", "request_", "score"),
    [
        ([6, 10, 4], [2, 5, 0], 92),  # shares 0.6 and 0.75: deviation 0.075
        ([6, 10, 4], [1, 5, 1], 79),  # shares 0.5, 0.75 and 0.25: deviation sqrt(1 / 24)
        ([10, 20, 4], [5, 10, 0], 100),  # in step
        ([6, 10, 4], [0, 0, 0], 0),  # asks for nothing
    ],
)
def test_balanced(free: list[float], request_: list[float], score: int) -> None:
    """100 (1 - standard deviation of the shares taken); GPUs count for jobs that ask for some."""
    out = np.empty(1)
    scores.balanced(*one_machine(free, [10, 20, 4], request_), np.ones(3), out)
    assert out[0] == score


def test_alignment() -> None:
    """Shares asked (0.2, 0.25) times shares free (0.6, 0.5)."""
    out = np.empty(1)
    scores.alignment(*one_machine([6, 10, 0], [10, 20, 0], [2, 5, 0]), out)
    assert out[0] == pytest.approx(0.2 * 0.6 + 0.25 * 0.5)


def settled(rule: str, raw: list[float]) -> tuple[int, list[float]]:
    scale = np.array([scores.SCALES.get(rule, scores.AS_IT_IS)])
    scaled, total, found = np.empty((1, len(raw))), np.empty(len(raw)), len(raw)
    best = scores.settle(np.array([raw]), scale, np.array([scores.FULL]), found, scaled, total)
    assert total.tolist() == (scaled[0] * scores.FULL).tolist()
    return best, scaled[0].tolist()


def test_scales() -> None:
    """Fewest mates as PodTopologySpread: 100 (max + min - n) / max; the largest product and the least extension get
    100; equal ones go to the first."""
    assert settled("spread_zone", [3, 1, 0]) == (2, [0, 66, 100])
    assert settled("spread_zone", [3, 1, 1]) == (1, [33, 100, 100])
    assert settled("spread_node", [0, 0]) == (0, [100, 100])
    assert settled("alignment", [0.3, 0.4, 0.1]) == (1, [75, 100, 25])
    assert settled("alignment", [0.0, 0.0]) == (0, [0, 0])
    assert settled("lifetime", [40, 0, 50]) == (1, [20, 100, 0])
    assert settled("lifetime", [np.inf, 0, np.inf]) == (1, [0, 100, 0])
    assert settled("least_allocated", [7, 9, 9]) == (1, [7, 9, 9])


def test_extension() -> None:
    """A job until second 90, at second 40: machines busy until 50, 100 and not at all."""
    out = np.empty(3)
    scores.extension(np.arange(3), np.array([50.0, 100.0, 0.0]), 40.0, 90.0, out)
    assert out.tolist() == [40.0, 0.0, 50.0]


@pytest.mark.parametrize(
    ("machines", "percent", "wanted"),
    [
        (99, 0, 99), (100, 0, 100), (1_000, 0, 420), (5_000, 0, 500), (6_000, 0, 300), (10_000, 0, 500),
        (500, 30, 150), (5_000, 1, 100), (5_000, 100, 5_000),
    ],
)  # fmt: skip
def test_enough(machines: int, percent: int, wanted: int) -> None:
    """kube-scheduler's percentageOfNodesToScore: 50 - n / 125, at least 5 %, at least 100 machines."""
    assert enough(machines, percent) == wanted


def test_draws_are_even_and_their_own() -> None:
    """Uniform in [0, 1): mean 1/2, variance 1/12; another seed, job, attempt or instance gives other numbers."""
    seeds = {scores.mixed(*each) for each in np.ndindex(3, 3, 3, 3)}
    assert len(seeds) == 81
    numbers = np.array([scores.draw(seed, m) for seed in seeds for m in range(100)])
    assert (numbers >= 0).all()
    assert (numbers < 1).all()
    assert numbers.mean() == pytest.approx(0.5, abs=0.02)
    assert numbers.var() == pytest.approx(1 / 12, abs=0.005)


# -------------------------------------------------- choices


def test_a_gang_is_placed_one_by_one() -> None:
    """Each instance counts for the next: three go to three equal machines, as three pods would; packed, to one."""
    apart, packed = ({rule: 1} for rule in ("least_allocated", "most_allocated"))
    for weights, expected in ((apart, (0, 1, 2)), (packed, (0, 0, 0))):
        twin = twin_of(nodes_of({}, {}, {}), [{"instances": 3}], Scored(weights))
        twin.run(0.0)
        assert homes(twin) == {0: expected}


def test_a_gang_starts_whole_or_not_at_all() -> None:
    """Seven instances of three cores do not go onto two machines of ten, six do; nothing is kept of the attempt."""
    for instances, starts in ((6, True), (7, False)):
        jobs = [{"cpu_cores": 3.0, "instances": instances}]
        machines = nodes_of({}, {}, {"cpu_cores": 10.0, "zone": "x"})
        twin = twin_of(machines, [jobs[0] | {"requires": "zone!=x"}], Scored({"least_allocated": 1}))
        free = twin.capacity.free.copy()
        held = place(twin.capacity, 0, Scored({"least_allocated": 1}).look(twin))
        assert (held is not None) == starts
        if not starts:
            np.testing.assert_array_equal(twin.capacity.free, free)


def test_groups_are_kept_apart() -> None:
    """A user's second job goes to the other zone, the third to another machine of the first; others do not matter."""
    machines = nodes_of(*({"zone": zone} for zone in "xxyy"))
    spread = Scored({"spread_zone": 2, "spread_node": 1})
    twin = twin_of(machines, [{"user": user} for user in "aabab"], spread)
    twin.run(10.0)
    assert [homes(twin)[job][0] for job in range(5)] == [0, 2, 0, 1, 2]
    by_queue = Scored({"spread_node": 1}, group="queue")
    twin = twin_of(machines, [{"user": user, "queue": "q"} for user in "abcd"], by_queue)
    twin.run(10.0)
    assert [homes(twin)[job][0] for job in range(4)] == [0, 1, 2, 3]


def test_lifetimes_are_aligned() -> None:
    """Machine 1 is busy until second 1000. Who ends before, or 200 s after, goes there; who would hold it for longer
    than an idle one does not mind which. What lies there is released again."""
    jobs = [
        {"requires": "zone=y", "run_s": 1_000.0},
        {"run_s": 500.0},
        {"run_s": 1_200.0},
        {"submit_s": 5_000.0, "run_s": 10.0},
    ]
    twin = twin_of(nodes_of({"zone": "x"}, {"zone": "y"}), jobs, Scored({"lifetime": 1}))
    twin.run(10.0)
    assert homes(twin) == {0: (1,), 1: (1,), 2: (1,)}
    twin.run(5_000.0)
    assert homes(twin) == {3: (0,)}


def test_the_search_goes_on_where_it_stopped() -> None:
    """Half of 200 machines are enough: the first job sees 0 to 99, the second 100 to 199, the third 0 to 99 again."""
    twin = twin_of(nodes_of(*[{}] * 200), [{}] * 4, Scored({"least_allocated": 1}, sample_percent=50))
    twin.run(10.0)
    assert [homes(twin)[job] for job in range(4)] == [(0,), (100,), (1,), (101,)]


def test_typical_pods_are_those_that_arrived() -> None:
    """The first 1, 2, 4, ... jobs, as many as arrived; all of them with foresight. Each counts with its instances."""
    jobs = [{"gpus": 1.0}, {"gpus": 0.5, "instances": 3}, {"gpus": 2.0}, {}]
    machines = nodes_of({"gpus": 8.0})
    for foresight, known in ((False, [1, 2, 2, 4]), (True, [4] * 4)):
        placement = Scored({"fgd": 1}, foresight=foresight)
        twin = twin_of(machines, jobs, placement)
        for now_s in range(4):
            twin.run(float(now_s))
            assert placement.look(twin).known_jobs == known[now_s]
    typical = GpuScores(twin.workload, machines, ["fgd"]).typical(2)
    assert typical.pods.gpu_milli.tolist() == [500, 1000]
    assert typical.count.tolist() == [3, 1]


# -------------------------------------------------- the study of shared GPUs


@pytest.mark.parametrize("policy", scores.GPU_POLICIES)
@pytest.mark.parametrize("seed", range(4))
def test_choices_are_those_of_the_study(policy: str, seed: int) -> None:
    """Jobs that come one by one and stay get the machines, and the devices, that the study's kernels give pods."""
    rng = np.random.default_rng(seed)
    count, jobs = 12, 160
    model, gpus, cores = rng.integers(0, 2, count), rng.choice([0, 1, 2, 4, 8], count), rng.choice([32, 64, 96], count)
    asked = rng.choice([0.0, 0.25, 0.5, 0.75, 1.0, 2.0, 4.0], jobs, p=[0.2, 0.2, 0.15, 0.1, 0.2, 0.1, 0.05])
    cpu, memory, wish = rng.choice([0.5, 2.0, 4.0, 8.0], jobs), rng.integers(1, 16, jobs), rng.integers(0, 6, jobs)
    names = ["A10", "T4"]
    machines = nodes_of(
        *(
            {"cpu_cores": float(c), "memory_gib": 128.0, "gpus": float(g), "gpu_model": names[m]}
            for c, g, m in zip(cores, gpus, model, strict=True)
        )
    )
    rows = [
        {"cpu_cores": c, "memory_gib": float(m), "gpus": g, "gpu_model": names[w] if g and w < 2 else None}
        for c, m, g, w in zip(cpu, memory, asked, wish, strict=True)
    ]
    twin = twin_of(machines, rows, Scored({policy: 1}, foresight=True))
    twin.run(float(jobs))
    pods = Pods(
        (cpu * 1000).astype(np.int64),
        memory.astype(np.int64) * 1024,
        np.ceil(asked).astype(np.int64),
        np.where(asked >= 1, 1000, asked * 1000).astype(np.int64),
        np.where((asked > 0) & (wish < 2), 1 << np.minimum(wish, 1), 3).astype(np.int64),
    )
    nodes = empty_nodes(cores * 1000, np.full(count, 128 * 1024), gpus, model)
    known = np.array([not r for r in twin.workload.refused])
    study = fill(nodes, pods.take(np.flatnonzero(known)), policy, np.arange(count), typical_pods(pods))
    chosen = {
        job: (int(node), int(devices))
        for job, node, devices in zip(np.flatnonzero(known).tolist(), study.node, study.devices, strict=True)
        if node >= 0
    }
    mine = {job: (held[0][0], sum(1 << d for d in held[0][2])) for job, held in twin.held.items()}
    assert mine == chosen
    assert 20 < len(chosen) < jobs


# -------------------------------------------------- laws

MIXES: tuple[dict[str, float], ...] = (
    {"least_allocated": 1, "balanced_allocation": 1},
    {"fgd": 2, "random": 1},
    {"spread_rack": 1, "most_allocated": 1},
    {"lifetime": 3, "alignment": 1},
    {"gpu_packing": 1, "gpu_clustering": 1, "dot_prod": 1},
)
mixes = st.sampled_from(MIXES)
seeds = st.integers(0, 10_000)


def random_twin(
    seed: int,
    weights: dict[str, float],
    backfill: Backfill | None = None,
    *,
    count: int = 9,
    sample_percent: int = 100,
    observers: tuple[Observer, ...] = (),
) -> JobTwin:
    rng = np.random.default_rng(seed)
    machines = nodes_of(
        *(
            {
                "cpu_cores": [4.0, 16.5][rng.integers(2)], "memory_gib": [None, 32.0][rng.integers(2)],
                "gpus": float(rng.integers(0, 4)), "zone": "xy"[rng.integers(2)], "rack": "abc"[rng.integers(3)],
                "gpu_model": "TU"[rng.integers(2)],
            }
            for _ in range(count)
        )
    )  # fmt: skip
    jobs = [
        {
            "submit_s": float(rng.integers(0, 60)), "run_s": float(rng.integers(1, 40)),
            "limit_s": float(rng.integers(20, 60)), "cpu_cores": [0.0, 0.3, 1.0, 4.0][rng.integers(4)],
            "memory_gib": [None, 3.3][rng.integers(2)], "gpus": [0.0, 0.0, 1 / 3, 0.5, 1.0, 2.0][rng.integers(6)],
            "instances": int(rng.choice([1, 1, 1, 2, 5])), "user": "ab"[rng.integers(2)],
            "priority": float(rng.integers(3)), "gpu_model": [None, "T"][int(rng.random() < 0.1)],
        }
        for _ in range(40)
    ]  # fmt: skip
    outages = (Outage(15.0, 10.0, (0, 1)), Outage(20.0, 20.0, (2,), drain=True))
    return twin_of(
        machines, jobs, Scored(weights, sample_percent=sample_percent),
        backfill=backfill or Greedy(), outages=outages, observers=observers, preempts=seed % 2 == 1,
    )  # fmt: skip


def ended(twin: JobTwin) -> tuple:
    return twin.history, {name: column.tolist() for name, column in twin.columns.items()}


class Watch(Observer):
    """Checks what must hold whenever the twin has settled, and who was told to win."""

    def __init__(self) -> None:
        self.told: dict[int, str] = {}
        self.kept = 0

    def before_start(self, twin: JobTwin, job: int) -> None:
        if int(twin.workload.instances[job]) == 1:
            table = explain(twin, job)
            self.told[job] = table["machine"][0] if table.height else ""

    def started(self, twin: JobTwin, job: int, held: Held) -> None:
        if job in self.told:
            assert twin.machines.names[held[0][0]] == self.told[job]
            self.kept += 1

    def looked(self, twin: JobTwin) -> None:
        for job, held in twin.held.items():
            assert sum(count for _, count, _ in held) == twin.workload.instances[job]
            assert len({m for m, _, _ in held}) == len(held)
        assert twin.capacity.free.min() >= 0
        free = np.array([[*mine, 0, 0, 0][:3] for mine in (twin.capacity.devices.get(m, ()) for m in range(9))])
        for ledger in twin.capacity.ledgers.values():
            if isinstance(ledger, DeviceShares):
                np.testing.assert_array_equal(ledger.free, free[:, : ledger.free.shape[1]])
                again = device_shares(twin.workload, twin.machines)
                for job, held in twin.held.items():
                    for m, count, devices in held:
                        again.change(job, m, count, devices)
                np.testing.assert_array_equal(again.classes, ledger.classes)


@few
@given(seeds, mixes, st.sampled_from([Strict(), Greedy()]))
def test_the_explained_winner_is_taken_and_has_room(seed: int, weights: dict[str, float], backfill: Backfill) -> None:
    """No machine is over-full, gangs are whole, tallies are in step, and a job starts where `explain` said."""
    watch = Watch()
    twin = random_twin(seed - seed % 2, weights, backfill, observers=(watch,))
    twin.run()
    assert watch.kept > 5
    assert twin.capacity.free.tolist() == twin.machines.capacity.tolist()


@few
@given(seeds, mixes, st.floats(0.01, 50.0))
def test_only_proportions_of_weights_count(seed: int, weights: dict[str, float], factor: float) -> None:
    """All weights times a factor: the same run."""
    scaled = {rule: weight * factor for rule, weight in weights.items()}
    one, other = random_twin(seed, weights), random_twin(seed, scaled)
    one.run()
    other.run()
    assert ended(one) == ended(other)


@few
@given(seeds, mixes, st.sampled_from([Strict(), Greedy(), Easy()]), st.integers(0, 80))
def test_a_fork_goes_on_alike(seed: int, weights: dict[str, float], backfill: Backfill, at_s: int) -> None:
    """A fork and its original end as the undisturbed run does, whichever goes on first."""
    straight, twin = random_twin(seed, weights, backfill), random_twin(seed, weights, backfill)
    straight.run()
    twin.run(float(at_s))
    fork = twin.fork()
    fork.run()
    twin.run()
    assert ended(fork) == ended(twin) == ended(straight)


@pytest.mark.parametrize("weights", MIXES)
def test_a_saved_twin_goes_on_alike(tmp_path: Path, weights: dict[str, float]) -> None:
    """Saved and loaded in the middle of a sampled, random run on 130 machines: the same end."""
    straight, twin = (random_twin(4, weights | {"random": 1}, count=130, sample_percent=1) for _ in range(2))
    straight.run()
    twin.run(30.0)
    snapshot.save(twin, tmp_path / "twin.npz")
    again = snapshot.load(tmp_path / "twin.npz", twin.workload, twin.machines, twin.scheduler, outages=twin.outages)
    again.run()
    assert ended(again) == ended(straight)


@few
@given(seeds, mixes)
def test_the_ordering_names_all_machines_with_room(seed: int, weights: dict[str, float]) -> None:
    """Best first, and nobody else than who has room."""
    twin = random_twin(seed, weights)
    twin.run(25.0)
    placement = twin.scheduler.placement
    assert isinstance(placement, Scored)
    for job in range(0, len(twin.workload), 7):
        among = twin.candidates(job)
        roomy = {m for m in range(9) if among >> m & 1 and twin.capacity.room(job, m)}
        order = list(placement.look(twin)(twin.capacity, job, among))
        assert set(order) == roomy
        table = explain(twin, job, best=99)
        assert [twin.machines.names[m] for m in order] == table["machine"].unique(maintain_order=True).to_list()
        assert table["total"].is_sorted(descending=True)


def test_another_seed_places_otherwise() -> None:
    """The rule random is told apart by its seed, and spreads over all machines."""
    runs = []
    for seed in (0, 0, 1):
        twin = twin_of(nodes_of(*[{}] * 20), [{"cpu_cores": 0.1}] * 100, Scored({"random": 1}, seed=seed))
        twin.run(200.0)
        runs.append(homes(twin))
    assert runs[0] == runs[1] != runs[2]
    assert len({m for mine in runs[0].values() for m in mine}) == 20


# -------------------------------------------------- words


def test_the_reason_in_one_sentence() -> None:
    """node-0 has 6 of 10 cores and half of its memory free, node-1 less memory left than cores."""
    machines = nodes_of({"cpu_cores": 5.0, "memory_gib": 10.0}, {"cpu_cores": 10.0, "memory_gib": 10.0})
    twin = twin_of(machines, [{"memory_gib": 2.0}], Scored({"least_allocated": 1, "balanced_allocation": 3}))
    table = explain(twin, 0)
    # node-0: 80 and 80 left, in step: (80 + 3 * 100) / 4; node-1: 90 and 80 left, shares 0.1 and 0.2
    assert table.select("rank", "machine", "rule", "score", "weight", "total").rows() == [
        (1, "node-0", "least_allocated", 80.0, 0.25, 95.0),
        (1, "node-0", "balanced_allocation", 100.0, 0.75, 95.0),
        (2, "node-1", "least_allocated", 85.0, 0.25, 92.5),
        (2, "node-1", "balanced_allocation", 95.0, 0.75, 92.5),
    ]
    told = "node-0 won with 95.0: least allocated 80, balanced allocation 100; runner-up node-1 with 92.5"
    assert reason(table) == told
    assert reason(table.filter(rank=1)).endswith("; no other machine was looked at that has room")
    assert reason(table.clear()) == "no machine has room"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"scores": {"best": 1}}, "'best' is unknown"),
        ({"scores": {"fgd": -1}}, "'fgd' has the weight -1"),
        ({"scores": {"fgd": 0}}, "no score has a weight above 0"),
        ({"scores": {}}, "no score"),
        ({"scores": {"fgd": 1}, "resources": {"disk": 1}}, "resource 'disk' is unknown"),
        ({"scores": {"fgd": 1}, "group": "zone"}, "group='zone' is unknown"),
        ({"scores": {"fgd": 1}, "sample_percent": 101}, "sample_percent=101"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict, told: str) -> None:
    """Unknown names, weights below 0 and percentages beyond 100 are named."""
    with pytest.raises(UsageError, match=told):
        Scored(**options)


def test_other_placements_have_nothing_to_explain() -> None:
    """Only scores can be explained; and a twin that was not told to count residents is."""
    machines = nodes_of({})
    twin = twin_of(machines, [{}], Scored({"fgd": 1}))
    with pytest.raises(SimulationError, match="what lies where"):
        next(Scored({"lifetime": 1}).look(twin)(twin.capacity, 0, 1))
    plain = twin.fork(Scheduler(orders.Fcfs(), Greedy()))
    with pytest.raises(UsageError, match="no scores to explain"):
        explain(plain, 0)


@pytest.mark.parametrize("path", SCORED, ids=lambda path: path.stem)
def test_every_configured_placement_by_scores_runs(path: Path) -> None:
    """Each file builds a placement that starts jobs."""
    options = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(options, dict)
    assert options.pop("_target_") == f"{Scored.__module__}.{Scored.__qualname__}"
    placement = Scored(**{str(name): value for name, value in options.items()})
    twin = twin_of(nodes_of({"gpus": 1.0}), [{"gpus": 0.5}], placement)
    twin.run(0.0)
    assert homes(twin) == {0: (0,)}
    assert twin.capacity.free[0, GPU] == WHOLE_GPU // 2
