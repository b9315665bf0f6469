"""The benchmark of all opponents: every pair of suite and recording composes, a slice of it runs, the page says it."""

from __future__ import annotations

import contextlib
import io
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig

import twin
from experiments import cell, docs, opponents, schema
from experiments.split import DAY_S, Split, Whole
from reports import wording
from twin.errors import UsageError

HOUR_S = 3600.0
KPIS = ("cost_usd", "late_ratio", "slo_violation_min", "scale_events")
ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = ("hold", "hpa_tuned", "keda", "aws_target", "aws_steps", "aimd", "staffing", "erlang", "seasonal", "oracle")
SLICE = ("days=0.05", "split.warmup_s=1800", "seeds=1", "scenarios.surge.first_s=2400", "scenarios.surge.factor=3")


def composed(overrides: list[str]) -> DictConfig:
    schema.register()
    with initialize_config_module("conf", version_base="1.3"):
        return compose("benchmark", overrides)


@dataclass(frozen=True, slots=True)
class Ran:
    """A small benchmark of two controllers on the recorded Google series, with what it printed and left."""

    arguments: list[str]
    out: Path
    page: Path
    code: int
    said: str

    @property
    def text(self) -> str:
        return self.page.read_text(encoding="utf-8")

    def table(self, name: str) -> pl.DataFrame:
        return pl.read_parquet(self.out / "opponents-google2019" / "tables" / f"{name}.parquet")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("opponents")
    page = folder / "page.md"
    page.write_text("# Mine\n\n<!-- results:begin -->\n<!-- results:end -->\n", encoding="utf-8")
    two = [*SLICE, *(f"~controllers.{name}" for name in LEFT_OUT)]
    wanted = ["--suites", "opponents", "--recordings", "google2019", "nasa", "--workers", "1", "--set", *two]
    arguments = [str(folder / "none"), "--out", str(folder / "runs"), "--page", str(page), *wanted]
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = opponents.main(arguments)
    return Ran(arguments, folder / "runs", page, code, said.getvalue())


def test_the_slice_ran_and_what_is_not_there_is_named(ran: Ran) -> None:
    assert ran.code == 0, ran.said
    assert "nasa: skipped" in ran.said
    assert "Not run here: " in ran.text
    assert "nasa" in ran.text.split("Not run here: ")[1].split("\n")[0]
    assert ran.text.startswith("# Mine\n")


def test_every_cell_of_the_page_is_what_the_runs_say(ran: Ran) -> None:
    """Values as in the results, ratios of the same seed; nothing is on the page that was not run."""
    results = ran.table("results")
    header, rows = table(ran.text, "controller | recorded")
    assert set(rows) == {"hpa", "static"}
    for controller, cells in rows.items():
        for scenario, shown in zip(header[1:], cells, strict=True):
            known = [one(results, controller, scenario, kpi) for kpi in KPIS]
            base = [one(results, "hpa", scenario, kpi) for kpi in KPIS]
            scaled = [round(value * scale, 3) for value, scale in zip(known, (1, 100, 1, 1), strict=True)]
            values, ratios = (part.split(" / ") for part in shown.split("<br>"))
            assert values == [wording.number(value) for value in scaled], (controller, scenario)
            assert ratios == [expected_ratio(a, b) for a, b in zip(known, base, strict=True)], (controller, scenario)


def test_the_headline_is_the_mean_over_scenarios_against_the_baseline(ran: Ran) -> None:
    results = ran.table("results")
    header, rows = table(ran.text, "controller | cost, mean")
    assert header == ["controller", "cost, mean", "google2019"]
    means = {
        (name, kpi): float(results.filter(controller=name, kpi=kpi)["value"].to_numpy().mean())
        for name in rows
        for kpi in ("cost_usd", "late_ratio")
    }
    cost, late = (means["static", kpi] / means["hpa", kpi] for kpi in ("cost_usd", "late_ratio"))
    assert cost != pytest.approx(1.0)
    assert rows["static"] == [wording.number(cost), f"{wording.number(cost)} / {expected_ratio(late, 1.0)}"]
    assert rows["hpa"] == ["1", "1 / 1"]


def test_the_commands_on_the_page_repeat_the_runs_and_name_no_place(ran: Ran) -> None:
    assert str(ran.out) not in ran.text
    assert "experiments.opponents FOLDER --out OUT --page PAGE" in ran.text
    runs = [line for line in ran.text.splitlines() if "experiments.benchmark" in line]
    typed = [shlex.split(line, comments=True) for line in runs]
    assert runs[0].endswith(f"# google2019 {twin.read('google2019').digest()}")
    cfg = composed(typed[0][3:])
    assert sorted(cfg.controllers) == ["hpa", "static"]
    assert cfg.controllers.static.replicas.cell == 59
    assert sorted(cfg.scenarios) == ["node_failures", "recorded", "surge", "telemetry_loss", "zone_failure"]


def test_a_second_run_takes_what_is_there_and_other_settings_are_refused(ran: Ran, capsys: Any) -> None:
    before, written = ran.text, (ran.out / "opponents-google2019" / "identity.json").stat().st_mtime_ns
    assert opponents.main(ran.arguments) == 0
    assert (ran.text, (ran.out / "opponents-google2019" / "identity.json").stat().st_mtime_ns) == (before, written)
    assert opponents.main([*ran.arguments, "seed=7"]) == UsageError.exit_code
    assert "other settings" in capsys.readouterr().err
    assert ran.text == before


