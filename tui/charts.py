"""Curves and intervals drawn with characters. No colour: shapes say which line is which."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import Any

from rich.text import Text

WINDOW = 5
"""Values of the moving mean, as in the pictures that training draws."""
NARROWEST = 24
"""Columns below which a curve is told in words only."""
POINT = "•"

Points = Sequence[tuple[float, float]]


def curve(title: str, points: Points, width: int, height: int = 8, window: int = WINDOW) -> Text:
    """Values as points and their moving mean as a line, with a title that says both ends.

    Args:
        title: what is drawn, with its unit.
        points: x and y; a y that is no number is left out.
        width: cells it may take.
        height: lines of the drawing, without the title.
        window: values of the moving mean; 1 for none.
    """
    known = _known(points)
    if not known:
        return Text(f"{title}: nothing yet")
    mean = _moving([y for _, y in known], window)
    head = title if len(known) == 1 else f"{title}: {mean[0]:.4g} → {mean[-1]:.4g}"
    if window > 1 and len(known) > 1:
        head += f"  ({POINT} each, line: mean of {window})"
    if len(known) < 2 or width < NARROWEST:
        return Text(head if len(known) > 1 else f"{title}: {known[0][1]:.4g}, once")
    line = [(x, y) for (x, _), y in zip(known, mean, strict=True)]
    return _drawn(head, line, known if window > 1 else [], width, height)


def two_curves(
    title: str, names: tuple[str, str], line: Points, points: Points, width: int, height: int = 8
) -> Text:
    """Two series over the same steps: the first as a line, the second as points."""
    first, second = _known(line), _known(points)
    if not first:
        return Text(f"{title}: nothing yet")
    ends = f"line: {names[0]} {first[0][1]:.4g} → {first[-1][1]:.4g}"
    if second:
        ends += f", {POINT} {names[1]} {second[0][1]:.4g} → {second[-1][1]:.4g}"
    head = f"{title}  {ends}"
    if len(first) < 2 or width < NARROWEST:
        return Text(head)
    return _drawn(head, first, second, width, height)


def interval(low: float | None, middle: float | None, high: float | None, width: int) -> str:
    """A value and its interval on a scale from 0 to 100 of `width` cells: `····├──●──┤···`."""
    cells = ["·"] * width

    def place(value: float) -> int:
        return min(max(round(value / 100 * (width - 1)), 0), width - 1)

    if low is not None and high is not None:
        first, last = place(low), place(high)
        cells[first : last + 1] = "─" * (last + 1 - first)
        if first < last:
            cells[first], cells[last] = "├", "┤"
    if middle is not None:
        cells[place(middle)] = "●"
    return "".join(cells)


def progress(done: float, whole: float, width: int = 20) -> str:
    """How much of something is done, as a bar."""
    share = 1.0 if whole <= 0 else min(max(done / whole, 0.0), 1.0)
    full = int(share * width)
    return "█" * full + "░" * (width - full)


def _known(points: Points) -> list[tuple[float, float]]:
    return [
        (float(x), float(y))
        for x, y in points
        if isinstance(x, int | float)
        and isinstance(y, int | float)
        and math.isfinite(x)
        and math.isfinite(y)
    ]


def _moving(values: Sequence[float], window: int) -> list[float]:
    out = []
    for i in range(len(values)):
        part = values[max(0, i + 1 - window) : i + 1]
        out.append(sum(part) / len(part))
    return out


def _drawn(head: str, line: Points, points: Points, width: int, height: int) -> Text:
    plot: Any = importlib.import_module("plotext")  # it brings no types
    values = [y for _, y in (*line, *points)]
    steps = [x for x, _ in (*line, *points)]
    low, high = min(values), max(values)
    if low == high:
        margin = abs(low) or 1.0
        low, high = low - margin, high + margin
    plot.clear_figure()
    plot.theme("clear")
    plot.limit_size(False, False)
    plot.plot_size(width, height)
    plot.ylim(low, high)
    # Its own labels belong to the edges of rows; ours are the values at them.
    plot.yticks([low, (low + high) / 2, high], [_told(v) for v in (low, (low + high) / 2, high)])
    ends = sorted({min(steps), (min(steps) + max(steps)) // 2, max(steps)})
    plot.xticks(ends, [f"{x:g}" for x in ends])
    plot.xaxes(True, False)
    plot.yaxes(True, False)
    if points:
        plot.scatter([x for x, _ in points], [y for _, y in points], marker=POINT)
    plot.plot([x for x, _ in line], [y for _, y in line], marker="braille")
    drawn = Text.from_ansi(plot.build()).plain
    plot.clear_figure()
    lines = [one.rstrip() for one in drawn.splitlines()]
    return Text("\n".join([head, *(one for one in lines if one)]))


def _told(value: float) -> str:
    return f"{value:.3g}"
