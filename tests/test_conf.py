"""The contract over `conf/`: every option of every group composes, is built, and does its work for ten minutes."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import polars as pl
import pytest
from hydra import compose, initialize_config_module
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from polars.testing import assert_frame_equal

import twin
from experiments import benchmark, cell, schema
from experiments import replay as scheduling
from experiments.gate.rules import Rules
from scenarios.job_log import job_log
from twin.errors import UsageError
from twin.scheduling import JobRun, Replay
from twin.trace.trace import TraceInfo
from twin.types import Cluster, Controller, Limits, Placement, Record

CONF = Path(__file__).resolve().parent.parent / "conf"
GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir() and any(path.glob("*.yaml")))
OPTIONS = [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
VERBS = sorted(path.stem for path in CONF.glob("*.yaml"))
TEN_MINUTES_S = 600.0


@pytest.fixture(autouse=True)
def hydra() -> Any:
    schema.register()
    with initialize_config_module("conf", version_base="1.3"):
        yield


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One briefly trained policy per learner: real artefacts, not good ones."""
    folder = tmp_path_factory.mktemp("policies")
    schema.register()
    with initialize_config_module("conf", version_base="1.3"):
        for path in sorted((CONF / "learner").glob("*.yaml")):
            learn(path.stem, folder / path.stem)
    return {path.name: path for path in folder.iterdir()}


def learn(learner: str, out: Path) -> None:
    brief = {"ppo": ["learner.learn.settings.total_steps=256", "learner.learn.settings.rollout_steps=32"]}
    brief["forecast_led"] = ["learner.learn.network.training.steps=20"]
    cfg = compose("train", [f"learner={learner}", *brief[learner]])
    trace = twin.read("google2019").between(0, 4 * 86_400)
    cell.build(cfg.learner.learn)(out, trace=trace, cluster=cell.build(cfg.cluster), seed=0)


def simulated(overrides: list[str], policies: dict[str, Path], until_s: float = TEN_MINUTES_S) -> twin.Run:
    places = [f"policies.{name}={path}" for name, path in policies.items()]
    cfg = compose("simulate", [*overrides, *places, f"until_s={until_s}"])
    one = cell.Cell(
        cell.scene(cfg), cell.plain(cfg.scenario), cell.plain(cfg.controller), 0, part="all", until_s=until_s
    )
    run, _ = cell.run(one)
    assert run.service_steps["time_s"].max() == until_s
    assert run.service_steps["arrived_requests"].sum() > 0
    return run


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_composes_and_every_key_has_a_type(verb: str) -> None:
    cfg = compose(verb)
    known = set(OmegaConf.structured(schema.CONFIGS[verb]).keys())
    assert set(cfg.keys()) <= known
    assert verb in schema.CONFIGS


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_does_its_work(group: str, option: str, policies: dict[str, Path]) -> None:
    check = CHECKS.get(group)
    assert check, f"conf/{group} is a new group: say here what each of its options must do"
    check(option, policies)


def check_trace(option: str, policies: dict[str, Path]) -> None:
    placed = option in ("folder", "file")
    cfg = compose("simulate", [f"trace={option}", *(["trace.path=unused"] if placed else [])])
    if placed:
        folder = policies["ppo"].parent.parent / "trace-folder"
        shutil.rmtree(folder, ignore_errors=True)
        twin.read("google2019").between(0, 7200).write(folder)
        cfg.trace.path = str(folder)
    trace = cell.read_trace(cfg.trace)
    assert isinstance(trace, twin.Trace)
    assert trace.demand.height > 10 or trace.jobs.height > 10


def check_action(option: str, policies: dict[str, Path]) -> None:
    """It composes, its function is there, and its own keys have types; what it does is tested with its verb."""
    cfg = compose("trace", [f"action={option}"])
    assert callable(cell.build(cfg.action))
    assert set(cfg.keys()) <= set(OmegaConf.structured(schema.CONFIGS["trace"]).keys())


def check_cluster(option: str, policies: dict[str, Path]) -> None:
    cluster = cell.build(compose("simulate", [f"cluster={option}"]).cluster)
    assert isinstance(cluster, Cluster)
    assert hash(cluster) == hash(cell.build(compose("simulate", [f"cluster={option}"]).cluster))
    simulated([f"cluster={option}"], policies)


