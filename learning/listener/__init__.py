"""A simulated person who listens, talks, shows a face and rates, with the truth of every turn.

    listener = Listener(persona(7), seed=1)
    said = listener.hello()
    heard = listener.hear(history, "How is your sister now?")   # heard.truth, heard.li
    said = listener.answer(heard)
    rating = listener.rate()                                    # clip(base + mean(truth) + noise)

The truth of an utterance is a function of the text alone (its history and itself; see `effects`)
times the person's sensitivity, so it is known for anything a real policy writes. Faces miss and lie
(`face`), people differ (`persona`), ratings are noisy. None of it was measured on people: it is
there to check credit assignment against a truth that no corpus has, not to predict anybody.

How hard recovery is follows from three things, all in `Assumptions`: faces lie about praise, jokes
and comfort and depend on the person (labels alone rank turns only moderately and know nothing of
the rating's scale), a rating mixes all turns of a call with the person's base mood (ratings alone
give a noisy credit), and the two errors are independent (together they do better).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from learning.dialogue import Li, Utterance
from learning.listener.effects import Effects
from learning.listener.face import Face, Faces
from learning.listener.persona import Persona, Ratings, persona
from learning.listener.reading import Reading, read
from learning.listener.talk import Talk
from learning.listener.topics import Fact

__all__ = [
    "Assumptions",
    "Effects",
    "Faces",
    "Heard",
    "Listener",
    "Persona",
    "Ratings",
    "Reading",
    "persona",
    "read",
    "truth",
]


@dataclass(slots=True, frozen=True)
class Assumptions:
    """Every coefficient of the simulation."""

    effects: Effects = field(default_factory=Effects)
    faces: Faces = field(default_factory=Faces)
    ratings: Ratings = field(default_factory=Ratings)

    @classmethod
    def of_difficulty(cls, difficulty: float) -> Assumptions:
        """The same truth, harder or easier to recover.

        Args:
            difficulty: 1 is the default. 0 leaves faces that never lie and show effects clearly,
                people of one base mood and ratings without noise; at 2 manners, moods and noise
                are twice as strong and faces half as clear.

        Raises:
            ValueError: a negative difficulty.
        """
        if difficulty < 0:
            raise ValueError(f"difficulty {difficulty:g} is negative")
        ours = cls()
        faces, ratings = ours.faces, ours.ratings
        return cls(
            ours.effects,
            replace(
                faces,
                slope=faces.slope * 4 ** (1 - difficulty) if difficulty < 1
                else faces.slope / difficulty,
                polite=faces.polite * difficulty,
                trouble=faces.trouble * difficulty,
            ),
            replace(
                ratings,
                base_sd=ratings.base_sd * difficulty,
                noise_sd=ratings.noise_sd * difficulty,
            ),
        )  # fmt: skip


def truth(
    history: Sequence[Utterance],
    text: str,
    who: Persona | None = None,
    effects: Effects = Effects(),  # noqa: B008 (frozen)
) -> float:
    """What an utterance of the agent contributes, in points of the rating.

    Args:
        history: both sides' turns before it.
        text: the utterance.
        who: whose rating; None for a person of average sensitivity.
        effects: the coefficients.
    """
    sensitivity = who.sensitivity if who else 1.0
    return effects.gain * sensitivity * effects.of(read(history, text))


@dataclass(slots=True, frozen=True)
class Heard:
    """One utterance of the agent as the listener took it."""

    reading: Reading
    effect: float
    """Points, before gain and sensitivity."""
    truth: float
    """Contribution to the rating, in its points."""
    li: Li
    """The face: 1 a smile, 0 none, None not seen."""


class Listener:
    """One person in one call; the same persona and seed react the same to the same words.

    Args:
        who: the person.
        seed: of this call.
        assumptions: the coefficients.
    """

    def __init__(
        self,
        who: Persona,
        seed: int,
        assumptions: Assumptions = Assumptions(),  # noqa: B008
    ) -> None:
        self.persona = who
        self._assumptions = assumptions
        # separate streams: another face never changes the words
        rngs = [random.Random(f"{what} {seed} {who.seed}") for what in ("talk", "face", "rating")]
        self._talk = Talk(who, rngs[0])
        self._face = Face(who, assumptions.faces, rngs[1])
        self._rating_rng = rngs[2]
        self._truths: list[float] = []

    @property
    def life(self) -> dict[str, str]:
        """What the slots of their wording stand for."""
        return self._talk.life

    @property
    def told(self) -> Fact | None:
        """The fact that was told last."""
        return self._talk.fact

    def hello(self) -> str:
        """The first words, after the agent's greeting."""
        return self._talk.hello()

    def hear(self, history: Sequence[Utterance], text: str) -> Heard:
        """Take in an utterance of the agent; it counts for the rating."""
        effects = self._assumptions.effects
        reading = read(history, text)
        effect = effects.of(reading)
        worth = effects.gain * self.persona.sensitivity * effect
        self._truths.append(worth)
        self._talk.hear(effect)
        return Heard(reading, effect, worth, self._face.take(reading, effect))

    def answer(self, heard: Heard) -> str:
        """The reply to it."""
        return self._talk.answer(heard.reading, heard.effect)

    def rate(self) -> int:
        """The call's rating so far, 0 to 100.

        Raises:
            ValueError: nothing was heard yet.
        """
        if not self._truths:
            raise ValueError("nothing to rate: the agent has said nothing")
        noise = self._rating_rng.gauss(0, self._assumptions.ratings.noise_sd)
        mean = sum(self._truths) / len(self._truths)
        return round(min(100.0, max(0.0, self.persona.base + mean + noise)))
