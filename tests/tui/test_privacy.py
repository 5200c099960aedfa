"""Consent, retention, one person's sessions and their deletion, by keys."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from textual.widgets import Input

from agent import config, corrections
from agent.records import Session, person_of
from learning.registry import Registry
from tests.agent.session_samples import ended, session, turn
from tests.tui.screens import SIZES, driven, review, same_as_snapshot, settle, shown
from tui.app import Review
from tui.session_table import SessionTable

pytestmark = pytest.mark.unit

TOKEN = "a-token-of-sixteen-letters"
SECRET = "pomegranate"
NOW = datetime(2028, 6, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """June 2028: the samples of November 2026 are 555 days old."""
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("GELI_DATA", str(tmp_path))
    time.tzset()

    @dataclass
    class Clock:
        @staticmethod
        def now(zone: object) -> datetime:
            return NOW

    monkeypatch.setattr("agent.retention.datetime", Clock)


def stored() -> list[Session]:
    said = [turn(0, text=SECRET), turn(1, "agent")]
    return [
        ended("old-keep", consent="keep", turns=said),
        ended("old-learn", 1, turns=said, person=person_of(TOKEN)),
        ended("new-keep", consent="keep", started_at=NOW - timedelta(days=3)),
        ended("new-learn", started_at=NOW - timedelta(days=2), person=person_of(TOKEN)),
    ]


def listed(app: Review) -> list[str]:
    return list(app.screen.query_one(SessionTable).ids)


def on_disk(folder: Path) -> list[str]:
    return [p.name for p in folder.glob("s.sqlite3*") if SECRET.encode() in p.read_bytes()]


@pytest.mark.parametrize("size", SIZES)
async def test_it_looks_as_it_did(tmp_path: Path, size: tuple[int, int]) -> None:
    app = review(tmp_path, stored())
    app.store.open_session(session("spoken", consent="talk_only")).end(  # type: ignore[arg-type]
        "hung_up", NOW
    )
    async with driven(app, size) as pilot:
        await pilot.press("5")
        await settle(pilot)
        same_as_snapshot(app, "privacy")
        await pilot.press("question_mark")
        await settle(pilot)
        same_as_snapshot(app, "privacy-help")


async def test_what_is_due_is_deleted_after_asking(tmp_path: Path) -> None:
    app = review(tmp_path, stored())
    assert on_disk(tmp_path)
    async with driven(app) as pilot:
        await pilot.press("5")
        await settle(pilot)
        assert listed(app) == ["old-keep"]  # 555 days: over 180, under 730
        await pilot.press("d", "n")
        await settle(pilot)
        assert app.store.has("old-keep")
        await pilot.press("a", "y")
        await settle(pilot)
        assert not app.store.has("old-keep")
        assert "Nothing is due" in shown(app)
        await pilot.press("a", "d", "e", "enter")
        await settle(pilot)
        assert {one.id for one in app.store.list()} == {"old-learn", "new-keep", "new-learn"}


async def test_everything_about_one_person(tmp_path: Path) -> None:
    app = review(tmp_path, stored())
    made = tmp_path / "made"
    made.mkdir()
    (made / "reward.json").write_text("{}")
    reward = Registry.open(tmp_path).add(
        "reward", made, base="b", seed=0, data_digest="d", data_source="store",
        sessions=["old-learn"],
    )  # fmt: skip
    app.store.delete("old-keep")
    async with driven(app, (140, 45)) as pilot:
        await pilot.press("5")
        await settle(pilot)
        await pilot.press("p", *"short", "enter")
        await settle(pilot)
        assert "16 to 128 characters" in shown(app)
        await pilot.press("ctrl+u", *TOKEN, "enter")
        await settle(pilot)
        assert listed(app) == ["new-learn", "old-learn"]
        assert TOKEN not in shown(app)
        await pilot.press("e")
        out = tmp_path / "person.jsonl"
        app.screen.query_one(Input).value = str(out)
        await pilot.press("enter")
        await settle(pilot)
        told = [json.loads(line)["id"] for line in out.read_text().splitlines()]
        assert sorted(told) == ["new-learn", "old-learn"]
        await pilot.press("a", "y")
        await settle(pilot)
        assert f"learned from: {reward.id}" in " ".join(shown(app).split())
        assert "No session is kept of this person." in shown(app)
        await pilot.press("escape")
        await settle(pilot)
        assert "Nothing is due" in shown(app)
    assert [one.id for one in app.store.list()] == ["new-keep"]
    assert on_disk(tmp_path) == []
    assert Registry.open(tmp_path).marks(reward.id) == ("new-learn", "old-learn")[1:]


async def test_a_session_is_read_and_the_corrections_are_told(tmp_path: Path) -> None:
    app = review(tmp_path, stored())
    corrections.note(app.store, "old-keep", "look at it", "bob")
    async with driven(app) as pilot:
        await pilot.press("5")
        await settle(pilot)
        await pilot.press("enter")
        await settle(pilot)
        assert SECRET in shown(app)
        await pilot.press("escape", "c")
        await settle(pilot)
        assert "bob" in shown(app) and "note: none → 'look at it'" in shown(app)


async def test_kept_for_good_is_never_due(tmp_path: Path) -> None:
    app = review(tmp_path, stored())
    app.config = config.load("cpu", ["retention.keep_days=0", "retention.learn_days=1"])
    async with driven(app) as pilot:
        await pilot.press("5")
        await settle(pilot)
        assert listed(app) == ["old-learn", "new-learn"]
        assert "for good" in shown(app)
