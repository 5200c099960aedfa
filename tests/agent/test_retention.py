"""Retention: what is due, and that what is removed is gone from every file."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent import corrections, policies
from agent.config import Retention
from agent.errors import StoreError
from agent.records import Consent, Session, person_of
from agent.retention import due, of_person, remove
from agent.store import Store
from tests.agent.session_samples import PEOPLE, START, TOKENS, ended, full_session, session
from tests.agent.stores import (
    SECRETS,
    locked,
    on_disk,
    read_elsewhere,
    url_of,
    with_secrets,
)

pytestmark = pytest.mark.unit

DAY = timedelta(days=1)
RULE = Retention(keep_days=10, learn_days=20)


@pytest.fixture(autouse=True)
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GELI_DATA", str(tmp_path / "data"))
    return policies.registry_of(tmp_path / "data")


def entry(registry: Path, entry_id: str, kind: policies.Kind, **manifest: Any) -> None:
    path = registry / policies.FOLDERS[kind] / entry_id
    path.mkdir(parents=True)
    (path / "manifest.json").write_text(json.dumps({"id": entry_id, "kind": kind} | manifest))


# -- what is due --------------------------------------------------------------------------------


def of_age(days: float, name: str, **more: Any) -> Session:
    """Started so many days before START."""
    return ended(name, minutes=-days * 24 * 60, **more)


def test_what_is_due(store: Store) -> None:
    for consent, limit in ((Consent.KEEP, 10), (Consent.LEARN, 20)):
        store.insert(of_age(limit, f"{consent}-just", consent=consent))
        store.insert(of_age(limit + 0.001, f"{consent}-over", consent=consent))
        store.insert(of_age(limit + 90, f"{consent}-long", consent=consent, excluded=True))
        store.insert(of_age(-1, f"{consent}-to-come", consent=consent))
    found = due(store, RULE, START)
    assert [one.id for one in found] == ["learn-long", "keep-long", "learn-over", "keep-over"]
    first = found[0]
    assert (first.consent, first.started_at, first.limit) == ("learn", START - 110 * DAY, 20)
    assert first.days == pytest.approx(110)
    assert [one.id for one in due(store, Retention(keep_days=10, learn_days=0), START)] == [
        "keep-long",
        "keep-over",
    ]
    assert due(store, Retention(keep_days=0, learn_days=0), START) == []
    assert due(store, Retention(keep_days=36_500, learn_days=36_500), START) == []


def test_what_is_due_by_now(store: Store) -> None:
    now = datetime.now(UTC)
    store.insert(ended("new", started_at=now - 9 * DAY, consent=Consent.KEEP))
    store.insert(ended("old", started_at=now - 11 * DAY, consent=Consent.KEEP))
    assert [one.id for one in due(store, RULE)] == ["old"]


def test_all_that_are_due(store: Store) -> None:
    names = [f"s-{n:02d}" for n in range(51)]
    for name in names:
        store.insert(session(name))
    assert [one.id for one in due(store, RULE, START + 11 * DAY)] == names


def test_a_call_in_progress_is_never_due(store: Store) -> None:
    log = store.open_session(session("live", started_at=START - 1000 * DAY))
    store.insert(session("open", started_at=START - 1000 * DAY))
    assert [one.id for one in due(store, RULE, START)] == ["open"]
    assert log.stores


# -- whose sessions -----------------------------------------------------------------------------


def test_the_sessions_of_a_person(store: Store) -> None:
    for n, person in enumerate([PEOPLE[0], None, PEOPLE[1], PEOPLE[0]]):
        store.insert(ended(f"s-{n}", n, person=person))
    store.open_session(session("live", person=PEOPLE[0], started_at=START + DAY))
    assert of_person(store, person_of(f" {TOKENS[0]}\n")) == ["live", "s-3", "s-0"]
    assert of_person(store, person_of(TOKENS[1])) == ["s-2"]
    assert of_person(store, person_of("nobody has this token")) == []


# -- removing -----------------------------------------------------------------------------------


def test_removing(store: Store) -> None:
    store.insert(full_session())
    for name in "abc":
        store.insert(ended(name))
    told: list[tuple[int, int]] = []
    done = remove(store, ["a", "full_Session-1", "a", "nix", "b"], lambda *n: told.append(n))
    assert done.ids == ["a", "full_Session-1", "b"]
    assert (done.turns, done.windows) == (6, 5)
    assert (done.trained, done.unmarked, done.left_over) == ([], {}, "")
    assert told == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
    assert store.ids() == ["c"]


def test_what_was_trained_on_it_is_marked_and_named(store: Store, registry: Path) -> None:
    entry(registry, "r-1", "reward", sessions=["a", "c"])
    entry(registry, "p-1", "policy", reward="r-1")
    entry(registry, "p-2", "policy", sessions=["b"])
    entry(registry, "p-3", "policy", sessions=["c"])
    for name in "abc":
        store.insert(ended(name))
    assert sorted(remove(store, ["a", "b"]).trained) == ["p-1", "p-2", "r-1"]
    assert policies.deleted_sessions(registry, "reward", "r-1") == ("a",)
    assert policies.deleted_sessions(registry, "policy", "p-1") == ("a",)
    assert policies.deleted_sessions(registry, "policy", "p-2") == ("b",)
    assert policies.deleted_sessions(registry, "policy", "p-3") == ()
    assert remove(store, ["c"]).trained.count("r-1") == 1
    assert set(policies.deleted_sessions(registry, "reward", "r-1")) == {"a", "c"}


def test_what_was_never_there_is_not_marked(store: Store, registry: Path) -> None:
    entry(registry, "r-1", "reward", sessions=["a"])
    assert remove(store, ["a"]).trained == []
    assert policies.deleted_sessions(registry, "reward", "r-1") == ()


def test_a_damaged_registry_stops_no_deletion(store: Store, registry: Path) -> None:
    entry(registry, "r-1", "reward", sessions=["a"])
    (registry / "marks").mkdir()
    (registry / "marks" / "deleted.json").write_text("nonsense")
    for name in "ab":
        store.insert(ended(name))
    done = remove(store, ["a", "b"])
    assert done.ids == ["a", "b"] and set(done.unmarked) == {"a", "b"}
    assert "deleted.json: damaged" in done.unmarked["a"]
    assert store.ids() == []


def test_another_may_be_quicker(store: Store, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        store.insert(ended(name))
    mark = policies.mark_deleted

    def while_the_other(registry: Path, session_id: str) -> list[str]:
        if session_id == "b":
            with Store.open(url) as other:
                other.delete("b")
        return mark(registry, session_id)

    monkeypatch.setattr(policies, "mark_deleted", while_the_other)
    done = remove(store, ["a", "b", "c"])
    assert (done.ids, done.left_over) == (["a", "c"], "")
    assert store.ids() == []


def test_a_locked_store_says_so_and_nothing_is_lost(lite: Store) -> None:
    lite.insert(ended("a"))
    with locked(lite), pytest.raises(StoreError, match="another process holds the store"):
        remove(lite, ["a"])
    assert lite.get("a") == ended("a")
    assert remove(lite, ["a"]).ids == ["a"]


# -- the proof ----------------------------------------------------------------------------------

HELD = (*SECRETS, "gone-1", PEOPLE[0])
"""What the store holds of that session: its texts, its id, its person."""


def test_what_is_removed_is_in_no_file(tmp_path: Path) -> None:
    with Store.open(url_of(tmp_path)) as store, Store.open(url_of(tmp_path)) as server:
        with_secrets(store, "gone-1", person=PEOPLE[0])
        assert server.has("gone-1")
        assert all(on_disk(tmp_path, text) for text in HELD), "the search finds each"
        kept = store.get("kept")
        done = remove(store, ["gone-1"])
        assert (done.ids, done.turns, done.windows, done.left_over) == (["gone-1"], 30, 1, "")
        files = {path.name for path in tmp_path.iterdir() if path.is_file()}
        assert files == {"s.sqlite3", "s.sqlite3-wal", "s.sqlite3-shm"}
        assert on_disk(tmp_path, *HELD) == {}
        assert (server.get("kept"), server.ids()) == (kept, ["kept"])
        assert corrections.listed(server) == []
    assert on_disk(tmp_path, *HELD) == {}
    assert on_disk(tmp_path, "stays-029")


def test_while_another_process_reads_it_is_said_and_finished_later(
    lite: Store, tmp_path: Path
) -> None:
    with_secrets(lite, "gone-1", person=PEOPLE[0])
    with read_elsewhere(tmp_path / "s.sqlite3"):
        done = remove(lite, ["gone-1"])
        assert done.ids == ["gone-1"]
        assert f"{lite.name}: another process" in done.left_over
        assert done.left_over.endswith("then: geli sessions purge --yes")
        assert "\n" not in done.left_over
        assert all(on_disk(tmp_path, text) for text in HELD), "it was true"
        assert remove(lite, []).left_over == done.left_over
    assert on_disk(tmp_path, *HELD)
    done = remove(lite, [])
    assert (done.ids, done.left_over) == ([], "")
    assert on_disk(tmp_path, *HELD) == {}
    assert lite.ids() == ["kept"]


def test_while_another_process_writes_it_is_said_and_finished_later(
    lite: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_secrets(lite, "gone-1", person=PEOPLE[0])
    compact = lite.compact

    def compact_while_locked() -> None:
        with locked(lite):
            compact()

    monkeypatch.setattr(lite, "compact", compact_while_locked)
    done = remove(lite, ["gone-1"])
    assert done.ids == ["gone-1"]
    assert "another process holds the store" in done.left_over
    monkeypatch.undo()
    assert remove(lite, []).left_over == ""
    assert on_disk(tmp_path, *HELD) == {}
