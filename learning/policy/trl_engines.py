"""PPO and RLOO by TRL, against the same rewards: `policy.algorithm = "trl-ppo"` or `"rloo"`.

The only file that imports trl. TRL 1.12 is the last version with PPO (`trl.experimental.ppo`); RLOO
is its maintained path. Both write `curves.jsonl` as far as TRL says what happened; they neither
resume nor stop by the guards, which the own loop (train.py) does.

PPO reads rewards through a model's hidden states, so a reward that reads text is a module that
decodes, scores, and returns a hidden state which carries the score. The score lands one position
after the token that ends a reply, TRL's own habit. The value head sits on the policy's trunk.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from learning.dialogue import Dialogue, Scorer, Utterance
from learning.errors import DataError, TrainingError
from learning.policy import curves
from learning.policy.model import PolicyModel, open_model, save_adapter, write_whole
from learning.policy.ppo import ScoreScale
from learning.policy.prompts import Template, histories, tokenizer_of
from learning.policy.shaping import distinct, penalty, repeated

if TYPE_CHECKING:
    from agent.config import Config
    from agent.learning_config import Policy
    from learning.policy.train import Outcome


class ShapedReward:
    """A text reward, normalised and less its penalties, that remembers what it saw.

    Args:
        reward: scores text.
        settings: `[policy]`.
    """

    def __init__(self, reward: Scorer, settings: Policy) -> None:
        self._reward, self._settings = reward, settings
        self._scale = ScoreScale()
        self._seen: list[tuple[float, float, float, str]] = []
        self.seconds = 0.0

    def __call__(
        self, asked: Sequence[Sequence[Utterance]], texts: Sequence[str], ended: Sequence[bool]
    ) -> list[float]:
        """One shaped score a reply."""
        start = time.perf_counter()
        points = list(self._reward.score(asked, texts))
        self.seconds += time.perf_counter() - start
        for history, text, p in zip(asked, texts, points, strict=True):
            self._seen.append((p, float(len(text.split())), repeated(history, text), text))
        if self._settings.normalise_scores:
            self._scale.add(points)
            points = self._scale(points)
        taken = (
            penalty(h, text, end, self._settings).whole
            for h, text, end in zip(asked, texts, ended, strict=True)
        )
        return [p - t for p, t in zip(points, taken, strict=True)]

    def report(self) -> dict[str, Any]:
        """Of all replies since the last report, as in the curves of the own loop."""
        if not self._seen:
            return {}
        points, words, repeats, texts = zip(*self._seen, strict=True)
        self._seen = []
        n = len(points)
        mean = sum(points) / n
        return {
            "replies": n,
            "reward": mean,
            "reward_sd": (sum((p - mean) ** 2 for p in points) / max(1, n - 1)) ** 0.5,
            "words": sum(words) / n,
            "repetition": sum(repeats) / n,
            "distinct_2": distinct(texts),
        }


class TextReward(torch.nn.Module):  # type: ignore[misc]
    """What TRL takes for a reward model: `score` of a hidden state that is the score already."""

    base_model_prefix = "text"

    def __init__(
        self, shaped: ShapedReward, template: Template, asked: dict[tuple[int, ...], Any]
    ) -> None:
        super().__init__()
        self.text = _Reader(shaped, template, asked)
        self.score = torch.nn.Identity()


class _Reader(torch.nn.Module):  # type: ignore[misc]
    """Token ids to texts to scores. Prompts are known by their ids, since the reward reads whole
    histories and not what the policy's budget left of them."""

    def __init__(
        self, shaped: ShapedReward, template: Template, asked: dict[tuple[int, ...], Any]
    ) -> None:
        super().__init__()
        self._shaped, self._template, self._asked = shaped, template, asked
        self._lengths = sorted({len(ids) for ids in asked}, reverse=True)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> Any:
        found, texts, ended = [], [], []
        for row, real in zip(input_ids.tolist(), attention_mask.bool().tolist(), strict=True):
            ids = [i for i, keep in zip(row, real, strict=True) if keep]
            n = next(n for n in self._lengths if tuple(ids[:n]) in self._asked)
            found.append(self._asked[tuple(ids[:n])])
            texts.append(self._template.text(ids[n:]))
            ended.append(bool(ids[n:]) and ids[-1] in self._template.stops)
        scores = torch.tensor(self._shaped(found, texts, ended), device=input_ids.device)
        state = scores.view(-1, 1, 1).expand(-1, input_ids.shape[1], 1)
        return SimpleNamespace(hidden_states=(state,))


