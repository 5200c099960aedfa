"""Several dialogues through one network: one pass writes a token of each of them.

A pass reads all weights however few tokens go through it, so tokens of several replies cost little
more than one: SmolLM2-135M int8 on one core took 16 ms of CPU for one, 19 for two, 25 for four and
37 for eight (a context of 300 tokens each). Linear layers see all rows at once; attention goes row
by row, each over its own cache, so that nothing is padded or copied.

There is no thread here: whoever finds the network free runs it for all who wait. What is read
(a prompt) goes in pieces, with a pass of the others' tokens in between.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

PIECE_TOKENS = 64
"""A longer text is read in pieces of this: 50 to 80 ms on one core, which other replies wait."""
TOGETHER_S = 0.004
"""How long a pass waits for the other replies' tokens to be drawn; drawing one takes 1 ms."""
LARGEST = 16
"""Rows of one pass."""
ATTENTION = "geli_rows"
MODELS = frozenset({"llama"})
"""Architectures whose passes were checked against those of one row (SmolLM2 and LLaMA-2 are such);
others are stepped one by one."""


@dataclass(slots=True)
class _Step:
    """One token to be read, and what came of it."""

    token: int
    cache: Any
    logits: Any = None
    """After the token, [vocabulary]."""
    error: BaseException | None = None

    @property
    def done(self) -> bool:
        return self.logits is not None or self.error is not None


class Network:
    """A causal language model that several threads read with, each its own cache.

    Args:
        model: of transformers.
        device: where it is.
        together: False steps the replies one by one.
    """

    def __init__(self, model: Any, device: str, together: bool = True) -> None:
        self.model: Any = model
        self._device = device
        self._rows = together and getattr(model.config, "model_type", "") in MODELS
        if self._rows:
            from transformers import AttentionInterface

            AttentionInterface.register(ATTENTION, _attend)
        self._changed = threading.Condition()
        # Under the condition's lock:
        self._busy = False
        self._waiting: list[_Step] = []
        self._replying = 0

    @contextlib.contextmanager
    def replying(self) -> Iterator[None]:
        """While it lasts, a pass waits a little for this thread's tokens."""
        with self._changed:
            self._replying += 1
        try:
            yield
        finally:
            with self._changed:
                self._replying -= 1
                self._changed.notify_all()

    def read(self, tokens: list[int], cache: Any) -> Any:
        """Read `tokens` (one or more) after what `cache` has; the logits after the last one,
        [vocabulary], float32 on the CPU. `cache` grows; after an error it is undefined.

        Raises:
            RuntimeError: the model failed.
        """
        if len(tokens) == 1:
            return self._step(_Step(tokens[0], cache))
        logits = None
        for begin in range(0, len(tokens), PIECE_TOKENS):
            with self._changed:
                self._changed.wait_for(lambda: not self._busy)
                self._busy = True
                others = self._take()
            try:
                if others:
                    self._pass(others)
                logits = self._forward(tokens[begin : begin + PIECE_TOKENS], cache)
            finally:
                self._release()
        return logits

    def _step(self, mine: _Step) -> Any:
        with self._changed:
            self._waiting.append(mine)
            self._changed.notify_all()
            self._changed.wait_for(lambda: mine.done or not self._busy)
            if not mine.done:  # the network is free: run it, for whoever waits
                self._busy = True
                self._changed.wait_for(
                    lambda: len(self._waiting) >= min(self._replying, LARGEST), TOGETHER_S
                )
                batch = self._take(mine)
        if not mine.done:
            try:
                self._pass(batch)
            finally:
                self._release()
        if mine.error is not None:
            raise mine.error
        return mine.logits

    def _take(self, first: _Step | None = None) -> list[_Step]:
        """What waits, the longest waiting first, `first` in any case. Under the lock."""
        if first is not None:
            self._waiting.remove(first)
            self._waiting.insert(0, first)
        batch, self._waiting = self._waiting[:LARGEST], self._waiting[LARGEST:]
        return batch

    def _release(self) -> None:
        with self._changed:
            self._busy = False
            self._changed.notify_all()

    def _pass(self, batch: list[_Step]) -> None:
        """Read one token of each; an error is everybody's."""
        try:
            if len(batch) == 1 or not self._rows:
                for step in batch:
                    step.logits = self._forward([step.token], step.cache)
            else:
                for step, logits in zip(batch, self._forward_rows(batch), strict=True):
                    step.logits = logits
        except BaseException as error:
            for step in batch:
                if not step.done:
                    step.error = error
            if not isinstance(error, Exception):
                raise

    def _forward(self, tokens: list[int], cache: Any) -> Any:
        import torch

        with torch.inference_mode():
            new = torch.tensor([tokens], device=self._device)
            out = self.model(new, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return out.logits[0, -1].float().cpu().clone()  # clone: no longer an inference tensor

    def _forward_rows(self, batch: list[_Step]) -> list[Any]:
        import torch

        config = self.model.config
        before = config._attn_implementation
        config._attn_implementation = ATTENTION
        try:
            with torch.inference_mode():
                out = self.model(
                    torch.tensor([[step.token] for step in batch], device=self._device),
                    position_ids=torch.tensor(
                        [[step.cache.get_seq_length()] for step in batch], device=self._device
                    ),
                    # Of four dimensions, so that it is passed on as it is; `_attend` needs none.
                    attention_mask=torch.zeros(1, 1, 1, 1, device=self._device),
                    past_key_values=_Rows([step.cache for step in batch]),
                    use_cache=True,
                    logits_to_keep=1,
                )
        finally:
            config._attn_implementation = before
        return [row.clone() for row in out.logits[:, -1].float().cpu()]


class _Rows:
    """The caches of a pass, one a row, where a model expects one cache."""

    is_compileable = False

    def __init__(self, caches: list[Any]) -> None:
        self._caches = caches

    def update(self, keys: Any, values: Any, layer: int, *_: Any, **__: Any) -> tuple[Any, Any]:
        """Append keys and values `[rows, heads, 1, size]`; all of a layer's, a list by row of
        `[1, heads, tokens, size]`."""
        both = [
            cache.update(keys[row : row + 1], values[row : row + 1], layer)
            for row, cache in enumerate(self._caches)
        ]
        return [k for k, _ in both], [v for _, v in both]

    def get_seq_length(self, *_: Any) -> int:
        """Not asked for: positions are given."""
        return 0


def _attend(
    module: Any,
    query: Any,
    keys: list[Any],
    values: list[Any],
    mask: Any,
    *,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Any, None]:
    """Attention of one new token a row over that row's own keys and values (lists of
    `[1, key heads, tokens, size]`): `[rows, 1, query heads, size]`.

    The query heads that share a key head go as so many positions; there is nothing to mask.
    """
    import torch

    rows, heads, _, size = query.shape
    shared = keys[0].shape[1]
    grouped = query.view(rows, shared, heads // shared, size)
    attended = [
        torch.nn.functional.scaled_dot_product_attention(
            grouped[row : row + 1], keys[row], values[row], scale=scaling
        )
        for row in range(rows)
    ]
    return torch.cat(attended).view(rows, 1, heads, size), None
