"""Any fitted forecaster as a scaler: it remembers the demand it observes, asks for the next steps, and sizes for them.

The sizing rule is that of the trained and exported `forecast_led` (`agents.scale.sizing`); here the forecaster itself
decides, so that whatever keeps the `Forecaster` protocol can be judged by what it decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np

from agents.forecast.base import DECILES, Floats, Forecaster
from agents.forecast.frames import Series, panel, series
from agents.forecast.rolling import past_at
from agents.scale.demand import Heard, seen
from agents.scale.sizing import Sizing, confidence, peaks, sized
from twin.envs.sizing import TOLERANCE
from twin.errors import PolicyError
from twin.trace.trace import Trace
from twin.types import Action, Cluster, Observation

_HAIR = 1e-3  # a whole number that rounding left a hair above itself must not cost a replica


class ForecastScaler:
    """Replicas for the chosen decile of the demand that `forecaster` expects until new ones could be ready.

    It decides once a step, and knows of demand what it observed since `reset`, and `history`. While that is shorter
    than the forecaster needs, or the last step is unknown, it proposes nothing: whoever guards it
    (`agents.rules.guarded`) lets a rule decide meanwhile, and says so. Its confidence is that of `sizing`.
    """

    def __init__(
        self,
        forecaster: Forecaster,
        service: str,
        sizing: Sizing,
        step_s: float = 300.0,
        history: Series | None = None,
        start_s: float = 0.0,
        tolerance: float = TOLERANCE,
        name: str = "forecast",
    ) -> None:
        """Steer `service` by `forecaster`.

        Args:
            forecaster: fitted, on the series `history` or, without one, "<service>.demand_rps".
            service: its name, as the observation's columns show it.
            sizing: how the forecast becomes replicas.
            step_s: seconds of a step of the forecaster, and between decisions.
            history: demand on record before the run, up to its beginning, in requests/s.
            start_s: when the run begins on the series' own clock; with a history that is its end.
            tolerance: share by which the wanted replicas may miss the wish and still stay.
            name: as the decision table shows it.

        Raises:
            UsageError: a history of another step.
        """
        self.name = name
        self.interval_s = float(step_s)
        self._forecaster, self._service = forecaster, service
        self._sizing, self._tolerance = sizing, tolerance
        self._heard = Heard(service, int(step_s), history, int(start_s))

    def reset(self) -> None:
        """Forget all demand but the history."""
        self._heard.forget()

    def decide(self, observation: Observation) -> list[Action]:
        """One action, or none while too little is known; raises PolicyError for a forecast that is none."""
        self._heard.note(observation)
        known = self._heard.series()
        wanted = observation[f"{self._service}.wanted_replicas"]
        if known is None or len(known.values) < self._forecaster.needs or not math.isfinite(wanted):
            return []
        sizing, now_rps = self._sizing, float(known.values[-1])
        deciles = self._ask(known) / sizing.replica_rps
        replicas = sized(deciles, np.array([now_rps / sizing.replica_rps]), np.array([wanted]), sizing, self._tolerance)
        value = math.ceil(float(replicas[0]) - _HAIR)
        peak_rps = float(peaks(deciles, sizing)[0]) * sizing.replica_rps
        reason = (
            f"{self._forecaster.name} expects at most {peak_rps:.0f} rps in "
            f"{sizing.lead_steps * self.interval_s / 60:.0f} min (q{100 * sizing.quantile:.0f}; now {now_rps:.0f}): "
            f"{value} replicas"
        )
        return [Action("replicas", self._service, value, reason, float(confidence(deciles, replicas)[0]))]

    def _ask(self, known: Series) -> Floats:
        steps = self._sizing.lead_steps
        past = past_at(known, np.array([len(known.values)]), self._forecaster.context, steps)
        said = self._forecaster.forecast(past, steps)
        if said.shape != (1, steps, len(DECILES)) or not np.isfinite(said).all():
            raise PolicyError(
                f"{self._forecaster.name} answered {list(said.shape)} with unknown numbers; a forecast of {steps} "
                "steps is needed"
            )
        return said


class Learnable(Protocol):
    """Says which part of a recording may be learned from."""

    def train(self, trace: Trace) -> Trace:
        """What learners may see."""
        ...


def fitted(
    forecaster: Forecaster,
    trace: Trace,
    cluster: Cluster,
    service: str,
    split: Learnable,
    seed: int = 0,
    shaped: Callable[[Series], Series] | None = None,
) -> Forecaster:
    """The forecaster, fitted on the service's demand in the training part; a pooled one on the recorded usage too.

    Each series goes through `shaped` first, where that is given. Raises UsageError as `split` and the forecaster do.
    """
    known = split.train(trace)
    own = seen(known, cluster, cluster.service(service), seed)
    more = panel(series(known)) if forecaster.pooled and known.usage.height else []
    return forecaster.fit([shaped(each) if shaped else each for each in (own, *more)], seed)


def trained(
    forecaster: Forecaster,
    trace: Trace,
    cluster: Cluster,
    service: str,
    split: Learnable,
    target_utilisation: float = 0.8,
    quantile: float = 0.9,
    lead_steps: int = 2,
    seed: int = 0,
) -> ForecastScaler:
    """A scaler by this forecaster, fitted as `fitted` does; it learns the demand before a run from nobody.

    Raises UsageError as `fitted` and `Sizing` do.
    """
    target = cluster.service(service)
    sizing = Sizing(
        target.replica_rps, target_utilisation, quantile, lead_steps, target.min_replicas, target.max_replicas
    )
    ready = fitted(forecaster, trace, cluster, service, split, seed)
    return ForecastScaler(ready, service, sizing, trace.info.step_s, name=f"forecast-{forecaster.name}")
