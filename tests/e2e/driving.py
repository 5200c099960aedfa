"""A headless Chromium with fake devices on the real page: opening it, holding a call, looking."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from playwright.sync_api import Browser, Error, Page, expect, sync_playwright

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP far.example 127.0.0.1",
]
REFUSABLE = """
window.asked = [];
window.refuse = sessionStorage.getItem('refuse') ?? '';
const devices = navigator.mediaDevices;
if (devices) {
  const real = devices.getUserMedia.bind(devices);
  devices.getUserMedia = (wish) => {
    window.asked.push(structuredClone(wish));
    const refused = window.refuse === 'all' || (window.refuse === 'video' && wish.video);
    return refused ? Promise.reject(new DOMException('no', 'NotAllowedError')) : real(wish);
  };
}
"""
ARTEFACTS = Path(os.environ.get("GELI_ARTEFACTS", "artefacts")) / "e2e"
WAIT_S = 60.0
"""Generous: the machine may be busy with other work."""
WATCH = """
window.states = [];
window.loudest = 0;
document.addEventListener('DOMContentLoaded', () => {
  const state = document.getElementById('state');
  const note = () => {
    if (window.states.at(-1) !== state.dataset.state) window.states.push(state.dataset.state);
  };
  new MutationObserver(note).observe(state, { attributes: true });
  setInterval(() => {
    window.loudest = Math.max(window.loudest, window.geli?.agentLevel ?? 0);
  }, 50);
});
"""
"""Notes each state that the page shows, however briefly, and the agent's loudest moment."""


@contextlib.contextmanager
def chromium(microphone: Path, camera: Path) -> Iterator[Browser]:
    """A browser whose devices play these files; the microphone's only once."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("needs Chromium (chromium or google-chrome on the PATH)")
    flags = [
        *FLAGS,
        "--autoplay-policy=no-user-gesture-required",
        f"--use-file-for-fake-audio-capture={microphone}%noloop",
        f"--use-file-for-fake-video-capture={camera}",
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=flags)
        yield browser
        with contextlib.suppress(Error):  # a test may have killed it
            browser.close()


def kill(microphone: Path) -> None:
    """End the browser that plays this file as a power cut would."""
    flag = f"--use-file-for-fake-audio-capture={microphone}%noloop"
    for process in psutil.process_iter(["cmdline"]):
        if flag in (process.info["cmdline"] or []):
            for child in process.children(recursive=True):
                child.kill()
            process.kill()


@contextlib.contextmanager
def opened(browser: Browser, url: str, refuse: str = "") -> Iterator[Page]:
    """The page at its first screen; any script error or policy violation in it fails the test."""
    troubles: list[str] = []
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(WAIT_S * 1000)
    expect.set_options(timeout=WAIT_S * 1000)
    context.add_init_script(f"sessionStorage.setItem('refuse', {json.dumps(refuse)});")
    context.add_init_script(REFUSABLE)
    context.add_init_script(WATCH)
    page = context.new_page()
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on(
        "console",
        lambda line: troubles.append(line.text) if "Security Policy" in line.text else None,
    )
    page.goto(url)
    expect(page.get_by_test_id("screen-welcome")).to_be_visible()
    yield page
    with contextlib.suppress(Error):  # a test may have killed it
        context.close()
    assert troubles == []


def start_call(page: Page, consent: str = "keep", button: str = "check") -> None:
    """From the first screen into the call."""
    page.get_by_test_id(f"consent-{consent}").check()
    page.get_by_test_id(button).click()
    expect(page.get_by_test_id("start")).to_be_visible()
    page.get_by_test_id("start").click()
    until(page, lambda: geli(page, "connection") == "connected")


def hang_up(page: Page) -> None:
    """Press the button and wait for what comes after the call."""
    page.get_by_test_id("hangup").click()
    until(page, lambda: geli(page, "screen") in ("rating", "thanks"))


def geli(page: Page, name: str) -> Any:
    """A property of the page's own `window.geli`."""
    return page.evaluate(f"window.geli.{name}")


def final(page: Page, speaker: str) -> list[str]:
    """Texts of the finished captions of one side."""
    captions = geli(page, "captions")
    return [c["text"] for c in captions if c["final"] and c["speaker"] == speaker]


def until(page: Page, condition: Callable[[], bool], seconds: float = WAIT_S) -> None:
    """Wait while the page's events keep flowing (its policy forbids `wait_for_function`)."""
    by = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > by:
            pytest.fail(f"never came true; the page is at {geli(page, 'screen')!r}")
        page.wait_for_timeout(50)


def shot(page: Page, name: str) -> None:
    """Keep a picture of the page."""
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTEFACTS / f"{name}.png")
