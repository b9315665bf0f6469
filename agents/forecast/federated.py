"""One network over sites that share no data: each trains on its own series, and only weights travel.

FedAvg (McMahan et al., 2017, AISTATS): in each round every site takes some steps from the common weights, and the new
common weights are the mean of what came back, each weighted with its number of series. FedProx (Li et al., 2020,
MLSys) also pulls each site towards the weights that it was given. Nothing needs a common scale: the network sees each
window in units of that window. Weights can still tell of the series behind them; under a `Budget` they do so within
its bounds.

Secure aggregation (Bonawitz et al., 2017, CCS, its pairwise masks) hides single sites from whoever adds them up: every
pair of sites shares a mask that one adds and the other takes away, so that only the sum over all of them is legible.
Here it is a simulation: masks come from a seeded generator and not from an exchange of keys, the adder is curious but
keeps to the protocol, and masks are dealt among those sites that are ready to send.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Protocol, Self
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from agents.forecast.base import Floats, Past, Progress
from agents.forecast.frames import Series
from agents.forecast.neural import Neural, Stored, Windows, beginnings, columns_of, draw
from agents.forecast.private import Budget, Privacy, Private, certified, descend, stacked, tenants_of
from twin.errors import PolicyError, UsageError
from twin.seeds import child

Vector = NDArray[np.uint64]

_FRACTION = 2.0**24  # steps per 1 of the whole numbers that masks are added to
_KEYS = 2**64


@dataclass(frozen=True, slots=True)
class Rounds:
    """How sites learn together.

    Attributes:
        rounds: exchanges of weights.
        local_steps: a site's steps in each.
        proximal: the pull of FedProx; 0: FedAvg.
        secure: whether sites send masked weights only.
        least_sites: a round that fewer sites come back from leaves the weights as they were.
    """

    rounds: int = 16
    local_steps: int = 25
    proximal: float = 0.0
    secure: bool = False
    least_sites: int = 1

    @property
    def steps(self) -> int:
        """A site's steps in all."""
        return self.rounds * self.local_steps


class Site(Protocol):
    """Whoever holds series and shows nothing of them but weights."""

    @property
    def name(self) -> str:
        """The name, of its own among the sites."""
        ...

    def train(self, weights: Stored, turn: int) -> tuple[Stored, int]:
        """(weights after this site's steps of round `turn`, how many series stand behind them).

        Raises OSError when it cannot be reached: the round goes on without it.
        """
        ...


class Local:
    """A site in this process. The same weights and turn give the same answer: it remembers nothing between rounds."""

    def __init__(
        self,
        name: str,
        net: Neural,
        series: Sequence[Series],
        rounds: Rounds,
        seed: int,
        budget: Budget | None = None,
    ) -> None:
        """Keep the series; raises UsageError as `Neural.fit` does, or for a budget together with a pull."""
        if budget and rounds.proximal:
            raise UsageError(f"site {name}: a private site has no pull; set proximal to 0 or leave the budget out")
        self.name = name
        self._data = Windows.of(net, series)
        self._net = net.sized(self._data.columns)
        self._rounds, self._seed, self._budget = rounds, seed, budget

    def train(self, weights: Stored, turn: int) -> tuple[Stored, int]:
        """(weights after this site's steps of round `turn`, its series)."""
        own = int(child(self._seed, f"site/{self.name}/{turn}").integers(2**31))
        learn = self._plainly if self._budget is None else self._privately
        return learn(weights, turn, own), len(self._data.train)

    def certificate(self) -> Privacy | None:
        """What all rounds together tell of one tenant of this site, whoever looks at the weights."""
        return self._budget and certified(self._budget, self._rounds.steps, len(tenants_of(self._data)))

    def _plainly(self, weights: Stored, turn: int, seed: int) -> Stored:
        import jax.numpy as jnp

        from agents.forecast import training

        net, rounds, plan = self._net, self._rounds, self._net.training
        recipe = training.Recipe(
            net.architecture,
            net.view,
            rounds.steps,
            plan.learning_rate,
            plan.weight_decay,
            plan.precision,
            rounds.proximal,
        )
        count = len(next(iter(weights.values())))
        members = [{path: value[k] for path, value in weights.items()} for k in range(count)]
        state = training.start(recipe, members, turn * rounds.local_steps)
        places = draw(self._data.train, (count, rounds.local_steps, plan.batch), np.random.default_rng(seed))
        arrays = {name: jnp.asarray(values) for name, values in self._data.arrays.items()}
        state, _ = training.advance(recipe, state, arrays, training.spread_over_devices(places))
        return {path: np.asarray(value) for path, value in state[0].items()}

    def _privately(self, weights: Stored, turn: int, seed: int) -> Stored:
        privacy = self.certificate()
        assert privacy
        assert self._budget
        steps = self._rounds.local_steps
        return descend(self._net, self._data, weights, self._budget, privacy, seed, steps, turn * steps)


