"""The session store: what is handed in is there afterwards, whatever happens in between."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import IO, Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from hypothesis import HealthCheck, given, settings

from agent import schema, store_engine
from agent.config import Labels
from agent.errors import StoreError
from agent.owner import Owner
from agent.records import Consent, EndedHow, Session
from agent.session_log import SessionLog
from agent.store import Filter, Store
from tests.agent import session_samples as samples
from tests.agent.session_samples import START, ended, session, turn, window
from tests.agent.stores import ROOT, anew, locked, on_disk, url_of

pytestmark = pytest.mark.unit

END = START + timedelta(minutes=5)


# -- round trip ---------------------------------------------------------------------------------


def test_every_field_comes_back(store: Store) -> None:
    full = samples.full_session()
    store.insert(full)
    found = anew(store, full.id)
    for name in Session.model_fields:
        assert getattr(found, name) == getattr(full, name), name
    assert found.model_dump_json() == full.model_dump_json()
    blank = Session.model_construct(consent=None).model_dump()
    used = full.model_dump()
    same = [k for k in used if used[k] == blank.get(k)]
    assert same == ["schema_version"], "the sample must differ from the defaults everywhere"


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(samples.sessions())
def test_any_session_comes_back(store: Store, any_session: Session) -> None:
    store.insert(any_session)
    try:
        assert store.get(any_session.id) == any_session
    finally:
        store.delete(any_session.id)


def test_what_cannot_be_stored_in_a_text_is_replaced(store: Store) -> None:
    store.insert(session(turns=[turn(0, text="a\x00b")]))
    assert store.get("s-1").turns[0].text == "a\ufffdb"


def test_a_call_as_it_is_logged(store: Store) -> None:
    log = store.open_session(session(consent="learn"))
    log.add_turn(turn(0))
    log.add_turn(turn(1, "agent"))
    log.add_windows([window(2, True), window(3)])
    log.update_turn(turn(1, "agent", li=1, li_coverage=0.5, li_windows=[2, 3]))
    log.rate(80, "page", "nice", at=END)
    log.end(EndedHow.HUNG_UP, END)
    log.end(EndedHow.CRASHED, END + timedelta(hours=1))  # only the first end counts
    assert anew(store, "s-1") == session(
        consent="learn",
        ended_how=EndedHow.HUNG_UP,
        ended_at=END,
        overall_affect=80.0,
        overall_affect_at=END,
        overall_affect_source="page",
        comment="nice",
        turns=[turn(0), turn(1, "agent", li=1, li_coverage=0.5, li_windows=[2, 3])],
        windows=[window(2, True), window(3)],
    )


def test_a_turn_is_durable_when_add_turn_returns(store: Store) -> None:
    log = store.open_session(session())
    for index in range(3):
        log.add_turn(turn(index))
        assert anew(store, "s-1").turns == [turn(i) for i in range(index + 1)]
        assert log.pending == 0


def test_sqlite_syncs_each_commit(lite: Store) -> None:
    with lite.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_a_turn_that_changes_later_is_stored_as_it_was(lite: Store) -> None:
    log = lite.open_session(session())
    mine = turn(0)
    with locked(lite), pytest.raises(StoreError):
        log.add_turn(mine)
    mine.text = "changed afterwards"
    log.flush()
    assert lite.get("s-1").turns == [turn(0)]


def test_a_log_refuses_what_it_has(store: Store) -> None:
    log = store.open_session(session(turns=[turn(0)], windows=[window(0)]))
    with pytest.raises(ValueError, match="turn 0 of s-1 was added before"):
        log.add_turn(turn(0))
    with pytest.raises(ValueError, match="turn 1 of s-1 was never added"):
        log.update_turn(turn(1))
    with pytest.raises(ValueError, match="was added before"):
        log.add_windows([window(0)])
    with pytest.raises(ValueError, match="was added before"):
        log.add_windows([window(1), window(1)])
    log.add_windows([])
    assert store.get("s-1") == session(turns=[turn(0)], windows=[window(0)])


def test_an_id_is_used_once(store: Store) -> None:
    store.insert(ended("a"))
    with pytest.raises(StoreError, match="session a is already in the store"):
        store.insert(session("a"))
    with pytest.raises(StoreError, match="already in the store"):
        store.open_session(session("a"))
    assert store.get("a") == ended("a")


def test_a_session_is_inserted_whole_or_not_at_all(store: Store) -> None:
    with pytest.raises(sa.exc.IntegrityError):
        store.insert(session(turns=[turn(0), turn(0)]))
    assert not store.has("s-1")


# -- crashes and other processes ----------------------------------------------------------------

CHILD = """
import sys, time
from datetime import timedelta
from agent.records import EndedHow
from agent.store import Store
from tests.agent.session_samples import START, session, turn, window
url, session_id, n, then = sys.argv[1:]
store = Store.open(url)
log = store.open_session(session(session_id))
log.add_windows([window(i, positive=True) for i in range(8)])
for index in range(int(n)):
    log.add_turn(turn(index, "user" if index % 2 else "agent"))
    print(index, flush=True)
