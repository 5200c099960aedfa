"""A person deletes a call from its page: the rows go, and what learned from it is marked."""

from __future__ import annotations

import logging

from agent import policies
from agent.errors import GeliError
from agent.store import Store
from agent.store_engine import data_dir

log_ = logging.getLogger("geli.web")


def remove(store: Store, session_id: str, *, learned: bool = True) -> None:
    """Delete a session; it is deleted whether or not what learned from it can be marked.

    Args:
        store: where it lies.
        session_id: which.
        learned: False where nothing can have learned from it.

    Raises:
        StoreError: the store cannot be written.
    """
    if learned:
        try:
            policies.mark_deleted(policies.registry_of(data_dir()), session_id)
        except GeliError as error:
            log_.warning("not marked as deleted: %s", error, extra={"session": session_id})
    if store.has(session_id):
        store.delete(session_id)
