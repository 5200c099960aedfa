"""How the simulated listener understands one utterance of the agent: a function of text alone.

So that the truth can be computed for whatever a real policy writes, not only for scripted words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from learning.dialogue import Utterance
from learning.listener import lexicon as lex

_WORD = re.compile(r"[a-z0-9']+")
_SENTENCE = re.compile(r"[^.!?]+[.!?]*")
TOLD = 3
"""Content words without which a turn of the listener tells nothing of its own."""
CURT_WORDS = 4
SELF_WORDS = 3
"""First-person words from which an utterance without the listener in it is about the agent."""


@dataclass(slots=True, frozen=True)
class Reading:
    """What the listener notices in one utterance."""

    words: int
    question: bool
    follow_up: float
    """An open question about what the listener told: 1 when it has their words, or a pronoun and
    their words beside it; 0.5 by a pronoun alone, or their words beside it alone; else 0."""
    topic: float
    """Share of two content words of the listener's that it takes up, 0 to 1."""
    told: int
    """The listener's news before it: 1 good, -1 bad, 0 neither."""
    warm: bool
    """Shared joy; of joy and sympathy the first one counts, so that nobody can hedge."""
    sympathy: bool
    praise: bool
    praised_before: int
    """Earlier utterances of the agent that praised."""
    joke: bool
    self_only: bool
    curt: bool
    dismissive: bool
    filler: bool
    robot: bool
    greeting: bool
    repeated: float
    """Share of its 3-grams that it, an earlier agent turn or the listener's last turn had."""
    asked_back: bool
    """The listener had asked the agent about itself."""

    @property
    def wrong_way(self) -> bool:
        """Sympathy for good news or joy at bad news."""
        return (self.told > 0 and self.sympathy) or (self.told < 0 and self.warm)


def read(history: Sequence[Utterance], text: str) -> Reading:
    """Read an utterance of the agent after its history (both sides, in order)."""
    own = _notice(text)
    heard = _told([turn.text for turn in history if turn.speaker == "listener"][-3:])
    agents = [turn.text for turn in history if turn.speaker == "agent"]
    shared = len(own.content & heard.content)
    return Reading(
        words=own.words,
        question=own.question and not own.joke,
        follow_up=_follow_up(own, heard),
        topic=min(shared, 2) / 2,
        told=heard.news,
        warm=own.warm,
        sympathy=own.sympathy,
        praise=own.praise,
        praised_before=sum(_notice(earlier).praise for earlier in agents),
        joke=own.joke,
        self_only=own.about_self and not shared and not heard.asks_back,
        curt=own.words < CURT_WORDS and not own.question,
        dismissive=own.dismissive,
        filler=own.filler and not own.question and not shared,
        robot=own.robot,
        greeting=own.greeting and len(agents) <= 1,
        repeated=_repeated(own, agents, heard.last),
        asked_back=heard.asks_back,
    )


def _follow_up(own: _Noticed, heard: _Heard) -> float:
    if not own.open_question or own.joke or not heard.content:
        return 0.0
    beside = bool(own.content & heard.content)
    if own.asked_content & heard.content or (own.anaphora and beside):
        return 1.0
    return 0.5 if own.anaphora or beside else 0.0


@dataclass(slots=True, frozen=True)
class _Noticed:
    words: int
    content: frozenset[str]
    question: bool
    open_question: bool
    asked_content: frozenset[str]
    """Content words of its open questions."""
    anaphora: bool
    """An open question has a pronoun that can point back."""
    warm: bool
    sympathy: bool
    praise: bool
    joke: bool
    about_self: bool
    dismissive: bool
    filler: bool
    robot: bool
    greeting: bool
    trigrams: frozenset[tuple[str, ...]]
    repeats: float
    """Share of its 3-grams that occur earlier in it."""


@dataclass(slots=True, frozen=True)
class _Heard:
    content: frozenset[str]
    news: int
    asks_back: bool
    last: str


@lru_cache(maxsize=65536)
def content_words(text: str) -> frozenset[str]:
    """Stems of the words that carry a topic; capital letters and endings do not count."""
    words = _WORD.findall(_plain(text))
    return frozenset(
        _stem(w) for w in words if len(w) > 2 and w not in lex.STOP and _stem(w) not in lex.STOP
    )


