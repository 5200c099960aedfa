"""What people's ratings say of the policies that spoke with them.

The unit is the call: a policy's mean rating has a bootstrap interval over its rated calls, and the
difference of two policies has Welch's t interval (two means of unequal spread; it stays honest with
few calls, where a percentile bootstrap is too narrow). Where that interval holds 0 the data does
not decide. The interval is meant for one look: whoever looks every day and stops at the first
decision is wrong more often than one time in twenty.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from agent.records import Session

CONFIDENCE = 0.95
RESAMPLES = 4000
EFFECT_POINTS = 5.0
"""The difference of ratings (0 to 100) that is worth finding."""
POWER = 0.8


@dataclass(slots=True, frozen=True)
class CallOutcome:
    """What one ended call says of its policy."""

    policy_id: str
    rating: float | None
    """Overall affect, 0 to 100; None: not rated."""
    turns: int
    positive_share: float | None
    """Positive windows among those with a face; None without a face."""


@dataclass(slots=True, frozen=True)
class PolicyRow:
    """One policy's calls."""

    policy_id: str
    calls: int
    rated: int
    mean: float | None
    """Of the ratings; None when nobody rated."""
    low: float | None
    """95 % bootstrap interval of `mean`; None with fewer than two rated calls."""
    high: float | None
    turns: float
    """Turns of both sides a call, mean."""
    positive_share: float | None
    """Mean over the calls with a face."""


@dataclass(slots=True, frozen=True)
class Difference:
    """Two policies: `a` minus `b`."""

    a: str
    b: str
    rated_a: int
    rated_b: int
    difference: float | None
    """Of the mean ratings, points; None when one has no rated call."""
    low: float | None
    """95 % interval (Welch's t); None where there is too little to have one."""
    high: float | None
    decided: bool
    """The interval excludes 0."""
    more_a: int | None
    """Rated calls still needed to see a difference of 5 points with power 0.8 at this spread;
    None where the spread is unknown."""
    more_b: int | None

    @property
    def verdict(self) -> str:
        """In words."""
        if self.difference is None:
            unrated = [p for p, n in ((self.a, self.rated_a), (self.b, self.rated_b)) if not n]
            return f"the data does not decide yet: no rated call with {' or '.join(unrated)}"
        if self.low is None or self.high is None:
            return (
                "the data does not decide yet: it takes two rated calls with each policy, "
                "not all rated the same"
            )
        span = f"{self.difference:+.1f} points, 95 % interval {self.low:+.1f} to {self.high:+.1f}"
        if self.decided:
            better, worse = (self.a, self.b) if self.difference > 0 else (self.b, self.a)
            return f"calls with {better} are rated higher than with {worse} ({span})"
        if self.more_a or self.more_b:
            more = (
                f"; to see {EFFECT_POINTS:g} points (power {POWER:g}) at this spread it takes about"
                f" {self.more_a} more rated calls with {self.a} and {self.more_b} with {self.b}"
            )
        else:
            more = f"; a true difference of {EFFECT_POINTS:g} points would probably show by now"
        return f"the data does not decide yet ({span}){more}"


def outcomes(sessions: Iterable[Session], *, simulated: bool = False) -> list[CallOutcome]:
    """What ended calls say, without excluded ones and those whose policy nobody noted.

    Args:
        sessions: of any consent that keeps them.
        simulated: also calls with simulated users; else they are left out.
    """
    found = []
    for session in sessions:
        if session.policy_id is None or session.ended_at is None or session.excluded:
            continue
        if session.source == "simulated" and not simulated:
            continue
        seen = [window.positive for window in session.windows if window.positive is not None]
        found.append(
            CallOutcome(
                policy_id=session.policy_id,
                rating=session.overall_affect,
                turns=len(session.turns),
                positive_share=sum(seen) / len(seen) if seen else None,
            )
        )
    return found


