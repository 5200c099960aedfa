"""Encoding and features: what a turn's input is made of, and that nothing is read twice."""

from pathlib import Path

import numpy as np
import pytest

from agent import config as configs
from learning.dialogue import Dialogue, Utterance
from learning.encoder import Encoder, cached_embed
from learning.features import Projection, vectors
from learning.turns import turns_of
from tests.learning import tiny
from tests.learning.samples import dialogue

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = tiny.encoder(tmp_path_factory.mktemp("tiny") / "bert", "bert")
    return Encoder("tiny", configs.load("cpu", [f"models.paths={{tiny = '{folder}'}}"]).models)


def test_texts_come_back_in_order_as_unit_vectors(encoder: Encoder) -> None:
    texts = ["i love the dog", "a", "", "you hate work " * 20, "a"]
    e = encoder.embed(texts)
    assert e.shape == (5, 32)
    assert np.linalg.norm(e, axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    assert np.array_equal(e[1], e[4])
    alone = np.concatenate([encoder.embed([t]) for t in texts])
    assert e == pytest.approx(alone, abs=1e-5)  # batches and padding change nothing
    assert encoder.embed([]).shape == (0, 32)


def test_the_cache_reads_only_what_is_new(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    plain = encoder.embed
    monkeypatch.setattr(
        encoder, "embed", lambda texts, *_, **__: read.extend(texts) or plain(texts)
    )
    first = cached_embed(encoder, ["i love", "you", "i love"], tmp_path)
    again = cached_embed(encoder, ["you", "the dog", "i love"], tmp_path)
    assert sorted(read) == ["i love", "the dog", "you"]
    assert np.array_equal(first[0], again[2])
    assert first[0] == pytest.approx(plain(["i love"])[0], abs=1e-3)
    kept = b"".join(f.read_bytes() for f in tmp_path.iterdir())
    assert b"i love" not in kept  # digests and vectors, no words


def test_features_of_a_turn_come_from_what_was_said_up_to_it() -> None:
    rng = np.random.default_rng(0)
    e = rng.normal(size=(5, 8)).astype(np.float32)
    e /= np.linalg.norm(e, axis=1, keepdims=True)
    texts = ["w " * (i + 1) + "?" * (i == 2) for i in range(5)]
    said = [Utterance("agent" if i % 2 else "listener", text) for i, text in enumerate(texts)]
    v, numbers = vectors(said, e, 0.5)
    assert np.array_equal(v[:, 0], e)
    assert not v[0, 1].any() and not v[0, 2].any()
    assert np.array_equal(v[3, 1], e[2])
    history = 0.25 * e[0] + 0.5 * e[1] + e[2]
    assert v[3, 2] == pytest.approx(history / np.linalg.norm(history), abs=1e-6)
    assert numbers[3, 0] == pytest.approx(float(e[3] @ e[2]))
    assert numbers[4, 1] == pytest.approx(float(max(e[4] @ e[0], e[4] @ e[2])))
    assert numbers[4, 3] == pytest.approx(np.log(6)) and numbers[4, 4] == pytest.approx(np.log(5))
    assert numbers[:, 5].tolist() == [0, 0, 1, 0, 0]
    changed = e.copy()
    changed[4] = -e[4]
    later, later_numbers = vectors(said, changed, 0.5)
    assert np.array_equal(later[:4], v[:4]) and np.array_equal(later_numbers[:4], numbers[:4])


def test_the_projection_is_standardised_on_what_it_was_fitted_to() -> None:
    rng = np.random.default_rng(1)
    v = rng.normal(size=(300, 3, 10)).astype(np.float32) * np.arange(1, 11, dtype=np.float32)
    numbers = rng.normal(size=(300, 5)).astype(np.float32)
    projection = Projection.fit(v, numbers, 4)
    x = projection(v, numbers)
    assert x.shape == (300, 4 * 4 + 5)
    assert np.abs(x.mean(0)).max() < 0.05 and np.abs(x.std(0) - 1).max() < 0.05
    # the largest variances are kept first
    assert np.abs(projection.components[-1, 0]) > 0.9


def test_scored_turns_are_laid_flat_and_picked_by_id(encoder: Encoder) -> None:
    settings = configs.load("cpu").reward
    data = [dialogue("a", 10.0, 2), dialogue("b", None, 5, li=1), dialogue("c", 30.0, 3)]
    turns = turns_of(data, encoder, settings)
    assert turns.bank.length.tolist() == [2, 5, 3]
    assert turns.vectors.shape == (10, 3, 32)
    picked = turns.pick(["c", "b"])
    assert picked.bank.ids == ("c", "b") and picked.bank.start.tolist() == [0, 3]
    assert np.array_equal(picked.vectors[3:], turns.vectors[2:7])
    assert picked.bank.rated.tolist() == [0]
    assert picked.bank.li[3:].tolist() == [1.0] * 5
    assert np.isnan(picked.bank.li[:3]).all()


def test_the_listeners_turns_are_history_only(encoder: Encoder) -> None:
    settings = configs.load("cpu").reward
    said = (Utterance("listener", "i hate work", scored=False), Utterance("agent", "i love work"))
    other = (Utterance("listener", "the dog", scored=False), said[1])
    turns = turns_of([Dialogue("a", said, 1.0), Dialogue("b", other, 2.0)], encoder, settings)
    assert len(turns.vectors) == 2
    assert np.array_equal(turns.vectors[0, 0], turns.vectors[1, 0])
    assert not np.array_equal(turns.vectors[0, 1], turns.vectors[1, 1])
