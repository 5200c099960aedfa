"""Review: notes, tags, the person's token, counts beside each session, and the log of changes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

COUNTS = ("n_turns", "n_replies", "n_labelled", "n_windows", "n_seen", "n_positive")

COUNT = """
UPDATE sessions SET
  n_turns = (SELECT count(*) FROM turns t WHERE t.session_id = sessions.id),
  n_replies = (SELECT count(*) FROM turns t WHERE t.session_id = sessions.id
               AND t.speaker = 'agent'),
  n_labelled = (SELECT count(t.li) FROM turns t WHERE t.session_id = sessions.id
                AND t.speaker = 'agent'),
  n_windows = (SELECT count(*) FROM windows w WHERE w.session_id = sessions.id),
  n_seen = (SELECT count(w.positive) FROM windows w WHERE w.session_id = sessions.id),
  n_positive = (SELECT count(*) FROM windows w WHERE w.session_id = sessions.id AND w.positive),
  duration_s = (SELECT coalesce(max(e), 0) FROM (
    SELECT max(t.end_s) AS e FROM turns t WHERE t.session_id = sessions.id
    UNION ALL
    SELECT max(w.end_s) FROM windows w WHERE w.session_id = sessions.id) AS ends)
"""


def upgrade() -> None:
    """Add the columns, count what is there, make the table."""
    op.add_column("sessions", sa.Column("note", sa.Text))
    op.add_column("sessions", sa.Column("tags", sa.JSON, nullable=False, server_default="[]"))
    op.add_column("sessions", sa.Column("person", sa.String(64)))
    op.create_index("ix_sessions_person", "sessions", ["person"])
    for name in COUNTS:
        op.add_column("sessions", sa.Column(name, sa.Integer, nullable=False, server_default="0"))
    op.add_column("sessions", sa.Column("duration_s", sa.Float, nullable=False, server_default="0"))
    op.execute(COUNT)
    op.create_table(
        "changes",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column(
            "session_id",
            sa.String(64),
            sa.ForeignKey("sessions.id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("what", sa.String(16), nullable=False),
        sa.Column("turn_index", sa.Integer),
        sa.Column("before", sa.JSON, nullable=False),
        sa.Column("after", sa.JSON, nullable=False),
        sa.Column("undoes", sa.Integer),
    )
    op.create_index("ix_changes_session_id", "changes", ["session_id"])


def downgrade() -> None:
    """Drop what was added."""
    op.drop_table("changes")
    op.drop_index("ix_sessions_person", "sessions")
    for name in ("note", "tags", "person", *COUNTS, "duration_s"):
        op.drop_column("sessions", name)
