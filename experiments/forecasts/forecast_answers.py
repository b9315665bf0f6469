"""Who answers for each series of `forecast`, and why: the forecaster asked, or the simple one where it fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from agents.forecast.adaptive import Adaptive
from agents.forecast.base import DECILE_NAMES, Floats, Forecaster, Past, Progress
from agents.forecast.explain.contributions import GROUPS
from agents.forecast.explain.explanation import Explanation, explain
from agents.forecast.explain.sentence import Wording
from agents.forecast.frames import Series
from agents.forecast.long import growth, structural
from agents.forecast.operation.fallback import Guarded, Limits
from agents.forecast.rolling import past_at
from twin.errors import UsageError

NOW = "last value"  # what the groups' contributions are added to
_VECTORS = 5  # recorded pasts of each series that prove an exported graph
_SHOWN_HORIZONS, _SHOWN_LEAST = 6, 24  # of the past beside a forecast, and steps
Models = Mapping[str, Forecaster | str]  # a fitted model for each series, or why there is none


@dataclass(frozen=True, slots=True)
class Answer:
    """One series' forecast.

    Attributes:
        series: up to now.
        wording: how it is spoken of.
        explanation: the forecast, who made it, and why it is what it is.
        fallback: why it is not the forecaster asked that made it, "" where it is.
    """

    series: Series
    wording: Wording
    explanation: Explanation
    fallback: str

    @property
    def said(self) -> Floats:
        """The deciles [h, 9]."""
        return self.explanation.contributions.said

    @property
    def ahead_s(self) -> Floats:
        """When the steps that are forecast begin [h]."""
        return self.explanation.origin_s + self.series.step_s * np.arange(len(self.said), dtype=np.float64)


def models(
    asked: Forecaster, series: Sequence[Series], beside: Sequence[Series], seed: int, progress: Progress | None = None
) -> Models:
    """The fitted model of each series, or why it could not be fitted.

    A pooled forecaster learns from all of them and from those `beside`; any other from each alone, so that one that
    cannot be fitted leaves the others theirs.
    """
    if asked.pooled:
        found = _fitted(asked, [*series, *beside], seed, progress)
        return {each.unique_id: found for each in series}
    fitted: dict[str, Forecaster | str] = {}
    for k, each in enumerate(series):
        fitted[each.unique_id] = _fitted(asked, [each], seed, None)
        if progress:
            progress((k + 1) / len(series), each.unique_id)
    return fitted


def _fitted(asked: Forecaster, series: Sequence[Series], seed: int, progress: Progress | None) -> Forecaster | str:
    try:
        fitted = asked.fit(series, seed, progress)
        # asked once, and then many times to explain: its bands stay as they are now
        return fitted.settled(series) if isinstance(fitted, Adaptive) else fitted
    except Exception as error:  # any library's own class; it is told, and the fallback answers
        return f"{asked.name} could not be fitted ({type(error).__name__}: {error})"


def answer(model: Forecaster | str, simple: Forecaster | str, series: Series, h: int, wording: Wording) -> Answer:
    """The forecast of the `h` steps after the series' last one.

    Args:
        model: fitted, or why it could not be.
        simple: the same of what answers where the model fails or says what cannot be.
        series: up to now.
        h: steps ahead.
        wording: how the series is spoken of.

    Raises:
        UsageError: neither can answer.
    """
    now = len(series.values)
    reason = model if isinstance(model, str) else _fault(model, simple, series, h)
    if not isinstance(model, str) and not reason:
        try:
            made = explain(model, series, now, h, wording)
        except Exception as error:  # as in `_fitted`: it could not answer what if
            reason = f"{model.name} could not be explained ({type(error).__name__}: {error})"
        else:
            if np.isfinite(made.contributions.said).all():
                return Answer(series, wording, made, "")
            reason = f"{model.name}: not finite"
    if isinstance(simple, str):
        raise UsageError(f"{reason}, and {simple}")
    return Answer(series, wording, explain(simple, series, now, h, wording, fallback=reason), reason)


def _fault(model: Forecaster, simple: Forecaster | str, series: Series, h: int) -> str:
    """What is wrong with the model's forecast, "" for nothing, or where nobody could stand in for it."""
    if len(series.values) < model.needs:
        return f"{model.name}: needs {model.needs} steps of history, and {len(series.values)} are on record"
    if isinstance(simple, str):
        return ""
    guarded = Guarded(model, simple, Limits(worse=None)).trained([series])
    guarded.forecast(past_at(series, np.array([len(series.values)]), guarded.context, h), h)
    switch = guarded.since().get(series.unique_id)
    return f"{model.name}: {switch.reason}" if switch else ""


def export_all(
    fitted: Models, series: Sequence[Series], h: int, out: Path, units: Mapping[str, str]
) -> dict[str, float]:
    """Write each model as an ONNX folder in `out`: its name, and how far the graph is from it in 80 % bands.

    Raises UsageError or PolicyError as `export` does, saying which forecasters can be stated as a graph.
    """
    from agents.forecast.export import export
    from agents.forecast.graphs.leaves import steps_needed

    own: dict[int, list[Series]] = {}
    for each in series:
        if not isinstance(model := fitted[each.unique_id], str):
            own.setdefault(id(model), []).append(each)
    apart = {}
    for group in own.values():
        model = fitted[group[0].unique_id]
        assert not isinstance(model, str)
        name = model.name if model.pooled else f"{model.name}--{group[0].unique_id.replace('/', '--')}"
        until_s = max(each.start_s + each.step_s * len(each.values) for each in group)
        (unit, *more) = dict.fromkeys(units[each.unique_id] for each in group)
        if isinstance(model, Adaptive) and model.lookback:
            model = model.settled(group)  # a graph remembers nothing: its bands are those of now
        past = _pasts(model, steps_needed(model), group, h)
        apart[name] = export(model, out / name, past, unit="" if more else unit, trained_until_s=float(until_s))
    return apart


