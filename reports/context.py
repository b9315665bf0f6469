"""Everything that the page's template reads but charts and scripts: folder -> words and printed tables."""

from __future__ import annotations

from typing import Any

from reports import decisions, kpis, views, wording
from reports.cells import Table, tone
from reports.drawing import Drawing
from reports.folder import Facts, RunFolder
from reports.timeline import View


def context(run: RunFolder, drawing: Drawing) -> Facts:
    """Everything the template reads but scripts and data."""
    summary = kpis.scored(run)
    kpis = None if summary is None else kpis.table(summary, drawing.styles)
    scores = run.forecast_scores
    binned, trace = drawing.series, run.identity.get("trace") or {}
    context = {
        "identity": run.identity,
        "trace": trace,
        "facts": _facts(run),
        "scale": views.demand_scale(run.identity),
        "differences": views.differences(run),
        "inventory": _inventory(run.identity),
        "baseline": run.baseline,
        "scenarios": [s for s in run.scenarios if s],
        "controllers": run.controllers,
        "styles": drawing.styles,
        "view": drawing.view or View(next(iter(run.scenarios), ""), "", ()),
        "kpis": kpis,
        "intervals": run.summary is not None and bool(run.summary.height),
        "seeds": _seeds(run),
        "matrices": [] if run.summary is None else kpis.matrices(run.summary),
        "timeline": "timeline" in drawing.charts,
        "bin": "" if binned is None else wording.duration(binned.bin_s),
        "failures": binned is not None and bool(binned.failures.height),
        "services": [] if binned is None else binned.lines["service"].unique().sort().to_list(),
        "drawn": [] if binned is None else [c for c in run.controllers if c in set(binned.lines["controller"])],
        "decisions": decisions.made(run, drawing.styles),
        "scores": None if scores is None else views.score_table(scores, drawing.forecasters),
        "calibrated": "reliability" in drawing.charts,
        "learned": "learning" in drawing.charts,
        "fidelity": None if run.fidelity is None else views.fidelity_table(run.fidelity),
        "assumptions": (run.fidelity or {}).get("assumptions", []),
        "verdicts": [_verdict(verdict) for verdict in run.verdicts],
        "bridge": _bridge(run),
        "phases": [(n, wording.duration(s)) for n, s in (run.timing.get("phases") or {}).items()],
        "files": views.file_table(run),
        "versions": views.records(
            {"package": k, "version": v} for k, v in (run.identity.get("versions") or {}).items()
        ),
        "missing": views.missing(run),
    }
    return {**context, "sections": _sections(context)}


def _facts(run: RunFolder) -> list[tuple[str, str, str]]:
    identity, timing = run.identity, run.timing
    trace, git = identity.get("trace") or {}, identity.get("git") or {}
    facts = [
        ("Run", identity.get("run_id"), ""),
        ("Seed", identity.get("seed"), ""),
        ("Trace", trace.get("name"), trace.get("digest")),
        ("Cluster", (identity.get("cluster") or {}).get("name"), ""),
        ("Code", str(git.get("commit") or "")[:12], "with uncommitted changes" if git.get("dirty") else "clean"),
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
    report, decisions = run.bridge.report, run.bridge.decisions
    told = [(wording.words(k), _value(v)) for k, v in report.items() if not isinstance(v, dict | list)]
    return {
        "mode": report.get("mode", ""),
        "facts": told,
        "decisions": None if decisions is None else decisions.bridged(decisions),
    }


def _value(value: Any) -> str:  # noqa: ANN401 - any JSON value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return wording.number(value)
    return wording.DASH if value is None else str(value)


def _sections(context: Facts) -> list[tuple[str, str]]:
    listed = (
        ("identity", "Identity", True),
        ("kpis", "KPIs", context["kpis"]),
        ("matrix", "Scenario × controller", context["matrices"]),
        ("time", "On one clock", context["timeline"]),
        ("decisions", "Decisions", context["decisions"]),
        ("forecasts", "Forecasters", context["scores"] or context["calibrated"]),
        ("learning", "Learning", context["learned"]),
        ("fidelity", "Twin fidelity", context["fidelity"]),
        ("gate", "Gate", context["verdicts"]),
        ("bridge", "Bridge", context["bridge"]),
        ("reproduce", "Reproduce", True),
    )
    return [(anchor, title) for anchor, title, there in listed if there]
