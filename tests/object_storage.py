"""A real server that speaks S3, for tests: `rclone serve s3` on loopback, gone with them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

START_S = 30
ACCESS, SECRET = "GELITESTACCESS", "geli/test+secret/0123456789"
"""Its only user; the secret has the characters that AWS's have."""


class ObjectStorage:
    """Serves a folder; the folders in it are its buckets.

    Args:
        root: what it serves.
        log: where it tells of requests that failed.
    """

    def __init__(self, root: Path, log: Path) -> None:
        self.root = root
        self.log = log
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def url(self, path: str) -> str:
        """Of `<bucket>/<folder>`, for pyarrow."""
        return f"s3://{path}?endpoint_override=127.0.0.1:{self.port}&scheme=http"

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables of whoever may use it."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self) -> None:
        """Start it, again where it was stopped; returns when it answers."""
        if self._process is not None:
            return
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [Path(sys.executable).with_name("rclone"), "serve", "s3", "--config", os.devnull,
                 # What pyarrow writes after a deletion breaks its memory of a listing.
                 "--dir-cache-time", "0s", "--addr", f"127.0.0.1:{self.port}", str(self.root)],
                env=os.environ | {"RCLONE_AUTH_KEY": f'"{ACCESS},{SECRET}"'},
                stdout=log, stderr=log,
            )  # fmt: skip
        end = time.monotonic() + START_S
        while not self._answers():
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, f"no answer within {START_S} s"
            time.sleep(0.05)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        """SIGKILL, as of a machine that goes away."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
