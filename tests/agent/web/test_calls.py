"""Whole calls over real WebRTC: real server, scripted engines, aiortc peers as pages."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from agent.records import EndedHow
from agent.store import Store
from tests.agent.web.rig import Rig, config, serving, until

pytestmark = pytest.mark.transport


async def talked(rig: Rig, page, seconds: float = 0.8) -> None:
    """The greeting is over, the user has spoken and the agent's reply is heard."""
    await until(lambda: any(m["final"] for m in page.of("caption")), 15)
    await page.speak(seconds)
    since = asyncio.get_running_loop().time()
    await until(lambda: page.heard(since + 0.2), 15)


async def test_a_call_carries_sound_both_ways_and_ends_in_the_store(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path}/s.sqlite3") as store:
        async with serving(config(dialogue__greeting="Hi"), store) as rig:
            page = await rig.call()
            await until(page.heard)  # the greeting
            await talked(rig, page)
            assert page.pongs > 0
            assert {"listening", "speaking"} <= {m["state"] for m in page.of("state")}
            assert "hello there" in [m["text"] for m in page.of("caption") if m["final"]]
            assert (await page.status())["state"] == "live"

            response = await page.request("POST", "/hangup")
            assert response.status_code == 204
            await until(lambda: page.of("ended"))
            assert page.of("ended") == [{"type": "ended", "how": "hung_up", "can_rate": True}]
            assert (await page.request("POST", "/hangup")).status_code == 204
            rated = await page.request(
                "POST", "/rating", json={"overall_affect": 83, "comment": " kind "}
            )
            assert rated.status_code == 204
            expected = {"state": "ended", "ended_how": "hung_up", "can_rate": True, "rated": True}
            assert await page.status() == expected
            session = store.get(page.id)
            assert session.ended_how is EndedHow.HUNG_UP
            assert (session.overall_affect, session.comment) == (83, "kind")
            assert session.overall_affect_source == "page"
            assert [t.speaker for t in session.turns][:2] == ["agent", "user"]
            assert session.turns[1].text == "hello there"


async def test_a_page_that_vanishes_is_away_and_then_dropped() -> None:
    async with serving(config(limits__resume_s="0.5")) as rig:
        page = await rig.call()
        await page.vanish()
        entry = rig.calls._entries[page.id]
        await until(lambda: entry.state == "away", 5)
        await until(lambda: entry.state == "ended", 5)
        assert entry.ended_how is EndedHow.DROPPED


async def test_a_page_that_stops_without_closing_is_noticed() -> None:
    async with serving(config(limits__vanished_after_s="1")) as rig:
        page = await rig.call()
        await page.stop_heartbeat()
        page.pc.getSenders()[0].replaceTrack(None)  # no audio either
        entry = rig.calls._entries[page.id]
        await until(lambda: entry.state == "away", 5)


async def test_audio_alone_keeps_a_peer_alive() -> None:
    async with serving(config(limits__vanished_after_s="0.5")) as rig:
        page = await rig.call()
        await page.stop_heartbeat()
        await asyncio.sleep(1.5)
        assert rig.calls._entries[page.id].state == "live"


async def test_away_and_back_is_the_same_call() -> None:
    async with serving(config(dialogue__greeting="Hi")) as rig:
        page = await rig.call()
        entry = rig.calls._entries[page.id]
        call = entry.call
        await until(lambda: any(m["final"] for m in page.of("caption")))
        beacon = {"content": json.dumps({"secret": page.secret})}
        gone = await page.request("POST", "/away", headers={"Content-Type": "text/plain"}, **beacon)
        assert gone.status_code == 204
        assert (await page.status())["state"] == "away"
        before = page.id
        page.messages.clear()
        await page.resume()
        assert page.id == before
        assert entry.call is call
        assert entry.state == "live"
        await until(lambda: page.of("state"))  # a reloaded page learns where the call stands
        await talked_again(page)
        assert len({turn.text for turn in call.session.turns}) == 3


async def talked_again(page) -> None:
    await page.speak(0.8)
    since = asyncio.get_running_loop().time()
    await until(lambda: page.heard(since), 15)
    await until(lambda: len([m for m in page.of("caption") if m["final"]]) >= 2, 15)


