"""`python -m experiments.docs [RUN_FOLDER] [--recordings FOLDER]`: what the docs hold that can be computed.

docs/data.md takes its tables from the schemas; given a run folder, README.md takes its results from it and
docs/pictures/ its picture; given a folder of recordings, docs/traces.md takes what reading each of them costs.
Only what stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->` is replaced.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from experiments import markdown
from experiments.measure import measured
from reports import folder, wording
from reports.folder import Facts, RunFolder
from twin import metrics, observe
from twin.errors import UsageError, WorkbenchError
from twin.trace import catalog, tables

ROOT = Path(__file__).resolve().parent.parent
DATA, TRACES = "docs/data.md", "docs/traces.md"
README, PICTURE = "README.md", "docs/pictures/demo.png"

_FAMILIES = {
    "Trace tables: what was recorded": tables.TRACE_TABLES,
    "Run tables: what one simulation left": tables.RUN_TABLES,
    "Job tables: what one replay of jobs left": tables.JOB_TABLES,
    "Study tables: what many runs say together": tables.STUDY_TABLES,
    "Tables of the page about a trace": (*tables.INSPECT_TABLES, *tables.COMPARISON_TABLES),
}
_ROWS = {
    "nodes": "one machine",
    "node_events": "one change of a machine",
    "jobs": "one piece of work that ends",
    "dependencies": "one job that waits for another",
    "services": "one service that has demand or requests",
    "calls": "one service that calls another",
    "demand": "one step of a service's demand",
    "requests": "one request, or one span of it, to a service",
    "usage": "one step of a measured resource",
    "incidents": "one disturbance with its time",
    "prices": "one step of a price or carbon series",
    "service_steps": "one service in one telemetry step",
    "pool_steps": "one pool in one telemetry step",
    "decisions": "one decision: who saw what, wished what, and what came of it",
    "kpis": "one KPI of one entity",
    "outcomes": "one job and what became of it",
    "placements": "one job on one machine from start to end",
    "job_cdf": "one point of a cumulative distribution over jobs",
    "scorecard": "one measure of how well the replay mirrors the recording",
    "job_steps": "the cluster or one pool in one step of time",
    "explanations": "one stretch in which a job waited for one reason, or its start",
    "validity": "the recorded days of one range of offered load",
    "calibration": "one fitted parameter",
    "results": "one KPI of one run of a benchmark",
    "summary": "one KPI of one controller in one scenario, over all seeds",
    "forecasts": "one forecast step from one origin",
    "forecast_scores": "one forecaster on one series, for one horizon",
    "accuracy_scores": "one forecaster on one series, for one horizon and regime",
    "tuning": "one configuration of a sweep over settings of a forecaster",
    "decision_value": "one forecaster, or rule, in one scenario with one quantile",
    "drift_trials": "one detector on one series with one planted change",
    "retraining_events": "one step of a retraining: noticed, judged, swapped or refused",
    "retraining_accuracy": "one day of one forecaster in the drill",
    "forecast_explanations": "what one group adds to the last value at one forecast step",
    "forecast_sentences": "one series' forecast in plain words, and who made it",
    "forecast_past": "one step on record before a forecast",
    "forecast_scenarios": "one forecast step under one growth scenario",
    "cold_start": "one forecaster on one resource with so much history",
    "long_horizon": "one series, for one month ahead or several",
    "coherence": "one level of what adds up, by one method",
    "sites_scores": "one way of training on one site",
    "trace_facts": "one thing that is known of the trace",
    "trace_load": "one bin of time of one quantity",
    "trace_distributions": "one point of a cumulative distribution",
    "trace_periodicity": "one period of a spectrum, or one lag of an autocorrelation",
    "trace_gaps": "one stretch of a series without its steps",
    "trace_uses": "one thing that the trace can or cannot be used for",
    "comparison": "one measure of how far a synthetic trace is from its recording",
    "comparison_curves": "one point of a curve of one of the two",
}
_MADE = {"incidents": "here a row is one fault that the twin made happen, the ground truth for whoever detects it"}
_UNSAFE = set(" '\"[]{}()*;&<>|")
_LINE_CHARS = 100
_LARGEST_RATIO = 100.0  # a ratio to nearly nothing says only that


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 when the docs were written; their paths go to stdout."""
    given = parser().parse_args(arguments)
    try:
        for path in write(ROOT, given.run, given.recordings):
            sys.stdout.write(f"{path.relative_to(ROOT)}\n")
    except WorkbenchError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return error.exit_code
    return 0


