"""How well a replay mirrors its recording: errors beside the recording's own restlessness and what is acceptable."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from twin.errors import UsageError
from twin.job_metrics import measures
from twin.trace import tables

F8 = NDArray[np.float64]
DAY_S = 86400.0
_STATES = {
    "done": "done",
    "failed": "failed",
    "evicted": "killed",
    "preempted": "killed",
    "cancelled": "cancelled",
    "running": "running",
    "waiting": "waiting",
}
_SCHEMA = {
    "measure": pl.String,
    "recorded": pl.Float64,
    "simulated": pl.Float64,
    "error": pl.Float64,
    "noise_floor": pl.Float64,
    "threshold": pl.Float64,
    "verdict": pl.String,
    "unit": pl.String,
}


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The largest errors that are acceptable; None: told, but not judged.

    The defaults are conventions, chosen before any replay was scored. A tenth for what is averaged (`wait_ratio`,
    `slowdown_ratio`): schedulers that are compared commonly differ by more, so that a smaller error of the twin does
    not decide between them. The 95th percentile rests on a twentieth of the jobs and gets 0.15. No wait is judged finer
    than `floor_s`, the minute to which old logs are kept. `ks`: nowhere do more than a tenth of the jobs lie on the
    wrong side of a wait. Utilisation is fixed by the arrivals more than by the scheduler, hence 0.05 for a bin and 0.02
    for the mean. A job's own start is chaotic, one swap moves all that follow, so its error may be half the mean wait.
    Equal machines are interchangeable, so that another choice among them is no error: placement is not judged. Power
    within a tenth is what a linear model of a server reaches.
    """

    started: float = 0.01
    wait_ratio: float = 0.10
    wait_p95_ratio: float = 0.15
    floor_s: float = 60.0
    slowdown_ratio: float = 0.10
    ks: float = 0.10
    utilisation_mae: float = 0.05
    utilisation_bias: float = 0.02
    start_ratio: float = 0.50
    placement: float | None = None
    power_mape: float = 0.10
    power_nad: float = 0.10


def as_outcomes(jobs: pl.DataFrame) -> pl.DataFrame:
    """The recording as the table `outcomes` (from schema `jobs`): what became of the jobs in reality.

    Jobs of unknown arrival are left out; a job of unknown status is done when it has an end. A job of unknown size
    counts with no cores.
    """
    unknown = {"cpu_cores": 0.0, "memory_gib": None, "gpus": 0.0}
    size = {c: pl.col(c).fill_null(pl.lit(value, pl.Float64)) * pl.col("instances") for c, value in unknown.items()}
    told = pl.col("status").replace_strict(_STATES, default=None)
    state = (
        pl.when(told.is_not_null())
        .then(told)
        .when(pl.col("end_s").is_not_null())
        .then(pl.lit("done"))
        .when(pl.col("start_s").is_not_null())
        .then(pl.lit("running"))
        .otherwise(pl.lit("waiting"))
    )
    last = pl.coalesce("end_s", "seen_s")
    frame = jobs.filter(pl.col("submit_s").is_not_null()).select(
        "job", "submit_s", "start_s", "end_s", "limit_s", "user", "queue",
        state=state,
        wait_s=pl.col("start_s") - pl.col("submit_s"),
        run_s=pl.coalesce("run_s", last - pl.col("start_s"), 0.0),
        attempts=pl.col("start_s").is_not_null().cast(pl.Int64),
        **size,
    )  # fmt: skip
    return tables.conform(frame, "outcomes", "recording")


