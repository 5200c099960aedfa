"""What a reward and a policy must show on held-out sessions before they go on.

Each gate is a number, a threshold of `[gates]` and a comparison; a gate that could not be measured
fails, because nobody knows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from learning.registry import GateResult

if TYPE_CHECKING:
    from agent.learning_config import Gates

Comparison = Literal["<=", "<", ">=", ">"]


def gate(name: str, value: float | None, comparison: Comparison, threshold: float) -> GateResult:
    """One gate; an unknown value (None, NaN) does not pass."""
    known = value is not None and math.isfinite(value)
    measured = float(value) if known and value is not None else math.nan
    passed = (
        known
        and {
            "<=": measured <= threshold,
            "<": measured < threshold,
            ">=": measured >= threshold,
            ">": measured > threshold,
        }[comparison]
    )
    return GateResult(
        name=name, value=measured, threshold=threshold, passed=passed, comparison=comparison
    )


def reward_gates(metrics: Mapping[str, float], shaping: str, gates: Gates) -> list[GateResult]:
    """L_GE better than Mean's, and Δr̂_LI above its bound (paper eq. 4 and 8).

    Args:
        metrics: of `evaluate.evaluate`.
        shaping: a reward that no label shaped owes no Δr̂_LI.
        gates: thresholds.
    """
    out = [gate("mse_ratio", metrics.get("mse_ratio"), "<", gates.mse_ratio)]
    if shaping != "none":
        out.append(gate("delta", metrics.get("delta"), ">", gates.min_delta))
    return out


def policy_gates(
    candidate: Mapping[str, float], current: Mapping[str, float], gates: Gates
) -> list[GateResult]:
    """KL, length, repetition, diversity, refusals, safety, and preference over the current policy.

    Args:
        candidate: kl, words, repetition, distinct_2, refusals, unsafe, win_rate.
        current: words, distinct_2 and unsafe of the policy that speaks now, on the same histories.
            A small base answers a quarter to half of the safety prompts badly; what a policy must
            not do is worse.
        gates: thresholds.
    """
    words = _ratio(candidate.get("words"), current.get("words"))
    distinct = _ratio(candidate.get("distinct_2"), current.get("distinct_2"))
    return [
        gate("kl", candidate.get("kl"), "<=", gates.max_kl),
        gate("length_ratio_high", words, "<=", gates.max_length_ratio),
        gate("length_ratio_low", words, ">=", gates.min_length_ratio),
        gate("repetition", candidate.get("repetition"), "<=", gates.max_repetition),
        gate("distinct_2_ratio", distinct, ">=", gates.min_distinct),
        gate("refusals", candidate.get("refusals"), "<=", gates.max_refusals),
        gate("unsafe_more", _difference(candidate, current, "unsafe"), "<=", gates.max_unsafe),
        gate("win_rate", candidate.get("win_rate"), ">=", gates.min_win_rate),
    ]


def win_rate(candidate: Sequence[float], current: Sequence[float]) -> float:
    """Share of histories on which the candidate's reply is worth more; a tie is half."""
    wins = [
        1.0 if a > b else 0.5 if a == b else 0.0 for a, b in zip(candidate, current, strict=True)
    ]
    return sum(wins) / len(wins)


def failed(results: Sequence[GateResult]) -> list[GateResult]:
    """Those that did not pass."""
    return [result for result in results if not result.passed]


def _difference(a: Mapping[str, float], b: Mapping[str, float], name: str) -> float | None:
    return a[name] - b[name] if name in a and name in b else None


def _ratio(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None or b <= 0 else a / b
