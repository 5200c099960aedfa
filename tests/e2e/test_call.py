"""The whole program: real server, real weights, a browser with fake microphone and camera.

Screenshots of each state and the record of the long call go to `artefacts/e2e` ($GELI_ARTEFACTS).
"""

from __future__ import annotations

import signal
import statistics
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from agent import __version__
from agent.labels import span_of
from agent.records import Consent, EndedHow, Session, Turn
from tests import media
from tests.e2e import fake_devices
from tests.e2e.driving import (
    ARTEFACTS,
    WAIT_S,
    chromium,
    final,
    geli,
    hang_up,
    kill,
    opened,
    shot,
    start_call,
    until,
)
from tests.e2e.fake_devices import Line
from tests.e2e.serving import Serving, serving

pytestmark = pytest.mark.e2e

RESUME_S = 8
SETTINGS = (
    "responder.temperature=0",  # the same replies each time
    "turn_taking.idle_prompt_s=40",  # nobody is asked whether they are still there
    "dialogue.max_words=30",  # a reply is over before the next line
    f"limits.resume_s={RESUME_S}",
)
SMILES_AT_S = 51.0  # during the request for a story
CALL_S = 92.0
STORY = "Please tell me a long story about a dog in the park."
BARGE_IN = "Please stop now because I would rather talk about my family."
THANKS = "Thank you so much for this really lovely conversation."
COMMENT = "It listened, and it stopped when I spoke."


def script() -> list[Line]:
    """What the user says. The first word is for the level meter, before the call."""
    story = fake_devices.spoken(49.5, STORY)
    # Its reply begins 0.7 s after it (2.4 s on a busy machine) and lasts about 4.4 s: the next line
    # meets it in the middle.
    return [
        fake_devices.recorded(0.5, "hello_world"),
        fake_devices.recorded(13.0, "quick_brown_fox"),
        fake_devices.recorded(29.0, "counting"),
        story,
        fake_devices.spoken(story.end_s + 3.6, BARGE_IN),
        fake_devices.spoken(76.0, THANKS),
    ]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("server"), *SETTINGS) as running:
        yield running


