"""The workers of one cluster: heartbeats, who is there, and one hop to another worker.

Workers know each other from the store (agent/leases.py) and speak over listeners of their own,
loopback ports on one machine. Each request between them is signed with the cluster's key, over
everything that the other side acts on; a signature holds for `SIGNED_S` and is taken once. The
bodies are not encrypted: between machines this is for a network that is private.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import httpx
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from agent import leases
from agent.errors import StoreError
from agent.host import Host
from agent.leases import BEAT_S, Worker
from agent.owner import LEASE_S
from agent.tasks import Tasks
from agent.web.security import HEALTH, READS, refuse, replay

if TYPE_CHECKING:
    from agent.web.calls import Calls

SIGNATURE = "x-geli-signature"
PERSON = "x-geli-person"
TRACE = "traceparent"
SECRET = "x-session-secret"  # noqa: S105 (a header's name)
SIGNED_S = 30.0
"""How far the clocks of two machines may be apart."""
LOOK_S = 0.5
"""Between two looks at who else there is, for callers that find no room here."""
CONNECT_S = 2.0
ANSWER_S = 14.0
"""The page waits 15 s for an answer."""
CLEAN_BEATS = 3
"""Every so many heartbeats: look for sessions whose worker is gone."""

log_ = logging.getLogger("geli.cluster")


class Unreachable(Exception):
    """A worker did not answer."""


class Cluster:
    """This worker among the others. Methods are for the event loop's thread.

    Args:
        host: its store and configuration.
        me: this worker.
        key: shared by the cluster; None: this worker serves alone.
    """

    def __init__(self, host: Host, me: Worker, key: str | None = None) -> None:
        self._host = host
        self._key = key
        self._calls: Calls | None = None
        self._members: list[Worker] = []
        self._looked_at = -LOOK_S
        self._tasks = Tasks(lambda error: log_.error("a heartbeat failed", exc_info=error))
        self._http: httpx.AsyncClient | None = None
        self._beaten = asyncio.Event()
        self.me = me
        self.store_answers = True
        """Whether the last heartbeat reached the store."""

    async def start(self, calls: Calls) -> None:
        """Say that this worker serves, and go on saying so.

        Raises:
            StoreError: the store cannot be written.
        """
        self._calls = calls
        limits = httpx.Limits(max_connections=100, max_keepalive_connections=20)
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S), limits=limits, trust_env=False
        )
        if (store := self._host.store) is not None:
            await asyncio.to_thread(leases.register, store, self.me)
            await self._beat()
            self._tasks.spawn(self._keep_beating())

    async def close(self) -> None:
        """Leave the others."""
        await self._tasks.cancel()
        if self._http is not None:
            await self._http.aclose()
        if (store := self._host.store) is not None:
            try:
                await asyncio.to_thread(leases.leave, store, self.me.id)
            except StoreError as error:
                log_.warning("this worker's row stays until it is found dead: %s", error)

    @property
    def others(self) -> list[Worker]:
        """The other workers as of the last heartbeat, most room first."""
        return [worker for worker in self._members if worker.id != self.me.id and worker.alive]

    @property
    def has_room(self) -> bool:
        """Whether some other worker takes a call."""
        return any(worker.room > 0 for worker in self.others)

    async def look_around(self) -> list[Worker]:
        """The other workers as of now: one may have come or drained since the last heartbeat."""
        now = asyncio.get_running_loop().time()
        store = self._host.store
        if self._key is not None and store is not None and now - self._looked_at > LOOK_S:
            self._looked_at = now
            try:
                self._members = await asyncio.to_thread(leases.members, store, self.me.cluster)
            except StoreError as error:
                log_.warning("other workers as of the last heartbeat: %s", error)
        return self.others

    async def find(self, worker_id: str) -> Worker | None:
        """The worker of that id that may still serve and can be spoken with; None: it is gone.

        Raises:
            StoreError: not known from before, and the store does not answer.
        """
        found = next((worker for worker in self._members if worker.id == worker_id), None)
        if found is None and self._key is not None and (store := self._host.store) is not None:
            found = await asyncio.to_thread(leases.find, store, worker_id)
        if found is None or found.cluster != self.me.cluster or found.url is None:
            return None
        return found if found.alive else None

    async def say_now(self) -> None:
        """A heartbeat at once: something changed that the others should know (draining)."""
        if self._host.store is not None:
            await self._beat()

    # --- heartbeats ---------------------------------------------------------------------------

    async def _keep_beating(self) -> None:
        beats = 0
        while True:
            await asyncio.sleep(BEAT_S)
            await self._beat()
            beats += 1
            if beats % CLEAN_BEATS == 0 and self.store_answers:
                await self._clean()

    async def _beat(self) -> None:
        store, calls = self._host.store, self._calls
        if store is None or calls is None:
            return
        live, draining = calls.live, calls.draining
        self.me = dataclasses.replace(self.me, live=live, draining=draining)
        try:
            silent_s = await asyncio.to_thread(leases.beat, store, self.me.id, live, draining)
            if silent_s is None:
                await asyncio.to_thread(leases.register, store, self.me)
            if silent_s is None or silent_s >= LEASE_S:
                await self._reclaim(calls)
            if self._key is not None:
                self._members = await asyncio.to_thread(leases.members, store, self.me.cluster)
        except StoreError as error:
            if self.store_answers:
                log_.error("no heartbeat: %s", error)
            self.store_answers = False
        else:
            if not self.store_answers:
                log_.info("the store answers again")
            self.store_answers = True

    async def _reclaim(self, calls: Calls) -> None:
        """Others took this worker for dead: what still runs is its own again."""
        store, owner = self._host.store, self.me.owner
        if store is None:
            return
        # On the logs' lane, and the ids looked at there: no call ends in between.
        taken = await self._host.lanes.run(
            "store", lambda: leases.reclaim(store, owner, calls.kept)
        )
        for session_id in taken:
            log_.warning("taken up again, it was closed as crashed", extra={"session": session_id})

    async def _clean(self) -> None:
        store, labels = self._host.store, self._host.config.labels
        if store is None or self._calls is None:
            return
        try:
            # Somebody may have begun to close ours just before a late heartbeat.
            await self._reclaim(self._calls)
            closed = await asyncio.to_thread(store.close_crashed, labels)
            await asyncio.to_thread(leases.forget_dead, store)
        except StoreError as error:
            log_.warning("sessions of dead workers stay open for now: %s", error)
            return
        for session_id in closed:
            log_.warning("closed as crashed, its worker is gone", extra={"session": session_id})

    # --- one hop ------------------------------------------------------------------------------

    async def forward(
        self, worker: Worker, scope: Scope, body: bytes, send: Send, *, unless: int = 0
    ) -> bool:
        """Let another worker answer a request; its answer goes out as it is.

        Args:
            worker: which.
            scope: of the request.
            body: of the request.
            send: where the answer goes.
            unless: an answer of this status is not sent on.

        Returns:
            Whether an answer was sent.

        Raises:
            Unreachable: it did not answer.
        """
        if self._http is None or self._key is None or worker.url is None:
            raise Unreachable
        # Whose request it is was found out here; a header of the same name proves nothing.
        person = scope.get("state", {}).get("person") or ""
        headers = _acted_on(Headers(scope=scope), person)
        headers[SIGNATURE] = sign(self._key, scope["method"], scope["path"], headers, body)
        try:
            answer = await self._http.request(
                scope["method"], worker.url + scope["path"], content=body, headers=headers
            )
        except httpx.HTTPError as error:
            log_.warning("worker %s does not answer: %s", worker.id, type(error).__name__)
            raise Unreachable from error
        if answer.status_code == unless:
            return False
        kept = ("content-type", "content-length", "retry-after")
        out = [(k.encode(), v.encode()) for k, v in answer.headers.items() if k in kept]
        await send({"type": "http.response.start", "status": answer.status_code, "headers": out})
        await send({"type": "http.response.body", "body": answer.content})
        return True


class Inside:
    """ASGI: what other workers may ask of this one. `/healthz` and `/readyz` answer to anybody.

    Args:
        health: answers `HEALTH`, also before there are any routes.
        key: the cluster's.
        max_bytes: longest body.
        clock: unix time; tests own it.
    """

    def __init__(
        self, health: ASGIApp, key: str, max_bytes: int, clock: Callable[[], float] = time.time
    ) -> None:
        self.app: ASGIApp | None = None
        """Set once the engines are loaded."""
        self._health = health
        self._key = key
        self._max_bytes = max_bytes
        self._clock = clock
        self._seen: dict[str, float] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] in HEALTH and scope["method"] in READS:
            await self._health(scope, receive, send)
            return
        body, more = b"", True
        while more and len(body) <= self._max_bytes:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = Headers(scope=scope)
        if len(body) > self._max_bytes or not self._genuine(scope, headers, body):
            log_.warning("refused: a request that no worker of this cluster signed")
            await refuse(send, 403, "only workers of this cluster may ask", "check cluster_key")
            return
        if self.app is None:
            await refuse(send, 503, "this worker is still loading", "try again in a minute", 10)
            return
        scope.setdefault("state", {})["person"] = headers.get(PERSON) or None
        await self.app(scope, replay(body, receive), send)

    def _genuine(self, scope: Scope, headers: Headers, body: bytes) -> bool:
        given = headers.get(SIGNATURE, "")
        at, _, rest = given.partition(".")
        now = self._clock()
        if not (at.isdecimal() and len(at) < 16 and abs(now - int(at)) <= SIGNED_S):
            return False
        nonce = rest.partition(".")[0]
        acted_on = _acted_on(headers, headers.get(PERSON, ""))
        right = _signature(self._key, at, nonce, scope["method"], scope["path"], acted_on, body)
        if not hmac.compare_digest(given.encode(), right.encode()):
            return False
        self._seen = {n: until for n, until in self._seen.items() if until > now}
        if nonce in self._seen:
            return False
        self._seen[nonce] = int(at) + SIGNED_S + 1
        return True


def sign(key: str, method: str, path: str, headers: Mapping[str, str], body: bytes) -> str:
    """`<unix time>.<nonce>.<HMAC-SHA256>` of a request between workers."""
    at, nonce = str(int(time.time())), secrets.token_hex(16)
    return _signature(key, at, nonce, method, path, headers, body)


def _signature(
    key: str, at: str, nonce: str, method: str, path: str, headers: Mapping[str, str], body: bytes
) -> str:
    digest = hashlib.sha256(body).hexdigest()
    signed = "\n".join((at, nonce, method, path, headers[SECRET], headers[PERSON], digest))
    mac = hmac.new(key.encode(), signed.encode(), hashlib.sha256).hexdigest()
    return f"{at}.{nonce}.{mac}"


def _acted_on(headers: Headers, person: str) -> dict[str, str]:
    """The headers that the other side acts on."""
    return {
        "content-type": "application/json",
        SECRET: headers.get(SECRET, ""),
        PERSON: person,
        TRACE: headers.get(TRACE, ""),
    }
