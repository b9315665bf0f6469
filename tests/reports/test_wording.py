"""Numbers and times as text."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports import wording


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (math.nan, "–"),
        (math.inf, "–"),
        (0.0, "0"),
        (0.0213, "0.0213"),
        (1.0, "1"),
        (96.47, "96.5"),
        (12345.6, "12\u202f346"),
        (-0.5, "-0.5"),
        (3.67e-5, "3.67e-5"),
    ],
)
def test_three_digits_tell_a_number(value, text):
    assert wording.number(value) == text


@given(st.floats(min_value=-1e12, max_value=1e12))
def test_a_number_reads_back_within_its_three_digits(value):
    text = wording.number(value).replace(wording.THIN, "")
    assert float(text) == pytest.approx(value, rel=0.006, abs=1e-300)


@pytest.mark.parametrize(
    ("seconds", "text"), [(41.2, "41.2 s"), (90, "90 s"), (600, "10 min"), (3600, "1 h"), (604_800, "7 d"), (None, "–")]
)
def test_a_duration_has_its_natural_unit(seconds, text):
    assert wording.duration(seconds) == text


def test_the_clock_counts_days_from_zero():
    assert wording.clock(0) == "d0 00:00"
    assert wording.clock(2 * 86_400 + 4.5 * 3600) == "d2 04:30"


def test_an_interval_needs_both_ends():
    assert wording.interval(1.0, None) == ""
    assert wording.interval(1.0, 2.0).replace(wording.THIN, "") == "1–2"


def test_ratios_keep_two_decimals_below_ten():
    assert wording.ratio(1.0) == "1.00×"
    assert wording.ratio(112.4) == "112×"
    assert wording.ratio(None) == "–"
