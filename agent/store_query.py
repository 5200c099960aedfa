"""The list of sessions: which ones, in what order, and what is told of each."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction

from agent.records import Consent, EndedHow
from agent.schema import Words, sessions, turns

Order = Literal[
    "started", "length", "turns", "rating", "positive", "labels", "seen", "policy", "ended"
]
"""What a list can be sorted by."""


def _share(part: sa.Column[int], whole: sa.Column[int]) -> sa.ColumnElement[Any]:
    return part * 1.0 / sa.func.nullif(whole, 0)


@dataclass(slots=True, frozen=True)
class Filter:
    """Which sessions; None, empty or False means any. All conditions hold together."""

    consent: Collection[Consent] = ()
    unrated: bool = False
    policy_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    excluded: bool | None = None
    live: bool | None = None
    """True: calls in progress only; False: ended ones only."""
    ended_how: Collection[EndedHow] = ()
    seen_below: float | None = None
    """Windows with a face among all are fewer than this share, or there are no windows."""
    tag: str | None = None
    person: str | None = None
    """`records.person_of` of the person's token."""
    says: str = ""
    """Words that the transcript holds, each somewhere in it; "in quotes" a phrase. Case does not
    matter; accents do."""


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
    labelled_share: float | None
    """Agent turns with a label among all agent turns; None without agent turns."""
    consent: str
    source: str
    ended_how: str | None
    excluded: bool
    excluded_reason: str | None
    policy_id: str | None
    tags: tuple[str, ...]
    noted: bool
    live: bool


class geli_says(GenericFunction[bool]):  # noqa: N801 (the name in SQL)
    """Whether a text holds a word of lower case: in SQLite our own function, which knows every
    alphabet's lower case."""

    type = sa.Boolean()
    inherit_cache = True


@compiles(geli_says, "postgresql")
def _says_in_postgresql(element: geli_says, compiler: Any, **more: Any) -> str:
    text, word = (compiler.process(part, **more) for part in element.clauses)
    return f"(strpos(lower({text}), {word}) > 0)"


class geli_tagged(GenericFunction[bool]):  # noqa: N801 (the name in SQL)
    """Whether a JSON list of texts holds a text."""

    type = sa.Boolean()
    inherit_cache = True


@compiles(geli_tagged, "sqlite")
def _tagged_in_sqlite(element: geli_tagged, compiler: Any, **more: Any) -> str:
    tags, tag = (compiler.process(part, **more) for part in element.clauses)
    return f"EXISTS (SELECT 1 FROM json_each({tags}) AS one WHERE one.value = {tag})"


@compiles(geli_tagged, "postgresql")
def _tagged_in_postgresql(element: geli_tagged, compiler: Any, **more: Any) -> str:
    tags, tag = (compiler.process(part, **more) for part in element.clauses)
    return f"({tag} IN (SELECT json_array_elements_text({tags})))"


ORDERS: dict[Order, Sequence[sa.ColumnElement[Any]]] = {
    "started": (),
    "length": (sessions.c.duration_s,),
    "turns": (sessions.c.n_turns,),
    "rating": (sessions.c.overall_affect,),
    "positive": (_share(sessions.c.n_positive, sessions.c.n_seen),),
    "labels": (_share(sessions.c.n_labelled, sessions.c.n_replies),),
    "seen": (_share(sessions.c.n_seen, sessions.c.n_windows),),
    "policy": (sessions.c.policy_id,),
    "ended": (sessions.c.ended_how,),
}


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
    if only.until is not None:
        out.append(c.started_at < only.until)
    if only.excluded is not None:
        out.append(c.excluded == only.excluded)
    if only.live is not None:
        out.append(c.owner.is_not(None) if only.live else c.owner.is_(None))
    if only.ended_how:
        out.append(c.ended_how.in_([how.value for how in only.ended_how]))
    if only.seen_below is not None:
        share = _share(c.n_seen, c.n_windows)
        out.append(share.is_(None) | (share < only.seen_below))
    if only.tag is not None:
        out.append(sa.func.geli_tagged(c.tags, sa.literal(only.tag, Words())))
    if only.person is not None:
        out.append(c.person == only.person)
    for word in words_of(only.says):
        said = sa.func.geli_says(turns.c.text, sa.literal(word, Words()))
        out.append(c.id.in_(sa.select(turns.c.session_id).where(said)))
    return out


def words_of(text: str) -> list[str]:
    """Words and "quoted phrases" to look for, in lower case; a quote left open ends at the end."""
    found = re.findall(r'"([^"]*)"?|(\S+)', text)
    return [word for quoted, bare in found if (word := (quoted or bare).strip().lower())]


def sessions_query(only: Filter, order: Order, descending: bool) -> sa.Select[Any]:
    """Rows of `sessions`; what has no value comes last either way, ties newest first."""
    keys: list[sa.ColumnElement[Any]] = []
    for column in ORDERS[order]:
        keys.append(column.desc().nulls_last() if descending else column.asc().nulls_last())
    newest_first = descending or bool(keys)
    start, id_ = sessions.c.started_at, sessions.c.id
    keys += [start.desc(), id_.desc()] if newest_first else [start, id_]
    return sa.select(sessions).where(*conditions(only)).order_by(*keys)


def summary(row: sa.Row[Any]) -> SessionSummary:
    """A row of `sessions`."""
    return SessionSummary(
        id=row.id,
        started_at=row.started_at,
        duration_s=row.duration_s,
        n_turns=row.n_turns,
        overall_affect=row.overall_affect,
        positive_share=row.n_positive / row.n_seen if row.n_seen else None,
        coverage=row.n_seen / row.n_windows if row.n_windows else None,
        labelled_share=row.n_labelled / row.n_replies if row.n_replies else None,
        consent=row.consent,
        source=row.source,
        ended_how=row.ended_how,
        excluded=row.excluded,
        excluded_reason=row.excluded_reason,
        policy_id=row.policy_id,
        tags=tuple(row.tags),
        noted=bool(row.note),
        live=row.owner is not None,
    )
