"""The charts of a trace that are not on its clock: distributions, periods, gaps, and fitted against recorded."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import polars as pl

from reports import palette, wording
from reports.charts import Styles, colour, dash, named, rows, theme
from reports.recording_clock import (
    NUMBER_LABEL,
    WIDTH,
    Clock,
    Figure,
    brief,
    columned,
    moment,
    names,
    numbered,
    spelled,
    time_axis,
    timed,
)  # fmt: skip

if TYPE_CHECKING:
    import altair as alt

_HALF = 400
_WIDE = 100.0
_LINES = 6
_TICKS_S = (0.001, 0.01, 0.1, 1, 10, 60, 600, 3_600, 21_600, 86_400, 604_800, 2_592_000, 31_536_000)
_STEPS_S = (1, 5, 10, 30, 60, 300, 600, 1_800, 3_600, 7_200, 21_600, 43_200, 86_400, 172_800, 604_800, 2_592_000)
_MOST_TICKS = 8
TIME_LABEL = (
    "datum.value == 0 ? '0' : abs(datum.value) < 1 ? format(datum.value * 1000, '~g') + ' ms' : "
    "abs(datum.value) < 60 ? format(datum.value, '~g') + ' s' : "
    "abs(datum.value) < 3600 ? format(datum.value / 60, '~g') + ' min' : "
    "abs(datum.value) < 86400 ? format(datum.value / 3600, '~g') + ' h' : format(datum.value / 86400, ',~g') + ' d'"
)
_AXES = {
    "cdf": ("", "share at most x"),
    "periodogram": ("frequency (Hz)", "power over variance (1/Hz)"),
    "autocorrelation": ("lag", "correlation"),
    "profile": ("hour", "events per hour, or mean"),
}
_RATIOS = ("cdf", "periodogram")  # curves whose horizontal axis may be one of equal ratios
_CURVE_POINTS = 300
_LAGS = {"an hour": 3_600.0, "a day": 86_400.0, "a week": 604_800.0}


# ---------------------------------------------------------------- distributions


def distribution(name: str, curve: pl.DataFrame) -> Figure:
    """The cumulative share of one quantity of the table `trace_distributions`."""
    import altair as alt

    first = curve.row(0, named=True)
    quantity, unit = first["quantity"], first["unit"]
    shown = curve.with_columns(y=100.0 * pl.col("share"))
    wide = _is_wide(curve["x"])
    drawn = shown.filter(pl.col("x") > 0) if wide else shown
    x = _value_x(drawn["x"], unit, quantity, wide=wide)
    tips = [
        alt.Tooltip("x:Q", title=quantity, format=".4~g"),
        alt.Tooltip("y:Q", title="not above it (%)", format=".1f"),
    ]
    line = alt.Chart(named(name)).mark_line(interpolate="step-after", strokeWidth=1.8, color=palette.HUES[0])
    y = alt.Y("y:Q", title="share not above it (%)", scale=alt.Scale(domain=[0, 100]), axis=alt.Axis(tickCount=5))
    data = {name: rows(drawn.select(pl.col("x").round_sig_figs(5), pl.col("y").round(2)))}
    chart = line.encode(x, y, tooltip=tips).properties(
        title=_title(first), width=_HALF, height=190, config=theme(), datasets=data
    )
    return Figure(name, chart, _quantiles(shown, first))


def _title(first: dict[str, Any]) -> str:
    kind = f", Kaplan-Meier: {wording.count(first['censored'])} are longer than seen" if first["censored"] else ""
    return f"{first['quantity'].capitalize()} ({wording.count(first['count'])} values{kind})"


def _quantiles(curve: pl.DataFrame, first: dict[str, Any]) -> str:
    """Median, 90 % and largest value in words."""
    told = []
    for percent, word in ((50.0, "the median is"), (90.0, "90 % are at most")):
        reached = curve.filter(pl.col("y") >= percent - 1e-9)
        if reached.height:
            told.append(f"{word} {_worded(reached['x'][0], first['unit'])}")
    last = curve.row(-1, named=True)
    told.append(f"the largest is {_worded(last['x'], first['unit'])}")
    zero = curve.filter(pl.col("x") <= 0)
    if zero.height and zero["x"][-1] == 0:
        told.append(f"{wording.number(zero['y'][-1])} % are 0")
    if last["y"] < 99.95:
        told.append(f"{wording.number(100 - last['y'])} % last longer than was seen")
    return f"{first['quantity'].capitalize()}: {', '.join(told)}."


def _worded(value: float, unit: str) -> str:
    if unit == "s":
        return wording.duration(value)
    plural = unit if value == 1 or unit == "GiB" else f"{unit}s"
    return wording.number(value) + (f" {plural}" if unit != "1" else "")


def _is_wide(values: pl.Series) -> bool:
    known = values.drop_nulls()
    positive = known.filter(known > 0)
    return len(positive) > 1 and float(known.min()) >= 0 and float(positive.max()) > _WIDE * float(positive.min())  # pyright: ignore


def _value_x(values: pl.Series, unit: str, title: str, *, wide: bool) -> alt.X:
    import altair as alt

    scale, named_unit = _scale(wide=wide), title if unit == "1" else f"{title} ({unit})"
    if unit != "s":
        return alt.X(
            "x:Q",
            scale=scale,
            axis=alt.Axis(title=named_unit, tickCount=6, labelExpr=NUMBER_LABEL, labelOverlap="greedy"),
        )
    return alt.X("x:Q", scale=scale, axis=_duration_axis(title, *_ends(values), wide=wide))


def _duration_axis(title: str, low: float, high: float, *, wide: bool) -> alt.Axis:
    """An axis of seconds with ticks at whole minutes, hours and days."""
    import altair as alt

    ticks = [float(t) for t in _TICKS_S if low <= t <= high]
    if not wide:
        step = next((float(t) for t in _STEPS_S if (high - low) / t <= _MOST_TICKS), math.inf)
        ticks = [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)] if step < math.inf else []
    shown = ticks if len(ticks) > 1 else alt.Undefined
    return alt.Axis(title=title, labelExpr=TIME_LABEL, tickCount=6, labelOverlap=True, values=shown)


def compared(name: str, curves: pl.DataFrame) -> Figure:
    """Fitted against recorded: one line per source of one quantity and kind of the table `comparison_curves`."""
    import altair as alt

    quantity, kind = str(curves["quantity"][0]), str(curves["kind"][0])
    sources, (x_title, y_title) = names(curves["source"]), _AXES.get(kind, (quantity, kind))
    styles = palette.styles(sources, "recorded")
    wide, steep = kind in _RATIOS and _is_wide(curves["x"]), kind == "periodogram"
    positive = [pl.col(column) > 0 for column, log in (("x", wide), ("y", steep)) if log]
    drawn = curves.filter(pl.all_horizontal(pl.lit(value=True), *positive))
    tips = [alt.Tooltip("s:N", title="source"), alt.Tooltip("x:Q", format=".4~g"), alt.Tooltip("y:Q", format=".4~g")]
    line = spelled(alt.Chart(named(name)), sources).mark_line(strokeWidth=1.8, opacity=0.85)
    chart = line.encode(
        alt.X("x:Q", scale=_scale(wide=wide), axis=_compared_axis(x_title or quantity, kind, drawn["x"], wide=wide)),
        alt.Y(
            "y:Q",
            scale=_scale(wide=steep),
            axis=alt.Axis(title=y_title, tickCount=5, labelExpr=NUMBER_LABEL, labelOverlap="greedy"),
        ),
        colour("s", styles, sources, legend=True),
        dash("s", styles, sources, legend=True),
        tooltip=tips,
    )
    thin = [part.gather_every(-(-part.height // _CURVE_POINTS)) for part in drawn.partition_by("source")]
    kept = pl.concat([*thin, drawn.clear()])
    figures = {column: pl.col(column).round_sig_figs(4) for column in ("x", "y")}
    data = {name: rows(kept.select(k=numbered(kept["source"], sources), **figures))}
    told = "; ".join(_told(part, kind) for part in drawn.partition_by("source", maintain_order=True))
    properties = {"title": f"{brief(quantity)}: {kind}", "width": _HALF, "height": 190, "config": theme()}
    return Figure(name, chart.properties(**properties, datasets=data), f"{brief(quantity)}, {kind}: {told}.")


def _told(curve: pl.DataFrame, kind: str) -> str:
    """One source's curve in words: the median of a distribution, else the highest point."""
    source = brief(str(curve["source"][0]))
    if kind == "cdf":
        reached = curve.filter(pl.col("y") >= 0.5)["x"]
        return f"{source} with a median of {wording.number(reached.min() if len(reached) else None)}"  # pyright: ignore[reportArgumentType]
    peak = curve.row(int(curve["y"].arg_max() or 0), named=True)
    return f"{source} highest with {wording.number(peak['y'])} at {wording.number(peak['x'])}"


