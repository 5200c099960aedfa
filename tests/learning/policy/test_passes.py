"""Batched, shared, cached passes against one plain pass a sequence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from agent.learning_config import Policy
from learning.policy.decoding import Sampling, Written, heights, write
from learning.policy.model import PolicyModel, open_model
from learning.policy.passes import hidden_after, padded, read, read_all, shared_prefix
from learning.policy.prompts import Template, histories, tokenizer_of
from tests.learning.policy.small import dialogues, llama

pytestmark = pytest.mark.engine

SETTINGS = Policy(lora_r=4, lora_alpha=8, history_tokens=90)
T = 0.7


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama(tmp_path_factory.mktemp("llama"))


def opened(place: Path, **changes: Any) -> PolicyModel:
    """A model whose adapter does something, and whose values are not all alike."""
    model = open_model(place, SETTINGS.model_copy(update=changes), torch.device("cpu"))
    made = torch.Generator().manual_seed(1)
    for name, p in model.network.named_parameters():
        if "lora_B" in name:
            p.data = 0.3 * torch.randn(p.shape, generator=made)
    model.head.weight.data = torch.randn(model.head.weight.shape, generator=made)
    return model


@pytest.fixture(scope="module")
def model(place: Path) -> PolicyModel:
    return opened(place)


@pytest.fixture(scope="module")
def template(place: Path) -> Template:
    return Template(tokenizer_of(place), "be kind to the dog", 90)


@pytest.fixture(scope="module")
def prompts(template: Template) -> list[list[int]]:
    return [template.prompt(h) for h in histories(dialogues(), 0)][:11]


def plain(model: PolicyModel, prompt: list[int], reply: list[int]) -> torch.Tensor:
    """log π of each token of a reply by one pass of the whole model over one sequence."""
    logits = model.network(torch.tensor([prompt + reply])).logits[0, len(prompt) - 1 : -1] / T
    found: torch.Tensor = logits.log_softmax(-1).gather(-1, torch.tensor(reply)[:, None])[:, 0]
    return found


def test_what_is_noted_while_writing_is_what_a_plain_pass_says(
    model: PolicyModel, template: Template, prompts: list[list[int]]
) -> None:
    chance = heights(len(prompts), 12, 3)
    written = write(model, prompts, template.stops, Sampling(T, 12), chance, bucket=4)
    assert 1 < len({len(r) for r in written.replies})  # some ended early and left the batch
    assert shared_prefix(prompts) > 5
    for i, (prompt, reply) in enumerate(zip(prompts, written.replies, strict=True)):
        with torch.no_grad():
            wanted = plain(model, prompt, reply)
            out = model.trunk(torch.tensor([prompt + reply])).last_hidden_state[0]
            logits = model.logits(out[len(prompt) - 1 : -1]) / T
        n = len(reply)
        assert torch.allclose(written.logprobs[i, :n], wanted, atol=1e-4)
        entropy = torch.distributions.Categorical(logits=logits).entropy()
        assert torch.allclose(written.entropy[i, :n], entropy, atol=1e-4)
        values = model.values(out[len(prompt) - 1 : -1])
        assert torch.allclose(written.values[i, :n], values, atol=1e-4)
        assert written.mask[i].sum() == n
        assert written.ended[i] == (reply[-1] in template.stops)
        assert not any(token in template.stops for token in reply[:-1])
    assert written.logprobs[~written.mask].abs().max() == 0


def test_one_seed_writes_one_thing(
    model: PolicyModel, template: Template, prompts: list[list[int]]
) -> None:
    def once(seed: int) -> list[list[int]]:
        chance = heights(len(prompts), 8, seed)
        return write(model, prompts, template.stops, Sampling(T, 8), chance).replies

    assert once(1) == once(1) != once(2)


def test_temperature_0_takes_the_likeliest(
    model: PolicyModel, template: Template, prompts: list[list[int]]
) -> None:
    greedy = [write(model, prompts, template.stops, Sampling(0.0, 6), heights(len(prompts), 6, s))
              for s in (1, 2)]  # fmt: skip
    assert greedy[0].replies == greedy[1].replies
    for prompt, reply in zip(prompts, greedy[0].replies, strict=True):
        for t, token in enumerate(reply):
            with torch.no_grad():
                logits = model.network(torch.tensor([prompt + reply[:t]])).logits[0, -1]
            assert logits[token] >= logits.max() - 1e-4
    assert not greedy[0].logprobs.any()


def test_a_reply_does_not_depend_on_who_else_writes(
    model: PolicyModel, template: Template, prompts: list[list[int]]
) -> None:
    """Also not on how long the others take, nor on steps made only to wait for them."""
    sampling, chance = Sampling(T, 12), heights(len(prompts), 12, 3)
    whole = write(model, prompts, template.stops, sampling, chance, bucket=4)
    parts = []
    for rows in (range(0, len(prompts), 2), range(1, len(prompts), 2)):
        chosen = [prompts[i] for i in rows]
        made = write(
            model, chosen, template.stops, sampling, chance[list(rows)], going=lambda _: True
        )
        parts.append((rows, made))
    joined = Written.joined(parts, torch.device("cpu"))
    assert joined.replies == whole.replies and joined.ended == whole.ended
    for name in ("logprobs", "values", "entropy", "mask"):
        assert torch.allclose(getattr(joined, name), getattr(whole, name), atol=1e-4)


def test_drawn_tokens_follow_the_softmax(model: PolicyModel, prompts: list[list[int]]) -> None:
    """First tokens of many replies to one prompt, by chi-squared against their probabilities."""
    n = 4000
    written = write(model, [prompts[0]] * n, {2}, Sampling(T, 1), heights(n, 1, 0), bucket=n)
    with torch.no_grad():
        p = (model.network(torch.tensor([prompts[0]])).logits[0, -1] / T).softmax(-1)
    seen = torch.bincount(torch.tensor([r[0] for r in written.replies]), minlength=len(p))
    usual = p * n >= 5
    wanted = torch.cat([p[usual] * n, (p[~usual] * n).sum()[None]])
    found = torch.cat([seen[usual], seen[~usual].sum()[None]]).float()
    chi = float(((found - wanted) ** 2 / wanted.clamp(min=1e-6)).sum())
    freedom = len(wanted) - 1
    assert freedom >= 4
    assert chi < freedom + 5 * (2 * freedom) ** 0.5


def test_top_p_keeps_the_likeliest_tokens_only(
    model: PolicyModel, prompts: list[list[int]]
) -> None:
    half = Sampling(1.0, 1, top_p=0.5)
    written = write(model, [prompts[0]] * 500, {2}, half, heights(500, 1, 0), bucket=500)
    with torch.no_grad():
        p = model.network(torch.tensor([prompts[0]])).logits[0, -1].softmax(-1)
    ordered, order = p.sort(descending=True)
    keep = int((ordered.cumsum(0) < 0.5).sum()) + 1
    assert {r[0] for r in written.replies} == set(order[:keep].tolist())


def test_passes_and_their_gradients_are_those_of_plain_passes(
    place: Path, prompts: list[list[int]]
) -> None:
    made = torch.Generator().manual_seed(5)
    replies = [
        torch.randint(4, 20, (int(n),), generator=made).tolist()
        for n in torch.randint(1, 9, (len(prompts),), generator=made)
    ]
    weights = torch.randn(len(prompts), 8, generator=made)

    def gradients(model: PolicyModel, whole: bool) -> list[torch.Tensor]:
        for p in model.adapter:
            p.grad = None
        if whole:
            rows = [plain(model, p, r) for p, r in zip(prompts, replies, strict=True)]
            sum(
                (row * w[: len(row)]).sum() for row, w in zip(rows, weights, strict=True)
            ).backward()
        else:
            with model.gradients():
                got = read(model, prompts, replies, T)
                (got.logprobs * weights[:, : got.mask.shape[1]]).sum().backward()
        return [p.grad.clone() for p in model.adapter]

    model = opened(place)
    wanted = gradients(model, True)
    scale = max(float(w.abs().max()) for w in wanted)
    for a, b in zip(gradients(model, False), wanted, strict=True):
        assert float((a - b).abs().max()) < 1e-4 * scale
    saving = opened(place, gradient_checkpointing=True)
    for a, b in zip(gradients(saving, False), wanted, strict=True):
        assert float((a - b).abs().max()) < 1e-4 * scale


def test_values_send_no_gradient_into_the_policy(place: Path, prompts: list[list[int]]) -> None:
    model = opened(place)
    got = read(model, prompts[:2], [[5, 6], [7]], T)
    model.values(got.hidden).sum().backward()
    assert all(p.grad is None for p in model.adapter)
    assert model.head.weight.grad is not None


def test_order_and_size_of_micro_batches_change_nothing(
    model: PolicyModel, prompts: list[list[int]]
) -> None:
    replies = [[5 + i % 7] * (1 + i % 4) for i in range(len(prompts))]
    one, _ = read_all(model, prompts, replies, T, 1)
    for size in (3, 8, 50):
        found, _ = read_all(model, prompts, replies, T, size)
        assert torch.allclose(found, one, atol=1e-4)


def test_the_reference_is_the_base(place: Path, prompts: list[list[int]]) -> None:
    from transformers import AutoModelForCausalLM

    model = opened(place)
    base = AutoModelForCausalLM.from_pretrained(place)
    with torch.no_grad():
        wanted = base(torch.tensor([[*prompts[0], 5]])).logits[0, -2].log_softmax(-1)[5]
        with model.reference():
            found = read(model, prompts[:3], [[5], [6], [7]], 1.0).logprobs[0, 0]
        adapted = read(model, prompts[:3], [[5], [6], [7]], 1.0).logprobs[0, 0]
    assert float(found) == pytest.approx(float(wanted), abs=1e-4)
    assert abs(float(adapted - wanted)) > 1e-3


def test_one_prompt_alone_and_equal_prompts(model: PolicyModel) -> None:
    prompt = [1, 5, 6, 7]
    assert shared_prefix([prompt]) == 3  # one token is always its own
    assert shared_prefix([prompt, prompt]) == 3
    assert shared_prefix([prompt, [2, 5]]) == 0
    with torch.no_grad():
        both = hidden_after(model, [prompt, prompt[:2]], [[5], [6, 7]])
        alone = hidden_after(model, [prompt[:2]], [[6, 7]])
    assert torch.allclose(both[1], alone[0], atol=1e-4)


def test_padding_is_on_the_right() -> None:
    ids, real = padded([[1, 2, 3], [4]], torch.device("cpu"))
    assert ids.tolist() == [[1, 2, 3], [4, 0, 0]]
    assert real.tolist() == [[True, True, True], [True, False, False]]
