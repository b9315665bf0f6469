"""One forecast explained in one call: the numbers, the days it resembles, and the sentence."""

from __future__ import annotations

from dataclasses import dataclass

from agents.forecast.base import Forecaster
from agents.forecast.explain.contributions import Contributions, contributions
from agents.forecast.explain.sentence import CLEAR_PERCENT, Wording, confidence_percent, sentence
from agents.forecast.explain.similar import SimilarDay, similar_days
from agents.forecast.frames import Series


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a forecast is what it is.

    Attributes:
        forecaster: its name.
        unique_id: of the series.
        origin_s: when the first step ahead begins, on the series' clock.
        step_s: seconds of a step.
        contributions: the forecast, and what adds to it.
        similar: past days like the last 24 hours, the nearest first.
        confidence_percent: how likely the last step will come within the wording's tolerance of its median.
        needs_a_human: whether that is too little to act upon unseen.
        text: the plain sentence.
    """

    forecaster: str
    unique_id: str
    origin_s: float
    step_s: int
    contributions: Contributions
    similar: tuple[SimilarDay, ...]
    confidence_percent: float
    needs_a_human: bool
    text: str


def explain(
    fitted: Forecaster, series: Series, origin: int, h: int, wording: Wording | None = None, *, fallback: str = ""
) -> Explanation:
    """The explanation of the forecast of `series` from `origin` (steps on record), `h` steps ahead.

    Args:
        fitted: the forecaster that answers.
        series: nothing of it after `origin` is looked at, but what is known ahead.
        origin: steps on record.
        h: steps ahead; the last one is spoken of.
        wording: by default the series is called by its id, without unit and date.
        fallback: why it is not the usual forecaster that answers, "" where it is.

    Raises:
        UsageError: as the forecaster does.
    """
    wording = wording or Wording(series.unique_id)
    why = contributions(fitted, series, origin, h)
    similar = similar_days(series, origin, h)
    origin_s = float(series.start_s + series.step_s * origin)
    text = sentence(why, wording, origin_s=origin_s, step_s=series.step_s, similar=similar, fallback=fallback)
    sure = confidence_percent(why.said[-1], wording.tolerance)
    return Explanation(
        fitted.name, series.unique_id, origin_s, series.step_s, why, similar, sure, sure < CLEAR_PERCENT, text
    )
