"""What a store holds, in numbers: `geli sessions stats` and the head of the review."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

from agent.store import Filter, SessionSummary, Store

HISTOGRAM = 10
"""Bars of the ratings' histogram."""


@dataclass(slots=True, frozen=True)
class PolicyCalls:
    """What is known of one policy's calls; intervals are `geli learn report`'s."""

    calls: int
    rated: int
    mean_rating: float | None
    positive_share: float | None
    """Mean over the calls with a face."""


@dataclass(slots=True, frozen=True)
class Stats:
    """Counts of the sessions that a filter lets through."""

    sessions: int
    live: int
    hours: float
    turns: int
    rated: int
    mean_rating: float | None
    ratings: list[int]
    """Histogram over 0 to 100, ten bars; the last holds 100 too."""
    positive_share: float | None
    """Mean over sessions with a face of their share of positive windows."""
    labelled_share: float | None
    """Mean over sessions of the share of agent turns with a label."""
    without_a_face: int
    excluded: int
    by_consent: dict[str, int] = field(default_factory=dict)
    by_ended: dict[str, int] = field(default_factory=dict)
    by_policy: dict[str, PolicyCalls] = field(default_factory=dict)
    not_kept: dict[str, int] = field(default_factory=dict)
    """Calls of which only the count is known, by kind; not filtered."""


def count(store: Store, only: Filter | None = None) -> Stats:
    """Count the sessions that `only` lets through."""
    found = store.list(only, limit=None)
    ratings = [one.overall_affect for one in found if one.overall_affect is not None]
    bars = Counter(min(int(value * HISTOGRAM / 100), HISTOGRAM - 1) for value in ratings)
    not_kept: Counter[str] = Counter()
    for (_, what), n in store.tally().items():
        not_kept[what] += n
    policies = sorted({one.policy_id for one in found if one.policy_id is not None})
    return Stats(
        sessions=len(found),
        live=sum(one.live for one in found),
        hours=sum(one.duration_s for one in found) / 3600,
        turns=sum(one.n_turns for one in found),
        rated=len(ratings),
        mean_rating=_mean(ratings),
        ratings=[bars[i] for i in range(HISTOGRAM)],
        positive_share=_mean([one.positive_share for one in found]),
        labelled_share=_mean([one.labelled_share for one in found]),
        without_a_face=sum(one.positive_share is None for one in found),
        excluded=sum(one.excluded for one in found),
        by_consent=dict(Counter(one.consent for one in found)),
        by_ended=dict(Counter(_ended(one) for one in found)),
        by_policy={p: _calls([one for one in found if one.policy_id == p]) for p in policies},
        not_kept=dict(not_kept),
    )


def lines(stats: Stats) -> list[str]:
    """For a person to read."""
    none = "–"

    def share(value: float | None) -> str:
        return none if value is None else f"{value:.0%}"

    def parts(counts: dict[str, int]) -> str:
        return ", ".join(f"{n} {name}" for name, n in sorted(counts.items())) or none

    mean = none if stats.mean_rating is None else f"{stats.mean_rating:.1f}"
    out = [
        f"sessions   {stats.sessions}, {stats.live} in progress, {stats.hours:.1f} h, "
        f"{stats.turns} turns",
        f"ratings    {stats.rated}, mean {mean}, by tens: {' '.join(map(str, stats.ratings))}",
        f"faces      positive {share(stats.positive_share)}, labelled turns "
        f"{share(stats.labelled_share)}, {stats.without_a_face} sessions without a face",
        f"consent    {parts(stats.by_consent)}; not kept: {parts(stats.not_kept)}",
        f"ended      {parts(stats.by_ended)}",
        f"excluded   {stats.excluded}",
    ]
    for policy, calls in stats.by_policy.items():
        rating = none if calls.mean_rating is None else f"{calls.mean_rating:.1f}"
        out.append(
            f"policy     {policy}: {calls.calls} calls, {calls.rated} rated, mean {rating}, "
            f"positive {share(calls.positive_share)}"
        )
    return out


def _calls(found: Sequence[SessionSummary]) -> PolicyCalls:
    ratings = [one.overall_affect for one in found if one.overall_affect is not None]
    return PolicyCalls(
        calls=len(found),
        rated=len(ratings),
        mean_rating=_mean(ratings),
        positive_share=_mean([one.positive_share for one in found]),
    )


def _ended(one: SessionSummary) -> str:
    return "in progress" if one.live else one.ended_how or "open"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
