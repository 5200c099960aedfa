"""One OpenAI-compatible server as this process sees it: how long it is waited for, how many
requests are with it, and whether it is worth asking at all.

Requests run on one event loop in a thread of its own, so that a reply that nobody wants any more
is given up at any moment: in the queue, while connecting, before the first token, between two.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx

from agent.errors import EngineError

TRIES = 3
"""Attempts before the first token; afterwards a failure ends the reply."""
RETRY_AFTER_S = 0.3
"""Before the second attempt, doubled for each further one, unless the server says `Retry-After`."""
TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
REST_S = 5.0
"""A server that could not be reached is left alone for so long."""
GIVE_UP = 2
"""Misses until it is left alone: out of reach counts 2, too slow or an error 1."""
POLL_S = 0.05
"""Between two looks at whether the reply is still wanted."""


@dataclass(slots=True, frozen=True)
class Patience:
    """How long a server is waited for, seconds, and how many requests it is given."""

    connect_s: float = 3.0
    first_token_s: float = 10.0
    """From the reply's beginning to its first token: the queue and all attempts included."""
    between_tokens_s: float = 5.0
    total_s: float = 60.0
    in_flight: int = 16
    waiting: int = 16
    """More replies than this do not queue; they fail at once."""


class Refused(Exception):
    """The server's own no.

    Args:
        status: HTTP status.
        why: what of it may be logged.
        retry_after_s: how long the server wants to be left alone; None: it did not say.
    """

    def __init__(self, status: int, why: str, retry_after_s: float | None = None) -> None:
        super().__init__(why)
        self.status = status
        self.retry_after_s = retry_after_s


Stream = Callable[[httpx.AsyncClient], AsyncIterator[str]]
"""Asks once and yields pieces of text; raises `Refused` or an `httpx.HTTPError`."""


class ModelServer:
    """Shared by all replies of a process that go to one server. Thread-safe.

    Args:
        url: base URL, up to and with `/v1`.
        api_key: bearer token, where the server wants one.
        patience: see there.
    """

    def __init__(self, url: str, api_key: str | None, patience: Patience) -> None:
        self.url = url
        self.patience = patience
        self.headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        # What follows belongs to the loop's thread.
        self._client: httpx.AsyncClient | None = None
        self._slots = asyncio.Semaphore(patience.in_flight)
        self._waiting = 0
        self._misses = 0
        self._rests_until = 0.0

    def pieces(self, ask: Stream, should_stop: Callable[[], bool]) -> Iterator[str]:
        """The reply's text as it comes; stopping, or closing the iterator, ends the request.

        Raises:
            Refused, httpx.HTTPError, TimeoutError: the last attempt's failure.
            EngineError: the server was not asked: it is out of reach, or has enough to do.
        """
        found: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        running = _submit(self._run(ask, found.put))
        running.add_done_callback(lambda _: found.put(None))
        try:
            while not should_stop():
                with contextlib.suppress(queue.Empty):
                    piece = found.get(timeout=POLL_S)
                    if piece is None:
                        running.result()
                        return
                    if not should_stop():
                        yield piece
        finally:
            running.cancel()

    async def _run(self, ask: Stream, put: Callable[[str], None]) -> None:
        begun = time.monotonic()
        if (left := self._rests_until - begun) > 0:
            raise EngineError(
                f"the policy server {self.url} was out of reach; it is asked again in {left:.1f} s",
                "is it running?",
            )
        if self._slots.locked() and self._waiting >= self.patience.waiting:
            raise EngineError(
                f"the policy server {self.url} has {self.patience.in_flight} replies in work and "
                f"{self._waiting} waiting",
                "raise responder.in_flight, or limits.concurrent_calls is too high for it",
            )
        async with asyncio.timeout_at(_loop().time() + self.patience.total_s):
            await self._within_first_token(ask, put, begun + self.patience.first_token_s)

    async def _within_first_token(
        self, ask: Stream, put: Callable[[str], None], until: float
    ) -> None:
        self._waiting += 1
        try:
            async with asyncio.timeout(until - time.monotonic()):
                await self._slots.acquire()
        finally:
            self._waiting -= 1
        try:
            await self._try(ask, put, until)
        finally:
            self._slots.release()

    async def _try(self, ask: Stream, put: Callable[[str], None], until: float) -> None:
        for attempt in range(1, TRIES + 1):
            stream = ask(self._http())
            try:
                async with asyncio.timeout(until - time.monotonic()):
                    piece = await anext(stream, None)
                break
            except (httpx.HTTPError, Refused, TimeoutError) as error:
                pause = _pause_s(error, attempt)
                if pause is None or time.monotonic() + pause > until:
                    self._missed(error)
                    raise
                await asyncio.sleep(pause)
        self._misses = 0
        async with contextlib.aclosing(stream):  # type: ignore[type-var]
            while piece is not None:
                put(piece)
                async with asyncio.timeout(self.patience.between_tokens_s):
                    piece = await anext(stream, None)

    def _missed(self, error: Exception) -> None:
        if isinstance(error, Refused) and error.status not in TRANSIENT:
            self._misses = 0  # it answers
            return
        away = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
        self._misses += GIVE_UP if away else 1
        if self._misses >= GIVE_UP:
            self._rests_until = time.monotonic() + REST_S
            self._misses = GIVE_UP - 1  # one more, and it rests again

    def _http(self) -> httpx.AsyncClient:
        if self._client is None:
            timeout = httpx.Timeout(None, connect=self.patience.connect_s)
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=8)
            self._client = httpx.AsyncClient(headers=self.headers, timeout=timeout, limits=limits)
        return self._client


def _pause_s(error: Exception, attempt: int) -> float | None:
    """Before the next attempt; None: there is none."""
    if attempt == TRIES or isinstance(error, TimeoutError | httpx.ConnectTimeout):
        return None
    if isinstance(error, Refused):
        if error.status not in TRANSIENT:
            return None
        if error.retry_after_s is not None:
            return error.retry_after_s
    return RETRY_AFTER_S * 2.0 ** (attempt - 1)


@cache
def server_at(url: str, api_key: str | None, patience: Patience) -> ModelServer:
    """The one of this process: policies that speak through one server share its limits."""
    return ModelServer(url, api_key, patience)


_starting = threading.Lock()


def _submit(work: Coroutine[Any, Any, None]) -> Future[None]:
    with _starting:
        loop = _loop()
    return asyncio.run_coroutine_threadsafe(work, loop)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="geli-model-server", daemon=True).start()
    return loop
