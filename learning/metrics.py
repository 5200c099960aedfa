"""How good a decomposition is: both columns of the paper's Table 3, with intervals over sessions.

For each held-out dialogue its part in every sum is kept, so that a bootstrap over dialogues is one
matrix product. Several seeds hold out different dialogues; a dialogue's parts in all seeds are
drawn together, because they are not independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from learning.bank import Bank, Floats

DRAWS = 2000
MEASURES = ("mse", "mae", "r_positive", "r_non_positive", "delta", "truth_rank")


@dataclass(slots=True, frozen=True)
class Held:
    """What one method said of one seed's held-out dialogues."""

    ids: tuple[str, ...]
    sums: Floats
    """[dialogues, 13], see `sums_of`."""


@dataclass(slots=True, frozen=True)
class Estimate:
    """A measure over all seeds."""

    value: float
    """Mean over the seeds; NaN where nothing could be measured."""
    low: float
    high: float
    """95 % interval, bootstrap over dialogues."""
    seed_sd: float
    """Standard deviation between the seeds; NaN for one."""


def sums_of(bank: Bank, guesses: Floats, rewards: Floats) -> Held:
    """Reduce predictions to sums a dialogue.

    Args:
        bank: held-out dialogues.
        guesses: predicted rating of each, points, [dialogues].
        rewards: reward of each turn as tables show it, [turns].

    Returns:
        Columns: rated?, squared and absolute error; number and sum of rewards where Γ = 1, and
        where Γ = 0; and of the ranks of reward x and truth y: n, Σx, Σy, Σxy, Σx², Σy².
    """
    error = bank.returns - guesses
    rated = ~np.isnan(error)
    error = np.where(rated, error, 0.0)
    known = ~np.isnan(bank.truth)
    x, y = np.zeros(len(rewards)), np.zeros(len(rewards))
    if known.any():
        x[known], y[known] = _centred_ranks(rewards[known]), _centred_ranks(bank.truth[known])
    turns = np.stack(
        [
            bank.li == 1, np.where(bank.li == 1, rewards, 0.0),
            bank.li == 0, np.where(bank.li == 0, rewards, 0.0),
            known, x, y, x * y, x * x, y * y,
        ],
        axis=1,
    ).astype(np.float64)  # fmt: skip
    by_dialogue = np.zeros((len(bank.ids), turns.shape[1]))
    np.add.at(by_dialogue, bank.owner(), turns)
    heads = np.stack([rated, error**2, np.abs(error)], axis=1).astype(np.float64)
    return Held(bank.ids, np.concatenate([heads, by_dialogue], axis=1))


def ranks(values: Floats) -> Floats:
    """Ranks from 0, ties share their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    out: Floats = (last - (counts + 1) / 2)[inverse]
    return out


def spearman(x: Floats, y: Floats) -> float:
    """Rank correlation; NaN where one side is constant."""
    a, b = _centred_ranks(x), _centred_ranks(y)
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b / scale) if scale > 0 else float("nan")


def _centred_ranks(values: Floats) -> Floats:
    r = ranks(values)
    return np.asarray((r - r.mean()) / max(len(r), 1))


def measures(sums: Floats) -> dict[str, Floats]:
    """The measures from (weighted) sums over dialogues, [..., 13] to [...] each.

    In a resample the ranks stay those of the whole set: an approximation that spares sorting every
    draw and is exact for the set itself.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        rated = sums[..., 0]
        positive = sums[..., 4] / sums[..., 3]
        other = sums[..., 6] / sums[..., 5]
        n, x, y, xy, xx, yy = (sums[..., i] for i in range(7, 13))
        spread = np.sqrt(np.maximum(xx - x * x / n, 0) * np.maximum(yy - y * y / n, 0))
        rank = np.where(spread > 1e-9, (xy - x * y / n) / spread, np.nan)
        return {
            "mse": sums[..., 1] / rated,
            "mae": sums[..., 2] / rated,
            "r_positive": positive,
            "r_non_positive": other,
            "delta": positive - other,
            "truth_rank": rank,
        }


@dataclass(slots=True, frozen=True)
class Resampled:
    """One method's measures over the seeds and over bootstrap draws."""

    value: dict[str, float]
    seeds: dict[str, Floats]
    """[seeds] a measure."""
    draws: dict[str, Floats]
    """[draws] a measure."""

    def estimate(self, measure: str) -> Estimate:
        """Value, interval and spread of one measure."""
        by_seed = self.seeds[measure]
        low, high = interval(self.draws[measure])
        sd = float(by_seed.std(ddof=1)) if len(by_seed) > 1 else float("nan")
        return Estimate(self.value[measure], low, high, sd)


def resample(held: Sequence[Held], draws: int = DRAWS, seed: int = 0) -> Resampled:
    """Measure every seed and bootstrap the dialogues of all of them together.

    Args:
        held: one a seed. The same `seed` draws the same dialogues for every method over the same
            splits, so that differences between methods are paired.
        draws: bootstrap resamples.
        seed: of the resampling.
    """
    names = sorted({name for h in held for name in h.ids})
    place = {name: i for i, name in enumerate(names)}
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    plain = [measures(h.sums.sum(0)) for h in held]
    drawn = [measures(weights[:, [place[i] for i in h.ids]] @ h.sums) for h in held]
    seeds = {m: np.array([float(p[m]) for p in plain]) for m in MEASURES}
    return Resampled(
        {m: float(seeds[m].mean()) for m in MEASURES},
        seeds,
        {m: np.mean([d[m] for d in drawn], axis=0) for m in MEASURES},
    )


def interval(draws: NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95 % of the draws; NaN where a draw could not be measured."""
    finite = draws[np.isfinite(draws)]
    if len(finite) < 0.9 * len(draws):
        return float("nan"), float("nan")
    low, high = np.quantile(finite, (0.025, 0.975))
    return float(low), float(high)
