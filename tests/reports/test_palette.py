"""One colour per label, and one scale from worse to better."""

import math

from hypothesis import given
from hypothesis import strategies as st

from reports import palette

labels = st.lists(st.text(min_size=1, max_size=12), unique=True, max_size=18)


@given(labels, st.randoms())
def test_a_label_keeps_its_style_in_whatever_order_labels_come(names, random):
    shuffled = random.sample(names, len(names))
    assert palette.styles(names) == palette.styles(shuffled)


@given(labels)
def test_no_two_of_eighteen_labels_look_alike(names):
    looks = [(hue, tuple(dash)) for hue, dash in palette.styles(names).values()]
    assert len(set(looks)) == len(names)


def test_the_baseline_is_grey_and_takes_no_hue():
    styles = palette.styles(["a", "hpa", "b"], baseline="hpa")
    assert styles["hpa"] == (palette.BASELINE, [1, 0])
    assert {k: v for k, v in styles.items() if k != "hpa"} == palette.styles(["a", "b"])


def test_many_labels_still_have_a_style():
    names = [f"c{k}" for k in range(40)]
    assert list(palette.styles(names)) == names


@given(st.floats(min_value=1e-6, max_value=1e6))
def test_what_is_better_for_one_direction_is_worse_for_the_other(ratio):
    lower, higher = palette.strength(ratio, "lower"), palette.strength(ratio, "higher")
    assert lower == -higher
    assert -1.0 <= lower <= 1.0
    assert (lower > 0) == (ratio < 1)


def test_unknown_ratios_and_kpis_without_direction_have_no_colour():
    assert palette.shade(None, "lower") == ""
    assert palette.shade(math.nan, "lower") == ""
    assert palette.shade(0.5, "neither") == ""
    assert palette.shade(1.0, "lower") == ""
    assert palette.shade(0.5, "lower").startswith("rgba(0,114,178")
    assert palette.shade(0.5, "higher").startswith("rgba(213,94,0")
