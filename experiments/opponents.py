"""`python -m experiments.opponents FOLDER`: all autoscalers on all recordings; docs/opponents.md says what they did.

Two suites, each a benchmark per recording: `opponents` scale replicas on a pool that sizes itself, `node_opponents`
buy nodes beside default HPA. What a fixed number needs to know is taken from the time before the one that judges.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf

from experiments import benchmark, cell, docs, schema
from experiments.display import Display, Plain, Silent
from experiments.rundir import RunFolder
from experiments.study import positive
from reports import folder, wording
from twin.engine.traffic import service_s
from twin.errors import UsageError, WorkbenchError

SUITES = ("opponents", "node_opponents")
RECORDINGS = {  # experiment -> the folder it is read from; "" for those that are shipped
    "google2019": "",
    "alibaba2018": "",
    "azure_v2": "",
    "worldcup98": "worldcup98",
    "nasa": "nasa-http-1995",
    "azure_functions": "azure-functions-2019",
    "azure_llm": "azure-llm-2023",
}
PAGE = "docs/opponents.md"
FULL = 0.8
"""Share of what a replica can serve that fixed numbers plan with: the target of default HPA."""
SURGE = 1.6
"""The fixed nodes of the baseline hold so many times the highest demand: as much as `demand_surge` adds."""
_TITLES = {"opponents": "Who scales replicas", "node_opponents": "Who buys nodes"}
_LARGEST = 100.0  # a ratio to nearly nothing says only that
_KPIS = (("cost_usd", 1.0), ("late_ratio", 100.0), ("slo_violation_min", 1.0), ("scale_events", 1.0))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is not there yet and write the page; 0, 4 when some runs failed, or the code of what went wrong."""
    given = parser().parse_args(arguments)
    display, failed = Plain(), []
    schema.register()
    try:
        with initialize_config_module("conf", version_base="1.3"):
            for suite, recording in ((suite, recording) for suite in given.suites for recording in given.recordings):
                overrides = described(suite, recording, given)
                if overrides is None:
                    display.line(f"{recording}: skipped, {given.folder / RECORDINGS[recording]} is not there")
                else:
                    failed += compared(overrides, given.out / f"{suite}-{recording}", given.workers, display)
        write(given.page, given.out, _typed(sys.argv[1:] if arguments is None else arguments))
    except WorkbenchError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return error.exit_code
    display.line("\n".join([*(f"failed: {text}" for text in failed), str(given.page)]))
    return 4 if failed else 0


def parser() -> argparse.ArgumentParser:
    """What the command line takes."""
    found = argparse.ArgumentParser(prog="python -m experiments.opponents", description=(__doc__ or "").split(": ")[1])
    found.add_argument("folder", type=Path, metavar="FOLDER", help="where the recordings lie, each in its folder")
    found.add_argument("--out", type=Path, default=Path("runs/opponents"), help="where the run folders go")
    found.add_argument("--page", type=Path, default=docs.ROOT / PAGE, help="the page whose results are replaced")
    found.add_argument("--suites", nargs="+", choices=SUITES, default=SUITES)
    found.add_argument("--recordings", nargs="+", choices=RECORDINGS, default=tuple(RECORDINGS))
    found.add_argument("--set", nargs="+", default=(), metavar="KEY=VALUE", help="overrides of every benchmark")
    found.add_argument("--workers", type=positive, default=2)
    return found


def _typed(arguments: Sequence[str]) -> str:
    """The command as it would be typed, without the places of this machine."""
    given = parser().parse_args(arguments)
    places = {str(given.folder): "FOLDER", str(given.out): "OUT", str(given.page): "PAGE"}
    return shlex.join(["python", "-m", "experiments.opponents", *(places.get(word, word) for word in arguments)])


# ---------------------------------------------------------------- the runs


def described(suite: str, recording: str, given: argparse.Namespace) -> list[str] | None:
    """The overrides of `experiments.benchmark` for a suite on a recording; None where the recording is not there."""
    overrides = [f"experiment=[{suite}{'' if recording == 'google2019' else f',{recording}'}]", *given.set]
    if RECORDINGS[recording]:
        if not (given.folder / RECORDINGS[recording]).exists():
            return None
        overrides.append(f"trace.path={given.folder / RECORDINGS[recording]}")
    return [*overrides, *sized(compose("benchmark", overrides))]


