"""What policies answer to a sample of held-out histories: a shard a policy and piece of the sample.

The pieces are those of `learning.compare.answering`, so that a comparison that takes its replies
from here is the one that writes them itself. A shard holds replies, their distance to the base and,
of the first piece, the safety answers; no histories.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learning.compare.answering import Piece, Replies, adapter_digest, pieces, settings_of, written
from learning.compare.replies import HUMAN, Policy, Sample
from learning.corpus.places import Place
from learning.corpus.shards import Job, Shard, digest_of, tables
from learning.dialogue import Utterance
from learning.errors import DataError

if TYPE_CHECKING:
    from agent.config import Config

REPLIES = "replies"


def replies_job(
    chosen: Sequence[Policy], asked: Sample, out: str, config: Config, seed: int
) -> tuple[Job, list[Shard], OpenWriter]:
    """One shard a policy and piece; `human` has nothing to write.

    Args:
        chosen: who answers.
        asked: what.
        out: folder or URL of the shards.
        config: what shapes the replies.
        seed: of the writing.

    Raises:
        DataError: nobody is left to answer.
        TrainingError: an adapter is damaged or was made for another base.
        WeightsError: the base is not here.
    """
    from agent import weights
    from learning.policy.model import check_files

    # Before any worker starts: its mistakes are one line.
    base = config.policy.base or config.responder.model
    weights.ensure(base, config.models)
    for policy in chosen:
        if policy.adapter is not None:
            check_files(policy.adapter, base)
    parts = pieces(asked, config, seed)
    # A policy under two names is asked once.
    found = {s.input: s for policy in chosen for s in _shards(policy, parts)}
    if not found:
        raise DataError("--policies: what people said needs no writing", "name a policy or base")
    job = Job(REPLIES, settings_of(asked, config, seed), Place(out))
    return job, list(found.values()), OpenWriter(config)


def _shards(policy: Policy, parts: Sequence[Piece]) -> list[Shard]:
    """Told apart by what the adapter is, not by how it was named."""
    if policy.id == HUMAN:
        return []
    adapter = policy.adapter.resolve() if policy.adapter else None
    who = f"{adapter.name} {adapter_digest(policy)}" if adapter else policy.id
    shards = []
    for piece in parts:
        content = asdict(piece) | {"adapter": str(adapter) if adapter else None}
        content["histories"] = [[(t.speaker, t.text) for t in h] for h in piece.histories]
        name = f"{who}: histories {piece.start} to {piece.start + len(piece.histories) - 1}"
        identity = digest_of([who, piece.seed, content["histories"]])
        shards.append(Shard(name, identity, content, float(len(piece.histories)), who))
    return shards


class OpenWriter:
    """Opens a worker; it holds one policy at a time.

    Args:
        config: `[policy]`, `[responder]`, `[dialogue]` and where weights lie. Adapters lie at the
            same path on every machine.
    """

    def __init__(self, config: Config) -> None:
        # A worker sees only the GPU it was given.
        policy = config.policy.model_copy(update={"device": config.policy.device.partition(":")[0]})
        self._config = config.model_copy(update={"policy": policy})

    def __call__(self) -> Callable[[Shard], tuple[Any, dict[str, Any]]]:
        from learning.policy.writing import open_writer

        held: dict[str | None, Any] = {}

        def write(shard: Shard) -> tuple[Any, dict[str, Any]]:
            adapter: str | None = shard.content["adapter"]
            if adapter not in held:
                held.clear()  # first: there is room for one
                held[adapter] = open_writer(self._config, Path(adapter) if adapter else None)
            histories = tuple(
                tuple(Utterance(speaker, text) for speaker, text in history)
                for history in shard.content["histories"]
            )
            piece = Piece(shard.content["start"], histories, shard.content["seed"])
            made = written(held[adapter], piece)
            return replies_table(piece, made), {"safety": made.safety}

        return write


def replies_table(piece: Piece, made: Replies) -> Any:
    """Rows of `history` (its place in the sample), `reply` and `kl` (nats)."""
    import pyarrow as pa

    places = range(piece.start, piece.start + len(piece.histories))
    return pa.table(
        {
            "history": pa.array(places, pa.int32()),
            "reply": pa.array(made.replies, pa.string()),
            "kl": pa.array(made.kl, pa.float64()),
        }
    )


def take(
    chosen: Sequence[Policy], asked: Sample, place: str, config: Config, seed: int
) -> Iterator[tuple[Policy, list[Replies]]]:
    """What a job wrote, for each policy that speaks; see `replies_job`.

    Raises:
        DataError: no such job there, one of other settings, or shards are missing.
    """
    out = Place(place)
    manifest, found = tables(out, REPLIES)
    Job(REPLIES, settings_of(asked, config, seed), out).check(manifest)
    there = {(about["input"], about["identity"]): (about, table) for about, table in found}
    parts = pieces(asked, config, seed)
    for policy in chosen:
        shards = _shards(policy, parts)
        made = [there.get((shard.input, shard.identity)) for shard in shards]
        if missing := made.count(None):
            raise DataError(
                f"{out}: {missing} of {len(shards)} shards of {policy.name} are not there",
                "run 'geli learn corpus replies' with the same options first",
            )
        if shards:
            yield policy, [_replies(*one) for one in made if one is not None]


def _replies(about: dict[str, Any], table: Any) -> Replies:
    return Replies(table["reply"].to_pylist(), table["kl"].to_pylist(), about["facts"]["safety"])
