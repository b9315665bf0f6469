"""The panels of a trace on one clock: load and utilisation over time, with a strip that zooms them.

Each is a `Figure`: a chart and the sentence that tells it without the picture. Data are thinned to what a screen can
show; the Parquet tables beside the page hold the rest.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from reports import palette, wording
from reports.charts import INK, colour, dash, named, rows, theme, tooltip_title
from reports.timeline import CLOCK_TEXT, DAY_LABEL, EPOCH_MS

if TYPE_CHECKING:
    import altair as alt

WIDTH = 860
NUMBER_LABEL = (
    "datum.value != 0 && abs(datum.value) < 0.001 ? format(datum.value, '~e') : "
    "abs(datum.value) < 1 ? format(datum.value, '~g') : format(datum.value, '~s')"
)
_POINTS = 12_000  # of all panels on one clock: about 0.5 MB of text
_MOST_POINTS, _LEAST_POINTS = 800, 60  # per line
_GAP_BINS = 2.5  # a line breaks where more than this many bins are without a value
_BANDS = 2  # lines of a panel that still show their spread
_FEW = 40  # points of a line that are drawn as points too
_BRIEF = 40  # characters of a name in a sentence

LOAD = ("arrivals", "requests", "demand", "running", "failures", "incidents", "price")
UTILISATION = ("cores", "memory", "GPUs", "usage")
_BESIDE = {"running": "waiting", "cores": "used cores", "memory": "used memory"}
_TITLES = {
    "arrivals": "Jobs that arrive",
    "requests": "Requests that arrive",
    "demand": "Demand of services",
    "running": "Jobs running and waiting",
    "failures": "Failures of nodes",
    "incidents": "Open incidents",
    "price": "Prices and carbon",
    "cores": "Cores in use",
    "memory": "Memory in use",
    "GPUs": "GPUs in use",
}
_ALONE = {"cores": "asked for", "memory": "asked for", "GPUs": "asked for", "used cores": "used", "used memory": "used"}


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart, the name of its element in the page, and the sentence that says what it shows."""

    name: str
    chart: Any  # any of Altair's charts
    sentence: str


@dataclass(frozen=True, slots=True)
class Panel:
    """What one panel draws: rows of series, time_s, bin_s, value, low, high, and what the nodes have (0: not drawn)."""

    title: str
    rows: pl.DataFrame
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class Clock:
    """The wall clock of second 0: `base_ms` on the time axis, what the axis is called, and whether it was told."""

    base_ms: int
    title: str
    known: bool


def clock(epoch: str) -> Clock:
    """The axis for an ISO 8601 epoch: its own wall clock with its offset; days since second 0 where it is not told."""
    try:
        zero = datetime.fromisoformat(epoch)
    except ValueError:
        return Clock(EPOCH_MS, "time since second 0", known=False)
    offset = zero.strftime("%z")
    title = f"UTC{offset[:3]}:{offset[3:5]}" if offset else "local time of the recording"
    shown_s = (zero.replace(tzinfo=None) - datetime(1970, 1, 1)).total_seconds()
    return Clock(round(shown_s * 1000), title, known=True)


def moment(at: Clock, time_s: float) -> str:
    """A second of the trace in words: a date where the epoch is known, else its day and time of day."""
    if not at.known:
        return wording.clock(time_s)
    return str(pl.select(pl.lit(at.base_ms + round(time_s * 1000)).cast(pl.Datetime("ms"))).item())[:16]


def brief(name: str) -> str:
    """A name for a sentence: some are hashes."""
    return name if len(name) <= _BRIEF else f"{name[: _BRIEF - 4]}…"


def timeline(
    name: str, load: pl.DataFrame, quantities: Sequence[str], at: Clock, capacity: Mapping[str, float]
) -> Figure | None:
    """Panels of the table `trace_load` on one clock, with a strip below that zooms them; None without any.

    Args:
        name: of the figure.
        load: the table.
        quantities: one panel each, or one per unit; those that belong beside another share its panel.
        at: the clock of second 0.
        capacity: what the nodes have, by quantity: drawn as a line; 0 is not drawn.
    """
    return stacked(name, [panel for q in quantities for panel in _panels(load, q, capacity.get(q))], at)


