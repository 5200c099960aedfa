"""The page alone, in headless Chromium, against a fake server that speaks its protocol.

Set GELI_SHOTS to a folder to keep a screenshot of each state.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.e2e.driving import FLAGS, REFUSABLE
from tests.e2e.fake_signalling import FakeServer, running

pytestmark = pytest.mark.e2e

WAIT_MS = 20_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with running() as server:
        yield server


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens pages that fail the test on any script error or policy violation."""
    contexts: list[BrowserContext] = []
    troubles: list[str] = []

    def open_one(**options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        context.set_default_timeout(WAIT_MS)
        context.add_init_script(REFUSABLE)
        page = context.new_page()
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on(
            "console",
            lambda line: (
                troubles.append(line.text) if "Content Security Policy" in line.text else None
            ),
        )
        return page

    expect.set_options(timeout=WAIT_MS)
    yield open_one
    for context in contexts:
        context.close()
    assert troubles == []


@pytest.fixture
def page(open_page: Callable[..., Page]) -> Page:
    return open_page(viewport={"width": 1280, "height": 800})


def shot(page: Page, name: str) -> None:
    if folder := os.environ.get("GELI_SHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


def geli(page: Page, name: str) -> Any:
    return page.evaluate(f"window.geli.{name}")


def until(page: Page, condition: str) -> None:
    """Wait for a condition on the page, e.g. `geli.state === 'listening'`.

    Polls from here: `page.wait_for_function` needs the eval that the page's policy forbids.
    """
    eventually(page, lambda: bool(page.evaluate(condition)))


def eventually(page: Page, condition: Callable[[], bool]) -> None:
    """Wait for a condition on either side, while the page's events keep flowing."""
    for _ in range(WAIT_MS // 50):
        if condition():
            return
        page.wait_for_timeout(50)
    pytest.fail("it never came true")


def reach_devices(
    page: Page, fake: FakeServer, consent: str = "keep", button: str = "check"
) -> None:
    page.goto(fake.url)
    page.get_by_test_id(f"consent-{consent}").check()
    page.get_by_test_id(button).click()
    expect(page.get_by_test_id("screen-devices")).to_be_visible()


def start_call(page: Page, fake: FakeServer, consent: str = "keep", button: str = "check") -> None:
    reach_devices(page, fake, consent, button)
    page.get_by_test_id("start").click()
    until(page, "geli.connection === 'connected'")


def test_nothing_is_opened_before_a_choice(page: Page, fake: FakeServer) -> None:
    page.goto(fake.url)
    expect(page.get_by_test_id("screen-welcome")).to_be_visible()
    expect(page.get_by_test_id("about")).to_contain_text("mini-xception")
    shot(page, "welcome")
    page.get_by_test_id("check").click()
    expect(page.get_by_test_id("consent-error")).to_contain_text("Choose one")
    assert page.evaluate("asked.length") == 0
    page.get_by_test_id("consent-learn").check()
    expect(page.get_by_test_id("consent-error")).to_be_hidden()
    page.get_by_test_id("check").click()
    expect(page.get_by_test_id("screen-devices")).to_be_visible()
    expect(page.get_by_test_id("level-text")).to_have_text("We can hear you")
    shot(page, "devices")
    assert page.evaluate("asked.length") == 1
    assert fake.sessions == []


def test_a_call_is_heard_seen_and_captioned(page: Page, fake: FakeServer) -> None:
    start_call(page, fake)
    assert fake.last.offers == [
        {"type": "offer", "consent": "keep", "camera": True, "resume": None}
    ]
    eventually(page, lambda: fake.last.peak > 1000 and fake.last.video_frames > 3)
    assert fake.last.video_size is not None and max(fake.last.video_size) <= 640
    eventually(page, lambda: "ping" in fake.last.types())
    for state in ("thinking", "speaking", "listening"):
        fake.send(type="state", state=state)
        expect(page.get_by_test_id("state")).to_have_attribute("data-state", state)
    fake.speak(True)
    until(page, "geli.agentLevel > 0.3")
    fake.speak(False)
    caption = {"type": "caption", "speaker": "agent", "turn": 0, "final": False}
    fake.send(**caption, text="Hello")
    expect(page.get_by_test_id("caption-agent-0")).to_have_attribute("data-final", "false")
    fake.send(**caption | {"final": True, "interrupted": True}, text="Hello there")
    expect(page.get_by_test_id("caption-agent-0")).to_contain_text("interrupted")
    expect(page.get_by_test_id("captions-live")).to_contain_text("geli: Hello there")
    fake.send(type="caption", speaker="user", turn=1, text="Hm", final=False)
    expect(page.get_by_test_id("caption-user-1")).to_be_visible()
    fake.send(type="caption", speaker="user", turn=1, text="", final=True)
    expect(page.get_by_test_id("caption-user-1")).to_have_count(0)
    fake.send(type="face", found=False)
    expect(page.get_by_test_id("face-hint")).to_contain_text("cannot see your face")
    fake.send(type="face", found=True)
    expect(page.get_by_test_id("face-hint")).to_be_hidden()
    fake.send(type="notice", level="warn", text="Take care.")
    expect(page.get_by_test_id("notice")).to_have_text("Take care.")
    shot(page, "call")


def test_keys_mute_and_switch_the_camera(page: Page, fake: FakeServer) -> None:
    start_call(page, fake)
    eventually(page, lambda: fake.last.peak > 1000)
    page.keyboard.press("m")
    expect(page.get_by_test_id("mute")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_test_id("self-muted")).to_be_visible()
    eventually(page, lambda: fake.last.peak < 50)
    page.keyboard.press("m")
    eventually(page, lambda: fake.last.peak > 1000)
    page.keyboard.press("v")
    expect(page.get_by_test_id("self-off")).to_be_visible()
    eventually(page, lambda: fake.last.received[-1:] != [] and camera_is(fake, False))
    page.keyboard.press("v")
    eventually(page, lambda: camera_is(fake, True))
    assert geli(page, "cameraOn")


def camera_is(fake: FakeServer, on: bool) -> bool:
    told = [message["on"] for message in fake.last.received if message["type"] == "camera"]
    return told[-1:] == [on]


def test_hang_up_takes_two_escapes_and_the_rating_is_deliberate(
    page: Page, fake: FakeServer
) -> None:
    start_call(page, fake)
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("notice")).to_contain_text("again")
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("screen-rating")).to_be_visible()
    expect(page.get_by_test_id("question")).to_have_text(fake.info["question"])
    expect(page.get_by_test_id("rating-submit")).to_be_disabled()
    shot(page, "rating")
    page.get_by_test_id("rating").fill("83")
    expect(page.get_by_test_id("rating-value")).to_have_text("83")
    page.get_by_test_id("comment").fill("  fine  ")
    page.get_by_test_id("rating-submit").click()
    expect(page.get_by_test_id("screen-thanks")).to_be_visible()
    assert fake.last.rating == {"overall_affect": 83, "comment": "fine"}
    assert "hangup" in fake.last.types()
    page.get_by_test_id("new-call").click()
    expect(page.get_by_test_id("screen-welcome")).to_be_visible()


def test_talk_only_asks_nothing(page: Page, fake: FakeServer) -> None:
    start_call(page, fake, "talk_only")
    page.get_by_test_id("hangup").click()
    expect(page.get_by_test_id("thanks-text")).to_contain_text("Nothing of it was kept")
    page.reload()
    expect(page.get_by_test_id("screen-welcome")).to_be_visible()


def test_neutral_is_a_press_and_a_call_can_be_deleted(page: Page, fake: FakeServer) -> None:
    start_call(page, fake)
    page.get_by_test_id("hangup").click()
    page.get_by_test_id("rating-neutral").click()
    expect(page.get_by_test_id("rating-value")).to_have_text("50")
    expect(page.get_by_test_id("rating-submit")).to_be_enabled()
    page.get_by_test_id("delete").click()
    page.get_by_test_id("delete-no").click()
    assert not fake.last.deleted
    page.get_by_test_id("delete").click()
    page.get_by_test_id("delete-yes").click()
    expect(page.get_by_test_id("thanks-text")).to_contain_text("is gone")
    assert fake.last.deleted and fake.last.rating is None


def test_a_refused_camera_leaves_an_audio_call(page: Page, fake: FakeServer) -> None:
    page.goto(fake.url)
    page.evaluate("window.refuse = 'video'")
    page.get_by_test_id("consent-keep").check()
    page.get_by_test_id("check").click()
    expect(page.get_by_test_id("camera-note")).to_contain_text("The camera is blocked")
    expect(page.get_by_test_id("preview-empty")).to_be_visible()
    page.get_by_test_id("start").click()
    until(page, "geli.connection === 'connected'")
    assert fake.last.offers[0]["camera"] is False
    eventually(page, lambda: fake.last.peak > 1000)
    assert not geli(page, "cameraOn")


def test_a_chosen_lack_of_camera_asks_for_none(page: Page, fake: FakeServer) -> None:
    start_call(page, fake, button="check-audio")
    assert page.evaluate("asked.every((wish) => !wish.video)")
    assert fake.last.offers[0]["camera"] is False


def test_a_refused_microphone_says_how_to_allow_it(page: Page, fake: FakeServer) -> None:
    page.goto(fake.url)
    page.evaluate("window.refuse = 'all'")
    page.get_by_test_id("consent-keep").check()
    page.get_by_test_id("check").click()
    expect(page.get_by_test_id("devices-error")).to_contain_text("Allow it")
    expect(page.get_by_test_id("start")).to_be_hidden()
    page.evaluate("window.refuse = ''")
    page.get_by_test_id("devices-retry").click()
    expect(page.get_by_test_id("start")).to_be_visible()
    expect(page.get_by_test_id("devices-error")).to_be_hidden()


@pytest.mark.parametrize("how", ["closed", "silent"])
def test_a_drop_is_taken_up_again(page: Page, fake: FakeServer, how: str) -> None:
    start_call(page, fake)
    if how == "closed":
        fake.drop()
    else:
        fake.answers_pings = False
    eventually(page, lambda: len(fake.last.offers) == 2)
    fake.answers_pings = True
    until(page, "geli.connection === 'connected'")
    assert fake.last.offers[-1]["resume"] == {"session_id": "fake-1", "secret": "secret-1"}
    assert len(fake.sessions) == 1
    expect(page.get_by_test_id("captions")).to_contain_text("reconnecting")


def test_a_drop_that_outlives_the_session_leads_to_the_rating(page: Page, fake: FakeServer) -> None:
    start_call(page, fake)
    fake.finish("dropped")
    fake.drop()
    expect(page.get_by_test_id("screen-rating")).to_be_visible()
    expect(page.get_by_test_id("ended-reason")).to_contain_text("connection was lost")


def test_a_connection_that_stays_away_can_be_tried_again(page: Page, fake: FakeServer) -> None:
    fake.info["resume_s"] = 1
    start_call(page, fake)
    fake.refuses = (503, "not now", "later")
    fake.drop()
    expect(page.get_by_test_id("lost")).to_be_visible()
    shot(page, "lost")
    fake.refuses = None
    page.get_by_test_id("lost-retry").click()
    until(page, "geli.connection === 'connected'")
    expect(page.get_by_test_id("lost")).to_be_hidden()


def test_a_reload_returns_to_the_call(page: Page, fake: FakeServer) -> None:
    start_call(page, fake)
    page.keyboard.press("m")
    page.keyboard.press("v")
    expect(page.get_by_test_id("self-off")).to_be_visible()
    page.reload()
    expect(page.get_by_test_id("screen-resume")).to_be_visible()
    shot(page, "resume")
    assert fake.last.away == 1
    page.get_by_test_id("resume-return").click()
    until(page, "geli.connection === 'connected'")
    assert len(fake.sessions) == 1
    assert fake.last.offers[-1]["resume"] is not None
    assert geli(page, "muted") and not geli(page, "cameraOn")
    page.reload()
    page.get_by_test_id("resume-end").click()
    expect(page.get_by_test_id("screen-rating")).to_be_visible()
    page.reload()
    expect(page.get_by_test_id("screen-rating")).to_be_visible()
    page.get_by_test_id("rating-skip").click()
    page.reload()
    expect(page.get_by_test_id("screen-welcome")).to_be_visible()


def test_a_worker_that_is_away_for_a_moment_loses_no_call(page: Page, fake: FakeServer) -> None:
    start_call(page, fake)
    fake.unreachable = True
    page.reload()
    expect(page.get_by_test_id("screen-problem")).to_be_visible()
    fake.unreachable = False
    page.get_by_test_id("problem-retry").click()
    page.get_by_test_id("resume-return").click()
    until(page, "geli.connection === 'connected'")
    assert len(fake.sessions) == 1
    fake.unreachable = True
    fake.finish("crashed")
    fake.drop()
    expect(page.get_by_test_id("screen-rating")).to_be_visible()  # it can be sent later


@pytest.mark.parametrize(("ttl_s", "renewed"), [(3600, 0), (0.2, 1)])
def test_credentials_of_the_relay_are_renewed_before_they_end(
    page: Page, fake: FakeServer, ttl_s: float, renewed: int
) -> None:
    fake.info["ice_ttl_s"] = ttl_s
    start_call(page, fake)
    page.wait_for_timeout(200)
    asked = fake.asked_info
    fake.drop()
    until(page, "geli.connection === 'reconnecting'")
    until(page, "geli.connection === 'connected'")
    assert len(fake.last.offers) == 2
    assert fake.asked_info == asked + renewed


def test_a_second_tab_takes_the_call_over(page: Page, fake: FakeServer) -> None:
    start_call(page, fake)
    saved = page.evaluate("sessionStorage.getItem('geli.session')")
    other = page.context.new_page()
    other.goto(fake.url)
    other.evaluate("(it) => sessionStorage.setItem('geli.session', it)", saved)
    other.reload()
    other.get_by_test_id("resume-return").click()
    until(other, "geli.connection === 'connected'")
    expect(page.get_by_test_id("thanks-text")).to_contain_text("another tab")
    assert len(fake.sessions) == 1


def test_busy_says_so_and_keeps_the_devices(page: Page, fake: FakeServer) -> None:
    fake.busy = True
    reach_devices(page, fake)
    page.get_by_test_id("start").click()
    expect(page.get_by_test_id("devices-error")).to_contain_text("All calls are taken")
    fake.busy = False
    page.get_by_test_id("start").click()
    until(page, "geli.connection === 'connected'")


def test_a_token_is_asked_for_and_leaves_the_address(page: Page, fake: FakeServer) -> None:
    fake.token = "a-long-enough-token"
    page.goto(fake.url)
    expect(page.get_by_test_id("screen-token")).to_be_visible()
    page.get_by_test_id("token").fill("wrong")
    page.get_by_test_id("token-submit").click()
    expect(page.get_by_test_id("token-error")).to_contain_text("not right")
    page.get_by_test_id("token").fill(fake.token)
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("screen-welcome")).to_be_visible()
    page.context.clear_cookies()
    page.goto(f"{fake.url}?token={fake.token}")
    expect(page.get_by_test_id("screen-welcome")).to_be_visible()
    assert "token" not in page.url


