"""The benchmark: the same tables however it was run, resumed only as what it was begun as."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module

from experiments import benchmark, cell, schema
from experiments.parallel import run_all
from experiments.rundir import RunFolder
from tests.experiments.test_verbs import call, no_traceback
from twin.errors import UsageError

SMALL = ["seeds=2", "days=0.1", "~controllers.static", "~scenarios.surge", "display=none"]


def tables_of(folder: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.parquet")}
    return {name: content for name, content in found.items() if not name.startswith("cells")}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "run"
    done = call("benchmark", *SMALL, "workers=1", f"out={folder}")
    assert done.returncode == 0, done.stderr
    return folder


def test_one_process_or_two_leave_the_same_tables(alone: Path, tmp_path: Path) -> None:
    done = call("benchmark", *SMALL, "workers=2", f"out={tmp_path / 'two'}")
    assert done.returncode == 0, done.stderr
    assert tables_of(alone) == tables_of(tmp_path / "two")
    assert (alone / "study.json").read_bytes() == (tmp_path / "two" / "study.json").read_bytes()


def interrupted(tmp_path: Path, overrides: list[str], cells: int) -> Path:
    """What an interruption after some cells leaves at `<out>.partial`; returns out."""
    out = tmp_path / "resumed"
    schema.register()
    with initialize_config_module("conf", version_base="1.3"):
        cfg = compose("benchmark", [*overrides, f"out={out}"])
        with suppress(KeyboardInterrupt), RunFolder(out, resumable=True) as folder:
            folder.identify(cfg, "benchmark", cell.read_trace(cfg.trace), [], [])
            for _ in run_all(benchmark.evaluate, benchmark.jobs(cfg, folder.path)[:cells], 1):
                pass
            raise KeyboardInterrupt
    return out


def test_an_interrupted_study_goes_on_to_the_same_tables(alone: Path, tmp_path: Path) -> None:
    out = interrupted(tmp_path, [*SMALL, "workers=1"], cells=5)
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "resumed.partial" / "cells").iterdir()}
    assert len(kept) == 5
    done = call("benchmark", *SMALL, "workers=1", f"out={out}")
    assert done.returncode == 0, done.stderr
    assert tables_of(alone) == tables_of(out)
    again = {path.name: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}
    assert all(again[name] == stamp for name, stamp in kept.items()), "a finished cell was run again"


def test_another_study_is_not_continued_in_its_place(tmp_path: Path) -> None:
    out = interrupted(tmp_path, SMALL, cells=1)
    done = call("benchmark", *SMALL, "limits.max_value=50", f"out={out}")
    assert done.returncode == 2
    assert no_traceback(done)
    assert "begun with other settings (limits)" in done.stderr
    assert (tmp_path / "resumed.partial").exists()


def test_what_may_be_resumed_is_not_cleared_by_another_verb(tmp_path: Path) -> None:
    out = interrupted(tmp_path, SMALL, cells=1)
    done = call("simulate", "until_s=3600", "display=none", f"out={out}")
    assert done.returncode == 2
    assert "may be resumed" in done.stderr
    assert len(list((tmp_path / "resumed.partial" / "cells").iterdir())) == 1


def test_a_retrained_policy_is_another_cell(tmp_path: Path) -> None:
    """A cell is known by the bytes of its policy, not by the path."""
    policy = tmp_path / "policy"
    policy.mkdir()
    (policy / "policy.json").write_text("{}")
    schema.register()
    names = []
    with initialize_config_module("conf", version_base="1.3"):
        cfg = compose("benchmark", [*SMALL, "+controller@controllers.ppo=ppo", f"policies.ppo={policy}"])
        for content in (b"one", b"one", b"two"):
            (policy / "graph.onnx").write_bytes(content)
            names.append({job.done.name for job in benchmark.jobs(cfg, tmp_path) if job.controller == "ppo"})
    assert names[0] == names[1]
    assert not names[0] & names[2]


def test_failing_cells_do_not_end_the_study(tmp_path: Path) -> None:
    """The first failure of this scenario lies before its trace: its cells fail, the others are kept."""
    out = tmp_path / "run"
    done = call("benchmark", *SMALL, "scenarios.node_failures.first_s=-5", f"out={out}")
    assert done.returncode == 4, done.stderr
    assert no_traceback(done)
    assert "time -5 s at least 0" in (out / "identity.json").read_text()


@pytest.mark.parametrize("verb", ["benchmark", "train"])
def test_no_seeds_is_a_usage_error(verb: str, tmp_path: Path) -> None:
    done = call(verb, "seeds=0", f"out={tmp_path / 'run'}")
    assert done.returncode == 2
    assert no_traceback(done)
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_way_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UsageError, match=r"choose another out="), RunFolder(tmp_path / "taken"):
        pass
    assert (tmp_path / "taken").read_text() == "a file"


DEMO = """# @package _global_
name: demo
stations:
  - verb: backtest
    overrides: ["~forecasters.auto_ets", "~forecasters.neural", "extra_traces=[]", every_steps=288]
  - verb: train
    overrides: [seeds=1, learner.learn.settings.total_steps=256, learner.learn.settings.rollout_steps=32]
  - verb: benchmark
    overrides: [seeds=2, days=0.1, "+controller@controllers.ppo=ppo", "policies.ppo={folder}/policies/ppo"]
  - verb: promote
    overrides: ["policy={folder}/policies/ppo", "evidence={folder}", "key={keys}/demo.key"]
  - verb: bridge
    overrides: ["bundle={bundle}", "trusted_key={keys}/demo.key.pub", hours=0.2]
"""


def test_the_demo_walks_every_station_into_one_folder(tmp_path: Path) -> None:
    """A brief one: two seeds of a tenth of a day cannot carry a promotion, so that the rule runs the bridge."""
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "brief.yaml").write_text(DEMO)
    out = tmp_path / "demo"
    overlay = ("--config-dir", str(tmp_path / "conf"))
    done = call("demo", *overlay, "experiment=brief", "display=plain", f"out={out}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(out / "report.html")
    assert "Refuse" in done.stdout
    for left in ("tables/forecasts.parquet", "tables/summary.parquet", "policies/ppo/graph.onnx", "learning.json"):
        assert (out / left).exists(), left
    for left in ("verdicts/ppo.json", "bridge/ledger.jsonl", "fidelity.json", "study.json", "report.html"):
        assert (out / left).exists(), left
    assert not (out / "bundles").exists()
