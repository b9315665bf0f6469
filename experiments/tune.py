"""`python -m experiments.tune`: what one configuration of a forecaster is worth on what may be learned from alone.

Of each series the last part, which judges in `experiments.accuracy`, is cut off before anything else happens. Of the
rest the first part is learned from and the second judges. A sweep (`--multirun`) ends with a page that compares its
configurations series by series. Of its tables, `kpis` alone holds wall times.
"""

from __future__ import annotations

import json
import math
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from agents.forecast.backtest import Plan
from agents.forecast.base import Floats, Forecaster, Past, Progress
from agents.forecast.frames import Series, first
from agents.forecast.rolling import Origins, roll
from agents.forecast.scoring import ALL
from experiments import cell, display, forecast, present, sweep, verb
from experiments.display import Display
from experiments.forecasts import accuracy_levels, accuracy_rolls, panels
from experiments.forecasts.accuracy_levels import NATIVE
from experiments.forecasts.accuracy_rolls import Protocol
from experiments.rundir import FORMAT_VERSION, RunFolder, write_json
from reports import folder as folders
from reports import wording
from twin.errors import UsageError
from twin.trace import tables

KIND = "tuning"
_LEAST_RATIO = 1e-6  # as in `accuracy_levels`: a ratio of 0 has no logarithm
_ASIDE = ("out", "display", "tracking", "name")  # settings that change no result
_KPIS = (
    ("score", "ratio", "lower"),
    ("mae_ratio", "ratio", "lower"),
    ("accuracy_percent", "percent", "higher"),
    ("coverage_80", "ratio", "neither"),
    ("fit_s", "s", "lower"),
    ("forecast_ms", "ms", "lower"),
)
_BESIDE = tuple(name for name, _, _ in _KPIS[1:])  # the score itself is pooled over seeds series by series


# ---------------------------------------------------------------- one job


@dataclass(frozen=True, slots=True)
class Clock:
    """Wall seconds of every fit, and of a forecast from one origin for every series."""

    fit_s: list[float] = field(default_factory=list)
    forecast_s: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Timed:
    """The same forecaster with a clock beside it."""

    inner: Forecaster
    clock: Clock

    @property
    def name(self) -> str:
        """That of the inner one."""
        return self.inner.name

    @property
    def context(self) -> int:
        """That of the inner one."""
        return self.inner.context

    @property
    def needs(self) -> int:
        """That of the inner one."""
        return self.inner.needs

    @property
    def pooled(self) -> bool:
        """As the inner one."""
        return self.inner.pooled

    def fit(self, series: Sequence[Series], seed: int, progress: Progress | None = None) -> Self:
        """The fitted one, under the same clock."""
        begun = time.perf_counter()
        fitted = self.inner.fit(series, seed, progress)
        self.clock.fit_s.append(time.perf_counter() - begun)
        return replace(self, inner=fitted)

    def forecast(self, past: Past, h: int) -> Floats:
        """What the inner one says."""
        return self.inner.forecast(past, h)

    def roll(self, series: Series, origins: Origins, h: int) -> Floats:
        """What the inner one says from each origin."""
        begun = time.perf_counter()
        said = roll(self.inner, series, origins, h).said
        self.clock.forecast_s.append((time.perf_counter() - begun) / len(origins))
        return said


@dataclass(frozen=True, slots=True)
class Trial:
    """What is judged: a forecaster, and the series up to where the last part begins, with their origins."""

    forecaster: Forecaster
    plans: tuple[Plan, ...]
    protocol: Protocol
    key: str

    @classmethod
    def of(cls, cfg: DictConfig) -> Self:
        """The trial that a configuration asks for; raises UsageError when a series leaves no room for an origin."""
        data = None if cfg.data is None else verb.require(cfg.data, "data", "give the folder of recordings, or null")
        protocol = Protocol(cfg.horizon_steps, cfg.origins, cfg.validate_from, cfg.seed)
        series = first(panels.panel(cfg.level, cfg.grid, data), cfg.train_share)
        try:
            plans = tuple(protocol.plan(each) for each in series)
        except UsageError as error:
            cut = f"validate_from={cfg.validate_from} of train_share={cfg.train_share}"
            raise UsageError(f"{cut}: {error}; leave more to judge") from error
        forecaster = forecast.built(cfg, "forecaster")
        settings = {name: cell.plain(cfg[name]) for name in map(str, cfg) if name not in _ASIDE}
        asked = {"settings": settings, "forecaster": repr(forecaster)}
        return cls(forecaster, plans, protocol, accuracy_rolls.key(asked, forecaster, plans, [], protocol))


