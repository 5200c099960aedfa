"""The session store: SQLite in WAL mode by default, PostgreSQL by URL, the same code for both.

    store = Store.open(config.store.url)
    store.close_crashed(config.labels)
    log = store.open_session(Session(consent=Consent.KEEP))
    log.add_turn(turn)                       # committed when it returns
    log.end(EndedHow.HUNG_UP, datetime.now(UTC))

Everything is synchronous and thread-safe; a live call runs it on one executor thread. A turn is
committed when it ends, so a `kill -9` loses at most the turn in progress.
"""

from __future__ import annotations

import difflib
import logging
import re
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from types import TracebackType
from typing import Any

import sqlalchemy as sa
from sqlalchemy import URL, Connection, Engine

from agent import journal, leases, store_engine
from agent.config import Labels
from agent.errors import StoreError
from agent.journal import Journal
from agent.labels import label_session
from agent.owner import Owner
from agent.records import Consent, EndedHow, Session
from agent.schema import changes, session_row, sessions, tally, turns
from agent.schema import windows as windows_table
from agent.session_log import SessionLog
from agent.store_later import Later
from agent.store_query import Filter, Order, SessionSummary, conditions, sessions_query, summary
from agent.store_rows import (
    check_rating,
    close_session,
    load_sessions,
    put_turns,
    put_windows,
    rate_session,
)

__all__ = ["Deleted", "Filter", "SessionLog", "SessionSummary", "Store"]

log_ = logging.getLogger("geli.store")

AWAY_S = 1.0
"""How long a database that failed is left alone by calls."""
BATCH = 64
"""Sessions read at a time while streaming."""


@dataclass(slots=True, frozen=True)
class Deleted:
    """What a deletion removed."""

    id: str
    turns: int
    windows: int
    purged: bool
    """False: SQLite's log still holds the text until another process lets go of the store."""