def parser() -> argparse.ArgumentParser:
    """What the command line takes."""
    described = "Write again what is computed in the docs: the data dictionary, and from a run folder the results."
    found = argparse.ArgumentParser(prog="python -m experiments.docs", description=described)
    found.add_argument("run", type=Path, nargs="?", metavar="RUN_FOLDER", help="as `make demo` writes one")
    told = "where the sources of the catalogue lie, one folder each; they are read and measured (minutes)"
    found.add_argument("--recordings", type=Path, metavar="FOLDER", help=told)
    return found


def write(root: Path, run: Path | None, recordings: Path | None = None) -> list[Path]:
    """Write the computed parts of the docs below `root`; returns the files.

    Everything is computed before anything is written. Raises UsageError for a file without its marks, a `run` that is
    not a run folder, or `recordings` without one.
    """
    pages = {root / DATA: replaced(_text(root / DATA), "tables", data_tables(), DATA)}
    if recordings is not None:
        pages[root / TRACES] = replaced(_text(root / TRACES), "recordings", recordings_table(recordings), TRACES)
    if run is not None:
        from reports.picture import picture

        read = folder.read(run)
        pages[root / README] = replaced(_text(root / README), "results", results(read), README)
        (root / PICTURE).parent.mkdir(parents=True, exist_ok=True)
        picture(run, root / PICTURE)
    for path, text in pages.items():
        partial = path.with_name(f"{path.name}.tmp")
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    return [*pages, *([root / PICTURE] if run is not None else [])]


def replaced(text: str, name: str, content: str, where: str) -> str:
    """`text` with `content` between the marks of `name`; raises UsageError when they are not there once, in order."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise UsageError(f"{where}: needs one line {begin!r} and after it one line {end!r}; put them back")
    head, rest = text.split(begin)
    return f"{head}{begin}\n\n{content.strip()}\n\n{end}{rest.split(end)[1]}"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}; run this in a checkout") from error


# ---------------------------------------------------------------- the data dictionary


def data_tables() -> str:
    """The part of docs/data.md that the schemas, the observation and the KPIs say, in Markdown."""
    parts: list[str] = []
    told: set[str] = set()
    for title, names in _FAMILIES.items():
        parts += [f"## {title}", *(_again(name) if name in told else _dictionary(name) for name in names)]
        told.update(names)
    columns = [f"`<service>.{metric}`" for metric in observe.SERVICE_METRICS]
    columns += [f"`<pool>.{metric}`" for metric in observe.POOL_METRICS] + [f"`{name}`" for name in observe.CLOCK]
    parts += ["## Observation columns: what a controller sees", f"In this order: {', '.join(columns)}."]
    parts += ["## KPIs: what a run is worth", f"```text\n{(metrics.__doc__ or '').split(chr(10), 2)[2].strip()}\n```"]
    return "\n\n".join(parts)


def _dictionary(name: str) -> str:
    rows = [
        (
            f"`{c.name}`",
            str(c.dtype),
            c.unit,
            "yes" if c.required else f"no{c.default and f': {c.default}'}",
            c.description,
        )
        for c in tables.schema(name)
    ]
    header = ("column", "type", "unit", "required (else: default)", "meaning")
    return f"### `{name}`\n\nA row is {_ROWS[name]}.\n\n{markdown.table(header, rows)}"


def _again(name: str) -> str:
    return f"Also `{name}`, with the columns that stand above: {_MADE[name]}."


def recordings_table(folder: Path) -> str:
    """What each recording of the catalogue that lies below `folder` holds and what reading it costs, in Markdown."""
    listed = catalog.recordings().group_by("source", "path", "format", maintain_order=True).agg("things", "rows")
    rows = []
    for row in listed.iter_rows(named=True):
        place = folder / row["source"] / row["path"]
        if place.exists():
            cost = measured(place)
            read = ", ".join(f"{n:,} {things}" for things, n in zip(row["things"], row["rows"], strict=True))
            made = ", ".join(f"{n:,} {table}" for table, n in cost.tables.items())
            name = f"{row['source']}/{row['path']}".rstrip("/")
            size = (f"{cost.cpu_s:.2f}", f"{cost.peak_mib - cost.floor_mib:.0f}")
            rows.append((f"`{name}`", f"`{row['format']}`", read, made, str(cost.findings), *size))
    if not rows:
        raise UsageError(f"{folder}: none of the catalogue's sources is there; download one, or give another folder")
    header = ("recording", "reader", "read", "canonical rows", "findings", "CPU s", "peak MiB")
    return markdown.table(header, rows)


# ---------------------------------------------------------------- the results


def results(run: RunFolder) -> str:
    """What a run folder shows, in Markdown: each station's table with its command; absent stations are left out."""
    parts = (_origin(run), _forecasts(run), _controllers(run), _verdicts(run), _bridge(run), _fidelity(run))
    return "\n\n".join(part for part in parts if part)