def scorecard(
    recorded_jobs: pl.DataFrame,
    outcomes: pl.DataFrame,
    *,
    placements: pl.DataFrame | None = None,
    capacity_cores: float | None = None,
    power_w: tuple[F8, F8] | None = None,
    thresholds: Thresholds | None = None,
    block_s: float = DAY_S,
    bin_s: float = 3600.0,
    rng: np.random.Generator | None = None,
) -> pl.DataFrame:
    """One row for each measure: measure, recorded, simulated, error, noise_floor, threshold, verdict, unit.

    Waits and slowdowns are of the jobs that started in both. `error` and `threshold` have the unit of the row.

    `noise_floor` is the recording against itself: jobs by the day (`block_s`) of their arrival, the even days against
    the odd ones, as the absolute difference of the measure (or KS distance) between the halves. For the mean absolute
    error of utilisation it is the one between each even day and the next. With `rng` the halves are drawn 200 times at
    random and the floor is the median. Measures of single jobs and of placement have none. `verdict` is

    pass      error <= threshold
    noise     beyond the threshold, yet no further than the recording is from itself
    fail      beyond both
    unscored  no data, or no threshold

    Args:
        recorded_jobs: schema `jobs`.
        outcomes: schema `outcomes`: the replay.
        placements: schema `placements` of the replay, compared with the recorded `node` of the jobs.
        capacity_cores: what utilisation is measured against; None leaves it unscored.
        power_w: recorded and simulated watts at the same moments [times]; pairs with a NaN are left out.
        thresholds: what is acceptable.
        block_s: length of a block of the noise floor.
        bin_s: length of a bin of utilisation.
        rng: draws the halves of the noise floor.

    Raises:
        UsageError: the two series of power differ in length, or a length is not above zero.
    """
    if block_s <= 0 or bin_s <= 0:
        raise UsageError(f"block_s={block_s:g} and bin_s={bin_s:g} must be above 0")
    limits = thresholds or Thresholds()
    real = measures(as_outcomes(recorded_jobs))
    pairs = matched(real, measures(outcomes))
    halves = _halves(real, block_s, rng)
    both = pairs.filter(pl.col("simulated_start_s").is_not_null())
    share = both.height / pairs.height if pairs.height else None
    rows = [_row("started_ratio", 1.0 if pairs.height else None, share, limits.started, "ratio")]
    rows += _of_waits(both, halves, limits)
    rows += _of_utilisation(real, outcomes, capacity_cores, bin_s, block_s, halves, limits)
    rows.append(_of_starts(both, limits))
    rows.append(_of_places(recorded_jobs, placements, limits))
    if power_w is not None:
        rows += series_rows("power", "W", *power_w, mape=limits.power_mape, nad=limits.power_nad)
    return pl.DataFrame(rows, schema=_SCHEMA, orient="row")


def passed(card: pl.DataFrame) -> bool:
    """Did every judged measure pass, and was at least one judged? Noise is no excuse: the replay saw the same jobs."""
    judged = card.filter(pl.col("verdict") != "unscored")
    return judged.height > 0 and bool((judged["verdict"] == "pass").all())


def matched(real: pl.DataFrame, simulated: pl.DataFrame) -> pl.DataFrame:
    """Jobs that started in the recording, with what the replay made of them in columns `simulated_*`."""
    columns = ["start_s", "wait_s", "slowdown", "bounded_slowdown"]
    other = simulated.select("job", pl.col(columns).name.prefix("simulated_"))
    return real.filter(pl.col("start_s").is_not_null()).join(other, on="job", how="left", maintain_order="left")


def _row(
    measure: str,
    recorded: float | None,
    simulated: float | None,
    threshold: float | None,
    unit: str,
    *,
    error: float | None = None,
    floor: float | None = None,
) -> tuple:
    if error is None and recorded is not None and simulated is not None:
        error = abs(simulated - recorded)
    if error is None or threshold is None:
        verdict = "unscored"
    elif error <= threshold:
        verdict = "pass"
    else:
        verdict = "noise" if floor is not None and error <= floor else "fail"
    return (measure, recorded, simulated, error, floor, threshold, verdict, unit)


# ---------------------------------------------------------------- waits


