"""Measures the transport with scripted engines: gaps in the outgoing audio, memory over many calls.

    python -m tests.bench.transport concurrent 4
    python -m tests.bench.transport memory 50

The server runs in a child process, so that the pages' own work is not measured as the server's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
from aiortc.rtp import RtpPacket

from agent.config import Config
from tests import scripted
from tests.agent.web.rig import Page, config, serving, until

TALK_S = 12.0
WARM_CALLS = 5
"""Calls before memory is first looked at: imports, thread pools, codec tables."""
LONG_ANSWER = "Well let me think about that for a while because it is a good thought. " * 3


def measure_concurrent(n: int, seconds: float = TALK_S) -> dict[str, Any]:
    """Hold `n` calls at once, the agent speaking in all of them.

    Returns:
        `control_max_ms`, how late an idle process was at the same time (the machine's own noise),
        `calls`, `packets` received, `gap_p99_ms` and `gap_max_ms` between two packets of a call's
        audio as they arrive at its page (20 ms when all is well), `worst_per_call_ms` and `cpu`,
        the server's use of one core.
    """
    return asyncio.run(_concurrent(n, seconds))


def measure_memory(n: int) -> dict[str, Any]:
    """Hold `n` calls one after the other: greeting, a few words each way, hang up.

    Returns:
        `calls`, `rss_mb` of the server after each of them, `warm_mb` after `WARM_CALLS`,
        `end_mb` (the mean of the last five) and `growth` between the two as a share.
    """
    return asyncio.run(_memory(n))


@dataclass
class _Remote:
    """The part of a rig that a page needs, for a server in another process."""

    url: str
    config: Config
    http: Any

    @property
    def host(self) -> _Remote:
        return self


@contextlib.asynccontextmanager
async def _server(calls: int) -> AsyncIterator[tuple[_Remote, psutil.Process]]:
    import httpx

    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.bench.transport",
        "serve",
        str(calls),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdin is not None
    try:
        url = (await child.stdout.readline()).decode().strip()
        async with httpx.AsyncClient(base_url=url, timeout=20) as http:
            yield _Remote(url, _config(calls), http), psutil.Process(child.pid)
    finally:
        child.stdin.close()  # the child serves until then
        await child.wait()


def _config(calls: int) -> Config:
    return config(dialogue__greeting="Hello", limits__concurrent_calls=calls)


async def _serve(calls: int) -> None:
    responder = scripted.ScriptedResponder(answer=lambda messages: LONG_ANSWER)
    async with serving(_config(calls), engines=scripted.engines(responder=responder)) as rig:
        print(rig.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)


class _Arrivals:
    """When each audio packet arrived at a page."""

    def __init__(self, page: Page) -> None:
        self.at: list[float] = []
        assert page.pc is not None
        loop = asyncio.get_running_loop()
        for receiver in page.pc.getReceivers():
            handle = receiver._handle_rtp_packet

            async def noted(packet: RtpPacket, arrival_time_ms: int, handle: Any = handle) -> None:
                self.at.append(loop.time())
                await handle(packet, arrival_time_ms)

            receiver._handle_rtp_packet = noted

    @property
    def gaps_ms(self) -> np.ndarray[Any, Any]:
        """Between neighbours, [packets - 1]."""
        return np.diff(np.array(self.at)) * 1e3


async def _concurrent(n: int, seconds: float) -> dict[str, Any]:
    async with _server(n) as (remote, process):
        pages = [Page(remote) for _ in range(n)]  # type: ignore[arg-type]
        try:
            for page in pages:
                await page.call()
            await asyncio.sleep(1.0)
            process.cpu_percent()
            idle = asyncio.create_task(_idle_lateness_ms(seconds))
            arrivals = [_Arrivals(page) for page in pages]
            for page in pages:
                await page.speak(0.6)
            await asyncio.sleep(seconds)
            cpu = process.cpu_percent()
            control_ms = await idle
            spoke = [page.heard() for page in pages]
        finally:
            for page in pages:
                await page.close()
    gaps = np.concatenate([a.gaps_ms for a in arrivals])
    return {
        "calls": n,
        "all_spoke": all(spoke),
        "packets": len(gaps) + n,
        "gap_p99_ms": round(float(np.percentile(gaps, 99)), 1),
        "gap_max_ms": round(float(gaps.max()), 1),
        "worst_per_call_ms": [round(float(a.gaps_ms.max()), 1) for a in arrivals],
        "control_max_ms": round(control_ms, 1),
        "cpu": round(cpu / 100, 2),
    }


async def _free(remote: _Remote) -> None:
    """Wait until the server takes another call."""
    async with asyncio.timeout(10):
        while True:
            info = await remote.http.get("/api/info")
            if not info.json()["busy"]:
                return
            await asyncio.sleep(0.05)


IDLE = """
import sys, time
end, worst = time.perf_counter() + float(sys.argv[1]), 0.0
while (begun := time.perf_counter()) < end:
    time.sleep(0.02)
    worst = max(worst, time.perf_counter() - begun - 0.02)
print(worst * 1e3)
"""


async def _idle_lateness_ms(seconds: float) -> float:
    """The latest wake-up of a process that only sleeps 20 ms at a time."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", IDLE, str(seconds), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await child.communicate()
    return float(out)


async def _memory(n: int) -> dict[str, Any]:
    rss: list[float] = []
    async with _server(1) as (remote, process):
        for _ in range(n):
            page = Page(remote)  # type: ignore[arg-type]
            await page.call()
            await until(page.heard)
            await page.speak(0.5)
            replied = len(page.peaks)
            await until(lambda page=page, replied=replied: len(page.peaks) > replied + 60)
            await page.request("POST", "/hangup")
            await until(lambda page=page: page.of("ended"))
            await page.close()
            await _free(remote)
            rss.append(process.memory_info().rss / 2**20)
    warm = rss[min(WARM_CALLS, n - 1)]
    end = float(np.mean(rss[-5:]))
    return {
        "calls": n,
        "rss_mb": [round(value, 1) for value in rss],
        "warm_mb": round(warm, 1),
        "end_mb": round(end, 1),
        "growth": round(end / warm - 1, 4),
    }


def _main(words: Iterator[str]) -> None:
    what, number = next(words), int(next(words))
    if what == "serve":
        asyncio.run(_serve(number))
    else:
        measure = {"concurrent": measure_concurrent, "memory": measure_memory}[what]
        print(json.dumps(measure(number)))


if __name__ == "__main__":
    _main(iter(sys.argv[1:]))
