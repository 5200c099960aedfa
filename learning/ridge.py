"""The plain baseline: ridge regression from a dialogue's mean features and log length to its score.

It is linear, so that it is a reward too: the prediction is the mean over the turns of w·x_t + c.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from learning.bank import Floats
from learning.features import Projection
from learning.turns import Turns

PENALTIES = 10.0 ** np.arange(-1, 6, 0.5)


@dataclass(slots=True, frozen=True)
class Ridge:
    """Weights on standardised pooled features."""

    projection: Projection
    centre: Floats
    spread: Floats
    weights: Floats
    intercept: float
    penalty: float

    def __call__(self, turns: Turns) -> tuple[Floats, Floats]:
        """Predicted ratings [dialogues] and each turn's share of its mean [turns], points."""
        x = self.projection(np.asarray(turns.vectors, np.float32), turns.numbers)
        lengths = np.repeat(np.log(turns.bank.length), turns.bank.length)
        full = np.concatenate([x, lengths[:, None]], axis=1)
        points = (full - self.centre) / self.spread @ self.weights + self.intercept
        bank = turns.bank
        return np.array([points[bank.turns(d)].mean() for d in range(len(bank.ids))]), points


def fit(train: Turns, validation: Turns, projection: Projection) -> Ridge:
    """Closed form for each penalty; the one that predicts the validation ratings best is kept.

    Raises:
        ValueError: no rated dialogue in one of the parts.
    """
    x, y = _pooled(train, projection)
    held, wanted = _pooled(validation, projection)
    centre, spread = x.mean(0), np.maximum(x.std(0), 1e-6)
    z, held = (x - centre) / spread, (held - centre) / spread
    intercept = float(y.mean())
    values, axes = np.linalg.eigh(z.T @ z)
    target = axes.T @ (z.T @ (y - intercept))
    best: tuple[float, float, Floats] | None = None
    for penalty in PENALTIES:
        weights = axes @ (target / (values + penalty))
        error = float(np.mean((held @ weights + intercept - wanted) ** 2)) if len(wanted) else 0.0
        if best is None or error < best[0]:
            best = (error, float(penalty), weights)
    assert best is not None
    return Ridge(projection, centre, spread, best[2], intercept, best[1])


def _pooled(turns: Turns, projection: Projection) -> tuple[Floats, Floats]:
    """Mean features and log length of the rated dialogues, and their ratings."""
    bank = turns.bank
    x = projection(np.asarray(turns.vectors, np.float32), turns.numbers).astype(np.float64)
    rows = [np.append(x[bank.turns(int(d))].mean(0), np.log(bank.length[d])) for d in bank.rated]
    if not rows:
        raise ValueError("no rated dialogue")
    return np.array(rows), bank.returns[bank.rated]
