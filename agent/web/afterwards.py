"""What can still be done with a call whose worker is gone: look, rate, delete. The store knows it.

The secret's hash lies with the session, so any worker, and the same one after a restart, can tell
who may. Nothing is known here of a *talk only* call: it is over.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import FastAPI, Header, Request

from agent import leases
from agent.errors import StoreError
from agent.host import Host
from agent.owner import Owner
from agent.records import EndedHow
from agent.schema import sessions
from agent.store import Store
from agent.web.access import same
from agent.web.answers import Rating, Refused, answer_errors, read
from agent.web.deletion import remove

OVER = (410, "the call is over", "start a new one")
Secret = Annotated[str | None, Header(alias="X-Session-Secret")]

log_ = logging.getLogger("geli.web")


@dataclass(slots=True, frozen=True)
class Kept:
    """A session of the store, for whoever has its secret."""

    id: str
    ended_how: str
    rated: bool
    held: bool
    """A worker that may be alive still writes it."""
    orphaned: bool
    """Its worker is gone, and nobody has closed it yet."""


def create_afterwards(host: Host) -> FastAPI:
    """The routes, which have the paths of agent/web/server.py's."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    answer_errors(app)

    async def kept(session_id: str, secret: str | None) -> Kept:
        store = host.store
        if store is None:
            raise Refused(*OVER)

        def look() -> Kept:
            found = find(store, session_id, secret or "", host.config.limits.rating_s)
            if found.orphaned:
                store.close_crashed(host.config.labels)
            return found

        return await host.lanes.run("store", look)

    @app.get("/api/sessions/{session_id}")
    async def status(session_id: str, secret: Secret = None) -> dict[str, Any]:
        found = await kept(session_id, secret)
        if found.held:
            raise _unreachable()
        return {
            "state": "ended",
            "ended_how": found.ended_how,
            "can_rate": True,
            "rated": found.rated,
        }

    @app.post("/api/sessions/{session_id}/rating", status_code=204)
    async def rating(session_id: str, request: Request, secret: Secret = None) -> None:
        found = await kept(session_id, secret)
        given = await read(request, Rating)
        store = _store(host)
        await host.lanes.run(
            "store", lambda: store.rate(found.id, given.overall_affect, "page", given.remark)
        )
        log_.info("rated, its worker is gone", extra={"session": found.id})

    @app.delete("/api/sessions/{session_id}", status_code=204)
    async def forget(session_id: str, secret: Secret = None) -> None:
        found = await kept(session_id, secret)
        if found.held:
            raise _unreachable()
        store = _store(host)
        await host.lanes.run("store", lambda: remove(store, found.id))
        log_.info("call deleted, its worker is gone", extra={"session": found.id})

    @app.api_route("/{path:path}", methods=["GET", "POST", "DELETE"])
    async def over(path: str) -> None:
        raise Refused(*OVER)

    return app


def find(store: Store, session_id: str, secret: str, rating_s: float) -> Kept:
    """The session of that id, if the secret is its own and its page may still act on it.

    Raises:
        Refused: 410, nothing is known of it or its time is over; 403, another secret.
        StoreError: the store does not answer.
    """
    c = sessions.c
    columns = (c.id, c.secret, c.owner, c.started_at, c.ended_at, c.ended_how, c.overall_affect)
    with store.reading() as connection:
        row = connection.execute(sa.select(*columns).where(c.id == session_id)).one_or_none()
        silent_s = leases.silence(connection) if row is not None and row.owner else {}
    if row is None or row.secret is None:
        raise Refused(*OVER)
    if not same(leases.hashed(secret), row.secret):
        raise Refused(403, "the call's secret is wrong", "only the page that began it may act")
    now = datetime.now(UTC)
    if now - (row.ended_at or row.started_at) > timedelta(seconds=rating_s):
        raise Refused(*OVER)
    held = row.owner is not None and Owner.parse(row.owner).is_alive(
        row.started_at, now, silent_s.get(row.owner)
    )
    how = row.ended_how or EndedHow.CRASHED.value
    orphaned = row.owner is not None and not held
    return Kept(row.id, how, row.overall_affect is not None, held, orphaned)


def _store(host: Host) -> Store:
    if host.store is None:
        raise StoreError("there is no store")
    return host.store


def _unreachable() -> Refused:
    return Refused(
        503, "the worker that holds this call cannot be reached", "try again in a moment", 10
    )
