"""Adapting the policy: write replies, score them, step. One update is one batch of replies.

    write      replies of π_RL to histories of the data, one token a step for all
    score      r_θ on text, normalised, less penalties
    reference  log π of the frozen base: the adapter off, one pass
    optimise   `ppo_epochs` passes with gradients

Every random draw is seeded by the run's seed and the update's number, so a killed run goes on to
the same curve, and two runs with one seed have one curve (on one machine with the same threads).
`accelerate launch` runs it in several processes: each writes its share of a batch, gradients are
summed, the first one writes files. All hold the whole base; there is no sharding.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from learning.dialogue import Dialogue, Scorer, Utterance
from learning.errors import DataError, TrainingError
from learning.policy import checkpoint, curves, sft
from learning.policy.checkpoint import Progress
from learning.policy.decoding import Sampling, Written, write
from learning.policy.model import PolicyModel, open_model, save_adapter, write_whole
from learning.policy.passes import by_length, read, read_all
from learning.policy.ppo import (
    KlController,
    ScoreScale,
    above_siblings,
    gae,
    moments_of,
    policy_loss,
    token_rewards,
    value_loss,
    whiten,
)
from learning.policy.prompts import Template, histories, tokenizer_of
from learning.policy.shaping import Penalty, distinct, penalty, repeated

if TYPE_CHECKING:
    from agent.config import Config

PHASES = ("write", "score", "reference", "optimise")
LARGEST_GRADIENT = 1.0
"""Norm that gradients are clipped to, of the adapter and of the value head."""


@dataclass(slots=True)
class Outcome:
    """What a run came to."""

    adapter: Path
    """Folder of the adapter: of the last update, or of the last checkpoint before it stopped."""
    updates: int
    """That the adapter has seen."""
    stopped: str | None = None
    """Why it stopped early."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Means over the first and the last updates of the curves."""


@dataclass(slots=True)
class Batch:
    """One batch of replies and all that the optimiser needs; tensors are [replies, longest]."""

    prompts: list[list[int]]
    written: Written
    reference: Tensor
    advantages: Tensor
    returns: Tensor


