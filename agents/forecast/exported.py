"""An exported forecaster: a folder that answers on onnxruntime alone, and proves that it says what the original said.

forecast.json   what it takes, answers and is for
graph.onnx      values in, deciles out
parity.npz      recorded pasts, and what the original said of them
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from agents.forecast.base import DECILES, Floats, Past, Progress, check_past
from agents.forecast.frames import Series
from twin.errors import PolicyError, UsageError

GRAPH, MANIFEST, VECTORS = "graph.onnx", "forecast.json", "parity.npz"
_LEAST_BAND = 1e-6  # of the largest value forecast: no difference is measured against a narrower band


@dataclass(frozen=True, slots=True)
class Manifest:
    """What must be known to run a forecaster's graph; stored as `forecast.json`.

    Attributes:
        needs: steps of history that the graph cannot do without: those of the original, or its whole window where a
            member of it is stated for whole windows only.
        inputs: each input's type and shape; `batch` is free, the rest is as in `base.Past`. `series` is the position
            of a row's series in `series`.
        outputs: "deciles", double [batch, h, 9], in the unit of y.
        series: what it can forecast; None: any series.
        columns: the names of the columns beside y: known, seen and static.
        trained_until_s: end of the training data on the series' clock; None: not known.
        sha256: of the other files, by name.
    """

    name: str
    model: str
    context: int
    needs: int
    horizon: int
    step_s: int
    unit: str
    deciles: tuple[float, ...]
    inputs: Mapping[str, tuple[str, tuple[int | str, ...]]]
    outputs: Mapping[str, tuple[str, tuple[int | str, ...]]]
    series: tuple[str, ...] | None
    columns: Mapping[str, tuple[str, ...]]
    trained_until_s: float | None
    sha256: Mapping[str, str]
    format: int = 1

    def write(self, folder: Path) -> None:
        """Write `forecast.json`."""
        text = json.dumps(asdict(self), indent=2, sort_keys=True, allow_nan=False)
        (folder / MANIFEST).write_text(text + "\n", "utf-8")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The manifest of `folder`; raises PolicyError when it is absent, of another format, or a file was changed."""
        path = folder / MANIFEST
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            raw["series"] = None if raw["series"] is None else tuple(raw["series"])
            raw["deciles"] = tuple(raw["deciles"])
            manifest = cls(**raw)
            changed = [name for name, sha in manifest.sha256.items() if digest(folder / name) != sha]
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise PolicyError(f"{path}: not an exported forecaster: {error!r}; export it again") from error
        if manifest.format != 1 or changed:
            what = f"{changed[0]} was changed" if changed else f"format {manifest.format} is not known"
            raise PolicyError(f"{path}: {what}; export the forecaster again")
        return manifest


def digest(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass(frozen=True, slots=True)
class OnnxForecaster:
    """The forecaster in `folder`, run by onnxruntime on one thread; no JAX, no training library.

    Raises PolicyError when the folder is not one, or was changed.
    """

    folder: Path
    manifest: Manifest = field(init=False)
    _session: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Read the manifest and load the graph."""
        import onnxruntime

        folder = Path(self.folder)
        object.__setattr__(self, "manifest", Manifest.read(folder))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(folder / GRAPH, options, providers=["CPUExecutionProvider"])
        object.__setattr__(self, "_session", session)

    @property
    def name(self) -> str:
        """That of the original."""
        return self.manifest.name

    @property
    def context(self) -> int:
        """That of the original."""
        return self.manifest.context

    @property
    def needs(self) -> int:
        """That of the graph, see `Manifest`."""
        return self.manifest.needs

    @property
    def pooled(self) -> bool:
        """One graph for all of its series."""
        return True

    def fit(self, series: Sequence[Series], seed: int, progress: Progress | None = None) -> Self:  # noqa: ARG002
        """Raises UsageError: a graph learns nothing."""
        raise UsageError(f"{self.name}: an exported graph cannot be fitted; fit the original and export it again")

    def forecast(self, past: Past, h: int) -> Floats:
        """Deciles [batch, h, 9]; raises UsageError for a series, a step or a horizon it was not exported for."""
        check_past(past, self, h)
        said = self.manifest
        if h > said.horizon or past.step_s != said.step_s:
            raise UsageError(
                f"{self.name}: exported for {said.horizon} steps of {said.step_s} s, asked for {h} of {past.step_s} s"
            )
        if not len(past.ids):
            return np.empty((0, h, len(DECILES)))
        feed = feeds(past, said.series, said.horizon - h)
        return self._session.run(["deciles"], {name: feed[name] for name in said.inputs})[0][:, :h]


def feeds(past: Past, series: Sequence[str] | None, further: int = 0) -> dict[str, NDArray[Any]]:
    """The inputs of a graph by name; what is known ahead is taken to stay as it is for `further` steps.

    Raises UsageError for a series that is not among `series` (None: any will do).
    """
    unknown = [] if series is None else sorted(set(past.ids) - set(series))
    if unknown:
        raise UsageError(f"the graph was exported for {list(series or ())}, not for {unknown[0]!r}")
    known = np.concatenate([past.known, np.repeat(past.known[:, -1:], further, axis=1)], axis=1)
    places = [0 if series is None else series.index(i) for i in past.ids]
    return {
        "y": past.y,
        "seen": past.seen,
        "known": known,
        "static": past.static,
        "series": np.asarray(places, np.int64),
    }


def verify(folder: Path) -> float:
    """The largest difference between the graph and the original on the recorded pasts.

    Each forecast's differences are divided by its widest 80 % band, or by a millionth of its largest value where
    that is more: the bands, not the level, are what a difference must be small against.

    Raises PolicyError when the folder is damaged.
    """
    forecaster = OnnxForecaster(folder)
    try:
        with (folder / VECTORS).open("rb") as file, np.load(file, allow_pickle=False) as stored:
            feed = {name: stored[name] for name in forecaster.manifest.inputs}
            native = stored["deciles"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise PolicyError(f"{folder / VECTORS}: not readable: {error!r}; export the forecaster again") from error
    said = forecaster._session.run(["deciles"], feed)[0]
    return difference(native, said)


def difference(native: Floats, said: Floats) -> float:
    """The measure of `verify` for deciles [batch, h, 9] of two forecasters; infinite where one is unknown."""
    band = (native[..., -1] - native[..., 0]).max(axis=1)
    least = _LEAST_BAND * np.abs(native).max(axis=(1, 2)) + np.finfo(np.float64).tiny
    worst = np.max(np.abs(native - said) / np.maximum(band, least)[:, None, None], initial=0.0)
    return float(worst) if np.isfinite(worst) else float("inf")