def study(cfg: DictConfig, trial: Trial, folder: RunFolder, display: Display) -> list[str]:
    """Fit, judge and write the tables; returns what failed, in words."""
    name, clock = trial.forecaster.name, Clock()
    with folder.phase("judge"), display.phase(f"fit and judge {name} on {len(trial.plans)} series") as advance:
        found = accuracy_rolls.rolls(Timed(trial.forecaster, clock), trial.plans, [], trial.protocol, advance)
    h, day_steps = trial.protocol.h, cfg.day_steps
    judged = {NATIVE: accuracy_rolls.native(trial.plans, h, day_steps), name: found}
    scores = accuracy_rolls.scores(cfg.level, cfg.grid, day_steps, trial.plans, judged, h)
    folder.table("accuracy_scores", scores)
    values = _values(scores, name, clock, cfg.seed)
    folder.table("kpis", _kpis(values))
    folder.note(key=trial.key, forecaster=name, level=cfg.level, grid=cfg.grid)
    display.table(f"{name}, {cfg.level} {cfg.grid}: against the native seasonal naive", pl.DataFrame([values]))
    return [f"{unique_id}: {why}" for unique_id, why in found.failures.items()]


def _values(scores: pl.DataFrame, name: str, clock: Clock, seed: int) -> dict[str, float]:
    own, native = (_pooled(scores).filter(forecaster=each) for each in (name, NATIVE))
    level = accuracy_levels.levels(scores, seed).row(by_predicate=pl.col("forecaster") == name, named=True)
    mae = accuracy_levels.geometric_mean(accuracy_levels.ratios(own, native, "mae"), seed, f"{name}/mae")
    told = {"score": level["crps_ratio"], "mae_ratio": mae[0]}
    told |= {each: level[each] for each in ("accuracy_percent", "coverage_80")}
    return told | {"fit_s": sum(clock.fit_s), "forecast_ms": 1e3 * float(np.median(clock.forecast_s or [math.nan]))}


def _pooled(scores: pl.DataFrame) -> pl.DataFrame:
    return scores.filter(horizon=accuracy_levels.widest(scores), regime=ALL).sort("unique_id")


def _kpis(values: Mapping[str, float]) -> pl.DataFrame:
    rows = [
        {"kpi": kpi, "entity": "all series", "value": _known(values[kpi]), "unit": unit, "better": better}
        for kpi, unit, better in _KPIS
    ]
    return pl.DataFrame(rows, schema_overrides={"value": pl.Float64})


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _done(place: Path, key: str) -> folders.Facts | None:
    """The identity of the run in that folder, None where there is none; raises UsageError when it is another trial."""
    if not (place / "identity.json").is_file():
        return None
    identity = folders.identity_of(place)
    if identity.get("key") != key:
        raise UsageError(
            f"{place} is not empty: its run had other settings or series, or another code of agents.forecast; "
            "choose another out=... or, for a sweep, another hydra.sweep.dir=..."
        )
    return identity


def task(cfg: DictConfig, display: Display) -> int:
    """Judge, write the run folder and its report; returns the exit code (4 when a series failed).

    A folder that already holds this very trial is left as it is: a sweep that was cut off goes on where it stood.
    """
    display.line(present.identity_line("tune", cfg, None))
    trial, out = Trial.of(cfg), Path(cfg.out)
    before = _done(out, trial.key)
    if before is not None:
        display.line(f"nothing to do: {out} holds this trial")
        return verb.PARTLY if before["status"] == "partly failed" else verb.DONE
    with RunFolder(out) as folder:
        folder.identify(cfg, "tune", None, verb.command("tune"), verb.overrides())
        failed = study(cfg, trial, folder, display)
        folder.status("partly failed" if failed else "completed", "; ".join(failed))
    return verb.conclude(folder.final, cfg, display, failed)


# ---------------------------------------------------------------- a sweep


@dataclass(frozen=True, slots=True)
class Job:
    """One job of a sweep: what was set in it, what it left, and why it has no score ("" where it has one)."""

    number: str
    settings: Mapping[str, str]
    folder: Path
    error: str

    def scores(self, *, native: bool) -> pl.DataFrame:
        """A row per series, all steps and origins pooled: of the native seasonal naive, or of what was judged."""
        found = tables.read(self.folder / "tables" / "accuracy_scores.parquet", "accuracy_scores")
        return _pooled(found).filter((pl.col("forecaster") == NATIVE) == native)

    def logs(self) -> Floats:
        """Of each series the logarithm of its CRPS over that of the native seasonal naive."""
        ratios = accuracy_levels.ratios(self.scores(native=False), self.scores(native=True), "crps")
        return np.log(np.maximum(ratios, _LEAST_RATIO))

    def kpis(self) -> dict[str, float | None]:
        """By name."""
        return dict(tables.read(self.folder / "tables" / "kpis.parquet", "kpis").select("kpi", "value").iter_rows())


class Comparison(Callback):
    """Compares a sweep's configurations when all its jobs are done."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:  # noqa: ANN401 - Hydra's signature
        """Write the table `tuning` and a page into the sweep's folder, and say which configuration is best."""
        place, show = Path(config.hydra.sweep.dir), display.make(config.display)
        HydraConfig.instance().set_config(config)  # jobs in other processes did not tell this one where they ran
        command = shlex.join(["python", "-m", "experiments.tune", "--multirun", *config.hydra.overrides.task])
        try:
            show.result(conclude(place, config.seed, command))
        except UsageError as error:
            show.line(f"no comparison: {error}")
            return
        try:
            from reports import tuning

            show.result(str(tuning.write(place)))  # imports what draws only when it draws
        except ModuleNotFoundError as error:
            show.line(f"no page: {error.name} is not installed")


