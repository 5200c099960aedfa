"""Voice activity on real recordings."""

from __future__ import annotations

import numpy as np
import pytest

from agent import media as recordings
from agent.engines.protocols import SAMPLE_RATE_HZ, VAD_FRAME_SAMPLES, Pcm
from agent.engines.voice import Silero
from tests import media

pytestmark = pytest.mark.engine

FRAME = VAD_FRAME_SAMPLES


@pytest.fixture(scope="module")
def silero() -> Silero:
    return Silero()


def silence(seconds: float, level: float = 1e-4) -> Pcm:
    noise = np.random.default_rng(0).normal(0, level, int(seconds * SAMPLE_RATE_HZ))
    return noise.astype(np.float32)


def probabilities(silero: Silero, pcm: Pcm) -> np.ndarray:
    stream = silero.open()
    starts = range(0, len(pcm) - FRAME + 1, FRAME)
    return np.array([stream.feed(pcm[i : i + FRAME]) for i in starts])


@pytest.mark.parametrize("name", ["quick_brown_fox", "hello_world", "counting"])
def test_speech_between_silences(silero: Silero, name: str) -> None:
    speech = media.as_float(recordings.read_audio(media.speech(name)[0]))
    lead = silence(1.024)
    heard = probabilities(silero, np.concatenate([lead, speech, silence(2.048)]))
    begin, end = len(lead) // FRAME, (len(lead) + len(speech)) // FRAME
    assert heard[:begin].max() < 0.5
    assert np.mean(heard[begin:end] > 0.5) > 0.5
    assert heard[-30:].max() < 0.5


@pytest.mark.parametrize("level", [0.0, 1e-3, 3e-2])
def test_noise_is_no_speech(silero: Silero, level: float) -> None:
    assert probabilities(silero, silence(4.0, level)).max() < 0.5


def test_the_same_as_the_library(silero: Silero) -> None:
    """faster-whisper runs the same model over a whole recording at once."""
    from faster_whisper.vad import get_vad_model

    speech = media.as_float(recordings.read_audio(media.speech("counting")[0]))
    speech = speech[: len(speech) // FRAME * FRAME]
    expected = np.ravel(get_vad_model()(speech))
    assert np.allclose(probabilities(silero, speech), expected[: len(speech) // FRAME], atol=2e-2)


def test_streams_do_not_mix(silero: Silero) -> None:
    speech = media.as_float(media.say("Hello there, how are you today?"))
    alone = probabilities(silero, speech)
    one, other = silero.open(), silero.open()
    mixed = []
    for i in range(0, len(speech) - FRAME + 1, FRAME):
        mixed.append(one.feed(speech[i : i + FRAME]))
        other.feed(silence(0.032))
    assert np.array_equal(alone, mixed)


def test_a_frame_of_another_length(silero: Silero) -> None:
    with pytest.raises(ValueError, match="512"):
        silero.open().feed(np.zeros(480, np.float32))
