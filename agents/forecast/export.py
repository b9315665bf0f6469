"""Any forecaster that is a fixed function of the past, as an ONNX graph with the proof that it says the same.

The graph takes values as they are (double) and answers in their unit (double): it scales each window by itself, and
works out what networks see of it, casts once to float32 for the model, and scales back. Import this module only where
a forecaster is exported: it needs JAX.
"""

from __future__ import annotations

import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from jax2onnx import to_onnx
from onnx import TensorProto, compose, helper

from agents.forecast.base import DECILES, Forecaster, Past, check_past
from agents.forecast.exported import GRAPH, VECTORS, Manifest, digest, feeds, verify
from agents.forecast.frames import Columns
from agents.forecast.graphs import looks
from agents.forecast.graphs.given import Given, Graph, scaled
from agents.forecast.graphs.graph import graph
from agents.forecast.graphs.leaves import steps_needed, views
from agents.forecast.graphs.remainders import without_remainders
from agents.forecast.training import View
from twin.errors import PolicyError, UsageError

TOLERANCE = 1e-3  # of the 80 % band, see `exported.verify`
_NONE = Columns()
_SCALED = 5  # outputs of `scaled`, before those of looks
_GIVEN = 8  # fields of `Given`, before its looks
_OPSET = 21
_IR = 10  # the oldest version of the file format that holds this opset


def export(
    forecaster: Forecaster,
    out: Path,
    past: Past,
    *,
    unit: str = "",
    columns: Columns = _NONE,
    trained_until_s: float | None = None,
) -> float:
    """Write the folder `out`, whole or not at all, and return how far it is from the original (see `verify`).

    Args:
        forecaster: fitted; of a model per series those in `past` are exported.
        out: a folder that does not exist.
        past: recorded pasts, which say how many steps ahead are forecast; they become the parity vectors.
        unit: of y.
        columns: the names of the columns beside y.
        trained_until_s: end of the training data on the series' clock, where it is known.

    Raises:
        UsageError: the forecaster cannot be exported (the message says why), or there is no past, or one that is
            younger than its graph needs.
        PolicyError: `out` exists, or the graph differs from the original by more than TOLERANCE of its band.
    """
    if out.exists():
        raise PolicyError(f"{out} exists already; remove it or choose another folder")
    h = past.known.shape[1] - forecaster.context
    if not len(past.ids) or h < 1:
        raise UsageError(f"{forecaster.name}: an export needs at least one recorded past, and a step to forecast")
    check_past(past, forecaster, h)
    needs = steps_needed(forecaster)
    if np.isnan(past.y[:, forecaster.context - needs :]).any():
        raise UsageError(
            f"{forecaster.name}: its graph answers from {needs} steps of history on, and a recorded past has fewer; "
            "export it with older ones"
        )
    ids = list(dict.fromkeys(past.ids))
    model = _model(graph(forecaster, ids, h), views(forecaster), past, forecaster.context)
    partial = out.with_name(out.name + ".tmp")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        feed = feeds(past, ids)
        vectors = {value.name: feed[value.name] for value in model.graph.input}
        (partial / GRAPH).write_bytes(model.SerializeToString(deterministic=True))
        np.savez(partial / VECTORS, **vectors, deciles=forecaster.forecast(past, h))  # pyright: ignore[reportArgumentType]
        Manifest(
            name=forecaster.name,
            model=type(forecaster).__name__,
            context=forecaster.context,
            needs=needs,
            horizon=h,
            step_s=past.step_s,
            unit=unit,
            deciles=tuple(DECILES.tolist()),
            inputs={value.name: _declared(value) for value in model.graph.input},
            outputs={value.name: _declared(value) for value in model.graph.output},
            series=tuple(ids) if "series" in vectors else None,
            columns={"known": columns.known, "seen": columns.seen, "static": columns.static},
            trained_until_s=trained_until_s,
            sha256={name: digest(partial / name) for name in (GRAPH, VECTORS)},
        ).write(partial)
        apart = _accepted(partial, forecaster.name)
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return apart


def _accepted(folder: Path, name: str) -> float:
    """How far the graph in `folder` is from its original; raises PolicyError when that is too far."""
    apart = verify(folder)
    if not apart <= TOLERANCE:
        raise PolicyError(
            f"{name}: its graph differs from it by {apart:.2g} of the 80 % band, and {TOLERANCE:g} is accepted; "
            "nothing was written"
        )
    return apart


