"""The charts of a replay of jobs: distributions of the twin against the recording, and the cluster on one clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl

from reports import palette, wording
from reports.charts import colour, dash, named, rows, theme
from reports.recording_charts import TIME_LABEL
from reports.recording_clock import NUMBER_LABEL, Clock, Figure, Panel, names, numbered, spelled, stacked

if TYPE_CHECKING:
    import altair as alt

TWIN, RECORDED = "twin", "recorded"
_TITLES = {
    "wait_s": "wait",
    "response_s": "response (arrival to end)",
    "slowdown": "slowdown",
    "bounded_slowdown": "bounded slowdown",
}
_TICKS_S = (0, 10, 60, 600, 3_600, 21_600, 86_400, 604_800, 2_592_000, 31_536_000)
_LINEAR_BELOW_S = 10.0  # of the axis of times: 0 has a place on it, and what is longer is drawn by ratios
_POINTS = 400  # of a curve
_POOLS = 6  # lines of a panel
_CLUSTER, _POOL = "cluster", "pool:"
_SHOWN = (
    ("Jobs waiting and running (jobs)", {"waiting_jobs": "waiting", "running_jobs": "running"}, ""),
    ("Cores that waiting jobs ask for (cores)", {"waiting_cores": "asked for"}, ""),
    ("Cores held (cores)", {"cpu_cores": "held"}, "cpu_cores"),
    ("Memory held (GiB)", {"memory_gib": "held"}, "memory_gib"),
    ("GPUs held (GPUs)", {"gpus": "held"}, "gpus"),
    ("Power (W)", {"power_w": "drawn"}, ""),
    ("Machines empty and closed (machines)", {"empty_machines": "empty", "closed_machines": "closed"}, ""),
)
_WAITING = "Jobs waiting, "
_OF_POOLS = {"waiting_jobs": f"{_WAITING}{{}} (jobs)", "cpu_cores": "Cores held, {} (cores)"}


# ---------------------------------------------------------------- distributions


def distributions(cdf: pl.DataFrame, exact: Mapping[tuple[str, str], float]) -> list[Figure]:
    """One chart for each measure of the table `job_cdf`, the twin's curve over the recording's.

    `exact` holds what is known more exactly than by the points of a curve, by source and name: `wait_median_s`,
    `wait_p95_s` (the measure with the quantile before its unit) and `wait_s_zero` (the share of zeros).
    """
    return [
        _distribution(f"cdf_{k}", curve, exact)
        for k, curve in enumerate(cdf.drop_nulls("value").partition_by("measure", maintain_order=True))
    ]


def measure_words(measure: str) -> str:
    """A measure's name as it is read, without its unit."""
    return _TITLES.get(measure, wording.words(measure.removesuffix("_s")))


def zeros(curve: pl.DataFrame) -> str:
    """For how many jobs the measure is 0, by the points of one source's curve: "43 to 44 %", "" where it never is."""
    at_zero = pl.col("value") <= 0
    low, high = curve.select(
        low=pl.col("share").filter(at_zero).max(), high=pl.col("share").filter(~at_zero).min()
    ).row(0)
    if low is None:
        return ""
    ends = [wording.number(100.0 * end) for end in (low, low if high is None else high)]
    return f"{' to '.join(dict.fromkeys(ends))} %"


def _distribution(name: str, curve: pl.DataFrame, exact: Mapping[tuple[str, str], float]) -> Figure:
    import altair as alt

    measure = str(curve["measure"][0])
    title, timed = measure_words(measure), measure.endswith("_s")
    sources = sorted(names(curve["source"]))
    styles = palette.styles(sources, RECORDED)
    parts = [_thin(curve.filter(source=source)) for source in sources]
    drawn = pl.concat(parts)
    tips = [
        alt.Tooltip("s:N", title="source"),
        alt.Tooltip("x:Q", title=f"{title} (s)" if timed else title, format=",.4~r"),
        alt.Tooltip("y:Q", title="not above it (%)", format=".1f"),
    ]
    x = _x(drawn["value"], title, timed=timed)
    y = alt.Y("y:Q", title="jobs not above it (%)", scale=alt.Scale(domain=[0, 100]), axis=alt.Axis(tickCount=5))
    tint, strokes = (
        colour("s", styles, sources, legend=len(sources) > 1),
        dash("s", styles, sources, legend=len(sources) > 1),
    )
    line = spelled(alt.Chart(named(name)), sources).mark_line(interpolate="step-after", strokeWidth=1.8, opacity=0.9)
    layers: list[Any] = [line.encode(x, y, tint, strokes, tooltip=tips)]
    none = drawn.filter((pl.col("value") <= 0) & (pl.col("share") > 0))
    if none.height:  # who waited for nothing stands at the axis: as a dot at their share
        dots = spelled(alt.Chart(named(f"{name}_zero")), sources).mark_point(filled=True, size=60, opacity=1)
        layers.append(dots.encode(x, y, tint, tooltip=tips))
    sets = {name: drawn, **({f"{name}_zero": none} if none.height else {})}
    data = {each: rows(_short(frame, sources)) for each, frame in sets.items()}
    chart = alt.LayerChart(layer=layers).properties(
        title=title.capitalize(), width=400, height=220, config=theme(), datasets=data
    )
    told = "; ".join(_told(curve.filter(source=source), exact) for source in reversed(sources))
    return Figure(name, chart, f"{title.capitalize()}: {told}.")


