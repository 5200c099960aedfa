"""A corpus job as a child process that can be killed with all of Ray."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

GELI = (sys.executable, "-c", "from agent.cli import main; main()", "learn", "corpus")


@contextlib.contextmanager
def started(*args: str) -> Iterator[subprocess.Popen[str]]:
    """`geli learn corpus ARGS`; whatever is left of it at the end is killed."""
    child = subprocess.Popen(
        [*GELI, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield child
    finally:
        if child.poll() is None:
            kill(child.pid)
        child.communicate(timeout=60)


def finished(*args: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    with started(*args) as child:
        out, err = child.communicate(timeout=300)
    return child.returncode, out, err


def kill(pid: int) -> list[int]:
    """SIGKILL to a process and all below it, at once; the pids that were killed."""
    root = psutil.Process(pid)
    tree = [root, *root.children(recursive=True)]
    for process in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(tree, timeout=30)
    return [process.pid for process in tree]


def wait_for(folder: Path, pattern: str, child: subprocess.Popen[str]) -> Sequence[Path]:
    """Files that match, once there is one."""
    until = time.monotonic() + 240
    while not (found := sorted(folder.glob(pattern))):
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < until
        time.sleep(0.005)
    return found
