"""A real `geli call` process with real weights, for one test or several."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from agent import config
from agent.records import Session
from agent.store import Store

ROOT = Path(__file__).resolve().parents[2]
START_S = 180
STOP_S = 30


@dataclass(slots=True)
class Serving:
    """A running server."""

    url: str
    folder: Path
    settings: tuple[str, ...]
    process: subprocess.Popen[bytes]

    @property
    def config(self) -> config.Config:
        """What the server runs with."""
        return config.load("cpu", self.settings)

    @property
    def output(self) -> str:
        """What it printed so far."""
        return (self.folder / "server.log").read_text()

    def counted(self) -> int:
        """How many calls were held and not kept."""
        with Store.open(self.config.store.url) as store:
            return sum(store.tally().values())

    def knows(self, session_id: str) -> bool:
        """Whether its store has this session."""
        with Store.open(self.config.store.url) as store:
            return store.has(session_id)

    def session(self, session_id: str) -> Session:
        """One session of its store."""
        with Store.open(self.config.store.url) as store:
            return store.get(session_id)

    def status(self, session_id: str, secret: str) -> dict[str, object]:
        """What the server says of a call."""
        answer = httpx.get(
            f"{self.url}/api/sessions/{session_id}", headers={"X-Session-Secret": secret}
        )
        answer.raise_for_status()
        found: dict[str, object] = answer.json()
        return found

    def signal(self, number: int) -> int:
        """Send a signal and wait for the end; returns the exit status."""
        self.process.send_signal(number)
        return self.process.wait(STOP_S)


@contextlib.contextmanager
def serving(folder: Path, *settings: str) -> Iterator[Serving]:
    """`geli call` with its store in `folder`; ends when the block does, unless it ended before."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = (f'store.url="sqlite:///{folder}/sessions.sqlite3"', *settings)
    command = [sys.executable, "-c", "from agent.cli import main; main()", "call"]
    command += ["--port", str(port)]
    for setting in settings:
        command += ["--set", setting]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=os.environ | {"PYTHONPATH": str(ROOT)}
        )
    server = Serving(f"http://127.0.0.1:{port}", folder, settings, process)
    try:
        _wait_until_ready(server)
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(server: Serving) -> None:
    for _ in range(START_S * 5):
        if server.process.poll() is not None:
            raise RuntimeError(f"the server ended:\n{server.output}")
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{server.url}/healthz").status_code == 200:
                return
        time.sleep(0.2)
    raise RuntimeError(f"the server did not start:\n{server.output}")
