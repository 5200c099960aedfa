"""Corrections: each is kept with what it replaced, and can be taken back exactly."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent import corrections
from agent.corrections import Change
from agent.errors import StoreError
from agent.records import Session
from agent.store import Store
from tests.agent.session_samples import (
    ended,
    full_session,
    maybe,
    session,
    turn,
    window,
    words,
)
from tests.agent.stores import anew, wipe

pytestmark = pytest.mark.unit

Correct = Callable[[Store, str], Change | None]

CORRECTIONS: list[tuple[Correct, dict[str, Any], str]] = [
    (
        lambda store, i: corrections.rate(store, i, 7.5, "ada"),
        {"overall_affect": 7.5, "overall_affect_source": "review"},
        "rating: 62.5 → 7.5",
    ),
    (
        lambda store, i: corrections.rate(store, i, 0, "ada", "hm", source="cli"),
        {"overall_affect": 0.0, "overall_affect_source": "cli", "comment": "hm"},
        "rating: 62.5 → 0",
    ),
    (
        lambda store, i: corrections.exclude(store, i, " no face ", "ada"),
        {"excluded_reason": "no face"},
        "excluded: excluded (a test call) → excluded (no face)",
    ),
    (
        lambda store, i: corrections.include(store, i, "ada"),
        {"excluded": False, "excluded_reason": None},
        "excluded: excluded (a test call) → included",
    ),
    (
        lambda store, i: corrections.note(store, i, " two\nlines ", "ada"),
        {"note": "two\nlines"},
        "note: 'asked twice for the same recipe' → 'two\\nlines'",
    ),
    (
        lambda store, i: corrections.note(store, i, " ", "ada"),
        {"note": None},
        "note: 'asked twice for the same recipe' → none",
    ),
    (
        lambda store, i: corrections.tag(store, i, "ada", ["b", " b ", "a  1"], ["cooking"]),
        {"tags": ["a 1", "b", "täst"]},
        "tags: cooking, täst → a 1, b, täst",
    ),
    (
        lambda store, i: corrections.tag(store, i, "ada", remove=["täst", "cooking", "nix"]),
        {"tags": []},
        "tags: cooking, täst → none",
    ),
    (
        lambda store, i: corrections.label(store, i, 1, 0, "ada"),
        {"li": 0, "li_rule": "person: ada"},
        "label of turn 1: positive → not positive",
    ),
    (
        lambda store, i: corrections.label(store, i, 1, None, "ada"),
        {"li": None, "li_rule": "person: ada"},
        "label of turn 1: positive → unknown",
    ),
]


def made(change: Change | None) -> Change:
    assert change is not None
    return change


def expected(before: Session, what: str, new: dict[str, Any], at: datetime | None) -> Session:
    """The record with the new values and no others."""
    if what != "label":
        return before.model_copy(update=new | ({"overall_affect_at": at} if at else {}))
    turns = [before.turns[0], before.turns[1].model_copy(update=new)]
    return before.model_copy(update={"turns": turns})


@pytest.mark.parametrize(("correct", "new", "said"), CORRECTIONS)
def test_a_correction_and_the_way_back(
    store: Store, correct: Correct, new: dict[str, Any], said: str
) -> None:
    before = full_session()
    store.insert(before)
    store.insert(ended("other"))
    began = datetime.now(UTC)
    change = made(correct(store, before.id))
    assert (change.session_id, change.by, change.undoes) == (before.id, "ada", None)
    assert began <= change.at <= datetime.now(UTC)
    assert str(change) == said
    assert change.before.keys() == change.after.keys() == set(corrections.FIELDS[change.what])
    assert {name: change.after[name] for name in new} == new
    found = anew(store, before.id)
    rated_at = found.overall_affect_at if change.what == "rating" else None
    assert found == expected(before, change.what, new, rated_at)
    assert rated_at is None or began <= rated_at <= datetime.now(UTC)

    assert correct(store, before.id) is None  # it is so already
    assert corrections.listed(store) == [change]

    back = corrections.undo(store, change.id, "bob")
    assert (back.undoes, back.by, back.what) == (change.id, "bob", change.what)
    assert (back.before, back.after) == (change.after, change.before)
    assert anew(store, before.id) == before
    with pytest.raises(StoreError, match=f"{change.id} is undone already — undo {back.id} to redo"):
        corrections.undo(store, change.id, "bob")

    redone = corrections.undo(store, back.id, "ada")
    assert anew(store, before.id) == found
    assert corrections.listed(store, before.id) == [redone, back, change]
    assert store.get("other") == ended("other")


def test_a_first_rating_can_be_taken_back(store: Store) -> None:
    store.insert(ended("a"))
    change = made(corrections.rate(store, "a", 50, "ada", "fine"))
    assert str(change) == "rating: not rated → 50"
    corrections.undo(store, change.id, "ada")
    assert store.get("a") == ended("a")


def test_a_rating_keeps_the_comment_unless_another_is_given(store: Store) -> None:
    store.insert(ended("a", comment="so so", overall_affect=50))
    corrections.rate(store, "a", 60, "ada")
    assert store.get("a").comment == "so so"
    corrections.rate(store, "a", 60, "ada", "good")
    assert store.get("a").comment == "good"


def test_labels_count(store: Store) -> None:
    store.insert(ended("a", turns=[turn(0, "agent", li=1), turn(1), turn(2, "agent")]))
    assert store.list()[0].labelled_share == 0.5
    second = made(corrections.label(store, "a", 2, 0, "ada"))
    assert store.list()[0].labelled_share == 1.0
    corrections.label(store, "a", 0, None, "ada")
    corrections.undo(store, second.id, "ada")
    assert store.list()[0].labelled_share == 0.0


# -- undoing, in any order ----------------------------------------------------------------------

texts = words | st.text(max_size=5)  # the latter with NUL and half surrogate pairs
tags = st.sampled_from(["a", "b", "Ä", 'q"', "\\", "😀"])
ONE = st.one_of(
    st.tuples(st.just(corrections.rate), st.sampled_from([0, 1 / 3, 100])),
    st.tuples(st.just(corrections.rate), st.sampled_from([0, 50]), maybe(texts)),
    st.tuples(st.just(corrections.exclude), texts.map(lambda text: text + ".")),
    st.tuples(st.just(corrections.include)),
    st.tuples(st.just(corrections.note), texts),
    st.tuples(st.just(corrections.tag), st.lists(tags), st.lists(tags)),
    st.tuples(st.just(corrections.label), st.sampled_from([0, 1, None])),
)


def apply(store: Store, step: tuple[Any, ...]) -> Change | None:
    function, *given = step
    if function is corrections.tag:
        return corrections.tag(store, "a", "ada", *given)
    if function is corrections.label:
        return corrections.label(store, "a", 1, given[0], "ada")
    change: Change | None = function(store, "a", *given[:1], "ada", *given[1:])
    return change


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(ONE, max_size=6))
def test_undoing_all_brings_everything_back(store: Store, steps: list[tuple[Any, ...]]) -> None:
    wipe(store)
    before = full_session().model_copy(update={"id": "a"})
    store.insert(before)
    states, changes = [before], []
    for step in steps:
        change = apply(store, step)
        if change is None:
            assert store.get("a") == states[-1], "nothing is written where nothing differs"
            continue
        changes.append(change)
        states.append(store.get("a"))
    assert corrections.listed(store, "a") == changes[::-1]
    for change in reversed(changes):
        assert store.get("a") == states.pop()
        assert corrections.last(store, "a") == change
        corrections.undo(store, change.id, "bob")
    assert [store.get("a")] == states == [before]
    assert corrections.last(store, "a") is None


def test_undo_is_refused_after_a_later_change(store: Store) -> None:
    store.insert(ended("a"))
    first = made(corrections.note(store, "a", "one", "ada"))
    other = made(corrections.exclude(store, "a", "test", "ada"))
    second = made(corrections.note(store, "a", "two", "bob"))
    with pytest.raises(
        StoreError, match=f"the note of a was changed again after change {first.id}"
    ):
        corrections.undo(store, first.id, "ada")
    assert store.get("a").note == "two"
    corrections.undo(store, other.id, "ada")  # that one nobody touched
    corrections.undo(store, second.id, "ada")
    corrections.undo(store, first.id, "ada")
    assert store.get("a") == ended("a")


def test_undo_is_refused_after_the_person_rated_anew(store: Store) -> None:
    store.insert(ended("a"))
    change = made(corrections.rate(store, "a", 10, "ada"))
    store.rate("a", 90, "page")
    with pytest.raises(StoreError, match="the rating of a was changed again"):
        corrections.undo(store, change.id, "ada")
    assert store.get("a").overall_affect == 90


def test_what_happened_to_other_turns_does_not_matter(store: Store) -> None:
    store.insert(ended("a", turns=[turn(0, "agent"), turn(1, "agent")]))
    first = made(corrections.label(store, "a", 0, 1, "ada"))
    corrections.label(store, "a", 1, 1, "ada")
    corrections.undo(store, first.id, "ada")
    assert [t.li for t in store.get("a").turns] == [None, 1]


def test_an_unknown_change(store: Store) -> None:
    with pytest.raises(StoreError, match="there is no change 1 — see 'geli sessions changes'"):
        corrections.undo(store, 1, "ada")


def test_the_last_change_that_stands(store: Store) -> None:
    store.insert(ended("a"))
    store.insert(ended("b"))
    assert corrections.last(store, "a") is None
    note = made(corrections.note(store, "a", "x", "ada"))
    tag = made(corrections.tag(store, "a", "ada", ["y"]))
    corrections.note(store, "b", "x", "ada")
    assert corrections.last(store, "a") == tag
    back = corrections.undo(store, tag.id, "ada")
    assert corrections.last(store, "a") == note
    again = corrections.undo(store, back.id, "ada")
    assert corrections.last(store, "a") == again  # not the note: the redo came later
    corrections.undo(store, again.id, "ada")
    assert corrections.last(store, "a") == note


def test_changes_are_listed_newest_first(store: Store) -> None:
    store.insert(ended("a"))
    store.insert(ended("b"))
    found = [made(corrections.note(store, "ab"[n % 2], f"note {n}", "ada")) for n in range(5)]
    assert corrections.listed(store) == found[::-1]
    assert corrections.listed(store, limit=2) == found[:2:-1]
    assert corrections.listed(store, "b") == [found[3], found[1]]
    store.delete("b")
    assert corrections.listed(store) == [found[4], found[2], found[0]]
    assert corrections.listed(store, "b") == []


# -- what is refused ----------------------------------------------------------------------------

ANY: list[Correct] = [
    lambda store, i: corrections.rate(store, i, 50, "ada"),
    lambda store, i: corrections.exclude(store, i, "why", "ada"),
    lambda store, i: corrections.include(store, i, "ada"),
    lambda store, i: corrections.note(store, i, "text", "ada"),
    lambda store, i: corrections.tag(store, i, "ada", ["x"]),
    lambda store, i: corrections.label(store, i, 1, 1, "ada"),
]


@pytest.mark.parametrize("correct", ANY)
def test_an_unknown_session(store: Store, correct: Correct) -> None:
    store.insert(ended("session-1"))
    with pytest.raises(StoreError, match="no session 'session-2' — did you mean session-1"):
        correct(store, "session-2")
    assert store.get("session-1") == ended("session-1")


@pytest.mark.parametrize(
    ("correct", "says"),
    [
        (lambda s: corrections.rate(s, "a", 100.5, "x"), "a rating of 100.5 is out of range"),
        (lambda s: corrections.rate(s, "a", float("nan"), "x"), "overall affect is 0 to 100"),
        (lambda s: corrections.exclude(s, "a", " \n", "x"), "an exclusion needs a reason — say wh"),
        (lambda s: corrections.tag(s, "a", "x", [" "]), "' ' is no tag — 1 to 40 characters"),
        (lambda s: corrections.tag(s, "a", "x", ["ok", "a,b"]), "'a,b' is no tag"),
        (lambda s: corrections.tag(s, "a", "x", ["x" * 41]), "is no tag"),
        (lambda s: corrections.tag(s, "a", "x", ["\x00"]), "is no tag"),
        (lambda s: corrections.tag(s, "a", "x", ["\udcff"]), "'\\\\udcff' is no tag"),
        (lambda s: corrections.label(s, "a", 0, 1, "x"), "turn 0 is the user's — only agent turns"),
        (lambda s: corrections.label(s, "a", 7, 1, "x"), "session a has no turn 7"),
        (lambda s: corrections.label(s, "a", -1, 1, "x"), "session a has no turn -1"),
    ],
)
def test_what_is_refused_changes_nothing(
    store: Store, correct: Callable[[Store], object], says: str
) -> None:
    store.insert(ended("a"))
    with pytest.raises(StoreError, match=says) as refused:
        correct(store)
    assert "\n" not in str(refused.value)
    assert store.get("a") == ended("a")
    assert corrections.listed(store) == []


def test_a_call_that_still_goes_on(store: Store) -> None:
    log = store.open_session(session("a"))
    log.add_turn(turn(0, "agent"))
    with pytest.raises(StoreError, match="session a is still going on — label it when it is over"):
        corrections.label(store, "a", 0, 1, "ada")
    corrections.note(store, "a", "a note", "ada")
    corrections.tag(store, "a", "ada", ["x"])
    log.add_turn(turn(1))
    log.add_windows([window(0, True)])
    found = store.get("a")
    assert (found.note, found.tags, len(found.turns)) == ("a note", ["x"], 2)


def test_tags_that_were_imported_can_be_removed(store: Store) -> None:
    odd = ["z", "a, b", "x" * 99, " two  spaces", "z"]
    store.insert(ended("a", tags=odd))
    change = made(corrections.tag(store, "a", "ada", remove=["a, b", "x" * 99, " two  spaces"]))
    assert store.get("a").tags == ["z"]
    corrections.undo(store, change.id, "ada")
    assert store.get("a").tags == odd


def test_what_cannot_be_stored_in_a_text_is_no_reason_to_refuse_an_undo(store: Store) -> None:
    store.insert(ended("a"))
    for correct in (
        lambda: corrections.note(store, "a", "a\x00\udcff", "a\x00da"),
        lambda: corrections.exclude(store, "a", "\udcff", "ada"),
        lambda: corrections.rate(store, "a", 5, "ada", comment="\x00"),
    ):
        change = made(correct())
        assert "\ufffd" in "".join(str(value) for value in change.after.values())
        corrections.undo(store, change.id, "ada")
        assert anew(store, "a") == ended("a")


# -- all or nothing, and at once ----------------------------------------------------------------


@pytest.mark.parametrize("correct", ANY[:2] + ANY[3:])
def test_without_its_line_in_the_log_nothing_is_changed(store: Store, correct: Correct) -> None:
    store.insert(ended("a"))
    with store.writing() as connection:
        connection.execute(sa.text("ALTER TABLE changes RENAME TO elsewhere"))
    with pytest.raises(StoreError):
        correct(store, "a")
    assert store.get("a") == ended("a")
    with store.writing() as connection:
        connection.execute(sa.text("ALTER TABLE elsewhere RENAME TO changes"))
    assert correct(store, "a") is not None


def test_an_undo_is_all_or_nothing(store: Store) -> None:
    store.insert(ended("a"))
    change = made(corrections.note(store, "a", "text", "ada"))

    def fail(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO changes"):
            raise OSError("out of order")

    sa.event.listen(store.engine, "before_cursor_execute", fail)
    with pytest.raises(OSError, match="out of order"):
        corrections.undo(store, change.id, "ada")
    sa.event.remove(store.engine, "before_cursor_execute", fail)
    assert store.get("a").note == "text"
    corrections.undo(store, change.id, "ada")
    assert store.get("a") == ended("a")


def at_once(url: str, *tasks: Callable[[Store], object]) -> list[object]:
    """What each returned, or its error; each has a store of its own, and all begin together."""
    together = threading.Barrier(len(tasks))

    def run(task: Callable[[Store], object]) -> object:
        with Store.open(url) as mine:
            together.wait()
            try:
                return task(mine)
            except StoreError as error:
                return error

    with ThreadPoolExecutor(len(tasks)) as pool:
        return list(pool.map(run, tasks))


def test_writers_at_once_lose_nothing(store: Store, url: str) -> None:
    store.insert(ended("a"))

    def tags_of(name: str) -> Callable[[Store], object]:
        return lambda mine: [corrections.tag(mine, "a", name, [f"{name} {n}"]) for n in range(10)]

    at_once(url, *(tags_of(name) for name in ("ada", "bob", "cy")))
    assert len(store.get("a").tags) == 30
    logged = corrections.listed(store)[::-1]
    assert len(logged) == 30
    for one, following in zip(logged, logged[1:], strict=False):
        assert following.before == one.after, "the log is one unbroken history"
    for change in reversed(logged):
        corrections.undo(store, change.id, "ada")
    assert store.get("a") == ended("a")


def test_one_of_two_undoes(store: Store, url: str) -> None:
    for n in range(8):
        store.insert(ended(f"s-{n}"))
        change = made(corrections.note(store, f"s-{n}", "text", "ada"))
        both = at_once(url, *[lambda s, i=change.id: corrections.undo(s, i, "x")] * 2)
        refused = [one for one in both if isinstance(one, StoreError)]
        assert len(refused) == 1
        assert "is undone already" in str(refused[0])
        assert store.get(f"s-{n}") == ended(f"s-{n}")
    assert len(corrections.listed(store)) == 16
