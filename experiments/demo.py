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
from twin.trace import tables

_PRESENT = {"backtest", "train", "benchmark", "promote", "bridge"}


def task(cfg: DictConfig, display: Display) -> int:
    """Walk the stations; a refused promotion is a result, not a failure. Returns the exit code."""
    trace = cell.read_trace(cfg.trace)
    display.line(present.identity_line("demo", cfg, trace))
    failed: list[str] = []
    with RunFolder(Path(cfg.out)) as folder:
        folder.identify(cfg, "demo", trace, verb.command("demo"), verb.overrides())
        with tempfile.TemporaryDirectory() as keys:
            bundle.generate_key(Path(keys) / "demo.key")
            for station in cfg.stations:
                failed += walk(station.verb, list(station.overrides), cfg, folder, Path(keys), display)
        folder.status("partly failed" if failed else "completed", "; ".join(failed))
    for text in failed:
        display.line(f"failed: {text}")
    present.finish(folder.final, cfg, display)
    return verb.PARTLY if failed else verb.DONE


def walk(
    name: str, overrides: list[str], cfg: DictConfig, folder: RunFolder, keys: Path, display: Display
) -> list[str]:
    """One station in the demo's folder; returns what failed. See conf/demo.yaml for the {places} in overrides."""
    if name not in _PRESENT:
        raise UsageError(f"no station {name!r}; there are {sorted(_PRESENT)}")
    passed = sorted((folder.path / "bundles").glob("*/manifest.json"))
    places = {
        "{folder}": str(folder.path),
        "{keys}": str(keys),
        "{bundle}": str(passed[0].parent) if passed else "null",
    }
    given = [_placed(text, places) for text in overrides]
    station = compose(name, [*given, f"seed={cfg.seed}", f"out={folder.path}"])
    display.line(f"{name} {' '.join(overrides)}")
    match name:
        case "backtest":
            return backtest.study(station, folder, display)
        case "train":
            train.study(station, folder, display)
        case "benchmark":
            failed = benchmark.study(station, folder, display)
            benchmark.show(
                tables.read(folder.path / "tables" / "summary.parquet", "summary"), station.baseline, display
            )
            return failed
        case "promote":
            promote.study(station, folder, display)
        case "bridge":
            bridge.study(station, folder, display)
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
