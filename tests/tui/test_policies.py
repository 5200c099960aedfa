"""Rewards and policies, driven by keys: what is shown, and who speaks afterwards."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from textual.widgets import Input, OptionList, Static

from agent import config, policies
from agent.records import Consent, Session
from learning import report
from learning.registry import Registry
from tests.agent.session_samples import ended, window
from tests.tui import learned
from tests.tui.learned import FAILED, PASSED, Entries, asked, fake_geli, notices, press, until
from tests.tui.screens import SIZES, driven, review, same_as_snapshot, settle, shown
from tui import ratings
from tui.app import Review
from tui.ask import Confirm
from tui.entries import RATINGS, nested
from tui.entries import Entries as EntryTree
from tui.policies import Policies

pytestmark = pytest.mark.unit

BASE = "smollm2-135m-instruct"


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("GELI_DATA", str(tmp_path))
    time.tzset()


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry.open(tmp_path)


@pytest.fixture
def entries(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Entries:
    return Entries(registry, tmp_path / "scratch", monkeypatch)


def tree(app: Review) -> EntryTree:
    return app.screen.query_one(EntryTree)


def page(app: Review) -> str:
    return str(app.screen.query_one("#text", Static).render())


def lines(app: Review) -> list[str]:
    """The lines of the tree, with its signs."""
    nodes = [tree(app).get_node_at_line(i) for i in range(tree(app).last_line + 1)]
    return [str(node.label) for node in nodes if node is not None]


def rated(n: int, policy: str, ratings_: list[float], source: str = "browser") -> list[Session]:
    return [
        ended(
            f"s-{policy[-6:].replace('+', '_')}-{n}-{i}", n + i, policy_id=policy,
            overall_affect=value, source=source, windows=[window(0, i % 2 == 0), window(1, True)],
        )
        for i, value in enumerate(ratings_)
    ]  # fmt: skip


async def opened(pilot: object, app: Review, key: str | None = None) -> None:
    """Tab 2, with the cursor on that line."""
    await press(pilot, "2")  # type: ignore[arg-type]
    if key is not None:
        tree(app).go(key)
        await settle(pilot)  # type: ignore[arg-type]
        assert tree(app).current == key


# --- what is shown -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
async def test_the_screen_looks_as_it_did(
    tmp_path: Path, entries: Entries, size: tuple[int, int]
) -> None:
    reward = entries.add("reward")
    old = entries.add(reward=reward.id, sessions=["s-1"], gates=[PASSED, FAILED])
    new = entries.add(parent=old.id, reward=reward.id, gates=[PASSED, PASSED])
    entries.add(reward=reward.id)
    policies.mark_deleted(entries.registry.root, "s-1")
    entries.registry.promote(new.id, by="ada")
    entries.registry.set_candidate(old.id, "ada", force=True)
    app = review(tmp_path, rated(0, BASE, [40, 60, 55]) + rated(9, f"{BASE}+{new.id}", [70, 52]))
    async with driven(app, size) as pilot:
        await opened(pilot, app)
        same_as_snapshot(app, "policies")
        await press(pilot, "g")
        assert "does not decide yet" in page(app)
        await opened(pilot, app, reward.id)
        same_as_snapshot(app, "policies-reward")
        await press(pilot, "enter")
        same_as_snapshot(app, "policies-read")


@pytest.mark.parametrize("size", SIZES)
async def test_an_empty_registry_says_what_to_do_and_no_key_harms(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    app = review(tmp_path, [])
    async with driven(app, size) as pilot:
        await opened(pilot, app)
        same_as_snapshot(app, "policies-empty")
        for key in ("enter", "escape", "p", "escape", "b", "escape", "c", "v", "space", "m", "x"):
            await press(pilot, key)
        assert isinstance(app.screen, Policies) and app.registry.state == policies.State()
        assert any("nothing was promoted" in said for said in notices(app))


@pytest.mark.parametrize("size", SIZES)
async def test_every_binding_is_on_the_screen(tmp_path: Path, size: tuple[int, int]) -> None:
    app = review(tmp_path, [])
    async with driven(app, size) as pilot:
        await opened(pilot, app)
        text = shown(app)
        for key in ("⏎ Read", "p Promote", "b Roll back", "c Candidate", "v Verify", "space Mark",
                    "m Compare", "x Cancel", "g Ratings", "? Help", "^p Commands",
                    "^q Quit"):  # fmt: skip
            assert key in text, key


async def test_policies_stand_under_their_parents(tmp_path: Path, entries: Entries) -> None:
    first = entries.add()
    second = entries.add(parent=first.id)
    third = entries.add(parent=second.id)
    other = entries.add(parent="p-20200101T000000-000000")
    app = review(tmp_path, [])
    async with driven(app) as pilot:
        await opened(pilot, app)
        depth = {node.data: tree_depth(node) for node in tree(app)._lines_of()}
        assert (depth[first.id], depth[second.id], depth[third.id]) == (1, 2, 3)
        assert depth[other.id] == 1
        assert any(other.id in one and "its parent" in one for one in lines(app))


def tree_depth(node: object) -> int:
    n = -2  # the root that is not shown, and the branch
    while node is not None:
        node, n = node.parent, n + 1  # type: ignore[attr-defined]
    return n


def test_a_ring_of_parents_is_shown_all_the_same(entries: Entries) -> None:
    a, b = entries.add(), entries.add()
    ring = [a.model_copy(update={"parent": b.id}), b.model_copy(update={"parent": a.id})]
    assert [(depth, one.id) for depth, one in nested(ring)] == [(1, a.id), (2, b.id)]


async def test_the_page_tells_gates_in_words(tmp_path: Path, entries: Entries) -> None:
    one = entries.add(gates=[PASSED, FAILED], notes="a first try", sessions=["s-1", "s-2"])
    app = review(tmp_path, [])
    async with driven(app, (140, 45)) as pilot:
        await opened(pilot, app, one.id)
        text = page(app)
        assert "passed  kl" in text and "FAILED  win_rate" in text and ">= 0.5" in text
        assert "1 of 2 passed" in text and "a first try" in text and "2 sessions" in text
        assert "61.80     54.50     +7.30" in text, "this, before, change"
        assert "reward of a reply" in text and "KL to the base" in text and "┤" in text
        assert "setting_29" in text and "adapter_model.safetensors" in text
        assert "✗ 1 of 2 gates" in "\n".join(lines(app))


async def test_a_gate_that_could_not_be_measured_is_unknown(
    tmp_path: Path, entries: Entries
) -> None:
    lost = FAILED.model_copy(update={"value": float("nan")})
    one = entries.add(gates=[lost], metrics={})
    app = review(tmp_path, [])
    async with driven(app) as pilot:
        await opened(pilot, app, one.id)
        assert "unknown" in page(app) and "nan" not in page(app)


async def test_damaged_curves_and_losses_leave_the_page(tmp_path: Path, entries: Entries) -> None:
    one, reward = entries.add(), entries.add("reward")
    for entry, name in ((one, "curves.jsonl"), (reward, "losses.json")):
        path = entries.registry.path(entry.id) / name
        path.chmod(0o644)
        path.write_bytes(b'{"update": 1, "reward": \xff\n[]\n{"update"')
    app = review(tmp_path, [])
    async with driven(app) as pilot:
        for key in (one.id, reward.id):
            await opened(pilot, app, key)
            assert "Gates: 1 of 1 passed" in page(app) and "┤" not in page(app)


async def test_an_entry_that_cannot_be_read_is_named(tmp_path: Path, entries: Entries) -> None:
    good, bad = entries.add(), entries.add()
    manifest = entries.registry.path(bad.id) / "manifest.json"
    manifest.chmod(0o644)
    manifest.write_text('{"schema_version": 1}')
    app = review(tmp_path, [])
    async with driven(app) as pilot:
        await opened(pilot, app, bad.id)
        assert "cannot be read" in page(app) and "damaged" in page(app)
        await press(pilot, "p", "c", "v", "m")
        assert isinstance(app.screen, Policies), "nothing to promote, name, verify or compare"
        await opened(pilot, app, good.id)
        assert "Gates: 1 of 1 passed" in page(app)
        assert "! 1 cannot be read" in shown(app)


async def test_a_damaged_state_is_said_and_never_taken_for_the_base(
    tmp_path: Path, entries: Entries
) -> None:
    one = entries.add()
    (entries.registry.root / "state.json").write_text("{")
    app = review(tmp_path, [])
    async with driven(app) as pilot:
        await opened(pilot, app, one.id)
        assert "damaged" in str(app.screen.query_one("#status", Static).render())
        assert "speaks: base" not in shown(app) and "● speaks" not in shown(app)
        await press(pilot, "p")
        assert isinstance(app.screen, Policies)
        assert any("damaged" in said for said in notices(app))


async def test_deleted_sessions_are_marked(tmp_path: Path, entries: Entries) -> None:
    one = entries.add(sessions=["s-1", "s-2"])
    app = review(tmp_path, [])
    policies.mark_deleted(entries.registry.root, "s-2")
    async with driven(app) as pilot:
        await opened(pilot, app, one.id)
        assert any("†1 deleted" in line for line in lines(app))
        assert "1 session that was deleted since" in " ".join(page(app).split())


async def test_changes_underneath_are_shown_and_the_cursor_stays(
    tmp_path: Path, entries: Entries
) -> None:
    first, second = entries.add(), entries.add()
    app = review(tmp_path, [])
    async with driven(app) as pilot:
        await opened(pilot, app, first.id)
        Registry.open(tmp_path).promote(second.id, by="bob")
        third = entries.add()
        app.screen.post_message(Review.Changed())
        await settle(pilot)
        assert any(second.id in one and "● speaks" in one for one in lines(app))
        assert any(third.id in one for one in lines(app))
        assert tree(app).current == first.id
        assert f"speaks: {second.id}"[:20] in shown(app)


async def test_what_another_tab_missed_is_read_on_the_way_back(
    tmp_path: Path, entries: Entries
) -> None:
    one = entries.add()
    app = review(tmp_path, [])
    async with driven(app) as pilot:
        await opened(pilot, app)
        await press(pilot, "1")
        Registry.open(tmp_path).promote(one.id, by="bob")
        await press(pilot, "2")
        assert any(one.id in line and "● speaks" in line for line in lines(app))


async def test_branches_fold_and_stay_folded(tmp_path: Path, entries: Entries) -> None:
    one = entries.add()
    app = review(tmp_path, [])
    async with driven(app) as pilot:
        await opened(pilot, app, "base")
        await press(pilot, "left")
        assert not any(one.id in line for line in lines(app))
        entries.add("reward")
        app.screen.post_message(Review.Changed())
        await settle(pilot)
        assert any("rewards (1)" in line for line in lines(app))
        assert not any(one.id in line for line in lines(app))
        await press(pilot, "right")
        assert any(one.id in line for line in lines(app))


async def test_the_page_takes_the_screen_and_gives_it_back(
    tmp_path: Path, entries: Entries
) -> None:
    one = entries.add()
    app = review(tmp_path, [])
    async with driven(app) as pilot:
        await opened(pilot, app, one.id)
        assert not app.screen.has_class("wide")
        await press(pilot, "enter")
        assert not tree(app).display and app.screen.query_one("#page").has_focus
        await press(pilot, "end")
        await until(pilot, lambda: app.screen.query_one("#page").scroll_offset.y > 0)
        await press(pilot, "escape")
        assert tree(app).display and tree(app).has_focus
        await pilot.resize_terminal(140, 45)
        await settle(pilot)
        assert app.screen.has_class("wide")
        assert tree(app).region.right <= app.screen.query_one("#page").region.x


# --- who speaks ----------------------------------------------------------------------------------


async def test_promotion_names_both_and_is_done_only_after_yes(
    tmp_path: Path, entries: Entries
) -> None:
    first, second = entries.add(), entries.add()
    entries.registry.promote(first.id, by="bob")
    app = review(tmp_path, [])
    async with driven(app) as pilot:
        await opened(pilot, app, second.id)
        await press(pilot, "p")
        text = asked(app)
        assert f"speaks now    {first.id}" in text and f"will speak    {second.id}" in text
        assert "next call" in text and "all 1 passed" in text
        await press(pilot, "n")
        assert app.registry.state.promoted == first.id
        await press(pilot, "p", "y")
        state = app.registry.state
        assert state.promoted == second.id
        assert (state.history[-1].by, state.history[-1].action) == ("ada", "promote")
        assert any(second.id in one and "● speaks" in one for one in lines(app))
        assert any(f"before: {first.id}" in said for said in notices(app))
        await press(pilot, "p")
        assert isinstance(app.screen, Policies) and "speaks already" in notices(app)[-1]


async def test_failed_gates_take_a_second_yes(tmp_path: Path, entries: Entries) -> None:
    one = entries.add(gates=[PASSED, FAILED])
    app = review(tmp_path, [])
    async with driven(app) as pilot:
        await opened(pilot, app, one.id)
        await press(pilot, "p")
        assert "gates FAILED (1 of 2)" in asked(app) and str(FAILED) in asked(app)
        await press(pilot, "y")
        assert "All the same?" in asked(app) and "--force" in asked(app)
        assert app.focused is not None and app.focused.id == "no", "Enter alone must not force"
        assert app.registry.state.promoted is None
        await press(pilot, "enter")
        assert app.registry.state.promoted is None and isinstance(app.screen, Policies)
        await press(pilot, "p", "y", "y")
        assert app.registry.state.promoted == one.id


async def test_what_makes_a_policy_unfit_is_said_before(tmp_path: Path, entries: Entries) -> None:
    one = entries.add(gates=[], base="another-model")
    app = review(tmp_path, [])
    app.config = config.load("cpu", ["rollout.follow=false"])
    async with driven(app) as pilot:
        await opened(pilot, app, one.id)
        await press(pilot, "p")
        text = asked(app)
        assert "No gate was measured" in text and "trained for another-model" in text
        assert "rollout.follow is off" in text


async def test_a_promotion_that_fails_changes_nothing_and_says_why(
    tmp_path: Path, entries: Entries
) -> None:
    one = entries.add()
    weights = entries.registry.path(one.id) / "adapter_model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(b"others")
    app = review(tmp_path, [])
    async with driven(app) as pilot:
        await opened(pilot, app, one.id)
        await press(pilot, "p", "y")
        assert app.registry.state.promoted is None
        assert any("is damaged: its SHA-256" in said for said in notices(app))


async def test_the_base_can_speak_again(tmp_path: Path, entries: Entries) -> None:
    one = entries.add()
    entries.registry.promote(one.id, by="bob")
    app = review(tmp_path, [])
    async with driven(app) as pilot:
        await opened(pilot, app, "base")
        await press(pilot, "p")
        assert "will speak    base" in asked(app)
        await press(pilot, "y")
        assert app.registry.state.promoted is None and "base  ● speaks" in lines(app)


async def test_rolling_back_names_from_and_to(tmp_path: Path, entries: Entries) -> None:
    first, second = entries.add(), entries.add()
    for one in (first, second):
        entries.registry.promote(one.id, by="bob")
    app = review(tmp_path, [])
    async with driven(app) as pilot:
        await opened(pilot, app)
        await press(pilot, "b")
        assert f"speaks now    {second.id}" in asked(app)
        assert f"will speak    {first.id}" in asked(app)
        await press(pilot, "n")
        assert app.registry.state.promoted == second.id
        await press(pilot, "b", "y")
        assert app.registry.state.promoted == first.id
        assert app.registry.state.history[-1].by == "ada"
        await press(pilot, "b")
        assert "will speak    base" in asked(app)
        await press(pilot, "y")
        assert app.registry.state.promoted is None


async def test_a_candidate_is_named_and_taken_away(tmp_path: Path, entries: Entries) -> None:
    one = entries.add(gates=[FAILED])
    app = review(tmp_path, [])
    app.config = config.load("cpu", ["rollout.candidate_share=0.25"])
    async with driven(app) as pilot:
        await opened(pilot, app, one.id)
        await press(pilot, "c")
        assert "25%" in asked(app) and one.id in asked(app)
        await press(pilot, "y")
        assert "All the same?" in asked(app) and app.registry.state.candidate is None
        await press(pilot, "y")
        assert app.registry.state.candidate == one.id
        assert any("○ candidate" in line for line in lines(app))
        await press(pilot, "c")
        assert "no longer" in asked(app)
        await press(pilot, "y")
        assert app.registry.state.candidate is None


async def test_files_are_verified(tmp_path: Path, entries: Entries) -> None:
    good, bad = entries.add(), entries.add("reward")
    path = entries.registry.path(bad.id) / "reward.json"
    path.chmod(0o644)
    path.write_text("[]")
    app = review(tmp_path, [])
    async with driven(app) as pilot:
        await opened(pilot, app, good.id)
        await press(pilot, "v")
        assert notices(app)[-1] == f"{good.id}: 3 files, as registered"
        await opened(pilot, app, bad.id)
        await press(pilot, "v")
        assert "reward.json is damaged" in notices(app)[-1]


# --- ratings -------------------------------------------------------------------------------------


def test_ratings_are_what_the_report_says(tmp_path: Path) -> None:
    stored = rated(0, BASE, [40, 60, 55]) + rated(9, f"{BASE}+p-1", [70, 52])
    stored += [
        ended("s-excluded", 20, policy_id=BASE, excluded=True, excluded_reason="x"),
        ended("s-simulated", 21, policy_id=BASE, source="simulated", overall_affect=1),
        ended("s-kept", 22, policy_id=BASE, consent=Consent.KEEP, overall_affect=99, windows=[]),
        ended("s-nobody", 23, overall_affect=5),
    ]
    app = review(tmp_path, stored)
    calls, simulated = ratings.calls_of(app.store)
    told = report.outcomes(app.store.iter_sessions({Consent.KEEP, Consent.LEARN}))
    key = str
    assert sorted(calls, key=key) == sorted(told, key=key) and not simulated
    assert len(calls) == 6


def test_simulated_calls_count_where_there_are_no_others(tmp_path: Path) -> None:
    app = review(tmp_path, rated(0, BASE, [40, 60], source="simulated"))
    found = ratings.read(app.store, app.registry, app.config)
    assert found.simulated and found.rows[0].calls == 2
    assert "2 calls with simulated users" in ratings.table(found, 80).plain


@pytest.mark.parametrize("width", [58, 78, 138])
def test_the_ratings_fit(tmp_path: Path, entries: Entries, width: int) -> None:
    one = entries.add()
    entries.registry.promote(one.id, by="ada")
    app = review(tmp_path, rated(0, BASE, [40, 60]) + rated(9, f"{BASE}+{one.id}", [70, 52, 61]))
    text = ratings.table(ratings.read(app.store, app.registry, app.config), width).plain
    assert all(len(line) <= width for line in text.splitlines()[:4])
    assert one.id in text and "50.0" in text and "61.0" in text


async def test_a_difference_that_is_decided_is_said_so(tmp_path: Path, entries: Entries) -> None:
    one = entries.add()
    entries.registry.promote(one.id, by="ada")
    low, high = [20.0, 22, 24, 21, 23], [80.0, 82, 84, 81, 83]
    app = review(tmp_path, rated(0, BASE, low) + rated(9, f"{BASE}+{one.id}", high))
    async with driven(app, (140, 45)) as pilot:
        await opened(pilot, app, one.id)
        assert "5 calls, 5 rated, mean 82.0 [" in page(app)
        await press(pilot, "g")
        assert tree(app).current == RATINGS
        assert "✓ calls with" in page(app) and "rated higher" in page(app)
        assert "promoted" in page(app) and "by ada" in page(app), "who spoke when"


async def test_a_new_rating_is_counted(tmp_path: Path, entries: Entries) -> None:
    app = review(tmp_path, rated(0, BASE, [40, 60]))
    async with driven(app) as pilot:
        await opened(pilot, app, "base")
        assert "2 calls, 2 rated, mean 50.0" in page(app)
        for one in rated(5, BASE, [80]):
            app.store.insert(one)
        app.screen.post_message(Review.Changed())
        await settle(pilot)
        assert "3 calls, 3 rated, mean 60.0" in page(app)


# --- comparing -----------------------------------------------------------------------------------

COMPARES = """
import csv, json, os, sys
a = sys.argv[1:]
out, sheet = a[a.index("--out") + 1], a[a.index("--sheet-out") + 1]
json.dump(a, open({seen!r}, "w"))
names = a[a.index("--policies") + 1].split(",")
os.makedirs(sheet)
with open(sheet + "/sheet.csv", "w", encoding="utf-8-sig", newline="") as f:
    rows = csv.writer(f)
    rows.writerow(["id", "history", "reply", "connection"])
    rows.writerow(["h1-A", "User: Hi.\\nAI: Hello.\\nUser: It rains.", "Tea helps.", ""])
    rows.writerow(["h1-B", "User: Hi.\\nAI: Hello.\\nUser: It rains.", "'=Oh no.", ""])
