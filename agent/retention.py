"""How long sessions are kept, and how they go: overwritten, and named where they were learned from.

    due(store, config.retention)       what the rule says should go
    remove(store, ids)                 gone from the database's files

Deleting overwrites the rows (SQLite `secure_delete`), rewrites the file without them (`VACUUM`) and
empties the log beside it. A reward or policy that was trained on a deleted session is marked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from agent import policies
from agent.config import Retention
from agent.errors import GeliError, StoreError
from agent.store import Filter, Store
from agent.store_engine import data_dir


@dataclass(slots=True, frozen=True)
class Due:
    """A session that has been kept long enough."""

    id: str
    consent: str
    started_at: datetime
    days: float
    """Since it started."""
    limit: float
    """What its class may be kept, days."""


@dataclass(slots=True)
class Removed:
    """What a removal did."""

    ids: list[str] = field(default_factory=list)
    turns: int = 0
    windows: int = 0
    trained: list[str] = field(default_factory=list)
    """Rewards and policies that learned from one of them."""
    unmarked: dict[str, str] = field(default_factory=dict)
    """Sessions whose deletion could not be noted in the registry, and why."""
    left_over: str = ""
    """Why SQLite's files may still hold the text; empty when they do not."""


def due(store: Store, rule: Retention, now: datetime | None = None) -> list[Due]:
    """Ended sessions older than their class may be kept, oldest first."""
    now = now or datetime.now(UTC)
    found = []
    for consent, days in rule.days.items():
        if days is None:
            continue
        only = Filter(consent=[consent], live=False, until=now - timedelta(days=days))
        for one in store.list(only, limit=None):
            age = (now - one.started_at) / timedelta(days=1)
            found.append(Due(one.id, one.consent, one.started_at, age, days))
    return sorted(found, key=lambda one: (one.started_at, one.id))


def of_person(store: Store, person: str) -> Sequence[str]:
    """Ids of all sessions of a person (`records.person_of` of their token), newest first."""
    return store.ids(Filter(person=person))


def remove(
    store: Store,
    ids: Sequence[str],
    on_progress: Callable[[int, int], object] = lambda done, of: None,
) -> Removed:
    """Delete sessions for good. A session that is gone already is passed over.

    Args:
        store: where they lie.
        ids: which; with none it finishes what an earlier removal left over.
        on_progress: called with how many are done, of how many.

    Raises:
        StoreError: the store cannot be written; what was deleted before stays deleted, and the
            next removal clears it from the files.
    """
    done = Removed()
    registry = policies.registry_of(data_dir())
    ids = list(dict.fromkeys(ids))
    for n, session_id in enumerate(ids):
        on_progress(n, len(ids))
        if not store.has(session_id):
            continue
        # Marked first: a deletion that fails half-way is made again, a mark would be forgotten.
        try:
            done.trained += policies.mark_deleted(registry, session_id)
        except GeliError as error:
            done.unmarked[session_id] = str(error)
        try:
            gone = store.delete(session_id, purge=False)
        except StoreError:
            if store.has(session_id):
                raise
            continue  # somebody else was quicker
        done.ids.append(session_id)
        done.turns += gone.turns
        done.windows += gone.windows
    done.trained = list(dict.fromkeys(done.trained))
    try:
        store.compact()
    except StoreError as error:
        done.left_over = str(error)
    on_progress(len(ids), len(ids))
    return done
