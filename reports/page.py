"""One folder that a verb wrote -> one offline HTML page: `write(folder)` chooses the page by the folder's kind."""

from __future__ import annotations

from pathlib import Path

from reports import folder, forecast_page, jobs, offline, recording, retraining, tuning
from reports.context import context
from reports.drawing import draw
from reports.folder import RunFolder

_OF_KIND = {recording.KIND: recording.write, tuning.KIND: tuning.write}
_OF_VERB = {jobs.VERB: jobs.write, forecast_page.VERB: forecast_page.write, retraining.VERB: retraining.write}


def write(run: Path) -> Path:
    """Write `report.html` into the folder and return its path; the same folder gives the same bytes.

    Raises UsageError when `run` is no folder that a verb wrote, TraceError or SchemaError when one of its files is
    damaged; an older page then stays as it was.
    """
    identity = folder.identity_of(run)
    own = _OF_KIND.get(str(identity.get("kind"))) or _OF_VERB.get(str(identity.get("verb")))
    if own is not None:
        return own(run)
    return offline.put(render(folder.read(run)), run)


def render(run: RunFolder) -> str:
    """The page of a run folder as HTML."""
    drawing = draw(run)
    return offline.render("page.html.j2", context(run, drawing), drawing.charts)
