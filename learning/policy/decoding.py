"""Many replies at once: one token a step for all that still write, on one attention cache.

The cache is allocated once; what all prompts begin with is read once; prompts are read in buckets
of about one length; whoever has ended leaves the batch. Log-probabilities, values and entropies
come from the states the tokens were drawn in, so that PPO needs no second pass for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from learning.policy.model import PolicyModel
from learning.policy.passes import Ids, by_length, padded, read_prefix, shared_prefix

LEAVE = 0.75
"""The batch is made smaller once this share or less of it still writes."""


@dataclass(slots=True, frozen=True)
class Sampling:
    """How tokens are drawn; temperature 0 takes the likeliest. PPO needs `top_p` 1 and
    `repetition_penalty` 1: its ratios are of the whole softmax at `temperature`."""

    temperature: float
    tokens: int
    """At most, the one that ends the reply included."""
    top_p: float = 1.0
    repetition_penalty: float = 1.0


@dataclass(slots=True)
class Written:
    """Replies and what is known of each token; tensors are [replies, longest], 0 beyond an end."""

    replies: list[list[int]]
    """Token ids, with the one that ended it where one did."""
    ended: list[bool]
    logprobs: Tensor
    """log π at the temperature, before top_p and penalties."""
    values: Tensor
    entropy: Tensor
    """Nats, of the softmax at the temperature."""
    mask: Tensor

    @classmethod
    def joined(
        cls, parts: Sequence[tuple[Sequence[int], Written]], device: torch.device
    ) -> Written:
        """What several processes wrote, in one order.

        Args:
            parts: the numbers of the rows that each wrote, and what.
            device: where to.
        """
        n = sum(len(rows) for rows, _ in parts)
        width = max(written.mask.shape[1] for _, written in parts)
        out = cls([[] for _ in range(n)], [False] * n, *(torch.zeros(n, width) for _ in range(4)))
        out.mask = out.mask.bool()
        for rows, written in parts:
            for i, reply, ended in zip(rows, written.replies, written.ended, strict=True):
                out.replies[i], out.ended[i] = reply, ended
            for name in TENSORS:
                part = getattr(written, name)
                getattr(out, name)[list(rows), : part.shape[1]] = part.cpu()
        return out.to(device)

    def to(self, device: torch.device) -> Written:
        """The same there."""
        tensors = (getattr(self, name).to(device) for name in TENSORS)
        return Written(self.replies, self.ended, *tensors)


TENSORS = ("logprobs", "values", "entropy", "mask")


def heights(rows: int, tokens: int, seed: int) -> Tensor:
    """What chance gives each token of each reply, uniform in [0, 1), [rows, tokens].

    Drawn for all rows before anything is written, so that a reply does not depend on who else
    still writes, nor on which process writes it.
    """
    made = torch.Generator().manual_seed(seed)
    return torch.rand(rows, tokens, generator=made, dtype=torch.float64)


class _Cache:
    """Keys and values [batch, heads, columns, dim] of every layer, allocated for a whole reply."""

    def __init__(self, model: PolicyModel, rows: int, columns: int) -> None:
        from transformers import DynamicCache
        from transformers.cache_utils import DynamicLayer

        class Fixed(DynamicLayer):  # type: ignore[misc]
            """A layer whose buffers do not grow: no copy of all that was read at every token."""

            used = 0

            def lazy_initialization(self, keys: Any, values: Any) -> None:
                self.dtype, self.device = keys.dtype, keys.device
                shape = (rows, keys.shape[1], columns, keys.shape[3])
                self.keys, self.values = keys.new_zeros(shape), values.new_zeros(shape)
                self.is_initialized = True

            def update(self, keys: Any, values: Any, *_: Any, **__: Any) -> tuple[Any, Any]:
                if not self.is_initialized:
                    self.lazy_initialization(keys, values)
                at = slice(self.used, self.used + keys.shape[2])
                self.keys[:, :, at], self.values[:, :, at] = keys, values
                self.used = at.stop
                return self.keys[:, :, : at.stop], self.values[:, :, : at.stop]

            def get_seq_length(self) -> int:
                return self.used

        self.past = DynamicCache()
        self.past.layers = [Fixed() for _ in range(model.config.num_hidden_layers)]
        self.past.layer_class_to_replicate = None

    def put(self, rows: list[int], past: Any, used: int) -> None:
        """Copy what was read of a bucket of rows to the front of the buffers."""
        for layer, read in zip(self.past.layers, past.layers, strict=True):
            if not layer.is_initialized:
                layer.lazy_initialization(read.keys, read.values)
            layer.keys[rows, :, : read.keys.shape[2]] = read.keys
            layer.values[rows, :, : read.keys.shape[2]] = read.values
            layer.used = used

    def keep(self, rows: Tensor) -> None:
        """Only these rows go on."""
        for layer in self.past.layers:
            layer.keys, layer.values = layer.keys[rows], layer.values[rows]


def write(
    model: PolicyModel,
    prompts: Sequence[Ids],
    stops: set[int],
    sampling: Sampling,
    chance: Tensor,
    bucket: int = 8,
    going: Callable[[bool], bool] = bool,
) -> Written:
    """Draw a reply to every prompt.

    Args:
        model: adapter on or off, as it is.
        prompts: token ids.
        stops: tokens that end a reply.
        sampling: how.
        chance: `heights` of these rows; the same and the same prompts give the same replies.
        bucket: prompts read at a time.
        going: whether to do one more step, given whether a reply here still is written.
    """
    with torch.no_grad():
        return _write(model, prompts, stops, sampling, chance, bucket, going)


def _write(
    model: PolicyModel,
    prompts: Sequence[Ids],
    stops: set[int],
    sampling: Sampling,
    chance: Tensor,
    bucket: int,
    going: Callable[[bool], bool],
) -> Written:
    n, device = len(prompts), model.device
    hidden, cache, mask = _read_prompts(model, prompts, sampling.tokens, bucket)
    column = max(map(len, prompts))
    position = torch.tensor([len(p) for p in prompts], device=device)
    logprobs = torch.zeros(n, sampling.tokens)
    values, entropy = torch.zeros_like(logprobs), torch.zeros_like(logprobs)
    replies: list[list[int]] = [[] for _ in prompts]
    ended = [False] * n
    alive = list(range(n))
    rows = torch.arange(n, device=device)  # rows of the batch that still write
    ends = torch.tensor(sorted(stops), device=device)
    for t in range(sampling.tokens):
        state = hidden[rows]
        logits = model.logits(state)
        tokens, at = _draw(logits, prompts, replies, alive, sampling, chance[alive, t])
        logprobs[alive, t] = at[0].cpu()
        entropy[alive, t] = at[1].cpu()
        values[alive, t] = model.values(state).cpu()
        for i, token in zip(alive, tokens.tolist(), strict=True):
            replies[i].append(token)
        stopped = torch.isin(tokens, ends)
        for i, stop in zip(alive, stopped.tolist(), strict=True):
            ended[i] = stop
        alive = [i for i in alive if not ended[i]]
        if t + 1 == sampling.tokens or not going(bool(alive)):
            break
        step = torch.zeros(len(mask), dtype=torch.long, device=device)
        step[rows] = tokens
        rows = rows[~stopped]
        if 0 < len(rows) <= LEAVE * len(mask):
            cache.keep(rows)
            mask, position, step = mask[rows], position[rows], step[rows]
            rows = torch.arange(len(rows), device=device)
        mask[:, column] = True
        column += 1
        out = model.trunk(
            input_ids=step[:, None],
            attention_mask=mask[:, :column],
            position_ids=position[:, None],
            past_key_values=cache.past,
            use_cache=True,
        )
        hidden = out.last_hidden_state[:, -1]
        position = position + 1
    width = max(map(len, replies))
    _, real = padded(replies, torch.device("cpu"))
    tensors = (x[:, :width].to(device) for x in (logprobs, values, entropy, real))
    return Written(replies, ended, *tensors)


def _read_prompts(
    model: PolicyModel, prompts: Sequence[Ids], more: int, bucket: int
) -> tuple[Tensor, _Cache, Tensor]:
    """The states after the prompts [rows, dim], the cache, which columns are real [rows, all]."""
    from transformers import DynamicCache

    share = shared_prefix(prompts)
    prefix = read_prefix(model, prompts[0][:share]) if share else []
    hidden: list[Any] = [None] * len(prompts)
    longest = max(map(len, prompts))
    cache = _Cache(model, len(prompts), longest + more)
    for rows in by_length(prompts, [()] * len(prompts), bucket):
        n = len(rows)
        ids, _ = padded([prompts[i][share:] for i in rows], model.device)
        shared = [(k.expand(n, -1, -1, -1), v.expand(n, -1, -1, -1)) for k, v in prefix]
        past = DynamicCache(shared) if share else DynamicCache()
        out = model.trunk(input_ids=ids, past_key_values=past, use_cache=True).last_hidden_state
        for row, i in enumerate(rows):
            hidden[i] = out[row, len(prompts[i]) - share - 1]
        cache.put(rows, past, longest)
    lengths = torch.tensor([len(p) for p in prompts], device=model.device)
    mask = torch.arange(longest + more, device=model.device) < lengths[:, None]
    return torch.stack(hidden), cache, mask


def _draw(
    logits: Tensor,
    prompts: Sequence[Ids],
    replies: list[list[int]],
    alive: list[int],
    sampling: Sampling,
    chance: Tensor,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """A token a row; and its log-probability and the entropy of the softmax it came from."""
    if sampling.repetition_penalty != 1.0:
        logits = _penalised(logits, prompts, replies, alive, sampling.repetition_penalty)
    if sampling.temperature == 0:  # the likeliest, for certain
        tokens = logits.argmax(-1)
        certain = torch.zeros(len(tokens), device=logits.device)
        return tokens, (certain, certain)
    scaled = logits / sampling.temperature
    log_all = scaled.log_softmax(-1)
    p = log_all.exp()
    entropy = -(p * log_all).sum(-1)
    if sampling.top_p < 1.0:
        ordered, order = p.sort(dim=-1, descending=True)
        beyond = ordered.cumsum(-1) - ordered >= sampling.top_p
        p = torch.zeros_like(p).scatter(-1, order, ordered.masked_fill(beyond, 0.0))
    # By the inverse of the distribution function: multinomial draws a number for every word.
    ladder = p.double().cumsum(-1)
    height = chance[:, None].to(p.device)
    tokens = torch.searchsorted(ladder, height * ladder[:, -1:], right=True)
    tokens = tokens.clamp(max=p.shape[-1] - 1)
    return tokens.squeeze(-1), (log_all.gather(-1, tokens).squeeze(-1), entropy)


RECENT = 64
"""The repetition penalty looks back this far into the prompt (as in a live call)."""


def _penalised(
    logits: Tensor, prompts: Sequence[Ids], replies: list[list[int]], alive: list[int], by: float
) -> Tensor:
    logits = logits.clone()
    for row, i in enumerate(alive):
        seen = torch.tensor(sorted({*replies[i], *prompts[i][-RECENT:]}), device=logits.device)
        picked = logits[row, seen]
        logits[row, seen] = torch.where(picked > 0, picked / by, picked * by)
    return logits