def stacked(name: str, panels: Sequence[Panel], at: Clock) -> Figure | None:
    """The panels on one clock, with a strip below that zooms them and shows the first; None without any."""
    import altair as alt

    if not panels:
        return None
    lines = sum(panel.rows["series"].n_unique() for panel in panels)
    most = min(max(_POINTS // lines, _LEAST_POINTS), _MOST_POINTS)
    thin = [thinned(panel.rows, most) for panel in panels]
    ends = [min(_known(rows_["time_s"].min()) for rows_ in thin), max(_end_s(rows_) for rows_ in thin)]
    ground = _Ground(name, at)
    drawn = [
        ground.panel(k, panel.title, rows_, panel.limit, labels=k == len(panels) - 1)
        for k, (panel, rows_) in enumerate(zip(panels, thin, strict=True))
    ]
    stack = alt.vconcat(*drawn, ground.strip()).resolve_scale(color="independent", strokeDash="independent")
    sets = {f"{name}_{k}": rows(_short(rows_)) for k, rows_ in enumerate(thin)}
    sets[f"{name}_ends"] = rows(pl.DataFrame({"t": ends}))
    told = " ".join(_sentence(panel, at) for panel in panels)
    return Figure(name, stack.properties(config=columned(4), datasets=sets), told)


def _panels(load: pl.DataFrame, quantity: str, limit: float | None) -> list[Panel]:
    """The panels of one quantity: lines of one unit can be compared, bands of usage need a panel of their own."""
    found = load.filter(pl.col("quantity").is_in([quantity, _BESIDE.get(quantity, quantity)]))
    label = pl.when(pl.col("series") != "").then("series").otherwise(pl.col("quantity").replace(_ALONE))
    found = found.with_columns(series=label)
    if quantity == "usage":
        split = found.partition_by("series", "unit", maintain_order=True)
        return [Panel(f"{rows_['series'][0]} ({rows_['unit'][0]})", rows_, limit) for rows_ in split]
    split = found.partition_by("unit", maintain_order=True)
    return [Panel(f"{_TITLES[quantity]} ({rows_['unit'][0]})", rows_, limit) for rows_ in split]


def thinned(frame: pl.DataFrame, most: int) -> pl.DataFrame:
    """At most about `most` bins of each series: means of neighbours, and their lowest and highest; with `part`.

    `part` counts the stretches of a series between its gaps.
    """
    longest = frame.group_by("series").agg(
        bins=(pl.col("time_s").max() - pl.col("time_s").min()) / pl.col("bin_s").first() + 1
    )
    factor = max(math.ceil(_known(longest["bins"].max()) / most), 1)
    wide = frame.with_columns(place=(pl.col("time_s") / (pl.col("bin_s") * factor)).floor())
    binned = wide.group_by("series", "place", maintain_order=True).agg(
        pl.col("value").mean(), pl.col("low").min(), pl.col("high").max(), pl.col("bin_s").first() * factor
    )
    stretch = (pl.col("place").diff() > _GAP_BINS).over("series").fill_null(value=False)
    return binned.select(
        "series",
        (pl.col("place") * pl.col("bin_s")).alias("time_s"),
        "bin_s",
        "value",
        "low",
        "high",
        stretch.cum_sum().over("series").alias("part"),
    )


def _known(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _end_s(frame: pl.DataFrame) -> float:
    return _known(frame["time_s"].max()) + float(frame["bin_s"][0])


def _short(frame: pl.DataFrame) -> pl.DataFrame:
    """What the chart reads, in few characters: a bound that says nothing is left out."""
    whole = bool((frame["time_s"] % 1 == 0).all())
    short = frame.select(
        k=numbered(frame["series"], names(frame["series"])),
        t=pl.col("time_s").cast(pl.Int64) if whole else pl.col("time_s"),
        v=pl.col("value").round_sig_figs(3),
        l=pl.col("low").round_sig_figs(3),
        h=pl.col("high").round_sig_figs(3),
        p="part",
    )
    empty = [column for column in ("l", "h") if not short[column].count()]
    return short.drop(*empty, *([] if frame["part"].max() else ["p"]))


def names(column: pl.Series) -> list[str]:
    """The names in a column in order of first sight."""
    return column.unique(maintain_order=True).to_list()


def numbered(column: pl.Series, listed: list[str]) -> pl.Series:
    """Names as their places in the list: some names are long, and each stands once in the chart."""
    return column.replace_strict(listed, range(len(listed)), return_dtype=pl.Int64)


def spelled(chart: alt.Chart, listed: list[str]) -> alt.Chart:
    """The chart with `s` as the name whose place its rows hold as `k`."""
    return chart.transform_calculate(s=f"{json.dumps(listed)}[datum.k]")


def columned(columns: int) -> dict[str, Any]:
    """The theme with names in columns: many services do not fit into one line."""
    common = theme()
    return {**common, "legend": {**common["legend"], "columns": columns, "labelLimit": 150}}


def timed(chart: alt.Chart, at: Clock) -> alt.Chart:
    """The chart with `x`, the time of `t` on the axis."""
    return chart.transform_calculate(x=f"{at.base_ms} + datum.t * 1000")


def time_axis(at: Clock, *, labels: bool) -> alt.Axis:
    """The axis of time: dates where they are known, else days."""
    import altair as alt

    title = at.title if labels else None
    if at.known:
        return alt.Axis(labels=labels, title=title, tickCount=8)
    return alt.Axis(labels=labels, title=title, labelExpr=DAY_LABEL, tickCount=8)


class _Ground:
    """The shared horizontal axis, and what is drawn on it."""

    def __init__(self, name: str, at: Clock) -> None:
        import altair as alt

        self.name, self.at = name, at
        brush = alt.BrushConfig(fill=INK, fillOpacity=0.15)
        self.zoom = alt.selection_interval(name="zoom", encodings=["x"], mark=brush)

    def panel(self, k: int, title: str, frame: pl.DataFrame, limit: float | None, *, labels: bool) -> alt.LayerChart:
        """The lines of one panel, with their spread while they are few, and the nodes' capacity."""
        import altair as alt

        name, listed = f"{self.name}_{k}", names(frame["series"])
        styles, several = palette.styles(listed), len(listed) > 1
        base = spelled(timed(alt.Chart(named(name)), self.at), listed)
        parts = alt.Detail(["s:N", "p:N"]) if frame["part"].max() else alt.Detail("s:N")
        x, tint = self._x(labels=labels), colour("s", styles, listed, legend=several)
        axis = alt.Axis(title=None, tickCount=4, minExtent=44, labelExpr=NUMBER_LABEL)
        y = {"axis": axis, "scale": alt.Scale(zero=True, nice=True)}
        layers: list[Any] = [self._ends(x)]
        if frame["low"].count() and len(listed) <= _BANDS:
            band = base.mark_area(opacity=0.16, clip=True)
            layers.append(band.encode(x, alt.Y("l:Q", **y), alt.Y2("h:Q"), tint, parts))
        if limit:
            rule = base.transform_aggregate(n="count()").mark_rule(color=INK, strokeDash=[5, 3])
            layers.append(rule.encode(alt.YDatum(limit)))
        # a round end makes a stretch of one bin a dot
        few = frame.height <= _FEW * len(listed) and alt.OverlayMarkDef(size=16)
        line = base.mark_line(strokeWidth=1.3, clip=True, strokeCap="round", point=few)
        strokes = dash("s", styles, listed, legend=several)
        layers.append(line.encode(x, alt.Y("v:Q", **y), tint, strokes, parts))
        layers.append(self._readout(name, listed, float(frame["bin_s"][0]), x))
        return alt.LayerChart(layer=layers).properties(name=name, title=title, width=WIDTH, height=96)

    def strip(self) -> alt.LayerChart:
        """The whole length in small, on which a part is chosen."""
        import altair as alt

        x = alt.X("x:T", scale=alt.Scale(type="utc", nice=False), axis=time_axis(self.at, labels=False))
        area = timed(alt.Chart(named(f"{self.name}_0")), self.at).mark_area(color=INK, opacity=0.45)
        drawn = area.encode(x, alt.Y("sum(v):Q", axis=None)).add_params(self.zoom)
        return alt.LayerChart(layer=[drawn, self._ends(x)]).properties(
            title="Drag here to look closer; click to see all", width=WIDTH, height=34
        )

    def _x(self, *, labels: bool) -> alt.X:
        import altair as alt

        scale = alt.Scale(type="utc", nice=False, domain=self.zoom)  # pyright: ignore[reportArgumentType]
        return alt.X("x:T", scale=scale, axis=time_axis(self.at, labels=labels))

    def _ends(self, x: alt.X) -> alt.Chart:
        """The ends of all panels as unseen points: axes of series of other lengths stay in line."""
        import altair as alt

        ends = timed(alt.Chart(named(f"{self.name}_ends")), self.at)
        return ends.mark_point(opacity=0, aria=False).encode(x)

    def _readout(self, name: str, listed: list[str], bin_s: float, x: alt.X) -> alt.Chart:
        """Unseen columns that tell every line's value at the pointer."""
        import altair as alt

        # series become columns c0, c1, ...: their names may hold characters that Vega reads as paths
        wide = alt.Chart(named(name)).transform_calculate(c="'c' + datum.k")
        wide = timed(wide.transform_pivot("c", value="v", groupby=["t"]), self.at)
        text = CLOCK_TEXT.replace("datum.t", "datum.x")
        told = "utcFormat(datum.x, '%a %d %b %Y %H:%M')" if self.at.known else text
        wide = wide.transform_calculate(x2=f"datum.x + {bin_s * 1000}", clock=told)
        titles = [tooltip_title(each) for each in listed]
        tips = [alt.Tooltip(f"c{k}:Q", title=title, format=".3~g") for k, title in enumerate(titles)]
        columns = wide.mark_rect(opacity=0, clip=True, aria=False)
        return columns.encode(x, alt.X2("x2:T"), tooltip=[alt.Tooltip("clock:N", title="time"), *tips])


def _sentence(panel: Panel, at: Clock) -> str:
    """Means and the highest value of the first lines, in words."""
    told = []
    for line in panel.rows.partition_by("series", maintain_order=True)[:3]:
        peak = line.row(int(line["value"].arg_max() or 0), named=True)
        mean, most = wording.number(_known(line["value"].mean())), wording.number(peak["value"])
        when = moment(at, peak["time_s"])
        told.append(f"{brief(peak['series'])} {mean} on average and {most} at most, in the bin from {when}")
    others = panel.rows["series"].n_unique() - 3
    more = f"; {others} more lines" if others > 0 else ""
    room = f"; the nodes have {wording.number(panel.limit)}" if panel.limit else ""
    return f"{panel.title}: {'; '.join(told)}{more}{room}."
