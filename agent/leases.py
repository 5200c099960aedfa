"""Who serves and still lives: each worker's row, its heartbeat, and what follows when it is silent.

A session's `owner` is its worker's. On one machine a process can be asked whether it runs; on
another, a worker counts as alive while its heartbeat is younger than `owner.LEASE_S`. Heartbeats
are told by the database's clock, so that no two machines need the same time.

A worker that only lost the database goes on with its calls, and what it writes waits. If its lease
ran out meanwhile, others have closed its sessions as crashed. When it is back it takes those that
still run up again (`reclaim`), and what waited completes the others: turns and windows are written
by index, an ending replaces *crashed*, so that nothing is there twice and nothing is lost.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import Connection

from agent.owner import LEASE_S, Owner
from agent.records import EndedHow
from agent.schema import Utc, sessions, workers

if TYPE_CHECKING:
    from agent.store import Store

BEAT_S = 5.0
"""Between two heartbeats."""


@dataclass(slots=True, frozen=True)
class Worker:
    """One serving process, as the store knows it."""

    id: str
    owner: str
    """As in its sessions (`str(Owner)`)."""
    url: str | None
    """Where other workers reach it; None: nowhere."""
    cluster: str | None
    """Names the key it shares with others (`group_of`); None: it serves alone."""
    draining: bool = False
    live: int = 0
    capacity: int = 0
    silent_s: float = 0.0
    """Since its last heartbeat."""

    @classmethod
    def new(cls, capacity: int, url: str | None = None, key: str | None = None) -> Worker:
        """This process, under an id of its own."""
        group = group_of(key) if key is not None else None
        return cls(secrets.token_hex(6), str(Owner.current()), url, group, capacity=capacity)

    @property
    def alive(self) -> bool:
        """Whether it may still serve."""
        runs = Owner.parse(self.owner).runs()
        return self.silent_s < LEASE_S if runs is None else runs

    @property
    def room(self) -> int:
        """How many more calls it takes, by its last word."""
        return 0 if self.draining or not self.alive else self.capacity - self.live


def group_of(key: str) -> str:
    """What is stored of a cluster's key: enough to know one's own kind, too little to speak."""
    return hashlib.sha256(f"geli cluster {key}".encode()).hexdigest()[:16]


def hashed(secret: str) -> str:
    """What is stored of a session's secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def register(store: Store, worker: Worker) -> None:
    """Write a worker's row, again after it was taken for dead.

    Raises:
        StoreError: not now.
    """
    owner = Owner.parse(worker.owner)
    with store.writing() as connection:
        connection.execute(sa.delete(workers).where(workers.c.id == worker.id))
        connection.execute(
            sa.insert(workers).values(
                id=worker.id,
                owner=worker.owner,
                host=owner.host,
                pid=owner.pid,
                url=worker.url,
                cluster=worker.cluster,
                started_at=datetime.now(UTC),
                heartbeat_at=sa.func.now(),
                draining=worker.draining,
                live=worker.live,
                capacity=worker.capacity,
            )
        )


def beat(store: Store, worker_id: str, live: int, draining: bool) -> float | None:
    """A heartbeat; returns the seconds since the one before, None when the row is gone.

    Raises:
        StoreError: not now.
    """
    with store.writing() as connection:
        silent_s = connection.execute(
            sa.select(workers.c.heartbeat_at, NOW).where(workers.c.id == worker_id)
        ).one_or_none()
        if silent_s is None:
            return None
        connection.execute(
            sa.update(workers)
            .where(workers.c.id == worker_id)
            .values(heartbeat_at=sa.func.now(), live=live, draining=draining)
        )
        return _age(silent_s)


def leave(store: Store, worker_id: str) -> None:
    """A worker that ended as it should."""
    with store.writing() as connection:
        connection.execute(sa.delete(workers).where(workers.c.id == worker_id))


def members(store: Store, cluster: str | None = None) -> list[Worker]:
    """All workers, or those that share a key; most room first."""
    with store.reading() as connection:
        query = sa.select(workers, NOW)
        if cluster is not None:
            query = query.where(workers.c.cluster == cluster)
        found = [_worker(row) for row in connection.execute(query)]
    return sorted(found, key=lambda worker: (-worker.room, worker.id))


def find(store: Store, worker_id: str) -> Worker | None:
    """One worker."""
    with store.reading() as connection:
        row = connection.execute(
            sa.select(workers, NOW).where(workers.c.id == worker_id)
        ).one_or_none()
    return _worker(row) if row is not None else None


def forget_dead(store: Store) -> int:
    """Remove the rows of workers that are gone and own no session any more; returns how many."""
    gone = [worker.id for worker in members(store) if not worker.alive]
    if not gone:
        return 0
    owns = sa.exists().where(sessions.c.owner == workers.c.owner)
    with store.writing() as connection:
        done = connection.execute(sa.delete(workers).where(workers.c.id.in_(gone), ~owns))
    return done.rowcount


def reclaim(store: Store, owner: str, ids: Collection[str]) -> Sequence[str]:
    """Take up again running sessions that others closed as crashed; returns which.

    Only sessions without an owner: one that somebody else took over, or that the call ended, stays.
    """
    if not ids:
        return []
    closed = (
        sessions.c.id.in_(list(ids)),
        sessions.c.owner.is_(None),
        sessions.c.ended_how == EndedHow.CRASHED.value,
    )
    with store.reading() as connection:
        if not connection.scalar(sa.select(sa.exists().where(*closed))):
            return []
    with store.writing() as connection:
        found = connection.scalars(sa.select(sessions.c.id).where(*closed)).all()
        connection.execute(
            sa.update(sessions).where(*closed).values(owner=owner, ended_how=None, ended_at=None)
        )
    return found


def silence(connection: Connection) -> dict[str, float]:
    """Seconds since the last heartbeat, by owner, of all who hold a lease."""
    rows = connection.execute(sa.select(workers.c.owner, workers.c.heartbeat_at, NOW))
    return {row.owner: _age(row) for row in rows}


NOW = sa.type_coerce(sa.func.now(), Utc).label("now")


def _age(row: sa.Row[Any]) -> float:
    age_s: float = (row.now - row.heartbeat_at).total_seconds()
    return max(0.0, age_s)


def _worker(row: sa.Row[Any]) -> Worker:
    return Worker(
        row.id, row.owner, row.url, row.cluster, row.draining, row.live, row.capacity, _age(row)
    )
