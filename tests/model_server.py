"""A real OpenAI-compatible server for tests: `transformers serve`, on loopback, gone with them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx

START_S = 120


class ModelServer:
    """Serves any model by the path of its folder.

    Args:
        folder: for its cache and log.
    """

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/v1"
        self._log = (folder / "log").open("wb")
        program = Path(sys.executable).with_name("transformers")
        self._process = subprocess.Popen(
            [program, "serve", "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"],
            env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder)},
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        end = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                self.kill()
                raise RuntimeError(f"transformers serve did not start, see {folder / 'log'}")
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            return httpx.get(self.url.removesuffix("/v1") + "/health").status_code == 200
        except httpx.HTTPError:
            return False

    def kill(self) -> None:
        """SIGKILL, as of a machine that goes away."""
        self._process.kill()
        self._process.wait()
        self._log.close()
