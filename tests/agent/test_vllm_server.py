"""Calls and training whose policy is a real vLLM server, which loads our adapters as they are.

Deselected unless asked for: `PATH=/where/vllm/is:$PATH pytest -m vllm`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import weights
from agent.config import load
from agent.engines.responder_openai import open_openai
from agent.engines.responder_transformers import open_transformers
from agent.errors import EngineError, PolicyError
from agent.records import Session
from agent.rollout import Rollout
from learning.registry import Registry
from tests.agent.test_call import Room
from tests.agent.test_llama_server import BASE, TAUGHT, Served, said, teach
from tests.agent.test_model_server import Watched, host_of, one_reply
from tests.model_server import ModelServer

pytestmark = pytest.mark.vllm
MODEL = "smollm2-on-vllm"


def vllm_server(folder: Path) -> ModelServer:
    """As learning/README.md says, with little memory."""
    if (program := shutil.which("vllm")) is None:
        raise RuntimeError("no vllm on the path: PATH=/where/it/is:$PATH pytest -m vllm")
    base = weights.ensure(BASE, load("cpu").models)
    return ModelServer(
        folder,
        [
            program, "serve", base, "--served-model-name", MODEL, "--enable-lora",
            "--max-lora-rank", "32", "--logprobs-mode", "processed_logprobs",
            "--dtype", "float32", "--max-model-len", "1024",
        ],
        {
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", "VLLM_NO_USAGE_STATS": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",
        },
        start_s=400,
    )  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("vllm")
    registry = Registry.open(folder / "data")
    ids = []
    for n, reply in enumerate(TAUGHT):
        teach(folder / str(n), reply)
        fields = {"seed": n, "data_digest": "d", "data_source": "store"}
        ids.append(registry.add("policy", folder / str(n), base=BASE, **fields).id)  # type: ignore[arg-type]
    server = vllm_server(folder)
    yield Served(server, folder / "data", tuple(ids), model=MODEL, adapters="vllm")
    server.kill()


def test_it_says_what_transformers_says_with_each_policy(served: Served) -> None:
    found = []
    for policy_id in (None, *served.ids, None):
        adapter = [] if policy_id is None else [served.adapter(policy_id)]
        local = load(
            "cpu",
            [*served.settings(), "responder.precision=float32", "responder.engine=transformers"]
            + [f"responder.model={BASE}", *adapter],
        )
        here, there = said(open_transformers(local)), said(open_openai(served.config(*adapter)))
        print(policy_id, [here, there])
        assert there.split()[:6] == here.split()[:6]
        found.append(there)
    assert found[1:3] == list(TAUGHT)
    assert found[0] == found[3] and len(set(found)) == 3


async def test_each_call_speaks_with_its_own_policy(
    served: Served, monkeypatch: pytest.MonkeyPatch
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
    assert sessions[2].turns[2].generated_text not in TAUGHT
    await host.close()


def test_it_writes_for_training_and_comparing(served: Served, tmp_path: Path) -> None:
    from learning.policy import curves
    from learning.policy.decoding import Sampling
    from learning.policy.elsewhere import ServedWriter
    from learning.policy.train import train
    from learning.policy.vllm import Server
    from learning.policy.writing import Writer
    from tests.learning.policy.small import CountsWord, dialogues

    settings = {
        "vllm_url": f'"{served.server.url}"', "updates": 3, "batch": 4, "micro_batch": 2,
        "learning_rate": 1e-3, "history_tokens": 160, "response_tokens": 16, "max_kl": 1000.0,
        "precision": '"float32"', "checkpoint_every": 1, "sft_steps": 0, "lora_r": 24,
    }  # fmt: skip
    config = load("cpu", [f"policy.{k}={v}" for k, v in settings.items()])
    outcome = train(dialogues(4), CountsWord("you"), config, tmp_path)
    found = curves.read(tmp_path)
    print(outcome, found)
    assert outcome.updates == 3 and outcome.stopped is None
    assert all(abs(line["rollout_gap"]) < 0.01 for line in found)
    server = Server(served.server.url)
    assert not [name for name in server.served() if name.startswith("geli-")]

    adapter = Registry.open(served.data).path(served.ids[0])
    there, here = ServedWriter.open(config, adapter), Writer.open(config, adapter)
    greedy = Sampling(0.0, 16)
    there.sampling = here.sampling = greedy
    histories = [d.turns[:2] for d in dialogues(4)]
    assert there.write(histories, 0) == here.write(histories, 0)
    assert there.write(histories, 0) != ServedWriter.open(config).write(histories, 0)


async def test_the_server_killed_in_mid_reply(served: Served, tmp_path: Path) -> None:
    """Last: it is the module's server. What was heard is stored as heard, then one apology."""
    config = served.config(
        "responder.temperature=0.7",
        "responder.max_new_tokens=400",
        "dialogue.max_words=300",
    )
    host = host_of(config)
    host._speak_with(Watched(host.engines.responder, served.server.kill))  # type: ignore[arg-type]
    room = await Room(host).greeted()
    await room.speak(1.0)
    await room.until(lambda: len(room.session.turns) == 4, 60)
    heard, apology = room.session.turns[2:]
    assert (heard.kind, apology.kind) == ("reply", "apology")
    assert heard.text and not heard.interrupted
    session = await room.hang_up()
    print([(t.speaker, t.kind, t.text) for t in session.turns])
    with pytest.raises((EngineError, PolicyError)):
        open_openai(served.config(served.adapter(served.ids[1])))
    await host.close()
