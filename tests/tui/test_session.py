"""One session on the screen: what it says, where the keys go, what they change."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from textual.widgets import OptionList

from agent import corrections
from learning.registry import Registry
from tests.tui.screens import SIZES, driven, review, same_as_snapshot, sessions, settle, shown
from tui.app import Review

pytestmark = pytest.mark.unit

A, B, C, D, E = (one.id for one in sessions())
UNROLLED = """\
import json, sys
assert sys.argv[1:3] == ["learn", "unroll"], sys.argv
turns = [{"turn": 2, "reward": 40.0, "centred": -5.5}, {"turn": 4, "reward": 51.0, "centred": 5.5}]
print(json.dumps({"session": sys.argv[3], "turns": turns}))
"""


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("GELI_DATA", str(tmp_path))
    time.tzset()


def opened(folder: Path, session_id: str = A) -> Review:
    return review(folder, first=session_id)


def at(app: Review) -> int | None:
    return app.screen.query_one(OptionList).highlighted


def with_reward(folder: Path, monkeypatch: pytest.MonkeyPatch, program: str = UNROLLED) -> str:
    """A reward in the registry, and a `geli` that answers instead of loading it."""
    made = folder / "made"
    made.mkdir()
    (made / "reward.json").write_text("{}")
    monkeypatch.setattr("tui.jobs.GELI", (sys.executable, "-c", program))
    registry = Registry.open(folder)
    return registry.add(
        "reward", made, base="minilm", seed=0, data_digest="d", data_source="store"
    ).id


@pytest.mark.parametrize("size", SIZES)
async def test_a_session_looks_as_it_did(tmp_path: Path, size: tuple[int, int]) -> None:
    app = opened(tmp_path)
    async with driven(app, size) as pilot:
        await settle(pilot)
        await pilot.press("j", "j")
        await settle(pilot)
        same_as_snapshot(app, "session")
        await pilot.press("question_mark")
        await settle(pilot)
        same_as_snapshot(app, "session-help")


async def test_what_was_never_heard_is_told(tmp_path: Path) -> None:
    app = opened(tmp_path)
    async with driven(app) as pilot:
        await settle(pilot)
        text = " ".join(shown(app).split())
        assert "That is annoying. ⊘ interrupted" in text
        assert "never heard: Did you get home all right?" in text
        assert "comment: it was raining" in text


async def test_keys_go_where_they_say(tmp_path: Path) -> None:
    app = opened(tmp_path)
    async with driven(app) as pilot:
        await settle(pilot)
        await pilot.press("j", "j", "k")
        assert at(app) == 1
        await pilot.press("i")
        assert at(app) == 2
        await pilot.press("m")
        assert at(app) == 0  # the greeting has no label; the search goes round
        await pilot.press("down", "i")
        assert at(app) == 2
        await pilot.press("enter")
        await settle(pilot)
        assert "840 ms" in shown(app) and "voice to voice" in shown(app)
        await pilot.press("escape")
        assert at(app) == 2


async def test_the_neighbours_in_the_list(tmp_path: Path) -> None:
    app = review(tmp_path)
    async with driven(app) as pilot:
        await settle(pilot)
        await pilot.press("down", "enter")
        await settle(pilot)
        assert f"2 of 5  {D}"[:20] in shown(app)
        await pilot.press("right_square_bracket", "right_square_bracket")
        await settle(pilot)
        assert f"4 of 5  {B}"[:20] in shown(app)
        await pilot.press("left_square_bracket")
        await settle(pilot)
        assert f"3 of 5  {C}"[:20] in shown(app)
        await pilot.press("escape")
        await settle(pilot)
        assert "5 sessions" in shown(app)


async def test_a_label_is_overridden_and_undone(tmp_path: Path) -> None:
    app = opened(tmp_path)
    async with driven(app) as pilot:
        await settle(pilot)
        await pilot.press("j", "j", "plus")
        await settle(pilot)
        turn = app.store.get(A).turns[2]
        assert (turn.li, turn.li_rule) == (1, "person: ada")
        assert "▀ positive ✎" in shown(app) and at(app) == 2
        await pilot.press("0")
        await settle(pilot)
        assert app.store.get(A).turns[2].li is None
        await pilot.press("c")
        await settle(pilot)
        assert "label of turn 2: positive → unknown" in shown(app)
        await pilot.press("escape", "u", "u")
        await settle(pilot)
        turn = app.store.get(A).turns[2]
        assert (turn.li, turn.li_rule) == (0, "majority")
        await pilot.press("k", "minus")
        await settle(pilot)
        assert "turn 1 is the user's" in shown(app)


async def test_the_session_is_corrected(tmp_path: Path) -> None:
    app = opened(tmp_path)
    async with driven(app) as pilot:
        await settle(pilot)
        await pilot.press("r", "ctrl+u", *"35", "enter")
        await settle(pilot)
        await pilot.press("n", *"rain", "enter")
        await settle(pilot)
        await pilot.press("t", *"wet", "enter")
        await settle(pilot)
        await pilot.press("x", *"test", "enter")
        await settle(pilot)
        now = app.store.get(A)
        assert (now.overall_affect, now.note, now.tags) == (35, "rain", ["wet"])
        assert now.excluded_reason == "test"
        text = shown(app)
        assert "rating 35 (review)" in text and "✎ rain  tags: wet" in text
        assert "× excluded: test" in text
        await pilot.press("u", "u", "u", "u")
        await settle(pilot)
        now = app.store.get(A)
        assert (now.overall_affect, now.note, now.tags, now.excluded) == (20, None, [], False)
        assert now.overall_affect_source == "page"


async def test_deleting_goes_back_to_the_list(tmp_path: Path) -> None:
    app = opened(tmp_path)
    async with driven(app) as pilot:
        await settle(pilot)
        await pilot.press("d", "y")
        await settle(pilot)
        assert not app.store.has(A)
        assert "4 sessions" in shown(app)


async def test_rewards_are_computed_in_the_background(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reward = with_reward(tmp_path, monkeypatch)
    app = opened(tmp_path)
    async with driven(app, (140, 45)) as pilot:
        await settle(pilot)
        await pilot.press("w")
        await settle(pilot)
        text = shown(app)
        assert f"reward by {reward}" in text
        assert "▇▇▇▇▇▇▇▇│          -5.5" in text and "│▇▇▇▇▇▇▇▇  +5.5" in text
        await pilot.press("h")
        assert at(app) == 4
        await pilot.press("l")
        assert at(app) == 2


async def test_rewards_come_by_themselves_when_one_reads_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_reward(tmp_path, monkeypatch)
    monkeypatch.setattr("tui.session.READS_ON_S", 0.01)
    app = opened(tmp_path)
    async with driven(app, (140, 45)) as pilot:
        for _ in range(100):
            await settle(pilot)
            if "-5.5" in shown(app):
                return
            await pilot.pause(0.05)
        raise AssertionError(shown(app))


@pytest.mark.parametrize(
    ("session_id", "why"),
    [(C, "did not give it to learning"), (D, "excluded from learning"), (A, "no reward function")],
)
async def test_why_there_are_no_rewards(tmp_path: Path, session_id: str, why: str) -> None:
    app = opened(tmp_path, session_id)
    async with driven(app) as pilot:
        await settle(pilot)
        await pilot.press("w")
        await settle(pilot)
        assert why in " ".join(shown(app).split())


async def test_a_reward_that_fails_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says = "import sys; print('geli: r-1 is damaged — train again', file=sys.stderr); sys.exit(2)"
    with_reward(tmp_path, monkeypatch, says)
    app = opened(tmp_path)
    async with driven(app) as pilot:
        await settle(pilot)
        await pilot.press("w")
        await settle(pilot)
        assert "! no rewards: r-1 is damaged — train again" in shown(app)


async def test_a_session_without_words_or_windows(tmp_path: Path) -> None:
    app = opened(tmp_path, E)
    async with driven(app, (140, 45)) as pilot:
        await settle(pilot)
        await pilot.press("i", "m", "h", "l", "enter", "plus", "j", "k")
        await settle(pilot)
        assert "Nobody said anything in this call." in shown(app)
        assert corrections.listed(app.store) == []


async def test_a_session_that_is_deleted_meanwhile(tmp_path: Path) -> None:
    app = opened(tmp_path)
    async with driven(app) as pilot:
        await settle(pilot)
        app.store.delete(A)
        await pilot.press("n", *"late", "enter")
        await settle(pilot)
        assert "no session" in shown(app)
