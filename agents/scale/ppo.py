"""A PPO scaler: learns in `NovaCron/Scale-Service-v1` how full one service's replicas may run; one file, top to bottom.

`learn` trains with Stable-Baselines3 and exports the actor as a graph policy; `native` rebuilds the trained actor
from its weights, to compare the two. Confidence is the probability that the actor gives to its choice and the two
neighbouring targets: how sure it is to within one notch of utilisation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agents.policy import Infer, Inference, PolicySpec, Window
from agents.scale import artefact
from scenarios.base import Scenario
from twin.envs import sizing
from twin.seeds import child
from twin.trace.trace import Trace
from twin.types import Cluster, Limits

if TYPE_CHECKING:
    from stable_baselines3 import PPO

    from twin.envs.scale import ScaleEnv

_REASON = "runs replicas at {target:.0%} of {demand_rps:.0f} rps: {replicas} replicas"
_MEANING = "probability that the actor gives to its target utilisation and the two next to it"


@dataclass(frozen=True, slots=True)
class PpoSettings:
    """What PPO is trained with, in Stable-Baselines3's words; values in `conf/learner/ppo.yaml`."""

    total_steps: int
    environments: int
    rollout_steps: int
    batch_size: int
    epochs: int
    learning_rate: float
    gamma: float
    gae_lambda: float
    entropy: float
    hidden: int
    interval_s: float
    episode_s: float
    late_price: float
    churn_price: float


def learn(
    out: Path,
    *,
    trace: Trace,
    cluster: Cluster,
    service: str,
    seed: int,
    settings: PpoSettings,
    limits: Limits | None = None,
    scenarios: Sequence[Scenario] = (),
    progress: Callable[[float, str], None] | None = None,
) -> list[tuple[int, float]]:
    """Train on the whole of `trace` (cut it before), export to the folder `out`; returns the learning curve.

    Episodes meet the recording and what each of `scenarios` makes of it, in equal shares. The curve is (environment
    steps, mean reward per step) after each update. `progress` is told the share done.
    """
    from twin.envs.scale import ScaleEnv

    variants = [(changed, events) for changed, _, events in (s.apply(trace, cluster) for s in scenarios)]
    environment = partial(
        ScaleEnv,
        trace,
        cluster,
        service,
        variants=variants,
        interval_s=settings.interval_s,
        episode_s=settings.episode_s,
        limits=limits,
        late_price=settings.late_price,
        churn_price=settings.churn_price,
    )
    model = _model(environment, seed, settings)
    curve: list[tuple[int, float]] = []
    model.learn(settings.total_steps, callback=_watch(curve, settings.total_steps, progress))
    weights = _actor_weights(model)
    spec = PolicySpec(
        name="ppo",
        version=f"seed-{seed}",
        columns=sizing.columns(cluster, service),
        steps=sizing.STEPS,
        interval_s=settings.interval_s,
        services=(service,),
        signals=("target", "demand_rps"),
        reason=_REASON,
        confidence_meaning=_MEANING,
    )
    weights["factors"] = sizing.scales(cluster, service)
    weights["replica_rps"] = np.float32([cluster.service(service).replica_rps])  # pyright: ignore[reportArgumentType]
    artefact.export(out, spec, _answer(weights), weights)
    return curve


def native(folder: Path) -> Infer:
    """The trained torch actor in the folder, as a function of one window."""
    import torch

    weights = artefact.read_weights(folder)
    actor = torch.nn.Sequential(*_torch_layers(weights))
    replica_rps = float(weights["replica_rps"][0])

    def infer(window: Window) -> Inference:
        seen = sizing.features(window[-1], weights["factors"])
        with torch.no_grad():
            shares = torch.softmax(actor(torch.from_numpy(seen)[None])[0], dim=0).numpy()
        choice = int(shares.argmax())
        demand = np.append(window[:, 0], window[-1, 1])
        wish = sizing.replicas_for(demand, max(float(window[-1, 2]), 1.0), float(sizing.TARGETS[choice]), replica_rps)
        confidence = float(shares[max(choice - 1, 0) : choice + 2].sum())
        signals = np.array([sizing.TARGETS[choice], demand.max()], dtype=np.float32)
        return Inference(np.array([wish], dtype=np.float32), confidence, signals)

    return infer


