"""A real Ray cluster of several nodes on loopback, a process each, gone with the test."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.learning.corpus import runs

START_S = 60
ROOT = Path(__file__).parents[3]


class Cluster:
    """Nodes are started by `ray start`; the first is the head.

    Args:
        cpus: of each node.

    Attributes:
        environment: of whoever runs a job on it: the token is in it.
    """

    def __init__(self, cpus: Sequence[int]) -> None:
        # Names of sockets, deep in it, must stay under a hundred characters.
        self._folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        self.environment = os.environ | {
            "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
        }  # fmt: skip
        self.nodes: list[subprocess.Popen[bytes]] = []
        try:
            self._start(cpus[0], "--head", "--port", str(port), "--include-dashboard", "false",
                        "--temp-dir", str(self._folder))  # fmt: skip
            for number in cpus[1:]:
                self._start(number, "--address", self.address)
        except BaseException:
            self.close()
            raise

    def _start(self, cpus: int, *arguments: str) -> None:
        log = self._folder / f"node-{len(self.nodes)}.log"
        with log.open("wb") as out:
            node = subprocess.Popen(
                [Path(sys.executable).with_name("ray"), "start", "--block", "--num-cpus", str(cpus),
                 "--node-ip-address", "127.0.0.1", "--object-store-memory", str(128 << 20),
                 "--disable-usage-stats", *arguments],
                # A dead node is missed after two seconds in place of fifteen.
                env=self.environment | {"RAY_health_check_period_ms": "500",
                                        "RAY_health_check_failure_threshold": "4"},
                stdout=out, stderr=out,
            )  # fmt: skip
        self.nodes.append(node)
        end = time.monotonic() + START_S
        while b"Ray runtime started" not in log.read_bytes():
            assert node.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)

    def kill(self, number: int) -> list[int]:
        """SIGKILL to all of a node at once, as of a machine that goes away; returns the pids."""
        return runs.kill(self.nodes[number].pid)

    def close(self) -> None:
        """End all of it and remove what it kept."""
        for node in reversed(self.nodes):
            if node.poll() is None:
                runs.kill(node.pid)
            node.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
