"""Small made dialogues and turns without any text encoder."""

import numpy as np

from learning.bank import Bank
from learning.dialogue import Dialogue, Utterance
from learning.turns import Turns

SIZE = 12


def dialogue(
    name: str,
    rating: float | None = 50.0,
    turns: int = 4,
    li: int | None = None,
    people: tuple[str, ...] = (),
) -> Dialogue:
    said = []
    for i in range(turns):
        said.append(Utterance("listener", f"{name} asks {i}", scored=False))
        said.append(Utterance("agent", f"{name} says {i}", li=li, sentiment=0.0))
    return Dialogue(name, tuple(said), rating, people)


def turns_with_signal(
    dialogues: int = 120, seed: int = 0, noise: float = 1.0, lengths: tuple[int, int] = (4, 30)
) -> Turns:
    """Turns whose first vector coordinate is what each contributes; Γ reads it with noise."""
    rng = np.random.default_rng(seed)
    length = rng.integers(*lengths, size=dialogues)
    n = int(length.sum())
    vectors = rng.normal(size=(n, 3, SIZE))
    vectors[:, 0, 0] *= 3  # the signal is where the variance is, as principal components need
    truth = 4 * vectors[:, 0, 0]
    start = np.cumsum(length) - length
    returns = np.array([50 + truth[s : s + t].mean() for s, t in zip(start, length, strict=True)])
    returns += rng.normal(scale=noise, size=dialogues)
    li = (truth + rng.normal(scale=12, size=n) > 0).astype(float)
    bank = Bank(
        tuple(f"d{i}" for i in range(dialogues)),
        start,
        length,
        returns,
        li,
        (rng.random(n) > 0.5).astype(float),
        truth,
    )
    return Turns(bank, vectors.astype(np.float16), np.zeros((n, 5), np.float32))
