"""The policy to train: a frozen causal language model, LoRA on it, a value head on its trunk.

One backbone serves three: with the adapter on it is π_RL, with it off it is the reference (the
frozen base of equation 10), and the value of a state is a line through the trunk's last hidden
state. The head reads that state detached and normalised: fitting values then moves neither the
policy nor its KL, and the head has a learning rate of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from learning.errors import TrainingError

if TYPE_CHECKING:
    from agent.learning_config import Policy

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


class PolicyModel:
    """A base with an adapter and a value head. Use `open_model`.

    Args:
        network: PEFT's wrapper of a causal language model.
        device: where it is.
    """

    def __init__(self, network: Any, device: torch.device) -> None:
        self.network = network
        self.device = device
        self.sharded = False
        """Whether its blocks lie in shards (sharding.py)."""
        base = network.get_base_model()
        self.trunk = base.model
        self.config = base.config
        self._dropouts = [m for m in network.modules() if isinstance(m, torch.nn.Dropout)]
        self._to_logits = base.lm_head
        self.head = torch.nn.Linear(self.config.hidden_size, 1).to(device)
        torch.nn.init.zeros_(self.head.weight)
        torch.nn.init.zeros_(self.head.bias)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits in float32, [..., vocabulary], of hidden states [..., dim]."""
        out: Tensor = self._to_logits(hidden).float()
        return out

    def values(self, hidden: Tensor) -> Tensor:
        """V(s), [...], of hidden states [..., dim]; no gradient to the trunk."""
        state = hidden.detach().float()
        out: Tensor = self.head(torch.nn.functional.layer_norm(state, state.shape[-1:]))
        return out.squeeze(-1)

    @property
    def adapter(self) -> list[Any]:
        """The LoRA parameters."""
        return [p for p in self.network.parameters() if p.requires_grad]

    @contextlib.contextmanager
    def reference(self) -> Iterator[None]:
        """The frozen base: the adapter is off inside."""
        with self.network.disable_adapter():
            yield

    @contextlib.contextmanager
    def gradients(self, *, dropout: bool = False) -> Iterator[None]:
        """Passes that learn, their backward included: blocks are done again where checkpointing is
        on (transformers ties that to training mode, in which there is no attention cache).

        Args:
            dropout: LoRA's. Off in all of PPO: with it π would differ from the policy that wrote
                the replies before the first step, and the ratio clip would answer noise. It
                regularises the likelihood terms (warm-up, γ of equation 10).
        """
        self.network.train()
        for module in self._dropouts:
            module.train(dropout)
        try:
            yield
        finally:
            self.network.eval()

    @property
    def may_share(self) -> bool:
        """Whether a pass may go on from the cache of what all prompts begin with, as things stand.

        A block that is done again in the backward pass would write that cache twice; a block in
        shards is only made whole for gradients that come through its output, not through a cache;
        dropout falls on each sequence by itself.
        """
        again = self.trunk.gradient_checkpointing and self.trunk.training
        dropped = any(m.training for m in self._dropouts)
        return not (again or dropped or (self.sharded and torch.is_grad_enabled()))

    def adapter_state(self) -> dict[str, Tensor]:
        """The adapter's tensors by PEFT's names, on the CPU."""
        from peft import get_peft_model_state_dict

        return {
            k: v.detach().cpu().clone()
            for k, v in get_peft_model_state_dict(
                self.network,
                save_embedding_layers=False,  # "auto" asks the hub for its config
            ).items()
        }

    def load_adapter_state(self, state: dict[str, Tensor]) -> None:
        """Put back what `adapter_state` gave."""
        from peft import set_peft_model_state_dict

        set_peft_model_state_dict(self.network, state)


def open_model(
    folder: Path, settings: Policy, device: torch.device, parent: Path | None = None
) -> PolicyModel:
    """Load a base, put LoRA on it.

    Args:
        folder: the base, Hugging Face layout.
        settings: `[policy]`: LoRA, precision, checkpointing.
        device: where to.
        parent: an adapter to go on from; its rank and modules win over the settings'.

    Raises:
        TrainingError: the base or the adapter cannot be read or do not fit, or the device or 4-bit
            cannot be had here.
    """
    from peft import LoraConfig, get_peft_model

    if parent is not None:
        check_files(parent)
    network = open_base(folder, settings, device)
    torch.manual_seed(settings.seed)  # LoRA's A begins at random, B at zero
    if parent is None:
        try:
            network = get_peft_model(
                network,
                LoraConfig(
                    r=settings.lora_r,
                    lora_alpha=settings.lora_alpha,
                    lora_dropout=settings.lora_dropout,
                    target_modules=list(settings.target_modules),
                    task_type="CAUSAL_LM",
                ),
            )
        except ValueError as error:
            raise TrainingError(
                f"policy.target_modules = {settings.target_modules}: {_line(error)}"
            ) from None
    else:
        network = put_on(network, parent, trainable=True)
    if settings.gradient_checkpointing:
        network.gradient_checkpointing_enable({"use_reentrant": False})
    network.eval()
    return PolicyModel(network, device)


