"""What other programs are given: a merged model says what base and adapter say, a GGUF file holds
the same change of each weight, and nothing half-written or unchecked gets a name."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from agent.cli import cli
from agent.errors import GeliError
from agent.learning_config import Policy
from learning.errors import TrainingError
from learning.policy import export
from learning.policy.model import open_base, open_model, put_on, save_adapter
from learning.registry import Registry
from tests.learning.policy.small import llama

pytestmark = pytest.mark.engine
torch.set_num_threads(1)
CPU = torch.device("cpu")
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def made(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter on every linear layer, each changed at random."""
    model = open_model(place, Policy(lora_r=4, lora_alpha=6, target_modules=list(MODULES)), CPU)
    drawn = torch.Generator().manual_seed(1)
    state = {
        k: 0.3 * torch.randn(v.shape, generator=drawn) for k, v in model.adapter_state().items()
    }
    folder = tmp_path_factory.mktemp("adapter")
    save_adapter(folder, model.network, state, "tiny", "p-1")
    return folder


@pytest.fixture
def adapter(made: Path, tmp_path: Path) -> Path:
    """The same, to be spoilt."""
    return Path(shutil.copytree(made, tmp_path / "adapter"))


@pytest.fixture
def put(adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The adapter's id in a registry."""
    monkeypatch.setenv("GELI_DATA", str(tmp_path / "data"))
    (adapter / "manifest.json").unlink()
    fields: Any = {"seed": 0, "data_digest": "d", "data_source": "store"}
    return Registry.open().add("policy", adapter, base="tiny", **fields).id


def exported(place: Path, *arguments: object) -> Result:
    given = ["--set", f"models.paths.tiny={place}", *map(str, arguments)]
    return CliRunner().invoke(cli, ["learn", "policies", "export", *given])


def line(result: Result) -> str:
    assert isinstance(result.exception, GeliError), result.output
    assert "\n" not in str(result.exception)
    return str(result.exception)


def refusal(*arguments: Any) -> str:
    with pytest.raises(TrainingError) as error:
        export.write_gguf(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_merged_model_says_what_base_and_adapter_say(
    place: Path, adapter: Path, put: str, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    result = exported(place, put[:12], tmp_path / "srv", "--as", "merged")
    out = tmp_path / "srv" / put
    assert (result.exit_code, result.stdout) == (0, f"{out}\n"), result.output
    ids = torch.randint(0, 40, (3, 20), generator=torch.Generator().manual_seed(2))
    settings = Policy(precision="float32")
    with torch.no_grad():
        base = open_base(place, settings, CPU)(ids).logits
        both = put_on(open_base(place, settings, CPU), adapter, trainable=False)(ids).logits
        found = AutoModelForCausalLM.from_pretrained(out, local_files_only=True)(ids).logits
    assert torch.allclose(found, both, atol=1e-4) and (both - base).abs().max() > 1
    chat = [{"role": "user", "content": "how are you ?"}]
    mine, theirs = (AutoTokenizer.from_pretrained(at) for at in (out, place))
    assert mine.apply_chat_template(chat, tokenize=False) == theirs.apply_chat_template(
        chat, tokenize=False
    )
    ends = json.loads((out / "generation_config.json").read_text())["eos_token_id"]
    assert ends == json.loads((place / "generation_config.json").read_text())["eos_token_id"]
    assert list(out.glob("*.safetensors")) and not list(out.glob("adapter*"))


def test_a_smaller_precision(place: Path, put: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    exported(place, put, tmp_path, "--as", "merged", "--precision", "bfloat16")
    (file,) = (tmp_path / put).glob("*.safetensors")
    assert {tensor.dtype for tensor in load_file(file).values()} == {torch.bfloat16}


def test_a_gguf_adapter_changes_each_weight_as_the_adapter_does(
    place: Path, adapter: Path, put: str, tmp_path: Path
) -> None:
    """llama.cpp's order of rows is undone by transformers' reader of GGUF, which is not ours."""
    from gguf import GGUFReader
    from transformers.modeling_gguf_pytorch_utils import LlamaTensorProcessor

    assert exported(place, put, tmp_path, "--as", "gguf").stdout == f"{tmp_path / put}.gguf\n"
    reader = GGUFReader(tmp_path / f"{put}.gguf")
    said = {key: field.contents() for key, field in reader.fields.items()}
    assert {k: v for k, v in said.items() if not k.startswith("GGUF.")} == {
        "general.architecture": "llama",
        "general.type": "adapter",
        "general.name": put,
        "adapter.type": "lora",
        "adapter.lora.alpha": 6.0,
    }
    halves = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    network = put_on(open_base(place, Policy(), CPU), adapter, trainable=False)
    config = network.get_base_model().config
    undo = LlamaTensorProcessor(config={})._reverse_permute_weights
    names = dict(
        zip(
            MODULES,
            ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"),
            strict=True,
        )
    )
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    seen = 0
    for name, module in network.named_modules():
        own = name.rpartition(".")[2]
        if own not in MODULES:
            continue
        block = name.partition(".layers.")[2].partition(".")[0]
        a, b = (halves.pop(f"blk.{block}.{names[own]}.weight.lora_{x}") for x in "ab")
        change = 6.0 / a.shape[0] * (b @ a)
        if own in heads:
            stored, change = change, undo(change, heads[own], heads[own])
            assert not np.allclose(stored, change)
        assert np.allclose(change, module.get_delta_weight("default").numpy(), atol=1e-5)
        seen += 1
    assert seen == 2 * len(MODULES) and not halves


@pytest.mark.parametrize(("form", "name"), [("merged", "{}"), ("gguf", "{}.gguf")])
def test_what_is_there_stays(place: Path, put: str, tmp_path: Path, form: str, name: str) -> None:
    (tmp_path / name.format(put)).write_text("mine")
    assert "is there already" in line(exported(place, put, tmp_path, "--as", form))
    assert (tmp_path / name.format(put)).read_text() == "mine"


def test_a_full_disk_leaves_nothing(
    place: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        assert list((tmp_path / "srv").rglob("model.safetensors")), "half of it is written"
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(export, "tokenizer_of", full)
    with pytest.raises(TrainingError, match="cannot be written: No space left"):
        export.merge(adapter, place, tmp_path / "srv" / "p-1")
    assert not list((tmp_path / "srv").iterdir())


@pytest.mark.parametrize("form", ["merged", "gguf"])
def test_a_damaged_adapter(place: Path, put: str, tmp_path: Path, form: str) -> None:
    weights = Registry.open().path(put) / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.chmod(0o644)
    weights.write_bytes(content)
    assert "damaged" in line(exported(place, put, tmp_path / "srv", "--as", form))
    assert not (tmp_path / "srv").exists()


@pytest.mark.parametrize(("form", "said"), [("merged", "fit"), ("gguf", "made for another base")])
def test_another_base(put: str, tmp_path: Path, form: str, said: str) -> None:
    other = llama(tmp_path / "other", dim=40)
    assert said in line(exported(other, put, tmp_path / "srv", "--as", form))
    assert not list((tmp_path / "srv").glob("*"))


def test_a_reward_and_an_id_that_nobody_has(place: Path, adapter: Path, put: str) -> None:
    fields: Any = {"seed": 0, "data_digest": "d", "data_source": "store"}
    reward = Registry.open().add("reward", adapter, base="tiny", **fields).id
    assert "is a reward" in line(exported(place, reward, ".", "--as", "gguf"))
    assert "the registry has no" in line(exported(place, "p-x", ".", "--as", "gguf"))


def test_an_architecture_that_was_not_checked(place: Path, adapter: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(place, tmp_path / "other"))
    config = json.loads((other / "config.json").read_text())
    config |= {"architectures": ["MistralForCausalLM"], "model_type": "mistral"}
    (other / "config.json").write_text(json.dumps(config))
    said = refusal(adapter, other, tmp_path / "a.gguf")
    assert "MistralForCausalLM was not checked" in said and "--as merged" in said
    (other / "config.json").write_text("{")
    assert "no configuration" in refusal(adapter, other, tmp_path / "a.gguf")


@pytest.mark.parametrize(
    ("key", "value"), [("use_dora", True), ("use_rslora", True), ("alpha_pattern", {"q": 1})]
)
def test_more_than_plain_lora(
    place: Path, adapter: Path, tmp_path: Path, key: str, value: Any
) -> None:
    config = adapter / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {key: value}))
    assert f"{key} is more than a GGUF adapter can say" in refusal(
        adapter, place, tmp_path / "a.gguf"
    )


def test_embeddings_and_halves(place: Path, adapter: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = adapter / "adapter_model.safetensors"
    tensors = load_file(weights)
    name, one = tensors.popitem()
    save_file(tensors, weights)
    assert "half of model.layers." in refusal(adapter, place, tmp_path / "a.gguf")
    save_file(tensors | {name: one, "base_model.model.lm_head.lora_A.weight": one + 1}, weights)
    assert "not LoRA on a linear layer" in refusal(adapter, place, tmp_path / "a.gguf")
    assert not list(tmp_path.glob("*.gguf"))