def _compared_axis(title: str, kind: str, values: pl.Series, *, wide: bool) -> alt.Axis:
    import altair as alt

    if kind != "autocorrelation":
        return alt.Axis(title=title, tickCount=6, labelExpr=NUMBER_LABEL, labelOverlap="greedy")
    return _duration_axis(title, *_ends(values), wide=wide)


def _scale(*, wide: bool) -> alt.Scale:
    import altair as alt

    return alt.Scale(type="log", nice=False) if wide else alt.Scale(zero=False, nice=True)


def _ends(values: pl.Series) -> tuple[float, float]:
    return float(values.min() or 0.0), float(values.max() or 0.0)  # pyright: ignore[reportArgumentType]


# ---------------------------------------------------------------- periods and gaps


def periods(periodicity: pl.DataFrame) -> list[Figure]:
    """Spectrum and autocorrelation of up to six loads, those with the strongest periods first."""
    label = pl.when(pl.col("series") == "").then("quantity").otherwise(pl.format("{} · {}", "quantity", "series"))
    named_ = periodicity.with_columns(line=label)
    ranked = named_.group_by("line", maintain_order=True).agg(
        best=pl.col("value").filter(pl.col("kind") == "period").max().fill_null(0.0)
    )
    lines = ranked.sort("best", descending=True, maintain_order=True)["line"].head(_LINES).to_list()
    if not lines:
        return []
    kept, styles = named_.filter(pl.col("line").is_in(lines)), palette.styles(lines)
    return [_spectrum(kept, lines, styles), _correlogram(kept, lines, styles)]


