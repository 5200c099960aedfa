"""The list of sessions, driven by keys as a person would."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest
from textual.widgets import Checkbox, Input, Select

from agent import corrections
from agent.records import Consent
from agent.session_log import SessionLog
from agent.store import Store
from tests.agent.session_samples import ended, session, turn
from tests.tui.screens import SIZES, driven, review, same_as_snapshot, sessions, settle, shown
from tui.app import Review
from tui.session_table import SessionTable

pytestmark = pytest.mark.unit

A, B, C, D, E = (one.id for one in sessions())


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("GELI_DATA", str(tmp_path))
    time.tzset()


def table(app: Review) -> SessionTable:
    return app.screen.query_one(SessionTable)


@pytest.mark.parametrize("size", SIZES)
async def test_the_list_looks_as_it_did(tmp_path: Path, size: tuple[int, int]) -> None:
    app = review(tmp_path)
    async with driven(app, size) as pilot:
        await settle(pilot)
        same_as_snapshot(app, "sessions")
        await pilot.press("question_mark")
        await settle(pilot)
        same_as_snapshot(app, "sessions-help")
        await pilot.press("escape", "f")
        await settle(pilot)
        same_as_snapshot(app, "sessions-filter")


@pytest.mark.parametrize("size", SIZES)
async def test_an_empty_store_says_what_to_do(tmp_path: Path, size: tuple[int, int]) -> None:
    app = review(tmp_path, [])
    async with driven(app, size) as pilot:
        await settle(pilot)
        same_as_snapshot(app, "sessions-empty")
        await pilot.press("enter", "r", "x", "t", "n", "u", "d", "space", "a", "e")
        await settle(pilot)
        assert app.is_running


async def test_keys_move_the_cursor_and_mark(tmp_path: Path) -> None:
    app = review(tmp_path)
    async with driven(app) as pilot:
        await settle(pilot)
        rows = table(app)
        assert list(rows.ids) == [E, D, C, B, A]
        for keys, at in ((("down", "j"), C), (("up",), D), (("k", "k"), E), (("end",), A),
                         (("home",), E), (("G",), A), (("g",), E), (("pagedown",), A)):  # fmt: skip
            await pilot.press(*keys)
            assert rows.current == at
        await pilot.press("home", "space", "space")
        assert (rows.chosen, rows.current) == ([E, D], C)
        await settle(pilot)
        assert "2 marked" in shown(app)
        await pilot.press("a")
        assert len(rows.chosen) == 5
        await pilot.press("a")
        assert rows.chosen == [C]
        await pilot.press("space", "escape")
        assert rows.marked == set()


async def test_sorting_by_key_and_by_title(tmp_path: Path) -> None:
    app = review(tmp_path)
    async with driven(app) as pilot:
        await settle(pilot)
        await pilot.press("s", "down", "down", "down", "enter")  # started length turns rating
        await settle(pilot)
        assert list(table(app).ids) == [B, D, A, E, C]
        assert "ratin↓" in shown(app)
        await pilot.press("S")
        await settle(pilot)
        assert list(table(app).ids) == [A, D, B, E, C]
        await pilot.click("TableHeader", offset=(6, 0))
        await settle(pilot)
        assert list(table(app).ids) == [E, D, C, B, A]
        await pilot.click("TableHeader", offset=(6, 0))
        await settle(pilot)
        assert list(table(app).ids) == [A, B, C, D, E]


async def test_searching_and_filtering(tmp_path: Path) -> None:
    app = review(tmp_path)
    async with driven(app) as pilot:
        await settle(pilot)
        await pilot.press("slash", *"TRAIN soaked", "enter")
        await settle(pilot)
        assert list(table(app).ids) == [A]
        assert "says TRAIN soaked" in shown(app)
        await pilot.press("escape")
        await settle(pilot)
        assert len(table(app).ids) == 5
        await pilot.press("f")
        await settle(pilot)
        app.screen.query_one("#low", Checkbox).value = True
        await pilot.press("ctrl+s")
        await settle(pilot)
        assert list(table(app).ids) == [E, C]
        await pilot.press("f")
        await settle(pilot)
        app.screen.query_one("#dropped", Checkbox).value = True
        await pilot.press("ctrl+s")
        await settle(pilot)
        assert list(table(app).ids) == [C]
        await pilot.press("f")
        await settle(pilot)
        app.screen.query_one("#unrated", Checkbox).value = True
        app.screen.query_one("#tag", Select).value = "nice"
        await pilot.press("ctrl+s")
        await settle(pilot)
        assert "No session is" in shown(app)
        await pilot.press("f")
        await settle(pilot)
        await pilot.click("#clear")
        await settle(pilot)
        assert len(table(app).ids) == 5


async def test_correcting_one_and_many(tmp_path: Path) -> None:
    app = review(tmp_path)
    store = app.store
    async with driven(app) as pilot:
        await settle(pilot)
        await pilot.press("r", *"300", "enter")
        await settle(pilot)
        assert "Overall affect is 0 to 100." in shown(app)
        await pilot.press("ctrl+u", *"65", "enter")
        await settle(pilot)
        kept = store.get(E)
        assert (kept.overall_affect, kept.overall_affect_source) == (65, "review")
        await pilot.press("space", "down", "space", "x", *"silent", "enter")  # E and C
        await settle(pilot)
        assert [store.get(i).excluded_reason for i in (E, C)] == ["silent", "silent"]
        await pilot.press("t", *"odd, odd ,b", "enter")
        await settle(pilot)
        assert [store.get(i).tags for i in (E, C)] == [["b", "odd"], ["b", "odd"]]
        await pilot.press("escape", "home", "u")
        await settle(pilot)
        assert (store.get(E).tags, store.get(C).tags) == ([], ["b", "odd"])
        await pilot.press("x")  # excluded already: included again
        await settle(pilot)
        assert store.get(E).excluded is False
        await pilot.press("n", *"look", "enter")
        await settle(pilot)
        assert store.get(E).note == "look"
        assert {change.by for change in corrections.listed(store)} == {"ada"}


async def test_a_mistake_changes_nothing_and_says_why(tmp_path: Path) -> None:
    app = review(tmp_path)
    async with driven(app) as pilot:
        await settle(pilot)
        await pilot.press("u")
        await settle(pilot)
        assert "nothing was changed in this session" in shown(app)
        await pilot.press("x", "enter")
        await settle(pilot)
        assert "needs a reason" in shown(app)
        await pilot.press("escape")
        await pilot.press("t", *("x" * 50), "enter")
        await settle(pilot)
        assert "is no tag" in shown(app)
        assert corrections.listed(app.store) == []


async def test_deleting_asks_first_and_is_for_good(tmp_path: Path) -> None:
    app = review(tmp_path)
    async with driven(app) as pilot:
        await settle(pilot)
        await pilot.press("end", "d", "enter")  # Enter means no where something would be lost
        await settle(pilot)
        assert app.store.has(A)
        await pilot.press("d", "y")
        await settle(pilot)
        assert not app.store.has(A)
        assert "1 session deleted" in shown(app)
        assert list(table(app).ids) == [E, D, C, B]
    for file in tmp_path.glob("s.sqlite3*"):
        assert b"train was late" not in file.read_bytes()


async def test_exporting_what_is_marked(tmp_path: Path) -> None:
    app = review(tmp_path)
    async with driven(app) as pilot:
        await settle(pilot)
        await pilot.press("space", "space", "e")
        out = tmp_path / "out.jsonl"
        app.screen.query_one(Input).value = str(out)
        await pilot.press("enter")
        await settle(pilot)
        lines = out.read_text().splitlines()
        assert len(lines) == 2 and D in lines[0] and E in lines[1]
        await pilot.press("e")
        app.screen.query_one(Input).value = str(tmp_path / "none" / "out.jsonl")
        await pilot.press("enter")
        await settle(pilot)
        assert "cannot be written" in shown(app)


async def test_a_call_that_goes_on_is_seen(tmp_path: Path) -> None:
    """Another process writes; the list follows and the cursor stays on its session."""
    app = review(tmp_path)
    async with driven(app) as pilot:
        await settle(pilot)
        app._beat()
        await settle(pilot)
        await pilot.press("down")
        with Store.open(app.store.url.render_as_string()) as other:
            log: SessionLog = other.open_session(session("20261201T000000-99999999"))
            log.add_turn(turn(0))
            app._beat()
            await settle(pilot)
            assert "● live" in shown(app)
            assert (len(table(app).ids), table(app).current) == (6, D)


async def test_a_locked_store_is_said_once_and_then_well_again(tmp_path: Path) -> None:
    app = review(tmp_path)
    async with driven(app) as pilot:
        await settle(pilot)
        raw = sqlite3.connect(tmp_path / "s.sqlite3", isolation_level=None)
        raw.execute("BEGIN IMMEDIATE")
        await pilot.press("r", *"10", "enter")
        await settle(pilot)
        assert "another process holds the store" in shown(app)
        raw.execute("ROLLBACK")
        raw.close()
        await pilot.press("r", *"10", "enter")
        await settle(pilot)
        assert app.store.get(E).overall_affect == 10


async def test_a_corrupt_row_is_told_and_the_rest_is_shown(tmp_path: Path) -> None:
    app = review(tmp_path)
    with app.store.writing() as connection:
        connection.exec_driver_sql(f"UPDATE turns SET li = 7 WHERE session_id = '{A}'")
    async with driven(app) as pilot:
        await settle(pilot)
        assert len(table(app).ids) == 5
        await pilot.press("end", "enter")
        await settle(pilot)
        assert "cannot be shown" in shown(app) and "damaged" in shown(app)
        await pilot.press("escape")
        await settle(pilot)
        assert table(app).current == A


async def test_a_terminal_too_small_says_so(tmp_path: Path) -> None:
    app = review(tmp_path)
    async with driven(app) as pilot:
        await settle(pilot)
        await pilot.resize_terminal(50, 10)
        await settle(pilot)
        assert "needs 60 × 16" in shown(app) and "50 × 10" in shown(app)
        await pilot.resize_terminal(80, 24)
        await settle(pilot)
        assert "[1 Sessions]" in shown(app)


async def test_light_and_dark(tmp_path: Path) -> None:
    app = review(tmp_path)
    async with driven(app) as pilot:
        await settle(pilot)
        dark = app.current_theme.dark
        await pilot.press("T")
        assert app.current_theme.dark is not dark
        await pilot.press("T")
        assert app.current_theme.dark is dark


async def test_a_row_is_opened_by_two_clicks(tmp_path: Path) -> None:
    app = review(tmp_path)
    async with driven(app) as pilot:
        await settle(pilot)
        await pilot.click(SessionTable, offset=(10, 1), times=2)
        await settle(pilot)
        assert "2 of 5" in shown(app) and D[:15] in shown(app)


async def test_only_what_is_seen_is_read(tmp_path: Path) -> None:
    """A list of a thousand sessions asks for a page of rows, not for all of them."""
    many = [ended(f"m{i:05d}", i, turns=[], windows=[]) for i in range(1000)]
    app = review(tmp_path, many)
    asked: list[int] = []
    read = app.store.summaries
    app.store.summaries = lambda ids: (asked.append(len(ids)), read(ids))[1]  # type: ignore[method-assign,assignment,func-returns-value]
    async with driven(app) as pilot:
        await settle(pilot)
        assert sum(asked) <= 256
        await pilot.press("end")
        await settle(pilot)
        assert "at 1,000" in shown(app) and table(app).current == "m00000"
        assert sum(asked) <= 512


async def test_keep_is_listed_as_keep(tmp_path: Path) -> None:
    app = review(tmp_path)
    async with driven(app, (140, 45)) as pilot:
        await settle(pilot)
        assert app.store.get(C).consent is Consent.KEEP
        line = next(line for line in shown(app).splitlines() if C in line)
        assert " keep " in line and " dropped " in line


async def test_the_command_palette_knows_the_keys(tmp_path: Path) -> None:
    app = review(tmp_path)
    async with driven(app) as pilot:
        await settle(pilot)
        await pilot.press("ctrl+p", *"mark all")
        for _ in range(100):
            await pilot.pause(0.05)
            if "key a" in shown(app):
                break
        await pilot.press("enter")
        await settle(pilot)
        assert len(table(app).marked) == 5
