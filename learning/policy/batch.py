"""One batch of replies: written, scored, weighed, and what there is to say of it.

In several processes each writes and reads its share; then all know the whole batch, so that
everything that is worked out from it (scores, scales, advantages, the line of the curves) is the
same in all of them, and the same as in one process alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from learning.dialogue import Scorer, Utterance
from learning.errors import TrainingError
from learning.policy.checkpoint import Progress
from learning.policy.decoding import Sampling, Written, heights, write
from learning.policy.model import PolicyModel
from learning.policy.passes import read_all
from learning.policy.ppo import above_siblings, gae, token_rewards, whiten
from learning.policy.prompts import Template
from learning.policy.shaping import Penalty, distinct, penalty, repeated
from learning.processes import Processes

if TYPE_CHECKING:
    from agent.learning_config import Policy
    from learning.policy.elsewhere import Rollout

PHASES = ("write", "score", "reference", "optimise")
Asked = Sequence[tuple[Utterance, ...]]


class Clock:
    """Seconds of the phases of one update."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = dict.fromkeys(PHASES, 0.0)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add what happens inside."""
        start = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[phase] += time.perf_counter() - start


@dataclass(slots=True)
class Batch:
    """A batch of replies and all that the optimiser needs; tensors are [replies, longest]."""

    prompts: list[list[int]]
    written: Written
    reference: Tensor
    advantages: Tensor
    returns: Tensor


@dataclass(slots=True, frozen=True)
class Rollouts:
    """What makes batches."""

    model: PolicyModel
    template: Template
    reward: Scorer
    settings: Policy
    processes: Processes
    elsewhere: Rollout | None = None
    """Who writes; None: this process and those beside it."""

    def gather(
        self, asked: Asked, seed: int, progress: Progress, clock: Clock
    ) -> tuple[Batch, dict[str, Any]]:
        """A batch, and its line of the curves.

        Args:
            asked: the histories of the whole batch, siblings beside each other.
            seed: of the tokens drawn.
            progress: its scale takes the scores in; its β weighs the KL.
            clock: told what took how long.

        Raises:
            TrainingError: a score is no number.
        """
        settings = self.settings
        prompts = [self.template.prompt(history) for history in asked]
        with clock.timed("write"):
            if self.elsewhere is not None:
                if self.processes.main:
                    self.elsewhere.publish(self.model, progress.update + 1)
                self.elsewhere.name = self.processes.same(self.elsewhere.name)
            written = self._write(prompts, seed)
            texts = [self.template.text(ids) for ids in written.replies]
        with clock.timed("score"):
            # A small part of an update, so each scores all: shared, it would be rounded otherwise.
            every = self.processes.same(list(self.reward.score(asked, texts)))
            taken = [
                penalty(history, text, ended, settings)
                for history, text, ended in zip(asked, texts, written.ended, strict=True)
            ]
        with clock.timed("reference"):
            # Steps of all who write and passes of micro-batches round differently (in bfloat16 by
            # up to half of a token's probability): the ratios of PPO and its KL would begin with
            # that as noise, and depend on how many processes write.
            drawn = written.logprobs
            written.logprobs, written.values = self._read(prompts, written)
            with self.model.reference():
                reference, _ = self._read(prompts, written)
        if any(p != p for p in every):
            raise TrainingError(f"the reward {self.reward.id} gave NaN", "train another reward")
        points = above_siblings(every, settings.samples)
        if settings.normalise_scores:
            progress.scale.add(points)
            points = progress.scale(points)
        scores = torch.tensor(
            [p - t.whole for p, t in zip(points, taken, strict=True)], device=self.model.device
        )
        rewards = token_rewards(
            scores, written.logprobs, reference, written.mask, progress.controller.beta
        )
        advantages, returns = gae(
            rewards, written.values, written.mask, settings.discount, settings.gae_lambda
        )
        advantages = whiten(advantages, written.mask)
        more = {"beta": progress.controller.beta}
        if self.elsewhere is not None:
            from learning.policy.elsewhere import gap, weights

            more["rollout_gap"] = gap(written.logprobs, drawn, written.mask)
            advantages = advantages * weights(written.logprobs, drawn)
            written.entropy = -written.logprobs  # its mean is the entropy's, over tokens drawn
        batch = Batch(prompts, written, reference, advantages, returns)
        return batch, self._line(asked, texts, batch, every, points, taken) | more

    def _write(self, prompts: list[list[int]], seed: int) -> Written:
        """Each process writes its rows."""
        settings, device = self.settings, self.model.device
        sampling = Sampling(settings.temperature, settings.response_tokens)
        chance = heights(len(prompts), settings.response_tokens, seed)
        lockstep = self.processes.lockstep
        stops = self.template.stops

        def once(rows: list[int]) -> Written:
            if self.elsewhere is not None:
                asked = [prompts[i] for i in rows]
                return self.elsewhere.write(rows, asked, stops, sampling, seed)
            return write(
                self.model,
                [prompts[i] for i in rows],
                stops,
                sampling,
                chance[rows],
                settings.micro_batch,
                self.processes.any if lockstep else bool,
            ).to(torch.device("cpu"))

        rows = self.processes.rows(len(prompts))
        parts = zip(rows, self.processes.shared(rows, once), strict=True)
        return Written.joined(list(parts), device)

    def _read(self, prompts: list[list[int]], written: Written) -> tuple[Tensor, Tensor]:
        s = self.settings
        return read_all(
            self.model, prompts, written.replies, s.temperature, s.micro_batch, self.processes
        )

    def _line(
        self,
        asked: Asked,
        texts: list[str],
        batch: Batch,
        every: list[float],
        normalised: list[float],
        taken: list[Penalty],
    ) -> dict[str, Any]:
        """One line of the curves."""
        written = batch.written
        log_ratio = ((written.logprobs - batch.reference) * written.mask).sum(1)
        rows = {
            "normalised": normalised,
            "penalty_length": [t.length for t in taken],
            "penalty_repetition": [t.repetition for t in taken],
            "penalty_unfinished": [t.unfinished for t in taken],
            "kl": log_ratio.tolist(),
            "words": [float(len(text.split())) for text in texts],
            "repetition": [repeated(h, text) for h, text in zip(asked, texts, strict=True)],
            "ended": [float(ended) for ended in written.ended],
        }
        entropy = (written.entropy * written.mask).sum() / written.mask.sum()
        return {
            "replies": len(every),
            "tokens": int(written.mask.sum()),
            "reward": mean(every),
            "reward_sd": deviation(every),
            **{k: mean(v) for k, v in rows.items()},
            "entropy": float(entropy),
            "distinct_2": distinct(texts),
        }


def mean(values: Sequence[float]) -> float:
    """Of at least one."""
    return sum(values) / len(values)


def deviation(values: Sequence[float]) -> float:
    """Unbiased; 0 of one value."""
    middle = mean(values)
    return float((sum((v - middle) ** 2 for v in values) / max(1, len(values) - 1)) ** 0.5)
