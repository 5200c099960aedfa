"""A reply in the making: policy text, cut into speakable chunks, synthesised one by one.

It may be made before the turn is certain (a draft) and thrown away; the call decides when its
chunks go to the playback.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from agent.engines.protocols import Speaker, WordTime
from agent.errors import EngineError
from agent.observed import Span
from agent.playback import RATE_HZ

Kind = Literal["reply", "greeting", "prompt", "goodbye", "apology"]
TextSource = Callable[[Callable[[], bool]], Iterator[str]]
"""Yields speakable chunks of text; ends early once the function it is given returns True."""


@dataclass(slots=True, frozen=True)
class SpokenChunk:
    """One chunk, ready to play."""

    samples: NDArray[np.int16]  # [n] mono at RATE_HZ
    words: list[WordTime]
    text: str


@dataclass(slots=True)
class Timings:
    """Milliseconds since the reply was begun; None until it happened."""

    first_token_ms: float | None = None
    first_sentence_ms: float | None = None
    first_audio_ms: float | None = None
    """The synthesis of the first chunk alone."""
    speech_begun_ms: float | None = None
    """When that synthesis began."""


@dataclass(slots=True)
class Reply:
    """Makes one reply; `run` fills `ready` and calls `on_ready` after each chunk and at the end."""

    kind: Kind
    take: int
    source: TextSource
    speaker: Speaker
    text_lane: Executor | None
    """Where the text is made; None for a line that is known already."""
    speech_lane: Executor
    on_ready: Callable[[Reply], None]
    whole: bool = False
    """Speak nothing before the whole text is there (the sequential baseline)."""
    ready: list[SpokenChunk] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    done: bool = False
    failure: str | None = None
    timings: Timings = field(default_factory=Timings)
    _cancelled: bool = False
    _begun: float = field(default_factory=time.perf_counter)

    def cancel(self) -> None:
        """Stop as soon as possible; what is ready stays."""
        self._cancelled = True

    @property
    def text(self) -> str:
        """Everything written so far."""
        return " ".join(self.texts)

    def token_came(self) -> None:
        """Called by the source at its first token."""
        if self.timings.first_token_ms is None:
            self.timings.first_token_ms = self._ms()

    async def run(self) -> None:
        """Make the reply. An engine's failure ends up in `failure`, never as an exception."""
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[str | None] = asyncio.Queue()

        def write() -> None:
            try:
                for chunk in self.source(lambda: self._cancelled):
                    if self._cancelled:
                        break
                    loop.call_soon_threadsafe(chunks.put_nowait, chunk)
            finally:
                loop.call_soon_threadsafe(chunks.put_nowait, None)

        writing = loop.run_in_executor(self.text_lane, write) if self.text_lane else None
        if writing is None:
            write()
        try:
            while (chunk := await chunks.get()) is not None:
                if self.timings.first_sentence_ms is None:
                    self.timings.first_sentence_ms = self._ms()
                self.texts.append(chunk)
                if not self.whole and not self._cancelled:
                    await self._speak(chunk)
            if writing is not None:
                await writing
            if self.whole and self.text and not self._cancelled:
                await self._speak(self.text)
        except EngineError as error:
            self.failure = str(error)
        # A source may refer to this reply, and this reply refers to the call: together they would
        # keep a call's audio in memory until the collector of cycles comes by.
        self.source = _spent
        self.done = True
        if not self._cancelled:
            self.on_ready(self)

    async def _speak(self, text: str) -> None:
        begun = time.perf_counter()
        loop = asyncio.get_running_loop()
        chunk = await loop.run_in_executor(self.speech_lane, synthesise, self.speaker, text)
        if self.timings.first_audio_ms is None:
            self.timings.first_audio_ms = (time.perf_counter() - begun) * 1e3
            self.timings.speech_begun_ms = (begun - self._begun) * 1e3
        if self._cancelled or not len(chunk.samples):
            return
        self.ready.append(chunk)
        self.on_ready(self)

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled

    def when(self, after_ms: float | None) -> Span | None:
        """From the beginning of the reply until then; None: it did not happen."""
        return None if after_ms is None else (self._begun, self._begun + after_ms / 1e3)

    @property
    def first_synthesis(self) -> Span | None:
        """When the first chunk was synthesised."""
        begun_ms, took_ms = self.timings.speech_begun_ms, self.timings.first_audio_ms
        if begun_ms is None or took_ms is None:
            return None
        begun = self._begun + begun_ms / 1e3
        return begun, begun + took_ms / 1e3

    def _ms(self) -> float:
        return (time.perf_counter() - self._begun) * 1e3


def _spent(should_stop: Callable[[], bool]) -> Iterator[str]:
    return iter(())


def synthesise(speaker: Speaker, text: str) -> SpokenChunk:
    """Speech of `text` at the transport's rate, with its words' times."""
    speech = speaker.say(text)
    return SpokenChunk(resample(speech.pcm, speech.sample_rate_hz), speech.words, text)


def resample(pcm: NDArray[np.int16], rate_hz: int) -> NDArray[np.int16]:
    """Mono int16 [n] at `rate_hz` to mono int16 at RATE_HZ, by libswresample."""
    import av

    if rate_hz == RATE_HZ or not len(pcm):
        return pcm
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE_HZ)
    frame = av.AudioFrame.from_ndarray(pcm[np.newaxis, :], format="s16", layout="mono")
    frame.sample_rate = rate_hz
    frames = [*resampler.resample(frame), *resampler.resample(None)]
    return np.concatenate([f.to_ndarray()[0] for f in frames])