@dataclass(frozen=True, slots=True)
class Round:
    """Who came back from a round, and how far the common weights moved (the norm of their change)."""

    sites: tuple[str, ...]
    moved: float


def federate(
    weights: Stored,
    sites: Sequence[Site],
    rounds: Rounds,
    seed: int,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
) -> tuple[Stored, list[Round]]:
    """(common weights after all rounds, what happened in those of this call).

    Args:
        weights: what everyone begins with.
        sites: those that learn, each with a name of its own.
        rounds: how.
        seed: of the masks.
        progress: told after each round.
        checkpoint: a file that is written after each round, and gone on from where it is there already.

    Raises:
        UsageError: no sites, or two of the same name.
        PolicyError: the checkpoint is damaged or belongs to another training.
    """
    names = [site.name for site in sites]
    if not names or len(set(names)) < len(names):
        raise UsageError(f"federated learning needs sites of different names; got {names}")
    turn, history = 0, []
    if checkpoint and checkpoint.is_file():
        turn, weights = _resumed(checkpoint, weights, _mark(rounds, seed))
    for now in range(turn, rounds.rounds):
        answers = _answers(sites, weights, now)
        before, came = weights, tuple(answers)
        if len(came) >= max(rounds.least_sites, 1):
            weights = _secure_mean(answers, seed, now) if rounds.secure else mean(list(answers.values()))
        moved = float(np.sqrt(sum(float(((weights[path] - before[path]) ** 2).sum()) for path in weights)))
        history.append(Round(came, moved))
        if checkpoint:
            _keep(checkpoint, weights, now + 1, _mark(rounds, seed))
        if progress:
            progress((now + 1) / rounds.rounds, f"round {now + 1}: {len(came)} of {len(names)} sites")
    return weights, history


def _answers(sites: Sequence[Site], weights: Stored, turn: int) -> dict[str, tuple[Stored, int]]:
    found = {}
    for site in sites:
        try:
            found[site.name] = site.train(weights, turn)
        except OSError:  # what `Site.train` raises when it is away: `Round.sites` says who was there
            continue
    return found


def mean(answers: Sequence[tuple[Stored, int]]) -> dict[str, NDArray[np.float32]]:
    """The mean of the sites' weights, each counted as often as it has series."""
    total = sum(count for _, count in answers)
    shares = np.array([count / total for _, count in answers])
    paths = answers[0][0]
    return {p: np.tensordot(shares, np.stack([w[p] for w, _ in answers]), 1).astype(np.float32) for p in paths}


# ---------------------------------------------------------------- sums of what nobody sees


def masked(weights: Stored, count: int, name: str, names: Sequence[str], seed: int, turn: int) -> Vector:
    """What a site sends: `count` times its weights, and the count, as whole numbers under its masks with all `names`.

    Without the masks of the others this is noise, evenly spread over all 64-bit numbers.
    """
    flat = np.concatenate([weights[path].ravel() for path in sorted(weights)]).astype(np.float64)
    sent = np.append(np.rint(flat * count * _FRACTION), float(count)).astype(np.int64).view(np.uint64)
    for other in names:
        if other != name:
            low, high = sorted((name, other))
            mask = child(seed, f"mask/{turn}/{low}\n{high}").integers(_KEYS, size=len(sent), dtype=np.uint64)
            sent = sent + mask if name == low else sent - mask
    return sent


