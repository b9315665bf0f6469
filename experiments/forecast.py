"""`python -m experiments.forecast`: the next steps of each of a trace's series, each with a sentence that says why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from omegaconf import DictConfig, OmegaConf

import twin
from agents.forecast.adaptive import Adaptive
from agents.forecast.base import Forecaster, Progress
from agents.forecast.conformal import Conformal
from agents.forecast.ensemble import Stack
from agents.forecast.frames import Series
from agents.forecast.rolling import past_at
from experiments import cell, present, verb
from experiments.display import Display
from experiments.forecasts import forecast_answers, forecast_series
from experiments.forecasts.forecast_answers import Answer, Models
from experiments.forecasts.forecast_series import Recorded
from experiments.rundir import RunFolder
from twin.errors import UsageError, WorkbenchError


def study(cfg: DictConfig, folder: RunFolder, display: Display) -> list[str]:
    """Fit, forecast, explain and write the tables; returns what failed, in words."""
    _check(cfg)
    growths = forecast_answers.growths(cell.plain(cfg.scenarios) or {})
    now = forecast_series.recorded(cell.read_trace(cfg.trace), cfg.step_s, cfg.resources, cfg.until_s)
    beside = [each for name in cfg.extra_traces for each in _beside(cfg, name)]
    for note in now.notes:
        display.line(f"{note.unique_id}: {note.what}, {note.steps} steps: {note.note}")
    asked = built(cfg, "forecaster")
    with folder.phase("fit"), display.phase(f"fit {asked.name} on {len(now.series)} series") as advance:
        fitted = forecast_answers.models(asked, now.series, beside, cfg.seed, advance)
    for text in silent(fitted, now.series, cfg.horizon_steps):
        display.line(text)
    failed = [f"{unique_id}: {reason}" for unique_id, reason in now.refused.items()]
    with folder.phase("forecast"), display.phase("forecast and explain") as advance:
        answers = _answers(cfg, now, fitted, failed, advance)
    if not answers:
        raise UsageError(f"none of {len(failed)} series can be forecast; {failed[0]}")
    came = [now.came(each.series, cfg.horizon_steps) for each in answers]
    for name, table in forecast_answers.tables(answers, asked.name, came, growths).items():
        folder.table(name, table)
    for each in answers:
        display.result(each.explanation.text)
    if cfg.onnx:
        failed += _exported(cfg, folder, now, fitted, display)
    return failed


def _check(cfg: DictConfig) -> None:
    if str(cfg.step_s) not in cfg.grids:
        raise UsageError(f"step_s={cfg.step_s}: settings are known for {', '.join(cfg.grids)} s; add some to grids")
    if cfg.horizon_steps < 1:
        raise UsageError(f"horizon_steps={cfg.horizon_steps} must be 1 or more")
    for key in ("forecaster", "fallback"):
        _check_checkpoint(cfg, key)


def _check_checkpoint(cfg: DictConfig, key: str) -> None:
    """A forecaster that learns nothing has a checkpoint of this step, or is refused before anything is read."""
    if _option(cfg, key) != "cold_start":
        return
    found = _configured(cfg, key)
    absent = [name for name in ("base.start", "lookback", "widened") if OmegaConf.select(found, name) is None]
    if absent:
        raise UsageError(
            f"{key}=cold_start learns nothing, and no checkpoint comes with the project for step_s={cfg.step_s}; "
            f"choose another forecaster, or give one of your own: {', '.join(f'{key}.{name}=' for name in absent)}"
        )


def built(cfg: DictConfig, key: str) -> Forecaster:
    """The forecaster under `key`, with what the grid says of it, and after that what the command line says."""
    return cell.build(_configured(cfg, key))


def _configured(cfg: DictConfig, key: str) -> DictConfig:
    told = [text.lstrip("+") for text in verb.overrides()]
    given = OmegaConf.from_dotlist([text for text in told if text.startswith(f"{key}.")])
    parts = (cell.plain(cfg[key]), cell.plain(cfg.on_grid.get(_option(cfg, key), {})), given.get(key, {}))
    merged = OmegaConf.merge(*parts)
    assert isinstance(merged, DictConfig)
    return merged


def _option(cfg: DictConfig, key: str) -> str:
    """The option of conf/forecaster that was chosen under `key`; outside a job of Hydra, that of the same name."""
    group = key if key == "forecaster" else f"forecaster@{key}"
    chosen = verb.choice(group)
    return chosen if chosen != group else cell.build(cfg[key]).name


def silent(fitted: Models, series: Sequence[Series], h: int) -> list[str]:
    """A line for each member of an ensemble that has a part in the forecast of none of the series, with the reason."""
    found = next((model for model in fitted.values() if not isinstance(model, str)), None)
    while isinstance(found, Adaptive | Conformal):
        found = found.base
    if not isinstance(found, Stack):
        return []
    reasons = {name: _silence(found, k, series, h) for k, name in enumerate(found.members)}
    return [f"{found.name}: {name} answers for no series: {why}" for name, why in reasons.items() if why]


def _silence(stack: Stack, k: int, series: Sequence[Series], h: int) -> str:
    """Why the `k`-th member has no part in any forecast, "" where it has one."""
    member = list(stack.members.values())[k]
    why = ""
    for each in series:
        weights = stack.weights.get(each.unique_id, stack.weights[""])
        try:
            member.forecast(past_at(each, np.array([len(each.values)]), member.context, h), h)
        except UsageError as error:
            why = str(error).removeprefix(f"{member.name}: ")
        else:
            if weights[k] > 0.0:
                return ""
            why = why or "its errors on the newest part earned it no weight"
    return why


def _beside(cfg: DictConfig, name: str) -> tuple[Series, ...]:
    """The series of another trace, to learn from; what lies after `until_s` on its own clock is not left out."""
    return forecast_series.recorded(twin.read(name), cfg.step_s).series


def _answers(cfg: DictConfig, now: Recorded, fitted: Models, failed: list[str], advance: Progress) -> list[Answer]:
    """The answer for each series that has one; `failed` is told of those by the fallback, and of those without."""
    simple = built(cfg, "fallback")
    safe = forecast_answers.models(simple, now.series, [], cfg.seed)
    answers = []
    for k, series in enumerate(now.series):
        name = series.unique_id
        try:
            found = forecast_answers.answer(fitted[name], safe[name], series, cfg.horizon_steps, now.wordings[name])
        except UsageError as error:
            failed.append(f"{name}: {error}")
            continue
        if found.fallback:
            failed.append(f"{name}: {found.fallback}; {simple.name} answered")
        answers.append(found)
        advance((k + 1) / len(now.series), name)
    return answers


def _exported(cfg: DictConfig, folder: RunFolder, now: Recorded, fitted: Models, display: Display) -> list[str]:
    units = {name: wording.unit for name, wording in now.wordings.items()}
    try:
        with folder.phase("export"):
            apart = forecast_answers.export_all(fitted, now.series, cfg.horizon_steps, folder.path / "onnx", units)
    except WorkbenchError as error:
        return [f"onnx: {error}"]
    for name, distance in apart.items():
        display.result(f"onnx/{name}: the graph differs from the original by {distance:.1e} of the 80 % band at most")
    folder.note(onnx=apart)
    return []


def task(cfg: DictConfig, display: Display) -> int:
    """Forecast, write the run folder and its report; returns the exit code (4 when a fallback answered)."""
    trace = cell.read_trace(cfg.trace)
    display.line(present.identity_line("forecast", cfg, trace))
    with RunFolder(Path(cfg.out)) as folder:
        folder.identify(cfg, "forecast", trace, verb.command("forecast"), verb.overrides())
        failed = study(cfg, folder, display)
        folder.status("partly failed" if failed else "completed", "; ".join(failed))
    return verb.conclude(folder.final, cfg, display, failed)


def main() -> None:
    """The entry point."""
    verb.main("forecast", task)


if __name__ == "__main__":
    main()
