"""Whisper on recordings and on synthesised speech."""

from __future__ import annotations

import numpy as np
import pytest

from agent import media as recordings
from agent.config import Config
from agent.engines.protocols import Pcm
from agent.engines.recognizer import FasterWhisper, open_faster_whisper, repeats_itself
from tests import media

pytestmark = pytest.mark.engine

SENTENCES = (
    "I had a really long day at work and I am quite tired.",
    "My sister is getting married next month.",
    "Honestly, I've been feeling a bit lonely lately.",
    "What do you usually do on weekends?",
    "I am planning a trip to the mountains with two old friends, if the weather is good.",
    "No, not really.",
)


@pytest.fixture(scope="module")
def whisper() -> FasterWhisper:
    return open_faster_whisper(Config())


def turn(pcm: Pcm) -> Pcm:
    """As the call hands it over: a little silence on both sides."""
    return np.concatenate([np.zeros(1600, np.float32), pcm, np.zeros(3200, np.float32)])


@pytest.mark.parametrize("name", ["quick_brown_fox", "hello_world", "counting"])
def test_recordings(whisper: FasterWhisper, name: str) -> None:
    path, text = media.speech(name)
    heard = whisper.transcribe(turn(media.as_float(recordings.read_audio(path))))
    assert media.wer(text, heard.text) == 0, heard.text
    assert heard.confidence > -1


def test_sentences(whisper: FasterWhisper) -> None:
    heard = [whisper.transcribe(turn(media.as_float(media.say(text)))) for text in SENTENCES]
    rates = [media.wer(text, one.text) for text, one in zip(SENTENCES, heard, strict=True)]
    assert np.mean(rates) < 0.05, [one.text for one in heard]
    assert any(not one.full_pass for one in heard), "the short window was never enough"


@pytest.mark.parametrize("snr_db", [20, 10])
def test_sentences_in_noise(whisper: FasterWhisper, snr_db: int) -> None:
    rates = []
    for seed, text in enumerate(SENTENCES):
        pcm = media.with_noise(turn(media.as_float(media.say(text))), snr_db, seed)
        rates.append(media.wer(text, whisper.transcribe(pcm).text))
    assert np.mean(rates) < 0.1, rates


def test_the_short_window_says_what_the_full_pass_says(whisper: FasterWhisper) -> None:
    full = open_faster_whisper(Config.model_validate({"recognizer": {"short_window": False}}))
    for text in SENTENCES[:4]:
        pcm = turn(media.as_float(media.say(text)))
        long = full.transcribe(pcm)
        assert long.full_pass
        assert media.wer(long.text, whisper.transcribe(pcm).text) == 0


@pytest.mark.parametrize("seconds", [0.05, 0.5, 2.0, 6.0])
@pytest.mark.parametrize("level", [0.0, 1e-3, 1e-2, 5e-2])
def test_nothing_said_is_nothing_heard(
    whisper: FasterWhisper, seconds: float, level: float
) -> None:
    noise = np.random.default_rng(1).normal(0, level, int(seconds * 16_000)).astype(np.float32)
    assert whisper.transcribe(noise).text == ""


def test_a_tone_is_nothing(whisper: FasterWhisper) -> None:
    tone = 0.1 * np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000)
    assert whisper.transcribe(tone.astype(np.float32)).text == ""


def test_a_long_turn_takes_the_full_pass(whisper: FasterWhisper) -> None:
    said = " ".join(SENTENCES * 3)
    pcm = np.concatenate([turn(media.as_float(media.say(text))) for text in SENTENCES * 3])
    assert len(pcm) > 35 * 16_000
    heard = whisper.transcribe(pcm)
    assert heard.full_pass
    assert media.wer(said, heard.text) < 0.1, heard.text


@pytest.mark.parametrize(
    ("text", "repeats"),
    [
        ("my sister is here my sister is here", True),
        ("i like tea if the weather is good if the weather is good", True),
        ("what do you think what do you", True),
        ("yes yes", True),
        ("one two three four five", False),
        ("no not really", False),
        ("yes", False),
        ("", False),
    ],
)
def test_repetition(text: str, repeats: bool) -> None:
    assert repeats_itself(text.split()) is repeats
