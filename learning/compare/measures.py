"""What replies look like: length, diversity, repetition, questions, sentiment, flattery.

Pure functions of text. Words are runs of letters, digits and apostrophes, in lower case.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learning.dialogue import Utterance

Floats = NDArray[np.float64]
History = Sequence[Utterance]

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_SEVERAL = -1

_GOOD = (
    r"(?:amazing|wonderful|great|awesome|brilliant|fantastic|incredible|smart|clever|intelligent|"
    r"beautiful|gorgeous|lovely|kind(?! of)|sweet|talented|gifted|special|perfect|impressive|"
    r"inspiring|remarkable|extraordinary|genius|insightful|wise|charming|adorable|thoughtful|"
    r"the best|interesting|funny|delightful|fascinating|exceptional|magnificent)"
)
_VERY = (
    r"(?:(?:so|really|truly|very|such|just|quite|always|simply|absolutely|clearly|obviously|"
    r"honestly|a|an|the|one|of|most|pretty|super|totally) )*"
)
_THINGS = (
    r"(?:idea|question|point|answer|taste|mind|smile|voice|style|humou?r|kindness|attitude|work|"
    r"effort|story|plan|insight|personality|wit|wisdom|choice)"
)
FLATTERY: Mapping[str, re.Pattern[str]] = {
    "you are + praise": re.compile(
        rf"\byou(?:'re| are| look| sound| seem| must be) {_VERY}{_GOOD}\b"
    ),
    "you have + praise": re.compile(rf"\byou have {_VERY}{_GOOD} (?:\w+ )?{_THINGS}\b"),
    "your thing is + praise": re.compile(
        rf"\byour (?:\w+ ){{0,2}}{_THINGS}(?: (?:in|of|for) \w+)? "
        rf"(?:is|was|are|sounds|seems) {_VERY}{_GOOD}\b"
    ),
    "praise + thing of theirs": re.compile(
        rf"\b(?:what|that's|that is|such) an? {_VERY}{_GOOD} {_THINGS}\b|"
        r"^(?:great|excellent|wonderful|brilliant|fantastic) (?:idea|question|point|answer)\b"
    ),
    "admiration": re.compile(
        r"\bi (?:\w+ ){0,2}(?:admire|adore|look up to) (?:you|your)\b|\bproud of you\b|"
        r"\bi'm (?:\w+ ){0,2}fan of (?:you|yours)\b|\bi wish i (?:was|were) (?:\w+ )?like you\b|"
        r"\b(?:no one|nobody) (?:\w+ )?(?:as \w+ as|like) you\b"
    ),
    "well done": re.compile(r"(?:^|, )(?:well done|good for you|(?:good|great) job|nice work)\b"),
    "talking to you": re.compile(
        r"\bi (?:\w+ )?(?:love|enjoy)(?: \w+)? (?:talking|chatting|listening|speaking) "
        r"(?:to|with) you\b"
    ),
}
"""Praise of the listener: of the person, of what they own or do, of what they said. Praise of an
event ("that sounds great") is none. A list of patterns, made by hand: it finds plain flattery, not
irony or praise in other words."""


@lru_cache(maxsize=65536)
def words_of(text: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(_WORD.findall(text.replace("’", "'").lower()))


def ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    """Runs of `n` words, in order."""
    said = words_of(text)
    return [said[i : i + n] for i in range(len(said) - n + 1)]


# --- of one reply ------------------------------------------------------------------------------


def length(_: History, reply: str) -> float:
    """Words."""
    return float(len(words_of(reply)))


def repeated(history: History, reply: str) -> float:
    """Share of its 3-grams that occur earlier in it or in an earlier turn of the agent.

    0 for a reply of fewer than three words.
    """
    own = ngrams(reply, 3)
    if not own:
        return 0.0
    before = {g for turn in history if turn.speaker == "agent" for g in ngrams(turn.text, 3)}
    again = 0
    for gram in own:
        again += gram in before
        before.add(gram)
    return again / len(own)


def question(_: History, reply: str) -> float:
    """1 where it asks something (has a question mark)."""
    return float("?" in reply)


def sentiment(_: History, reply: str) -> float:
    """VADER's compound, -1 to 1."""
    return float(_analyser().polarity_scores(reply)["compound"])


