"""Calls whose policy is a real OpenAI-compatible server, with real weights and real streaming."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent import weights
from agent.config import Config, load
from agent.engines.protocols import Message
from agent.engines.responder_openai import OpenAIConversation, OpenAIResponder, open_openai
from agent.host import Host
from agent.records import Session
from agent.rollout import Rollout
from learning.registry import Registry
from tests import scripted
from tests.agent.test_call import Room
from tests.model_server import ModelServer

pytestmark = pytest.mark.engine

BASE = "smollm2-135m-instruct"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    made = ModelServer(tmp_path_factory.mktemp("server"))
    yield made
    made.kill()


def remote(server: ModelServer, *more: str) -> Config:
    base = weights.ensure(BASE, load("cpu").models)
    # The first request loads the model.
    return load(
        "cpu",
        [
            "perception.enabled=false",
            "responder.engine=openai",
            f"responder.url={server.url}",
            f"responder.model={base}",
            "responder.first_token_s=90",
            "responder.between_tokens_s=30",
            "responder.max_new_tokens=40",
            *more,
        ],
    )


def host_of(config: Config, rollout: Rollout | None = None) -> Host:
    engines = scripted.engines(lambda pcm: "please tell me a long story about a dog")
    return Host(config, None, _with(engines, open_openai(config)), rollout=rollout)


def _with(engines: Any, responder: Any) -> Any:
    import dataclasses

    return dataclasses.replace(engines, responder=responder)


async def one_reply(room: Room) -> Session:
    await room.greeted()
    await room.speak(1.0)
    await room.until(lambda: len(room.session.turns) == 3)
    return await room.hang_up()


async def test_a_call_through_a_real_server(server: ModelServer) -> None:
    config = remote(server)
    host = host_of(config)
    session = await one_reply(Room(host))
    reply = session.turns[2]
    assert reply.kind == "reply" and reply.engines["responder"] == "openai"
    assert reply.policy_id == session.policy_id == config.responder.model
    assert len(reply.text.split()) > 3
    assert reply.latency is not None and reply.latency.first_token_ms is not None
    print([(t.speaker, t.kind, t.policy_id, t.text) for t in session.turns])
    await host.close()


def write_policy(folder: Path, merged: Path, registry: Registry, seed: int) -> str:
    """A random adapter in the registry, and merged where the server finds it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = weights.ensure(BASE, load("cpu").models)
    network = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    lora = LoraConfig(
        r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
    )
    torch.manual_seed(seed)
    model: Any = get_peft_model(network, lora)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.08)
    model.save_pretrained(str(folder))
    fields = {"seed": seed, "data_digest": "d", "data_source": "store"}
    policy_id = registry.add("policy", folder, base=BASE, **fields).id
    model.merge_and_unload().save_pretrained(str(merged / policy_id))
    AutoTokenizer.from_pretrained(base).save_pretrained(str(merged / policy_id))
    return policy_id


async def test_each_session_speaks_with_its_own_adapter(
    server: ModelServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("GELI_DATA", str(tmp_path / "data"))
    registry, merged = Registry.open(), tmp_path / "merged"
    first, second = (write_policy(tmp_path / str(n), merged, registry, n) for n in (1, 2))
    config = remote(
        server,
        "responder.adapters=paths",
        f"responder.adapters_at={merged}/{{id}}",
        "responder.temperature=0",
    )
    registry.promote(first, "test")
    rollout = Rollout.following(config, strict=False)
    assert rollout is not None
    host = host_of(config, rollout)
    await host.start()
    one = Room(host)
    registry.promote(second, "test")
    other = Room(host)
    said = [await one_reply(room) for room in (one, other, Room(host_of(config)))]
    base = config.responder.model
    assert [s.policy_id for s in said] == [f"{base}+{first}", f"{base}+{second}", base]
    assert [s.turns[2].policy_id for s in said] == [s.policy_id for s in said]
    print([(s.turns[2].kind, s.policy_id, s.turns[2].text) for s in said])
    assert len({s.turns[2].generated_text for s in said}) == 3, "each has its own weights"

    (merged / second).rename(merged / "moved")
    unknown = registry.add(
        "policy", tmp_path / "1", base=BASE, seed=3, data_digest="d", data_source="store"
    ).id
    registry.promote(unknown, "test")
    assert host.choose_responder().policy_id == f"{base}+{second}", "the old one speaks on"
    assert f"does not have the adapter {unknown}" in caplog.text
    await host.close()


def test_replies_are_written_at_once(server: ModelServer) -> None:
    """Each of eight begins before any is over: none waits for another in this process."""
    responder = open_openai(remote(server, "responder.in_flight=8"))
    met = threading.Barrier(8)
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            pieces = responder.open(seed=1).reply(
                [Message("user", "Tell me a long story.")], lambda: False
            )
            assert next(pieces)
            met.wait(60)
            list(pieces)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


class Watched:
    """The real responder; tells when a sentence and a bit of its reply have come."""

    remote = True

    def __init__(self, inner: OpenAIResponder, tell: Callable[[], None]) -> None:
        self.id, self.policy_id, self.inner, self.tell = "openai", inner.policy_id, inner, tell

    def open(self, seed: int | None = None) -> Any:
        conversation = WatchedConversation(self.inner, seed)
        conversation.tell = self.tell
        return conversation


class WatchedConversation(OpenAIConversation):
    tell: Callable[[], None]

    def reply(self, messages: Sequence[Message], should_stop: Callable[[], bool]) -> Iterator[str]:
        written = ""
        for piece in super().reply(messages, should_stop):
            written += piece
            yield piece
            if any(end in written[:-12] for end in ".!?") and len(written) > 40:
                self.tell()


async def test_a_server_killed_in_mid_reply(tmp_path: Path) -> None:
    """What was heard is stored as heard, then comes one apology; the next reply fails at once."""
    server = ModelServer(tmp_path)
    try:
        config = remote(server, "responder.max_new_tokens=400", "dialogue.max_words=300")
        host = host_of(config)
        host._speak_with(Watched(host.engines.responder, server.kill))  # type: ignore[arg-type]
        room = await Room(host).greeted()
        await room.speak(1.0)
        await room.until(lambda: len(room.session.turns) == 4, 60)
        heard, apology = room.session.turns[2:]
        assert (heard.kind, apology.kind) == ("reply", "apology")
        assert heard.text and not heard.interrupted
        await room.speak(1.0)
        await room.until(lambda: len(room.session.turns) == 6)
        session = await room.hang_up()
        assert session.turns[5].kind == "apology"
        print([(t.speaker, t.kind, t.text) for t in session.turns])
        await host.close()
    finally:
        server.kill()
