"""The gate that ships insists on the scenarios that the benchmark runs."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_module

from experiments import schema


@pytest.mark.parametrize("gate", ["default", "strict"])
def test_the_gate_names_the_benchmarks_scenarios(gate: str) -> None:
    schema.register()
    with initialize_config_module("conf", version_base="1.3"):
        assert set(compose("promote", [f"gate={gate}"]).gate.scenarios) == set(compose("benchmark").scenarios)
