"""Two workers as real processes: whichever is asked tells of both, also of one that is gone."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path

import httpx
import pytest

from tests.agent.telemetry.otlp import receiving
from tests.agent.telemetry.test_telemetry import PARENT, TRACE, samples
from tests.agent.web.clusters import Group, holder, over
from tests.agent.web.rig import until

pytestmark = pytest.mark.transport


async def test_any_worker_tells_of_all(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with receiving() as receiver:
        group = Group(
            f"sqlite:///{tmp_path}/s.sqlite3",
            *("--set", "limits.concurrent_calls=1", "--set", f"telemetry.metrics_port={port}"),
            *("--set", f'telemetry.otlp_endpoint="{receiver.url}"'),
            data=tmp_path,
        )
        await group.start(2)
        url = f"http://127.0.0.1:{port}/metrics"

        async def settled(name: str, value: float) -> dict[str, float]:
            """The samples, once one has that value: gauges follow once a second."""
            async with asyncio.timeout(20):
                while True:
                    async with httpx.AsyncClient() as http:  # a connection anew: either worker
                        found = samples((await http.get(url)).text)
                    if found.get(name) == value:
                        return found
                    await asyncio.sleep(0.2)

        try:
            assert (await settled("geli_workers", 2))["geli_calls_cap"] == 2
            async with over(f"http://127.0.0.1:{group.port}") as site:
                assert (await site.http.get("/metrics")).status_code == 404
                # One is handed on to the worker with room, and its trace with it.
                site.http.headers["traceparent"] = f"00-{TRACE}-{PARENT}-01"
                first, second = await site.call(), await site.call()
                assert holder(first) != holder(second)
                await settled("geli_calls_live", 2)
                for page in (first, second):
                    await page.request("POST", "/hangup")
                    await until(lambda page=page: page.of("ended"))
                for _ in range(8):
                    found = await settled("geli_calls_ended_total{how=hung_up}", 2)
                    assert found["geli_calls_started_total"] == 2
                await until(lambda: len(receiver.named("call")) == 2, 30)  # spans leave in batches
                os.kill(group.pid_of(holder(first)), signal.SIGKILL)
                await until(lambda: "died by signal 9" in group.output)
                await until(lambda: group.output.count(" serves") == 3, 30)
            # What it counted stays, what it was does not count.
            found = await settled("geli_workers", 2)
            assert found["geli_calls_started_total"] == 2
        finally:
            status = await group.end()
        assert status == 0
        assert "Traceback" not in group.output
        calls = receiver.named("call")
    assert {span.trace_id.hex() for span in calls} == {TRACE}
    assert len(calls) == 2
