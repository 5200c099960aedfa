"""What tests of the store share: where it lies, what its files hold, who else holds it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from agent import corrections, schema
from agent.records import EndedHow, Session
from agent.store import Store
from tests.agent.session_samples import session, turn, window

ROOT = Path(__file__).parents[2]


def url_of(folder: Path) -> str:
    """A SQLite store in that folder."""
    return f"sqlite:///{folder / 's.sqlite3'}"


def anew(store: Store, session_id: str) -> Session:
    """The session as another process would read it."""
    url = store.url.render_as_string(hide_password=False)
    with Store.open(url) as other:
        return other.get(session_id)


def on_disk(folder: Path, *texts: str) -> dict[str, int]:
    """How often each file of the folder holds one of the texts."""
    found = {}
    for path in folder.iterdir():
        if path.is_file():
            # By another process: to close a file here would drop SQLite's locks on it.
            held = subprocess.run(["cat", path], capture_output=True, check=True).stdout
            found[path.name] = sum(held.count(text.encode()) for text in texts)
    return {name: n for name, n in found.items() if n}


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


SECRETS = tuple(f"pomegranate-{n:02d}" for n in range(11))
"""What `with_secrets` leaves in a session, each once and in a place of its own."""


def with_secrets(store: Store, session_id: str, **more: Any) -> None:
    """A long session with a secret in every text: what was said, by whom it was corrected, and how.
    The rows of a second one, `kept`, lie between its rows."""
    said, heard, classifier, comment, *others = SECRETS
    log = store.open_session(session(session_id, **more))
    beside = store.open_session(session("kept"))
    for index in range(30):
        text = f"{said} " * (1 + 37 * index % 500)
        log.add_turn(turn(index, "agent", text=text, generated_text=heard))
        beside.add_turn(turn(index, text=f"stays-{index:03d} " * (1 + 53 * index % 300)))
        log.update_turn(turn(index, "agent", text=text[: 17 * (1 + index)], generated_text=heard))
    log.add_windows([window(0, True).model_copy(update={"classifier": classifier})])
    log.rate(50, "page", comment)
    for each in (log, beside):
        each.end(EndedHow.HUNG_UP, session(session_id, **more).started_at)
    note_before, note, tag_before, tag, reason, comment, by = others
    for text in (note_before * 99, note):
        corrections.note(store, session_id, text, "ada")
    corrections.tag(store, session_id, "ada", [tag_before])
    corrections.tag(store, session_id, "ada", [tag], [tag_before])
    excluded = corrections.exclude(store, session_id, reason, "ada")
    assert excluded is not None
    corrections.undo(store, excluded.id, "ada")
    corrections.rate(store, session_id, 20, "ada", comment)
    corrections.label(store, session_id, 3, 0, by)
