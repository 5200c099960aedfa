"""Text to speech: Hibari (Apache-2.0), 24 kHz, with the time of each word.

Hibari gives no durations, so each word gets a share of the voiced stretch by its phonemes, and
punctuation a share of its own for the pause it makes.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.config import Config
from agent.engines.protocols import Speech, WordTime
from agent.errors import ConfigError, WeightsError

LEAD_S, TAIL_S = 0.02, 0.12
"""Silence kept before and after the voiced part of a chunk."""
SENTENCE_TAIL_S = 0.28
"""After the end of a sentence: the pause before the next one."""
QUIET = 0.01
PAUSES = {",": 3.0, ";": 4.0, ":": 4.0, ".": 5.0, "!": 5.0, "?": 5.0, "—": 4.0, "…": 6.0}
"""Weight of the pause behind a word, in phonemes."""

ABBREVIATIONS = frozenset({"Mr.", "Mrs.", "Ms.", "Dr.", "St.", "Prof.", "e.g.", "i.e."})


class HibariSpeaker:
    """One Hibari voice.

    Raises:
        ConfigError: there is no such voice.
    """

    def __init__(self, voice: str | None = None, speed: float = 1.0) -> None:
        from hibari import Hibari
        from hibari.voices import DEFAULT, VOICES

        name = voice or DEFAULT
        if name not in VOICES:
            raise ConfigError(f"speaker.voice = {name!r} is unknown", f"one of {', '.join(VOICES)}")
        try:
            self._tts: Any = Hibari(name)
        except OSError as error:
            raise WeightsError(
                f"the voice {name!r} cannot be fetched: {error}", f"use speaker.voice = {DEFAULT!r}"
            ) from None
        self._speed = speed
        self.id = f"hibari-{name}"

    def say(self, text: str) -> Speech:
        """Speech of `text`; empty when there is nothing in it to pronounce."""
        rate = int(self._tts.sample_rate)
        words = text.split()
        weights = [self._weight(word) for word in words]
        audio = self._tts(text, speed=self._speed, seed=0) if any(w for w, _ in weights) else None
        if audio is None or not len(audio):
            return Speech(np.zeros(0, np.int16), rate)
        loud = np.flatnonzero(np.abs(audio) > QUIET)
        if not len(loud):
            return Speech(np.zeros(0, np.int16), rate)
        tail_s = SENTENCE_TAIL_S if re.search(r"[.!?…]['\")]*$", text) else TAIL_S
        begin = max(0, loud[0] - int(LEAD_S * rate))
        voiced_s = (loud[-1] - loud[0] + 1) / rate
        samples = audio[begin : loud[-1] + 1]
        samples = np.concatenate([samples, np.zeros(int(tail_s * rate), samples.dtype)])
        pcm: NDArray[np.int16] = (np.clip(samples, -1, 1) * 32767).astype(np.int16)
        return Speech(pcm, rate, _spread(words, weights, (loud[0] - begin) / rate, voiced_s))

    def _weight(self, word: str) -> tuple[float, float]:
        """(phonemes of the word, weight of the pause behind it)."""
        bare = re.sub(r"[^\w']+", " ", word).strip()
        phonemes = "".join(self._tts.phonemize(bare)) if bare else ""
        sounds = sum(1 for p in phonemes if p not in "ˈˌ .,?!;:")
        return float(sounds), 0.0 if word in ABBREVIATIONS else PAUSES.get(word[-1:], 0.0)


def _spread(
    words: list[str], weights: list[tuple[float, float]], start_s: float, voiced_s: float
) -> list[WordTime]:
    """Spread the voiced stretch over the words; the last word's pause lies behind it."""
    whole = sum(w + p for w, p in weights) - (weights[-1][1] if weights else 0.0)
    unit_s = voiced_s / whole if whole else 0.0
    times, at_s = [], start_s
    for word, (sounds, pause) in zip(words, weights, strict=True):
        end_s = at_s + sounds * unit_s
        times.append(WordTime(word, float(at_s), float(end_s)))
        at_s = end_s + pause * unit_s
    return times


def open_hibari(config: Config) -> HibariSpeaker:
    """The voice of `speaker.engine = "hibari"`."""
    return HibariSpeaker(config.speaker.voice, config.speaker.speed)
