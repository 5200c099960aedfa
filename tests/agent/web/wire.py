"""A network of two hosts on one machine: two namespaces, and a wire between them that loses frames
and takes its time.

Linux's own `tc netem` would do it, but not every kernel has it (this project's test machines have
none). So the wire is a process with both ends of it, TAP devices, in its hands:

    python -m tests.agent.web.wire LEFT RIGHT LOSS DELAY_MS SEED
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import random
import select
import signal
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TUNSETIFF = 0x400454CA
TAP = 0x0002 | 0x1000  # IFF_TAP | IFF_NO_PI
FRAME = 4096
ROOT = Path(__file__).parents[3]


def carry(left: str, right: str, loss: float, delay_s: float, seed: int) -> dict[str, int]:
    """Carry Ethernet frames both ways until standard input ends; returns how many, how many lost.

    Args:
        left: name of the device that it makes at one end.
        right: at the other.
        loss: share of frames that never arrive, each way.
        delay_s: how long the others take, each way.
        seed: of the choice which are lost.
    """
    ends = [_tap(left), _tap(right)]
    print("ready", flush=True)
    chance = random.Random(seed)  # noqa: S311
    under_way: deque[tuple[float, int, bytes]] = deque()
    count = {"frames": 0, "lost": 0}
    while True:
        wait_s = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
        readable, _, _ = select.select([*ends, sys.stdin], [], [], wait_s)
        while under_way and under_way[0][0] <= time.monotonic():
            _, to, frame = under_way.popleft()
            with contextlib.suppress(OSError):  # the other end is down
                os.write(to, frame)
        if sys.stdin in readable:
            return count
        for end in readable:
            frame = os.read(end, FRAME)
            count["frames"] += 1
            if chance.random() < loss:
                count["lost"] += 1
                continue
            under_way.append((time.monotonic() + delay_s, ends[1 - ends.index(end)], frame))


def _tap(name: str) -> int:
    end = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH22x", name.encode(), TAP))
    return end


@dataclass
class Hosts:
    """Two hosts, by the names of their namespaces, and their addresses."""

    names: tuple[str, str]
    addresses: tuple[str, str] = ("10.77.0.1", "10.77.0.2")
    counted: dict[str, int] | None = None
    """Frames of the wire, once it is taken away."""

    def command(self, host: int, *words: str) -> tuple[str, ...]:
        """What runs `words` on host 0 or 1."""
        return ("ip", "netns", "exec", self.names[host], *words)


def cannot() -> str:
    """Why no namespaces can be made here; empty when they can."""
    if os.geteuid() != 0:
        return "network namespaces are root's to make"
    name = f"geli-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"no network namespaces here: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return ""


@contextlib.asynccontextmanager
async def two_hosts(loss: float, delay_s: float, seed: int) -> AsyncIterator[Hosts]:
    """Two hosts with a wire between them while the block runs."""
    tag = f"{os.getpid() % 1_000_000}"
    hosts = Hosts((f"geli-a-{tag}", f"geli-b-{tag}"))
    devices = (f"geli{tag}a", f"geli{tag}b")
    wire: Any = None
    try:
        for name in hosts.names:
            _ip("netns", "add", name)
        wire = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.agent.web.wire", *devices,
            str(loss), str(delay_s * 1e3), str(seed),
            cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert await wire.stdout.readline() == b"ready\n"
        for name, device, address in zip(hosts.names, devices, hosts.addresses, strict=True):
            _ip("link", "set", device, "netns", name)
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", device)
            _ip("-n", name, "link", "set", device, "up")
        yield hosts
    finally:
        if wire is not None:
            wire.stdin.close()  # and so it ends
            hosts.counted = json.loads(await wire.stdout.read())
            await wire.wait()
        for name in hosts.names:
            _remove(name)


def _remove(name: str) -> None:
    """A namespace, and whatever still runs in it."""
    inside = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True)
    for pid in inside.stdout.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    subprocess.run(["ip", "netns", "del", name], capture_output=True)


def namespaces() -> set[str]:
    """The names of all that are there."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    return {line.split()[0] for line in listed.stdout.splitlines()}


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    assert done.returncode == 0, (words, done.stderr)


if __name__ == "__main__":
    _, left_, right_, loss_, delay_ms_, seed_ = sys.argv
    print(json.dumps(carry(left_, right_, float(loss_), float(delay_ms_) / 1e3, int(seed_))))
