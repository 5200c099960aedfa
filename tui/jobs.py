"""Long work as processes of their own: they outlive the review, which finds them again.

    jobs = Jobs(data_dir() / "jobs")
    job = jobs.start("round", ["learn", "round", "--promote", "ask"])
    jobs.tail(job), jobs.state(job), jobs.cancel(job)

A job is three files: what it is (`.json`), what it printed (`.log`) and, once it is over, its exit
code (`.rc`).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from agent.errors import GeliError

GELI = (sys.executable, "-P", "-c", "from agent.cli import main; main()")
"""How this same program is started again; -P: whatever lies in the current folder."""
KEPT = 50
"""Ended jobs that are remembered."""

State = Literal["running", "done", "failed", "cancelled", "lost"]
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class JobError(GeliError):
    """A command that could not be run, or said no."""


class Cancelled(JobError):
    """A command that was stopped before it had an answer."""


@dataclass(slots=True, frozen=True)
class Job:
    """One command in the background."""

    id: str
    title: str
    arguments: list[str]
    started_at: str
    pid: int


class Jobs:
    """The jobs of one data directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, title: str, arguments: Sequence[str]) -> Job:
        """Run `geli` with these arguments, detached from this terminal.

        Raises:
            JobError: it cannot be started.
        """
        now = datetime.now(UTC)
        job_id = f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._file(job_id, "log").open("wb") as log:
                process = subprocess.Popen(
                    ["sh", "-c", _RUN, f"geli-job-{job_id}", str(self._file(job_id, "rc")),
                     *GELI, *arguments],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                    start_new_session=True,
                )  # fmt: skip
            self._children[process.pid] = process
            job = Job(
                job_id, title, list(arguments), now.isoformat(timespec="seconds"), process.pid
            )
            self._file(job_id, "json").write_text(json.dumps(asdict(job)), encoding="utf-8")
        except OSError as error:
            raise JobError(f"{title} cannot be started: {error.strerror or error}") from None
        self._forget_old()
        return job

    def all(self) -> Sequence[Job]:
        """Jobs, newest first."""
        found = []
        for path in sorted(self.folder.glob("*.json"), reverse=True):
            with contextlib.suppress(OSError, ValueError, TypeError):
                found.append(Job(**json.loads(path.read_text(encoding="utf-8"))))
        return found

    def running(self, title: str) -> Job | None:
        """The newest job of that title that runs."""
        for job in self.all():
            if job.title == title and self.state(job) == "running":
                return job
        return None

    def state(self, job: Job) -> State:
        """How far it is."""
        code = self._code(job)
        if code is None:
            if self._alive(job):
                return "running"
            code = self._code(job)  # it may have ended between the two looks
        if code is None:
            return "lost"
        if code in (128 + signal.SIGTERM, 128 + signal.SIGINT, 130):
            return "cancelled"
        return "done" if code == 0 else "failed"

    def ended_at(self, job: Job) -> float | None:
        """When it ended, seconds of the epoch; None: it runs, or nobody was left to note it."""
        try:
            return self._file(job.id, "rc").stat().st_mtime
        except OSError:
            return None

    def tail(self, job: Job, lines: int = 200) -> list[str]:
        """The last lines it printed."""
        try:
            text = self._file(job.id, "log").read_bytes().decode("utf-8", "replace")
        except OSError:
            return []
        shown = [_as_shown(line) for line in text.removesuffix("\n").split("\n")]
        return shown[-lines:] if text else []

    def cancel(self, job: Job) -> None:
        """Ask it to stop; a round or a training goes on from there when it is started again."""
        if self._alive(job):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(job.pid, signal.SIGTERM)

    def _code(self, job: Job) -> int | None:
        try:
            return int(self._file(job.id, "rc").read_text())
        except (OSError, ValueError):
            return None

    def _alive(self, job: Job) -> bool:
        """Whether the process runs that was started then, not another one of that number."""
        child = self._children.get(job.pid)
        if child is not None:
            if child.poll() is None:
                return True  # in its first moments /proc does not know its arguments yet
            self._children.pop(job.pid, None)  # our own child must not stay a zombie
            return False
        if not Path("/proc/self").exists():
            return _answers(job.pid)
        try:
            return job.id.encode() in Path(f"/proc/{job.pid}/cmdline").read_bytes()
        except OSError:
            return False

    def _file(self, job_id: str, kind: str) -> Path:
        return self.folder / f"{job_id}.{kind}"

    def _forget_old(self) -> None:
        over = [job for job in self.all() if self.state(job) != "running"]
        for job in over[KEPT:]:
            for kind in ("json", "log", "rc"):
                self._file(job.id, kind).unlink(missing_ok=True)


def _answers(pid: int) -> bool:
    """Whether a process of that number runs: all that can be asked where there is no /proc."""
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def _as_shown(line: str) -> str:
    """A line as a terminal would end up showing it: a bar that was drawn anew counts once."""
    last = line.rstrip("\r").rpartition("\r")[2]
    return "".join(c if c.isprintable() else " " for c in _ESCAPES.sub("", last))


_RUN = """\
rc=$1; shift
trap 'code=143' TERM
"$@" & child=$!
wait $child; code=${code:-$?}
[ "$code" = 143 ] && kill -TERM $child 2>/dev/null && wait $child
echo "$code" > "$rc.new" && mv "$rc.new" "$rc"
"""
"""The shell that waits for the command and keeps its exit code."""


class Commands:
    """Short commands whose answer is wanted now; they end with the review."""

    def __init__(self) -> None:
        self._running: dict[subprocess.Popen[bytes], str] = {}
        self._lock = threading.Lock()  # none is started and not known yet when `end` looks

    def json(self, arguments: Sequence[str], name: str = "") -> Any:
        """Run `geli` with these arguments and read the JSON it prints. Blocks.

        Args:
            arguments: of `geli`.
            name: what `end` may call it by.

        Raises:
            JobError: what it said instead.
            Cancelled: it was ended.
        """
        try:
            with self._lock:
                process = subprocess.Popen(
                    [*GELI, *arguments],
                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                )  # fmt: skip
                self._running[process] = name
        except OSError as error:
            raise JobError(f"geli cannot be started: {error.strerror or error}") from None
        try:
            out, err = process.communicate()
        finally:
            del self._running[process]
        if process.returncode == -signal.SIGTERM:
            raise Cancelled("it was cancelled")
        if process.returncode != 0:
            said = [line for line in err.decode(errors="replace").splitlines() if line.strip()]
            line = said[-1].removeprefix("geli: ") if said else f"exit code {process.returncode}"
            problem, _, way_out = line.partition(" — ")
            raise JobError(problem, way_out)
        try:
            return json.loads(out)
        except ValueError:
            raise JobError(f"geli {' '.join(arguments[:2])} printed no JSON") from None

    def end(self, name: str | None = None) -> None:
        """Stop what still runs, or only what has that name."""
        with self._lock:
            running = list(self._running.items())
        for process, its in running:
            if name in (None, its):
                process.terminate()
