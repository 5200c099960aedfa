"""One process or two: seconds of a PPO update and of an epoch of reward training; and the seconds
that `geli learn policy --memory` works out, by a card that is this machine as measured.

Run by `geli bench processes`. Each setting is a run of its own, one after the other.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from learning.launch import environments

SETTINGS = ((1, 1), (1, 2), (2, 1))
"""Processes, and threads of each."""
POLICY = (
    "policy.batch=12", "policy.micro_batch=3", "policy.precision=float32", "policy.samples=1",
    "policy.ppo_epochs=1", "policy.mini_batches=1",
)  # fmt: skip


def policy(config: Any) -> dict[str, Any]:
    """Seconds by phase of the second update, and what they should be."""
    from learning.policy.batch import Clock
    from learning.policy.train import _Run
    from tests.bench.policy import Questions, dialogues

    with tempfile.TemporaryDirectory() as folder:
        run = _Run(dialogues(), Questions(), config, Path(folder), None)
        for update in (1, 2):
            run.processes.wait()
            clock = Clock(run.model.device)
            batch, line = run.rollouts.gather(run._asked(update), update, run.progress, clock)
            with clock.timed("optimise"):
                run.optimiser.learn(update, batch, run._seed)
    found = {"seconds": clock.seconds, "tokens": line["tokens"]}
    if run.processes.world == 1:
        found["worked_out"] = worked_out(run.model, config.policy, batch)
    return found


def worked_out(model: Any, settings: Any, batch: Any) -> dict[str, float]:
    """By the formulas, with this machine's measured rates in place of a card's."""
    from learning.policy import cost
    from learning.policy.memory import Shape
    from learning.policy.passes import shared_prefix

    rates = measured()
    card = cost.Card("here", rates["flops"], rates["bandwidth"], 0, 1)
    lengths = cost.Lengths(
        shared_prefix(batch.prompts),
        [len(p) for p in batch.prompts],
        [len(r) for r in batch.written.replies],
    )
    shape = cost.Model(Shape.of(model.config.to_dict()), settings)
    reached = cost.Reached(1.0, 1.0, 1.0, rates["block_s"])
    found = cost.seconds(shape, card, lengths, reached)
    return {k: v for k, v in found.items() if k not in ("score", "all")} | rates


def measured() -> dict[str, float]:
    """FLOP/s of a product as large as the model's, bytes/s of a long sum, seconds of an empty
    block."""
    import torch
    from transformers import LlamaConfig, LlamaModel

    a, b = torch.randn(600, 576), torch.randn(576, 1536)
    flops = 2 * 600 * 576 * 1536 / _best(lambda: a @ b)
    long = torch.randn(64_000_000)
    bandwidth = 4 * long.numel() / _best(long.sum)
    tiny = LlamaModel(
        LlamaConfig(
            vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=30,
            num_attention_heads=1, num_key_value_heads=1,
        )
    ).eval()  # fmt: skip
    ids = torch.zeros(1, 1, dtype=torch.long)
    with torch.no_grad():
        block = _best(lambda: tiny(ids, use_cache=False)) / 30
    return {"flops": flops, "bandwidth": bandwidth, "block_s": block}


def _best(what: Any, repeats: int = 20) -> float:
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        what()
        taken.append(time.perf_counter() - start)
    return min(taken)


def reward(config: Any) -> dict[str, float]:
    """Turns a second of one epoch of a fine-tuned encoder, and of reading with a frozen one."""
    from learning.bank import bank_of
    from learning.encoder import Encoder
    from learning.network import FineTuned, Texts, pair_of
    from learning.processes import Processes
    from learning.scale import Scale
    from learning.trainer import Part, Trainer
    from tests.bench.reward import dialogues

    processes = Processes.join("cpu")
    changes = {"trainable": True, "max_tokens": 64, "subset": 8, "batch_dialogues": 4}
    changes |= {"batch_turns": 32, "micro_batch": 4}
    settings = config.reward.model_copy(update=changes)
    data = dialogues(8, 12)
    encoder = Encoder(settings.encoder, config.models)
    texts = [turn.text for d in dialogues(24, 20, seed=1) for turn in d.turns]
    processes.wait()
    start = time.perf_counter()
    encoder.embed(texts, processes=processes)
    read = len(texts) / (time.perf_counter() - start)
    bank = bank_of(data, settings.ls_threshold)
    pairs = [pair_of(d.turns[:i], d.turns[i]) for d in data for i in d.scored]
    part = Part(bank, Texts(encoder, pairs, settings.max_tokens))
    scale = Scale.fit(bank, settings)
    trainer = Trainer(
        FineTuned(encoder, settings, scale), settings, scale, part, part, None, processes
    )
    trainer._epoch()
    processes.wait()
    start = time.perf_counter()
    trainer._epoch()
    taken = time.perf_counter() - start
    turns = len(data) * settings.subset + 2 * settings.batch_turns
    return {"fine_tuned_turns_s": turns / taken, "read_turns_s": read}


def child(what: str) -> None:
    """One process of one setting; the first one prints what it found."""
    import torch

    from agent.config import load
    from learning.processes import first

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    found = policy(load("cpu", POLICY)) if what == "policy" else reward(load("cpu"))
    if first():
        print(json.dumps(found))


def run() -> dict[str, Any]:
    """Everything, as one JSON object."""
    root = Path(__file__).resolve().parents[2]
    out: dict[str, Any] = {}
    for what in ("policy", "reward"):
        for n, threads in SETTINGS:
            more = {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(root)}
            places = environments(n) if n > 1 else [{}]
            command = [sys.executable, "-m", "tests.bench.processes", what]
            made = [
                subprocess.Popen(command, env=os.environ | dict(p) | more, stdout=subprocess.PIPE)
                for p in places
            ]
            told = [p.communicate()[0] for p in made]
            name = f"{n} process{'es' * (n > 1)}, {threads} thread{'s' * (threads > 1)} each"
            out.setdefault(what, {})[name] = json.loads(told[0])
    return out


if __name__ == "__main__":
    child(sys.argv[1])
