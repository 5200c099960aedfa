"""The eight yes/no questions of the paper's Table 2, and what a rater reads.

The wordings are ours. Three are asked negated, as in the paper's appendix B, and turned round for
the table, where more is better in every column. The paper's "interesting or boring" is asked as
interesting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from learning.dialogue import Utterance

CONTEXT_TURNS = 10
"""Last turns of the history that a judge reads: enough to judge a reply, and no more is sent."""


@dataclass(slots=True, frozen=True)
class Question:
    """One metric."""

    metric: str
    """Its name in tables and JSON."""
    title: str
    """Its column in Table 2."""
    column: str
    """Its column in a rating sheet: what a yes means."""
    text: str
    negated: bool = False
    """A yes speaks against the reply."""

    def good(self, yes: float) -> float:
        """The share of yes, turned so that more is better."""
        return 1 - yes if self.negated else yes


QUESTIONS = (
    Question(
        "connection", "Connection", "connection",
        "Does the reply make an emotional connection with the User?",
    ),
    Question(
        "positivity", "Positivity", "positivity",
        "Is the reply one of those that would most probably leave the User with good feelings?",
    ),
    Question(
        "social", "Social", "social",
        "Does the reply show that the AI grasps the social situation the User is in?",
    ),
    Question(
        "inclination", "Inclination", "no_further_talk",
        "After this reply, would you rather NOT talk to this AI another time?", negated=True,
    ),
    Question(
        "interesting", "Interesting", "interesting",
        "Is the reply interesting (yes), or dull (no)?",
    ),
    Question(
        "reuse", "Reuse", "reuse",
        "Judging by this reply, would you choose to talk to this AI another time?",
    ),
    Question(
        "specific", "Specific", "not_specific",
        "Is the reply NOT about what was said, so that it would fit many other conversations as "
        "well?", negated=True,
    ),
    Question(
        "sensible", "Sensible", "no_sense",
        "Does the reply make NO sense at this point of the conversation?", negated=True,
    ),
)  # fmt: skip
"""In the order of Table 2."""

METRICS = tuple(question.metric for question in QUESTIONS)


def transcript(history: Sequence[Utterance]) -> str:
    """The last turns, one a line: `User: …`, `AI: …`."""
    return "\n".join(
        f"{'User' if turn.speaker == 'listener' else 'AI'}: {' '.join(turn.text.split())}"
        for turn in history[-CONTEXT_TURNS:]
    )
