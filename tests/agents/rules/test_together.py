"""Whose turn it is, and whose word counts."""

from dataclasses import dataclass, field
from pathlib import Path

import hydra
import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from agents.rules.replicas.oracle import Oracle
from agents.rules.static import Static
from agents.rules.together import Together
from twin.errors import UsageError
from twin.types import Action, ActionKind, Cluster, Controller, Observation, Pool, Service

CONF = Path(__file__).parents[3] / "conf" / "controller"


@dataclass
class Clock:
    """Wishes the number of times that it was asked."""

    interval_s: float = 60.0
    target: str = "cell"
    kind: ActionKind = "replicas"
    name: str = "clock"
    asked_s: list[float] = field(default_factory=list)
    resets: int = 0

    def reset(self) -> None:
        self.resets += 1

    def decide(self, observation):
        self.asked_s.append(observation.time_s)
        return [Action(self.kind, self.target, len(self.asked_s), f"asked {len(self.asked_s)} times")]


def at(time_s: float) -> Observation:
    return Observation(time_s, (), np.zeros(0, dtype=np.float32))


def test_each_is_asked_when_due():
    often, seldom = Clock(15.0), Clock(40.0, "web")
    both = Together([often, seldom])
    assert isinstance(both, Controller)
    assert both.interval_s == 5.0
    for turn in range(25):
        both.decide(at(5.0 * turn))
    assert often.asked_s == [15.0 * n for n in range(9)]
    assert seldom.asked_s == [0.0, 40.0, 80.0, 120.0]


@given(intervals_ms=st.lists(st.integers(1, 10_000), min_size=1, max_size=4), start_s=st.floats(0, 1e6))
def test_at_the_common_interval_everybody_keeps_his_own(intervals_ms, start_s):
    clocks = [Clock(ms / 1000.0, f"s{n}") for n, ms in enumerate(intervals_ms)]
    both = Together(clocks)
    turns = 50
    for turn in range(turns):
        both.decide(at(start_s + turn * both.interval_s))
    for clock in clocks:
        every = round(clock.interval_s / both.interval_s)
        expected = [start_s + turn * both.interval_s for turn in range(0, turns, every)]
        assert clock.asked_s == pytest.approx(expected)


def test_a_clock_that_comes_a_little_early_or_much_too_late_is_forgiven():
    clock = Clock(60.0)
    both = Together([clock, Clock(20.0, "web")])
    for time_s in (0.0, 19.9, 40.1, 59.9, 80.0, 250.0, 289.0, 299.0):
        both.decide(at(time_s))
    assert clock.asked_s == [0.0, 59.9, 250.0, 299.0]  # on in its rhythm


def test_actions_stand_one_after_the_other():
    both = Together([Clock(), Clock(target="workers", kind="nodes")])
    assert [(a.kind, a.target, a.value) for a in both.decide(at(0.0))] == [
        ("replicas", "cell", 1),
        ("nodes", "workers", 1),
    ]


def test_the_first_owns_the_number_and_tells_what_the_other_wished():
    both = Together([Static({"cell": 7}), Clock(name="other")])
    (action,) = both.decide(at(0.0))
    assert action.value == 7
    assert action.reason == "7: a fixed number, whatever the demand; other wished 1, but static decides this"


def test_it_owns_it_between_its_turns_too():
    both = Together([Clock(60.0, name="slow"), Clock(20.0, name="fast")])
    answers = [both.decide(at(20.0 * turn)) for turn in range(4)]
    assert [[a.value for a in actions] for actions in answers] == [[1], [], [], [2]]
    assert answers[3][0].reason == "asked 2 times; fast wished 4, but slow decides this"


def test_who_comes_first_in_the_list_takes_over_once_it_has_something_to_say():
    class Late(Clock):
        def decide(self, observation):
            return super().decide(observation) if observation.time_s >= 60.0 else []

    both = Together([Late(name="late"), Clock(name="early")])
    assert [both.decide(at(60.0 * turn))[0].value for turn in range(4)] == [1, 1, 2, 3]


def test_single_nodes_have_no_lasting_owner():
    first, second = Clock(120.0, "workers-3", "drain"), Clock(60.0, "workers-3", "drain")
    both = Together([first, second])
    assert [len(both.decide(at(60.0 * turn))) for turn in range(3)] == [1, 1, 1]
    assert both.decide(at(180.0))[0].reason == "asked 4 times"


def test_numbers_of_other_kinds_or_targets_do_not_collide():
    both = Together([Clock(), Clock(kind="cpu_millicores"), Clock(target="web")])
    assert len(both.decide(at(0.0))) == 3


def test_reset_resets_all_and_begins_anew():
    clock, other = Clock(60.0), Clock(60.0)
    both = Together([clock, other])
    both.decide(at(1000.0))
    both.reset()
    assert (clock.resets, other.resets) == (1, 1)
    both.decide(at(0.0))
    assert clock.asked_s == [1000.0, 0.0]


def test_the_future_goes_to_those_who_want_it():
    both = Together({"first": Oracle("cell", target_utilisation=1.0), "second": Clock(target="web")})
    cluster = Cluster("c", (Pool("p", 8, 8, 1.0, 1),), (Service("cell", 1, 1, 1, 0.1, 1, 1.0),))
    both.foresee(np.array([[55.0]]), 60.0, cluster)
    assert both.decide(at(0.0))[0].value == 6


def test_its_name_tells_who_is_in_it():
    assert Together([Static({"cell": 1}), Clock()]).name == "static + clock"
    assert Together([Clock()], name="mine").name == "mine"


def test_nobody_or_nobodys_interval_is_refused():
    with pytest.raises(UsageError, match="controllers is empty"):
        Together([])
    with pytest.raises(UsageError, match="interval_s=0"):
        Together([Clock(0.0)])


@pytest.mark.parametrize("name", ["staffing", "erlang", "aimd", "seasonal", "oracle"])
def test_every_yaml_builds_a_controller_and_several_work_together(name):
    config = OmegaConf.load(CONF / f"{name}.yaml")
    parts = {"replicas": config, "hold": OmegaConf.load(CONF / "hold.yaml")}
    both = hydra.utils.instantiate({"_target_": "agents.rules.together.Together", "controllers": parts})
    assert isinstance(both.controllers[0], Controller)
    assert both.interval_s == 60.0


@pytest.mark.parametrize("name", ["staffing", "erlang", "seasonal"])
def test_every_yaml_says_of_the_service_what_the_cluster_says(name):
    config = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    service = hydra.utils.instantiate(OmegaConf.load(CONF.parent / "cluster" / "web.yaml")).service("cell")
    assert isinstance(config, dict)
    known = {"service_time_s", "concurrency", "service_cv", "slo_s", "slo_target", "min_replicas", "max_replicas"}
    told = {key: config[key] for key in (known | {"replica_rps"}) & set(config)}
    assert len(told) >= 3
    assert told == {key: getattr(service, key) for key in told}


def test_replicas_and_nodes_have_an_autoscaler_each():
    with initialize_config_dir(str(CONF.parent), version_base="1.3"):
        config = compose("controller/hpa_with_cluster_autoscaler").controller
    both = hydra.utils.instantiate(config, _convert_="all")
    assert [controller.name for controller in both.controllers] == ["hpa", "cluster-autoscaler"]
    assert both.interval_s == 5.0
