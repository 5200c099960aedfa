"""Engines that do what a script says and satisfy the real Protocols; for tests of everything else.

The user's speech is a tone; its words are what the test said they would be, in order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from agent.engines.protocols import (
    SAMPLE_RATE_HZ,
    Conversation,
    Message,
    Pcm,
    Speech,
    Transcript,
    VoiceStream,
    WordTime,
)
from agent.engines.table import Engines
from agent.errors import EngineError

WORD_S = 0.3
"""Length of every synthesised word."""


class LoudnessVad:
    """Speech is what is louder than -40 dBFS."""

    id = "scripted-vad"

    def open(self) -> VoiceStream:
        return self

    def feed(self, frame: Pcm) -> float:
        return 0.99 if float(np.sqrt(np.mean(frame**2))) > 0.01 else 0.01


@dataclass
class FixedEndOfTurn:
    complete_p: float = 0.95
    id: str = "scripted-end-of-turn"

    def complete(self, pcm: Pcm) -> float:
        return self.complete_p


@dataclass
class ListedRecognizer:
    """Says the words of the n-th utterance, recognised by how many samples came before it."""

    words: Callable[[Pcm], str]
    delay_s: float = 0.0
    id: str = "scripted-recognizer"

    def transcribe(self, pcm: Pcm) -> Transcript:
        time.sleep(self.delay_s)
        return Transcript(self.words(pcm), -0.1)


@dataclass
class ScriptedConversation:
    responder: ScriptedResponder

    def prefill(self, messages: Sequence[Message]) -> None:
        self.responder.prefilled.append(list(messages))

    def reply(self, messages: Sequence[Message], should_stop: Callable[[], bool]) -> Iterator[str]:
        self.responder.asked.append(list(messages))
        if self.responder.error and not self.responder.breaks:
            raise EngineError(self.responder.error)
        for piece in self.responder.answer(messages).split(" "):
            if should_stop():
                self.responder.stopped += 1
                return
            time.sleep(self.responder.delay_s)
            yield piece + " "
        if self.responder.error:
            raise EngineError(self.responder.error)

    def count_tokens(self, text: str) -> int:
        return len(text.split())


@dataclass
class ScriptedResponder:
    answer: Callable[[Sequence[Message]], str] = lambda messages: "That sounds lovely. Tell me."
    delay_s: float = 0.0
    error: str = ""
    breaks: bool = False
    """The error comes after the answer, not instead of it."""
    id: str = "scripted-responder"
    policy_id: str = "scripted-policy"
    asked: list[list[Message]] = field(default_factory=list)
    prefilled: list[list[Message]] = field(default_factory=list)
    stopped: int = 0

    def open(self, seed: int | None = None) -> Conversation:
        return ScriptedConversation(self)


class ToneSpeaker:
    """A word is `WORD_S` of a 440 Hz tone."""

    id = "scripted-speaker"

    def say(self, text: str) -> Speech:
        words = text.split()
        rate = 24_000
        t = np.arange(int(rate * WORD_S * len(words))) / rate
        pcm = (8000 * np.sin(2 * np.pi * 440 * t)).astype(np.int16)
        times = [WordTime(w, i * WORD_S, (i + 1) * WORD_S) for i, w in enumerate(words)]
        return Speech(pcm, rate, times)


class NoSentiment:
    id = "scripted-sentiment"

    def score(self, text: str) -> float:
        return 0.0


def engines(
    words: Callable[[Pcm], str] = lambda pcm: "hello there",
    responder: ScriptedResponder | None = None,
    *,
    asr_s: float = 0.0,
    complete: float = 0.95,
) -> Engines:
    """A full set; `words` gives the transcript of what it is handed."""
    return Engines(
        voice_activity=LoudnessVad(),
        end_of_turn=FixedEndOfTurn(complete),
        recognizer=ListedRecognizer(words, asr_s),
        responder=responder or ScriptedResponder(),
        speaker=ToneSpeaker(),
        sentiment=NoSentiment(),
    )


def tone(seconds: float, level: float = 0.3) -> NDArray[np.int16]:
    """The user speaking: int16 [samples] at 16 kHz."""
    t = np.arange(int(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    return (level * 32767 * np.sin(2 * np.pi * 220 * t)).astype(np.int16)


def silence(seconds: float) -> NDArray[np.int16]:
    """The user silent: int16 [samples] at 16 kHz."""
    return np.zeros(int(seconds * SAMPLE_RATE_HZ), np.int16)


def resampled(pcm: NDArray[np.int16], rate_hz: int) -> NDArray[np.int16]:
    """Samples at 16 kHz as samples at `rate_hz`."""
    count = int(len(pcm) * rate_hz / SAMPLE_RATE_HZ)
    at = np.linspace(0, len(pcm) - 1, count)
    return np.interp(at, np.arange(len(pcm)), pcm).astype(np.int16)
