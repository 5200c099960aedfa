"""The columns of the sessions table, and which of them fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size

from agent.store import SessionSummary
from agent.store_query import Order
from tui.words import clock, day_and_time, number, plain, share, short_policy

GAP = 1
"""Cells between two columns."""


@dataclass(slots=True, frozen=True)
class Column:
    """One column."""

    title: str
    width: int
    rank: int
    """Columns of a higher rank go first where it is narrow."""
    cell: Callable[[SessionSummary], str]
    order: Order | None = None
    """What it sorts by."""
    right: bool = False
    grows: bool = False
    """Takes what is left of the width."""

    def padded(self, text: str, width: int) -> str:
        """A text cut or filled to `width` cells."""
        text = plain(text)
        if cell_len(text) > width:
            return set_cell_size(text, max(width - 1, 0)) + "…"[:width]
        if self.right:
            return " " * (width - cell_len(text)) + text
        return set_cell_size(text, width)


def _flags(one: SessionSummary) -> str:
    return ("×" if one.excluded else " ") + ("✎" if one.noted else " ")


def _ended(one: SessionSummary) -> str:
    return "● live" if one.live else (one.ended_how or "open").replace("_", " ")


COLUMNS = (
    Column("", 2, 0, _flags),
    Column("started", 11, 0, lambda s: day_and_time(s.started_at), "started"),
    Column("length", 6, 3, lambda s: clock(s.duration_s), "length", right=True),
    Column("turns", 5, 4, lambda s: str(s.n_turns), "turns", right=True),
    Column("rating", 6, 0, lambda s: number(s.overall_affect, ".0f"), "rating", right=True),
    Column("pos.", 5, 1, lambda s: share(s.positive_share), "positive", right=True),
    Column("labels", 6, 2, lambda s: share(s.labelled_share), "labels", right=True),
    Column("seen", 5, 6, lambda s: share(s.coverage), "seen", right=True),
    Column("ended", 9, 2, _ended, "ended"),
    Column("consent", 7, 4, lambda s: s.consent),
    Column("policy", 10, 5, lambda s: short_policy(s.policy_id), "policy", grows=True),
    Column("source", 8, 8, lambda s: s.source),
    Column("tags", 10, 7, lambda s: ", ".join(s.tags), grows=True),
    Column("id", 24, 9, lambda s: s.id),
)


def fit(width: int, columns: Sequence[Column] = COLUMNS) -> list[tuple[Column, int]]:
    """The columns that fit into `width` cells with their widths, in their own order."""
    chosen: list[Column] = []
    used = -GAP
    for column in sorted(columns, key=lambda c: c.rank):
        if used + GAP + column.width <= width or not chosen:
            chosen.append(column)
            used += GAP + column.width
        else:
            break
    left = max(width - used, 0)
    growing = [column for column in chosen if column.grows]
    out = []
    for column in columns:
        if column not in chosen:
            continue
        extra = 0
        if column in growing:
            extra = left // len(growing) + (left % len(growing) if column is growing[-1] else 0)
        out.append((column, column.width + extra))
    return out


def line(cells: Sequence[tuple[Column, int]], texts: Sequence[str]) -> str:
    """One line of the table."""
    return (" " * GAP).join(
        column.padded(text, width) for (column, width), text in zip(cells, texts, strict=True)
    )
