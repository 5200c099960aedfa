"""What can be wrong with a base or an adapter, in a line each; what training it holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from agent import config as configs
from agent.config import Config
from agent.learning_config import Policy
from learning.dialogue import Utterance
from learning.errors import TrainingError
from learning.policy.memory import Shape, estimate, shape_of
from learning.policy.model import open_model, save_adapter
from learning.policy.writing import Writer
from tests.learning.policy.small import llama, plain

pytestmark = pytest.mark.engine
torch.set_num_threads(1)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def adapter(place: Path, tmp_path: Path) -> Path:
    """An adapter that changes something."""
    model = open_model(place, Policy(lora_r=4), CPU)
    made = torch.Generator().manual_seed(1)
    state = {
        k: 0.3 * torch.randn(v.shape, generator=made) for k, v in model.adapter_state().items()
    }
    save_adapter(tmp_path / "adapter", model.network, state, "tiny", "p-1")
    return tmp_path / "adapter"


def config(place: Path, **changes: Any) -> Config:
    settings = {"base": "tiny", "history_tokens": 120, "response_tokens": 10} | changes
    overrides = [f"policy.{k}={json.dumps(v)}" for k, v in settings.items()]
    return configs.load("cpu", [f"models.paths.tiny={place}", *plain(), *overrides])


HISTORIES = [[Utterance("listener", "how are you ?")], [Utterance("listener", "tell me more")]] * 15


def test_a_writer_repeats_itself_and_an_adapter_changes_it(place: Path, adapter: Path) -> None:
    base, adapted = Writer.open(config(place)), Writer.open(config(place), adapter)
    assert base.write(HISTORIES, 1) == base.write(HISTORIES, 1) != base.write(HISTORIES, 2)
    assert adapted.write(HISTORIES, 1) != base.write(HISTORIES, 1)
    assert base.write([], 0) == [] and base.kl([], []) == [] and base.logprobs([], []) == []
    assert not any("<|" in text or text != text.strip() for text in base.write(HISTORIES, 3))


def test_kl_is_nothing_for_the_base_and_the_sum_over_the_vocabulary_else(
    place: Path, adapter: Path
) -> None:
    replies = ["so great", "my dog is lovely"] * 15
    assert Writer.open(config(place)).kl(HISTORIES, replies) == [pytest.approx(0, abs=1e-5)] * 30
    writer = Writer.open(config(place), adapter)
    found = writer.kl(HISTORIES, replies)
    prompt = writer.template.prompt(HISTORIES[1])
    reply = writer.template.reply(replies[1], 10)
    ids = torch.tensor([prompt + reply])
    with torch.no_grad():
        p = torch.distributions.Categorical(logits=writer.model.network(ids).logits / 0.7)
        with writer.model.reference():
            q = torch.distributions.Categorical(logits=writer.model.network(ids).logits / 0.7)
    each = torch.distributions.kl_divergence(p, q)[0, len(prompt) - 1 : -1]
    assert len(each) == 5  # four words and the token that ends it
    assert found[1] == pytest.approx(float(each.sum()), rel=1e-4)
    assert found[1] > 0.1


def test_a_corrupt_adapter_is_one_line(place: Path, adapter: Path) -> None:
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(TrainingError, match="does not fit") as said:
        Writer.open(config(place), adapter)
    assert "\n" not in str(said.value)
    weights.unlink()
    with pytest.raises(TrainingError, match=r"no adapter_model\.safetensors"):
        Writer.open(config(place), adapter)


def test_an_adapter_for_another_base_is_one_line(
    place: Path, adapter: Path, tmp_path: Path
) -> None:
    other = json.loads((adapter / "manifest.json").read_text()) | {"base": "llama-2-7b-chat"}
    (adapter / "manifest.json").write_text(json.dumps(other))
    with pytest.raises(TrainingError, match="was trained for llama-2-7b-chat"):
        Writer.open(config(place), adapter)
    # Without a manifest, shapes and layers tell.
    (adapter / "manifest.json").unlink()
    for changes in ({"layers": 1}, {"layers": 3}, {"dim": 48}):
        larger = llama(tmp_path / "larger", **changes)  # type: ignore[arg-type]
        with pytest.raises(TrainingError, match="does not fit|another base") as said:
            Writer.open(config(larger), adapter)
        assert "\n" not in str(said.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what a machine without CUDA says")
@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"four_bit": True}, "four_bit needs"),
        ({"device": "cuda"}, "no CUDA here"),
        ({"target_modules": ["nothing"]}, "target_modules"),
    ],
)
def test_what_cannot_be_had_here_is_one_line(
    place: Path, changes: dict[str, Any], line: str
) -> None:
    settings = Policy(**changes)
    with pytest.raises(TrainingError, match=line) as said:
        open_model(place, settings, torch.device(settings.device))
    assert "\n" not in str(said.value)


def test_a_folder_that_is_no_model_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(TrainingError, match="not a language model"):
        open_model(tmp_path, Policy(), CPU)


@pytest.mark.parametrize("modules", [["q_proj", "v_proj"], ["k_proj", "o_proj", "down_proj"]])
def test_parameters_are_counted_as_they_are(place: Path, modules: list[str]) -> None:
    model = open_model(place, Policy(lora_r=4, target_modules=modules), CPU)
    shape = Shape.of(model.config.to_dict())
    assert shape.lora(4, modules) == sum(p.numel() for p in model.adapter)
    frozen = sum(p.numel() for p in model.network.parameters() if not p.requires_grad)
    assert shape.in_blocks + shape.elsewhere == frozen


def test_llama_2_7b_is_the_papers(place: Path) -> None:
    shape = shape_of("llama-2-7b-chat")
    assert shape.in_blocks + shape.elsewhere == 6_738_415_616  # its model card
    assert shape.lora(24, ["q_proj", "v_proj"]) == 12_582_912  # "13M trained parameters"
    full = estimate(shape, Policy(precision="bfloat16"))
    small = estimate(shape, Policy(precision="bfloat16", four_bit=True))
    assert full["base"] == 2 * 6_738_415_616
    assert 3.3e9 < small["base"] < 4.2e9
    assert small["lora"] == full["lora"] == 4 * 12_582_912


@pytest.mark.parametrize("modules", [["q_proj", "v_proj"], ["q_proj", "gate_proj", "down_proj"]])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_kept_activations_are_what_autograd_keeps(
    tmp_path: Path, modules: list[str], checkpointing: bool
) -> None:
    """Bytes of the tensors that a pass saves for its backward pass, each storage once."""
    from learning.policy.memory import activations, block_activations
    from learning.policy.passes import hidden_after

    settings = Policy(lora_r=4, target_modules=modules, gradient_checkpointing=checkpointing)
    place = llama(tmp_path, dim=64, layers=6)
    model = open_model(place, settings, CPU)
    rows, tokens = 4, 100
    made = torch.Generator().manual_seed(0)
    prompts = torch.randint(4, 40, (rows, tokens - 9), generator=made).tolist()
    mine = {p.untyped_storage().data_ptr() for p in model.network.parameters()}
    kept: dict[int, int] = {}

    def note(x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in mine:
            kept[storage.data_ptr()] = storage.nbytes()
        return x

    rows = 4
    with model.gradients(), torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        hidden = hidden_after(model, prompts, [[5] * 10] * rows)
    assert hidden.requires_grad
    shape = Shape.of(model.config.to_dict())
    wanted = activations(shape, settings)
    if checkpointing:  # the block that is done again is not there yet
        wanted -= block_activations(shape, settings)
    assert sum(kept.values()) == pytest.approx(rows * tokens * wanted, rel=0.25 / 6)
