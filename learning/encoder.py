"""Text to vectors: any encoder or encoder-decoder of transformers, mean-pooled over its tokens.

The frozen path reads each distinct utterance once. Research data is kept in a cache beside the
weights (an SQLite file a model, keyed by a digest of the text); people's own sessions are read
anew each time, so that nothing of a deleted session stays behind.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent import weights
from agent.config import Models
from agent.errors import WeightsError
from learning.processes import ALONE, Processes

Vectors = NDArray[np.float32]
TOKENS_A_BATCH = 4096
MAX_TOKENS = 256
"""Of one utterance, for the frozen path."""
CHUNK = 2000
"""Texts that are read and kept together."""


class Encoder:
    """A pretrained text encoder and its tokenizer.

    Args:
        name: weights by name.
        models: where weights lie.
        device: torch device.

    Raises:
        WeightsError: unknown, missing, or not a text encoder.
    """

    def __init__(self, name: str, models: Models, device: str = "cpu") -> None:
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        folder = weights.ensure(name, models)
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            network: Any = AutoModel.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            raise WeightsError(f"{name}: not an encoder that can be loaded: {line}") from None
        # Of an encoder-decoder (BART) the encoder half reads; its decoder would only predict.
        self.network: Any = network.get_encoder() if network.config.is_encoder_decoder else network
        self.network.eval().to(device)
        self.name = name
        self.device = device
        self.size = int(network.config.hidden_size)
        self.longest = int(getattr(network.config, "max_position_embeddings", 512))

    @cached_property
    def digest(self) -> str:
        """Of weights and vocabulary, 16 hex digits: what the name alone does not say."""
        import torch

        sha = hashlib.sha256(json.dumps(self.tokenizer.get_vocab(), sort_keys=True).encode())
        for name, weight in self.network.state_dict().items():
            sha.update(name.encode())
            sha.update(weight.cpu().flatten().contiguous().view(torch.uint8).numpy())
        return sha.hexdigest()[:16]

    def tokens(self, texts: Sequence[str], max_tokens: int = MAX_TOKENS) -> Any:
        """Padded `input_ids` and `attention_mask` [texts, tokens], cut on the right."""
        self.tokenizer.truncation_side = "right"
        return self.tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=min(max_tokens, self.longest),
            return_tensors="pt",
        ).to(self.device)

    def pooled(self, batch: Any) -> Any:
        """Mean of the last hidden states over the tokens, [texts, size]; with gradients."""
        hidden = self.network(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
        ).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        return (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)

    def embed(
        self,
        texts: Sequence[str],
        on_progress: Callable[[float], None] = lambda _: None,
        processes: Processes = ALONE,
    ) -> Vectors:
        """Unit vectors [texts, size]; an empty text has one too.

        Args:
            texts: any number, in any order; each distinct one is read once.
            on_progress: told about how many distinct texts are done.
            processes: what shares the reading.
        """
        import torch

        distinct = sorted(sorted(set(texts)), key=len)  # one order in every process
        place = {text: i for i, text in enumerate(distinct)}
        done = 0

        def once(batch: list[str]) -> Vectors:
            nonlocal done
            with torch.inference_mode():
                vectors = torch.nn.functional.normalize(self.pooled(self.tokens(batch)), dim=-1)
            done += len(batch)
            on_progress(min(done * processes.world, len(distinct)))
            read: Vectors = vectors.float().cpu().numpy()
            return read

        parts = processes.shared(list(_batches(distinct)), once)
        out = np.concatenate(parts) if parts else np.empty((0, self.size), np.float32)
        return out[[place[text] for text in texts]] if len(texts) else out


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """Runs of similar length (the texts come sorted), about equally much work each."""
    batch: list[str] = []
    for text in texts:
        longest = min(len(text) // 4 + 3, MAX_TOKENS)
        if batch and (len(batch) + 1) * longest > TOKENS_A_BATCH:
            yield batch
            batch = []
        batch.append(text)
    if batch:
        yield batch


def key_of(text: str) -> bytes:
    """What a text's vector is kept under."""
    return hashlib.sha1(text.encode()).digest()


def chunks(texts: Iterable[str]) -> list[list[str]]:
    """Distinct texts, shortest first, as many at a time as are read and kept together.

    How texts lie in batches moves their vectors by rounding: the same texts are cut in the same
    way wherever they are read.
    """
    keyed = sorted((len(text), key_of(text), text) for text in set(texts))
    found = [text for *_, text in keyed]
    return [found[start : start + CHUNK] for start in range(0, len(found), CHUNK)]


@contextmanager
def opened_cache(cache: Path, name: str) -> Iterator[sqlite3.Connection]:
    """The SQLite file of an encoder's vectors: `vectors(text, v)`, v in float16.

    Args:
        cache: folder of such files.
        name: of the encoder.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(cache / f"{name}.sqlite3", timeout=60)) as file:
        file.execute("PRAGMA journal_mode=WAL")
        file.execute("CREATE TABLE IF NOT EXISTS vectors (text BLOB PRIMARY KEY, v BLOB)")
        yield file


def cached_embed(
    encoder: Encoder,
    texts: Sequence[str],
    cache: Path,
    on_progress: Callable[[float], None] = lambda _: None,
    processes: Processes = ALONE,
) -> Vectors:
    """`Encoder.embed` with what was read before; a process that dies loses one chunk at most.

    Args:
        encoder: what reads the new ones.
        texts: utterances of a published corpus.
        cache: folder of the SQLite file.
        on_progress: told how many distinct texts are done.
        processes: what shares the reading; the first one writes the file.
    """
    keys = [key_of(text) for text in texts]
    distinct = dict(zip(keys, texts, strict=True))
    known: dict[bytes, Vectors] = {}
    with opened_cache(cache, encoder.name) as file:
        there = {key for (key,) in file.execute("SELECT text FROM vectors")}
        new = chunks(text for key, text in distinct.items() if key not in there)
        new = processes.same(new)  # what another run wrote meanwhile makes no difference
        reading = {key_of(text) for chunk in new for text in chunk}
        for key, blob in file.execute("SELECT text, v FROM vectors"):
            if key in distinct and key not in reading:
                known[key] = np.frombuffer(blob, np.float16).astype(np.float32)
        for chunk in new:
            fresh = encoder.embed(chunk, processes=processes).astype(np.float16)
            rows = [(key_of(text), v) for text, v in zip(chunk, fresh, strict=True)]
            if processes.main:
                with file:
                    file.executemany(
                        "INSERT OR REPLACE INTO vectors VALUES (?, ?)",
                        [(key, v.tobytes()) for key, v in rows],
                    )
            # What is kept is what is used: the first run and the next see the same numbers.
            known |= {key: v.astype(np.float32) for key, v in rows}
            on_progress(len(known))
    return np.stack([known[key] for key in keys])
