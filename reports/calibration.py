"""What forecasts and training curves say, as small tables: pure functions frame -> frame."""

from __future__ import annotations

import polars as pl

from reports.folder import Facts

LEVELS = tuple(range(10, 100, 10))  # percent; the columns q10 ... q90 of the forecasts table
_CURVE_POINTS = 200


def reliability(forecasts: pl.DataFrame) -> pl.DataFrame:
    """How often the recorded value fell below each quantile: forecaster, level, share (both percent)."""
    below = [(100.0 * (pl.col("y") <= pl.col(f"q{level}")).mean()).alias(str(level)) for level in LEVELS]
    wide = forecasts.group_by("forecaster").agg(below).sort("forecaster")
    long = wide.unpivot(index="forecaster", variable_name="level", value_name="share")
    return long.with_columns(pl.col("level").cast(pl.Int64)).sort("forecaster", "level")


def pinball(forecasts: pl.DataFrame) -> pl.DataFrame:
    """The scaled loss by lead: forecaster, step, loss (percent).

    Loss is the mean over deciles of 2 x pinball over the sum of absolute values, as in `forecast_scores`'
    `scaled_crps`: pinball(q) = max(q (y - f), (q - 1)(y - f)).
    """
    each = [_pinball(level) for level in LEVELS]
    loss = 100.0 * 2.0 * pl.mean_horizontal(each).sum() / pl.col("y").abs().sum()
    return forecasts.group_by("forecaster", "step").agg(loss=loss).sort("forecaster", "step")


def _pinball(level: int) -> pl.Expr:
    error, q = pl.col("y") - pl.col(f"q{level}"), level / 100.0
    return pl.max_horizontal(q * error, (q - 1.0) * error)


def learning(facts: Facts) -> pl.DataFrame:
    """The training curves, each at most 200 points of means: policy, seed, step, reward."""
    columns = {"policy": pl.String, "seed": pl.Int64, "step": pl.Float64, "reward": pl.Float64}
    curves = pl.DataFrame(facts.get("curves", []), schema=columns)
    if not curves.height:
        return curves
    width = float(curves["step"].max()) / _CURVE_POINTS or 1.0  # pyright: ignore[reportArgumentType]
    bins = ((pl.col("step") / width).floor() * width).round(0).alias("step")
    binned = curves.group_by("policy", "seed", bins, maintain_order=True).agg(pl.col("reward").mean())
    return binned.sort("policy", "seed", "step")
