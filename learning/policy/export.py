"""A policy as other programs read it: merged into its base, or as a LoRA file of llama.cpp.

    merge(adapter, base, Path("/srv/policies/p-1"))           # transformers serve, and the like
    write_gguf(adapter, base, Path("/srv/policies/p-1.gguf")) # llama-server --lora

What appears under its name is whole. What is there already is never written over.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agent.learning_config import Policy
from agent.policies import sync_folder
from learning.errors import TrainingError
from learning.policy.model import ADAPTER_FILES, check_files, open_base, put_on
from learning.policy.prompts import tokenizer_of

ARCHITECTURE = "LlamaForCausalLM"
"""The one whose GGUF was held against a running llama-server."""
NOT_PLAIN = (
    "use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save", "lora_bias",
    "fan_in_fan_out", "layer_replication", "target_parameters", "alora_invocation_tokens",
)  # fmt: skip
"""Settings of PEFT with which a layer is not W + α/r · BA, all that a GGUF adapter can say."""
TENSOR = re.compile(r"base_model\.model\.(model\.layers\.\d+\.\S+)\.lora_([AB])\.weight")


def merge(adapter: Path, base: Path, out: Path, precision: str = "float32") -> None:
    """Write base and adapter as one plain model: weights, tokenizer, chat template.

    Args:
        adapter: a PEFT LoRA adapter's folder.
        base: what it was trained on, Hugging Face layout.
        out: the folder to make.
        precision: of the stored weights, a torch dtype. The sum is float32; bfloat16 keeps eight
            bits of it, and rounds what changed less than that back to the base.

    Raises:
        TrainingError: `out` exists or cannot be written, or adapter and base cannot be read or do
            not fit.
    """
    check_files(adapter)
    with _whole(out) as beside:
        network = open_base(base, Policy(precision="float32"), torch.device("cpu"))
        merged = put_on(network, adapter, trainable=False).merge_and_unload()
        merged.to(getattr(torch, precision)).save_pretrained(str(beside))
        tokenizer_of(base).save_pretrained(str(beside))


def write_gguf(adapter: Path, base: Path, out: Path) -> None:
    """Write the adapter alone, as llama.cpp's own `convert_lora_to_gguf.py` does.

    Args:
        adapter: a PEFT LoRA adapter's folder.
        base: what it was trained on; only its configuration is read.
        out: the file to make. Its name without `.gguf` is what the adapter is called.

    Raises:
        TrainingError: `out` exists or cannot be written, another architecture, more than plain
            LoRA on linear layers, or the adapter is damaged or was made for another base.
    """
    import gguf

    check_files(adapter)
    alpha, pairs = _plain_lora(adapter)
    config, shapes = _layers(base)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    with _whole(out) as beside:
        writer = gguf.GGUFWriter(beside, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.LLAMA])
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_name(out.stem)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
        for layer, (a, b) in pairs.items():
            if shapes.get(layer) != (b.shape[0], a.shape[1]) or a.shape[0] != b.shape[1]:
                raise TrainingError(f"{adapter}: made for another base: {layer} does not fit")
            name = names.get_name(layer)
            if n := heads.get(layer.rpartition(".")[2]):
                b = _neighbours(b, n)
            writer.add_tensor(f"{name}.weight.lora_a", a.numpy())
            writer.add_tensor(f"{name}.weight.lora_b", b.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _plain_lora(adapter: Path) -> tuple[float, dict[str, tuple[Tensor, Tensor]]]:
    """α, and each layer's A, [r, in], and B, [out, r], in float32."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        settings = json.loads((adapter / ADAPTER_FILES[0]).read_text(encoding="utf-8"))
        alpha, kind, bias = float(settings["lora_alpha"]), settings["peft_type"], settings["bias"]
        tensors = load_file(adapter / ADAPTER_FILES[1])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise TrainingError(f"{adapter}: damaged: {type(error).__name__}: {error}") from None
    more = [key for key in NOT_PLAIN if settings.get(key)]
    if kind != "LORA" or bias != "none" or more:
        raise TrainingError(
            f"{adapter}: {more[0] if more else f'{kind} with bias {bias!r}'} is more than a GGUF "
            "adapter can say",
            "--as merged",
        )
    halves: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        found = TENSOR.fullmatch(name)
        if found is None:
            raise TrainingError(
                f"{adapter}: {name} is not LoRA on a linear layer of a block", "--as merged"
            )
        halves.setdefault(found[1], {})[found[2]] = tensor.float()
    if lone := [layer for layer, pair in halves.items() if len(pair) != 2]:
        raise TrainingError(f"{adapter}: damaged: half of {lone[0]} is missing")
    return alpha, {layer: (pair["A"], pair["B"]) for layer, pair in halves.items()}


def _layers(base: Path) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """The base's configuration, and the shape of each linear layer's weight, [out, in]."""
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(base, local_files_only=True)
        found = config.architectures
    except (OSError, ValueError, KeyError) as error:
        raise TrainingError(
            f"{base}: no configuration of a language model: {str(error).splitlines()[0][:200]}",
            "geli models verify",
        ) from None
    if found != [ARCHITECTURE]:
        raise TrainingError(
            f"{base}: {', '.join(found or ['an unnamed architecture'])} was not checked against "
            f"llama.cpp, only {ARCHITECTURE} was",
            "--as merged, then llama.cpp's convert_hf_to_gguf.py",
        )
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(config)
    linear = (m for m in network.named_modules() if isinstance(m[1], torch.nn.Linear))
    return config, {name: tuple(module.weight.shape) for name, module in linear}


def _neighbours(b: Tensor, heads: int) -> Tensor:
    """Rows of each head in llama.cpp's order, [heads · dim, r]: its rotary embedding turns rows
    2i and 2i+1 together, transformers' turns i and i + dim/2."""
    dim = b.shape[0] // heads
    return b.reshape(heads, 2, dim // 2, -1).swapaxes(1, 2).reshape(b.shape).contiguous()


@contextlib.contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """Where to write; it becomes `out` by one rename when the block ends well.

    Raises:
        TrainingError: `out` is there already, or the system refuses.
    """
    from safetensors import SafetensorError

    if os.path.lexists(out):
        raise TrainingError(f"{out} is there already", "delete it, or name another folder")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
            beside = Path(scratch) / out.name
            yield beside
            for path in (*beside.rglob("*"), beside):
                sync_folder(path)
            beside.rename(out)
        sync_folder(out.parent)
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or str(error).splitlines()[0][:200]
        raise TrainingError(f"{out}: cannot be written: {why}", "is the disk full?") from None