def _origin(run: RunFolder) -> str:
    identity, timing = run.identity, run.timing
    trace, git = identity["trace"], identity["git"]
    commit = f"commit `{git['commit'][:9]}`{' with uncommitted changes' if git['dirty'] else ''}"
    said = (
        f"Run `{identity['run_id']}` of `python -m experiments.{identity['verb']}`: trace {trace['name']} "
        f"(`{trace['digest']}`), seed {identity['seed']}, {commit if git['commit'] else 'no git'}, "
        f"Python {identity['versions'].get('python', 'unknown')}."
    )
    if timing:
        said += (
            f" It took {wording.number(timing['wall_s'])} s after set-up, its largest process "
            f"{wording.number(timing['peak_memory_gib'])} GiB."
        )
    return f"{said} Below, `$RUN` is the folder of such a run."


def _forecasts(run: RunFolder) -> str:
    if run.forecast_scores is None:
        return ""
    pooled = run.forecast_scores.filter(pl.col("horizon").str.contains("-")).sort("unique_id", "scaled_crps")
    if not pooled.height:
        return ""
    horizon, origins = pooled["horizon"][0], pooled["origins"].max()
    named = ("accuracy_percent", "mase", "scaled_crps", "coverage_80", "skill")
    rows = [
        (row["unique_id"], row["forecaster"], *(wording.number(_rounded(row[name], decimals=4)) for name in named))
        for row in pooled.iter_rows(named=True)
    ]
    header = ("series", "forecaster", "accuracy, %", "MASE", "scaled CRPS", "coverage of the 80 % band", "skill")
    note = (
        f"Steps {horizon} ahead, {origins} rolling origins on held-out time; the best of each series first. A skill "
        "above 0 beats the best, in hindsight, of four naive forecasts."
    )
    return _section("Forecasters", run, ("backtest",), f"{note}\n\n{markdown.table(header, rows)}")


def _controllers(run: RunFolder) -> str:
    if run.summary is None or not run.summary.height:
        return ""
    found = {(r["scenario"], r["controller"], r["kpi"], r["entity"]): r for r in run.summary.iter_rows(named=True)}
    services = run.summary.filter(kpi="late_ratio")["entity"].unique().sort().to_list()
    rows = []
    for scenario, controller, service in itertools.product(run.scenarios, run.controllers, services):
        cost = found.get((scenario, controller, "cost_usd", "cluster"))
        kpis = ("late_ratio", "slo_violation_min", "scale_events")
        late, violated, changes = (found.get((scenario, controller, kpi, service)) for kpi in kpis)
        told = (_value(cost), _ratio(cost), _value(late, 100.0), _ratio(late), _value(violated), _value(changes))
        rows.append((scenario, controller, service, *told))
    versus = f"x {run.baseline}"
    header = (
        "scenario",
        "controller",
        "service",
        "cost, USD",
        versus,
        "late, %",
        versus,
        "SLO violated, min",
        "changes",
    )
    note = (
        f"Held-out time, {run.summary['seeds'].max()} seeds on common random numbers: interquartile mean (95 % "
        f"bootstrap interval), and the paired ratio to `{run.baseline}`. Changes are those of the wished replicas."
    )
    return _section("Controllers", run, ("train", "benchmark"), f"{note}\n\n{markdown.table(header, rows)}")


def _value(row: Facts | None, scale: float = 1.0) -> str:
    if row is None or row["value"] is None:
        return wording.DASH
    value, low, high = (_rounded(row[name], scale) for name in ("value", "low", "high"))
    return _with(wording.number(value), wording.interval(low, high))


def _rounded(value: float | None, scale: float = 1.0, decimals: int = 3) -> float | None:
    # a thousandth says enough: the tail of a queue is never exactly zero
    return None if value is None else round(scale * value, decimals)


