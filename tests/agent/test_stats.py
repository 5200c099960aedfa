"""What a store holds, in numbers: the same as counting whole records by hand."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from statistics import fmean

import pytest
from hypothesis import HealthCheck, given, settings

from agent.records import Consent, EndedHow, Session
from agent.stats import PolicyCalls, Stats, count, lines
from agent.store import Filter, Store
from tests.agent.session_samples import START, ended, session, turn, window
from tests.agent.session_sets import (
    fill,
    is_live,
    labelled_of,
    length_of,
    positive_of,
    sets_of_sessions,
)

pytestmark = pytest.mark.unit


def mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def by_hand(those: list[Session]) -> Stats:
    those = sorted(those, key=lambda s: (s.started_at, s.id), reverse=True)
    ratings = [s.overall_affect for s in those if s.overall_affect is not None]
    policies: dict[str, list[Session]] = {}
    for one in those:
        if one.policy_id is not None:
            policies.setdefault(one.policy_id, []).append(one)
    return Stats(
        sessions=len(those),
        live=sum(map(is_live, those)),
        hours=sum(map(length_of, those)) / 3600,
        turns=sum(len(s.turns) for s in those),
        rated=len(ratings),
        mean_rating=mean(ratings),
        ratings=[
            sum(n <= value < n + 10 or value == 100 == n + 10 for value in ratings)
            for n in range(0, 100, 10)
        ],
        positive_share=mean(map(positive_of, those)),
        labelled_share=mean(map(labelled_of, those)),
        without_a_face=sum(positive_of(s) is None for s in those),
        excluded=sum(s.excluded for s in those),
        by_consent=dict(Counter(s.consent.value for s in those)),
        by_ended=dict(Counter("in progress" if is_live(s) else str(s.ended_how) for s in those)),
        by_policy={
            policy: PolicyCalls(
                calls=len(calls),
                rated=sum(s.overall_affect is not None for s in calls),
                mean_rating=mean(s.overall_affect for s in calls),
                positive_share=mean(map(positive_of, calls)),
            )
            for policy, calls in policies.items()
        },
    )


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(sets_of_sessions())
def test_the_same_as_by_hand(store: Store, those: list[Session]) -> None:
    fill(store, those)
    assert count(store) == by_hand(those)
    assert count(store, Filter(excluded=True)) == by_hand([s for s in those if s.excluded])


def test_of_nothing(store: Store) -> None:
    empty = count(store)
    assert empty == by_hand([])
    assert lines(empty) == [
        "sessions   0, 0 in progress, 0.0 h, 0 turns",
        "ratings    0, mean –, by tens: 0 0 0 0 0 0 0 0 0 0",
        "faces      positive –, labelled turns –, 0 sessions without a face",
        "consent    –; not kept: –",
        "ended      –",
        "excluded   0",
    ]


@pytest.mark.parametrize(
    ("rating", "bar"), [(0, 0), (9.99, 0), (10, 1), (30, 3), (70, 7), (99.5, 9), (100, 9)]
)
def test_the_bar_of_a_rating(store: Store, rating: float, bar: int) -> None:
    store.insert(ended("a", overall_affect=rating))
    assert [n for n, bars in enumerate(count(store).ratings) if bars] == [bar]


def test_in_words_and_as_json(store: Store) -> None:
    long = [turn(0, "agent", li=1), turn(1, "agent", start_s=5398)]
    store.insert(ended("a", overall_affect=72.25, policy_id="p-1", turns=long))
    store.insert(ended("b", policy_id="p-1", consent="keep", windows=[window(0)], excluded=True))
    store.insert(ended("c", overall_affect=10, ended_how="crashed", windows=[window(0, False)]))
    store.open_session(session("live"))
    for day in (0, 0, 1):
        log = store.open_session(session(f"untold-{day}", consent=Consent.TALK_ONLY))
        log.end(EndedHow.HUNG_UP, START.replace(day=23 + day))
    found = count(store)
    assert lines(found) == [
        "sessions   4, 1 in progress, 1.5 h, 6 turns",
        "ratings    2, mean 41.1, by tens: 0 1 0 0 0 0 0 1 0 0",
        "faces      positive 50%, labelled turns 17%, 2 sessions without a face",
        "consent    2 keep, 2 learn; not kept: 3 talk_only",
        "ended      1 crashed, 2 hung_up, 1 in progress",
        "excluded   1",
        "policy     p-1: 2 calls, 1 rated, mean 72.2, positive 100%",
    ]
    read = json.loads(json.dumps(asdict(found)))
    assert read["by_policy"]["p-1"] == {
        "calls": 2, "rated": 1, "mean_rating": 72.25, "positive_share": 1.0
    }  # fmt: skip
    assert read["not_kept"] == {"talk_only": 3}


def test_a_filter_chooses_what_is_counted(store: Store) -> None:
    store.insert(ended("a", policy_id="p-1"))
    store.insert(ended("b", consent="keep"))
    assert count(store, Filter(policy_id="p-1")).by_consent == {"learn": 1}
    assert count(store, Filter(consent=[Consent.KEEP])).by_policy == {}


def test_all_are_counted_not_a_page_of_them(store: Store) -> None:
    for n in range(51):
        store.insert(session(f"s-{n}"))
    assert count(store).sessions == 51
