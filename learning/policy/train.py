"""Adapting the policy: write replies, score them, step. One update is one batch of replies.

    write      replies of π_RL to histories of the data, one token a step for all
    score      r_θ on text, normalised, less penalties
    reference  log π of the frozen base: the adapter off, one pass
    optimise   `ppo_epochs` passes with gradients

Every random draw is seeded by the run's seed and the update's number, so a killed run goes on to
the same curve, and two runs with one seed have one curve (on one machine with the same threads).
Several processes share the passes of one batch (learning/processes.py): micro-batches and the order
in which their gradients are added stay what they are, and a run may go on with another number of
them. Only writing is batched otherwise, which rounds otherwise: in float32 hardly ever is a token
drawn differently, in bfloat16 one in twenty is, and from there on it is another run.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from learning.dialogue import Dialogue, Scorer, Utterance
from learning.errors import DataError, TrainingError
from learning.policy import checkpoint, curves, sft, sharding
from learning.policy.batch import Clock, Rollouts, mean
from learning.policy.checkpoint import Progress
from learning.policy.model import PolicyModel, open_model, save_adapter, write_whole
from learning.policy.optimise import Optimiser
from learning.policy.ppo import KlController, ScoreScale
from learning.policy.prompts import Template, histories, tokenizer_of
from learning.processes import Processes, many

if TYPE_CHECKING:
    from agent.config import Config
    from learning.policy.elsewhere import Rollout


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
        if self.settings.batch % self.settings.samples:
            raise TrainingError(
                f"policy.batch = {self.settings.batch} is no multiple of policy.samples = "
                f"{self.settings.samples}"
            )
        self.processes = Processes.join(self.settings.device)
        place = weights.ensure(self.base, config.models)
        template = Template(
            tokenizer_of(place), config.dialogue.system_prompt, self.settings.history_tokens
        )
        real = (
            sft.RealReplies(dialogues, template, self.settings)
            if self.settings.pretrain_weight or self.settings.sft_steps
            else None
        )
        sharded = self.processes.world > 1 and sharding.wanted()
        if sharded:
            sharding.check(self.settings.batch, self.settings.four_bit, self.processes)
        device = torch.device("cpu" if sharded else self.processes.device)
        self.model: PolicyModel = open_model(place, self.settings, device, parent)
        if sharded:
            sharding.shard(self.model, self.processes)
        self.elsewhere: Rollout | None = None
        if self.settings.vllm_url is not None:
            from learning.policy.elsewhere import Rollout

            self.elsewhere = Rollout.of(self.settings, folder, self.base)
        self.rollouts = Rollouts(
            self.model, template, reward, self.settings, self.processes, self.elsewhere
        )
        self.optimiser = Optimiser.of(self.model, self.settings, self.processes, real)
        self.progress = Progress(
            0,
            ScoreScale(),
            KlController(self.settings.kl_coefficient, self.settings.kl_target),
            [],
        )
        self.identity = self._identity(parent, template.system_prompt)

    def _identity(self, parent: Path | None, system_prompt: str) -> str:
        """What a checkpoint must agree on. How long to go on and when to stop may change."""
        free = {
            "updates", "checkpoint_every", "max_kl", "min_entropy", "device",
            "vllm_url", "vllm_model",
        }  # fmt: skip
        sha = hashlib.sha256()
        for history in self.histories:
            sha.update(repr([(t.speaker, t.text) for t in history]).encode())
        return json.dumps(
            {
                "settings": self.settings.model_dump(mode="json", exclude=free),
                "base": self.base,
                "system_prompt": system_prompt,
                "reward": self.reward.id,
                "histories": sha.hexdigest(),
                "parent": str(parent) if parent else None,
            },
            sort_keys=True,
        )

    # -- one update -----------------------------------------------------------------------------

    def update(self) -> str | None:
        """One batch written, scored and learned from; why the run must stop, else None."""
        number, clock = self.progress.update + 1, Clock(self.model.device)
        batch, line = self.rollouts.gather(
            self._asked(number), self._seed("write", number), self.progress, clock
        )
        entropies = [*self.progress.entropies, line["entropy"]]
        why = checkpoint.guard(line["kl"], entropies, (), self.settings)
        if (why := self.processes.same(why)) is None:
            with clock.timed("optimise"):
                line |= self.optimiser.learn(number, batch, self._seed)
            losses = [line["policy_loss"], line["value_loss"], line["gradient_norm"]]
            why = checkpoint.guard(line["kl"], (), losses, self.settings)
        self.progress.controller.update(line["kl"])
        self.progress.entropies = entropies[-10:]
        self.progress.update = number
        line["seconds"] = {k: round(v, 3) for k, v in clock.seconds.items()}
        if self.processes.main:
            curves.append(
                self.folder, {"update": number} | line | ({"stopped": why} if why else {})
            )
        return self.processes.same(why)

    def _seed(self, what: str, number: int) -> int:
        """A seed for one kind of draw in one update."""
        name = f"{what} {self.settings.seed} {number}"
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")

    def _asked(self, number: int) -> list[tuple[Utterance, ...]]:
        """The histories of one update: the data over and over, each time shuffled."""
        n, samples = len(self.histories), self.settings.samples
        size = self.settings.batch // samples
        out: list[tuple[Utterance, ...]] = []
        for k in range((number - 1) * size, number * size):
            order = list(range(n))
            random.Random(f"histories {self.settings.seed} {k // n}").shuffle(order)
            out += [self.histories[order[k % n]]] * samples
        return out

    # -- the whole --------------------------------------------------------------------------------

    def run(self, resume: bool, on_update: Callable[[int], None]) -> Outcome:
        """All updates, from the checkpoint if there is one."""
        main = self.processes.main
        if main:
            self.folder.mkdir(parents=True, exist_ok=True)
        self.processes.wait()
        if not resume and (self.folder / checkpoint.NAME).exists():
            raise TrainingError(f"{self.folder} holds a run already", "--resume, or another folder")
        if not self._load():
            if self.optimiser.real is not None and self.settings.sft_steps:
                sft.warm_up(self.model, self.optimiser.real, self.settings, self.processes)
            self._save()
        if main:
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
        if main:
            self._finish(outcome)
            if self.elsewhere is not None:
                self.elsewhere.withdraw()
        self.processes.wait()
        return outcome

    def _load(self) -> bool:
        return checkpoint.load(
            self.folder, self.identity, self.model, self.optimiser.optimizer, self.progress
        )

    def _save(self) -> None:
        if self.processes.main:
            checkpoint.save(
                self.folder, self.identity, self.model, self.optimiser.optimizer, self.progress
            )
        self.processes.wait()

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

        if config.policy.vllm_url is not None:
            raise TrainingError(
                f"policy.algorithm = {config.policy.algorithm!r} writes its replies itself",
                "policy.vllm_url belongs to policy.algorithm = 'ppo'",
            )

        if many() > 1:
            raise TrainingError(
                f"policy.algorithm = {config.policy.algorithm!r} runs in one process",
                "policy.algorithm = 'ppo' runs in several",
            )
        return trl_engines.train(dialogues, reward, config, folder, parent, on_update)
    return _Run(dialogues, reward, config, folder, parent).run(resume, on_update)


def summary(lines: Sequence[dict[str, Any]], window: int = 5) -> dict[str, float]:
    """Means of the first and the last `window` lines of a run's curves."""
    out: dict[str, float] = {}
    for key in ("reward", "kl", "entropy", "words", "repetition", "distinct_2"):
        values = [line[key] for line in lines if key in line]
        if values:
            out[f"{key}_first"] = mean(values[:window])
            out[f"{key}_last"] = mean(values[-window:])
    return out
