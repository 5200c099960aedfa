"""95 % intervals over groups (dialogues, sessions), paired where two policies answered the same.

Values of one group are not independent, so whole groups are drawn. Two places need more than the
percentile bootstrap:
- a share that came out the same everywhere (0 refusals of 48) has no spread to draw from; there the
  exact binomial bound over groups says how much may have been missed;
- what is counted over a set of replies (distinct-n) falls when a draw repeats a reply, so that the
  bootstrap is wrong; there the jackknife over groups is used, whose variance is on the wide side
  (Efron and Stein, 1981).
With few groups (under about 20) percentile intervals are somewhat too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

DRAWS = 4000
CONFIDENCE = 0.95
Z = 1.959964
"""Normal quantile of the two-sided 95 %."""


@dataclass(slots=True, frozen=True)
class Interval:
    """A measure and where it may lie."""

    value: float
    """NaN where nothing could be measured."""
    low: float
    """NaN with fewer than two groups, as `high`."""
    high: float
    n: int
    """Values that were known."""

    @property
    def decided(self) -> bool:
        """For a difference: the interval excludes 0."""
        return self.low > 0 or self.high < 0

    def as_json(self) -> dict[str, float | int | None]:
        """`value`, `low`, `high` (null where unknown) and `n`."""
        known = {
            name: value if math.isfinite(value) else None
            for name, value in (("value", self.value), ("low", self.low), ("high", self.high))
        }
        return {**known, "n": self.n}


NOTHING = Interval(math.nan, math.nan, math.nan, 0)


class Bootstrap:
    """Draws of groups, the same for every measure, so that differences are paired.

    Args:
        groups: the group of each value, [n].
        seed: of the draws.
        draws: how many.
    """

    def __init__(self, groups: Sequence[Hashable], seed: int = 0, draws: int = DRAWS) -> None:
        place: dict[Hashable, int] = {}
        self.owner = np.array([place.setdefault(g, len(place)) for g in groups], dtype=np.intp)
        """Index of each value's group, [n]."""
        self.groups = len(place)
        rng = np.random.default_rng(seed)
        even = np.full(max(self.groups, 1), 1 / max(self.groups, 1))
        self._weights = rng.multinomial(self.groups, even, size=draws).astype(np.float64)

    def mean(self, values: ArrayLike, bounds: tuple[float, float] | None = None) -> Interval:
        """Mean of the known values.

        Args:
            values: [n]; NaN is unknown and left out.
            bounds: least and greatest possible value, where there are such: (0, 1) for shares.

        Raises:
            ValueError: another number of values than of groups given.
        """
        given = np.asarray(values, np.float64)
        if given.shape != self.owner.shape:
            raise ValueError(f"{given.shape} values for {self.owner.shape} groups")
        known = ~np.isnan(given)
        n = int(known.sum())
        if n == 0:
            return NOTHING
        value = float(given[known].mean())
        counts = np.bincount(self.owner[known], minlength=self.groups)
        heard = int((counts > 0).sum())
        if heard < 2:
            return Interval(value, math.nan, math.nan, n)
        if bounds is not None and np.ptp(given[known]) == 0:
            return _same_everywhere(value, heard, n, bounds)
        sums = np.bincount(self.owner[known], given[known], minlength=self.groups)
        drawn = self._weights @ counts
        means = (self._weights @ sums)[drawn > 0] / drawn[drawn > 0]
        tail = (1 - CONFIDENCE) / 2
        low, high = np.quantile(means, (tail, 1 - tail))
        return Interval(value, float(low), float(high), n)

    def difference(
        self, a: ArrayLike, b: ArrayLike, bounds: tuple[float, float] | None = None
    ) -> Interval:
        """Mean of a - b over the values known on both sides.

        Args:
            a: [n].
            b: [n], of the same histories in the same order.
            bounds: of a single value, as for `mean`.
        """
        wide = None if bounds is None else (bounds[0] - bounds[1], bounds[1] - bounds[0])
        return self.mean(np.asarray(a, np.float64) - np.asarray(b, np.float64), wide)

    def jackknife(
        self, value: float, without: ArrayLike, bounds: tuple[float, float] | None = None
    ) -> Interval:
        """A measure of the whole set, from the same measure without each group in turn.

        Args:
            value: of the whole set.
            without: [groups], in order of first appearance.
            bounds: least and greatest possible value of a share, as for `mean`.
        """
        left = np.asarray(without, np.float64)
        if not math.isfinite(value):
            return NOTHING
        known = left[np.isfinite(left)]
        if len(known) < 2:
            return Interval(value, math.nan, math.nan, len(self.owner))
        if bounds is not None and np.ptp(known) == 0:
            return _same_everywhere(value, len(known), len(self.owner), bounds)
        spread = float(((known - known.mean()) ** 2).sum())
        half = Z * math.sqrt((len(known) - 1) / len(known) * spread)
        low, high = bounds or (-math.inf, math.inf)
        return Interval(value, max(value - half, low), min(value + half, high), len(self.owner))


def _same_everywhere(value: float, groups: int, n: int, bounds: tuple[float, float]) -> Interval:
    """At most this share of groups differs (Clopper and Pearson for 0 of `groups`)."""
    missed = 1 - ((1 - CONFIDENCE) / 2) ** (1 / groups)
    low, high = bounds
    return Interval(value, value - missed * (value - low), value + missed * (high - value), n)
