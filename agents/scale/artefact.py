"""A trained policy as a folder that runs anywhere: `graph.onnx`, `policy.json`, and the native weights beside them.

Every learner ends here, whatever it trained with: it states its answer as a JAX function of the window, and the
graph is exported from that. `parity` then compares the graph with the *trained* network on recorded windows.
"""

from __future__ import annotations

import logging
import os
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.policy import Infer, PolicySpec, graph_inference
from twin.errors import PolicyError

# window [1, steps, columns] -> replicas [1, services], confidence [1], signals [1, signals]
Answer = Callable[[Any], tuple[Any, Any, Any]]
OUTPUTS = ["replicas", "confidence", "signals"]


def export(out: Path, spec: PolicySpec, answer: Answer, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """Write the policy folder `out`, whole or not at all; raises PolicyError when it exists already."""
    if out.exists():
        raise PolicyError(f"{out} exists already; remove it or choose another folder")
    graph = _graph(spec, answer)
    partial = out.with_name(out.name + ".tmp")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        (partial / "graph.onnx").write_bytes(graph)
        spec.write(partial)
        np.savez(partial / "weights.npz", **weights)  # pyright: ignore[reportArgumentType]
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _graph(spec: PolicySpec, answer: Answer) -> bytes:
    import jax
    from jax2onnx import to_onnx

    window = jax.ShapeDtypeStruct((1, spec.steps, len(spec.columns)), np.float32)
    talkative = logging.getLogger("onnx_ir")
    level = talkative.level
    talkative.setLevel(logging.ERROR)  # it warns of values whose type onnx infers by itself
    try:
        model = to_onnx(answer, [window], model_name=spec.name, opset=21, input_names=["window"], output_names=OUTPUTS)
    finally:
        talkative.setLevel(level)
    return model.SerializeToString(deterministic=True)  # pyright: ignore[reportAttributeAccessIssue,reportCallIssue]


def read_weights(folder: Path) -> dict[str, NDArray[np.float32]]:
    """The native weights stored beside the graph; raises PolicyError when they are absent or damaged."""
    path = folder / "weights.npz"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise PolicyError(f"{path}: not readable weights: {error}") from error


def parity(native: Infer, folder: Path, windows: NDArray[np.float32]) -> float:
    """The largest |native - graph| / max(1, |native|) over all outputs and windows [n, steps, columns].

    Raises PolicyError when there is nothing to compare.
    """
    if not len(windows):
        raise PolicyError("parity needs at least one recorded window; record a run that is longer than the window")
    graph = graph_inference(folder / "graph.onnx", PolicySpec.read(folder))
    worst = 0.0
    for window in windows:
        a, b = native(window), graph(window)
        left = np.concatenate([a.replicas, [a.confidence], a.signals])
        right = np.concatenate([b.replicas, [b.confidence], b.signals])
        worst = max(worst, float(np.max(np.abs(left - right) / np.maximum(1.0, np.abs(left)))))
    return worst
