"""Python scripts in one or several processes, as a launcher starts them."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from learning.launch import environments

ROOT = Path(__file__).parents[2]


def ends_no_thread() -> None:
    """End this process with code 70 where threads of gloo are left when Python begins to end.

    To be called before the processes meet: what is asked for first is done last.
    """
    atexit.register(_look)


def _look() -> None:
    tasks = Path("/proc/self/task").glob("*/comm")
    if left := [name for task in tasks if "gloo" in (name := task.read_text().strip())]:
        print("left behind:", *left, file=sys.stderr, flush=True)
        os._exit(70)


def run(
    script: Path, *arguments: str, processes: int = 1, more: Mapping[str, str] | None = None
) -> list[subprocess.CompletedProcess[str]]:
    """What each process came to; all are gone afterwards."""
    plain = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    places = environments(processes) if processes > 1 else [{}]
    command = [sys.executable, str(script), *arguments]
    made = [
        subprocess.Popen(
            command,
            env=plain | dict(place) | dict(more or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for place in places
    ]
    try:
        told = [p.communicate(timeout=240) for p in made]
    finally:
        for p in made:
            p.kill()
    return [
        subprocess.CompletedProcess(command, p.returncode, *said)
        for p, said in zip(made, told, strict=True)
    ]
