"""Retraining everything that the default forecasters hold, an hour and a day ahead, on all clusters at hand."""

from __future__ import annotations

import time

import pytest
from hydra import compose, initialize_config_module

from agents.forecast.frames import first
from experiments import cell, schema
from experiments.forecasts import panels
from tests.bench.conftest import Figure

pytestmark = pytest.mark.bench

MOST_S, AIM_S = 600.0, 180.0


def test_the_default_set_is_retrained_within_minutes(figure: Figure) -> None:
    """The ensemble on both grids: two networks, MSTL and Theta per series, fitted for errors, bands and for good."""
    schema.register()
    total_s = total_cpu_s = 0.0
    for grid in panels.GRIDS:
        with initialize_config_module("conf", version_base="1.3"):
            cfg = compose("accuracy", [f"grid={grid}", "out=unused"])
        series = first(panels.panel("cell", grid, None), cfg.train_share)
        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        cell.build(cfg.forecasters[cfg.candidate]).fit(series, cfg.seed)
        took_s, cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
        figure(f"{grid}: {len(series)} series, CPU {cpu_s:.0f} s", took_s, "s", AIM_S / 2)
        total_s, total_cpu_s = total_s + took_s, total_cpu_s + cpu_s
    figure(f"both, CPU {total_cpu_s:.0f} s", total_s, "s, aim", AIM_S)
    assert total_cpu_s < MOST_S
