"""Intervals over groups: what they hold, by closed forms and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from learning.intervals import Bootstrap

pytestmark = pytest.mark.unit


def test_mean_of_known_values_with_a_bootstrap_interval() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(10, 2, 400)
    found = Bootstrap(range(400), seed=3).mean(values)
    se = values.std() / math.sqrt(400)
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - 1.96 * se, abs=0.15 * se)
    assert found.high == pytest.approx(values.mean() + 1.96 * se, abs=0.15 * se)
    assert found.n == 400


def test_unknown_values_are_left_out() -> None:
    found = Bootstrap("abcd").mean([1.0, math.nan, 3.0, math.nan])
    assert (found.value, found.n) == (2.0, 2)
    assert found.low >= 1 and found.high <= 3
    nothing = Bootstrap("ab").mean([math.nan, math.nan])
    assert nothing.n == 0 and math.isnan(nothing.value)
    assert nothing.as_json() == {"value": None, "low": None, "high": None, "n": 0}


def test_the_group_is_the_unit() -> None:
    """Ten copies of each value carry no more than one."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=30)
    alone = Bootstrap(range(30), seed=5).mean(values)
    copied = Bootstrap(np.repeat(np.arange(30), 10).tolist(), seed=5).mean(np.repeat(values, 10))
    naive = Bootstrap(range(300), seed=5).mean(np.repeat(values, 10))
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high))
    assert naive.high - naive.low < 0.5 * (copied.high - copied.low)


def test_one_group_has_no_interval() -> None:
    found = Bootstrap(["a"] * 5).mean([1, 2, 3, 4, 5])
    assert found.value == 3 and math.isnan(found.low) and math.isnan(found.high)
    assert not found.decided


def test_no_values_at_all() -> None:
    assert Bootstrap([]).mean([]).n == 0


def test_a_wrong_number_of_values_is_refused() -> None:
    with pytest.raises(ValueError, match="groups"):
        Bootstrap("abc").mean([1.0, 2.0])


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(2).normal(size=40)
    one, two = (Bootstrap(range(40), seed=7).mean(values) for _ in range(2))
    other = Bootstrap(range(40), seed=8).mean(values)
    assert one == two and one != other


def test_paired_differences_are_narrower_than_the_two_means() -> None:
    rng = np.random.default_rng(4)
    shared = rng.normal(0, 10, 60)
    a, b = shared + 1 + rng.normal(0, 0.5, 60), shared + rng.normal(0, 0.5, 60)
    bootstrap = Bootstrap(range(60), seed=0)
    difference = bootstrap.difference(a, b)
    assert difference.value == pytest.approx(float((a - b).mean()))
    assert difference.decided
    own = bootstrap.mean(a)
    assert difference.high - difference.low < 0.2 * (own.high - own.low)


def test_a_difference_takes_only_pairs() -> None:
    found = Bootstrap("abc").difference([1.0, 5.0, math.nan], [0.0, math.nan, 7.0])
    assert (found.value, found.n) == (1.0, 1)


def test_a_share_that_never_happened_may_yet_happen() -> None:
    """0 of 48: Clopper and Pearson's upper bound is 7.4 %."""
    found = Bootstrap(range(48)).mean([0.0] * 48, (0, 1))
    assert (found.value, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(0.0740, abs=5e-4)
    always = Bootstrap(range(48)).mean([1.0] * 48, (0, 1))
    assert (always.low, always.high) == pytest.approx((1 - found.high, 1.0))
    same = Bootstrap(range(48)).difference([0.0] * 48, [0.0] * 48, (0, 1))
    assert (same.low, same.high) == pytest.approx((-found.high, found.high))
    assert not same.decided


def test_coverage_of_clustered_means() -> None:
    """About 95 of 100 intervals hold the true mean, when values of a group go together."""
    rng = np.random.default_rng(11)
    hits = 0
    for trial in range(200):
        level = rng.normal(5, 2, 40)
        sizes = rng.integers(1, 6, 40)
        owner = np.repeat(np.arange(40), sizes)
        values = level[owner] + rng.normal(0, 1, len(owner))
        found = Bootstrap(owner.tolist(), seed=trial, draws=400).mean(values)
        hits += found.low <= 5 <= found.high
    assert 180 <= hits <= 199


def test_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = np.random.default_rng(6).normal(size=50)
    without = (values.sum() - values) / 49
    found = Bootstrap(range(50)).jackknife(float(values.mean()), without)
    half = 1.959964 * values.std(ddof=1) / math.sqrt(50)
    assert found.high - found.value == pytest.approx(half)
    assert found.value - found.low == pytest.approx(half)


def test_jackknife_of_nothing() -> None:
    assert Bootstrap("ab").jackknife(math.nan, [math.nan, math.nan]).n == 0
    alone = Bootstrap("a").jackknife(0.5, [math.nan])
    assert alone.value == 0.5 and math.isnan(alone.low)


def test_jackknife_of_a_share_stays_a_share() -> None:
    bootstrap = Bootstrap(range(40))
    never = bootstrap.jackknife(0.0, [0.0] * 40, (0, 1))
    assert (never.low, never.high) == pytest.approx((0.0, 1 - 0.025 ** (1 / 40)))
    assert bootstrap.jackknife(0.01, [0.0, *[0.0103] * 39], (0, 1)).low == 0


def test_jackknife_covers_the_distinct_words_of_another_sample() -> None:
    """Where a bootstrap would sit too low: it repeats replies, and repeats bring no new word."""
    from learning.compare.measures import distinct, distinct_without

    rng = np.random.default_rng(3)
    odds = 1 / np.arange(1, 301)

    def draw() -> list[str]:
        said = rng.choice(300, (40, 12), p=odds / odds.sum())
        return [" ".join(f"w{i}" for i in reply) for reply in said]

    expected = np.mean([distinct(draw(), 1) for _ in range(60)])
    bootstrap = Bootstrap(range(40))
    hits = 0
    for _ in range(60):
        replies = draw()
        without = distinct_without(replies, bootstrap.owner, 1)
        found = bootstrap.jackknife(distinct(replies, 1), without)
        hits += found.low <= expected <= found.high
    assert hits >= 54