def test_without_any_run_there_is_no_page(tmp_path: Path, capsys: Any) -> None:
    arguments = [str(tmp_path), "--out", str(tmp_path / "runs"), "--page", str(tmp_path / "p.md")]
    assert opponents.main([*arguments, "--recordings", "nasa"]) == UsageError.exit_code
    assert "no run folder" in capsys.readouterr().err
    assert not (tmp_path / "p.md").exists()


# ---------------------------------------------------------------- what is fixed


def test_fixed_numbers_are_sized_by_what_came_before_the_time_that_judges() -> None:
    """The highest demand before fills the static replicas to at most 80 %, and one replica fewer would not do."""
    sizes = sized(["experiment=[opponents]"])
    before = twin.read("google2019").between(0.0, 21 * DAY_S).demand["value"].to_numpy()
    static = int(sizes["controllers.static.replicas.cell"])
    assert static - 1 < before.max() * 2000 / (0.8 * 25) <= static
    assert int(sizes["cluster.services.cell.replicas"]) < static
    assert float(sizes["controllers.keda.triggers.0.threshold"]) == pytest.approx(0.8 * 4 / 0.16)
    assert float(sizes["controllers.aimd.threshold"]) == pytest.approx(1.25 * 0.16)


def test_no_fixed_number_is_beyond_what_the_service_may_have() -> None:
    sizes = sized(["experiment=[opponents]", "cluster.services.cell.unit_rps=200000"])
    assert sizes["controllers.static.replicas.cell"] == sizes["cluster.services.cell.replicas"] == "500"


def test_the_fixed_nodes_hold_the_surge() -> None:
    sizes = sized(["experiment=[node_opponents]"])
    fixed = int(sizes["controllers.vpa.controllers.replicas.replicas.cell"])
    assert 8 * int(sizes["cluster.pools.large.nodes"]) >= 1.6 * fixed
    assert "controllers.static.replicas.cell" not in sizes, "what a suite does not have is not set"


def sized(overrides: list[str]) -> dict[str, str]:
    return dict(text.split("=", 1) for text in opponents.sized(composed(overrides)))


@pytest.mark.parametrize(
    ("suite", "recording"),
    [*(("node_opponents", recording) for recording in opponents.RECORDINGS), ("opponents", "azure_llm")],
)
def test_suites_and_recordings_compose(suite: str, recording: str) -> None:
    """Controllers can be built, the service serves a series of its own unit, all know the same bounds."""
    named = suite if recording == "google2019" else f"{suite},{recording}"
    cfg = composed([f"experiment=[{named}]", *(["trace.path=x"] if opponents.RECORDINGS[recording] else [])])
    assert cfg.baseline in cfg.controllers
    assert len(cfg.scenarios) == 5
    assert ("workers" in cfg.cluster.pools) == (suite == "opponents")
    service = cell.build(cfg.cluster).service("cell")
    assert service.max_replicas == cfg.limits.max_value == 500
    for controller in cell.plain(cfg.controllers).values():
        assert cell.build(controller).interval_s > 0


# ---------------------------------------------------------------- short recordings


def test_a_short_recording_is_judged_as_a_whole_and_teaches_nobody() -> None:
    trace = twin.read("google2019").between(0.0, 6 * HOUR_S)
    whole = Whole(warmup_s=HOUR_S)
    assert whole.held_out_from_s(trace) == HOUR_S
    assert whole.held_out(trace).digest() == trace.digest()
    assert whole.held_out(trace, days=0.125).duration_s == 4 * HOUR_S
    for learn in (whole.train, whole.validation):
        with pytest.raises(UsageError, match="judged as a whole"):
            learn(trace)
    with pytest.raises(UsageError, match="leaves none"):
        Whole(warmup_s=6 * HOUR_S).held_out(trace)
    with pytest.raises(UsageError, match="too short"):
        Split().held_out(trace)


# ---------------------------------------------------------------- the repository's own page


def test_the_page_has_its_marks() -> None:
    text = (ROOT / opponents.PAGE).read_text(encoding="utf-8")
    assert docs.replaced(text, "results", "new", opponents.PAGE).count("new") >= 1


def table(text: str, begins: str) -> tuple[list[str], dict[str, list[str]]]:
    """The first table whose header begins so: header, and cells by the name in the first column."""
    lines = text[text.index(f"| {begins}") :].split("\n\n")[0].splitlines()
    split = [[each.strip() for each in line.strip("|").split(" | ")] for line in lines]
    return split[0], {row[0].strip("`"): row[1:] for row in split[2:]}


def one(results: pl.DataFrame, controller: str, scenario: str, kpi: str) -> float:
    return results.filter(controller=controller, scenario=scenario, kpi=kpi)["value"].item()


def expected_ratio(value: float, base: float) -> str:
    if base == 0:
        return "1" if value == 0 else wording.DASH
    return "> 100" if value / base > 100 else wording.number(value / base)
