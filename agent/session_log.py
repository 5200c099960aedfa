"""The log of one call in progress: the only way a call writes to the store.

`_keep` is the one gate. What a *talk only* session hands in stops there, and the table's own check
refuses such a row besides. What the database cannot take now waits in memory, in order.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa

from agent.errors import StoreError
from agent.records import AffectWindow, Consent, EndedHow, Session, Turn
from agent.session_writes import Count, End, PutTurn, PutWindows, Rate, Write
from agent.store_rows import check_rating, note_written

if TYPE_CHECKING:
    from agent.store import Store

log_ = logging.getLogger("geli.store")

TALK_ONLY_CALL = "talk_only"
"""What the tally calls a call that nobody agreed to keep."""


class SessionLog:
    """Writes one session as it happens. Made by `Store.open_session`; thread-safe. Without a store
    it takes everything and keeps nothing, not even a count (a dry run).

    A write that fails raises StoreError, but what it should write waits in memory, and with a
    database on another machine also on disk (agent/journal.py), and is tried again, in order, by
    the next write, `flush` and `end`: the caller must not hand it in twice.
    """

    def __init__(self, store: Store | None, session_id: str, consent: Consent) -> None:
        self.id = session_id
        self.consent = consent
        self.problem: StoreError | None = None
        """Why the last write failed; None when everything is stored."""
        self.deleted = False
        """Somebody deleted the session during the call: nothing of it is written any more."""
        self._store = store
        self._journal = store.journal if store is not None and self.stores else None
        self._waiting: list[Write | Count] = []
        self._n = 0  # writes handed in
        self._only_in_memory = 0  # of those that wait
        self._turns: set[int] = set()
        self._windows: set[int] = set()
        self._ended = False
        self.lock = threading.RLock()
        """Held by whoever writes what waits."""

    @property
    def stores(self) -> bool:
        """False for a *talk only* session and a dry run."""
        return self._store is not None and self.consent is not Consent.TALK_ONLY

    @property
    def pending(self) -> int:
        """How many turns, or changes of turns, wait in memory."""
        with self.lock:
            return sum(isinstance(write, PutTurn) for write in self._waiting)

    @property
    def safe(self) -> bool:
        """Whether all that waits would outlive this process."""
        with self.lock:
            return self._journal is not None and not self._only_in_memory

    def knows(self, session: Session) -> None:
        """Note what the session had when it was opened."""
        self._turns.update(turn.index for turn in session.turns)
        self._windows.update(window.index for window in session.windows)

    def add_turn(self, turn: Turn) -> None:
        """Store a turn that just ended; it is durable when this returns.

        Raises:
            StoreError: not now; the turn waits in memory.
            ValueError: its index was added before.
        """
        with self.lock:
            if turn.index in self._turns:
                raise ValueError(f"turn {turn.index} of {self.id} was added before")
            self._turns.add(turn.index)
            self._keep_turn(turn)

    def update_turn(self, turn: Turn, *, now: bool = True) -> None:
        """Store a turn anew, e.g. with its label.

        Args:
            turn: as it is now.
            now: False: with the call's next write, or the next round of `Store.later`.

        Raises:
            StoreError: not now; the turn waits in memory.
            ValueError: its index was never added.
        """
        with self.lock:
            if turn.index not in self._turns:
                raise ValueError(f"turn {turn.index} of {self.id} was never added")
            self._keep_turn(turn, now)

    def add_windows(self, windows: Sequence[AffectWindow], *, now: bool = True) -> None:
        """Store affect windows.

        Args:
            windows: new ones.
            now: as of `update_turn`.

        Raises:
            StoreError: not now; the windows wait in memory.
            ValueError: an index was added before.
        """
        with self.lock:
            new = [window.index for window in windows]
            if len(set(new)) < len(new) or self._windows.intersection(new):
                raise ValueError(f"a window of {self.id} was added before")
            self._windows.update(new)
            if self.stores and windows:
                kept = [window.model_copy(deep=True) for window in windows]
                self._keep(PutWindows(kept), now)

    def rate(
        self, value: float, source: str, comment: str | None = None, at: datetime | None = None
    ) -> None:
        """Store the rating, given `at` (default: now), during the call or after it.

        Raises:
            StoreError: a value outside 0 to 100, or not now.
        """
        check_rating(value)
        self._keep(Rate(value, source, comment, at or datetime.now(UTC)))

    def end(self, how: EndedHow, at: datetime) -> None:
        """Close the session; only the first call counts, later ones try again what waits.

        Raises:
            StoreError: turns still wait in memory; call `flush` once the cause is gone.
        """
        with self.lock:
            if not self._ended:
                self._ended = True
                if self.stores:
                    self._add(End(how, at))
                elif self._store is not None:
                    self._waiting.append(Count(at.date(), TALK_ONLY_CALL))
            self.flush()

    def flush(self) -> None:
        """Write what waits.

        Raises:
            StoreError: not now; it goes on waiting.
        """
        with self.lock:
            if not self.waits or self._store is None:
                return
            if not self.deleted:
                self._write(self._store)
            self.written()

    @property
    def waits(self) -> bool:
        """Whether anything is not written."""
        return bool(self._waiting)

    def apply(self, connection: sa.Connection) -> None:
        """Write what waits, within the caller's transaction; the caller holds `lock`."""
        if self.deleted:
            return
        for write in self._waiting:
            write.apply(connection, self.id)
        if self._journal is not None:
            note_written(connection, self.id, self._n)

    def written(self) -> None:
        """The transaction with `apply` in it was kept; the caller holds `lock`."""
        self._waiting.clear()
        self._only_in_memory = 0
        self.problem = None
        if self._journal is not None:
            self._journal.done(self.id, self._n)

    def _write(self, store: Store) -> None:
        try:
            with store.writing(patient=False) as connection:
                self.apply(connection)
        except StoreError as error:
            self.problem = error
            if self.pending:
                where = "on this machine's disk" if self.safe else "in memory"
                wait = f"{self.pending} turns of this call wait {where}"
                self.problem = StoreError(error.problem, f"{error.way_out}; {wait}")
            raise self.problem from error
        except sa.exc.IntegrityError:
            if not self.stores or store.has(self.id):
                raise
            self.deleted = True

    def _keep_turn(self, turn: Turn, now: bool = True) -> None:
        if self.stores:
            # A copy, since the call goes on changing its turn while this one may have to wait.
            self._keep(PutTurn(turn.model_copy(deep=True)), now)

    def _keep(self, write: Write, now: bool = True) -> None:
        """The gate: nothing about a person passes without consent."""
        if self._store is not None and self.stores:
            with self.lock:
                self._add(write, sync=now)
                if now:
                    self.flush()
                else:
                    self._store.later.add(self)

    def _add(self, write: Write, *, sync: bool = True) -> None:
        self._waiting.append(write)
        self._n += 1
        if self._journal is None or self.deleted:
            return
        try:
            self._journal.add(self.id, self._n, write, sync=sync)
        except StoreError as error:
            if not self._only_in_memory:
                log_.error("%s", error, extra={"session": self.id})
            self._only_in_memory += 1
