"""A small server that speaks the page's protocol over real WebRTC, with nobody behind it.

The test drives the other side: what is said, when the peer vanishes, what the server refuses.
It exists to test the page alone; the whole program is tested with the real server elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import fractions
import json
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import uvicorn
from aiortc import MediaStreamTrack, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles

from agent.records import OVERALL_AFFECT_QUESTION

STATIC = Path(__file__).parents[2] / "agent" / "web" / "static"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
RATE_HZ = 48_000
FRAME = 960  # 20 ms


class Tone(MediaStreamTrack):
    """20 ms frames on the wall clock: a 220 Hz tone while `on`, silence otherwise."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self.on = False
        self.sent = 0
        self.began: float | None = None

    async def recv(self) -> av.AudioFrame:
        loop = asyncio.get_running_loop()
        if self.began is None:
            self.began = loop.time()
        await asyncio.sleep(max(0.0, self.began + self.sent * FRAME / RATE_HZ - loop.time()))
        t = (np.arange(FRAME) + self.sent * FRAME) / RATE_HZ
        wave = np.sin(2 * np.pi * 220 * t) * (9000 if self.on else 0)
        frame = av.AudioFrame(format="s16", layout="mono", samples=FRAME)
        frame.planes[0].update(wave.astype(np.int16).tobytes())
        frame.sample_rate = RATE_HZ
        frame.pts = self.sent * FRAME
        frame.time_base = fractions.Fraction(1, RATE_HZ)
        self.sent += 1
        return frame


@dataclass
class FakeSession:
    """What the fake knows of one session."""

    id: str
    secret: str
    offers: list[dict[str, Any]] = field(default_factory=list)
    received: list[dict[str, Any]] = field(default_factory=list)
    state: str = "live"
    ended_how: str | None = None
    rating: dict[str, Any] | None = None
    away: int = 0
    deleted: bool = False
    peak: int = 0
    """Largest sample of the page's microphone in its latest 20 ms."""
    video_frames: int = 0
    video_size: tuple[int, int] | None = None
    peer: RTCPeerConnection | None = None
    channel: Any = None
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    """The peer's data channel is there."""
    tone: Tone | None = None

    def types(self) -> list[str]:
        return [message["type"] for message in self.received]


