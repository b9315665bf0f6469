"""The replays of KTH-SP2 come nearer to the recording with each step, and what the rule costs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import twin
from experiments import kth
from tests.bench.conftest import Figure

LOG = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "swf-pwa" / "KTH-SP2" / "log.swf"
pytestmark = [
    pytest.mark.bench,
    pytest.mark.skipif(not LOG.exists(), reason=f"{LOG} is not here: a log of the Parallel Workloads Archive"),
]


def test_each_step_of_the_rule_explains_more(figure: Figure) -> None:
    """EASY alone, with the rule by the local clock, by standard time: mean waits, verdicts and ranks of waits.

    The last has the mean to 2 % and the 95th percentile to 5 %; of single jobs the rank is told only roughly.
    """
    trace = twin.read(LOG)
    cards, floor_s = [], 0.0
    for name, admission in kth.rules(trace).items():
        start = time.process_time()
        outcomes = kth.replay(trace, admission)
        spent_s = time.process_time() - start
        floor_s = floor_s or spent_s  # EASY alone is the first
        figure(f"KTH-SP2: {name}", spent_s, "CPU s a replay", floor_s)
        cards.append({row["measure"]: row for row in kth.card(trace, outcomes).iter_rows(named=True)})
    assert [card["wait_mean_s"]["simulated"] for card in cards] == pytest.approx([6_845, 17_142, 15_169], abs=20)
    assert [card["wait_mean_s"]["verdict"] for card in cards] == ["fail", "fail", "pass"]
    assert [card["wait_p95_s"]["verdict"] for card in cards] == ["fail", "pass", "pass"]
    ranks = [card["wait_rank_correlation"]["simulated"] for card in cards]
    assert ranks == pytest.approx([0.244, 0.457, 0.494], abs=0.005)
    last = cards[-1]
    assert last["wait_mean_s"]["recorded"] == pytest.approx(15_390, abs=1)
    assert last["wait_p95_s"]["error"] < 0.05 * last["wait_p95_s"]["recorded"]
    assert last["wait_ks"]["error"] == pytest.approx(0.322, abs=0.005)
    assert last["wait_ks_coarse"]["error"] == pytest.approx(0.026, abs=0.005)