def test_an_insecure_page_says_why(page: Page, fake: FakeServer) -> None:
    page.goto(fake.url.replace("127.0.0.1", "far.example"))
    expect(page.get_by_test_id("problem-text")).to_contain_text("secure page")
    expect(page.get_by_test_id("problem-way-out")).to_contain_text("https://")
    expect(page.get_by_test_id("problem-retry")).to_be_hidden()


def test_blocked_sound_is_one_tap_away(page: Page, fake: FakeServer) -> None:
    page.add_init_script(
        """
        const real = HTMLMediaElement.prototype.play;
        window.blocked = true;
        HTMLMediaElement.prototype.play = function () {
          return this.id === 'agent-audio' && window.blocked
            ? Promise.reject(new DOMException('no', 'NotAllowedError')) : real.call(this);
        };
        """
    )
    start_call(page, fake)
    expect(page.get_by_test_id("unblock-audio")).to_be_visible()
    page.evaluate("window.blocked = false")
    page.get_by_test_id("unblock-audio").click()
    expect(page.get_by_test_id("unblock-audio")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_readable_on_a_phone(open_page: Callable[..., Page], fake: FakeServer, scheme: str) -> None:
    page = open_page(
        viewport={"width": 360, "height": 640}, color_scheme=scheme, has_touch=True, is_mobile=True
    )

    def check(name: str) -> None:
        shot(page, f"phone-{scheme}-{name}")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        small = page.evaluate(
            """[...document.querySelectorAll('button')].filter((b) => b.checkVisibility()
               && !b.classList.contains('link') && b.getBoundingClientRect().height < 40)
               .map((b) => b.id)"""
        )
        assert small == [], name

    page.goto(fake.url)
    expect(page.get_by_test_id("screen-welcome")).to_be_visible()
    check("welcome")
    page.get_by_test_id("consent-keep").check()
    page.get_by_test_id("check").click()
    expect(page.get_by_test_id("start")).to_be_visible()
    check("devices")
    page.get_by_test_id("start").click()
    until(page, "geli.connection === 'connected'")
    for turn in range(8):
        speaker = "user" if turn % 2 else "agent"
        fake.send(type="caption", speaker=speaker, turn=turn, text="Some words " * 6, final=True)
    expect(page.get_by_test_id("caption-user-7")).to_be_in_viewport()
    expect(page.get_by_test_id("hangup")).to_be_in_viewport()
    check("call")
    page.get_by_test_id("hangup").click()
    expect(page.get_by_test_id("screen-rating")).to_be_visible()
    check("rating")


def test_the_keyboard_reaches_everything(page: Page, fake: FakeServer) -> None:
    page.goto(fake.url)
    expect(page.get_by_test_id("screen-welcome")).to_be_visible()
    reach(page, "consent-talk_only")
    page.keyboard.press("Space")
    reach(page, "check")
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("start")).to_be_focused()
    page.keyboard.press("Enter")
    until(page, "geli.connection === 'connected'")
    for name in ("captions-box", "mute", "camera-toggle", "hangup"):
        reach(page, name)
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("screen-thanks")).to_be_visible()
    reach(page, "new-call")


def reach(page: Page, element: str) -> None:
    for _ in range(15):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == element:
            return
    pytest.fail(f"Tab never reaches {element}")
