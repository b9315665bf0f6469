"""A run folder as a benchmark would leave it, made from seeded numbers: small or of full size."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from twin.trace import tables

STEP_S = 60.0
REPLICA_RPS = 25.0
UNIT_RPS = 2000.0
CONTROLLERS = ("hold", "static", "hpa", "forecast_led", "ppo")
SCENARIOS = ("recorded", "surge", "node_failures")


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory) -> Path:
    """Seven days, five controllers, three scenarios; read only."""
    return make_folder(tmp_path_factory.mktemp("run") / "demo")


@pytest.fixture
def make() -> Callable[..., Path]:
    return make_folder


def make_folder(folder: Path, days: int = 7, controllers=CONTROLLERS, scenarios=SCENARIOS, services=("web",)) -> Path:
    """Write a complete run folder; the same arguments give the same bytes."""
    rng = np.random.default_rng(7)
    for sub in ("tables", "verdicts", "bridge"):
        (folder / sub).mkdir(parents=True)
    rows, forecasts = [], []
    for scenario in scenarios:
        for controller in controllers:
            frames = [_service(scenario, controller, s, days, rng) for s in services]
            run = folder / "runs" / f"{scenario}--{controller}"
            run.mkdir(parents=True)
            steps = pl.concat([f for f, _ in frames])
            tables.write(tables.conform(steps, "service_steps", "test"), run / "service_steps.parquet")
            tables.write(_pool(steps, scenario, days), run / "pool_steps.parquet")
            tables.write(_decisions(steps, controller, rng), run / "decisions.parquet")
            rows += _kpis(scenario, controller, steps, services[0], rng)
    forecasts = [_forecasts(name, days, services[0], rng) for name in ("flax_quantile", "seasonal_naive", "ets")]
    results = pl.DataFrame(rows, schema=[c.name for c in tables.schema("results")], orient="row")
    tables.write(tables.conform(results, "results", "test"), folder / "tables/results.parquet")
    tables.write(_summary(results), folder / "tables/summary.parquet")
    tables.write(pl.concat(forecasts), folder / "tables/forecasts.parquet")
    tables.write(_scores(pl.concat(forecasts)), folder / "tables/forecast_scores.parquet")
    _facts(folder, days, services)
    last = pl.read_parquet(folder / f"runs/{scenarios[0]}--{controllers[-1]}/decisions.parquet").tail(80)
    tables.write(
        tables.conform(last.with_columns(status=pl.lit("dry-run")), "decisions", "test"),
        folder / "bridge/decisions.parquet",
    )
    return folder


def _demand(scenario: str, days: int) -> tuple[np.ndarray, np.ndarray]:
    t = np.arange(1, days * 1440 + 1) * STEP_S
    noise = np.random.default_rng(1).standard_normal(t.size)
    slow = np.convolve(noise, np.ones(90) / 90, mode="same")
    day = 1 + 0.42 * np.sin(2 * np.pi * (t / 86_400 - 0.35)) + 0.1 * np.sin(4 * np.pi * t / 86_400)
    demand = 1800 * day * (1 - 0.12 * (((t // 86_400) % 7) >= 5)) * (1 + 0.9 * slow + 0.02 * noise)
    if scenario == "surge":
        demand = demand * (1 + 1.1 * np.exp(-(((t - 3.5 * 86_400) / 9_000) ** 2)))
    return t, np.clip(demand, 50, None)


def _wish(controller: str, demand: np.ndarray) -> np.ndarray:
    smooth = np.convolve(np.pad(demand, (14, 0), mode="edge"), np.ones(15) / 15, mode="valid")
    level = {
        "hold": np.full(demand.size, demand.mean() / 0.72),
        "static": np.full(demand.size, np.quantile(demand, 0.995) / 0.9),
        "hpa": np.roll(smooth, 14) / 0.8,
        "forecast_led": np.maximum(np.roll(smooth, -10), smooth) / 0.84,
        "ppo": np.maximum(np.roll(smooth, -4), smooth) / 0.88,
    }.get(controller, smooth / 0.75)
    every = np.repeat((level / REPLICA_RPS)[::15], 15)[: demand.size]
    return np.ceil(every).astype(int)


def _service(scenario, controller, service, days, rng):
    t, demand = _demand(scenario, days)
    wanted = _wish(controller, demand)
    lag = 3 if controller in ("forecast_led", "ppo") else 5
    ready = np.minimum(np.roll(wanted, lag), wanted)
    if scenario == "node_failures":
        ready = np.where(_down(t), np.ceil(ready * 0.8), ready).astype(int)
    arrived = demand * STEP_S
    load = demand / (ready * REPLICA_RPS) * (1 + 0.03 * rng.standard_normal(t.size))
    late = 1 / (1 + np.exp(-(load - 1.02) * 45))
    late = np.where(late < 1e-4, 0.0, late)
    frame = pl.DataFrame(
        {
            "time_s": t,
            "service": service,
            "arrived_requests": arrived,
            "served_requests": arrived * (1 - late * 0.3),
            "late_requests": arrived * late * 0.7,
            "dropped_requests": arrived * late * 0.3,
            "queue_requests": np.clip((load - 1) * 400, 0, None),
            "latency_p95_s": 0.18 + late * 2.0,
            "busy_replica_s": np.minimum(load, 1) * ready * STEP_S,
            "ready_replica_s": ready * STEP_S,
            "wanted_replicas": wanted,
            "ready_replicas": ready,
            "starting_replicas": np.clip(wanted - ready, 0, None),
            "pending_replicas": 0,
        }
    )
    if scenario == "recorded" and days > 5:  # three hours of lost telemetry
        frame = frame.filter(~pl.col("time_s").is_between(4.5 * 86_400, 4.625 * 86_400))
    return frame, demand


def _down(t):
    return ((t > 2.2 * 86_400) & (t < 2.32 * 86_400)) | ((t > 5.6 * 86_400) & (t < 5.65 * 86_400))


def _pool(steps, scenario, days):
    total = steps.group_by("time_s").agg(pl.col("wanted_replicas").sum()).sort("time_s")
    t = total["time_s"].to_numpy()
    nodes = np.ceil(total["wanted_replicas"].to_numpy() / 8).astype(int) + 1
    failed = np.where(_down(t), 3, 0) if scenario == "node_failures" else np.zeros(t.size, int)
    frame = pl.DataFrame(
        {
            "time_s": t,
            "pool": "workers",
            "node_s": nodes * STEP_S,
            "cost_usd": nodes * STEP_S / 3600 * 0.76,
            "ready_nodes": np.maximum(nodes - failed, 0),
            "booting_nodes": 0,
            "failed_nodes": failed,
            "used_cpu_cores": total["wanted_replicas"].to_numpy() * 2.0,
        }
    )
    return tables.conform(frame, "pool_steps", "test")


def _decisions(steps, controller, rng):
    every = steps.gather_every(15)
    wanted = every["wanted_replicas"].to_numpy()
    before = np.roll(wanted, 1)
    before[0] = wanted[0]
    n = wanted.size
    limited = (rng.random(n) < 0.05) & (wanted != before)
    proposed = np.where(limited, wanted + np.sign(wanted - before) * 3, wanted)
    load = every["arrived_requests"].to_numpy() / STEP_S
    reason = [
        f"p90 of demand in 5 min is {x:,.0f} requests/s; {w} replicas keep utilisation near 80 %"
        for x, w in zip(load * 1.05, wanted, strict=True)
    ]
    frame = pl.DataFrame(
        {
            "time_s": every["time_s"],
            "policy": f"{controller}@1.0",
            "observation": [f"{k:016x}" for k in rng.integers(0, 2**62, n)],
            "kind": "replicas",
            "target": every["service"],
            "current": before,
            "proposed": proposed,
            "confidence": np.round(np.clip(0.85 + 0.1 * rng.standard_normal(n), 0, 1), 3),
            "reason": reason,
            "limited_by": np.where(limited, "rate: at most 100 % or 4 per 60 s", ""),
            "allowed": wanted,
            "status": "applied",
            "applied": wanted,
            "message": "",
            "confirmed": True,
        }
    )
    return tables.conform(frame, "decisions", "test")


def _kpis(scenario, controller, steps, service, rng):
    late = float((steps["late_requests"] + steps["dropped_requests"]).sum() / steps["arrived_requests"].sum())
    ready_h = float(steps["ready_replica_s"].sum()) / 3600
    changes = float((steps["wanted_replicas"].diff() != 0).sum())
    base = [
        ("cost_usd", "cluster", ready_h / 8 * 0.76, "USD", "lower"),
        ("node_h", "cluster", ready_h / 8, "h", "lower"),
        ("late_ratio", service, late, "ratio", "lower"),
        ("slo_violation_min", service, late * 9000, "min", "lower"),
        ("latency_p95_s", service, 0.2 + 4 * late, "s", "lower"),
        (
            "utilisation_ratio",
            service,
            float(steps["busy_replica_s"].sum() / steps["ready_replica_s"].sum()),
            "ratio",
            "higher",
        ),
        ("replica_h", service, ready_h, "h", "lower"),
        ("dropped_requests", service, float(steps["dropped_requests"].sum()), "request", "lower"),
        ("scale_events", service, changes, "count", "lower"),
        ("limited_ratio", service, 0.02 if changes else 0.0, "ratio", "lower"),
    ]
    noise = {seed: 1 + 0.04 * rng.standard_normal() for seed in range(5)}
    return [
        (controller, scenario, seed, kpi, entity, value * noise[seed], unit, better)
        for seed in range(5)
        for kpi, entity, value, unit, better in base
    ]


def _summary(results):
    keys = ["controller", "scenario", "kpi", "entity", "unit", "better"]
    wide = results.group_by(keys, maintain_order=True).agg(
        seeds=pl.len(), value=pl.col("value").mean(), low=pl.col("value").min(), high=pl.col("value").max()
    )
    base = wide.filter(controller="hpa").select("scenario", "kpi", "entity", pl.col("value").alias("base"))
    joined = wide.join(base, on=["scenario", "kpi", "entity"], how="left", maintain_order="left")
    over = pl.when(pl.col("base") > 0).then(pl.col("base"))
    frame = joined.with_columns(
        ratio=pl.col("value") / over,
        ratio_low=pl.col("low") / over,
        ratio_high=pl.col("high") / over,
        baseline=pl.lit("hpa"),
    )
    return tables.conform(frame.drop("base"), "summary", "test")


def _forecasts(name, days, service, rng):
    demand = _demand("recorded", days)[1]
    y = demand.reshape(-1, 5).mean(axis=1) / UNIT_RPS
    start = np.arange(y.size) * 300.0
    spread = {"flax_quantile": 0.05, "ets": 0.08}.get(name, 0.12)
    rows = []
    for cutoff in range(288, y.size - 12, 12):
        step = np.arange(1, 13)
        sigma = spread * np.sqrt(step / 6) * y[cutoff]
        centre = y[cutoff : cutoff + 12] + sigma * rng.standard_normal(12) * 0.9
        z = np.array([-1.2816, -0.8416, -0.5244, -0.2533, 0, 0.2533, 0.5244, 0.8416, 1.2816])
        narrow = 0.7 if name == "ets" else 1.0
        qs = centre[:, None] + sigma[:, None] * z * narrow
        rows.append(
            pl.DataFrame(
                {
                    "forecaster": name,
                    "unique_id": service,
                    "cutoff_s": start[cutoff],
                    "step": step,
                    "time_s": start[cutoff : cutoff + 12],
                    "y": y[cutoff : cutoff + 12],
                    **{f"q{10 * (k + 1)}": qs[:, k] for k in range(9)},
                }
            )
        )
    return tables.conform(pl.concat(rows), "forecasts", "test")


def _scores(forecasts):
    frame = forecasts.group_by("forecaster", "unique_id", maintain_order=True).agg(
        origins=pl.col("cutoff_s").n_unique(),
        wape=(pl.col("y") - pl.col("q50")).abs().sum() / pl.col("y").sum(),
        coverage_80=pl.col("y").is_between(pl.col("q10"), pl.col("q90")).mean(),
    )
    frame = frame.with_columns(
        horizon=pl.lit("1-12"),
        accuracy_percent=100 * (1 - pl.col("wape")),
        scaled_crps=pl.col("wape") * 0.72,
        mase=pl.col("wape") * 9,
        skill=1 - pl.col("wape") / pl.col("wape").max(),
    )
    return tables.conform(frame, "forecast_scores", "test")


def _facts(folder: Path, days: int, services) -> None:
    service = {
        "unit_rps": UNIT_RPS, "cpu_cores": 2.0, "memory_gib": 4.0, "service_time_s": 0.16,
        "concurrency": 4, "slo_s": 0.5, "slo_target": 0.95, "timeout_s": 10.0, "max_replicas": 200,
    }  # fmt: skip
    facts = {
        "identity.json": {
            "format_version": 1,
            "verb": "benchmark",
            "name": "flash_crowd",
            "run_id": "benchmark-flash_crowd-1f3a9c",
            "seed": 7,
            "trace": {
                "name": "google2019",
                "digest": "8d1f0c6a53b94e72",
                "source": "Google Borg cluster traces 2019, cell a",
                "licence": "CC-BY 4.0",
                "notes": ["averaged to 300 s steps by the publisher", f"cut to [0, {days * 86400}) s of google2019"],
                "missing": ["jobs", "prices"],
            },
            "cluster": {
                "name": "demo",
                "pools": [{"name": "workers", "cpu_cores": 16.0, "memory_gib": 64.0, "price_usd_h": 0.76, "nodes": 8}],
                "services": [{"name": s, **service} for s in services],
            },
            "command": "python -m experiments.benchmark experiment=flash_crowd seed=7",
            "overrides": ["experiment=flash_crowd", "seed=7"],
            "git": {"commit": "c3e3d77a90b1f5e2", "dirty": True},
            "versions": {"numpy": "2.4.0", "polars": "2.1.0", "simpy": "4.1.2", "altair": "6.3.0"},
            "status": "completed",
            "reason": "",
        },
        "timing.json": {
            "wall_s": 214.6,
            "phases": {"read trace": 0.8, "train ppo": 121.0, "benchmark": 80.2, "judge": 6.1, "bridge": 4.0},
            "peak_memory_gib": 1.31,
        },
        "fidelity.json": {
            "rows": [dict(zip(_FIDELITY, row, strict=True)) for row in _REPLAYED],
            "assumptions": [
                "One unit of recorded demand stands for 2,000 requests/s.",
                "Service times do not depend on the node.",
            ],
        },
        "verdicts/ppo.json": {
            "decision": "refuse",
            "candidate": "ppo",
            "baseline": "hpa",
            "confidence": 0.91,
            "sentence": "Refused: ppo costs 16 % less than hpa, but answers more requests late in surge "
            "than the rule allows.",
            "checks": [dict(zip(_CHECK, check, strict=True)) for check in _CHECKS],
        },
        "verdicts/forecast_led.json": {
            "decision": "pass",
            "candidate": "forecast_led",
            "baseline": "hpa",
            "confidence": 0.97,
            "sentence": "Passed: forecast_led is later on 38 % fewer requests than hpa at 12 % less cost, "
            "in all three scenarios.",
            "checks": [dict(zip(_CHECK, _CHECKS[0], strict=True))],
        },
        "bridge/report.json": {
            "mode": "dry-run",
            "status": "completed",
            "decisions": 80,
            "limited": 4,
            "lost": 0,
            "handed_over": 2,
            "mean_difference": 0.42,
            "ledger_records": 83,
            "bundle": "ppo@1.0 sha256:77aa01",
        },
        "learning.json": {
            "curves": [
                {"policy": "ppo", "seed": seed, "step": k * 2048, "reward": _reward(k, seed)}
                for seed in range(4)
                for k in range(60)
            ]
        },
    }
    for name, content in facts.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    defaults = (
        "seed: 0\ntrace:\n  reader: google2019\n  days: 7\n"
        "controller:\n  name: hpa\n  interval_s: 30\nsuite:\n- recorded\n"
    )
    changed = defaults.replace("seed: 0", "seed: 7").replace("interval_s: 30", "interval_s: 15")
    (folder / "defaults.yaml").write_text(defaults, encoding="utf-8")
    (folder / "config.yaml").write_text(f"{changed}- surge\n- node_failures\n", encoding="utf-8")


def _reward(k, seed):
    return float(-40 * np.exp(-k / 18) - 6 + np.sin(k * 1.7 + seed) + 0.4 * seed)


_FIDELITY = ("quantity", "recorded", "replayed", "unit", "error", "note")
_REPLAYED = (
    ("mean CPU use", 0.482, 0.479, "ratio", 0.0062, ""),
    ("p95 CPU use", 0.731, 0.746, "ratio", 0.0205, "bursts are drawn"),
    ("demand", 1812.4, 1812.9, "requests/s", 0.0003, "mean over the trace"),
    ("node boot", None, 121.0, "s", None, "not in the recording"),
)
_CHECK = ("name", "rule", "threshold", "value", "low", "high", "result", "evidence", "remedy")
_CHECKS = (
    ("cost", "costs no more than the baseline", 1.0, 0.842, 0.815, 0.871, "pass", "tables/summary.parquet", ""),
    (
        "late requests in surge",
        "late ratio at most 1.05 x baseline",
        *(1.05, 1.31, 1.12, 1.52, "refuse", "runs/surge--ppo"),
        "train on surges: scenario=surge, or widen the confidence guard",
    ),
    ("twin fidelity", "replay error at most 5 %", 0.05, 0.0205, None, None, "pass", "fidelity.json", ""),
    (
        "held-out cluster",
        "rank correlation at least 0.8",
        *(0.8, None, None, None, "cannot tell", "one cluster only"),
        "add a second trace: trace=alibaba2018",
    ),
)