async def test_a_resume_takes_over_from_a_peer_that_still_lives() -> None:
    async with serving(config()) as rig:
        first = await rig.call()
        second = rig.page()
        second.id, second.secret = first.id, first.secret
        old = rig.calls._entries[first.id].peer
        await second.resume()
        entry = rig.calls._entries[first.id]
        assert entry.peer is not old
        assert old.gone.is_set()
        assert entry.state == "live"
        assert rig.calls.live == 1
        await until(lambda: first.pc.connectionState == "closed")


async def test_the_hangup_message_and_the_goodbye_arrive() -> None:
    async with serving(config()) as rig:
        page = await rig.call()
        page.send({"type": "hangup"})
        await until(lambda: page.of("ended"))
        assert page.of("ended")[0]["how"] == "hung_up"
        resumed = await page.post_offer(resume=True)
        assert resumed.status_code == 410
        assert "over" in resumed.json()["error"]


async def test_a_call_ends_at_its_limit() -> None:
    async with serving(config(limits__total_s="0.5")) as rig:
        page = await rig.call()
        await until(lambda: page.of("ended"))
        assert page.of("ended")[0]["how"] == "timed_out"


async def test_a_call_is_freed_as_soon_as_it_is_over() -> None:
    """Each call holds up to 15 MB of heard audio: no cycle may keep it until a collection."""
    async with serving(config(dialogue__greeting="Hi")) as rig:
        page = await rig.call()
        memory = weakref.ref(rig.calls._entries[page.id].call._memory)
        gc.disable()
        try:
            await talked(rig, page)
            await page.request("POST", "/hangup")
            await until(lambda: page.of("ended"))
            await page.close()
            await until(lambda: memory() is None)
        finally:
            gc.enable()


async def test_busy_is_said_and_a_resume_does_not_count_twice() -> None:
    async with serving(config(limits__concurrent_calls="1")) as rig:
        page = await rig.call()
        assert (await rig.http.get("/api/info")).json()["busy"] is True
        refused = await rig.page().post_offer()
        assert refused.status_code == 503
        assert refused.json() == {
            "error": "all calls are taken",
            "way_out": "try again in a few minutes",
        }
        await page.resume()
        await page.request("POST", "/hangup")
        await until(lambda: not rig.calls.busy)
        await rig.call()


async def test_a_deleted_call_leaves_nothing(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path}/s.sqlite3") as store:
        async with serving(config(dialogue__greeting="Hi"), store) as rig:
            page = await rig.call()
            await until(lambda: any(m["final"] for m in page.of("caption")))
            assert store.has(page.id)
            assert (await page.request("DELETE")).status_code == 204  # ends it first
            assert not store.has(page.id)
            assert (await page.request("DELETE")).status_code == 204
            rating = await page.request("POST", "/rating", json={"overall_affect": 1})
            assert rating.status_code == 409
            assert (await page.status())["can_rate"] is False


async def test_a_talk_only_call_cannot_be_rated_and_its_picture_is_refused(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path}/s.sqlite3") as store:
        async with serving(config(), store) as rig:
            page = await rig.call(consent="talk_only", video=True)
            video = [t for t in page.pc.getTransceivers() if t.kind == "video"]
            assert video[0].currentDirection == "inactive"
            await page.request("POST", "/hangup")
            await until(lambda: page.of("ended"))
            assert page.of("ended")[0]["can_rate"] is False
            rating = await page.request("POST", "/rating", json={"overall_affect": 50})
            assert rating.status_code == 409
            await until(lambda: rig.calls.live == 0)
            assert list(store.list()) == []
            assert sum(store.tally().values()) == 1


class Watcher:
    """Stands where agent.affect.Listener stands and notes what it is shown."""

    behind = False
    made: ClassVar[list[Watcher]] = []

    def __init__(self, models: Any, config: Any) -> None:
        self.frames: list[np.ndarray] = []
        self.camera: list[bool] = []
        self.made.append(self)

    def start(self, on_window: Any) -> None: ...

    def see(self, rgb: np.ndarray, t_s: float) -> None:
        self.frames.append(rgb)

    def advance(self, t_s: float) -> None: ...

    def set_camera(self, on: bool) -> None:
        self.camera.append(on)

    def close(self) -> None: ...


