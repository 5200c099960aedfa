"""What the call asks of its engines. All calls are synchronous and may be slow: the call runs
each engine on its own single-thread executor, never on the event loop. Only a `Conversation` has a
thread of its own: several of a responder's conversations run at once.

Audio in is float32 mono at 16 kHz in [-1, 1], shape [samples].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 16_000
"""Rate of all audio that engines hear."""
VAD_FRAME_SAMPLES = 512
"""Silero's window: 32 ms at 16 kHz."""

Pcm = NDArray[np.float32]


@dataclass(slots=True, frozen=True)
class Transcript:
    """What the recogniser heard."""

    text: str
    confidence: float
    """Mean token log-probability (natural log), 0 is certain."""
    full_pass: bool = True
    """False when the shortened window was enough."""


@dataclass(slots=True, frozen=True)
class Message:
    """One message of the dialogue history as the policy reads it."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(slots=True, frozen=True)
class WordTime:
    """A spoken word and where it lies in its chunk, seconds from the chunk's first sample."""

    word: str
    start_s: float
    end_s: float


@dataclass(slots=True, frozen=True)
class Speech:
    """Synthesised speech of one chunk of text."""

    pcm: NDArray[np.int16]
    """Mono samples at `sample_rate_hz`, shape [samples]."""
    sample_rate_hz: int
    words: list[WordTime] = field(default_factory=list)


class VoiceStream(Protocol):
    """Voice activity of one audio stream; keeps the model's state between frames."""

    def feed(self, frame: Pcm) -> float:
        """Speech probability of the next `VAD_FRAME_SAMPLES` samples."""
        ...


class VoiceActivity(Protocol):
    """Voice activity detector."""

    id: str

    def open(self) -> VoiceStream: ...


class EndOfTurn(Protocol):
    """Semantic end-of-turn model: has the speaker finished, or only paused?"""

    id: str

    def complete(self, pcm: Pcm) -> float:
        """Probability that the turn is over, from its audio so far (the last 8 s count)."""
        ...


class Recognizer(Protocol):
    """Speech to text."""

    id: str

    def transcribe(self, pcm: Pcm) -> Transcript:
        """The words of one utterance; empty text when there were none."""
        ...


class Conversation(Protocol):
    """One dialogue with the policy; may keep its attention cache between replies."""

    def prefill(self, messages: Sequence[Message]) -> None:
        """Read the history ahead of time, so that a reply starts sooner. May do nothing."""
        ...

    def reply(self, messages: Sequence[Message], should_stop: Callable[[], bool]) -> Iterator[str]:
        """Stream the reply's text in pieces; ends early once `should_stop()` is true.

        Raises:
            EngineError: the policy failed or its server is out of reach.
        """
        ...

    def count_tokens(self, text: str) -> int:
        """Tokens of `text` in the policy's own tokenizer (an estimate where it is remote)."""
        ...


class Responder(Protocol):
    """The policy: a language model that answers."""

    id: str
    policy_id: str
    """Base model and adapter, as logged with every turn."""

    def open(self, seed: int | None = None) -> Conversation: ...


class Speaker(Protocol):
    """Text to speech."""

    id: str

    def say(self, text: str) -> Speech: ...


class Sentiment(Protocol):
    """Language sentiment of one utterance."""

    id: str

    def score(self, text: str) -> float:
        """-1 (negative) to 1 (positive)."""
        ...
