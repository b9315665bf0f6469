"""`python -m experiments.pretrain`: the networks that the project ships, from recorded series and mixtures of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from omegaconf import DictConfig

from agents.forecast.frames import Series, first
from agents.forecast.neural import Neural, Windows
from experiments import cell, present, verb
from experiments.display import Display
from experiments.forecasts import panels
from experiments.rundir import RunFolder
from twin import seeds
from twin.errors import UsageError

CARD = "CARD.md"
_DAY_S = 86_400
_LEAST_DAYS, _MOST_DAYS = 20, 83  # of a series to be mixed, and of what is made of it
_MIXED_SHARE = 0.9  # of a recording: its last tenth chooses when to stop
_EVENNESS = 1.5  # of a mixture's weights: the parameter of their Dirichlet distribution


def study(cfg: DictConfig, folder: RunFolder, display: Display) -> None:
    """Train a network for each grid and write it beside the card that says what it has seen."""
    data = verb.require(cfg.data, "data", "give the folder of recordings")
    seen = []
    for name, wanted in cfg.networks.items():
        series = _allowed(panels.extras(wanted.grid, data), cfg.recordings)
        series += mixed(series, wanted.mixed, cfg.seed)
        net: Neural = cell.build(wanted.net.base)
        with folder.phase(str(name)), display.phase(f"{name}: {len(series)} series") as advance:
            net.fit(series, cfg.seed, advance).save(folder.path / f"{name}.npz")
        taught = set(Windows.of(net, series).ids)  # a short series lends nothing
        seen += [_row(str(name), each) for each in series if each.unique_id in taught]
    table = pl.DataFrame(seen)
    (folder.path / CARD).write_text(card(table, cfg), encoding="utf-8")
    display.table(
        "Learned from", table.group_by("network", "source", maintain_order=True).agg(pl.len(), pl.sum("steps"))
    )


def _allowed(series: Sequence[Series], recordings: Sequence[str]) -> list[Series]:
    """The series of those recordings; raises UsageError when one has none."""
    found = [each for each in series if _source(each) in recordings]
    absent = sorted(set(recordings) - {_source(each) for each in found} - set(panels.HOURLY_ONLY))
    if absent:
        raise UsageError(f"no series of {absent[0]!r} in data=...; leave it out of recordings, or get the recording")
    return found


def mixed(series: Sequence[Series], count: int, seed: int) -> list[Series]:
    """Weighted means of two or three recorded series, each over stretches that begin at the same time of day.

    What networks of this size lack is not steps but series (TSMixup: Ansari et al., 2024, Chronos, section 4.1).
    """
    per_day = _DAY_S // series[0].step_s
    long = [_from_midnight(each, per_day) for each in first(series, _MIXED_SHARE)]
    long = [each for each in long if len(each.values) >= _LEAST_DAYS * per_day]
    rng = seeds.child(seed, "mixed")
    return [_mix(f"mixed/{k}", long, per_day, rng) for k in range(count)]


def _from_midnight(series: Series, per_day: int) -> Series:
    skipped = -series.start_s // series.step_s % per_day
    return replace(series, start_s=series.start_s + skipped * series.step_s, values=series.values[skipped:])


def _mix(name: str, series: Sequence[Series], per_day: int, rng: np.random.Generator) -> Series:
    members = [series[k] for k in rng.choice(len(series), rng.integers(2, 4), replace=False)]
    steps = min(*(len(each.values) for each in members), _MOST_DAYS * per_day)
    mean = np.zeros(steps)
    for each, weight in zip(members, rng.dirichlet(np.full(len(members), _EVENNESS)), strict=True):
        start = rng.integers((len(each.values) - steps) // per_day + 1) * per_day
        part = each.values[start : start + steps]
        mean += weight * part / (np.abs(part).mean() or 1.0)
    return Series(name, 0, series[0].step_s, mean)


def _source(series: Series) -> str:
    return series.unique_id.partition("/")[0]


def _row(network: str, series: Series) -> dict[str, object]:
    return {"network": network, "source": _source(series), "series": series.unique_id, "steps": len(series.values)}


def card(seen: pl.DataFrame, cfg: DictConfig) -> str:
    """The data card: what each network is, what it has seen and under which licence, and what it has never seen."""
    lines = ["# Pre-trained forecasters", "", *str(cfg.card).strip().splitlines(), ""]
    for name, wanted in cfg.networks.items():
        rows = seen.filter(pl.col("network") == str(name))
        lines += [
            f"## {name}",
            "",
            f"{wanted.what} Learned from {rows.height} series, {rows['steps'].sum():,} steps:",
            "",
        ]
        lines += ["| source | series | steps | licence |", "|---|---:|---:|---|"]
        for source, part in rows.partition_by("source", as_dict=True, maintain_order=True).items():
            licence = cfg.recordings.get(source[0], "weighted means of the series above")
            lines.append(f"| {source[0]} | {part.height} | {part['steps'].sum():,} | {licence} |")
        lines.append("")
    lines += [f"Made by `python -m experiments.pretrain data=DIR` with seed {cfg.seed}.", ""]
    return "\n".join(lines)


def task(cfg: DictConfig, display: Display) -> int:
    """Train, write the run folder; returns the exit code."""
    display.line(present.identity_line("pretrain", cfg, None))
    with RunFolder(Path(cfg.out)) as folder:
        folder.identify(cfg, "pretrain", None, verb.command("pretrain"), verb.overrides())
        study(cfg, folder, display)
        folder.status("completed", "")
    return verb.conclude(folder.final, cfg, display, [])


def main() -> None:
    """The entry point."""
    verb.main("pretrain", task)


if __name__ == "__main__":
    main()
