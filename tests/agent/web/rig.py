"""The real application on a real socket, with scripted engines, and real aiortc peers as pages."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from fractions import Fraction
from typing import Any

import av
import httpx
import numpy as np
import uvicorn
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

from agent.config import Config, load
from agent.host import Host
from agent.store import Store
from agent.web.server import create_app
from tests import scripted

FRAME = 960  # 20 ms at 48 kHz


def config(**sets: Any) -> Config:
    """The cpu profile without perception, with quick limits; `section__key=value` overrides."""
    values = {"perception.enabled": "false", "limits.heartbeat_s": "0.2", "server.port": "0"}
    values |= {key.replace("__", "."): str(value) for key, value in sets.items()}
    return load("cpu", [f"{key}={value}" for key, value in values.items()])


class Rig:
    """A running server."""

    def __init__(self, host: Host, port: int) -> None:
        self.host = host
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.http = httpx.AsyncClient(base_url=self.url, timeout=20)
        self.pages: list[Page] = []

    @property
    def calls(self) -> Any:
        return self.app.state.calls

    app: Any

    def page(self) -> Page:
        page = Page(self)
        self.pages.append(page)
        return page

    async def call(self, **offer: Any) -> Page:
        """A page whose call is connected and whose data channel is open."""
        page = self.page()
        await page.call(**offer)
        return page


@contextlib.asynccontextmanager
async def serving(
    settings: Config, store: Store | None = None, engines: Any = None, rollout: Any = None
) -> AsyncIterator[Rig]:
    """The server while the block runs."""
    host = Host(settings, store, engines or scripted.engines(), rollout=rollout)
    await host.start()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        rig = Rig(host, listening.getsockname()[1])
        rig.app = create_app(host)
        server = uvicorn.Server(
            uvicorn.Config(
                rig.app,
                log_config=None,
                access_log=False,
                server_header=False,
                ws="none",
                lifespan="on",
                timeout_graceful_shutdown=2,
            )
        )
        running = asyncio.create_task(server.serve(sockets=[listening]))
        await until(lambda: server.started)
        try:
            yield rig
        finally:
            for page in rig.pages:
                await page.close()
            await rig.http.aclose()
            server.should_exit = True
            await running
            await host.close()


async def until(done: Callable[[], object], limit_s: float = 10.0) -> None:
    """Wait until `done()`; a functional limit, not a measurement."""
    async with asyncio.timeout(limit_s):
        while not done():  # noqa: ASYNC110 (it looks at other people's state)
            await asyncio.sleep(0.01)


class Microphone(MediaStreamTrack):
    """20 ms frames on the wall clock: a 220 Hz tone while `on`, silence otherwise."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self.on = False
        self._sent = 0
        self._began: float | None = None

    async def recv(self) -> av.AudioFrame:
        if self.readyState != "live":
            raise MediaStreamError
        loop = asyncio.get_running_loop()
        if self._began is None:
            self._began = loop.time()
        await asyncio.sleep(max(0.0, self._began + self._sent * FRAME / 48_000 - loop.time()))
        t = (np.arange(FRAME) + self._sent * FRAME) / 48_000
        wave = np.sin(2 * np.pi * 220 * t) * (9000 if self.on else 0)
        frame = av.AudioFrame(format="s16", layout="mono", samples=FRAME)
        frame.planes[0].update(wave.astype(np.int16).tobytes())
        frame.sample_rate = 48_000
        frame.pts = self._sent * FRAME
        frame.time_base = Fraction(1, 48_000)
        self._sent += 1
        return frame


class Camera(MediaStreamTrack):
    """Red frames, 320 x 240, about 15 a second."""

    kind = "video"

    def __init__(self) -> None:
        super().__init__()
        self._sent = 0

    async def recv(self) -> av.VideoFrame:
        await asyncio.sleep(1 / 15)
        pixels = np.zeros((240, 320, 3), np.uint8)
        pixels[..., 0] = 220
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts = self._sent * 6000
        frame.time_base = Fraction(1, 90_000)
        self._sent += 1
        return frame