def news_of(text: str) -> int:
    """Whether it tells something good (1), bad (-1) or neither (0); a negation turns a word."""
    words = _WORD.findall(_plain(text))
    score = 0
    for i, word in enumerate(words):
        sign = _sign(word)
        if sign and any(w in _NOT or w.endswith("n't") for w in words[max(0, i - 2) : i]):
            sign = -sign
        score += sign
    return (score > 0) - (score < 0)


def asks_back(text: str) -> bool:
    """Whether the listener asks the agent about itself."""
    return bool(lex.ASKED_BACK.search(_plain(text)))


_NOT = frozenset({"not", "never", "no", "without", "hardly", "barely"})


@lru_cache(maxsize=65536)
def _sign(word: str) -> int:
    stem = _stem(word)
    if any(word == w or stem == w for w in lex.BAD) or _starts(word, lex.BAD):
        return -1
    return int(any(word == w or stem == w for w in lex.GOOD) or _starts(word, lex.GOOD))


def _starts(word: str, stems: Sequence[str]) -> bool:
    return any(len(s) > 4 and word.startswith(s) for s in stems)


@lru_cache(maxsize=65536)
def _notice(text: str) -> _Noticed:
    plain = _plain(text)
    words = _WORD.findall(plain)
    sentences = _SENTENCE.findall(plain)
    asked = [s for s in sentences if s.rstrip().endswith("?")]
    opened = [s for s in asked if lex.OPEN.search(s)]
    opened += [s for s in sentences if lex.STARTERS.search(s)]
    stripped = lex.ASIDE.sub(" ", plain)
    warm, sympathy = lex.WARM.search(plain), lex.SYMPATHY.search(plain)
    if warm and sympathy:
        warm, sympathy = (warm, None) if warm.start() < sympathy.start() else (None, sympathy)
    grams = [tuple(words[i : i + 3]) for i in range(len(words) - 2)]
    return _Noticed(
        words=len(words),
        content=content_words(text),
        question=bool(asked or opened),
        open_question=bool(opened),
        asked_content=frozenset().union(*(content_words(s) for s in opened)),
        anaphora=any(lex.ANAPHORA.search(s) for s in opened),
        warm=bool(warm),
        sympathy=bool(sympathy),
        praise=bool(lex.PRAISE.search(plain)),
        joke=bool(lex.JOKE.search(plain)),
        about_self=len(lex.FIRST.findall(stripped)) >= SELF_WORDS
        and not lex.SECOND.search(plain)
        and not asked,
        dismissive=bool(lex.DISMISSIVE.search(plain)),
        filler=bool(lex.FILLER.search(" ".join(words))),
        robot=bool(lex.ROBOT.search(plain)),
        greeting=bool(lex.GREETING.search(plain)),
        trigrams=frozenset(grams),
        repeats=1 - len(set(grams)) / len(grams) if grams else 0.0,
    )


@lru_cache(maxsize=4096)
def _heard(texts: tuple[str, ...]) -> _Heard:
    """What the listener told last: their last turn, and the ones before while it tells nothing."""
    content: frozenset[str] = frozenset()
    news = 0
    for text in reversed(texts):
        content |= content_words(text)
        news = news or news_of(text)
        if len(content) >= TOLD:
            break
    last = texts[-1] if texts else ""
    return _Heard(content, news, asks_back(last), last)


def _told(texts: Sequence[str]) -> _Heard:
    return _heard(tuple(texts))


def _repeated(own: _Noticed, agents: Sequence[str], last: str) -> float:
    if not own.trigrams:
        return 0.0
    earlier = max((_contained(own, _notice(text)) for text in agents), default=0.0)
    return max(earlier, own.repeats, _contained(own, _notice(last)) if last else 0.0)


def _contained(own: _Noticed, other: _Noticed) -> float:
    return len(own.trigrams & other.trigrams) / len(own.trigrams)


def _plain(text: str) -> str:
    return " ".join(text.lower().replace("’", "'").split())


@lru_cache(maxsize=65536)
def _stem(word: str) -> str:
    """Crude: endings of plural, past and progressive go, so that `planted` meets `planting`."""
    word = word.removesuffix("'s").replace("'", "")
    for ending in ("ings", "ing", "ies", "ied", "ed", "es", "s", "y", "e"):
        if len(word) - len(ending) >= 3 and word.endswith(ending):
            return word.removesuffix(ending)
    return word
