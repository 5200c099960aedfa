"""How long an update of a policy takes on a given card, worked out from the model's shape.

Each phase is passes of the trunk; a pass takes the longest of its arithmetic (FLOPs over the card's
rate times a share that is reached, MFU), its reading (weights and attention cache over the card's
bandwidth) and its launches (an eager block takes half a millisecond of Python however little it has
to do). Writing is one pass a token and reads the whole base each time; the other phases are few,
large passes. Tests hold the FLOPs against PyTorch's own counter.

Counted as the code does them: what all prompts begin with is read once a pass, logits are made for
reply tokens only, a frozen weight has no gradient of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from learning.policy.memory import BYTES, NF4, Shape
from learning.policy.sft import unit

if TYPE_CHECKING:
    from agent.learning_config import Policy

BART_ENCODER = 151_154_688
"""Weights in the blocks of BART-large's encoder half: the paper's reward."""


@dataclass(slots=True, frozen=True)
class Card:
    """One accelerator, by its data sheet."""

    name: str
    flops: float
    """FLOP/s in bfloat16 with float32 sums, dense."""
    bandwidth: float
    """Bytes/s of its memory."""
    memory: float
    """Bytes."""
    link: float
    """Bytes/s to the other cards of its machine, one way."""


CARDS = (
    Card("RTX A6000", 154.8e12, 768e9, 48e9, 25e9),
    Card("A100 80 GB", 312e12, 2039e9, 80e9, 300e9),
    Card("H100 80 GB", 989e12, 3350e9, 80e9, 450e9),
)


@dataclass(slots=True, frozen=True)
class Reached:
    """What of a card is used; assumptions, and good ones for eager PyTorch."""

    mfu: float = 0.4
    """Share of the FLOP rate, in passes of some thousand tokens."""
    bandwidth: float = 0.7
    """Share of the memory's bandwidth."""
    link: float = 0.7
    """Share of the link's."""
    block_s: float = 0.5e-3
    """Seconds a block takes at least: some 40 launches from Python, PEFT's among them."""


@dataclass(slots=True, frozen=True)
class Pass:
    """Equal passes of one device."""

    flops: float
    """Of one."""
    bytes: float
    """That one reads."""
    blocks: float
    """That one launches."""
    times: float = 1.0
    gathered: float = 0.0
    """Bytes of other devices' shards that one needs."""

    def seconds(self, card: Card, reached: Reached) -> float:
        """Of all of them."""
        return self.times * max(
            self.flops / (card.flops * reached.mfu),
            self.bytes / (card.bandwidth * reached.bandwidth),
            self.blocks * reached.block_s,
            self.gathered / (card.link * reached.link),
        )


@dataclass(slots=True, frozen=True)
class Lengths:
    """Tokens of one batch."""

    prefix: int
    """What all prompts begin with."""
    prompts: Sequence[int]
    """Of each prompt, the prefix included."""
    replies: Sequence[int]

    @classmethod
    def longest(cls, settings: Policy, prefix: int = 64) -> Lengths:
        """A batch that uses all of its budget."""
        n = settings.batch
        return cls(prefix, [settings.history_tokens] * n, [settings.response_tokens] * n)

    def units(self, size: int, replied: bool = True) -> Iterator[Lengths]:
        """Micro-batches of about one length, as `passes.by_length` cuts them."""
        rows = [*zip(self.prompts, self.replies, strict=True)]
        rows.sort(key=lambda row: -row[0] - row[1] * replied)
        for start in range(0, len(rows), size):
            prompts, replies = zip(*rows[start : start + size], strict=True)
            yield Lengths(self.prefix, prompts, replies)


@dataclass(slots=True, frozen=True)
class Model:
    """A base with LoRA, on one of several devices."""

    shape: Shape
    settings: Policy
    devices: int = 1
    sharded: bool = False

    @property
    def weights(self) -> float:
        """Bytes of the blocks' frozen weights."""
        s = self.settings
        return self.shape.in_blocks * (NF4 if s.four_bit else BYTES[s.precision])

    @property
    def gathered(self) -> float:
        """Bytes of other devices' shards that a pass of all blocks needs."""
        return self.weights * (self.devices - 1) / self.devices if self.sharded else 0.0

    def forward(self, rows: int, tokens: int, before: int, logits: int) -> float:
        """FLOPs of one pass.

        Args:
            rows: sequences.
            tokens: new ones, of each.
            before: in the attention cache.
            logits: states that meet the vocabulary.
        """
        s, n = self.shape, rows * tokens
        lora = s.lora(self.settings.lora_r, self.settings.target_modules)
        attention = 4 * s.layers * s.heads * s.head_dim * n * (before + tokens)
        return 2 * (s.in_blocks + lora) * n + attention + 2 * s.vocabulary * s.dim * logits

    def cache(self, rows: int, tokens: int) -> float:
        """Bytes of the attention cache."""
        s = self.shape
        return (
            2 * s.layers * s.key_heads * s.head_dim * rows * tokens * BYTES[self.settings.precision]
        )


