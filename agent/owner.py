"""Which process writes a session, so that one that died is known from one that still talks."""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

FOREIGN_ALIVE = timedelta(hours=24)
"""A process on another machine that holds no lease cannot be asked: it counts as alive this long
(`geli talk`, `geli replay`)."""
LEASE_S = 60.0
"""A worker on another machine whose last heartbeat is older is gone (agent/leases.py)."""
FIRST_PIDS = 0xEFFFFFFC
"""Inode of Linux's first namespace of process numbers (include/linux/proc_ns.h)."""


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

    def runs(self) -> bool | None:
        """Whether that process still runs; None where it cannot be asked from here."""
        if self.host != _host():
            name, _, rest = self.host.partition("/")
            rebooted = name == _name() and rest.partition("/")[0] != _boot()
            return False if rebooted else None
        if self.pid <= 0:
            return False
        if self.started:
            return _started(self.pid) == self.started
        return _answers(self.pid)

    def is_alive(self, since: datetime, now: datetime, silent_s: float | None = None) -> bool:
        """Whether that process still runs.

        Args:
            since: when its session began.
            now: the present.
            silent_s: seconds since its last heartbeat; None: it holds no lease.
        """
        runs = self.runs()
        if runs is not None:
            return runs
        return now - since < FOREIGN_ALIVE if silent_s is None else silent_s < LEASE_S


def _host() -> str:
    """Machine, boot, and in a container the namespace in which its process numbers count."""
    return "/".join((_name(), _boot(), *_container()))


def _name() -> str:
    return socket.gethostname().replace("|", "_")


def _container() -> tuple[str, ...]:
    with contextlib.suppress(OSError):
        inode = os.stat("/proc/self/ns/pid").st_ino
        return () if inode == FIRST_PIDS else (str(inode),)
    return ()


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
