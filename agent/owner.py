"""Which process writes a session, so that one that died is known from one that still talks."""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

FOREIGN_ALIVE = timedelta(hours=24)
"""A process on another machine cannot be asked: it counts as alive this long."""


@dataclass(slots=True, frozen=True)
class Owner:
    """A process: its machine (and that machine's boot), its number, and when it started."""

    host: str
    pid: int
    started: str
    """Clock ticks since boot, from /proc; empty where there is no /proc."""

    @classmethod
    def current(cls) -> Owner:
        """This process."""
        return cls(_host(), os.getpid(), _started(os.getpid()) or "")

    @classmethod
    def parse(cls, text: str) -> Owner:
        """What `str` gave; a text of another form is an owner that is long gone."""
        host, _, rest = text.rpartition("|")[0].partition("|")
        started = text.rpartition("|")[2]
        return cls(host, int(rest), started) if rest.isdecimal() else cls(_host(), 0, "")

    def __str__(self) -> str:
        return f"{self.host}|{self.pid}|{self.started}"

    def is_alive(self, since: datetime, now: datetime) -> bool:
        """Whether that process still runs; `since` is when its session began."""
        if self.host != _host():
            same_machine = self.host.partition("/")[0] == socket.gethostname()
            return not same_machine and now - since < FOREIGN_ALIVE  # rebooted, or elsewhere
        if self.pid <= 0:
            return False
        if self.started:
            return _started(self.pid) == self.started
        return _answers(self.pid)


def _host() -> str:
    return f"{socket.gethostname().replace('|', '_')}/{_boot()}"


def _boot() -> str:
    """An id that changes with every boot, so that a number used again is not mistaken."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _started(pid: int) -> str | None:
    """When a process started; None when it is gone or only waits to be reaped."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *fields = text.rpartition(")")[2].split()
    return None if state in "ZX" else fields[18]


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
