"""Promotions while calls go on: who speaks next, who speaks still, and what stays in memory."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import random
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

from agent import policies
from agent.config import Config, load
from agent.errors import PolicyError, WeightsError
from agent.host import Host
from agent.records import Consent, Session
from agent.replay import Recording, replay
from agent.rollout import Rollout
from tests import scripted

pytestmark = pytest.mark.unit

BASE = "scripted-policy"


class Registry:
    """A registry's state and folders, and the loading of what is in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.opened: list[str] = []
        self.refuses: dict[str, Exception] = {}
        self.may_load = threading.Event()
        self.may_load.set()
        self.loading = threading.Event()

    def say(self, promoted: str | None = None, candidate: str | None = None) -> None:
        for policy_id in (promoted, candidate):
            if policy_id is not None:
                (self.root / "policies" / policy_id).mkdir(parents=True, exist_ok=True)
        self.root.mkdir(exist_ok=True)
        self._n = getattr(self, "_n", 0) + 1
        change = policies.Change(str(self._n), "promote", promoted, None, "test")
        policies.write_state(self.root, policies.State(promoted, candidate, (change,)))

    def open(self, adapter: Path | None) -> scripted.ScriptedResponder:
        name = adapter.name if adapter else ""
        self.loading.set()
        assert self.may_load.wait(20)
        self.opened.append(name)
        if name in self.refuses:
            raise self.refuses[name]
        return scripted.ScriptedResponder(policy_id=f"{BASE}+{name}" if name else BASE)

    def rollout(self, share: float = 0.0, **more) -> Rollout:
        settings = {"strict": False, "poll_s": 0.01, "rng": random.Random(7)}
        return Rollout(self.root, share, self.open, **(settings | more))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(policies.registry_of(tmp_path))


def config() -> Config:
    return load("cpu", ["perception.enabled=false"])


def host_of(rollout: Rollout, responder: scripted.ScriptedResponder | None = None) -> Host:
    return Host(config(), None, scripted.engines(responder=responder), rollout=rollout)


def speaker(host: Host) -> str | None:
    """Which policy the record of a call that begins now names."""
    session = Session(consent=Consent.KEEP)
    host.new_call(session, lambda event: None)
    return session.policy_id


async def until(done) -> None:
    async with asyncio.timeout(20):
        while not done():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


# --- a fresh process ---------------------------------------------------------------------------


async def test_a_fresh_process_speaks_with_the_promoted_policy(registry: Registry) -> None:
    registry.say("p-1")
    host = host_of(registry.rollout(strict=True))
    await host.start()
    assert speaker(host) == f"{BASE}+p-1" == host.info["policy"]
    assert registry.opened == ["p-1"]
    await host.close()


