"""RUDDER's return predictor: a recurrent network that guesses the score after every turn.

Arjona-Medina et al. 2019 use an LSTM; this is a GRU, which has fewer weights. It is trained on the
final guess and, with a tenth of the weight, on every earlier one, so that the differences say when
the guess changed.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from learning.bank import Bank, Floats
from learning.decomposition import rudder_credit
from learning.scale import Scale

HIDDEN = 64
EARLY = 0.1
"""Weight of the guesses before the last one."""
LONGEST_PASS = 8192
"""Padded turns in one batch."""


class ReturnPredictor(nn.Module):  # type: ignore[misc]
    """g_t: the standardised return guessed after each turn, [dialogues, turns]."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.inwards = nn.Sequential(nn.Dropout(0.2), nn.Linear(features, HIDDEN), nn.GELU())
        self.memory = nn.GRU(HIDDEN, HIDDEN, batch_first=True)
        self.outwards = nn.Linear(HIDDEN, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[dialogues, turns, features] to [dialogues, turns]."""
        states, _ = self.memory(self.inwards(x))
        return self.outwards(states).squeeze(-1)


def fit(
    x: Tensor, bank: Bank, held: tuple[Tensor, Bank], scale: Scale, seed: int, epochs: int = 15
) -> ReturnPredictor:
    """Train on rated dialogues, keep the weights that guess the held-out returns best.

    Args:
        x: features of the turns, [turns, features].
        bank: whose turns they are.
        held: the same of the validation part.
        scale: units of the returns.
        seed: of weights, order and dropout.
        epochs: passes over the rated dialogues.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = ReturnPredictor(x.shape[1])
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.01)
    best, best_loss = network.state_dict(), np.inf
    for _ in range(epochs):
        network.train()
        batches = _batches(bank, rng)
        for batch in batches:
            guess, mask, last = _guess(network, x, bank, batch)
            returns = _standard(bank, batch, scale).unsqueeze(1)
            error = (guess - returns).square()
            final = error.gather(1, last.unsqueeze(1)).mean()
            loss = final + EARLY * (error * mask).sum() / mask.sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
        loss_now = _final_error(network, *held, scale)
        if loss_now < best_loss:
            best_loss = loss_now
            best = {k: v.detach().clone() for k, v in network.state_dict().items()}
    network.load_state_dict(best)
    network.eval()
    return network


def credits(network: ReturnPredictor, x: Tensor, bank: Bank, scale: Scale) -> Floats:
    """RUDDER's credit of every turn in units of r_θ, NaN in unrated dialogues, [turns]."""
    out = np.full(int(bank.length.sum()), np.nan)
    with torch.inference_mode():
        for d in bank.rated:
            turns = bank.turns(int(d))
            guess = network(x[turns].unsqueeze(0))[0].double().numpy()
            returned = float((bank.returns[d] - scale.mean) / scale.sd)
            credit = rudder_credit(guess, returned, scale.form)
            if scale.form == "sum":  # an average score is nobody's merit: the same share for all
                credit = scale.sd * credit + scale.mean / len(credit)
            out[turns] = credit
    return out


def _standard(bank: Bank, dialogues: np.ndarray, scale: Scale) -> Tensor:
    return torch.from_numpy((bank.returns[dialogues] - scale.mean) / scale.sd).float()


def _batches(bank: Bank, rng: np.random.Generator | None) -> list[np.ndarray]:
    """Rated dialogues of similar length together, the batches in random order."""
    order = bank.rated
    if rng is not None:
        order = rng.permutation(order)
    order = order[np.argsort(bank.length[order], kind="stable")]
    batches: list[np.ndarray] = []
    start = 0
    for end in range(1, len(order) + 1):
        full = end == len(order) or (end + 1 - start) * bank.length[order[end]] > LONGEST_PASS
        if full or end - start == 32:
            batches.append(order[start:end])
            start = end
    if rng is not None:
        batches = [batches[i] for i in rng.permutation(len(batches))]
    return batches


def _guess(
    network: ReturnPredictor, x: Tensor, bank: Bank, dialogues: np.ndarray
) -> tuple[Tensor, Tensor, Tensor]:
    """Guesses [dialogues, longest], which of them are real, and the last one of each dialogue."""
    rows = [x[bank.turns(int(d))] for d in dialogues]
    padded = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    length = torch.from_numpy(bank.length[dialogues])
    mask = torch.arange(padded.shape[1]).unsqueeze(0) < length.unsqueeze(1)
    return network(padded), mask.float(), length - 1


def _final_error(network: ReturnPredictor, x: Tensor, bank: Bank, scale: Scale) -> float:
    network.eval()
    errors = []
    with torch.inference_mode():
        for batch in _batches(bank, None):
            guess, _, last = _guess(network, x, bank, batch)
            final = guess.gather(1, last.unsqueeze(1)).squeeze(1)
            errors.append((final - _standard(bank, batch, scale)).square())
    return float(torch.cat(errors).mean()) if errors else 0.0