# ---------------------------------------------------------------- training


def _model(environment: Callable[[], ScaleEnv], seed: int, settings: PpoSettings) -> PPO:
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.vec_env import DummyVecEnv

    torch.set_num_threads(1)  # the network is small: threads cost more than they give
    return PPO(
        "MlpPolicy",
        DummyVecEnv([lambda: Monitor(environment())] * settings.environments),
        n_steps=settings.rollout_steps,
        batch_size=settings.batch_size,
        n_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        gamma=settings.gamma,
        gae_lambda=settings.gae_lambda,
        ent_coef=settings.entropy,
        policy_kwargs={"net_arch": [settings.hidden, settings.hidden]},
        seed=int(child(seed, "agent").integers(2**31)),
        device="cpu",
    )


def _watch(curve: list[tuple[int, float]], total: int, progress: Callable[[float, str], None] | None) -> Any:  # noqa: ANN401
    from stable_baselines3.common.callbacks import BaseCallback

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            reward = float(np.mean(self.locals["rollout_buffer"].rewards))
            curve.append((self.num_timesteps, reward))
            if progress:
                progress(min(self.num_timesteps / total, 1.0), f"reward {reward:.3f} a step")

    return Watch()


def _actor_weights(model: PPO) -> dict[str, NDArray[np.float32]]:
    """The actor's layers as arrays: w0 [in, hidden], b0, ..., the last pair giving one logit per target."""
    import torch

    extractor = model.policy.mlp_extractor.policy_net
    linear = [layer for layer in (*extractor, model.policy.action_net) if isinstance(layer, torch.nn.Linear)]
    weights = {}
    for index, layer in enumerate(linear):
        weights[f"w{index}"] = layer.weight.detach().numpy().T.copy()
        weights[f"b{index}"] = layer.bias.detach().numpy().copy()
    return weights


# ---------------------------------------------------------------- the same actor, twice


def _depth(weights: dict[str, NDArray[np.float32]]) -> int:
    return sum(name.startswith("w") for name in weights)


def _torch_layers(weights: dict[str, NDArray[np.float32]]) -> list[Any]:
    import torch

    layers: list[Any] = []
    for index in range(_depth(weights)):
        w, b = weights[f"w{index}"], weights[f"b{index}"]
        linear = torch.nn.Linear(*w.shape)
        linear.load_state_dict({"weight": torch.from_numpy(w.T.copy()), "bias": torch.from_numpy(b)})
        layers += [linear, torch.nn.Tanh()]
    return layers[:-1]


def _answer(weights: dict[str, NDArray[np.float32]]) -> artefact.Answer:
    import jax
    import jax.numpy as jnp

    targets = jnp.asarray(sizing.TARGETS)
    count = len(sizing.TARGETS)
    # row i marks target i and its neighbours
    near = jnp.asarray(np.abs(np.subtract.outer(np.arange(count), np.arange(count))) <= 1, dtype=jnp.float32)

    def answer(window: Any) -> tuple[Any, Any, Any]:  # noqa: ANN401 - a traced JAX array
        last = window[:, -1, :]
        hidden = jnp.clip(last * weights["factors"], -sizing.BOUND, sizing.BOUND)
        depth = _depth(weights)
        for index in range(depth):
            hidden = hidden @ weights[f"w{index}"] + weights[f"b{index}"]
            hidden = jnp.tanh(hidden) if index < depth - 1 else hidden
        shares = jax.nn.softmax(hidden, axis=-1)
        chosen = jax.nn.one_hot(jnp.argmax(hidden, axis=-1), count, dtype=jnp.float32)
        target = jnp.sum(chosen * targets, axis=-1, keepdims=True)
        confidence = jnp.sum((chosen @ near) * shares, axis=-1)
        demand = jnp.maximum(window[:, :, 0].max(axis=1, keepdims=True), last[:, 1:2])
        wish = demand / (weights["replica_rps"] * target)
        wanted = jnp.maximum(last[:, 2:3], 1.0)
        replicas = jnp.where(jnp.abs(wish / wanted - 1.0) <= sizing.TOLERANCE, wanted, wish)
        return replicas, confidence, jnp.concatenate([target, demand], axis=-1)

    return answer
