"""Charts: one function each, table(s) -> Altair chart; a chart carries its tables as named CSV datasets.

A page takes the datasets out and holds each once; a chart on its own renders with them. Charts that show
controllers take `styles`: label -> (colour, dash). Grey inks suit light and dark pages; the page's CSS sharpens them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import polars as pl

from reports import palette, wording
from reports.series import MEASURES, Series

if TYPE_CHECKING:
    import altair as alt

Styles = Mapping[str, tuple[str, list[int]]]

EPOCH_MS = 1_483_228_800_000  # 2017-01-01, a Sunday and a month's first: Vega's day and week ticks fall on whole days
_INK = "#767b83"
_BAD = "#D55E00"
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif"
_DAY = (
    "(utchours(datum.value) + utcminutes(datum.value) == 0 ? 'day ' + floor((datum.value - "
    f"{EPOCH_MS}) / 86400000) : utcFormat(datum.value, '%H:%M'))"
)
_CLOCK = f"'day ' + floor((datum.t - {EPOCH_MS}) / 86400000) + utcFormat(datum.t, ' %H:%M')"


def theme() -> dict[str, Any]:
    """The Vega-Lite `config` of every chart: quiet axes, one font, no frames."""
    axis = {
        "labelColor": _INK, "titleColor": _INK, "gridColor": _INK, "gridOpacity": 0.18, "domain": False, "ticks": False,
        "labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal", "labelPadding": 6, "titlePadding": 8,
    }  # fmt: skip
    return {
        "font": _FONT,
        "background": "transparent",
        "view": {"stroke": None},
        "axis": axis,
        "title": {"anchor": "start", "fontSize": 12, "fontWeight": 600, "color": _INK, "offset": 6, "frame": "group"},
        "legend": {"labelColor": _INK, "titleColor": _INK, "orient": "top", "title": None, "symbolStrokeWidth": 2.5,
                   "labelFontSize": 11, "symbolType": "stroke", "labelLimit": 320},
        "concat": {"spacing": 22},
    }  # fmt: skip


# ---------------------------------------------------------------- the shared clock


def timeline(series: Series, styles: Styles, *, scenario: str, service: str, shown: list[str], width: int = 860) -> alt.VConcatChart:
    """Demand, replicas, utilisation, late requests and nodes of one scenario on one clock.

    The parameters `scenario`, `service` and `shown` (controllers) choose what is seen; the strip below zooms, and
    the bin under the pointer is marked and read out in every panel.
    """
    import altair as alt

    zoom = alt.selection_interval(name="zoom", encodings=["x"], mark=alt.BrushConfig(fill=_INK, fillOpacity=0.15))
    at = alt.selection_point(name="at", fields=["bin"], on="pointerover", clear="pointerout", empty=False)
    panel = _Panels(alt, series, styles, zoom, at, width)
    slo = series.slo_late_percent.get(service)
    charts = [
        panel.demand(),
        panel.lines("ready", "replicas", "Replicas: ready, and wanted (dotted)", 130, wanted=True),
        panel.lines("utilisation", "%", "Utilisation of ready replicas", 90, domain=(0, 100)),
        panel.lines("late", "% of requests", _late_title(slo), 90, rule=slo),
        *([panel.lines("nodes", "nodes", "Ready nodes", 80, last=True)] if series.steps["nodes"].count() else []),
        panel.overview(),
    ]
    params = [
        alt.param(name="scenario", value=scenario),
        alt.param(name="service", value=service),
        alt.param(name="shown", value=shown),
    ]
    chart = alt.vconcat(*charts).add_params(*params).resolve_scale(x="independent", color="shared")
    return chart.properties(config=theme(), datasets=timeline_data(series))


def timeline_data(series: Series) -> dict[str, str]:
    """The CSV datasets of the timeline: `steps`, `lines`, `forecast`, `failures`."""
    lines = series.lines.select("series", "scenario", "controller", "service", pl.col("leads").cast(pl.Int8))
    steps = _thrifty(series.steps)
    return {
        "lines": lines.write_csv(),
        "steps": steps.write_csv(),
        "forecast": series.forecast.with_columns(pl.col("q10", "q50", "q90").round(1)).write_csv(),
        "failures": series.failures.write_csv(),
    }


def _thrifty(steps: pl.DataFrame) -> pl.DataFrame:
    # a bin whose minimum and maximum equal its mean needs no band: an empty cell costs one byte
    bounds = [f"{m}_{end}" for m in MEASURES for end in ("min", "max")]
    rounded = steps.with_columns(pl.selectors.float().round_sig_figs(3))
    return rounded.with_columns(
        pl.when(pl.col(b) != pl.col(b.rsplit("_", 1)[0])).then(pl.col(b)).alias(b) for b in bounds
    ).select(_as_text(rounded, c) for c in steps.columns)


def _as_text(frame: pl.DataFrame, column: str) -> pl.Expr:
    if not frame[column].dtype.is_float():
        return pl.col(column)
    return pl.col(column).cast(pl.String).str.replace(r"\.0$", "")


def _late_title(slo: float | None) -> str:
    title = "Late or dropped requests"
    return title if slo is None else f"{title} (line: the SLO's {wording.number(slo)} %)"


class _Panels:
    """The panels of the timeline: what they share is kept here, one method draws one."""

    def __init__(self, alt: Any, series: Series, styles: Styles, zoom: Any, at: Any, width: int) -> None:  # noqa: ANN401 - Altair's module and parameters
        self.alt, self.series, self.styles, self.zoom, self.at, self.width = alt, series, styles, zoom, at, width
        self.controllers = list(dict.fromkeys(series.lines["controller"]))

    def _base(self, measure: str) -> Any:  # noqa: ANN401 - Altair
        alt = self.alt
        columns = ["bin", measure, *([f"{measure}_min", f"{measure}_max"] if measure in MEASURES else [])]
        columns += ["wanted"] if measure == "ready" else []
        lookup = alt.LookupData(_named(alt, "lines", series="number", leads="number"), "series", ["scenario", "controller", "service", "leads"])
        chart = alt.Chart(_named(alt, "steps", series="number", **dict.fromkeys(columns, "number")))
        chart = chart.transform_lookup(lookup="series", from_=lookup)
        chart = chart.transform_filter("datum.scenario == scenario && datum.service == service")
        return self._timed(chart)

    def _timed(self, chart: Any) -> Any:  # noqa: ANN401 - Altair
        bin_ms = int(self.series.bin_s * 1000)
        return chart.transform_calculate(
            t=f"{EPOCH_MS} + datum.bin * {bin_ms}", t2=f"datum.t + {bin_ms}", mid=f"datum.t + {bin_ms // 2}"
        )

    def _x(self, field: str, *, labels: bool) -> Any:  # noqa: ANN401 - Altair
        axis = self.alt.Axis(labels=labels, title="time since the trace's start" if labels else None, labelExpr=_DAY, tickCount=8)
        return self.alt.X(f"{field}:T", scale=self.alt.Scale(type="utc", domain=self.zoom, nice=False, clamp=True), axis=axis)

    def _y(self, field: str, unit: str, domain: tuple[float, float] | None = None) -> Any:  # noqa: ANN401 - Altair
        scale = self.alt.Scale(domain=domain, clamp=True) if domain else self.alt.Scale(zero=True, nice=True)
        return self.alt.Y(f"{field}:Q", scale=scale, axis=self.alt.Axis(title=unit, tickCount=4, minExtent=44))

    def _colour(self) -> Any:  # noqa: ANN401 - Altair
        names = self.controllers
        return self.alt.Color("controller:N", legend=None, scale=self.alt.Scale(domain=names, range=[self.styles[n][0] for n in names]))

    def _dash(self) -> Any:  # noqa: ANN401 - Altair
        names = self.controllers
        return self.alt.StrokeDash("controller:N", legend=None, scale=self.alt.Scale(domain=names, range=[self.styles[n][1] for n in names]))

    def _failures(self, *, labels: bool) -> Any:  # noqa: ANN401 - Altair
        chart = self.alt.Chart(_named(self.alt, "failures", start_s="number", end_s="number", nodes="number"))
        chart = chart.transform_filter("datum.scenario == scenario")
        chart = chart.transform_calculate(t=f"{EPOCH_MS} + datum.start_s * 1000", t2=f"{EPOCH_MS} + datum.end_s * 1000")
        return chart.mark_rect(color=_BAD, opacity=0.14, clip=True).encode(self._x("t", labels=labels), self.alt.X2("t2:T"))

    def _hover(self, chart: Any, tooltip: list[Any], *, labels: bool) -> Any:  # noqa: ANN401 - Altair
        seen = self.alt.condition(self.at, self.alt.value(0.16), self.alt.value(0))
        return (
            chart.transform_calculate(clock=_CLOCK)
            .mark_rect(fill=_INK, clip=True)
            .encode(self._x("t", labels=labels), self.alt.X2("t2:T"), opacity=seen, tooltip=[self.alt.Tooltip("clock:N", title="time"), *tooltip])
            .add_params(self.at)
        )

    def _finish(self, name: str, title: str, height: int, layers: list[Any]) -> Any:  # noqa: ANN401 - Altair
        return self.alt.layer(*layers).properties(name=name, title=title, width=self.width, height=height)

    def demand(self) -> Any:  # noqa: ANN401 - Altair
        """Demand with its spread within a bin, and the forecast's median and 10-90 % band."""
        alt = self.alt
        lead = self._base("demand").transform_filter("datum.leads == 1")
        lead = lead.transform_calculate(low="datum.demand_min === null ? datum.demand : datum.demand_min", high="datum.demand_max === null ? datum.demand : datum.demand_max")
        said = alt.Chart(_named(alt, "forecast", bin="number", part="number", q10="number", q50="number", q90="number"))
        said = self._timed(said.transform_filter("datum.scenario == scenario && datum.service == service"))
        x, y = self._x("mid", labels=False), self._y("demand", "requests/s")
        band = {"color": palette.HUES[0], "clip": True}
        layers = [
            self._failures(labels=False),
            lead.mark_area(color=_INK, opacity=0.22, clip=True).encode(x, self._y("low", "requests/s"), alt.Y2("high:Q")),
            said.mark_area(opacity=0.3, **band).encode(x, self._y("q10", "requests/s"), alt.Y2("q90:Q"), alt.Detail("part:N")),
            said.mark_line(strokeWidth=1, **band).encode(x, self._y("q50", "requests/s"), alt.Detail("part:N")),
            lead.mark_line(color=_INK, strokeWidth=1.4, clip=True).encode(x, y),
            self._hover(lead, [alt.Tooltip(f"{c}:Q", title=t, format=",.0f") for c, t in (("demand", "mean"), ("low", "lowest"), ("high", "highest"))], labels=False),
        ]
        title = "Demand (grey)"
        if self.series.forecaster:
            title += f" and what {self.series.forecaster} forecast: median and 10–90 % band (blue)"
        return self._finish("demand", title, 110, layers)

    def lines(self, measure: str, unit: str, title: str, height: int, *, domain: tuple[float, float] | None = None, rule: float | None = None, wanted: bool = False, last: bool = False) -> Any:  # noqa: ANN401 - Altair
        """One measure, one line per shown controller; its spread within a bin is a faint band."""
        alt = self.alt
        base = self._base(measure)
        drawn = base.transform_filter("indexof(shown, datum.controller) >= 0")
        x, y = self._x("mid", labels=last), self._y(measure, unit, domain)
        layers = [self._failures(labels=last)]
        if measure in MEASURES:
            spread = drawn.transform_calculate(low=f"datum.{measure}_min === null ? datum.{measure} : datum.{measure}_min", high=f"datum.{measure}_max === null ? datum.{measure} : datum.{measure}_max")
            layers.append(spread.mark_area(opacity=0.13, clip=True, interpolate="step").encode(x, self._y("low", unit, domain), alt.Y2("high:Q"), self._colour(), alt.Detail("controller:N")))
        if wanted:
            layers.append(drawn.mark_line(strokeWidth=1, strokeDash=[1, 3], clip=True, interpolate="step").encode(x, self._y("wanted", unit, domain), self._colour(), alt.Detail("controller:N")))
        layers.append(drawn.mark_line(strokeWidth=1.5, clip=True).encode(x, y, self._colour(), self._dash()))
        if rule is not None:
            layers.append(alt.Chart(alt.InlineData(values=[{"slo": rule}])).mark_rule(color=_BAD, strokeDash=[5, 3]).encode(y=self._y("slo", unit, domain)))
        layers.append(self._readout(base, measure, last=last))
        return self._finish(measure, title, height, layers)

    def _readout(self, base: Any, measure: str, *, last: bool) -> Any:  # noqa: ANN401 - Altair
        alt, names = self.alt, self.controllers
        index = f"'c' + indexof({names!r}, datum.controller)"
        wide = base.transform_calculate(c=index).transform_pivot("c", value=measure, groupby=["bin"])
        cells = [alt.Tooltip(f"c{k}:Q", title=name, format=".3~g") for k, name in enumerate(names)]
        return self._hover(self._timed(wide), cells, labels=last)

    def overview(self) -> Any:  # noqa: ANN401 - Altair
        """The whole time in a strip: dragging over it zooms the panels above."""
        alt = self.alt
        lead = self._base("demand").transform_filter("datum.leads == 1")
        x = alt.X("mid:T", scale=alt.Scale(type="utc", nice=False), axis=alt.Axis(title=None, labelExpr=_DAY, tickCount=8, grid=False))
        area = lead.mark_area(color=_INK, opacity=0.35).encode(x, alt.Y("demand:Q", axis=None)).add_params(self.zoom)
        return area.properties(name="overview", title="Drag here to zoom every panel; double-click for the whole time", width=self.width, height=34)


def _named(alt: Any, name: str, **parse: str) -> Any:  # noqa: ANN401 - Altair
    return alt.NamedData(name=name, format=alt.CsvDataFormat(type="csv", parse=parse))
