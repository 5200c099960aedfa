"""How far raters agree beyond chance."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence


def cohen_kappa(a: Sequence[Hashable], b: Sequence[Hashable]) -> float:
    """Cohen's kappa (1960) of two raters of the same items; NaN where both only ever say one thing.

    κ = (p_o - p_e) / (1 - p_e), with each rater's own frequencies in p_e.
    """
    pairs = list(zip(a, b, strict=True))
    if not pairs:
        return math.nan
    n = len(pairs)
    seen = sum(x == y for x, y in pairs) / n
    first, second = Counter(a), Counter(b)
    chance = sum(first[value] * second[value] for value in first) / n**2
    return (seen - chance) / (1 - chance) if chance < 1 else math.nan


def krippendorff_alpha(items: Sequence[Sequence[Hashable | None]]) -> float:
    """Krippendorff's alpha for nominal data, any number of raters, missing values allowed.

    α = 1 - D_o / D_e from the coincidence matrix (Krippendorff, 2011).

    Args:
        items: what each rater said of each item, [items][raters]; None where they did not say.

    Returns:
        At most 1; NaN where no item has two values or all values are the same.
    """
    totals: Counter[Hashable] = Counter()
    disagreements = 0.0
    for item in items:
        values = Counter(value for value in item if value is not None)
        m = values.total()
        if m < 2:
            continue
        totals += values
        disagreements += sum(c * (m - c) for c in values.values()) / (m - 1)
    n = totals.total()
    expected = sum(c * (n - c) for c in totals.values())
    return 1 - (n - 1) * disagreements / expected if expected else math.nan