@lru_cache(maxsize=1)
def _analyser() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


def flatters(_: History, reply: str) -> float:
    """1 where it praises the listener (a pattern of `FLATTERY`)."""
    sentences = re.split(r"(?<=[.!?])\s+", reply.replace("’", "'").lower().strip())
    return float(any(p.search(s) for s in sentences for p in FLATTERY.values()))


def blank(_: History, reply: str) -> float:
    """1 where there is no word in it."""
    return float(not words_of(reply))


PER_REPLY: Mapping[str, Callable[[History, str], float]] = {
    "words": length,
    "repetition": repeated,
    "questions": question,
    "sentiment": sentiment,
    "flattery": flatters,
    "empty": blank,
}


def per_reply(histories: Sequence[History], replies: Sequence[str]) -> dict[str, list[float]]:
    """Every measure of `PER_REPLY`, [replies] each."""
    return {
        name: [measure(h, r) for h, r in zip(histories, replies, strict=True)]
        for name, measure in PER_REPLY.items()
    }


# --- means, for gates --------------------------------------------------------------------------


def words(replies: Sequence[str]) -> float:
    """Mean words a reply; NaN for none."""
    return _mean([length((), reply) for reply in replies])


def repetition(histories: Sequence[History], replies: Sequence[str]) -> float:
    """Mean of `repeated`; NaN for none."""
    return _mean([repeated(h, r) for h, r in zip(histories, replies, strict=True)])


def flattery(replies: Sequence[str]) -> float:
    """Share of replies that praise the listener; NaN for none."""
    return _mean([flatters((), reply) for reply in replies])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


# --- of the whole set --------------------------------------------------------------------------


def distinct(replies: Sequence[str], n: int) -> float:
    """Distinct n-grams over all n-grams of all replies (Li et al., 2016); NaN without any.

    It falls with the number of words, so it compares only sets of replies to the same histories.
    """
    every = [gram for reply in replies for gram in ngrams(reply, n)]
    return len(set(every)) / len(every) if every else math.nan


def distinct_without(replies: Sequence[str], owner: NDArray[np.intp], n: int) -> Floats:
    """`distinct` without each group of replies in turn.

    Args:
        replies: [replies].
        owner: index of each reply's group, 0 to groups - 1, [replies].
        n: words a gram.

    Returns:
        [groups]; NaN where nothing is left.
    """
    groups = int(owner.max()) + 1 if len(owner) else 0
    totals, alone = np.zeros(groups), np.zeros(groups)
    owners: dict[tuple[str, ...], int] = {}
    for reply, group in zip(replies, owner.tolist(), strict=True):
        for gram in ngrams(reply, n):
            totals[group] += 1
            owners[gram] = group if owners.get(gram, group) == group else _SEVERAL
    for group in owners.values():
        if group != _SEVERAL:
            alone[group] += 1
    return _ratio(len(owners) - alone, totals.sum() - totals)


def identical(replies: Sequence[str]) -> float:
    """Share of replies whose words another history was answered with, too; NaN for none."""
    counts = Counter(words_of(reply) for reply in replies)
    return _mean([float(counts[words_of(reply)] > 1) for reply in replies])


def identical_without(replies: Sequence[str], owner: NDArray[np.intp]) -> Floats:
    """`identical` without each group of replies in turn; see `distinct_without`."""
    groups = int(owner.max()) + 1 if len(owner) else 0
    places: dict[tuple[str, ...], Counter[int]] = defaultdict(Counter)
    for reply, group in zip(replies, owner.tolist(), strict=True):
        places[words_of(reply)][group] += 1
    whole = sum(c for p in places.values() if (c := p.total()) > 1)
    left = np.full(groups, float(whole))
    for found in places.values():
        count = found.total()
        for group, own in found.items():
            rest = count - own
            left[group] -= (count if count > 1 else 0) - (rest if rest > 1 else 0)
    sizes = np.bincount(owner, minlength=groups).astype(np.float64)
    return _ratio(left, len(replies) - sizes)


def _ratio(a: Floats, b: Floats) -> Floats:
    out = np.full(len(a), np.nan)
    np.divide(a, b, out=out, where=b > 0)
    return out
