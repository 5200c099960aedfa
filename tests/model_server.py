"""Real OpenAI-compatible servers for tests, on loopback, gone with them: `transformers serve`, and
llama.cpp's `llama-server` where it is on the path."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

START_S = 120


class ModelServer:
    """`transformers serve` unless told otherwise: it serves any model by the path of its folder.

    Args:
        folder: for its cache and log.
        command: another server's; host and port are added.
        more: environment variables of it.
        start_s: how long it may take until it answers.
    """

    def __init__(
        self,
        folder: Path,
        command: Sequence[str | Path] = (),
        more: Mapping[str, str] | None = None,
        start_s: float = START_S,
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/v1"
        self._log = (folder / "log").open("wb")
        program = Path(sys.executable).with_name("transformers")
        given = command or [program, "serve", "--device", "cpu"]
        self._process = subprocess.Popen(
            [*given, "--host", "127.0.0.1", "--port", str(port)],
            env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder)} | dict(more or {}),
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        end = time.monotonic() + start_s
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                self.kill()
                raise RuntimeError(f"{given[0]} did not start, see {folder / 'log'}")
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            return httpx.get(self.url.removesuffix("/v1") + "/health").status_code == 200
        except httpx.HTTPError:
            return False

    def kill(self) -> None:
        """SIGKILL, as of a machine that goes away."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # vLLM is several processes
        self._process.wait()
        self._log.close()


def llama_server(base: Path, *adapters: Path) -> list[str | Path]:
    """The command that serves a GGUF base with GGUF adapters, as the README says."""
    if (program := shutil.which("llama-server")) is None:
        raise RuntimeError(
            "no llama-server on the path: PATH=/where/it/is:$PATH pytest -m llamacpp"
        )
    loras = ["--lora", ",".join(map(str, adapters))] if adapters else []
    return [program, "--model", base, *loras, "--cache-ram", "0", "--threads", "1"]