class Page:
    """What agent/web/static/call.js does, over aiortc."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.pc: RTCPeerConnection | None = None
        self.ice = RTCConfiguration(iceServers=[])
        self.channel: Any = None
        self.microphone = Microphone()
        self.messages: list[dict[str, Any]] = []
        self.pongs = 0
        self.id = ""
        self.secret = ""
        self.peaks: list[tuple[float, int]] = []
        """When each received frame came (event loop's clock), and its largest sample."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._beating: asyncio.Task[None] | None = None

    async def offer_sdp(self, *, video: bool = False) -> str:
        """A new peer connection's offer."""
        await self.drop_peer()
        self.pc = RTCPeerConnection(self.ice)
        self.microphone = Microphone()
        self.pc.addTrack(self.microphone)
        if video:
            self.pc.addTransceiver(Camera(), direction="sendonly")
        self.channel = self.pc.createDataChannel("geli")
        self.channel.on("message", self._receive)
        self.pc.on("track", self._on_track)
        await self.pc.setLocalDescription(await self.pc.createOffer())
        sdp: str = self.pc.localDescription.sdp
        return sdp

    async def post_offer(self, *, resume: bool = False, **body: Any) -> httpx.Response:
        video = body.pop("video", False)
        sdp = body.pop("sdp", None) or await self.offer_sdp(video=video)
        again = {"session_id": self.id, "secret": self.secret} if resume else None
        offer = {"sdp": sdp, "type": "offer", "consent": "keep", "camera": False, "resume": again}
        return await self.rig.http.post(
            "/api/offer", json=offer | body, headers={"Origin": self.rig.url}
        )

    async def call(self, **offer: Any) -> None:
        response = await self.post_offer(**offer)
        assert response.status_code == 200, response.text
        answer = response.json()
        self.id, self.secret = answer["session_id"], answer["secret"]
        assert self.pc is not None
        await self.pc.setRemoteDescription(RTCSessionDescription(sdp=answer["sdp"], type="answer"))
        await until(lambda: self.channel.readyState == "open")
        self._beating = self._spawn(self._beat())

    async def resume(self) -> None:
        await self.call(resume=True)

    async def speak(self, seconds: float) -> None:
        self.microphone.on = True
        await asyncio.sleep(seconds)
        self.microphone.on = False

    async def talk(self, limit_s: float = 20.0) -> None:
        """Let the agent end what it says, speak, and wait until a reply is heard."""
        async with asyncio.timeout(limit_s):
            listening = {"type": "state", "state": "listening"}
            await until(lambda: self.of("state")[-1:] == [listening], limit_s)
            spoken = self.said()
            await self.speak(0.8)
            since = asyncio.get_running_loop().time()
            await until(lambda: self.said() > spoken and self.heard(since), limit_s)

    def said(self) -> int:
        """How many turns of the agent the page has seen."""
        return len({m["turn"] for m in self.of("caption") if m["speaker"] == "agent"})

    def send(self, message: Any) -> None:
        self.channel.send(message if isinstance(message, str | bytes) else json.dumps(message))

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["type"] == kind]

    def heard(self, since: float = 0.0) -> bool:
        """Whether the agent's tone has come out of the peer connection since then."""
        return any(peak > 1000 for at, peak in self.peaks if at >= since)

    @property
    def headers(self) -> dict[str, str]:
        return {"X-Session-Secret": self.secret, "Origin": self.rig.url}

    async def request(self, method: str, verb: str = "", **more: Any) -> httpx.Response:
        path = f"/api/sessions/{self.id}{verb}"
        headers = self.headers | more.pop("headers", {})
        return await self.rig.http.request(method, path, headers=headers, **more)

    async def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = (await self.request("GET")).json()
        return answer

    async def vanish(self) -> None:
        """Go without a word, as a killed browser does: sockets closed, no goodbye at any layer."""
        assert self.pc is not None
        await self.stop_heartbeat()
        for transport in transports(self.pc):
            transport._send = _into_the_void
            await transport._connection.close()

    async def stop_heartbeat(self) -> None:
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
            self._beating = None

    async def drop_peer(self) -> None:
        await self.stop_heartbeat()
        pc, self.pc, self.channel = self.pc, None, None
        if pc is not None:
            await pc.close()

    async def close(self) -> None:
        await self.drop_peer()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _receive(self, data: str) -> None:
        message = json.loads(data)
        if message["type"] == "pong":
            self.pongs += 1
        else:
            self.messages.append(message)

    async def _beat(self) -> None:
        channel = self.channel
        while channel.readyState == "open":
            channel.send(json.dumps({"type": "ping", "t": asyncio.get_running_loop().time()}))
            await asyncio.sleep(self.rig.host.config.limits.heartbeat_s)

    def _on_track(self, track: MediaStreamTrack) -> None:
        self._spawn(self._drain(track))

    async def _drain(self, track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                peak = int(np.abs(frame.to_ndarray().astype(np.int32)).max())
                self.peaks.append((asyncio.get_running_loop().time(), peak))

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def transports(pc: RTCPeerConnection) -> list[Any]:
    """The ICE transports of a peer connection, where faults are injected."""
    found = [t.receiver.transport.transport for t in pc.getTransceivers()]
    if pc.sctp is not None:
        found.append(pc.sctp.transport.transport)
    return list(dict.fromkeys(found))


async def _into_the_void(data: bytes) -> None:
    """Instead of sending."""