def conclude(place: Path, seed: int, command: str) -> str:
    """The finding about the sweep in `place`, in words; writes its `identity.json` and its table `tuning`.

    Raises UsageError when nothing was scored, or jobs were not judged on the same series, steps and origins.
    """
    found = jobs(place)
    table = compared(found, seed)
    sentence = finding(table)
    identity = folders.identity_of(next(job.folder for job in found if not job.error))
    named = {key: identity[key] for key in ("name", "forecaster", "level", "grid", "git", "versions")}
    about = {"format_version": FORMAT_VERSION, "kind": KIND, "verb": "tune", "command": command, "sentence": sentence}
    (place / "tables").mkdir(exist_ok=True)
    tables.write(tables.conform(table, KIND, str(place)), place / "tables" / f"{KIND}.parquet")
    write_json(place / "identity.json", {**named, **about})
    return sentence


def jobs(place: Path) -> list[Job]:
    """The ended jobs of the sweep in that folder, each with those of its settings that not all have alike."""
    noted = sweep.notes(place)
    given = [sweep.columns(note["overrides"]) for _, note in noted]
    keys = dict.fromkeys(key for each in given for key in each if key not in ("seed", *_ASIDE))
    differing = [key for key in keys if len({each.get(key) for each in given}) > 1]
    made = []
    for (number, note), each in zip(noted, given, strict=True):
        folder, error = Path(note["folder"]), note["error"]
        if not error and note["exit_code"]:
            error = str(folders.identity_of(folder)["reason"])
        made.append(Job(number, {key: each[key] for key in differing if key in each}, folder, error))
    return made


def compared(found: Sequence[Job], seed: int) -> pl.DataFrame:
    """The `tuning` table: a row per configuration, the best first, those without a score last.

    A configuration is scored when all its jobs are; over seeds, the logarithms of a series' ratios are averaged.
    """
    _check_alike([job for job in found if not job.error])
    groups: dict[str, list[Job]] = {}
    for job in found:
        groups.setdefault(json.dumps(job.settings), []).append(job)
    logs = {
        name: np.mean([job.logs() for job in group], axis=0)
        for name, group in groups.items()
        if not any(job.error for job in group)
    }
    if not logs:
        raise UsageError("no configuration was scored in all its jobs")
    best = min(logs, key=lambda name: float(logs[name].mean()))
    rows = [_row(name, group, logs.get(name), logs[best], seed) for name, group in groups.items()]
    dtypes = {column.name: column.dtype for column in tables.schema(KIND)}
    return pl.DataFrame(rows, schema=dtypes).sort("score", nulls_last=True, maintain_order=True)


def _check_alike(scored: Sequence[Job]) -> None:
    columns = ("level", "grid", "unique_id", "origins", "crps")
    judged = [job.scores(native=True).select(columns) for job in scored]
    odd = next((job.number for job, each in zip(scored, judged, strict=True) if not each.equals(judged[0])), None)
    if odd is not None:
        raise UsageError(
            f"job {odd} was judged on other series, steps or origins than job {scored[0].number}; "
            "sweep over what is set of the forecaster, and run a sweep for each level, grid or cut"
        )


def _row(name: str, group: Sequence[Job], logs: Floats | None, best: Floats, seed: int) -> dict[str, Any]:
    row = {"settings": name, "jobs": ", ".join(job.number for job in group), "seeds": len(group), "series": len(best)}
    if logs is None:
        return {**row, "error": next(job.error for job in group if job.error)}
    for column, values in (("score", logs), ("to_best", logs - best)):
        ends = accuracy_levels.geometric_mean(np.exp(values), seed, f"{name}/{column}")
        row |= dict(zip((column, f"{column}_low", f"{column}_high"), map(_known, ends), strict=True))
    told = [job.kpis() for job in group]
    known = {kpi: [value for each in told if (value := each[kpi]) is not None] for kpi in _BESIDE}
    return row | {kpi: float(np.mean(values)) if values else None for kpi, values in known.items()}


def finding(table: pl.DataFrame) -> str:
    """One sentence about the best configuration, and one about whether the second differs from it beyond noise."""
    scored = table.drop_nulls("score").to_dicts()
    best = scored[0]
    ends = wording.interval(best["score_low"], best["score_high"])
    said = f"Best of {len(scored)}: {_named(best)}, score {wording.number(best['score'])}{f' ({ends})' if ends else ''}"
    said += f" over {best['series']} series."
    if len(scored) == 1:
        return said
    second = scored[1]
    ends = wording.interval(second["to_best_low"], second["to_best_high"])
    apart = f"The second, {_named(second)}, has {wording.number(second['to_best'])} times its CRPS"
    if not ends:
        return f"{said} {apart}: too few series to tell that from noise."
    beyond = second["to_best_low"] > 1.0
    return f"{said} {apart} ({ends}), series by series: {'more than' if beyond else 'no more than'} noise."


def _named(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in json.loads(row["settings"]).items()) or "all settings alike"


def main() -> None:
    """The entry point."""
    verb.main("tune", task)


if __name__ == "__main__":
    main()
