"""One folder that a verb wrote -> one offline HTML page: `write(folder)` chooses the page by the folder's kind."""

from __future__ import annotations

from pathlib import Path

from reports import folder, forecast_page, forecasting, jobs, offline, recording
from reports.context import context
from reports.drawing import draw
from reports.folder import RunFolder


def write(run: Path) -> Path:
    """Write `report.html` into the folder and return its path; the same folder gives the same bytes.

    Raises UsageError when `run` is no folder that a verb wrote, TraceError or SchemaError when one of its files is
    damaged; an older page then stays as it was.
    """
    identity = folder.identity_of(run)
    if identity.get("kind") == recording.KIND:
        return recording.write(run)
    if identity.get("verb") == jobs.VERB:
        return jobs.write(run)
    if identity.get("verb") == forecast_page.VERB:
        return forecast_page.write(run)
    if identity.get("verb") == forecasting.VERB:
        return forecasting.write(run)
    return offline.put(render(folder.read(run)), run)


def render(run: RunFolder) -> str:
    """The page of a run folder as HTML."""
    drawing = draw(run)
    return offline.render("page.html.j2", context(run, drawing), drawing.charts)
