"""What was played, and which words that was."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.engines.protocols import WordTime
from agent.playback import RATE_HZ, Playback

pytestmark = pytest.mark.unit

BLOCK = 960


def chunk(text: str, word_s: float = 0.3) -> tuple[np.ndarray, list[WordTime], str]:
    words = text.split()
    samples = np.full(int(RATE_HZ * word_s * len(words)), 1000, np.int16)
    return samples, [WordTime(w, i * word_s, (i + 1) * word_s) for i, w in enumerate(words)], text


def playing(*texts: str) -> Playback:
    playback = Playback()
    for text in texts:
        playback.add(*chunk(text))
    return playback


def test_everything_played_is_the_text_as_written() -> None:
    playback = playing("One, two.", "Three!")
    playback.close()
    while not playback.ended:
        playback.read(BLOCK)
    assert playback.heard_text() == "One, two. Three!"


def test_stopping_keeps_the_words_that_were_heard() -> None:
    playback = playing("one two three four", "five six")
    for _ in range(35):  # 0.7 s: two words and a third of the third
        playback.read(BLOCK)
    playback.stop()
    assert playback.heard_text() == "one two"
    assert playback.ended and not playback.read(BLOCK).any()


def test_stopping_before_the_first_sample_heard_nothing() -> None:
    playback = playing("one two")
    playback.stop()
    assert playback.heard_text() == "" and playback.ended


def test_hold_is_silent_after_a_short_fade_and_resume_repeats_the_cut_word() -> None:
    playback = playing("one two three")
    for _ in range(20):  # 0.4 s: in the middle of "two"
        playback.read(BLOCK)
    playback.hold()
    fade = playback.read(BLOCK)
    assert fade[0] > 900 and not fade[480:].any()
    assert not playback.read(BLOCK).any()
    assert playback.heard_text() == "one"
    playback.resume()
    left = 0
    playback.close()
    while not playback.ended:
        left += int((playback.read(BLOCK) != 0).sum())
    assert left == pytest.approx(0.6 * RATE_HZ, abs=BLOCK), "from the start of 'two'"
    assert playback.heard_text() == "one two three"


def test_a_late_chunk_is_silence_not_the_end() -> None:
    playback = playing("one")
    for _ in range(20):
        playback.read(BLOCK)
    assert not playback.ended and playback.gap_samples > 0
    playback.add(*chunk("two"))
    assert playback.read(BLOCK).any()


def test_waiting_for_the_first_chunk_is_no_gap() -> None:
    playback = Playback()
    assert not playback.read(BLOCK).any()
    assert not playback.started and playback.gap_samples == 0


def test_silence_in_front_of_speech_does_not_count_as_started() -> None:
    playback = Playback()
    playback.add(np.concatenate([np.zeros(BLOCK, np.int16), np.ones(BLOCK, np.int16)]), [], "x")
    playback.read(BLOCK)
    assert not playback.started
    playback.read(BLOCK)
    assert playback.started


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=5),
    st.lists(st.sampled_from(["read", "hold", "resume"]), max_size=60),
    st.integers(1, 2000),
)
def test_heard_words_are_always_a_prefix(sizes: list[int], moves: list[str], block: int) -> None:
    """However playback is held and resumed, what was heard is a prefix of what was said and
    never falls back by more than the word that is repeated."""
    texts = [" ".join(f"w{k}-{i}" for i in range(n)) for k, n in enumerate(sizes)]
    playback = playing(*texts)
    whole = " ".join(texts).split()
    before = 0
    for move in moves:
        if move == "read":
            assert len(playback.read(block)) == block
        elif move == "hold":
            playback.hold()
        else:
            playback.resume()
        heard = playback.heard_text().split()
        assert heard == whole[: len(heard)]
        assert len(heard) >= before - 1
        before = len(heard)
    playback.stop()
    assert playback.ended