async def test_the_base_is_not_loaded_where_another_speaks(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engines are built around the promoted policy, once."""
    registry.say("p-1")
    built = []

    def build(config: Config, responder: object = None) -> object:
        built.append(responder)
        return scripted.engines(responder=responder)  # type: ignore[arg-type]

    monkeypatch.setattr("agent.host.build", build)
    host = Host(config(), None, rollout=registry.rollout(strict=True))
    await host.start()
    assert speaker(host) == f"{BASE}+p-1"
    assert registry.opened == ["p-1"] and [r.policy_id for r in built] == [f"{BASE}+p-1"]
    await host.close()


async def test_without_a_registry_the_base_speaks(registry: Registry) -> None:
    host = host_of(registry.rollout(strict=True))
    await host.start()
    assert speaker(host) == BASE and registry.opened == []
    await host.close()


@pytest.mark.parametrize("harm", ["adapter", "state", "folder"])
async def test_one_call_in_one_process_is_strict(registry: Registry, harm: str) -> None:
    registry.say("p-1")
    if harm == "adapter":
        registry.refuses["p-1"] = WeightsError("p-1: damaged", "restore it")
    elif harm == "state":
        (registry.root / "state.json").write_text("{")
    else:
        (registry.root / "policies" / "p-1").rmdir()
    host = host_of(registry.rollout(strict=True))
    with pytest.raises((WeightsError, PolicyError)):
        await host.start()
    await host.close()


@pytest.mark.parametrize("harm", ["adapter", "state", "folder", "bug"])
async def test_a_served_page_goes_on(
    registry: Registry, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One line names what is wrong, once; the base speaks until something better is promoted."""
    registry.say("p-1")
    if harm == "adapter":
        registry.refuses["p-1"] = WeightsError("p-1: does not fit", "restore it")
    elif harm == "bug":
        registry.refuses["p-1"] = ZeroDivisionError()
    elif harm == "state":
        (registry.root / "state.json").write_text("{")
    else:
        (registry.root / "policies" / "p-1").rmdir()
    host = host_of(registry.rollout())
    await host.start()
    for _ in range(3):
        assert speaker(host) == BASE
    await asyncio.sleep(0.05)  # several polls
    said = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(said) == 1
    assert ("state.json" if harm == "state" else "p-1") in said[0].getMessage()
    registry.say("p-2")
    assert speaker(host) == f"{BASE}+p-2"
    await host.close()


# --- a promotion while the process runs --------------------------------------------------------


async def test_the_next_call_speaks_with_the_promoted_policy(registry: Registry) -> None:
    """No restart, no pause: the call that begins right after the promotion has it."""
    host = host_of(registry.rollout(poll_s=1000))
    await host.start()
    said = [speaker(host)]
    for promoted in ("p-1", "p-2", None):
        registry.say(promoted)
        said.append(speaker(host))
    assert said == [BASE, f"{BASE}+p-1", f"{BASE}+p-2", BASE]
    assert host.info["policy"] == BASE
    await host.close()


async def test_it_is_loaded_before_a_call_asks(registry: Registry) -> None:
    host = host_of(registry.rollout())
    await host.start()
    registry.say("p-1")
    await until(lambda: host.info["policy"] == f"{BASE}+p-1")
    assert registry.opened == ["p-1"]
    assert speaker(host) == f"{BASE}+p-1"
    assert registry.opened == ["p-1"], "nothing is loaded for the call"
    await host.close()


async def test_a_call_keeps_its_policy_to_its_end(registry: Registry) -> None:
    """Every turn of the call in progress is the old policy's, every one of the next the new's."""

    def answer(messages: object) -> str:
        registry.say("p-1")  # while the first call thinks
        return "That sounds lovely."

    host = host_of(registry.rollout(), scripted.ScriptedResponder(answer=answer))
    await host.start()
    said = np.concatenate([scripted.tone(1.0), scripted.silence(2.0)] * 2)
    first = await replay(host, Recording(said))
    second = await replay(host, Recording(said))
    for session, expected in ((first, BASE), (second, f"{BASE}+p-1")):
        replies = [turn.policy_id for turn in session.turns if turn.kind == "reply"]
        assert len(replies) == 2 and set(replies) == {expected} == {session.policy_id}
    await host.close()


async def test_a_call_waits_no_longer_than_it_may(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    host = host_of(registry.rollout(longest_wait_s=0.05))
    await host.start()
    registry.may_load.clear()
    registry.say("p-1")
    session = Session(consent=Consent.KEEP)
    responder = await asyncio.to_thread(host.choose_responder)
    host.new_call(session, lambda event: None, responder=responder)
    assert session.policy_id == BASE and "did not wait" in caplog.text
    registry.may_load.set()
    await until(lambda: host.info["policy"] == f"{BASE}+p-1")
    assert speaker(host) == f"{BASE}+p-1"
    await host.close()


async def test_a_call_does_not_wait_for_a_policy_that_is_not_its_own(registry: Registry) -> None:
    """While the candidate is loaded, a call that is not the candidate's begins at once."""
    registry.say("p-1")
    host = host_of(registry.rollout(share=1e-12))
    await host.start()
    registry.may_load.clear()
    registry.loading.clear()
    registry.say("p-1", candidate="p-2")
    await asyncio.to_thread(registry.loading.wait, 20)
    assert speaker(host) == f"{BASE}+p-1"
    assert registry.opened == ["p-1"]
    registry.may_load.set()
    await host.close()


async def test_promoted_again_is_tried_again(registry: Registry) -> None:
    registry.refuses["p-1"] = WeightsError("p-1: damaged", "restore it")
    host = host_of(registry.rollout())
    await host.start()
    registry.say("p-1")
    assert speaker(host) == BASE
    registry.refuses.clear()
    assert speaker(host) == BASE and registry.opened == ["p-1"], "not tried at every call"
    registry.say("p-1")
    assert speaker(host) == f"{BASE}+p-1"
    await host.close()


# --- the candidate -----------------------------------------------------------------------------


async def test_the_candidate_holds_its_share_of_calls(registry: Registry) -> None:
    registry.say("p-1", candidate="p-2")

    async def held(seed: int) -> list[str | None]:
        host = host_of(registry.rollout(share=0.25, rng=random.Random(seed)))
        await host.start()
        speakers = [speaker(host) for _ in range(200)]
        await host.close()
        return speakers

    first = await held(1)
    assert set(first) == {f"{BASE}+p-1", f"{BASE}+p-2"}
    assert 30 <= first.count(f"{BASE}+p-2") <= 70
    assert first == await held(1) != await held(2)
    assert sorted(registry.opened[:2]) == ["p-1", "p-2"], "each is loaded once"
    assert len(registry.opened) == 6


async def test_a_candidate_without_a_share_is_not_even_loaded(registry: Registry) -> None:
    registry.say("p-1", candidate="p-2")
    host = host_of(registry.rollout(share=0.0))
    await host.start()
    assert {speaker(host) for _ in range(20)} == {f"{BASE}+p-1"}
    assert registry.opened == ["p-1"]
    await host.close()


async def test_a_candidate_that_cannot_speak_costs_no_call(registry: Registry) -> None:
    registry.refuses["p-2"] = WeightsError("p-2: damaged", "restore it")
    registry.say("p-1", candidate="p-2")
    host = host_of(registry.rollout(share=1.0))
    await host.start()
    assert speaker(host) == f"{BASE}+p-1"
    await host.close()


# --- memory ------------------------------------------------------------------------------------


async def test_only_what_can_still_speak_stays_in_memory(registry: Registry) -> None:
    alive: dict[str, weakref.ref[object]] = {}
    plain_open = registry.open

    def remembered(adapter: Path | None) -> scripted.ScriptedResponder:
        responder = plain_open(adapter)
        alive[adapter.name if adapter else ""] = weakref.ref(responder)
        return responder

    registry.open = remembered  # type: ignore[method-assign]
    registry.say("p-1")
    host = host_of(registry.rollout(poll_s=1000))
    await host.start()
    call = host.new_call(Session(consent=Consent.KEEP), lambda event: None)
    for promoted in ("p-2", "p-3", "p-4"):
        registry.say(promoted)
        speaker(host)
    gc.collect()
    assert [name for name, ref in alive.items() if ref() is not None] == ["p-1", "p-4"]
    del call
    gc.collect()
    assert [name for name, ref in alive.items() if ref() is not None] == ["p-4"]
    await host.close()


# --- what the configuration says ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "follows"),
    [
        ([], True),
        (["rollout.follow=false"], False),
        (["responder.adapter=/my/own"], False),
        (["responder.engine=openai", "responder.url=http://127.0.0.1:1/v1"], False),
    ],
)
def test_who_follows_the_registry(
    settings: list[str], follows: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GELI_DATA", str(tmp_path))
    rollout = Rollout.following(load("cpu", settings), strict=False)
    assert (rollout is not None) == follows
    assert not (tmp_path / "registry").exists()


def test_the_explicit_adapter_is_checked_before_anything_is_loaded(tmp_path: Path) -> None:
    from agent.engines.responder_transformers import open_transformers

    (tmp_path / "manifest.json").write_text(json.dumps({"id": "p-1", "base": "llama-2-7b"}))
    settings = [f"responder.adapter={tmp_path}", "models.cache=/nowhere"]
    with pytest.raises(PolicyError, match="p-1 was trained for llama-2-7b, the responder speaks"):
        open_transformers(load("cpu", settings))