class Store:
    """Sessions, their turns and windows. Use `Store.open`."""

    def __init__(self, engine: Engine, url: URL, journal_mb: float = 64.0) -> None:
        self.engine = engine
        self.url = url
        self.name = store_engine.name_of(url)
        self.journal: Journal | None = None
        """Of a database on another machine."""
        if url.get_backend_name() != "sqlite":
            self.journal = Journal(journal.folder_of(url), round(journal_mb * 1e6))
        self.later = Later(self)
        """What may wait a moment, of all calls together."""
        self._failed: tuple[float, StoreError] | None = None

    @classmethod
    def open(cls, url: str, *, busy_timeout_s: float = 5.0, journal_mb: float = 64.0) -> Store:
        """Connect, and make or migrate the tables.

        Args:
            url: SQLAlchemy URL of SQLite or PostgreSQL; `{data}` is the data directory.
            busy_timeout_s: how long a write waits for another process (SQLite).
            journal_mb: how much of calls may wait on disk (PostgreSQL).

        Raises:
            StoreError: bad URL, unreachable, unreadable, or written by a newer program.
        """
        parsed = store_engine.parse(url)
        store = cls(store_engine.connect(parsed, busy_timeout_s), parsed, journal_mb)
        try:
            with store.translated():
                store_engine.migrate(store.engine, store.name)
        except StoreError:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Release all connections, and the journal: what waits there stays for the next start."""
        self.engine.dispose()
        if self.journal is not None:
            self.journal.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # -- a call in progress ---------------------------------------------------------------------

    def open_session(
        self, session: Session, owner: Owner | None = None, secret: str | None = None
    ) -> SessionLog:
        """Begin a session and return its log. A *talk only* session leaves a count, nothing else.

        Args:
            session: its head; turns and windows it already has are stored too.
            owner: the writing process; default: this one.
            secret: SHA-256 of the secret by which its page acts on it (`leases.hashed`).

        Raises:
            StoreError: the store cannot be written; better said before the call than after it.
        """
        log = SessionLog(self, session.id, session.consent)
        if session.consent is not Consent.TALK_ONLY:
            self._insert(session, str(owner or Owner.current()), secret)
            log.knows(session)
        return log

    def close_crashed(self, labels: Labels) -> list[str]:
        """Close sessions whose process is gone as `crashed`; labels come from their windows.
        First, what such a process has left on this machine's disk is written.

        Args:
            labels: the rule of the labels.

        Returns:
            The ids of the sessions that were closed.
        """
        if self.journal is not None:
            recovered = journal.recover(self)
            if recovered:
                log_.info("%d writes of processes that are gone were in the journal", recovered)
        now = datetime.now(UTC)
        with self.reading() as connection:
            open_rows = connection.execute(
                sa.select(sessions.c.id, sessions.c.owner, sessions.c.started_at).where(
                    sessions.c.owner.is_not(None)
                )
            ).all()
            silent_s = leases.silence(connection) if open_rows else {}
        dead = [
            (row.id, row.owner)
            for row in open_rows
            if not Owner.parse(row.owner).is_alive(row.started_at, now, silent_s.get(row.owner))
        ]
        return [i for i, owner in dead if self._close_one(i, owner, labels)]

    def _close_one(self, session_id: str, owner: str, labels: Labels) -> bool:
        with self.writing() as connection:
            taken = connection.execute(
                sa.update(sessions)
                .where(sessions.c.id == session_id, sessions.c.owner == owner)
                .values(owner=None)
            )
            if not taken.rowcount:
                return False  # another program closed it first
            session = label_session(load_sessions(connection, [session_id])[0], labels)
            put_turns(connection, session_id, session.turns)
            ends_s = [turn.end_s for turn in session.turns]
            ends_s += [window.end_s for window in session.windows]
            close_session(
                connection,
                session_id,
                EndedHow.CRASHED,
                session.started_at + timedelta(seconds=max(ends_s, default=0.0)),
            )
        return True

    # -- reading --------------------------------------------------------------------------------

    def get(self, session_id: str) -> Session:
        """The whole session.

        Raises:
            StoreError: no such id; names the closest ones.
        """
        with self.reading() as connection:
            found = load_sessions(connection, [session_id])
        if not found:
            raise self._unknown(session_id)
        return found[0]

    def resolve(self, prefix: str) -> str:
        """The one id that starts with `prefix`.

        Raises:
            StoreError: none does, or several do.
        """
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", prefix):
            raise self._unknown(prefix)
        with self.reading() as connection:
            rows = connection.scalars(
                sa.select(sessions.c.id)
                .where(sessions.c.id.startswith(prefix, autoescape=True))
                .order_by(sessions.c.id)
            ).all()
        found: list[str] = [i for i in rows if i.startswith(prefix)]  # SQLite's LIKE ignores case
        if prefix in found:
            return prefix
        if not found:
            raise self._unknown(prefix)
        if len(found) > 1:
            some = ", ".join(found[:3]) + (", …" if len(found) > 3 else "")
            raise StoreError(f"{prefix!r} begins {len(found)} session ids", f"one of {some}")
        return found[0]

    def iter_sessions(
        self,
        consent: Collection[Consent] = frozenset({Consent.LEARN}),
        excluded: bool | None = False,
        *,
        only: Filter | None = None,
    ) -> Iterator[Session]:
        """Ended sessions, oldest first, a few in memory at a time.

        Args:
            consent: what learning may read is the default.
            excluded: None for both.
            only: further conditions; its `consent`, `excluded` and `live` are not read.
        """
        only = replace(only or Filter(), consent=consent, excluded=excluded, live=False)
        wanted = conditions(only)
        start, id_ = sessions.c.started_at, sessions.c.id
        after: sa.ColumnElement[bool] = sa.true()
        while True:
            with self.reading() as connection:
                query = sa.select(start, id_).where(*wanted, after).order_by(start, id_)
                keys = connection.execute(query.limit(BATCH)).all()
                batch = load_sessions(connection, [key.id for key in keys])
            yield from batch
            if len(keys) < BATCH:
                return
            last_start, last_id = keys[-1]
            after = (start > last_start) | ((start == last_start) & (id_ > last_id))

    def policies(self) -> Sequence[str]:
        """Ids of the policies that held calls, by name."""
        c = sessions.c.policy_id
        query = sa.select(c).distinct().where(c.is_not(None)).order_by(c)
        with self.reading() as connection:
            return connection.scalars(query).all()

    def tags(self) -> Sequence[str]:
        """Every tag in use, by name."""
        c = sessions.c.tags
        query = sa.select(c).where(c.cast(sa.Text) != "[]")  # JSON knows no DISTINCT in PostgreSQL
        with self.reading() as connection:
            return sorted({tag for tags in connection.scalars(query) for tag in tags})

    def pulse(self) -> tuple[Any, ...]:
        """A few sums that change when anything that a list shows does; quick to ask often."""
        c = sessions.c
        query = sa.select(
            sa.func.count(),
            sa.func.max(c.started_at),
            sa.func.count(c.owner),
            sa.func.sum(c.n_turns),
            sa.func.sum(c.n_windows),
            sa.func.sum(c.overall_affect),
            sa.select(sa.func.max(changes.c.id)).scalar_subquery(),
        )
        with self.reading() as connection:
            return tuple(connection.execute(query).one())

    def tally(self) -> dict[tuple[date, str], int]:
        """How many calls were held and not kept, by UTC day and kind."""
        with self.reading() as connection:
            rows = connection.execute(sa.select(tally)).all()
        return {(row.day, row.what): row.n for row in rows}

    # -- afterwards -----------------------------------------------------------------------------

    def insert(self, session: Session) -> None:
        """Add a whole session from elsewhere.

        Raises:
            StoreError: its id is known, or its consent forbids storing it.
        """
        if session.consent is Consent.TALK_ONLY:
            raise StoreError(f"session {session.id} is talk_only, which is never stored")
        self._insert(session, None)

    def rate(
        self,
        session_id: str,
        value: float,
        source: str,
        comment: str | None = None,
        at: datetime | None = None,
    ) -> None:
        """Set the overall affect, 0 to 100, given `at` (default: now); the last rating counts.

        Raises:
            StoreError: a value out of its range or an unknown id.
        """
        check_rating(value)
        with self.writing() as connection:
            at = at or datetime.now(UTC)
            known = rate_session(connection, session_id, value, source, comment, at)
        if not known:
            raise self._unknown(session_id)

    def delete(self, session_id: str, *, purge: bool = True) -> Deleted:
        """Remove a session for good: SQLite overwrites its pages and empties its log.

        Args:
            session_id: which.
            purge: empty the log now; False where `compact` follows, which does it for many at once.

        Raises:
            StoreError: unknown id.
        """
        with self.writing() as connection:
            n_windows = connection.execute(
                sa.delete(windows_table).where(windows_table.c.session_id == session_id)
            ).rowcount
            n_turns = connection.execute(
                sa.delete(turns).where(turns.c.session_id == session_id)
            ).rowcount
            head = connection.execute(sa.delete(sessions).where(sessions.c.id == session_id))
        if not head.rowcount:
            raise self._unknown(session_id)
        return Deleted(session_id, n_turns, n_windows, purge and self._purge())

    def ids(
        self, only: Filter | None = None, order: Order = "started", descending: bool = True
    ) -> Sequence[str]:
        """Ids of the sessions, newest first by default; those without a value of `order` last."""
        query = sessions_query(only or Filter(), order, descending)
        with self.reading() as connection:
            return connection.scalars(query.with_only_columns(sessions.c.id)).all()

    def summaries(self, ids: Sequence[str]) -> Sequence[SessionSummary]:
        """Summaries of those sessions (a page of them), in that order, without what is gone."""
        with self.reading() as connection:
            rows = connection.execute(sa.select(sessions).where(sessions.c.id.in_(ids)))
            found = {row.id: summary(row) for row in rows}
        return [found[i] for i in ids if i in found]

    def list(
        self,
        only: Filter | None = None,
        limit: int | None = 50,
        offset: int = 0,
        order: Order = "started",
        descending: bool = True,
    ) -> Sequence[SessionSummary]:
        """Summaries, newest first by default."""
        query = sessions_query(only or Filter(), order, descending)
        with self.reading() as connection:
            return [summary(r) for r in connection.execute(query.limit(limit).offset(offset))]

    # -- the one way in -------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent view of the store; database errors become `StoreError`."""
        with self.translated(), self.engine.connect() as plain:
            connection = plain.execution_options(**store_engine.reads(self.url))
            with connection.begin():
                yield connection

    @contextmanager
    def writing(self, patient: bool = True) -> Iterator[Connection]:
        """One transaction that is kept whole or not at all; errors become `StoreError`.

        Args:
            patient: False for what may wait elsewhere: a database on another machine that just
                failed is then not asked again for a moment, so that calls do not wait for it.
        """
        if not patient and self.journal is not None and self._failed is not None:
            at, error = self._failed
            if time.monotonic() - at < AWAY_S:
                raise StoreError(error.problem, error.way_out)
        try:
            with self.translated(), self.engine.connect() as plain:
                connection = plain.execution_options(**store_engine.WRITES)
                with connection.begin():
                    yield connection
        except StoreError as error:
            if isinstance(error.__cause__, sa.exc.DBAPIError):
                self._failed = time.monotonic(), error
            raise
        self._failed = None

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Database errors as one line with the way out."""
        try:
            yield
        except sa.exc.DBAPIError as error:
            if isinstance(error, sa.exc.IntegrityError):
                raise
            raise store_engine.explain(error, self.url) from error

    def _insert(self, session: Session, owner: str | None, secret: str | None = None) -> None:
        try:
            with self.writing() as connection:
                connection.execute(sa.insert(sessions).values(session_row(session, owner, secret)))
                put_turns(connection, session.id, session.turns)
                put_windows(connection, session.id, session.windows)
        except sa.exc.IntegrityError:
            if self.has(session.id):
                raise StoreError(f"session {session.id} is already in the store") from None
            raise

    def has(self, session_id: str) -> bool:
        """Whether the id is known."""
        with self.reading() as connection:
            return bool(
                connection.scalar(sa.select(sa.exists().where(sessions.c.id == session_id)))
            )

    def require(self, session_id: str) -> None:
        """Be sure that the id is known.

        Raises:
            StoreError: it is not.
        """
        if not self.has(session_id):
            raise self._unknown(session_id)

    def _unknown(self, session_id: str) -> StoreError:
        with self.reading() as connection:
            newest = connection.scalars(
                sa.select(sessions.c.id).order_by(sessions.c.started_at.desc()).limit(2000)
            ).all()
        close = difflib.get_close_matches(session_id, newest, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(close)}?" if close else "see 'geli sessions list'"
        return StoreError(f"no session {session_id!r}", hint)

    def compact(self) -> None:
        """Rewrite SQLite's file without what was deleted, and empty its log.

        Raises:
            StoreError: another process reads or writes just now.
        """
        if self.url.get_backend_name() != "sqlite":
            return  # the server's own vacuum does it
        with self.translated(), closing(self.engine.raw_connection()) as raw:
            try:
                raw.cursor().execute("VACUUM")
            except store_engine.SQLITE_ERROR as error:
                raise store_engine.explain_sqlite(error, self.url) from error
        if not self._purge():
            raise StoreError(
                f"{self.name}: another process reads it, so its log keeps deleted text for now",
                "end that process, then: geli sessions purge --yes",
            )

    def _purge(self) -> bool:
        """Move SQLite's log into the database and empty it; True when nothing is left in it."""
        if self.url.get_backend_name() != "sqlite":
            return True
        with self.translated():
            try:
                with closing(self.engine.raw_connection()) as raw:
                    busy = raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            except store_engine.SQLITE_ERROR as error:
                raise store_engine.explain_sqlite(error, self.url) from error
        return not busy
