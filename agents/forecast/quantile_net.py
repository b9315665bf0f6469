"""One small network for all series: trained in seconds on two cores, stored as plain arrays."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self
from zipfile import BadZipFile

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agents.forecast.base import DECILES, Floats, Progress, check_histories
from agents.forecast.frames import Series, normalise, panel, steps_in
from twin.errors import PolicyError, UsageError
from twin.seeds import child

_CHUNK = 50  # steps between two looks at the held-out part
# arrays come in few sizes, so that one compilation serves every batch and every training set
_ROWS = 64  # windows per call of the network
_HELD_OUT = 512  # windows, spread evenly over the held-out parts
_BLOCK = 1 << 16  # training values are padded to a multiple of this


@dataclass(frozen=True, slots=True)
class QuantileNet:
    """A global quantile network (`agents.forecast.network`): one set of weights for every series.

    It sees each window in units of that window's own spread, so it can forecast a series it was not trained on.
    Trained by AdamW on random windows, each series alike, to the mean pinball loss of nine deciles; of all the
    weights met on the way those win that do best on the last `holdout_share` of each series.
    """

    context: int = 288
    horizon: int = 12
    width: int = 128
    steps: int = 600
    batch: int = 256
    learning_rate: float = 1e-3
    holdout_share: float = 0.1
    patience: int = 4
    name: str = "quantile_net"
    weights: Mapping[str, NDArray[np.float32]] | None = field(default=None, repr=False, compare=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Context, horizon and width: what the weights' shapes follow from."""
        return self.context, self.horizon, self.width

    @property
    def pooled(self) -> bool:
        """One model for all series."""
        return True

    def fit(self, frame: pl.DataFrame, seed: int, progress: Progress | None = None) -> Self:
        """A trained network; a series too short for one window and its held-out part lends no windows.

        Raises UsageError when no series is long enough, or their steps differ.
        """
        return replace(self, weights=_train(self, _Windows.of(self, panel(frame)), seed, progress))

    def forecast(self, histories: Floats, h: int, ids: Sequence[str]) -> Floats:
        """Deciles [batch, h, 9]; raises UsageError when untrained or asked beyond `horizon`."""
        import jax.numpy as jnp

        from agents.forecast import network

        check_histories(histories, self.context, ids, self.name)
        if self.weights is None:
            raise UsageError(f"{self.name}: not trained; call fit or load first")
        if h > self.horizon:
            raise UsageError(f"{self.name}: trained for {self.horizon} steps ahead, asked for {h}")
        windows, last, scale = normalise(histories)
        padded = np.zeros((-(-len(windows) // _ROWS) * _ROWS, self.context), np.float32)
        padded[: len(windows)] = windows
        said = [
            network.predict(self.shape, self.weights, jnp.asarray(rows)) for rows in np.split(padded, _blocks(padded))
        ]
        deciles = np.concatenate([np.empty((0, self.horizon, len(DECILES))), *said])[: len(windows), :h]
        return last[:, :, None] + scale[:, :, None] * deciles

    def save(self, folder: Path) -> None:
        """Write the weights to `weights.npz` in `folder`, whole or not at all; raises UsageError when untrained."""
        if self.weights is None:
            raise UsageError(f"{self.name}: not trained; there is nothing to save")
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / "weights.tmp.npz"
        np.savez(partial, **dict(self.weights))  # pyright: ignore[reportArgumentType]
        os.replace(partial, folder / "weights.npz")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The network stored in `folder`; raises PolicyError when it is absent or not one of ours."""
        path = folder / "weights.npz"
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                weights = {key: stored[key] for key in sorted(stored.files)}
            (context, horizon), width = weights["skip.kernel"].shape, weights["inner.kernel"].shape[0]
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise PolicyError(f"{path}: not the weights of a quantile network: {error!r}; train one again") from error
        return cls(context=context, horizon=horizon, width=width, weights=weights)


def _blocks(padded: NDArray[np.float32]) -> list[int]:
    return list(range(_ROWS, len(padded), _ROWS))


@dataclass(frozen=True, slots=True)
class _Windows:
    """Where windows begin in the joined series: what is trained on, and what is held out."""

    values: NDArray[np.float32]
    train: tuple[NDArray[np.int64], ...]  # per series
    held_out: NDArray[np.int64]

    @classmethod
    def of(cls, net: QuantileNet, series: Sequence[Series]) -> Self:
        if len({s.step_s for s in series}) > 1:
            raise UsageError(f"{net.name}: series of different steps cannot share a network: {_steps(series)}")
        span = net.context + net.horizon
        values, train, held_out, offset = [], [], [], 0
        for each in series:
            cut = steps_in(len(each.values), 1.0 - net.holdout_share)
            starts = np.arange(cut - span + 1)
            tests = np.arange(max(cut - net.context, 0), len(each.values) - span + 1, net.horizon)
            if len(starts) and len(tests):
                # a common magnitude keeps float32 exact enough; the window's own scale makes the rest irrelevant
                values.append(each.values / (np.abs(each.values).mean() or 1.0))
                train.append(starts + offset)
                held_out.append(tests + offset)
                offset += len(each.values)
        if not train:
            raise UsageError(f"{net.name}: no series is long enough for windows of {span} steps and a held-out part")
        tests = np.concatenate(held_out)
        spread = np.linspace(0, len(tests) - 1, _HELD_OUT).astype(np.int64)
        padded = np.zeros(-(-offset // _BLOCK) * _BLOCK, np.float32)
        padded[:offset] = np.concatenate(values)
        return cls(padded, tuple(train), tests[spread])


def _steps(series: Sequence[Series]) -> dict[str, int]:
    return {s.unique_id: s.step_s for s in series}


def _train(net: QuantileNet, data: _Windows, seed: int, progress: Progress | None) -> dict[str, NDArray[np.float32]]:
    import jax.numpy as jnp

    from agents.forecast import network

    rng = child(seed, "forecast")
    weights = network.initial(net.shape, int(rng.integers(2**31)))
    state = (weights, network.optimizer(net.steps, net.learning_rate).init(weights))
    values, held_out = jnp.asarray(data.values), jnp.asarray(data.held_out)
    best, least, since = weights, np.inf, 0
    for done in range(_CHUNK, net.steps + 1, _CHUNK):
        starts = jnp.asarray(_draw(data.train, (_CHUNK, net.batch), rng))
        state, losses = network.advance(net.shape, net.steps, net.learning_rate, state, values, starts)
        now = float(network.validate(net.shape, state[0], values, held_out))
        best, least, since = (state[0], now, 0) if now < least else (best, least, since + 1)
        if progress:
            progress(done / net.steps, f"step {done}: loss {float(losses.mean()):.4f}, held out {now:.4f}")
        if since >= net.patience:
            break
    return {path: np.asarray(value) for path, value in sorted(best.items())}


def _draw(starts: Sequence[NDArray[np.int64]], shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.int64]:
    """Window starts [shape]: a series at random, then a place in it."""
    which = rng.integers(len(starts), size=shape)
    place = rng.random(shape)
    first = np.array([s[0] for s in starts])
    count = np.array([len(s) for s in starts])
    return first[which] + (place * count[which]).astype(np.int64)
