"""Connecting to the database, bringing its tables up to date, and saying plainly what failed."""

from __future__ import annotations

import os
import re
import socket
import sqlite3
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import URL, Engine

from agent.errors import StoreError

HEAD = "0004"
"""The newest migration (a test holds it against agent/migrations)."""
MIGRATIONS = Path(__file__).resolve().parent / "migrations"
MIGRATING = 0x67656C69
"""Of PostgreSQL's advisory locks, the one that is held while tables are made or changed."""
WRITES = {"geli_begin": "BEGIN IMMEDIATE"}
"""A writer takes SQLite's lock at once: waiting for it half-way could only fail."""
SQLITE_ERROR = sqlite3.Error
CONNECT_S = 5
"""How long PostgreSQL may take to let a connection in."""
ANSWER_S = 15.0
"""How long PostgreSQL may be silent over a statement. A server that hangs, or a network that lost
it, would else hold its thread for ever."""
DRIVERS = {
    "sqlite": ("sqlite", "sqlite+pysqlite"),
    "postgresql": ("postgresql", "postgresql+psycopg"),
}


def data_dir() -> Path:
    """$GELI_DATA, else ~/.local/share/geli; only its owner may look in."""
    chosen = Path(os.environ.get("GELI_DATA") or "~/.local/share/geli").expanduser()
    try:
        chosen.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StoreError(
            f"the data directory {chosen} cannot be made: {error.strerror}", "set GELI_DATA"
        ) from None
    return chosen


def parse(url: str) -> URL:
    """The URL with `{data}` filled in.

    Raises:
        StoreError: no URL, another database, or a SQLite database in memory.
    """
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):  # ValueError: a port that is no number
        shown = re.sub(r"://[^/@]*@", "://…@", url)  # a password stays out of the terminal
        raise StoreError(
            f"store.url = {shown!r} is no database URL", "e.g. sqlite:////var/lib/geli/s.sqlite3"
        ) from None
    backend = parsed.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise StoreError(f"store.url: {backend!r} is not supported", "use sqlite or postgresql")
    if parsed.drivername not in DRIVERS[backend]:
        raise StoreError(
            f"store.url: {parsed.drivername!r} is not supported", f"use {DRIVERS[backend][0]}"
        )
    if backend == "postgresql":
        return parsed.set(drivername=DRIVERS[backend][-1])
    return parsed.set(database=str(_file(parsed)))


def _file(url: URL) -> Path:
    """The file of a SQLite URL, with `{data}` and `~` filled in."""
    name = url.database or ":memory:"
    if ":memory:" in name:
        raise StoreError("store.url: a store in memory would be lost", "name a file")
    if name.startswith("file:") or url.query:
        raise StoreError("store.url: SQLite takes a plain path here, without options")
    if "{data}" in name:
        name = name.replace("{data}", str(data_dir()))
    path = Path(name).expanduser()
    if not path.parent.is_dir():
        raise StoreError(f"store.url: there is no folder {path.parent}", "make it first")
    return path


