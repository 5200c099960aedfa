"""What tests of the store share: where it lies, what its files hold, who else holds it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import sqlalchemy as sa

from agent import schema
from agent.records import Session
from agent.store import Store

ROOT = Path(__file__).parents[2]


def url_of(folder: Path) -> str:
    """A SQLite store in that folder."""
    return f"sqlite:///{folder / 's.sqlite3'}"


def anew(store: Store, session_id: str) -> Session:
    """The session as another process would read it."""
    url = store.url.render_as_string(hide_password=False)
    with Store.open(url) as other:
        return other.get(session_id)


def on_disk(folder: Path, text: str) -> dict[str, int]:
    """How often each file of the folder holds the text."""
    files = [path for path in folder.iterdir() if path.is_file()]
    counts = {path.name: path.read_bytes().count(text.encode()) for path in files}
    return {name: n for name, n in counts.items() if n}


def wipe(store: Store) -> None:
    """An empty store again."""
    with store.writing() as connection:
        for table in reversed(schema.metadata.sorted_tables):
            connection.execute(sa.delete(table))


class locked:  # noqa: N801
    """Another connection holds the store's only write lock."""

    def __init__(self, store: Store) -> None:
        self.other = sqlite3.connect(str(store.url.database), isolation_level=None)

    def __enter__(self) -> None:
        self.other.execute("BEGIN IMMEDIATE")

    def __exit__(self, *_: object) -> None:
        self.other.execute("ROLLBACK")
        self.other.close()


READER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN")
connection.execute("SELECT count(*) FROM sessions").fetchall()
print("reads", flush=True)
sys.stdin.read()
"""


class read_elsewhere:  # noqa: N801
    """Another process reads the store: what it may still see cannot go from the files."""

    def __init__(self, file: Path) -> None:
        command = [sys.executable, "-c", READER, str(file)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=os.environ)

    def __enter__(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "reads\n"

    def __exit__(self, *_: object) -> None:
        self.process.communicate()
