"""One serving process: engines, calls, the page, and how it ends.

Two listeners. The public one is shared by all workers of a machine and opened when the engines are
loaded, so that nobody is sent to a worker that cannot answer yet. The internal one is this worker's
own, for the others (agent/web/cluster.py), and says from the start whether it is ready.

SIGTERM drains: no new calls, those that run go on for `server.drain_s`, then the rest is ended
politely. SIGINT, and a second signal, end all calls politely at once. A third one does not wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from agent.config import Config
from agent.errors import ConfigError
from agent.host import Host
from agent.leases import Worker
from agent.rollout import Rollout
from agent.store import Store
from agent.tasks import Tasks
from agent.web.cluster import Cluster, Inside
from agent.web.health import Health
from agent.web.metrics import metrics_app
from agent.web.server import create_app

GRACEFUL_S = 5
"""How long open requests may take when the server ends."""
LOCAL_PROXIES = ("127.0.0.1", "::1")

log_ = logging.getLogger("geli.serve")


class Server(uvicorn.Server):
    """Drains on SIGTERM.

    Args:
        config: uvicorn's.
        opened: called as soon as the page can be opened.
    """

    def __init__(self, config: uvicorn.Config, opened: Callable[[], None]) -> None:
        super().__init__(config)
        self._opened = opened
        self._loop = asyncio.get_running_loop()
        self._signals = 0
        self.drain: Callable[[], None] | None = None
        """Begins to drain; None while there is nothing to drain."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._opened()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """uvicorn calls it for SIGINT and SIGTERM while it serves; before that, `serve` does."""
        self._signals += 1
        if sig == signal.SIGTERM and self._signals == 1 and self.drain is not None:
            self._captured_signals.append(sig)
            self._loop.call_soon_threadsafe(self.drain)
            return
        if self._signals > 2:
            sig = signal.SIGINT  # uvicorn ends at once on a second one of these
        super().handle_exit(sig, frame)

    def end(self) -> None:
        """End all calls politely, then the server."""
        self.should_exit = True


class _Internal(uvicorn.Server):
    """The listener for other workers: signals are the public one's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    config: Config,
    store: Store,
    listening: socket.socket,
    opened: Callable[[], None],
    *,
    internal: socket.socket | None = None,
    metrics: socket.socket | None = None,
    started: Callable[[Server], None] = lambda server: None,
) -> None:
    """Load the engines and serve until a signal.

    Args:
        config: the process's configuration; its `cluster_key` makes this a worker among others.
        store: where sessions go.
        listening: the public socket.
        opened: called as soon as the page can be opened.
        internal: the socket for other workers; None without a `cluster_key`.
        metrics: the socket for `/metrics` alone; None without `telemetry.metrics_port`.
        started: handed the server before anything is loaded.

    Raises:
        GeliError: an engine that cannot be loaded, a store that cannot be written.
    """
    settings = config.server
    server = Server(
        uvicorn.Config(
            "",
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            lifespan="on",
            ssl_certfile=settings.tls_certificate,
            ssl_keyfile=settings.tls_key,
            timeout_graceful_shutdown=GRACEFUL_S,
            forwarded_allow_ips=[*LOCAL_PROXIES, *settings.trusted_proxies],
        ),
        opened,
    )
    # While the engines load; uvicorn takes the signals over while it serves, and raises them
    # again into these handlers when it is done, so that a signal ends with exit code 0.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: server.end())
    started(server)
    key, health = settings.cluster_key, Health()
    inside = Inside(health, key, config.limits.body_bytes) if key and internal else None
    url = url_of(internal) if inside and internal else None
    host = Host(config, store, rollout=Rollout.following(config, strict=False))
    me = Worker.new(config.limits.calls, url, key if inside else None)
    cluster = Cluster(host, me, key if inside else None)
    async with _listening(inside, internal):
        try:
            await host.start()
            if server.should_exit:
                return
            app = create_app(host, cluster, health)
            if inside is not None:
                inside.app = app.state.inside
            tasks = Tasks(lambda error: log_.error("draining failed", exc_info=error))

            async def drain() -> None:
                draining = asyncio.create_task(app.state.calls.drain(settings.drain_s))
                await asyncio.sleep(0)
                await cluster.say_now()
                await draining
                server.end()

            server.drain = lambda: tasks.spawn(drain())
            server.config.app = app
            async with _listening(metrics_app(app.state.calls), metrics):
                await server.serve(sockets=[listening])
            await tasks.cancel()
        finally:
            await host.close()


@contextlib.asynccontextmanager
async def _listening(inside: ASGIApp | None, internal: socket.socket | None) -> AsyncIterator[None]:
    """Answer other workers, or whoever measures, while the block runs."""
    if inside is None or internal is None:
        yield
        return
    listener = _Internal(
        uvicorn.Config(
            inside,
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            lifespan="off",
            proxy_headers=False,
            timeout_graceful_shutdown=GRACEFUL_S,
        )
    )
    running = asyncio.create_task(listener.serve(sockets=[internal]))
    try:
        yield
    finally:
        listener.should_exit = True
        await running


def bind_internal(config: Config, index: int = 0) -> socket.socket | None:
    """Take the address for other workers; None where there are none.

    Args:
        config: its `server`.
        index: number of the worker on this machine, from 0.

    Raises:
        ConfigError: it is in use, or not this machine's.
    """
    settings = config.server
    if settings.cluster_key is None:
        return None
    port = settings.internal_port + index if settings.internal_port else 0
    return _bound("server.internal_host", settings.internal_host, port)


def bind_metrics(config: Config) -> socket.socket | None:
    """Take the address for `/metrics`; None where it has none of its own.

    Raises:
        ConfigError: it is in use, or not this machine's.
    """
    settings = config.telemetry
    if not settings.metrics or settings.metrics_port is None:
        return None
    return _bound("telemetry.metrics_host", settings.metrics_host, settings.metrics_port)


def _bound(name: str, host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(128)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "no address"
        raise ConfigError(
            f"{name} = {host!r}, port {port}: {reason}",
            "name an address of this machine, and a port that is free",
        ) from None
    return made


def url_of(internal: socket.socket) -> str:
    """Where other workers reach this one."""
    host, port = internal.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
