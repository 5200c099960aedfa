"""Measures the corpus jobs over words, embeddings and replies, as Ray runs them with one worker.

python -m tests.bench.corpus_text
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.config import Config, load
from agent.threads import wait_briefly
from learning.corpus.pipelines import Where, run
from learning.corpus.shards import Job, Shard

CANDOR_WORDS, WORDS_A_TURN, HELD_OUT = 7_000_000, 12, 0.2
"""Turns of 12 words are assumed; every turn answers one of the other side's; a split holds out
a fifth."""
EMBEDDED, ANSWERED = "simulated:0:300", "simulated:1:150"
HISTORIES = 180


def measure(config: Config) -> dict[str, Any]:
    """Both jobs, and what they make of CANDOR."""
    return {"embeddings": embeddings(config), "replies": replies(config)}


def embeddings(config: Config) -> dict[str, Any]:
    """Distinct utterances of the simulated source."""
    from learning.corpus.embeddings import embeddings_job

    with tempfile.TemporaryDirectory() as out:
        job, shards, open_work = embeddings_job(EMBEDDED, out, config)
        whole, _ = ran(job, shards, open_work)
    texts = [text for shard in shards for text in shard.content]
    words = sum(len(text.split()) for text in texts)
    return {
        "encoder": config.reward.encoder,
        "texts": len(texts),
        "words": words,
        **whole,
        "texts_a_cpu_s": round(len(texts) / whole["cpu_s"], 1),
        "words_a_cpu_s": round(words / whole["cpu_s"], 1),
        "candor_core_hours": round(CANDOR_WORDS / words * whole["cpu_s"] / 3600, 2),
        "candor_megabytes": round(whole["kilobytes"] / words * CANDOR_WORDS / 1000),
    }


def replies(config: Config) -> dict[str, Any]:
    """The base's replies to histories of the simulated source, with their KL."""
    from learning.compare.replies import Policy, sample
    from learning.corpus.replies import replies_job
    from learning.data import load as source

    asked = sample(source(ANSWERED, config).dialogues, 0, HISTORIES)
    with tempfile.TemporaryDirectory() as out:
        base = [Policy("base", None, "base")]
        job, shards, open_work = replies_job(base, asked, out, config, 0)
        whole, facts = ran(job, shards, open_work)
    # The first shard answers the safety prompts too.
    later = [(s.weight, facts[s.input]["cpu_s"]) for s in shards if s.content["start"] > 0]
    written, cpu_s = (sum(column) for column in zip(*later, strict=True))
    held = round(CANDOR_WORDS / WORDS_A_TURN * HELD_OUT)
    return {
        "base": config.policy.base or config.responder.model,
        "precision": config.policy.precision,
        "replies": HISTORIES,
        "shards_cpu_s": [facts[shard.input]["cpu_s"] for shard in shards],
        **whole,
        "replies_a_cpu_s": round(written / cpu_s, 2),
        "candor_held_out": held,
        "candor_core_hours_a_policy": round(held / written * cpu_s / 3600, 1),
    }


def ran(
    job: Job, shards: list[Shard], open_work: Callable[[], Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Seconds with Ray's start and end, the worker's CPU on shards; facts by the shard's input."""
    made = run(job, shards, open_work, Where(1))
    assert made.manifest is not None and made.manifest.complete
    size = sum(file.stat().st_size for file in Path(job.out.url).iterdir())
    whole = {
        "shards": len(shards), "seconds": round(made.seconds, 1),
        "cpu_s": round(made.cpu_s, 1), "kilobytes": round(size / 1000),
    }  # fmt: skip
    return whole, {row["input"]: row["facts"] for row in made.manifest.shards}


if __name__ == "__main__":
    wait_briefly()
    print(json.dumps(measure(load("cpu")), indent=2))
