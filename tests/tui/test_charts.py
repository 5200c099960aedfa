"""Curves and intervals as characters: they fit, they rise where the values rise, they survive."""

from __future__ import annotations

import math

import pytest
from rich.cells import cell_len
from rich.text import Text

from tui import charts

pytestmark = pytest.mark.unit


def rows(text: Text) -> list[str]:
    """The drawing without the title."""
    return text.plain.splitlines()[1:]


def inked(line: str) -> list[int]:
    """Cells of a row that hold something, right of the axis."""
    _, bar, drawn = line.partition("┤") if "┤" in line else line.partition("│")
    assert bar
    return [i for i, c in enumerate(drawn) if c != " "]


@pytest.mark.parametrize("width", [24, 40, 78, 130])
@pytest.mark.parametrize("n", [2, 3, 30, 500])
def test_a_curve_fits_its_width_and_height(width: int, n: int) -> None:
    drawn = charts.curve("reward", [(i + 1, 50 + 20 * math.sin(i)) for i in range(n)], width)
    assert 3 < len(rows(drawn)) <= 8
    assert all(cell_len(line) <= width for line in rows(drawn))
    assert drawn.plain == Text.from_ansi(drawn.plain).plain, "no colours and no escapes"
    assert not drawn.spans


def test_a_line_that_rises_ends_in_the_top_row_and_begins_in_the_lowest() -> None:
    lines = rows(charts.curve("kl", [(i, i / 10) for i in range(1, 21)], 60, window=1))
    top, lowest = lines[0], next(line for line in reversed(lines) if "┤" in line)
    assert min(inked(top)) > max(inked(lowest))
    falling = rows(charts.curve("kl", [(i, -i / 10) for i in range(1, 21)], 60, window=1))
    assert max(inked(falling[0])) < min(inked(falling[-3]))


def test_the_axis_says_the_lowest_and_the_highest_value_and_both_ends() -> None:
    text = charts.curve("reward", [(1, 12.5), (2, 40.0), (7, 88.25)], 60, window=1).plain
    assert "88.2┤" in text and "12.5┤" in text
    assert text.splitlines()[-1].split() == ["1", "4", "7"]
    assert text.splitlines()[0] == "reward: 12.5 → 88.25"


def test_the_mean_is_over_the_window() -> None:
    points = [(i, float(v)) for i, v in enumerate([0, 10, 20, 30])]
    assert charts.curve("x", points, 60, window=2).plain.startswith("x: 0 → 25 ")
    assert "mean of 2" in charts.curve("x", points, 60, window=2).plain


def test_values_that_are_none_are_left_out() -> None:
    points = [(1, 1.0), (2, math.nan), (3, math.inf), (4, None), (5, 2.0)]
    drawn = charts.curve("x", points, 60, window=1)  # type: ignore[arg-type]
    assert drawn.plain.startswith("x: 1 → 2\n")
    assert charts.curve("x", [(1, math.nan)], 60).plain == "x: nothing yet"
    assert charts.curve("x", [], 60).plain == "x: nothing yet"


def test_one_value_is_told_and_not_drawn() -> None:
    assert charts.curve("x", [(1, 4.5)], 60).plain == "x: 4.5, once"
    assert "\n" not in charts.two_curves("l", ("a", "b"), [(1, 1.0)], [(1, 2.0)], 60).plain


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0, 1e-9, 1e12])
def test_values_that_are_all_the_same_are_drawn(value: float) -> None:
    drawn = charts.curve("x", [(1, value), (2, value), (3, value)], 50, window=1)
    assert any(inked(line) for line in rows(drawn) if "┤" in line or "│" in line)


def test_a_narrow_place_gets_words_only() -> None:
    assert rows(charts.curve("x", [(1, 1.0), (2, 2.0)], charts.NARROWEST - 1)) == []


def test_two_series_have_different_shapes() -> None:
    line = [(i, 1.0 / i) for i in range(1, 20)]
    points = [(i, 1.0 / i + 0.5) for i in range(1, 20)]
    both = charts.two_curves("loss", ("training", "validation"), line, points, 60).plain
    alone = charts.two_curves("loss", ("training", "validation"), line, [], 60).plain
    assert both.count(charts.POINT) > 5 and charts.POINT not in alone
    assert "training" in both and "validation" in both


def test_an_interval_lies_where_its_numbers_do() -> None:
    assert charts.interval(0, 50, 100, 11) == "├────●────┤"
    assert charts.interval(None, 100, None, 5) == "····●"
    assert charts.interval(None, None, None, 5) == "·····"
    assert charts.interval(-20, 50, 130, 11) == "├────●────┤", "never outside"
    assert charts.interval(50, 50, 50, 11).count("●") == 1


def test_progress_is_full_only_when_all_is_done() -> None:
    assert charts.progress(0, 30, 10) == "░" * 10
    assert charts.progress(29.9, 30, 10) == "█" * 9 + "░"
    assert charts.progress(30, 30, 10) == "█" * 10
    assert charts.progress(40, 30, 10) == "█" * 10
    assert charts.progress(0, 0, 10) == "█" * 10
