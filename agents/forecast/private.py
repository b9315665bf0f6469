"""Training that tells next to nothing about any one tenant, with the epsilon that an accountant certifies.

The unit of privacy is the tenant: all series of one VM, or of one site, form one contribution, which is clipped as a
whole. Each step draws every tenant by itself with the same probability (Poisson sampling), takes some windows of each
that was drawn, cuts the tenant's gradient to the clip norm, and adds Gaussian noise to the sum (Abadi et al., 2016;
user level as in McMahan et al., 2018, ICLR). Neighbouring data differ in one tenant whose series are there or are not.
How many tenants there are, their steps and their columns are taken to be public. The number of steps is fixed and no
held-out part is looked at. The start may be a public checkpoint (`Neural.start`): one that has not seen these tenants.

What the statement rests on: whoever knows the seed can take the noise away again, so the seed of a network that is
handed out stays secret; NumPy's and JAX's generators are not cryptographic, and the noise is that of floating point
numbers. Settings tried on the same tenants cost privacy that is not counted here: choose them on public series.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from agents.forecast.base import Floats, Past, Progress
from agents.forecast.frames import Series
from agents.forecast.nets.base import Dims
from agents.forecast.neural import Neural, Stored, Windows, beginnings
from twin.errors import PolicyError, UsageError
from twin.seeds import child

if TYPE_CHECKING:
    import dp_accounting

UNIT = "tenant"
_CHUNK = 10  # steps between two reports of progress
_ROOM = 32  # tenants in a step are padded to a multiple of this, so that few shapes are compiled
_TOLERANCE = 1e-3  # of the noise multiplier
_COARSEST, _FINE = 1e-3, 1e-2  # grid of the privacy loss, the second per sampling: finer ones change no third digit


@dataclass(frozen=True, slots=True)
class Budget:
    """What a private training may tell, and how it spends that.

    Attributes:
        epsilon: infinite: clipped, without noise.
        sampling: probability (0-1) that a tenant is drawn in a step.
        clip: the norm of a tenant's gradient at most.
        windows: of each drawn tenant, per step.
        moves: patterns of the paths of the weights that are trained: "*" all, "*.bias" a few hundred. The fewer
            they are, the less noise they catch (Bu et al., 2022, DP-BiTFiT).
    """

    epsilon: float = 8.0
    delta: float = 1e-5
    sampling: float = 0.3
    clip: float = 0.1
    windows: int = 8
    moves: tuple[str, ...] = ("*",)

    def __post_init__(self) -> None:
        """Raise UsageError for a budget that makes no sense."""
        object.__setattr__(self, "moves", tuple(self.moves))
        if (
            not self.epsilon > 0.0
            or not 0.0 < self.delta < 1.0
            or not 0.0 < self.sampling <= 1.0
            or not self.clip > 0.0
        ):
            raise UsageError(f"{self}: epsilon and clip must be above 0, delta and sampling shares within 0-1")
        if math.isinf(self.clip) and not math.isinf(self.epsilon):
            raise UsageError(f"{self}: noise is measured by the clip norm; give a finite clip")


@dataclass(frozen=True, slots=True)
class Privacy:
    """What is certified of trained weights: (epsilon, delta) for one `unit` that is there or is not."""

    epsilon: float
    delta: float
    unit: str
    noise_multiplier: float
    clip: float
    steps: int
    sampling: float
    tenants: int

    def __str__(self) -> str:
        """In one sentence, for tables and logs."""
        return (
            f"epsilon {self.epsilon:.3g} at delta {self.delta:g} per {self.unit} ({self.tenants} of them; "
            f"noise multiplier {self.noise_multiplier:.3g}, clip {self.clip:g}, {self.steps} steps, "
            f"sampling {self.sampling:g})"
        )


# ---------------------------------------------------------------- the accountant


def spent(noise_multiplier: float, sampling: float, steps: int, delta: float) -> float:
    """The epsilon of `steps` Poisson-sampled Gaussian sums, by their privacy loss distribution.

    An upper bound within rounding of the truth (Koskela et al., 2020; Doroshenko et al., 2022), by dp_accounting.
    """
    if noise_multiplier == 0.0:
        return math.inf
    return float(_accountant(sampling).compose(_event(noise_multiplier, sampling, steps)).get_epsilon(delta))


@lru_cache(maxsize=64)  # seconds each
def calibrated(epsilon: float, delta: float, sampling: float, steps: int) -> float:
    """The least noise multiplier, within a thousandth, that spends no more than `epsilon`; 0 for an infinite one."""
    import dp_accounting

    if math.isinf(epsilon):
        return 0.0
    bracket = dp_accounting.LowerEndpointAndGuess(0.1, 1.0)
    found = dp_accounting.calibrate_dp_mechanism(
        partial(_accountant, sampling),
        lambda noise: _event(noise, sampling, steps),
        epsilon,
        delta,
        bracket,
        tol=_TOLERANCE,
    )
    return float(found)


def _accountant(sampling: float) -> dp_accounting.PrivacyAccountant:
    from dp_accounting import NeighboringRelation, pld

    return pld.PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE, min(_COARSEST, _FINE * sampling))


def _event(noise_multiplier: float, sampling: float, steps: int) -> dp_accounting.DpEvent:
    import dp_accounting as dp

    return dp.SelfComposedDpEvent(dp.PoissonSampledDpEvent(sampling, dp.GaussianDpEvent(noise_multiplier)), steps)


def certified(budget: Budget, steps: int, tenants: int) -> Privacy:
    """What `steps` steps under this budget tell, with the noise that keeps it."""
    noise = calibrated(budget.epsilon, budget.delta, budget.sampling, steps)
    told = spent(noise, budget.sampling, steps, budget.delta)
    return Privacy(told, budget.delta, UNIT, noise, budget.clip, steps, budget.sampling, tenants)


# ---------------------------------------------------------------- the training


@dataclass(frozen=True, slots=True)
class Private:
    """A network trained under a budget: `net.training.steps` steps, neither more nor fewer.

    Attributes:
        privacy: what is certified, once it is fitted.
    """

    net: Neural
    budget: Budget = Budget()
    privacy: Privacy | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """That of the network."""
        return self.net.name

    @property
    def context(self) -> int:
        """That of the network."""
        return self.net.context

    @property
    def needs(self) -> int:
        """That of the network."""
        return self.net.needs

    @property
    def pooled(self) -> bool:
        """One model for all tenants."""
        return True

    def fit(self, series: Sequence[Series], seed: int, progress: Progress | None = None) -> Self:
        """A network trained on the tenants of `series` (`tenant_of`); raises UsageError as `Neural.fit` does."""
        data = Windows.of(self.net, series)
        net = self.net.sized(data.columns)
        privacy = certified(self.budget, net.training.steps, len(tenants_of(data)))
        weights = stacked(beginnings(net, child(seed, "forecast")))
        weights = descend(net, data, weights, self.budget, privacy, seed, net.training.steps, progress=progress)
        return replace(self, net=replace(net, weights=weights), privacy=privacy)

    def forecast(self, past: Past, h: int) -> Floats:
        """Deciles [batch, h, 9], as the network says them."""
        return self.net.forecast(past, h)

    def save(self, path: Path) -> None:
        """Write the weights at `path` (.npz) and, beside them, what is certified of them; raises as `Neural.save`."""
        if self.privacy is None:
            raise UsageError(f"{self.name}: not trained under a budget; there is nothing to certify")
        self.net.save(path)
        said = {**asdict(self.privacy), "epsilon": _plain(self.privacy.epsilon), "clip": _plain(self.privacy.clip)}
        beside = _beside(path).with_suffix(".tmp")
        beside.write_text(json.dumps({**said, "weights_sha256": _digest(path)}, indent=2) + "\n", encoding="utf-8")
        os.replace(beside, _beside(path))

    def load(self, path: Path, dims: Dims | None = None) -> Self:
        """The network stored at `path` with its certificate; raises PolicyError where they do not belong together."""
        net = self.net.load(path, dims)
        try:
            said = json.loads(_beside(path).read_text(encoding="utf-8"))
            digest = said.pop("weights_sha256")
            numbers = {key: float(said[key]) for key in ("epsilon", "clip")}
            privacy = Privacy(**{**said, **numbers})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PolicyError(
                f"{_beside(path)}: no certificate of privacy: {error!r}; train the network again"
            ) from error
        if digest != _digest(path):
            raise PolicyError(
                f"{path}: these are not the weights that {_beside(path).name} certifies; train them again"
            )
        return replace(self, net=net, privacy=privacy)


def _plain(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)  # JSON knows no infinity


def _beside(path: Path) -> Path:
    return path.with_suffix(".privacy.json")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tenant_of(unique_id: str) -> str:
    """Whose series it is: the name without its last part ("bitbrains/1019/cpu": "bitbrains/1019")."""
    return unique_id.rpartition("/")[0] or unique_id


def tenants_of(data: Windows) -> dict[str, NDArray[np.int64]]:
    """Where forecasts can begin, by tenant, over all series of that tenant."""
    found: dict[str, list[NDArray[np.int64]]] = {}
    for unique_id, starts in zip(data.ids, data.train, strict=True):
        found.setdefault(tenant_of(unique_id), []).append(starts)
    return {tenant: np.concatenate(starts) for tenant, starts in found.items()}


def stacked(members: Sequence[Stored]) -> dict[str, NDArray[np.float32]]:
    """The weights of several members with a leading axis of members."""
    return {path: np.stack([np.asarray(member[path]) for member in members]) for path in sorted(members[0])}


def drawn(
    tenants: Sequence[NDArray[np.int64]], budget: Budget, steps: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(places [steps, width, windows], absent [steps, width]): every tenant is in or out of a step by its own coin.

    The width has room for the fullest step, so that nobody who was drawn is left out; it depends on coins alone.
    """
    chosen = rng.random((steps, len(tenants))) < budget.sampling
    fullest = max(int(chosen.sum(axis=1).max(initial=0)), 1)
    width = min(-(-fullest // _ROOM) * _ROOM, len(tenants))
    first = np.argsort(~chosen, axis=1, kind="stable")[:, :width]
    absent = ~np.take_along_axis(chosen, first, axis=1)
    counts = np.array([len(starts) for starts in tenants])
    offsets = np.concatenate([[0], np.cumsum(counts)[:-1]])
    place = (rng.random((steps, width, budget.windows)) * counts[first][..., None]).astype(np.int64)
    return np.concatenate(tenants)[offsets[first][..., None] + place], absent


def descend(
    net: Neural,
    data: Windows,
    weights: Stored,
    budget: Budget,
    privacy: Privacy,
    seed: int,
    steps: int,
    after: int = 0,
    progress: Progress | None = None,
) -> Stored:
    """The weights after `steps` private steps of the `privacy.steps` in all, of which `after` have gone before."""
    import jax
    import jax.numpy as jnp

    from agents.forecast import clipped, training

    plan, tenants = net.training, list(tenants_of(data).values())
    recipe = training.Recipe(
        net.architecture, net.view, privacy.steps, plan.learning_rate, plan.weight_decay, plan.precision
    )
    deviation = privacy.noise_multiplier * budget.clip if privacy.noise_multiplier else 0.0
    settings = clipped.Clipped(recipe, budget.moves)
    bounds = clipped.Bounds(budget.clip, deviation, budget.sampling * len(tenants))
    places, absent = drawn(tenants, budget, steps, child(seed, "sampling"))
    key = jax.random.wrap_key_data(jnp.asarray(child(seed, "noise").integers(2**32, size=2, dtype=np.uint32)))
    state = clipped.start(settings, weights, key, after)
    arrays = {name: jnp.asarray(values) for name, values in data.arrays.items()}
    for done in range(0, steps, _CHUNK):
        rows = slice(done, min(done + _CHUNK, steps))
        state = clipped.advance(settings, bounds, state, arrays, jnp.asarray(places[rows]), jnp.asarray(absent[rows]))
        if progress:
            progress(rows.stop / steps, f"private step {rows.stop}")
    return {path: np.asarray(value) for path, value in state[0].items()}
