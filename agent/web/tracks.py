"""Media of one peer: the agent's voice on its way out, and the camera's picture on its way in."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import av
import numpy as np
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError
from numpy.typing import NDArray

from agent.playback import RATE_HZ
from agent.web.opus import Encoder

FRAME_SAMPLES = 960  # 20 ms at 48 kHz
FRAME_S = FRAME_SAMPLES / RATE_HZ
STALL_S = 0.06
"""A frame later than this is no jitter any more: the lost time is skipped, not caught up."""
MAX_WIDTH_PX = 640

log_ = logging.getLogger("geli.web")

frames_ = ThreadPoolExecutor(1, thread_name_prefix="geli-frames")
"""Colour conversion of all calls, away from aiortc's own codec threads."""


@dataclass(slots=True)
class Totals:
    """What went on in all tracks of this process, for its metrics."""

    stalls: int = 0
    """Times that the agent's voice skipped ahead."""
    decoded: int = 0
    """Frames of cameras that came out of the decoder."""
    converted: int = 0
    """Those of them that the call was shown."""


TOTALS = Totals()


class Sink(Protocol):
    """What the media reaches: `agent.call.Call`."""

    def hear(self, pcm: NDArray[np.int16]) -> None: ...

    def see(self, rgb: NDArray[np.uint8]) -> None: ...

    def play(self, samples: int) -> NDArray[np.int16]: ...


class VoiceTrack(MediaStreamTrack):  # type: ignore[misc]
    """The agent's voice in 20 ms frames, paced by the event loop's clock.

    Timestamps are monotonic and follow that clock: after a stall they jump over the time that was
    lost (RFC 3550, section 5.1: the sampling clock runs on in silence), so that the listener
    neither gets a burst nor hears the call with a growing delay.

    Args:
        sink: gives the samples, one block a frame.
        failed: called once if the sink raises; silence is played from then on.
    """

    kind = "audio"

    def __init__(self, sink: Sink, failed: Callable[[], None]) -> None:
        super().__init__()
        self._sink = sink
        self._failed = failed
        self._broken = False
        self._due: float | None = None
        self._pts = 0
        self._encoder: Encoder | None = None
        self.stalls = 0
        """How often the event loop was so late that time was skipped."""

    def encode(self) -> None:
        """Give Opus packets from now on, not frames that aiortc has to encode."""
        self._encoder = Encoder()

    async def recv(self) -> Any:
        """The next frame or packet, when it is due. Called by aiortc's sender alone."""
        if self.readyState != "live":
            raise MediaStreamError
        loop = asyncio.get_running_loop()
        if self._due is None:
            self._due = loop.time()
        else:
            self._due += FRAME_S
            self._pts += FRAME_SAMPLES
            early_s = self._due - loop.time()
            if early_s > 0:
                await asyncio.sleep(early_s)
            elif early_s < -STALL_S:
                skipped = int(-early_s / FRAME_S)
                self._due += skipped * FRAME_S
                self._pts += skipped * FRAME_SAMPLES
                self.stalls += 1
                TOTALS.stalls += 1
        if self._encoder is not None:
            return self._encoder.encode(self._block(), self._pts)
        frame = av.AudioFrame(format="s16", layout="mono", samples=FRAME_SAMPLES)
        frame.planes[0].update(self._block().tobytes())
        frame.sample_rate = RATE_HZ
        frame.pts = self._pts
        frame.time_base = Fraction(1, RATE_HZ)
        return frame

    def _block(self) -> NDArray[np.int16]:
        if not self._broken:
            try:
                return self._sink.play(FRAME_SAMPLES)
            except Exception:
                # aiortc would stop sending for good and say nothing; end the call instead.
                log_.exception("the call's voice failed")
                self._broken = True
                self._failed()
        return np.zeros(FRAME_SAMPLES, np.int16)


async def drain_video(track: MediaStreamTrack, sink: Sink, frames_hz: float) -> None:
    """Read a received video track to its end; the latest frame goes to `sink.see`, `frames_hz`
    times a second at most. No frames at all is normal: the camera is off."""
    latest: list[Any] = []
    arrived = asyncio.Event()
    converting = asyncio.create_task(_convert(latest, arrived, sink, frames_hz))
    try:
        with contextlib.suppress(MediaStreamError):
            while not converting.done():
                latest[:] = [await track.recv()]
                TOTALS.decoded += 1
                arrived.set()
        if converting.done():
            converting.result()
    finally:
        converting.cancel()
        await asyncio.gather(converting, return_exceptions=True)


async def _convert(latest: list[Any], arrived: asyncio.Event, sink: Sink, frames_hz: float) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await arrived.wait()
        arrived.clear()
        begun = loop.time()
        sink.see(await loop.run_in_executor(frames_, rgb, latest.pop()))
        TOTALS.converted += 1
        await asyncio.sleep(max(0.0, begun + 1 / frames_hz - loop.time()))


def rgb(frame: Any) -> NDArray[np.uint8]:
    """A decoded frame as [height, width, 3], scaled down to `MAX_WIDTH_PX` where it is wider."""
    width = min(frame.width, MAX_WIDTH_PX)
    height = max(1, round(frame.height * width / frame.width))
    pixels: NDArray[np.uint8] = frame.reformat(width, height, "rgb24").to_ndarray()
    return pixels
