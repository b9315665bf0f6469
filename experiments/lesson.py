"""One lesson: a learner trains on training time with one seed, and validation time says what it is worth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments import cell
from experiments.cell import Cell
from experiments.rundir import write_json
from experiments.split import Split


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
    kpis = dict(run.kpis(warmup_s).select("kpi", "value").iter_rows())
    return kpis["cost_usd"], kpis["late_ratio"]
