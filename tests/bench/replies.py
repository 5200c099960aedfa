"""How soon a reply begins and ends: from an OpenAI-compatible server, and from the policy in this
process, both asked by the program's own engines.

Run by `geli bench replies`. The same dialogues for both, `TURNS` replies each, as many dialogues at
once as are asked for, the two in turn; the history is read ahead as in a call, where a user speaks
meanwhile (in process; of a server, that is its own prefix cache's business). Without a URL the
server is `transformers serve` with the same weights on the same cores. Milliseconds from asking:
`first_ms` to the first piece of text, `whole_ms` to the end; `tokens` by the tokenizer in process.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from agent import weights
from agent.config import Config, load
from agent.engines.protocols import Message, Responder
from agent.engines.responder_openai import open_openai
from agent.engines.responder_transformers import open_transformers
from agent.threads import wait_briefly
from tests.bench.call import spread
from tests.model_server import ModelServer

TURNS = 2
"""Replies a dialogue."""
SAID = (
    "Tell me a long story about a dog that found its way home.",
    "Explain to me, step by step, how you would cook for eight guests.",
    "I started to learn the guitar. Give me ten tips, please.",
    "Describe a walk along the sea in winter, with every detail you can think of.",
    "What should I see on a week in Italy? Go through it day by day.",
    "My garden is a mess. List everything that I could plant, and why.",
)
BEFORE = (
    ("user", "Hi there, how are you doing today?"),
    ("assistant", "I am well, thank you. What have you been up to?"),
    ("user", "I went for a long walk with my dog this morning, the air was really fresh."),
    ("assistant", "That sounds lovely. What kind of dog do you have, and where did you go?"),
)


@dataclass(slots=True)
class Cell:
    """Replies of one policy at one number of them at once."""

    first_ms: list[float] = field(default_factory=list)
    whole_ms: list[float] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)
    took_s: float = 0.0

    def summary(self) -> dict[str, Any]:
        """Spreads, and tokens a second of all replies together."""
        return {
            "first_ms": spread(self.first_ms),
            "whole_ms": spread(self.whole_ms),
            "tokens": spread(self.tokens),
            "tokens_a_second": round(sum(self.tokens) / self.took_s, 1),
        }


def measure(
    at_once: Sequence[int] = (1, 4, 8),
    dialogues: int = 16,
    tokens: int = 50,
    url: str | None = None,
    model: str | None = None,
    settings: Sequence[str] = (),
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Both policies at each of `at_once`.

    Args:
        at_once: numbers of dialogues at once.
        dialogues: of each cell.
        tokens: longest reply.
        url: base URL of a server that runs; None: one is started.
        model: its name there; None: the embedded model's folder.
        settings: `section.key=value` for both.
        say: told what runs now.

    Raises:
        EngineError: the server is out of reach, or failed.
    """
    config = load("cpu", [*settings, f"responder.max_new_tokens={tokens}"])
    folder = weights.ensure(config.responder.model, config.models)
    wait_briefly()
    with _server(url) as at:
        remote = open_openai(_remote(config, at, model or str(folder), max(at_once)))
        local = open_transformers(config)
        count = local.open().count_tokens
        policies: dict[str, Responder] = {"server": remote, "in_process": local}
        for policy in policies.values():  # loads the model
            _hold(policy, config, 0, Cell(), count)
        cells: dict[int, dict[str, Cell]] = {}
        for n in at_once:
            say(f"{n} at once")
            cells[n] = {name: Cell() for name in policies}
            for k in range(0, dialogues, n):
                group = range(k, min(k + n, dialogues))
                for name, policy in policies.items():
                    _together(policy, config, group, cells[n][name], count)
    return {
        "server": "transformers serve" if url is None else url,
        "replies": dialogues * TURNS,
        "cells": {n: {name: c.summary() for name, c in of.items()} for n, of in cells.items()},
    }


@contextmanager
def _server(url: str | None) -> Iterator[str]:
    if url is not None:
        yield url
        return
    with tempfile.TemporaryDirectory() as folder:
        server = ModelServer(Path(folder))
        try:
            yield server.url
        finally:
            server.kill()


def _remote(config: Config, url: str, model: str, in_flight: int) -> Config:
    """Patient: how long it takes is what is measured."""
    own = {
        "engine": "openai",
        "url": url,
        "model": model,
        "in_flight": in_flight,
        "first_token_s": 300.0,
        "between_tokens_s": 60.0,
        "timeout_s": 600.0,
    }
    return config.model_copy(update={"responder": config.responder.model_copy(update=own)})


def _together(
    policy: Responder, config: Config, group: Sequence[int], cell: Cell, count: Callable[[str], int]
) -> None:
    begun = time.perf_counter()
    with ThreadPoolExecutor(len(group)) as pool:
        list(pool.map(lambda k: _hold(policy, config, k, cell, count), group))
    cell.took_s += time.perf_counter() - begun


def _hold(
    policy: Responder, config: Config, k: int, cell: Cell, count: Callable[[str], int]
) -> None:
    """Dialogue number `k`."""
    conversation = policy.open(seed=k)
    history = [Message("system", config.dialogue.system_prompt)]
    history += [Message(role, said) for role, said in BEFORE]  # type: ignore[arg-type]
    for said in islice(cycle(SAID), k, k + TURNS):
        conversation.prefill(history)
        history.append(Message("user", said))
        begun, first, written = time.perf_counter(), 0.0, ""
        for piece in conversation.reply(history, lambda: False):
            first = first or time.perf_counter()
            written += piece
        cell.first_ms.append(1e3 * ((first or time.perf_counter()) - begun))
        cell.whole_ms.append(1e3 * (time.perf_counter() - begun))
        cell.tokens.append(count(written))
        history.append(Message("assistant", written))


def table(found: dict[str, Any]) -> list[str]:
    """Lines for people: a row a policy and number of replies at once."""
    heads = ("first p50", "p95", "whole p50", "p95", "tokens", "tokens/s", "n")
    lines = [f"{'ms, at once':24}" + "".join(f"{head:>11}" for head in heads)]
    for n, cells in found["cells"].items():
        for name, cell in cells.items():
            first, whole = cell["first_ms"], cell["whole_ms"]
            row = (first["p50"], first["p95"], whole["p50"], whole["p95"], cell["tokens"]["p50"])
            lines.append(
                f"{n:3} {name:20}"
                + "".join(f"{value:11.0f}" for value in row)
                + f"{cell['tokens_a_second']:11.1f}{first['n']:11}"
            )
    return lines
