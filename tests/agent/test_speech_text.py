"""From a policy's text to chunks for the voice."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.speech_text import MAX_CHUNK_WORDS, clean, speakable

pytestmark = pytest.mark.unit

WORDS = st.sampled_from(
    "I you we think that rain sun walk because and but happy today morning friend really "
    "coffee if garden music when".split()
)


@st.composite
def plain_texts(draw: st.DrawFn) -> str:
    """Sentences of plain words, each told apart by a number so that none is a repetition."""
    sentences = []
    for index in range(draw(st.integers(1, 5))):
        words = draw(st.lists(WORDS, min_size=1, max_size=45))
        for at in draw(st.lists(st.integers(0, len(words) - 1), max_size=3)):
            words[at] = words[at].rstrip(",") + ","
        words[-1] = words[-1].rstrip(",")
        sentences.append(" ".join([f"Sentence{index}", *words]) + draw(st.sampled_from(".!?")))
    return " ".join(sentences)


def cut(text: str, sizes: list[int]) -> list[str]:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(text[at : at + size])
        at += size
    return [piece for piece in [*pieces, text[at:]] if piece]


def spoken(text: str, max_words: int = 1000) -> list[str]:
    return list(speakable([text], max_words))


def by_token(text: str, max_words: int = 1000) -> list[str]:
    return list(speakable(re.findall(r"\s*\S+|\s+$", text), max_words))


@given(plain_texts(), st.lists(st.integers(1, 12), max_size=60))
def test_no_word_of_plain_text_is_lost_or_moved(text: str, sizes: list[int]) -> None:
    chunks = list(speakable(cut(text, sizes), max_words=1000))
    assert " ".join(chunks).split() == text.split()
    assert all(re.search(r"\w", chunk) for chunk in chunks)
    assert all(len(chunk.split()) <= MAX_CHUNK_WORDS + 1 for chunk in chunks)


@given(
    st.text(max_size=300) | st.text("ab .,!?*()[]\n-1_#😊:<|>…", max_size=200),
    st.lists(st.integers(1, 9), max_size=40),
    st.integers(5, 60),
)
def test_any_text_gives_chunks_that_can_be_said(
    text: str, sizes: list[int], max_words: int
) -> None:
    chunks = list(speakable(cut(text, sizes), max_words))
    assert all(re.search(r"\w", chunk) for chunk in chunks)
    assert all(not re.search(r"[*_`#<>{}\\\n]", chunk) for chunk in chunks)
    assert sum(len(chunk.split()) for chunk in chunks) < max_words


@given(plain_texts(), st.integers(5, 40))
def test_replies_stay_under_the_bound(text: str, max_words: int) -> None:
    chunks = by_token(text, max_words)
    assert chunks, "a reply is never empty"
    assert sum(len(chunk.split()) for chunk in chunks) < max_words


@given(plain_texts())
def test_a_text_is_said_alike_whatever_its_pieces(text: str) -> None:
    whole, pieces = " ".join(spoken(text)).split(), " ".join(by_token(text)).split()
    assert whole == pieces


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("I *always* mean *what I say*.", "I always mean what I say."),
        ("*nodding slowly* Right. *she looks away*", "Right."),
        ("Everything (nothing left out) is fine.", "Everything, nothing left out, is fine."),
        ("**Sure!** I *really* like it.", "Sure! I really like it."),
        ("*smiles warmly* That is lovely.", "That is lovely."),
        ("(laughs) That is lovely.", "That is lovely."),
        ("[waves] Hello there.", "Hello there."),
        ("I like tea (especially green) a lot.", "I like tea, especially green, a lot."),
        ("I like tea (especially green).", "I like tea, especially green."),
        ("Great! 😊🎉 Let's go ❤️.", "Great! Let's go."),
        ("# Title\nHello.", "Title Hello."),
        ("- apples\n- pears", "apples pears"),
        ("See [my page](https://x.example/a_b) please.", "See my page please."),
        ("Look at https://example.com/a?b=c now.", "Look at now."),
        ("`code` is fun.", "code is fun."),
        ("AI: Hello there.", "Hello there."),
        ("**Assistant:** Hello there.", "Hello there."),
        ("It is 3 * 4 = 12.", "It is 3 4 = 12."),
        ("snake_case is odd.", "snake case is odd."),
        ("Hmm … maybe.", "Hmm… maybe."),
        ('"Hello there, friend."', '"Hello there, friend."'),
        ("You (yes, you!) are kind.", "You, yes, you!, are kind."),
    ],
)
def test_clean(written: str, said: str) -> None:
    assert clean(written) == said


@pytest.mark.parametrize("make", [spoken, by_token, lambda t: list(speakable(list(t), 1000))])
class TestChunks:
    """The same whether the reply comes whole, by word or by character."""

    def test_sentences(self, make) -> None:
        assert make("I see. That is hard. Tell me more?") == [
            "I see.",
            "That is hard.",
            "Tell me more?",
        ]

    def test_the_users_turn_ends_the_reply(self, make) -> None:
        assert make("I am well.\nUser: And I am sad.\nAI: Oh.") == ["I am well."]
        assert make("I am well. Human: And?") == ["I am well."]
        assert make("I am well.<|im_end|>\n<|im_start|>user\nHi") == ["I am well."]

    def test_no_users_turn_where_the_word_is_only_said(self, make) -> None:
        for text in (
            "I think the user is you. You are kind.",
            "I want to tell you: you are kind.",
            "It is made for every user: young or old.",
        ):
            assert " ".join(make(text)) == text

    def test_a_repeated_sentence_is_said_once(self, make) -> None:
        assert make("I like to walk outside. I like to walk outside. It is nice.") == [
            "I like to walk outside.",
            "It is nice.",
        ]

    def test_short_words_may_come_twice(self, make) -> None:
        assert make("Yes. Yes. It is so.") == ["Yes.", "Yes.", "It is so."]

    def test_lists_lose_their_numbers(self, make) -> None:
        chunks = make("Try this:\n1. First drink water.\n2. Then sleep.")
        assert " ".join(chunks) == "Try this: First drink water. Then sleep."
        chunks = make("Here: 1. Drink water. 2. Then sleep.")
        assert " ".join(chunks) == "Here: Drink water. Then sleep."
        chunks = make("1. First\n2. Second")
        assert " ".join(chunks) == "First Second"
        chunks = make("- First\n- Second\n* Third")
        assert " ".join(chunks) == "First Second Third"

    def test_abbreviations_and_decimals_do_not_end_a_sentence(self, make) -> None:
        assert make("Dr. Smith was here. He left.") == ["Dr. Smith was here.", "He left."]
        assert make("It costs 3.50 today. Not bad.") == ["It costs 3.50 today.", "Not bad."]
        assert make("Fruit, e.g. apples, is good. Yes.")[-1] == "Yes."
        assert make("We met at 5 p.m. yesterday. Fine.")[-1] == "Fine."

    def test_one_letter_that_ends_a_sentence(self, make) -> None:
        assert make("So do I. It is good.") == ["So do I.", "It is good."]
        assert make("I said no. It was late.") == ["I said no.", "It was late."]

    def test_a_fragment_after_a_sentence_is_dropped(self, make) -> None:
        assert make("I see what you mean. And then we") == ["I see what you mean."]

    def test_a_fragment_alone_is_kept(self, make) -> None:
        assert make("And then we") == ["And then we"]

    def test_stage_directions_never_leak(self, make) -> None:
        assert make("Well, *she looks at you for a while and smiles* hello there.") == [
            "Well, hello there."
        ]
        assert make("I hear you, my friend, (nods slowly) go on.")[-1].endswith("go on.")

    def test_nothing_but_decoration_is_nothing(self, make) -> None:
        assert make("*smiles* 😊 **") == []
        assert make("...") == []
        assert make("") == []

    def test_the_own_name_is_not_said(self, make) -> None:
        assert make("AI: I am fine.") == ["I am fine."]
        assert make("Assistant: I am fine.") == ["I am fine."]


def test_the_first_chunk_ends_at_a_clause() -> None:
    chunks = by_token("That sounds like a lot, and I am sorry you had such a day at your work.")
    assert chunks[0] == "That sounds like a lot,"


def test_the_first_chunk_does_not_wait_for_a_mark() -> None:
    text = "I think that you should tell your friend about all of the things that worry you and "
    text += "keep you awake at night"
    pieces = iter(re.findall(r"\s*\S+", text))
    first = next(speakable(pieces, 100))
    assert len(first.split()) < 18
    assert next(pieces, None), "the rest was not read yet"


def test_what_is_not_needed_is_not_generated() -> None:
    closed = []

    def pieces():
        try:
            for index in range(1000):
                yield f" Sentence number {index} is here."
        finally:
            closed.append(index)

    chunks = list(speakable(pieces(), 20))
    assert chunks == [f"Sentence number {i} is here." for i in range(3)]
    assert closed and closed[0] < 10


def test_one_endless_sentence_is_cut_at_the_bound() -> None:
    text = " ".join(f"word{i}" for i in range(300))
    chunks = by_token(text, 100)
    words = " ".join(chunks).split()
    assert 0 < len(words) < 100
    assert words[:-1] == text.split()[: len(words) - 1]
