"""The equations of PPO against closed forms, explicit sums, and finite differences."""

from __future__ import annotations

import itertools
import math
import statistics

import pytest
import torch

from learning.policy.ppo import (
    KlController,
    ScoreScale,
    above_siblings,
    gae,
    masked_mean,
    policy_loss,
    token_rewards,
    value_loss,
    whiten,
)

pytestmark = pytest.mark.unit

MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]], dtype=torch.bool)


def made(seed: int = 0) -> torch.Tensor:
    return torch.randn(MASK.shape, generator=torch.Generator().manual_seed(seed)).double()


def test_score_comes_with_the_last_token_and_kl_with_each() -> None:
    logprobs, reference = made(1), made(2)
    found = token_rewards(torch.tensor([3.0, -1.0, 2.0]), logprobs, reference, MASK, 0.5)
    kl = 0.5 * (logprobs - reference)
    assert found[0, 4] == pytest.approx(float(3.0 - kl[0, 4]))
    assert found[1, 2] == pytest.approx(float(-1.0 - kl[1, 2]))
    assert found[2, 0] == pytest.approx(float(2.0 - kl[2, 0]))
    assert found[0, 1] == pytest.approx(float(-kl[0, 1]))
    assert found[~MASK].abs().max() == 0
    # The rewards of a reply sum to its score less β times its log-ratio (equation 10).
    assert torch.allclose(found.sum(1), torch.tensor([3.0, -1.0, 2.0]) - (kl * MASK).sum(1))


@pytest.mark.parametrize(("discount", "decay"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.9, 0.0)])
def test_advantages_are_the_sum_of_discounted_errors(discount: float, decay: float) -> None:
    rewards, values = made(3), made(4)
    advantages, returns = gae(rewards, values, MASK, discount, decay)
    for row, length in enumerate(MASK.sum(1).tolist()):
        for t in range(length):
            total = 0.0
            for k in range(t, length):
                after = float(values[row, k + 1]) if k + 1 < length else 0.0
                delta = float(rewards[row, k]) + discount * after - float(values[row, k])
                total += (discount * decay) ** (k - t) * delta
            assert float(advantages[row, t]) == pytest.approx(total)
            assert float(returns[row, t]) == pytest.approx(total + float(values[row, t]))
    assert advantages[~MASK].abs().max() == 0


def test_with_lambda_one_returns_are_rewards_to_go_whatever_the_values() -> None:
    rewards = torch.tensor([[0.0, 0.0, 2.0]])
    full = torch.ones(1, 3, dtype=torch.bool)
    _, returns = gae(rewards, torch.tensor([[5.0, -7.0, 1.0]]), full, 1.0, 1.0)
    assert returns.tolist() == [[2.0, 2.0, 2.0]]


def test_whitened_has_mean_zero_and_variance_one_on_the_mask_only() -> None:
    x = made(5) * 7 + 3
    found = whiten(x, MASK)
    chosen = found[MASK]
    assert float(chosen.mean()) == pytest.approx(0, abs=1e-9)
    assert float(chosen.var(unbiased=True)) == pytest.approx(1, abs=1e-6)
    assert found[~MASK].abs().max() == 0


def test_on_the_policy_that_wrote_the_loss_is_minus_the_mean_advantage() -> None:
    logprobs, advantages = made(7), made(8)
    loss, clipped = policy_loss(logprobs, logprobs.clone(), advantages, MASK, 0.2)
    assert float(loss) == pytest.approx(-float(masked_mean(advantages, MASK)))
    assert float(clipped) == 0


@pytest.mark.parametrize(
    ("ratio", "advantage", "wanted", "clipped"),
    [
        (1.5, 1.0, -1.2, 1.0),  # further up is not paid for
        (1.5, -1.0, 1.5, 0.0),  # a bad token that became likelier costs in full
        (0.5, 1.0, -0.5, 0.0),
        (0.5, -1.0, 0.8, 1.0),
        (1.1, 2.0, -2.2, 0.0),
    ],
)
def test_clipping_of_one_token(
    ratio: float, advantage: float, wanted: float, clipped: float
) -> None:
    one = torch.ones(1, 1, dtype=torch.bool)
    loss, share = policy_loss(
        torch.tensor([[math.log(ratio)]]), torch.zeros(1, 1), torch.tensor([[advantage]]), one, 0.2
    )
    assert float(loss) == pytest.approx(wanted)
    assert float(share) == clipped


