from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

Long = Callable[..., pl.DataFrame]


@pytest.fixture(scope="session")
def long() -> Long:
    """Series given by name as a long frame with a step of 300 s."""

    def build(**series: np.ndarray) -> pl.DataFrame:
        return pl.concat(
            pl.DataFrame({"unique_id": [name] * len(y), "ds": np.arange(len(y)) * 300, "y": y.astype(np.float64)})
            for name, y in series.items()
        )

    return build


@pytest.fixture(scope="session")
def wave() -> Callable[..., np.ndarray]:
    """A daily wave with noise: `steps` of 300 s, the same for the same seed."""

    def build(steps: int, seed: int = 0, day: int = 288, noise: float = 0.3) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return 10.0 + 3.0 * np.sin(2 * np.pi * np.arange(steps) / day) + noise * rng.standard_normal(steps)

    return build
