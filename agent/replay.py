"""A recorded user side through the same call pipeline, in real time or as fast as it goes.

The recording starts when the greeting is over and then runs untouched, sound and pictures in step.
In a fast replay the session clock stands still while the engines work: the agent answers as if
its engines took no time, so the same recording and seed give the same session on any machine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from agent.call import Call, OnEvent
from agent.engines.protocols import SAMPLE_RATE_HZ
from agent.host import Host
from agent.media import read_audio, read_video
from agent.playback import RATE_HZ
from agent.records import Consent, Session

BLOCK_S = 0.02
BLOCK_IN = int(SAMPLE_RATE_HZ * BLOCK_S)
BLOCK_OUT = int(RATE_HZ * BLOCK_S)
TAIL_S = 3.0
"""Silence after the last word of either side before the replay hangs up: a window of the face."""
LONGEST_TAIL_S = 120.0

Frames = Iterator[tuple[float, NDArray[np.uint8]]]
Progress = Callable[[float, float], None]
"""(seconds played, seconds of the recording)"""


@dataclass(slots=True, frozen=True)
class Recording:
    """One user side."""

    audio: NDArray[np.int16]  # [samples], 16 kHz mono
    video: Path | None = None

    @classmethod
    def read(cls, audio: Path, video: Path | None) -> Recording:
        """Read the sound and make sure that the pictures can be read.

        Raises:
            MediaError: either cannot be read.
        """
        if video is not None:
            next(read_video(video))
        return cls(read_audio(audio), video)

    @property
    def duration_s(self) -> float:
        return len(self.audio) / SAMPLE_RATE_HZ


async def replay(
    host: Host,
    recording: Recording,
    *,
    consent: Consent = Consent.KEEP,
    speed: Literal["real", "fast"] = "fast",
    seed: int | None = 0,
    on_event: OnEvent = lambda event: None,
    progress: Progress = lambda done_s, whole_s: None,
) -> Session:
    """Hold a call with a recording; return its session record (rating still to come)."""
    session = Session(consent=consent, source="replay")
    paced = speed == "real"
    call = host.new_call(session, on_event, paced=paced, seed=seed)
    running = asyncio.create_task(call.run())
    try:
        await asyncio.sleep(0)
        await _Pump(call, recording, paced, progress).run(running)
    finally:
        call.hang_up()
        await running
    return session


class _Pump:
    """Moves the session clock: 20 ms in, 20 ms out."""

    def __init__(self, call: Call, recording: Recording, paced: bool, progress: Progress) -> None:
        self._call = call
        self._recording = recording
        self._paced = paced
        self._progress = progress
        self._frames: Frames = read_video(recording.video) if recording.video else iter(())
        self._next_frame: tuple[float, NDArray[np.uint8]] | None = None
        self._due = time.perf_counter()

    async def run(self, running: asyncio.Task[object]) -> None:
        silence = np.zeros(BLOCK_IN, np.int16)
        self._next_frame = await self._frame()
        await self._lead_in(silence, running)
        start_s = self._call.clock_s
        audio = self._recording.audio
        for begin in range(0, len(audio), BLOCK_IN):
            block = audio[begin : begin + BLOCK_IN]
            await self._step(np.pad(block, (0, BLOCK_IN - len(block))), start_s)
            self._progress(begin / SAMPLE_RATE_HZ, self._recording.duration_s)
            if running.done():
                return
        quiet_s, end_s = 0.0, self._call.clock_s + LONGEST_TAIL_S
        while (quiet_s < TAIL_S or self._next_frame) and self._call.clock_s < end_s:
            await self._step(silence, start_s)
            busy = self._call.agent_has_turn or self._call.user_has_turn
            quiet_s = 0.0 if busy else quiet_s + BLOCK_S
            if running.done():
                return

    async def _lead_in(self, silence: NDArray[np.int16], running: asyncio.Task[object]) -> None:
        """The greeting, before the recording starts."""
        await self._step(silence, None)
        while self._call.agent_has_turn and not running.done():
            await self._step(silence, None)

    async def _step(self, block: NDArray[np.int16], start_s: float | None) -> None:
        self._call.hear(block)
        if start_s is not None:
            played_s = self._call.clock_s - start_s
            while self._next_frame is not None and self._next_frame[0] <= played_s:
                self._call.see(self._next_frame[1])
                self._next_frame = await self._frame()
        if self._paced:
            self._due += BLOCK_S
            await asyncio.sleep(max(0.0, self._due - time.perf_counter()))
        else:
            await self._call.settle()
        self._call.play(BLOCK_OUT)

    async def _frame(self) -> tuple[float, NDArray[np.uint8]] | None:
        if self._recording.video is None:
            return None
        return await asyncio.to_thread(next, self._frames, None)
