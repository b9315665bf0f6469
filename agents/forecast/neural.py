"""One network for many series: any architecture, trained to the pinball loss of nine deciles, kept as plain arrays."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from agents.forecast.base import DECILES, Floats, Past, Progress, check_past
from agents.forecast.frames import Series, steps_in
from agents.forecast.nets.base import Architecture, Dims, Inputs
from twin.errors import PolicyError, UsageError
from twin.seeds import child

if TYPE_CHECKING:
    from agents.forecast.training import Precision, View

Stored = Mapping[str, NDArray[np.float32]]  # by path; each with a leading axis of members

_LEAST_WINDOW = 2
_LOOK = "look"  # in a file of weights: horizon, squash, lags
_CHUNK = 50  # steps between two looks at the held-out part
# arrays come in few sizes, so that one compilation serves every batch and every training set
_ROWS = 64  # windows per call of the network, but for a single one: what is asked live shall not wait for 63 others
_HELD_OUT = 512  # windows, spread evenly over the held-out parts
_BLOCK = 1 << 16  # training values are padded to a multiple of this


@dataclass(frozen=True, slots=True)
class Training:
    """How a network is trained.

    AdamW on random windows, each series alike; of all the weights met on the way those win that do best on the last
    `holdout_share` of each series. `members` networks learn at once, from different seeds and windows, and their
    deciles are averaged.
    """

    steps: int = 600
    batch: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    members: int = 1
    holdout_share: float = 0.1
    patience: int = 4
    precision: Precision = "auto"


@dataclass(frozen=True, slots=True)
class Neural:
    """A global quantile network over every series it is given, and over those it has never seen.

    It sees each window in units of that window's own spread. `window` steps are looked at in full; each of `lags`
    recalls the steps to be forecast as they were so many steps earlier (a day, a week), where that is on record.

    Attributes:
        start: the checkpoint to begin from: the name of a shipped one (hour, day) or a file that `save` wrote; with
            `training.steps` = 0 it is used as it is.
    """

    architecture: Architecture
    window: int = 288
    horizon: int = 12
    lags: tuple[int, ...] = ()
    squash: bool = False
    training: Training = Training()
    start: str | None = None
    name: str = "neural"
    dims: Dims | None = None
    weights: Stored | None = field(default=None, repr=False, compare=False)

    @property
    def context(self) -> int:
        """The window, or the longest lag."""
        return max(self.window, *self.lags, 1)

    @property
    def needs(self) -> int:
        """A few steps: what is missing before them is taken to have been as what follows, mirrored."""
        return min(self.horizon, self.window)

    @property
    def pooled(self) -> bool:
        """One model for all series."""
        return True

    @property
    def view(self) -> View:
        """How the network looks at the past; raises UsageError when untrained."""
        from agents.forecast.training import View

        if self.dims is None or self.weights is None:
            raise UsageError(f"{self.name}: not trained; call fit or load first")
        return View(self.dims, tuple(self.lags), self.squash)

    def fit(self, series: Sequence[Series], seed: int, progress: Progress | None = None) -> Self:
        """A trained network; a series without room for a forecast in its first and held-out part lends no windows.

        Raises UsageError when no series is long enough, or their steps or columns differ.
        """
        self._check()
        data = Windows.of(self, series)
        begun = self.sized(data.columns)
        return replace(begun, weights=_train(begun, data, seed, progress))

    def _check(self) -> None:
        if self.window < _LEAST_WINDOW or any(lag < self.horizon for lag in self.lags):
            raise UsageError(
                f"{self.name}: needs a window of at least {_LEAST_WINDOW} steps, whose spread is its unit, and lags of "
                f"at least the {self.horizon} steps ahead, or they would recall what is not known yet; got "
                f"window={self.window}, lags={list(self.lags)}"
            )

    def sized(self, columns: tuple[int, int, int]) -> Self:
        """The network for series with so many columns (seen, known, static), without weights."""
        return replace(self, dims=Dims(self.window, self.horizon, len(self.lags), *columns), weights={})

    def forecast(self, past: Past, h: int) -> Floats:
        """Deciles [batch, h, 9]; raises UsageError when untrained or asked beyond `horizon`."""
        from agents.forecast import training

        view = self.view
        check_past(past, self, h)
        if h > self.horizon:
            raise UsageError(f"{self.name}: trained for {self.horizon} steps ahead, asked for {h}")
        if not len(past.ids):
            return np.empty((0, h, len(DECILES)))
        given, line, scale = training.inputs(view, _arrays(past, self.horizon - h))
        blocks = _blocks(given, 1 if len(past.ids) == 1 else _ROWS)
        said = [np.asarray(training.predict(self.architecture, view, self.weights, rows)) for rows in blocks]
        deciles = np.concatenate(said)[: len(past.ids), :h].astype(np.float64)
        return line[:, :h, None] + scale[:, :, None] * deciles

    @property
    def _look(self) -> NDArray[np.int64]:
        """What the shapes of weights do not tell."""
        return np.array([self.horizon, int(self.squash), *self.lags], dtype=np.int64)

    def save(self, path: Path) -> None:
        """Write the weights, rounded to half precision, and how they look at the past at `path` (.npz), whole or not.

        Raises UsageError when untrained.
        """
        if not self.weights:
            raise UsageError(f"{self.name}: not trained; there is nothing to save")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.stem + ".tmp.npz")
        halves = {key: value.astype(np.float16) for key, value in self.weights.items()}
        np.savez_compressed(partial, **{_LOOK: self._look}, **halves)  # pyright: ignore[reportArgumentType]
        os.replace(partial, path)

    def load(self, path: Path, dims: Dims | None = None) -> Self:
        """The network with the weights stored at `path`; `dims` where columns stand beside y.

        Raises PolicyError when the file is absent, or not that of this architecture and these sizes.
        """
        from agents.forecast import training

        dims = dims or Dims(self.window, self.horizon, len(self.lags))
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                look = stored[_LOOK].tolist()
                weights = {key: stored[key].astype(np.float32) for key in sorted(stored.files) if key != _LOOK}
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise PolicyError(f"{path}: not the weights of a network: {error!r}; train one again") from error
        if look != self._look.tolist():
            raise PolicyError(
                f"{path}: made with horizon, squash and lags {look}, and {self.name} has {self._look.tolist()}; "
                "give it the same, or train one again"
            )
        expected = {key: value.shape for key, value in training.initial(self.architecture, dims, 0).items()}
        found = {key: value.shape[1:] for key, value in weights.items()}
        if found != expected:
            odd = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
            raise PolicyError(f"{path}: made for another network than {self.name}: {odd[0]} differs; train one again")
        return replace(self, dims=dims, weights=weights)


def shipped(start: str) -> Path:
    """The file of a checkpoint: `start` itself, or that of this name that comes with the project."""
    own = Path(__file__).parent / "pretrained" / f"{start}.npz"
    return own if own.is_file() else Path(start)


def _arrays(past: Past, further: int) -> dict[str, Floats]:
    """The past as the network takes it; what is known ahead is taken to stay as it is for `further` steps."""
    known = np.concatenate([past.known, np.repeat(past.known[:, -1:], further, axis=1)], axis=1)
    return {"y": past.y, "seen": past.seen, "known": known, "static": past.static}


def _blocks(given: Inputs, rows: int) -> Iterator[Inputs]:
    """The inputs in blocks of `rows`, the last one filled up with zeros, as float32."""
    for start in range(0, len(given.window), rows):
        part = [np.asarray(array[start : start + rows], np.float32) for array in given]
        yield Inputs(*(np.pad(array, [(0, rows - len(array)), *[(0, 0)] * (array.ndim - 1)]) for array in part))


@dataclass(frozen=True, slots=True)
class Windows:
    """All series joined, and where forecasts can begin in them: what is trained on, and what is held out.

    Attributes:
        arrays: those of all series one after another.
        train, ids: where forecasts can begin in each series that is long enough, and which series that is.
        held_out: where held-out forecasts begin.
        columns: how many are seen, known, static.
    """

    arrays: Mapping[str, NDArray[np.float32]]
    train: tuple[NDArray[np.int64], ...]  # per series
    held_out: NDArray[np.int64]
    columns: tuple[int, int, int]  # seen, known, static
    ids: tuple[str, ...]

    @classmethod
    def of(cls, net: Neural, series: Sequence[Series]) -> Self:
        """The windows of these series; raises UsageError as `Neural.fit` does."""
        if len({s.step_s for s in series}) > 1:
            steps = {s.unique_id: s.step_s for s in series}
            raise UsageError(f"{net.name}: series of different steps cannot share a network: {steps}")
        columns = {columns_of(s) for s in series}
        if len(columns) > 1:
            raise UsageError(f"{net.name}: series with different columns cannot share a network: {sorted(columns)}")
        joined, ids, train, held_out, offset = [], [], [], [], 0
        for each in series:
            n = len(each.values)
            cut = steps_in(n, 1.0 - net.training.holdout_share)
            fitted = np.arange(min(net.window, cut // 2), cut - net.horizon + 1)
            tests = np.arange(max(cut, net.needs), n - net.horizon + 1, max(net.horizon // 6, 1))
            if len(fitted) and len(tests):
                joined.append(_padded(each, net.context))
                ids.append(each.unique_id)
                train.append(fitted + offset + net.context)
                held_out.append(tests + offset + net.context)
                offset += n + net.context
        if not train:
            raise UsageError(f"{net.name}: no series is long enough to learn {net.horizon} steps ahead from")
        tests = np.concatenate(held_out)
        spread = np.linspace(0, len(tests) - 1, _HELD_OUT).astype(np.int64)
        room = -(-offset // _BLOCK) * _BLOCK
        arrays = {}
        for name in joined[0]:
            rows = np.concatenate([each[name] for each in joined])
            arrays[name] = np.pad(rows, [(0, room - len(rows)), *[(0, 0)] * (rows.ndim - 1)])
        return cls(arrays, tuple(train), tests[spread], columns.pop(), tuple(ids))


def columns_of(series: Series) -> tuple[int, int, int]:
    """How many columns are seen, known, static."""
    return _width(series.seen), _width(series.known), len(series.static)


def _width(columns: Floats) -> int:
    return columns.shape[1] if columns.ndim > 1 else 0


def _padded(series: Series, context: int) -> dict[str, NDArray[np.float32]]:
    """The arrays of one series with `context` steps of nothing before it."""
    n = len(series.values)
    # a common magnitude keeps float32 exact enough; the window's own scale makes the rest irrelevant
    y = series.values / (np.abs(series.values).mean() or 1.0)
    return {
        "y": np.concatenate([np.full(context, np.nan), y]).astype(np.float32),
        "seen": _led(series.seen.reshape(n, -1) if series.seen.size else np.zeros((n, 0)), context),
        "known": _led(series.known[:n] if series.known.size else np.zeros((n, 0)), context),
        "static": np.tile(series.static, (n + context, 1)).astype(np.float32),
    }


def _led(columns: Floats, context: int) -> NDArray[np.float32]:
    return np.pad(columns, [(context, 0), (0, 0)], constant_values=np.nan).astype(np.float32)


def _train(net: Neural, data: Windows, seed: int, progress: Progress | None) -> Stored:
    import jax.numpy as jnp

    from agents.forecast import training

    assert net.dims is not None
    rng, plan = child(seed, "forecast"), net.training
    recipe = training.Recipe(
        net.architecture, net.view, plan.steps, plan.learning_rate, plan.weight_decay, plan.precision
    )
    members = beginnings(net, rng)
    state = training.start(recipe, members)
    arrays = {name: jnp.asarray(values) for name, values in data.arrays.items()}
    held_out = jnp.asarray(data.held_out)
    best = {path: np.asarray(value) for path, value in state[0].items()}
    least, since = np.asarray(training.validate(recipe, state[0], arrays, held_out)), 0
    for done in [*range(_CHUNK, plan.steps, _CHUNK), *([plan.steps] if plan.steps else [])]:
        chunk = done - (done - 1) // _CHUNK * _CHUNK
        places = draw(data.train, (len(members), chunk, plan.batch), rng)
        state, losses = training.advance(recipe, state, arrays, training.spread_over_devices(places))
        now = np.asarray(training.validate(recipe, state[0], arrays, held_out))
        better = now < least
        best = {path: _chosen(better, np.asarray(state[0][path]), value) for path, value in best.items()}
        least, since = np.minimum(least, now), 0 if better.any() else since + 1
        if progress:
            progress(done / plan.steps, f"step {done}: loss {float(losses.mean()):.4f}, held out {now.mean():.4f}")
        if since >= plan.patience:
            break
    return {path: best[path] for path in sorted(best)}


def beginnings(net: Neural, rng: np.random.Generator) -> list[Mapping[str, Any]]:
    """The weights that each member begins with: fresh ones, or those of the checkpoint, dealt in turn."""
    from agents.forecast import training

    assert net.dims is not None
    if net.start is None:
        seeds = rng.integers(2**31, size=net.training.members)
        return [training.initial(net.architecture, net.dims, int(seed)) for seed in seeds]
    stored = net.load(shipped(net.start), net.dims).weights
    assert stored is not None
    count = len(next(iter(stored.values())))
    return [{path: value[k % count] for path, value in stored.items()} for k in range(net.training.members)]


def _chosen(better: NDArray[np.bool_], new: NDArray[np.float32], old: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)


def draw(starts: Sequence[NDArray[np.int64]], shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.int64]:
    """Origins [shape]: a series at random, then a place in it."""
    which = rng.integers(len(starts), size=shape)
    place = rng.random(shape)
    first = np.array([s[0] for s in starts])
    count = np.array([len(s) for s in starts])
    return first[which] + (place * count[which]).astype(np.int64)
