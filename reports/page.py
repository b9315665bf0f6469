"""One run folder -> one offline HTML page: `write(folder)`.

The page holds everything it shows: tables as HTML, the tables behind charts once as columns, the Vega bundle once. A
content policy in the page forbids every network request and every script but the two that it names by hash.
"""

from __future__ import annotations

import base64
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports import calibration, folder, palette, series, views, wording
from reports.charts import Styles
from reports.folder import Facts, RunFolder
from reports.series import Series
from reports.timeline import View

if TYPE_CHECKING:
    import altair as alt
    from markupsafe import Markup

_TEMPLATES = Path(__file__).parent / "templates"
_MANY = 4  # controllers drawn at first; more lines than that hide each other


def write(run: Path) -> Path:
    """Write `report.html` into the run folder and return its path; the same folder gives the same bytes.

    Raises UsageError when `run` is not a run folder, TraceError or SchemaError when one of its files is damaged;
    an older page then stays as it was.
    """
    html = render(folder.read(run))
    path, partial = run / folder.REPORT, run / f"{folder.REPORT}.tmp"
    partial.write_text(html, encoding="utf-8")
    os.replace(partial, path)
    return path


def render(run: RunFolder) -> str:
    """The page of a run folder as HTML."""
    import jinja2
    from jinja2.utils import htmlsafe_json_dumps
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.ChainableUndefined,
    )
    drawing = _draw(run)
    specs, data = _shared(drawing.charts)
    script, style = (Markup((_TEMPLATES / name).read_text(encoding="utf-8")) for name in ("page.js", "style.css"))  # noqa: S704 - our own files
    bundle = _bundle() if specs else Markup("")
    return environment.get_template("page.html.j2").render(
        **_words(run, drawing),
        style=style,
        script=script,
        bundle=bundle,
        script_hashes=Markup(" ").join(_hash(text) for text in (bundle, script) if text),
        data=htmlsafe_json_dumps(data, sort_keys=True),
        charts=htmlsafe_json_dumps(specs),
    )


# ---------------------------------------------------------------- charts


@dataclass(frozen=True, slots=True)
class _Drawing:
    """What is drawn and in which colours; `series` and `view` are None without shown runs."""

    styles: Styles
    forecasters: Styles
    series: Series | None
    view: View | None
    charts: dict[str, alt.Chart]


def _draw(run: RunFolder) -> _Drawing:
    from reports import charts, timeline

    styles = palette.styles(run.controllers, run.baseline)
    forecasters = _forecasters(run)
    drawn: dict[str, Any] = {}
    binned = series.build(run)
    view = None if binned is None else first_view(run, binned)
    if binned is not None and view is not None:
        drawn["timeline"] = timeline.timeline(binned, styles, view)
    if run.forecasts is not None and run.forecasts.height:
        drawn["reliability"] = charts.reliability(calibration.reliability(run.forecasts), forecasters)
        drawn["pinball"] = charts.pinball(calibration.pinball(run.forecasts), forecasters)
    curves = calibration.learning(run.learning or {})
    if curves.height:
        policies = {**palette.styles(curves["policy"].unique().sort()), **styles}
        drawn["learning"] = charts.learning(curves, policies)
    return _Drawing(styles, forecasters, binned, view, drawn)


def _forecasters(run: RunFolder) -> Styles:
    tables = [table["forecaster"] for table in (run.forecast_scores, run.forecasts) if table is not None]
    return palette.styles(sorted({name for column in tables for name in column.unique()}))


def first_view(run: RunFolder, binned: Series) -> View:
    """What the panels show first: the first scenario kept, and of many controllers the judged ones and the baseline."""
    lines = binned.lines
    kept = lines["scenario"].unique().to_list()
    scenario = next((s for s in run.scenarios if s in kept), kept[0])
    drawn = [c for c in run.controllers if c in set(lines["controller"])]
    judged = {str(v.get("candidate")) for v in run.verdicts} | {run.baseline}
    chosen = [c for c in drawn if c in judged]
    if len(drawn) <= _MANY or len(chosen) < 2:
        chosen = drawn[:_MANY]
    return View(scenario, str(lines["service"][0]), tuple(chosen))


def _shared(charts: dict[str, alt.Chart]) -> tuple[dict[str, Facts], dict[str, Facts]]:
    """The specs without their data, and every dataset once as columns; `usermeta` says which a chart needs."""
    specs, data = {}, {}
    for name, chart in charts.items():
        spec = chart.to_dict()
        sets = spec.pop("datasets", {})
        data.update({each: _columns(rows) for each, rows in sets.items()})
        spec["usermeta"] = {"datasets": sorted(sets)}
        specs[name] = spec
    if "timeline" in specs:
        specs["timeline"]["usermeta"]["scenarios"] = sorted(set(data["lines"]["scenario"]))
    return specs, data


def _columns(rows: list[Facts]) -> Facts:
    """Rows as columns, whole numbers without their decimals: a third of the bytes."""
    whole = lambda v: int(v) if isinstance(v, float) and v.is_integer() else v  # noqa: E731 - local and one line
    return {column: [whole(row[column]) for row in rows] for column in (rows[0] if rows else ())}


def _bundle() -> Markup:
    import vl_convert
    from markupsafe import Markup

    return Markup(vl_convert.javascript_bundle().replace("</script", "<\\/script"))  # noqa: S704 - the library's own code


def _hash(script: str) -> Markup:
    from markupsafe import Markup

    digest = hashlib.sha256(script.encode()).digest()
    return Markup("'sha256-{}'").format(base64.b64encode(digest).decode())


# ---------------------------------------------------------------- words


def _words(run: RunFolder, drawing: _Drawing) -> Facts:
    """Everything the template reads but scripts and data."""
    summary = views.scored(run)
    kpis = None if summary is None else views.kpi_table(summary, drawing.styles)
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
        "matrices": [] if run.summary is None else views.matrices(run.summary),
        "timeline": "timeline" in drawing.charts,
        "bin": "" if binned is None else wording.duration(binned.bin_s),
        "failures": binned is not None and bool(binned.failures.height),
        "services": [] if binned is None else binned.lines["service"].unique().sort().to_list(),
        "drawn": [] if binned is None else [c for c in run.controllers if c in set(binned.lines["controller"])],
        "decisions": views.decisions(run, drawing.styles),
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


def _inventory(identity: Facts) -> list[tuple[str, views.Table]]:
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
        "tone": views.tone(str(verdict.get("decision"))),
        "counts": f"{len(checks)} checks: {', '.join(counts)}" if checks else "no checks",
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
        "decisions": None if decisions is None else views.bridge_decisions(decisions),
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
