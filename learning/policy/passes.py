"""Passes of the policy over prompts and replies, without work that nobody reads.

What all prompts of a batch begin with (the system prompt) is read once and its keys and values are
shared, with gradients; padding stands on the right, so that causality alone hides it; logits are
made for reply tokens only. The results are those of one plain pass a sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from learning.policy.model import PolicyModel
from learning.processes import ALONE, Processes

Ids = Sequence[int]


@dataclass(slots=True)
class Read:
    """One pass over replies after their prompts."""

    logprobs: Tensor
    """log π(token) at the sampling temperature, [batch, longest reply]; 0 beyond a reply's end."""
    hidden: Tensor
    """The state each reply token was drawn in, [batch, longest reply, dim]."""
    mask: Tensor
    """Which positions hold a reply token, [batch, longest reply]."""


def shared_prefix(prompts: Sequence[Ids]) -> int:
    """How many tokens all prompts begin with; every prompt keeps one of its own."""
    least, most = min(map(tuple, prompts)), max(map(tuple, prompts))
    n = 0
    for a, b in zip(least, most, strict=False):
        if a != b:
            break
        n += 1
    return min(n, min(map(len, prompts)) - 1)


def padded(rows: Sequence[Ids], device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids padded on the right by 0 and which of them are real, both [rows, longest]."""
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return ids, torch.arange(width, device=device) < lengths[:, None]


def read_prefix(model: PolicyModel, ids: Ids) -> list[tuple[Tensor, Tensor]]:
    """Keys and values of a prefix in each layer, [1, heads, tokens, dim]."""
    from transformers import DynamicCache

    cache = DynamicCache()
    model.trunk(
        input_ids=torch.tensor([list(ids)], device=model.device),
        past_key_values=cache,
        use_cache=True,
    )
    return [(layer.keys, layer.values) for layer in cache.layers]


def hidden_after(model: PolicyModel, prompts: Sequence[Ids], replies: Sequence[Ids]) -> Tensor:
    """Hidden states that the reply tokens were drawn in, [batch, longest reply, dim].

    Args:
        model: adapter on or off, as it is.
        prompts: token ids.
        replies: token ids, at least one each.
    """
    from transformers import DynamicCache

    share = shared_prefix(prompts) if model.may_share else 0
    rows = [[*p, *r[:-1]][share:] for p, r in zip(prompts, replies, strict=True)]
    ids, _ = padded(rows, model.device)
    cache: Any = None
    if share:
        prefix = read_prefix(model, prompts[0][:share])
        cache = DynamicCache(
            [(k.expand(len(rows), -1, -1, -1), v.expand(len(rows), -1, -1, -1)) for k, v in prefix]
        )
    out = model.trunk(input_ids=ids, past_key_values=cache, use_cache=share > 0)
    hidden: Tensor = out.last_hidden_state
    longest = max(map(len, replies))
    first = torch.tensor([len(p) - share - 1 for p in prompts], device=model.device)
    at = first[:, None] + torch.arange(longest, device=model.device)
    at = at.clamp(max=hidden.shape[1] - 1)
    return hidden.gather(1, at[..., None].expand(-1, -1, hidden.shape[-1]))


def read(
    model: PolicyModel, prompts: Sequence[Ids], replies: Sequence[Ids], temperature: float
) -> Read:
    """Log-probabilities and states of replies in one pass; gradients as the caller has them on."""
    hidden = hidden_after(model, prompts, replies)
    tokens, mask = padded(replies, model.device)
    logprobs = hidden.new_zeros(tokens.shape, dtype=torch.float32)
    # Only real tokens meet the vocabulary: 49,152 logits each.
    logprobs = logprobs.masked_scatter(
        mask, chosen(model.logits(hidden[mask]) / temperature, tokens[mask])
    )
    return Read(logprobs, hidden, mask)


def chosen(logits: Tensor, tokens: Tensor) -> Tensor:
    """log softmax of the logits [n, vocabulary] at tokens [n]."""
    return logits.gather(-1, tokens[:, None]).squeeze(-1) - logits.logsumexp(-1)


def by_length(prompts: Sequence[Ids], replies: Sequence[Ids], size: int) -> list[list[int]]:
    """Indices in batches of sequences of about one length, the longest first."""
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]) - len(replies[i]))
    return [order[i : i + size] for i in range(0, len(order), size)]


def read_all(
    model: PolicyModel,
    prompts: Sequence[Ids],
    replies: Sequence[Ids],
    temperature: float,
    size: int,
    processes: Processes = ALONE,
) -> tuple[Tensor, Tensor]:
    """Log-probabilities and values of many replies without gradients, [replies, longest]."""

    def once(rows: list[int]) -> tuple[Tensor, Tensor]:
        got = read(model, [prompts[i] for i in rows], [replies[i] for i in rows], temperature)
        return got.logprobs.cpu(), (model.values(got.hidden) * got.mask).cpu()

    logprobs = torch.zeros(len(replies), max(map(len, replies)))
    values = torch.zeros_like(logprobs)
    units = by_length(prompts, replies, size)
    with torch.no_grad():
        found = processes.shared(units, once)
    for rows, (p, v) in zip(units, found, strict=True):
        logprobs[rows, : p.shape[1]], values[rows, : v.shape[1]] = p, v
    return logprobs.to(model.device), values.to(model.device)
