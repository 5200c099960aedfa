"""PPO on tokens of one reply: rewards, advantages, losses, and what keeps them in scale.

Shapes: B replies of at most R tokens. One reply is one episode; its score comes with its last
token (equation 10 of the paper; Ziegler et al. 2019; Schulman et al. 2016, 2017). `mask` [B, R]
holds which positions are tokens; every mean is over tokens, so a long reply weighs more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of `x` where `mask`."""
    return (x * mask).sum() / mask.sum()


def token_rewards(
    scores: Tensor, logprobs: Tensor, reference: Tensor, mask: Tensor, beta: float
) -> Tensor:
    """Reward of each token, [B, R]: −β log(π/π_ref), and the score on the last one.

    Args:
        scores: of the replies, [B].
        logprobs: log π of the tokens, [B, R].
        reference: log π_ref of the tokens, [B, R].
        mask: [B, R], each row at least one token, from the left.
        beta: of the KL term.
    """
    rewards = -beta * (logprobs - reference) * mask
    last = mask.sum(1, keepdim=True).long() - 1
    return rewards.scatter_add(1, last, scores[:, None].to(rewards.dtype))


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, discount: float, decay: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates and the returns values are fitted to, both [B, R].

    A_t = Σ_k (γλ)^k δ_{t+k}, δ_t = r_t + γ V_{t+1} − V_t, V = 0 after the last token.

    Args:
        rewards: [B, R].
        values: V before each token, [B, R].
        mask: [B, R].
        discount: γ.
        decay: λ.
    """
    values, rewards = values * mask, rewards * mask
    advantage = torch.zeros_like(rewards[:, 0])
    advantages = torch.zeros_like(rewards)
    for t in reversed(range(rewards.shape[1])):
        following = values[:, t + 1] if t + 1 < rewards.shape[1] else 0.0
        delta = rewards[:, t] + discount * following - values[:, t]
        advantage = delta + discount * decay * advantage
        advantages[:, t] = advantage
    return advantages, advantages + values


def whiten(x: Tensor, mask: Tensor) -> Tensor:
    """Mean 0 and variance 1 (unbiased) over the mask, 0 elsewhere; x and mask are [B, R]."""
    chosen = x.double() * mask
    n = mask.sum().double()
    mean = chosen.sum() / n
    variance = ((chosen**2).sum() / n - mean**2) * n / (n - 1).clamp(min=1)
    return ((x - mean.to(x)) * torch.rsqrt(variance.clamp(min=0) + 1e-8).to(x)) * mask


def policy_loss(
    logprobs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, clip: float
) -> tuple[Tensor, Tensor]:
    """Clipped surrogate, mean over tokens, and the share of tokens where the clip decides.

    −min(ρA, clip(ρ, 1−ε, 1+ε)A) with ρ = π/π_old (Schulman et al. 2017, equation 7).

    Args:
        logprobs: log π now, [B, R].
        old: log π when the reply was written, [B, R].
        advantages: [B, R].
        mask: [B, R].
        clip: ε.
    """
    ratio = ((logprobs - old) * mask).exp()
    free = -advantages * ratio
    clipped = -advantages * ratio.clamp(1.0 - clip, 1.0 + clip)
    loss = masked_mean(torch.maximum(free, clipped), mask)
    return loss, masked_mean((clipped > free).to(loss.dtype), mask).detach()


def value_loss(values: Tensor, old: Tensor, returns: Tensor, mask: Tensor, clip: float) -> Tensor:
    """½ max((V−G)², (clip(V, V_old±ε)−G)²), mean over tokens.

    Args:
        values: V now, [B, R].
        old: V when the reply was written, [B, R].
        returns: G, [B, R].
        mask: [B, R].
        clip: ε.
    """
    near = old + (values - old).clamp(-clip, clip)
    worst = torch.maximum((values - returns) ** 2, (near - returns) ** 2)
    return 0.5 * masked_mean(worst, mask)


def above_siblings(scores: Sequence[float], samples: int) -> list[float]:
    """Each score less the mean of the others to the same history (Ahmadian et al. 2024, RLOO).

    What depends on the history alone cancels, and the gradient's expectation stays the same.

    Args:
        scores: `samples` neighbours answer one history.
        samples: 1 changes nothing.
    """
    if samples == 1:
        return list(scores)
    out = []
    for start in range(0, len(scores), samples):
        group = scores[start : start + samples]
        total = math.fsum(group)
        out += [s - (total - s) / (samples - 1) for s in group]
    return out


@dataclass(slots=True)
class ScoreScale:
    """Running mean and deviation of all scores so far (Welford; Chan et al. for batches)."""

    n: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, scores: Sequence[float]) -> None:
        """Take a batch in, whole."""
        if not scores:
            return
        m = len(scores)
        mean = math.fsum(scores) / m
        squares = math.fsum((s - mean) ** 2 for s in scores)
        shift, both = mean - self.mean, self.n + m
        self.squares += squares + shift**2 * self.n * m / both
        self.mean += shift * m / both
        self.n = both

    @property
    def deviation(self) -> float:
        """Unbiased; 0 before there are two different scores."""
        return math.sqrt(self.squares / (self.n - 1)) if self.n > 1 else 0.0

    def __call__(self, scores: Sequence[float]) -> list[float]:
        """In deviations from the mean; all 0 while all scores were equal."""
        if (deviation := self.deviation) < 1e-8:
            return [0.0] * len(scores)
        return [(s - self.mean) / deviation for s in scores]

    def state(self) -> dict[str, float]:
        """For a checkpoint: `ScoreScale(**state)`."""
        return asdict(self)


@dataclass(slots=True)
class KlController:
    """β of the KL term, steered to a KL a reply (Ziegler et al. 2019, section 2.2)."""

    beta: float
    target: float
    """Nats a reply; 0 keeps β."""
    gain: float = 0.1
    bound: float = 0.2

    def update(self, kl: float) -> None:
        """β ← β (1 + gain · clip(KL/target − 1, ±bound)), once a batch."""
        if self.target > 0:
            error = max(-self.bound, min(self.bound, kl / self.target - 1))
            self.beta *= 1 + self.gain * error
