"""The tables, and how records become rows and back. Migrations make them; these describe them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from pydantic import ValidationError

from agent.errors import StoreError
from agent.records import AffectWindow, Session, Turn

UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
"""What neither SQLite nor PostgreSQL keeps in a text: NUL and lone surrogates."""


class Utc(sa.TypeDecorator[datetime]):
    """An aware time in UTC; SQLite keeps it without its zone."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Words(sa.TypeDecorator[str]):
    """A text; what cannot be stored becomes U+FFFD."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        return None if value is None else UNSTORABLE.sub("\ufffd", value)


COUNTS = ("n_turns", "n_replies", "n_labelled", "n_windows", "n_seen", "n_positive")
"""What a session holds, kept beside it so that a list of thousands needs no counting: turns, agent
turns, agent turns with a label; windows, those with a face, positive ones."""
NOT_OF_THE_RECORD = {"owner", "secret", "written", "duration_s", *COUNTS}

metadata = sa.MetaData()

sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("schema_version", sa.Integer, nullable=False),
    sa.Column("started_at", Utc, nullable=False, index=True),
    sa.Column("ended_at", Utc),
    sa.Column("ended_how", sa.String(16)),
    sa.Column("consent", sa.String(16), nullable=False),
    sa.Column("source", sa.String(16), nullable=False),
    sa.Column("overall_affect", sa.Float),
    sa.Column("overall_affect_at", Utc),
    sa.Column("overall_affect_source", Words),
    sa.Column("comment", Words),
    sa.Column("excluded", sa.Boolean, nullable=False),
    sa.Column("excluded_reason", Words),
    sa.Column("policy_id", Words),
    sa.Column("config_digest", Words),
    sa.Column("program_version", Words),
    sa.Column("note", Words),
    sa.Column("tags", sa.JSON, nullable=False, server_default="[]"),
    sa.Column("person", sa.String(64), index=True),
    sa.Column("owner", sa.Text),  # the process that writes it; null once it is over
    sa.Column("secret", sa.String(64)),  # SHA-256 of what its page shows; null without a page
    # of its log's writes, how many are here (agent/journal.py)
    sa.Column("written", sa.Integer, nullable=False, server_default="0"),
    *(sa.Column(name, sa.Integer, nullable=False, server_default="0") for name in COUNTS),
    sa.Column("duration_s", sa.Float, nullable=False, server_default="0"),
    sa.CheckConstraint("consent IN ('keep', 'learn')", name="only_what_may_be_kept"),
)
turns = sa.Table(
    "turns",
    metadata,
    sa.Column("session_id", sa.ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("index", sa.Integer, primary_key=True),
    sa.Column("speaker", sa.String(8), nullable=False),
    sa.Column("start_s", sa.Float, nullable=False),
    sa.Column("end_s", sa.Float, nullable=False),
    sa.Column("text", Words, nullable=False),
    sa.Column("generated_text", Words),
    sa.Column("interrupted", sa.Boolean, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("policy_id", Words),
    sa.Column("engines", sa.JSON, nullable=False),
    sa.Column("latency", sa.JSON(none_as_null=True)),
    sa.Column("li", sa.Integer),
    sa.Column("li_coverage", sa.Float),
    sa.Column("li_windows", sa.JSON, nullable=False),
    sa.Column("li_rule", Words),
    sa.Column("sentiment", sa.Float),
    sa.Column("prosody", sa.JSON(none_as_null=True)),
)
windows = sa.Table(
    "windows",
    metadata,
    sa.Column("session_id", sa.ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("index", sa.Integer, primary_key=True),
    sa.Column("start_s", sa.Float, nullable=False),
    sa.Column("end_s", sa.Float, nullable=False),
    sa.Column("face_found", sa.Boolean, nullable=False),
    sa.Column("coverage", sa.Float, nullable=False),
    sa.Column("probabilities", sa.JSON(none_as_null=True)),
    sa.Column("valence", sa.Float),
    sa.Column("positive", sa.Boolean),
    sa.Column("classifier", Words, nullable=False),
)
changes = sa.Table(
    "changes",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column(
        "session_id", sa.ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False, index=True
    ),
    sa.Column("at", Utc, nullable=False),
    sa.Column("by", Words, nullable=False),
    sa.Column("what", sa.String(16), nullable=False),
    sa.Column("turn_index", sa.Integer),
    sa.Column("before", sa.JSON, nullable=False),
    sa.Column("after", sa.JSON, nullable=False),
    sa.Column("undoes", sa.Integer),
)
tally = sa.Table(
    "tally",
    metadata,
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("what", sa.String(32), primary_key=True),
    sa.Column("n", sa.Integer, nullable=False),
)
workers = sa.Table(
    "workers",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),  # the same text as in its sessions
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("url", sa.Text),  # where other workers reach it; null: nowhere
    sa.Column("cluster", sa.String(16)),  # which key it shares with others; null: none
    sa.Column("started_at", Utc, nullable=False),
    sa.Column("heartbeat_at", Utc, nullable=False),  # the database's own clock
    sa.Column("draining", sa.Boolean, nullable=False),
    sa.Column("live", sa.Integer, nullable=False),
    sa.Column("capacity", sa.Integer, nullable=False),
)
tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("hash", sa.String(64), primary_key=True),  # as `sessions.person` has it
    sa.Column("cookie", sa.String(64), nullable=False, unique=True),  # SHA-256 of its cookie
    sa.Column("name", Words, nullable=False),
    sa.Column("created_at", Utc, nullable=False),
    sa.Column("expires_at", Utc, nullable=False),
    sa.Column("revoked_at", Utc),
)


def session_row(session: Session, owner: str | None, secret: str | None = None) -> dict[str, Any]:
    """A session's head as a row of `sessions`."""
    row = session.model_dump(exclude={"turns", "windows"})
    how = session.ended_how.value if session.ended_how else None
    row |= {"consent": session.consent.value, "ended_how": how, "owner": owner, "secret": secret}
    return row


def turn_row(session_id: str, turn: Turn) -> dict[str, Any]:
    """A turn as a row of `turns`."""
    return turn.model_dump(exclude={"spoken_text"}) | {"session_id": session_id}


def window_row(session_id: str, window: AffectWindow) -> dict[str, Any]:
    """A window as a row of `windows`."""
    return window.model_dump() | {"session_id": session_id}


def to_session(
    head: sa.Row[Any], turn_rows: Iterable[sa.Row[Any]], window_rows: Iterable[sa.Row[Any]]
) -> Session:
    """The record of a session from its rows.

    Raises:
        StoreError: a row holds what no session can.
    """
    data = {key: value for key, value in head._mapping.items() if key not in NOT_OF_THE_RECORD}
    data["turns"] = [_bare(row) for row in turn_rows]
    data["windows"] = [_bare(row) for row in window_rows]
    try:
        return Session.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StoreError(
            f"session {head.id} is damaged: {where}: {first['msg']}",
            "restore a copy, exclude it from learning, or delete it",
        ) from None


def _bare(row: sa.Row[Any]) -> dict[str, Any]:
    return {key: value for key, value in row._mapping.items() if key != "session_id"}