def _of_waits(both: pl.DataFrame, halves: list[tuple[pl.DataFrame, pl.DataFrame]], limits: Thresholds) -> list[tuple]:
    judged = (
        ("wait_mean_s", "wait_s", None, limits.wait_ratio, limits.floor_s, "s"),
        ("wait_median_s", "wait_s", 0.5, limits.wait_ratio, limits.floor_s, "s"),
        ("wait_p95_s", "wait_s", 0.95, limits.wait_p95_ratio, limits.floor_s, "s"),
        ("bounded_slowdown_mean", "bounded_slowdown", None, limits.slowdown_ratio, 0.0, "ratio"),
        ("bounded_slowdown_median", "bounded_slowdown", 0.5, limits.slowdown_ratio, 0.0, "ratio"),
    )
    rows = []
    for measure, column, level, ratio, least, unit in judged:
        known = both.drop_nulls([column, f"simulated_{column}"])
        real = _statistic(known[column], level)
        threshold = None if real is None else max(ratio * real, least)
        floor = _floor([(_statistic(a[column], level), _statistic(b[column], level)) for a, b in halves])
        simulated = _statistic(known[f"simulated_{column}"], level)
        rows.append(_row(measure, real, simulated, threshold, unit, floor=floor))
    distance = _ks(both["wait_s"], both["simulated_wait_s"])
    noise = [d for a, b in halves if (d := _ks(a["wait_s"], b["wait_s"])) is not None]
    floor = float(np.median(noise)) if noise else None
    rows.append(_row("wait_ks", None, None, limits.ks, "ratio", error=distance, floor=floor))
    return rows


def _statistic(values: pl.Series, level: float | None) -> float | None:
    """The mean, or the quantile at `level`; None without values."""
    known = values.drop_nulls().to_numpy()
    if not len(known):
        return None
    return float(known.mean() if level is None else np.quantile(known, level))


def _ks(one: pl.Series, other: pl.Series) -> float | None:
    from scipy import stats

    a, b = one.drop_nulls().to_numpy(), other.drop_nulls().to_numpy()
    # the p-value is not asked for, and its exact form is slow
    return float(stats.ks_2samp(a, b, method="asymp").statistic) if len(a) and len(b) else None  # pyright: ignore[reportAttributeAccessIssue]


def _floor(differences: list[tuple[float | None, float | None]]) -> float | None:
    known = [abs(a - b) for a, b in differences if a is not None and b is not None]
    return float(np.median(known)) if known else None


