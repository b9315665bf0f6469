"""`python -m experiments.bridge`: a signed bundle beside (dry-run) or in charge of (live) a plant."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

from omegaconf import DictConfig

from agents import bundle
from agents.rules.guarded import Guarded
from experiments import cell, present, verb
from experiments.display import Display
from experiments.rundir import RunFolder, write_json
from twin.bridge.http_plant import HttpPlant
from twin.bridge.ledger import Ledger
from twin.bridge.session import SessionReport, run_session
from twin.trace import tables
from twin.types import Controller, Limits, Plant

Charge = tuple[Controller, Limits, dict[str, Any]]


def study(cfg: DictConfig, folder: RunFolder, display: Display, charge: Charge) -> SessionReport:
    """Run one session and write `bridge/`: the ledger, the decisions, the report; returns the report.

    `charge` is what `in_charge` gave: a bundle is verified before anything is opened or written.
    """
    controller, limits, about = charge
    out = folder.path / "bridge"
    out.mkdir(exist_ok=True)
    title = f"bridge {cfg.mode.mode}: {controller.name}, {cfg.hours:g} h"
    with (
        folder.phase("bridge"),
        display.phase(title) as advance,
        stop_on_signals() as stopping,
        open_plant(cfg, stopping) as plant,
    ):
        steps = max(1, round(cfg.hours * 3600.0 / controller.interval_s))
        count = iter(range(1, steps + 1))
        report = run_session(
            plant,
            controller,
            limits=limits,
            ledger=Ledger.open(out / "ledger.jsonl"),
            steps=steps,
            on_decision=lambda _d: advance(next(count, steps) / steps, f"{plant.time_s / 3600:.1f} h"),
            stop=stopping.is_set,
            about=about,
            **cell.plain(cfg.mode),
        )
    tables.write(report.decisions, out / "decisions.parquet")
    write_json(out / "report.json", _summary(report, cfg.mode.mode, about))
    display.result(
        f"bridge {report.status} in {cfg.mode.mode}: {report.decisions.height} decisions, {report.limited} limited, "
        f"{report.handed_over} taken by the rule, {report.lost} observations lost, "
        f"ledger of {report.ledger_records} records"
    )
    return report


def in_charge(cfg: DictConfig) -> Charge:
    """(the verified bundle's policy guarded by the fallback rule, its limits, what the ledger says of it).

    Without a bundle the rule decides alone, within the configured limits. Raises BundleError for a damaged one.
    """
    fallback: Controller = cell.build(cfg.fallback)
    if cfg.bundle is None:
        return fallback, cell.build(cfg.limits), {"bundle": None, "policy": fallback.name}
    folder = verb.require(cfg.bundle, "bundle", "give a signed bundle: bundle=runs/promote/.../bundles/ppo")
    trusted = verb.require(cfg.trusted_key, "trusted_key", "give the promoter's public key: trusted_key=KEY.pub")
    policy, manifest = bundle.open(folder, bundle.load_public_key(trusted))
    about = {"bundle": manifest.bundle_id, "policy": policy.name}
    return Guarded(policy, fallback), manifest.limits, about


@contextmanager
def stop_on_signals() -> Iterator[Event]:
    """An event that SIGINT and SIGTERM set: the session ends after the turn at hand and closes its ledger."""
    stopping = Event()
    before = {number: signal.signal(number, lambda *_: stopping.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def open_plant(cfg: DictConfig, stopping: Event) -> Iterator[Plant]:
    """The plant that the configuration names: `plant=twin` or `plant=http plant.url=...`, always over HTTP."""
    if cfg.plant.url:
        token = os.environ.get(cfg.plant.token_variable)
        with HttpPlant(cfg.plant.url, token, wait=stopping.wait) as plant:
            yield plant
        return
    with served_twin(cfg) as url, HttpPlant(url, wait=stopping.wait) as plant:
        yield plant


@contextmanager
def served_twin(cfg: DictConfig) -> Iterator[str]:
    """The address of a twin that replays held-out time behind HTTP on loopback.

    While the bridge only looks on, the incumbent is in charge of it; in mode live the bridge is.
    """
    from experiments.split import Split
    from twin.bridge import server
    from twin.engine.inhabited import InhabitedPlant
    from twin.engine.plant import TwinPlant

    split: Split = cell.build(cfg.split)
    trace = split.held_out(cell.read_trace(cfg.trace))
    twin = TwinPlant(
        trace,
        cell.build(cfg.cluster),
        scheduler=cell.build(cfg.scheduler),
        serving=cell.build(cfg.serving),
        events=(),
        record=cell.build(cfg.record),
        until_s=trace.duration_s,
        seed=cfg.seed,
    )
    live = cfg.mode.mode == "live"
    plant = twin if live else InhabitedPlant(twin, cell.build(cfg.incumbent), cell.build(cfg.limits))
    with server.serve(server.app(plant, simulated=True)) as url:
        yield url


def _summary(report: SessionReport, mode: str, about: dict[str, Any]) -> dict[str, Any]:
    return {
        "mode": mode,
        "status": report.status,
        "decisions": report.decisions.height,
        "limited": report.limited,
        "lost": report.lost,
        "handed_over": report.handed_over,
        "mean_difference": report.disagreement,
        "ledger_records": report.ledger_records,
        "ledger_head": report.ledger_head,
        **about,
    }


def task(cfg: DictConfig, display: Display) -> int:
    """Run a session, write the run folder and its report; returns 0 when it ran to its end or was stopped, else 4."""
    trace = None if cfg.plant.url else cell.read_trace(cfg.trace)  # a live plant needs no recording
    display.line(present.identity_line("bridge", cfg, trace))
    charge = in_charge(cfg)
    # resumable: whatever happens, a ledger is never cleared away
    with RunFolder(Path(cfg.out), resumable=True) as folder:
        folder.identify(cfg, "bridge", trace, verb.command("bridge"), verb.overrides())
        report = study(cfg, folder, display, charge)
        done = report.status in ("completed", "stopped")
        folder.status("completed" if done else "partly failed", report.status)
    present.finish(folder.final, cfg, display)
    return verb.DONE if done else verb.PARTLY


def main() -> None:
    """The entry point."""
    verb.main("bridge", task)


if __name__ == "__main__":
    main()
