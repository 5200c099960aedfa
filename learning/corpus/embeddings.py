"""Vectors of a source's utterances by the frozen encoder: a shard a chunk of distinct texts.

A shard holds digests and vectors, no words, and is cut as `learning.encoder.cached_embed` cuts what
it reads: the numbers are those that it would have come to, whoever works and in whatever order.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learning.corpus.places import Place
from learning.corpus.shards import Job, Shard, digest_of, tables
from learning.errors import DataError

if TYPE_CHECKING:
    from agent.config import Config

EMBEDDINGS = "embeddings"


def embeddings_job(source: str, out: str, config: Config) -> tuple[Job, list[Shard], OpenEncoder]:
    """One shard a chunk; a shard is of its texts, whichever source they are from.

    Args:
        source: of dialogues, see `learning.data`.
        out: folder or URL of the shards.
        config: `[reward]` and where weights lie.

    Raises:
        DataError: no such source, or an encoder that is fine-tuned.
        WeightsError: the encoder cannot be used.
    """
    from learning.data import load
    from learning.encoder import MAX_TOKENS, Encoder, chunks

    if config.reward.trainable:
        raise DataError(
            "reward.trainable: the vectors of a fine-tuned encoder change as it learns",
            "only a frozen one's are kept: --set reward.trainable=false",
        )
    data = load(source, config)
    # Before any worker starts: its mistakes are one line.
    encoder = Encoder(config.reward.encoder, config.models)
    settings = {
        "encoder": encoder.name,
        "weights": encoder.digest,
        "size": encoder.size,
        "max_tokens": MAX_TOKENS,
    }
    texts = chunks(turn.text for d in data.dialogues for turn in d.turns)
    shards = [_shard(chunk) for chunk in texts]
    return Job(EMBEDDINGS, settings, Place(out)), shards, OpenEncoder(config, encoder.digest)


def _shard(texts: list[str]) -> Shard:
    digest = digest_of(texts)
    name = f"{len(texts)} texts of {len(texts[0])} to {len(texts[-1])} letters, {digest}"
    return Shard(name, digest, content=texts, weight=float(sum(map(len, texts)) or 1))


class OpenEncoder:
    """Opens a worker's encoder.

    Args:
        config: `[reward]` and where weights lie.
        weights: digest of the encoder's where the job was started.
    """

    def __init__(self, config: Config, weights: str) -> None:
        self._config, self._weights = config, weights

    def __call__(self) -> Callable[[Shard], tuple[Any, dict[str, Any]]]:
        from learning.encoder import Encoder

        settings = self._config.reward
        device = settings.device.partition(":")[0]  # a worker sees only the GPU it was given
        encoder = Encoder(settings.encoder, self._config.models, device)
        if encoder.digest != self._weights:
            raise DataError(
                f"{encoder.name}: a worker has other weights than where the job was started",
                "geli models verify",
            )

        def read(shard: Shard) -> tuple[Any, dict[str, Any]]:
            texts: list[str] = shard.content
            words = sum(len(text.split()) for text in texts)
            return vectors_table(texts, encoder.embed(texts)), {"words": words}

        return read


def vectors_table(texts: list[str], vectors: Any) -> Any:
    """Rows of `sha1` of the text and `vector` in float16."""
    import numpy as np
    import pyarrow as pa

    from learning.encoder import key_of

    flat = pa.array(vectors.astype(np.float16).reshape(-1))
    return pa.table(
        {
            "sha1": pa.array([key_of(text) for text in texts], pa.binary(20)),
            "vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
        }
    )


def fill_cache(out: Place, cache: Path) -> int:
    """Take vectors over to where `cached_embed` looks; what is there already stays.

    Args:
        out: of the shards.
        cache: folder of the SQLite files.

    Returns:
        How many are new there.
    """
    from learning.encoder import opened_cache

    manifest, found = tables(out, EMBEDDINGS)
    added = 0
    with opened_cache(cache, str(manifest.settings["encoder"])) as file:
        for _, table in found:
            keys = table["sha1"].to_pylist()
            vectors = table["vector"].combine_chunks().flatten().to_numpy()
            rows = zip(keys, vectors.reshape(len(keys), -1), strict=True)
            with file:
                added += file.executemany(
                    "INSERT OR IGNORE INTO vectors VALUES (?, ?)",
                    [(key, v.tobytes()) for key, v in rows],
                ).rowcount
    return added
