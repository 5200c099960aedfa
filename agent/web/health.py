"""`/healthz`: the process answers. `/readyz`: it takes calls, or the one reason why not.

`/readyz?for=pages` leaves out what concerns new calls alone: a worker that is full, or whose store
is away, still answers the pages of running calls and hands new ones on. It is what a load balancer
should ask; were all full workers taken out, no running call could be resumed, ended or rated.
"""

from __future__ import annotations

import json
from typing import Literal

from starlette.types import Receive, Scope, Send

from agent.web.calls import Calls
from agent.web.cluster import Cluster

Reason = Literal["loading", "draining", "store", "full", "overloaded"]
OF_NEW_CALLS = ("store", "full", "overloaded")


class Health:
    """The state of one worker, and ASGI that says it."""

    def __init__(self) -> None:
        self._calls: Calls | None = None
        self._cluster: Cluster | None = None

    def loaded(self, calls: Calls, cluster: Cluster) -> None:
        """The engines are loaded and calls can be made."""
        self._calls, self._cluster = calls, cluster

    @property
    def reason(self) -> Reason | None:
        """Why no call can be made here; None: one can."""
        if self._calls is None or self._cluster is None:
            return "loading"
        if self._calls.draining:
            return "draining"
        if not self._cluster.store_answers:
            return "store"
        if self._calls.overloaded:
            return "overloaded"
        return "full" if self._calls.busy else None

    def ready(self, for_pages: bool = False) -> tuple[int, dict[str, bool | str]]:
        """Status and answer of `/readyz`."""
        reason = self.reason
        if for_pages and reason in OF_NEW_CALLS:
            reason = None
        if reason is None:
            return 200, {"ready": True}
        return 503, {"ready": False, "reason": reason}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for_pages = scope["query_string"] == b"for=pages"
        asked = scope["path"] == "/readyz"
        status, answer = self.ready(for_pages) if asked else (200, {"ok": True})
        body = json.dumps(answer).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        body = b"" if scope["method"] == "HEAD" else body
        await send({"type": "http.response.body", "body": body})