def sized(cfg: DictConfig) -> list[str]:
    """The numbers that the configuration fixes, as overrides, sized for the demand before the time that judges."""
    trace, service = cell.read_trace(cfg.trace), cell.build(cfg.cluster).service("cell")
    before = trace.between(0.0, cell.build(cfg.split).held_out_from_s(trace))
    rates_rps = before.demand.filter(service=service.series)["value"] * service.unit_rps
    full_rps = FULL * service.replica_rps
    usual, most = (math.ceil(float(rate) / full_rps) for rate in (rates_rps.mean(), rates_rps.max()))
    served_s = service_s(before.requests, service) if before.requests.height else [service.service_time_s]
    found = {
        "cluster.services.cell.replicas": usual,
        "controllers.static.replicas.cell": most,
        "controllers.keda.triggers.0.threshold": f"{full_rps:.4g}",
        "controllers.aimd.threshold": f"{1.25 * np.quantile(served_s, 0.95):.4g}",
        "controllers.seasonal.replica_rps": f"{service.replica_rps:.4g}",
        "controllers.vpa.controllers.replicas.replicas.cell": most,
    }
    if "large" in cfg.cluster.pools:
        pool = cfg.cluster.pools.large
        nodes = math.ceil(SURGE * most / (pool.cpu_cores // service.cpu_cores))
        found["cluster.pools.large.nodes"] = min(nodes, pool.max_nodes)
    return [f"{key}={value}" for key, value in found.items() if OmegaConf.select(cfg, key) is not None]


def compared(overrides: list[str], out: Path, workers: int, display: Display) -> list[str]:
    """Run the benchmark into `out`, or leave it as it is where it is there; returns what failed.

    Raises UsageError when what is there was run with other settings.
    """
    cfg = compose("benchmark", [*overrides, f"out={out}", f"workers={workers}"])
    if (out / "study.json").exists():
        known = json.loads((out / "study.json").read_text(encoding="utf-8"))
        if known != json.loads(json.dumps(benchmark.described(cfg))):
            raise UsageError(f"{out} holds a benchmark with other settings; choose another --out")
        return []
    display.line(shlex.join(["python", "-m", "experiments.benchmark", *overrides]))
    with RunFolder(out, resumable=True) as run:
        command = ["python", "-m", "experiments.benchmark", *overrides]
        run.identify(cfg, "benchmark", cell.read_trace(cfg.trace), command, overrides)
        failed = benchmark.study(cfg, run, Silent())
        run.status("partly failed" if failed else "completed", "; ".join(failed))
    return failed


# ---------------------------------------------------------------- the page


def write(page: Path, out: Path, command: str) -> None:
    """Replace the results in `page` by those of the run folders in `out`; raises UsageError when there are none."""
    found = summaries(out)
    try:
        before = page.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"{page}: cannot be read: {error.strerror}; give a page with the marks of `results`"
        ) from error
    text = docs.replaced(before, "results", results(found, out, command), page.name)
    partial = page.with_name(f"{page.name}.tmp")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, page)


def summaries(out: Path) -> pl.DataFrame:
    """The headline KPIs of all run folders in `out`: suite, recording, and the columns of `summary`."""
    frames = []
    for suite in SUITES:
        for recording in RECORDINGS:
            path = out / f"{suite}-{recording}" / "tables" / "summary.parquet"
            if path.exists():
                named = {"suite": pl.lit(suite), "recording": pl.lit(recording)}
                frames.append(pl.read_parquet(path).with_columns(**named))
    if not frames:
        raise UsageError(f"{out}: no run folder of this benchmark; run it first")
    return pl.concat(frames).filter(pl.col("kpi").is_in([kpi for kpi, _ in _KPIS]))


def results(found: pl.DataFrame, out: Path, command: str) -> str:
    """All tables in Markdown."""
    absent = [name for name in RECORDINGS if name not in found["recording"].unique()]
    parts = [f"```bash\n{command}\n```", *([f"Not run here: {', '.join(absent)}."] if absent else [])]
    for suite in found["suite"].unique(maintain_order=True):
        frame = found.filter(suite=suite)
        parts += [f"## {_TITLES[suite]}", headline(frame), findings(frame)]
    for suite, recording in found.select("suite", "recording").unique(maintain_order=True).iter_rows():
        identity = json.loads((out / f"{suite}-{recording}" / "identity.json").read_text(encoding="utf-8"))
        frame = found.filter(suite=suite, recording=recording)
        parts += [f"## {recording}: {_TITLES[suite].lower()}", _settings(identity, frame), detail(frame)]
    return "\n\n".join(parts)


