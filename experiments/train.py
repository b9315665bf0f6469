"""`python -m experiments.train`: one learner, several training seeds, the best on validation time kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl
from omegaconf import DictConfig

from experiments import cell, present, verb
from experiments.display import Display
from experiments.lesson import Learned, Lesson, teach
from experiments.parallel import run_all
from experiments.rundir import RunFolder, write_json
from twin.errors import UsageError, WorkbenchError


def study(cfg: DictConfig, folder: RunFolder, display: Display) -> Path:
    """Train every seed and keep the best as `policies/<learner>`; returns that folder."""
    if cfg.seeds < 1:
        raise UsageError(f"seeds={cfg.seeds} must be at least 1")
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
