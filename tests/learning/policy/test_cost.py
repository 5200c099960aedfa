"""FLOPs worked out against PyTorch's own counter, on the real passes; seconds by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from agent.learning_config import Policy
from learning.policy import cost
from learning.policy.cost import CARDS, Lengths, Model, Reached
from learning.policy.decoding import Sampling, heights, write
from learning.policy.memory import Shape, shape_of
from learning.policy.model import PolicyModel, open_model
from learning.policy.passes import by_length, read, read_all
from tests.learning.policy.small import llama

pytestmark = pytest.mark.unit
torch.set_num_threads(1)

PREFIX = [1, *range(4, 20)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama(tmp_path_factory.mktemp("llama"), layers=8, dim=64)


def counted(what: Callable[[], Any]) -> float:
    """FLOPs of matrix products; attention done by matrix products too, so that it is seen."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        what()
    return float(counter.get_total_flops())


def opened(place: Path, **changes: Any) -> tuple[PolicyModel, Model]:
    settings = Policy(lora_r=4, micro_batch=3, history_tokens=80, response_tokens=12, batch=7)
    settings = settings.model_copy(update=changes)
    model = open_model(place, settings, torch.device("cpu"))
    return model, Model(Shape.of(model.config.to_dict()), settings)


def ids(lengths: list[int], seed: int) -> list[list[int]]:
    made = torch.Generator().manual_seed(seed)
    return [torch.randint(4, 40, (n,), generator=made).tolist() for n in lengths]


PROMPTS = [
    PREFIX + [40 + i % 2, *rest] for i, rest in enumerate(ids([9, 40, 22, 31, 5, 17, 28], 0))
]
REPLIES = ids([3, 12, 7, 1, 9, 12, 5], 1)
LENGTHS = Lengths(len(PREFIX), [len(p) for p in PROMPTS], [len(r) for r in REPLIES])


def test_passes_without_gradients(place: Path) -> None:
    model, shape = opened(place)
    found = counted(lambda: read_all(model, PROMPTS, REPLIES, 1.0, 3))
    both = cost.flops(cost.phases(shape, LENGTHS)["reference"])  # of the policy and of the base
    assert both == pytest.approx(2 * found, rel=0.01)
    with model.reference():  # the adapter's arithmetic is a part of the formula that must matter
        assert counted(lambda: read_all(model, PROMPTS, REPLIES, 1.0, 3)) < 0.99 * found


def test_writing(place: Path) -> None:
    model, shape = opened(place)
    sampling, chance = Sampling(1.0, 12), heights(len(PROMPTS), 12, 0)
    written = write(model, PROMPTS, {2, 3, 5, 9, 14}, sampling, chance, 3)
    ends = [len(reply) for reply in written.replies]
    assert len(set(ends)) > 2 and max(ends) == 12
    found = counted(lambda: write(model, PROMPTS, {2, 3, 5, 9, 14}, sampling, chance, 3))
    lengths = Lengths(len(PREFIX), LENGTHS.prompts, ends)
    assert cost.flops(cost.phases(shape, lengths)["write"]) == pytest.approx(found, rel=0.01)


@pytest.mark.parametrize("modules", [["q_proj", "v_proj"], ["q_proj", "down_proj"]])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_passes_with_gradients(place: Path, checkpointing: bool, modules: list[str]) -> None:
    model, shape = opened(
        place, gradient_checkpointing=checkpointing, target_modules=modules, ppo_epochs=2
    )

    def learn() -> None:
        for rows in by_length(PROMPTS, REPLIES, 3) * 2:
            with model.gradients():
                got = read(model, [PROMPTS[i] for i in rows], [REPLIES[i] for i in rows], 1.0)
                got.logprobs.sum().backward()

    found = counted(learn)
    assert cost.flops(cost.phases(shape, LENGTHS)["optimise"]) == pytest.approx(found, rel=0.03)


def test_a_7b_models_decoding_waits_for_its_memory() -> None:
    settings = Policy(precision="bfloat16", history_tokens=1024, response_tokens=128, micro_batch=6)
    model = Model(shape_of("llama-2-7b"), settings)
    at_best = Reached(mfu=1.0, bandwidth=1.0, link=1.0, block_s=0.0)
    a100 = next(card for card in CARDS if card.name.startswith("A100"))
    passes = cost.phases(model, Lengths.longest(settings))
    steps = passes["write"][-128:-1]
    # By hand: 13.2 GB of weights and 24 rows of 1024 to 1151 tokens of 0.5 MB at 2,039 GB/s.
    weights = 2 * (6_738_415_616 - 32000 * 4096 - 65 * 4096)
    cache = 24 * 2 * 32 * 4096 * 2 * sum(range(1025, 1152))
    by_hand = (127 * weights + cache) / 2039e9
    assert sum(p.seconds(a100, at_best) for p in steps) == pytest.approx(by_hand, rel=1e-3)
    # Optimising: 2 epochs, 2 × forward FLOPs of 24 × 1151 tokens, 6.6 B weights and the attention.
    forward = 2 * 6.5e9 * 24 * 1151
    assert cost.flops(passes["optimise"]) == pytest.approx(2 * 2 * forward, rel=0.1)


def test_more_devices_share_and_shards_cost_their_sending() -> None:
    settings = Policy(precision="bfloat16", history_tokens=1024, response_tokens=128, micro_batch=6)
    shape = shape_of("llama-2-7b")
    a6000 = CARDS[0]
    one, four = (cost.seconds(Model(shape, settings, n), a6000) for n in (1, 4))
    shards = cost.seconds(Model(shape, settings, 4, sharded=True), a6000)
    assert four["optimise"] == pytest.approx(one["optimise"] / 4)
    assert one["write"] / 4 < four["write"] < one["write"]  # each still reads the whole base
    assert shards["write"] > 5 * four["write"]
    assert shards["all"] == pytest.approx(sum(v for k, v in shards.items() if k != "all"))


def test_the_papers_reward_reads_with_bart_larges_encoder() -> None:
    from transformers import BartConfig, BartModel

    with torch.device("meta"):
        bart = BartModel(BartConfig())  # its defaults are facebook/bart-large
    assert round(sum(p.numel() for p in bart.parameters()) / 1e6) == 406  # F: 406M parameters
    blocks = sum(p.numel() for p in bart.encoder.layers.parameters())
    assert blocks == cost.BART_ENCODER