async def test_the_picture_reaches_the_listener_at_its_own_pace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Faces:
        classifier_id = "watcher"

        def close(self) -> None: ...

    monkeypatch.setattr("agent.host.Listener", Watcher)
    async with serving(config(perception__frames_hz="4")) as rig:
        rig.host._faces = Faces()  # type: ignore[assignment]
        page = await rig.call(video=True, camera=True)
        watcher = Watcher.made[-1]
        await until(lambda: len(watcher.frames) >= 2)
        seen = len(watcher.frames)
        await asyncio.sleep(2.0)
        assert 2 <= len(watcher.frames) - seen <= 9  # 15 a second are sent
        frame = watcher.frames[-1]
        assert frame.shape == (240, 320, 3)
        assert frame[..., 0].mean() > 150 > 60 > frame[..., 2].mean()
        page.send({"type": "camera", "on": False})
        await until(lambda: watcher.camera == [True, False])

        blind = await rig.call(consent="talk_only", video=True, camera=True)
        assert len(Watcher.made) == 1
        assert (await blind.status())["state"] == "live"


async def test_a_call_that_never_connects_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.web.calls.CONNECT_S", 0.3)
    with Store.open(f"sqlite:///{tmp_path}/s.sqlite3") as store:
        async with serving(config(), store) as rig:
            page = rig.page()
            offered = await page.post_offer()  # the answer is never used
            assert store.has(offered.json()["session_id"])
            await until(lambda: rig.calls.live == 0)
            assert list(store.list()) == []


async def test_the_server_ends_its_calls_politely(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path}/s.sqlite3") as store:
        async with serving(config(), store) as rig:
            pages = [await rig.call() for _ in range(2)]
            await rig.calls.close()
            for page in pages:
                await until(lambda page=page: page.of("ended"))
                assert page.of("ended")[0]["how"] == "hung_up"
                assert store.get(page.id).ended_how is EndedHow.HUNG_UP


MALFORMED = (
    "{",
    b"\x00\xff",
    "[]",
    "7",
    '{"type":"mute","on":"yes"}',
    "[" * 5000,
    '{"type":"ping","t":1e999}',
    '{"type":"ping","t":NaN}',
    '{"type":7}',
    '{"type":"ping","t":' + "9" * 4000 + "}",
    "x" * 100_000,
)


async def test_malformed_messages_are_ignored(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(config()) as rig:
        page = await rig.call()
        for message in MALFORMED:
            page.send(message)
        pongs = page.pongs
        await until(lambda: page.pongs > pongs)
        assert (await page.status())["state"] == "live"
        assert "malformed" in caplog.text
        assert "yes" not in caplog.text


async def test_mute_makes_the_user_silent() -> None:
    async with serving(config(dialogue__greeting="Hi")) as rig:
        page = await rig.call()
        await until(lambda: any(m["final"] for m in page.of("caption")))
        page.send({"type": "mute", "on": True})
        await asyncio.sleep(0.2)
        await page.speak(0.8)
        await asyncio.sleep(0.8)
        assert [m for m in page.of("caption") if m["speaker"] == "user"] == []


async def test_a_log_that_could_not_be_written_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agent.errors import StoreError

    monkeypatch.setattr("agent.web.calls.RETRY_S", 0.1)
    with Store.open(f"sqlite:///{tmp_path}/s.sqlite3") as store:
        async with serving(config(dialogue__greeting="Hi"), store) as rig:
            page = await rig.call()
            full = True
            write = type(store).writing

            def writing(self: Store, patient: bool = True):
                if full:
                    raise StoreError("the disk is full", "make room")
                return write(self, patient)

            monkeypatch.setattr(Store, "writing", writing)
            await until(lambda: any(m["final"] for m in page.of("caption")))
            await until(lambda: page.of("notice"))
            await page.request("POST", "/hangup")
            await until(lambda: page.of("ended"))
            rating = await page.request("POST", "/rating", json={"overall_affect": 40})
            assert rating.status_code == 204
            assert store.get(page.id).turns == []
            full = False
            await until(lambda: store.get(page.id).overall_affect == 40)
            session = store.get(page.id)
            assert session.ended_how is EndedHow.HUNG_UP
            assert session.turns[0].text == "Hi"


async def test_nothing_said_and_no_secret_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    from tests import scripted

    caplog.set_level("DEBUG", logger="geli")
    engines = scripted.engines(lambda pcm: "xylophone confession")
    async with serving(config(dialogue__greeting="Hi"), engines=engines) as rig:
        page = await rig.call()
        await talked(rig, page)
        await page.request("POST", "/hangup")
        await until(lambda: page.of("ended"))
        ours = "\n".join(r.getMessage() for r in caplog.records if r.name.startswith("geli"))
        assert page.id in str([vars(r) for r in caplog.records])
        for secret in ("xylophone", "lovely", page.secret):
            assert secret not in ours
