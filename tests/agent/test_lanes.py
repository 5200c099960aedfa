"""Lanes know what waits for them, and for how long."""

from __future__ import annotations

import asyncio
import threading

import pytest

from agent.lanes import Lanes

pytestmark = pytest.mark.unit


async def test_what_waits_is_counted_until_it_begins() -> None:
    lanes, gate, heard = Lanes(), threading.Event(), []
    lanes.on_wait = lambda role, seconds: heard.append((role, seconds))
    try:
        running = lanes.submit("speaker", gate.wait)
        while lanes.waiting("speaker"):  # noqa: ASYNC110 (another thread takes it)
            await asyncio.sleep(0)
        first = lanes.submit("speaker", lambda: 1)
        second = lanes.submit("speaker", lambda: 2)
        assert lanes.waiting("speaker") == 2
        await asyncio.sleep(0.01)
        assert lanes.oldest_wait_s("speaker") >= 0.01
        assert lanes.oldest_wait_s("recognizer") == 0.0
        assert lanes.oldest_wait_s("no such lane") == 0.0
        first.cancel()
        await asyncio.sleep(0)
        assert lanes.waiting("speaker") == 1
        gate.set()
        assert await second == 2
        await running
        assert (lanes.waiting("speaker"), lanes.oldest_wait_s("speaker")) == (0, 0.0)
        assert [role for role, _ in heard] == ["speaker", "speaker"]
        assert heard[1][1] >= 0.01
    finally:
        gate.set()
        lanes.close()