def _pasts(model: Forecaster, least: int, series: Sequence[Series], h: int) -> Past:
    """Recorded pasts of every series, at least `least` steps long, the newest among them."""
    parts = []
    for each in series:
        n = len(each.values)
        origins = np.unique(np.linspace(max(least, n // 2), n, _VECTORS).astype(np.int64))
        parts.append(past_at(each, origins, model.context, h))
    arrays = ("y", "origin_s", "seen", "known", "static")
    whole = {name: np.concatenate([getattr(part, name) for part in parts]) for name in arrays}
    return replace(parts[0], ids=[unique_id for part in parts for unique_id in part.ids], **whole)


# ---------------------------------------------------------------- tables


def tables(
    answers: Sequence[Answer], asked: str, came: Sequence[Floats], assumed: Sequence[growth.Growth] = ()
) -> dict[str, pl.DataFrame]:
    """The run folder's tables by name; that of growth scenarios only where some are assumed.

    Args:
        answers: at least one.
        asked: the forecaster that should have answered.
        came: what was recorded in the steps ahead of each [h], NaN where it is to come.
        assumed: growth scenarios.

    Raises:
        UsageError: as `growth.scenarios` does.
    """
    found = {
        "forecasts": [_forecasts(each, truth) for each, truth in zip(answers, came, strict=True)],
        "forecast_explanations": [_contributions(each) for each in answers],
        "forecast_sentences": [_sentence(each, asked) for each in answers],
        "forecast_past": [_past(each) for each in answers],
        "forecast_scenarios": [_scenarios(each, assumed) for each in answers if assumed],
    }
    return {name: pl.concat(parts) for name, parts in found.items() if parts}


def _forecasts(found: Answer, came: Floats) -> pl.DataFrame:
    h = len(came)
    deciles = dict(zip(DECILE_NAMES, found.said.T, strict=True))
    steps = {"step": np.arange(1, h + 1), "time_s": found.ahead_s, "y": came}
    return pl.DataFrame({"forecaster": [found.explanation.forecaster] * h, **_head(found, h), **steps, **deciles})


def _contributions(found: Answer) -> pl.DataFrame:
    why = found.explanation.contributions
    h = len(why.said)
    names = [NOW, *GROUPS]
    parts = np.column_stack([np.full(h, why.baseline), why.by_group])
    count = parts.size
    return pl.DataFrame(
        {
            **_head(found, count),
            "step": np.repeat(np.arange(1, h + 1), len(names)),
            "time_s": np.repeat(found.ahead_s, len(names)),
            "group": names * h,
            "contribution": parts.ravel(),
            "unit": [found.wording.unit] * count,
        }
    )


def _sentence(found: Answer, asked: str) -> pl.DataFrame:
    made = found.explanation
    row = {
        "unique_id": made.unique_id,
        "cutoff_s": made.origin_s,
        "asked": asked,
        "forecaster": made.forecaster,
        "fallback": found.fallback,
        "sentence": made.text,
        "confidence_percent": made.confidence_percent,
        "needs_a_human": made.needs_a_human,
        "similar_days_ago": ", ".join(str(day.days_ago) for day in made.similar),
        "similar_distance": made.similar[0].distance if made.similar else None,
    }
    return pl.DataFrame([row], schema_overrides={"similar_distance": pl.Float64})


def _past(found: Answer) -> pl.DataFrame:
    series = found.series
    values = series.values[-max(_SHOWN_HORIZONS * len(found.said), _SHOWN_LEAST) :]
    at = found.explanation.origin_s - series.step_s * np.arange(len(values), 0, -1)
    names = {"unique_id": [series.unique_id] * len(values), "unit": [found.wording.unit] * len(values)}
    return pl.DataFrame({**names, "time_s": at, "value": values})


def _scenarios(found: Answer, growths: Sequence[growth.Growth]) -> pl.DataFrame:
    trend = None
    if any(each.trend != 1.0 for each in growths):
        series, h = found.series, len(found.said)
        line = structural.decompose(series.values, series.start_s, series.step_s, h).parts["trend"]
        trend = line[-h:] / line[-h - 1]
    rows = growth.scenarios(found.said, found.ahead_s, found.explanation.origin_s, growths, trend)
    step = np.tile(np.arange(1, len(found.said) + 1), len(growths))
    return pl.DataFrame({**_head(found, rows.height), "step": step}).hstack(rows)


def growths(given: Mapping[str, Mapping[str, object]]) -> list[growth.Growth]:
    """The growth scenarios of a configuration, by name; raises UsageError for a key that none has."""
    try:
        return [_growth(name, dict(keys)) for name, keys in given.items()]
    except TypeError as error:
        known = ", ".join(growth.Growth.__dataclass_fields__)
        raise UsageError(f"scenarios: {error}; a scenario has {known}, a launch at_s, share, ramp_s") from error


def _growth(name: str, keys: dict[str, object]) -> growth.Growth:
    launches = keys.pop("launches", ())
    return growth.Growth(name, **keys, launches=tuple(growth.Launch(**each) for each in launches))  # pyright: ignore


def _head(found: Answer, count: int) -> dict[str, object]:
    made = found.explanation
    return {"unique_id": [made.unique_id] * count, "cutoff_s": [made.origin_s] * count}