def _model(answer: Graph, views: Sequence[View], past: Past, context: int) -> onnx.ModelProto:
    """The whole graph, scale and back in double, answer in float; nothing in it that the answer does not need."""
    h = past.known.shape[1] - context
    y, seen = ("batch", context), ("batch", context, past.seen.shape[2])
    one, series = ("batch", 1), ("batch",)
    rest = {"known": ("batch", context + h, past.known.shape[2]), "static": ("batch", past.static.shape[1])}
    looked = {f"look{k}_{name}": view for k, view in enumerate(views) for name in looks.names(view)}

    def double(y: Any, seen: Any) -> tuple[Any, ...]:  # noqa: ANN401 - JAX arrays
        unit, last, fine, scale, moved = scaled(y, seen)
        found = [array for view in views for array in looks.doubled(view, y, seen, last, scale)]
        return unit, last, fine, scale, moved, *found

    def single(*arrays: Any) -> Any:  # noqa: ANN401 - JAX arrays
        given, left = Given(*arrays[:_GIVEN]), iter(arrays[_GIVEN:])
        own = {view: looks.single(view, [next(left) for _ in looks.names(view)], given) for view in views}
        return answer(given._replace(looks=own))

    before = _traced(double, {"y": y, "seen": seen}, ("unit", "last", "fine", "scale", "moved", *looked), double=True)
    found = dict(zip(looked, [_declared(value)[1] for value in before.graph.output[_SCALED:]], strict=True))
    inside = {"unit": y, "last": one, "fine": one, "scale": one, "seen": seen, **rest, "series": series, **found}
    model = _traced(single, inside, ("units",), double=False)
    units = {"units": ("batch", h, len(DECILES)), "last": one, "scale": one}
    after = _traced(_unscaled, units, ("deciles",), double=True)
    nodes = [
        *_cast({"before/y": "y", "before/seen": "seen"}, TensorProto.DOUBLE),
        *before.graph.node,
        *_cast({f"model/{n}": f"before/{n}" for n in ("unit", "last", "fine", "scale", *looked)}, TensorProto.FLOAT),
        *_cast({"model/seen": "before/moved", **{f"model/{n}": n for n in (*rest, "series")}}, TensorProto.FLOAT),
        *model.graph.node,
        *_cast({"after/units": "model/units"}, TensorProto.DOUBLE),
        *_cast({f"after/{n}": f"before/{n}" for n in ("last", "scale")}, TensorProto.DOUBLE),
        *after.graph.node,
        *_cast({"deciles": "after/deciles"}, TensorProto.DOUBLE),
    ]
    kept, needed = _needed(nodes, "deciles")
    takes = [
        helper.make_tensor_value_info(name, TensorProto.INT64 if name == "series" else TensorProto.DOUBLE, shape)
        for name, shape in {"y": y, "seen": seen, **rest, "series": series}.items()
        if name in needed
    ]
    says = helper.make_tensor_value_info("deciles", TensorProto.DOUBLE, ("batch", h, len(DECILES)))
    constants = [c for part in (before, model, after) for c in part.graph.initializer if c.name in needed]
    graph = helper.make_graph(kept, "forecast", takes, [says], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)


def _unscaled(units: Any, last: Any, scale: Any) -> Any:  # noqa: ANN401 - JAX arrays
    return last[:, :, None] + scale[:, :, None] * units


def _cast(sources: Mapping[str, str], to: int) -> list[onnx.NodeProto]:
    """Nodes that give each of the values (by new name) in another type."""
    return [helper.make_node("Cast", [old], [new], name=f"cast/{new}", to=to) for new, old in sources.items()]


def _needed(nodes: Sequence[onnx.NodeProto], output: str) -> tuple[list[onnx.NodeProto], set[str]]:
    """The nodes that `output` depends on, and the names of all values that they take."""
    needed, kept = {output}, []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            _trim(node)
            kept.append(node)
            needed.update(_taken(node))
    return kept[::-1], needed


def _trim(node: onnx.NodeProto) -> None:
    """Drop the constants that the graphs inside a node hold and do not use."""
    for attribute in node.attribute:
        inner = attribute.g
        used = {name for each in inner.node for name in _taken(each)} | {value.name for value in inner.output}
        spare = [constant for constant in inner.initializer if constant.name not in used]
        for constant in spare:
            inner.initializer.remove(constant)


def _taken(node: onnx.NodeProto) -> Iterator[str]:
    """The values that a node takes, those of the graphs inside it included."""
    yield from node.input
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            for each in inner.node:
                yield from _taken(each)
            yield from (value.name for value in inner.output)


def _traced(
    function: Callable[..., Any],
    inputs: Mapping[str, tuple[int | str, ...]],
    outputs: tuple[str, ...],
    *,
    double: bool,
) -> onnx.ModelProto:
    """The graph of a JAX function, every name in it prefixed with what it is for."""
    prefix = {"unit": "model/", "y": "before/", "units": "after/"}[next(iter(inputs))]
    talkative = logging.getLogger("onnx_ir")
    level = talkative.level
    talkative.setLevel(logging.ERROR)  # it warns of values whose type onnx infers by itself
    try:
        with warnings.catch_warnings():
            # its layers read flax's parameters in a way that flax no longer likes
            warnings.filterwarnings("ignore", "'.value' access is now deprecated", DeprecationWarning)
            model = to_onnx(
                without_remainders(function),
                list(inputs.values()),
                opset=_OPSET,
                enable_double_precision=double,
                input_names=list(inputs),
                output_names=list(outputs),
            )
    finally:
        talkative.setLevel(level)
    if model.functions:
        raise PolicyError(
            f"the graph calls functions of its own: {[f.name for f in model.functions]}; state it without"
        )
    return compose.add_prefix(model, prefix)


def _declared(value: onnx.ValueInfoProto) -> tuple[str, tuple[int | str, ...]]:
    """The type and shape of an input or output."""
    tensor = value.type.tensor_type
    shape = tuple(d.dim_param or d.dim_value for d in tensor.shape.dim)
    return TensorProto.DataType.Name(tensor.elem_type).lower(), shape
