"""What a long forecast is chosen from: each candidate says the mean of the coming steps from one series' past."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from agents.forecast.frames import Floats
from agents.forecast.long.drift import Drift, Record, ahead, suits
from agents.forecast.long.structural import Decomposition, decompose
from agents.forecast.long.totals import DAY_S, WEEK_S, YEAR_S

_SMOOTHED_LEAST = 12  # points that exponential smoothing asks for


@dataclass(frozen=True, slots=True)
class History:
    """One series until an origin: `y` [steps], and regressors that are `known` [steps + h, columns]."""

    y: Floats
    start_s: float
    step_s: int
    h: int
    known: Floats
    damping_years: float
    drift: Drift | None = None

    @property
    def week(self) -> int:
        """Steps of a week, at least 1."""
        return max(WEEK_S // self.step_s, 1)

    @property
    def year(self) -> int:
        """Steps of a year: whole weeks of them where a step is a day, so that weekdays meet."""
        return 364 if self.step_s == DAY_S else round(YEAR_S / self.step_s)

    def record(self) -> Record:
        """The same for the drift; without one of its own, with noise that is neither seen nor alike."""
        memory, noise = (self.drift.memory, self.drift.noise) if self.drift else (0.0, 0.0)
        return Record(self.y, self.start_s, self.step_s, self.known, memory, noise)


Say = Callable[[History], dict[str, Floats]]


def mean(past: History) -> dict[str, Floats]:
    """The historic mean, of a year at most and of everything: weeks ahead the opponent that is hardest to beat."""
    said = {"mean": np.full(past.h, past.y[-past.year :].mean())}
    if len(past.y) > past.year:
        said["mean_of_all"] = np.full(past.h, past.y.mean())
    return said


def seasonal_naive(past: History) -> dict[str, Floats]:
    """As a week ago, and as a year ago where there was one."""
    seasons = {"week_ago": past.week, "year_ago": past.year}
    return {
        name: past.y[len(past.y) - season + np.arange(past.h) % season]
        for name, season in seasons.items()
        if len(past.y) >= season and past.h > 0
    }


def smoothing(past: History) -> dict[str, Floats]:
    """Exponential smoothing (form by information criterion, with a weekly season) and Theta, of statsforecast."""
    from statsforecast.models import AutoETS, Theta

    if len(past.y) < _SMOOTHED_LEAST or not past.h:
        return {}
    season = past.week if len(past.y) > 3 * past.week else 1
    # an additive season and no trend at a step of a day: the free choice of forms costs half a second
    ets = AutoETS(season_length=season, model="ZNA" if season > 1 else "ZZN")
    models = {"ets": ets, "theta": Theta(season_length=season)}
    return {name: np.asarray(model.forecast(past.y, past.h)["mean"], np.float64) for name, model in models.items()}


def structural(past: History) -> dict[str, Floats]:
    """Trend, week and regressors, with the trend held and with the trend going on and fading; with and without a year.

    A yearly season is another model, not a better one: it must prove itself at the origins where it could be seen.
    """
    said = {}
    for suffix, parts in (("", decomposed(past, yearly=False)), ("_year", decomposed(past))):
        if not suffix or "year" in parts.parts:
            said |= {f"flat{suffix}": parts.flat[len(past.y) :], f"trend{suffix}": parts.fitted[len(past.y) :]}
    return said


def drift(past: History) -> dict[str, Floats]:
    """The level drifts as is usual among the series that were fitted together."""
    if past.drift is None or not past.h or not suits(past.y, past.step_s):
        return {}
    return {"drift": ahead(past.drift.beliefs, past.record(), past.h)[0]}


def decomposed(past: History, *, yearly: bool = True) -> Decomposition:
    """The structural decomposition of a past, with the steps to come."""
    return decompose(
        past.y, past.start_s, past.step_s, past.h, past.known, damping_years=past.damping_years, yearly=yearly
    )


FAMILIES: Mapping[str, Say] = {
    "mean": mean,
    "seasonal_naive": seasonal_naive,
    "smoothing": smoothing,
    "structural": structural,
    "drift": drift,
}
