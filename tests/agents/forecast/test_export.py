import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import twin
from agents.forecast.adaptive import Adaptive, Start
from agents.forecast.base import DECILES, Floats, Forecaster, Past
from agents.forecast.conformal import Conformal
from agents.forecast.ensemble import Each, Stack
from agents.forecast.exported import Manifest, OnnxForecaster, difference, verify
from agents.forecast.federated import Federated
from agents.forecast.frames import Series
from agents.forecast.naive import HistoricMean, Naive
from agents.forecast.nets.base import Architecture, Dims
from agents.forecast.nets.nhits import NHiTS
from agents.forecast.nets.residual import ResidualMLP
from agents.forecast.neural import Neural
from agents.forecast.private import Private
from agents.forecast.rolling import past_at
from agents.forecast.statistical import MSTL, AutoARIMA, AutoETS, AutoTheta
from twin.errors import PolicyError, UsageError

H = 4
CLOSE = 1e-4  # of the 80 % band
SMALL = ResidualMLP(width=8, norm=True)


def walk(seed: int, steps: int = 400, level: float = 1e6) -> Floats:
    return level + np.random.default_rng(seed).standard_normal(steps).cumsum()


SERIES = [Series(name, 0, 300, walk(seed)) for seed, name in enumerate("ab")]


def recorded(context: int, *, young: int = 0) -> Past:
    """Three pasts of a, b and a; that of b lacks its first `young` steps."""
    y = np.stack(
        [SERIES[0].values[50 : 50 + context], SERIES[1].values[:context], SERIES[0].values[300 - context : 300]]
    )
    y[1, :young] = np.nan
    return Past.of(y, ["a", "b", "a"], H)


def neural(
    columns: tuple[int, int, int] = (0, 0, 0),
    *,
    squash: bool = False,
    members: int = 1,
    settings: Architecture = SMALL,
) -> Neural:
    from agents.forecast import training

    rng, dims = np.random.default_rng(0), Dims(24, H + 1, 1, *columns)
    fresh = training.initial(settings, dims, 0).items()
    weights = {k: rng.normal(0, 0.1, (members, *v.shape)).astype(np.float32) for k, v in fresh}
    return Neural(settings, 24, H + 1, (30,), squash=squash, dims=dims, weights=weights)


def with_columns() -> Past:
    plain, rng = recorded(30, young=12), np.random.default_rng(1)
    return Past(
        plain.ids,
        plain.y,
        plain.origin_s,
        plain.step_s,
        1e4 + rng.normal(size=(3, 30, 2)),
        rng.normal(size=(3, 30 + H, 3)),
        rng.normal(size=(3, 1)),
    )