def open_base(folder: Path, settings: Policy, device: torch.device) -> Any:
    """The base alone, as transformers has it.

    Raises:
        TrainingError: see `open_model`.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    if device.type == "cuda" and not torch.cuda.is_available():
        raise TrainingError(
            f"policy.device = {settings.device!r}: there is no CUDA here", "policy.device = 'cpu'"
        )
    more: dict[str, Any] = {}
    if settings.four_bit:
        _check_four_bit(device)
        more["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=getattr(torch, settings.precision),
            bnb_4bit_use_double_quant=True,
        )
        more["device_map"] = {"": device}
    try:
        network = AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, settings.precision), local_files_only=True, **more
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise TrainingError(
            f"{folder}: not a language model that can be loaded: {_line(error)}",
            "geli models verify",
        ) from None
    if settings.four_bit:
        from peft import prepare_model_for_kbit_training

        return prepare_model_for_kbit_training(network, use_gradient_checkpointing=False)
    return network.to(device)


def _check_four_bit(device: torch.device) -> None:
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        raise TrainingError(
            "policy.four_bit needs bitsandbytes", "pip install bitsandbytes, or four_bit = false"
        ) from None
    if device.type != "cuda":
        raise TrainingError(
            f"policy.four_bit needs a CUDA device, not {device.type!r}", "four_bit = false"
        )


def check_files(adapter: Path, base: str | None = None) -> None:
    """Hold an adapter's folder against its manifest, before anything is loaded.

    Raises:
        TrainingError: a file is missing or damaged, or it was trained for another base.
    """
    from agent.errors import PolicyError
    from agent.policies import base_of, check_adapter

    for name in ADAPTER_FILES:
        if not (adapter / name).is_file():
            raise TrainingError(f"{adapter}: no {name} in it", "give a PEFT LoRA adapter's folder")
    try:
        check_adapter(adapter, base or base_of(adapter) or "")
    except PolicyError as error:
        raise TrainingError(error.problem) from None


def put_on(network: Any, adapter: Path, *, trainable: bool) -> Any:
    """A base with a saved adapter on it.

    Raises:
        TrainingError: damaged, or made for another base.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import SafetensorError, safe_open

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of missing keys: compared below
            out = PeftModel.from_pretrained(network, str(adapter), is_trainable=trainable)
        with safe_open(adapter / ADAPTER_FILES[1], "pt") as file:
            found = set(file.keys())
    except (ValueError, RuntimeError, KeyError, TypeError, OSError, SafetensorError) as error:
        raise TrainingError(f"{adapter}: this adapter does not fit: {_line(error)}") from None
    if differing := found ^ set(get_peft_model_state_dict(out, save_embedding_layers=False)):
        raise TrainingError(
            f"{adapter}: made for another base: {len(differing)} tensors have no counterpart, "
            f"{min(differing)[:100]} among them"
        )
    return out


def save_adapter(
    folder: Path, network: Any, state: dict[str, Tensor], base: str, adapter_id: str
) -> None:
    """Write a PEFT adapter and its manifest; each file appears whole, the manifest last.

    Args:
        folder: where to; made.
        network: PEFT's wrapper, for its configuration.
        state: the adapter's tensors.
        base: name of the base.
        adapter_id: as logged by whoever speaks with it.
    """
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    config = network.peft_config["default"].to_dict()
    config["base_model_name_or_path"] = base
    config["inference_mode"] = True
    plain = {k: sorted(v) if isinstance(v, set) else v for k, v in config.items()}
    write_whole(
        folder / ADAPTER_FILES[1],
        save({k: v.contiguous() for k, v in state.items()}, {"format": "pt"}),
    )
    write_whole(folder / ADAPTER_FILES[0], json.dumps(plain, indent=2).encode())
    manifest = {"id": adapter_id, "base": base}
    write_whole(folder / "manifest.json", json.dumps(manifest, indent=2).encode())


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file by one rename."""
    beside = path.with_name(f".{path.name}.tmp")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
