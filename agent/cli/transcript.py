"""Sessions and tables as text: a table on a terminal, tab-separated lines for a program."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from agent.records import Session, Turn


def print_session(session: Session) -> None:
    """One session for a person to read: its head, then its turns."""
    for key, value in _head(session):
        click.echo(f"{key:<10} {printable(value)}")
    click.echo()
    print_table(
        ["#", "at", "who", "label", "seen", "sentiment", "voice to voice", "text"],
        [_turn_row(turn) for turn in session.turns],
        empty="no turns",
    )


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], empty: str) -> None:
    """A table on a terminal; tab-separated lines for a program."""
    rows = [[printable(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in ([*columns], *rows):
            click.echo("\t".join(row))
        return
    if not rows:
        click.echo(empty)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for name in columns:
        table.add_column(name, no_wrap=name in ("id", "started", "at"), overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def _head(session: Session) -> list[tuple[str, str]]:
    rating = number(session.overall_affect, "g")
    if session.overall_affect_source:
        rating += f" ({session.overall_affect_source})"
    head = [
        ("session", session.id),
        ("started", f"{session.started_at.astimezone():%Y-%m-%d %H:%M:%S %Z}"),
        ("ended", session.ended_how or "not yet"),
        ("consent", session.consent),
        ("rating", rating),
        ("comment", session.comment or ""),
        ("excluded", (session.excluded_reason or "yes") if session.excluded else ""),
        ("policy", session.policy_id or ""),
        ("windows", str(len(session.windows))),
    ]
    return [(key, value) for key, value in head if value]


def _turn_row(turn: Turn) -> list[str]:
    agent = turn.speaker == "agent"
    label = {1: "positive", 0: "not", None: "unknown"}[turn.li] if agent else ""
    waited = turn.latency.voice_to_voice_ms if turn.latency else None
    return [
        str(turn.index),
        clock(turn.start_s),
        turn.speaker,
        label,
        number(turn.li_coverage, ".0%") if agent else "",
        number(turn.sentiment, "+.2f"),
        f"{waited:.0f} ms" if waited is not None else "",
        turn.text + (" [interrupted]" if turn.interrupted else ""),
    ]


def printable(text: str) -> str:
    """Text without control characters: an imported one must not steer the terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


def number(value: float | None, form: str) -> str:
    """A number in that format; a dash for none."""
    return "–" if value is None else format(value, form)


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
