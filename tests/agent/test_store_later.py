"""Windows and labels wait for a turn or the next round, and are all there afterwards."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from agent.config import Labels
from agent.errors import StoreError
from agent.host import Host
from agent.records import EndedHow
from agent.session_log import SessionLog
from agent.store import Store
from tests import scripted
from tests.agent.session_samples import START, session, turn, window
from tests.agent.stores import ROOT, anew, locked, on_disk, url_of
from tests.agent.web.rig import config, until

pytestmark = pytest.mark.transport

END = START + timedelta(minutes=5)
LABELLED = turn(0, "agent", li=1, li_coverage=1.0, li_windows=[0])


@contextmanager
def commits(store: Store) -> Iterator[list[object]]:
    """One entry a transaction that the store kept."""
    found: list[object] = []

    def note(connection: object) -> None:
        found.append(connection)

    sa.event.listen(store.engine, "commit", note)
    yield found
    sa.event.remove(store.engine, "commit", note)


def calls(store: Store, n: int = 3) -> list[SessionLog]:
    """Sessions with a turn of the agent, each with a window and a label that wait."""
    logs = [store.open_session(session(f"s-{k}")) for k in range(n)]
    for log in logs:
        log.add_turn(turn(0, "agent"))
        log.add_windows([window(0, True)], now=False)
        log.update_turn(LABELLED, now=False)
    return logs


def test_one_transaction_brings_what_waits_of_all_calls(store: Store) -> None:
    logs = calls(store)
    assert [store.get(log.id).windows for log in logs] == [[], [], []]
    with commits(store) as done:
        store.later.flush()
        assert len(done) == 1
        for log in logs:
            assert anew(store, log.id) == session(
                log.id, turns=[LABELLED], windows=[window(0, True)]
            )
        store.later.flush()
        assert len(done) == 1, "there was nothing more"


@pytest.mark.parametrize("by", ["turn", "rating", "end"])
def test_the_next_write_of_its_call_brings_it(store: Store, by: str) -> None:
    log, other, _ = calls(store)
    with commits(store) as done:
        if by == "turn":
            log.add_turn(turn(1))
        elif by == "rating":
            log.rate(50, "page")
        else:
            log.end(EndedHow.HUNG_UP, END)
        assert len(done) == 1
    found = store.get(log.id)
    assert (found.turns[0], found.windows) == (LABELLED, [window(0, True)])
    assert store.get(other.id).windows == []
    store.later.flush()
    assert store.get(other.id).windows == [window(0, True)]


def test_one_that_was_deleted_does_not_hold_up_the_others(store: Store) -> None:
    first, gone, last = calls(store)
    store.delete(gone.id)
    store.later.flush()
    assert gone.deleted and not store.has(gone.id)
    for log in (first, last):
        assert store.get(log.id).windows == [window(0, True)]
        assert not log.deleted and not log.waits


def test_what_is_not_taken_goes_on_waiting(lite: Store) -> None:
    log, other, _ = calls(lite)
    with locked(lite):
        lite.later.flush()
    assert log.waits and lite.get(log.id).windows == []
    log.add_windows([window(1, False)], now=False)
    lite.later.flush()
    assert lite.get(log.id).windows == [window(0, True), window(1, False)]
    with locked(lite), pytest.raises(StoreError):
        other.add_turn(turn(1))
    other.end(EndedHow.HUNG_UP, END)
    assert lite.get(other.id).windows == [window(0, True)]
    assert len(lite.get(other.id).turns) == 2


def test_of_talk_only_nothing_waits(tmp_path: Path) -> None:
    with Store.open(url_of(tmp_path)) as store:
        log = store.open_session(session(consent="talk_only"))
        log.add_turn(turn(0, "agent"))
        secret = window(0, True).model_copy(update={"classifier": "pomegranate-17"})
        log.add_windows([secret], now=False)
        log.update_turn(LABELLED, now=False)
        assert not log.waits
        store.later.flush()
    assert on_disk(tmp_path, "pomegranate-17") == {}


def test_rounds_and_turns_at_once_lose_nothing_and_wait_for_nobody(store: Store) -> None:
    """Who writes a turn holds its log, then wants the store; a round wants both."""
    logs = [store.open_session(session(f"s-{k}")) for k in range(4)]
    over = threading.Event()

    def hold(log: SessionLog) -> None:
        for index in range(12):
            log.add_windows([window(2 * index, True)], now=False)
            log.add_turn(turn(index))
            log.add_windows([window(2 * index + 1, True)], now=False)

    def rounds() -> None:
        while not over.is_set():
            store.later.flush()

    flushing = threading.Thread(target=rounds)
    holding = [threading.Thread(target=hold, args=(log,)) for log in logs]
    for thread in (flushing, *holding):
        thread.start()
    for thread in holding:
        thread.join(60)
    over.set()
    flushing.join(60)
    assert not any(thread.is_alive() for thread in (flushing, *holding))
    store.later.flush()
    for log in logs:
        found = store.get(log.id)
        assert [t.index for t in found.turns] == list(range(12))
        assert [w.index for w in found.windows] == list(range(24))


async def test_a_process_that_holds_calls_writes_by_itself(store: Store) -> None:
    host = Host(config(), store, scripted.engines())
    await host.start()
    try:
        logs = calls(store)
        await until(lambda: all(store.get(log.id).windows for log in logs))
        assert store.get(logs[0].id).turns == [LABELLED]
    finally:
        await host.close()


CHILD = """
import asyncio, sys
from agent.host import Host
from agent.store import Store
from tests import scripted
from tests.agent.session_samples import session, turn, window
from tests.agent.web.rig import config

async def main():
    store = Store.open(sys.argv[1])
    host = Host(config(), store, scripted.engines())
    await host.start()
    log = store.open_session(session())
    log.add_turn(turn(0, "agent"))
    for index in range(1000):
        log.add_windows([window(index, True)], now=False)
        print(index, flush=True)
        await asyncio.sleep(0.1)

asyncio.run(main())
"""


def test_kill_9_costs_a_round_at_most(store: Store, url: str) -> None:
    """Here ten windows a round; in a call there is one. The label comes from what is left."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, url], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            handed_in = int(line)
            kept = len(store.get("s-1").windows)
            if kept > 10:
                break
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    handed_in = max([handed_in, *(int(line) for line in process.stdout if line.endswith("\n"))])
    process.stdout.close()
    assert store.close_crashed(Labels()) == ["s-1"]
    found = store.get("s-1")
    assert [w.index for w in found.windows] == list(range(len(found.windows)))
    assert kept <= len(found.windows) <= handed_in + 1
    assert found.turns[0].li == 1
