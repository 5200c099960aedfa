"""Calls whose database goes away: every write is there once, whatever broke and when."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from agent import corrections, store_engine
from agent import journal as journals
from agent.config import Labels
from agent.errors import StoreError
from agent.journal import Journal
from agent.records import Consent, EndedHow
from agent.session_log import SessionLog
from agent.store import Store
from tests import postgres
from tests.agent.session_samples import START, session, turn, window
from tests.agent.stores import url_of

pytestmark = pytest.mark.transport

LATER = START + timedelta(minutes=1)


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where journals lie."""
    folder = tmp_path / "data"
    monkeypatch.setenv("GELI_DATA", str(folder))
    return folder


@pytest.fixture(scope="module")
def away() -> Iterator[postgres.Server]:
    """A PostgreSQL server that these tests may stop."""
    found = postgres.programs()
    assert found is not None, "make test installs PostgreSQL"
    made = postgres.Server(found)
    yield made
    made.close()


@pytest.fixture
def there(away: postgres.Server) -> Iterator[Store]:
    """An empty store on it."""
    away.start()
    with Store.open(away.url) as store:
        with store.writing() as connection:
            connection.exec_driver_sql("DELETE FROM sessions")
            connection.exec_driver_sql("DELETE FROM tally")
        yield store
        away.start()


def files(data: Path) -> list[Path]:
    """The journals there are."""
    return sorted(data.glob("journal/*/*.jsonl"))


def patient(store: Store) -> None:
    """Ask a database that just failed again at once."""
    store._failed = None


def says(store: Store, session_id: str = "s-1") -> list[str]:
    """What was said, in order."""
    return [t.text for t in store.get(session_id).turns]


def test_what_may_wait_a_moment_waits_on_disk(there: Store, away: postgres.Server) -> None:
    """A process that ends before its next round has lost none of it."""
    with Store.open(away.url) as first:
        log = first.open_session(session())
        log.add_turn(turn(0, "agent"))
        log.add_windows([window(0, True)], now=False)
        log.update_turn(turn(0, "agent", li=1), now=False)
        assert log.safe
    assert there.get("s-1").windows == []
    assert journals.recover(there) == 2
    found = there.get("s-1")
    assert (found.windows, found.turns) == ([window(0, True)], [turn(0, "agent", li=1)])
    assert journals.recover(there) == 0


