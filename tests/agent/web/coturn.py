"""A real coturn on loopback that shares a secret with the server."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path

SECRET = "a secret that coturn and geli share"  # noqa: S105


@contextlib.asynccontextmanager
async def relay(folder: Path) -> AsyncIterator[tuple[str, Path]]:
    """Yields its address, `127.0.0.1:port`, and its log."""
    program = shutil.which("turnserver")
    assert program is not None, "coturn is missing (Debian: apt-get install coturn)"
    with socket.socket(type=socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "turn.log"
    words = [
        "-n", "--use-auth-secret", f"--static-auth-secret={SECRET}", "--realm=geli.test",
        "--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", f"--listening-port={port}",
        "--allow-loopback-peers", "--no-cli", "--no-tls", "--no-dtls", "--verbose",
        "--log-file=stdout", "--simple-log", f"--pidfile={folder}/turn.pid",
        f"--userdb={folder}/turndb", "--min-port=49152", "--max-port=49452",
    ]  # fmt: skip
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(program, *words, stdout=out, stderr=out)
    try:
        async with asyncio.timeout(20):
            while not _answers(port):  # noqa: ASYNC110
                assert process.returncode is None, log.read_text()
                await asyncio.sleep(0.1)
        yield f"127.0.0.1:{port}", log
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(10):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


def _answers(port: int) -> bool:
    """Whether it answers a STUN binding request (RFC 8489)."""
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.settimeout(0.3)
        try:
            probe.sendto(bytes.fromhex("000100002112a442") + b"geli is here", ("127.0.0.1", port))
            return probe.recv(100)[:2] == b"\x01\x01"
        except OSError:
            return False
