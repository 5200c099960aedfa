import numpy as np
import pytest

from learning.bank import Bank
from learning.metrics import measures, ranks, resample, spearman, sums_of

pytestmark = pytest.mark.unit


def bank(returns: list[float], length: int, li: list[float], truth: list[float]) -> Bank:
    n = len(returns)
    return Bank(
        tuple(f"d{i}" for i in range(n)),
        np.arange(n) * length,
        np.full(n, length),
        np.array(returns),
        np.array(li),
        np.zeros(n * length),
        np.array(truth),
    )


NAN = float("nan")


def test_measures_by_hand() -> None:
    b = bank([50, NAN, 80], 2, [1, 0, NAN, 1, 0, 0], [1, 2, 3, 4, 5, 6])
    held = sums_of(b, np.array([60.0, 0.0, 60.0]), np.array([0.9, 0.1, 0.2, 0.5, 0.3, 0.2]))
    out = measures(held.sums.sum(0))
    assert out["mse"] == pytest.approx((100 + 400) / 2)
    assert out["mae"] == pytest.approx(15)
    assert out["r_positive"] == pytest.approx(0.7)
    assert out["r_non_positive"] == pytest.approx(0.2)
    assert out["delta"] == pytest.approx(0.5)
    # ranks of the rewards with a tie: 5, 0, 1.5, 4, 3, 1.5 against 0 … 5
    assert out["truth_rank"] == pytest.approx(np.corrcoef([5, 0, 1.5, 4, 3, 1.5], range(6))[0, 1])


def test_ranks_share_ties() -> None:
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [2.5, 0.0, 2.5, 1.0]


def test_spearman_of_a_monotone_map_is_one_and_of_a_constant_unknown() -> None:
    x = np.array([0.1, 5.0, 2.0, -1.0])
    assert spearman(x, np.exp(x)) == pytest.approx(1.0)
    assert spearman(x, -x) == pytest.approx(-1.0)
    assert np.isnan(spearman(x, np.zeros(4)))


def test_without_labels_or_truth_the_measure_is_unknown_not_zero() -> None:
    b = bank([50, 60], 1, [NAN, NAN], [NAN, NAN])
    r = resample([sums_of(b, np.array([50.0, 50.0]), np.array([1.0, 2.0]))], draws=50)
    assert np.isnan(r.value["delta"]) and np.isnan(r.value["truth_rank"])
    assert np.isnan(r.estimate("delta").low)
    assert r.value["mse"] == pytest.approx(50.0)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for i in range(120):
        error = rng.normal(scale=3.0, size=60)
        b = bank(list(50 + error), 1, [NAN] * 60, [NAN] * 60)
        e = resample([sums_of(b, np.full(60, 50.0), np.zeros(60))], draws=300, seed=i)
        low, high = e.estimate("mse").low, e.estimate("mse").high
        covered += low <= 9.0 <= high
    # Percentile intervals of a mean of squares are a little narrow: 95 % is 114 of 120.
    assert 100 <= covered <= 120


def test_seeds_are_averaged_and_their_spread_is_told() -> None:
    b = bank([50, 50], 1, [1, 0], [NAN, NAN])
    held = [sums_of(b, np.array([50.0 + e, 50.0 - e]), np.array([1.0, 0.0])) for e in (1.0, 3.0)]
    e = resample(held, draws=100).estimate("mse")
    assert e.value == pytest.approx((1 + 9) / 2)
    assert e.seed_sd == pytest.approx(np.std([1, 9], ddof=1))


def test_the_same_draws_for_every_method_make_differences_paired() -> None:
    rng = np.random.default_rng(2)
    returns = list(rng.normal(50, 10, size=40))
    b = bank(returns, 1, [NAN] * 40, [NAN] * 40)
    good = resample([sums_of(b, np.array(returns) + 1, np.zeros(40))], draws=200)
    worse = resample([sums_of(b, np.array(returns) + 2, np.zeros(40))], draws=200)
    ratio = good.draws["mse"] / worse.draws["mse"]
    assert ratio == pytest.approx(np.full(200, 0.25))
