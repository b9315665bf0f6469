"""`python -m experiments.demo`: every station once, on the recorded Google 2019 series, into one run folder.

The stations are data (`conf/demo.yaml`): verbs with overrides, exactly as they would be typed. Each writes its part
of the same folder, and the page shows them all.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from hydra import compose
from omegaconf import DictConfig

from agents import bundle
from experiments import backtest, benchmark, bridge, cell, present, promote, train, verb
from experiments.display import Display
from experiments.rundir import RunFolder
from twin.errors import UsageError


def task(cfg: DictConfig, display: Display) -> int:
    """Walk the stations; a refused promotion is a result, not a failure. Returns the exit code."""
    trace = cell.read_trace(cfg.trace)
    display.line(present.identity_line("demo", cfg, trace))
    failed: list[str] = []
    with RunFolder(Path(cfg.out)) as folder, tempfile.TemporaryDirectory() as keys:
        folder.identify(cfg, "demo", trace, verb.command("demo"), verb.overrides())
        bundle.generate_key(Path(keys) / "demo.key")
        # what stands for what in the stations' overrides; the first policy that passes becomes {bundle}
        places = {"{folder}": str(folder.path), "{keys}": keys, "{bundle}": "null"}
        for station in cfg.stations:
            display.line(f"{station.verb} {' '.join(station.overrides)}")
            given = [_placed(text, places) for text in station.overrides]
            ready = compose(station.verb, [*given, f"seed={cfg.seed}", f"out={folder.path}"])
            failed += walk(station.verb, ready, folder, display)
            if station.verb == "promote" and places["{bundle}"] == "null":
                made = folder.path / "bundles" / ready.candidate
                places["{bundle}"] = str(made) if made.exists() else "null"
        folder.status("partly failed" if failed else "completed", "; ".join(failed))
    return verb.conclude(folder.final, cfg, display, failed)


def walk(name: str, cfg: DictConfig, folder: RunFolder, display: Display) -> list[str]:
    """One station in the demo's folder; returns what failed."""
    match name:
        case "backtest":
            return backtest.study(cfg, folder, display)
        case "train":
            train.study(cfg, folder, display)
        case "benchmark":
            return benchmark.study(cfg, folder, display)
        case "promote":
            promote.study(cfg, folder, display)
        case "bridge":
            bridge.study(cfg, folder, display, bridge.in_charge(cfg))
        case _:
            known = "backtest, train, benchmark, promote, bridge"
            raise UsageError(f"conf/demo.yaml: no station {name!r}; there are {known}")
    return []


def _placed(text: str, places: dict[str, str]) -> str:
    for place, value in places.items():
        text = text.replace(place, value)
    return text


def main() -> None:
    """The entry point."""
    verb.main("demo", task)


if __name__ == "__main__":
    main()