def _spectrum(table: pl.DataFrame, lines: list[str], styles: Styles) -> Figure:
    import altair as alt

    found = table.filter(kind="spectrum").select("line", x="period_s", y=(100.0 * pl.col("value")))
    x = _value_x(found["x"], "s", "period", wide=_is_wide(found["x"]))
    y = alt.Y("y:Q", title="share of the variance (%)", axis=alt.Axis(tickCount=4))
    best = table.filter(kind="period").filter(pl.col("rank") == 1)
    told = [
        f"{brief(r['line'])} repeats every {r['name'] or wording.duration(r['period_s'])} "
        f"({wording.number(100 * r['value'])} % of its variance)"
        for r in best.iter_rows(named=True)
    ]
    sentence = f"Strongest periods: {'; '.join(told)}." if told else "No period stands out."
    return _lined("spectrum", "Spectrum", found, (x, y), lines, styles, sentence)


def _correlogram(table: pl.DataFrame, lines: list[str], styles: Styles) -> Figure:
    import altair as alt

    found = table.filter(kind="autocorrelation").select("line", x="period_s", y="value")
    axis = _duration_axis("lag", 0.0, float(found["x"].max() or 1.0), wide=False)  # pyright: ignore[reportArgumentType]
    x = alt.X("x:Q", scale=alt.Scale(nice=False), axis=axis)
    y = alt.Y("y:Q", title="correlation", axis=alt.Axis(tickCount=4))
    told = [text for line in lines[:3] for text in _alike(found.filter(line=line), brief(line))]
    sentence = (
        f"Likeness with itself: {'; '.join(told)}." if told else "Too short to be compared with itself an hour later."
    )
    return _lined("autocorrelation", "Autocorrelation", found, (x, y), lines, styles, sentence)