class _Score(torch.nn.Module):  # type: ignore[misc]
    """The head in its own precision, whatever the trunk's is."""

    def __init__(self, head: torch.nn.Linear) -> None:
        super().__init__()
        self.head = head

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Values, [batch, tokens, 1], of hidden states [batch, tokens, width]."""
        return self.head(hidden.to(self.head.weight.dtype))


class TrunkValue(torch.nn.Module):  # type: ignore[misc]
    """A value head on the policy's own trunk: no second model."""

    base_model_prefix = "trunk"

    def __init__(self, model: PolicyModel) -> None:
        super().__init__()
        self.trunk = model.trunk
        self.score = _Score(model.head)


def train(
    dialogues: Sequence[Dialogue],
    reward: Scorer,
    config: Config,
    folder: Path,
    parent: Path | None,
    on_update: Callable[[int], None],
) -> Outcome:
    """As `learning.policy.train.train`, by TRL.

    Raises:
        DataError: nothing to answer in the data.
        TrainingError: the folder holds a run already, or what `open_model` raises.
        WeightsError: the base is not here.
    """
    from agent import weights
    from learning.policy.train import Outcome, summary

    settings = config.policy
    if (folder / curves.NAME).exists():
        raise TrainingError(
            f"{folder} holds a run already, and {settings.algorithm} does not resume",
            "another folder",
        )
    asked = histories(dialogues, settings.seed, settings.updates * settings.batch)
    if not asked:
        raise DataError("no turn of the agent follows one of the listener: nothing to answer")
    # Fewer than a batch, and TRL's loader, which drops short batches, would wait for ever.
    asked = [asked[i % len(asked)] for i in range(settings.updates * settings.batch)]
    base = settings.base or config.responder.model
    place = weights.ensure(base, config.models)
    template = Template(tokenizer_of(place), config.dialogue.system_prompt, settings.history_tokens)
    model = open_model(place, settings, torch.device(settings.device), parent)
    folder.mkdir(parents=True, exist_ok=True)
    shaped = ShapedReward(reward, settings)
    if settings.algorithm == "trl-ppo" and settings.samples > 1:
        raise TrainingError(
            "trl-ppo writes one reply to a history", "policy.samples=1, or policy.algorithm=ppo"
        )
    engine = ppo if settings.algorithm == "trl-ppo" else rloo
    done = engine(model, template, asked, shaped, settings, folder, on_update)
    state = model.adapter_state()
    digest = hashlib.sha256(b"".join(v.numpy().tobytes() for v in state.values())).hexdigest()
    save_adapter(folder / "adapter", model.network, state, base, digest[:12])
    curves.draw(folder, f"{base} · {reward.id} · {settings.algorithm}")
    lines = curves.read(folder)
    if any(not math.isfinite(line.get("kl", 0.0)) for line in lines):
        raise TrainingError(f"{folder}: the KL became no finite number", "a smaller learning_rate")
    outcome = Outcome(folder / "adapter", done, None, summary(lines))
    content = asdict(outcome) | {"adapter": "adapter"}
    write_whole(folder / "outcome.json", json.dumps(content, indent=2).encode())
    return outcome


def ppo(
    model: PolicyModel,
    template: Template,
    asked: Sequence[tuple[Utterance, ...]],
    shaped: ShapedReward,
    settings: Policy,
    folder: Path,
    on_update: Callable[[int], None],
) -> int:
    """TRL's PPOTrainer on an opened policy; returns how many updates were done."""
    from datasets import Dataset
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    prompts = [template.prompt(history) for history in asked]
    micro = _divisor(settings.batch, settings.micro_batch)
    trainer = PPOTrainer(
        args=PPOConfig(
            **_common(settings, folder, micro),
            total_episodes=settings.updates * settings.batch,
            num_ppo_epochs=settings.ppo_epochs,
            num_mini_batches=settings.mini_batches,
            local_rollout_forward_batch_size=settings.batch,  # scores are normalised a batch
            response_length=settings.response_tokens,
            stop_token="eos",
            temperature=settings.temperature,
            kl_coef=settings.kl_coefficient,
            cliprange=settings.clip,
            cliprange_value=settings.value_clip,
            vf_coef=settings.value_weight,
            gamma=settings.discount,
            lam=settings.gae_lambda,
            num_sample_generations=0,
        ),
        processing_class=template.tokenizer,
        model=model.network,
        ref_model=None,
        reward_model=TextReward(
            shaped,
            template,
            {tuple(ids): history for ids, history in zip(prompts, asked, strict=True)},
        ),
        value_model=TrunkValue(model),
        train_dataset=Dataset.from_list([{"input_ids": ids} for ids in prompts]),
        callbacks=[_writer(folder, shaped, on_update, _of_ppo)],
    )
    trainer.train()
    return int(trainer.state.global_step)