@pytest.fixture(scope="module")
def devices(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Microphone and camera of the short calls: one line after the greeting, a smiling face."""
    folder = tmp_path_factory.mktemp("devices")
    fake_devices.write_microphone(folder / "line.wav", [fake_devices.spoken(9.0, THANKS)])
    fake_devices.write_camera(folder / "smile.y4m", 0.0, 8.0)
    return folder / "line.wav", folder / "smile.y4m"


@pytest.fixture
def browser(devices: tuple[Path, Path]) -> Iterator[Browser]:
    with chromium(*devices) as running:
        yield running


# --- the long call --------------------------------------------------------------------------------


def test_a_call_from_hello_to_the_stored_rating(server: Serving, tmp_path: Path) -> None:
    lines = script()
    fake_devices.write_microphone(tmp_path / "user.wav", lines)
    fake_devices.write_camera(tmp_path / "user.y4m", SMILES_AT_S, CALL_S + 25)
    with (
        chromium(tmp_path / "user.wav", tmp_path / "user.y4m") as browser,
        opened(browser, server.url) as page,
    ):
        session_id = hold_the_call(page)
        captions = geli(page, "captions")
        states = page.evaluate("window.states")
        assert page.evaluate("window.loudest") > 0.3
        rate(page)
    session = server.session(session_id)
    (ARTEFACTS / "session.json").write_text(session.model_dump_json(indent=2))

    assert {"connecting", "listening", "thinking", "speaking"} <= set(states)
    check_head(session, server)
    check_turns(session, lines[1:])
    check_captions(session, captions)
    check_barge_in(session)
    check_labels(session, lines[1:])
    for turn in session.turns:
        check_turn(turn, session)


def hold_the_call(page: Page) -> str:
    """Drive the page through the call up to the rating; returns the session's id."""
    shot(page, "1-welcome")
    page.get_by_test_id("consent-learn").check()
    page.get_by_test_id("check").click()
    opened_at = time.monotonic()
    expect(page.get_by_test_id("level-text")).to_have_text("We can hear you")
    page.wait_for_timeout(1500)  # the word for the meter must be over
    shot(page, "2-devices")
    page.get_by_test_id("start").click()
    until(page, lambda: geli(page, "state") == "speaking")
    shot(page, "3-speaking")
    until(page, lambda: geli(page, "state") == "listening")
    shot(page, "4-listening")
    wanted = {"thinking": "5-thinking", "interrupted": "6-interrupted"}
    while time.monotonic() - opened_at < CALL_S:
        for name, path in list(wanted.items()):
            if is_now(page, name):
                shot(page, path)
                if is_now(page, name):
                    del wanted[name]
        page.wait_for_timeout(10)
    until(page, lambda: geli(page, "state") == "listening")
    assert geli(page, "faceFound") is True
    shot(page, "7-talked")
    session_id = str(geli(page, "sessionId"))
    hang_up(page)
    return session_id


def is_now(page: Page, name: str) -> bool:
    """Whether the page shows this state, or an interrupted caption."""
    if name == "interrupted":
        return any(caption["interrupted"] for caption in geli(page, "captions"))
    return bool(geli(page, "state") == name)


def rate(page: Page) -> None:
    expect(page.get_by_test_id("screen-rating")).to_be_visible()
    expect(page.get_by_test_id("question")).to_contain_text("Overall during your conversation")
    shot(page, "8-rating")
    page.get_by_test_id("rating").fill("83")
    page.get_by_test_id("comment").fill(COMMENT)
    shot(page, "9-rated")
    page.get_by_test_id("rating-submit").click()
    expect(page.get_by_test_id("screen-thanks")).to_be_visible()
    shot(page, "10-thanks")


def check_head(session: Session, server: Serving) -> None:
    config = server.config
    assert session.consent is Consent.LEARN
    assert session.source == "browser"
    assert session.ended_how is EndedHow.HUNG_UP
    assert session.ended_at is not None and session.ended_at > session.started_at
    assert session.overall_affect == 83
    assert session.overall_affect_source == "page"
    assert session.overall_affect_at is not None
    assert session.overall_affect_at > session.started_at
    assert session.comment == COMMENT
    assert not session.excluded
    assert session.policy_id is not None and config.responder.model in session.policy_id
    assert session.config_digest == config.digest()
    assert session.program_version == __version__


def check_turns(session: Session, lines: list[Line]) -> None:
    assert [turn.index for turn in session.turns] == list(range(len(session.turns)))
    assert session.turns[0].kind == "greeting"
    for before, after in pairwise(session.turns):
        assert before.speaker != after.speaker
        assert before.start_s < after.start_s
        if not before.interrupted:
            assert before.end_s <= after.start_s + 0.1
    heard = " ".join(turn.text for turn in session.turns if turn.speaker == "user")
    assert media.wer(" ".join(line.text for line in lines), heard) <= 0.15
    assert sum(turn.kind == "reply" for turn in session.turns) >= 3


def check_captions(session: Session, captions: list[dict[str, Any]]) -> None:
    assert all(caption["final"] for caption in captions)
    shown = [(c["turn"], c["speaker"], c["text"], c["interrupted"]) for c in captions]
    stored = [(t.index, t.speaker, t.text, t.interrupted) for t in session.turns]
    assert sorted(shown) == stored


def check_barge_in(session: Session) -> None:
    """The story was cut short by the user's next line."""
    story = next(
        reply
        for asked, reply in pairwise(session.turns)
        if asked.speaker == "user" and media.wer(STORY, asked.text) <= 0.3
    )
    assert story.interrupted
    assert story.generated_text is not None
    assert story.text
    assert story.generated_text.startswith(story.text)
    assert len(story.text) < len(story.generated_text)
    barged = session.turns[story.index + 1]
    assert media.wer(BARGE_IN, barged.text) <= 0.3
    assert abs(story.end_s - barged.start_s) < 1.0


def check_labels(session: Session, lines: list[Line]) -> None:
    """Agent turns heard before the smile have label 0, those after it 1."""
    switch_s = SMILES_AT_S + clock_offset_s(session, lines)
    labels: dict[bool, list[int | None]] = {False: [], True: []}
    for turn in session.turns:
        if turn.speaker == "agent":
            start_s, end_s = span_of(turn, session.turns, 10.0)
            if end_s < switch_s - 1:
                labels[False].append(turn.li)
            elif start_s > switch_s + 1:
                labels[True].append(turn.li)
    assert len(labels[False]) >= 3 and set(labels[False]) == {0}
    assert len(labels[True]) >= 2 and set(labels[True]) == {1}
    assert [window.index for window in session.windows] == list(range(len(session.windows)))
    assert len(session.windows) > 60
    for window in session.windows:
        assert window.face_found and window.coverage >= 0.5
        assert window.probabilities is not None
        assert abs(sum(window.probabilities.values()) - 1) < 1e-3
        assert window.classifier
        if window.end_s < switch_s - 1:
            assert window.positive is False
        if window.start_s > switch_s + 1:
            assert window.positive is True


def clock_offset_s(session: Session, lines: list[Line]) -> float:
    """Session clock less the devices' clock, from where the user's lines were found."""
    found = [
        turn.start_s - line.at_s
        for line in lines
        for turn in session.turns
        if turn.speaker == "user" and media.wer(line.text, turn.text) <= 0.3
    ]
    assert len(found) >= 3
    return statistics.median(found)


def check_turn(turn: Turn, session: Session) -> None:
    assert turn.sentiment is not None
    if turn.speaker == "user":
        assert turn.kind == "utterance"
        assert {"recognizer", "voice_activity", "end_of_turn"} <= set(turn.engines)
        assert turn.prosody
        assert turn.li is None and turn.latency is None and turn.policy_id is None
        return
    assert {"responder", "speaker"} <= set(turn.engines)
    assert turn.li_coverage is not None and turn.li_coverage >= 0.5
    assert turn.li_windows and turn.li_rule
    assert turn.generated_text is not None
    if not turn.interrupted:
        assert turn.text == turn.generated_text
    if turn.kind != "reply":
        assert turn.latency is None and turn.policy_id is None
        return
    assert turn.policy_id == session.policy_id
    assert len(turn.generated_text.split()) <= 30
    latency = turn.latency
    assert latency is not None
    assert all(value is not None and value > 0 for value in latency.model_dump().values())


# --- short calls ----------------------------------------------------------------------------------


def greeted(page: Page) -> bool:
    return bool(final(page, "agent"))


def test_a_reload_returns_to_the_same_call(browser: Browser, server: Serving) -> None:
    with opened(browser, server.url) as page:
        start_call(page)
        until(page, lambda: greeted(page))
        session_id = geli(page, "sessionId")
        page.reload()
        expect(page.get_by_test_id("screen-resume")).to_be_visible()
        shot(page, "11-reloaded")
        page.get_by_test_id("resume-return").click()
        until(page, lambda: geli(page, "connection") == "connected")
        assert geli(page, "sessionId") == session_id
        until(page, lambda: len(final(page, "agent")) >= 1 and len(final(page, "user")) >= 1)
        shot(page, "12-returned")
        hang_up(page)
        page.get_by_test_id("rating-skip").click()
        expect(page.get_by_test_id("screen-thanks")).to_be_visible()
    session = server.session(session_id)
    assert session.ended_how is EndedHow.HUNG_UP
    assert [turn.kind for turn in session.turns[:3]] == ["greeting", "utterance", "reply"]
    said = " ".join(turn.text for turn in session.turns if turn.speaker == "user")
    assert media.wer(THANKS, said) <= 0.15
    assert session.overall_affect is None


def test_a_killed_browser_is_noticed_and_the_call_dropped(
    server: Serving, devices: tuple[Path, Path], tmp_path: Path
) -> None:
    mine = tmp_path / "line.wav"
    mine.write_bytes(devices[0].read_bytes())
    with chromium(mine, devices[1]) as browser, opened(browser, server.url) as page:
        start_call(page)
        until(page, lambda: greeted(page))
        saved = page.evaluate("JSON.parse(sessionStorage.getItem('geli.session'))")
        call = saved["id"], saved["secret"]
        assert server.status(*call)["state"] == "live"
        kill(mine)
        killed = time.monotonic()
        while server.status(*call)["state"] == "live":
            assert time.monotonic() - killed < 5.0
            time.sleep(0.05)
        while server.status(*call)["state"] != "ended":
            assert time.monotonic() - killed < RESUME_S + WAIT_S
            time.sleep(0.2)
    session = server.session(saved["id"])
    assert session.ended_how is EndedHow.DROPPED
    assert session.ended_at is not None
    assert session.turns[0].kind == "greeting"


def test_without_a_camera_the_labels_are_unknown(browser: Browser, server: Serving) -> None:
    with opened(browser, server.url, refuse="video") as page:
        page.get_by_test_id("consent-keep").check()
        page.get_by_test_id("check").click()
        expect(page.get_by_test_id("camera-note")).to_contain_text("reactions stay unknown")
        shot(page, "13-camera-refused")
        page.get_by_test_id("start").click()
        until(page, lambda: len(final(page, "agent")) >= 2)
        shot(page, "14-call-without-camera")
        session_id = geli(page, "sessionId")
        hang_up(page)
    session = server.session(session_id)
    assert session.consent is Consent.KEEP
    assert [turn.speaker for turn in session.turns[:3]] == ["agent", "user", "agent"]
    assert media.wer(THANKS, session.turns[1].text) <= 0.15
    assert all(turn.li is None for turn in session.turns)
    assert not any(window.face_found for window in session.windows)


def test_talk_only_leaves_a_count_and_nothing_else(browser: Browser, server: Serving) -> None:
    before = server.counted()
    with opened(browser, server.url) as page:
        start_call(page, "talk_only", "check-audio")
        until(page, lambda: greeted(page))
        session_id = geli(page, "sessionId")
        hang_up(page)
        expect(page.get_by_test_id("screen-thanks")).to_contain_text("Nothing of it was kept")
        shot(page, "15-talk-only")
    assert not server.knows(session_id)
    assert server.counted() == before + 1


def test_kill_9_keeps_the_turns_and_ctrl_c_says_goodbye(browser: Browser, tmp_path: Path) -> None:
    with serving(tmp_path, *SETTINGS) as doomed, opened(browser, doomed.url) as page:
        start_call(page)
        until(page, lambda: len(final(page, "agent")) >= 2)
        session_id = geli(page, "sessionId")
        shown = [(c["speaker"], c["text"]) for c in geli(page, "captions") if c["final"]]
        page.wait_for_timeout(1000)  # a turn is written behind its caption
        doomed.signal(signal.SIGKILL)
        until(page, lambda: geli(page, "connection") == "reconnecting")
        shot(page, "16-server-gone")
    with serving(tmp_path, *SETTINGS) as server, opened(browser, server.url) as page:
        assert session_id in server.output
        session = server.session(session_id)
        assert session.ended_how is EndedHow.CRASHED
        assert session.ended_at is not None
        assert [(turn.speaker, turn.text) for turn in session.turns] == shown
        assert session.turns[0].li == 1

        start_call(page)
        until(page, lambda: greeted(page))
        session_id = geli(page, "sessionId")
        assert server.signal(signal.SIGINT) == 0
        expect(page.get_by_test_id("screen-rating")).to_be_visible()
        shot(page, "17-ended-by-the-server")
        session = server.session(session_id)
        assert session.ended_how is EndedHow.HUNG_UP
        assert session.turns[0].kind == "greeting"
