"""Tab 3: rounds that ended, failed or stopped; begin one, watch it, leave it, cancel it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from learning.rounds import Round
from tests.tui.learned import FAILED, PASSED, Entries, asked, fake_geli, notices, press, until
from tests.tui.screens import SIZES, driven, review, shown
from tui.app import Review
from tui.rounds import RoundsTab

pytestmark = pytest.mark.unit

PLAN = ["snapshot   24 sessions", "policy     ppo, 6 updates"]
GELI = """
import datetime, json, pathlib, sys, time
data = pathlib.Path({data!r})
if "--dry-run" in sys.argv:
    print(json.dumps({plan!r}))
    raise SystemExit
now = datetime.datetime.now(datetime.UTC)
folder = data / "rounds" / f"{{now:%Y%m%dT%H%M%S}}"
folder.mkdir(parents=True)
(folder / "round.json").write_text(json.dumps({{
    "source": "store", "seed": 0, "started_at": now.isoformat(),
    "digest": "abcdef", "sessions": ["s"] * 24}}))
(data / "arguments").write_text(json.dumps(sys.argv[1:]))
print("reward …", flush=True)
time.sleep(60)
"""


def made(data: Path, hour: int, **more: object) -> Round:
    """A round of that hour, written as `geli learn round` writes it."""
    folder = data / "rounds" / f"20261123T{hour:02}0000"
    folder.mkdir(parents=True)
    known = {
        "source": "store",
        "seed": 0,
        "started_at": f"2026-11-23T{hour:02}:00:00+00:00",
        "digest": "0123456789abcdef",
        "sessions": [f"s-{i}" for i in range(24)],
    }
    one = Round(folder, **(known | more))  # type: ignore[arg-type]
    one.save()
    return one


def fake(patch: pytest.MonkeyPatch, data: Path) -> None:
    fake_geli(patch, GELI.format(data=str(data), plan=PLAN))


@pytest.fixture
def three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Review:
    """A candidate, one whose gate failed, one that stopped; the list begins with the last."""
    app = review(tmp_path, [])
    policy = Entries(app.registry, tmp_path / "scratch", monkeypatch).add()
    passed, failed = PASSED.model_dump(), FAILED.model_dump()
    gates = {"reward_gates": [passed], "reward": "r-1"}
    made(tmp_path, 9, ended="candidate", policy=policy.id, policy_gates=[passed], **gates)
    made(tmp_path, 10, ended="win_rate", policy_gates=[passed, failed], **gates)
    made(tmp_path, 11, reward="r-1")
    return app


async def opened(pilot: object, app: Review) -> RoundsTab:
    await press(pilot, "3")  # type: ignore[arg-type]
    assert isinstance(app.screen, RoundsTab)
    return app.screen


@pytest.mark.parametrize("size", SIZES)
async def test_without_a_round_it_says_what_one_is_and_every_key_is_there(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    app = review(tmp_path, [])
    async with driven(app, size) as pilot:
        await opened(pilot, app)
        text = shown(app)
        assert "No round yet." in text and "It needs 20 rated sessions" in " ".join(text.split())
        for key in ("⏎ Read", "n New round", "g Go on", "x Cancel", "p Promote", "l Log"):
            assert key in text, key
        await press(pilot, "enter", "g", "x", "p", "l")
        assert isinstance(app.screen, RoundsTab) and not notices(app)


@pytest.mark.parametrize("size", SIZES)
async def test_each_says_how_it_ended_by_a_sign_and_a_word(
    three: Review, size: tuple[int, int]
) -> None:
    async with driven(three, size) as pilot:
        await opened(pilot, three)
        text = shown(three)
        assert "■ stopped at policy" in text and "✗ win_rate" in text and "✓ candidate" in text
        assert "20261123T110000 is unfinished: g goes on with it" in text
        await press(pilot, "down")
        text = asked(three)
        assert "round 20261123T100000" in text and "win_rate" in text and "FAILED" in text


async def test_progress_is_of_the_rounds_own_number_of_updates(tmp_path: Path) -> None:
    """The review may know another configuration: of an hour ago, or of another terminal."""
    app = review(tmp_path, [])
    own = app.config.policy.updates + 2
    one = made(tmp_path, 9, reward="r-1", updates=own)
    made(tmp_path, 8, reward="r-1")  # written before rounds told it
    (one.folder / "policy").mkdir()
    curves = one.folder / "policy" / "curves.jsonl"
    curves.write_text("".join(json.dumps({"update": n}) + "\n" for n in (1, 2, 3)))
    async with driven(app) as pilot:
        await opened(pilot, app)
        assert f" 3 of {own} updates" in asked(app)
        one.updates, more = own - 3, "".join(json.dumps({"update": n}) + "\n" for n in (4, 5))
        one.save()  # gone on with, under another configuration
        curves.write_text(curves.read_text() + more)
        await press(pilot, "1", "3")
        assert f" 5 of {own - 3} updates" in asked(app)
        await press(pilot, "down")
        assert "policy     0 updates" in asked(app)


async def test_a_round_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "rounds" / "20261123T080000"
    folder.mkdir(parents=True)
    (folder / "round.json").write_text("{")
    app = review(tmp_path, [])
    async with driven(app) as pilot:
        await opened(pilot, app)
        assert "!" in shown(app) and "! cannot be read" in asked(app)
        assert "geli learn round --new" in asked(app)


async def test_one_is_begun_left_come_back_to_and_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch, tmp_path)
    app = review(tmp_path, [])
    async with driven(app) as pilot:
        tab = await opened(pilot, app)
        await press(pilot, "n")
        assert all(line in asked(app) for line in PLAN)
        await press(pilot, "n")  # no
        assert not (tmp_path / "arguments").exists() and tab.rounds.job is None
        await press(pilot, "n", "y")
        await until(pilot, lambda: (tmp_path / "arguments").exists())
        await press(pilot, "1", "3")
        await until(pilot, lambda: tab.rounds.seen and tab.rounds.seen[0].runs)
        assert f"▶ {tab.rounds.seen[0].id} runs" in shown(app)
        assert "it goes on when this is closed" in asked(app)
    again = review(tmp_path, [])
    async with driven(again) as pilot:
        tab = await opened(pilot, again)
        await until(pilot, lambda: tab.rounds.seen and tab.rounds.seen[0].runs)
        await press(pilot, "l")
        assert "reward …" in asked(again)
        await press(pilot, "escape", "x")
        assert "Cancel the round" in asked(again)
        await press(pilot, "y")
        await until(pilot, lambda: "■ cancelled at reward" in shown(again))
        assert tab.rounds.job is None
    arguments = json.loads((tmp_path / "arguments").read_text())
    assert arguments[:5] == ["learn", "round", "--promote", "ask", "--new"]


async def test_going_on_begins_no_new_one(
    three: Review, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch, tmp_path)
    async with driven(three) as pilot:
        tab = await opened(pilot, three)
        await press(pilot, "g")
        assert "Go on with round 20261123T110000?" in asked(three)
        await press(pilot, "y")
        await until(pilot, lambda: (tmp_path / "arguments").exists())
        assert "--new" not in json.loads((tmp_path / "arguments").read_text())
        await until(pilot, lambda: tab.rounds.job is not None)
        await press(pilot, "x", "y")
        await until(pilot, lambda: tab.rounds.job is None)


async def test_promoting_asks_what_changes_and_the_round_then_speaks(three: Review) -> None:
    async with driven(three) as pilot:
        await opened(pilot, three)
        policy = three.registry.list("policy")[0].id
        await press(pilot, "down", "down", "p")
        assert policy in asked(three) and three.registry.state.promoted is None
        await press(pilot, "y")
        await until(pilot, lambda: three.registry.state.promoted == policy)
        await until(pilot, lambda: "● speaks" in shown(three))


async def test_what_a_round_would_do_can_fail_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_geli(monkeypatch, "import sys; sys.exit('geli: store: no dialogues to learn from')")
    app = review(tmp_path, [])
    async with driven(app) as pilot:
        await opened(pilot, app)
        await press(pilot, "n")
        await until(pilot, lambda: any("no dialogues to learn from" in n for n in notices(app)))
        assert isinstance(app.screen, RoundsTab)
