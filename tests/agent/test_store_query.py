"""The list of sessions: each filter, order and count agrees with what the whole records say."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agent import corrections, schema
from agent.config import Labels
from agent.errors import StoreError
from agent.owner import Owner
from agent.records import Consent, EndedHow, Session
from agent.store import Filter, Store
from agent.store_query import ORDERS, Order
from tests.agent.session_samples import PEOPLE, START, ended, session, turn, window
from tests.agent.session_sets import (
    TAGS,
    fill,
    is_live,
    labelled_of,
    length_of,
    one_of,
    positive_of,
    seen_of,
    sets_of_sessions,
)
from tests.agent.stores import wipe

pytestmark = pytest.mark.unit

ASKED = ("grüße", "Gruße", "дОМ", "%", "_", "\\", "'", "/", "0", "a b", "it", "slash it's", "nix")
few = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def questions(draw: st.DrawFn) -> tuple[str, list[str]]:
    """What to search for, and the phrases that it means."""
    asked = draw(st.lists(st.tuples(st.sampled_from(ASKED), st.booleans()), max_size=2))
    text, phrases = [], []
    for words, quoted in asked:
        text.append(f'"{words}"' if quoted else words)
        phrases += [words] if quoted else words.split()
    return "  ".join(text), phrases


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "consent": st.lists(st.sampled_from([Consent.KEEP, Consent.LEARN]), unique=True),
    "unrated": st.booleans(),
    "policy_id": one_of("", "p", "q", "r"),
    "since": st.integers(0, 4).map(lambda n: START + timedelta(minutes=n)),
    "until": st.integers(0, 4).map(lambda n: START + timedelta(minutes=n)),
    "excluded": one_of(True, False),
    "live": one_of(True, False),
    "ended_how": st.lists(st.sampled_from(EndedHow), unique=True),
    "seen_below": st.sampled_from([0, 0.2, 1 / 3, 0.5, 0.6, 1]),
    "tag": st.sampled_from([*TAGS, "nix", "%", "a"]),
    "person": st.sampled_from([*PEOPLE, "0" * 64]),
    "says": questions(),
}


@st.composite
def filters(draw: st.DrawFn) -> tuple[Filter, list[str]]:
    """One or two conditions, and the phrases that `says` means."""
    names = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=2, unique=True))
    values = {name: draw(VALUES[name]) for name in names}
    says, phrases = values.pop("says", ("", []))
    return Filter(says=says, **values), phrases


def lets_through(only: Filter, phrases: Iterable[str], one: Session) -> bool:
    """The filter in plain words."""
    seen = seen_of(one)
    text = [t.text.lower() for t in one.turns]
    return all(
        [
            not only.consent or one.consent in only.consent,
            not only.unrated or one.overall_affect is None,
            only.policy_id is None or one.policy_id == only.policy_id,
            only.since is None or one.started_at >= only.since,
            only.until is None or one.started_at < only.until,
            only.excluded is None or one.excluded == only.excluded,
            only.live is None or is_live(one) == only.live,
            not only.ended_how or one.ended_how in only.ended_how,
            only.seen_below is None or seen is None or seen < only.seen_below,
            only.tag is None or only.tag in one.tags,
            only.person is None or one.person == only.person,
            all(any(phrase.lower() in said for said in text) for phrase in phrases),
        ]
    )


KEYS: dict[str, Callable[[Session], Any]] = {
    "started": lambda one: (one.started_at, one.id),
    "length": length_of,
    "turns": lambda one: len(one.turns),
    "rating": lambda one: one.overall_affect,
    "positive": positive_of,
    "labels": labelled_of,
    "seen": seen_of,
    "policy": lambda one: one.policy_id,
    "ended": lambda one: one.ended_how,
}


def in_order(found: Sequence[Session], order: str, descending: bool) -> list[str]:
    """By the key either way, what has none last, ties newest first."""
    key = KEYS[order]
    newest = sorted(found, key=KEYS["started"], reverse=True)
    known = sorted((s for s in newest if key(s) is not None), key=key, reverse=descending)
    return [s.id for s in (*known, *(s for s in newest if key(s) is None))]


def test_the_tests_know_all_there_is() -> None:
    assert set(VALUES) == {field.name for field in fields(Filter)}
    assert set(KEYS) == set(ORDERS) == set(typing.get_args(Order))


@few
@given(sets_of_sessions(), st.lists(filters(), min_size=4, max_size=4))
def test_each_filter_lets_through_what_it_should(
    store: Store, those: list[Session], wanted: list[tuple[Filter, list[str]]]
) -> None:
    fill(store, those)
    for only, phrases in wanted:
        through = [one for one in those if lets_through(only, phrases, one)]
        newest_first = in_order(through, "started", descending=True)
        assert [s.id for s in store.list(only, limit=None)] == newest_first, only
        assert store.ids(only) == newest_first, only
        # Of `only` the stream does not read consent, excluded and live.
        if not only.consent and only.excluded is None and only.live is None:
            oldest = in_order([s for s in through if not is_live(s)], "started", descending=False)
            streamed = store.iter_sessions(frozenset(Consent), None, only=only)
            assert [s.id for s in streamed] == oldest, only


@few
@given(sets_of_sessions())
def test_each_order_sorts_as_it_should(store: Store, those: list[Session]) -> None:
    fill(store, those)
    for order in typing.get_args(Order):
        for down in (True, False):
            expected = in_order(those, order, down)
            assert store.ids(order=order, descending=down) == expected, (order, down)
            pages = [store.list(None, 2, n, order, down) for n in range(0, len(those), 2)]
            assert [one.id for page in pages for one in page] == expected, (order, down)


@few
@given(sets_of_sessions())
def test_a_summary_tells_what_the_record_holds(store: Store, those: list[Session]) -> None:
    fill(store, those)
    for one in those:
        (told,) = store.summaries([one.id])
        assert told.positive_share == positive_of(one)
        assert (told.coverage, told.labelled_share) == (seen_of(one), labelled_of(one))
        assert (told.duration_s, told.n_turns) == (length_of(one), len(one.turns))
        assert (told.live, told.noted) == (is_live(one), bool(one.note))
        assert told.tags == tuple(one.tags)
        same = ("started_at", "overall_affect", "consent", "source", "ended_how", "excluded",
                "excluded_reason", "policy_id")  # fmt: skip
        for name in same:
            assert getattr(told, name) == getattr(one, name), name


def test_summaries_keep_the_order_and_miss_what_is_gone(store: Store) -> None:
    for name in "abc":
        store.insert(ended(name))
    assert [one.id for one in store.summaries(["c", "nix", "a"])] == ["c", "a"]
    assert store.summaries([]) == []


def test_the_stream_reads_consent_from_its_own_argument(store: Store) -> None:
    store.insert(ended("kept", consent="keep"))
    store.insert(ended("learnt", excluded=True))
    store.open_session(session("live", consent="learn"))
    only = Filter(consent=[Consent.KEEP], excluded=False, live=True)
    assert [s.id for s in store.iter_sessions(excluded=None, only=only)] == ["learnt"]


@pytest.mark.parametrize("wanted", [*TAGS, "%", "nix", '"a"'])
def test_a_tag_is_met_whole_and_exactly(store: Store, wanted: str) -> None:
    for n, tag in enumerate(TAGS):
        store.insert(ended(f"s-{n}", tags=["other", tag]))
    assert store.ids(Filter(tag=wanted)) == [
        f"s-{n}" for n, tag in enumerate(TAGS) if tag == wanted
    ]


def test_a_share_is_compared_as_it_is_shown(store: Store) -> None:
    """7 of 100 is 7 %, though 0.07 * 100 > 7 in floating point."""
    store.insert(session(windows=[window(i, True if i < 7 else None) for i in range(100)]))
    assert store.list()[0].coverage == 0.07
    assert store.ids(Filter(seen_below=0.07)) == []
    assert store.ids(Filter(seen_below=0.0701)) == ["s-1"]


# -- search -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("says", "ids"),
    [
        ("", "b a"),
        ("   ", "b a"),
        ('""', "b a"),
        ("soup", "b a"),
        ("SOUP", "b a"),
        ("soup garlic", "a"),  # in two turns of one session
        ("garlic  soup", "a"),
        ("garlic bread", ""),  # each in another session
        ('"hot soup"', "a"),
        ('"HOT Soup" garlic', "a"),
        ('"soup hot"', ""),
        ('"soup"garlic', "a"),
        ('"hot so', "a"),  # a quote left open ends at the end
        ("oup", "b a"),  # part of a word
        ("écume", "b"),
        ("ÉCUME", "b"),
        ("ecume", ""),
        ("ЩИ", "b"),
        ("100%", "a"),
        ("%", "a"),
        ("1_0", ""),
        ("_", "b"),
        ("\\n", "b"),
        ("\\", "b"),
        ("it's", "a"),
        ("'", "a"),
        ("a'); DROP TABLE turns; --", ""),
        ("\ud800", ""),
        ("\x00", ""),
    ],
)
def test_search(store: Store, says: str, ids: str) -> None:
    store.insert(ended("a", 1, turns=[turn(0, text="hot SOUP"), turn(1, text="it's 100% Garlic")]))
    store.insert(ended("b", 2, turns=[turn(0, text="Soup, Bread, Écume, щи, x_y and C:\\new")]))
    assert " ".join(store.ids(Filter(says=says))) == ids


def test_search_reads_what_was_heard_in_calls_still_going_on(store: Store) -> None:
    log = store.open_session(session("live"))
    log.add_turn(turn(0, "agent", text="Hello", generated_text="Hello, I am a fox."))
    assert store.ids(Filter(says="hello")) == ["live"]
    assert store.ids(Filter(says="fox")) == []


def test_what_cannot_be_stored_is_found_as_it_was_stored(store: Store) -> None:
    store.insert(session(turns=[turn(0, text="a\x00b")], policy_id="p\x00"))
    assert store.ids(Filter(says="a\x00B")) == ["s-1"]
    assert store.ids(Filter(policy_id="p\x00")) == ["s-1"]
    assert store.ids(Filter(tag="\ud800\x00")) == []


# -- the counts beside each session -------------------------------------------------------------

STEPS = st.one_of(
    st.tuples(st.just("turn"), st.sampled_from(["user", "agent"]), one_of(0, 1)),
    st.tuples(st.just("change"), st.integers(0, 5), one_of(0, 1), st.floats(0, 50)),
    st.tuples(st.just("windows"), st.lists(one_of(True, False), max_size=3)),
    st.tuples(st.just("end"), st.booleans()),
    st.tuples(st.just("label"), st.integers(0, 5), one_of(0, 1)),
    st.tuples(st.just("undo")),
)


def counts(store: Store, session_id: str) -> dict[str, float]:
    row = schema.sessions.c
    names = (*schema.COUNTS, "duration_s")
    query = sa.select(*(row[name] for name in names)).where(row.id == session_id)
    with store.reading() as connection:
        return dict(connection.execute(query).one()._mapping)


def counted(one: Session) -> dict[str, float]:
    """What the counts should be."""
    agents = [t for t in one.turns if t.speaker == "agent"]
    return {
        "n_turns": len(one.turns),
        "n_replies": len(agents),
        "n_labelled": sum(t.li is not None for t in agents),
        "n_windows": len(one.windows),
        "n_seen": sum(w.positive is not None for w in one.windows),
        "n_positive": sum(w.positive is True for w in one.windows),
        "duration_s": length_of(one),
    }


@few
@given(sets_of_sessions().map(lambda those: those[0]), st.lists(STEPS, max_size=8))
@example(session(), [("windows", [True])])
@example(session(turns=[turn(0, "agent", li=1)]), [("end", False), ("label", 0, None), ("undo",)])
def test_the_counts_are_what_the_record_holds(
    store: Store, begun: Session, steps: list[tuple[Any, ...]]
) -> None:
    wipe(store)
    begun.ended_how = None
    gone = Owner(Owner.current().host, 2**22 + 1, "1")
    log = store.open_session(begun, gone)
    turns = {t.index: t for t in begun.turns}
    n_windows = len(begun.windows)
    assert counts(store, begun.id) == counted(begun)
    for step in steps:
        match step:
            case "turn", speaker, li:
                new = turn(len(turns), speaker, li=li)
                turns[new.index] = new
                log.add_turn(new)
            case "change", index, li, more_s if index in turns:
                old = turns[index]
                turns[index] = turn(index, old.speaker, li=li, end_s=old.start_s + more_s)
                log.update_turn(turns[index])
            case "windows", found:
                log.add_windows([window(n_windows + i, how) for i, how in enumerate(found)])
                n_windows += len(found)
            case "end", crashed:
                if crashed:
                    store.close_crashed(Labels())
                else:
                    log.end(EndedHow.HUNG_UP, START)
            case "label", index, li:
                try:
                    corrections.label(store, begun.id, index, li, "ada")
                except StoreError:
                    pass  # still going on, the user's, or none
            case ("undo",):
                if (last := corrections.last(store, begun.id)) is not None:
                    try:
                        corrections.undo(store, last.id, "ada")
                    except StoreError:
                        pass  # the log wrote that turn again since
        assert counts(store, begun.id) == counted(store.get(begun.id)), step


# -- what is in use ------------------------------------------------------------------------------


@few
@given(sets_of_sessions())
def test_which_policies_and_tags_are_in_use(store: Store, those: list[Session]) -> None:
    fill(store, those)
    policies = {one.policy_id for one in those if one.policy_id is not None}
    assert list(store.policies()) == sorted(policies)
    assert list(store.tags()) == sorted({tag for one in those for tag in one.tags})