NAMED = {"recorded_spot": "scenario.parts.1.path", "microservices": "trace.path"}
NEEDS = {"microservices": ["trace=folder", "controller=hold"]}


def recorded_scenario(option: str, folder: Path) -> list[str]:
    """What names a small made recording for a scenario that replays one; nothing for the others."""
    if not option.startswith(("recorded_", "fitted_", "microservices")):
        return []
    hours = np.arange(30 * 24) * 3600.0
    gone = pl.DataFrame({"node": "n", "time_s": hours[1:41], "event": ["fail", "repair"] * 20})
    frames = {
        "nodes": pl.DataFrame({"node": ["n"], "pool": ["old"]}),
        "node_events": gone.with_columns(pl.col("time_s") + pl.col("time_s") ** 1.5 / 1e3),
        "incidents": pl.DataFrame({"incident": "i", "start_s": [9e3], "end_s": [1e4], "entity": "s", "kind": "outage"}),
        "usage": pl.DataFrame({"time_s": hours, "value": hours // 3600 % 3}).with_columns(
            entity=pl.lit("z"), resource=pl.lit("spot_instances"), unit=pl.lit("instance")
        ),
        "prices": pl.DataFrame({"time_s": hours, "value": 0.2 + hours / 1e7}).with_columns(
            zone=pl.lit("z"), quantity=pl.lit("carbon_g_kwh" if option == "recorded_grid" else "spot_usd_h")
        ),
    }
    if option == "microservices":
        names = np.arange(100).astype(str)
        inner = pl.DataFrame({"service": "b", "time_s": hours[:100] / 360 + 1, "request": "b" + pl.Series(names)})
        outer = inner.select(pl.lit("a").alias("service"), pl.col("time_s") - 1, request=pl.lit("a") + pl.Series(names))
        spans = [outer.with_columns(parent=pl.lit(None, pl.String), duration_s=3.0)]
        spans += [inner.with_columns(parent=outer["request"], duration_s=1.0)]
        frames = {"requests": pl.concat(spans), "services": pl.DataFrame({"service": ["a", "b"], "demand_unit": "rps"})}
    info = TraceInfo("made", "made by a test", "none", "0" * 64, step_s=3600.0)
    place = folder / f"{option}-recording"
    shutil.rmtree(place, ignore_errors=True)
    twin.Trace(info, frames).write(place)
    return [*NEEDS.get(option, []), f"{NAMED.get(option, 'scenario.path')}={place}"]


def check_scenario(option: str, policies: dict[str, Path]) -> None:
    """It runs, and it makes a difference that shows in trace or events (but for the recording as it is)."""
    overrides = [f"scenario={option}", *recorded_scenario(option, policies["ppo"].parent.parent)]
    whole = compose("simulate", overrides)
    trace, cluster = cell.read_trace(whole.trace), cell.build(whole.cluster)
    changed, _, events = cell.build(whole.scenario).apply(trace, cluster)
    makes_a_difference = changed.digest() != trace.digest() or len(events) > 0
    assert makes_a_difference == (option != "as_recorded")
    scenario = cell.build(compose("simulate", overrides).scenario)
    assert hash(scenario) == hash(cell.build(compose("simulate", overrides).scenario))
    simulated(overrides, policies)


def check_controller(option: str, policies: dict[str, Path]) -> None:
    cfg = compose("simulate", [f"controller={option}", *(f"policies.{n}={p}" for n, p in policies.items())])
    assert isinstance(cell.build(OmegaConf.create(cell.plain(cfg.controller))), Controller)
    learned = option in policies
    # a day of warm-up for the longest window, then the policy itself must decide
    run = simulated([f"controller={option}"], policies, until_s=26 * 3600.0 if learned else TEN_MINUTES_S)
    if learned:
        assert run.decisions["reason"].str.contains("policy decides|asked a human").any()
    if option != "hold":
        assert run.decisions.height > 0
        assert (run.decisions["reason"] != "").all(), "a decision without a reason"
        assert run.decisions["confidence"].is_between(0, 1).all()


def check_scheduler(option: str, policies: dict[str, Path]) -> None:
    placement = cell.build(compose("simulate", [f"scheduler={option}"]).scheduler)
    assert isinstance(placement, Placement)
    free = np.array([[1.0, 1.0], [4.0, 4.0], [8.0, 8.0], [-1.0, -1.0]])
    assert placement.choose(free, np.array([2.0, 2.0])) in (1, 2)
    assert placement.choose(free, np.array([9.0, 2.0])) == -1
    simulated([f"scheduler={option}"], policies)


def check_serving(option: str, policies: dict[str, Path]) -> None:
    """Both models serve the same demand to the same controller: what arrives agrees within its noise."""
    run = simulated([f"serving={option}"], policies)
    other = simulated([f"serving={'requests' if option == 'fluid' else 'fluid'}"], policies)
    arrived = [float(each.service_steps["arrived_requests"].sum()) for each in (run, other)]
    assert arrived[0] == pytest.approx(arrived[1], rel=0.02)


def check_limits(option: str, policies: dict[str, Path]) -> None:
    assert isinstance(cell.build(compose("simulate", [f"limits={option}"]).limits), Limits)
    simulated([f"limits={option}"], policies)


def check_record(option: str, policies: dict[str, Path]) -> None:
    assert isinstance(cell.build(compose("simulate", [f"record={option}"]).record), Record)
    simulated([f"record={option}"], policies)


def check_split(option: str, policies: dict[str, Path]) -> None:
    split = cell.build(compose("benchmark", [f"split={option}"]).split)
    whole = twin.read("google2019")
    if option == "whole":
        assert split.held_out(whole).digest() == whole.digest()
        assert split.held_out_from_s(whole) == split.warmup_s
        with pytest.raises(UsageError, match="nobody may learn"):
            split.train(whole)
        return
    parts = [split.train(whole), split.validation(whole), split.held_out(whole)]
    assert parts[0].duration_s + split.validation_days * 86_400 == split.held_out_from_s(whole)
    assert parts[2].info.start_s + split.warmup_s == split.held_out_from_s(whole)


def check_forecaster(option: str, policies: dict[str, Path]) -> None:
    from agents.forecast.backtest import backtest

    cfg = compose("backtest", [f"+forecaster@forecasters.it={option}"]).forecasters["it"]
    frame, h, every = forecastable(option)
    done = backtest([cell.build(briefly(cfg))], frame, h=h, origins_every=every, seed=0)
    assert not done.failures
    deciles = done.forecasts.select(pl.col("^q[0-9]+$")).to_numpy()
    assert np.isfinite(deciles).all()
    assert (np.diff(deciles, axis=1) >= 0).all(), "crossing quantiles"


def forecastable(option: str) -> tuple[pl.DataFrame, int, int]:
    """A series of the step that the forecaster is made for, steps ahead, and steps between origins."""
    from agents.forecast.frames import series

    if not option.startswith("structural"):
        frame = series(twin.read("google2019").between(0, 8 * 86_400))
        return frame.filter(pl.col("unique_id").str.ends_with("/cpu")), 12, 288
    step_s, steps = (86_400, 800) if option == "structural_daily" else (7 * 86_400, 200)
    values = 100.0 + np.random.default_rng(0).normal(0.0, 1.0, steps).cumsum()
    frame = pl.DataFrame({"unique_id": ["a"] * steps, "ds": np.arange(steps) * step_s, "y": values})
    return frame, 4, steps // 10


def briefly(cfg: DictConfig) -> DictConfig:
    """The same with networks that are hardly trained."""
    plain = OmegaConf.to_container(cfg, resolve=True)

    def shortened(node: Any) -> Any:
        if isinstance(node, dict):
            brief = {"steps": 50, "members": 1} if str(node.get("_target_")).endswith("neural.Training") else {}
            return {key: shortened(value) for key, value in node.items()} | brief
        return node

    return DictConfig(shortened(plain))


def check_architecture(option: str, policies: dict[str, Path]) -> None:
    """Untrained, the network of a small window says "as now", with bands around it."""
    from agents.forecast.frames import Series
    from agents.forecast.neural import Neural, Training
    from agents.forecast.rolling import roll

    settings = cell.build(OmegaConf.load(CONF / "architecture" / f"{option}.yaml"))
    one = Series("a", 0, 300, 50.0 + np.random.default_rng(0).normal(size=200))
    net = Neural(settings, 24, 4, training=Training(steps=0, holdout_share=0.2)).fit([one], 0)
    said = roll(net, one, np.array([100, 150]), 4).said
    np.testing.assert_allclose(said[..., 4], one.values[[99, 149], None] * np.ones(4), rtol=1e-5)
    assert (np.diff(said, axis=-1) > 0).all()


def check_learner(option: str, policies: dict[str, Path]) -> None:
    from agents.policy import load
    from agents.scale.artefact import parity

    policy = load(policies[option])
    native = cell.build(compose("promote", [f"learner={option}"]).learner.native)(policies[option])
    rng = np.random.default_rng(0)
    windows = rng.uniform(20, 1500, size=(20, policy.spec.steps, len(policy.spec.columns))).astype(np.float32)
    assert parity(native, policies[option], windows) <= 1e-5


def check_gate(option: str, policies: dict[str, Path]) -> None:
    assert isinstance(cell.build(compose("promote", [f"gate={option}"]).gate), Rules)


def check_mode(option: str, policies: dict[str, Path]) -> None:
    mode = compose("bridge", [f"mode={option}"]).mode
    assert mode.mode in ("dry-run", "shadow", "live")
    bridged([f"mode={option}"])


def check_plant(option: str, policies: dict[str, Path]) -> None:
    if option == "http":
        from experiments.bridge import served_twin

        with served_twin(compose("bridge")) as url:
            bridged(["plant=http", f"plant.url={url}"])
    else:
        bridged([f"plant={option}"])


def bridged(overrides: list[str]) -> None:
    from experiments.bridge import in_charge, open_plant
    from twin.loop import ControlLoop

    cfg: DictConfig = compose("bridge", overrides)
    controller, limits, _ = in_charge(cfg)
    rows: list = []
    with open_plant(cfg, Event()) as plant:
        loop = ControlLoop(plant, controller, limits=limits, record=rows.append)
        for _ in range(3):
            loop.step()
    assert plant.__class__.__name__ == "HttpPlant"
    assert len(rows) >= 1


def check_tracking(option: str, policies: dict[str, Path]) -> None:
    assert callable(cell.build(compose("simulate", [f"tracking={option}"]).tracking).mirror)


def scheduled(overrides: list[str], until_s: float | None = None) -> JobRun:
    """A small day of jobs under what is chosen; a recording that is to be named is the synthetic log in a folder."""
    cfg = compose("schedule", overrides)
    if OmegaConf.is_missing(cfg.trace, "path"):
        with tempfile.TemporaryDirectory() as place:
            job_log(jobs=375, days=1.5).write(Path(place) / "log")
            cfg.trace.path = str(Path(place) / "log")
            trace = cell.read_trace(cfg.trace)
    else:
        cfg.trace.jobs, cfg.trace.days = 375, 1.5
        trace = cell.read_trace(cfg.trace)
    cfg.until_s = until_s
    run = scheduling.replayed(cfg, trace)
    assert run.outcomes.height == 375
    if until_s is None:
        assert set(run.outcomes["state"]) == {"done"}
    assert run.outcomes["start_s"].count() > 0
    return run


def check_order(option: str, policies: dict[str, Path]) -> None:
    """Everybody is served, and not as they came (but where that is the order)."""
    run = scheduled([f"order={option}", "backfill=none"])
    assert run.outcomes["start_s"].is_sorted() == (option == "fcfs")


def check_backfill(option: str, policies: dict[str, Path]) -> None:
    """Whoever overtakes does so by its rule; nobody does under `none`."""
    run = scheduled([f"backfill={option}"])
    assert run.outcomes["start_s"].is_sorted() == (option == "none")


def check_placement(option: str, policies: dict[str, Path]) -> None:
    """The first job lies where the option says, and only a rule about GPUs changes nothing where there is none."""
    places = scheduled([f"placement={option}"]).placements
    roomy = ("worst_fit", "kube_default", "spread")  # they begin with the emptiest machine
    assert (places["node"][0] == "large-0") == (option in (*roomy, "random"))
    as_first_fit = places.equals(scheduled(["placement=first_fit"]).placements)
    assert as_first_fit == (option in ("first_fit", "dot_prod", "fgd", "gpu_clustering", "gpu_packing"))


def check_machines(option: str, policies: dict[str, Path]) -> None:
    run = scheduled([f"machines={option}"])
    assert len(run.machines) == {"recorded": 4, "pooled": 2}.get(option, len(run.machines))
    assert set(run.placements["node"]) <= set(run.machines.names)


def check_admission(option: str, policies: dict[str, Path]) -> None:
    """It is a mapping of rules by name, so that several go together, and each rule keeps somebody waiting."""
    cfg = compose("schedule", [f"admission={option}"])
    assert list(cfg.admission) == ([] if option == "open" else [option])
    many = ["machines=uniform", "machines.count=1000"]  # nobody waits for room
    waits = (scheduled([f"admission=[open,{option}]", *many]).outcomes["wait_s"] > 0).any()
    assert waits == (option != "open")


def check_filters(option: str, policies: dict[str, Path]) -> None:
    """It is a mapping of rules by name, and where each job ran obeys the rule; by first fit alone it would not."""
    assert list(compose("schedule", [f"filters={option}"]).filters) == ([] if option == "none" else [option])
    node = [f"filters.{option}.domain=node"] if option in OBEYED and option != "reservation" else []
    told = [scheduled(overrides) for overrides in ([], [f"filters=[none,{option}]", *node])]
    obeys = [OBEYED[option](held(run)) if option in OBEYED else True for run in told]
    assert obeys == [option == "none", True]


def held(run: JobRun) -> pl.DataFrame:
    """What lay where, and whose it was."""
    return run.placements.join(run.outcomes.select("job", "user"), on="job", maintain_order="left")


def others(held: pl.DataFrame) -> pl.DataFrame:
    """Each placement beside those of other jobs of its user that ran when it began; `before` where they had begun."""
    beside = held.join(held, on="user", suffix="_other").filter(pl.col("job") != pl.col("job_other"))
    there = beside.filter(pl.col("start_s_other") <= pl.col("start_s"), pl.col("end_s_other") > pl.col("start_s"))
    return there.with_columns(before=pl.col("start_s_other") < pl.col("start_s"))


def near(held: pl.DataFrame) -> bool:
    together = (
        others(held)
        .filter("before")
        .group_by("job", "node")
        .agg((pl.col("node") == pl.col("node_other")).any().alias("near"))
    )
    return bool(together["near"].all())


def apart(held: pl.DataFrame) -> bool:
    return others(held).filter(pl.col("node") == pl.col("node_other")).is_empty()


def even(held: pl.DataFrame) -> bool:
    """No machine holds two jobs of a user while the large one, on which every job fits, holds none of theirs."""
    counted = (
        others(held)
        .group_by("job", "node", "start_s")
        .agg(
            here=((pl.col("node") == pl.col("node_other")) & pl.col("before")).sum(),
            there=(pl.col("node_other") == "large-0").sum(),
        )
    )
    return counted.filter(pl.col("node") != "large-0", pl.col("here") > pl.col("there")).is_empty()


def reserved(held: pl.DataFrame) -> bool:
    within = (pl.col("start_s") < 43_200) & (pl.col("end_s") > 28_800)
    return set(held.filter(within, pl.col("node") == "large-0")["user"]) <= {"user-1"}


OBEYED = {"affinity": near, "anti_affinity": apart, "spread": even, "reservation": reserved}


def check_inspector(option: str, policies: dict[str, Path]) -> None:
    """It delays somebody, and everybody starts in the end."""
    plain, inspected = (scheduled(overrides).outcomes for overrides in ([], [f"inspector={option}"]))
    assert plain.equals(inspected) == (option == "none")


def check_contention(option: str, policies: dict[str, Path]) -> None:
    """Jobs share machines that promise more than they have: they take longer, or lose work and end on time."""
    plain, run = scheduled([]), scheduled([f"contention={option}"])
    assert isinstance(run, Replay)
    longer = (run.outcomes["run_s"] > plain.outcomes["run_s"] + 1.0).any()
    assert longer == (option == "stretch")
    assert (run.shared is None) == (option == "none")
    if run.shared is not None:
        assert (run.shared["lost_core_h"].sum() > 1.0) == (option == "lose")


def check_engine(option: str, policies: dict[str, Path]) -> None:
    """Every engine leaves the same tables; only the reference also meters the machines."""
    for overrides in (["order=sjf"], ["backfill=greedy", "placement=worst_fit"]):
        told = scheduled([f"engine={option}", *overrides], 50_000.0)
        expected = scheduled(["engine=reference", *overrides], 50_000.0)
        assert set(expected.tables()) - set(told.tables()) == ({"job_steps"} if option == "compiled" else set())
        for name, frame in told.tables().items():
            assert_frame_equal(expected.tables()[name], frame)


def check_outages(option: str, policies: dict[str, Path]) -> None:
    places = scheduled([f"outages={option}"]).placements
    away = places.filter(pl.col("start_s").is_between(20 * 3600, 24 * 3600, closed="left"))
    assert away.height > 0
    if option == "recorded":
        assert "small-2" not in away["node"].to_list()


def demand_of(service: str, policies: dict[str, Path]) -> Path:
    """A folder of recorded demand under another name, for overlays whose recording is to be named."""
    place = policies["ppo"].parent.parent / f"demand-of-{service}"
    if not place.exists():
        week = twin.read("google2019").between(0, 8 * 86_400)
        named = {"services": week.services, "demand": week.demand}
        week = week.replacing("renamed", **{k: v.with_columns(service=pl.lit(service)) for k, v in named.items()})
        week.write(place)
    return place


def check_overlay(group: str) -> Any:
    """An overlay (experiment, debug) must fit at least one verb, and what it asks for must run for ten minutes."""

    def check(option: str, policies: dict[str, Path]) -> None:
        ran = []
        try:
            compose("schedule", [f"{group}={option}"])
        except HydraException:
            pass
        else:
            scheduled([f"{group}={option}"], 86_400.0)
            ran.append("schedule")
        for verb in ("simulate", "benchmark"):
            try:
                cfg = compose(verb, [f"{group}={option}"])
            except HydraException:
                continue
            if OmegaConf.is_missing(cfg.trace, "path"):
                cfg.trace.path = str(demand_of(cell.build(cfg.cluster).service("cell").series, policies))
            if verb == "benchmark":
                one = benchmark.jobs(cfg, policies["ppo"].parent)[0].cell
            else:
                plain = (cell.scene(cfg), cell.plain(cfg.scenario), cell.plain(cfg.controller))
                one = cell.Cell(*plain, cfg.seed, part=cfg.part)
            run, _ = cell.run(replace(one, until_s=TEN_MINUTES_S))
            assert run.service_steps["arrived_requests"].sum() > 0
            ran.append(verb)
        ran += tuned([f"{group}={option}"])
        assert ran, f"no verb takes {group}={option}"

    return check


def tuned(overrides: list[str]) -> list[str]:
    """["tune"] where that verb takes the overlay, and every job of the grid that it sweeps over can be built."""
    try:
        cfg = compose("tune", overrides, return_hydra_config=True)
    except HydraException:
        return []
    axes = [[f"{key}={value}" for value in str(values).split(",")] for key, values in cfg.hydra.sweeper.params.items()]
    for job in itertools.product(*axes):
        assert cell.build(compose("tune", [*overrides, *job]).forecaster).name
    return ["tune"]


def check_paths(option: str, policies: dict[str, Path]) -> None:
    assert "out" in compose("simulate", [f"paths={option}"])


CHECKS = {
    name.removeprefix("check_"): check
    for name, check in list(globals().items())
    if name.startswith("check_") and name != "check_overlay"
} | {group: check_overlay(group) for group in ("debug", "experiment")}
