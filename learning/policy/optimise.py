"""The passes with gradients over one batch of replies.

A mini-batch is cut into the same micro-batches however many processes there are; each process does
its share of them, and gradients are summed. Dropout is seeded by the micro-batch.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from learning.policy import sft
from learning.policy.batch import Batch
from learning.policy.gradients import Gradients
from learning.policy.model import PolicyModel
from learning.policy.passes import by_length, read
from learning.policy.ppo import policy_loss, value_loss
from learning.processes import Processes

if TYPE_CHECKING:
    from agent.learning_config import Policy

LARGEST_GRADIENT = 1.0
"""Norm that gradients are clipped to, of the adapter and of the value head."""


@dataclass(slots=True, frozen=True)
class Optimiser:
    """What learns from batches."""

    model: PolicyModel
    optimizer: Any
    settings: Policy
    processes: Processes
    real: sft.RealReplies | None = None
    """Replies of the data, for γ of equation 10."""

    @classmethod
    def of(
        cls,
        model: PolicyModel,
        settings: Policy,
        processes: Processes,
        real: sft.RealReplies | None,
    ) -> Optimiser:
        """With AdamW at its beginning."""
        groups = [
            {"params": model.adapter, "lr": settings.learning_rate},
            {"params": list(model.head.parameters()), "lr": settings.value_learning_rate},
        ]
        made = torch.optim.AdamW(groups, weight_decay=0.0)
        return cls(model, made, settings, processes, real)

    def learn(self, number: int, batch: Batch, seed: Callable[[str, int], int]) -> dict[str, float]:
        """All passes over one batch; means over them of losses and clipping.

        Args:
            number: of the update.
            batch: the whole of it, in every process.
            seed: of a kind of draw in one update.
        """
        settings = self.settings
        n = len(batch.prompts)
        order = random.Random(seed("order", number))
        sums = dict.fromkeys(("policy_loss", "value_loss", "clip_fraction"), 0.0)
        steps, ratio_first, norm, pretrain = 0, 0.0, 0.0, 0.0
        for _ in range(settings.ppo_epochs):
            shuffled = order.sample(range(n), n)
            for k in range(settings.mini_batches):
                chosen = shuffled[k :: settings.mini_batches]
                if not chosen:
                    continue
                gradients = Gradients(self.model, self.processes)
                parts, ratio = self._backward(batch, chosen, gradients)
                if steps == 0:
                    ratio_first = ratio
                if self.real is not None and settings.pretrain_weight:
                    step = number * settings.ppo_epochs * settings.mini_batches + steps
                    pretrain += sft.backward(
                        self.model,
                        self.real.draw(step * 1_000, settings.micro_batch),
                        settings.pretrain_weight,
                        sft.unit(settings.micro_batch),
                        seed("dropout", step),
                        gradients,
                    )
                gradients.add_up()
                norm = max(norm, self._step())
                for key, value in zip(sums, parts, strict=True):
                    sums[key] += value
                steps += 1
        out = {key: value / steps for key, value in sums.items()}
        out |= {"ratio_first": ratio_first, "gradient_norm": norm}
        if settings.pretrain_weight:
            out["pretrain_loss"] = pretrain / steps
        return out

    def _backward(
        self, batch: Batch, chosen: Sequence[int], gradients: Gradients
    ) -> tuple[list[float], float]:
        """Gradients of this process's micro-batches, each by its share of all tokens.

        Returns:
            Losses and clipping of the whole mini-batch, and how far a token's probability is from
            where it was.
        """
        settings, written = self.settings, batch.written
        prompts = [batch.prompts[i] for i in chosen]
        replies = [written.replies[i] for i in chosen]
        tokens = float(written.mask[list(chosen)].sum())
        units = by_length(prompts, replies, settings.micro_batch)
        done: list[tuple[float, ...]] = []
        with self.model.gradients():
            for i, real in gradients.turns(len(units)):
                picked = units[i]
                got = read(
                    self.model,
                    [prompts[i] for i in picked],
                    [replies[i] for i in picked],
                    settings.temperature,
                )
                rows, width = [chosen[i] for i in picked], got.mask.shape[1]
                old = written.logprobs[rows, :width]
                loss, clipped = policy_loss(
                    got.logprobs, old, batch.advantages[rows, :width], got.mask, settings.clip
                )
                fit = value_loss(
                    self.model.values(got.hidden),
                    written.values[rows, :width],
                    batch.returns[rows, :width],
                    got.mask,
                    settings.value_clip,
                )
                share = float(got.mask.sum()) / tokens if real else 0.0
                ((loss + fit) * share).backward()
                change = ((got.logprobs.detach() - old) * got.mask).exp() - 1
                told = (float(x.detach()) * share for x in (loss, fit, clipped))
                if real:
                    done.append((*told, float(change.abs().max())))
        every = self.processes.gathered(done)
        parts = [sum(column) for column in list(zip(*every, strict=True))[:3]]
        return parts, max(row[3] for row in every)

    def _step(self) -> float:
        """One optimizer step; returns the adapter's gradient norm before clipping."""
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.adapter, LARGEST_GRADIENT))
        torch.nn.utils.clip_grad_norm_(self.model.head.parameters(), LARGEST_GRADIENT)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm
