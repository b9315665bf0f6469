"""A forecast-led scaler: enough replicas for the demand that is likely to come before new ones could be ready.

`learn` trains a quantile network on everything before `until_s` and exports network and sizing rule as one graph:

    peak       = the chosen decile of demand, at its highest over the next `lead_steps` steps
    replicas   = max(peak, demand now) / (replica_rps x target_utilisation), within the service's own bounds;
                 the wanted ones stay while they run within TOLERANCE of the target, as the HPA's do
    confidence = P(demand stays within what those replicas can serve when full, at every one of these steps)

Demand is in units of one replica's capacity inside the graph, so every number there is near one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agents.forecast.base import DECILES, MEDIAN, Progress
from agents.forecast.conformal import Conformal, stretched
from agents.forecast.frames import first, normalise, series
from agents.forecast.quantile_net import QuantileNet
from agents.policy import Infer, Inference, PolicySpec, Window
from agents.scale import artefact
from twin.envs.sizing import TOLERANCE
from twin.errors import PolicyError, UsageError
from twin.trace.trace import Trace
from twin.types import Cluster, Service

_EXTRA_SHARE = 0.75  # of the extra traces: their last quarter stays held out for the forecasters' own backtest
_MOST_CONFIDENT = 0.98
_LEAST_GAP = 1e-3  # of the median: no gap between two deciles is taken to be narrower
_MEANING = (
    "probability that demand stays within what the proposed replicas can serve at full use, at every step until new "
    "ones are ready (at least: errors of different steps are added); linear between the forecast deciles; beyond the "
    "outer ones a heavy tail, 0.1 / (1 + d), d being the distance in gaps between the last two; never above 0.98"
)


@dataclass(frozen=True, slots=True)
class Sizing:
    """How a forecast becomes replicas; all rates are requests/s."""

    replica_rps: float
    target_utilisation: float
    quantile: float
    lead_steps: int
    min_replicas: int
    max_replicas: int

    def __post_init__(self) -> None:
        if not 0.0 < self.target_utilisation <= 1.0 or self.lead_steps < 1:
            raise UsageError(
                f"target_utilisation={self.target_utilisation} must be in (0, 1], "
                f"lead_steps={self.lead_steps} at least 1"
            )
        if not np.isclose(self.quantile, DECILES).any():
            raise UsageError(f"quantile={self.quantile} is not one that is forecast: {DECILES.tolist()}")

    @property
    def decile(self) -> int:
        """The chosen quantile's place among the deciles."""
        return int(np.argmin(np.abs(DECILES - self.quantile)))