def test_a_value_that_left_its_range_counts_with_the_worse_of_both() -> None:
    one = torch.ones(1, 1, dtype=torch.bool)

    def loss(value: float, target: float) -> float:
        at = torch.tensor([[value]])
        return float(value_loss(at, torch.zeros(1, 1), torch.tensor([[target]]), one, 0.2))

    assert loss(0.1, 1.0) == pytest.approx(0.5 * 0.81)
    assert loss(0.9, 1.0) == pytest.approx(0.5 * 0.64)  # taken at 0.2
    assert loss(0.9, -1.0) == pytest.approx(0.5 * 3.61)


def test_gradients_are_those_of_finite_differences() -> None:
    old, advantages, returns = made(9), made(10), made(11)
    # Away from the corners of the clips, where there is no derivative.
    logprobs = (old + 0.3 * made(12)).requires_grad_()
    values = (returns + made(13)).requires_grad_()

    assert torch.autograd.gradcheck(
        lambda x: policy_loss(x, old, advantages, MASK, 0.2)[0], (logprobs,), eps=1e-6
    )
    assert torch.autograd.gradcheck(
        lambda x: value_loss(x, returns.detach() * 0.5, returns, MASK, 0.2), (values,), eps=1e-6
    )


def test_nothing_beyond_a_reply_has_a_gradient() -> None:
    logprobs, values = made(14).requires_grad_(), made(15).requires_grad_()
    loss = policy_loss(logprobs, made(16), made(17), MASK, 0.2)[0]
    (loss + value_loss(values, made(18), made(19), MASK, 0.2)).backward()
    assert logprobs.grad is not None and logprobs.grad[~MASK].abs().max() == 0
    assert values.grad is not None and values.grad[~MASK].abs().max() == 0


def test_running_mean_and_deviation_are_those_of_all_scores() -> None:
    batches = [[60.0, 70.0, 55.0], [80.0], [], [10.0, 90.0]]
    scale = ScoreScale()
    for batch in batches:
        scale.add(batch)
    every = [s for batch in batches for s in batch]
    assert scale.mean == pytest.approx(statistics.fmean(every))
    assert scale.deviation == pytest.approx(statistics.stdev(every))
    assert scale([scale.mean + scale.deviation]) == [pytest.approx(1.0)]
    assert ScoreScale(**scale.state()) == scale


def test_siblings_take_away_what_their_history_gives() -> None:
    above = above_siblings([1.0, 2.0, 6.0, 101.0, 102.0, 106.0], 3)
    assert above == pytest.approx([-3.0, -1.5, 4.5] * 2)
    assert above_siblings([1.0, 5.0], 1) == [1.0, 5.0]


def test_siblings_keep_the_gradients_expectation_and_lessen_its_variance() -> None:
    """Policy gradient of two actions in two histories, all draws of two siblings enumerated."""
    worth = {0: (0.0, 1.0), 1: (10.0, 12.0)}
    chance = (0.3, 0.7)
    found: dict[bool, list[tuple[float, float]]] = {False: [], True: []}  # chance, gradient
    for history in worth:
        for a, b in itertools.product((0, 1), repeat=2):
            scores = [worth[history][a], worth[history][b]]
            slope = [chance[1] if x == 0 else -chance[0] for x in (a, b)]  # d log π / d logit of 0
            for siblings in found:
                used = above_siblings(scores, 2) if siblings else scores
                gradient = sum(s * u for s, u in zip(slope, used, strict=True)) / 2
                found[siblings].append((0.5 * chance[a] * chance[b], gradient))
    mean = {k: sum(p * g for p, g in v) for k, v in found.items()}
    variance = {k: sum(p * (g - mean[k]) ** 2 for p, g in v) for k, v in found.items()}
    assert mean[True] == pytest.approx(mean[False])
    assert variance[True] < 0.1 * variance[False]


def test_equal_scores_are_worth_nothing() -> None:
    scale = ScoreScale()
    scale.add([50.0] * 4)
    assert scale([50.0, 50.0]) == [0.0, 0.0]


def test_beta_follows_the_kl() -> None:
    controller = KlController(0.1, 6.0)
    controller.update(6.0)
    assert controller.beta == pytest.approx(0.1)
    controller.update(6.6)  # 10 % above: inside the bound
    assert controller.beta == pytest.approx(0.1 * 1.01)
    controller.update(60.0)
    assert controller.beta == pytest.approx(0.1 * 1.01 * 1.02)
    controller.update(0.0)
    assert controller.beta == pytest.approx(0.1 * 1.01 * 1.02 * 0.98)
    fixed = KlController(0.1, 0.0)
    fixed.update(60.0)
    assert fixed.beta == 0.1
