"""Single statements on the tables, each within the caller's transaction."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Table

from agent.errors import StoreError
from agent.records import AffectWindow, EndedHow, Session, Turn
from agent.schema import session_row, sessions, tally, to_session, turn_row, turns, window_row
from agent.schema import windows as windows_table

__all__ = [
    "check_rating",
    "close_session",
    "count_contents",
    "count_call",
    "load_sessions",
    "note_written",
    "put_turns",
    "put_windows",
    "rate_session",
    "session_row",
]


def count_contents(connection: Connection, session_id: str) -> None:
    """Bring the counts beside a session (`schema.COUNTS`) up to what it holds."""
    of_turns = turns.c.session_id == session_id
    of_windows = windows_table.c.session_id == session_id
    agents = sa.case((turns.c.speaker == "agent", 1))
    row = connection.execute(
        sa.select(
            sa.func.count().label("n_turns"),
            sa.func.count(agents).label("n_replies"),
            sa.func.count(sa.case((turns.c.li.is_not(None), agents))).label("n_labelled"),
            sa.func.coalesce(sa.func.max(turns.c.end_s), 0.0).label("end_s"),
        ).where(of_turns)
    ).one()
    seen = connection.execute(
        sa.select(
            sa.func.count().label("n_windows"),
            sa.func.count(windows_table.c.positive).label("n_seen"),
            sa.func.count(sa.case((windows_table.c.positive, 1))).label("n_positive"),
            sa.func.coalesce(sa.func.max(windows_table.c.end_s), 0.0).label("end_s"),
        ).where(of_windows)
    ).one()
    counts = {name: getattr(row, name) for name in ("n_turns", "n_replies", "n_labelled")}
    counts |= {name: getattr(seen, name) for name in ("n_windows", "n_seen", "n_positive")}
    connection.execute(
        sa.update(sessions)
        .where(sessions.c.id == session_id)
        .values(**counts, duration_s=max(row.end_s, seen.end_s))
    )


def check_rating(value: float) -> None:
    """Overall affect is a number from 0 to 100.

    Raises:
        StoreError: anything else.
    """
    if not (math.isfinite(value) and 0 <= value <= 100):
        raise StoreError(f"a rating of {value:g} is out of range", "overall affect is 0 to 100")


def put_turns(connection: Connection, session_id: str, new: Sequence[Turn]) -> None:
    """Insert turns, or replace those with the same index."""
    _put(connection, turns, [turn_row(session_id, turn) for turn in new])
    if new:
        count_contents(connection, session_id)


def put_windows(connection: Connection, session_id: str, new: Sequence[AffectWindow]) -> None:
    """Insert windows, or replace those with the same index."""
    _put(connection, windows_table, [window_row(session_id, window) for window in new])
    if new:
        count_contents(connection, session_id)


def close_session(connection: Connection, session_id: str, how: EndedHow, at: datetime) -> None:
    """Note how and when a session ended; it has no owner any more."""
    connection.execute(
        sa.update(sessions)
        .where(sessions.c.id == session_id)
        .values(ended_how=how.value, ended_at=at, owner=None)
    )


def rate_session(
    connection: Connection,
    session_id: str,
    value: float,
    source: str,
    comment: str | None,
    at: datetime,
) -> bool:
    """Set the rating; False when there is no such session."""
    done = connection.execute(
        sa.update(sessions)
        .where(sessions.c.id == session_id)
        .values(
            overall_affect=float(value),
            overall_affect_source=source,
            overall_affect_at=at,
            comment=comment,
        )
    )
    return bool(done.rowcount)


def note_written(connection: Connection, session_id: str, n: int) -> None:
    """In the transaction that does a session's writes up to the `n`-th (agent/journal.py)."""
    connection.execute(sa.update(sessions).where(sessions.c.id == session_id).values(written=n))


def count_call(connection: Connection, day: date, what: str) -> None:
    """One more call of that kind on that day."""
    more = connection.execute(
        sa.update(tally).where(tally.c.day == day, tally.c.what == what).values(n=tally.c.n + 1)
    )
    if not more.rowcount:
        connection.execute(sa.insert(tally).values(day=day, what=what, n=1))


def load_sessions(connection: Connection, ids: Sequence[str]) -> list[Session]:
    """The sessions with those ids, in that order; unknown ones are left out."""
    if not ids:
        return []
    heads = connection.execute(sa.select(sessions).where(sessions.c.id.in_(ids))).all()
    of_turns = _grouped(connection, turns, ids)
    of_windows = _grouped(connection, windows_table, ids)
    found = {row.id: to_session(row, of_turns[row.id], of_windows[row.id]) for row in heads}
    return [found[i] for i in ids if i in found]


def _grouped(
    connection: Connection, table: Table, ids: Sequence[str]
) -> defaultdict[str, list[sa.Row[Any]]]:
    query = sa.select(table).where(table.c.session_id.in_(ids)).order_by(table.c.index)
    groups: defaultdict[str, list[sa.Row[Any]]] = defaultdict(list)
    for row in connection.execute(query):
        groups[row.session_id].append(row)
    return groups


def _put(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    """Delete and insert: the same on every database, within one transaction."""
    if not rows:
        return
    indices = [row["index"] for row in rows]
    connection.execute(
        sa.delete(table).where(
            table.c.session_id == rows[0]["session_id"], table.c.index.in_(indices)
        )
    )
    connection.execute(sa.insert(table), rows)
