"""What all studies share: the command, intervals, published figures beside measured ones."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from experiments.display import Display
from experiments.study import Study, Titled, beside, interval, positive
from twin.errors import TraceError, UsageError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reproduced.md"


def study(error: Exception | None = None) -> Study:
    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("count", type=positive)

    def tables(given: argparse.Namespace, display: Display) -> Iterator[Titled]:
        with display.phase("counting"):
            found = pl.DataFrame({"value": [19753.5275] * given.count})
        yield "counted", found
        if error:
            raise error

    return Study("drawn", "Count.", arguments, tables)


def test_tables_go_to_stdout_and_phases_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """Every digit of a figure is shown."""
    assert study().main(["2"]) == 0
    told = capsys.readouterr()
    assert told.out.count("19753.5275") == 2
    assert "counted" in told.out
    assert "counting" in told.err


def test_what_goes_wrong_is_told_with_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert study(TraceError("a.csv: torn; fetch it anew")).main(["1"]) == TraceError.exit_code
    assert capsys.readouterr().err.endswith("TraceError: a.csv: torn; fetch it anew\n")
    assert study(UsageError("count=1; give 2")).main(["1"]) == UsageError.exit_code != TraceError.exit_code


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", "²"])
def test_a_count_is_a_whole_number_above_zero(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        study().main([text])
    assert "at least 1" in capsys.readouterr().err


def test_an_interval_holds_its_mean_and_needs_six_values() -> None:
    """Fewer cannot carry 95 %; the same generator gives the same ends."""
    low, high = interval(np.arange(10.0), np.random.default_rng(1))
    assert (low, high) == interval(np.arange(10.0), np.random.default_rng(1))
    assert low is not None
    assert high is not None
    assert 0.0 < low < 4.5 < high < 9.0
    assert interval([1.0] * 6, np.random.default_rng(1)) == (1.0, 1.0)
    assert interval([1.0, 2.0, 3.0, 4.0, 5.0], np.random.default_rng(1)) == (None, None)


def test_measured_rows_keep_their_order_and_unknown_ones_stay() -> None:
    measured = pl.DataFrame({"k": ["b", "a", "c", "d"], "mean": [2.0, 1.0, 3.0, 2.0], "low": 1.5, "high": 2.5})
    found = beside(measured, pl.DataFrame({"k": ["d", "a", "b"], "published": [3.0, 1.25, 2.5]}), ["k"])
    assert found["k"].to_list() == ["b", "a", "c", "d"]
    assert found["difference"].to_list() == [-0.5, -0.25, None, -1.0]
    assert found["inside"].to_list() == [True, False, None, False]


def test_every_command_of_the_page_is_one() -> None:
    """The studies take the arguments that the page gives them."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    lines = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert {words[2] for words in lines} == {f"experiments.{name}" for name in ("openb", "rlscheduler", "kth")}
    for words in lines:
        assert words[:2] == ["python", "-m"]
        import_module(words[2]).STUDY.parser().parse_args(words[3:])