if then == "end":
    log.end(EndedHow.HUNG_UP, START + timedelta(minutes=5))
else:
    time.sleep(600)
"""


def child(url: str, session_id: str, n: int, then: str) -> subprocess.Popen[str]:
    """A process that writes `n` turns, says the number of each when it is stored, and then …"""
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, url, session_id, str(n), then],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def out_of(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdout is not None
    return process.stdout


def test_kill_9_in_mid_session_keeps_what_was_acknowledged(store: Store, url: str) -> None:
    process = child(url, "killed", 100_000, "sleep")
    try:
        acknowledged = [int(out_of(process).readline()) for _ in range(5)]
        assert store.close_crashed(Labels()) == []  # it lives
        assert store.list(Filter(live=True))[0].id == "killed"
        process.send_signal(signal.SIGKILL)
        state = Path(f"/proc/{process.pid}/stat")
        while state.read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
        acknowledged += [int(line) for line in out_of(process) if line.endswith("\n")]
        assert store.close_crashed(Labels()) == ["killed"]  # a zombie is dead
    finally:
        process.kill()
        process.wait()
    found = store.get("killed")
    kept = [t.index for t in found.turns]
    assert acknowledged == list(range(len(acknowledged)))
    assert kept in (acknowledged, [*acknowledged, len(acknowledged)])
    assert found.turns[1] == turn(1, "user")
    assert found.ended_how is EndedHow.CRASHED
    assert found.ended_at == START + timedelta(seconds=max(found.turns[-1].end_s, 9.0))
    assert [found.turns[i].li for i in (0, 2)] == [1, 1]
    assert found.turns[0].li_windows == [0]
    assert found.turns[0].li_rule == "majority, coverage>=0.5, after<=10s"
    assert found.turns[1].li is None
    assert store.close_crashed(Labels()) == []


def test_a_crashed_call_without_anything_ends_when_it_started(store: Store) -> None:
    gone = Owner(Owner.current().host, 2**22 + 1, "1")
    store.open_session(session(), gone)
    store.open_session(session("mine"))
    store.insert(session("open"))
    assert store.close_crashed(Labels()) == ["s-1"]
    assert store.get("s-1").ended_at == START
    assert store.get("mine").ended_at is None
    assert store.get("open").ended_how is None


@pytest.mark.parametrize(
    ("change", "alive"),
    [
        ({}, True),
        ({"started": "1"}, False),  # the number was given to another process
        ({"pid": 0}, False),
        ({"started": ""}, True),
        ({"pid": 2**22 + 1, "started": ""}, False),
        ({"host": "elsewhere/other-boot"}, True),
    ],
)
def test_who_is_alive(change: dict[str, str | int], alive: bool) -> None:
    me = Owner.current()
    values = {"host": me.host, "pid": me.pid, "started": me.started} | change
    owner = Owner(**values)  # type: ignore[arg-type]
    assert Owner.parse(str(owner)) == owner
    assert owner.is_alive(START, START + timedelta(minutes=1)) is alive


def test_owners_of_before() -> None:
    me = Owner.current()
    rebooted = Owner(me.host.partition("/")[0] + "/other-boot", me.pid, me.started)
    assert not rebooted.is_alive(START, START)
    foreign = Owner("elsewhere/boot", 1, "1")
    assert not foreign.is_alive(START, START + timedelta(hours=25))
    for text in ("", "nonsense", "a|b|c", "h|²|1", "a|1"):
        assert not Owner.parse(text).is_alive(START, START), text


def test_two_processes_write_at_once(store: Store, url: str) -> None:
    processes = [child(url, name, 40, "end") for name in ("left", "right")]
    for process in processes:
        out, _ = process.communicate()
        assert process.returncode == 0
        assert out.split() == [str(i) for i in range(40)]
    for name in ("left", "right"):
        found = store.get(name)
        assert found.turns == [turn(i, "user" if i % 2 else "agent") for i in range(40)]
        assert (found.ended_how, found.ended_at) == (EndedHow.HUNG_UP, END)


# -- a database that cannot be written now ------------------------------------------------------


class Disk:
    """A disk that can be full: SQLite may not add a page then."""

    def __init__(self, store: Store) -> None:
        self.pages = 2**30
        sa.event.listen(store.engine, "begin", self._limit)

    def _limit(self, connection: sa.Connection) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {self.pages}")


def long_turn(index: int) -> samples.Turn:
    return turn(index, text=f"long {index} " * 2000)


def test_a_full_disk_loses_nothing(lite: Store) -> None:
    disk = Disk(lite)
    log = lite.open_session(session())
    log.add_turn(turn(0))
    disk.pages = 1  # SQLite reads it as: no more than there are
    for index in (1, 2, 3):
        with pytest.raises(StoreError) as full:
            log.add_turn(long_turn(index))
        assert log.pending == index
        assert log.problem is full.value
        plural = f"{index} turns of this call wait in memory"
        expected = f"{lite.name}: the disk is full — free some space; {plural}"
        assert str(full.value) == expected
    with pytest.raises(StoreError, match="the disk is full"):
        log.update_turn(long_turn(2).model_copy(update={"li": 0}))
    with pytest.raises(StoreError, match="4 turns of this call wait"):
        log.end(EndedHow.HUNG_UP, END)
    assert anew(lite, "s-1") == session(turns=[turn(0)])

    disk.pages = 2**30
    writes: list[str] = []
    sa.event.listen(
        lite.engine,
        "before_cursor_execute",
        lambda *args: writes.append(args[2]) if args[2].startswith("INSERT") else None,
    )
    log.flush()
    assert len(writes) == 4  # the turns in order, each once, then the one that changed
    log.flush()
    assert len(writes) == 4
    assert (log.pending, log.problem) == (0, None)
    changed = long_turn(2).model_copy(update={"li": 0})
    assert anew(lite, "s-1") == session(
        turns=[turn(0), long_turn(1), changed, long_turn(3)],
        ended_how=EndedHow.HUNG_UP,
        ended_at=END,
    )


def test_the_next_turn_brings_what_waited(lite: Store) -> None:
    log = lite.open_session(session())
    with locked(lite):
        with pytest.raises(StoreError, match="another process holds the store — try again"):
            log.add_turn(turn(0))
        with pytest.raises(StoreError, match="1 turns of this call wait"):
            log.rate(50, "page", at=END)
        with pytest.raises(StoreError):
            log.add_windows([window(0, True)])
    log.add_turn(turn(1))
    found = lite.get("s-1")
    assert found.turns == [turn(0), turn(1)]
    assert (found.overall_affect, found.windows) == (50.0, [window(0, True)])
    assert log.pending == 0


def test_the_end_of_a_call_brings_what_waited(lite: Store) -> None:
    log = lite.open_session(session())
    with locked(lite), pytest.raises(StoreError):
        log.add_turn(turn(0))
    log.end(EndedHow.DROPPED, END)
    expected = session(turns=[turn(0)], ended_how=EndedHow.DROPPED, ended_at=END)
    assert lite.get("s-1") == expected


def test_a_locked_store_is_said_before_the_call(lite: Store) -> None:
    with locked(lite), pytest.raises(StoreError, match="another process holds the store"):
        lite.open_session(session())
    lite.open_session(session())


def test_a_read_only_store_says_so(lite: Store) -> None:
    lite.insert(ended("a"))

    @sa.event.listens_for(lite.engine, "begin")
    def read_only(connection: sa.Connection) -> None:
        connection.exec_driver_sql("PRAGMA query_only = ON")

    with pytest.raises(StoreError, match="cannot be written — check its owner and permissions"):
        lite.rate("a", 5, "cli")
    assert lite.get("a") == ended("a")


# -- a database that cannot be used -------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "is no database URL"),
        ("sessions.db", "is no database URL"),
        ("postgresql://host:port/x", "is no database URL"),
        ("mysql://host/x", "'mysql' is not supported"),
        ("sqlite+aiosqlite:////x", "'sqlite\\+aiosqlite' is not supported"),
        ("postgresql+asyncpg://host/x", "is not supported"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("sqlite:///file::memory:?uri=true", "in memory"),
        ("sqlite:////x?mode=ro", "a plain path"),
        ("sqlite:////no/such/folder/s.db", "there is no folder /no/such/folder"),
    ],
)
def test_urls_that_cannot_be_used(url: str, says: str) -> None:
    with pytest.raises(StoreError, match=says) as refused:
        Store.open(url)
    assert "\n" not in str(refused.value)


def test_a_password_is_never_shown() -> None:
    for url in ("postgresql://me:hunter2@host:port/x", "postgresql://me:hunter2@127.0.0.1:1/x"):
        with pytest.raises(StoreError) as refused:
            Store.open(url)
        assert "hunter2" not in str(refused.value)
        assert "\n" not in str(refused.value)


def test_the_data_directory_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GELI_DATA", str(tmp_path / "what?%20#" / "data"))
    with Store.open("sqlite:///{data}/s.sqlite3") as store:
        store.insert(ended("a"))
    folder = tmp_path / "what?%20#" / "data"
    assert (folder / "s.sqlite3").is_file()
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_tilde_is_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    Store.open("sqlite:///~/s.sqlite3").close()
    assert (tmp_path / "s.sqlite3").is_file()


def test_a_data_directory_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GELI_DATA", str(tmp_path / "file" / "data"))
    with pytest.raises(StoreError, match="cannot be made: Not a directory — set GELI_DATA"):
        Store.open("sqlite:///{data}/s.sqlite3")


def test_a_folder_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be opened — check its folder and permissions"):
        Store.open(f"sqlite:///{tmp_path}")


def test_a_text_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "s.sqlite3").write_text("dear diary, " * 100)
    with pytest.raises(StoreError, match="is no session store, or it is damaged — restore"):
        Store.open(url_of(tmp_path))


def test_a_damaged_store_says_so(tmp_path: Path) -> None:
    with Store.open(url_of(tmp_path)) as store:
        store.insert(ended("a", turns=[turn(i, text="x" * 3000) for i in range(20)]))
    file = tmp_path / "s.sqlite3"
    data = file.read_bytes()
    file.write_bytes(data[:4096] + b"\xa5" * (len(data) - 4096))
    with (
        pytest.raises(StoreError, match="is damaged") as refused,
        Store.open(url_of(tmp_path)) as s,
    ):
        s.get("a")
    assert "\n" not in str(refused.value)


def test_a_newer_store_is_refused(store: Store, url: str) -> None:
    store.insert(ended("a"))
    with store.writing() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreError, match=r"was written by a newer geli \(9999\) — update geli"):
        Store.open(url)
    assert store.get("a") == ended("a")


def test_reopening_changes_nothing(store: Store, url: str) -> None:
    store.insert(samples.full_session())
    for _ in range(2):
        with Store.open(url) as again:
            assert again.get("full_Session-1") == samples.full_session()
            store_engine.migrate(again.engine, again.name)


def test_a_new_store_is_made_once_by_many(tmp_path: Path) -> None:
    for n in range(5):
        url = f"sqlite:///{tmp_path / f'{n}.sqlite3'}"
        together = threading.Barrier(4)

        def open_it(name: str, url: str = url, together: threading.Barrier = together) -> None:
            together.wait()
            with Store.open(url) as store:
                store.insert(ended(name))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(open_it, "abcd"))
        with Store.open(url) as store:
            assert {summary.id for summary in store.list()} == set("abcd")


def another_default(_: Any, column: Any, __: Any, stored: Any, ___: Any, own: Any) -> bool | None:
    """Whether a default differs. None: let alembic ask the database, but PostgreSQL has no `=` for
    JSON."""
    if not isinstance(column.type, sa.JSON):
        return None
    return (stored or "").partition("::")[0].strip("'") != (own or "").strip("'")


def test_the_migrations_make_the_tables_of_the_program(store: Store) -> None:
    scripts = ScriptDirectory(str(store_engine.MIGRATIONS))
    assert scripts.get_heads() == [store_engine.HEAD]
    with store.reading() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": another_default}
        )
        found = sa.inspect(connection)
        names = set(schema.metadata.tables) | {"alembic_version"}
        assert set(found.get_table_names()) == names
        assert compare_metadata(context, schema.metadata) == []
        for name, table in schema.metadata.tables.items():
            checks = {c.name for c in table.constraints if isinstance(c, sa.CheckConstraint)}
            assert {c["name"] for c in found.get_check_constraints(name)} == checks


# -- consent and deletion -----------------------------------------------------------------------

SECRET = "pomegranate-17"


def test_talk_only_leaves_a_count_and_no_text(tmp_path: Path) -> None:
    with Store.open(url_of(tmp_path)) as store:
        for _ in range(2):
            log = store.open_session(session(SECRET, consent="talk_only", comment=SECRET))
            log.add_turn(turn(0, text=SECRET))
            log.update_turn(turn(0, text=SECRET))
            log.add_windows([window(0, True).model_copy(update={"classifier": SECRET})])
            log.rate(50, SECRET, SECRET)
            assert (log.pending, log.stores) == (0, False)
            assert on_disk(tmp_path, SECRET) == {}  # the log of the database included
            log.end(EndedHow.HUNG_UP, END)
        assert store.tally() == {(date(2026, 11, 23), "talk_only"): 2}
        assert (store.list(), store.has(SECRET)) == ([], False)
        with store.reading() as connection:
            for table in (schema.sessions, schema.turns, schema.windows):
                assert connection.scalar(sa.select(sa.func.count()).select_from(table)) == 0
    assert on_disk(tmp_path, SECRET) == {}


def test_talk_only_does_not_even_touch_the_store(lite: Store) -> None:
    log = lite.open_session(session(consent="talk_only"))
    with locked(lite):
        log.add_turn(turn(0))
        log.add_windows([window(0, True)])
        log.rate(50, "page", SECRET)
        log.flush()


def test_the_table_itself_refuses_talk_only(store: Store) -> None:
    row = schema.session_row(session(), None) | {"consent": "talk_only"}
    with pytest.raises(sa.exc.IntegrityError, match="only_what_may_be_kept"):
        with store.writing() as connection:
            connection.execute(sa.insert(schema.sessions).values(row))
    with pytest.raises(StoreError, match="talk_only, which is never stored"):
        store.insert(session(consent="talk_only"))
    assert store.list() == []


def test_a_dry_run_leaves_not_even_a_count(tmp_path: Path) -> None:
    log = SessionLog(None, "dry", Consent.LEARN)
    log.add_turn(turn(0, text=SECRET))
    log.add_windows([window(0, True)])
    assert not log.stores
    log.rate(5, "page")
    log.end(EndedHow.HUNG_UP, END)
    assert (log.pending, list(tmp_path.iterdir())) == (0, [])


def test_deleted_text_is_in_no_file(tmp_path: Path) -> None:
    with Store.open(url_of(tmp_path)) as store:
        gone, kept = store.open_session(session("gone")), store.open_session(session("kept"))
        for index in range(30):
            gone.add_turn(turn(index, text=f"{SECRET} " * (1 + 37 * index % 500)))
            kept.add_turn(turn(index, text=f"stays-{index:03d} " * (1 + 53 * index % 300)))
            gone.update_turn(turn(index, text=f"{SECRET} " * (1 + index)))
        gone.add_windows([window(0, True)])
        gone.rate(50, "page", SECRET)
        gone.end(EndedHow.HUNG_UP, END)
        assert on_disk(tmp_path, SECRET)  # the search finds what is there
        deleted = store.delete("gone")
        assert (deleted.turns, deleted.windows, deleted.purged) == (30, 1, True)
        assert on_disk(tmp_path, SECRET) == {}
        assert len(store.get("kept").turns) == 30
    assert on_disk(tmp_path, SECRET) == {}
    assert on_disk(tmp_path, "stays-029")


def test_a_reader_keeps_the_text_in_the_log_until_it_ends(lite: Store, tmp_path: Path) -> None:
    lite.insert(ended("gone", comment=SECRET))
    lite.insert(ended("other"))
    reader = sqlite3.connect(str(lite.url.database), isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT id FROM sessions").fetchall()
    assert lite.delete("gone").purged is False
    assert not lite.has("gone")
    reader.close()
    assert lite.delete("other").purged is True
    assert on_disk(tmp_path, SECRET) == {}


def test_deletion_leaves_no_rows(store: Store) -> None:
    store.insert(samples.full_session())
    store.insert(ended("other"))
    store.delete("full_Session-1")
    with store.reading() as connection:
        for table in (schema.turns, schema.windows):
            assert set(connection.scalars(sa.select(table.c.session_id))) == {"other"}
    with pytest.raises(StoreError, match="no session 'full_Session-1'"):
        store.delete("full_Session-1")


def test_a_session_deleted_during_its_call_stays_deleted(store: Store) -> None:
    log = store.open_session(session())
    log.add_turn(turn(0))
    store.delete("s-1")
    log.add_turn(turn(1))
    assert log.deleted
    log.add_windows([window(0, True)])
    log.rate(50, "page")
    log.end(EndedHow.HUNG_UP, END)
    assert (log.pending, log.problem) == (0, None)
    assert not store.has("s-1")


def test_a_rating_after_deletion_brings_nothing_back(store: Store) -> None:
    log = store.open_session(session())
    log.end(EndedHow.HUNG_UP, END)
    store.delete("s-1")
    log.rate(50, "page")
    assert not store.has("s-1")


# -- rating, lists ------------------------------------------------------------------------------


def test_the_last_rating_counts(store: Store) -> None:
    store.insert(ended("a"))
    store.rate("a", 0, "page", "bad")
    store.rate("a", 100, "cli", at=END)
    assert store.get("a") == ended(
        "a", overall_affect=100.0, overall_affect_source="cli", overall_affect_at=END
    )
    before = datetime.now(UTC)
    store.rate("a", 33.5, "cli")
    at = store.get("a").overall_affect_at
    assert at is not None and before <= at <= datetime.now(UTC)


@pytest.mark.parametrize("value", [-0.1, 100.1, float("nan"), float("inf")])
def test_a_rating_out_of_range(store: Store, value: float) -> None:
    store.insert(ended("a"))
    log = store.open_session(session("b"))
    with pytest.raises(StoreError, match="overall affect is 0 to 100"):
        store.rate("a", value, "cli")
    with pytest.raises(StoreError, match="overall affect is 0 to 100"):
        log.rate(value, "page")
    assert (store.get("a").overall_affect, store.get("b").overall_affect) == (None, None)
    assert log.pending == 0


def test_unknown_ids_name_the_closest(store: Store) -> None:
    store.insert(ended("20261123T100000-aaaaaaaa"))
    for call in (store.get, store.resolve, store.delete, lambda i: store.rate(i, 5, "cli")):
        with pytest.raises(StoreError, match="did you mean 20261123T100000-aaaaaaaa") as refused:
            call("20261123T100000-aaaaaaab")
        assert "\n" not in str(refused.value)
    with pytest.raises(StoreError, match="see 'geli sessions list'"):
        store.get("zzz")


def test_the_start_of_an_id_is_enough(store: Store) -> None:
    for name in ("abc-1", "abc-12", "abd_x", "ABD_y", "abdzx"):
        store.insert(ended(name))
    assert store.resolve("abd_") == "abd_x"  # _ is no wildcard, and case matters
    assert store.resolve("AB") == "ABD_y"
    assert store.resolve("abc-1") == "abc-1"  # itself, though it begins another
    with pytest.raises(StoreError, match="'ab' begins 4 session ids — one of abc-1, abc-12, ab"):
        store.resolve("ab")
    for nothing in ("", "%", "abc%", "x" * 65, "abc-2", "a b"):
        with pytest.raises(StoreError, match="no session"):
            store.resolve(nothing)


def test_what_the_list_tells(store: Store) -> None:
    windows = [window(0, True), window(1, False), window(2, True), window(3)]
    store.insert(ended("a", windows=windows, overall_affect=7, policy_id="p"))
    store.insert(session("b", started_at=START - timedelta(days=1), excluded=True))
    a, b = store.list()
    assert (a.id, a.started_at, a.duration_s, a.n_turns) == ("a", START, 5.0, 2)
    assert (a.overall_affect, a.policy_id, a.consent, a.ended_how) == (7, "p", "learn", "hung_up")
    assert a.positive_share == pytest.approx(2 / 3)
    assert (a.coverage, a.live, a.excluded) == (0.75, False, False)
    assert (b.id, b.duration_s, b.n_turns, b.coverage, b.positive_share) == ("b", 0, 0, None, None)
    assert (b.excluded, b.ended_how) == (True, None)


@pytest.mark.parametrize(
    ("only", "ids"),
    [
        (Filter(), "e d c b a"),
        (Filter(consent=[Consent.KEEP]), "e d"),
        (Filter(consent=[Consent.KEEP, Consent.LEARN]), "e d c b a"),
        (Filter(unrated=True), "e d b a"),
        (Filter(policy_id="p2"), "b"),
        (Filter(since=START + timedelta(minutes=2)), "e d c"),
        (Filter(excluded=True), "b"),
        (Filter(excluded=False), "e d c a"),
        (Filter(live=True), "e"),
        (Filter(live=False, consent=[Consent.KEEP]), "d"),
        (Filter(live=False, unrated=True, excluded=False), "d a"),
    ],
)
def test_filters(store: Store, only: Filter, ids: str) -> None:
    store.insert(ended("a", 0))
    store.insert(ended("b", 1, policy_id="p2", excluded=True))
    store.insert(ended("c", 2, overall_affect=0))
    store.insert(ended("d", 3, consent=Consent.KEEP))
    store.open_session(session("e", started_at=START + timedelta(minutes=4)))
    assert [summary.id for summary in store.list(only)] == ids.split()


def test_pages_follow_each_other(store: Store) -> None:
    for n in range(7):
        store.insert(ended(f"s-{n}", minutes=n // 2))  # two start at the same time
    everything = [f"s-{n}" for n in (6, 5, 4, 3, 2, 1, 0)]
    pages = [[s.id for s in store.list(limit=3, offset=o)] for o in (0, 3, 6, 9)]
    assert pages == [everything[:3], everything[3:6], everything[6:], []]
    assert [s.id for s in store.list(limit=None, offset=5)] == everything[5:]


def test_learning_reads_only_what_it_may(store: Store) -> None:
    store.insert(ended("late", 9))
    store.insert(ended("early", 1, policy_id="p"))
    store.insert(ended("kept", 2, consent=Consent.KEEP))
    store.insert(ended("excluded", 3, excluded=True))
    store.open_session(session("live", consent="learn"))
    assert [s.id for s in store.iter_sessions()] == ["early", "late"]
    assert [s.id for s in store.iter_sessions({Consent.KEEP})] == ["kept"]
    assert [s.id for s in store.iter_sessions(excluded=True)] == ["excluded"]
    assert [s.id for s in store.iter_sessions(excluded=None, only=Filter(policy_id="p"))] == [
        "early"
    ]
    everything = list(store.iter_sessions([Consent.KEEP, Consent.LEARN], None))
    assert [s.id for s in everything] == ["early", "kept", "excluded", "late"]
    assert everything[0] == ended("early", 1, policy_id="p")


def test_streaming_meets_each_session_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.store.BATCH", 2)
    for n in (4, 2, 0, 3, 1, 5):
        store.insert(ended(f"s-{n}", minutes=n // 3))
    met = []
    for found in store.iter_sessions():
        met.append(found.id)
        if len(met) == 2:  # the store can be written meanwhile
            store.delete("s-0")
            store.insert(ended("s-9", minutes=5))
    assert met == ["s-0", "s-1", "s-2", "s-3", "s-4", "s-5", "s-9"]
