"""The agent's voice on its way out: what was handed to the transport, and which words that was.

Pure and synchronous: the transport pulls 20 ms blocks with `read`, the call adds chunks of speech.
Samples handed over count as heard: the page still plays what is in flight (about 0.1 s), so the
text of a truncated turn ends with the last word that really reached the listener.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.engines.protocols import WordTime

RATE_HZ = 48_000
"""Rate of everything played: Opus' own."""
HEARD_SHARE = 0.6
"""A word counts as heard once this share of it was played."""
FADE_SAMPLES = 480
"""10 ms: a cut without a click."""


@dataclass(slots=True)
class _Chunk:
    samples: NDArray[np.int16]  # [n] at RATE_HZ
    words: Sequence[WordTime]
    text: str
    total: int
    position: int = 0


class Playback:
    """One turn of the agent being played."""

    def __init__(self) -> None:
        self._chunks: list[_Chunk] = []
        self._index = 0  # chunk being played
        self._held = False
        self._fade = False
        self._complete = False  # no more chunks will come
        self.started = False
        """A sample that can be heard was handed over."""
        self.gap_samples = 0
        """Silence handed over in mid-turn because the next chunk was late."""

    def add(self, samples: NDArray[np.int16], words: Sequence[WordTime], text: str) -> None:
        """Append a chunk of speech: `samples` [n] mono at 48 kHz, its words and its text."""
        self._chunks.append(_Chunk(samples, words, text, len(samples)))

    def close(self) -> None:
        """No more chunks will come; the turn ends when what is there was played."""
        self._complete = True

    @property
    def ended(self) -> bool:
        """Everything was handed over and nothing more will come."""
        return self._complete and self._index >= len(self._chunks)

    def hold(self) -> None:
        """Fall silent with the next block."""
        self._fade = not self._held and self._playing()
        self._held = True

    def resume(self) -> None:
        """Go on from the start of the word that was cut."""
        if not self._held:
            return
        self._held = self._fade = False
        if self._index < len(self._chunks):
            chunk = self._chunks[self._index]
            at_s = chunk.position / RATE_HZ
            cut = [word for word in chunk.words if word.start_s <= at_s < word.end_s]
            if cut:
                chunk.position = int(cut[0].start_s * RATE_HZ)

    def stop(self) -> None:
        """Drop what was not played yet."""
        self._complete = True
        if self._index < len(self._chunks):
            at = self._index
            chunk = self._chunks[at]
            chunk.samples = chunk.samples[: chunk.position]
            del self._chunks[at + 1 :]
            self._index = len(self._chunks)
        self._held = False

    def read(self, samples: int) -> NDArray[np.int16]:
        """The next block, shape [samples]; silence while held, before the first chunk, after
        the last and while the next chunk is late."""
        out = np.zeros(samples, np.int16)
        if self._held and not self._fade:
            return out
        filled = 0
        while filled < samples and self._index < len(self._chunks):
            chunk = self._chunks[self._index]
            part = chunk.samples[chunk.position : chunk.position + samples - filled]
            out[filled : filled + len(part)] = part
            filled += len(part)
            chunk.position += len(part)
            self.started = self.started or bool(part.any())
            if chunk.position >= len(chunk.samples):
                self._index += 1
        if self._fade:
            self._fade = False
            ramp = np.zeros(samples)
            ramp[:FADE_SAMPLES] = np.linspace(1.0, 0.0, FADE_SAMPLES)[:samples]
            out = (out * ramp).astype(np.int16)
        elif self.started and not self.ended:
            self.gap_samples += samples - filled
        return out

    def heard_text(self) -> str:
        """The words that were played so far."""
        parts: list[str] = []
        for chunk in self._chunks[: self._index + 1]:
            if chunk.position >= chunk.total:
                parts.append(chunk.text)
                continue
            at_s = chunk.position / RATE_HZ
            parts += [
                word.word
                for word in chunk.words
                if word.start_s + HEARD_SHARE * (word.end_s - word.start_s) <= at_s
            ]
        return " ".join(part for part in parts if part)

    def current_chunk(self) -> int:
        """Index of the chunk that is being played (the number of chunks, at the end)."""
        return self._index

    def text_through(self, chunk: int) -> str:
        """Text of the chunks up to and with `chunk`, for captions."""
        return " ".join(c.text for c in self._chunks[: chunk + 1])

    def _playing(self) -> bool:
        return self.started and self._index < len(self._chunks)
