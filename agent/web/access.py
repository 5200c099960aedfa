"""Who may enter: the shared token, tokens of people, and what happens to those who guess.

A token comes as `Authorization: Bearer`, in the page's form, or as `?token=`; the cookie that it
leaves holds a hash of it. Guesses are counted by address, for each process alone. A cookie is not
counted: it is 256 bits long, and an expired one is no guess.
"""

from __future__ import annotations

import hmac
import ipaddress
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers

from agent import tokens
from agent.config import Server
from agent.host import Host
from agent.tokens import Token, cookie_value

COOKIE = "geli_token"
COOKIE_S = 30 * 86_400
REMEMBERED_S = 5.0
"""A token that was valid is not looked up again this long; so late does a revocation count."""
REMEMBERED = 4096
GUESSES = 10
"""Wrong tokens of one address within `GUESSES_S`; then nothing of it is looked at for a while."""
GUESSES_S = 60.0
ADDRESSES = 10_000


@dataclass(slots=True, frozen=True)
class Visitor:
    """Somebody who may enter."""

    person: str | None = None
    """Hash of the token that is theirs alone; None: the token that all share, or none is needed."""
    cookie_s: int = COOKIE_S
    """How long a cookie of theirs holds."""


class Guessing(Exception):
    """Too many wrong tokens from one address.

    Args:
        wait_s: until the next is looked at.
    """

    def __init__(self, wait_s: float) -> None:
        super().__init__()
        self.wait_s = wait_s


class Access:
    """Decides who may enter. For the event loop's thread.

    Args:
        host: its configuration, and its store for people's tokens.
        clock: seconds; tests own it.
    """

    def __init__(self, host: Host, clock: Callable[[], float] = time.monotonic) -> None:
        self._host = host
        self._server: Server = host.config.server
        self._people = self._server.person_tokens and host.store is not None
        self._known: OrderedDict[str, tuple[float, Visitor]] = OrderedDict()
        self._wrong: OrderedDict[str, deque[float]] = OrderedDict()
        self._clock = clock

    @property
    def needed(self) -> bool:
        """Whether anybody needs a token."""
        return self._server.access_token is not None or self._server.person_tokens

    async def visitor(self, headers: Headers, address: str) -> Visitor | None:
        """Who sent a request; None: nobody who may enter.

        Args:
            headers: of the request.
            address: where it came from.

        Raises:
            Guessing: too many wrong tokens.
            StoreError: people's tokens cannot be read now.
        """
        if not self.needed:
            return Visitor()
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and (found := await self.enter(bearer.strip(), address)):
            return found
        cookie = _cookie(headers)
        return await self._by_cookie(cookie) if cookie is not None else None

    async def enter(self, token: str, address: str) -> Visitor | None:
        """Whose token it is; None: nobody's, and that is counted.

        Raises:
            Guessing, StoreError: as `visitor`.
        """
        if not self.needed:
            return Visitor()
        if (known := self._remembered("token " + token)) is not None:
            return known
        self._check(address)
        shared = self._server.access_token
        if shared is not None and same(token, shared):
            return Visitor()
        found = await self._person("token " + token, lambda s: tokens.by_token(s, token))
        if found is None:
            self._note(address)
        return found

    async def _by_cookie(self, cookie: str) -> Visitor | None:
        shared = self._server.access_token
        if shared is not None and same(cookie, cookie_value(shared)):
            return Visitor()
        if (known := self._remembered("cookie " + cookie)) is not None:
            return known
        if len(cookie) != 64:
            return None
        return await self._person("cookie " + cookie, lambda s: tokens.by_cookie(s, cookie))

    async def _person(self, key: str, find: Callable[..., Token | None]) -> Visitor | None:
        if not self._people:
            return None
        token = await self._host.lanes.run("store", lambda: find(self._host.store))
        if token is None:
            return None
        left_s = token.expires_at.timestamp() - time.time()
        visitor = Visitor(token.hash, max(1, min(COOKIE_S, int(left_s))))
        self._known[key] = (self._clock() + min(REMEMBERED_S, left_s), visitor)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return visitor

    def _remembered(self, key: str) -> Visitor | None:
        until, visitor = self._known.get(key, (0.0, None))
        if visitor is None or self._clock() >= until:
            self._known.pop(key, None)
            return None
        return visitor

    def _check(self, address: str) -> None:
        times = self._wrong.get(_network(address))
        if times is None:
            return
        now = self._clock()
        while times and now - times[0] > GUESSES_S:
            times.popleft()
        if len(times) >= GUESSES:
            raise Guessing(GUESSES_S - (now - times[0]))

    def _note(self, address: str) -> None:
        network = _network(address)
        self._wrong.setdefault(network, deque(maxlen=GUESSES)).append(self._clock())
        self._wrong.move_to_end(network)
        while len(self._wrong) > ADDRESSES:
            self._wrong.popitem(last=False)


def same(given: str, secret: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(given.encode(), secret.encode())


def _cookie(headers: Headers) -> str | None:
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return cookie.value if cookie is not None else None


def _network(address: str) -> str:
    """An IPv4 address, or the /64 in which whoever holds an IPv6 address has them all."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if ip.version == 4:
        return str(ip)
    return str(ipaddress.ip_network((ip, 64), strict=False))
