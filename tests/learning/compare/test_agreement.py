"""Agreement against published examples."""

from __future__ import annotations

import math

import pytest

from learning.compare.agreement import cohen_kappa, krippendorff_alpha

pytestmark = pytest.mark.unit


def test_kappa_of_a_textbook_table() -> None:
    """20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no: kappa 0.4."""
    a = [True] * 25 + [False] * 25
    b = [True] * 20 + [False] * 5 + [True] * 10 + [False] * 15
    assert cohen_kappa(a, b) == pytest.approx(0.4)


def test_kappa_at_its_ends() -> None:
    assert cohen_kappa([1, 0, 1, 0], [1, 0, 1, 0]) == 1
    assert cohen_kappa([1, 0, 1, 0], [0, 1, 0, 1]) == -1
    assert cohen_kappa([1, 1, 0, 0], [1, 0, 1, 0]) == 0
    assert math.isnan(cohen_kappa([1, 1], [1, 1]))
    assert math.isnan(cohen_kappa([], []))


def test_alpha_of_two_raters() -> None:
    """Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), section A: 0.095."""
    one = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0]
    two = [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    assert krippendorff_alpha(list(zip(one, two, strict=True))) == pytest.approx(0.095, abs=5e-4)


def test_alpha_of_four_raters_with_missing_values() -> None:
    """The same, section C: 0.743."""
    raters = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
        [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
    ]
    items = [list(item) for item in zip(*raters, strict=True)]
    assert krippendorff_alpha(items) == pytest.approx(0.743, abs=5e-4)


def test_alpha_of_nothing_to_disagree_about() -> None:
    assert math.isnan(krippendorff_alpha([]))
    assert math.isnan(krippendorff_alpha([[True, None], [None, None]]))  # no pair
    assert math.isnan(krippendorff_alpha([[True, True], [True, True]]))  # no variation
    assert krippendorff_alpha([[True, True], [False, False]]) == 1
