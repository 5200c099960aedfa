"""Reward training: what a step costs as dialogues grow, and features made once against re-encoding.

Run by `geli bench reward`. Everything is measured in one process on the same made dialogues.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from agent import config as configs
from learning.bank import bank_of
from learning.dialogue import Dialogue, Utterance
from learning.encoder import Encoder
from learning.fitting import project
from learning.network import Features, Head, Texts, pair_of
from learning.scale import Scale
from learning.trainer import Part, Trainer, rewards_of
from learning.turns import turns_of

LENGTHS = (10, 30, 100, 300)
DIALOGUES = 48
WORDS = "the day was long and I walked my dog to work before we had a cup of tea in town".split()


def dialogues(n: int, turns: int, seed: int = 0) -> list[Dialogue]:
    """Random small talk of known length; every turn is scored and distinct."""
    rng = random.Random(seed)

    def said(i: int, t: int) -> str:
        return f"{i} {t} " + " ".join(rng.choices(WORDS, k=rng.randint(4, 20)))

    return [
        Dialogue(
            str(i),
            tuple(
                Utterance("agent" if t % 2 else "listener", said(i, t), li=rng.choice((0, 1)))  # type: ignore[arg-type]
                for t in range(turns)
            ),
            rng.uniform(20, 100),
        )
        for i in range(n)
    ]


def seconds(what: Callable[[], Any], repeats: int) -> float:
    """Median seconds of one call after a first one."""
    what()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        what()
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))


def steps(encoder: Encoder, subset: int) -> dict[int, float]:
    """Seconds of one L_GE step of 16 dialogues, by their length."""
    settings = configs.load("cpu").reward.model_copy(update={"subset": subset, "shaping": "none"})
    out = {}
    for length in LENGTHS:
        turns = turns_of(dialogues(DIALOGUES, length), encoder, settings)
        projection = project(turns, settings)
        x = torch.from_numpy(projection(np.asarray(turns.vectors, np.float32), turns.numbers))
        scale = Scale.fit(turns.bank, settings)
        part = Part(turns.bank, Features(x))
        trainer = Trainer(Head(x.shape[1], settings, scale), settings, scale, part, part)
        chosen = np.arange(16)

        def step(trainer: Trainer = trainer, chosen: Any = chosen) -> None:
            trainer.optimizer.zero_grad(set_to_none=True)
            trainer._ge(chosen).backward()
            trainer.optimizer.step()

        out[length] = seconds(step, 60)
    return out


def scoring(encoder: Encoder, length: int = 60, n: int = 6) -> dict[str, float]:
    """Turns a second: all turns of dialogues read once each, or each with its whole history."""
    settings = configs.load("cpu").reward
    data = dialogues(n, length)
    bank = bank_of(data, settings.ls_threshold)
    total = int(bank.length.sum())

    def once() -> None:
        turns = turns_of(data, encoder, settings)
        projection = project(turns, settings)
        x = projection(np.asarray(turns.vectors, np.float32), turns.numbers)
        head = Head(x.shape[1], settings, Scale.fit(bank, settings))
        rewards_of(head, Features(torch.from_numpy(x)))

    pairs = [pair_of(d.turns[:i], d.turns[i]) for d in data for i in d.scored]

    class Pooled(torch.nn.Module):  # type: ignore[misc]
        def forward(self, batch: Any) -> torch.Tensor:
            pooled: torch.Tensor = encoder.pooled(batch)
            return pooled.sum(-1)

    def again() -> None:
        rewards_of(Pooled(), Texts(encoder, pairs, settings.max_tokens))

    return {
        "read_once_turns_s": total / seconds(once, 2),
        "re_encoded_turns_s": total / seconds(again, 1),
    }


def run() -> dict[str, Any]:
    """Everything, as one JSON object."""
    config = configs.load("cpu")
    encoder = Encoder(config.reward.encoder, config.models)
    subset = config.reward.subset
    rrd, full = steps(encoder, subset), steps(encoder, 0)
    speeds = scoring(encoder)
    return {
        "threads": torch.get_num_threads(),
        "dialogues_a_step": 16,
        "subset": subset,
        "step_ms": {
            "rrd": {str(k): 1000 * v for k, v in rrd.items()},
            "full": {str(k): 1000 * v for k, v in full.items()},
        },
        "growth_10_to_300": {"rrd": rrd[300] / rrd[10], "full": full[300] / full[10]},
        "trained_turns_s": {str(k): 16 * min(subset, k) / v for k, v in rrd.items()},
        **speeds,
        "read_once_over_re_encoded": speeds["read_once_turns_s"] / speeds["re_encoded_turns_s"],
    }
