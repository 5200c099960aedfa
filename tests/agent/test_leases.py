"""Workers in the store: who is alive, whose sessions are closed, and what a late one gets back."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest
import sqlalchemy as sa

from agent import leases
from agent.config import Labels
from agent.leases import Worker
from agent.owner import LEASE_S, Owner
from agent.records import EndedHow
from agent.schema import workers
from agent.store import Store
from tests.agent.session_samples import START, session, turn

pytestmark = pytest.mark.unit

KEY = "a key that is shared by these workers alone"
ELSEWHERE = str(Owner("another-machine/its-boot", 7, "99"))
END = START + timedelta(seconds=80)


def elsewhere(capacity: int = 4) -> Worker:
    """A worker of another machine."""
    made = Worker.new(capacity, "http://192.0.2.7:7861", KEY)
    return dataclasses.replace(made, owner=ELSEWHERE)


def silence(store: Store, worker: Worker, seconds: float) -> None:
    """Let a worker's last heartbeat be that long ago."""
    with store.writing() as connection:
        now = connection.scalar(sa.select(leases.NOW))
        assert now is not None
        connection.execute(
            sa.update(workers)
            .where(workers.c.id == worker.id)
            .values(heartbeat_at=now - timedelta(seconds=seconds))
        )


def test_a_worker_comes_beats_and_leaves(store: Store) -> None:
    me = Worker.new(3, "http://127.0.0.1:7861", KEY)
    leases.register(store, me)
    leases.register(store, me)  # again, after it was taken for dead
    silence(store, me, 20)
    assert leases.beat(store, me.id, 2, False) == pytest.approx(20, abs=2)
    (found,) = leases.members(store, me.cluster)
    assert (found.id, found.owner, found.url) == (me.id, me.owner, me.url)
    assert (found.live, found.capacity, found.room, found.alive) == (2, 3, 1, True)
    assert found.silent_s < 5
    leases.beat(store, me.id, 2, True)
    drained = leases.find(store, me.id)
    assert drained is not None
    assert drained.room == 0
    assert leases.members(store, leases.group_of("another key")) == []
    leases.leave(store, me.id)
    assert leases.find(store, me.id) is None
    assert leases.beat(store, me.id, 0, False) is None


def test_those_with_most_room_come_first(store: Store) -> None:
    for capacity in (1, 5, 3):
        leases.register(store, Worker.new(capacity, None, KEY))
    assert [w.capacity for w in leases.members(store)] == [5, 3, 1]


def test_the_key_is_not_in_the_store(store: Store) -> None:
    me = Worker.new(3, None, KEY)
    leases.register(store, me)
    with store.reading() as connection:
        row = connection.execute(sa.select(workers)).one()
    assert KEY not in str(tuple(row))
    assert len(row.cluster) == 16


def test_a_silent_worker_elsewhere_has_its_sessions_closed(store: Store) -> None:
    worker = elsewhere()
    leases.register(store, worker)
    store.open_session(session("its"), Owner.parse(ELSEWHERE))
    silence(store, worker, LEASE_S - 10)
    assert store.close_crashed(Labels()) == []
    silence(store, worker, LEASE_S + 1)
    assert store.close_crashed(Labels()) == ["its"]
    assert store.get("its").ended_how is EndedHow.CRASHED
    assert leases.forget_dead(store) == 1
    assert leases.members(store) == []


def test_a_worker_of_this_machine_is_asked_not_timed(store: Store) -> None:
    """It may only have lost the database: while its process runs, its sessions are its own."""
    me = Worker.new(4)
    leases.register(store, me)
    store.open_session(session("mine"))
    silence(store, me, 10 * LEASE_S)
    assert store.close_crashed(Labels()) == []
    assert leases.forget_dead(store) == 0
    dead = dataclasses.replace(
        Worker.new(4), owner=str(dataclasses.replace(Owner.current(), started="1"))
    )
    leases.register(store, dead)
    store.open_session(session("orphan"), Owner.parse(dead.owner))
    assert leases.forget_dead(store) == 0  # it is named until its sessions are closed
    assert store.close_crashed(Labels()) == ["orphan"]
    assert leases.forget_dead(store) == 1


def test_a_worker_that_comes_back_takes_its_running_call_up(store: Store) -> None:
    """It lost the database for longer than its lease; the call went on meanwhile."""
    worker = elsewhere()
    leases.register(store, worker)
    log = store.open_session(session("runs"), Owner.parse(ELSEWHERE))
    log.add_turn(turn(0, "agent"))
    silence(store, worker, LEASE_S + 1)
    assert store.close_crashed(Labels()) == ["runs"]
    leases.forget_dead(store)
    assert leases.beat(store, worker.id, 1, False) is None  # so it registers anew, and …
    leases.register(store, worker)
    assert leases.reclaim(store, worker.owner, ["runs", "never"]) == ["runs"]
    assert leases.reclaim(store, worker.owner, ["runs"]) == []
    found = store.get("runs")
    assert (found.ended_how, found.ended_at) == (None, None)
    assert store.close_crashed(Labels()) == []
    log.add_turn(turn(1))
    log.end(EndedHow.HUNG_UP, END)
    found = store.get("runs")
    assert [t.index for t in found.turns] == [0, 1]
    assert (found.ended_how, found.ended_at) == (EndedHow.HUNG_UP, END)
    # What ended as it should is nobody's to take up.
    assert leases.reclaim(store, worker.owner, ["runs"]) == []


def test_what_was_written_late_completes_a_closed_session(store: Store) -> None:
    """The call ended while the database was away; others closed it before the log could."""
    worker = elsewhere()
    leases.register(store, worker)
    log = store.open_session(session("late"), Owner.parse(ELSEWHERE))
    log.add_turn(turn(0, "agent"))
    silence(store, worker, LEASE_S + 1)
    assert store.close_crashed(Labels()) == ["late"]
    log.add_turn(turn(1))
    log.update_turn(turn(0, "agent", li=1))
    log.end(EndedHow.HUNG_UP, END)
    found = store.get("late")
    assert found.turns == [turn(0, "agent", li=1), turn(1)]
    assert (found.ended_how, found.ended_at) == (EndedHow.HUNG_UP, END)


def test_containers_of_one_machine_are_not_asked_for_each_others_processes() -> None:
    """Their host names and boots may be the same (host networking); their numbers are not."""
    me = Owner.current()
    name, boot = me.host.split("/")[:2]
    assert Owner(f"{name}/{boot}/4026530000", me.pid, me.started).runs() is None
    assert Owner(f"{name}/an earlier boot", me.pid, me.started).runs() is False
    assert me.runs() is True
