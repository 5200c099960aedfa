"""A WebRTC peer that speaks utterances and notes when it hears the agent: the bench's user.

Its own process and its own aiortc: nothing is shared with the server but the loopback interface.
"""

from __future__ import annotations

import asyncio
import bisect
import fractions
import json
import time
from dataclasses import dataclass, field
from typing import Any

import av
import httpx
import numpy as np
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCSessionDescription,
)
from numpy.typing import NDArray

RATE_HZ = 48_000
BLOCK = 960
LOUD = 0.01
"""Peak (full scale 1) above which a 20 ms frame is not silent."""
QUIET_S = 0.3
"""Silence this long means that the agent has stopped."""


class Mouth(MediaStreamTrack):
    """Sends silence, and utterances when told; knows when their ends left."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._first: float | None = None
        self._sent = 0
        self._speech: NDArray[np.int16] = np.zeros(0, np.int16)
        self.onset = 0.0
        """Wall time (perf_counter) at which the first sample of the utterance was sent."""
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()
        self.end = 0.0
        """Wall time at which its last sample was sent."""

    def say(self, pcm: NDArray[np.int16]) -> None:
        """Speak `pcm`, int16 [samples] at 48 kHz, from the next frame on."""
        self._speech = pcm
        self.begun.clear()
        self.ended.clear()

    async def recv(self) -> av.AudioFrame:
        now = time.perf_counter()
        if self._first is None:
            self._first = now
        due = self._first + self._sent * BLOCK / RATE_HZ
        await asyncio.sleep(max(0.0, due - now))
        block = self._speech[:BLOCK]
        if len(block):
            if not self.begun.is_set():
                self.onset = time.perf_counter()
                self.begun.set()
            self._speech = self._speech[BLOCK:]
            if not len(self._speech):
                # Its last sample lies within this frame, which is sent when it is whole.
                self.end = time.perf_counter() - (BLOCK - len(block)) / RATE_HZ
                self.ended.set()
        frame = av.AudioFrame(format="s16", layout="mono", samples=BLOCK)
        frame.planes[0].update(np.pad(block, (0, BLOCK - len(block))).tobytes())
        frame.sample_rate, frame.pts = RATE_HZ, self._sent * BLOCK
        frame.time_base = fractions.Fraction(1, RATE_HZ)
        self._sent += 1
        return frame


@dataclass
class Ear:
    """What reached the peer of the agent's voice."""

    loud: list[float] = field(default_factory=list)
    """When each frame came that is not silent, wall time (perf_counter)."""

    async def listen(self, track: MediaStreamTrack) -> None:
        while True:
            frame = await track.recv()
            peak = float(np.abs(frame.to_ndarray().astype(np.int32)).max()) / 32768
            if peak > LOUD:
                self.loud.append(time.perf_counter())

    async def voice_after(self, moment: float, limit_s: float) -> float | None:
        """When the first frame that is not silent arrived after `moment`."""
        while time.perf_counter() < moment + limit_s:
            first = bisect.bisect_right(self.loud, moment)
            if first < len(self.loud):
                return self.loud[first]
            await asyncio.sleep(0.005)
        return None

    async def silence_after(self, moment: float, limit_s: float) -> float | None:
        """When the last frame of voice before a lasting silence arrived, after `moment`."""
        while time.perf_counter() < moment + limit_s:
            last = self.loud[-1] if self.loud else moment
            if time.perf_counter() - last >= QUIET_S:
                return max(last, moment)
            await asyncio.sleep(0.01)
        return None

    def is_quiet(self) -> bool:
        """Whether nothing was heard for `QUIET_S`."""
        return not self.loud or self.loud[-1] <= time.perf_counter() - QUIET_S


class Peer:
    """One call from the user's side."""

    def __init__(
        self, url: str, consent: str = "keep", camera: MediaStreamTrack | None = None
    ) -> None:
        self._url = url
        self._consent = consent
        self._camera = camera
        self._pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.mouth = Mouth()
        self.ear = Ear()
        self.session_id = ""
        self.events: list[dict[str, Any]] = []
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Peer:
        pc = self._pc
        channel = pc.createDataChannel("geli")
        channel.on("message", lambda text: self.events.append(json.loads(text)))

        @pc.on("track")
        def on_track(track: MediaStreamTrack) -> None:
            self._keep(self.ear.listen(track))

        pc.addTrack(self.mouth)
        if self._camera is not None:
            pc.addTransceiver(self._camera, direction="sendonly")
        await pc.setLocalDescription(await pc.createOffer())
        offer = {
            "sdp": pc.localDescription.sdp,
            "type": "offer",
            "consent": self._consent,
            "camera": self._camera is not None,
            "resume": None,
        }
        async with httpx.AsyncClient(timeout=30) as client:
            response = await client.post(f"{self._url}/api/offer", json=offer)
        response.raise_for_status()
        answer = response.json()
        self.session_id, self._secret = answer["session_id"], answer["secret"]
        await pc.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))

        async def beat() -> None:
            while True:
                if channel.readyState == "open":
                    channel.send(json.dumps({"type": "ping", "t": time.time()}))
                await asyncio.sleep(1)

        self._keep(beat())
        return self

    async def __aexit__(self, *problem: object) -> None:
        async with httpx.AsyncClient(timeout=30) as client:
            await client.post(
                f"{self._url}/api/sessions/{self.session_id}/hangup",
                headers={"X-Session-Secret": self._secret},
            )
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._pc.close()

    def _keep(self, work: Any) -> None:
        self._tasks.add(asyncio.create_task(work))
