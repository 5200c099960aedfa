"""Seconds a PPO update on the small real LLaMA: the own loop against TRL's PPOTrainer.

Run by `geli bench policy`. Both begin from the same base and adapter, answer histories of the same
small talk and are scored by the same function, with the same settings (batch 24, LoRA, passes,
lengths, precision), in one process one after the other. The first update of each is left out.
`busy` other processes keep a core each meanwhile; GOMP_SPINCOUNT=300000 is libgomp's own waiting.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent import config as configs
from agent.threads import wait_briefly
from learning.dialogue import Dialogue, Utterance

SAID = (
    "I went for a long walk with my dog this morning, the air was really fresh.",
    "My sister is visiting next week and I have no idea what to cook for her.",
    "Work has been a lot lately, to be honest.",
    "We watched an old film yesterday and fell asleep in the middle of it.",
    "I started to learn the guitar, but my fingers hurt.",
    "Do you know a good book for a rainy weekend?",
    "It is my birthday soon, I am not sure I like getting older.",
    "Nothing much, just tired.",
)
ANSWERED = (
    "That sounds lovely. What kind of dog do you have?",
    "How nice! Does she like anything spicy?",
    "I am sorry to hear that. What has been the hardest part?",
    "Ha, that happens to the best of us.",
)


def dialogues(n: int = 48, turns: int = 8) -> list[Dialogue]:
    """Small talk of about the wording and length of a call."""
    rng = random.Random(0)
    out = []
    for i in range(n):
        said = [
            Utterance("agent", rng.choice(ANSWERED))
            if t % 2
            else Utterance("listener", rng.choice(SAID))
            for t in range(turns)
        ]
        out.append(Dialogue(str(i), tuple(said), 50.0))
    return out


class Questions:
    """Share of a reply's words that end with a question mark, in points; takes no time."""

    id = "questions"

    def score(
        self, histories: Sequence[Sequence[Utterance]], replies: Sequence[str]
    ) -> list[float]:
        return [100.0 * r.count("?") / max(1, len(r.split())) for r in replies]


def measure(algorithm: str, updates: int, settings: Sequence[str]) -> dict[str, Any]:
    """Median seconds of the updates after the first one, and of what they consist."""
    from learning.policy import curves
    from learning.policy.batch import PHASES
    from learning.policy.train import train

    config = configs.load(
        "cpu",
        [*settings, f"policy.algorithm={algorithm}", f"policy.updates={updates + 1}",
         "policy.checkpoint_every=1000", "policy.samples=1"],  # what TRL's PPOTrainer can do
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        train(dialogues(), Questions(), config, Path(folder) / "run")
        lines = curves.read(Path(folder) / "run")[1:]
    parts = [line["seconds"] for line in lines]
    own = algorithm == "ppo"
    whole = [sum(p.values()) if own else p["all"] for p in parts]
    found: dict[str, Any] = {
        "seconds": statistics.median(whole),
        "updates": len(whole),
        "words": statistics.fmean(line["words"] for line in lines),
    }
    if own:
        found["phases"] = {k: statistics.median(p[k] for p in parts) for k in PHASES}
    return found


@contextmanager
def others(n: int) -> Iterator[None]:
    """Keep n cores busy."""
    spawn = multiprocessing.get_context("spawn")
    made = [spawn.Process(target=_turn, daemon=True) for _ in range(n)]
    for process in made:
        process.start()
    try:
        yield
    finally:
        for process in made:
            process.kill()


def _turn() -> None:
    while True:
        pass


def run(updates: int = 3, settings: Sequence[str] = (), busy: int = 0) -> dict[str, Any]:
    """Both, as one JSON object; `ratio` is the own loop's seconds over TRL's.

    Args:
        updates: that are measured of each.
        settings: overrides of the cpu profile.
        busy: processes that compute something else meanwhile.
    """
    wait_briefly()
    import torch

    policy = configs.load("cpu", settings).policy
    with others(busy):
        own = measure("ppo", updates, settings)
        trl = measure("trl-ppo", updates, settings)
    return {
        "threads": torch.get_num_threads(),
        "spins": os.environ.get("GOMP_SPINCOUNT"),
        "busy": busy,
        "base": policy.base or configs.load("cpu").responder.model,
        "precision": policy.precision,
        "batch": policy.batch,
        "ppo_epochs": policy.ppo_epochs,
        "mini_batches": policy.mini_batches,
        "tokens": [policy.history_tokens, policy.response_tokens],
        "own": own,
        "trl": trl,
        "ratio": own["seconds"] / trl["seconds"],
    }
