"""The list of sessions: which ones, and what is told of each."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from agent.records import Consent
from agent.schema import sessions, turns, windows


@dataclass(slots=True, frozen=True)
class Filter:
    """Which sessions; None or an empty set means any."""

    consent: Collection[Consent] = ()
    unrated: bool = False
    policy_id: str | None = None
    since: datetime | None = None
    excluded: bool | None = None
    live: bool | None = None
    """True: calls in progress only; False: ended ones only."""


@dataclass(slots=True, frozen=True)
class SessionSummary:
    """One line of the list."""

    id: str
    started_at: datetime
    duration_s: float
    """Up to the end of the last turn or window, session clock."""
    n_turns: int
    overall_affect: float | None
    positive_share: float | None
    """Positive windows among those with a face; None when there are none."""
    coverage: float | None
    """Windows with a face among all; None without windows."""
    consent: str
    ended_how: str | None
    excluded: bool
    policy_id: str | None
    live: bool


def conditions(only: Filter) -> list[sa.ColumnElement[bool]]:
    """The filter as SQL."""
    c = sessions.c
    out: list[sa.ColumnElement[bool]] = []
    if only.consent:
        out.append(c.consent.in_([consent.value for consent in only.consent]))
    if only.unrated:
        out.append(c.overall_affect.is_(None))
    if only.policy_id is not None:
        out.append(c.policy_id == only.policy_id)
    if only.since is not None:
        out.append(c.started_at >= only.since)
    if only.excluded is not None:
        out.append(c.excluded == only.excluded)
    if only.live is not None:
        out.append(c.owner.is_not(None) if only.live else c.owner.is_(None))
    return out


def summaries_query(only: Filter, limit: int | None, offset: int) -> sa.Select[Any]:
    """Newest first; the page is cut before anything is counted, so it stays quick."""
    page = (
        sa.select(sessions)
        .where(*conditions(only))
        .order_by(sessions.c.started_at.desc(), sessions.c.id.desc())
        .limit(limit)
        .offset(offset)
        .subquery("page")
    )

    def of(table: sa.Table, value: sa.ColumnElement[Any]) -> sa.ScalarSelect[Any]:
        return sa.select(value).where(table.c.session_id == page.c.id).scalar_subquery()

    share = sa.func.avg(sa.case((windows.c.positive, 1.0), else_=0.0))
    return sa.select(
        page,
        of(turns, sa.func.count()).label("n_turns"),
        of(turns, sa.func.max(turns.c.end_s)).label("turns_end_s"),
        of(windows, sa.func.max(windows.c.end_s)).label("windows_end_s"),
        of(windows, sa.func.avg(sa.case((windows.c.face_found, 1.0), else_=0.0))).label("coverage"),
        sa.select(share)
        .where(windows.c.session_id == page.c.id, windows.c.positive.is_not(None))
        .scalar_subquery()
        .label("positive_share"),
    ).order_by(page.c.started_at.desc(), page.c.id.desc())


def summary(row: sa.Row[Any]) -> SessionSummary:
    """A row of `summaries_query`."""
    return SessionSummary(
        id=row.id,
        started_at=row.started_at,
        duration_s=max(row.turns_end_s or 0.0, row.windows_end_s or 0.0),
        n_turns=row.n_turns,
        overall_affect=row.overall_affect,
        positive_share=None if row.positive_share is None else float(row.positive_share),
        coverage=None if row.coverage is None else float(row.coverage),
        consent=row.consent,
        ended_how=row.ended_how,
        excluded=row.excluded,
        policy_id=row.policy_id,
        live=row.owner is not None,
    )
