"""Which lags and columns help a forecast, judged on steps that came later, and only if they help again and again.

A ridge regression forecasts one step from all candidates, at rolling origins. A candidate's gain is how much the error
of the steps that followed grows when its values are shuffled among them (permutation importance). Kept is what gains
in most folds; what was dropped comes back, best first, while the error without it is larger; what can then go without
a larger error goes, worst first: of values that tell the same, one is enough. Where nothing is kept, nothing helps more
than holding the last value on. What helps only together with something else (a holiday at noon) is not seen: offer the
product as a column.

Source: Breiman (2001), Random forests, Machine Learning 45 (permutation importance); Meinshausen and Bühlmann (2010),
Stability selection, JRSS B 72 (the idea to keep what is chosen again and again).

Needs scikit-learn, imported where it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agents.forecast.frames import Columns, Floats, Series
from twin.errors import UsageError

Bools = NDArray[np.bool_]
_REPEATS = 3  # shuffles of each candidate in each fold
_LEAST_ROWS = 20


@dataclass(frozen=True, slots=True)
class Selection:
    """What helps.

    Attributes:
        table: one row per candidate, best first: `feature`, `kind` (lag, known, seen, static), `gain` (growth of the
            error without it, as share of the error), `spread` (standard deviation over folds), `folds` (share of
            folds in which it helped), `kept`.
        lags: kept steps back from the origin; 1 is the last step on record.
        columns: kept columns.
        errors: mean absolute error, in standard deviations of the series, with "all" candidates, with those "kept",
            and of the "last" value held on.
    """

    table: pl.DataFrame
    lags: tuple[int, ...]
    columns: Columns
    errors: dict[str, float]


class _Candidate(NamedTuple):
    kind: Literal["lag", "known", "seen", "static"]
    feature: str
    place: int  # steps back, or the number of the column


@dataclass(frozen=True, slots=True)
class _Rows:
    """Examples: candidates [rows, candidates], what came [rows], and the last value before it [rows]."""

    x: Floats
    y: Floats
    last: Floats


def select(
    series: Sequence[Series],
    lags: Sequence[int],
    *,
    h: int = 1,
    folds: int = 4,
    least_gain: float = 0.002,
    agree: float = 0.75,
    slack: float = 0.01,
    seed: int = 0,
) -> Selection:
    """The lags and columns that help to forecast the `h`-th step after an origin; the same for the same seed.

    Args:
        series: one or more of one step and the same columns, each judged in its own unit.
        lags: candidate steps back from the origin, the last step on record being 1; to offer the same time of an
            earlier day as the forecast step, give the steps of a day minus `h` plus 1.
        h: the step ahead that is forecast.
        folds: how many stretches of later steps judge; each is forecast from all that came before it.
        least_gain: a candidate must gain at least this share of the error on average, and be missed by as much.
        agree: and more than nothing in this share of the folds (0-1).
        slack: how much larger the error may be with the kept candidates than with all, as share.
        seed: of the shuffles.

    Raises:
        UsageError: no candidates, series that do not fit together, or too few steps for the folds.
    """
    candidates = _candidates(series, lags, h, folds)
    parts = _folds(series, candidates, h, folds)
    gains = np.array([_gains(fold, seed + k) for k, fold in enumerate(parts)])
    helped = (gains > 0.0).mean(axis=0)
    kept = (gains.mean(axis=0) >= least_gain) & (helped >= agree)
    error_all = _error(parts, np.ones(len(candidates), bool))
    order = np.argsort(-gains.mean(axis=0), kind="stable")
    kept = _with_what_is_missed(parts, kept, order, error_all * (1.0 + slack))
    kept = _without_what_repeats(parts, kept, order, error_all * (1.0 + slack), 1.0 + least_gain)
    table = pl.DataFrame(
        {
            "feature": [each.feature for each in candidates],
            "kind": [each.kind for each in candidates],
            "gain": gains.mean(axis=0),
            "spread": gains.std(axis=0),
            "folds": helped,
            "kept": kept,
        }
    )[order.tolist()]
    chosen = [each for each, keep in zip(candidates, kept, strict=True) if keep]
    last = float(np.mean([np.abs(test.y - test.last).mean() for _, test in parts]))
    return Selection(
        table,
        tuple(each.place for each in chosen if each.kind == "lag"),
        Columns(*(tuple(e.feature for e in chosen if e.kind == kind) for kind in ("known", "seen", "static"))),
        {"all": error_all, "kept": _error(parts, kept), "last": last},
    )


def _candidates(series: Sequence[Series], lags: Sequence[int], h: int, folds: int) -> list[_Candidate]:
    if not series or len({(s.step_s, s.columns) for s in series}) > 1:
        raise UsageError("selection needs series, all of one step and with the same columns")
    if min([h, folds, *lags]) < 1 or len(set(lags)) < len(lags):
        raise UsageError(f"h={h}, folds={folds} and lags={list(lags)} must be positive, and no lag named twice")
    columns = series[0].columns
    found = [_Candidate("lag", f"lag_{lag}", lag) for lag in lags]
    found += [_Candidate("known", name, k) for k, name in enumerate(columns.known)]
    found += [_Candidate("seen", name, k) for k, name in enumerate(columns.seen)]
    found += [_Candidate("static", name, k) for k, name in enumerate(columns.static)]
    if not found:
        raise UsageError("selection needs candidates: give lags, or series with columns")
    return found


def _folds(series: Sequence[Series], candidates: Sequence[_Candidate], h: int, folds: int) -> list[tuple[_Rows, _Rows]]:
    """Examples to learn from and those that came later, per fold; the first fold learns from the first half."""
    start = min(s.start_s for s in series)
    end = max(s.start_s + s.step_s * len(s.values) for s in series)
    edges = np.linspace(start + (end - start) / 2, end, folds + 1)
    found = []
    for cut, stop in pairwise(edges.tolist()):
        rows = [made for s in series if (made := _examples(s, candidates, h, cut, stop)) is not None]
        if sum(len(train.y) for train, _ in rows) < _LEAST_ROWS or not any(len(test.y) for _, test in rows):
            raise UsageError(f"too few steps for {folds} folds of lags and h={h}; give longer series or fewer folds")
        found.append((_joined([train for train, _ in rows]), _joined([test for _, test in rows])))
    return found


def _examples(
    series: Series, candidates: Sequence[_Candidate], h: int, cut_s: float, stop_s: float
) -> tuple[_Rows, _Rows] | None:
    """The examples of one series that had come before the cut, and those from there on; units are those before it."""
    longest = max([1, *(each.place for each in candidates if each.kind == "lag")])
    origins = np.arange(longest, len(series.values) - h + 1)
    at_s = (series.start_s + series.step_s * (origins + h - 1)).astype(np.float64)
    early = series.values[: max(int((cut_s - series.start_s) // series.step_s), 0)]
    if not len(origins) or len(early) < 2:
        return None
    level, scale = early.mean(), early.std() or 1.0
    values = (series.values - level) / scale
    columns = [_column(series, values, each, origins, h) for each in candidates]
    rows = _Rows(np.stack(columns, axis=1), values[origins + h - 1], values[origins - 1])
    # an example is learned from once its step has ended, and judges when its origin is not before the cut
    learned = at_s + series.step_s <= cut_s
    judged = (at_s - series.step_s * (h - 1.0) >= cut_s) & (at_s < stop_s)
    return _taken(rows, learned), _taken(rows, judged)


def _column(series: Series, values: Floats, each: _Candidate, origins: NDArray[np.int64], h: int) -> Floats:
    """One candidate at every origin: the past for lags and seen columns, the forecast step for known ones."""
    if each.kind == "lag":
        return values[origins - each.place]
    if each.kind == "known":
        return series.known[origins + h - 1, each.place]
    if each.kind == "seen":
        return series.seen[origins - 1, each.place]
    return np.full(len(origins), series.static[each.place])


def _taken(rows: _Rows, which: Bools) -> _Rows:
    return _Rows(rows.x[which], rows.y[which], rows.last[which])


def _joined(rows: Sequence[_Rows]) -> _Rows:
    return _Rows(
        np.concatenate([each.x for each in rows]),
        np.concatenate([each.y for each in rows]),
        np.concatenate([each.last for each in rows]),
    )


def _fitted(rows: _Rows, which: Bools) -> Any:  # noqa: ANN401 - a pipeline of scikit-learn, which has no types
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), Ridge()).fit(rows.x[:, which], rows.y)


def _gains(fold: tuple[_Rows, _Rows], seed: int) -> Floats:
    """How much the error grows without each candidate [candidates], as share of the error with all."""
    train, test = fold
    fitted = _fitted(train, np.ones(train.x.shape[1], bool))
    rng = np.random.default_rng(seed)
    error = np.abs(fitted.predict(test.x) - test.y).mean()
    grown = np.zeros(train.x.shape[1])
    for k in range(train.x.shape[1]):
        shuffled = test.x.copy()
        for _ in range(_REPEATS):
            shuffled[:, k] = rng.permutation(test.x[:, k])
            grown[k] += (np.abs(fitted.predict(shuffled) - test.y).mean() - error) / _REPEATS
    return grown / max(error, 1e-12)


def _error(parts: Sequence[tuple[_Rows, _Rows]], which: Bools) -> float:
    """The mean absolute error over the folds with some of the candidates; with none, that of the last value."""
    if not which.any():
        return float(np.mean([np.abs(test.y - test.last).mean() for _, test in parts]))
    errors = [np.abs(_fitted(train, which).predict(test.x[:, which]) - test.y).mean() for train, test in parts]
    return float(np.mean(errors))


def _with_what_is_missed(
    parts: Sequence[tuple[_Rows, _Rows]], kept: Bools, order: NDArray[np.int64], most: float
) -> Bools:
    """The kept candidates and, best first, dropped ones until the error is no more than `most`."""
    kept = kept.copy()
    for k in order:
        if _error(parts, kept) <= most:
            break
        kept[k] = True
    return kept


def _without_what_repeats(
    parts: Sequence[tuple[_Rows, _Rows]], kept: Bools, order: NDArray[np.int64], most: float, growth: float
) -> Bools:
    """The kept candidates but, worst first, those whose going lets the error grow by less than the factor."""
    kept = kept.copy()
    error = _error(parts, kept)
    for k in order[::-1]:
        if not kept[k]:
            continue
        kept[k] = False
        without = _error(parts, kept)
        if without > min(error * growth, most):
            kept[k] = True
        else:
            error = without
    return kept
