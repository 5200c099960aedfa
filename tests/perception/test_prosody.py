"""Loudness and pitch of known sounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.errors import PerceptionError
from perception.prosody import prosody

pytestmark = pytest.mark.unit

HZ = 16_000


def voice(f0_hz: np.ndarray | float, seconds: float = 2.0, peak: float = 0.3) -> np.ndarray:
    """Ten harmonics, falling off, as a throat makes them."""
    f0 = np.broadcast_to(np.asarray(f0_hz, dtype=float), (int(seconds * HZ),))
    phase = 2 * np.pi * np.cumsum(f0) / HZ
    sound = sum(np.sin(k * phase) / k for k in range(1, 11))
    return (peak * sound / np.abs(sound).max()).astype(np.float32)


@pytest.mark.parametrize("f0_hz", [80.0, 110.0, 123.4, 200.0, 305.0, 400.0])
def test_a_steady_voice(f0_hz: float) -> None:
    features = prosody(voice(f0_hz))
    assert features["f0_median_hz"] == pytest.approx(f0_hz, rel=0.01)
    assert features["f0_range_semitones"] < 0.3
    assert features["voiced_share"] > 0.95
    assert features["duration_s"] == 2.0


def test_loudness_is_the_rms_in_decibels() -> None:
    tone = (0.5 * np.sin(2 * np.pi * 150 * np.arange(HZ) / HZ)).astype(np.float32)
    expected = 20 * math.log10(0.5 / math.sqrt(2))
    assert prosody(tone)["loudness_dbfs"] == pytest.approx(expected, abs=0.1)
    assert prosody(tone / 10)["loudness_dbfs"] == pytest.approx(expected - 20, abs=0.1)
    # Pauses do not make a voice quieter.
    paused = np.concatenate([tone, np.zeros(3 * HZ, np.float32)])
    assert prosody(paused)["loudness_dbfs"] == pytest.approx(expected, abs=0.3)


def test_a_glide_of_an_octave() -> None:
    features = prosody(voice(np.geomspace(110, 220, 2 * HZ)))
    # The 10th to the 90th percentile of twelve semitones.
    assert features["f0_range_semitones"] == pytest.approx(9.6, abs=0.5)
    assert features["f0_median_hz"] == pytest.approx(110 * math.sqrt(2), rel=0.03)


def test_whisper_and_silence_have_no_pitch() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 2 * HZ).astype(np.float32)
    features = prosody(noise)
    assert features["voiced_share"] < 0.1
    assert "loudness_dbfs" in features
    assert prosody(np.zeros(HZ, np.float32)) == {"duration_s": 1.0}
    assert prosody(np.zeros(0, np.float32)) == {"duration_s": 0.0}


@settings(deadline=None, max_examples=50)
@given(
    st.integers(0, 3000),
    st.sampled_from([0.0, 1e-6, 0.1, 1.0, 30.0]),
    st.integers(0, 99),
    st.sampled_from([None, np.nan, np.inf]),
)
def test_no_feature_is_ever_not_a_number(
    samples: int, gain: float, seed: int, bad: float | None
) -> None:
    pcm = (gain * np.random.default_rng(seed).normal(size=samples)).astype(np.float32)
    if bad is not None and samples:
        pcm[samples // 2] = bad
    features = prosody(pcm)
    assert all(math.isfinite(value) for value in features.values())
    assert set(features) <= {
        "duration_s", "loudness_dbfs", "f0_median_hz", "f0_range_semitones", "voiced_share",
    }  # fmt: skip


def test_other_shapes_are_refused() -> None:
    with pytest.raises(PerceptionError, match="float"):
        prosody(np.zeros((2, 99), np.float32))
    with pytest.raises(PerceptionError, match="int16"):
        prosody(np.zeros(99, np.int16))  # type: ignore[arg-type]
