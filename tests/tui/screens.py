"""A review on a store of a few known sessions, and its screen as text."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path

from textual.pilot import Pilot

from agent import config
from agent.records import Latency, Session
from agent.store import Store
from learning.registry import Registry
from tests.agent.session_samples import START, ended, turn, window
from tui.app import Review

SNAPSHOTS = Path(__file__).parent / "snapshots"
SIZES = ((80, 24), (140, 45))


def sessions() -> list[Session]:
    """Five sessions that differ in what the list can show."""
    talk = [
        turn(0, "agent", kind="greeting", text="Hello, how are you?", li=None),
        turn(1, text="My train was late again.", sentiment=-0.4),
        turn(
            2,
            "agent",
            text="That is annoying.",
            generated_text="That is annoying. Did you get home all right?",
            interrupted=True,
            li=0,
            li_coverage=1.0,
            li_windows=[4, 5],
            li_rule="majority",
            latency=Latency(transcription_ms=200, first_token_ms=120, voice_to_voice_ms=840),
            engines={"responder": "scripted"},
            policy_id="smollm2",
        ),
        turn(3, text="Yes, but I was soaked.", sentiment=0.1),
        turn(4, "agent", text="Tea helps.", li=1, li_coverage=0.5, li_windows=[8, 9]),
    ]
    seen = [window(i, positive) for i, positive in enumerate([None, False, False, True, False])]
    seen += [window(i, True) for i in range(5, 9)]
    return [
        ended("20261123T100000-aaaaaaaa", overall_affect=20, policy_id="smollm2", turns=talk,
              windows=seen, overall_affect_source="page", comment="it was raining"),
        ended("20261123T110000-bbbbbbbb", 60, overall_affect=80, policy_id="smollm2+p-1-abcdef",
              windows=[window(0, True), window(1, True)], tags=["nice"]),
        ended("20261123T120000-cccccccc", 120, consent="keep", ended_how="dropped",
              windows=[window(0), window(1)], policy_id="smollm2"),
        ended("20261123T130000-dddddddd", 180, excluded=True, excluded_reason="two people",
              note="my own test", overall_affect=50),
        ended("20261123T140000-eeeeeeee", 240, source="replay", turns=[], windows=[]),
    ]  # fmt: skip


def review(folder: Path, stored: Sequence[Session] | None = None, **more: object) -> Review:
    """The application on a store in `folder`."""
    store = Store.open(f"sqlite:///{folder / 's.sqlite3'}", busy_timeout_s=0.1)
    for one in sessions() if stored is None else stored:
        if not store.has(one.id):
            store.insert(one)
    return Review(store, Registry.open(folder), config.load("cpu"), by="ada", **more)  # type: ignore[arg-type]


def driven(
    app: Review, size: tuple[int, int] = (80, 24)
) -> AbstractAsyncContextManager[Pilot[None]]:
    """Run it on a terminal of that size, with its notifications."""
    return app.run_test(size=size, notifications=True)


async def settle(pilot: Pilot[None]) -> None:
    """Until the threads are done and the screen shows what they brought."""
    for _ in range(3):
        await pilot.app.workers.wait_for_complete()
        await pilot.pause()


def shown(app: Review) -> str:
    """The screen as text, without spaces at the ends of lines."""
    strips = app.screen._compositor.render_strips()
    lines = ["".join(segment.text for segment in strip).rstrip() for strip in strips]
    return "\n".join(lines) + "\n"


def same_as_snapshot(app: Review, name: str) -> None:
    """Compare the screen with the one that was looked at; GELI_SNAPSHOTS=1 writes it anew."""
    path = SNAPSHOTS / f"{name}-{app.size.width}x{app.size.height}.txt"
    found = shown(app)
    if os.environ.get("GELI_SNAPSHOTS"):
        SNAPSHOTS.mkdir(exist_ok=True)
        path.write_text(found, encoding="utf-8")
    assert found == path.read_text(encoding="utf-8"), f"{path.name} differs: GELI_SNAPSHOTS=1"


def later(minutes: float) -> str:
    """An id of a session that began so long after the others."""
    return f"{START + timedelta(minutes=minutes):%Y%m%dT%H%M%S}-ffffffff"
