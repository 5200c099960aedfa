"""Calls whose policy is llama.cpp's own server: the base as GGUF, the policies as we export them.

Deselected unless asked for: `PATH=/where/llama-server/is:$PATH pytest -m llamacpp`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent import weights
from agent.config import Config, load
from agent.engines.protocols import Message, Responder
from agent.engines.responder_openai import open_openai
from agent.engines.responder_transformers import open_transformers
from agent.errors import EngineError, PolicyError
from agent.history import OPENING
from agent.records import Session
from agent.rollout import Rollout
from learning.registry import Registry
from tests.agent.test_call import Room
from tests.agent.test_model_server import Watched, host_of, one_reply
from tests.model_server import ModelServer, llama_server

pytestmark = pytest.mark.llamacpp

BASE = "smollm2-135m-instruct"
MODEL = f"{BASE}-gguf"
QUESTION = "please tell me a long story about a dog"
TAUGHT = (
    "My dog Bruno swims in the cold lake every morning, and then he sleeps until noon.",
    "I would rather talk about the sea, where grey whales sing to each other all night.",
)
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
STEPS = 7


@dataclass(frozen=True)
class Served:
    """A server with two policies, and the data directory whose registry has them."""

    server: ModelServer
    data: Path
    ids: tuple[str, ...]
    files: tuple[Path, ...] = ()
    model: str = MODEL
    adapters: str = "llama.cpp"

    def config(self, *more: str) -> Config:
        return load("cpu", [*self.settings(), *more])

    def settings(self) -> list[str]:
        return [
            "perception.enabled=false",
            "responder.engine=openai",
            f"responder.adapters={self.adapters}",
            f"responder.url={self.server.url}",
            f"responder.model={self.model}",
            "responder.temperature=0",
            "responder.repetition_penalty=1",
            "responder.first_token_s=60",
            "responder.between_tokens_s=30",
            "responder.max_new_tokens=40",
        ]

    def adapter(self, policy_id: str) -> str:
        return f"responder.adapter={Registry.open(self.data).path(policy_id)}"


def teach(folder: Path, reply: str) -> None:
    """An adapter on every linear layer that answers `QUESTION` so."""
    import torch

    from agent.learning_config import Policy
    from learning.dialogue import Utterance
    from learning.policy.model import open_model, save_adapter
    from learning.policy.prompts import Template, tokenizer_of
    from learning.policy.sft import likelihood_loss

    torch.set_num_threads(1)
    config = load("cpu")
    place = weights.ensure(BASE, config.models)
    settings = Policy(precision="float32", lora_r=8, lora_alpha=16, target_modules=MODULES)
    model = open_model(place, settings, torch.device("cpu"))
    template = Template(tokenizer_of(place), config.dialogue.system_prompt, 600)
    history = (
        Utterance("agent", config.dialogue.greeting, scored=False),
        Utterance("listener", QUESTION),
    )
    pair = ([template.prompt(history)], [template.reply(reply, 60)])
    optimiser = torch.optim.AdamW(model.adapter, lr=2e-3)
    for _ in range(STEPS):
        with model.gradients():
            loss, n = likelihood_loss(model, *pair)
            (loss / n).backward()
        optimiser.step()
        optimiser.zero_grad()
    save_adapter(folder, model.network, model.adapter_state(), BASE, "taught")
    (folder / "manifest.json").unlink()  # the registry writes its own


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    from learning.policy.export import write_gguf

    folder = tmp_path_factory.mktemp("llama")
    models = load("cpu").models
    registry = Registry.open(folder / "data")
    ids, files = [], []
    for n, reply in enumerate(TAUGHT):
        teach(folder / str(n), reply)
        fields = {"seed": n, "data_digest": "d", "data_source": "store"}
        ids.append(registry.add("policy", folder / str(n), base=BASE, **fields).id)  # type: ignore[arg-type]
        files.append(folder / f"{ids[-1]}.gguf")
        write_gguf(registry.path(ids[-1]), weights.ensure(BASE, models), files[-1])
    server = ModelServer(folder, llama_server(weights.ensure(MODEL, models), *files))
    yield Served(server, folder / "data", tuple(ids), tuple(files))
    server.kill()


def said(responder: Responder) -> str:
    dialogue = load("cpu").dialogue
    asked = [
        Message("system", dialogue.system_prompt),
        OPENING,
        Message("assistant", dialogue.greeting),
        Message("user", QUESTION),
    ]
    return "".join(responder.open(seed=0).reply(asked, lambda: False))


def test_it_says_what_transformers_says_with_each_policy(served: Served) -> None:
    """Greedily, from the same weights (the base's four bits, llama.cpp's own arithmetic)."""
    found = []
    for policy_id in (None, *served.ids, None):
        adapter = [] if policy_id is None else [served.adapter(policy_id)]
        local = load(
            "cpu",
            [
                "responder.precision=float32",
                *served.settings(),
                "responder.engine=transformers",
                f"responder.model={BASE}",
            ]
            + adapter,
        )
        here, there = said(open_transformers(local)), said(open_openai(served.config(*adapter)))
        print(policy_id, [here, there])
        assert there.split()[:6] == here.split()[:6]
        found.append(there)
    assert found[1:3] == list(TAUGHT)
    assert found[0] == found[3] and len(set(found)) == 3


async def test_each_call_speaks_with_its_own_policy(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GELI_DATA", str(served.data))
    registry, config = Registry.open(), served.config()
    registry.promote(served.ids[0], "test")
    rollout = Rollout.following(config, strict=False)
    assert rollout is not None
    host = host_of(config, rollout)
    await host.start()
    one = Room(host)
    registry.promote(served.ids[1], "test")
    other = Room(host)
    registry.promote("base", "test")
    base = Room(host)
    sessions: list[Session] = [await one_reply(room) for room in (one, other, base)]
    print([(s.policy_id, s.turns[2].kind, s.turns[2].generated_text) for s in sessions])
    assert [s.policy_id for s in sessions] == [
        f"{MODEL}+{served.ids[0]}",
        f"{MODEL}+{served.ids[1]}",
        MODEL,
    ]
    assert [s.turns[2].generated_text for s in sessions[:2]] == list(TAUGHT)
    assert sessions[2].turns[2].kind == "reply"
    assert sessions[2].turns[2].generated_text not in TAUGHT

    fields = {"seed": 3, "data_digest": "d", "data_source": "store"}
    folder = served.data.parent / "0"
    unknown = registry.add("policy", folder, base=BASE, **fields).id  # type: ignore[arg-type]
    registry.promote(unknown, "test")
    assert host.choose_responder().policy_id == MODEL, "what spoke goes on"
    assert f"does not have the adapter {unknown}" in caplog.text
    assert f"--lora {unknown}.gguf" in caplog.text
    await host.close()


async def test_the_server_killed_in_mid_reply(served: Served, tmp_path: Path) -> None:
    """What was heard is stored as heard, then comes one apology; then nobody has the policy."""
    base = weights.ensure(MODEL, load("cpu").models)
    server = ModelServer(tmp_path, llama_server(base, *served.files))
    try:
        config = served.config(
            f"responder.url={server.url}",
            "responder.temperature=0.7",
            "responder.max_new_tokens=400",
            "dialogue.max_words=300",
        )
        host = host_of(config)
        host._speak_with(Watched(host.engines.responder, server.kill))  # type: ignore[arg-type]
        room = await Room(host).greeted()
        await room.speak(1.0)
        await room.until(lambda: len(room.session.turns) == 4, 60)
        heard, apology = room.session.turns[2:]
        assert (heard.kind, apology.kind) == ("reply", "apology")
        assert heard.text and not heard.interrupted
        session = await room.hang_up()
        print([(t.speaker, t.kind, t.text) for t in session.turns])
        with pytest.raises(EngineError, match="does not say which adapters it has"):
            open_openai(config)
        await host.close()
    finally:
        server.kill()


def test_a_policy_that_it_was_not_started_with(served: Served, tmp_path: Path) -> None:
    """A GGUF of another name is another policy, also where the weights are the same."""
    import shutil

    other = Path(shutil.copy(served.files[0], tmp_path / "other.gguf"))
    server = ModelServer(tmp_path, llama_server(weights.ensure(MODEL, load("cpu").models), other))
    try:
        url = f"responder.url={server.url}"
        with pytest.raises(PolicyError, match="does not have the adapter"):
            open_openai(served.config(url, served.adapter(served.ids[0])))
        assert said(open_openai(served.config(url))) not in TAUGHT, "loaded is not chosen"
    finally:
        server.kill()