def _halves(
    real: pl.DataFrame, block_s: float, rng: np.random.Generator | None, rounds: int = 200
) -> list[tuple[pl.DataFrame, pl.DataFrame]]:
    """The recording's jobs in two halves of whole blocks: even and odd ones, or drawn `rounds` times."""
    block = (real["submit_s"] / block_s).floor().cast(pl.Int64)
    numbers = block.unique().sort().to_numpy()
    if len(numbers) < 2:
        return []
    own = real.select("wait_s", "bounded_slowdown")
    if rng is None:
        side = block % 2 == 0
        return [(own.filter(side), own.filter(~side))] if side.any() and not side.all() else []
    place = np.searchsorted(numbers, block.to_numpy())
    drawn = []
    for _ in range(rounds):
        first = (rng.permutation(len(numbers)) < len(numbers) // 2)[place]
        drawn.append((own.filter(first), own.filter(~first)))
    return drawn


# ---------------------------------------------------------------- utilisation


def binned(start_s: F8, end_s: F8, weight: F8, edges_s: F8) -> F8:
    """Mean weight that is there in each bin [bins]: exact, for intervals [start, end) of constant weight."""
    total = np.zeros(len(edges_s))
    # integral up to t of what began before t, less the same of what ended before t
    for moments, sign in ((start_s, 1.0), (end_s, -1.0)):
        order = np.argsort(moments, kind="stable")
        at, amount = moments[order] - edges_s[0], weight[order]
        before = np.searchsorted(at, edges_s - edges_s[0])
        level = np.concatenate([[0.0], np.cumsum(amount)])[before]
        moment = np.concatenate([[0.0], np.cumsum(amount * at)])[before]
        total += sign * ((edges_s - edges_s[0]) * level - moment)
    return np.diff(total) / np.diff(edges_s)


def held(outcomes: pl.DataFrame) -> tuple[F8, F8, F8]:
    """Begin, end and cores of what the started jobs held, each taken to have run once."""
    ran = outcomes.filter(pl.col("start_s").is_not_null())
    start = ran["start_s"].to_numpy()
    return start, start + ran["run_s"].to_numpy(), ran["cpu_cores"].to_numpy()


def _of_utilisation(
    real: pl.DataFrame,
    outcomes: pl.DataFrame,
    capacity_cores: float | None,
    bin_s: float,
    block_s: float,
    halves: list[tuple[pl.DataFrame, pl.DataFrame]],
    limits: Thresholds,
) -> list[tuple]:
    mae, bias = limits.utilisation_mae, limits.utilisation_bias
    one, other = held(real), held(outcomes)
    if not capacity_cores or not len(one[0]) or not len(other[0]):
        return [_row("utilisation_mae", None, None, mae, "ratio"), _row("utilisation_bias", None, None, bias, "ratio")]
    begin, end = min(one[0].min(), other[0].min()), max(one[1].max(), other[1].max())
    begin = np.floor(begin / block_s) * block_s
    edges = begin + bin_s * np.arange(max(int(np.ceil((end - begin) / bin_s)), 1) + 1)
    a, b = (binned(*each, edges) / capacity_cores for each in (one, other))
    floors = _day_floors(a, max(round(block_s / bin_s), 1)) if halves else (None, None)
    mean = (float(a.mean()), float(b.mean()))
    error = float(np.abs(a - b).mean())
    return [
        _row("utilisation_mae", *mean, mae, "ratio", error=error, floor=floors[0]),
        _row("utilisation_bias", *mean, bias, "ratio", floor=floors[1]),
    ]


def _day_floors(used: F8, bins: int) -> tuple[float | None, float | None]:
    """Each even day against the next one: mean absolute difference of their bins, and of their means."""
    days = len(used) // bins // 2 * 2
    if not days:
        return None, None
    table = used[: days * bins].reshape(days, bins)
    even, odd = table[::2], table[1::2]
    return float(np.abs(even - odd).mean()), float(abs(even.mean() - odd.mean()))


# ---------------------------------------------------------------- single jobs, places, series


def _of_starts(both: pl.DataFrame, limits: Thresholds) -> tuple:
    if not both.height:
        return _row("start_mae_s", None, None, None, "s")
    error = float(np.abs((both["simulated_start_s"] - both["start_s"]).to_numpy()).mean())
    mean = _statistic(both["wait_s"], None) or 0.0
    return _row("start_mae_s", None, None, max(limits.start_ratio * mean, limits.floor_s), "s", error=error)


def _of_places(jobs: pl.DataFrame, placements: pl.DataFrame | None, limits: Thresholds) -> tuple:
    known = jobs.filter(pl.col("node").is_not_null()).select("job", pl.col("node").alias("_recorded"))
    if placements is None or not known.height:
        return _row("placement_agreement_ratio", None, None, limits.placement, "ratio")
    placed = placements.join(known, on="job").group_by("job").agg(same=(pl.col("node") == pl.col("_recorded")).any())
    agreed = float(placed["same"].mean()) if placed.height else None  # pyright: ignore[reportArgumentType]
    return _row("placement_agreement_ratio", 1.0, agreed, limits.placement, "ratio")


def series_rows(
    name: str, unit: str, recorded: F8, simulated: F8, *, mape: float | None = None, nad: float | None = None
) -> list[tuple]:
    """Scorecard rows of a series: its mean (judged by `mape`), `<name>_mape` and `<name>_nad`.

    MAPE is the mean of |simulated - recorded| / |recorded| where the recorded value is not zero; NAD the sum of
    |simulated - recorded| over the sum of |recorded|. Raises UsageError when the series differ in length.
    """
    if len(recorded) != len(simulated):
        raise UsageError(
            f"{name}: {len(recorded)} recorded and {len(simulated)} simulated values ({unit}); sample both at the same "
            "moments"
        )
    known = ~(np.isnan(recorded) | np.isnan(simulated))
    real, made = np.asarray(recorded)[known], np.asarray(simulated)[known]
    gap, nonzero = np.abs(made - real), real != 0
    if not nonzero.any():
        return [_row(f"{name}_{what}", None, None, None, "ratio") for what in ("mean", "mape", "nad")]
    mean = float(real.mean())
    relative, absolute = float((gap[nonzero] / np.abs(real[nonzero])).mean()), float(gap.sum() / np.abs(real).sum())
    return [
        _row(f"{name}_mean", mean, float(made.mean()), None if mape is None else mape * abs(mean), unit),
        _row(f"{name}_mape", None, None, mape, "ratio", error=relative),
        _row(f"{name}_nad", None, None, nad, "ratio", error=absolute),
    ]


# ---------------------------------------------------------------- envelope


def validity(
    recorded_jobs: pl.DataFrame,
    outcomes: pl.DataFrame,
    *,
    capacity_cores: float,
    edges: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, np.inf),
    thresholds: Thresholds | None = None,
    day_s: float = DAY_S,
) -> pl.DataFrame:
    """The envelope: how well the replay holds by offered load, one row for each bin of load that has days.

    The offered load of a day is the cores x run time of the jobs that arrived in it / (capacity x day). Columns:
    load_from, load_to, days, jobs, median_wait_s (recorded), median_wait_error_s (median over jobs of |simulated -
    recorded wait|; a job that the replay never started counts as infinitely late), threshold_s, within. Raises
    UsageError unless capacity and day are above zero.
    """
    if capacity_cores <= 0 or day_s <= 0:
        raise UsageError(f"capacity_cores={capacity_cores:g} and day_s={day_s:g} must be above 0")
    limits = thresholds or Thresholds()
    pairs = matched(measures(as_outcomes(recorded_jobs)), measures(outcomes)).with_columns(
        _day=(pl.col("submit_s") / day_s).floor().cast(pl.Int64),
        _work=pl.col("cpu_cores") * pl.col("run_s") / (capacity_cores * day_s),
        _error=(pl.col("simulated_wait_s") - pl.col("wait_s")).abs().fill_null(np.inf),
    )
    load = pairs.group_by("_day").agg(_load=pl.col("_work").sum())
    place = np.searchsorted(np.array(edges), load["_load"].to_numpy(), side="right") - 1
    load = load.with_columns(_bin=pl.Series(place)).filter(pl.col("_bin").is_between(0, len(edges) - 2))
    told = (
        pairs.join(load, on="_day")
        .group_by("_bin")
        .agg(
            days=pl.col("_day").n_unique().cast(pl.Int64),
            jobs=pl.len().cast(pl.Int64),
            median_wait_s=pl.col("wait_s").median(),
            median_wait_error_s=pl.col("_error").median(),
        )
        .sort("_bin")
    )
    number = told["_bin"].to_numpy()
    threshold = pl.max_horizontal(pl.col("median_wait_s") * limits.wait_ratio, pl.lit(limits.floor_s))
    return told.select(
        pl.Series("load_from", np.array(edges)[number]),
        pl.Series("load_to", np.array(edges)[number + 1]),
        pl.exclude("_bin"),
        threshold.alias("threshold_s"),
        (pl.col("median_wait_error_s") <= threshold).alias("within"),
    )


def envelope(told: pl.DataFrame) -> tuple[float, float] | None:
    """The range of offered load (from, to) of `validity` that held for most jobs without a gap; None where none did."""
    best: tuple[int, tuple[float, float] | None] = (0, None)
    jobs, start, last = 0, 0.0, np.nan
    for row in told.filter("within").sort("load_from").iter_rows(named=True):
        if row["load_from"] != last:
            jobs, start = 0, row["load_from"]
        jobs, last = jobs + row["jobs"], row["load_to"]
        if jobs > best[0]:
            best = (jobs, (start, last))
    return best[1]
