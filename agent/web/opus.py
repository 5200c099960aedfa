"""The sound of a call as Opus (RFC 6716), coded where it comes by: aiortc's own way costs more.

aiortc 1.16 sends every 20 ms of sound through a queue to another thread and back, stereo, silence
too. That was 21 ms of CPU a second of call for encoding and 8 to 12 for decoding, of which the
codec itself is 5 and 1.5 (`geli bench cost`). Here a frame is coded on the event loop: 0.05 ms to
encode, 0.03 to decode, less than it costs to hand it over.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av
import numpy as np
from aiortc.codecs import get_decoder
from numpy.typing import NDArray

from agent.engines.protocols import SAMPLE_RATE_HZ
from agent.playback import RATE_HZ

BITS_PER_S = 48_000
COMPLEXITY = 5
"""Of 0 to 10. Speech at 48 kbit/s, milliseconds a frame and signal to noise: 0.06 and 23.6 dB at
10, 0.05 and 22.8 at 5, 0.03 and 21.3 at 0; aiortc's stereo "voip" at 96 kbit/s: 0.10 and 10.5."""
SETTLED_FRAMES = 10
"""Silent frames that are really encoded; then the decoder has faded out, and the last is repeated.
"""
LONGEST_GAP_S = 0.5
"""A longer one is no loss: the sender paused."""
TIME_BASE = Fraction(1, RATE_HZ)


class Encoder:
    """Blocks of 20 ms, mono, to packets."""

    def __init__(self) -> None:
        self._codec: Any = av.CodecContext.create("libopus", "w")
        self._codec.bit_rate = BITS_PER_S
        self._codec.format = "s16"
        self._codec.layout = "mono"
        self._codec.sample_rate = RATE_HZ
        self._codec.time_base = TIME_BASE
        # "lowdelay": 2.5 ms of delay in the codec instead of 6.5.
        self._codec.options = {"application": "lowdelay", "compression_level": str(COMPLEXITY)}
        self._coded = 0  # samples, on the codec's own clock
        self._silent = 0
        self._silence = b""

    def encode(self, block: NDArray[np.int16], pts: int) -> Any:
        """The packet of `block` [960] at 48 kHz, with the timestamp `pts`."""
        silent = not block.any()
        self._silent = self._silent + 1 if silent else 0
        if self._silent <= SETTLED_FRAMES:
            self._silence = self._encode(block)
        packet = av.Packet(self._silence)
        packet.pts, packet.time_base = pts, TIME_BASE
        return packet

    def _encode(self, block: NDArray[np.int16]) -> bytes:
        frame = av.AudioFrame(format="s16", layout="mono", samples=len(block))
        frame.planes[0].update(block.tobytes())
        frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, self._coded, TIME_BASE
        self._coded += len(block)
        (packet,) = self._codec.encode(frame)
        return bytes(packet)


class Hearing:
    """Received sound, decoded as it arrives and handed on as 16 kHz mono. What was lost on its way
    is silence of the same length, since the session clock counts what is heard.

    It stands where an aiortc receiver keeps the queue to its decoder thread (`put`), which then
    waits in `get` for the end.

    Args:
        hear: takes int16 [samples] at 16 kHz.
        alive: called with every packet.
        failed: called once if `hear` raises; nothing is heard from then on.
    """

    def __init__(
        self,
        hear: Callable[[NDArray[np.int16]], None],
        alive: Callable[[], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._hear = hear
        self._alive = alive
        self._failed = failed
        self._broken = False
        self._codec_name = ""
        self._decoder: Any = None
        self._resampler: Any = None
        self._over = threading.Event()
        self._due: int | None = None
        """Timestamp at which the next frame should begin, on the codec's clock."""

    def put(self, task: tuple[Any, Any] | None) -> None:
        """A codec and a frame of its bytes; None: the end."""
        if task is None:
            self._over.set()
            return
        if self._broken:
            return
        codec, encoded = task
        self._alive()
        if codec.name != self._codec_name:
            self._codec_name = codec.name
            self._decoder = get_decoder(codec)
            self._decoder.codec.layout = "mono"  # before it is opened: stereo is mixed down there
            self._resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)
        if not encoded.data:
            return  # a decoder takes no bytes for the end
        try:
            frames = self._decoder.decode(encoded)
        except av.FFmpegError:
            return  # damaged on its way; the next frame is another
        try:
            self._fill(encoded.timestamp, codec.clockRate)
            for frame in frames:
                self._due = encoded.timestamp + frame.samples * codec.clockRate // frame.sample_rate
                for block in self._resampler.resample(frame):
                    self._hear(block.to_ndarray().reshape(-1))
        except Exception as error:
            # aiortc would end the connection for it; the call must end, and say why.
            self._broken = True
            self._failed(error)

    def _fill(self, timestamp: int, rate_hz: int) -> None:
        """Hear silence in place of what is missing before `timestamp`."""
        if self._due is None:
            return
        gap_s = (timestamp - self._due) / rate_hz
        if 0 < gap_s <= LONGEST_GAP_S:
            self._hear(np.zeros(round(gap_s * SAMPLE_RATE_HZ), np.int16))

    def get(self) -> None:
        """Wait for the end; called by aiortc's decoder thread, which has nothing else to do."""
        self._over.wait()
