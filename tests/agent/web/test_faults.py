"""A bad network and a busy machine: loss, reordering, abrupt ends, and a loop that never blocks."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agent.store import Store
from agent.web.tracks import FRAME_SAMPLES, VoiceTrack
from tests import scripted
from tests.agent.web.rig import Page, config, serving, transports, until
from tests.bench.transport import measure_concurrent

pytestmark = pytest.mark.transport

Send = Callable[[bytes], Awaitable[None]]


def disturb(page: Page, make: Callable[[Send], Send]) -> None:
    """Put a fault between the page and the network."""
    for transport in transports(page.pc):
        transport._send = make(transport._send)


def lossy(share: float) -> Callable[[Send], Send]:
    dice = random.Random(7)

    def make(send: Send) -> Send:
        async def faulty(data: bytes) -> None:
            if dice.random() >= share:
                await send(data)

        return faulty

    return make


def reordering(send: Send) -> Send:
    held: list[bytes] = []

    async def faulty(data: bytes) -> None:
        held.append(data)
        if len(held) == 3:
            for late in reversed(held):
                await send(late)
            held.clear()

    return faulty


def duplicating(send: Send) -> Send:
    async def faulty(data: bytes) -> None:
        await send(data)
        await send(data)

    return faulty


@pytest.mark.parametrize(
    "fault", [lossy(0.15), reordering, duplicating], ids=["loss", "reorder", "duplicates"]
)
async def test_a_conversation_survives(fault: Callable[[Send], Send]) -> None:
    async with serving(config(dialogue__greeting="Hi")) as rig:
        page = await rig.call()
        await until(lambda: any(m["final"] for m in page.of("caption")))
        disturb(page, fault)
        await page.speak(1.0)
        await until(lambda: any(m["speaker"] == "user" and m["final"] for m in page.of("caption")))
        since = asyncio.get_running_loop().time()
        await until(lambda: page.heard(since))
        page.send({"type": "hangup"})
        await until(lambda: page.of("ended"))


async def test_an_outage_leads_to_away_and_a_resume_brings_it_back() -> None:
    async with serving(config(limits__vanished_after_s="1")) as rig:
        page = await rig.call()
        entry = rig.calls._entries[page.id]
        disturb(page, lossy(1.0))
        await until(lambda: entry.state == "away")
        await page.resume()
        assert entry.state == "live"


async def test_garbage_on_the_media_socket_is_survived() -> None:
    def noisy(send: Send) -> Send:
        dice = random.Random(3)

        async def faulty(data: bytes) -> None:
            await send(data)
            await send(bytes([dice.choice([20, 22, 23, 63, 128, 144])]) + dice.randbytes(60))

        return faulty

    async with serving(config(dialogue__greeting="Hi")) as rig:
        page = await rig.call()
        disturb(page, noisy)
        await page.speak(1.0)
        await until(lambda: any(m["speaker"] == "user" and m["final"] for m in page.of("caption")))


async def test_a_page_that_closes_its_connection_is_away_at_once() -> None:
    async with serving(config()) as rig:
        page = await rig.call()
        entry = rig.calls._entries[page.id]
        await page.drop_peer()
        await until(lambda: entry.state == "away", 1.0)


async def test_a_call_whose_engine_breaks_ends_alone(caplog: pytest.LogCaptureFixture) -> None:
    engines = scripted.engines()
    async with serving(config(dialogue__greeting="Hi"), engines=engines) as rig:
        victim, other = await rig.call(), await rig.call()
        call = rig.calls._entries[victim.id].call

        def broken(samples: int) -> Any:
            raise RuntimeError("a bug in the call")

        call.play = broken
        await until(lambda: victim.of("ended"))
        assert victim.of("ended")[0]["how"] == "crashed"
        assert (await other.status())["state"] == "live"
        assert "a bug in the call" in caplog.text


async def test_four_calls_at_once() -> None:
    measured = await asyncio.to_thread(measure_concurrent, 4, 3.0)
    assert measured["all_spoke"]
    assert measured["packets"] > 4 * 50
    assert measured["gap_max_ms"] > 0


def slow(work: Callable[..., Any]) -> Callable[..., Any]:
    def slowly(*args: Any) -> Any:
        time.sleep(0.4)
        return work(*args)

    return slowly


async def test_the_event_loop_is_never_blocked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Engines and store that take their time are waited for, never on the loop."""
    loop = asyncio.get_running_loop()
    loop.slow_callback_duration = 0.25
    engines = scripted.engines(responder=scripted.ScriptedResponder(delay_s=0.3), asr_s=0.4)
    engines.speaker.say = slow(engines.speaker.say)
    engines.end_of_turn.complete = slow(engines.end_of_turn.complete)
    with Store.open(f"sqlite:///{tmp_path}/s.sqlite3") as store:
        monkeypatch.setattr(Store, "writing", slow(Store.writing))
        caplog.set_level(logging.WARNING, logger="asyncio")
        async with serving(config(dialogue__greeting="Hi"), store, engines) as rig:
            loop.set_debug(True)
            page = await rig.call()
            await until(lambda: any(m["final"] for m in page.of("caption")))
            await page.speak(0.8)
            await until(lambda: page.of("caption")[-1]["speaker"] == "agent", 20)
            await page.request("POST", "/hangup")
            await until(lambda: page.of("ended"))
            await page.request("POST", "/rating", json={"overall_affect": 60})
            await page.request("DELETE")
            loop.set_debug(False)
    blocked = [r.getMessage() for r in caplog.records if "Executing" in r.getMessage()]
    assert blocked == []


class Silent:
    def hear(self, pcm: Any) -> None: ...

    def see(self, rgb: Any) -> None: ...

    def play(self, samples: int) -> Any:
        return scripted.silence(samples / 16_000)


async def test_a_stalled_loop_skips_time_instead_of_bursting() -> None:
    track = VoiceTrack(Silent(), lambda: None)
    stamps = [(await track.recv()).pts for _ in range(3)]
    time.sleep(0.5)  # noqa: ASYNC251 (the stall)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    after = [(await track.recv()).pts for _ in range(10)]
    took_s = loop.time() - begun
    assert stamps == [0, FRAME_SAMPLES, 2 * FRAME_SAMPLES]
    assert track.stalls == 1
    assert after[0] - stamps[-1] >= 0.4 * 48_000
    assert {b - a for a, b in zip(after, after[1:], strict=False)} == {FRAME_SAMPLES}
    assert took_s > 0.1  # ten frames at once would be a burst
