"""One score for a whole dialogue, decomposed over its turns: the losses of the paper.

Every method is one function of the same shapes. A batch holds the rewards of turns drawn from
several dialogues, flat, with the dialogue each belongs to:

    rewards [drawn]   r_θ of each drawn turn
    owner   [drawn]   index of its dialogue in the batch, 0 … dialogues-1
    length  [dialogues]  T, the number of scored turns of each whole dialogue
    returns [dialogues]  R, the session's score

`form` says what decomposes: `sum`, R ≈ Σ_t r_θ(s_t, a_t), as the paper has it (eq. 3), or `mean`,
R ≈ 1/T Σ_t r_θ(s_t, a_t), which lets dialogues of any length share one reward scale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Form = Literal["mean", "sum"]


def draw(
    lengths: NDArray[np.int64], subset: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw min(K, T) distinct turns of each dialogue, uniformly.

    Args:
        lengths: T of each dialogue, [dialogues].
        subset: K; 0 takes every turn.
        rng: where chance comes from.

    Returns:
        Position of each drawn turn within its dialogue and the index of that dialogue, [drawn]. The
        cost grows with K, not with T (apart from drawing the numbers).
    """
    chosen = [
        np.arange(t) if subset == 0 or subset >= t else rng.choice(t, size=subset, replace=False)
        for t in lengths
    ]
    owner = np.repeat(np.arange(len(lengths)), [len(c) for c in chosen])
    return np.concatenate(chosen).astype(np.int64), owner.astype(np.int64)


def estimate(rewards: Tensor, owner: Tensor, length: Tensor, form: Form) -> Tensor:
    """R̂ of each dialogue from the drawn turns, [dialogues]: T/|I| Σ_{t∈I} r_θ, or the mean of them.

    Unbiased over uniform draws of I: its expectation is the sum (mean) over all turns (Ren et al.
    2021).
    """
    import torch

    n = len(length)
    total = torch.zeros(n, dtype=rewards.dtype, device=rewards.device).index_add(0, owner, rewards)
    count = torch.bincount(owner, minlength=n).to(rewards.dtype)
    mean = total / count.clamp(min=1)
    return mean * length.to(rewards.dtype) if form == "sum" else mean


def rrd_loss(rewards: Tensor, owner: Tensor, length: Tensor, returns: Tensor, form: Form) -> Tensor:
    """Randomised return decomposition (paper eq. 9; Ren et al. 2021).

    With all turns drawn it is least-squares decomposition, L_GE itself (paper eq. 4). On a subset
    its expectation is L_GE plus the variance of the estimate, a penalty on rewards that differ much
    between the turns of one dialogue.
    """
    return (returns - estimate(rewards, owner, length, form)).square().mean()


def unbiased_rrd_loss(
    rewards: tuple[Tensor, Tensor],
    owner: tuple[Tensor, Tensor],
    length: Tensor,
    returns: Tensor,
    form: Form,
) -> Tensor:
    """The same without the variance: two independent draws, the product of their errors.

    Its expectation (not its value, which may be negative) is L_GE.
    """
    first, second = (
        returns - estimate(r, o, length, form) for r, o in zip(rewards, owner, strict=True)
    )
    return (first * second).mean()


def credit_loss(rewards: Tensor, owner: Tensor, credit: Tensor, dialogues: int) -> Tensor:
    """Mean over dialogues of the squared error to a credit given to each turn, [drawn].

    IRCR's credit is the trajectory's return for every turn, RUDDER's the difference of two
    consecutive predictions; what differs between the two is only the credit.
    """
    import torch

    error = (credit - rewards).square()
    total = torch.zeros(dialogues, dtype=error.dtype, device=error.device).index_add(
        0, owner, error
    )
    count = torch.bincount(owner, minlength=dialogues).to(error.dtype)
    return (total / count.clamp(min=1)).mean()


def ircr_credit(returns: Tensor, length: Tensor, form: Form) -> Tensor:
    """Uniform redistribution (Gangwani et al. 2020): the same share for every turn, [dialogues].

    The paper's return is min-max normalised over the buffer; ratings have a common scale already.
    """
    return returns / length.to(returns.dtype) if form == "sum" else returns


def rudder_credit(
    predictions: NDArray[np.float64], returned: float, form: Form
) -> NDArray[np.float64]:
    """Differences of a return predictor (Arjona-Medina et al. 2019).

    Args:
        predictions: g_t, the return expected after each turn, [turns].
        returned: the return there really was, R.
        form: `mean` multiplies by T, so that the mean of the credits is the return.

    Returns:
        c_t = g_t - g_{t-1} with g_{-1} = 0, and the remaining error (R - g_T) spread over all
        turns: the credits then sum to R, [turns].
    """
    credit: NDArray[np.float64] = np.diff(predictions, prepend=0.0)
    credit = credit + (returned - predictions[-1]) / len(predictions)
    return credit * len(predictions) if form == "mean" else credit


def shaping_loss(rewards: Tensor, labels: Tensor) -> Tensor:
    """L_LI = E[(Γ - r_θ)²] over labelled turns (paper eq. 6)."""
    return (labels - rewards).square().mean()


def joint_loss(ge: Tensor | None, li: Tensor | None, lambda_ge: float) -> Tensor:
    """L_GELI = λ L_GE + (1 - λ) L_LI (paper eq. 2); one of them alone where the other is None."""
    if ge is None or li is None:
        alone = ge if li is None else li
        assert alone is not None, "a batch without ratings and without labels"
        return alone
    return lambda_ge * ge + (1 - lambda_ge) * li
