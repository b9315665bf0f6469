"""The columns of a structural regression: week and year as Fourier series, phases by the series' own clock."""

from __future__ import annotations

import numpy as np

from agents.forecast.frames import Floats
from agents.forecast.long.totals import WEEK_S, YEAR_S

_WEEKLY, _YEARLY = 3, 4  # harmonics: three tell the seven days apart; four follow a year to six weeks


def fourier(time_s: Floats, period_s: float, harmonics: int) -> Floats:
    """Cosines and sines [n, 2 x harmonics] of seconds [n]."""
    angle = 2.0 * np.pi * time_s[:, None] / period_s * np.arange(1, harmonics + 1)
    return np.concatenate([np.cos(angle), np.sin(angle)], axis=1)


def week(time_s: Floats) -> Floats:
    """The columns of the day of the week [n, 6]."""
    return fourier(time_s, WEEK_S, _WEEKLY)


def year(time_s: Floats, step_s: int) -> Floats:
    """The columns of the time of year [n, 8], fewer where a step is too long to see them."""
    return fourier(time_s, YEAR_S, min(_YEARLY, (YEAR_S // step_s - 1) // 2))
