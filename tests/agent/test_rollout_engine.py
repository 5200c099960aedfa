"""A real adapter through the real registry into the real policy, while a host lives."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest

from agent import collector, weights
from agent.config import load
from agent.errors import PolicyError
from agent.host import Host
from agent.records import Consent, Session
from agent.rollout import Rollout
from learning.errors import RegistryError
from learning.registry import Registry
from tests import scripted

pytestmark = pytest.mark.engine

CONFIG = load("cpu", ["perception.enabled=false", "responder.precision=float32"])
BASE = CONFIG.responder.model


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random LoRA adapter of the paper's size for the real base, made by PEFT."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("adapter")
    network = AutoModelForCausalLM.from_pretrained(
        weights.ensure(BASE, CONFIG.models), dtype=torch.float32
    )
    settings = LoraConfig(
        r=24,
        lora_alpha=48,
        lora_dropout=0.05,
        target_modules=["q_proj", "v_proj"],
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(0)
    model: Any = get_peft_model(network, settings)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)
    model.save_pretrained(str(folder))
    return folder


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv("GELI_DATA", str(tmp_path / "data"))
    return Registry.open()


def add(registry: Registry, adapter: Path, base: str = BASE) -> str:
    fields = {"seed": 0, "data_digest": "d", "data_source": "store"}
    return registry.add("policy", adapter, base=base, **fields).id


def rollout(*, strict: bool) -> Rollout:
    found = Rollout.following(CONFIG, strict=strict)
    assert found is not None
    return found


async def test_the_next_call_speaks_with_the_promoted_adapter(
    registry: Registry, adapter: Path
) -> None:
    from agent.engines import table

    promoted = add(registry, adapter)
    base = table.open_responder(CONFIG, None)
    engines = scripted.engines(responder=base)  # type: ignore[arg-type]
    host = Host(CONFIG, None, engines, rollout=rollout(strict=False))
    await host.start()
    collector.spare_loaded()  # what is spared is let go by counting references, or never
    first, second, third = (Session(consent=Consent.KEEP) for _ in range(3))
    before = host.new_call(first, lambda event: None, seed=1)
    registry.promote(promoted, "test")
    after = host.new_call(second, lambda event: None, seed=1)
    assert first.policy_id == BASE
    assert second.policy_id == f"{BASE}+{promoted}" == host.info["policy"]
    # The records tell the truth: the two calls have networks that answer differently.
    said = ["Hello, how are you?", "I had a long day."]
    logits = [
        call._dialogue._read(call._dialogue._r.tokenizer.encode(" ".join(said)))
        for call in (before, after)
    ]
    assert float((logits[0] - logits[1]).abs().max()) > 0.5
    kept = weakref.ref(base.network)
    del base, engines, before
    gc.collect()
    assert kept() is None, "the base is let go with its last call"
    registry.rollback("test")
    host.new_call(third, lambda event: None)
    assert third.policy_id == BASE
    await host.close()


def spoil(registry: Registry, policy_id: str, how: str) -> None:
    """Damage an adapter after its promotion."""
    file = registry.path(policy_id) / "adapter_model.safetensors"
    content = bytearray(file.read_bytes())
    file.unlink()
    if how == "one bit":
        content[-1000] ^= 1  # still a valid file of the right shape
        file.write_bytes(content)
    elif how == "cut":
        file.write_bytes(content[:5000])


@pytest.mark.parametrize("how", ["one bit", "cut", "gone"])
def test_a_corrupt_adapter_is_one_line(registry: Registry, adapter: Path, how: str) -> None:
    policy_id = add(registry, adapter)
    registry.promote(policy_id, "test")
    spoil(registry, policy_id, how)
    following = rollout(strict=True)
    with pytest.raises(PolicyError) as error:
        following.first()
    following.close()
    line = str(error.value)
    assert "\n" not in line and policy_id in line and "adapter_model.safetensors" in line
    with pytest.raises(RegistryError, match="adapter_model.safetensors"):
        registry.verify(policy_id)


def test_an_adapter_for_another_base_is_one_line(
    registry: Registry, adapter: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policy_id = add(registry, adapter, base="llama-2-7b-chat")
    registry.promote(policy_id, "test")
    expected = f"{policy_id} was trained for llama-2-7b-chat, the responder speaks with {BASE}"
    strict, served = rollout(strict=True), rollout(strict=False)
    with pytest.raises(PolicyError, match=expected):
        strict.first()
    assert served.first() is None, "the base model is to speak"
    assert expected in caplog.text
    strict.close()
    served.close()
