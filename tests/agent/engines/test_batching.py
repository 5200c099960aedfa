"""Several dialogues in one pass: the words are those of each alone, and nobody waits for an end."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from agent.engines.protocols import Message
from agent.engines.responder_transformers import TransformersResponder
from agent.engines.sampling import Sampling
from tests.agent.engines.tiny_policy import write_policy

pytestmark = pytest.mark.engine

SAID = ("Hello there.", "My sister is happy today.", "And you? I had a long day.", "The garden.")
DRAWN = Sampling(temperature=1.0, top_p=0.9, repetition_penalty=1.1, max_new_tokens=40)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_policy(tmp_path_factory.mktemp("policy"))


def load(policy: Path) -> TransformersResponder:
    return TransformersResponder(policy, "tiny", precision="float32", sampling=DRAWN, threads=1)


def say(responder: TransformersResponder, index: int, should_stop: Any = lambda: False) -> str:
    conversation = responder.open(seed=index)
    return "".join(conversation.reply([Message("user", SAID[index])], should_stop))


def at_once(work: Any, count: int) -> list[Any]:
    """`work(0)` … in threads of their own that begin together."""
    found: list[Any] = [None] * count
    begin = threading.Barrier(count)

    def one(index: int) -> None:
        begin.wait()
        try:
            found[index] = work(index)
        except Exception as error:
            found[index] = error

    threads = [threading.Thread(target=one, args=(k,)) for k in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_replies_written_together_are_those_written_alone(policy: Path) -> None:
    responder = load(policy)
    alone = [say(responder, k) for k in range(4)]
    rows: list[int] = []
    network = responder.network

    class Counting:
        config = network.config

        def __call__(self, ids: Any, **more: Any) -> Any:
            rows.append(len(ids))
            return network(ids, **more)

    responder.network = Counting()
    assert at_once(lambda k: say(responder, k), 4) == alone
    assert max(rows) > 1  # they did share passes
    assert len(rows) < 0.7 * sum(rows)


def test_an_architecture_that_was_not_checked_is_stepped_one_by_one(policy: Path) -> None:
    responder = load(policy)
    alone = [say(responder, k) for k in range(3)]
    responder.shared._rows = False
    assert at_once(lambda k: say(responder, k), 3) == alone


def test_a_failed_pass_fails_its_replies_and_no_later_one(policy: Path) -> None:
    responder = load(policy)
    alone = [say(responder, k) for k in range(4)]
    network = responder.network

    class Failing:
        config = network.config
        left = 1

        def __call__(self, ids: Any, **more: Any) -> Any:
            if len(ids) > 1 and self.left:
                self.left -= 1
                raise RuntimeError("out of memory")
            return network(ids, **more)

    responder.network = Failing()
    found = at_once(lambda k: say(responder, k), 4)
    failed = [k for k in range(4) if isinstance(found[k], Exception)]
    assert failed
    assert all("out of memory" in str(found[k]) for k in failed)
    assert [found[k] for k in range(4) if k not in failed] == [
        alone[k] for k in range(4) if k not in failed
    ]
    assert [say(responder, k) for k in range(4)] == alone


def test_a_long_prompt_lets_the_others_write_in_between(policy: Path) -> None:
    """Without pieces, no token could come between the first and the last of the prompt's."""
    responder = load(policy)
    passes: list[tuple[int, int]] = []
    network = responder.network

    class Noting:
        config = network.config

        def __call__(self, ids: Any, **more: Any) -> Any:
            passes.append(tuple(ids.shape))
            return network(ids, **more)

    responder.network = Noting()
    stop = threading.Event()
    long = [Message("user", "I had a long day at work and I feel tired. " * 60)]
    writing = threading.Event()

    def work(index: int) -> None:
        if index:
            writing.wait()
            responder.open(seed=9).prefill(long)
            stop.set()
            return
        while not stop.is_set():
            for _ in responder.open(seed=0).reply([Message("user", SAID[0])], stop.is_set):
                writing.set()

    at_once(work, 2)
    pieces = [k for k, (_, tokens) in enumerate(passes) if tokens == 64]
    between = [p for p in passes[pieces[0] : pieces[-1]] if p[1] == 1]
    assert len(pieces) > 5
    assert between


def test_int8_rows_that_share_a_pass_lose_nothing() -> None:
    """On the real policy: how likely a text is, four texts in a pass and each alone."""
    import torch
    from transformers import DynamicCache

    from agent.config import Config
    from agent.engines.batching import _Step
    from agent.engines.responder_transformers import has_vnni, open_transformers

    responder = open_transformers(Config())
    network = responder.shared
    assert network._rows == has_vnni()
    texts = ("I went for a long walk with my dog this morning and it was warm.",) * 2 + (
        "She is a small brown terrier, and she loves chasing squirrels in the park.",
        "My favorite food is probably pizza, but I also like to cook at home.",
    )
    ids = [responder.tokenizer.encode(text)[:14] for text in texts]
    alone, rows = [[DynamicCache() for _ in ids] for _ in range(2)]
    lost = []
    for at in range(13):
        steps = [_Step(text[at], cache) for text, cache in zip(ids, rows, strict=True)]
        together = network._forward_rows(steps)
        for text, cache, logits in zip(ids, alone, together, strict=True):
            want = network._forward([text[at]], cache)
            both = [torch.log_softmax(x, -1)[text[at + 1]] for x in (want, logits)]
            lost.append(float(both[0] - both[1]))
    assert abs(sum(lost) / len(lost)) < 0.15  # nats a token; 7 bits and four unlike texts: 0.05
