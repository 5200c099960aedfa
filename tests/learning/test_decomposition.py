"""The losses against independent references: closed forms, enumeration, finite differences."""

import itertools
import math

import numpy as np
import pytest
import torch

from learning.decomposition import (
    credit_loss,
    draw,
    estimate,
    ircr_credit,
    joint_loss,
    rrd_loss,
    rudder_credit,
    shaping_loss,
    unbiased_rrd_loss,
)

pytestmark = pytest.mark.unit

REWARDS = torch.tensor([0.3, -1.2, 2.5, 0.7, 1.1], dtype=torch.float64)
RETURN = torch.tensor([2.0], dtype=torch.float64)
LENGTH = torch.tensor([5])


def subsets(k: int) -> list[tuple[int, ...]]:
    return list(itertools.combinations(range(5), k))


def one(chosen: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    return REWARDS[list(chosen)], torch.zeros(len(chosen), dtype=torch.int64)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(("form", "whole"), [("sum", 3.4), ("mean", 0.68)])
def test_the_subset_estimate_is_unbiased_over_all_subsets(k: int, form: str, whole: float) -> None:
    over_all = [estimate(*one(s), LENGTH, form).item() for s in subsets(k)]  # type: ignore[arg-type]
    assert math.isclose(sum(over_all) / len(over_all), whole, abs_tol=1e-12)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_the_squared_error_on_subsets_is_the_full_loss_plus_the_variance(k: int) -> None:
    values = [estimate(*one(s), LENGTH, "sum").item() for s in subsets(k)]
    losses = [rrd_loss(*one(s), LENGTH, RETURN, "sum").item() for s in subsets(k)]
    # Variance of T times the mean of k of T without replacement, from the textbook.
    r = REWARDS.numpy()
    variance = 25 * r.var(ddof=1) / k * (1 - k / 5)
    assert math.isclose(float(np.var(values)), variance, rel_tol=1e-9)
    assert math.isclose(float(np.mean(losses)), (2.0 - 3.4) ** 2 + variance, rel_tol=1e-9)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_product_of_two_subsets_errors_is_the_full_loss_on_average(k: int) -> None:
    losses = []
    for a, b in itertools.product(subsets(k), repeat=2):
        (ra, oa), (rb, ob) = one(a), one(b)
        losses.append(unbiased_rrd_loss((ra, rb), (oa, ob), LENGTH, RETURN, "sum").item())
    assert math.isclose(float(np.mean(losses)), (2.0 - 3.4) ** 2, rel_tol=1e-9)
    assert k == 3 or min(losses) < 0


def test_all_turns_drawn_is_the_loss_of_equation_4() -> None:
    rewards = torch.tensor([1.0, 2.0, 3.0, 4.0])
    owner = torch.tensor([0, 0, 0, 1])
    length = torch.tensor([3, 1])
    returns = torch.tensor([5.0, 6.0])
    assert rrd_loss(rewards, owner, length, returns, "sum").item() == pytest.approx((1 + 4) / 2)
    assert rrd_loss(rewards, owner, length, returns, "mean").item() == pytest.approx((9 + 4) / 2)


def test_a_batch_is_the_mean_of_its_dialogues_whatever_their_order() -> None:
    rewards = torch.tensor([0.5, 1.5, 2.0])
    mixed = rrd_loss(
        rewards, torch.tensor([1, 0, 1]), torch.tensor([4, 6]), torch.tensor([1.0, 2.0]), "sum"
    )
    first = (1.0 - 4 * 1.5) ** 2
    second = (2.0 - 6 * (0.5 + 2.0) / 2) ** 2
    assert mixed.item() == pytest.approx((first + second) / 2)


@pytest.mark.parametrize("form", ["sum", "mean"])
@pytest.mark.parametrize("loss", ["rrd", "unbiased", "ircr", "li", "joint"])
def test_gradients_agree_with_finite_differences(form: str, loss: str) -> None:
    rng = np.random.default_rng(3)
    owner = torch.tensor([0, 0, 1, 1, 1, 2])
    length = torch.tensor([7, 3, 40])
    returns = torch.from_numpy(rng.normal(size=3))
    labels = torch.from_numpy(rng.integers(0, 2, size=6).astype(float))

    def of(r: torch.Tensor) -> torch.Tensor:
        ge = rrd_loss(r, owner, length, returns, form)  # type: ignore[arg-type]
        li = shaping_loss(r, labels)
        match loss:
            case "rrd":
                return ge
            case "unbiased":
                return unbiased_rrd_loss((r, r * 0.5), (owner, owner), length, returns, form)  # type: ignore[arg-type]
            case "ircr":
                credit = ircr_credit(returns, length, form)[owner]  # type: ignore[arg-type]
                return credit_loss(r, owner, credit, 3)
            case "li":
                return li
            case _:
                return joint_loss(ge, li, 0.7)

    r = torch.from_numpy(rng.normal(size=6)).requires_grad_()
    assert torch.autograd.gradcheck(of, (r,), eps=1e-6, atol=1e-6)


def test_drawn_turns_are_distinct_in_range_and_no_more_than_k() -> None:
    rng = np.random.default_rng(0)
    lengths = np.array([1, 5, 300])
    position, owner = draw(lengths, 32, rng)
    assert np.bincount(owner).tolist() == [1, 5, 32]
    for d, t in enumerate(lengths):
        mine = position[owner == d]
        assert len(set(mine)) == len(mine) and mine.max() < t and mine.min() >= 0
    everything, whose = draw(lengths, 0, rng)
    assert np.bincount(whose).tolist() == [1, 5, 300]
    assert everything[whose == 2].tolist() == list(range(300))


def test_every_turn_is_drawn_equally_often() -> None:
    rng = np.random.default_rng(1)
    counts = np.zeros(10)
    for _ in range(3000):
        counts[draw(np.array([10]), 3, rng)[0]] += 1
    # 900 expected of each, standard deviation 25
    assert abs(counts - 900).max() < 110


def test_rudder_credit_is_the_differences_and_sums_to_the_return() -> None:
    predictions = np.array([1.0, 4.0, 3.0])
    credit = rudder_credit(predictions, 6.0, "sum")
    # differences 1, 3, -1 and the remaining error 3 spread over three turns
    assert credit.tolist() == [2.0, 4.0, 0.0]
    assert rudder_credit(predictions, 6.0, "mean").mean() == pytest.approx(6.0)


def test_a_perfect_predictor_leaves_nothing_to_spread() -> None:
    contributions = np.array([0.5, -2.0, 4.0, 0.0])
    credit = rudder_credit(np.cumsum(contributions), contributions.sum(), "sum")
    assert credit == pytest.approx(contributions)


def test_ircr_gives_every_turn_the_same_share() -> None:
    returns, length = torch.tensor([6.0, 8.0]), torch.tensor([3, 4])
    assert ircr_credit(returns, length, "sum").tolist() == [2.0, 2.0]
    assert ircr_credit(returns, length, "mean").tolist() == [6.0, 8.0]


def test_the_joint_loss_is_equation_2() -> None:
    ge, li = torch.tensor(3.0), torch.tensor(5.0)
    assert joint_loss(ge, li, 0.25).item() == pytest.approx(0.25 * 3 + 0.75 * 5)
    assert joint_loss(ge, None, 0.25).item() == 3.0
    assert joint_loss(None, li, 0.25).item() == 5.0


def test_minimising_the_full_loss_recovers_what_each_kind_of_turn_contributes() -> None:
    """Sums of three kinds of turn have one least-squares answer, which gradient descent finds."""
    rng = np.random.default_rng(5)
    worth = np.array([2.0, -1.0, 0.5])
    kinds = [rng.integers(0, 3, size=rng.integers(3, 12)) for _ in range(60)]
    flat = torch.from_numpy(np.concatenate(kinds))
    owner = torch.from_numpy(np.repeat(np.arange(60), [len(k) for k in kinds]))
    length = torch.tensor([len(k) for k in kinds])
    returns = torch.tensor([worth[k].sum() for k in kinds])
    guess = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([guess], lr=0.1)
    for _ in range(800):
        optimizer.zero_grad()
        rrd_loss(guess[flat], owner, length, returns, "sum").backward()
        optimizer.step()
    assert guess.detach().numpy() == pytest.approx(worth, abs=1e-3)
