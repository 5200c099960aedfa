"""Sessions as text: the strip, the bars, what was not heard; columns that always fit."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from agent.store import SessionSummary
from tests.agent.session_samples import turn, window
from tui.columns import COLUMNS, fit, line
from tui.transcript import bar, strip, unheard
from tui.words import clock, plain, short_policy

pytestmark = pytest.mark.unit

TEXTS = st.text(max_size=30)


@given(st.integers(1, 300))
def test_columns_fit_any_width(width: int) -> None:
    cells = fit(width)
    assert cells
    used = sum(w for _, w in cells) + len(cells) - 1
    assert used <= width or len(cells) == 1
    wider = {c.title for c, _ in fit(width + 1)}
    assert {c.title for c, _ in cells} <= wider  # a wider terminal loses no column
    assert [c for c in COLUMNS if c in dict(cells)] == [c for c, _ in cells]


@given(st.integers(20, 200), TEXTS, st.lists(TEXTS, max_size=3))
def test_a_row_is_as_wide_as_its_columns(width: int, policy: str, tags: list[str]) -> None:
    summary = SessionSummary(
        id="x" * 64, started_at=datetime(2026, 1, 2, tzinfo=UTC), duration_s=1e6, n_turns=10**6,
        overall_affect=100.0, positive_share=1.0, coverage=0.0, labelled_share=None,
        consent="learn", source="simulated", ended_how="timed_out", excluded=True,
        excluded_reason=None, policy_id=policy, tags=tuple(tags), noted=True, live=False,
    )  # fmt: skip
    cells = fit(width)
    text = line(cells, [column.cell(summary) for column, _ in cells])
    assert cell_len(text) == sum(w for _, w in cells) + len(cells) - 1
    assert all(c.isprintable() for c in text)


def test_the_strip_tells_what_most_of_a_cell_says() -> None:
    windows = [window(i, p) for i, p in enumerate([True, True, False, None, False, False])]
    turns = [turn(0, "agent", start_s=0.0), turn(1, start_s=6.0)]
    text = strip(windows, turns, 8).plain.splitlines()
    # 7.5 s in eight cells; the windows' centres lie at 1, 2, …, 6 s, the last one ends at 7 s.
    assert text[0] == "▀▀▀▄·▄▄ "
    assert text[1] == "AA    uu"


def test_the_strip_of_nothing_is_empty() -> None:
    assert strip([], [], 10).plain.splitlines() == [" " * 10, " " * 10]


@given(st.lists(st.none() | st.booleans(), max_size=40), st.integers(1, 120))
def test_the_strip_has_the_width_it_was_given(seen: list[bool | None], width: int) -> None:
    text = strip([window(i, p) for i, p in enumerate(seen)], [turn(0)], width).plain
    assert [len(part) for part in text.split("\n")] == [width, width]


@given(st.floats(-100, 100), st.floats(0.1, 100))
def test_a_bar_points_where_its_sign_does(value: float, largest: float) -> None:
    value = max(-largest, min(largest, value))
    left, right = bar(value, largest).plain.split("│")
    assert len(left) == 8
    assert ("▇" in left) <= (value < 0) and ("▇" in right) <= (value >= 0)


def test_what_was_not_heard() -> None:
    def of(heard: str, written: str | None) -> str:
        return unheard(turn(1, "agent", text=heard, generated_text=written, interrupted=True))

    assert of("I see.", "I see.  And then?") == "And then?"
    assert of("", "Hello there") == "Hello there"
    assert of("I see.", "I see.") == ""
    assert of("I see.", None) == ""
    assert of("I saw", "Something else") == "Something else"


def test_words() -> None:
    assert [clock(s) for s in (0, 59.6, 61, 3600)] == ["0:00", "1:00", "1:01", "1:00:00"]
    assert plain("a\x1b[31mb\nc\u202e") == "a [31mb c "
    assert short_policy("base+p-20261124T020658-421fd1") == "p-…421fd1"
    assert (short_policy("base"), short_policy(None)) == ("base", "–")