class _Run:
    """One run in one process. See `train`."""

    def __init__(
        self,
        dialogues: Sequence[Dialogue],
        reward: Scorer,
        config: Config,
        folder: Path,
        parent: Path | None,
    ) -> None:
        from accelerate import Accelerator

        from agent import weights

        self.settings = config.policy
        self.base = config.policy.base or config.responder.model
        self.reward, self.folder = reward, folder
        self.histories = histories(dialogues, self.settings.seed)
        if not self.histories:
            raise DataError(
                "no turn of the agent follows one of the listener: nothing to answer",
                "data with dialogues of both sides",
            )
        # `cpu` also chooses gloo; one process alone may be told which GPU.
        self.accelerator = Accelerator(cpu=self.settings.device == "cpu")
        self.world, self.rank = self.accelerator.num_processes, self.accelerator.process_index
        self.main = bool(self.accelerator.is_main_process)
        if self.settings.batch % (self.settings.samples * self.world):
            raise TrainingError(
                f"policy.batch = {self.settings.batch} is no multiple of policy.samples = "
                f"{self.settings.samples} times {self.world} process{'es' * (self.world > 1)}"
            )
        device = torch.device(self.settings.device) if self.world == 1 else self.accelerator.device
        place = weights.ensure(self.base, config.models)
        self.template = Template(
            tokenizer_of(place), config.dialogue.system_prompt, self.settings.history_tokens
        )
        self.real = (
            sft.RealReplies(dialogues, self.template, self.settings)
            if self.settings.pretrain_weight or self.settings.sft_steps
            else None
        )
        self.model: PolicyModel = open_model(place, self.settings, device, parent)
        self.optimizer = torch.optim.AdamW(
            [
                {"params": self.model.adapter, "lr": self.settings.learning_rate},
                {
                    "params": list(self.model.head.parameters()),
                    "lr": self.settings.value_learning_rate,
                },
            ],
            weight_decay=0.0,
        )
        self.progress = Progress(
            0,
            ScoreScale(),
            KlController(self.settings.kl_coefficient, self.settings.kl_target),
            [],
        )
        self.identity = self._identity(parent)
        self.seconds = dict.fromkeys(PHASES, 0.0)

    def _identity(self, parent: Path | None) -> str:
        """What a checkpoint must agree on. How long to go on and when to stop may change."""
        free = {"updates", "checkpoint_every", "max_kl", "min_entropy"}
        sha = hashlib.sha256()
        for history in self.histories:
            sha.update(repr([(t.speaker, t.text) for t in history]).encode())
        return json.dumps(
            {
                "settings": self.settings.model_dump(mode="json", exclude=free),
                "base": self.base,
                "system_prompt": self.template.system_prompt,
                "reward": self.reward.id,
                "histories": sha.hexdigest(),
                "parent": str(parent) if parent else None,
                "processes": self.world,
            },
            sort_keys=True,
        )

    # -- one update -----------------------------------------------------------------------------

    def update(self) -> str | None:
        """One batch written, scored and learned from; why the run must stop, else None."""
        number = self.progress.update + 1
        self.seconds = dict.fromkeys(PHASES, 0.0)
        asked = self._asked(number)
        batch, line = self._gather(number, asked)
        entropies = [*self.progress.entropies, line["entropy"]]
        why = checkpoint.guard(line["kl"], entropies, (), self.settings)
        if why is None:
            torch.manual_seed(self._seed("dropout", number))
            with self._timed("optimise"):
                line |= self._optimise(number, batch)
            losses = [line["policy_loss"], line["value_loss"], line["gradient_norm"]]
            why = checkpoint.guard(line["kl"], (), losses, self.settings)
        self.progress.controller.update(line["kl"])
        self.progress.entropies = entropies[-10:]
        self.progress.update = number
        line["seconds"] = {k: round(v, 3) for k, v in self.seconds.items()}
        if self.main:
            curves.append(
                self.folder, {"update": number} | line | ({"stopped": why} if why else {})
            )
        return why

    def _seed(self, what: str, number: int) -> int:
        """A seed for one kind of draw in one update of this process."""
        name = f"{what} {self.settings.seed} {number} {self.rank}"
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")

    def _asked(self, number: int) -> list[tuple[Utterance, ...]]:
        """This process's histories of one update: the data over and over, each time shuffled."""
        n, samples = len(self.histories), self.settings.samples
        size = self.settings.batch // samples
        out: list[tuple[Utterance, ...]] = []
        for k in range((number - 1) * size + self.rank, number * size, self.world):
            order = list(range(n))
            random.Random(f"histories {self.settings.seed} {k // n}").shuffle(order)
            out += [self.histories[order[k % n]]] * samples
        return out

    def _gather(
        self, number: int, asked: list[tuple[Utterance, ...]]
    ) -> tuple[Batch, dict[str, Any]]:
        """Write, score and weigh a batch; with what there is to say of it."""
        settings, model = self.settings, self.model
        prompts = [self.template.prompt(history) for history in asked]
        with self._timed("write"):
            written = write(
                model,
                prompts,
                self.template.stops,
                Sampling(settings.temperature, settings.response_tokens),
                torch.Generator().manual_seed(self._seed("write", number)),
                settings.micro_batch,
            )
            texts = [self.template.text(ids) for ids in written.replies]
        with self._timed("score"):
            points = self.reward.score(asked, texts)
            taken = [
                penalty(history, text, ended, settings)
                for history, text, ended in zip(asked, texts, written.ended, strict=True)
            ]
        with self._timed("reference"):
            if settings.precision != "float32":
                # Steps and whole passes round differently (up to half of a token's probability in
                # bfloat16): the ratios of PPO and its KL would begin with that as noise.
                written.logprobs, written.values = self._read(prompts, written)
            with model.reference():
                reference, _ = self._read(prompts, written)
        every = self._everyone(points)
        if any(p != p for p in every):
            raise TrainingError(f"the reward {self.reward.id} gave NaN", "train another reward")
        points = above_siblings(points, settings.samples)
        if settings.normalise_scores:
            self.progress.scale.add(self._everyone(points))
            points = self.progress.scale(points)
        scores = torch.tensor(
            [p - t.whole for p, t in zip(points, taken, strict=True)], device=model.device
        )
        rewards = token_rewards(
            scores, written.logprobs, reference, written.mask, self.progress.controller.beta
        )
        advantages, returns = gae(
            rewards, written.values, written.mask, settings.discount, settings.gae_lambda
        )
        moments = self._summed(moments_of(advantages, written.mask))
        advantages = whiten(advantages, written.mask, moments)
        line = self._line(asked, texts, written, reference, every, points, taken)
        return Batch(prompts, written, reference, advantages, returns), line

    def _read(self, prompts: list[list[int]], written: Written) -> tuple[Tensor, Tensor]:
        s = self.settings
        return read_all(self.model, prompts, written.replies, s.temperature, s.micro_batch)

    def _line(
        self,
        asked: list[tuple[Utterance, ...]],
        texts: list[str],
        written: Written,
        reference: Tensor,
        every: list[float],
        normalised: list[float],
        taken: list[Penalty],
    ) -> dict[str, Any]:
        """One line of the curves, over all processes."""
        log_ratio = ((written.logprobs - reference) * written.mask).sum(1)
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
        means = {k: _mean(self._everyone(v)) for k, v in rows.items()}
        entropy, tokens = self._summed(
            torch.stack([(written.entropy * written.mask).sum(), written.mask.sum().float()])
        ).tolist()
        return {
            "replies": len(every),
            "reward": _mean(every),
            "reward_sd": _deviation(every),
            **means,
            "beta": self.progress.controller.beta,
            "entropy": entropy / tokens,
            "distinct_2": distinct(self._all_texts(texts)),
        }

    def _optimise(self, number: int, batch: Batch) -> dict[str, float]:
        """The passes with gradients; means over them of losses and clipping."""
        settings, model = self.settings, self.model
        n = len(batch.prompts)
        order = random.Random(self._seed("order", number))
        sums = dict.fromkeys(("policy_loss", "value_loss", "clip_fraction"), 0.0)
        steps, ratio_first, norm, pretrain = 0, 0.0, 0.0, 0.0
        for _ in range(settings.ppo_epochs):
            shuffled = order.sample(range(n), n)
            for k in range(settings.mini_batches):
                chosen = shuffled[k :: settings.mini_batches]
                if not chosen:
                    continue
                tokens = self._summed(batch.written.mask[chosen].sum())
                with self.model.gradients():
                    parts, ratio = self._backward(batch, chosen, float(tokens))
                if steps == 0:
                    ratio_first = ratio
                if self.real is not None and settings.pretrain_weight:
                    step = (number * settings.ppo_epochs * settings.mini_batches + steps) * 1_000
                    pairs = self.real.draw(step + self.rank, settings.micro_batch)
                    weight = settings.pretrain_weight / self.world
                    pretrain += sft.backward(model, pairs, weight, settings.micro_batch)
                self._sync()
                norm = max(norm, self._step())
                summed = self._summed(torch.tensor(parts, device=model.device)).tolist()
                for key, value in zip(sums, summed, strict=True):
                    sums[key] += value
                steps += 1
        out = {key: value / steps for key, value in sums.items()}
        out |= {"ratio_first": ratio_first, "gradient_norm": norm}
        if settings.pretrain_weight:
            out["pretrain_loss"] = pretrain / steps
        return out

    def _backward(
        self, batch: Batch, chosen: Sequence[int], tokens: float
    ) -> tuple[list[float], float]:
        """Gradients of one mini-batch in micro-batches, each by its share of all tokens."""
        settings, written = self.settings, batch.written
        parts, furthest = [0.0, 0.0, 0.0], 0.0
        prompts = [batch.prompts[i] for i in chosen]
        replies = [written.replies[i] for i in chosen]
        for picked in by_length(prompts, replies, settings.micro_batch):
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
            share = float(got.mask.sum()) / tokens
            ((loss + fit) * share).backward()
            for i, value in enumerate((loss, fit, clipped)):
                parts[i] += float(value.detach()) * share
            change = ((got.logprobs.detach() - old) * got.mask).exp() - 1
            furthest = max(furthest, float(change.abs().max()))
        return parts, furthest

    def _step(self) -> float:
        """One optimizer step; returns the adapter's gradient norm before clipping."""
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.adapter, LARGEST_GRADIENT))
        torch.nn.utils.clip_grad_norm_(self.model.head.parameters(), LARGEST_GRADIENT)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    # -- between processes ------------------------------------------------------------------------

    def _sync(self) -> None:
        """Sum gradients over processes; each already has its share of the whole loss."""
        if self.world == 1:
            return
        for p in (*self.model.adapter, *self.model.head.parameters()):
            if p.grad is None:
                p.grad = torch.zeros_like(p)
            p.grad = self.accelerator.reduce(p.grad, "sum")

    def _average(self) -> None:
        """Mean of gradients over processes."""
        self._sync()
        for p in self.model.adapter:
            if p.grad is not None:
                p.grad /= self.world

    def _summed(self, x: Tensor) -> Tensor:
        """A tensor summed over processes."""
        return x if self.world == 1 else self.accelerator.reduce(x, "sum")

    def _everyone(self, values: Sequence[float]) -> list[float]:
        """One number a reply, of all processes."""
        if self.world == 1:
            return list(values)
        given = torch.tensor(values, dtype=torch.float64, device=self.model.device)
        out: list[float] = self.accelerator.gather(given).tolist()
        return out

    def _all_texts(self, texts: list[str]) -> list[str]:
        if self.world == 1:
            return texts
        from accelerate.utils import gather_object

        return list(gather_object(texts))

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)
        self.seconds[phase] += time.perf_counter() - start

    # -- the whole --------------------------------------------------------------------------------

    def run(self, resume: bool, on_update: Callable[[int], None]) -> Outcome:
        """All updates, from the checkpoint if there is one."""
        if self.main:
            self.folder.mkdir(parents=True, exist_ok=True)
        self.accelerator.wait_for_everyone()
        if not resume and (self.folder / checkpoint.NAME).exists():
            raise TrainingError(f"{self.folder} holds a run already", "--resume, or another folder")
        if not self._load():
            if self.real is not None and self.settings.sft_steps:
                sft.warm_up(self.model, self.real, self.settings, self._average, self.rank)
            self._save()
        if self.main:
            curves.cut(self.folder, self.progress.update)
        stopped = None
        while self.progress.update < self.settings.updates and stopped is None:
            on_update(self.progress.update)
            stopped = self.update()
            last = self.progress.update == self.settings.updates
            if stopped is None and (
                last or self.progress.update % self.settings.checkpoint_every == 0
            ):
                self._save()
        if stopped is not None:
            self._load()  # the last good one
        on_update(self.progress.update)
        outcome = Outcome(
            self.folder / "adapter",
            self.progress.update,
            stopped,
            summary([x for x in curves.read(self.folder) if x["update"] <= self.progress.update]),
        )
        if self.main:
            self._finish(outcome)
        self.accelerator.wait_for_everyone()
        return outcome

    def _load(self) -> bool:
        return checkpoint.load(
            self.folder, self.identity, self.model, self.optimizer, self.progress
        )

    def _save(self) -> None:
        if self.main:
            checkpoint.save(self.folder, self.identity, self.model, self.optimizer, self.progress)
        self.accelerator.wait_for_everyone()

    def _finish(self, outcome: Outcome) -> None:
        state = self.model.adapter_state()
        digest = hashlib.sha256(b"".join(v.numpy().tobytes() for v in state.values())).hexdigest()
        save_adapter(outcome.adapter, self.model.network, state, self.base, digest[:12])
        content = asdict(outcome) | {"adapter": outcome.adapter.name}
        write_whole(self.folder / "outcome.json", json.dumps(content, indent=2).encode())
        curves.draw(self.folder, f"{self.base} · {self.reward.id} · {self.settings.algorithm}")


