"""`python -m experiments.benchmark`: controllers x scenarios x seeds on common random numbers, over held-out time."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl
from omegaconf import DictConfig

from experiments import cell, fidelity, present, verb
from experiments.cell import Cell
from experiments.display import Display
from experiments.intervals import summarise
from experiments.parallel import run_all
from experiments.rundir import RunFolder, write_json
from twin.errors import UsageError, WorkbenchError
from twin.trace import tables

SHOWN_SEED = 0  # runs of this seed keep their tables, so that the report can show them


@dataclass(frozen=True, slots=True)
class Job:
    """A cell with its labels, the folder that takes what it leaves, and the digest of what it depends on beside it."""

    controller: str
    scenario: str
    cell: Cell
    folder: Path
    inputs: str

    @property
    def done(self) -> Path:
        """The cell's scored results; there once the cell is finished, so that a study can be resumed."""
        known = [self.controller, self.scenario, cell.fingerprinted(asdict(self.cell)), self.inputs]
        text = json.dumps(known, sort_keys=True, default=str)
        return self.folder / "cells" / f"{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}.parquet"


def evaluate(job: Job) -> Path:
    """Run the job's cell and write its results; returns where they are."""
    if job.done.exists():
        return job.done
    run, warmup_s = cell.run(job.cell)
    kpis = run.kpis(warmup_s)
    if job.cell.seed == SHOWN_SEED:
        shown = job.folder / "runs" / f"{job.scenario}--{job.controller}"
        shown.mkdir(parents=True, exist_ok=True)
        for name, frame in {**run.tables(), "kpis": kpis}.items():
            tables.write(frame, shown / f"{name}.parquet")
    labels = {"controller": job.controller, "scenario": job.scenario, "seed": job.cell.seed}
    job.done.parent.mkdir(parents=True, exist_ok=True)
    results = tables.conform(kpis.with_columns(**{k: pl.lit(v) for k, v in labels.items()}), "results", "benchmark")
    tables.write(results, job.done)
    return job.done


def jobs(cfg: DictConfig, folder: Path) -> list[Job]:
    """One job per cell; raises UsageError when the baseline or a policy is missing."""
    if cfg.baseline not in cfg.controllers:
        raise UsageError(f"baseline={cfg.baseline} is not among the controllers {list(cfg.controllers)}")
    if cfg.seeds < 1:
        raise UsageError(f"seeds={cfg.seeds} must be at least 1")
    shared = cell.scene(cfg)
    inputs = f"{cell.code_digest()} {cell.read_trace(cfg.trace).digest()}"
    return [
        Job(
            name,
            label,
            Cell(shared, cell.plain(scenario), _of_seed(controller, seed), seed, days=cfg.days),
            folder,
            inputs,
        )
        for label, scenario in cell.plain(cfg.scenarios).items()
        for name, controller in cfg.controllers.items()
        for seed in range(cfg.seed, cfg.seed + cfg.seeds)
    ]


def described(cfg: DictConfig) -> dict[str, Any]:
    """What was compared, for whoever judges by it: scene, scenarios, controllers, each policy by its digest."""
    controllers = {name: _of_seed(controller, cfg.seed) for name, controller in cfg.controllers.items()}
    return {
        "scene": cell.scene(cfg),
        "trace_digest": cell.read_trace(cfg.trace).digest(),
        "scenarios": cell.plain(cfg.scenarios),
        "controllers": {name: cell.fingerprinted(controller) for name, controller in controllers.items()},
        "baseline": cfg.baseline,
        "seeds": list(range(cfg.seed, cfg.seed + cfg.seeds)),
        "days": cfg.days,
    }


def _of_seed(controller: DictConfig, seed: int) -> dict[str, Any]:
    """The controller's configuration, `{seed}` in it being the run's: so each run can meet another training seed."""
    return json.loads(json.dumps(cell.plain(controller)).replace("{seed}", str(seed)))


def study(cfg: DictConfig, folder: RunFolder, display: Display) -> list[str]:
    """Run all cells and write results and summary; returns what failed, in words."""
    todo = jobs(cfg, folder.path)
    failures: dict[Path, str] = {}
    done: dict[Path, pl.DataFrame] = {}
    title = f"{len(cfg.controllers)} controllers x {len(cfg.scenarios)} scenarios x {cfg.seeds} seeds"
    with folder.phase("benchmark"), display.phase(title) as advance:
        for count, (job, result) in enumerate(run_all(evaluate, todo, cfg.workers), start=1):
            if isinstance(result, WorkbenchError):
                failures[job.done] = f"{job.scenario} / {job.controller} / seed {job.cell.seed}: {result}"
            else:
                done[job.done] = tables.read(result, "results")
            advance(count / len(todo), f"{count} of {len(todo)} runs{f', {len(failures)} failed' if failures else ''}")
    failed = [failures[job.done] for job in todo if job.done in failures]
    if not done:
        raise WorkbenchError(f"no run of the benchmark succeeded; the first: {failed[0]}")
    # in the order of the configuration, whatever finished first
    results = pl.concat([done[job.done] for job in todo if job.done in done])
    summary = summarise(results, cfg.baseline, seed=cfg.seed)
    write_json(folder.path / "study.json", described(cfg))
    folder.table("results", results)
    folder.table("summary", summary)
    _write_fidelity(todo[0], folder)
    show(summary, cfg.baseline, display)
    return failed


def _write_fidelity(job: Job, folder: RunFolder) -> None:
    """How well the unchanged recording was mirrored, from the first controller's run of it."""
    trace, *_ = cell.stage(job.cell)
    run, _ = cell.run(job.cell)
    write_json(folder.path / "fidelity.json", fidelity.of_replay(trace, run))
    folder.note(shown_from_s=trace.info.start_s, cluster=asdict(run.cluster))


def show(summary: pl.DataFrame, baseline: str, display: Display) -> None:
    """The headline KPIs per scenario and controller, each with its ratio to the baseline."""
    headline = ("cost_usd", "late_ratio", "slo_violation_min", "scale_events")
    frame = summary.filter(pl.col("kpi").is_in(headline)).select(
        "scenario", "controller", "kpi", "unit", "value", "low", "high", pl.col("ratio").alias(f"ratio to {baseline}"),
        "ratio_low", "ratio_high",
    )  # fmt: skip
    for kpi in headline:
        display.table(f"{kpi}", frame.filter(kpi=kpi).drop("kpi").sort("scenario", "value"))


def task(cfg: DictConfig, display: Display) -> int:
    """Benchmark, write the run folder and its report; returns the exit code (4 when some cells failed)."""
    trace = cell.read_trace(cfg.trace)
    jobs(cfg, Path(cfg.out))  # what is wrong with the configuration is said before anything is written
    display.line(present.identity_line("benchmark", cfg, trace))
    with RunFolder(Path(cfg.out), resumable=True) as folder:
        folder.identify(cfg, "benchmark", trace, verb.command("benchmark"), verb.overrides())
        failed = study(cfg, folder, display)
        folder.status("partly failed" if failed else "completed", "; ".join(failed))
    return verb.conclude(folder.final, cfg, display, failed)


def main() -> None:
    """The entry point."""
    verb.main("benchmark", task)


if __name__ == "__main__":
    main()
