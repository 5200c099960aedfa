"""Who may ask the server for what, decided before any route sees the request (pure ASGI).

In this order: the Host header (against DNS rebinding, on loopback), encryption (elsewhere), the
access token, the origin of what changes state, the size of the body. Every answer carries the
headers below.

Origin. Browsers send `Origin` with every POST and DELETE, so a foreign page is always recognised.
Two cases have none, or `null`: programs that are no browser, which no foreign page can steer and
which carry no cookie of ours, are let through; and `sendBeacon` under `Referrer-Policy:
no-referrer` (Fetch standard, "append a request Origin header"), which is let through only where
the browser vouches for it with `Sec-Fetch-Site: same-origin`, a header no page can forge.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent.config import Config, is_loopback
from agent.errors import StoreError
from agent.web.access import Access, Guessing

log_ = logging.getLogger("geli.web")

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self), microphone=(self), autoplay=(self)",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
BODY_S = 10.0
"""A body that takes longer is refused."""
DRAIN_BYTES = 32 * 1024 * 1024
"""Read and thrown away of a body that is too large, so that the client gets to read why."""
READS = frozenset({"GET", "HEAD", "OPTIONS"})
HEALTH = ("/healthz", "/readyz")

Refusal = tuple[int, str, str] | tuple[int, str, str, float]
"""Status, what is wrong, the way out; and the seconds after which to try again."""


class Guard:
    """ASGI middleware: refuses what must not reach the routes.

    Args:
        app: the routes.
        config: `server` and `limits` are read.
        access: who may enter.
    """

    def __init__(self, app: ASGIApp, config: Config, access: Access) -> None:
        self._app = app
        self._access = access
        self._max_bytes = config.limits.body_bytes
        self._origins = {origin.rstrip("/").lower() for origin in config.server.allowed_origins}
        self._local = is_loopback(config.server.host)
        self._hosts = {urlsplit(origin).hostname for origin in self._origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def hardened(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        headers = Headers(scope=scope)
        refusal = self._unsafe(scope, headers) or await self._stranger(scope, headers)
        if refusal is None and not self._may_change(scope, headers):
            refusal = 403, "this origin may not use the server", "add it to server.allowed_origins"
        if refusal is None and scope["method"] not in READS:
            body = await self._body(headers, receive)
            if isinstance(body, bytes):
                receive = replay(body, receive)
            else:
                refusal = body
        if refusal is None:
            await self._app(scope, receive, hardened)
            return
        status, error = refusal[:2]
        log_.info("refused: %s %.80r: %d, %s", scope["method"], scope["path"], status, error)
        await refuse(hardened, *refusal)

    def _unsafe(self, scope: Scope, headers: Headers) -> Refusal | None:
        if scope["path"] in HEALTH and scope["method"] in READS:
            return None  # asked by address, by whoever watches over this server
        if self._local and not self._knows_host(headers.get("host", "")):
            return 421, "this server does not answer to that host name", "open it as 127.0.0.1"
        if not self._local and scope["scheme"] != "https":
            return 403, "this server is reached over TLS only", "go through its load balancer"
        return None

    async def _stranger(self, scope: Scope, headers: Headers) -> Refusal | None:
        """Notes in `scope["state"]` whose request it is; refuses whoever may not enter."""
        if is_public(scope["method"], scope["path"]):
            return None
        try:
            visitor = await self._access.visitor(headers, address_of(scope))
        except Guessing as error:
            return guessing(error)
        except StoreError as error:
            log_.error("%s", error)
            return 503, "the session store does not answer", "try again in a minute", 10.0
        if visitor is None:
            return 401, "an access token is needed", "open the page with ?token=…"
        scope.setdefault("state", {})["person"] = visitor.person
        return None

    def _may_change(self, scope: Scope, headers: Headers) -> bool:
        return scope["method"] in READS or self._own_origin(scope, headers)

    def _knows_host(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:
            return False
        return name is not None and (is_loopback(name) or name in self._hosts)

    def _own_origin(self, scope: Scope, headers: Headers) -> bool:
        origin = headers.get("origin")
        site = headers.get("sec-fetch-site")
        if origin is None:
            return site in (None, "same-origin", "none")
        if origin == "null":
            return site == "same-origin"
        own = f"{scope['scheme']}://{headers.get('host', '')}"
        return origin.lower() in self._origins | {own.lower()}

    async def _body(self, headers: Headers, receive: Receive) -> bytes | tuple[int, str, str]:
        """The body, or why it is refused; never more than the limit in memory."""
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(BODY_S):
                more = True
                while more and size <= DRAIN_BYTES:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return 400, "the request broke off", ""
                    part = message.get("body", b"")
                    size += len(part)
                    if size <= self._max_bytes:
                        parts.append(part)
                    else:
                        parts.clear()
                    more = message.get("more_body", False)
        except TimeoutError:
            return 408, "the request's body took too long", "check the connection and try again"
        if size > self._max_bytes:
            return 413, f"the request is larger than {self._max_bytes} bytes", ""
        return b"".join(parts)


def is_public(method: str, path: str) -> bool:
    """What answers without the token: the page itself, its files, and entering the token."""
    if method in READS:
        return path == "/" or path in HEALTH or path.startswith("/static/")
    return (method, path) == ("POST", "/api/token")


def address_of(scope: Scope) -> str:
    """Where a request came from; behind a trusted proxy, what that says."""
    client = scope.get("client")
    return client[0] if client else ""


def guessing(error: Guessing) -> Refusal:
    """What somebody is told who tries one token after the other."""
    return 429, "too many wrong tokens", "wait a minute", error.wait_s


async def refuse(
    send: Send, status: int, error: str, way_out: str, retry_after_s: float | None = None
) -> None:
    """One refusal as JSON; the connection is closed, since its body may not have been read."""
    body = json.dumps({"error": error, "way_out": way_out}, ensure_ascii=False).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    if retry_after_s is not None:
        headers.append((b"retry-after", str(math.ceil(retry_after_s)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def replay(body: bytes, receive: Receive) -> Receive:
    """A body that was read already, for whoever reads it next."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()  # a disconnect
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
