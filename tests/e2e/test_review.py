"""`geli review` in a real terminal (tmux), on a store that a real `geli replay` filled."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.records import Session
from agent.store import Store
from tests import media

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed"),
]

ROOT = Path(__file__).resolve().parents[2]
GELI = f"{sys.executable} -c 'from agent.cli import main; main()'"
WAIT_S = 60


class Terminal:
    """A tmux session of its own, with its own server."""

    def __init__(self, command: str, folder: Path, width: int, height: int) -> None:
        self._socket = f"geli-{uuid.uuid4().hex[:8]}"
        self._tmux(
            "-f", "/dev/null", "new-session", "-d", "-x", str(width), "-y", str(height),
            f"cd {ROOT} && GELI_DATA={folder} TZ=UTC {command}; echo left with $?; sleep 600",
        )  # fmt: skip

    def _tmux(self, *arguments: str) -> str:
        done = subprocess.run(
            ["tmux", "-L", self._socket, *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout

    def screen(self) -> str:
        """What it shows."""
        return self._tmux("capture-pane", "-p")

    def press(self, *keys: str) -> None:
        """Keys by their tmux names."""
        for key in keys:
            self._tmux("send-keys", key)

    def until(self, wanted: str) -> str:
        """The screen, once it shows that."""
        end = time.monotonic() + WAIT_S
        while wanted not in (screen := self.screen()):
            assert time.monotonic() < end, f"no {wanted!r} within {WAIT_S} s:\n{screen}"
            time.sleep(0.1)
        return screen

    def close(self) -> None:
        """End it and what runs in it."""
        subprocess.run(["tmux", "-L", self._socket, "kill-server"], capture_output=True)


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Session]:
    """A data directory with one real replay."""
    folder = tmp_path_factory.mktemp("review")
    wav, _ = media.speech("quick_brown_fox")
    subprocess.run(
        [sys.executable, "-c", "from agent.cli import main; main()", "replay",
         "--audio", str(wav), "--video", str(media.face_clip()), "--rating", "80",
         "--consent", "learn"],
        cwd=ROOT, env={**os.environ, "GELI_DATA": str(folder)}, check=True, capture_output=True,
        timeout=300,
    )  # fmt: skip
    with Store.open(f"sqlite:///{folder}/sessions.sqlite3") as store:
        (one,) = store.list()
        return folder, store.get(one.id)


@pytest.fixture(params=[(80, 24), (140, 45)], ids=["80x24", "140x45"])
def terminal(
    request: pytest.FixtureRequest, replayed: tuple[Path, Session]
) -> Iterator[Terminal]:
    made = Terminal(f"{GELI} review", replayed[0], *request.param)
    yield made
    made.close()


def now(replayed: tuple[Path, Session]) -> Session:
    with Store.open(f"sqlite:///{replayed[0]}/sessions.sqlite3") as store:
        return store.get(replayed[1].id)


def test_a_replayed_call_is_read_and_corrected(
    terminal: Terminal, replayed: tuple[Path, Session]
) -> None:
    session = replayed[1]
    agent = next(turn for turn in session.turns if turn.kind == "reply")
    terminal.until("1 session")
    terminal.press("Enter")
    screen = terminal.until("quick brown fox")
    assert "rating 80 (replay)" in screen and "▀" in screen
    terminal.press(*["j"] * agent.index)
    other = 0 if agent.li == 1 else 1
    terminal.press("-" if other == 0 else "+")
    terminal.until("✎")
    assert now(replayed).turns[agent.index].li == other
    terminal.press("u")
    terminal.until("undone")
    assert now(replayed).turns == session.turns
    terminal.press("Escape")
    terminal.until("1 session")
    terminal.press("x")
    terminal.until("why?")
    terminal.press("t", "e", "s", "t", "Enter")
    terminal.until("×")
    assert now(replayed).excluded_reason == "test"
    terminal.press("x")
    terminal.until("included")
    terminal.press("C-q")
    terminal.until("left with 0")


def test_what_another_process_writes_is_seen(
    terminal: Terminal, replayed: tuple[Path, Session]
) -> None:
    terminal.until("1 session")
    with Store.open(f"sqlite:///{replayed[0]}/sessions.sqlite3") as store:
        log = store.open_session(
            Session(id="30000101T000000-11111111", consent=replayed[1].consent)
        )
        terminal.until("● live")
        terminal.until("2 sessions")
        store.delete(log.id)
    terminal.until("1 session ")


def test_without_a_terminal_it_says_what_to_do(replayed: tuple[Path, Session]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from agent.cli import main; main()", "review"],
        cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("geli: a terminal is needed")
