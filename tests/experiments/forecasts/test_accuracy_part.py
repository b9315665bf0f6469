"""From scores to the page: levels with intervals, targets, and accuracy never alone and never of single machines."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from agents.forecast.scoring import ALL
from experiments.forecasts import accuracy_part, accuracy_targets
from experiments.forecasts.accuracy_levels import NATIVE, STATISTICAL, geometric_mean, levels, widest
from experiments.forecasts.accuracy_targets import Panel, Target
from twin.errors import UsageError
from twin.trace import tables

SERIES = ("azure_v2/cpu", "google2019/cpu", "alibaba2018/cpu")
STEPS = {"5min": 12, "hourly": 24}


def row(forecaster, unique_id, horizon, regime=ALL, *, mae=1.0, crps=1.0, accuracy=99.0, level="cell", grid="5min"):
    return {
        "level": level, "grid": grid, "forecaster": forecaster, "unique_id": unique_id, "horizon": horizon,
        "regime": regime, "origins": 24, "accuracy_percent": accuracy, "wape": 1 - accuracy / 100, "mase": 0.5,
        "scaled_crps": 0.02, "coverage_80": 0.8, "skill": 0.1, "bias": 0.01, "mae": mae, "crps": crps,
    }  # fmt: skip


def scores(level="cell", grid="5min", accuracies=(99.0, 96.0, 90.0)):
    last = STEPS[grid]
    bands = [f"1-{last}", f"{last // 2 + 1}-{last}", *map(str, range(1, last + 1))]
    rows = []
    for forecaster, mae in ((NATIVE, 4.0), (STATISTICAL, 2.0), ("naive", 2.0), ("mine", 1.0)):
        for unique_id, accuracy in zip(SERIES, accuracies, strict=True):
            facts = {"mae": mae, "crps": mae, "accuracy": accuracy, "level": level, "grid": grid}
            rows += [row(forecaster, unique_id, band, **facts) for band in bands]
            rows.append(row(forecaster, unique_id, bands[0], "rough", **facts))
    return pl.DataFrame(rows)


def panel(level="cell", grid="5min", accuracies=(99.0, 96.0, 90.0), **facts):
    identity = {
        "verb": "accuracy", "seed": 0, "candidate": "mine", "statistical": ["ets"], "absent": [], "failures": {},
        "overrides": [f"level={level}", f"grid={grid}", "data=/some/where"], **facts,
    }  # fmt: skip
    return Panel(level, grid, scores(level, grid, accuracies), identity)


def test_coverage_is_told_where_it_is_farthest_off_if_half_of_the_series_know_the_regime():
    frame = panel().scores
    rough = (pl.col("regime") == "rough") & (pl.col("forecaster") == "mine")
    frame = frame.with_columns(
        coverage_80=pl.when(rough).then(0.9).when(pl.col("horizon") == "7-12").then(0.75).otherwise(0.8)
    )
    assert replace(panel(), scores=frame).coverage_farthest_off() == ("rough", pytest.approx(0.9))
    few = frame.filter(rough.not_() | (pl.col("unique_id") == SERIES[0]))
    assert replace(panel(), scores=few).coverage_farthest_off() == ("steps 7-12", pytest.approx(0.75))


def test_the_scores_are_those_of_the_schema():
    tables.conform(scores(), "accuracy_scores", "test")


def test_a_level_is_the_median_the_worst_and_geometric_means_of_ratios():
    frame = scores().with_columns(
        mae=pl.when((pl.col("forecaster") == "mine") & (pl.col("unique_id") == SERIES[0])).then(4.0).otherwise("mae")
    )
    mine = levels(frame, 0).filter(forecaster="mine").row(0, named=True)
    assert (mine["accuracy_percent"], mine["worst_percent"], mine["worst"]) == (96.0, 90.0, "alibaba2018/cpu")
    assert mine["crps_ratio"] == pytest.approx(1 / 4)
    assert mine["mae_ratio"] == pytest.approx((2.0 * 0.5 * 0.5) ** (1 / 3))
    assert levels(frame, 0)["forecaster"][0] == "mine"  # the best first


def test_a_failed_series_leaves_no_number_to_flatter():
    gap = (pl.col("forecaster") == "mine") & (pl.col("unique_id") == SERIES[1])
    names = ("accuracy_percent", "skill", "mase", "scaled_crps", "coverage_80", "mae", "crps")
    frame = scores().with_columns(pl.when(gap).then(math.nan).otherwise(name).alias(name) for name in names)
    mine = levels(frame, 0).filter(forecaster="mine").row(0, named=True)
    assert all(math.isnan(mine[name]) for name in (*names[:5], "worst_percent", "crps_ratio", "mae_ratio"))


def test_ratios_have_an_interval_over_series_that_holds_their_geometric_mean():
    ratios = np.exp(np.random.default_rng(0).normal(-0.2, 0.3, 11))
    value, low, high = geometric_mean(ratios, 0, "x")
    assert low < value < high
    assert value == pytest.approx(np.exp(np.log(ratios).mean()))
    assert geometric_mean(ratios, 0, "x") == (value, low, high)
    assert math.isnan(geometric_mean([0.5, math.nan], 0, "x")[0])
    assert geometric_mean([0.0, 1.0], 0, "x")[0] == pytest.approx(1e-3)  # a ratio of 0 counts as a millionth


def test_the_widest_band_pools_all_steps():
    assert widest(pl.DataFrame({"horizon": ["12", "1-3", "7-12", "1-12", "1"]})) == "1-12"


@pytest.mark.parametrize(
    ("value", "must", "aim", "met"),
    [
        (98.0, (97.5, math.inf), (98.0, math.inf), "aim"),
        (97.6, (97.5, math.inf), (98.0, math.inf), "must"),
        (97.4, (97.5, math.inf), (98.0, math.inf), "no"),
        (0.93, (-math.inf, 0.97), (-math.inf, 0.94), "aim"),
        (0.98, (-math.inf, 0.97), (-math.inf, 0.94), "no"),
        (0.83, (0.77, 0.83), (0.78, 0.82), "must"),
        (0.84, (0.77, 0.83), (0.78, 0.82), "no"),
        (math.nan, (0.77, 0.83), (0.78, 0.82), "–"),
    ],
)
def test_a_target_is_met_where_the_value_lies_within_the_bound(value, must, aim, met):
    assert Target("1 h", "what", must, aim, value).met == met


def test_the_targets_are_those_that_were_set():
    found = accuracy_targets.targets([])
    bounds = [(t.what.removeprefix("single machines: "), t.shown(t.must), t.shown(t.aim)) for t in found]
    assert bounds[:9] == [
        ("accuracy, median over clusters' resources", ">= 97.5 %", ">= 98 %"),
        ("MAE against the mean of the statistical models", "<= 0.97", "<= 0.94"),
        ("accuracy on azure_v2/cpu", ">= 98.4 %", ">= 98.6 %"),
        ("accuracy on google2019/cpu", ">= 95.3 %", ">= 96 %"),
        ("accuracy on alibaba2018/cpu", ">= 90 %", ">= 91 %"),
        ("accuracy, median over clusters' resources", ">= 95.8 %", ">= 96.5 %"),
        ("MAE against the mean of the statistical models", "<= 0.92", "<= 0.85"),
        ("CRPS against the seasonal naive", "<= 0.33", "<= 0.28"),
        ("CRPS against the seasonal naive", "<= 0.42", "<= 0.37"),
    ]
    assert [t.shown(t.must) for t in found[9:]] == ["0.77 to 0.83"] * 8
    assert all(t.measured == "not run" for t in found)


def test_targets_are_held_against_the_candidate():
    found = {t.what: t for t in accuracy_targets.targets([panel()]) if t.horizon.startswith("5")}
    assert found["accuracy on azure_v2/cpu"].value == 99.0
    assert found["accuracy on azure_v2/cpu"].met == "aim"
    assert found["accuracy on google2019/cpu"].met == "aim"
    assert found["accuracy on alibaba2018/cpu"].met == "must"
    assert found["MAE against the mean of the statistical models"].value == pytest.approx(0.5)


def test_accuracy_never_stands_alone():
    said = accuracy_part.results([panel(), panel(grid="hourly")])
    headers = [line for line in said.splitlines() if re.search(r"\| accuracy.*%", line) and "must" not in line]
    tabled = [line for line in headers if not line.startswith(("| 5 to", "| 1 to"))]
    assert len(tabled) == 2 * 3
    assert all({"skill", "MASE", "scaled CRPS", "coverage of 80 %"} <= set(line.split(" | ")) for line in tabled)


def test_no_accuracy_is_claimed_for_single_machines():
    said = accuracy_part.results([panel(level="machine"), panel(level="machine", grid="hourly")])
    body = said.split("## Single machines", 1)[1].split("## Why not everywhere")[0]
    assert "accuracy" not in body


def test_the_page_says_where_the_wished_percentage_is_not_reached():
    said = accuracy_part.results([panel()])
    assert "`mine` reaches it on 1 of 3 series (azure_v2/cpu)" in said
    assert "google2019/cpu 96 % (changes by 4 % from one step to the next); alibaba2018/cpu 90 %" in said


def test_the_page_names_what_was_not_there_not_run_and_failed():
    said = accuracy_part.results([panel(absent=["nab"], failures={"mine": {"azure_v2/cpu": "why"}})])
    assert "not scored, for it was not there: nab." in said
    assert "Not run: Whole clusters, 1 to 24 h ahead; Single machines" in said
    assert "Failed, and shown as a dash: `mine` on azure_v2/cpu." in said


def test_no_place_of_a_machine_is_written():
    said = accuracy_part.results([panel()])
    assert "python -m experiments.accuracy level=cell grid=5min data=FOLDER" in said
    assert "/some/where" not in said


def test_run_folders_are_read_and_what_is_none_or_twice_the_same_is_refused(tmp_path):
    one = panel()
    (tmp_path / "tables").mkdir()
    one.scores.write_parquet(tmp_path / "tables" / "accuracy_scores.parquet")
    (tmp_path / "identity.json").write_text(json.dumps({"format_version": 1, **one.identity}), encoding="utf-8")
    said = accuracy_part.written([tmp_path])
    assert "| 5 to 60 min | accuracy on azure_v2/cpu | >= 98.4 % | >= 98.6 % | 99 % | aim |" in said
    with pytest.raises(UsageError, match="same level and grid"):
        accuracy_part.written([tmp_path, tmp_path])
    with pytest.raises(UsageError, match="holds no accuracy_scores"):
        accuracy_part.written([tmp_path / "tables"])
