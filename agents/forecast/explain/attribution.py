"""Which steps back, and which columns, a forecast rests on.

Networks: integrated gradients (Sundararajan, Taly and Yan 2017, Axiomatic attribution for deep networks, ICML) along
the straight way from a flat past at the last value, columns at their usual value, to the past as it was. What they
add up to is the median minus the median of that flat past; `gap` says by how much a finite sum misses it.

Any other forecaster: occlusion, one block of steps or one column replaced by the same absence, the others as they
were. Occlusions need not add up; `gap` is what is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from agents.forecast.base import MEDIAN, Floats, Forecaster, Past, check_past
from agents.forecast.conformal import Conformal
from agents.forecast.frames import Columns
from agents.forecast.neural import Neural
from twin.errors import UsageError

_NONE = Columns()
_POINTS = 64  # on the way from the flat past to the real one


@dataclass(frozen=True, slots=True)
class Attribution:
    """What blocks of steps and columns add to the median of one step ahead, in the unit of y.

    Attributes:
        blocks: (first, last) step back of each block, the latest first; step 1 is the last value.
        by_block: one number per block [blocks].
        by_column: one number per column beside y.
        whole: the median minus that of the past without any of them.
        gap: `whole` minus the sum of all numbers.
    """

    method: Literal["integrated gradients", "occlusion"]
    blocks: tuple[tuple[int, int], ...]
    by_block: Floats
    by_column: Mapping[str, float]
    whole: float
    gap: float


def attribute(
    fitted: Forecaster, past: Past, h: int, *, step: int | None = None, columns: Columns = _NONE, block: int = 12
) -> Attribution:
    """The attribution of the forecast of one past.

    Args:
        fitted: any forecaster.
        past: of one origin.
        h: steps ahead that are forecast.
        step: the step explained, 0 is the first; by default the last.
        columns: the names of the past's columns.
        block: steps per block.

    Raises:
        UsageError: another number of origins, steps or column names, or as the forecaster does.
    """
    step = h - 1 if step is None else step
    if len(past.ids) != 1 or not 0 <= step < h or block < 1:
        raise UsageError(
            f"one origin, a step in 0-{h - 1} and blocks of a step or more; got {len(past.ids)}, {step}, {block}"
        )
    if (len(columns.known), len(columns.seen)) != (past.known.shape[2], past.seen.shape[2]):
        raise UsageError(f"name the {past.known.shape[2]} known and {past.seen.shape[2]} seen columns; got {columns}")
    check_past(past, fitted, h)
    context = past.y.shape[1]
    ends = range(context, 0, -block)
    spans = [slice(max(end - block, 0), end) for end in ends]
    blocks = tuple((context - s.stop + 1, context - s.start) for s in spans)
    network = isinstance(fitted.base if isinstance(fitted, Conformal) else fitted, Neural)
    explain = _gradients if network else _occlusions
    by_block, by_column, whole = explain(fitted, past, h, step, spans)
    names = (*columns.known, *columns.seen)
    gap = whole - float(by_block.sum()) - float(by_column.sum())
    method = "integrated gradients" if network else "occlusion"
    return Attribution(method, blocks, by_block, dict(zip(names, by_column.tolist(), strict=True)), whole, gap)


def _absent(past: Past) -> Past:
    """The same past with nothing in it: flat at the last value, columns at their usual (median) or last value."""
    context = past.y.shape[1]
    y = np.where(np.isnan(past.y), np.nan, past.y[:, -1:])
    known = np.broadcast_to(np.median(past.known[:, :context], axis=1, keepdims=True), past.known.shape)
    return replace(past, y=y, known=known, seen=np.broadcast_to(past.seen[:, -1:], past.seen.shape))


def _occlusions(
    fitted: Forecaster, past: Past, h: int, step: int, spans: Sequence[slice]
) -> tuple[Floats, Floats, float]:
    absent = _absent(past)
    known, seen = past.known.shape[2], past.seen.shape[2]
    rows: list[Past] = [past, absent]
    for span in spans:
        y = past.y.copy()
        y[:, span] = absent.y[:, span]
        rows.append(replace(past, y=y))
    for k in range(known):
        rows.append(replace(past, known=np.where(np.arange(known) == k, absent.known, past.known)))
    for k in range(seen):
        rows.append(replace(past, seen=np.where(np.arange(seen) == k, absent.seen, past.seen)))
    said = fitted.forecast(_stacked(rows), h)[:, step, MEDIAN]
    lost = said[0] - said[2:]
    return lost[: len(spans)], lost[len(spans) :], float(said[0] - said[1])


def _stacked(rows: Sequence[Past]) -> Past:
    return replace(
        rows[0],
        ids=[row.ids[0] for row in rows],
        **{
            name: np.concatenate([getattr(row, name) for row in rows])
            for name in ("y", "origin_s", "seen", "known", "static")
        },
    )


def _gradients(
    fitted: Forecaster, past: Past, h: int, step: int, spans: Sequence[slice]
) -> tuple[Floats, Floats, float]:
    import jax
    import jax.numpy as jnp

    from agents.forecast.graphs.given import given
    from agents.forecast.graphs.graph import graph

    answer = graph(fitted, [past.ids[0]], h)
    real, flat = given(past), given(_absent(past))
    scale = float(np.asarray(real.scale)[0, 0])
    # both ends in the units of the real past: what a unit is must not change on the way between them
    flat = flat._replace(unit=jnp.where(jnp.isnan(real.unit), jnp.nan, 0.0), last=real.last, scale=real.scale)
    inputs = {name: getattr(real, name) for name in ("unit", "seen", "known")}
    moved = {name: jnp.nan_to_num(value - getattr(flat, name)) for name, value in inputs.items()}

    def median(share: Any, change: Any) -> Any:  # noqa: ANN401 - JAX arrays
        along = {name: getattr(flat, name) + share * change[name] for name in change}
        return answer(flat._replace(**along))[0, step, MEDIAN]

    slope = jax.grad(lambda change, share: median(share, change))
    shares = (np.arange(_POINTS) + 0.5) / _POINTS
    # the slope by `change` at a share of the way is the slope by the input times that share
    slopes = jax.jit(jax.vmap(lambda share: jax.tree.map(lambda g: g / share, slope(moved, share))))(
        jnp.float32(shares)
    )
    parts = {name: scale * np.asarray(slopes[name].mean(axis=0) * moved[name], np.float64)[0] for name in moved}
    whole = scale * float(median(1.0, moved) - median(0.0, moved))
    by_block = np.array([parts["unit"][span].sum() for span in spans])
    return by_block, np.concatenate([parts["known"].sum(axis=0), parts["seen"].sum(axis=0)]), whole