def _alike(correlations: pl.DataFrame, name: str) -> list[str]:
    """The line's correlation with itself an hour, a day and a week later, as far as it was looked at."""
    told = []
    for word, lag_s in _LAGS.items():
        near = correlations.filter((pl.col("x") / lag_s - 1.0).abs() < 0.1)
        if near.height:
            place = near.select((pl.col("x") - lag_s).abs().arg_min()).item()
            told.append(f"{name} {wording.number(near['y'][place], 2)} {word} later")
    return told


def _lined(
    name: str, title: str, frame: pl.DataFrame, axes: tuple[Any, Any], lines: list[str], styles: Styles, sentence: str
) -> Figure:
    import altair as alt

    tips = [
        alt.Tooltip("s:N", title="load"),
        alt.Tooltip("x:Q", title="seconds", format=",.4~r"),
        alt.Tooltip("y:Q", format=".3~g"),
    ]
    several = len(lines) > 1
    chart = spelled(alt.Chart(named(name)), lines).mark_line(strokeWidth=1.4)
    tint = colour("s", styles, lines, legend=several)
    chart = chart.encode(*axes, tint, dash("s", styles, lines, legend=several), tooltip=tips)
    data = {
        name: rows(
            frame.select(
                k=numbered(frame["line"], lines), x=pl.col("x").round_sig_figs(4), y=pl.col("y").round_sig_figs(3)
            )
        )
    }
    properties = {"title": title, "width": _HALF, "height": 220, "config": columned(2), "datasets": data}
    return Figure(name, chart.properties(**properties), sentence)


def gaps(table: pl.DataFrame, at: Clock) -> Figure | None:
    """Where the series with the largest gaps lack steps; None without a gap."""
    import altair as alt

    missing = table.filter(kind="missing")
    if not missing.height:
        return None
    order = missing.group_by("series", maintain_order=True).agg(pl.col("missing_steps").sum())
    names_ = order.sort("missing_steps", descending=True, maintain_order=True)["series"].head(20).to_list()
    drawn = missing.filter(pl.col("series").is_in(names_)).select("series", t="from_s", u="to_s", n="missing_steps")
    base = timed(alt.Chart(named("gaps")), at).transform_calculate(y=f"{at.base_ms} + datum.u * 1000")
    ends = table.filter(kind="total").select(pl.col("from_s").min(), pl.col("to_s").max()).row(0)
    x = alt.X("x:T", scale=alt.Scale(type="utc", nice=False), axis=time_axis(at, labels=True))
    worst = alt.EncodingSortField("n", op="sum", order="descending")
    y = alt.Y("series:N", sort=worst, axis=alt.Axis(title=None, labelLimit=180))
    tips = [alt.Tooltip("series:N"), alt.Tooltip("n:Q", title="missing steps", format=",")]
    bars = base.mark_bar(color=palette.HUES[1], height=9, stroke=palette.HUES[1], strokeWidth=1)
    whole = timed(alt.Chart(named("gaps_ends")), at).mark_point(opacity=0, aria=False).encode(x)
    properties = {"title": "Missing steps", "width": WIDTH, "height": 18 * len(names_), "config": theme()}
    properties["autosize"] = alt.AutoSizeParams(type="fit-x", contains="padding")  # the names take their own room
    properties["datasets"] = {"gaps": rows(drawn), "gaps_ends": rows(pl.DataFrame({"t": ends}))}
    layers: list[Any] = [bars.encode(x, alt.X2("y:T"), y, tooltip=tips), whole]
    chart = alt.LayerChart(layer=layers).properties(**properties)
    first = missing.row(0, named=True)
    told = (
        f"The largest gap: {wording.count(int(first['missing_steps']))} steps of {brief(first['series'])}, from "
        f"{moment(at, first['from_s'])} to {moment(at, first['to_s'])}."
    )
    return Figure("gaps", chart, told)
