"""Who may ask the server for what, decided before any route sees the request (pure ASGI).

In this order: the Host header (against DNS rebinding, on loopback), the access token, the origin
of what changes state, the size of the body. Every answer carries the headers below.

Origin. Browsers send `Origin` with every POST and DELETE, so a foreign page is always recognised.
Two cases have none, or `null`: programs that are no browser, which no foreign page can steer and
which carry no cookie of ours, are let through; and `sendBeacon` under `Referrer-Policy:
no-referrer` (Fetch standard, "append a request Origin header"), which is let through only where
the browser vouches for it with `Sec-Fetch-Site: same-origin`, a header no page can forge.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent.config import Config, is_loopback

log_ = logging.getLogger("geli.web")

COOKIE = "geli_token"
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


class Guard:
    """ASGI middleware: refuses what must not reach the routes.

    Args:
        app: the routes.
        config: `server` and `limits` are read.
    """

    def __init__(self, app: ASGIApp, config: Config) -> None:
        self._app = app
        self._token = config.server.access_token
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
        refusal = self._refusal(scope, headers)
        if refusal is None and scope["method"] not in READS:
            body = await self._body(headers, receive)
            if isinstance(body, bytes):
                receive = _replay(body, receive)
            else:
                refusal = body
        if refusal is None:
            await self._app(scope, receive, hardened)
            return
        status, error, _ = refusal
        log_.info("refused: %s %.80r: %d, %s", scope["method"], scope["path"], status, error)
        await refuse(hardened, *refusal)

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str, str] | None:
        if self._local and not self._knows_host(headers.get("host", "")):
            return 421, "this server does not answer to that host name", "open it as 127.0.0.1"
        if self._token and not is_public(scope["method"], scope["path"]):
            if not _carries(headers, self._token):
                return 401, "an access token is needed", "open the page with ?token=…"
        if scope["method"] not in READS and not self._own_origin(scope, headers):
            return 403, "this origin may not use the server", "add it to server.allowed_origins"
        return None

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
        return path in ("/", "/healthz") or path.startswith("/static/")
    return (method, path) == ("POST", "/api/token")


def _carries(headers: Headers, token: str) -> bool:
    """Whether a request carries the token: as `Authorization: Bearer`, or in our cookie."""
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and same(bearer.strip(), token):
        return True
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return False
    return cookie is not None and same(cookie.value, cookie_value(token))


def cookie_value(token: str) -> str:
    """What the cookie holds: proof of the token, any token's characters aside, not the token."""
    return hashlib.sha256(f"geli cookie {token}".encode()).hexdigest()


def same(given: str, secret: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(given.encode(), secret.encode())


async def refuse(send: Send, status: int, error: str, way_out: str) -> None:
    """One refusal as JSON; the connection is closed, since its body may not have been read."""
    body = json.dumps({"error": error, "way_out": way_out}, ensure_ascii=False).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()  # a disconnect
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
