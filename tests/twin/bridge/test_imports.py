"""The bridge starts where there is neither simulator nor learner."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
LEFT_OUT = ("simpy", "jax", "torch", "flax", "gymnasium", "numba", "stable_baselines3")

# a module entered as None is one that cannot be found, neither by import nor by those who only ask (as polars does)
CODE = """
import importlib, pkgutil, sys

for name in sys.argv[1:]:
    sys.modules[name] = None
import agents.rules, twin.bridge
modules = ["agents.bundle", "agents.policy"]
for package in (twin.bridge, agents.rules):
    modules += [m.name for m in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
for module in modules:
    importlib.import_module(module)
print("\\n".join(modules))
"""


def test_bridge_bundle_policy_and_rules_import_without_simulator_and_learners():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CODE, *LEFT_OUT], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    assert {f"twin.bridge.{m}" for m in ("http_plant", "ledger", "modes", "server", "session")} <= set(
        done.stdout.split()
    )


def test_the_blocker_of_this_test_blocks():
    done = subprocess.run(
        [sys.executable, "-c", CODE + "\nimport twin.simulation\n", *LEFT_OUT],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 1
    assert "ModuleNotFoundError: import of simpy halted" in done.stderr