def learn(
    out: Path,
    *,
    trace: Trace,
    cluster: Cluster,
    service: str,
    seed: int,
    until_s: float | None = None,
    target_utilisation: float = 0.8,
    quantile: float = 0.9,
    lead_steps: int = 2,
    extra_traces: Sequence[Trace] = (),
    network: QuantileNet | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> list[tuple[int, float]]:
    """Train, and write the policy folder `out`, whole or not at all; returns an empty curve: there is no reward here.

    Args:
        out: a folder that does not exist yet.
        trace: what was recorded; nothing at or after `until_s` is looked at.
        cluster: says what a replica of the service can do.
        service: whose replicas are decided.
        seed: of the training, and of the bursts that the twin adds to recorded demand.
        until_s: end of what may be learned from, in s of `trace`; None for all of it.
        target_utilisation: how full replicas shall run at the peak; 0.8 is what the default HPA aims at, so that the
            two differ in the forecast alone.
        quantile: the decile of demand to be ready for; the highest one, since a late answer costs more than an
            idle replica.
        lead_steps: steps until a replica wished for now has helped: one until the next decision, one for a node to
            boot and a replica to start.
        extra_traces: more recordings to learn from, the first 75 % of each.
        network: what to train, by default `QuantileNet()`.
        progress: told the share done.

    Raises:
        UsageError: an argument out of range, an unknown service, or series too short or of another step.
        PolicyError: `out` exists.
    """
    known = trace if until_s is None else trace.between(0.0, until_s)
    target = cluster.service(service)
    net = network or QuantileNet()
    sizing = Sizing(
        target.replica_rps, target_utilisation, quantile, lead_steps, target.min_replicas, target.max_replicas
    )
    if lead_steps > net.horizon:
        raise UsageError(f"lead_steps={lead_steps} lies beyond the network's horizon of {net.horizon}")
    column = f"{service}.demand_rps"
    frame = pl.concat(
        [
            _seen_demand(known, cluster, target, column, seed),
            series(known),
            *(first(series(extra), _EXTRA_SHARE) for extra in extra_traces),
        ]
    )
    weights = _train(Conformal(net, horizon=net.horizon), frame, column, seed, progress)
    spec = PolicySpec(
        name="forecast_led",
        version=f"seed-{seed}",
        columns=(column, f"{service}.wanted_replicas"),
        steps=net.context,
        interval_s=known.info.step_s,
        services=(service,),
        signals=("expected_rps", "peak_rps", "now_rps"),
        reason=f"forecast peak {{peak_rps:.0f}} rps in {lead_steps * known.info.step_s / 60:.0f} min "
        f"(q{100 * quantile:.0f}; now {{now_rps:.0f}}): {{replicas}} replicas",
        confidence_meaning=_MEANING,
    )
    stored = {**weights, **_pack(sizing)}
    with warnings.catch_warnings():
        # jax2onnx reads Flax variables by the name they had before
        warnings.filterwarnings("ignore", message="'.value' access is now deprecated", category=DeprecationWarning)
        artefact.export(out, spec, _answer(stored), stored)
    return []


def native(folder: Path) -> Infer:
    """The trained network of a policy folder, run by JAX, as a function of one window; for `artefact.parity`."""
    import jax

    answer = jax.jit(_answer(artefact.read_weights(folder)))

    def infer(window: Window) -> Inference:
        replicas, confidence, signals = (np.asarray(each)[0] for each in answer(window[None]))
        return Inference(replicas, float(confidence), signals)

    return infer


# ---------------------------------------------------------------- training


def _seen_demand(trace: Trace, cluster: Cluster, service: Service, column: str, seed: int) -> pl.DataFrame:
    """The demand as the twin lets a policy see it: with its bursts, averaged over each step, in requests/s."""
    from twin.engine.demand import STEP_S, arrival_rates

    per_step = trace.info.step_s / STEP_S
    if per_step < 1 or per_step % 1:
        raise UsageError(
            f"trace {trace.info.name!r} has a step of {trace.info.step_s:g} s; a forecast needs whole minutes"
        )
    steps = int(trace.duration_s // trace.info.step_s)
    place = cluster.services.index(service)
    rates = arrival_rates(trace, cluster, trace.duration_s, seed)[place, : steps * int(per_step)]
    return pl.DataFrame(
        {
            "unique_id": pl.repeat(column, steps, eager=True),
            "ds": np.arange(steps, dtype=np.int64) * int(trace.info.step_s),
            "y": rates.reshape(steps, -1).mean(axis=1),
        }
    )


def _train(
    forecaster: Conformal, frame: pl.DataFrame, column: str, seed: int, progress: Progress | None
) -> dict[str, NDArray[np.float32]]:
    fitted = forecaster.fit(frame, seed, progress)
    if column not in fitted.stretch:
        raise UsageError(f"the demand {column!r} is too short to correct the forecast's bands: learn from more days")
    assert isinstance(fitted.base, QuantileNet)
    assert fitted.base.weights is not None
    weights = {f"net.{path}": value for path, value in fitted.base.weights.items()}
    return {**weights, "stretch": fitted.stretch[column].astype(np.float32)}


# ---------------------------------------------------------------- the policy as one function


def _pack(sizing: Sizing) -> dict[str, NDArray[np.float32]]:
    names = Sizing.__dataclass_fields__
    return {f"sizing.{name}": np.array([getattr(sizing, name)], np.float32) for name in names}


def _unpack(stored: Mapping[str, NDArray[np.float32]]) -> Sizing:
    def number(name: str) -> float:
        return float(stored[f"sizing.{name}"][0])

    return Sizing(
        replica_rps=number("replica_rps"),
        target_utilisation=number("target_utilisation"),
        quantile=number("quantile"),
        lead_steps=int(number("lead_steps")),
        min_replicas=int(number("min_replicas")),
        max_replicas=int(number("max_replicas")),
    )


def _answer(stored: Mapping[str, NDArray[np.float32]]) -> artefact.Answer:
    """What is stored as a function of the window; raises PolicyError when a part of it is missing."""
    import jax.numpy as jnp

    from agents.forecast.network import rebuild

    weights = {path.removeprefix("net."): value for path, value in stored.items() if path.startswith("net.")}
    try:
        sizing, stretch = _unpack(stored), stored["stretch"]
        context, horizon = weights["skip.kernel"].shape
        shape = (context, horizon, weights["inner.kernel"].shape[0])
    except KeyError as error:
        raise PolicyError(f"not the weights of a forecast-led policy: {error} is missing; train one again") from error

    def answer(window: Any) -> tuple[Any, Any, Any]:  # noqa: ANN401 - numpy and JAX arrays alike
        demand = window[:, :, 0] / sizing.replica_rps
        moves, last, scale = normalise(demand)
        deciles = last[:, :, None] + scale[:, :, None] * rebuild(shape, weights)(moves)[:, : sizing.lead_steps]
        deciles = stretched(deciles, stretch)
        expected, peak = deciles[:, :, MEDIAN].max(axis=1), deciles[:, :, sizing.decile].max(axis=1)
        wish = jnp.maximum(peak, demand[:, -1]) / sizing.target_utilisation
        wanted = jnp.maximum(window[:, -1, 1], 1.0)
        steady = jnp.where(jnp.abs(wish / wanted - 1.0) <= TOLERANCE, wanted, wish)
        replicas = jnp.clip(steady, sizing.min_replicas, sizing.max_replicas)
        signals = jnp.stack([expected, peak, demand[:, -1]], axis=-1) * sizing.replica_rps
        return replicas[:, None], confidence(deciles, replicas), signals

    return answer


def confidence(deciles: Any, capacity: Any) -> Any:  # noqa: ANN401 - numpy and JAX arrays alike
    """P(demand <= `capacity` [batch] at every step) from `deciles` [batch, steps, 9], at most 0.98.

    The chances of the single steps to be short are added (Boole's inequality), so the true probability is not lower.
    """
    xp = deciles.__array_namespace__()
    gaps = xp.maximum(deciles[..., 1:] - deciles[..., :-1], _LEAST_GAP * xp.abs(deciles[..., MEDIAN, None]) + 1e-9)
    beyond = capacity[:, None, None] - deciles
    within = 0.1 * xp.clip(beyond[..., :-1] / gaps, 0.0, 1.0).sum(axis=-1)
    over = xp.maximum(beyond[..., -1], 0.0) / gaps[..., -1]
    under = xp.maximum(-beyond[..., 0], 0.0) / gaps[..., 0]
    met = 0.1 + within + 0.1 * over / (1.0 + over) - 0.1 * under / (1.0 + under)
    return xp.clip(1.0 - (1.0 - met).sum(axis=-1), 0.0, _MOST_CONFIDENT)
