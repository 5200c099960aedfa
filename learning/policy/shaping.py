"""What a reply is held against beside its score: length, repetition, and whether it came to an end.

In deviations of the score where scores are normalised (`policy.normalise_scores`), else in points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from learning.dialogue import Utterance

if TYPE_CHECKING:
    from agent.learning_config import Policy


@dataclass(slots=True, frozen=True)
class Penalty:
    """What is taken off one reply's score."""

    length: float
    repetition: float
    unfinished: float

    @property
    def whole(self) -> float:
        """All of it."""
        return self.length + self.repetition + self.unfinished


def penalty(history: Sequence[Utterance], reply: str, ended: bool, settings: Policy) -> Penalty:
    """Hold one reply against `[policy]`.

    Args:
        history: what was said before.
        reply: what the policy wrote.
        ended: it ended itself within `response_tokens`.
        settings: `[policy]`.
    """
    beyond = max(0, len(reply.split()) - settings.max_words)
    return Penalty(
        settings.length_penalty * beyond,
        settings.repetition_penalty * repeated(history, reply),
        0.0 if ended and reply else settings.unfinished_penalty,
    )


def repeated(history: Sequence[Utterance], reply: str, n: int = 3) -> float:
    """Share of a reply's word n-grams that were said before, in the history or in the reply."""
    seen = {gram for turn in history for gram in ngrams(turn.text, n)}
    found = 0
    grams = ngrams(reply, n)
    for gram in grams:
        found += gram in seen
        seen.add(gram)
    return found / len(grams) if grams else 0.0


def distinct(replies: Sequence[str], n: int = 2) -> float:
    """Different word n-grams over all word n-grams of a set of replies (Li et al. 2016)."""
    grams = [gram for reply in replies for gram in ngrams(reply, n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    """Word n-grams, lower case, without punctuation at their words' ends."""
    words = [w for w in (word.strip(".,!?;:\"'()*") for word in text.lower().split()) if w]
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
