"""The panels on one clock: demand, replicas, utilisation, late requests and nodes of one scenario.

Vega-Lite parameters `scenario`, `service` and `shown` (controllers) choose what is seen without new data; the
strip below zooms all panels, and the bin under the pointer is marked and read out in each of them.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from reports import palette
from reports.charts import INK, Styles, colour, dash, named, rows, theme, tooltip_title
from reports.series import MEASURES, Series

if TYPE_CHECKING:
    import altair as alt

EPOCH_MS = 1_483_228_800_000  # 2017-01-01, a Sunday and a month's first: Vega's day and week ticks are whole days
_BAD = "#D55E00"
_FORECAST = palette.HUES[0]
_MIDNIGHT = "utchours(datum.value) + utcminutes(datum.value) == 0"
DAY_LABEL = f"{_MIDNIGHT} ? 'day ' + floor((datum.value - {EPOCH_MS}) / 86400000) : utcFormat(datum.value, '%H:%M')"
CLOCK_TEXT = f"'day ' + floor((datum.t - {EPOCH_MS}) / 86400000) + utcFormat(datum.t, ' %H:%M')"
_HERE = "datum.scenario == scenario && datum.service == service"
_KIND_PX = 96  # of a kind's name beside the lane of incidents
_INCIDENT_TIPS = (("kind", "what"), ("clock", "from"), ("lasted", "lasted"), ("count", "how many"), ("where", "where"))
_SHOWN = "indexof(shown, datum.controller) >= 0"


@dataclass(frozen=True, slots=True)
class View:
    """What is seen first: a scenario, a service, and the controllers shown."""

    scenario: str
    service: str
    shown: tuple[str, ...]


def timeline(series: Series, styles: Styles, view: View, *, width: int = 860) -> alt.VConcatChart:
    """Every panel, with hover, zoom strip and the parameters of the module's docstring."""
    clock = _Clock(series, styles, width, interactive=True)
    wrong = [clock.incidents()] if series.incidents.height else []
    nodes = [clock.nodes(labels=True)] if series.steps["nodes"].count() else []
    panels = [*wrong, clock.demand(), clock.replicas(), clock.utilisation(), clock.late(labels=not nodes), *nodes]
    return _stack([*panels, clock.overview()], series, view)


def still(series: Series, styles: Styles, view: View, *, width: int = 760) -> alt.VConcatChart:
    """Demand, replicas and late requests for a picture: a legend instead of parameters to click."""
    clock = _Clock(series, styles, width, interactive=False)
    clock.controllers = list(view.shown)
    stack = _stack([clock.demand(), clock.replicas(), clock.late(labels=True)], series, view)
    return stack.properties(title=f"Scenario {view.scenario}, service {view.service}")


def datasets(series: Series) -> dict[str, str]:
    """The panels' datasets as JSON rows: steps, lines, forecast, failures, incidents, slo."""
    lines = series.lines.select("series", "scenario", "controller", "service", pl.col("leads").cast(pl.Int8))
    slo = pl.DataFrame(
        [*series.slo_late_percent.items()], schema={"service": pl.String, "slo": pl.Float64}, orient="row"
    )
    return {
        "lines": rows(lines),
        "steps": rows(_thrifty(series.steps)),
        "forecast": rows(series.forecast.with_columns(pl.selectors.float().round_sig_figs(4))),
        "failures": rows(series.failures),
        "incidents": rows(series.incidents),
        "slo": rows(slo.with_columns(pl.col("slo").round_sig_figs(4))),
    }


def _thrifty(steps: pl.DataFrame) -> pl.DataFrame:
    # three figures are more than a pixel shows; a bound that equals its mean is left empty
    rounded = steps.with_columns(pl.selectors.float().round_sig_figs(3))
    bounds = [f"{measure}_{end}" for measure in MEASURES for end in ("min", "max")]
    spread = [pl.when(pl.col(b) != pl.col(b.rsplit("_", 1)[0])).then(pl.col(b)).alias(b) for b in bounds]
    return rounded.with_columns(spread)


def _stack(panels: list[Any], series: Series, view: View) -> alt.VConcatChart:
    import altair as alt

    chosen = {"scenario": view.scenario, "service": view.service, "shown": list(view.shown)}
    with warnings.catch_warnings():
        # one pointer for all panels is meant: Altair tells that it merged the equal selections
        warnings.filterwarnings("ignore", message="Automatically deduplicated selection parameter")
        chart = alt.vconcat(*panels).add_params(*(alt.param(name=k, value=v) for k, v in chosen.items()))
    return chart.properties(config=theme(), datasets=datasets(series))