def relative(frame: pl.DataFrame) -> pl.DataFrame:
    """Of each controller on each recording: cost and lateness as ratios to the baseline's, mean values over scenarios.

    Columns: recording, controller, cost, late (null where the baseline was never late).
    """
    over = frame.group_by("recording", "controller", "kpi", "baseline", maintain_order=True).agg(pl.col("value").mean())
    base = over.filter(pl.col("controller") == pl.col("baseline")).select("recording", "kpi", base="value")
    ratios = over.join(base, on=["recording", "kpi"], maintain_order="left").with_columns(
        ratio=pl.when(pl.col("base") > 0).then(pl.col("value") / pl.col("base"))
    )
    wide = ratios.pivot("kpi", index=["recording", "controller"], values="ratio", maintain_order=True)
    return wide.select("recording", "controller", cost="cost_usd", late="late_ratio")


def headline(frame: pl.DataFrame) -> str:
    """One table of a suite: controllers x recordings, cost and lateness against the baseline; the cheapest first."""
    ratios = relative(frame)
    names = ratios["recording"].unique(maintain_order=True).to_list()
    told = {(r["controller"], r["recording"]): f"{_ratio(r['cost'])} / {_ratio(r['late'])}" for r in ratios.to_dicts()}
    mean = ratios.group_by("controller", maintain_order=True).agg(pl.col("cost").mean()).sort("cost")
    rows = [
        (
            f"`{row['controller']}`",
            _ratio(row["cost"]),
            *(told.get((row["controller"], n), wording.DASH) for n in names),
        )
        for row in mean.to_dicts()
    ]
    return _table(("controller", "cost, mean", *names), rows)


def findings(frame: pl.DataFrame) -> str:
    """What a suite shows, in sentences that are counted from it."""
    ratios = relative(frame).filter(pl.col("controller") != frame["baseline"][0])
    recordings = ratios["recording"].n_unique()
    better = ratios.filter(pl.col("cost") < 1.0, pl.col("late") <= 1.0)
    count = better.group_by("controller", maintain_order=True).len().sort("len", descending=True, maintain_order=True)
    both = [f"`{name}` ({times})" for name, times in count.iter_rows()]
    spread = ratios.group_by("controller", maintain_order=True).agg(low=pl.col("cost").min(), high=pl.col("cost").max())
    wide = spread.sort(pl.col("high") / pl.col("low"), descending=True).to_dicts()[0]
    late = ratios.drop_nulls("late").sort("late").group_by("controller").agg(pl.col("late").max()).sort("late")
    worst = late.to_dicts()[-1] if late.height else None
    return " ".join(
        [
            "Cheaper than default HPA and not later, on how many of "
            f"{recordings} recordings: {', '.join(both) or 'none'}.",
            f"The same settings cost `{wide['controller']}` from {_ratio(wide['low'])} to {_ratio(wide['high'])} times "
            "what HPA costs, by the recording.",
            f"Nobody was later anywhere than `{worst['controller']}`: {_ratio(worst['late'])} times as late as HPA."
            if worst
            else "HPA was never late, so that nobody's lateness has a ratio.",
        ]
    )


def detail(frame: pl.DataFrame) -> str:
    """The table of a suite on one recording: controllers x scenarios; in a cell values, below them their ratios."""
    known = {(r["controller"], r["scenario"], r["kpi"]): r for r in frame.to_dicts()}
    scenarios = frame["scenario"].unique(maintain_order=True).to_list()
    rows = []
    for controller in frame["controller"].unique(maintain_order=True):
        cells = []
        for scenario in scenarios:
            found = [known.get((controller, scenario, kpi), {}) for kpi, _ in _KPIS]
            values = [_value(row.get("value"), scale) for row, (_, scale) in zip(found, _KPIS, strict=True)]
            cells.append(f"{' / '.join(values)}<br>{' / '.join(_ratio(row.get('ratio')) for row in found)}")
        rows.append((f"`{controller}`", *cells))
    return _table(("controller", *scenarios), rows)


def _settings(identity: folder.Facts, frame: pl.DataFrame) -> str:
    """What was run, as it would be typed; recordings by the name of their folder."""
    typed = [re.sub(r"^(trace\.path=).*/", r"\1FOLDER/", text) for text in identity["overrides"]]
    seeds = frame["seeds"].max()
    return (
        f"{identity['trace']['name']} (`{identity['trace']['digest']}`), {seeds} seed{'s' if seeds != 1 else ''}:\n\n"
        f"```bash\n{shlex.join(['python', '-m', 'experiments.benchmark', *typed])}\n```"
    )


def _value(value: float | None, scale: float) -> str:
    return wording.number(None if value is None else round(scale * value, 3))  # a tail of a queue is never zero


def _ratio(value: float | None) -> str:
    return f"> {_LARGEST:g}" if value is not None and value > _LARGEST else wording.number(value)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *rows))


if __name__ == "__main__":
    sys.exit(main())