KINDS: dict[str, Callable[[], tuple[Forecaster, Past]]] = {
    "last value": lambda: (Naive().fit(SERIES, 0), recorded(1)),
    "season with a shorter one": lambda: (Naive(24, shorter=3).fit(SERIES, 0), recorded(24, young=10)),
    "season shorter than the horizon": lambda: (Naive(3).fit(SERIES, 0), recorded(3)),
    "historic mean": lambda: (HistoricMean().fit(SERIES, 0), recorded(1)),
    "corrected": lambda: (Conformal(Naive(24), H, least_steps=100).fit(SERIES, 0), recorded(24)),
    "stack": lambda: (
        Stack({"day": Naive(24), "last": Naive(), "mean": HistoricMean()}, H, every=3).fit(SERIES, 0),
        recorded(24, young=10),
    ),
    "exponential smoothing": lambda: (AutoETS(context=60, fit_steps=100).fit(SERIES, 0), recorded(60, young=30)),
    "network": lambda: (neural(), recorded(30)),
    "network of many sites": lambda: (Federated(neural()), recorded(30)),
    "private network": lambda: (Private(neural()), recorded(30)),
    "network with columns": lambda: (neural((2, 3, 1), squash=True, members=2), with_columns()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_says_what_the_forecaster_says(kind: str, tmp_path: Path) -> None:
    from agents.forecast.export import export

    forecaster, past = KINDS[kind]()
    apart = export(forecaster, tmp_path / "out", past)
    assert apart == verify(tmp_path / "out") < CLOSE
    graph = OnnxForecaster(tmp_path / "out")
    assert (graph.name, graph.context, graph.needs) == (forecaster.name, forecaster.context, forecaster.needs)
    # other pasts, another batch and fewer steps than those it was exported with
    other = past.last(past.y.shape[1], H - 1).rows([2, 1, 0, 2])
    other.y[:] += np.linspace(0.0, 3.0, past.y.shape[1])
    native, said = forecaster.forecast(other, H - 1), graph.forecast(other, H - 1)
    assert said.dtype == np.float64
    assert (np.diff(said, axis=-1) >= 0.0).all()
    assert difference(native, said) < CLOSE


# ---------------------------------------------------------------- statistical methods, several kinds in one graph

SEASON, CONTEXT = 6, 40
DAYS = np.random.default_rng(2).standard_normal(160).cumsum() + 60 + 15 * np.sin(np.arange(160) * 2 * np.pi / SEASON)


def recorded_days(ids: list[str]) -> Past:
    """For each of `ids` a window as recorded, a larger one, one that goes below zero, and two that never move."""
    own = [DAYS[100 : 100 + CONTEXT], 3 * DAYS[-CONTEXT:], DAYS[50 : 50 + CONTEXT] - 60]
    flat = [np.zeros(CONTEXT), np.full(CONTEXT, 7.0)]
    return Past.of(np.tile(np.stack([*own, *flat]), (len(ids), 1)), [i for i in ids for _ in range(5)], H)


def several(forecaster: Any, fits: dict[str, Any]) -> Any:
    """One forecaster with a model of each of these kinds."""
    known = forecaster.fit([Series("a", 0, 3600, DAYS)], 0).models["a"]
    return replace(forecaster, models={kind: replace(known, fit=fit) for kind, fit in fits.items()})


def smoothings() -> Any:
    from statsforecast.ets import ets_f

    plan = AutoETS(context=CONTEXT, fit_steps=100, season=SEASON)
    kinds = ("MNM-", "MAM-", "MAM+", "MNA-", "MAA-", "MAA+", "ANA-", "AAA+", "ANN-")
    return several(plan, {k: ets_f(DAYS[-100:], m=SEASON, model=k[:3], damped=k[3] == "+") for k in kinds})


def arimas() -> Any:
    from statsforecast.arima import Arima

    season = {"order": (1, 1, 1), "period": SEASON}
    kinds: dict[str, dict[str, Any]] = {
        "drift": {"order": (1, 1, 1), "include_drift": True},
        "mean": {"order": (2, 0, 1)},
        "walk": {"order": (0, 1, 0)},
        "season": {"order": (1, 0, 1), "seasonal": season},
    }
    return several(
        AutoARIMA(context=CONTEXT, fit_steps=60),
        {kind: Arima(DAYS[-100:], method="CSS-ML", **how) for kind, how in kinds.items()},
    )


def thetas() -> Any:
    from statsforecast.theta import auto_theta

    plan = AutoTheta(context=CONTEXT, fit_steps=100, season=SEASON)
    product = {kind: auto_theta(DAYS[-100:], m=SEASON, model=kind) for kind in ("STM", "OTM", "DSTM", "DOTM")}
    added = auto_theta(DAYS[-100:] - 60, m=SEASON, model="DOTM")
    return several(plan, product | {"added": added, "none": auto_theta(DAYS[-100:], m=1, model="OTM")})


def by_loess() -> Any:
    series = [Series(i, 0, 3600, values) for i, values in (("a", DAYS), ("b", DAYS[:21]))]
    return MSTL(context=CONTEXT, fit_steps=100, seasons=(SEASON, 2 * SEASON)).fit(series, 0)


METHODS = {"smoothing": smoothings, "arima": arimas, "theta": thetas, "loess": by_loess}


@pytest.mark.parametrize("method", METHODS)
def test_every_kind_of_a_statistical_method_is_the_same_in_whole_windows(method: str, tmp_path: Path) -> None:
    from agents.forecast.export import export

    fitted = METHODS[method]()
    past = recorded_days(list(fitted.models))
    assert export(fitted, tmp_path / "out", past) < CLOSE
    graph = OnnxForecaster(tmp_path / "out")
    assert fitted.needs < graph.needs == CONTEXT
    past.y[:, 0] = np.nan
    with pytest.raises(UsageError, match=f"needs the last {CONTEXT} steps"):
        graph.forecast(past, H)
    with pytest.raises(UsageError, match="older ones"):
        export(fitted, tmp_path / "again", past)


def test_a_season_beyond_the_first_one_cannot_be_smoothed_in_a_graph(tmp_path: Path) -> None:
    from agents.forecast.export import export

    fitted = AutoETS(context=CONTEXT, fit_steps=100, season=2).fit([Series("a", 0, 3600, DAYS)], 0)
    with pytest.raises(UsageError, match="one season of 2 steps ahead, asked for 4"):
        export(fitted, tmp_path / "out", recorded_days(["a"]))


# ---------------------------------------------------------------- bands of now, and the whole ensemble


@pytest.fixture(scope="module")
def cells() -> list[Series]:
    """Two resources of a real cluster."""
    from agents.forecast import frames

    found = frames.panel(frames.series(twin.read("google2019"), ["cpu", "memory"]))
    return [each.until(1200) for each in found]


def adaptive(base: Forecaster, series: list[Series], **given: Any) -> Adaptive:
    """With factors and edges as a fit would leave them, each regime's and step's its own."""
    factors = np.random.default_rng(4).normal(0.0, 0.5, (3, H, 9))
    moves = {s.unique_id: np.abs(np.diff(s.values)) for s in series}
    edges = {i: np.quantile(each, [0.4, 0.6]) for i, each in moves.items()}
    starts = {i: Start(factors + 0.1 * k, each, 0.0) for k, (i, each) in enumerate(edges.items())}
    return Adaptive(base, H, starts=starts | {"": Start(factors, next(iter(edges.values())), 0.0)}, **given)


def test_the_ensemble_with_bands_of_now_is_one_graph(cells: list[Series], tmp_path: Path) -> None:
    from agents.forecast.export import export

    fresh = NHiTS(pools=(4, 1), knots=(2, 1), width=8, layers=1)
    networks = {"neural": neural(), "fresh": neural(settings=fresh)}
    loess = Each(MSTL(context=60, fit_steps=200, seasons=(12,))).fit(cells, 0)
    weights = {"": np.array([0.2, 0.3, 0.5]), cells[0].unique_id: np.array([0.6, 0.0, 0.4])}
    stack = Stack({**networks, "mstl": loess}, H, weights=weights)
    fitted = adaptive(stack, cells, lookback=48)
    with pytest.raises(UsageError, match=r"export model\.settled\(series\) instead"):
        export(fitted, tmp_path / "out", past_of(cells, fitted))
    settled = fitted.settled(cells)
    assert export(settled, tmp_path / "out", past_of(cells, settled)) < CLOSE
    assert OnnxForecaster(tmp_path / "out").needs == 60  # what loess looks at


def past_of(series: list[Series], forecaster: Forecaster) -> Past:
    """Pasts of each of the series."""
    pasts = [past_at(each, np.arange(1000, 1150, 10), forecaster.context, H) for each in series]
    ids = [i for past in pasts for i in past.ids]
    return Past.of(np.concatenate([past.y for past in pasts]), ids, H)


def test_each_roughness_has_its_bands_and_an_edge_belongs_to_the_calmer(tmp_path: Path) -> None:
    from agents.forecast.export import export

    rough = np.array([0.0, 1.0, 2.0, 2.5, 3.0, 4.0])  # per step; the edges are 1 and 3
    y = 1000.0 + rough[:, None] * (np.arange(H + 1.0) % 2.0)
    start = Start(np.arange(3.0)[:, None, None] * np.ones((3, H, 9)), np.array([1.0, 3.0]), 0.0)
    fitted = Adaptive(Naive().fit(SERIES, 0), H, lookback=0, starts={"": start})
    past = Past.of(y, ["a"] * len(y), H)
    assert export(fitted, tmp_path / "out", past) < CLOSE
    said = OnnxForecaster(tmp_path / "out").forecast(past, H)
    bands = said[:, 0, -1] - said[:, 0, 0]
    assert bands / bands[0] == pytest.approx(np.exp([0, 0, 1, 1, 1, 2]))


# ---------------------------------------------------------------- windows at rest


@pytest.mark.parametrize("level", [1e-3, 1e9])
def test_smoothing_of_products_and_damped_trends_is_the_same(level: float, tmp_path: Path) -> None:
    from statsforecast.ets import ets_f

    from agents.forecast.export import export

    rng = np.random.default_rng(3)
    growing = level * np.exp((0.05 * rng.standard_normal(600)).cumsum())
    plan = AutoETS(fit_steps=100, context=100).fit([Series("a", 0, 300, growing)], 0)
    fit = ets_f(growing[100:], m=1, model="MAN", damped=True)
    fitted = replace(plan, models={"a": replace(plan.models["a"], fit=fit)})
    flat, falling = np.full(100, growing[99]), growing[99] * np.maximum(1.0 - np.arange(100) / 99, 0.0)
    past = Past.of(np.stack([growing[300:400], growing[500:], flat, falling + 0.01 * level]), ["a"] * 4, H)
    assert export(fitted, tmp_path / "out", past) < CLOSE


def test_a_flat_window_is_scaled_by_its_level(tmp_path: Path) -> None:
    from agents.forecast.export import export

    y = 50.0 + np.zeros((3, 30))
    y[1] += 1e-3 * np.random.default_rng(0).normal(size=30)
    y[2] += 0.5 * np.arange(30.0)
    assert export(neural(), tmp_path / "out", Past.of(y, ["a"] * 3, H)) < 1e-3


IDLE = [Series("a", 0, 300, np.maximum(walk(3, 200, level=2.0), 0.0))]
AT_REST: dict[str, Callable[[], Forecaster]] = {
    "network": neural,
    "last value": lambda: Naive().fit(IDLE, 0),
    "corrected": lambda: Conformal(Naive(24), H, least_steps=100).fit(IDLE, 0),
    "smoothing": lambda: AutoETS(context=30, fit_steps=60).fit(IDLE, 0),
}


@pytest.mark.parametrize("kind", AT_REST)
def test_a_window_of_zeros_is_forecast_as_the_original_does(kind: str, tmp_path: Path) -> None:
    from agents.forecast.export import export

    forecaster, y = AT_REST[kind](), np.zeros((3, 30))
    y[1, :5] = 4.0  # before what a network looks at: zeros in a context that moved
    y[2, -3] = 1e-9
    past = Past.of(y, ["a"] * 3, H).last(forecaster.context, H)
    assert export(forecaster, tmp_path / "out", past) < CLOSE


def test_large_values_with_small_movements_lose_nothing(tmp_path: Path) -> None:
    from agents.forecast.export import export

    past = Past.of(walk(5, 30, level=1e12)[None], ["a"], H)
    assert export(neural(), tmp_path / "out", past) < CLOSE


def test_a_function_without_remainders_says_the_same() -> None:
    import jax

    from agents.forecast.graphs.remainders import without_remainders

    def wrapped(x: Any) -> Any:
        return x % 3, {"halves": x // 2}

    x, stated = jax.numpy.arange(-7, 8), without_remainders(wrapped)
    assert jax.tree.all(jax.tree.map(np.array_equal, stated(x), wrapped(x)))
    assert " rem " in str(jax.make_jaxpr(wrapped)(x))
    assert " rem " not in str(jax.make_jaxpr(stated)(x))


@pytest.fixture(scope="module")
def naive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from agents.forecast.export import export

    out = tmp_path_factory.mktemp("export") / "naive"
    export(Naive(24).fit(SERIES, 0), out, recorded(24), unit="cores", trained_until_s=120000.0)
    return out


def test_the_manifest_says_what_must_be_known(naive: Path) -> None:
    said = json.loads((naive / "forecast.json").read_text("utf-8"))
    assert said["inputs"] == {"series": ["int64", ["batch"]], "y": ["double", ["batch", 24]]}
    assert said["outputs"] == {"deciles": ["double", ["batch", H, 9]]}
    assert said["series"] == ["a", "b"]
    assert (said["unit"], said["trained_until_s"], said["horizon"], said["step_s"]) == ("cores", 120000.0, H, 300)
    assert said["deciles"] == DECILES.tolist()
    assert sorted(said["sha256"]) == ["graph.onnx", "parity.npz"]
    assert Manifest.read(naive).model == "Naive"


def test_a_graph_is_the_same_bytes_every_time(naive: Path, tmp_path: Path) -> None:
    from agents.forecast.export import export

    export(Naive(24).fit(SERIES, 0), tmp_path / "again", recorded(24))
    assert (tmp_path / "again" / "graph.onnx").read_bytes() == (naive / "graph.onnx").read_bytes()


def test_an_exported_forecaster_needs_no_jax(naive: Path) -> None:
    code = (
        "import sys, pathlib, numpy as np\n"
        "from agents.forecast.base import Past\n"
        "from agents.forecast.exported import OnnxForecaster, verify\n"
        f"folder = pathlib.Path({str(naive)!r})\n"
        f"said = OnnxForecaster(folder).forecast(Past.of(np.ones((2, 24)), ['b', 'a'], {H}), {H})\n"
        f"assert said.shape == (2, {H}, 9) and verify(folder) < 1e-4\n"
        "loaded = {'jax', 'flax', 'jax2onnx', 'onnx', 'statsforecast'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_graph_is_asked_for_what_it_was_exported_for_only(naive: Path) -> None:
    graph, past = OnnxForecaster(naive), recorded(24)
    with pytest.raises(UsageError, match="'c'"):
        graph.forecast(Past.of(past.y[:1], ["c"], H), H)
    with pytest.raises(UsageError, match="exported for 4 steps of 300 s, asked for 5"):
        graph.forecast(Past.of(past.y, past.ids, H + 1), H + 1)
    with pytest.raises(UsageError, match="of 60 s"):
        graph.forecast(Past.of(past.y, past.ids, H, step_s=60), H)
    with pytest.raises(UsageError, match="export it again"):
        graph.fit(SERIES, 0)
    assert graph.forecast(past.rows([]), H).shape == (0, H, 9)


@pytest.mark.parametrize("name", ["graph.onnx", "parity.npz"])
def test_a_changed_file_is_noticed(name: str, naive: Path, tmp_path: Path) -> None:
    for file in naive.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    changed = bytearray((tmp_path / name).read_bytes())
    changed[-1] ^= 1
    (tmp_path / name).write_bytes(changed)
    with pytest.raises(PolicyError, match=f"{name} was changed"):
        verify(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"series": null, "deciles": []}'])
def test_a_folder_without_a_manifest_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "forecast.json").write_text(text, "utf-8")
    with pytest.raises(PolicyError, match="not an exported forecaster"):
        OnnxForecaster(tmp_path)


def test_what_cannot_be_exported_is_named_and_nothing_is_written(naive: Path, tmp_path: Path) -> None:
    from agents.forecast.export import export

    series = [Series("a", 0, 300, 50 + 9 * np.sin(2 * np.pi * np.arange(400) / 24) + 0.01 * walk(1, level=0.0))]
    past = Past.of(series[0].values[None, :60], ["a"], H)
    for forecaster in (
        Neural(ResidualMLP(8), 60, H),
        Stack({"last": Naive()}),
        Adaptive(Naive(), H),
        adaptive(Naive().fit(series, 0), series, lookback=12),
    ):
        with pytest.raises(UsageError):
            export(forecaster, tmp_path / "out", past.last(forecaster.context, H))
    with pytest.raises(UsageError, match="OnnxForecaster, cannot be exported"):
        export(OnnxForecaster(naive), tmp_path / "out", recorded(24))
    with pytest.raises(UsageError, match="at least one recorded past"):
        export(Naive().fit(series, 0), tmp_path / "out", recorded(1).rows([]))
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_is_not_the_forecaster_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from agents.forecast import export as module

    monkeypatch.setattr(module, "TOLERANCE", -1.0)
    with pytest.raises(PolicyError, match="nothing was written"):
        module.export(Naive(24).fit(SERIES, 0), tmp_path / "out", recorded(24))
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_left_alone(naive: Path) -> None:
    from agents.forecast.export import export

    with pytest.raises(PolicyError, match="exists already"):
        export(Naive(24).fit(SERIES, 0), naive, recorded(24))


def test_a_difference_is_measured_against_the_band_and_not_the_level() -> None:
    native = 1e6 + np.arange(9.0)[None, None]
    assert difference(native, native + 0.8) == pytest.approx(0.1)
    assert difference(native, native * np.nan) == np.inf
    flat = np.full((1, 2, 9), 5.0)
    assert difference(flat, flat + 5e-6) == pytest.approx(1.0)
