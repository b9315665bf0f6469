"""Charts are data: their encodings, units and colours are asserted, and every one renders without a browser."""

import json

import polars as pl
import pytest

from reports import calibration, charts, drawing, folder, timeline
from reports.timeline import View


@pytest.fixture(scope="module")
def run(small_folder):
    return folder.read(small_folder)


@pytest.fixture(scope="module")
def drawn(run):
    return drawing.draw(run)


@pytest.fixture(scope="module")
def specs(drawn):
    return {name: chart.to_dict() for name, chart in drawn.charts.items()}


def found(spec, key):
    """Every value under `key`, however deep."""
    if isinstance(spec, dict):
        return [v for k, v in spec.items() if k == key] + [v for child in spec.values() for v in found(child, key)]
    return [v for child in spec for v in found(child, key)] if isinstance(spec, list) else []


def test_a_full_folder_gives_every_chart(specs):
    assert list(specs) == ["timeline", "reliability", "pinball", "learning"]


def test_every_chart_compiles_and_draws_lines(specs):
    import vl_convert

    for spec in specs.values():
        svg = vl_convert.vegalite_to_svg(spec)
        assert "mark-line" in svg or "mark-area" in svg
        assert "NaN" not in svg


def test_every_quantitative_axis_names_its_unit(specs):
    panels = specs["timeline"]["vconcat"]
    titles = {p["name"]: {a["title"] for y in found(p, "y") for a in [y.get("axis")] if a} for p in panels}
    assert titles["demand"] == {"requests/s"}
    assert titles["ready"] == {"replicas"}
    assert titles["utilisation"] == {"%"}
    assert titles["late"] == {"% of requests"}
    assert titles["nodes"] == {"nodes"}
    assert "time since the trace's start" in found(panels[-2], "title")


def test_panels_share_one_zoom_and_one_pointer(specs):
    spec = specs["timeline"]
    params = {p["name"]: p for p in spec["params"]}
    assert params["zoom"]["views"] == ["overview"]
    assert {f"{p}_hover" for p in ("ready", "utilisation", "late", "nodes")} <= set(params["at"]["views"])
    for panel in spec["vconcat"][:-1]:
        domains = [x["scale"]["domain"] for x in found(panel, "x") if "scale" in x]
        assert domains
        assert all(d == {"param": "zoom"} for d in domains)


def test_a_controller_has_one_colour_everywhere(drawn, specs):
    scales = [c["scale"] for c in found(specs["timeline"], "color") if isinstance(c, dict) and "scale" in c]
    assert scales
    for scale in scales:
        assert dict(zip(scale["domain"], scale["range"], strict=True)) == {
            name: drawn.styles[name][0] for name in scale["domain"]
        }
    learned = [c["scale"] for c in found(specs["learning"], "color") if isinstance(c, dict) and "scale" in c]
    assert learned[0]["range"] == [drawn.styles["ppo"][0]]


def test_the_matrix_writes_ratios_and_colours_them(run):
    spec = charts.matrix(run.summary, "cost_usd", "cluster").to_dict()
    cells = {(c["scenario"], c["controller"]): c for c in json.loads(spec["datasets"]["matrix_cost_usd_cluster"])}
    assert len(cells) == 15
    assert cells["recorded", "hpa"]["text"] == "1.00×"
    assert cells["recorded", "hpa"]["shade"] == "transparent"
    assert cells["surge", "static"]["shade"].startswith("rgba(213,94,0")  # dearer
    assert cells["surge", "ppo"]["shade"].startswith("rgba(0,114,178")  # cheaper


def test_names_that_look_like_code_are_only_names(run, drawn):
    odd = drawn.series.lines.with_columns(controller=pl.lit("""it's "x.y"[0]\\"""))
    series = type(drawn.series)(
        drawn.series.bin_s,
        odd,
        drawn.series.steps,
        drawn.series.forecast,
        "",
        drawn.series.failures,
        drawn.series.incidents,
        {},
    )
    name = odd["controller"][0]
    chart = timeline.timeline(series, {name: ("#000000", [1, 0])}, View("surge", "web", (name,)))
    import vl_convert

    assert "mark-line" in vl_convert.vegalite_to_svg(chart.to_dict())


def test_calibration_counts_values_below_each_quantile():
    quantiles = {f"q{level}": [float(level)] * 100 for level in calibration.LEVELS}
    values = [k + 0.5 for k in range(100)]
    frame = pl.DataFrame({"forecaster": ["f"] * 100, "step": [1] * 100, "y": values, **quantiles})
    told = calibration.reliability(frame)
    assert told["level"].to_list() == list(calibration.LEVELS)
    assert told["share"].to_list() == pytest.approx(list(calibration.LEVELS))  # calibrated by construction


def test_pinball_loss_is_the_mean_over_deciles_of_twice_the_pinball():
    frame = pl.DataFrame(
        {"forecaster": ["f"], "step": [1], "y": [10.0], **{f"q{q}": [8.0] for q in calibration.LEVELS}}
    )
    assert calibration.pinball(frame)["loss"][0] == pytest.approx(100 * 2 * 0.5 * 2.0 / 10.0)
    sharp = frame.with_columns(pl.lit(10.0).alias(f"q{q}") for q in calibration.LEVELS)
    assert calibration.pinball(sharp)["loss"][0] == 0.0


def test_learning_curves_are_thinned_to_means():
    curves = [{"policy": "p", "seed": 0, "step": k, "reward": float(k % 2)} for k in range(10_000)]
    thin = calibration.learning({"curves": curves})
    assert 190 <= thin.height <= 202
    assert thin["reward"].mean() == pytest.approx(0.5, abs=0.01)
    assert calibration.learning({}).height == 0
