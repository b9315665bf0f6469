"""Everything that the page's template reads but charts and scripts: folder -> words and printed tables."""

from __future__ import annotations

from typing import Any

import polars as pl

from reports import decisions, incidents, kpis, views, wording
from reports.cells import Table, tone
from reports.drawing import Drawing
from reports.folder import Facts, RunFolder
from reports.timeline import View


def context(run: RunFolder, drawing: Drawing) -> Facts:
    """Everything the template reads but scripts and data, by the name it reads it under."""
    words = {**_identity(run), **_explored(run, drawing), **_judged(run, drawing), **_reproduced(run)}
    return {**words, "sections": _sections(words)}


def _identity(run: RunFolder) -> Facts:
    return {
        "identity": run.identity,
        "trace": run.identity.get("trace") or {},
        "facts": _facts(run),
        "scale": views.demand_scale(run.identity),
        "differences": views.differences(run.config, run.defaults),
        "inventory": _inventory(run.identity),
    }


def _explored(run: RunFolder, drawing: Drawing) -> Facts:
    """KPIs, matrix, panels and decisions: the part of the page that one scenario is chosen for."""
    summary, binned, styles = kpis.scored(run), drawing.series, drawing.styles
    lines = None if binned is None else binned.lines
    return {
        "baseline": run.baseline,
        "scenarios": [scenario for scenario in run.scenarios if scenario],
        "controllers": run.controllers,
        "styles": styles,
        "view": drawing.view or View(next(iter(run.scenarios), ""), "", ()),
        "kpis": [] if summary is None else kpis.tables(summary, styles),
        "intervals": run.summary is not None and run.summary.height > 0,
        "seeds": _seeds(run),
        "matrices": [] if run.summary is None else kpis.matrices(run.summary),
        "timeline": "timeline" in drawing.charts,
        "bin": "" if binned is None else wording.duration(binned.bin_s),
        "failures": binned is not None and binned.failures.height > 0,
        "wrong": incidents.table(run.runs),
        "services": [] if lines is None else lines["service"].unique().sort().to_list(),
        "drawn": [] if lines is None else [c for c in run.controllers if c in set(lines["controller"])],
        "decisions": decisions.made(run, styles),
    }


def _judged(run: RunFolder, drawing: Drawing) -> Facts:
    """Forecasters, learning, fidelity, gate and bridge: what does not depend on the chosen scenario."""
    scores, fidelity = run.forecast_scores, run.fidelity
    pooled = pl.col("horizon").str.contains("-")  # all steps together: what is compared
    return {
        "scores": None if scores is None else views.score_table(scores.filter(pooled), drawing.forecasters),
        "step_scores": None if scores is None else views.score_table(scores.filter(~pooled), drawing.forecasters),
        "calibrated": "reliability" in drawing.charts,
        "learned": "learning" in drawing.charts,
        "fidelity": None if fidelity is None else views.fidelity_table(fidelity),
        "assumptions": (fidelity or {}).get("assumptions", []),
        "verdicts": [_verdict(verdict) for verdict in run.verdicts],
        "bridge": _bridge(run),
    }


def _reproduced(run: RunFolder) -> Facts:
    phases, versions = run.timing.get("phases") or {}, run.identity.get("versions") or {}
    return {
        "phases": [(name, wording.duration(took_s)) for name, took_s in phases.items()],
        "files": views.file_table(run.files),
        "versions": views.records({"package": name, "version": version} for name, version in versions.items()),
        "missing": views.missing(run),
    }


def _facts(run: RunFolder) -> list[tuple[str, str, str]]:
    identity, timing = run.identity, run.timing
    trace, git = identity.get("trace") or {}, identity.get("git") or {}
    facts = [
        ("Run", identity.get("run_id"), ""),
        ("Seed", identity.get("seed"), ""),
        ("Trace", trace.get("name"), trace.get("digest")),
        ("Cluster", (identity.get("cluster") or {}).get("name"), ""),
        ("Code", str(git.get("commit") or "")[:12], "with uncommitted changes" if git.get("dirty") else "committed"),
        ("Scenarios", len(run.scenarios) or None, ", ".join(run.scenarios)),
        ("Controllers", len(run.controllers) or None, ", ".join(run.controllers)),
        ("Took", wording.duration(timing["wall_s"]) if "wall_s" in timing else None, _memory(timing)),
    ]
    return [(name, str(value), str(note or "")) for name, value, note in facts if value not in (None, "")]


def _memory(timing: Facts) -> str:
    peak = timing.get("peak_memory_gib")
    return "" if peak is None else f"at most {wording.number(peak)} GiB of memory"


def _inventory(identity: Facts) -> list[tuple[str, Table]]:
    cluster = identity.get("cluster") or {}
    return [
        (f"{part.capitalize()} of the cluster", views.records(cluster[part]))
        for part in ("services", "pools")
        if cluster.get(part)
    ]


def _seeds(run: RunFolder) -> str:
    if run.summary is None or not run.summary.height:
        return ""
    least, most = run.summary["seeds"].min(), run.summary["seeds"].max()
    return f"{most}" if least == most else f"{least} to {most}"


def _verdict(verdict: Facts) -> Facts:
    checks = [str(check.get("result")) for check in verdict.get("checks", [])]
    counts = [
        f"{checks.count(r)} {word}"
        for r, word in (("pass", "passed"), ("refuse", "refused"), ("cannot tell", "cannot tell"))
        if r in checks
    ]
    confidence = verdict.get("confidence")
    return {
        **verdict,
        "tone": tone(str(verdict.get("decision"))),
        "counts": f"{len(checks)} check{'s' * (len(checks) != 1)}: {', '.join(counts)}" if checks else "no checks",
        "confidence": "" if confidence is None else wording.number(confidence, 2),
        "checks": views.check_table(verdict),
    }


def _bridge(run: RunFolder) -> Facts | None:
    if run.bridge is None:
        return None
    report, made = run.bridge.report, run.bridge.decisions
    told = [(wording.words(k), _value(v)) for k, v in report.items() if not isinstance(v, dict | list)]
    return {
        "mode": report.get("mode", ""),
        "facts": told,
        "decisions": None if made is None else decisions.bridged(made),
    }


def _value(value: Any) -> str:  # noqa: ANN401 - any JSON value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return wording.number(value)
    return wording.DASH if value is None else str(value)


def _sections(words: Facts) -> list[tuple[str, str]]:
    listed = (
        ("identity", "Identity", True),
        ("kpis", "KPIs", words["kpis"]),
        ("matrix", "Scenario × controller", words["matrices"]),
        ("time", "On one clock", words["timeline"]),
        ("wrong", "What went wrong", words["wrong"]),
        ("decisions", "Decisions", words["decisions"]),
        ("forecasts", "Forecasters", words["scores"] or words["calibrated"]),
        ("learning", "Learning", words["learned"]),
        ("fidelity", "Twin fidelity", words["fidelity"]),
        ("gate", "Gate", words["verdicts"]),
        ("bridge", "Bridge", words["bridge"]),
        ("reproduce", "Reproduce", True),
    )
    return [(anchor, title) for anchor, title, there in listed if there]
