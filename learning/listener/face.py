"""The simulated listener's face: a noisy reading of what an utterance did.

    P(smile) = sigmoid(expressiveness · slope · effect/effect_sd + smiling
                       + politeness · (praise or joke or greeting)
                       - trouble · (bad news was just told))

so a good utterance is often missed, a habitual smiler smiles at anything, praise and jokes are
smiled at whatever they do, and who just told of trouble hardly smiles at the best of comfort. The
face is lost in runs: a Markov chain with `run` turns on average in which nothing is seen, and a
share of calls without a camera.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Literal

from learning.listener.persona import Persona
from learning.listener.reading import Reading


@dataclass(slots=True, frozen=True)
class Faces:
    """Coefficients of the face."""

    slope: float = 1.0
    """Logits for each standard deviation of effect, at expressiveness 1."""
    effect_sd: float = 5.0
    """Points of effect that count as one."""
    polite: float = 1.0
    """Factor on politeness; 0: nobody smiles at praise for manners' sake."""
    trouble: float = 1.5
    """Logits off a smile at the answer to bad news."""
    run: float = 3.0
    """Turns on average until a lost face is back."""
    without_camera: float = 0.1
    """Share of calls in which no face is seen at all."""


class Face:
    """One listener's face during one call."""

    def __init__(self, who: Persona, faces: Faces, rng: random.Random) -> None:
        self._who, self._faces, self._rng = who, faces, rng
        self._camera = rng.random() >= faces.without_camera
        self._seen = rng.random() < who.visibility

    def take(self, reading: Reading, effect: float) -> Literal[0, 1] | None:
        """The face at an utterance: 1 a smile, 0 none, None not seen."""
        smiles = self._rng.random() < smile_probability(self._who, self._faces, reading, effect)
        seen = self._camera and self._seen
        self._seen = self._rng.random() < self._stay()
        return int(smiles) if seen else None  # type: ignore[return-value]

    def _stay(self) -> float:
        """P(seen next turn); the chain's stationary share is the person's visibility."""
        back = 1 / self._faces.run
        if not self._seen:
            return back
        share = self._who.visibility
        return 1 - back * (1 - share) / share


def smile_probability(who: Persona, faces: Faces, reading: Reading, effect: float) -> float:
    """P(smile) at an utterance with that effect (points, before gain)."""
    logit = who.expressiveness * faces.slope * effect / faces.effect_sd + who.smiling
    if reading.praise or reading.joke or reading.greeting:
        logit += faces.polite * who.politeness
    if reading.told < 0:
        logit -= faces.trouble
    return 1 / (1 + math.exp(-logit))
