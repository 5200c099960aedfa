"""One update of LLaMA-2 7B's shape with random weights: bytes and seconds, measured and worked out.

The same measurement runs on the CPU with a small shape, so that it is known to work.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from agent.config import load
from learning.policy import cost
from learning.policy.batch import Clock, Rollouts
from learning.policy.checkpoint import Progress
from learning.policy.memory import Shape, estimate, shape_of
from learning.policy.model import PolicyModel
from learning.policy.optimise import Optimiser
from learning.policy.ppo import KlController, ScoreScale
from learning.processes import Processes

PREFIX = 64


class Random:
    """A template whose prompts are as long as may be, and a reward of anything."""

    id = "random"
    stops: set[int] = {-1}
    """Nothing: every reply is as long as may be."""

    def __init__(self, settings: Any, vocabulary: int) -> None:
        self.made = torch.Generator().manual_seed(0)
        self.settings, self.vocabulary = settings, vocabulary
        self.prefix = self._ids(PREFIX)

    def _ids(self, n: int) -> list[int]:
        return torch.randint(self.vocabulary, (n,), generator=self.made).tolist()

    def prompt(self, history: Any) -> list[int]:
        return [*self.prefix, *self._ids(self.settings.history_tokens - PREFIX)]

    def text(self, ids: list[int]) -> str:
        return " ".join(map(str, ids))

    def score(self, histories: Any, replies: list[str]) -> list[float]:
        return [float(len(set(reply.split()))) for reply in replies]


def opened(shape: Shape, settings: Any, device: str) -> PolicyModel:
    """As `open_model`, without a file of 13 GB."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.dim,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        tie_word_embeddings=shape.tied,
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, settings.precision))
    try:
        with torch.device(device):
            network = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    lora = LoraConfig(
        r=settings.lora_r, lora_alpha=settings.lora_alpha, lora_dropout=settings.lora_dropout,
        target_modules=list(settings.target_modules), task_type="CAUSAL_LM",
    )  # fmt: skip
    network = get_peft_model(network, lora)
    if settings.gradient_checkpointing:
        network.gradient_checkpointing_enable({"use_reentrant": False})
    network.eval()
    return PolicyModel(network, torch.device(device))


def updates(shape: Shape, settings: Any, device: str) -> Iterator[dict[str, float]]:
    """Seconds by phase of one update after another, and the most bytes it held."""
    model = opened(shape, settings, device)
    made: Any = Random(settings, shape.vocabulary)
    processes = Processes(device=device)
    rollouts = Rollouts(model, made, made, settings, processes)
    optimiser = Optimiser.of(model, settings, processes, None)
    progress = Progress(0, ScoreScale(), KlController(0.05, 0.0), [])
    number = 0
    while True:
        number += 1
        if device != "cpu":
            torch.cuda.reset_peak_memory_stats()
        clock = Clock(model.device)
        asked: Any = [()] * settings.batch
        batch, line = rollouts.gather(asked, number, progress, clock)
        with clock.timed("optimise"):
            optimiser.learn(number, batch, lambda what, n: hash((what, n)) & 0xFFFF)
        assert line["tokens"] == settings.batch * settings.response_tokens
        found = dict(clock.seconds)
        if device != "cpu":
            found["bytes"] = float(torch.cuda.max_memory_allocated())
        yield found


@pytest.mark.engine
def test_the_measurement_works_on_a_small_shape() -> None:
    torch.set_num_threads(1)
    shape = Shape(2, 64, 4, 4, 16, 96, 300, False)
    changes = {"batch": 4, "micro_batch": 2, "history_tokens": 80, "response_tokens": 6}
    settings = load("cpu").policy.model_copy(update=changes | {"samples": 1, "mini_batches": 1})
    measured = updates(shape, settings, "cpu")
    for _ in range(2):
        found = next(measured)
        assert all(found[phase] > 0 for phase in ("write", "reference", "optimise"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU with 40 GB free")
@pytest.mark.parametrize("checkpointing", [True, False])
def test_llama_2_7b_holds_and_takes_what_was_worked_out(checkpointing: bool) -> None:
    free, _ = torch.cuda.mem_get_info()
    shape = shape_of("llama-2-7b")
    changes = {"gradient_checkpointing": checkpointing, "pretrain_weight": 0.0}
    settings = load("paper").policy.model_copy(update=changes)
    wanted = estimate(shape, settings)
    if free < 1.1 * wanted["peak"]:
        pytest.skip(f"needs {wanted['peak'] / 1e9:.0f} GB of GPU memory, {free / 1e9:.0f} are free")
    measured = updates(shape, settings, "cuda")
    next(measured)
    start = time.perf_counter()
    found = next(measured)
    took = time.perf_counter() - start
    name = torch.cuda.get_device_name()
    card = next((c for c in cost.CARDS if c.name.split()[0].lower() in name.lower()), cost.CARDS[2])
    expected = cost.seconds(cost.Model(shape, settings), card)
    print(
        f"{name}, checkpointing {checkpointing}: {found['bytes'] / 2**30:.1f} GiB, worked out "
        f"{wanted['peak'] / 2**30:.1f}; {took:.1f} s an update {found}, worked out {expected}"
    )
    # Bytes are counted; seconds rest on assumptions, and are for whoever reads the line above.
    assert found["bytes"] == pytest.approx(wanted["peak"], rel=0.15)
