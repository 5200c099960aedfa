"""The frozen path's input to r_θ: what an utterance says, and how it meets what came before.

All of it is a function of the text of (s_t, a_t) alone. Every utterance is encoded once and serves
as action and as history, so a dialogue of T turns costs T encodings, not T(T+1)/2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from learning.dialogue import Utterance

Array = NDArray[np.float32]

NUMBERS = (
    "similarity to the other side's last turn",
    "greatest similarity to an own earlier turn",
    "similarity to the history",
    "log words",
    "log turns before",
    "asks",
)
BLOCKS = 4
"""Vectors a turn: its own, the other side's last, the history's, and own times last."""


def vectors(turns: Sequence[Utterance], e: Array, decay: float) -> tuple[Array, Array]:
    """Features of every turn of one dialogue.

    Args:
        turns: the dialogue's turns, [turns].
        e: their unit vectors, [turns, size].
        decay: weight of each earlier turn relative to the next one in the history's vector.

    Returns:
        Vectors [turns, 3, size] (the turn, the other side's last turn, the history) and the numbers
        of `NUMBERS`, [turns, numbers].
    """
    n, size = e.shape
    out = np.zeros((n, 3, size), np.float32)
    numbers = np.zeros((n, len(NUMBERS)), np.float32)
    history = np.zeros(size, np.float32)
    last = {"agent": -1, "listener": -1}
    own: dict[str, list[int]] = {"agent": [], "listener": []}
    for t, turn in enumerate(turns):
        other = last["listener" if turn.speaker == "agent" else "agent"]
        out[t, 0] = e[t]
        if other >= 0:
            out[t, 1] = e[other]
            numbers[t, 0] = e[t] @ e[other]
        norm = float(np.linalg.norm(history))
        if norm > 0:
            out[t, 2] = history / norm
            numbers[t, 2] = e[t] @ out[t, 2]
        if own[turn.speaker]:
            numbers[t, 1] = float((e[own[turn.speaker]] @ e[t]).max())
        numbers[t, 3] = np.log1p(len(turn.text.split()))
        numbers[t, 4] = np.log1p(t)
        numbers[t, 5] = "?" in turn.text  # mean-pooled vectors hardly tell a question by its form
        history = decay * history + e[t]
        last[turn.speaker] = t
        own[turn.speaker].append(t)
    return out, numbers


class Projection:
    """Vectors compressed to their principal components, then everything standardised.

    Fitted on the training turns only; part of the saved reward.
    """

    def __init__(self, components: Array, centre: Array, mean: Array, sd: Array) -> None:
        self.components = components
        """[size, kept]."""
        self.centre = centre
        """[size]."""
        self.mean = mean
        self.sd = sd
        """[features], of the training turns."""

    @classmethod
    def fit(cls, vectors: Array, numbers: Array, kept: int) -> Projection:
        """Principal components of the turns' own vectors.

        Args:
            vectors: [turns, 3, size].
            numbers: [turns, numbers].
            kept: how many components.
        """
        own = vectors[:, 0]
        centre = own.mean(0)
        _, axes = np.linalg.eigh(np.cov(own - centre, rowvar=False))
        components = axes[:, ::-1][:, : min(kept, own.shape[1])].astype(np.float32)
        made = cls(components, centre, np.zeros(1, np.float32), np.ones(1, np.float32))
        raw = made._raw(vectors, numbers)
        made.mean, made.sd = raw.mean(0), np.maximum(raw.std(0), 1e-3)
        return made

    @property
    def features(self) -> int:
        """How many it gives."""
        return BLOCKS * int(self.components.shape[1]) + len(NUMBERS)

    def __call__(self, vectors: Array, numbers: Array) -> Array:
        """[turns, 3, size] and [turns, numbers] to standardised features, [turns, features]."""
        standard: Array = (self._raw(vectors, numbers) - self.mean) / self.sd
        return np.clip(standard, -8, 8)

    def _raw(self, vectors: Array, numbers: Array) -> Array:
        z = (vectors - self.centre) @ self.components
        product = z[:, 0] * z[:, 1]
        return np.concatenate([z.reshape(len(z), -1), product, numbers], 1).astype(np.float32)
