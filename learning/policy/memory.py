"""What training a policy holds in memory, by part, from the model's shape.

Bytes follow the code: the frozen base in its precision or NF4 (in shards: a device's part of the
blocks, and one block whole), LoRA in float32 with gradients and AdamW's two moments, the value
head, the reward model, then the largest of writing (attention cache, logits of one step) and
optimising (activations of one micro-batch, logits of its reply tokens, kept for the backward pass).
What PyTorch's allocator and CUDA's context add is not in it: about 1 to 2 GB.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learning.errors import TrainingError

if TYPE_CHECKING:
    from agent.learning_config import Policy

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
NF4 = 0.5 + 0.127 / 8
"""Bytes a weight: 4 bits and the doubly quantised scale of each block of 64 (Dettmers et al. 2023:
0.127 bits a weight)."""
ADAM = 4 * 4
"""Bytes a trained number: itself, its gradient, two moments, all float32."""


@dataclass(slots=True, frozen=True)
class Shape:
    """A LLaMA-like model."""

    layers: int
    dim: int
    heads: int
    key_heads: int
    head_dim: int
    inner: int
    """Of the gated feed-forward layer."""
    vocabulary: int
    tied: bool
    """The output layer is the embedding."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape:
        """From a `config.json` of the LLaMA architecture."""
        heads = config["num_attention_heads"]
        return cls(
            config["num_hidden_layers"],
            config["hidden_size"],
            heads,
            config.get("num_key_value_heads") or heads,
            config.get("head_dim") or config["hidden_size"] // heads,
            config["intermediate_size"],
            config["vocab_size"],
            bool(config.get("tie_word_embeddings")),
        )

    @property
    def linear(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of each linear layer of one block, by its name."""
        q, kv = self.heads * self.head_dim, self.key_heads * self.head_dim
        return {
            "q_proj": (self.dim, q),
            "k_proj": (self.dim, kv),
            "v_proj": (self.dim, kv),
            "o_proj": (q, self.dim),
            "gate_proj": (self.dim, self.inner),
            "up_proj": (self.dim, self.inner),
            "down_proj": (self.inner, self.dim),
        }

    @property
    def in_blocks(self) -> int:
        """Weights of all linear layers, which NF4 makes small."""
        return self.layers * sum(a * b for a, b in self.linear.values())

    @property
    def elsewhere(self) -> int:
        """Embeddings, output layer, norms."""
        tables = 1 if self.tied else 2
        return tables * self.vocabulary * self.dim + (2 * self.layers + 1) * self.dim

    def lora(self, r: int, modules: Sequence[str]) -> int:
        """Trained numbers of LoRA of rank r.

        Raises:
            TrainingError: no such module.
        """
        if unknown := [name for name in modules if name not in self.linear]:
            raise TrainingError(
                f"policy.target_modules: no {unknown[0]!r}", f"of {', '.join(self.linear)}"
            )
        return self.layers * r * sum(sum(self.linear[name]) for name in modules)


KNOWN = {
    "llama-2-7b": Shape(32, 4096, 32, 32, 128, 11008, 32000, False),
    "llama-2-13b": Shape(40, 5120, 40, 40, 128, 13824, 32000, False),
    "smollm2-135m": Shape(30, 576, 9, 3, 64, 1536, 49152, True),
}


def shape_of(name: str) -> Shape:
    """A known model, with or without `-chat` or `-instruct`, or a folder with a config.json.

    Raises:
        TrainingError: neither.
    """
    short = name.lower().removesuffix("-chat").removesuffix("-instruct")
    if short in KNOWN:
        return KNOWN[short]
    try:
        content = json.loads((Path(name).expanduser() / "config.json").read_text(encoding="utf-8"))
        return Shape.of(content)
    except (OSError, ValueError, KeyError, TypeError):
        raise TrainingError(
            f"{name}: no model whose shape is known", f"{', '.join(KNOWN)}, or a model's folder"
        ) from None


REWARDS = {"bart-conversation-summary": 203_678_720, "minilm-l6-v2": 22_713_216}
"""Weights of reward encoders, in float32 beside the policy; of BART-large its encoder half."""


def estimate(
    shape: Shape, settings: Policy, devices: int = 1, *, sharded: bool = False, reward: int = 0
) -> dict[str, int]:
    """Bytes by part, on one device, with their sum at the highest moment as `peak`.

    Args:
        shape: of the base.
        settings: `[policy]`.
        devices: that share each batch.
        sharded: they also share the base's blocks (FSDP).
        reward: weights of the reward's encoder.
    """
    wide = BYTES[settings.precision]
    lora = shape.lora(settings.lora_r, settings.target_modules)
    blocks = shape.in_blocks * (NF4 if settings.four_bit else wide)
    tokens = settings.history_tokens + settings.response_tokens
    rows = -(-settings.batch // devices)
    micro = min(settings.micro_batch, settings.batch)
    cache = 2 * shape.layers * shape.key_heads * shape.head_dim * wide
    logits = shape.vocabulary * 4
    parts = {
        "base": (blocks / devices if sharded else blocks) + shape.elsewhere * wide,
        "base, one block whole": blocks / shape.layers if sharded else 0,
        "lora": lora * 4,
        "lora gradients": lora * 4,
        "lora AdamW": lora * 8,
        "value head": (shape.dim + 1) * ADAM,
        "reward": reward * 4,
        "writing: attention cache": rows * tokens * cache,
        "writing: prompts being read": min(micro, rows) * settings.history_tokens * cache,
        # The softmax, its logarithm and the draw's copy of one step of all rows.
        "writing: logits": rows * logits * 4,
        "optimising: activations": micro * tokens * activations(shape, settings),
        # Logits, scaled logits, and the softmax of the backward pass, of reply tokens only.
        "optimising: logits": micro * settings.response_tokens * logits * 3,
    }
    held = sum(v for k, v in parts.items() if ":" not in k)
    phases = [
        sum(v for k, v in parts.items() if k.startswith(p)) for p in ("writing", "optimising")
    ]
    return {k: round(v) for k, v in parts.items()} | {"peak": round(held + max(phases))}


def activations(shape: Shape, settings: Policy) -> float:
    """Bytes a token kept for the backward pass of one micro-batch, at the highest moment.

    With checkpointing each block's input, and one block in full while it is done again. What the
    prompts of a micro-batch share is counted for each, though it is read once.
    """
    above = 2 * shape.dim * 4  # the last norm
    if settings.gradient_checkpointing:
        inputs = shape.layers * shape.dim * BYTES[settings.precision]
        return inputs + block_activations(shape, settings) + above
    return shape.layers * block_activations(shape, settings) + above


def block_activations(shape: Shape, settings: Policy) -> float:
    """Bytes a token that one block keeps: what has a gradient to give needs, no more.

    Frozen linear layers keep nothing; norms what they read, in float32; the attention its queries,
    keys, values, output and log-sums; the gated layer its three operands; LoRA its input in
    float32 (one copy for each module where the pass is in another precision) and A's output.
    """
    wide = BYTES[settings.precision]
    q, kv = shape.heads * shape.head_dim, shape.key_heads * shape.head_dim
    sources: dict[str, int] = {}
    for name in settings.target_modules:
        own = name if wide != 4 or name in ("o_proj", "down_proj") else name in _READ_TOGETHER
        sources[str(own)] = shape.linear[name][0]
    return (
        2 * shape.dim * 4
        + (2 * q + 2 * kv) * wide
        + shape.heads * 4
        + 3 * shape.inner * wide
        + sum(sources.values()) * 4
        + len(settings.target_modules) * settings.lora_r * 4
    )


_READ_TOGETHER = ("q_proj", "k_proj", "v_proj")
"""Layers of the attention that read one and the same tensor; so do gate_proj and up_proj."""
