"""What a scan of a thousand nodes costs the controllers of nodes, when nothing is to be done."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from agents.rules.nodes import packing
from agents.rules.nodes.cluster_autoscaler import ClusterAutoscaler
from agents.rules.nodes.disruption import Budget, Disruption, Policy
from agents.rules.nodes.karpenter import Karpenter
from tests.agents.rules.conftest import fleet_of, showing
from tests.bench.conftest import Figure, each_us
from twin.fleet import UP, Fleet
from twin.types import Controller, Pool, Service

pytestmark = pytest.mark.bench

POOLS = tuple(Pool(f"of {cores}", cores, 4 * cores, 0.05 * cores, 0, max_nodes=5000) for cores in (2, 4, 8))
NAMES = [pool.name for pool in POOLS]
WEB = Service("web", 1, 1, 2, 0.1, 1, 1.0, max_unavailable=1000)
TIMES = 30


def crowd(pods: Sequence[int]) -> Fleet:
    """1,000 of the largest nodes that hold these numbers of pods, a third each."""
    held = np.random.default_rng(0).permutation(np.repeat(pods, [333, 334, 333]))
    return fleet_of([(2, UP, [0] * int(n)) for n in held], pools=POOLS, services=(WEB,))


def scans(figure: Figure, name: str, controller: Controller, fleet: Fleet, apart_s: float) -> float:
    """How many times the cost of reading the fleet once a scan costs, at the median of one every `apart_s` seconds."""
    seen = iter([showing(replace(fleet, time_s=apart_s * step)) for step in range(2 * TIMES)])
    scan_us = float(np.median(each_us(lambda: controller.decide(next(seen)), TIMES)))
    floor_us = float(np.median(each_us(lambda: packing.room(replace(fleet)), TIMES)))
    return figure(name, scan_us, "us per scan", floor_us)


def test_the_cluster_autoscaler_scans_a_thousand_nodes(figure: Figure):
    """5,000 pods, on nodes of which most are too full to go."""
    assert scans(figure, "cluster autoscaler", ClusterAutoscaler(NAMES), crowd([3, 5, 7]), 10.0) < 50


@pytest.mark.parametrize("policy", ["WhenEmptyOrUnderutilized", "Balanced"])
@pytest.mark.parametrize("pods", [[3, 5, 7], [7, 7, 8]], ids=["half full", "full"])
def test_karpenter_scans_a_thousand_nodes(figure: Figure, policy: Policy, pods: list[int]):
    """5,000 pods or more, so far apart in time that an unchanged fleet is searched anew."""
    controller = Karpenter(NAMES, Disruption(policy, budgets=(Budget("100%"),)))
    assert scans(figure, f"karpenter, {policy}, {pods}", controller, crowd(pods), 400.0) < 50