def train(
    dialogues: Sequence[Dialogue],
    reward: Scorer,
    config: Config,
    folder: Path,
    *,
    resume: bool = False,
    parent: Path | None = None,
    on_update: Callable[[int], None] = lambda _: None,
) -> Outcome:
    """Adapt the policy of `[policy]` to a reward.

    Args:
        dialogues: where histories come from; the agent's turns are written anew.
        reward: scores text.
        config: `[policy]`; the prompt of `[dialogue]`; the base, where `[policy]` names none, of
            `[responder]`.
        folder: of the run: checkpoint, curves.jsonl, curves.png, outcome.json, adapter/.
        resume: go on from the folder's checkpoint, if there is one.
        parent: an adapter to go on from; the KL still is to the frozen base.
        on_update: told how many updates are done.

    Raises:
        DataError: nothing to answer in the data.
        TrainingError: the base, adapter, checkpoint, device or settings cannot be used, or the
            reward gives no numbers.
        WeightsError: the base is not here.
    """
    if config.policy.algorithm != "ppo":
        from learning.policy import trl_engines

        return trl_engines.train(dialogues, reward, config, folder, parent, on_update)
    return _Run(dialogues, reward, config, folder, parent).run(resume, on_update)


def summary(lines: Sequence[dict[str, Any]], window: int = 5) -> dict[str, float]:
    """Means of the first and the last `window` lines of a run's curves."""
    out: dict[str, float] = {}
    for key in ("reward", "kl", "entropy", "words", "repetition", "distinct_2"):
        values = [line[key] for line in lines if key in line]
        if values:
            out[f"{key}_first"] = _mean(values[:window])
            out[f"{key}_last"] = _mean(values[-window:])
    return out


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _deviation(values: Sequence[float]) -> float:
    mean = _mean(values)
    return float((sum((v - mean) ** 2 for v in values) / max(1, len(values) - 1)) ** 0.5)