def rloo(
    model: PolicyModel,
    template: Template,
    asked: Sequence[tuple[Utterance, ...]],
    shaped: ShapedReward,
    settings: Policy,
    folder: Path,
    on_update: Callable[[int], None],
) -> int:
    """TRL's RLOOTrainer on an opened policy; returns how many updates were done.

    Raises:
        TrainingError: the batch cannot be shared by replies to one history.
    """
    from datasets import Dataset
    from trl import RLOOConfig, RLOOTrainer

    wanted = (settings.samples,) if settings.samples > 1 else (4, 3, 2)
    together = next((k for k in wanted if settings.batch % k == 0), 0)
    if not together:
        raise TrainingError(
            f"policy.batch = {settings.batch} is no multiple of the replies to one history that "
            f"rloo compares ({', '.join(map(str, wanted))})",
            "another policy.batch or policy.samples",
        )
    micro = _divisor(settings.batch, settings.micro_batch)

    def score(completion_ids: list[list[int]], row: list[int], **_: Any) -> list[float]:
        ended = [bool(ids) and ids[-1] in template.stops for ids in completion_ids]
        texts = [template.text(ids) for ids in completion_ids]
        return shaped([asked[i] for i in row], texts, ended)

    trainer = RLOOTrainer(
        model=model.network,
        reward_funcs=score,
        args=RLOOConfig(
            **_common(settings, folder, micro),
            max_steps=settings.updates * settings.ppo_epochs,
            num_generations=together,
            num_iterations=settings.ppo_epochs,
            max_completion_length=settings.response_tokens,
            temperature=settings.temperature,
            top_p=1.0,
            beta=settings.kl_coefficient,
            epsilon=settings.clip,
        ),
        processing_class=template.tokenizer,
        train_dataset=Dataset.from_list(
            [
                {"prompt": template.messages(template.fitted(history)), "row": i}
                for i, history in enumerate(asked)
            ]
        ),
        callbacks=[_writer(folder, shaped, on_update, _of_rloo)],
    )
    trainer.train()
    return int(trainer.state.global_step) // settings.ppo_epochs


def _common(settings: Policy, folder: Path, micro: int) -> dict[str, Any]:
    """Arguments of both trainers. Dropout is off, as in the own loop."""
    return {
        "output_dir": str(folder / "trl"),
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": settings.batch // micro,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "constant",
        "seed": settings.seed,
        "bf16": False,  # the model already is in its precision
        "gradient_checkpointing": settings.gradient_checkpointing,
        "use_cpu": settings.device == "cpu",
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
    }


def _divisor(whole: int, most: int) -> int:
    """The largest divisor of `whole` that is at most `most`."""
    return next(n for n in range(min(whole, most), 0, -1) if whole % n == 0)


def _of_ppo(logs: dict[str, float]) -> dict[str, float]:
    names = {
        "kl": "objective/kl",
        "policy_loss": "loss/policy_avg",
        "value_loss": "loss/value_avg",
        "clip_fraction": "policy/clipfrac_avg",
        "entropy": "policy/entropy_avg",
    }
    return {ours: logs[theirs] for ours, theirs in names.items() if theirs in logs}


def _of_rloo(logs: dict[str, float]) -> dict[str, float]:
    out = {k: logs[k] for k in ("entropy",) if k in logs}
    if "kl" in logs:  # nats a token there
        out["kl"] = logs["kl"] * logs["completions/mean_length"]
    if "loss" in logs:
        out["policy_loss"] = logs["loss"]
    if "clip_ratio/region_mean" in logs:
        out["clip_fraction"] = logs["clip_ratio/region_mean"]
    return out


def _writer(
    folder: Path,
    shaped: ShapedReward,
    on_update: Callable[[int], None],
    translate: Callable[[dict[str, float]], dict[str, float]],
) -> Any:
    """A callback that writes a line of the curves for each batch of replies."""
    from transformers import TrainerCallback

    class Writer(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.update, self.start = 0, time.perf_counter()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            line = shaped.report()
            if not line:  # a further pass over the same replies
                return
            self.update += 1
            now = time.perf_counter()
            line |= translate(logs or {})
            line["seconds"] = {
                "all": round(now - self.start, 3),
                "score": round(shaped.seconds, 3),
            }
            shaped.seconds, self.start = 0.0, now
            if state.is_world_process_zero:
                curves.append(folder, {"update": self.update} | line)
                on_update(self.update)

    return Writer()