class FakeServer:
    """Runs in its own thread; the public methods may be called from the test's thread."""

    def __init__(self) -> None:
        self.sessions: list[FakeSession] = []
        self.busy = False
        self.token: str | None = None
        self.answers_pings = True
        self.asked_info = 0
        self.refuses: tuple[int, str, str] | None = None
        """How offers are refused."""
        self.unreachable = False
        """The worker of the sessions does not answer the others."""
        self.info: dict[str, Any] = {
            "version": "0.1.0",
            "profile": "cpu",
            "question": OVERALL_AFFECT_QUESTION,
            "ice_servers": [],
            "relay_only": False,
            "heartbeat_ms": 200,
            "vanished_after_ms": 1500,
            "resume_s": 60,
            "video": {"width": 320, "height": 240, "frameRate": 15, "sendRate": 7.5},
            "classifier": "mini-xception",
            "policy": "smollm2-135m-instruct",
            "busy": False,
        }
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.loop = asyncio.new_event_loop()
        self.server = uvicorn.Server(
            uvicorn.Config(self._app(), port=self.port, log_level="warning", lifespan="off")
        )
        self.thread = threading.Thread(target=self._run, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def last(self) -> FakeSession:
        return self.sessions[-1]

    def send(self, **message: Any) -> None:
        self._do(self._send(self.last, message))

    def speak(self, on: bool) -> None:
        tone = self.last.tone
        assert tone is not None
        tone.on = on

    def drop(self) -> None:
        """Close the peer without a word."""
        self._do(self._close(self.last))

    def end(self, how: str = "timed_out", can_rate: bool = True) -> None:
        """End the session as the server does, with its message."""
        self.last.state, self.last.ended_how = "ended", how
        self.send(type="ended", how=how, can_rate=can_rate)

    def finish(self, how: str) -> None:
        """End the session while nobody is there to be told."""
        self.last.state, self.last.ended_how = "ended", how

    def _do(self, work: Awaitable[None]) -> None:
        async def wrapped() -> None:
            await work

        asyncio.run_coroutine_threadsafe(wrapped(), self.loop).result(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self.server.serve())
        for session in self.sessions:
            self.loop.run_until_complete(self._close(session))

    async def _send(self, session: FakeSession, message: dict[str, Any]) -> None:
        await session.opened.wait()  # the peer is connected before its data channel is open
        session.channel.send(json.dumps(message))

    async def _close(self, session: FakeSession) -> None:
        peer, session.peer, session.channel = session.peer, None, None
        session.opened.clear()
        if peer is not None:
            await peer.close()

    def _app(self) -> FastAPI:
        app = FastAPI()
        app.mount("/static", StaticFiles(directory=STATIC))

        @app.middleware("http")
        async def guard(request: Request, follow: Callable[[Request], Any]) -> Response:
            asked = request.url.path
            open_to_all = not asked.startswith("/api/") or asked == "/api/token"
            if self.token and not open_to_all and request.cookies.get("token") != self.token:
                return refusal(401, "an access token is needed", "open the page with ?token=…")
            response: Response = await follow(request)
            response.headers["Content-Security-Policy"] = CSP
            return response

        @app.get("/")
        async def index(token: str | None = None) -> Response:
            response = FileResponse(STATIC / "index.html")
            if token:
                response.set_cookie("token", token, httponly=True, samesite="strict")
            return response

        @app.post("/api/token")
        async def enter(request: Request) -> Response:
            if (await request.json())["token"] != self.token:
                return refusal(401, "wrong token", "")
            response = Response(status_code=204)
            response.set_cookie("token", str(self.token), httponly=True, samesite="strict")
            return response

        @app.get("/api/info")
        async def info() -> dict[str, Any]:
            self.asked_info += 1
            return {**self.info, "busy": self.busy}

        @app.post("/api/offer")
        async def offer(request: Request) -> Response:
            return await self._offer(await request.json())

        @app.get("/api/sessions/{sid}")
        async def status(sid: str, request: Request) -> Response:
            it = self._find(sid, request.headers.get("x-session-secret"))
            if self.unreachable:
                return refusal(503, "the worker that holds this call cannot be reached", "wait")
            if it is None:
                return refusal(404, "no such session", "")
            return JSONResponse(
                {
                    "state": it.state,
                    "ended_how": it.ended_how,
                    "can_rate": it.offers[0]["consent"] != "talk_only",
                    "rated": it.rating is not None,
                }
            )

        @app.post("/api/sessions/{sid}/{verb}")
        async def act(sid: str, verb: str, request: Request) -> Response:
            body = await request.body()
            data = json.loads(body) if body else {}
            secret = data.get("secret") or request.headers.get("x-session-secret")
            it = self._find(sid, secret)
            if it is None:
                return refusal(404, "no such session", "")
            if verb == "rating":
                it.rating = data
            elif verb == "away":
                it.away += 1
                it.state = "away"
            elif verb == "hangup":
                it.state, it.ended_how = "ended", "hung_up"
            return Response(status_code=204)

        @app.delete("/api/sessions/{sid}")
        async def forget(sid: str, request: Request) -> Response:
            it = self._find(sid, request.headers.get("x-session-secret"))
            if it is None:
                return refusal(404, "no such session", "")
            it.deleted = True
            return Response(status_code=204)

        return app

    def _find(self, sid: str, secret: str | None) -> FakeSession | None:
        return next((s for s in self.sessions if s.id == sid and s.secret == secret), None)

    async def _offer(self, body: dict[str, Any]) -> Response:
        if self.refuses:
            return refusal(*self.refuses)
        if self.busy:
            return refusal(503, "all calls are taken", "try again in a few minutes")
        resume = body["resume"]
        if resume:
            session = self._find(resume["session_id"], resume["secret"])
            if session is None or session.state == "ended":
                return refusal(410, "the call is over", "start a new one")
            session.state = "live"
            await self._close(session)
        else:
            number = len(self.sessions) + 1
            session = FakeSession(id=f"fake-{number}", secret=f"secret-{number}")
            self.sessions.append(session)
        session.offers.append({k: v for k, v in body.items() if k != "sdp"})
        answer = await self._answer(session, body["sdp"])
        return JSONResponse(
            {
                "sdp": answer.sdp,
                "type": answer.type,
                "session_id": session.id,
                "secret": session.secret,
            }
        )

    async def _answer(self, session: FakeSession, sdp: str) -> RTCSessionDescription:
        peer = session.peer = RTCPeerConnection()
        session.tone = Tone()
        drains: set[asyncio.Task[None]] = set()

        @peer.on("datachannel")
        def on_channel(channel: Any) -> None:
            assert channel.label == "geli"
            session.channel = channel
            session.opened.set()

            @channel.on("message")
            def on_message(text: str) -> None:
                message = json.loads(text)
                session.received.append(message)
                if message["type"] == "ping" and self.answers_pings:
                    channel.send(json.dumps({"type": "pong", "t": message["t"]}))
                if message["type"] == "hangup":
                    session.state, session.ended_how = "ended", "hung_up"
                    can_rate = session.offers[0]["consent"] != "talk_only"
                    ended = {"type": "ended", "how": "hung_up", "can_rate": can_rate}
                    channel.send(json.dumps(ended))

        @peer.on("track")
        def on_track(track: MediaStreamTrack) -> None:
            task = asyncio.ensure_future(drain(track, session))
            drains.add(task)
            task.add_done_callback(drains.discard)

        peer.addTrack(session.tone)
        await peer.setRemoteDescription(RTCSessionDescription(sdp=sdp, type="offer"))
        await peer.setLocalDescription(await peer.createAnswer())
        return peer.localDescription


async def drain(track: MediaStreamTrack, session: FakeSession) -> None:
    """Read a track to its end, noting how loud or how large it is."""
    with contextlib.suppress(MediaStreamError):
        while True:
            frame = await track.recv()
            if track.kind == "audio":
                session.peak = int(np.abs(frame.to_ndarray().astype(np.int32)).max())
            else:
                session.video_frames += 1
                session.video_size = (frame.width, frame.height)


def refusal(status: int, error: str, way_out: str) -> Response:
    return JSONResponse({"error": error, "way_out": way_out}, status_code=status)


@contextlib.contextmanager
def running() -> Iterator[FakeServer]:
    """A fake server that listens while the block runs."""
    fake = FakeServer()
    fake.thread.start()
    while not fake.server.started:
        fake.thread.join(0.02)
    try:
        yield fake
    finally:
        fake.server.should_exit = True
        fake.thread.join(10)
