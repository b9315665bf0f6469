"""Forecasts of a cluster nobody has seen: what was learned elsewhere, held against simple methods.

A pre-trained network needs a few steps of a series, not its history. Whether it is any good there shows in the window
itself: from up to `looks` earlier origins, each with no more than what was on record at it, the network and a few
simple methods forecast what has come since. Their medians are mixed by weights that made the mixture's loss small,

    argmin over w of  n x (loss(w) / loss(network alone)) + prior_looks x KL(w || prior)

with the pinball loss and n the number of those forecasts that do not overlap: with little evidence the prior answers,
with much the evidence does. The bands are the network's, stretched as in `conformal.py` by what the same origins say.
The minimum is found by dual averaging on the simplex (Xiao, 2010, JMLR 11; exponentiated gradient: Kivinen and
Warmuth, 1997, Information and Computation 132). The settings were chosen on recordings that neither taught the shipped
networks nor judge them.

Nothing is fitted on the series, so nothing is remembered of it: a forecast follows from its window alone. A series
without any value has a `guess`: what its kind of resource did elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from agents.forecast.base import DECILES, MEDIAN, Floats, Past, Progress
from agents.forecast.conformal import factors_of, stretched
from agents.forecast.frames import Series, mirrored, windows
from agents.forecast.neural import Neural, shipped
from twin.errors import UsageError

NETWORK, LAST, MEAN, DAY = "checkpoint", "last_value", "local_mean", "day_ago"
METHODS: tuple[str, ...] = (NETWORK, LAST, MEAN, DAY)

_ROUNDS = 30  # of exponentiated gradient; the second half is averaged


@dataclass(frozen=True, slots=True)
class Answer:
    """Why a forecast is what it is.

    Attributes:
        unique_id: the series.
        steps: of it that stood in the window.
        evidence: earlier forecasts, counted as if they did not overlap, that had come true or not.
        weights: per method of `METHODS`; 0 where there was too little history for it.
        stretch: by how much the network's 80 % band was stretched.
    """

    unique_id: str
    steps: int
    evidence: float
    weights: Mapping[str, float]
    stretch: float

    @property
    def answered(self) -> str:
        """The method with the greatest weight."""
        return max(self.weights, key=lambda name: self.weights[name])

    @property
    def why(self) -> str:
        """One sentence for people."""
        shares = ", ".join(f"{name} {share:.0%}" for name, share in self.weights.items() if share >= 0.005)
        return (
            f"{self.unique_id}: {self.steps} steps on record, {self.evidence:.1f} forecasts to judge by; {shares}; "
            f"80 % band x {self.stretch:.2f}"
        )


@dataclass(frozen=True, slots=True)
class ColdStart:
    """A pre-trained network that falls back on simple methods where the window says they do better.

    Attributes:
        base: a network with a checkpoint: loaded, or with `start` naming one, which `fit` then loads.
        day_steps: steps in a day.
        looks: earlier origins, at most; 63 make one block of the network together with the forecast itself.
        lookback: steps of the window in which they lie.
        least_steps: of a series; with fewer a forecast is refused.
        prior: weights of the methods before anything is known.
        prior_looks: how many forecasts that do not overlap weigh as much as the prior.
        band_looks: the same for the bands.
        widened: rows of (steps on record, factors of the 20, 40, 60 and 80 % band before anything is known), as
            measured by `factors_when_short`; between them the logarithms are interpolated in that of the steps.
    """

    base: Neural
    day_steps: int = 288
    looks: int = 63
    lookback: int = 576
    least_steps: int = 3
    prior: tuple[float, ...] = (0.85, 0.05, 0.05, 0.05)
    prior_looks: float = 0.5
    band_looks: float = 24.0
    widened: tuple[tuple[float, ...], ...] = ((3, 1.0, 1.0, 1.0, 1.0),)
    name: str = "cold_start"

    @property
    def context(self) -> int:
        """What the network looks at from the earliest of the earlier origins."""
        return self.base.context + self.lookback

    @property
    def needs(self) -> int:
        """A handful of steps."""
        return self.least_steps

    @property
    def pooled(self) -> bool:
        """One network for all series."""
        return True

    def fit(self, series: Sequence[Series] = (), seed: int = 0, progress: Progress | None = None) -> Self:  # noqa: ARG002
        """With the checkpoint loaded; nothing is learned from `series`, which may be none.

        Raises:
            UsageError: the network has neither weights nor a checkpoint to begin from, or a setting is out of range.
            PolicyError: the checkpoint is absent or that of another network.
        """
        if len(self.prior) != len(METHODS) or min(self.prior) <= 0.0 or not 2 <= self.least_steps <= self.base.needs:
            raise UsageError(
                f"{self.name}: needs {len(METHODS)} prior weights above 0 ({', '.join(METHODS)}) and least_steps "
                f"from 2 to {self.base.needs}; got {self.prior} and {self.least_steps}"
            )
        if self.base.weights:
            return self
        if self.base.start is None:
            raise UsageError(f"{self.name}: the network has no weights; load some, or name a checkpoint with start=")
        return replace(self, base=self.base.load(shipped(self.base.start)))

    def forecast(self, past: Past, h: int) -> Floats:
        """Deciles [batch, h, 9]; raises UsageError as `answers` does."""
        return self.answers(past, h)[0]

    def answers(self, past: Past, h: int) -> tuple[Floats, list[Answer]]:
        """(deciles [batch, h, 9], why they are what they are [batch]); only the values of `past` are looked at.

        Raises UsageError when not fitted, asked beyond the network's horizon, or a series has too few steps.
        """
        found = [self._one(i, _visible(i, y), past.step_s, h) for i, y in zip(past.ids, past.y, strict=True)]
        said = np.stack([each for each, _ in found]) if found else np.empty((0, h, len(DECILES)))
        return said, [answer for _, answer in found]

    def _one(self, unique_id: str, values: Floats, step_s: int, h: int) -> tuple[Floats, Answer]:
        steps = len(values)
        if steps < self.least_steps:
            raise UsageError(
                f"{self.name}: {unique_id!r} has {steps} steps on record, and a forecast needs {self.least_steps} to "
                "tell its level and spread; wait for them, or ask `guess` for what its kind of resource usually does"
            )
        # a day ago is judged once it has repeated for half a day, and then every origin has one
        young = 2 * steps < 3 * self.day_steps
        begins = max(self.least_steps if young else self.day_steps, steps - self.lookback)
        looks = min(self.looks, steps - begins)
        origins = np.append(np.unique(np.linspace(begins, steps - 1, looks).astype(np.int64)), steps)
        said = self._methods(unique_id, values, origins, step_s, h)
        truth = np.append(values, np.full(h, np.nan))[origins[:-1, None] + np.arange(h)]
        known = np.isfinite(truth)
        evidence = float(_independent(origins[:-1], known, h))
        weights = self._weights(
            said[:, :-1][:, known],
            truth[known],
            evidence,
            np.asarray(np.isfinite(said.reshape(len(said), -1)).all(axis=1)),
        )
        mixed = np.einsum("k,k...->...", weights, np.nan_to_num(said))
        factors = self._factors(mixed[:-1][known], truth[known], steps, evidence)
        shares = dict(zip(METHODS, weights.tolist(), strict=True))
        return stretched(mixed[-1], factors), Answer(unique_id, steps, evidence, shares, float(factors[-1]))

    def _methods(self, unique_id: str, values: Floats, origins: NDArray[np.int64], step_s: int, h: int) -> Floats:
        """What each method says from each origin [methods, origins, h, 9]; NaN where it cannot say anything."""
        y = _windows(values, origins, self.base)
        network = self.base.forecast(Past.of(y, [unique_id] * len(origins), h, step_s), h)
        band = network - network[..., MEDIAN : MEDIAN + 1]
        return np.stack([network, *(point[..., None] + band for point in self._points(values, origins, h))])

    def _points(self, values: Floats, origins: NDArray[np.int64], h: int) -> tuple[Floats, Floats, Floats]:
        """The last value, the mean of the last `h` steps, the value a day ago [origins, h]; NaN before there is one."""
        total = np.concatenate([[0.0], np.cumsum(values - values[0])])
        first = np.maximum(origins - h, 0)
        mean = values[0] + (total[origins] - total[first]) / (origins - first)
        ahead = np.arange(h)
        day = origins[:, None] + ahead % self.day_steps - self.day_steps
        ago = np.where(day >= 0, values[np.maximum(day, 0)], np.nan)
        return np.repeat(values[origins - 1, None], h, axis=1), np.repeat(mean[:, None], h, axis=1), ago

    def _weights(self, said: Floats, truth: Floats, evidence: float, possible: NDArray[np.bool_]) -> Floats:
        """The weights [methods] for `said` [methods, forecasts, 9] of `truth` [forecasts]."""
        prior = np.where(possible, self.prior, 0.0)
        prior /= prior.sum()
        alone = _pinball(said[0], truth) if len(truth) else 0.0
        if alone <= 0.0:
            return prior
        asked = np.flatnonzero(possible)
        rows, weights = said[asked], prior[asked]
        strength = evidence / (self.prior_looks * alone)
        score = start = np.log(weights)
        path = []
        for k in range(_ROUNDS):
            side = (truth[:, None] < np.einsum("k,kfq->fq", weights, rows)) - DECILES
            slope = np.einsum("kfq,fq->k", rows - rows[0], side) / side.size
            # the mean of all slopes so far: a step of fixed length would leap from one corner to the other
            score = score + (start - strength * slope - score) / (k + 2)
            weights = np.exp(score - score.max())
            weights /= weights.sum()
            path.append(weights)
        weights = np.mean(path[_ROUNDS // 2 :], axis=0)
        found = np.zeros(len(prior))
        found[asked] = weights
        return found

    def _factors(self, said: Floats, truth: Floats, steps: int, evidence: float) -> Floats:
        """The factors [9] of the bands: those of the past forecasts, drawn towards those for so few steps."""
        usual = self.usual(steps)
        trust = evidence / (evidence + self.band_looks)
        return usual ** (1.0 - trust) * factors_of(said, truth) ** trust if len(truth) else usual

    def usual(self, steps: int) -> Floats:
        """The factors [9] of the bands of a series with so many steps on record, before anything is known of it."""
        table = np.log(np.asarray(self.widened, dtype=np.float64))
        bands = [np.exp(np.interp(np.log(steps), table[:, 0], column)) for column in table[:, 1:].T]
        return np.array([*bands[::-1], 1.0, *bands])


def _windows(values: Floats, origins: NDArray[np.int64], base: Neural) -> Floats:
    """What the network looks at before each origin; the part it looks at in full is known always."""
    found = windows(values, origins, base.context)
    found[:, base.context - base.window :] = mirrored(found[:, base.context - base.window :])
    return found


def _visible(unique_id: str, y: Floats) -> Floats:
    """The steps on record; raises UsageError when one among them is unknown."""
    known = np.isfinite(y)
    values = y[int(known.argmax()) :] if known.any() else y[:0]
    if not np.isfinite(values).all():
        raise UsageError(f"{unique_id!r}: a step between known ones is unknown; fill it, or begin after it")
    return values


def _independent(origins: NDArray[np.int64], known: NDArray[np.bool_], h: int) -> float:
    """How many forecasts of `h` steps those are worth [origins, h] that are known, when overlaps count once."""
    if not len(origins):
        return 0.0
    span = origins[-1] + known[-1].sum() - origins[0]
    return min(float(known.sum()), float(span)) / h


def _pinball(said: Floats, truth: Floats) -> float:
    over = truth[..., None] - said
    return float(np.maximum(DECILES * over, (DECILES - 1.0) * over).mean())


# ---------------------------------------------------------------- how wide the bands must be


def factors_when_short(
    cold: ColdStart, series: Sequence[Series], h: int, steps: Sequence[int], count: int = 40
) -> list[tuple[float, ...]]:
    """The rows of `ColdStart.widened`: by which factors the network's bands were too narrow with so few steps.

    Geometric means over `series` of the factors at `count` origins of each one's last tenth, which chose when training
    stopped and was not descended on. Series that are too short for that, or rest, are left out.

    Raises UsageError when that leaves none.
    """
    return [(float(known), *_too_narrow(cold, series, h, known, count)) for known in steps]


def _alone(values: Floats, cold: ColdStart) -> Floats:
    return _windows(values, np.array([len(values)]), cold.base)


def _too_narrow(cold: ColdStart, series: Sequence[Series], h: int, steps: int, count: int) -> list[float]:
    found = []
    for each in series:
        values = each.values
        first, last = max(int(len(values) * 0.9), steps), len(values) - h
        if last - first < h:
            continue
        origins = np.linspace(first, last, count).astype(np.int64)
        origins = origins[[bool(np.ptp(values[at - steps : at]) > 0.0) for at in origins]]
        if not len(origins):
            continue
        y = np.concatenate([_alone(values[at - steps : at], cold) for at in origins])
        said = cold.base.forecast(Past.of(y, [each.unique_id] * len(y), h, each.step_s), h)
        found.append(np.log(factors_of(said, values[origins[:, None] + np.arange(h)])))
    if not found:
        raise UsageError(f"{cold.name}: no series has {steps} moving steps before its last tenth, and {h} to come")
    return np.exp(np.mean(found, axis=0))[MEDIAN + 1 :].tolist()


# ---------------------------------------------------------------- no value yet


@dataclass(frozen=True, slots=True)
class Guess:
    """What a series without any value may be, from what its kind of resource did elsewhere.

    Attributes:
        said: deciles [h, 9], the same for every step, in the unit of the capacity.
        recordings: how many recordings of that kind and level it rests on; with none it is even from 0 to capacity.
        why: one sentence for people.
    """

    said: Floats
    recordings: int
    why: str


# Shares of capacity in use, at the quantiles 0, 0.1 ... 0.9, 1 of the recordings that the shipped networks learned
# from. google-2011-gcd-vms tells percent of a VM (of a pool: the mean over its VMs, of days between 5 and 90 % of CPU),
# helios-2020 the share of 208 GPUs in use, philly-2017 nodes in use of those there were.
UTILISATION: Mapping[tuple[str, str], tuple[tuple[float, ...], ...]] = {
    ("cpu", "cell"): ((0.178, 0.203, 0.215, 0.225, 0.236, 0.251, 0.260, 0.269, 0.276, 0.284, 0.328),),
    ("memory", "cell"): ((0.193, 0.202, 0.206, 0.211, 0.215, 0.218, 0.220, 0.224, 0.226, 0.248, 0.274),),
    ("cpu", "machine"): ((0.050, 0.084, 0.105, 0.130, 0.164, 0.196, 0.236, 0.294, 0.351, 0.501, 0.889),),
    ("memory", "machine"): ((0.051, 0.066, 0.080, 0.094, 0.117, 0.146, 0.180, 0.249, 0.315, 0.528, 1.000),),
    ("gpu", "cell"): ((0.000, 0.822, 0.894, 0.923, 0.938, 0.942, 0.962, 0.962, 0.981, 1.000, 1.000),),
    ("nodes", "cell"): ((0.000, 0.617, 0.652, 0.681, 0.714, 0.752, 0.788, 0.817, 0.843, 0.881, 0.936),),
}


def guess(kind: str, level: str, capacity: float, h: int) -> Guess:
    """Deciles from metadata only: quantiles of utilisation over recordings of that kind, times `capacity`.

    The next cluster is one more recording, and as unlike the others as they may be unlike each other: each recording
    counts once, and one that lies evenly between nothing and everything counts as well (Laplace's rule). So the bands
    are wide, and they say nothing about when.

    Args:
        kind: of resource: cpu, memory, gpu, nodes; another one has no recordings.
        level: cell (a cluster or a pool) or machine.
        capacity: what can be used of it, in the unit of the forecast.
        h: steps.

    Raises:
        UsageError: a capacity that is not a positive number, or another level.
    """
    if level not in ("cell", "machine") or not (np.isfinite(capacity) and capacity > 0.0):
        raise UsageError(
            f"a guess needs level cell or machine and a capacity above 0; got {level!r} and {capacity!r}; without a "
            "capacity nothing can be said before the first steps are on record"
        )
    known = UTILISATION.get((kind, level), ())
    share = np.linspace(0.0, 1.0, 1001)
    levels = np.linspace(0.0, 1.0, 11)
    chance = np.mean([share, *(np.interp(share, spread, levels) for spread in known)], axis=0)
    deciles = np.interp(DECILES, chance, share)
    rests = f"{len(known)} recordings of {level} {kind}" if known else f"no recording of {level} {kind}"
    return Guess(
        np.tile(capacity * deciles, (h, 1)),
        len(known),
        f"no value on record: a guess from {rests}, one even spread and a capacity of {capacity:g}; not a forecast",
    )
