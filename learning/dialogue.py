"""What is learned from: a dialogue of scored turns, one rating or none, and sets of them.

The paper's trajectory: state s_t is everything said before, action a_t is an utterance of the
*agent* (the side whose turns are rewarded), the *listener* rates the whole once (GE) and shows a
face at each utterance (LI). Ratings are on 0 to 100 here, whatever scale they were given on.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal, Protocol

Speaker = Literal["agent", "listener"]
Li = Literal[0, 1] | None
"""Γ of the paper (eq. 7): 1 positive, 0 not, None unknown (missing face is not neutral)."""


@dataclass(slots=True, frozen=True)
class Utterance:
    """One turn of either side."""

    speaker: Speaker
    text: str
    scored: bool = True
    """Whether r_θ is summed over this turn. An agent's greeting by the program is not."""
    li: Li = None
    """The listener's local implicit label of this turn; only scored turns have one."""
    sentiment: float | None = None
    """Language sentiment of `text`, -1 to 1 (the paper's LS); None where it was not computed."""
    truth: float | None = None
    """What the turn really contributed, in points of the rating; simulated sources only."""


@dataclass(slots=True, frozen=True)
class Dialogue:
    """One trajectory and its return."""

    id: str
    turns: tuple[Utterance, ...]
    rating: float | None
    """Overall affect, 0 to 100; None when nobody rated."""
    people: tuple[str, ...] = ()
    """Who took part, so that splits can keep a person on one side."""
    policy_id: str | None = None
    """Which policy spoke, where one did."""

    @property
    def scored(self) -> tuple[int, ...]:
        """Indices of the turns the return is decomposed over: the T of the paper."""
        return tuple(i for i, turn in enumerate(self.turns) if turn.scored)


@dataclass(slots=True, frozen=True)
class Dataset:
    """Dialogues of one source."""

    source: str
    """As given: `store`, `candor:DIR`, `chitchat`, `simulated:SEED`."""
    dialogues: tuple[Dialogue, ...]
    li_source: str
    """What the labels were read from, in words (for tables)."""
    scale: tuple[float, float] = (0.0, 100.0)
    """The scale the ratings were given on; tables name it and give MSE on it too."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Reason in words to how many dialogues were left out for it."""
    notes: tuple[str, ...] = ()
    """What a reader of a result must know: defaults filtered, columns missing."""

    @property
    def digest(self) -> str:
        """SHA-256 (first 16 hex digits) of all that learning sees."""
        sha = hashlib.sha256()
        for dialogue in self.dialogues:
            sha.update(json.dumps(asdict(dialogue), sort_keys=True).encode())
        return sha.hexdigest()[:16]

    def only(self, dialogues: Iterable[Dialogue]) -> Dataset:
        """The same source with these dialogues."""
        return Dataset(
            self.source, tuple(dialogues), self.li_source, self.scale, self.dropped, self.notes
        )


@dataclass(slots=True, frozen=True)
class Summary:
    """What `geli learn data` prints."""

    source: str
    digest: str
    dialogues: int
    rated: int
    turns: int
    scored_turns: int
    labelled_turns: int
    positive_turns: int
    people: int
    length_quantiles: tuple[int, int, int, int, int]
    """Scored turns a dialogue: least, lower quartile, median, upper quartile, most."""
    rating_mean: float | None
    rating_sd: float | None
    rating_histogram: tuple[int, ...]
    """Rated dialogues in ten bins of 10 points, the last one closed."""
    dropped: dict[str, int]
    li_source: str
    notes: tuple[str, ...]


def summarise(data: Dataset) -> Summary:
    """Counts, lengths, ratings and label coverage of a data set."""
    import numpy as np

    lengths = np.array([len(d.scored) for d in data.dialogues] or [0])
    ratings = np.array([d.rating for d in data.dialogues if d.rating is not None])
    scored = [d.turns[i] for d in data.dialogues for i in d.scored]
    quantiles = np.quantile(lengths, (0, 0.25, 0.5, 0.75, 1), method="nearest")
    bins = Counter(min(int(r // 10), 9) for r in ratings)
    return Summary(
        source=data.source,
        digest=data.digest,
        dialogues=len(data.dialogues),
        rated=len(ratings),
        turns=sum(len(d.turns) for d in data.dialogues),
        scored_turns=len(scored),
        labelled_turns=sum(t.li is not None for t in scored),
        positive_turns=sum(t.li == 1 for t in scored),
        people=len({p for d in data.dialogues for p in d.people}),
        length_quantiles=(
            int(quantiles[0]),
            int(quantiles[1]),
            int(quantiles[2]),
            int(quantiles[3]),
            int(quantiles[4]),
        ),
        rating_mean=float(ratings.mean()) if len(ratings) else None,
        rating_sd=float(ratings.std(ddof=1)) if len(ratings) > 1 else None,
        rating_histogram=tuple(bins[i] for i in range(10)),
        dropped=dict(data.dropped),
        li_source=data.li_source,
        notes=data.notes,
    )


def with_sentiment(dialogues: Sequence[Dialogue]) -> list[Dialogue]:
    """The same dialogues with the sentiment of every utterance (VADER's compound, -1 to 1)."""
    from dataclasses import replace

    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    analyser = SentimentIntensityAnalyzer()
    known: dict[str, float] = {}

    def sentiment(text: str) -> float:
        if text not in known:
            known[text] = float(analyser.polarity_scores(text)["compound"])
        return known[text]

    return [
        replace(
            d,
            turns=tuple(
                t if t.sentiment is not None else replace(t, sentiment=sentiment(t.text))
                for t in d.turns
            ),
        )
        for d in dialogues
    ]


class Scorer(Protocol):
    """A trained r_θ: how much each reply contributes after its history."""

    id: str

    def score(
        self, histories: Sequence[Sequence[Utterance]], replies: Sequence[str]
    ) -> list[float]:
        """One reward a reply, on the session's scale (0 to 100). Reads text only."""
        ...