class _Clock:
    """The shared horizontal axis and what is drawn on it; one method makes one panel."""

    def __init__(self, series: Series, styles: Styles, width: int, *, interactive: bool) -> None:
        import altair as alt

        self.series, self.styles, self.width, self.interactive = series, styles, width, interactive
        self.bin_ms = int(series.bin_s * 1000)
        self.controllers = series.lines["controller"].unique(maintain_order=True).to_list()
        self.zoom = alt.selection_interval(
            name="zoom", encodings=["x"], mark=alt.BrushConfig(fill=INK, fillOpacity=0.15)
        )
        self.at = alt.selection_point(name="at", fields=["bin"], on="pointerover", clear="pointerout", empty=False)

    def demand(self) -> alt.LayerChart:
        """Demand with its spread within a bin, and the forecast's median and 10-90 % band."""
        import altair as alt

        lead = _spread(self._steps().transform_filter("datum.leads == 1"), "demand")
        said = alt.Chart(named("forecast"))
        said = self._timed(said.transform_filter(_HERE))
        x, part, unit = self._x("mid"), alt.Detail("part:N"), "requests/s"
        layers = [
            lead.mark_area(color=INK, opacity=0.2, clip=True).encode(x, _y("low", unit), alt.Y2("high:Q")),
            said.mark_area(color=_FORECAST, opacity=0.3, clip=True).encode(x, _y("q10", unit), alt.Y2("q90:Q"), part),
            said.mark_line(color=_FORECAST, strokeWidth=1, clip=True).encode(x, _y("q50", unit), part),
            lead.mark_line(color=INK, strokeWidth=1.4, clip=True).encode(x, _y("demand", unit)),
        ]
        tips = [alt.Tooltip(f"{c}:Q", title=t, format=",.0f") for c, t in _DEMAND_TIPS]
        who = self.series.forecaster
        title = f"Demand (grey), and what {who} forecast: median and 10–90 % band (blue)" if who else "Demand"
        return self._panel("demand", title, 110, [*layers, *self._hover("demand", lead, tips)])

    def replicas(self) -> alt.LayerChart:
        """Ready replicas, and the wanted ones dotted."""
        return self._lines("ready", "replicas", "Replicas: ready, and wanted (dotted)", 130)

    def utilisation(self) -> alt.LayerChart:
        """The busy share of the ready replicas."""
        return self._lines("utilisation", "%", "Utilisation of the ready replicas", 90, domain=(0.0, 100.0))

    def late(self, *, labels: bool) -> alt.LayerChart:
        """The share of late, dropped or failed requests, against what the SLO allows."""
        import altair as alt

        rule = alt.Chart(named("slo")).transform_filter("datum.service == service")
        allowed = rule.mark_rule(color=_BAD, strokeDash=[5, 3]).encode(_y("slo", "% of requests"))
        title = "Late, dropped or failed requests (dashed: what the SLO allows)"
        return self._lines("late", "% of requests", title, 90, labels=labels, more=[allowed])

    def nodes(self, *, labels: bool) -> alt.LayerChart:
        """Ready nodes over all pools."""
        return self._lines("nodes", "nodes", "Ready nodes (all pools)", 80, labels=labels)

    def incidents(self) -> alt.LayerChart:
        """What went wrong: one row per kind, a line where it was over at once."""
        import altair as alt

        chart = self._wrong("incidents").transform_calculate(clock=CLOCK_TEXT)
        axis = alt.Axis(title=None, labelLimit=_KIND_PX, grid=False, labelExpr="replace(datum.label, /_/g, ' ')")
        kind = alt.Y("kind:N", axis=axis)
        tips = [alt.Tooltip(f"{field}:N", title=title) for field, title in _INCIDENT_TIPS]
        bars = chart.mark_rect(color=_BAD, opacity=0.6, stroke=_BAD, strokeWidth=1, clip=True)
        encoded = bars.encode(self._x("t"), alt.X2("t2:T"), kind, tooltip=tips)
        # the steps beneath give the lane the clock of the other panels
        beneath = self._hover("incidents", self._steps().transform_filter("datum.leads == 1"), [])
        lane = alt.LayerChart(layer=[*beneath, encoded])
        return lane.properties(name="incidents", title="What went wrong", width=self.width, height=alt.Step(14))

    def overview(self) -> alt.Chart:
        """The whole time in a strip: dragging over it zooms the panels above."""
        import altair as alt

        axis = alt.Axis(title=None, labelExpr=DAY_LABEL, tickCount=8, grid=False)
        x = alt.X("mid:T", scale=alt.Scale(type="utc", nice=False), axis=axis)
        lead = self._steps().transform_filter("datum.leads == 1")
        area = lead.mark_area(color=INK, opacity=0.35).encode(x, alt.Y("demand:Q", axis=None)).add_params(self.zoom)
        hint = "Drag here to zoom every panel; double-click for the whole time"
        title = alt.Title(hint, fontWeight="normal", fontSize=11)
        return area.properties(name="overview", title=title, width=self.width, height=34)

    # ------------------------------------------------------------ what the panels share

    def _lines(
        self,
        measure: str,
        unit: str,
        title: str,
        height: int,
        *,
        domain: tuple[float, float] | None = None,
        labels: bool = False,
        more: list[Any] | None = None,
    ) -> alt.LayerChart:
        """One line per shown controller; its spread within a bin is a faint band."""
        import altair as alt

        steps = self._steps()
        drawn = steps.transform_filter(_SHOWN)
        x, each = self._x("mid", labels=labels), alt.Detail("controller:N")
        tint = colour("controller", self.styles, self.controllers, legend=not self.interactive)
        layers: list[Any] = []
        if measure in MEASURES:
            band = _spread(drawn, measure).mark_area(
                opacity=0.24 if measure == "late" else 0.1, clip=True, interpolate="step"
            )
            layers.append(band.encode(x, _y("low", unit, domain), alt.Y2("high:Q"), tint, each))
        if measure == "ready":
            dotted = drawn.mark_line(strokeWidth=1, strokeDash=[1, 3], clip=True, interpolate="step")
            layers.append(dotted.encode(x, _y("wanted", unit, domain), tint, each))
        line = drawn.mark_line(strokeWidth=1.5, clip=True)
        layers.append(
            line.encode(
                x,
                _y(measure, unit, domain),
                tint,
                dash("controller", self.styles, self.controllers, legend=not self.interactive),
            )
        )
        layers += more or []
        return self._panel(
            measure, title, height, [*layers, *self._readout(steps, measure, labels=labels)], labels=labels
        )

    def _steps(self) -> alt.Chart:
        import altair as alt

        lines = named("lines")
        lookup = alt.LookupData(lines, "series", ["scenario", "controller", "service", "leads"])
        chart = alt.Chart(named("steps")).transform_lookup(lookup="series", from_=lookup)
        return self._timed(chart.transform_filter(_HERE))

    def _timed(self, chart: alt.Chart) -> alt.Chart:
        start = f"{EPOCH_MS} + datum.bin * {self.bin_ms}"
        return chart.transform_calculate(t=start, t2=f"datum.t + {self.bin_ms}", mid=f"datum.t + {self.bin_ms // 2}")

    def _x(self, field: str, *, labels: bool = False) -> alt.X:
        import altair as alt

        scale = (
            alt.Scale(type="utc", nice=False, domain=self.zoom)
            if self.interactive
            else alt.Scale(type="utc", nice=False)
        )
        title = "time since the trace's start" if labels else None
        axis = alt.Axis(labels=labels, title=title, labelExpr=DAY_LABEL, tickCount=8)
        return alt.X(f"{field}:T", scale=scale, axis=axis)

    def _panel(self, name: str, title: str, height: int, layers: list[Any], *, labels: bool = False) -> alt.LayerChart:
        import altair as alt

        shaded = (
            self._wrong("failures")
            .mark_rect(color=_BAD, opacity=0.14, clip=True)
            .encode(self._x("t", labels=labels), alt.X2("t2:T"))
        )
        return alt.LayerChart(layer=[shaded, *layers]).properties(
            name=name, title=title, width=self.width, height=height
        )

    def _wrong(self, dataset: str) -> alt.Chart:
        import altair as alt

        here = alt.Chart(named(dataset)).transform_filter("datum.scenario == scenario")
        return here.transform_calculate(t=f"{EPOCH_MS} + datum.start_s * 1000", t2=f"{EPOCH_MS} + datum.end_s * 1000")

    def _readout(self, steps: alt.Chart, measure: str, *, labels: bool) -> list[alt.Chart]:
        import altair as alt

        # controllers become columns c0, c1, ...: their names may hold characters that Vega reads as paths
        number = f"'c' + indexof({json.dumps(self.controllers)}, datum.controller)"
        wide = steps.transform_calculate(c=number).transform_pivot("c", value=measure, groupby=["bin"])
        titles = [tooltip_title(name) for name in self.controllers]
        tips = [alt.Tooltip(f"c{k}:Q", title=title, format=".3~g") for k, title in enumerate(titles)]
        return self._hover(measure, self._timed(wide), tips, labels=labels)

    def _hover(self, name: str, chart: alt.Chart, tips: list[alt.Tooltip], *, labels: bool = False) -> list[alt.Chart]:
        import altair as alt

        if not self.interactive:
            return []
        seen = alt.condition(self.at, alt.value(0.16), alt.value(0))
        columns = chart.transform_calculate(clock=CLOCK_TEXT).mark_rect(fill=INK, clip=True, aria=False)
        tooltip = [alt.Tooltip("clock:N", title="time"), *tips]
        encoded = columns.encode(self._x("t", labels=labels), alt.X2("t2:T"), opacity=seen, tooltip=tooltip)
        return [encoded.properties(name=f"{name}_hover").add_params(self.at)]


_DEMAND_TIPS = (("demand", "mean"), ("low", "lowest"), ("high", "highest"))


def _spread(chart: alt.Chart, measure: str) -> alt.Chart:
    low, high = (f"isValid(datum.{measure}_{e}) ? datum.{measure}_{e} : datum.{measure}" for e in ("min", "max"))
    return chart.transform_calculate(low=low, high=high)


def _y(field: str, unit: str, domain: tuple[float, float] | None = None) -> alt.Y:
    import altair as alt

    scale = alt.Scale(domain=list(domain)) if domain else alt.Scale(zero=True, nice=True)
    return alt.Y(f"{field}:Q", scale=scale, axis=alt.Axis(title=unit, tickCount=4, minExtent=44))
