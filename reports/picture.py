"""Pictures of a run without a browser: the matrix and the panels as one small PNG or SVG, for a README.

`write_svg` and `write_png` write any chart of this package.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports import charts, drawing, folder, kpis, series, timeline
from reports.folder import RunFolder
from twin.errors import UsageError

if TYPE_CHECKING:
    import altair as alt

MAX_BYTES = 200_000
_WIDTH = 760
_TRIES = (
    (400, 1.5),
    (200, 1.5),
    (200, 1.0),
    (100, 1.0),
)  # points a line, pixels a unit: the first that is small enough
_SIDE_BY_SIDE = 5  # controllers; more need the whole width for one matrix


def picture(run: Path, out: Path) -> Path:
    """Write the scenario x controller matrices and the panels of a run folder to `out` and return it.

    Args:
        run: the run folder.
        out: a .png or .svg path; the file is at most 200 kB.

    Raises:
        UsageError: when `out` has another suffix, the folder holds neither a summary nor shown runs, or the
            picture cannot be made small enough.
    """
    if out.suffix not in (".png", ".svg"):
        raise UsageError(f"{out}: a picture is a .png or a .svg; change the suffix")
    read = folder.read(run)
    for points, scale in _TRIES:
        chart = _composed(read, points)
        content = _png(chart, scale) if out.suffix == ".png" else _svg(chart)
        if len(content) <= MAX_BYTES:
            _replace(out, content)
            return out
    raise UsageError(f"{out}: more than {MAX_BYTES} bytes even with {_TRIES[-1][0]} points a line; show fewer runs")


def write_svg(chart: alt.TopLevelMixin, path: Path) -> None:
    """Write a chart as SVG on white; the file appears whole or not at all."""
    _replace(path, _svg(chart))


def write_png(chart: alt.TopLevelMixin, path: Path, scale: float = 1.5) -> None:
    """Write a chart as PNG on white, `scale` pixels a unit; the file appears whole or not at all."""
    _replace(path, _png(chart, scale))


def _svg(chart: alt.TopLevelMixin) -> bytes:
    import vl_convert

    return vl_convert.vegalite_to_svg(_white(chart)).encode()


def _png(chart: alt.TopLevelMixin, scale: float) -> bytes:
    import vl_convert

    return _packed(vl_convert.vegalite_to_png(_white(chart), scale=scale))


def _packed(png: bytes) -> bytes:
    """The same picture with its pixels deflated as far as zlib can: vl-convert packs for speed, at twice the size."""
    chunks, at = [], 8
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        chunks.append((kind, png[at + 8 : at + 8 + length]))
        at += 12 + length
    pixels = zlib.decompress(b"".join(body for kind, body in chunks if kind == b"IDAT"))
    head = [chunk for chunk in chunks if chunk[0] not in (b"IDAT", b"IEND")]
    packed = [*head, (b"IDAT", zlib.compress(pixels, 9)), (b"IEND", b"")]
    return png[:8] + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in packed
    )


def _white(chart: alt.TopLevelMixin) -> dict[str, Any]:
    return {**chart.to_dict(), "background": "white", "padding": 12}


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(f"{path.name}.tmp")
    partial.write_bytes(content)
    os.replace(partial, path)


def _composed(run: RunFolder, points: int) -> alt.VConcatChart:
    import altair as alt

    parts = _matrices(run)
    binned = series.build(run, most=points)
    if binned is not None:
        view = drawing.first_view(run, binned)
        styles = drawing.controller_styles(run)
        parts.append(timeline.still(binned, styles, view, width=_WIDTH))
    if not parts:
        raise UsageError(f"{run.path}: neither tables/summary.parquet nor shown runs to draw; run a benchmark first")
    data = {name: rows for part in parts for name, rows in part.datasets.items()}
    for part in parts:  # one chart has one theme and one set of data, at its top
        part.config = part.datasets = alt.Undefined
    joined = alt.vconcat(*_rows(run, parts)).resolve_scale(color="independent", strokeDash="independent")
    return joined.properties(config=charts.theme(), datasets=data)


def _matrices(run: RunFolder) -> list[Any]:
    if run.summary is None or not run.summary.height:
        return []
    found = kpis.compared(run.summary)[:2]
    columns = len(run.controllers)
    room = (_WIDTH // 2 if columns <= _SIDE_BY_SIDE else _WIDTH) - 110
    cell = (min(max(room // max(columns, 1), 50), 110), 28)
    return [charts.matrix(run.summary, kpi, entity, cell=cell) for kpi, entity in found]


def _rows(run: RunFolder, parts: list[Any]) -> list[Any]:
    import altair as alt

    tables, rest = (
        [p for p in parts if isinstance(p, alt.LayerChart)],
        [p for p in parts if isinstance(p, alt.VConcatChart)],
    )
    if len(run.controllers) <= _SIDE_BY_SIDE and len(tables) > 1:
        return [alt.hconcat(*tables), *rest]
    return [*tables, *rest]
