"""The types of the primary configs: types here (all MISSING), values in `conf/*.yaml`, never both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING


@dataclass
class Common:
    """What every verb has."""

    name: str = MISSING
    out: str = MISSING
    seed: int = MISSING
    display: str = MISSING
    tracking: Any = MISSING


@dataclass
class Scene(Common):
    """What is simulated, for verbs that simulate."""

    trace: Any = MISSING
    cluster: Any = MISSING
    scheduler: Any = MISSING
    serving: Any = MISSING
    limits: Any = MISSING
    record: Any = MISSING
    split: Any = MISSING


@dataclass
class Simulate(Scene):
    """One run."""

    scenario: Any = MISSING
    controller: Any = MISSING
    until_s: float | None = MISSING
    part: str = MISSING
    policies: dict[str, str | None] = MISSING


@dataclass
class Checkpoints:
    """How often jobs write their state and what it takes them."""

    interval_s: float | None = MISSING
    cost_s: float = MISSING


@dataclass
class Energy:
    """Whose carbon intensity and price count, and how long a value lasts."""

    carbon_zone: str | None = MISSING
    price_zone: str | None = MISSING
    usd_eur: float | None = MISSING
    hold_s: float | None = MISSING


@dataclass
class Schedule(Common):
    """Recorded jobs under a scheduler."""

    trace: Any = MISSING
    machines: Any = MISSING
    order: Any = MISSING
    backfill: Any = MISSING
    placement: Any = MISSING
    admission: dict[str, Any] = MISSING
    filters: dict[str, Any] = MISSING
    inspector: Any = MISSING
    contention: Any = MISSING
    outages: Any = MISSING
    engine: Any = MISSING
    replay: str = MISSING
    until_s: float | None = MISSING
    kill: bool = MISSING
    retries: int = MISSING
    preempts: bool = MISSING
    checkpoint: Checkpoints = MISSING
    piece_cores: float | None = MISSING
    missing_run_s: float | None = MISSING
    missing_limit_s: float | None = MISSING
    calibration: str | None = MISSING
    explain: list[str] = MISSING
    energy: Energy = MISSING
    largest: int = MISSING


@dataclass
class Train(Scene):
    """Policies from one learner over many seeds, and the choice between them."""

    learner: Any = MISSING
    scenarios: dict[str, Any] = MISSING
    seeds: int = MISSING
    workers: int = MISSING
    late_price: float = MISSING


@dataclass
class Backtest(Common):
    """Forecasters over rolling origins."""

    trace: Any = MISSING
    forecasters: dict[str, Any] = MISSING
    extra_traces: list[str] = MISSING
    horizon_steps: int = MISSING
    every_steps: int = MISSING
    train_share: float = MISSING


@dataclass
class Benchmark(Scene):
    """Controllers x scenarios x seeds."""

    controllers: dict[str, Any] = MISSING
    scenarios: dict[str, Any] = MISSING
    baseline: str = MISSING
    seeds: int = MISSING
    workers: int = MISSING
    days: float | None = MISSING
    policies: dict[str, str | None] = MISSING


@dataclass
class Promote(Common):
    """The gate: evidence and a policy in, verdict and perhaps a bundle out."""

    evidence: str | None = MISSING
    policy: str | None = MISSING
    candidate: str = MISSING
    baseline: str = MISSING
    gate: Any = MISSING
    scenarios: dict[str, Any] = MISSING
    incumbent: Any = MISSING
    key: str | None = MISSING
    learner: Any = MISSING


@dataclass
class Bridge(Scene):
    """A signed bundle in charge of (or beside) a plant."""

    bundle: str | None = MISSING
    trusted_key: str | None = MISSING
    mode: Any = MISSING
    plant: Any = MISSING
    incumbent: Any = MISSING
    fallback: Any = MISSING
    hours: float = MISSING


@dataclass
class Report(Common):
    """A page from a run folder."""

    run: str | None = MISSING


@dataclass
class Demo(Common):
    """Stations to walk: verbs with their overrides."""

    trace: Any = MISSING
    stations: list[Any] = MISSING


@dataclass
class Recordings(Common):
    """What the verb `trace` does; each action has its own keys."""

    trace: Any = MISSING
    action: Any = MISSING
    path: str = MISSING
    format: str | None = MISSING
    strict: bool = MISSING
    memory_gib: float = MISSING
    source: str | None = MISSING
    folder: str = MISSING
    start_s: float = MISSING
    end_s: float = MISSING
    thin: float = MISSING
    replicate: int = MISSING
    jitter_s: float = MISSING
    compress: float = MISSING
    model: str = MISSING
    scale: float = MISSING
    days: float | None = MISSING
    against: str | None = MISSING
    url: str = MISSING
    queries: Any = MISSING
    start: Any = MISSING
    end: Any = MISSING
    step_s: float = MISSING
    token_env: str | None = MISSING


@dataclass
class Calibrate(Common):
    """What a recording lets fit of the twin."""

    trace: Any = MISSING
    created: str | None = MISSING
    capacity_cores: float | None = MISSING
    power_samples: str | None = MISSING


@dataclass
class Pretrain(Common):
    """The networks that are shipped."""

    data: str = MISSING
    recordings: dict[str, str] = MISSING
    members: int = MISSING
    networks: Any = MISSING
    card: str = MISSING


@dataclass
class Accuracy(Common):
    """Forecasters on the recorded series of one level and one grid."""

    level: str = MISSING
    grid: str = MISSING
    data: str | None = MISSING
    train_share: float = MISSING
    extras: bool = MISSING
    statistical: list[str] = MISSING
    candidate: str = MISSING
    earlier: list[str] = MISSING
    fresh: list[str] = MISSING
    horizon_steps: int = MISSING
    day_steps: int = MISSING
    origins: int = MISSING
    grids: Any = MISSING
    levels: Any = MISSING
    forecasters: dict[str, Any] = MISSING


@dataclass
class Tune(Common):
    """One configuration of one forecaster, judged inside the part that is learned from."""

    forecaster: Any = MISSING
    level: str = MISSING
    grid: str = MISSING
    data: str | None = MISSING
    train_share: float = MISSING
    validate_from: float = MISSING
    origins: int = MISSING
    horizon_steps: int = MISSING
    day_steps: int = MISSING
    grids: Any = MISSING
    levels: Any = MISSING
    on_grid: dict[str, Any] = MISSING


@dataclass
class CapacityPlans:
    """How capacity is planned from forecasts."""

    step_s: int = MISSING
    periods: int = MISSING
    lead_steps: int = MISSING
    target_utilisation: float = MISSING
    shortage_costs: list[float] = MISSING
    forecasters: dict[str, Any] = MISSING


@dataclass
class DecisionValue(Scene):
    """Forecasters judged by what they lead."""

    forecasters: dict[str, Any] = MISSING
    rules: dict[str, Any] = MISSING
    scenarios: dict[str, Any] = MISSING
    service: str = MISSING
    part: str = MISSING
    days: float | None = MISSING
    seeds: int = MISSING
    workers: int = MISSING
    baseline: str = MISSING
    late_price: float = MISSING
    allowed_min: float = MISSING
    quantiles: list[float] = MISSING
    target_utilisation: float = MISSING
    tolerance: float = MISSING
    lead_steps: int = MISSING
    capacity: CapacityPlans = MISSING


@dataclass
class Trials:
    """How drift detectors are tried on streams that are stable by construction."""

    recordings: list[str] = MISSING
    runs: int = MISSING
    forecaster: Any = MISSING


@dataclass
class Retraining(Common):
    """A planted change, noticed and learned."""

    trace: Any = MISSING
    cluster: Any = MISSING
    scenario: Any = MISSING
    controller: Any = MISSING
    forecaster: Any = MISSING
    service: str = MISSING
    until_s: float | None = MISSING
    learn_days: int = MISSING
    changed_s: float = MISSING
    operation: Any = MISSING
    trials: Trials = MISSING


@dataclass
class Sites(Common):
    """What it costs to share no data between sites, and to hide every tenant."""

    panel: str = MISSING
    data: str | None = MISSING
    machines: dict[str, str] = MISSING
    train_share: float = MISSING
    every_steps: int = MISSING
    net: Any = MISSING
    rounds: Any = MISSING
    proximal: float = MISSING
    least_tenants: int = MISSING
    epsilons: list[float] = MISSING
    private_rounds: Any = MISSING
    private_rate: float = MISSING
    budget: Any = MISSING
    targets: dict[str, float] = MISSING


@dataclass
class Forecast(Common):
    """The next steps of a trace's series."""

    trace: Any = MISSING
    forecaster: Any = MISSING
    fallback: Any = MISSING
    extra_traces: list[str] = MISSING
    resources: list[str] | None = MISSING
    until_s: float | None = MISSING
    step_s: int = MISSING
    horizon_steps: int = MISSING
    onnx: bool = MISSING
    scenarios: Any = MISSING  # not a dict type: Hydra would refuse scenarios={...}
    grids: Any = MISSING
    grid: Any = MISSING
    on_grid: dict[str, Any] = MISSING


