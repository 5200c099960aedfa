"""Likelihood of the replies that were really given: the warm-up, and γ of equation 10."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from learning.dialogue import Dialogue
from learning.errors import TrainingError
from learning.policy.gradients import Gradients
from learning.policy.model import PolicyModel
from learning.policy.passes import Ids, by_length, read
from learning.policy.prompts import Template, answered
from learning.processes import ALONE, Processes

if TYPE_CHECKING:
    from agent.learning_config import Policy

Pair = tuple[list[int], list[int]]
"""Token ids of a prompt and of the reply to it."""


class RealReplies:
    """Histories and what the agent of the data said; drawn by a counter, not by a state."""

    def __init__(self, dialogues: Sequence[Dialogue], template: Template, settings: Policy) -> None:
        self._found = [(h, r) for h, r in answered(dialogues) if r.strip()]
        if not self._found:
            raise TrainingError("the data has no reply of the agent to learn the wording of")
        self._template = template
        self._settings = settings

    def draw(self, step: int, size: int) -> list[Pair]:
        """The pairs of one step, always the same for the same seed and step."""
        rng = random.Random(f"replies {self._settings.seed} {step}")
        chosen = rng.choices(self._found, k=size)
        limit = self._settings.response_tokens
        return [
            (self._template.prompt(history), self._template.reply(text, limit))
            for history, text in chosen
        ]


def likelihood_loss(
    model: PolicyModel, prompts: Sequence[Ids], replies: Sequence[Ids]
) -> tuple[Tensor, int]:
    """−log π summed over reply tokens only (temperature 1), and how many they are."""
    got = read(model, prompts, replies, 1.0)
    return -got.logprobs.sum(), int(got.mask.sum())


def unit(micro_batch: int) -> int:
    """Pairs a pass beside PPO, where one micro-batch of them is drawn: so that it can be shared."""
    return max(1, micro_batch // 4)


def backward(
    model: PolicyModel,
    pairs: Sequence[Pair],
    weight: float,
    micro_batch: int,
    seed: int,
    gradients: Gradients,
) -> float:
    """Add the gradient of `weight` times the mean loss a token, each process its micro-batches.

    Args:
        model: its adapter is trained, with LoRA's dropout.
        pairs: all of them, in every process.
        weight: of the loss.
        micro_batch: pairs a pass.
        seed: of the dropout.
        gradients: of this step.

    Returns:
        The mean loss a token of all pairs, nats.
    """
    prompts, replies = [p for p, _ in pairs], [r for _, r in pairs]
    whole = sum(map(len, replies))
    units = by_length(prompts, replies, micro_batch)
    done = []
    with model.gradients(dropout=True):
        for i, real in gradients.turns(len(units)):
            torch.manual_seed(seed + i)
            rows = units[i]
            loss, _ = likelihood_loss(model, [prompts[i] for i in rows], [replies[i] for i in rows])
            (loss * (weight / whole if real else 0.0)).backward()
            if real:
                done.append(float(loss.detach()))
    return sum(gradients.processes.gathered(done)) / whole


def warm_up(
    model: PolicyModel, real: RealReplies, settings: Policy, processes: Processes = ALONE
) -> list[float]:
    """`sft_steps` steps of AdamW on the data's own replies, with LoRA's dropout.

    The KL of PPO still is to the frozen base, so a long warm-up begins with some of it.

    Args:
        model: its adapter is trained.
        real: what is drawn from.
        settings: `[policy]`.
        processes: what shares the passes.

    Returns:
        Mean loss a token of each step, nats.

    Raises:
        TrainingError: the loss is no number.
    """
    optimizer = torch.optim.AdamW(model.adapter, lr=settings.sft_learning_rate, weight_decay=0.0)
    losses = []
    for step in range(settings.sft_steps):
        pairs = real.draw(step * 1_000, settings.batch)
        seed = (settings.seed * 1_000_003 + step) * 1_000  # fewer micro-batches than that
        gradients = Gradients(model, processes)
        loss = backward(model, pairs, 1.0, settings.micro_batch, seed, gradients)
        if loss != loss:
            raise TrainingError(f"the warm-up's loss became {loss} at step {step + 1}")
        gradients.add_up()
        torch.nn.utils.clip_grad_norm_(model.adapter, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss)
    return losses
