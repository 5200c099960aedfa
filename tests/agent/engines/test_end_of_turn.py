"""Smart Turn: has the speaker finished, or only paused?"""

from __future__ import annotations

import numpy as np
import pytest

from agent.config import Config
from agent.engines.end_of_turn import SmartTurn, open_smart_turn
from agent.engines.protocols import Pcm
from tests import media

pytestmark = pytest.mark.engine

PAUSE = np.zeros(3200, np.float32)
FINISHED = (
    "I went for a walk in the park this morning.",
    "What do you usually do on weekends?",
    "No, not really.",
    "My sister is getting married next month.",
)


@pytest.fixture(scope="module")
def smart_turn() -> SmartTurn:
    return open_smart_turn(Config())


def heard(text: str, share: float = 1.0) -> Pcm:
    pcm = media.as_float(media.say(text))
    return np.concatenate([pcm[: int(len(pcm) * share)], PAUSE])


@pytest.mark.parametrize("text", FINISHED)
def test_a_finished_sentence(smart_turn: SmartTurn, text: str) -> None:
    assert smart_turn.complete(heard(text)) > 0.5


def test_a_turn_broken_off_is_less_complete(smart_turn: SmartTurn) -> None:
    """On average over sentences: the model hears prosody, and single cuts of a synthesised voice
    mislead it ("My sister is getting" scores 0.98, "... if the weather is good." whole 0.05)."""
    texts = (
        *FINISHED,
        "I am planning a trip to the mountains with two old friends, if the weather is good.",
        "I had a really long day at work and I am quite tired.",
    )
    whole = [smart_turn.complete(heard(text)) for text in texts]
    shares = (0.3, 0.4, 0.5, 0.6)
    cut = [smart_turn.complete(heard(text, share)) for text in texts for share in shares]
    assert np.mean(whole) > np.mean(cut) + 0.2
    assert max(smart_turn.complete(heard(FINISHED[0], share)) for share in shares) < 0.5


def test_only_the_last_eight_seconds_count(smart_turn: SmartTurn) -> None:
    long = np.concatenate([heard(text) for text in FINISHED] * 2)
    assert len(long) > 8 * 16_000
    other = long.copy()
    other[: len(long) - 8 * 16_000] = 0.3
    assert smart_turn.complete(long) == smart_turn.complete(other)


def test_features_are_those_of_the_models_card(smart_turn: SmartTurn) -> None:
    """The card uses transformers' WhisperFeatureExtractor; ours must agree with it."""
    from transformers import WhisperFeatureExtractor

    pcm = heard(FINISHED[0])
    padded = np.pad(pcm, (8 * 16_000 - len(pcm), 0))
    reference = WhisperFeatureExtractor(chunk_length=8)(
        padded,
        sampling_rate=16_000,
        return_tensors="np",
        do_normalize=True,
        padding="max_length",
        max_length=8 * 16_000,
        truncation=True,
    ).input_features[0]
    ours = smart_turn.features(pcm)
    assert ours.shape == reference.shape == (80, 800)
    assert np.abs(ours - reference).mean() < 0.01


@pytest.mark.parametrize("samples", [1, 160, 16_000])
def test_any_length_gives_a_probability(smart_turn: SmartTurn, samples: int) -> None:
    assert 0 <= smart_turn.complete(np.zeros(samples, np.float32)) <= 1