items = {{"h1-A": {{"policy": names[1], "history": 0, "score": 61.0}},
          "h1-B": {{"policy": names[0], "history": 0, "score": None}}}}
json.dump({{"items": items}}, open(sheet + "/key.json", "w"))
def row(name, score, difference):
    return {{"policy": name, "score": score, "score_interval": [score - .1, score + .1],
             "score_difference": difference, "score_difference_interval": [.02, .12],
             "words": 12.0, "words_interval": [10.0, 14.0], "words_difference": -1.0,
             "words_difference_interval": [-3.0, 1.0], "toxic": None, "toxic_interval": [None] * 2}}
print(json.dumps({{"rows": [row(names[0], .5, None), row(names[1], .57, .07)],
                   "histories": 1, "dialogues": 1, "notes": ["held out: a test"]}}))
"""


async def test_two_policies_are_compared_on_the_same_histories(
    tmp_path: Path, entries: Entries, monkeypatch: pytest.MonkeyPatch
) -> None:
    old_reward, reward = entries.add("reward"), entries.add("reward")
    one = entries.add(reward=old_reward.id, data_source="store:simulated")
    seen = tmp_path / "seen.json"
    fake_geli(monkeypatch, COMPARES.format(seen=str(seen)))
    app = review(tmp_path, [])
    app.arguments = ("--config", "cpu")
    async with driven(app, (140, 45)) as pilot:
        await opened(pilot, app, "base")
        await press(pilot, "space")
        assert tree(app).marked == "base" and "■" in shown(app)
        tree(app).go(one.id)
        await press(pilot, "m")
        app.screen.query_one(Input).value = "1"
        await press(pilot, "enter")
        assert "2 or more" in asked(app)
        app.screen.query_one(Input).value = "7"
        await press(pilot, "enter")
        await settle(pilot)
        arguments = json.loads(seen.read_text())
        assert arguments[:8] == [
            "learn", "compare", "--policies", f"base,{one.id}", "--data", "store:simulated",
            "--reward", old_reward.id,
        ]  # fmt: skip
        assert arguments[8:11] == ["--histories", "7", "--json"]
        assert arguments[-2:] == ["--config", "cpu"] and reward.id not in arguments
        assert not Path(arguments[arguments.index("--out") + 1]).exists(), "people's words are gone"
        text = page(app)
        assert "✓ done" in text and "held out: a test" in text
        score = next(line for line in text.splitlines() if "GELI score" in line)
        assert "0.5700" in score and "0.5000" in score and "+0.0700" in score
        assert score.endswith("decided") and "not decided" not in score
        assert "not decided" in next(line for line in text.splitlines() if "words" in line)
        assert "toxic" not in text, "nothing was measured there"
        assert "A (61): Tea helps." in text and "B: =Oh no." in text and "It rains." in text
        assert tree(app).marked is None
        await opened(pilot, app, one.id)
        await opened(pilot, app, "compare-1")
        assert "✓ done" in page(app), "it can be come back to"


async def test_without_a_mark_the_other_is_asked_for(
    tmp_path: Path, entries: Entries, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries.add("reward")
    one, two = entries.add(), entries.add()
    fake_geli(monkeypatch, "import sys; sys.exit('geli: nothing is held out — take more data')")
    app = review(tmp_path, [])
    async with driven(app) as pilot:
        await opened(pilot, app, one.id)
        await press(pilot, "m")
        options = app.screen.query_one(OptionList)
        assert [str(o.prompt) for o in options.options] == ["base", two.id]
        await press(pilot, "down", "enter", "enter")
        assert "nothing is held out — take more data" in " ".join(page(app).split())
        assert any("✗ failed" in line for line in lines(app))


async def test_a_comparison_can_be_cancelled(
    tmp_path: Path, entries: Entries, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries.add("reward")
    one = entries.add()
    begun = tmp_path / "begun"
    fake_geli(
        monkeypatch,
        f"import os, sys, time; a = sys.argv; out = a[a.index('--out') + 1]\n"
        f"open(out + '/replies-base.json', 'w').close(); open({str(begun)!r}, 'w').close()\n"
        "time.sleep(1000)",
    )
    app = review(tmp_path, [])
    async with driven(app) as pilot:
        await opened(pilot, app, one.id)
        await pilot.press("m")
        await pilot.pause()
        await pilot.press("enter")
        await pilot.pause()
        await pilot.press("enter")
        await until(pilot, begun.exists)
        app.screen.draw()  # type: ignore[attr-defined]
        assert "1 of 2 policies have answered" in page(app)
        assert "▶ running" in shown(app)
        tree(app).go(one.id)
        await pilot.pause()
        await pilot.press("m")
        await pilot.pause()
        assert "runs already" in notices(app)[-1]
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await settle(pilot)
        assert any("■ cancelled" in line for line in lines(app))
        await press(pilot, "x")
        assert isinstance(app.screen, Policies), "nothing runs any more"


async def test_without_a_reward_there_is_nothing_to_score_with(
    tmp_path: Path, entries: Entries
) -> None:
    one = entries.add()
    app = review(tmp_path, [])
    async with driven(app) as pilot:
        await opened(pilot, app, one.id)
        await press(pilot, "m")
        assert isinstance(app.screen, Policies) and "no reward" in notices(app)[-1]


async def test_a_mark_is_taken_off(tmp_path: Path, entries: Entries) -> None:
    one = entries.add()
    app = review(tmp_path, [])
    async with driven(app) as pilot:
        await opened(pilot, app, one.id)
        await press(pilot, "space")
        assert tree(app).marked == one.id and f"marked {one.id}" in shown(app)
        await press(pilot, "escape")
        assert tree(app).marked is None
        await press(pilot, "space", "space")
        assert tree(app).marked is None


def test_the_samples_are_used() -> None:
    """Every measure of the samples has its place in a table, not among the other numbers."""
    from tui.measured import measures

    assert "ther numbers" not in measures(learned.POLICY, False).plain
    assert "epochs" in measures(learned.REWARD, True).plain.partition("Other numbers")[2]
