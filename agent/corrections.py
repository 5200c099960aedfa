"""What an operator changes in a session afterwards: every change is kept and can be undone.

    change = corrections.rate(store, session_id, 70, by="ada")
    corrections.label(store, session_id, turn_index=3, value=0, by="ada")
    corrections.undo(store, change.id, by="ada")

A change holds the values before and after it, and lies in the same transaction as what it changed.
Undoing is a change too, which puts the old values back; it is refused where somebody has changed
them again since. Deleting a session deletes its changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy import Connection

from agent.errors import StoreError
from agent.labels import BY_PERSON
from agent.records import Label
from agent.schema import UNSTORABLE, changes, sessions, turns
from agent.store import Store
from agent.store_rows import check_rating, count_contents

What = Literal["rating", "excluded", "note", "tags", "label"]

FIELDS: dict[What, tuple[str, ...]] = {
    "rating": ("overall_affect", "overall_affect_at", "overall_affect_source", "comment"),
    "excluded": ("excluded", "excluded_reason"),
    "note": ("note",),
    "tags": ("tags",),
    "label": ("li", "li_rule"),
}
"""The columns that go together: of the turn for a label, else of the session."""
LONGEST_TAG = 40


@dataclass(slots=True, frozen=True)
class Change:
    """One change of one session."""

    id: int
    session_id: str
    at: datetime
    by: str
    what: What
    turn_index: int | None
    """Of a label."""
    before: dict[str, Any]
    after: dict[str, Any]
    undoes: int | None
    """The change that this one took back."""

    def __str__(self) -> str:
        values = f"{_said(self.what, self.before)} → {_said(self.what, self.after)}"
        where = "" if self.turn_index is None else f" of turn {self.turn_index}"
        return f"{self.what}{where}: {values}"


def rate(
    store: Store,
    session_id: str,
    value: float,
    by: str,
    comment: str | None = None,
    source: str = "review",
) -> Change | None:
    """Set the overall affect, 0 to 100; `comment` None keeps the one that is there.

    Raises:
        StoreError: out of range, or an unknown session (as all of these functions).
    """
    check_rating(value)
    now = datetime.now(UTC)
    new = {"overall_affect": float(value), "overall_affect_at": now}
    new |= {"overall_affect_source": source} | ({} if comment is None else {"comment": comment})
    return _change(store, session_id, "rating", new, by)


def exclude(store: Store, session_id: str, reason: str, by: str) -> Change | None:
    """Keep a session out of learning; a reason is needed."""
    if not reason.strip():
        raise StoreError("an exclusion needs a reason", "say why, for whoever reads it later")
    new = {"excluded": True, "excluded_reason": reason.strip()}
    return _change(store, session_id, "excluded", new, by)


def include(store: Store, session_id: str, by: str) -> Change | None:
    """Take an exclusion back; learning still reads only what its person consented to."""
    new = {"excluded": False, "excluded_reason": None}
    return _change(store, session_id, "excluded", new, by)


def note(store: Store, session_id: str, text: str, by: str) -> Change | None:
    """Set the note; an empty one removes it."""
    return _change(store, session_id, "note", {"note": text.strip() or None}, by)


def tag(
    store: Store, session_id: str, by: str, add: Iterable[str] = (), remove: Iterable[str] = ()
) -> Change | None:
    """Add and remove tags.

    Raises:
        StoreError: to add an empty tag, one with a comma, or one longer than 40 characters.
    """
    wanted = {_tag(given) for given in add}
    unwanted = {text for given in remove for text in (given, _bare(given))}  # imported: any text
    with store.writing() as connection:
        have = set(_values(connection, store, session_id, "tags", None)["tags"])
        new = {"tags": sorted((have | wanted) - unwanted)}
        return _apply(connection, store, session_id, "tags", None, new, by)


def label(store: Store, session_id: str, turn_index: int, value: Label, by: str) -> Change | None:
    """Override the listener's label of one agent turn: 1 positive, 0 not, None unknown.

    Raises:
        StoreError: no such turn, the user's turn, or a call that is still going on.
    """
    with store.writing() as connection:
        row = connection.execute(
            sa.select(turns.c.speaker, sessions.c.owner)
            .join(sessions)
            .where(turns.c.session_id == session_id, turns.c.index == turn_index)
        ).one_or_none()
        if row is None:
            store.require(session_id)
            raise StoreError(f"session {session_id} has no turn {turn_index}")
        if row.speaker != "agent":
            raise StoreError(f"turn {turn_index} is the user's", "only agent turns have a label")
        if row.owner is not None:
            raise StoreError(f"session {session_id} is still going on", "label it when it is over")
        new = {"li": value, "li_rule": f"{BY_PERSON}: {by}"}
        return _apply(connection, store, session_id, "label", turn_index, new, by)


def listed(store: Store, session_id: str | None = None, limit: int = 200) -> Sequence[Change]:
    """Changes, newest first, of one session or of all."""
    query = sa.select(changes).order_by(changes.c.id.desc()).limit(limit)
    if session_id is not None:
        query = query.where(changes.c.session_id == session_id)
    with store.reading() as connection:
        return [_read(row) for row in connection.execute(query)]


def undo(store: Store, change_id: int, by: str) -> Change:
    """Put the values back that a change replaced.

    Raises:
        StoreError: no such change, undone already, or its values were changed again since.
    """
    with store.writing() as connection:
        which = sa.select(changes).where(changes.c.id == change_id).with_for_update()
        row = connection.execute(which).one_or_none()
        if row is None:
            raise StoreError(f"there is no change {change_id}", "see 'geli sessions changes'")
        old = _read(row)
        again = connection.scalar(sa.select(changes.c.id).where(changes.c.undoes == change_id))
        if again is not None:
            raise StoreError(f"change {change_id} is undone already", f"undo {again} to redo it")
        now = _values(connection, store, old.session_id, old.what, old.turn_index)
        if _stored(now) != old.after:
            raise StoreError(
                f"the {old.what} of {old.session_id} was changed again after change {change_id}",
                "undo the later change first",
            )
        done = _apply(
            connection, store, old.session_id, old.what, old.turn_index,
            _restored(old.before), by, undoes=change_id,
        )  # fmt: skip
        assert done is not None  # before and after differ, or there would be no such change
        return done


def last(store: Store, session_id: str) -> Change | None:
    """The newest change of a session that still stands and took nothing back (a redo counts)."""
    query = sa.select(changes).where(changes.c.session_id == session_id).order_by(changes.c.id)
    with store.reading() as connection:
        found = [_read(row) for row in connection.execute(query)]
    standing: dict[int, Change] = {}
    for one in found:
        if one.undoes is None or standing.pop(one.undoes, None) is None:
            standing[one.id] = one
    return max(standing.values(), key=lambda one: one.id, default=None)


def _change(
    store: Store, session_id: str, what: What, new: Mapping[str, Any], by: str
) -> Change | None:
    with store.writing() as connection:
        return _apply(connection, store, session_id, what, None, new, by)


def _apply(
    connection: Connection,
    store: Store,
    session_id: str,
    what: What,
    turn_index: int | None,
    new: Mapping[str, Any],
    by: str,
    undoes: int | None = None,
) -> Change | None:
    """Write the new values and the change; None when nothing differs."""
    before = _values(connection, store, session_id, what, turn_index)
    told = new.keys() - {"overall_affect_at", "li_rule"}
    if undoes is None and all(before[name] == new[name] for name in told):
        return None
    table, which = _place(session_id, turn_index)
    connection.execute(sa.update(table).where(*which).values(**new))
    after = _values(connection, store, session_id, what, turn_index)  # as the database keeps them
    if what == "label":
        count_contents(connection, session_id)
    values = {
        "session_id": session_id,
        "at": datetime.now(UTC),
        "by": by,
        "what": what,
        "turn_index": turn_index,
        "before": _stored(before),
        "after": _stored(after),
        "undoes": undoes,
    }
    made = connection.execute(sa.insert(changes).values(**values).returning(changes)).one()
    return _read(made)


def _values(
    connection: Connection, store: Store, session_id: str, what: What, turn_index: int | None
) -> dict[str, Any]:
    """What stands there now; another writer waits from here on (SQLite: since the beginning)."""
    table, which = _place(session_id, turn_index)
    columns = [table.c[name] for name in FIELDS[what]]
    query = sa.select(*columns).where(*which).with_for_update()
    row = connection.execute(query).one_or_none()
    if row is None:
        store.require(session_id)
        raise StoreError(f"session {session_id} has no turn {turn_index}")
    return dict(row._mapping)


def _place(
    session_id: str, turn_index: int | None
) -> tuple[sa.Table, Sequence[sa.ColumnElement[bool]]]:
    if turn_index is None:
        return sessions, [sessions.c.id == session_id]
    return turns, [turns.c.session_id == session_id, turns.c.index == turn_index]


def _tag(given: str) -> str:
    text = _bare(given)
    if not text or "," in text or len(text) > LONGEST_TAG or UNSTORABLE.search(text):
        raise StoreError(f"{given!r} is no tag", f"1 to {LONGEST_TAG} characters without a comma")
    return text


def _bare(given: str) -> str:
    return " ".join(given.split())


def _stored(values: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON keeps it: a time as ISO 8601."""
    return {k: v.isoformat() if isinstance(v, datetime) else v for k, v in values.items()}


def _restored(values: Mapping[str, Any]) -> dict[str, Any]:
    at = "overall_affect_at"
    return {
        k: datetime.fromisoformat(v) if k == at and v is not None else v for k, v in values.items()
    }


def _read(row: sa.Row[Any]) -> Change:
    return Change(**row._mapping)


def _said(what: What, values: Mapping[str, Any]) -> str:
    """A change's value in words."""
    match what:
        case "rating":
            value = values["overall_affect"]
            return "not rated" if value is None else f"{value:g}"
        case "excluded":
            return f"excluded ({values['excluded_reason']})" if values["excluded"] else "included"
        case "note":
            return repr(values["note"]) if values["note"] else "none"
        case "tags":
            return ", ".join(values["tags"]) or "none"
        case "label":
            return {1: "positive", 0: "not positive", None: "unknown"}[values["li"]]
