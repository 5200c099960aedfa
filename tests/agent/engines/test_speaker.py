"""The voice: what it says, and when each word is."""

from __future__ import annotations

import numpy as np
import pytest

from agent.config import Config
from agent.engines.recognizer import open_faster_whisper
from agent.engines.speaker import HibariSpeaker, open_hibari
from agent.errors import ConfigError
from agent.weights import ensure
from tests import media

pytestmark = pytest.mark.engine

SENTENCES = (
    "I am sorry to hear that, it sounds like a really hard day.",
    "My sister is getting married next month.",
    "The doctor said that, after all, everything will be fine.",
    "Would you like to tell me more about your garden?",
    "Oh! That is wonderful news, and I am so happy for you.",
    "Yes.",
)


@pytest.fixture(scope="module")
def voice() -> HibariSpeaker:
    return open_hibari(Config())


def test_a_recogniser_reads_it_back(voice: HibariSpeaker) -> None:
    whisper = open_faster_whisper(Config())
    rates = []
    for text in SENTENCES[:5]:
        spoken = voice.say(text)
        pcm = media.as_float(media.resampled(spoken.pcm, spoken.sample_rate_hz))
        rates.append(media.wer(text, whisper.transcribe(pcm).text))
    assert np.mean(rates) < 0.05, rates


@pytest.mark.parametrize("text", SENTENCES)
def test_words_lie_in_order_within_the_speech(voice: HibariSpeaker, text: str) -> None:
    spoken = voice.say(text)
    assert spoken.pcm.dtype == np.int16 and spoken.sample_rate_hz == 24_000
    assert [word.word for word in spoken.words] == text.split()
    edges = [edge for word in spoken.words for edge in (word.start_s, word.end_s)]
    assert edges == sorted(edges) and edges[0] >= 0
    assert edges[-1] <= len(spoken.pcm) / spoken.sample_rate_hz
    assert np.abs(spoken.pcm).max() > 3000


def test_word_times_agree_with_the_recognisers(voice: HibariSpeaker) -> None:
    """Ends against faster-whisper's own word timestamps (attention alignment, 20 ms steps)."""
    from faster_whisper import WhisperModel

    config = Config()
    model = WhisperModel(str(ensure(config.recognizer.model, config.models)), device="cpu")
    errors: list[float] = []
    for text in SENTENCES[:5]:
        spoken = voice.say(text)
        pcm = media.as_float(media.resampled(spoken.pcm, spoken.sample_rate_hz))
        segments, _ = model.transcribe(pcm, language="en", word_timestamps=True, beam_size=1)
        heard = [word for segment in segments for word in segment.words]
        if len(heard) == len(spoken.words):
            errors += [abs(a.end - b.end_s) for a, b in zip(heard, spoken.words, strict=True)]
    assert len(errors) > 25
    print(f"word ends: median {np.median(errors):.3f} s, p90 {np.percentile(errors, 90):.3f} s")
    assert np.median(errors) < 0.12


@pytest.mark.parametrize("text", ["", "   ", "...", "?!", "—"])
def test_nothing_to_say_is_silence(voice: HibariSpeaker, text: str) -> None:
    spoken = voice.say(text)
    assert len(spoken.pcm) == 0 and spoken.words == []


@pytest.mark.parametrize("text", ["3.50", "naïve café", "AI & you", "Hm.", "日本", "x" * 200])
def test_odd_text_is_no_error(voice: HibariSpeaker, text: str) -> None:
    spoken = voice.say(text)
    assert spoken.pcm.ndim == 1 and len(spoken.words) in (0, len(text.split()))


def test_the_same_text_sounds_the_same(voice: HibariSpeaker) -> None:
    assert np.array_equal(voice.say(SENTENCES[0]).pcm, voice.say(SENTENCES[0]).pcm)


def test_speed(voice: HibariSpeaker) -> None:
    fast = HibariSpeaker(speed=1.5)
    assert len(fast.say(SENTENCES[0]).pcm) < 0.8 * len(voice.say(SENTENCES[0]).pcm)


def test_an_unknown_voice() -> None:
    with pytest.raises(ConfigError, match="heart"):
        HibariSpeaker("nobody")
