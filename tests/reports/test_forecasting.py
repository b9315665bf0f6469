from __future__ import annotations

import json

import polars as pl

from reports import forecasting

ACCURACY = pl.DataFrame(
    {"unique_id": ["s"] * 2, "day": [4, 5], "operated_percent": [95.004, 94.0], "untouched_percent": [95.0, 76.0]}
)
EVENTS = pl.DataFrame(
    {
        "time_s": [345_600.0, 388_800.0, 432_000.0, 432_000.0],
        "trigger": ["age", "drift: level", "drift: level", "drift: level"],
        "verdict": ["noticed", "noticed", "kept", "swapped"],
    }
)


def test_both_accuracies_stand_on_one_clock() -> None:
    table = forecasting.by_day(ACCURACY)
    assert table.filter(who="never retrained")["percent"].to_list() == [95.0, 76.0]
    assert table.filter(who="retrained")["percent"].to_list() == [95.0, 94.0]


def test_a_rule_stands_where_drift_was_noticed_or_a_champion_swapped_and_nowhere_else() -> None:
    table = forecasting.moments(EVENTS)
    assert table["day"].to_list() == [4.5, 5.0]
    assert table["what"].to_list() == ["drift: level: noticed", "drift: level: swapped"]


def test_the_chart_carries_both_tables() -> None:
    chart = forecasting.retraining(ACCURACY, EVENTS).to_dict()
    assert {"retraining_accuracy", "retraining_moments"} <= set(chart["datasets"])
    assert "never retrained" in json.dumps(chart)
