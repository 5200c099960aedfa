"""Who listens: people differ in base mood, face, talk and life, all of it drawn from one seed."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from learning.listener.topics import SLOTS, TOPICS


@dataclass(slots=True, frozen=True)
class Ratings:
    """How a call's rating comes about: clip(base + mean of the truths + noise, 0, 100), rounded."""

    base_mean: float = 54.0
    base_sd: float = 9.0
    """Between people: what they would rate a call that does nothing to them."""
    noise_sd: float = 4.0
    """Between two calls of one person that are alike."""


@dataclass(slots=True, frozen=True)
class Persona:
    """One simulated person. Shares are 0 to 1."""

    seed: int
    base: float
    """Rating of a call without effects, 0 to 100."""
    sensitivity: float
    """Factor on all effects, about 1."""
    expressiveness: float
    """How much of an effect the face shows; 0 is a face that tells nothing."""
    smiling: float
    """Logit of a smile at an utterance that does nothing: habit."""
    politeness: float
    """Logits added to a smile at praise, jokes and greetings, whatever they do."""
    visibility: float
    """Share of the time the face can be seen."""
    talkativeness: float
    topics: tuple[str, ...]
    """All topics, the favourite first."""
    life: Mapping[str, str]
    """Their own names and things for the slots of the wording."""

    @property
    def id(self) -> str:
        """`persona-SEED`."""
        return f"persona-{self.seed}"


def persona(seed: int, ratings: Ratings = Ratings()) -> Persona:  # noqa: B008 (frozen)
    """The person of that seed, the same in every process."""
    rng = random.Random(f"persona {seed}")
    topics = list(TOPICS)
    rng.shuffle(topics)
    return Persona(
        seed=seed,
        base=min(90.0, max(10.0, rng.gauss(ratings.base_mean, ratings.base_sd))),
        sensitivity=min(1.4, max(0.6, rng.gauss(1.0, 0.15))),
        expressiveness=rng.uniform(0.5, 1.3),
        smiling=rng.gauss(-0.9, 0.7),
        politeness=rng.uniform(0.8, 2.6),
        visibility=rng.uniform(0.7, 0.98),
        talkativeness=rng.uniform(0.2, 0.9),
        topics=tuple(topics),
        life={name: rng.choice(pool) for name, pool in SLOTS.items()},
    )
