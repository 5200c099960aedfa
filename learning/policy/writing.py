"""Replies of a policy to many histories at once, for whoever compares, gates or simulates.

    writer = open_writer(config, adapter)      # None: the base
    replies = writer.write(histories, seed=0)

Sampling is the live call's (`[responder]`: temperature, top_p, repetition penalty), the prompt is
the training's (`[policy]`: history_tokens, response_tokens).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from learning.policy.decoding import Sampling, heights, write
from learning.policy.model import PolicyModel, check_files, open_model
from learning.policy.passes import hidden_after, padded, read_all
from learning.policy.prompts import History, Template, tokenizer_of

if TYPE_CHECKING:
    from agent.config import Config

BATCH = 24
"""Replies that are written together."""


def open_writer(config: Config, adapter: Path | None = None) -> Writer:
    """The policy of `[policy]`, else of `[responder]`, with an adapter on it or none; it writes
    here, or where `policy.vllm_url` says.

    Raises:
        TrainingError: the adapter is damaged or was made for another base, or the server fails.
        WeightsError: the base is not here.
    """
    if config.policy.vllm_url is not None:
        from learning.policy.elsewhere import ServedWriter

        return ServedWriter.open(config, adapter)
    return Writer.open(config, adapter)


class Writer:
    """A policy that writes. Use `open_writer`.

    Args:
        model: the base, with an adapter on it or none that does anything.
        template: its prompt.
        sampling: how tokens are drawn. Temperature 0 takes the likeliest.
        temperature: of log-probabilities and KL.
        micro_batch: sequences in one pass of those.
    """

    def __init__(
        self,
        model: PolicyModel,
        template: Template,
        sampling: Sampling,
        temperature: float,
        micro_batch: int,
    ) -> None:
        self.model, self.template = model, template
        self.sampling = sampling
        self._temperature, self._micro = temperature, micro_batch

    @classmethod
    def open(cls, config: Config, adapter: Path | None = None) -> Self:
        """Load the base of `[policy]` (else of `[responder]`), and an adapter onto it.

        Raises:
            TrainingError: the adapter is damaged or was made for another base.
            WeightsError: the base is not here.
        """
        from agent import weights

        settings = config.policy.model_copy(update={"gradient_checkpointing": False})
        base = settings.base or config.responder.model
        if adapter is not None:
            check_files(adapter, base)
        place = weights.ensure(base, config.models)
        device = torch.device(settings.device)
        return cls(
            open_model(place, settings, device, adapter),
            Template(tokenizer_of(place), config.dialogue.system_prompt, settings.history_tokens),
            Sampling(
                config.responder.temperature,
                settings.response_tokens,
                config.responder.top_p,
                config.responder.repetition_penalty,
            ),
            settings.temperature,
            settings.micro_batch,
        )

    def write(self, histories: Sequence[History], seed: int) -> list[str]:
        """One reply a history. The same histories and seed give the same replies.

        Args:
            histories: each ends with a turn of the listener.
            seed: of the draws.
        """
        prompts = [self.template.prompt(history) for history in histories]
        out = [""] * len(prompts)
        chance = heights(len(prompts), self.sampling.tokens, seed)
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            written = write(
                self.model,
                [prompts[i] for i in rows],
                self.template.stops,
                self.sampling,
                chance[rows],
                self._micro,
            )
            for i, ids in zip(rows, written.replies, strict=True):
                out[i] = self.template.text(ids)
        return out

    def logprobs(self, histories: Sequence[History], replies: Sequence[str]) -> list[float]:
        """log π of each reply with the token that ends it, nats, at `policy.temperature`."""
        prompts, ids = self._tokens(histories, replies)
        if not prompts:
            return []
        found, _ = read_all(self.model, prompts, ids, self._temperature, self._micro)
        out: list[float] = found.sum(1).tolist()
        return out

    def kl(self, histories: Sequence[History], replies: Sequence[str]) -> list[float]:
        """KL(π‖base) along each reply, nats, at `policy.temperature`.

        Exact at every token (a sum over the vocabulary) and summed over the tokens of the reply:
        never negative, and of much less variance than log-ratios of the tokens drawn.
        """
        prompts, ids = self._tokens(histories, replies)
        out: list[float] = []
        for start in range(0, len(prompts), self._micro):
            part = slice(start, start + self._micro)
            with torch.no_grad():
                log_p = self._softmax(prompts[part], ids[part])
                with self.model.reference():
                    log_q = self._softmax(prompts[part], ids[part])
                each = (log_p.exp() * (log_p - log_q)).sum(-1).clamp(min=0)
            lengths = [len(reply) for reply in ids[part]]
            out += [float(tokens.sum()) for tokens in each.split(lengths)]
        return out

    def _tokens(
        self, histories: Sequence[History], replies: Sequence[str]
    ) -> tuple[list[list[int]], list[list[int]]]:
        limit = self.sampling.tokens
        prompts = [self.template.prompt(history) for history in histories]
        return prompts, [self.template.reply(text, limit) for text in replies]

    def _softmax(self, prompts: list[list[int]], replies: list[list[int]]) -> Tensor:
        """log π at every reply token, [all tokens, vocabulary]."""
        hidden = hidden_after(self.model, prompts, replies)
        _, mask = padded(replies, self.model.device)
        return (self.model.logits(hidden[mask]) / self._temperature).log_softmax(-1)
