"""A trained reward on held-out sessions: the numbers that its gates and its manifest carry."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from learning.bank import bank_of
from learning.dialogue import Dialogue
from learning.metrics import Resampled, interval, resample, sums_of
from learning.processes import ALONE, Processes
from learning.reward import TextReward


def evaluate(
    reward: TextReward,
    held: Sequence[Dialogue],
    training: Sequence[Dialogue],
    draws: int = 2000,
    processes: Processes = ALONE,
) -> dict[str, float]:
    """L_GE beside Mean's, and Δr̂_LI, with 95 % intervals over sessions.

    Args:
        reward: what is measured.
        held: sessions it never saw.
        training: whose mean rating is the Mean row.
        draws: bootstrap resamples.
        processes: what shares the dialogues.

    Returns:
        mse, mse_mean, mse_ratio, delta and more, each with `_low` and `_high`; only what could be
        measured (no labels: no delta).
    """
    bank = bank_of(held, reward.settings.ls_threshold)
    unrolled = processes.spread(len(held), lambda rows: [reward.unroll(held[i]) for i in rows])
    guesses = np.array([u.mean() for u in unrolled])
    rated = [d.rating for d in training if d.rating is not None]
    mean = float(np.mean(rated)) if rated else 50.0
    flat = np.concatenate(unrolled) / 100
    mine = resample([sums_of(bank, guesses, flat)], draws)
    constant = np.full(len(held), mean)
    plain = resample([sums_of(bank, constant, np.full(len(flat), mean / 100))], draws)
    out = {"sessions": float(len(bank.rated)), "mse_mean": plain.value["mse"]}
    for name in ("mse", "mae", "delta", "r_positive", "r_non_positive", "truth_rank"):
        _put(out, name, mine, name)
    low, high = interval(mine.draws["mse"] / plain.draws["mse"])
    out |= {
        "mse_ratio": mine.value["mse"] / plain.value["mse"],
        "mse_ratio_low": low,
        "mse_ratio_high": high,
    }
    return {k: float(v) for k, v in out.items() if np.isfinite(v)}


def _put(out: dict[str, float], name: str, measured: Resampled, measure: str) -> None:
    estimate = measured.estimate(measure)
    out[name], out[f"{name}_low"], out[f"{name}_high"] = (
        estimate.value,
        estimate.low,
        estimate.high,
    )
