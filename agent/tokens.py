"""Tokens of people: made here, shown once, kept as hashes, each with an end.

A token's hash is what its person's sessions carry (`records.person_of`), so the token that lets
somebody in is the one by which all of their sessions are found, exported and deleted.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa

from agent.errors import StoreError
from agent.records import person_of
from agent.schema import tokens
from agent.store import Store

State = Literal["valid", "expired", "revoked"]
MAX_DAYS = 3650.0


@dataclass(slots=True, frozen=True)
class Token:
    """What is known of a token: everything but the token."""

    hash: str
    """SHA-256 of the token; as in `Session.person`."""
    name: str
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None

    @property
    def id(self) -> str:
        """A short name for it."""
        return self.hash[:12]

    def state(self, now: datetime) -> State:
        """Whether it lets its person in."""
        if self.revoked_at is not None:
            return "revoked"
        return "valid" if now < self.expires_at else "expired"


def cookie_value(token: str) -> str:
    """What the cookie holds: proof of the token, any token's characters aside, not the token."""
    return hashlib.sha256(f"geli cookie {token}".encode()).hexdigest()


def create(store: Store, name: str, days: float) -> tuple[str, Token]:
    """A new token (256 random bits) and what is kept of it.

    Raises:
        StoreError: a name or a time that cannot be, or the store cannot be written.
    """
    name = name.strip()
    if not name or len(name) > 200 or not name.isprintable():
        raise StoreError("a token needs a name", "say whose it is, in up to 200 characters")
    if not 0 < days <= MAX_DAYS:
        raise StoreError(f"{days:g} days is out of range", f"more than 0, at most {MAX_DAYS:g}")
    token = secrets.token_hex(32)
    now = datetime.now(UTC).replace(microsecond=0)
    made = Token(person_of(token), name, now, now + timedelta(days=days), None)
    with store.writing() as connection:
        connection.execute(
            sa.insert(tokens).values(
                hash=made.hash,
                cookie=_sha256(cookie_value(token)),
                name=made.name,
                created_at=made.created_at,
                expires_at=made.expires_at,
            )
        )
    return token, made


def listed(store: Store) -> Sequence[Token]:
    """All tokens, newest first."""
    query = sa.select(tokens).order_by(tokens.c.created_at.desc(), tokens.c.hash)
    with store.reading() as connection:
        return [_token(row) for row in connection.execute(query)]


def revoke(store: Store, which: str) -> Sequence[Token]:
    """End the token with that id (its first characters), or all valid ones of that name.

    Raises:
        StoreError: no such token, or it is over already.
    """
    now = datetime.now(UTC).replace(microsecond=0)
    known = listed(store)
    meant = [token for token in known if token.name == which]
    meant = meant or [t for t in known if len(which) >= 4 and t.hash.startswith(which)]
    if not meant:
        raise StoreError(f"no token {which!r}", "see 'geli tokens list'")
    valid = [token for token in meant if token.state(now) == "valid"]
    if not valid:
        raise StoreError(f"{which!r} is {meant[0].state(now)} already")
    if len({token.name for token in valid}) > 1:
        some = ", ".join(token.id for token in valid[:3])
        raise StoreError(f"{which!r} begins the ids of {len(valid)} tokens", f"one of {some}")
    with store.writing() as connection:
        connection.execute(
            sa.update(tokens)
            .where(tokens.c.hash.in_([token.hash for token in valid]))
            .values(revoked_at=now)
        )
    return valid


def by_token(store: Store, token: str) -> Token | None:
    """The valid token that somebody showed."""
    return _valid(store, tokens.c.hash == _sha256(token.strip()))


def by_cookie(store: Store, cookie: str) -> Token | None:
    """The valid token whose cookie somebody showed."""
    return _valid(store, tokens.c.cookie == _sha256(cookie))


def _valid(store: Store, which: sa.ColumnElement[bool]) -> Token | None:
    with store.reading() as connection:
        row = connection.execute(sa.select(tokens).where(which)).one_or_none()
    if row is None:
        return None
    found = _token(row)
    return found if found.state(datetime.now(UTC)) == "valid" else None


def _token(row: sa.Row[Any]) -> Token:
    return Token(row.hash, row.name, row.created_at, row.expires_at, row.revoked_at)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()
