"""A forecast-led scaler: enough replicas for the demand that is likely to come before new ones could be ready.

`learn` trains a quantile network on everything before `until_s` and exports it together with the sizing rule
(`agents.scale.sizing`) as one graph.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agents.forecast.base import MEDIAN, Progress
from agents.forecast.conformal import Conformal, stretched
from agents.forecast.frames import Series, first, panel, series
from agents.forecast.nets.base import Dims
from agents.forecast.nets.residual import ResidualMLP
from agents.forecast.neural import Neural, Stored
from agents.policy import Infer, Inference, PolicySpec, Window
from agents.scale import artefact
from agents.scale.demand import column_of, seen_frame
from agents.scale.sizing import CONFIDENCE_MEANING, Sizing, confidence, peaks, sized
from twin.errors import PolicyError, UsageError
from twin.trace.trace import Trace
from twin.types import Cluster

_EXTRA_SHARE = 0.75  # of the extra traces: their last quarter stays held out for the forecasters' own backtest
NETWORK = Neural(ResidualMLP())


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
    network: Neural = NETWORK,
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
        network: what to train; it sees the demand and nothing else.
        progress: told the share done.

    Raises:
        UsageError: an argument out of range, an unknown service, or series too short or of another step.
        PolicyError: `out` exists.
    """
    known = trace if until_s is None else trace.between(0.0, until_s)
    target = cluster.service(service)
    net = network
    sizing = Sizing(
        target.replica_rps, target_utilisation, quantile, lead_steps, target.min_replicas, target.max_replicas
    )
    if lead_steps > net.horizon:
        raise UsageError(f"lead_steps={lead_steps} lies beyond the network's horizon of {net.horizon}")
    column = column_of(service)
    own = panel(pl.concat([seen_frame(known, cluster, target, seed), series(known)]))
    extra = [each for trace in extra_traces for each in first(panel(series(trace)), _EXTRA_SHARE)]
    weights = _train(Conformal(net, horizon=net.horizon), [*own, *extra], column, seed, progress)
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
        confidence_meaning=CONFIDENCE_MEANING,
    )
    stored = {**weights, **_pack(sizing)}
    with warnings.catch_warnings():
        # jax2onnx reads Flax variables by the name they had before
        warnings.filterwarnings("ignore", message="'.value' access is now deprecated", category=DeprecationWarning)
        artefact.export(out, spec, _answer(stored, net), stored)
    return []


def native(folder: Path, network: Neural = NETWORK) -> Infer:
    """The trained network of a policy folder, run by JAX, as a function of one window; for `artefact.parity`.

    `network` is what was trained.
    """
    import jax

    answer = jax.jit(_answer(artefact.read_weights(folder), network))

    def infer(window: Window) -> Inference:
        replicas, confidence, signals = (np.asarray(each)[0] for each in answer(window[None]))
        return Inference(replicas, float(confidence), signals)

    return infer


# ---------------------------------------------------------------- training


def _train(
    forecaster: Conformal, known: Sequence[Series], column: str, seed: int, progress: Progress | None
) -> dict[str, NDArray[np.float32]]:
    fitted = forecaster.fit(known, seed, progress)
    if column not in fitted.stretch:
        raise UsageError(f"the demand {column!r} is too short to correct the forecast's bands: learn from more days")
    assert isinstance(fitted.base, Neural)
    assert fitted.base.weights is not None
    weights = {f"net.{path}": value for path, value in fitted.base.weights.items()}
    return {**weights, "stretch": fitted.stretch[column].astype(np.float32)}


# ---------------------------------------------------------------- the policy as one function


def _members(weights: Stored, expected: Mapping[str, Any]) -> list[Stored]:
    """The weights of each member; raises PolicyError when they are not those of the expected network."""
    if {path: value.shape[1:] for path, value in weights.items()} != {p: value.shape for p, value in expected.items()}:
        raise PolicyError("the stored weights are those of another network than learner.learn.network; train one again")
    count = len(next(iter(weights.values())))
    return [{path: value[k] for path, value in weights.items()} for k in range(count)]


def _alone(demand: Any, horizon: int) -> dict[str, Any]:  # noqa: ANN401 - a JAX array
    """Windows without any columns beside them."""
    import jax.numpy as jnp

    batch, context = demand.shape
    return {
        "y": demand,
        "seen": jnp.zeros((batch, context, 0)),
        "known": jnp.zeros((batch, context + horizon, 0)),
        "static": jnp.zeros((batch, 0)),
    }


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


def _answer(stored: Mapping[str, NDArray[np.float32]], net: Neural) -> artefact.Answer:
    """What is stored as a function of the window; raises PolicyError when it is not what `net` was trained to."""
    import jax.numpy as jnp

    from agents.forecast import training

    dims = Dims(net.window, net.horizon, len(net.lags))
    weights = {path.removeprefix("net."): value for path, value in stored.items() if path.startswith("net.")}
    try:
        sizing, stretch = _unpack(stored), stored["stretch"]
    except KeyError as error:
        raise PolicyError(f"not the weights of a forecast-led policy: {error} is missing; train one again") from error
    view = training.View(dims, tuple(net.lags), net.squash)
    members = _members(weights, training.initial(net.architecture, dims, 0))

    def answer(window: Any) -> tuple[Any, Any, Any]:  # noqa: ANN401 - numpy and JAX arrays alike
        demand = window[:, :, 0] / sizing.replica_rps
        given, line, scale = training.inputs(view, _alone(demand, net.horizon))
        said = jnp.stack([training.rebuild(net.architecture, dims, member)(given) for member in members])
        units = (jnp.sinh(said) if net.squash else said).mean(axis=0)
        deciles = (line[:, :, None] + scale[:, :, None] * units)[:, : sizing.lead_steps]
        deciles = stretched(deciles, stretch)
        replicas = sized(deciles, demand[:, -1], window[:, -1, 1], sizing)
        expected = deciles[:, :, MEDIAN].max(axis=1)
        signals = jnp.stack([expected, peaks(deciles, sizing), demand[:, -1]], axis=-1) * sizing.replica_rps
        return replicas[:, None], confidence(deciles, replicas), signals

    return answer