def name_of(url: URL) -> str:
    """The store as a person knows it: the file, or the URL without its password."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return url.render_as_string(hide_password=True)


def connect(url: URL, busy_timeout_s: float) -> Engine:
    """An engine; nothing is opened yet.

    Raises:
        StoreError: the database's driver is not installed.
    """
    if url.get_backend_name() != "sqlite":
        return _connect_postgresql(url)
    engine = sa.create_engine(
        url,
        connect_args={"timeout": busy_timeout_s, "check_same_thread": False},
        hide_parameters=True,  # an error's text must not quote what somebody said
    )

    @sa.event.listens_for(engine, "connect")
    def on_connect(raw: Any, _: Any) -> None:
        raw.isolation_level = None  # transactions begin where we say so, not where sqlite3 thinks
        cursor = raw.cursor()
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten
        _use_wal(cursor, busy_timeout_s)
        raw.create_function("geli_says", 2, says, deterministic=True)
        cursor.execute("PRAGMA synchronous = FULL")  # a turn outlives a power cut, too
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def on_begin(connection: sa.Connection) -> None:
        options = connection.get_execution_options()
        connection.exec_driver_sql(options.get("geli_begin", "BEGIN"))

    return engine


def _connect_postgresql(url: URL) -> Engine:
    try:
        import psycopg
    except ModuleNotFoundError as error:
        raise StoreError(
            f"{name_of(url)}: {error.name} is not installed",
            "pip install 'geli-agent[postgres]'",
        ) from None

    class Impatient(psycopg.Connection[Any]):
        """Lets go of a server that is silent for too long; psycopg itself waits for ever."""

        def wait(self, *args: Any, **more: Any) -> Any:
            timer = threading.Timer(ANSWER_S, self._let_go)
            timer.daemon = True
            timer.start()
            try:
                return super().wait(*args, **more)
            finally:
                timer.cancel()

        def _let_go(self) -> None:
            with suppress(OSError), socket.socket(fileno=os.dup(self.pgconn.socket)) as ours:
                ours.shutdown(socket.SHUT_RDWR)  # the waiting thread sees the connection end

    engine = sa.create_engine(
        url,
        pool_pre_ping=True,
        hide_parameters=True,
        connect_args={"connect_timeout": CONNECT_S},
    )

    @sa.event.listens_for(engine, "do_connect")
    def on_connect(_: Any, __: Any, args: Any, more: Any) -> Any:
        return Impatient.connect(*args, **more)

    return engine


def says(text: str, lowered: str) -> bool:
    """Whether a text holds a word or phrase that is in lower case already (SQL `geli_says`)."""
    return lowered in text.lower()


def _use_wal(cursor: sqlite3.Cursor, busy_timeout_s: float) -> None:
    """Turn the log on; SQLite does not wait by itself when two programs make a new store."""
    until = time.monotonic() + busy_timeout_s
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() >= until:
                raise
            time.sleep(0.01)


def reads(url: URL) -> dict[str, str]:
    """Execution options under which one transaction sees one state of the store."""
    return {} if url.get_backend_name() == "sqlite" else {"isolation_level": "REPEATABLE READ"}


def migrate(engine: Engine, name: str) -> None:
    """Make the tables, or bring them up to date.

    Raises:
        StoreError: the store was written by a newer program.
    """
    if _version(engine) == HEAD:
        return
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.connect() as plain:
        connection = plain.execution_options(**WRITES)
        with connection.begin():
            if engine.dialect.name == "postgresql":  # one program at a time; SQLite's lock is held
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATING})")
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                raise StoreError(
                    f"{name} was written by a newer geli ({_version_in(connection)})",
                    f"update geli; this one knows {HEAD}",
                ) from error


def _version(engine: Engine) -> str | None:
    with engine.connect() as connection:
        return _version_in(connection)


def _version_in(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.exec_driver_sql(
        "SELECT version_num FROM alembic_version"
    ).scalar()
    return found


def explain(error: sa.exc.DBAPIError, url: URL) -> StoreError:
    """A database error as one line with the way out."""
    if url.get_backend_name() == "sqlite" and error.orig is not None:
        return explain_sqlite(error.orig, url)
    line = (str(error.orig).strip().splitlines() or ["no reason given"])[0]
    return StoreError(f"{name_of(url)}: {line}", "is the database running, and the URL right?")


def explain_sqlite(error: BaseException, url: URL) -> StoreError:
    """SQLite's error as one line with the way out."""
    name, text = name_of(url), str(error)
    known = (
        ("locked", f"{name}: another process holds the store", "try again, or end that process"),
        ("disk is full", f"{name}: the disk is full", "free some space"),
        ("readonly", f"{name} cannot be written", "check its owner and permissions"),
        ("unable to open", f"{name} cannot be opened", "check its folder and permissions"),
        (
            "not a database",
            f"{name} is no session store, or it is damaged",
            "restore a copy or name another file",
        ),
        ("malformed", f"{name} is damaged", "restore a copy, or import an export into a new one"),
    )
    for sign, problem, way_out in known:
        if sign in text:
            return StoreError(problem, way_out)
    return StoreError(f"{name}: {text.splitlines()[0] if text else type(error).__name__}")
