"""`python -m experiments.simulate`: replay one trace under one controller and scenario."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from experiments import cell, fidelity, present, verb
from experiments.cell import Cell
from experiments.display import Display, simulated
from experiments.rundir import RunFolder, write_json


def task(cfg: DictConfig, display: Display) -> int:
    """Simulate, write the run folder and its report; returns the exit code."""
    one = Cell(
        scene=cell.scene(cfg),
        scenario=cell.plain(cfg.scenario),
        controller=cell.plain(cfg.controller),
        seed=cfg.seed,
        part=cfg.part,
        until_s=cfg.until_s,
    )
    trace = cell.read_trace(cfg.trace)
    display.line(present.identity_line("simulate", cfg, trace))
    with RunFolder(Path(cfg.out)) as folder:
        folder.identify(cfg, "simulate", trace, verb.command("simulate"), verb.overrides())
        with folder.phase("simulate"), display.phase(f"simulate {trace.info.name}, {cfg.part}") as advance:
            staged, *_, warmup_s = cell.stage(one)
            run, _ = cell.run(one, simulated(advance, cfg.until_s or staged.duration_s, "simulated"))
        kpis = run.kpis(warmup_s)
        folder.table("kpis", kpis)
        for name, frame in {**run.tables(), "kpis": kpis}.items():
            folder.table(name, frame, f"runs/{verb.choice('scenario')}--{verb.choice('controller')}")
        write_json(folder.path / "fidelity.json", fidelity.of_replay(staged, run))
        folder.note(shown_from_s=staged.info.start_s)
    display.table("KPIs", kpis)
    present.finish(folder.final, cfg, display)
    return verb.DONE


def main() -> None:
    """The entry point."""
    verb.main("simulate", task)


if __name__ == "__main__":
    main()
