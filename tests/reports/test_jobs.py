"""The page of a replay of jobs: one file, offline, whatever its folder holds and whatever jobs are called."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from reports import jobs, jobs_charts, jobs_kpis, jobs_tables, jobs_verdicts, page, wording
from tests.reports.outline import Outline
from twin import job_energy, job_metrics, scheduling
from twin.engine.jobs.machines import from_nodes
from twin.engine.jobs.scheduler import Scheduler
from twin.engine.scheduling.backfill import Easy
from twin.engine.scheduling.orders import Fcfs
from twin.errors import SchemaError, TraceError, UsageError
from twin.fidelity.scorecard import as_outcomes, passed, scorecard, validity
from twin.job_metrics import cdf, kpis
from twin.trace import tables
from twin.trace.trace import Trace, TraceInfo

EVIL = "</script><script>alert('x')</script><img src=x onerror=alert(1)> & \u2028 \"quoted\" \\"
DAY_S = 86_400.0
STEP_S = 1_800.0


def recording(count=400, name="lab"):
    """Four days of jobs on two pools of machines, recorded as first come first served; two can never run."""
    rng = np.random.default_rng(3)
    submit = np.sort(rng.random(count)) * 4 * DAY_S
    run = rng.lognormal(8, 1, count)
    cores = rng.integers(1, 9, count).astype(float)
    cores[[5, 50]] = 500.0
    start = submit + np.where(rng.random(count) < 0.5, 0.0, rng.exponential(2_000, count))
    frame = pl.DataFrame(
        {
            "job": [f"{name}-{k}" for k in range(count)],
            "submit_s": submit,
            "start_s": start,
            "end_s": start + run,
            "run_s": run,
            "cpu_cores": cores,
            "limit_s": run * 2,
            "user": [f"{name}{k % 7}" for k in range(count)],
            "queue": ["day", "night"] * (count // 2),
        }
    )
    nodes = pl.DataFrame(
        {"node": [f"n{k}" for k in range(6)], "pool": ["thin"] * 4 + ["fat"] * 2, "cpu_cores": [8.0] * 4 + [16.0] * 2}
    )
    return Trace(TraceInfo(name, "made by a test", "CC0", "ab" * 32), {"jobs": frame, "nodes": nodes})


def steps_of(until_s):
    """A series of 30-minute steps of the cluster and two pools, with a day missing."""
    end = np.arange(1, int(until_s / STEP_S) + 2) * STEP_S
    end = end[(end <= DAY_S) | (end > 2 * DAY_S)]
    wave = 1 + np.sin(end / DAY_S * 2 * np.pi)
    frames = [
        pl.DataFrame(
            {
                "time_s": end, "step_s": STEP_S, "entity": entity, "waiting_jobs": 5 * wave * part,
                "waiting_cores": 20 * wave * part, "running_jobs": 8 * wave * part, "cpu_cores": 30 * wave * part,
                "memory_gib": 0.0, "gpus": 0.0, "empty_machines": 1.0, "closed_machines": 0.0, "power_w": 900.0 * part,
            }
        )
        for entity, part in (("cluster", 1.0), ("pool:thin", 0.25), ("pool:fat", 0.75))
    ]  # fmt: skip
    return pl.concat(frames)


def explained(outcomes):
    """One wait and one start of every job that waited."""
    late = outcomes.filter(pl.col("wait_s") > 0).with_row_index("place")
    why = pl.format("number {} in the queue; of 6 machines 6 have too few free cores", pl.col("place") + 1)
    waits = late.select("job", from_s="submit_s", until_s="start_s", what=pl.lit("waits"), reason=why)
    starts = late.select(
        "job", from_s="start_s", until_s="start_s", what=pl.lit("starts"), reason=pl.lit("lowest first")
    )
    return pl.concat([waits, starts])


def tables_of(trace, scheduler=None):
    """Every table of a run folder, by the folder that it lies in and its name."""
    room = from_nodes(trace.nodes)
    run = scheduling.schedule(trace, room, scheduler or Scheduler(Fcfs(), Easy()))
    out, cores = run.outcomes, float(room.total()[0])
    curves = [
        cdf(frame, measure, 201).select("share", "value", measure="column", source=pl.lit(source))
        for measure in ("wait_s", "response_s", "bounded_slowdown")
        for source, frame in (("twin", out), ("recorded", as_outcomes(trace.jobs)))
    ]
    return {
        ("tables", "kpis"): kpis(out, machines=room, placements=run.placements, by=("user", "queue", "pool")),
        ("jobs", "outcomes"): out,
        ("jobs", "job_cdf"): pl.concat(curves),
        ("jobs", "scorecard"): scorecard(trace.jobs, out, capacity_cores=cores),
        ("jobs", "validity"): validity(trace.jobs, out, capacity_cores=cores),
        ("jobs", "job_steps"): steps_of(run.until_s),
        ("jobs", "explanations"): explained(out),
    }


def identity_of(name="lab", **more):
    return {
        "format_version": 1, "verb": "schedule", "name": name, "run_id": "r1", "seed": 0, "status": "completed",
        "trace": {"name": name, "digest": "d" * 16, "source": "made by a test", "licence": "CC0", "epoch": ""},
        "scheduler": "fcfs, backfill easy", "machines": {"count": 6, "cpu_cores": 64.0},
        "command": "python -m experiments.schedule", "versions": {"polars": "1"}, **more,
    }  # fmt: skip


def folder_of(place, held, **more):
    """A folder as the verb leaves it."""
    place.mkdir(parents=True)
    (place / "identity.json").write_text(json.dumps(identity_of(**more)))
    (place / "timing.json").write_text(json.dumps({"wall_s": 3.0, "phases": {"schedule": 2.0}}))
    for name, seed in (("config", 1), ("defaults", 0)):
        (place / f"{name}.yaml").write_text(f"seed: {seed}\n")
    for (sub, name), frame in held.items():
        (place / sub).mkdir(exist_ok=True)
        tables.write(tables.conform(frame, name, "test"), place / sub / f"{name}.parquet")
    return place


@pytest.fixture(scope="module")
def held():
    return tables_of(recording())


@pytest.fixture(scope="module")
def written(held, tmp_path_factory):
    return page.write(folder_of(tmp_path_factory.mktemp("jobs") / "full", held))


@pytest.fixture(scope="module")
def html(written):
    return written.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def outline(html):
    return Outline(html)


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    """The page of jobs, users, pools, reasons and schedulers whose names look like code."""
    held = tables_of(recording(60, name=EVIL))
    reason = held["jobs", "explanations"].with_columns(reason=pl.lit(EVIL))
    steps = held["jobs", "job_steps"].with_columns(pl.col("entity").str.replace("thin", EVIL, literal=True))
    held |= {("jobs", "explanations"): reason, ("jobs", "job_steps"): steps}
    place = tmp_path_factory.mktemp("evil") / "run"
    return page.write(folder_of(place, held, name=EVIL, scheduler=EVIL, command=EVIL))


def said(outline):
    return " ".join(" ".join(outline.text).split())


# ---------------------------------------------------------------- one offline file


def test_nothing_is_loaded_from_anywhere(outline):
    for tag, name, value in outline.links:
        assert tag == "a", f"<{tag} {name}={value!r}> loads something"
        assert re.match(r"^(#|[\w./%=~ -]+$)", value), value
    assert not {"link", "iframe", "object", "embed", "base", "img", "video", "audio"} & set(outline.tags)


def test_every_link_leads_to_a_section_or_a_file(written, html, outline):
    anchors = set(re.findall(r'id="([\w-]+)"', html))
    for _, _, value in outline.links:
        assert value[1:] in anchors if value.startswith("#") else (written.parent / value).is_file()


def test_the_content_policy_allows_the_pages_own_scripts_and_nothing_else(html, outline):
    policy = html.split('Security-Policy" content="')[1].split('"')[0].replace("&#39;", "'")
    allowed = set(re.findall(r"'sha256-([^']+)'", policy))
    code = [text for attrs, text in outline.scripts if attrs["type"] == "module"]
    assert allowed == {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in code}
    assert outline.handlers == []


def test_the_same_folder_gives_the_same_bytes(written):
    first = written.read_bytes()
    assert page.write(written.parent).read_bytes() == first


def test_names_that_look_like_code_stay_text(evil):
    outline = Outline(evil.read_text(encoding="utf-8"))
    assert outline.tags.count("script") == 4
    assert "img" not in outline.tags
    assert outline.handlers == []
    assert "alert('x')" in "".join(outline.text)


# ---------------------------------------------------------------- what it says


def test_sections_stand_in_the_order_of_reading(html):
    found = re.findall(r'<section id="(\w+)">', html)
    order = ["identity", "fidelity", "distributions", "time", "kpis", "waits", "unfinished", "reproduce"]
    assert found == order
    assert re.findall(r'<li><a href="#(\w+)">', html) == order


def test_the_head_says_what_was_replayed_and_how(outline, held):
    text = said(outline)
    assert (
        "400 jobs of lab, replayed under fcfs, backfill easy on 6 machines with 64 cores: 398 done, 2 refused." in text
    )
    for word in ("Mean wait", "Started at once", "Mean bounded slowdown", "Cores held", "Energy", "recorded:"):
        assert word in text, word
    at_once = float((held["jobs", "outcomes"]["wait_s"].drop_nulls() == 0).mean())
    assert f"Started at once {100 * at_once:.3g} %" in text


@pytest.mark.parametrize(
    ("verdicts", "tone", "word"),
    [
        (["pass", "noise", "fail"], "bad", "fail"),
        (["noise", "fail"], "bad", "fail"),
        (["pass", "noise", "unscored"], "bad", "not passed"),
        (["pass", "unscored"], "good", "pass"),
        (["unscored"], "unsure", "not judged"),
    ],
)
def test_the_worst_verdict_is_the_replays(held, tmp_path, verdicts, tone, word):
    """One measure beyond its threshold is enough; noise is no excuse."""
    card = held["jobs", "scorecard"].head(len(verdicts)).with_columns(verdict=pl.Series(verdicts))
    path = page.write(folder_of(tmp_path / "run", {("jobs", "scorecard"): card}))
    banners = re.findall(r'<p class="banner (\w+)"><b>([^<]+)</b>', path.read_text(encoding="utf-8"))
    assert banners == [(tone, word)]
    passed_by_the_rule = passed(card)
    assert (word == "pass") == passed_by_the_rule


@pytest.mark.parametrize(("verdict", "word"), [("pass", "too short to judge"), ("noise", "too short to judge")])
def test_a_recording_of_few_days_passes_nothing(held, verdict, word):
    """Its halves differ so much that nothing could fail; what fails all the same has failed."""
    card = held["jobs", "scorecard"].with_columns(verdict=pl.lit(verdict))
    short, long = jobs_verdicts.LEAST_DAYS - 1, jobs_verdicts.LEAST_DAYS
    assert jobs_verdicts.fidelity(card, short, "")[:2] == ("unsure", word)
    assert jobs_verdicts.fidelity(card, long, "")[1] != word
    assert jobs_verdicts.fidelity(card.with_columns(verdict=pl.lit("fail")), short, "")[:2] == ("bad", "fail")


def test_the_days_of_a_recording_are_those_of_its_arrivals(held, html):
    days = int((held["jobs", "outcomes"]["submit_s"] // DAY_S).n_unique())
    assert days < jobs_verdicts.LEAST_DAYS
    assert f"Jobs arrived on {days} days" in html


@pytest.mark.parametrize("verdict", ["noise", "fail"])
def test_the_banner_says_that_another_policy_is_expected_to_differ(held, verdict):
    card = held["jobs", "scorecard"].with_columns(verdict=pl.lit(verdict))
    sentence = jobs_verdicts.fidelity(card, None, "sjf")[2]
    assert "A policy other than the recorded one is expected to differ" in sentence
    assert "(sjf)" in sentence


def test_the_scorecard_tells_verdicts_in_words_and_colour(html, held):
    card = held["jobs", "scorecard"]
    body = html.split('<section id="fidelity">')[1].split("</section>")[0]
    for verdict, (tone, word) in jobs_tables.VERDICTS.items():
        if tone:
            own = card.filter(verdict=verdict).height
            assert body.split("By offered load")[0].count(f'<td class="tone {tone}">{word}') == own
    for measure in card["measure"]:
        assert jobs_tables.MEASURES[measure].replace("'", "&#39;") in body, measure


def test_the_loads_are_told_at_which_waits_hold_and_at_which_not():
    rows = {"load_from": [0.0, 0.2, 0.4, 1.5], "load_to": [0.2, 0.4, 0.6, np.inf], "days": [2, 3, 1, 4]}
    frame = pl.DataFrame({**rows, "within": [True, True, False, True]})
    tone, _, sentence = jobs_verdicts.by_load(frame) or ("", "", "")
    assert tone == "unsure"
    assert "at 0–40 % (5 days) and above 150 % (4 days); it does not at 40–60 % (1 day)." in sentence
    assert (jobs_verdicts.by_load(frame.filter("within")) or [""])[0] == "good"
    assert (jobs_verdicts.by_load(frame.head(2)) or [""])[:2] == ("unsure", "too short to judge")
    assert (jobs_verdicts.by_load(frame.filter(~pl.col("within"))) or [""])[0] == "bad"
    assert jobs_verdicts.by_load(frame.clear()) is None


def test_every_kpi_of_jobs_has_a_name_that_is_read():
    assert {*job_metrics.KPIS | job_metrics.STRANDING, *job_energy.KPIS, *scheduling.KPIS} == set(jobs_kpis.KPIS)
    assert not [name for name, _ in jobs_kpis.KPIS.values() if "_" in name]


def test_units_are_written_one_way(outline):
    text = said(outline)
    assert "core·h" in text
    assert "core*h" not in text


def test_parts_that_do_not_add_up_to_the_whole_say_why(held):
    frame = held["tables", "kpis"]
    of_pools, of_queues = (jobs_kpis.part_table(frame, kind, 9) for kind in ("pool", "queue"))
    assert of_pools is not None
    assert of_queues is not None
    assert "counts in each" not in of_pools.sentence  # here every job lay on one
    assert "7 more are not shown" in of_queues.sentence
    drawn = pl.DataFrame(
        [("energy_unoccupied_kwh", "cluster", 4.96, "kWh", "lower")], schema=frame.schema, orient="row"
    )
    spread = frame.with_columns(value=pl.when(entity="pool:fat", kpi="jobs").then(400.0).otherwise("value"))
    on_two = jobs_kpis.part_table(spread, "pool")
    assert on_two is not None
    assert on_two.sentence == "A job that lay on two pools counts in each."
    told = jobs_kpis.part_table(pl.concat([frame, drawn]), "queue")
    assert told is not None
    assert told.sentence == "What empty machines drew, 4.96 kWh, belongs to nobody."


def test_parts_stand_with_the_largest_first(html, held):
    own = held["tables", "kpis"].filter(pl.col("entity").str.starts_with("user:"), kpi="core_h")
    largest = own.sort("value", descending=True)["entity"].str.strip_prefix("user:").to_list()
    body = html.split("<h3>By user</h3>")[1].split("</table>")[0]
    assert re.findall(r"<tr><td><strong>([^<]+)</strong>", body) == largest
    assert "GPU-hours" not in body  # nothing held one
    assert "share of all cores" in body
    assert "share of its own cores" in html.split("<h3>By pool</h3>")[1].split("</table>")[0]


def test_an_unknown_kpi_is_a_dash_and_never_0(held):
    own = held["tables", "kpis"].filter(pl.col("entity").str.starts_with("queue:"))
    blank = own.with_columns(value=pl.when(pl.col("kpi") != "wait_mean_s").then("value"))
    table = jobs_kpis.part_table(blank, "queue")
    assert table is not None
    place = [column.title for column in table.columns].index("mean wait")
    assert {row.cells[place].text for row in table.rows} == {"–"}


def test_one_page_tells_one_figure(held, outline):
    """Sentences below the curves and the numbers at the top have the same shares and quantiles."""
    whole = dict(held["tables", "kpis"].filter(entity="cluster")["kpi", "value"].iter_rows())
    card = dict(held["jobs", "scorecard"]["measure", "recorded"].iter_rows())
    waits = held["jobs", "outcomes"]["wait_s"].drop_nulls()
    text = said(outline)
    at_once = f"{wording.number(100 * float((waits == 0).mean()))} %"
    twin, real = ([wording.duration(of[f"wait_{how}_s"]) for how in ("median", "p95")] for of in (whole, card))
    assert f"Wait: in the twin {at_once} are 0, the median is {twin[0]} and 95 % are at most {twin[1]};" in text
    assert f"Started at once {at_once}" in text
    assert f"the median is {real[0]} and 95 % are at most {real[1]}." in text
    assert f"Median wait {twin[0]} recorded: {real[0]}" in text


def test_a_share_that_is_known_by_its_curve_alone_is_told_as_a_range():
    shares = np.linspace(0, 1, 101)
    curve = pl.DataFrame({"share": shares, "value": np.where(shares < 0.435, 0.0, 5.0)})
    assert jobs_charts.zeros(curve) == "43 to 44 %"
    assert jobs_charts.zeros(curve.filter(value=0.0).with_columns(share=pl.lit(1.0))) == "100 %"
    assert jobs_charts.zeros(curve.filter(value=5.0)) == ""


def test_what_is_assumed_stands_at_the_top(tmp_path):
    """That the cluster starts empty among it, unless the recording itself is shown."""
    path = page.write(folder_of(tmp_path / "run", {}, assumed=["nobody measured power"]))
    header = path.read_text(encoding="utf-8").split("</header>")[0]
    assert "Note: nobody measured power." in header
    assert "Note: the cluster is empty at second 0" in header


def test_the_spans_of_arrivals_and_of_the_replay_are_told(held, outline):
    out = held["jobs", "outcomes"]
    first, last = (wording.clock(float(t)) for t in (out["submit_s"].min(), out["submit_s"].max()))
    assert f"Jobs arrived {first} to {last}" in said(outline)
    assert f"Replayed until {wording.clock(float(out['end_s'].max()))}" in said(outline)


def test_what_differs_in_every_run_or_plays_no_part_is_not_told(tmp_path):
    place = folder_of(tmp_path / "run", {}, versions={"polars": "1", "torch": "2", "jax": "3", "flax": "4"})
    (place / "config.yaml").write_text("seed: 1\nout: here\n")
    text = said(Outline(page.write(place).read_text(encoding="utf-8")))
    assert "1 setting differs from the defaults" in text
    assert "polars" in text
    assert not {"torch", "jax", "flax"} & set(text.split())


def test_refused_jobs_are_counted_by_reason(outline):
    text = said(outline)
    assert "refused one instance is larger than any machine that it accepts 2 0.5" in text


def test_reasons_that_differ_by_numbers_alone_are_one_cause(held):
    found = held["jobs", "explanations"]
    table = jobs_tables.cause_table(found)
    assert table is not None
    (row,) = table.rows
    waits = found.filter(what="waits")
    assert row.cells[0].text == "number … in the queue; of … machines … have too few free cores"
    assert row.cells[2].sort == waits.height
    assert row.cells[3].sort == pytest.approx((waits["until_s"] - waits["from_s"]).sum())


def test_explained_jobs_are_those_that_waited_longest(held, html):
    waits = held["jobs", "explanations"].filter(what="waits")
    longest = waits.sort(pl.col("until_s") - pl.col("from_s"), descending=True)["job"][0]
    listed = html.split("<h3>Job by job</h3>")[1].split("</table>")[0]
    assert re.findall(r"<tr><td><strong>([^<]+)</strong>", listed)[0] == longest
    assert listed.count("<tr>") <= 202


# ---------------------------------------------------------------- what it draws


def test_every_chart_has_its_numbers_in_a_sentence(html, outline):
    specs = outline.held("charts")
    labels = dict(re.findall(r'id="chart-(\w+)" role="img" aria-label="([^"]+)"', html))
    assert set(labels) == set(specs) == {"cdf_0", "cdf_1", "cdf_2", "over_time"}
    captions = re.findall(r'<p class="note caption">([^<]+)</p>', html)
    assert captions == list(labels.values())
    assert all(re.search(r"\d", each) for each in captions)


def test_every_axis_has_a_unit(outline):
    specs = outline.held("charts")
    for name in ("cdf_0", "cdf_1", "cdf_2"):
        encoding = specs[name]["layer"][0]["encoding"]
        assert encoding["y"]["title"] == "jobs not above it (%)"
    assert specs["cdf_2"]["layer"][0]["encoding"]["x"]["axis"]["title"] == "bounded slowdown (ratio)"
    assert " s'" in specs["cdf_0"]["layer"][0]["encoding"]["x"]["axis"]["labelExpr"]
    titles = [panel.get("title", "") for panel in specs["over_time"]["vconcat"][:-1]]
    assert all(re.search(r"\((jobs|cores|GiB|GPUs|W|machines)\)$", title) for title in titles)
    assert len(titles) == 7  # two of them by pool; memory and GPUs were never held


def test_zero_waits_stand_on_the_axis_with_their_share(outline, held):
    spec, data = outline.held("charts")["cdf_0"], outline.held("data")
    assert spec["layer"][0]["encoding"]["x"]["scale"]["type"] == "symlog"
    assert set(data["cdf_0_zero"]["x"]) == {0}
    curve = held["jobs", "job_cdf"].filter(measure="wait_s", value=0.0)
    shares = [100 * curve.filter(source=source)["share"].max() for source in ("recorded", "twin")]
    assert data["cdf_0_zero"]["y"] == pytest.approx(shares)


def test_twin_and_recording_have_one_colour_each_in_every_chart(outline):
    specs = outline.held("charts")
    scales = [json.dumps(specs[f"cdf_{k}"]["layer"][0]["encoding"]["color"]["scale"]) for k in range(3)]
    assert len(set(scales)) == 1
    assert json.loads(scales[0])["domain"] == ["recorded", "twin"]


def test_pools_that_share_one_queue_have_no_panel_of_it(held, tmp_path):
    """Each job accepts every pool: the same line twice would tell nothing."""
    shared = held["jobs", "job_steps"].with_columns(waiting_jobs=pl.lit(3.0))
    path = page.write(folder_of(tmp_path / "run", {("jobs", "job_steps"): shared}))
    panels = Outline(path.read_text(encoding="utf-8")).held("charts")["over_time"]["vconcat"]
    titles = [panel.get("title", "") for panel in panels]
    assert not [title for title in titles if title.startswith("Jobs waiting, by")]
    assert "Cores held, by pool (cores)" in titles


def test_a_day_without_steps_breaks_the_lines(outline):
    data = outline.held("data")
    lines = [columns for name, columns in data.items() if name.startswith("over_time_") and "k" in columns]
    assert lines
    assert all(set(columns["p"]) == {0, 1} for columns in lines)


def test_every_chart_compiles_without_the_page(outline):
    import vl_convert

    data = outline.held("data")
    for name, spec in outline.held("charts").items():
        sets = {n: pl.DataFrame(data[n], strict=False).to_dicts() for n in spec["usermeta"]["datasets"]}
        svg = vl_convert.vegalite_to_svg({**spec, "datasets": sets})
        assert "NaN" not in svg, name
        assert "mark-line" in svg, name


# ---------------------------------------------------------------- any folder


def test_what_is_not_there_is_left_out_and_named(tmp_path):
    html = page.write(folder_of(tmp_path / "bare", {})).read_text(encoding="utf-8")
    assert re.findall(r'<section id="(\w+)">', html) == ["identity", "reproduce"]
    for words in (*jobs.TABLES.values(), "KPIs"):
        assert words in html.split("Not in this run folder")[1], words
    assert "Nothing was compared with the recording." in html
    assert len(html) < 50_000  # no chart, no bundle


def test_tables_without_rows_have_a_page(held, tmp_path):
    empty = {place: frame.clear() for place, frame in held.items()}
    html = page.write(folder_of(tmp_path / "empty", empty)).read_text(encoding="utf-8")
    assert re.findall(r'<section id="(\w+)">', html) == ["identity", "reproduce"]


def test_a_recording_shown_as_it_is_is_not_judged(held, tmp_path):
    """The distributions have no twin: nothing was replayed."""
    alone = held["jobs", "job_cdf"].filter(source="recorded")
    path = page.write(folder_of(tmp_path / "run", {**held, ("jobs", "job_cdf"): alone}))
    text = said(Outline(path.read_text(encoding="utf-8")))
    assert "400 jobs of lab, as they were recorded on 6 machines" in text
    assert "This is the recording itself" in text
    assert "How far the twin can be trusted" not in text


@pytest.mark.parametrize("place", [("tables", "kpis"), *(("jobs", name) for name in jobs.TABLES)])
def test_a_damaged_table_is_named_and_leaves_the_older_page(written, tmp_path, place):
    run = tmp_path / "run"
    shutil.copytree(written.parent, run)
    before = (run / "report.html").read_bytes()
    (run / place[0] / f"{place[1]}.parquet").write_bytes(b"no parquet")
    with pytest.raises(SchemaError, match=place[1]):
        page.write(run)
    assert (run / "report.html").read_bytes() == before
    assert not list(run.glob("*.tmp"))


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"identity\.json is missing"):
        jobs.write(tmp_path)
    (tmp_path / "identity.json").write_text('{"format_version": 1, "verb": "schedule"}')
    (tmp_path / "timing.json").write_text("[1]")
    with pytest.raises(TraceError, match=r"timing\.json"):
        page.write(tmp_path)


def test_a_hundred_thousand_jobs_fit_into_the_page(held, tmp_path):
    """And 5,000 users, 30 pools in 2,048 steps, and 10,000 explained waits, within seconds."""
    count = 100_000
    one = held["jobs", "outcomes"].filter(state="done").head(1)
    many = pl.concat([one] * count).with_columns(
        job=pl.format("job-{}", pl.int_range(count)),
        state=pl.when(pl.int_range(count) % 3 == 0).then(pl.lit("refused")).otherwise("state"),
        reason=pl.format("the {} cores that it asks for are more than any machine has", pl.int_range(count)),
    )
    kpis_ = held["tables", "kpis"].filter(entity="user:lab0")
    users = pl.concat([kpis_.with_columns(entity=pl.lit(f"user:{k}")) for k in range(5_000)])
    end = np.arange(1, 2_049) * STEP_S
    shape = held["jobs", "job_steps"].head(1)
    steps = [
        pl.concat([shape] * end.size).with_columns(time_s=end, entity=pl.lit(entity), cpu_cores=np.sqrt(end) + k)
        for k, entity in enumerate(["cluster", *(f"pool:{k}" for k in range(30))])
    ]
    waits = many.head(10_000).select(
        "job", "reason", from_s="submit_s", until_s=pl.col("submit_s") + pl.int_range(10_000), what=pl.lit("waits")
    )
    big = {
        **held,
        ("tables", "kpis"): pl.concat([held["tables", "kpis"], users]),
        ("jobs", "outcomes"): many,
        ("jobs", "job_steps"): pl.concat(steps),
        ("jobs", "explanations"): waits,
    }
    run = folder_of(tmp_path / "big", big)
    begin = time.process_time()
    path = page.write(run)
    assert time.process_time() - begin < 10.0
    assert path.stat().st_size < 2_000_000
    outline = Outline(path.read_text(encoding="utf-8"))
    panels = [panel.get("title", "") for panel in outline.held("charts")["over_time"]["vconcat"]]
    place = panels.index("Cores held, by the 6 of 30 pools with most (cores)")
    assert set(outline.held("data")[f"over_time_{place}"]["k"]) == set(range(6))


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no browser here")
def test_a_browser_draws_every_chart_without_an_error(evil, tmp_path):
    """Even where pools have names that look like code."""
    charts = len(Outline(evil.read_text(encoding="utf-8")).held("charts"))
    command = [
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--enable-logging=stderr", "--virtual-time-budget=20000", "--dump-dom", Path(evil).as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    assert f'data-drawn="{charts}"' in done.stdout
