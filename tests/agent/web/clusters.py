"""Real `geli call` processes with several workers, and the packaged nginx.conf in front of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from agent import leases
from agent.config import Config
from agent.leases import Worker
from agent.store import Store
from tests.agent.web.rig import Page, config, until

ROOT = Path(__file__).parents[3]
NGINX_CONF = ROOT / "configs" / "deploy" / "nginx.conf"
START_S = 60
KEY = "a key that only the workers of this test share"


class Group:
    """One `geli call --workers N`.

    Args:
        store: URL of the store.
        words: further arguments.
    """

    def __init__(self, store: str, *words: str, data: Path) -> None:
        self.store = store
        self._words = words
        self._data = data
        self.process: asyncio.subprocess.Process | None = None
        self.port = 0

    async def start(self, workers: int, port: int = 0) -> None:
        """Start it; returns when all of its workers serve."""
        words = [
            "--port",
            str(port),
            "--workers",
            str(workers),
            "--set",
            f'store.url="{self.store}"',
        ]
        log = (self._data / f"geli-{len(list(self._data.glob('geli-*.log')))}.log").open("w")
        with log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                str(ROOT / "tests" / "agent" / "web" / "serve_scripted.py"),
                *words,
                *self._words,
                cwd=ROOT,
                env=os.environ | {"GELI_DATA": str(self._data), "PYTHONPATH": str(ROOT)},
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        self.log = Path(log.name)
        try:
            await self._wait(workers)
        except BaseException:
            await self.end()
            raise

    async def _wait(self, workers: int) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        async with asyncio.timeout(START_S):
            line = (await self.process.stdout.readline()).decode()
        assert line.startswith("open http"), self.log.read_text()
        self.port = httpx.URL(line.split()[1]).port or 0
        await until(lambda: self.output.count(" serves") >= workers or workers == 1, START_S)

    @property
    def output(self) -> str:
        """What it has logged so far."""
        return self.log.read_text()

    def workers(self) -> list[Worker]:
        """Those that are alive, by the store."""
        with Store.open(self.store) as store:
            return [worker for worker in leases.members(store) if worker.alive]

    def pid_of(self, worker_id: str) -> int:
        """The process of a worker."""
        (worker,) = [w for w in self.workers() if w.id == worker_id]
        return int(worker.owner.split("|")[1])

    async def end(self, number: int = signal.SIGINT) -> int:
        """Send a signal, wait for the end; returns the exit status."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(number)
            try:
                async with asyncio.timeout(40):
                    await self.process.wait()
            except TimeoutError:
                self.process.kill()
        return await self.process.wait()


class Balanced:
    """What a page needs of a rig, over one address."""

    def __init__(self, url: str, settings: Config, http: httpx.AsyncClient) -> None:
        self.url = url
        self.config = settings
        self.http = http
        self.host = self
        self.pages: list[Page] = []

    def page(self) -> Page:
        made = Page(self)  # type: ignore[arg-type]
        self.pages.append(made)
        return made

    async def call(self, **offer: Any) -> Page:
        """A page whose call is connected."""
        made = self.page()
        await made.call(**offer)
        return made

    async def call_when_free(self, limit_s: float = 10.0) -> Page:
        """As `call`; a call that has just ended keeps its place until its page is gone."""
        async with asyncio.timeout(limit_s):
            while True:
                try:
                    return await self.call()
                except AssertionError as error:
                    if "all calls are taken" not in str(error):
                        raise
                    await asyncio.sleep(0.2)


def holder(page: Page) -> str:
    """Id of the worker that holds a page's call."""
    return page.secret.partition(".")[0]


def guessed(secret: str) -> str:
    """Another secret of the same worker."""
    worker, _, rest = secret.partition(".")
    return f"{worker}.{rest.swapcase()}"


@contextlib.asynccontextmanager
async def over(url: str, **client: Any) -> AsyncIterator[Balanced]:
    """Pages that speak to `url`; every request takes a new connection, so that any worker of a
    shared socket may get it."""
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=url, timeout=20, limits=limits, **client) as http:
        balanced = Balanced(url, config(), http)
        try:
            yield balanced
        finally:
            for page in balanced.pages:
                await page.close()


@contextlib.asynccontextmanager
async def nginx(
    folder: Path, ports: list[int], certificate: tuple[Path, Path]
) -> AsyncIterator[str]:
    """The packaged nginx.conf, with these hosts, certificate and a free port; yields its URL."""
    program = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
    assert program is not None, "nginx is missing (Debian: apt-get install nginx)"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = NGINX_CONF.read_text()
    hosts = "".join(f"server 127.0.0.1:{p} max_fails=2 fail_timeout=5s;\n" for p in ports)
    text, n = re.subn(r"(server geli-\d:7860 [^\n]*\n\s*)+", hosts, text)
    assert n == 1
    changes = {
        "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        "/etc/nginx/tls/cert.pem": str(certificate[0]),
        "/etc/nginx/tls/key.pem": str(certificate[1]),
        "pid /tmp/nginx.pid;": f"pid {folder}/nginx.pid;\ndaemon off;\nmaster_process off;",
        "access_log off;": "access_log off;\n"
        + "\n".join(
            f"{name}_temp_path {folder}/{name};"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        ),
    }
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (folder / "nginx.conf").write_text(text)
    process = await asyncio.create_subprocess_exec(
        program, "-c", str(folder / "nginx.conf"), "-p", str(folder), "-e", "stderr"
    )
    try:
        await until(lambda: _answers(port), 20)
        assert process.returncode is None
        yield f"https://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
