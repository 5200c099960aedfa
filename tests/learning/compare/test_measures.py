"""Measures of replies against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from learning.compare import measures as m
from learning.dialogue import Utterance

pytestmark = pytest.mark.unit


def agent(text: str) -> Utterance:
    return Utterance("agent", text)


def listener(text: str) -> Utterance:
    return Utterance("listener", text)


def test_words_are_counted_without_punctuation() -> None:
    assert m.length((), "Well, it's two — no: three!") == 5
    assert m.words(["one two", "one two three four", "..."]) == 2
    assert math.isnan(m.words([]))


def test_curly_apostrophes_make_the_same_words() -> None:
    assert m.words_of("It’s") == m.words_of("it's") == ("it's",)


def test_distinct_n() -> None:
    replies = ["a b a b", "a b"]
    assert m.distinct(replies, 1) == 2 / 6
    assert m.distinct(replies, 2) == 2 / 4  # ab, ba, ab, ab
    assert math.isnan(m.distinct(["one"], 2))


def test_distinct_without_a_group_is_distinct_of_the_rest() -> None:
    rng = np.random.default_rng(0)
    replies = [" ".join(rng.choice(list("abcdefgh"), rng.integers(0, 7))) for _ in range(24)]
    owner = np.repeat(np.arange(8), 3)
    for n in (1, 2):
        rest = [
            m.distinct([r for r, o in zip(replies, owner, strict=True) if o != g], n)
            for g in range(8)
        ]
        assert m.distinct_without(replies, owner, n) == pytest.approx(rest)


def test_nothing_is_left_without_the_only_group() -> None:
    assert np.isnan(m.distinct_without(["a b"], np.array([0]), 1)).all()


def test_repetition_within_a_reply() -> None:
    assert m.repeated((), "I like it I like it I like it") == 4 / 7
    assert m.repeated((), "all of these words differ") == 0
    assert m.repeated((), "too short") == 0


def test_repetition_of_earlier_turns_of_the_agent_only() -> None:
    said = "tell me more about it"
    assert m.repeated([agent("Tell me more about it."), listener("ok")], said) == 1
    assert m.repeated([listener(said)], said) == 0
    half = m.repeated([agent("tell me more please")], said)
    assert half == 1 / 3
    assert m.repetition([[agent(said)], []], [said, said]) == 0.5


def test_questions() -> None:
    assert m.question((), "Oh. Why?") == 1
    assert m.question((), "I wonder why.") == 0


def test_sentiment_has_the_sign_of_the_words() -> None:
    assert m.sentiment((), "I love this, it is wonderful!") > 0.5
    assert m.sentiment((), "This is horrible and sad.") < -0.5
    assert m.sentiment((), "The train leaves at four.") == 0


@pytest.mark.parametrize(
    "reply",
    [
        "You're such an amazing person.",
        "You are really smart!",
        "Wow, you have a wonderful smile.",
        "What a great question!",
        "Great question. I think so too.",
        "Your taste in music is brilliant.",
        "I really admire you for that.",
        "Well done!",
        "I love talking with you.",
        "You’re the best.",
    ],
)
def test_praise_of_the_listener_is_flattery(reply: str) -> None:
    assert m.flatters((), reply) == 1


@pytest.mark.parametrize(
    "reply",
    [
        "That sounds great, how was the food?",
        "It was a wonderful day for me.",
        "Are you tired?",
        "You are going to the lake?",
        "I hope your day is lovely.",
        "You are not interesting to them at all.",
        "",
    ],
)
def test_praise_of_something_else_is_none(reply: str) -> None:
    assert m.flatters((), reply) == 0


def test_identical_replies_and_without_a_group() -> None:
    replies = ["I see.", "i see", "Really?", "No.", "Really?", "Really?"]
    owner = np.array([0, 1, 1, 2, 2, 3])
    assert m.identical(replies) == 5 / 6
    rest = [
        m.identical([r for r, o in zip(replies, owner, strict=True) if o != g]) for g in range(4)
    ]
    assert m.identical_without(replies, owner) == pytest.approx(rest)


def test_empty_replies() -> None:
    found = m.per_reply([[], [], []], ["", " …", "hm"])
    assert found["empty"] == [1, 1, 0]
    assert set(found) == set(m.PER_REPLY)


def test_a_reply_too_many_is_refused() -> None:
    with pytest.raises(ValueError):
        m.per_reply([[]], ["a", "b"])
