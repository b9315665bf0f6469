"""Which charts a run folder gives, in which colours, and what they show first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reports import calibration, charts, palette, series, timeline
from reports.charts import Styles
from reports.folder import RunFolder
from reports.series import Series
from reports.timeline import View

if TYPE_CHECKING:
    import altair as alt

_MANY = 4  # controllers drawn at first; more lines than that hide each other


@dataclass(frozen=True, slots=True)
class Drawing:
    """What is drawn and in which colours; `series` and `view` are None without shown runs."""

    styles: Styles
    forecasters: Styles
    series: Series | None
    view: View | None
    charts: dict[str, alt.Chart]


def draw(run: RunFolder) -> Drawing:
    """The charts of a run folder that its tables allow."""
    styles = controller_styles(run)
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
    return Drawing(styles, forecasters, binned, view, drawn)


def controller_styles(run: RunFolder) -> Styles:
    """Colour and dash of each controller of the run, wherever it is drawn."""
    return palette.styles(run.controllers, run.baseline)


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