def by_policy(calls: Sequence[CallOutcome], seed: int = 0) -> list[PolicyRow]:
    """One row a policy, most calls first."""
    rows = []
    for policy_id in sorted({call.policy_id for call in calls}):
        own = [call for call in calls if call.policy_id == policy_id]
        ratings = _ratings(own)
        low, high = mean_interval(ratings, seed) or (None, None)
        shares = [call.positive_share for call in own if call.positive_share is not None]
        rows.append(
            PolicyRow(
                policy_id=policy_id,
                calls=len(own),
                rated=len(ratings),
                mean=float(np.mean(ratings)) if ratings else None,
                low=low,
                high=high,
                turns=float(np.mean([call.turns for call in own])),
                positive_share=float(np.mean(shares)) if shares else None,
            )
        )
    return sorted(rows, key=lambda row: (-row.calls, row.policy_id))


def compare(calls: Sequence[CallOutcome], a: str, b: str) -> Difference:
    """The ratings of two policies, by the ids that sessions carry."""
    of_a = _ratings([call for call in calls if call.policy_id == a])
    of_b = _ratings([call for call in calls if call.policy_id == b])
    interval = welch_interval(of_a, of_b)
    low, high = interval or (None, None)
    needed = calls_needed(of_a, of_b)
    return Difference(
        a=a,
        b=b,
        rated_a=len(of_a),
        rated_b=len(of_b),
        difference=float(np.mean(of_a) - np.mean(of_b)) if of_a and of_b else None,
        low=low,
        high=high,
        decided=interval is not None and not interval[0] <= 0 <= interval[1],
        more_a=None if needed is None else max(0, needed - len(of_a)),
        more_b=None if needed is None else max(0, needed - len(of_b)),
    )


def mean_interval(values: Sequence[float], seed: int) -> tuple[float, float] | None:
    """95 % percentile bootstrap interval of the mean; None with fewer than two values."""
    if len(values) < 2:
        return None
    rng = np.random.default_rng(seed)
    data = np.asarray(values, float)
    # A resample at a time: thousands of calls times thousands of resamples would not fit.
    means = [data[rng.integers(0, len(data), len(data))].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return float(low), float(high)


def welch_interval(a: Sequence[float], b: Sequence[float]) -> tuple[float, float] | None:
    """95 % interval of mean(a) - mean(b) for unequal spreads (Welch 1947).

    None with fewer than two values on a side, and where neither side has any spread.
    """
    if len(a) < 2 or len(b) < 2:
        return None
    part_a, part_b = np.var(a, ddof=1) / len(a), np.var(b, ddof=1) / len(b)
    variance = float(part_a + part_b)
    if variance == 0:
        return None
    freedom = variance**2 / float(part_a**2 / (len(a) - 1) + part_b**2 / (len(b) - 1))
    freedom = max(freedom, 1.0)  # it is, but for rounding
    half = t_quantile((1 + CONFIDENCE) / 2, freedom) * math.sqrt(variance)
    middle = float(np.mean(a) - np.mean(b))
    return middle - half, middle + half


def t_quantile(p: float, freedom: float) -> float:
    """Quantile of Student's t, 0.5 <= p < 1, freedom >= 1.

    With x = sqrt(freedom) tan(θ) the density becomes cos(θ)^(freedom - 1) on [0, π/2]: no tail is
    cut off, and the integral is a sum over a grid.
    """
    # The mass lies within a few standard deviations, 1/sqrt(freedom) each, of θ = 0.
    end = min(math.pi / 2, 40 / math.sqrt(freedom)) if freedom > 1 else math.pi / 2
    theta = np.linspace(0, end, 20_001)
    density = np.cos(theta) ** (freedom - 1)
    mass = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return math.sqrt(freedom) * math.tan(float(np.interp(2 * p - 1, mass / mass[-1], theta)))


def calls_needed(a: Sequence[float], b: Sequence[float]) -> int | None:
    """Rated calls with each policy to see 5 points with power 0.8, at the spread seen so far.

    The usual normal approximation: n = (σ_a² + σ_b²) (z_0.975 + z_0.8)² / 5². None while a side has
    fewer than two ratings or there is no spread.
    """
    if len(a) < 2 or len(b) < 2:
        return None
    variance = float(np.var(a, ddof=1) + np.var(b, ddof=1))
    if variance == 0:
        return None
    normal = NormalDist()
    z = normal.inv_cdf((1 + CONFIDENCE) / 2) + normal.inv_cdf(POWER)
    return math.ceil(variance * z**2 / EFFECT_POINTS**2)


def _ratings(calls: Sequence[CallOutcome]) -> list[float]:
    return [call.rating for call in calls if call.rating is not None]
