"""What a database on another machine has not taken yet, on this machine's disk.

A database that is asked over a network can go away in mid-call. So each write of a stored session
is put into a file here first and forced to disk, then given to the database, then wiped out here.
Writes are numbered within their session; the database notes the last number in the same
transaction (`sessions.written`), so that whatever happens in between, each is done exactly once.

One file a process, `DATA/journal/STORE/*.jsonl`, readable by its owner only and locked while the
process lives (flock). A file without its process is taken over by whoever starts next (`recover`).
A *talk only* session never comes here.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from agent.errors import StoreError
from agent.schema import sessions
from agent.session_writes import Write, load
from agent.store_engine import data_dir, name_of
from agent.store_rows import note_written

if TYPE_CHECKING:
    from agent.store import Store

log_ = logging.getLogger("geli.store")


def folder_of(url: sa.URL) -> Path:
    """Where the journals of a store lie; stores do not share any."""
    name = hashlib.sha256(name_of(url).encode()).hexdigest()[:16]
    return data_dir() / "journal" / name


class Journal:
    """The file of this process; made when there is something to keep. Thread-safe.

    Args:
        folder: see `folder_of`.
        limit: most bytes it may hold.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        self._file: int | None = None
        self._path = folder / f"{os.getpid()}-{secrets.token_hex(4)}.jsonl"
        self._size = 0
        self._pending: dict[str, int] = {}
        self._lock = threading.Lock()

    def add(self, session_id: str, n: int, write: Write, *, sync: bool = True) -> None:
        """Keep the session's `n`-th write; it is on disk when this returns.

        Args:
            session_id: whose.
            n: counted from 1.
            write: what is to be done.
            sync: False: it outlives this process, but the machine only after the next `sync`.

        Raises:
            StoreError: the file would grow over its limit, or cannot be written.
        """
        line = json.dumps({"session": session_id, "n": n, **write.dump()}) + "\n"
        data = line.encode()
        with self._lock:
            if self._size + len(data) > self.limit:
                raise StoreError(
                    f"the journal {self._path} is full", "raise store.journal_mb, mend the database"
                )
            try:
                file = self._open()
                try:
                    _write_all(file, data, self._size)
                    if sync:
                        os.fsync(file)
                except OSError:
                    with suppress(OSError):
                        os.ftruncate(file, self._size)  # no half line in the middle
                    raise
            except OSError as error:
                raise StoreError(
                    f"the journal {self._path} cannot be written: {error.strerror}"
                ) from None
            self._size += len(data)
            self._pending[session_id] = n

    def sync(self) -> None:
        """Force what was added to disk.

        Raises:
            StoreError: the disk does not take it.
        """
        with self._lock:
            try:
                if self._file is not None:
                    os.fsync(self._file)
            except OSError as error:
                raise StoreError(
                    f"the journal {self._path} cannot be written: {error.strerror}"
                ) from None

    def done(self, session_id: str, n: int) -> None:
        """The database has that session's writes up to the `n`-th; wiped when it has all."""
        with self._lock:
            if self._pending.get(session_id, n + 1) <= n:
                del self._pending[session_id]
            if not self._pending and self._file is not None and self._size:
                _wipe(self._file, self._size)
                self._size = 0

    def close(self) -> None:
        """Give the file up; what waits in it stays for the next start."""
        with self._lock:
            if self._file is None:
                return
            if not self._size:
                self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = None

    def _open(self) -> int:
        if self._file is None:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._file = file
        return self._file


def recover(store: Store) -> int:
    """Write what processes that are gone have left in their journals; returns how many writes.

    Raises:
        StoreError: the database does not take them now; they stay.
    """
    count = 0
    for path in sorted(folder_of(store.url).glob("*.jsonl")):
        with _taken(path) as file:
            if file is None:
                continue
            text = path.read_bytes()
            for session_id, writes in _by_session(path, text).items():
                count += _do(store, session_id, writes)
            _wipe(file, len(text))
            path.unlink(missing_ok=True)
    return count


@contextmanager
def _taken(path: Path) -> Iterator[int | None]:
    """The file, locked; None where another process holds it or took it first."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield file if path.exists() else None
    except BlockingIOError:
        yield None
    finally:
        os.close(file)


def _by_session(path: Path, text: bytes) -> dict[str, list[tuple[int, Write]]]:
    """The writes of each session, in order. A last line that was cut off is no write yet."""
    found: dict[str, list[tuple[int, Write]]] = {}
    lines = text.split(b"\n")
    for number, line in enumerate(lines[:-1], 1):
        try:
            data: Any = json.loads(line)
            found.setdefault(data["session"], []).append((int(data["n"]), load(data)))
        except (ValueError, KeyError, TypeError):
            log_.error("%s:%d is damaged and left out", path, number)
    return found


def _do(store: Store, session_id: str, writes: list[tuple[int, Write]]) -> int:
    with store.writing() as connection:
        written = connection.scalar(
            sa.select(sessions.c.written).where(sessions.c.id == session_id).with_for_update()
        )
        if written is None:
            return 0  # deleted meanwhile
        new = [(n, write) for n, write in writes if n > written]
        for _, write in new:
            write.apply(connection, session_id)
        if new:
            note_written(connection, session_id, new[-1][0])
    return len(new)


def _write_all(file: int, data: bytes, at: int) -> None:
    while data:
        n = os.pwrite(file, data, at)
        data, at = data[n:], at + n


def _wipe(file: int, size: int) -> None:
    """Overwrite, then empty: what somebody said is not to be found on the disk afterwards."""
    with suppress(OSError):  # the writes are done; a full disk must not undo that
        _write_all(file, bytes(size), 0)
    os.ftruncate(file, 0)
