"""Language sentiment: VADER (Hutto & Gilbert 2014), the compound score."""

from __future__ import annotations

from agent.config import Config


class Vader:
    """A lexicon with rules; English."""

    id = "vader"

    def __init__(self) -> None:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

        self._analyzer = SentimentIntensityAnalyzer()

    def score(self, text: str) -> float:
        """-1 (negative) to 1 (positive)."""
        return float(self._analyzer.polarity_scores(text)["compound"])


def open_vader(config: Config) -> Vader:
    """The scorer of `sentiment.engine = "vader"`."""
    return Vader()