@dataclass
class ColdStart(Common):
    """Forecasts of clusters nobody has learned from."""

    grid: str = MISSING
    clusters: list[str] = MISSING
    train_share: float = MISSING
    origins: int = MISSING
    kept_share: float = MISSING
    histories: list[int] = MISSING
    horizon_steps: int = MISSING
    day_steps: int = MISSING
    naive: list[str] = MISSING
    grids: Any = MISSING
    capacities: dict[str, float] = MISSING
    network: Any = MISSING
    forecaster: Any = MISSING
    opponents: dict[str, Any] = MISSING


@dataclass
class LongHorizon(Common):
    """Months ahead, and forecasts that add up."""

    data: str | None = MISSING
    forecaster: Any = MISSING
    together: list[str] = MISSING
    series: int = MISSING
    first_seed: int = MISSING
    timed: list[str] = MISSING
    habits: list[Any] = MISSING


CONFIGS: dict[str, type] = {
    "long_horizon": LongHorizon,
    "cold_start": ColdStart,
    "forecast": Forecast,
    "sites": Sites,
    "retraining": Retraining,
    "accuracy": Accuracy,
    "tune": Tune,
    "decision_value": DecisionValue,
    "pretrain": Pretrain,
    "calibrate": Calibrate,
    "simulate": Simulate,
    "schedule": Schedule,
    "train": Train,
    "backtest": Backtest,
    "benchmark": Benchmark,
    "promote": Promote,
    "bridge": Bridge,
    "report": Report,
    "trace": Recordings,
    "demo": Demo,
}


def register() -> None:
    """Make the types known to Hydra as `base_<verb>`."""
    store = ConfigStore.instance()
    for verb, config in CONFIGS.items():
        store.store(name=f"base_{verb}", node=config)
