"""TRL's PPO as the oracle of the own losses, on one batch of its own; both engines learn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from agent import config as configs
from agent.config import Config
from agent.policies import check_adapter
from learning.errors import TrainingError
from learning.policy import curves, ppo
from learning.policy.model import open_model
from learning.policy.prompts import Template, histories, tokenizer_of
from learning.policy.train import train
from learning.policy.trl_engines import ShapedReward, TextReward
from tests.learning.policy.small import CountsWord, dialogues, llama, plain

pytestmark = pytest.mark.engine
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama(tmp_path_factory.mktemp("llama"))


def config(place: Path, **changes: Any) -> Config:
    settings = {
        "base": "tiny",
        "updates": 2,
        "batch": 8,
        "micro_batch": 4,
        "learning_rate": 0.01,
        "history_tokens": 120,
        "response_tokens": 9,
        "lora_r": 4,
        "value_clip": 0.05,
    } | changes
    overrides = [f"policy.{k}={json.dumps(v)}" for k, v in settings.items()]
    return configs.load("cpu", [f"models.paths.tiny={place}", *plain(), *overrides])


class Spy:
    """Notes what passes through functions of TRL's module."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from trl.experimental.ppo import ppo_trainer

        self.calls: dict[str, list[tuple[tuple[Any, ...], Any]]] = {}
        self.whitening = False
        for name in (
            "batch_generation",
            "selective_log_softmax",
            "get_reward",
            "masked_whiten",
            "masked_mean",
            "forward",
        ):
            monkeypatch.setattr(ppo_trainer, name, self.noted(name, getattr(ppo_trainer, name)))

    def noted(self, name: str, real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            inside = self.whitening
            self.whitening = inside or name == "masked_whiten"
            # Some results are changed in place later.
            kept = tuple(a.clone() if isinstance(a, torch.Tensor) else a for a in args)
            out = real(*args, **kwargs)
            self.whitening = inside
            if not (inside and name == "masked_mean"):  # whitening's own means
                self.calls.setdefault(name, []).append((kept, out))
            return out

        return call

    def results(self, name: str) -> list[Any]:
        return [out for _, out in self.calls[name]]


def test_losses_advantages_and_kl_are_trls_on_the_same_batch(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy(monkeypatch)
    chosen = config(place, updates=1, batch=32, algorithm="trl-ppo", discount=0.9, ppo_epochs=3)
    s = chosen.policy
    train(dialogues(), CountsWord(), chosen, tmp_path)

    whole = spy.results("batch_generation")[0][0]
    old, reference, *new = spy.results("selective_log_softmax")
    values, scores = spy.results("get_reward")[0][0], spy.results("get_reward")[1][1]
    (raw, mask), whitened = spy.calls["masked_whiten"][0]
    start = whole.shape[1] - old.shape[1]
    lengths = mask.sum(1)
    assert lengths.min() < lengths.max() == old.shape[1]  # some ended, some were cut

    # TRL gives the score one position after the last token, where there is one.
    after = torch.arange(old.shape[1]) < (lengths + 1)[:, None]
    values = values[:, start - 1 : -1].squeeze(-1)
    rewards = ppo.token_rewards(scores, old * mask, reference * mask, after, s.kl_coefficient)
    advantages, returns = ppo.gae(rewards, values, after, s.discount, s.gae_lambda)
    assert torch.allclose(advantages, raw, atol=1e-5)
    assert advantages.abs().max() > 0.1
    ours = ppo.whiten(advantages, mask)
    assert torch.allclose(ours, whitened * mask, atol=1e-5)

    logged = curves.read(tmp_path)[0]
    assert logged["kl"] == pytest.approx(float(((old - reference) * mask).sum(1).mean()), abs=1e-5)

    micro = [(args[1], out) for args, out in spy.calls["forward"] if isinstance(out, tuple)]
    means = spy.results("masked_mean")  # of a micro-batch: value loss, its clip, policy loss, clip
    assert len(micro) == len(new) == len(means) // 4 == 3 * 8
    found = []
    for k, (ids, (_, predicted)) in enumerate(micro):
        rows = [int((whole == row).all(1).nonzero()[0]) for row in ids]
        loss, clipped = ppo.policy_loss(new[k], old[rows], ours[rows], mask[rows], s.clip)
        fit = ppo.value_loss(
            predicted[:, start - 1 : -1].squeeze(-1),
            (values * after)[rows],
            returns[rows],
            after[rows],
            s.value_clip,
        )
        assert float(loss) == pytest.approx(float(means[4 * k + 2]), abs=1e-5)
        assert float(clipped) == pytest.approx(float(means[4 * k + 3]), abs=1e-6)
        assert float(fit) == pytest.approx(0.5 * float(means[4 * k]), rel=1e-5)
        found.append((float(loss.detach()), float(fit.detach()), float(clipped)))
    assert max(clipped for _, _, clipped in found) > 0  # the clip was at work
    for i, key in enumerate(("policy_loss", "value_loss", "clip_fraction")):
        mean = sum(values[i] for values in found) / len(found)
        assert logged[key] == pytest.approx(mean, abs=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("algorithm", ["trl-ppo", "rloo"])
def test_an_engine_trains_and_leaves_an_adapter(
    place: Path, tmp_path: Path, algorithm: str, precision: str
) -> None:
    done: list[int] = []
    chosen = config(place, algorithm=algorithm, precision=precision)
    outcome = train(dialogues(), CountsWord(), chosen, tmp_path / "run", on_update=done.append)
    assert outcome.updates == 2 and done == [1, 2]
    lines = curves.read(tmp_path / "run")
    assert [line["update"] for line in lines] == [1, 2]
    assert lines[0]["replies"] == 8 and 0 <= lines[0]["reward"] <= 90
    rounding = 1e-4 if precision == "float32" else 1e-2
    assert lines[0]["kl"] == pytest.approx(0, abs=rounding)
    assert abs(lines[1]["kl"]) > 1e-3  # it moved
    assert {"entropy", "words", "repetition", "distinct_2", "policy_loss"} <= set(lines[1])
    assert (tmp_path / "run" / "curves.png").is_file()
    check_adapter(outcome.adapter, "tiny")
    open_model(place, chosen.policy, torch.device("cpu"), outcome.adapter)
    with pytest.raises(TrainingError, match="does not resume"):
        train(dialogues(), CountsWord(), chosen, tmp_path / "run", resume=True)


def test_rloo_says_which_batches_it_can_share(place: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="batch = 7"):
        train(dialogues(), CountsWord(), config(place, algorithm="rloo", batch=7), tmp_path)


def test_a_text_reward_reads_the_whole_history_and_the_reply_alone(place: Path) -> None:
    template = Template(tokenizer_of(place), "be kind", 30)
    asked = histories(dialogues(), 0)[:5]
    prompts = [template.prompt(history) for history in asked]
    seen: list[Any] = []

    class Noting(CountsWord):
        def score(self, histories: Any, replies: Any) -> list[float]:
            seen.extend(zip(histories, replies, strict=True))
            return super().score(histories, replies)

    settings = config(place, normalise_scores=False, unfinished_penalty=7.0).policy
    model = TextReward(
        ShapedReward(Noting(), settings),
        template,
        {tuple(p): h for p, h in zip(prompts, asked, strict=True)},
    )
    eos, pad = template.tokenizer.eos_token_id, template.tokenizer.pad_token_id
    dog, hi = template.tokenizer.convert_tokens_to_ids(["dog", "hi"])
    replies = [[dog, dog, eos], [hi, eos, pad], [dog, hi, hi], [eos, pad, pad], [hi, dog, eos]]
    width = max(map(len, prompts))
    ids = torch.tensor(
        [[pad] * (width - len(p)) + p + r for p, r in zip(prompts, replies, strict=True)]
    )
    from trl.experimental.utils import get_reward

    _, scores, _ = get_reward(model, ids, pad, width)
    # Cut (the third) and empty (the fourth) replies lose 7 points.
    assert scores.tolist() == [20.0, 0.0, 3.0, -7.0, 10.0]
    assert [reply for _, reply in seen] == ["dog dog", "hi", "dog hi hi", "", "hi dog"]
    assert [history for history, _ in seen] == asked
