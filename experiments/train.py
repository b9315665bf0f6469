"""`python -m experiments.train`: one learner, several training seeds, the best on validation time kept."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import polars as pl
from omegaconf import DictConfig

from experiments import cell, present, verb
from experiments.cell import Cell
from experiments.display import Display
from experiments.parallel import run_all
from experiments.rundir import RunFolder, write_json
from experiments.split import Split
from twin.errors import WorkbenchError


@dataclass(frozen=True, slots=True)
class Lesson:
    """One training: the learner's configuration, the scene, a seed, and the folder of the policy."""

    learner: dict[str, Any]
    scene: dict[str, Any]
    scenarios: dict[str, Any]
    seed: int
    out: Path
    late_price: float


@dataclass(frozen=True, slots=True)
class Learned:
    """What a training left: its curve, and the means over all scenarios on validation time (lower is better).

    The score is cost x (1 + late_price x late ratio): `late_price` says what a late request is worth in capacity.
    """

    curve: list[tuple[int, float]]
    score: float
    cost_usd: float
    late_ratio: float


def teach(lesson: Lesson) -> Learned:
    """Train on training time, then replay validation time under every scenario with the exported graph."""
    split: Split = cell.build(lesson.scene["split"])
    whole = cell.read_trace(lesson.scene["trace"])
    curve = cell.build(lesson.learner)(
        lesson.out,
        trace=split.train(whole),
        cluster=cell.build(lesson.scene["cluster"]),
        seed=lesson.seed,
    )
    facts = {
        "trace": whole.info.name,
        "trace_digest": whole.digest(),
        "train_until_s": split.held_out_from_s(whole),  # validation time counts as seen: it chose
        "seed": lesson.seed,
        "learner": lesson.learner,
    }
    write_json(lesson.out / "training.json", facts)
    found = [_validate(lesson, scenario) for scenario in lesson.scenarios.values()]
    costs, lates = zip(*found, strict=True)
    scores = [cost * (1.0 + lesson.late_price * late) for cost, late in found]
    return Learned(curve, fmean(scores), fmean(costs), fmean(lates))


def _validate(lesson: Lesson, scenario: dict[str, Any]) -> tuple[float, float]:
    """(cost in USD, late ratio) of the trained graph on validation time."""
    policy = {"_target_": "agents.policy.load", "folder": str(lesson.out)}
    run, warmup_s = cell.run(Cell(lesson.scene, scenario, policy, lesson.seed, part="validation"))
    kpis = dict(
        run.kpis(warmup_s).filter(pl.col("kpi").is_in(["cost_usd", "late_ratio"])).select("kpi", "value").iter_rows()
    )
    return kpis["cost_usd"], kpis["late_ratio"]


def study(cfg: DictConfig, folder: RunFolder, display: Display) -> Path:
    """Train every seed and keep the best as `policies/<learner>`; returns that folder."""
    name = cfg.learner.name
    trials = folder.path / "trials" / name
    lessons = [
        Lesson(
            cell.plain(cfg.learner.learn),
            cell.scene(cfg),
            cell.plain(cfg.scenarios),
            seed,
            trials / f"seed-{seed}",
            cfg.late_price,
        )
        for seed in range(cfg.seed, cfg.seed + cfg.seeds)
    ]
    learned: dict[int, Learned] = {}
    with folder.phase(f"train {name}"), display.phase(f"train {name}, {cfg.seeds} seeds") as advance:
        for lesson, result in run_all(teach, lessons, cfg.workers):
            if isinstance(result, WorkbenchError):
                raise result
            learned[lesson.seed] = result
            advance(len(learned) / len(lessons), f"{len(learned)} of {len(lessons)} seeds")
    best = min(sorted(learned), key=lambda seed: learned[seed].score)
    chosen = folder.path / "policies" / name
    chosen.parent.mkdir(exist_ok=True)
    shutil.copytree(trials / f"seed-{best}", chosen)
    _write_choice(folder, name, learned[best])
    _write_curves(folder.path / "learning.json", name, learned)
    display.table(f"{name}: validation ({cfg.split.validation_days} days), seed {best} chosen", _table(learned))
    return chosen


def _write_choice(folder: RunFolder, name: str, best: Learned) -> None:
    """The chosen policy's validation figures as KPIs, so that sweeps of learners can be compared."""
    rows = [
        (kpi, name, getattr(best, kpi), unit, "lower")
        for kpi, unit in (("score", "USD"), ("cost_usd", "USD"), ("late_ratio", "ratio"))
    ]
    folder.table("kpis", pl.DataFrame(rows, schema=["kpi", "entity", "value", "unit", "better"], orient="row"))


def _write_curves(path: Path, name: str, learned: dict[int, Learned]) -> None:
    known = json.loads(path.read_text(encoding="utf-8"))["curves"] if path.exists() else []
    curves = [
        {"policy": name, "seed": seed, "step": step, "reward": reward}
        for seed in sorted(learned)
        for step, reward in learned[seed].curve
    ]
    write_json(path, {"curves": [c for c in known if c["policy"] != name] + curves})


def _table(learned: dict[int, Learned]) -> pl.DataFrame:
    seeds = sorted(learned)
    return pl.DataFrame(
        {
            "seed": seeds,
            "score": [learned[s].score for s in seeds],
            "cost_usd": [learned[s].cost_usd for s in seeds],
            "late_ratio": [learned[s].late_ratio for s in seeds],
        }
    )


def task(cfg: DictConfig, display: Display) -> int:
    """Train, choose, write the run folder and its report; returns the exit code."""
    trace = cell.read_trace(cfg.trace)
    display.line(present.identity_line("train", cfg, trace))
    with RunFolder(Path(cfg.out)) as folder:
        folder.identify(cfg, "train", trace, verb.command("train"), verb.overrides())
        chosen = study(cfg, folder, display)
    display.line(f"policy: {folder.final / chosen.relative_to(folder.path)}")
    present.finish(folder.final, cfg, display)
    return verb.DONE


def main() -> None:
    """The entry point."""
    verb.main("train", task)


if __name__ == "__main__":
    main()
