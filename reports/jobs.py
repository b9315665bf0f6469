"""The page of a replay of jobs: what waited, what ran, and how far the twin can be trusted.

The folder holds `identity.json` (verb "schedule"), `tables/kpis.parquet` and in `jobs/` the tables of the replay. Of
`identity.json` the page also reads `scheduler` (its name), `machines` (count, cpu_cores, memory_gib, gpus: of all of
them together), `assumed` (sentences about what nobody measured) and the trace's `epoch`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from reports import folder, offline, views, wording
from reports import jobs_charts as charts
from reports import jobs_kpis as scored
from reports import jobs_tables as printed
from reports import jobs_verdicts as verdicts
from reports import recording_clock as clocks
from reports.cells import Table
from reports.folder import Facts
from reports.recording_clock import Clock, Figure

VERB = "schedule"
TABLES = {
    "outcomes": "what became of each job",
    "job_cdf": "distributions",
    "scorecard": "fidelity scorecard",
    "validity": "validity envelope",
    "job_steps": "queue and machines over time",
    "explanations": "explanations of waits",
}
_PARTS = ("queue", "pool", "user")
_LEARNING = ("flax", "gymnasium", "jax", "optax", "stable-baselines3", "statsforecast", "torch")
"""Packages that play no part in a replay."""
_DAY_S = 86_400.0
_OWN_PLACE = "out"  # the setting that differs in each run


@dataclass(frozen=True, slots=True)
class Replay:
    """The folder of a replay as the page reads it; a table that is not there is None."""

    identity: Facts
    config: str | None
    defaults: str | None
    timing: Facts
    kpis: pl.DataFrame | None
    tables: dict[str, pl.DataFrame | None]
    files: tuple[tuple[str, int], ...]

    @property
    def trace(self) -> Facts:
        """What is known of the recording."""
        return self.identity.get("trace") or {}

    @property
    def clock(self) -> Clock:
        """The wall clock of second 0."""
        return clocks.clock(str(self.trace.get("epoch") or ""))

    @property
    def is_recording(self) -> bool:
        """Is it the recording itself that is shown, and no replay of it?"""
        cdf = self.tables["job_cdf"]
        return cdf is not None and cdf.height > 0 and charts.TWIN not in cdf["source"]

    def kpi(self, name: str) -> float | None:
        """A KPI of the whole; None where it is unscored."""
        found = None if self.kpis is None else self.kpis.filter(kpi=name, entity="cluster")["value"]
        return None if found is None or not len(found) else found[0]

    def recorded(self, measure: str) -> float | None:
        """What the recording has for a measure of the scorecard, if that is not what is shown anyway."""
        card = None if self.is_recording else self.tables["scorecard"]
        found = None if card is None else card.filter(measure=measure)["recorded"]
        return None if found is None or not len(found) else found[0]


def write(place: Path) -> Path:
    """Write `report.html` into the folder of a replay and return its path; the same folder gives the same bytes.

    Raises UsageError when it is no folder that a verb wrote, TraceError or SchemaError naming the file when one of its
    files is damaged; an older page then stays as it was.
    """
    return offline.put(render(read(place)), place)


def render(replay: Replay) -> str:
    """The page as HTML."""
    figures = {section: found for section, found in _figures(replay).items() if found}
    drawn = {figure.name: figure.chart for found in figures.values() for figure in found}
    return offline.render("jobs.html.j2", _words(replay, figures), drawn)


def read(place: Path) -> Replay:
    """The folder of a replay at `place`; raises as `write` does."""
    return Replay(
        identity=folder.identity_of(place),
        config=folder.text_of(place / "config.yaml"),
        defaults=folder.text_of(place / "defaults.yaml"),
        timing=folder.document(place / "timing.json") or {},
        kpis=folder.table_of(place / "tables", "kpis"),
        tables={name: folder.table_of(place / "jobs", name) for name in TABLES},
        files=folder.listing(place),
    )


def _figures(replay: Replay) -> dict[str, list[Figure]]:
    cdf, steps = replay.tables["job_cdf"], replay.tables["job_steps"]
    over_time = None if steps is None else charts.over_time(steps, replay.clock, _capacity(replay.identity))
    return {
        "distributions": [] if cdf is None else charts.distributions(cdf, _exact(replay)),
        "time": [] if over_time is None else [over_time],
    }


def _exact(replay: Replay) -> dict[tuple[str, str], float]:
    """What is known more exactly than by the points of the distributions, by source and name."""
    own = charts.RECORDED if replay.is_recording else charts.TWIN
    kpis, card = replay.kpis, None if replay.is_recording else replay.tables["scorecard"]
    known = [] if kpis is None else [(own, *row) for row in kpis.filter(entity="cluster")["kpi", "value"].iter_rows()]
    known += [] if card is None else [(charts.RECORDED, *row) for row in card["measure", "recorded"].iter_rows()]
    known.append((own, "wait_s_zero", _at_once(replay)))
    return {(source, name): value for source, name, value in known if value is not None}


def _capacity(identity: Facts) -> dict[str, float]:
    machines = identity.get("machines") or {}
    return {c: float(machines[c]) for c in ("cpu_cores", "memory_gib", "gpus") if machines.get(c)}


# ---------------------------------------------------------------- words and tables


def _words(replay: Replay, figures: dict[str, list[Figure]]) -> Facts:
    versions = {k: v for k, v in (replay.identity.get("versions") or {}).items() if k not in _LEARNING}
    words = {
        "identity": replay.identity,
        "trace": replay.trace,
        "headline": _headline(replay),
        "is_recording": replay.is_recording,
        "verdicts": _verdicts(replay),
        "told": _told(replay),
        "assumed": _assumed(replay),
        "facts": _facts(replay),
        "differences": _differences(replay),
        "figures": figures,
        **_tables(replay),
        "phases": [(name, wording.duration(s)) for name, s in (replay.timing.get("phases") or {}).items()],
        "files": views.file_table(replay.files),
        "versions": views.records({"package": name, "version": version} for name, version in versions.items()),
        "missing": _missing(replay),
    }
    return {**words, "sections": [(anchor, title) for anchor, title, there in _listed(words) if there]}


def _assumed(replay: Replay) -> list[str]:
    """Sentences about what nobody measured."""
    told = [str(each) for each in replay.identity.get("assumed") or []]
    if replay.is_recording:
        return told
    return [*told, "the cluster is empty at second 0: what ran or waited there before is not in the replay"]


def _differences(replay: Replay) -> Table | None:
    """The settings that differ from the defaults, but for where the run lies."""
    found = views.differences(replay.config, replay.defaults)
    return found and replace(found, rows=tuple(row for row in found.rows if row.cells[0].text != _OWN_PLACE))


def _tables(replay: Replay) -> Facts:
    def made(name: str, make: Any, *more: Any) -> Table | None:  # noqa: ANN401 - any maker of tables
        frame = replay.kpis if name == "kpis" else replay.tables[name]
        return None if frame is None or not frame.height else make(frame, *more)

    parts = [(kind, made("kpis", scored.part_table, kind, _count(replay, kind))) for kind in _PARTS]
    return {
        "scores": None if replay.is_recording else made("scorecard", printed.score_table),
        "validity": None if replay.is_recording else made("validity", printed.validity_table),
        "kpis": made("kpis", scored.kpi_table),
        "parts": [(f"By {kind}", table) for kind, table in parts if table is not None],
        "causes": made("explanations", printed.cause_table),
        "explained": made("explanations", printed.explanation_table, replay.clock),
        "fates": made("outcomes", printed.fate_table),
    }


def _count(replay: Replay, kind: str) -> int | None:
    """How many users or queues the jobs are of; None where that is not known."""
    outcomes = replay.tables["outcomes"]
    return None if outcomes is None or kind == "pool" else _arrived(outcomes)[kind].drop_nulls().n_unique()


def _headline(replay: Replay) -> str:
    """What was replayed, under which scheduler, on which machines, and what became of the jobs."""
    outcomes, identity = replay.tables["outcomes"], replay.identity
    count = replay.kpi("jobs") if outcomes is None else outcomes.height
    jobs = "Jobs" if count is None else f"{wording.count(int(count))} jobs"
    source = f" of {replay.trace['name']}" if replay.trace.get("name") else ""
    scheduler = "" if replay.is_recording else replay.identity.get("scheduler")
    done = "as they were recorded" if replay.is_recording else f"replayed{f' under {scheduler}' if scheduler else ''}"
    room = _room(identity.get("machines") or {})
    return f"{jobs}{source}, {done}{f' on {room}' if room else ''}{_states(outcomes)}."


def _states(outcomes: pl.DataFrame | None) -> str:
    """How many jobs ended or stand how."""
    if outcomes is None or not outcomes.height:
        return ""
    counted = outcomes["state"].value_counts(sort=True).sort("count", "state", descending=[True, False])
    return ": " + ", ".join(f"{wording.count(count)} {state}" for state, count in counted.iter_rows())


def _room(machines: Facts) -> str:
    """The machines in words: how many, and what they hold together; "" where that is not told."""
    count = int(machines.get("count") or 0)
    if not count:
        return ""
    units = (("cpu_cores", "cores"), ("memory_gib", "GiB"), ("gpus", "GPUs"))
    held = [f"{wording.number(machines[column], 6)} {unit}" for column, unit in units if machines.get(column)]
    told = f"{wording.count(count)} machine{'s' * (count != 1)}"
    return f"{told} with {', '.join(held)}" if held else told


def _verdicts(replay: Replay) -> list[tuple[str, str, str]]:
    """(tone, word, sentence) of fidelity and of the loads at which it holds; none of a recording shown as it is."""
    if replay.is_recording:
        return []
    card, validity = replay.tables["scorecard"], replay.tables["validity"]
    scheduler = str(replay.identity.get("scheduler") or "")
    told = [] if card is None else [verdicts.fidelity(card, _days(replay), scheduler)]
    by_load = None if validity is None else verdicts.by_load(validity)
    return told if by_load is None else [*told, by_load]


def _days(replay: Replay) -> int | None:
    """On how many days jobs arrived; None where it is not known."""
    outcomes = replay.tables["outcomes"]
    if outcomes is None or not outcomes.height:
        return None
    return (_arrived(outcomes)["submit_s"] / _DAY_S).floor().n_unique()


def _arrived(outcomes: pl.DataFrame) -> pl.DataFrame:
    return outcomes.filter(pl.col("state") != "expected", pl.col("submit_s").is_not_null())


def _told(replay: Replay) -> list[tuple[str, str, str]]:
    """(name, value, note) of the numbers that come first; the note says what was recorded."""
    timed = (("Mean wait", "wait_mean_s"), ("Median wait", "wait_median_s"), ("95 % wait at most", "wait_p95_s"))
    told = [(name, wording.duration(replay.kpi(k)), _recorded(replay, k, "s")) for name, k in timed]
    told.append(("Started at once", _percent(_at_once(replay)), _recorded_at_once(replay)))
    slowdown, used = replay.kpi("bounded_slowdown_mean"), replay.kpi("utilisation_cpu_ratio")
    note = _recorded(replay, "bounded_slowdown_mean", "ratio")
    told.append(("Mean bounded slowdown", wording.number(slowdown), note))
    span = "first arrival to the replay's end"
    told.append(("Cores held", _percent(used), f"of all cores, {span}"))
    gpus = replay.kpi("utilisation_gpu_ratio")
    told.append(("GPUs held", _percent(gpus) if gpus else wording.DASH, f"of all GPUs, {span}"))
    told.append(("Makespan", wording.duration(replay.kpi("makespan_s")), "first arrival to last end"))
    told.append(("Energy", _energy(replay), "by the held share of the cores"))
    carbon = replay.kpi("carbon_kg")
    told.append(("Carbon", wording.DASH if carbon is None else f"{wording.number(carbon)} kg", "CO2 equivalent"))
    return [each for each in told if each[1] != wording.DASH]


def _recorded(replay: Replay, measure: str, unit: str) -> str:
    value = replay.recorded(measure)
    return "" if value is None else f"recorded: {printed.quantity(value, unit)}"


def _at_once(replay: Replay) -> float | None:
    """The share of the started jobs that did not wait; None where none started."""
    outcomes = replay.tables["outcomes"]
    waits = None if outcomes is None else outcomes["wait_s"].drop_nulls()
    return None if waits is None or not len(waits) else float((waits <= 0).sum()) / len(waits)


def _recorded_at_once(replay: Replay) -> str:
    """The same of the recording, of which the folder has the distribution alone."""
    cdf = None if replay.is_recording else replay.tables["job_cdf"]
    known = None if cdf is None else cdf.filter(measure="wait_s", source=charts.RECORDED)
    return "" if known is None or not known.height else f"recorded: {charts.zeros(known) or '0 %'}"


def _percent(share: float | None) -> str:
    return wording.DASH if share is None else f"{wording.number(100 * share)} %"


def _energy(replay: Replay) -> str:
    """The KPI; where it is not known, what the steps come to."""
    scored, steps = replay.kpi("energy_kwh"), replay.tables["job_steps"]
    own = None if steps is None else steps.filter(entity="cluster")
    stepped = 0.0 if own is None else float((own["power_w"] * own["step_s"]).sum()) / 3.6e6
    return f"{wording.number(scored or stepped)} kWh" if scored or stepped else wording.DASH


def _facts(replay: Replay) -> list[tuple[str, str, str]]:
    """(name, value, note) of who ran what on which facts."""
    identity, timing, trace = replay.identity, replay.timing, replay.trace
    git = identity.get("git") or {}
    facts = [
        ("Run", identity.get("run_id"), ""),
        ("Trace", trace.get("name"), trace.get("digest")),
        ("Scheduler", replay.identity.get("scheduler"), ""),
        ("Seed", identity.get("seed"), ""),
        ("Code", str(git.get("commit") or "")[:12], "with uncommitted changes" if git.get("dirty") else "committed"),
        *_spans(replay),
        ("Took", wording.duration(timing["wall_s"]) if "wall_s" in timing else None, ""),
    ]
    return [(name, str(value), str(note or "")) for name, value, note in facts if value not in (None, "")]


def _spans(replay: Replay) -> list[tuple[str, str | None, str]]:
    """From when until when jobs arrived, and until when they ran."""
    outcomes = replay.tables["outcomes"]
    arrived = None if outcomes is None else _arrived(outcomes)
    if arrived is None or not arrived.height:
        return []
    last_s = pl.max_horizontal("submit_s", "end_s", pl.col("start_s") + pl.col("run_s")).max()
    first, last, end = arrived.select(a=pl.col("submit_s").min(), b=pl.col("submit_s").max(), c=last_s).row(0)
    at = replay.clock
    ran = "As recorded until" if replay.is_recording else "Replayed until"
    return [
        ("Jobs arrived", f"{clocks.moment(at, first)} to {clocks.moment(at, last)}", wording.duration(last - first)),
        (ran, clocks.moment(at, end), f"{wording.duration(end - first)} after the first arrival"),
    ]


def _missing(replay: Replay) -> list[str]:
    """The tables that this folder does not hold."""
    absent = [words for name, words in TABLES.items() if replay.tables[name] is None]
    absent += ["KPIs"] if replay.kpis is None else []
    absent += ["timing"] if not replay.timing else []
    return absent + (["configuration"] if replay.config is None else [])


def _listed(words: Facts) -> Iterator[tuple[str, str, object]]:
    figures = words["figures"]
    yield "identity", "Identity", True
    yield "fidelity", "Fidelity", words["scores"] or words["validity"]
    yield "distributions", "Distributions", figures.get("distributions")
    yield "time", "On one clock", figures.get("time")
    yield "kpis", "KPIs", words["kpis"] or words["parts"]
    yield "waits", "Why jobs waited", words["causes"] or words["explained"]
    yield "unfinished", "Not done, and why", words["fates"]
    yield "reproduce", "Reproduce", True