def _thin(curve: pl.DataFrame) -> pl.DataFrame:
    """The highest share at each value, about `_POINTS` of them, the first and the last among them."""
    steps = curve.group_by("source", "value").agg(pl.col("share").max()).sort("value")
    every = -(-steps.height // _POINTS)
    return pl.concat([steps.gather_every(every), steps.tail(1)]).unique(maintain_order=True)


def _short(frame: pl.DataFrame, sources: list[str]) -> pl.DataFrame:
    return frame.select(
        k=numbered(frame["source"], sources),
        x=pl.col("value").round_sig_figs(5),
        y=(100.0 * pl.col("share")).round(2),
    )


def _x(values: pl.Series, title: str, *, timed: bool) -> alt.X:
    import altair as alt

    if timed:
        most = float(values.max() or 0.0)  # pyright: ignore[reportArgumentType]
        ticks = [float(tick) for tick in _TICKS_S if tick <= most]
        axis = alt.Axis(title=title, labelExpr=TIME_LABEL, labelOverlap="greedy", values=ticks)
        return alt.X("x:Q", scale=alt.Scale(type="symlog", constant=_LINEAR_BELOW_S, nice=False), axis=axis)
    low, high = float(values.min() or 0.0), float(values.max() or 0.0)  # pyright: ignore[reportArgumentType]
    scale = alt.Scale(type="log", nice=False) if low > 0 else alt.Scale(zero=False)
    tens = [10.0**k for k in range(-12, 13) if low <= 10.0**k <= high]
    ticks = tens if low > 0 and len(tens) > 2 else alt.Undefined
    axis = alt.Axis(title=f"{title} (ratio)", tickCount=6, labelExpr=NUMBER_LABEL, labelOverlap="greedy", values=ticks)
    return alt.X("x:Q", scale=scale, axis=axis)


def _told(curve: pl.DataFrame, exact: Mapping[tuple[str, str], float]) -> str:
    """One source's curve in words: the share of zeros, the median and the 95 % quantile, exact where they are known."""
    source, measure = str(curve["source"][0]), str(curve["measure"][0])
    timed = measure.endswith("_s")
    worded, unit = (wording.duration, "_s") if timed else (wording.number, "")
    found = []
    for how, level in (("median", 0.5), ("p95", 0.95)):
        point = curve.filter(pl.col("share") >= level - 1e-9)["value"].min()
        drawn = float(point) if isinstance(point, int | float) else None
        found.append(worded(exact.get((source, f"{measure.removesuffix('_s')}_{how}{unit}"), drawn)))
    share = exact.get((source, f"{measure}_zero"))
    zero = zeros(curve) if share is None else f"{wording.number(100 * share)} %" if share else ""
    none = f"{zero} are 0, " if timed and zero else ""
    where = {TWIN: "in the twin", RECORDED: "in the recording"}
    return f"{where.get(source, source)} {none}the median is {found[0]} and 95 % are at most {found[1]}"


# ---------------------------------------------------------------- on one clock


def over_time(steps: pl.DataFrame, at: Clock, capacity: dict[str, float]) -> Figure | None:
    """Queue, what is held, power and machines over time, of the table `job_steps`; None without any rows.

    Args:
        steps: the table.
        at: the clock of second 0.
        capacity: what all machines have, by column: drawn as a line where it is known.
    """
    cluster = steps.filter(entity=_CLUSTER)
    panels = [
        Panel(title, found, capacity.get(limit))
        for title, columns, limit in _SHOWN
        if (found := _lines(cluster, columns)).height
    ]
    pools = [panel for column, title in _OF_POOLS.items() for panel in _by_pool(steps, column, title)]
    found = stacked("over_time", [*panels, *pools], at)
    if found is None or not any(panel.title.startswith(_WAITING) for panel in pools):
        return found
    return replace(found, sentence=f"{found.sentence} A job that accepts several pools waits in each of them.")


def _lines(cluster: pl.DataFrame, columns: dict[str, str]) -> pl.DataFrame:
    """The columns as series; one that is 0 throughout is left out, but for the queue."""
    found = [
        _series(cluster, column, pl.lit(label))
        for column, label in columns.items()
        if column == "waiting_jobs" or (cluster[column] != 0).any()
    ]
    return pl.concat(found) if found else pl.DataFrame()


def _series(frame: pl.DataFrame, column: str, label: pl.Expr) -> pl.DataFrame:
    """The rows of a panel; the line has a gap where steps are missing."""
    value = pl.col(column)
    longest = pl.lit(frame["step_s"].max(), pl.Float64)  # the last step may be shorter
    begin = pl.col("time_s") - pl.col("step_s")
    return frame.select(series=label, time_s=begin, bin_s=longest, value=value, low=value, high=value)


def _by_pool(steps: pl.DataFrame, column: str, title: str) -> list[Panel]:
    """One line for each of the pools with most of it, where there are several and not all have the same."""
    pools = steps.filter(pl.col("entity").str.starts_with(_POOL))
    ranked = pools.group_by("entity", maintain_order=True).agg(pl.col(column).mean())
    most = ranked.sort(column, descending=True, maintain_order=True)["entity"].head(_POOLS).to_list()
    same = pools.group_by("time_s").agg(pl.col(column).n_unique() == 1)[column].all()
    if ranked.height < 2 or same:
        return []
    kept = pools.filter(pl.col("entity").is_in(most)).sort("entity", "time_s")
    which = "by pool" if ranked.height <= _POOLS else f"by the {_POOLS} of {ranked.height} pools with most"
    return [Panel(title.format(which), _series(kept, column, pl.col("entity").str.strip_prefix(_POOL)))]
