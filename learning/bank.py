"""Scored turns of many dialogues laid flat, so that a batch is a set of indices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from learning.dialogue import Dialogue

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(slots=True, frozen=True)
class Bank:
    """Dialogue d owns the turns `start[d] … start[d] + length[d] - 1`."""

    ids: tuple[str, ...]
    start: Ints
    length: Ints
    """T of each dialogue, [dialogues]."""
    returns: Floats
    """Rating 0 to 100, NaN where nobody rated, [dialogues]."""
    li: Floats
    """Γ of the listener, NaN unknown, [turns]."""
    ls: Floats
    """Γ by language sentiment of the turn itself, [turns]."""
    truth: Floats
    """True contribution in points, NaN where unknown, [turns]."""

    @property
    def rated(self) -> Ints:
        """Indices of the dialogues with a rating."""
        return np.flatnonzero(~np.isnan(self.returns))

    def turns(self, dialogue: int) -> slice:
        """Where the turns of one dialogue lie."""
        return slice(int(self.start[dialogue]), int(self.start[dialogue] + self.length[dialogue]))

    def owner(self) -> Ints:
        """Index of the dialogue of each turn, [turns]."""
        return np.repeat(np.arange(len(self.length)), self.length)

    def labels(self, shaping: str) -> Floats:
        """Γ of `va` or `ls`, NaN unknown, [turns]."""
        return self.ls if shaping == "ls" else self.li


def bank_of(dialogues: Sequence[Dialogue], ls_threshold: float) -> Bank:
    """Lay the scored turns of `dialogues` flat, in order.

    Args:
        dialogues: each with at least one scored turn.
        ls_threshold: sentiment above which language counts as positive.
    """
    lengths = np.array([len(d.scored) for d in dialogues], np.int64)
    turns = [d.turns[i] for d in dialogues for i in d.scored]

    def column(values: Sequence[float | None]) -> Floats:
        return np.array([np.nan if v is None else float(v) for v in values], np.float64)

    return Bank(
        tuple(d.id for d in dialogues),
        np.cumsum(lengths) - lengths,
        lengths,
        column([d.rating for d in dialogues]),
        column([t.li for t in turns]),
        column([None if t.sentiment is None else float(t.sentiment > ls_threshold) for t in turns]),
        column([t.truth for t in turns]),
    )
