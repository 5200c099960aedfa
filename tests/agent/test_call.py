"""Whole calls with scripted engines on virtual time: captions, turns, labels and the log agree."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.audio_memory import AudioMemory
from agent.call import Call
from agent.config import Config, load
from agent.engines.protocols import Pcm
from agent.host import Host
from agent.records import Consent, EndedHow, Session
from agent.store import Store
from tests import scripted

pytestmark = pytest.mark.unit

BLOCK_S = 0.02


def config(**overrides: Any) -> Config:
    sets = ["perception.enabled=false", *(f"{k}={v}" for k, v in overrides.items())]
    return load("cpu", sets)


class Room:
    """Drives one call on virtual time: the user is a tone, the clock stands while engines work."""

    def __init__(self, host: Host, consent: Consent = Consent.KEEP) -> None:
        self.events: list[dict[str, Any]] = []
        self.session = Session(consent=consent, source="replay")
        self.call: Call = host.new_call(self.session, self.events.append, paced=False)
        self.played: list[np.ndarray] = []
        self.running = asyncio.create_task(self.call.run())

    async def feed(self, pcm: np.ndarray) -> None:
        for begin in range(0, len(pcm), 320):
            self.call.hear(pcm[begin : begin + 320])
            await self.call.settle()
            await asyncio.sleep(0)
            self.played.append(self.call.play(960))
            if self.running.done():
                return

    async def speak(self, seconds: float) -> None:
        await self.feed(scripted.tone(seconds))

    async def wait(self, seconds: float) -> None:
        await self.feed(scripted.silence(seconds))

    async def until(self, done: Callable[[], bool], limit_s: float = 30.0) -> None:
        end_s = self.call.clock_s + limit_s
        while not done() and self.call.clock_s < end_s and not self.running.done():
            await self.wait(BLOCK_S)
        assert done(), "did not happen in time"

    async def greeted(self) -> Room:
        await self.until(lambda: len(self.session.turns) == 1)
        return self

    async def hang_up(self) -> Session:
        self.call.hang_up()
        await asyncio.wait_for(self.running, 10)
        return self.session

    @property
    def speaking(self) -> bool:
        return bool(self.played) and bool(self.played[-1].any())

    def captions(self, speaker: str) -> list[dict[str, Any]]:
        return [e for e in self.events if e["type"] == "caption" and e["speaker"] == speaker]


async def test_a_conversation_ends_up_in_the_record() -> None:
    said = ["I had a good day", "my dog is brown"]

    def words(pcm: Pcm) -> str:
        return said[min(1, sum(turn.speaker == "user" for turn in room.session.turns))]

    responder = scripted.ScriptedResponder(answer=lambda m: "That is lovely. What else?")
    host = Host(config(), None, scripted.engines(words, responder))
    room = await Room(host).greeted()
    await room.speak(1.5)
    await room.until(lambda: len(room.session.turns) == 3)
    await room.wait(1.0)
    await room.speak(1.2)
    await room.until(lambda: len(room.session.turns) == 5)
    session = await room.hang_up()
    assert [(t.speaker, t.kind, t.text) for t in session.turns] == [
        ("agent", "greeting", host.config.dialogue.greeting),
        ("user", "utterance", "I had a good day"),
        ("agent", "reply", "That is lovely. What else?"),
        ("user", "utterance", "my dog is brown"),
        ("agent", "reply", "That is lovely. What else?"),
    ]
    for before, after in zip(session.turns, session.turns[1:], strict=False):
        assert before.end_s <= after.start_s + 0.05
    user, agent = session.turns[1], session.turns[2]
    assert user.end_s - user.start_s == pytest.approx(1.5, abs=0.1)
    assert user.prosody and user.prosody["duration_s"] == pytest.approx(1.5, abs=0.1)
    assert agent.end_s - agent.start_s == pytest.approx(5 * scripted.WORD_S, abs=0.1)
    assert agent.policy_id == "scripted-policy" and session.policy_id == "scripted-policy"
    assert agent.latency is not None and agent.latency.first_token_ms is not None
    assert agent.li is None, "nobody was watching"
    assert session.ended_how is EndedHow.HUNG_UP
    last = responder.asked[-1]
    assert [m.role for m in last] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert last[0].content == host.config.dialogue.system_prompt
    assert last[-1].content == "my dog is brown"
    assert responder.prefilled, "the history is read ahead"
    await host.close()


async def test_barge_in_stores_what_was_heard_and_history_equals_it() -> None:
    texts = ["tell me a story", "stop that now please"]

    def words(pcm: Pcm) -> str:
        return texts[min(1, sum(turn.speaker == "user" for turn in room.session.turns))]

    long = " ".join(f"word{i}" for i in range(1, 30)) + "."
    responder = scripted.ScriptedResponder(answer=lambda m: long)
    host = Host(config(), None, scripted.engines(words, responder))
    room = await Room(host).greeted()
    await room.speak(1.0)
    await room.until(lambda: room.speaking)
    await room.wait(1.5)
    await room.speak(1.3)
    await room.until(lambda: len(room.session.turns) >= 4)
    session = await room.hang_up()
    cut = session.turns[2]
    assert cut.interrupted and cut.speaker == "agent"
    heard = cut.text.split()
    assert 4 <= len(heard) <= 7, "about 1.6 s of 0.3 s words"
    assert long.split()[: len(heard)] == heard
    assert cut.generated_text and len(cut.generated_text.split()) > len(heard)
    assert cut.spoken_text == cut.text
    history = [m.content for m in responder.asked[-1] if m.role == "assistant"]
    assert history[-1] == cut.text, "the policy reads what was heard, not what it wrote"
    assert session.turns[3].text == "stop that now please"
    await host.close()


async def test_a_backchannel_leaves_the_turn_whole() -> None:
    def words(pcm: Pcm) -> str:
        return "mm-hmm" if len(pcm) < 18_000 else "tell me something"

    responder = scripted.ScriptedResponder(answer=lambda m: " ".join(["la"] * 12) + ".")
    host = Host(config(), None, scripted.engines(words, responder))
    room = await Room(host).greeted()
    await room.speak(1.0)
    await room.until(lambda: room.speaking)
    await room.wait(1.0)
    await room.speak(0.35)
    await room.until(lambda: len(room.session.turns) == 3)
    session = await room.hang_up()
    assert [t.speaker for t in session.turns] == ["agent", "user", "agent"]
    assert not session.turns[2].interrupted
    assert session.turns[2].text.split() == ["la"] * 11 + ["la."]
    await host.close()


async def test_a_policy_that_is_down_is_an_apology_and_a_notice() -> None:
    responder = scripted.ScriptedResponder(error="the policy server is down")
    host = Host(config(), None, scripted.engines(responder=responder))
    room = await Room(host).greeted()
    await room.speak(1.0)
    await room.until(lambda: len(room.session.turns) == 3)
    session = await room.hang_up()
    assert session.turns[2].kind == "apology"
    assert session.turns[1].text == "hello there", "what the user said is kept"
    assert [e for e in room.events if e["type"] == "notice"]
    await host.close()


async def test_a_policy_that_breaks_off_is_heard_so_far_then_an_apology() -> None:
    responder = scripted.ScriptedResponder(
        answer=lambda m: "That sounds lovely. And then", error="gone", breaks=True
    )
    host = Host(config(), None, scripted.engines(responder=responder))
    room = await Room(host).greeted()
    await room.speak(1.0)
    await room.until(lambda: len(room.session.turns) == 4)
    session = await room.hang_up()
    assert [t.kind for t in session.turns[2:]] == ["reply", "apology"]
    assert session.turns[2].text.startswith("That sounds lovely.")
    assert len([e for e in room.events if e["type"] == "notice"]) == 1
    await host.close()


async def test_a_policy_that_writes_nothing_speakable_is_never_an_empty_turn() -> None:
    responder = scripted.ScriptedResponder(answer=lambda m: "*smiles* **")
    host = Host(config(), None, scripted.engines(responder=responder))
    room = await Room(host).greeted()
    await room.speak(1.0)
    await room.until(lambda: len(room.session.turns) == 3)
    session = await room.hang_up()
    assert session.turns[2].kind == "apology" and all(t.text for t in session.turns)
    await host.close()


async def test_the_draft_is_stopped_when_the_user_goes_on() -> None:
    responder = scripted.ScriptedResponder(answer=lambda m: " ".join(["so"] * 400) + ".")
    host = Host(config(), None, scripted.engines(responder=responder, complete=0.3))
    room = await Room(host).greeted()
    await room.speak(1.0)
    # Not settled on purpose: the draft must still be running when the user goes on.
    responder.delay_s = 0.01
    for block in np.array_split(scripted.silence(0.4), 20):
        room.call.hear(block)
        room.call.play(960)
        await asyncio.sleep(0.02)
    for block in np.array_split(scripted.tone(0.4), 20):
        room.call.hear(block)
        room.call.play(960)
        await asyncio.sleep(0.02)
    assert responder.stopped == 1
    session = await room.hang_up()
    assert [t.speaker for t in session.turns] == ["agent", "user"]
    await host.close()


async def test_talk_only_leaves_a_count_and_nothing_else(tmp_path: Path) -> None:
    store = Store.open(f"sqlite:///{tmp_path}/s.sqlite3")
    host = Host(config(), store, scripted.engines(lambda pcm: "my secret is blue"))
    room = await Room(host, Consent.TALK_ONLY).greeted()
    await room.speak(1.0)
    await room.until(lambda: len(room.session.turns) == 3)
    await room.hang_up()
    assert not list(store.iter_sessions()) and sum(store.tally().values()) == 1
    store.close()
    await host.close()
    files = list(tmp_path.iterdir())
    assert files and not any(b"is blue" in path.read_bytes() for path in files)


async def test_every_turn_is_durable_when_it_ends(tmp_path: Path) -> None:
    store = Store.open(f"sqlite:///{tmp_path}/s.sqlite3")
    host = Host(config(), store, scripted.engines())
    room = await Room(host).greeted()
    await room.speak(1.0)
    await room.until(lambda: len(room.session.turns) == 2)  # the agent is still speaking
    await asyncio.sleep(0.2)
    stored = store.get(room.session.id)
    assert [t.text for t in stored.turns] == [host.config.dialogue.greeting, "hello there"]
    assert stored.ended_how is None
    session = await room.hang_up()
    assert store.get(session.id) == session
    store.close()
    await host.close()


async def test_hanging_up_in_mid_sentence_keeps_the_words() -> None:
    host = Host(config(), None, scripted.engines(lambda pcm: "wait I was going to say"))
    room = await Room(host).greeted()
    await room.speak(1.0)
    session = await room.hang_up()
    assert [t.text for t in session.turns[1:]] == ["wait I was going to say"]
    await host.close()


async def test_going_on_before_a_word_of_the_reply_was_heard_is_one_turn() -> None:
    said = ["I feel good", "because of the sun"]

    def words(pcm: Pcm) -> str:
        return said[sum(turn.speaker == "user" for turn in room.session.turns)]

    host = Host(config(), None, scripted.engines(words))
    room = await Room(host).greeted()
    await room.speak(1.0)
    await room.until(lambda: len(room.session.turns) == 2)  # the agent has just begun
    await room.speak(1.2)
    await room.until(lambda: len(room.session.turns) == 3)
    session = await room.hang_up()
    assert [t.text for t in session.turns[1:2]] == ["I feel good because of the sun"]
    assert [t.speaker for t in session.turns] == ["agent", "user", "agent"]
    final = [c for c in room.captions("user") if c["final"] and c["text"]]
    assert final[-1]["turn"] == 1 and final[-1]["text"] == "I feel good because of the sun"
    await host.close()


async def test_captions_grow_and_end_final() -> None:
    host = Host(config(), None, scripted.engines())
    room = await Room(host).greeted()
    await room.speak(3.0)
    await room.until(lambda: len(room.session.turns) == 3)
    await room.hang_up()
    user = [c for c in room.captions("user") if c["turn"] == 1]
    assert [c["final"] for c in user[:-1]] == [False] * (len(user) - 1) and user[-1]["final"]
    assert len(user) >= 2, "a partial caption while the user still speaks"
    agent = [c for c in room.captions("agent") if c["turn"] == 2]
    assert agent[-1]["final"] and agent[-1]["text"] == "That sounds lovely. Tell me."
    states = [e["state"] for e in room.events if e["type"] == "state"]
    assert states[:2] == ["listening", "speaking"] and "thinking" in states
    await host.close()


async def test_silence_ends_the_call() -> None:
    settings = {"turn_taking.idle_prompt_s": 3, "turn_taking.idle_timeout_s": 12}
    host = Host(config(**settings), None, scripted.engines())
    room = await Room(host).greeted()
    await room.until(room.running.done, 60)
    assert room.session.ended_how is EndedHow.TIMED_OUT
    assert [t.kind for t in room.session.turns] == ["greeting", "prompt", "prompt", "goodbye"]
    await host.close()


async def test_a_muted_user_is_silent() -> None:
    host = Host(config(), None, scripted.engines())
    room = await Room(host).greeted()
    room.call.set_muted(True)
    await room.speak(2.0)
    await room.wait(1.0)
    session = await room.hang_up()
    assert len(session.turns) == 1
    await host.close()


async def test_an_engine_that_breaks_ends_the_call_as_crashed_and_says_so() -> None:
    def words(pcm: Pcm) -> str:
        raise RuntimeError("out of memory")

    host = Host(config(), None, scripted.engines(words))
    room = await Room(host).greeted()
    await room.speak(1.0)
    await room.until(room.running.done)
    assert room.session.ended_how is EndedHow.CRASHED
    assert [e for e in room.events if e["type"] == "notice"]
    await host.close()


async def test_no_log_line_holds_what_was_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    responder = scripted.ScriptedResponder(answer=lambda m: "the answer is confidential")
    host = Host(config(), None, scripted.engines(lambda pcm: "my secret is blue", responder))
    room = await Room(host).greeted()
    await room.speak(1.0)
    await room.until(lambda: len(room.session.turns) == 3)
    await room.hang_up()
    await host.close()
    assert caplog.records, "the end of the call is logged"
    assert "secret" not in caplog.text and "confidential" not in caplog.text


def test_audio_memory_keeps_sample_numbers_when_it_wraps() -> None:
    memory = AudioMemory(1.0)
    for k in range(50):
        memory.append(np.full(1600, k, np.float32))
    assert memory.end_s == pytest.approx(5.0)
    assert set(memory.between(4.8, 5.0)) == {48.0, 49.0}
    assert len(memory.between(4.8, 5.0)) == 3200
    assert len(memory.between(0.0, 0.5)) == 0, "long gone"


@pytest.mark.parametrize("waiting", [0, 1])
async def test_captions_of_unfinished_speech_give_way_to_others(waiting: int) -> None:
    host = Host(config(), None, scripted.engines(lambda pcm: "and then we went home"))
    host.lanes.waiting = lambda role: waiting  # type: ignore[method-assign]
    room = await Room(host).greeted()
    await room.speak(3.0)
    assert bool(room.captions("user")) == (waiting == 0)
    await room.until(lambda: len(room.session.turns) == 3)  # the turn itself is heard
    await room.hang_up()


async def test_no_call_waits_for_another_ones_policy() -> None:
    both_are_there = threading.Barrier(2, timeout=5)
    met: list[str] = []

    class Meeting(scripted.ScriptedConversation):
        def prefill(self, messages: Any) -> None:
            if len(met) < 2:
                both_are_there.wait()
                met.append("here")

    class Responder(scripted.ScriptedResponder):
        def open(self, seed: int | None = None) -> Any:
            return Meeting(self)

    host = Host(config(), None, scripted.engines(responder=Responder()))
    rooms = [Room(host), Room(host)]
    await asyncio.gather(*(room.greeted() for room in rooms))
    for room in rooms:
        assert (await room.hang_up()).ended_how is EndedHow.HUNG_UP
    assert len(met) == 2
