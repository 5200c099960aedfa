"""A real PostgreSQL server for tests, from the distribution's package, gone with the tests."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

START_S = 60


def programs() -> Path | None:
    """The folder of `initdb` and `postgres`, which Debian keeps off the path; None: not here."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return versions[-1].parent if versions else None


class Server:
    """One server on a free port of loopback; every local user is trusted.

    Args:
        bin: `programs()`.
        durable: whether what is committed survives a power cut; costs time.
    """

    def __init__(self, bin: Path, durable: bool = False) -> None:
        self._bin = bin
        self._fsync = "on" if durable else "off"
        self._folder = Path(tempfile.mkdtemp(prefix="geli-postgres-"))
        # PostgreSQL refuses to be root's.
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(self._folder, self._user, self._user)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._run("initdb", "-D", str(self._data), "-U", "geli", "-A", "trust", "-E", "UTF8",
                  "--locale=C.UTF-8", "--no-sync")  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """Of its one database."""
        return f"postgresql://geli@127.0.0.1:{self.port}/postgres"

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def start(self) -> None:
        """Start it, again where it was stopped; returns when it answers."""
        if self._process is not None:
            return
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", self._data, "-p", str(self.port),
                 "-k", self._folder, "-c", "listen_addresses=127.0.0.1",
                 "-c", f"fsync={self._fsync}", "-c", "max_connections=200"],
                stdout=log, stderr=log, user=self._user, group=self._user,
                extra_groups=[] if self._user else None,
            )  # fmt: skip
        end = time.monotonic() + START_S
        while subprocess.run(
            [self._bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        ).returncode:
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < end, f"no answer within {START_S} s"
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it as a power cut would: connections break, what was committed stays."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """Stop it and remove what it kept."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._bin / program, *arguments], capture_output=True, text=True, cwd=self._folder,
            user=self._user, group=self._user, extra_groups=[] if self._user else None,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
