"""A learned policy as the loop sees it: a window of observation columns in, replicas and a confidence out.

The inference itself is a function passed in, so that the trained network (torch, JAX) and its exported ONNX
graph drive exactly the same controller; `load` gives the graph's. Only numpy and onnxruntime are needed here.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twin.errors import PolicyError
from twin.types import Action, Observation

Window = NDArray[np.float32]  # [steps, columns], oldest step first
LONGEST_GAP = 3  # steps


@dataclass(frozen=True, slots=True)
class Inference:
    """What a graph says: replicas [services], confidence (0-1), signals [spec.signals] to explain it with."""

    replicas: NDArray[np.float32]
    confidence: float
    signals: NDArray[np.float32]


Infer = Callable[[Window], Inference]


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """What must be known to run a policy's graph; stored as `policy.json` beside `graph.onnx`.

    The graph's input "window" is float32 [1, steps, len(columns)]: the last `steps` observations, one per
    decision, every `interval_s` seconds. Its outputs: "replicas" [1, len(services)], "confidence" [1],
    "signals" [1, len(signals)]. `reason` is a format string over the signals and `{replicas}`.
    """

    name: str
    version: str
    columns: tuple[str, ...]
    steps: int
    interval_s: float
    services: tuple[str, ...]
    signals: tuple[str, ...]
    reason: str
    confidence_meaning: str

    def write(self, folder: Path) -> None:
        """Write `policy.json`."""
        (folder / "policy.json").write_text(json.dumps(asdict(self), indent=2, sort_keys=True) + "\n", "utf-8")

    @classmethod
    def read(cls, folder: Path) -> PolicySpec:
        """The spec in `policy.json`; raises PolicyError when it is absent or has other keys."""
        path = folder / "policy.json"
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            raw.update({key: tuple(value) for key, value in raw.items() if isinstance(value, list)})
            return cls(**raw)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise PolicyError(f"{path}: not a policy: {error}; train one with python -m experiments.train") from error


class GraphPolicy:
    """The controller around an inference: keeps the window, asks, and words the answer.

    While the window is not full, or the last observation is unknown, it proposes nothing: whoever guards it
    (`agents.rules.guarded`) lets a rule decide meanwhile. Up to LONGEST_GAP unknown steps are bridged in the window
    by the last known values; after a longer gap the window is filled anew.
    """

    def __init__(self, spec: PolicySpec, infer: Infer) -> None:
        """Run `infer` as `spec` says."""
        self.spec = spec
        self.infer = infer
        self._window: deque[NDArray[np.float32]] = deque(maxlen=spec.steps)
        self._gap = 0
        self._positions: tuple[tuple[str, ...], NDArray[np.intp]] | None = None

    @property
    def name(self) -> str:
        """Policy id and version."""
        return f"{self.spec.name}@{self.spec.version}"

    @property
    def interval_s(self) -> float:
        """Seconds between decisions, and between the steps of the window."""
        return self.spec.interval_s

    def reset(self) -> None:
        """Forget the window."""
        self._window.clear()
        self._gap = 0

    def decide(self, observation: Observation) -> list[Action]:
        """One action per service, or none while the window is incomplete; raises PolicyError for nonsense."""
        if not self._remember(observation.values[self._locate(observation)]) or len(self._window) < self.spec.steps:
            return []
        return self.actions(self.infer(np.stack(self._window)))

    def _remember(self, row: NDArray[np.float32]) -> bool:
        """Take the step into the window; is it known?"""
        known = np.isfinite(row)
        self._gap = 0 if known.all() else self._gap + 1
        if self._gap > LONGEST_GAP or (self._gap and not self._window):
            self._window.clear()
        else:
            self._window.append(np.where(known, row, self._window[-1] if self._window else row))
        return self._gap == 0

    def actions(self, said: Inference) -> list[Action]:
        """The graph's answer as actions; raises PolicyError when it is not finite."""
        if not (np.isfinite(said.replicas).all() and math.isfinite(said.confidence)):
            raise PolicyError(f"{self.name}: the graph answered {said.replicas} with confidence {said.confidence}")
        signals = dict(zip(self.spec.signals, said.signals.tolist(), strict=True))
        return [
            Action(
                "replicas",
                service,
                # a whole number that float32 left a hair above itself must not cost a replica
                math.ceil(float(replicas) - 1e-3),
                self.spec.reason.format(replicas=math.ceil(float(replicas) - 1e-3), **signals),
                min(max(said.confidence, 0.0), 1.0),
            )
            for service, replicas in zip(self.spec.services, said.replicas, strict=True)
        ]

    def _locate(self, observation: Observation) -> NDArray[np.intp]:
        if self._positions is None or self._positions[0] is not observation.columns:
            missing = [c for c in self.spec.columns if c not in observation.columns]
            if missing:
                raise PolicyError(f"{self.name} needs the column {missing[0]!r}, which this plant does not observe")
            self._positions = (
                observation.columns,
                np.array([observation.columns.index(c) for c in self.spec.columns]),
            )
        return self._positions[1]


def load(folder: str | Path) -> GraphPolicy:
    """The policy in a folder (`policy.json`, `graph.onnx`), run by onnxruntime on one thread.

    Raises PolicyError when a file is absent, damaged, or does not fit the spec.
    """
    path = Path(folder)
    spec = PolicySpec.read(path)
    return GraphPolicy(spec, graph_inference(path / "graph.onnx", spec))


def graph_inference(path: Path, spec: PolicySpec) -> Infer:
    """The ONNX graph at `path` as a function of one window; raises PolicyError when it cannot be loaded."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own classes, private to its C extension
        raise PolicyError(f"{path}: not a loadable ONNX graph: {error}") from error
    inputs = {i.name for i in session.get_inputs()}
    outputs = {o.name for o in session.get_outputs()}
    if inputs != {"window"} or not {"replicas", "confidence", "signals"} <= outputs:
        raise PolicyError(f"{path}: expected input 'window' and the three outputs of {spec.name}; found {inputs}")

    def infer(window: Window) -> Inference:
        replicas, confidence, signals = session.run(
            ["replicas", "confidence", "signals"], {"window": np.ascontiguousarray(window[None], np.float32)}
        )
        return Inference(np.asarray(replicas)[0], float(np.asarray(confidence)[0]), np.asarray(signals)[0])

    return infer
