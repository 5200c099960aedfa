"""`--processes N`: one command in several processes of this machine, one a GPU or on its cores.

They find each other as under `accelerate launch`, which is for several machines and for weights in
shards. The first process prints; when one fails, all end.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from learning.errors import TrainingError
from learning.processes import many

LOOK_S = 0.1


def processes_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--processes`: above 1 the command runs in as many processes, and then it is done."""

    def started(context: click.Context, _: click.Parameter, n: int) -> int:
        if n > 1 and many() == 1 and not context.resilient_parsing:
            sys.exit(launch(n, [sys.executable, "-m", "agent.cli", *sys.argv[1:]]))
        return n

    return click.option(
        "--processes",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        expose_value=False,
        callback=started,
        help="that share the work, one a GPU",
    )(function)


def launch(n: int, command: Sequence[str]) -> int:
    """Run a command in n processes; returns the exit code of the first that failed, or 0.

    Args:
        n: how many.
        command: the same for all.

    Raises:
        TrainingError: one was killed.
    """
    places = environments(n)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    made = [subprocess.Popen(command, env=os.environ | place) for place in places]
    try:
        codes = [p.poll() for p in made]
        while None in codes and not any(codes):
            time.sleep(LOOK_S)
            codes = [p.poll() for p in made]
    finally:
        _end(made)
    for i, code in enumerate(codes):
        if code is not None and code < 0:
            raise TrainingError(
                f"process {i} of {n} was ended by {signal.Signals(-code).name}",
                "too little memory, perhaps; --resume goes on from the checkpoint",
            )
    return next((code for code in codes if code), 0)


def environments(n: int) -> list[Mapping[str, str]]:
    """What tells each process who it is."""
    port = free_port()
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // n))
    return [
        {
            "RANK": str(i),
            "LOCAL_RANK": str(i),
            "WORLD_SIZE": str(n),
            "LOCAL_WORLD_SIZE": str(n),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "OMP_NUM_THREADS": threads,
        }
        for i in range(n)
    ]


def free_port() -> int:
    """A port to meet at, from below those that the system gives to anybody who asks for any.

    The first process listens there seconds later, when torch is loaded.

    Raises:
        TrainingError: a hundred were taken.
    """
    for _ in range(100):
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as free:
            try:
                free.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise TrainingError("no free port between 20000 and 32000 for processes to meet at")


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End what still runs: asked first, then not asked."""
    for p in processes:
        if p.poll() is None:
            p.terminate()
    for p in processes:
        try:
            p.wait(10)
        except subprocess.TimeoutExpired:
            p.kill()
            p.wait()