def test_what_may_wait_a_moment_is_forced_to_disk_with_the_rest(
    there: Store, away: postgres.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    forced: list[int] = []
    fsync = os.fsync

    def counted(file: int) -> None:
        forced.append(file)
        fsync(file)

    monkeypatch.setattr(os, "fsync", counted)
    log = there.open_session(session())
    log.add_windows([window(0, True)], now=False)
    assert not forced
    log.add_turn(turn(0))
    assert len(forced) == 1
    away.stop()
    log.add_windows([window(1, True)], now=False)
    there.later.flush()  # the database does not take it
    assert len(forced) == 2 and log.waits
    away.start()


def test_a_round_empties_the_journal(there: Store, data: Path) -> None:
    logs = [there.open_session(session(name)) for name in ("s-1", "s-2")]
    for log in logs:
        log.add_windows([window(0, True)], now=False)
    assert files(data)[0].stat().st_size > 0
    there.later.flush()
    assert files(data)[0].stat().st_size == 0
    assert [there.get(log.id).windows for log in logs] == [[window(0, True)]] * 2


def test_the_server_stops_and_starts_in_mid_call(
    there: Store, away: postgres.Server, data: Path
) -> None:
    log = there.open_session(session())
    log.add_turn(turn(0, text="before"))
    away.stop()
    for index, text in ((1, "during one"), (2, "during two")):
        with pytest.raises(StoreError, match=r"turns of this call wait on this machine's disk"):
            log.add_turn(turn(index, "agent", text=text))
    with pytest.raises(StoreError):
        log.update_turn(turn(2, "agent", text="during two, labelled", li=1))
    with pytest.raises(StoreError):
        log.add_windows([window(0, True)])
    assert log.pending == 3 and log.safe
    held = files(data)[0].read_text()
    assert "during two, labelled" in held and "before" not in held
    assert files(data)[0].stat().st_mode & 0o777 == 0o600
    away.start()
    patient(there)
    log.add_turn(turn(3, text="after"))
    log.end(EndedHow.HUNG_UP, LATER)
    log.rate(80, "page")
    assert log.problem is None and log.pending == 0
    kept = there.get("s-1")
    assert [(t.index, t.text) for t in kept.turns] == [
        (0, "before"),
        (1, "during one"),
        (2, "during two, labelled"),
        (3, "after"),
    ]
    assert kept.turns[2].li == 1 and [w.index for w in kept.windows] == [0]
    assert kept.overall_affect == 80 and kept.ended_how is EndedHow.HUNG_UP
    assert files(data)[0].stat().st_size == 0


CALL = """
import os, sys
sys.path.insert(0, os.environ["ROOT"])
from agent.errors import StoreError
from agent.store import Store
from tests.agent.session_samples import session, turn
store = Store.open(sys.argv[1])
log = store.open_session(session())
log.add_turn(turn(0))
print("open", flush=True)
sys.stdin.readline()
for index in (1, 2):
    try:
        log.add_turn(turn(index, "agent"))
    except StoreError:
        print("waits", flush=True)
sys.stdin.read()
"""


def test_a_process_that_dies_while_the_server_is_down_loses_nothing(
    there: Store, away: postgres.Server, data: Path
) -> None:
    root = Path(__file__).parents[2]
    child = subprocess.Popen(
        [sys.executable, "-c", CALL, away.url],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "ROOT": str(root), "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert child.stdin is not None and child.stdout is not None
    assert child.stdout.readline() == "open\n"
    away.stop()
    child.stdin.write("\n")
    child.stdin.flush()
    assert [child.stdout.readline() for _ in range(2)] == ["waits\n"] * 2
    assert journals.recover(there) == 0  # the other still lives
    child.kill()
    child.communicate()
    left = files(data)[0]
    with left.open("ab") as file:
        file.write(b'{"session": "s-1", "n": 4, "do": "tu')  # and as if it died in mid-write
    with pytest.raises(StoreError):
        there.close_crashed(Labels())
    assert left.exists()
    away.start()
    assert there.close_crashed(Labels()) == ["s-1"]
    kept = there.get("s-1")
    assert [t.index for t in kept.turns] == [0, 1, 2]
    assert kept.ended_how is EndedHow.CRASHED
    assert not left.exists()
    assert there.close_crashed(Labels()) == []


def test_a_server_that_hangs_is_let_go(
    there: Store, away: postgres.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = there.open_session(session())
    monkeypatch.setattr(store_engine, "ANSWER_S", 0.3)
    monkeypatch.setattr(store_engine, "CONNECT_S", 2)
    assert away._process is not None
    everyone = [psutil.Process(away._process.pid)]
    everyone += everyone[0].children(recursive=True)
    for process in everyone:
        process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(StoreError, match="wait on this machine's disk"):
            log.add_turn(turn(0))
        with pytest.raises(StoreError):  # at once: it failed a moment ago
            log.add_turn(turn(1))
    finally:
        for process in everyone:
            process.send_signal(signal.SIGCONT)
    patient(there)
    log.flush()
    assert says(there) == ["words of turn 0", "words of turn 1"]


def test_nothing_of_a_call_that_is_not_kept_comes_there(
    there: Store, away: postgres.Server, data: Path
) -> None:
    log = there.open_session(session(consent=Consent.TALK_ONLY))
    away.stop()
    log.add_turn(turn(0))
    with pytest.raises(StoreError):
        log.end(EndedHow.HUNG_UP, LATER)
    assert files(data) == []
    away.start()
    patient(there)
    log.flush()
    assert list(there.tally().values()) == [1]


def test_a_session_that_was_deleted_meanwhile_stays_deleted(
    there: Store, away: postgres.Server, data: Path
) -> None:
    log = there.open_session(session())
    away.stop()
    with pytest.raises(StoreError):
        log.add_turn(turn(0))
    _die(there)
    away.start()
    patient(there)
    there.delete("s-1")
    assert journals.recover(there) == 0
    assert not there.has("s-1") and files(data) == []


def test_a_full_journal_is_said_once_and_the_call_goes_on(
    there: Store, away: postgres.Server, caplog: pytest.LogCaptureFixture
) -> None:
    there.journal = Journal(journals.folder_of(there.url), limit=1500)
    log = there.open_session(session())
    away.stop()
    for index in range(6):
        with pytest.raises(StoreError) as problem:
            log.add_turn(turn(index))
    assert "6 turns of this call wait in memory" in str(problem.value) and not log.safe
    assert caplog.text.count("is full — raise store.journal_mb") == 1
    away.start()
    patient(there)
    log.flush()
    assert len(says(there)) == 6 and log.safe


class Gone(Exception):
    """The database went away."""


def _die(store: Store) -> None:
    """As `kill -9` would leave the journal: unlocked, with all that was in it."""
    assert store.journal is not None
    if store.journal._file is not None:
        os.close(store.journal._file)
    store.journal = Journal(store.journal.folder, store.journal.limit)


class Unsteady(Store):
    """A store whose next writes fail as told: before they are done, or after (the answer lost)."""

    def __init__(self, *args: object, **more: object) -> None:
        super().__init__(*args, **more)  # type: ignore[arg-type]
        self.fate: list[str] = []

    @contextmanager
    def writing(self, patient: bool = True) -> Iterator[Connection]:
        fate = self.fate.pop(0) if self.fate else "works"
        if fate == "before":
            raise StoreError("gone")
        with super().writing(patient) as connection:
            yield connection
        if fate == "after":
            raise StoreError("gone")


def test_what_was_corrected_meanwhile_is_not_done_again(tmp_path: Path, data: Path) -> None:
    store = Unsteady.open(url_of(tmp_path))
    assert isinstance(store, Unsteady)
    store.journal = Journal(journals.folder_of(store.url), 10**6)
    log = store.open_session(session())
    store.fate = ["after"]
    with pytest.raises(StoreError):
        log.rate(50, "page")
    corrections.rate(store, "s-1", 20, "ada")
    _die(store)
    assert len(files(data)) == 1
    assert journals.recover(store) == 0
    assert store.get("s-1").overall_affect == 20
    store.close()


DEEDS = st.lists(
    st.tuples(
        st.sampled_from(["turn", "again", "windows", "rate", "kill"]),
        st.sampled_from(["works", "works", "before", "after"]),
    ),
    max_size=14,
)


@hypothesis_settings(max_examples=60, deadline=None)
@given(DEEDS)
def test_any_failures_leave_the_rows_of_a_call_without_any(
    tmp_path_factory: pytest.TempPathFactory, deeds: list[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    url = sa.make_url(url_of(folder))
    store = Unsteady.open(str(url))
    assert isinstance(store, Unsteady)
    store.journal = Journal(folder / "journal", 10**6)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(journals, "folder_of", lambda _: folder / "journal")
        log = store.open_session(session())
        turns: dict[int, str] = {}
        n_windows, rating = 0, None
        for deed, fate in deeds:
            store.fate = [fate]
            with suppress(StoreError):
                if deed == "turn":
                    turns[len(turns)] = "first"
                    log.add_turn(turn(len(turns) - 1, text="first"))
                elif deed == "again" and turns:
                    turns[len(turns) - 1] += " more"
                    log.update_turn(turn(len(turns) - 1, text=turns[len(turns) - 1]))
                elif deed == "windows":
                    n_windows += 1
                    log.add_windows([window(n_windows - 1, True)])
                elif deed == "rate":
                    rating = float(len(turns) + n_windows)
                    log.rate(rating, "page")
                elif deed == "kill":
                    log = _killed(store, log)
        store.fate = []
        log = _killed(store, log)
        kept = store.get("s-1")
    assert {t.index: t.text for t in kept.turns} == turns
    assert len(kept.turns) == len(turns) and len(kept.windows) == n_windows
    assert kept.overall_affect == rating
    with store.reading() as connection:
        assert connection.exec_driver_sql("SELECT n_turns FROM sessions").scalar() == len(turns)
    store.close()


def _killed(store: Unsteady, log: SessionLog) -> SessionLog:
    """The process dies, another takes the journal over and goes on with the session."""
    _die(store)
    store.fate = []
    journals.recover(store)
    after = SessionLog(store, log.id, log.consent)
    after.knows(store.get(log.id))
    with store.reading() as connection:
        after._n = connection.exec_driver_sql("SELECT written FROM sessions").scalar_one()
    return after
