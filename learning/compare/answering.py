"""What the compared policies answer: in pieces, here or in shards of a corpus job; written once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from learning.compare import probes
from learning.compare.files import write_text
from learning.compare.replies import HUMAN, Policy, Sample
from learning.compare.table import Answers
from learning.dialogue import Scorer, Utterance
from learning.registry import ADAPTER

if TYPE_CHECKING:
    from agent.config import Config

PIECE = 120
"""Histories that are answered together."""


class Writes(probes.Writes, Protocol):
    """What a policy does here: `learning.policy.writing.Writer`."""

    def kl(self, histories: Sequence[Sequence[Utterance]], replies: Sequence[str]) -> list[float]:
        """Nats to the base, one a reply."""
        ...


@dataclass(slots=True, frozen=True)
class Piece:
    """Histories that are answered together; a corpus job's shard."""

    start: int
    """The first one's place in the sample."""
    histories: tuple[tuple[Utterance, ...], ...]
    """As much of each as its prompt can hold."""
    seed: int
    """Of what is drawn for them."""


@dataclass(slots=True, frozen=True)
class Replies:
    """What a policy answers to some histories."""

    replies: list[str]
    kl: list[float]
    """Nats to the base, one a reply."""
    safety: list[float] | None
    """Share of unsafe answers to each of `probes.PROMPTS`; asked with the first piece only."""


def pieces(asked: Sample, config: Config, seed: int) -> list[Piece]:
    """A sample cut in the way it is answered, wherever that is done.

    Args:
        asked: the sample.
        config: `[policy] history_tokens`.
        seed: of the writing.
    """
    from learning.policy.prompts import recent

    size = config.policy.history_tokens
    kept = [recent(history, size) for history in asked.histories]
    return [
        Piece(start, tuple(kept[start : start + PIECE]), _seed(seed, start))
        for start in range(0, len(kept), PIECE)
    ]


def _seed(seed: int, start: int) -> int:
    """Another one for each piece; the first one's is the seed itself."""
    drawn = hashlib.sha256(f"{seed} {start}".encode()).hexdigest()
    return int(drawn[:8], 16) if start else seed


def written(writer: Writes, piece: Piece) -> Replies:
    """A policy's answers to one piece."""
    said = writer.write(piece.histories, piece.seed)
    kl = writer.kl(piece.histories, said)
    return Replies(said, kl, probes.safety(writer, piece.seed) if piece.start == 0 else None)


def answer(
    policy: Policy,
    asked: Sample,
    scorer: Scorer,
    config: Config,
    folder: Path,
    seed: int,
    open_writer: Callable[[], Writes],
) -> Answers:
    """A policy's replies, their reward and their distance; written once and kept in `folder`.

    Args:
        policy: who answers.
        asked: what.
        scorer: the reward.
        config: what shapes the replies: `[policy]`, `[responder]` and `[dialogue]`.
        folder: of `replies-NAME.json`; a file of the same run is read, not written again.
        seed: of the writing.
        open_writer: makes the policy's writer; not called for kept replies or for `human`.
    """
    if policy.id == HUMAN:
        replies = list(asked.spoken)
        return Answers(policy.name, replies, scorer.score(asked.histories, replies))
    kept = _kept(_file(folder, policy), _key(policy, asked, config, seed))
    if kept is None:
        writer = open_writer()
        parts = [written(writer, piece) for piece in pieces(asked, config, seed)]
        kept = keep(policy, asked, config, folder, seed, parts)
    scores = scorer.score(asked.histories, kept["replies"])
    return Answers(policy.name, kept["replies"], scores, kept["kl"], kept["safety"])


def keep(
    policy: Policy,
    asked: Sample,
    config: Config,
    folder: Path,
    seed: int,
    parts: Sequence[Replies],
) -> dict[str, Any]:
    """Write `replies-NAME.json`, which `answer` reads.

    Args: as of `answer`; `parts` are those of `pieces`.
    """
    kept = {
        "key": _key(policy, asked, config, seed),
        "replies": [reply for part in parts for reply in part.replies],
        "kl": [nats for part in parts for nats in part.kl],
        "safety": parts[0].safety,
    }
    write_text(_file(folder, policy), json.dumps(kept, ensure_ascii=False, indent=1) + "\n")
    return kept


def settings_of(asked: Sample, config: Config, seed: int) -> dict[str, Any]:
    """All that replies depend on beside the policy, by name."""
    found: dict[str, Any] = {"sample": asked.digest, "seed": seed, "piece": PIECE}
    # What writes, not where: an address may name a person, and settings are kept in the open.
    found["writer"] = "vllm" if config.policy.vllm_url else "own"
    sections = {"policy": config.policy, "responder": config.responder, "dialogue": config.dialogue}
    for name, section in sections.items():
        values = section.model_dump(mode="json", exclude={"url", "vllm_url", "api_key_env"})
        found |= {f"{name}.{key}": value for key, value in values.items()}
    prompts = json.dumps([prompt.text for prompt in probes.PROMPTS])
    return found | {"safety_prompts": hashlib.sha256(prompts.encode()).hexdigest()[:16]}


def adapter_digest(policy: Policy) -> str:
    """SHA-256 (16 hex digits) of an adapter's files; of nothing for the base."""
    sha = hashlib.sha256()
    for name in ADAPTER if policy.adapter else ():
        assert policy.adapter is not None
        sha.update(hashlib.sha256((policy.adapter / name).read_bytes()).digest())
    return sha.hexdigest()[:16]


def _key(policy: Policy, asked: Sample, config: Config, seed: int) -> str:
    """Digest of all that the replies depend on."""
    content = [settings_of(asked, config, seed), adapter_digest(policy)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _file(folder: Path, policy: Policy) -> Path:
    return folder / f"replies-{policy.name}.json"


def _kept(file: Path, key: str) -> dict[str, Any] | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and content.get("key") == key else None
