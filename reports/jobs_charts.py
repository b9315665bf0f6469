"""The charts of a replay of jobs: distributions of the twin against the recording, and the cluster on one clock."""

from __future__ import annotations

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
_OF_POOLS = {"waiting_jobs": "Jobs waiting, {} (jobs)", "cpu_cores": "Cores held, {} (cores)"}


# ---------------------------------------------------------------- distributions


def distributions(cdf: pl.DataFrame) -> list[Figure]:
    """One chart for each measure of the table `job_cdf`, the twin's curve over the recording's."""
    return [
        _distribution(f"cdf_{k}", curve)
        for k, curve in enumerate(cdf.drop_nulls("value").partition_by("measure", maintain_order=True))
    ]


def measure_words(measure: str) -> str:
    """A measure's name as it is read, without its unit."""
    return _TITLES.get(measure, wording.words(measure.removesuffix("_s")))


def zero_share(curve: pl.DataFrame) -> float:
    """The share of jobs for which the measure is 0, by one source's curve."""
    return float(curve.filter(pl.col("value") <= 0)["share"].max() or 0.0)  # pyright: ignore[reportArgumentType]


def _distribution(name: str, curve: pl.DataFrame) -> Figure:
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
    told = "; ".join(_told(curve.filter(source=source), timed=timed) for source in reversed(sources))
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


def _told(curve: pl.DataFrame, *, timed: bool) -> str:
    """One source's curve in words: the share of zeros, the median and the 95 % quantile."""
    worded = wording.duration if timed else wording.number
    at = {level: curve.filter(pl.col("share") >= level - 1e-9)["value"].min() for level in (0.5, 0.95)}
    median, most = (worded(float(v)) if isinstance(v, int | float) else wording.DASH for v in at.values())
    zero = zero_share(curve)
    none = f"{wording.number(100 * zero)} % are 0, " if timed and zero else ""
    where = {TWIN: "in the twin", RECORDED: "in the recording"}
    source = str(curve["source"][0])
    return f"{where.get(source, source)} {none}the median is {median} and 95 % are at most {most}"


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
    return stacked("over_time", [*panels, *pools], at)


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
    """One line for each of the pools with most of it, where there are several."""
    pools = steps.filter(pl.col("entity").str.starts_with(_POOL))
    ranked = pools.group_by("entity", maintain_order=True).agg(pl.col(column).mean())
    most = ranked.sort(column, descending=True, maintain_order=True)["entity"].head(_POOLS).to_list()
    if ranked.height < 2 or not (pools[column] != 0).any():
        return []
    kept = pools.filter(pl.col("entity").is_in(most)).sort("entity", "time_s")
    which = "by pool" if ranked.height <= _POOLS else f"by the {_POOLS} of {ranked.height} pools with most"
    return [Panel(title.format(which), _series(kept, column, pl.col("entity").str.strip_prefix(_POOL)))]