def _ratio(row: Facts | None) -> str:
    if row is None or row["ratio"] is None:
        return wording.DASH
    if row["ratio"] > _LARGEST_RATIO:
        return f"> {_LARGEST_RATIO:g}"
    return _with(wording.number(row["ratio"]), wording.interval(row["ratio_low"], row["ratio_high"]))


def _with(value: str, interval: str) -> str:
    return f"{value} ({interval})" if interval else value


def _verdicts(run: RunFolder) -> str:
    parts = []
    for verdict in run.verdicts:
        checks = verdict["checks"]
        decisive = [check for check in checks if check["result"] != "pass"]
        parts.append(f"**{verdict['candidate']}**: {verdict['sentence']}")
        rows = [
            (c["name"], c["result"], wording.number(c["value"]), wording.number(c["threshold"]), c["evidence"])
            for c in decisive
        ]
        hold = len(checks) - len(decisive)
        held = f"The other {hold} of {len(checks)} checks hold." if decisive else f"All {len(checks)} checks hold."
        parts.append(
            f"{markdown.table(('check', 'result', 'value', 'threshold', 'evidence'), rows)}\n\n{held}" if rows else held
        )
    return _section("Verdicts", run, ("promote",), "\n\n".join(parts)) if parts else ""


def _bridge(run: RunFolder) -> str:
    if run.bridge is None:
        return ""
    report = run.bridge.report
    who = "The promoted policy" if report.get("bundle") else "No policy was promoted, so that the fallback rule"
    said = (
        f"{report['status'].capitalize()} in mode {report['mode']}. {who} (`{report['policy']}`) decided: "
        f"{report['decisions']} decisions, {report['limited']} limited, {report['handed_over']} handed over to the "
        f"rule, {report['lost']} observations lost, a ledger of {report['ledger_records']} records."
    )
    return _section("Bridge", run, ("bridge",), said)


def _fidelity(run: RunFolder) -> str:
    if run.fidelity is None:
        return ""
    rows = [
        (
            row["quantity"],
            row["unit"],
            wording.number(row["recorded"]),
            wording.number(row["replayed"]),
            wording.DASH if row["error"] is None else f"{100.0 * row['error']:+.2f} %",
        )
        for row in run.fidelity["rows"]
    ]
    table = markdown.table(("quantity", "unit", "recorded", "replayed", "error"), rows)
    assumed = "\n".join(f"- {line}" for line in run.fidelity["assumptions"])
    note = "What the recording holds, against the replay of it; `simulate` and `benchmark` write this."
    return f"### Fidelity\n\n{note}\n\n{table}\n\nWhat is assumed, because the recording does not hold it:\n\n{assumed}"


def _section(title: str, run: RunFolder, verbs: Sequence[str], body: str) -> str:
    lines = [line for verb in verbs for line in _commands(run, verb)]
    shown = "\n".join(lines)
    return f"### {title}\n\n{body}" + (f"\n\n```console\n{shown}\n```" if lines else "")


def _commands(run: RunFolder, verb: str) -> list[str]:
    """The commands of that verb's stations, as they would be typed; no place of the machine that ran them."""
    config: dict[str, Any] = yaml.safe_load(run.config or "") or {}
    own = [text for text in run.identity["overrides"] if not text.startswith("display=")]
    stations = config.get("stations") or [{"verb": run.identity["verb"], "overrides": own}]
    places = {"{folder}": "$RUN", "{keys}": "$HOME", "{bundle}": _bridged(run)}
    return [_typed(verb, station["overrides"], places) for station in stations if station["verb"] == verb]


def _bridged(run: RunFolder) -> str:
    """The bundle that the bridge ran, as its place in the run folder; "null" when the rule decided alone."""
    wanted = run.bridge.report.get("bundle") if run.bridge else None
    for manifest in run.path.glob("bundles/*/manifest.json"):
        if json.loads(manifest.read_text(encoding="utf-8"))["bundle_id"] == wanted:
            return f"$RUN/bundles/{manifest.parent.name}"
    return "null"


def _typed(verb: str, overrides: Sequence[str], places: Mapping[str, str]) -> str:
    words = [f"python -m experiments.{verb}"]
    for text in overrides:
        for place, shown in places.items():
            text = text.replace(place, shown)
        words.append(shlex.quote(text) if _UNSAFE & set(text) else text)
    line = " ".join(words)
    return line if len(line) <= _LINE_CHARS else " \\\n    ".join(words)


if __name__ == "__main__":
    sys.exit(main())