def opened(sent: Sequence[Vector], like: Stored) -> dict[str, NDArray[np.float32]]:
    """The weighted mean of the weights behind masked vectors, in the shapes of `like`, exact to 2^-24 per site.

    Only the sum over all sites that masked for each other is legible; of fewer it is noise.
    """
    total = np.add.reduce(list(sent)).view(np.int64)
    flat = total[:-1] / _FRACTION / float(total[-1])
    paths = sorted(like)
    ends = np.cumsum([0, *(like[path].size for path in paths)])
    parts = zip(paths, pairwise(ends), strict=True)
    return {path: flat[a:b].reshape(like[path].shape).astype(np.float32) for path, (a, b) in parts}


def _secure_mean(answers: Mapping[str, tuple[Stored, int]], seed: int, turn: int) -> Stored:
    names = sorted(answers)
    sent = [masked(*answers[name], name, names, seed, turn) for name in names]
    return opened(sent, answers[names[0]][0])


# ---------------------------------------------------------------- rounds that can be resumed

_TURN, _MARK = "round", "training"


def _mark(rounds: Rounds, seed: int) -> NDArray[np.float64]:
    return np.array([rounds.rounds, rounds.local_steps, rounds.proximal, rounds.secure, seed], np.float64)


def _keep(path: Path, weights: Stored, turn: int, mark: Floats) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.stem + ".tmp.npz")
    arrays = {f"weights/{name}": value for name, value in weights.items()} | {_TURN: np.array(turn), _MARK: mark}
    np.savez(partial, **arrays)  # pyright: ignore[reportArgumentType]
    os.replace(partial, path)


def _resumed(path: Path, like: Stored, mark: Floats) -> tuple[int, Stored]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            turn, begun = int(stored[_TURN]), stored[_MARK]
            weights = {name.removeprefix("weights/"): stored[name] for name in stored.files if name.startswith("w")}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise PolicyError(f"{path}: not the rounds of a training: {error!r}; take it away and begin anew") from error
    shapes = {name: value.shape for name, value in like.items()}
    if not np.array_equal(begun, mark) or {name: value.shape for name, value in weights.items()} != shapes:
        raise PolicyError(f"{path}: rounds of another training; take it away, or choose another file")
    return turn, weights


# ---------------------------------------------------------------- as a forecaster


@dataclass(frozen=True, slots=True)
class Federated:
    """A network that the sites among its series train together, in this process.

    Attributes:
        budget: under which each site trains; none: without noise.
        privacy: what is certified per tenant, whoever looks at the weights, once it is fitted under a budget.
        history: what happened in each round.
    """

    net: Neural
    rounds: Rounds = Rounds()
    budget: Budget | None = None
    checkpoint: Path | None = None
    privacy: Privacy | None = field(default=None, compare=False)
    history: Sequence[Round] = field(default=(), repr=False, compare=False)

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
        """One model for all sites."""
        return True

    def fit(self, series: Sequence[Series], seed: int, progress: Progress | None = None) -> Self:
        """Trained by the sites that the series belong to (`site_of`); raises UsageError as `Neural.fit` does."""
        held: dict[str, list[Series]] = {}
        for each in series:
            held.setdefault(site_of(each.unique_id), []).append(each)
        sites = [Local(name, self.net, own, self.rounds, seed, self.budget) for name, own in held.items()]
        columns = {columns_of(each) for each in series}
        if len(columns) > 1:
            raise UsageError(f"{self.name}: sites with different columns cannot share a network: {sorted(columns)}")
        net = self.net.sized(columns.pop())
        weights = stacked(beginnings(net, child(seed, "forecast")))
        found, history = federate(weights, sites, self.rounds, seed, progress, self.checkpoint)
        told = [privacy for site in sites if (privacy := site.certificate())]
        privacy = replace(told[0], tenants=min(each.tenants for each in told)) if told else None
        return replace(self, net=replace(net, weights=found), history=tuple(history), privacy=privacy)

    def forecast(self, past: Past, h: int) -> Floats:
        """Deciles [batch, h, 9], as the network says them."""
        return self.net.forecast(past, h)

    def save(self, path: Path) -> None:
        """Write the weights at `path` (.npz), private ones with their certificate; raises as `Neural.save`."""
        (Private(self.net, privacy=self.privacy) if self.privacy else self.net).save(path)


def site_of(unique_id: str) -> str:
    """Where a series is held: the first part of its name ("bitbrains/1019/cpu": "bitbrains")."""
    return unique_id.partition("/")[0]
