"""Writes that may wait a moment: one transaction brings those of all calls of a process.

An affect window closes every second of every call, and labels follow it; each in a transaction of
its own was most of what a database had to do. They wait for a turn of their call, which brings
them along, or for the next `flush`. A crash loses what came since, of windows and labels alone;
where there is a journal (agent/journal.py), only a crash of the machine does.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import sqlalchemy as sa

from agent.errors import StoreError

if TYPE_CHECKING:
    from agent.session_log import SessionLog
    from agent.store import Store

EVERY_S = 1.0
"""Between two flushes of a process that holds calls."""


class Later:
    """The logs of a store that have something to be written. Thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._logs: set[SessionLog] = set()
        self._lock = threading.Lock()

    def add(self, log: SessionLog) -> None:
        """Something of `log` waits."""
        with self._lock:
            self._logs.add(log)

    def flush(self) -> None:
        """Write what waits of all of them; what the store does not take now goes on waiting, and
        the next write of its call says so.

        Raises:
            StoreError: neither the store nor the journal takes it.
        """
        with self._lock:
            logs, self._logs = sorted(self._logs, key=lambda log: log.id), set()
        with ExitStack() as held:
            for log in logs:  # before the transaction: whoever holds one may wait for that
                held.enter_context(log.lock)
            logs = [log for log in logs if log.waits]
            if not logs:
                return
            try:
                with self._store.writing(patient=False) as connection:
                    for log in logs:
                        log.apply(connection)
            except StoreError:
                if (journal := self._store.journal) is not None:
                    journal.sync()
                return
            except sa.exc.IntegrityError:  # somebody has deleted one of them
                for log in logs:
                    with suppress(StoreError):
                        log.flush()
                return
            for log in logs:
                log.written()
