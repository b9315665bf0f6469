"""What making forecasts add up costs: over machines, pools and the cell, and over 5 min, hours and the day.

Every node is forecast on its own by a simple model whose settings are the best of the first half of its record; its
errors at earlier origins are its bands and say how nodes err together. Then all is reconciled, and both are judged at
later origins.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

import twin
from agents.forecast import frames
from agents.forecast.base import DECILES, MEDIAN, Floats
from agents.forecast.hierarchy import METHODS, Hierarchy, hierarchy, projection, reconciled, temporal

HOUR_S = 3_600
CELL = "opendc-workloads/v4/bitbrains-small"
TIMED = ("google2019", "azure_v2")  # embedded: nothing is to be fetched
TIMES = {"day": 288, "hour": 12, "5 min": 1}  # steps of 5 min
_AHEAD_H = 12
_WARM_DAYS, _EVERY = 7, 36  # days before the first error counts; origins three hours apart


def parts(folder: Path) -> pl.DataFrame:
    """Machines, pools of machines with as many cores, and their sum: hourly MHz, 12 hours ahead."""
    tree, values, hours = machines(folder)
    said, truth = (np.stack(each, axis=1) for each in zip(*(_smoothed(y) for y in values), strict=True))
    return compared(tree, "machines", said, truth, np.arange(340, 500, 3), np.arange(515, hours - _AHEAD_H + 1, 6))


def machines(folder: Path) -> tuple[Hierarchy, Floats, int]:
    """The machines of Bitbrains that are on record from first to last: what adds up, MHz [nodes, hours], hours."""
    trace = twin.read(folder / CELL)
    hours = int(trace.usage["time_s"].to_numpy().max() // HOUR_S)
    cores = dict(trace.jobs.select("job", "cpu_cores").iter_rows())
    found: dict[str, Floats] = {}
    usage = trace.usage.filter(resource="cpu").sort("time_s")
    for (name,), rows in usage.partition_by("entity", as_dict=True, maintain_order=True).items():
        at_s, mhz = rows["time_s"].to_numpy(), rows["value"].to_numpy()
        if at_s[0] < HOUR_S and at_s[-1] > (hours - 3) * HOUR_S:
            grid = np.searchsorted(at_s, np.arange(0, hours * HOUR_S, 300), side="right") - 1
            found[str(name)] = mhz[np.maximum(grid, 0)].reshape(hours, 12).mean(axis=1)
    tree = hierarchy({m: ("cell", f"{cores[m]:g} cores") for m in found}, ("cell", "pool", "machine"))
    return tree, tree.aggregate(np.stack([found[m] for m in tree.nodes[-tree.bottom :]])), hours


def _smoothed(values: Floats) -> tuple[Floats, Floats]:
    """Simple exponential smoothing: forecasts and truth [hours, h] of the steps from each hour on."""
    from scipy.signal import lfilter

    h = _AHEAD_H
    truth = np.lib.stride_tricks.sliding_window_view(np.concatenate([values, np.full(h, np.nan)]), h)[:-1]
    levels = {}
    for weight in np.linspace(0.05, 1.0, 20):
        level = lfilter([weight], [1.0, weight - 1.0], values - values[0]) + values[0]
        level = np.repeat(np.concatenate([[values[0]], level[:-1]])[:, None], h, axis=1)
        levels[float(np.abs(truth - level)[24:324].mean())] = level
    return levels[min(levels)], truth


def times(name: str) -> pl.DataFrame:
    """The CPU of an embedded cluster: the coming day in steps of 5 min, in hours and as a whole."""
    tree = temporal(TIMES)
    values = frames.panel(frames.series(twin.read(name), ["cpu"]))[0].values
    day = TIMES["day"]
    origins = np.arange(_WARM_DAYS * day, len(values) - day + 1, _EVERY)
    said = [_by_day(values, origins, length, len(origins) // 2) for length in TIMES.values()]
    truth = tree.aggregate(np.stack([values[o : o + day] for o in origins]).T).T[:, :, None]
    ends = origins + day  # an error is known when its day is over
    judged = np.arange(len(origins) // 2, len(origins))
    past = np.flatnonzero(ends <= origins[judged[0]])
    return compared(tree, f"{name}/cpu", np.concatenate(said, axis=1)[:, :, None], truth, past, judged)


def _by_day(values: Floats, origins: np.ndarray, length: int, chosen: int) -> Floats:
    """Totals of `length` steps over the coming day [origins, a day / length], made at that length alone.

    As on the days before, weighed by an exponential, and what the last total was above that fades; both settings are
    the best of the `chosen` first origins.
    """
    day = TIMES["day"]
    size = day // length
    sums = np.stack([values[o - _WARM_DAYS * day : o] for o in origins]).reshape(len(origins), -1, length).sum(axis=2)
    days = sums.reshape(len(origins), _WARM_DAYS, size)[:, ::-1]
    truth = np.stack([values[o : o + day] for o in origins]).reshape(len(origins), size, length).sum(axis=2)
    tried = {}
    for keep in (0.0, 0.3, 0.5, 0.7, 0.9):
        weights = keep ** np.arange(_WARM_DAYS)
        usual = np.tensordot(days, weights / weights.sum(), axes=(1, 0))
        above = days[:, 0, -1:] - usual[:, -1:]
        for hours in (0.0, 1.0, 3.0, 12.0, 48.0):
            ahead_h = (np.arange(size) + 0.5) * length / TIMES["hour"]
            said = usual + above * (np.exp(-ahead_h / hours) if hours else np.zeros(size))
            known = origins + day <= origins[chosen]
            tried[float(np.abs(truth - said)[known].mean())] = said
    return tried[min(tried)]


def compared(
    tree: Hierarchy, name: str, said: Floats, truth: Floats, past: np.ndarray, judged: np.ndarray
) -> pl.DataFrame:
    """The table `coherence`: errors of each level and method beside those of the nodes' own forecasts.

    Args:
        tree: what adds up.
        name: of what it is.
        said: own point forecasts [origins, nodes, h].
        truth: what came [origins, nodes, h].
        past: origins whose errors are the bands, all over before the first one judged.
        judged: origins that are judged.
    """
    errors, truth, own = (truth - said)[past], truth[judged], said[judged]
    bands = np.moveaxis(np.quantile(errors, DECILES, axis=0), 0, -1)
    deciles = np.maximum(own[..., None] + bands - bands[..., [MEDIAN]], 0.0)
    before = losses(tree, deciles[..., MEDIAN], deciles, truth)
    rows = []
    for method in METHODS:
        matrix = projection(tree, method, errors.transpose(1, 0, 2).reshape(len(tree.nodes), -1))
        done = [reconciled(tree, each, errors, matrix, least=0.0) for each in deciles]
        after = losses(tree, np.stack([d.point for d in done]), np.stack([d.said for d in done]), truth)
        for level, (wape, crps) in after.items():
            scores = (wape, before[level][0], crps, before[level][1])
            names = ("wape", "own_wape", "scaled_crps", "own_scaled_crps")
            rows.append({"series": name, "method": method, "level": level, **dict(zip(names, scores, strict=True))})
    return pl.DataFrame(rows)


def losses(tree: Hierarchy, point: Floats, said: Floats, truth: Floats) -> Mapping[str, tuple[float, float]]:
    """WAPE of the points and scaled CRPS of the deciles of each level."""
    error = truth[..., None] - said
    crps = 2.0 * np.maximum(DECILES * error, (DECILES - 1.0) * error).mean(axis=-1)
    sizes = {level: float(truth[:, rows].sum()) for level, rows in tree.levels.items()}
    return {
        level: (float(np.abs(truth - point)[:, rows].sum()) / sizes[level], float(crps[:, rows].sum()) / sizes[level])
        for level, rows in tree.levels.items()
    }
