"""Scored turns of many dialogues as the frozen encoder sees them, made once, cut into parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from learning.bank import Bank, bank_of
from learning.dialogue import Dialogue
from learning.features import NUMBERS, vectors
from learning.processes import ALONE, Processes

if TYPE_CHECKING:
    from agent.learning_config import Reward
    from learning.encoder import Encoder

RESEARCH = ("candor", "chitchat", "simulated")
"""Sources whose vectors may be kept beside the weights: nobody can take them back."""


@dataclass(slots=True, frozen=True)
class Turns:
    """Scored turns of dialogues, in the order of `bank`."""

    bank: Bank
    vectors: NDArray[np.float16]
    """[turns, 3, size]; may lie in a file."""
    numbers: NDArray[np.float32]
    """[turns, numbers] of `features.NUMBERS`."""

    def pick(self, ids: Sequence[str]) -> Turns:
        """The dialogues of these ids, in this order."""
        place = {name: i for i, name in enumerate(self.bank.ids)}
        chosen = np.array([place[i] for i in ids], np.int64)
        old = self.bank
        rows = np.concatenate(
            [np.arange(old.start[d], old.start[d] + old.length[d]) for d in chosen]
            or [np.empty(0, np.int64)]
        )
        length = old.length[chosen]
        bank = Bank(
            tuple(ids), np.cumsum(length) - length, length, old.returns[chosen],
            old.li[rows], old.ls[rows], old.truth[rows],
        )  # fmt: skip
        return Turns(bank, np.asarray(self.vectors[rows]), self.numbers[rows])

    def save(self, folder: Path) -> None:
        """Write the arrays for other processes."""
        np.save(folder / "vectors.npy", self.vectors)
        np.save(folder / "numbers.npy", self.numbers)

    @classmethod
    def load(cls, folder: Path, bank: Bank) -> Turns:
        """Read what `save` wrote; the vectors stay in their file."""
        stored = np.load(folder / "vectors.npy", mmap_mode="r")
        return cls(bank, stored, np.load(folder / "numbers.npy"))


def turns_of(
    dialogues: Sequence[Dialogue],
    encoder: Encoder,
    settings: Reward,
    cache: Path | None = None,
    on_progress: Callable[[float], None] = lambda _: None,
    processes: Processes = ALONE,
) -> Turns:
    """Encode and lay flat.

    Args:
        dialogues: each with at least one scored turn.
        encoder: frozen.
        settings: decay of the history, threshold of language sentiment.
        cache: folder for the vectors of research data; None keeps nothing.
        on_progress: told how many distinct texts are done.
        processes: what shares the reading.
    """
    from learning.encoder import cached_embed

    texts = [turn.text for d in dialogues for turn in d.turns]
    if cache is None:
        embedded = encoder.embed(texts, on_progress, processes)
    else:
        embedded = cached_embed(encoder, texts, cache, on_progress, processes)
    bank = bank_of(dialogues, settings.ls_threshold)
    out = np.empty((int(bank.length.sum()), 3, encoder.size), np.float16)
    numbers = np.empty((len(out), len(NUMBERS)), np.float32)
    at = row = 0
    for dialogue in dialogues:
        scored = list(dialogue.scored)
        n = len(dialogue.turns)
        v, x = vectors(dialogue.turns, embedded[at : at + n], settings.history_decay)
        out[row : row + len(scored)], numbers[row : row + len(scored)] = v[scored], x[scored]
        at, row = at + n, row + len(scored)
    return Turns(bank, out, numbers)
