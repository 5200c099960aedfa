"""ASGI: a request for a call that lives elsewhere goes there; a call that finds no room here, too.

A session's secret begins with the id of its worker. What that worker may still answer is forwarded
to it, one hop; when it is gone, agent/web/afterwards.py says what can still be done.
"""

from __future__ import annotations

import json
import random
import re
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from agent.errors import StoreError
from agent.leases import Worker
from agent.web.calls import RETRY_AFTER_S, Calls
from agent.web.cluster import SECRET, Cluster, Unreachable
from agent.web.security import refuse, replay

SESSION = re.compile(r"/api/sessions/(?P<id>[A-Za-z0-9_-]{1,64})(?P<verb>/[a-z]+)?", re.ASCII)
SECRET_OF = re.compile(r"(?P<worker>[0-9a-f]{12})\.[A-Za-z0-9_-]{1,100}", re.ASCII)
OFFER = "/api/offer"
STORED = (("GET", None), ("POST", "/rating"))
"""What the store alone can do while a worker does not answer."""
ASKED_FREE = 3
ASKED_FULL = 2
"""How many workers are asked to take a call before the caller is told that all are full."""


class Elsewhere:
    """Middleware between the guard and the routes.

    Args:
        app: the routes of this worker.
        calls: its calls.
        cluster: the others.
        afterwards: the routes for calls whose worker is gone.
    """

    def __init__(self, app: ASGIApp, calls: Calls, cluster: Cluster, afterwards: ASGIApp) -> None:
        self._app = app
        self._calls = calls
        self._cluster = cluster
        self._afterwards = afterwards

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path, method = scope["path"], scope["method"]
        found = SESSION.fullmatch(path)
        if found is None and (path, method) != (OFFER, "POST"):
            await self._app(scope, receive, send)
            return
        body = await _whole(receive) if method == "POST" else b""
        receive = replay(body, receive)
        if found is not None:
            secret = Headers(scope=scope).get(SECRET, "")
            if found["verb"] == "/away":
                secret = _text(_json(body), "secret")
            await self._follow_up(found["id"], secret, body, scope, receive, send)
            return
        offer = _json(body)
        resume = offer.get("resume")
        if isinstance(resume, dict):
            of, secret = _text(resume, "session_id"), _text(resume, "secret")
            await self._follow_up(of, secret, body, scope, receive, send)
        elif self._takes_calls or not await self._taken_in(scope, body, send):
            await self._app(scope, receive, send)

    async def _follow_up(
        self, session_id: str, secret: str, body: bytes, scope: Scope, receive: Receive, send: Send
    ) -> None:
        named = SECRET_OF.fullmatch(secret)
        if named is None or self._calls.knows(session_id):
            await self._app(scope, receive, send)
            return
        try:
            worker = await self._find(named["worker"])
        except StoreError:
            await refuse(send, *UNREACHABLE, RETRY_AFTER_S)
            return
        if worker is None:
            await self._afterwards(scope, receive, send)
            return
        try:
            await self._cluster.forward(worker, scope, body, send)
        except Unreachable:
            # It may have died just now, or only the way to it is broken: its call may go on.
            verb = scope["path"].removeprefix(f"/api/sessions/{session_id}") or None
            stored = (scope["method"], verb) in STORED
            if stored or not worker.alive:
                await self._afterwards(scope, receive, send)
            else:
                await refuse(send, *UNREACHABLE, RETRY_AFTER_S)

    @property
    def _takes_calls(self) -> bool:
        return self._cluster.store_answers and not self._calls.busy

    async def _find(self, worker_id: str) -> Worker | None:
        return None if worker_id == self._cluster.me.id else await self._cluster.find(worker_id)

    async def _taken_in(self, scope: Scope, body: bytes, send: Send) -> bool:
        """Let the first worker that has room answer an offer, or say that none has; False: there
        is no other to ask."""
        asked = worth_asking(await self._cluster.look_around())
        for worker in asked:
            try:
                if await self._cluster.forward(worker, scope, body, send, unless=503):
                    return True
            except Unreachable:
                continue
        if asked:
            await refuse(send, *FULL, RETRY_AFTER_S)
        return bool(asked)


def worth_asking(others: list[Worker]) -> list[Worker]:
    """Who may take a call, the likeliest first: some that had room when they last said so, and
    some that had none, since a call may have ended in the seconds since."""
    taking = [worker for worker in others if not worker.draining]
    free = [worker for worker in taking if worker.room > 0]
    full = [worker for worker in taking if worker.room <= 0]
    return free[:ASKED_FREE] + random.sample(full, min(ASKED_FULL, len(full)))


FULL = (503, "all calls are taken", "try again in a few minutes")
UNREACHABLE = (503, "the worker that holds this call cannot be reached", "try again in a moment")


async def _whole(receive: Receive) -> bytes:
    """The body, which the guard has read and measured."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def _json(body: bytes) -> dict[str, Any]:
    """The body when it is an object; else nothing, and the routes say what is wrong with it."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(data: dict[str, Any], key: str) -> str:
    value = data.get(key)
    return value if isinstance(value, str) else ""
