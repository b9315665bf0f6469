import pytest

from reports.forecast_explained import steps, waterfall


def test_the_bars_lead_from_now_to_the_forecast() -> None:
    bars = steps(412.0, {"daily": 31.0, "trend": -9.0, "rest": 0.0})
    assert bars["reason"].to_list() == ["now", "daily", "trend", "rest", "forecast"]
    assert bars["start"].to_list() == [412.0, 412.0, 443.0, 434.0, 434.0]
    assert bars["end"].to_list() == [412.0, 443.0, 434.0, 434.0, 434.0]
    assert bars["text"].to_list() == ["412", "+31", "-9", "0", "434"]
    assert bars["kind"].to_list() == ["now", "up", "down", "up", "forecast"]
    assert bars["added"].sum() == pytest.approx(22.0)


def test_the_chart_carries_its_numbers_and_renders() -> None:
    import vl_convert

    chart = waterfall(412.0, {"daily": 31.0, "trend": 12.0}, (438.0, 471.0), title="CPU of cell a", unit="cores")
    spec = chart.to_dict()
    assert set(spec["datasets"]) == {"explained", "band"}
    svg = vl_convert.vegalite_to_svg(spec)
    for text in ("CPU of cell a", "cores", "+31", "+12", "455"):
        assert text in svg