def phases(model: Model, lengths: Lengths, reward_tokens: int = 256) -> dict[str, list[Pass]]:
    """The passes of one update on one device, the one with the most to do, by phase.

    Args:
        model: what is trained.
        lengths: of the whole batch.
        reward_tokens: that the reward reads of each history and reply (`reward.max_tokens`).
    """
    settings, devices = model.settings, model.devices
    mine = Lengths(lengths.prefix, lengths.prompts[::devices], lengths.replies[::devices])
    units = list(lengths.units(settings.micro_batch))[::devices]
    with_gradients = [_trained(model, part) for part in units] * settings.ppo_epochs
    if settings.pretrain_weight:
        size = min(settings.micro_batch, len(lengths.prompts))
        drawn = Lengths(0, lengths.prompts[:size], lengths.replies[:size])
        pairs = list(drawn.units(unit(settings.micro_batch)))[::devices]
        steps = settings.ppo_epochs * settings.mini_batches
        with_gradients += [_trained(model, pair) for pair in pairs] * steps
    scored = 2 * BART_ENCODER * reward_tokens * len(lengths.prompts)  # by every process
    return {
        "write": list(_written(model, mine)),
        "score": [Pass(scored, 2 * BART_ENCODER, 12)],
        "reference": [p for part in units for p in _read(model, part)] * 2,  # base and policy
        "optimise": with_gradients,
    }


def _written(model: Model, lengths: Lengths) -> Iterator[Pass]:
    """Prompts in buckets, then one pass a token for all that still write."""
    layers, share = model.shape.layers, lengths.prefix
    rows, longest = len(lengths.prompts), max(lengths.prompts)
    if share:
        yield _pass(model, model.forward(1, share, 0, 0))
    for bucket in lengths.units(model.settings.micro_batch, replied=False):
        width = max(bucket.prompts) - share
        yield _pass(model, model.forward(len(bucket.prompts), width, share, 0))
    kept = rows
    for step in range(1, max(lengths.replies)):
        alive = sum(r > step for r in lengths.replies)
        if alive <= 0.75 * kept:
            kept = alive
        flops = model.forward(kept, 1, longest + step - 1, alive)
        table = model.shape.vocabulary * model.shape.dim * BYTES[model.settings.precision]
        read = model.weights + table + model.cache(kept, longest + step)
        yield Pass(flops, read, layers, 1.0, model.gathered)
    yield Pass(2 * model.shape.vocabulary * model.shape.dim * rows, 0, 0)


def _read(model: Model, part: Lengths) -> Iterator[Pass]:
    """One micro-batch without gradients: the prefix once, then all rows."""
    share = part.prefix
    if share:
        yield _pass(model, model.forward(1, share, 0, 0))
    width = max(p + r for p, r in zip(part.prompts, part.replies, strict=True)) - share - 1
    yield _pass(model, model.forward(len(part.prompts), width, share, sum(part.replies)))


def _trained(model: Model, part: Lengths) -> Pass:
    """One micro-batch with gradients: forward, again where checkpointed, and backward.

    A frozen layer's backward is as dear as its forward (the gradient of its input only), LoRA's and
    the attention's twice. Nothing below the first adapter has a gradient.
    """
    settings, shape = model.settings, model.shape
    again = settings.gradient_checkpointing
    plain = again or model.sharded
    part = Lengths(0, part.prompts, part.replies) if plain else part
    n, share = len(part.prompts), part.prefix
    width = max(p + r for p, r in zip(part.prompts, part.replies, strict=True)) - share - 1
    tokens, logits = n * width + share, sum(part.replies)
    lora = shape.lora(settings.lora_r, settings.target_modules)
    forward = model.forward(n, width, share, logits) + (
        model.forward(1, share, 0, 0) if share else 0
    )
    head = 2 * shape.vocabulary * shape.dim * logits
    attention = forward - head - 2 * (shape.in_blocks + lora) * tokens
    backward = head + 2 * attention + 2 * (shape.in_blocks + 2 * lora) * tokens
    backward -= 2 * tokens * _below(shape, settings)
    passes = 3 if again else 2
    return Pass(
        forward + backward + (forward - head if again else 0),
        passes * model.weights,
        passes * shape.layers * (2 if share else 1),
        1.0,
        2 * model.gathered,
    )


def _below(shape: Shape, settings: Policy) -> int:
    """Weights of the first block whose input needs no gradient, its adapters' A included."""
    first = ("q_proj", "k_proj", "v_proj")
    frozen = sum(a * b for name, (a, b) in shape.linear.items() if name in first)
    lora = sum(shape.linear[m][0] * settings.lora_r for m in settings.target_modules if m in first)
    return frozen + lora


def _pass(model: Model, flops: float) -> Pass:
    return Pass(flops, model.weights, model.shape.layers, 1.0, model.gathered)


def seconds(
    model: Model,
    card: Card,
    lengths: Lengths | None = None,
    reached: Reached | None = None,
    reward_tokens: int = 256,
) -> dict[str, float]:
    """Seconds of one update by phase, and `all` of them.

    Args:
        model: what is trained, on how many devices.
        card: each of them.
        lengths: of the batch; None: one that uses all of its budget.
        reached: what of the card is used.
        reward_tokens: see `phases`.
    """
    lengths = lengths or Lengths.longest(model.settings)
    found = {
        phase: sum(p.seconds(card, reached or Reached()) for p in passes)
        for phase, passes in phases(model, lengths, reward_tokens).items()
    }
    return found | {"all": sum(found.values())}


def flops(passes: Sequence[Pass]) -> float:
    """Of one phase."""
    return sum(p.flops * p.times for p in passes)
