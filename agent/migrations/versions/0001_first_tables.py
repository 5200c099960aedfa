"""First tables: sessions, turns, windows, tally.

Written out, not taken from agent.schema: a migration must stay what it was.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def _of_session() -> sa.Column[str]:
    return sa.Column(
        "session_id",
        sa.String(64),
        sa.ForeignKey("sessions.id", ondelete="CASCADE"),
        primary_key=True,
    )


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("schema_version", sa.Integer, nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("ended_at", TIME),
        sa.Column("ended_how", sa.String(16)),
        sa.Column("consent", sa.String(16), nullable=False),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("overall_affect", sa.Float),
        sa.Column("overall_affect_at", TIME),
        sa.Column("overall_affect_source", sa.Text),
        sa.Column("comment", sa.Text),
        sa.Column("excluded", sa.Boolean, nullable=False),
        sa.Column("excluded_reason", sa.Text),
        sa.Column("policy_id", sa.Text),
        sa.Column("config_digest", sa.Text),
        sa.Column("program_version", sa.Text),
        sa.Column("owner", sa.Text),
        sa.CheckConstraint("consent IN ('keep', 'learn')", name="only_what_may_be_kept"),
    )
    op.create_index("ix_sessions_started_at", "sessions", ["started_at"])
    op.create_table(
        "turns",
        _of_session(),
        sa.Column("index", sa.Integer, primary_key=True),
        sa.Column("speaker", sa.String(8), nullable=False),
        sa.Column("start_s", sa.Float, nullable=False),
        sa.Column("end_s", sa.Float, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("generated_text", sa.Text),
        sa.Column("interrupted", sa.Boolean, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("policy_id", sa.Text),
        sa.Column("engines", sa.JSON, nullable=False),
        sa.Column("latency", sa.JSON),
        sa.Column("li", sa.Integer),
        sa.Column("li_coverage", sa.Float),
        sa.Column("li_windows", sa.JSON, nullable=False),
        sa.Column("li_rule", sa.Text),
        sa.Column("sentiment", sa.Float),
        sa.Column("prosody", sa.JSON),
    )
    op.create_table(
        "windows",
        _of_session(),
        sa.Column("index", sa.Integer, primary_key=True),
        sa.Column("start_s", sa.Float, nullable=False),
        sa.Column("end_s", sa.Float, nullable=False),
        sa.Column("face_found", sa.Boolean, nullable=False),
        sa.Column("coverage", sa.Float, nullable=False),
        sa.Column("probabilities", sa.JSON),
        sa.Column("valence", sa.Float),
        sa.Column("positive", sa.Boolean),
        sa.Column("classifier", sa.Text, nullable=False),
    )
    op.create_table(
        "tally",
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("what", sa.String(32), primary_key=True),
        sa.Column("n", sa.Integer, nullable=False),
    )


def downgrade() -> None:
    """Drop the tables."""
    for table in ("tally", "windows", "turns", "sessions"):
        op.drop_table(table)
