"""One run folder -> one offline HTML page: `write(folder)`.

The page holds everything it shows: tables as HTML, the tables behind charts once as columns, the Vega bundle once. A
content policy in the page forbids every network request and every script but the two that it names by hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from reports import folder
from reports.context import context
from reports.drawing import draw
from reports.folder import Facts, RunFolder

if TYPE_CHECKING:
    import altair as alt
    from markupsafe import Markup

_TEMPLATES = Path(__file__).parent / "templates"


def write(run: Path) -> Path:
    """Write `report.html` into the run folder and return its path; the same folder gives the same bytes.

    Raises UsageError when `run` is not a run folder, TraceError or SchemaError when one of its files is damaged;
    an older page then stays as it was.
    """
    html = render(folder.read(run))
    path, partial = run / folder.REPORT, run / f"{folder.REPORT}.tmp"
    partial.write_text(html, encoding="utf-8")
    os.replace(partial, path)
    return path


def render(run: RunFolder) -> str:
    """The page of a run folder as HTML."""
    import jinja2
    from jinja2.utils import htmlsafe_json_dumps
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.ChainableUndefined,
    )
    drawing = draw(run)
    specs, data = _shared(drawing.charts)
    script, style = (Markup((_TEMPLATES / name).read_text(encoding="utf-8")) for name in ("page.js", "style.css"))  # noqa: S704 - our own files
    bundle = _bundle() if specs else Markup("")
    return environment.get_template("page.html.j2").render(
        **context(run, drawing),
        style=style,
        script=script,
        bundle=bundle,
        script_hashes=Markup(" ").join(_hash(text) for text in (bundle, script) if text),
        data=htmlsafe_json_dumps(data, sort_keys=True),
        charts=htmlsafe_json_dumps(specs),
    )


def _shared(charts: dict[str, alt.Chart]) -> tuple[dict[str, Facts], dict[str, Facts]]:
    """The specs without their data, and every dataset once as columns; `usermeta` says which a chart needs."""
    specs, data = {}, {}
    for name, chart in charts.items():
        spec = chart.to_dict()
        sets = spec.pop("datasets", {})
        data.update({each: _columns(json.loads(rows)) for each, rows in sets.items()})
        spec["usermeta"] = {"datasets": sorted(sets)}
        specs[name] = spec
    if "timeline" in specs:
        specs["timeline"]["usermeta"]["scenarios"] = sorted(set(data["lines"]["scenario"]))
    return specs, data


def _columns(rows: list[Facts]) -> Facts:
    """Rows as columns, whole numbers without their decimals: a third of the bytes."""
    whole = lambda v: int(v) if isinstance(v, float) and v.is_integer() else v  # noqa: E731 - local and one line
    return {column: [whole(row[column]) for row in rows] for column in (rows[0] if rows else ())}


def _bundle() -> Markup:
    import vl_convert
    from markupsafe import Markup

    code = vl_convert.javascript_bundle()  # pyright: ignore[reportCallIssue] - its stub has no default
    return Markup(code.replace("</script", "<\\/script"))  # noqa: S704 - the library's own code


def _hash(script: str) -> Markup:
    from markupsafe import Markup

    digest = hashlib.sha256(script.encode()).digest()
    return Markup("'sha256-{}'").format(base64.b64encode(digest).decode())
