"""The real small LLaMA: the live call's prompt to the token, sane replies, a step that fits."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from agent import config as configs
from agent import weights
from agent.engines.protocols import Message
from agent.engines.responder_transformers import TransformersConversation, TransformersResponder
from agent.history import History
from agent.records import Turn
from learning.dialogue import Dialogue, Utterance
from learning.policy import curves
from learning.policy.prompts import Template, recent, tokenizer_of
from learning.policy.train import train
from learning.policy.writing import Writer
from tests.learning.policy.small import CountsWord, plain

pytestmark = pytest.mark.engine

HISTORY = (
    Utterance("agent", "Hi, it's good to see you. How are you feeling today?", scored=False),
    Utterance("listener", "Quite good, I took my dog to the lake."),
    Utterance("agent", "That sounds lovely! Did you swim?"),
    Utterance("listener", "No, it was far too cold."),
)
SET = ["policy.batch=2", "policy.updates=1", "policy.response_tokens=12", "policy.ppo_epochs=1"]


@pytest.fixture(scope="module")
def place() -> Path:
    return weights.ensure("smollm2-135m-instruct", configs.load("cpu").models)


def test_the_adapter_is_trained_on_what_it_will_read_in_a_call(place: Path) -> None:
    """To the token, by the shipped responder's own functions."""
    config = configs.load("cpu")
    tokenizer = tokenizer_of(place)
    turns = [
        Turn(
            index=i,
            speaker="user" if said.speaker == "listener" else "agent",
            start_s=float(i),
            end_s=float(i),
            text=said.text,
        )
        for i, said in enumerate(HISTORY)
    ]
    live: list[Message] = History(
        config.dialogue.system_prompt, 600, lambda text: len(tokenizer.encode(text))
    ).messages(turns)
    responder = object.__new__(TransformersResponder)  # its templating needs no weights
    responder.tokenizer = tokenizer
    wanted = TransformersConversation(responder, 0)._ids(live, reply=True)
    template = Template(tokenizer, config.dialogue.system_prompt, 600)
    assert template.prompt(HISTORY) == wanted
    assert template.stops == {1, 2}  # the beginning of a message, and its end


def test_one_endless_word_still_fits(place: Path) -> None:
    template = Template(tokenizer_of(place), "Be kind.", 60)
    assert len(template.prompt([Utterance("listener", "x7" * 2000)])) <= 60


def test_recent_turns_make_the_prompt_of_the_whole_history(place: Path) -> None:
    tokenizer, prompt = tokenizer_of(place), configs.load("cpu").dialogue.system_prompt
    long = [replace(t, text=f"{t.text} {i}, nicht wahr? 🎉") for i in range(12) for t in HISTORY]
    for budget in (96, 144):
        template = Template(tokenizer, prompt, budget)
        for end in range(2, len(long) + 1, 5):
            history = long[:end]
            assert template.prompt(recent(history, budget)) == template.prompt(history)
    assert len(recent(long, 144)) < 20


def test_an_update_of_the_real_model_and_replies_with_what_it_made(tmp_path: Path) -> None:
    config = configs.load("cpu", [*plain(), *SET])
    data = [Dialogue("a", (*HISTORY, Utterance("agent", "Next time, then!")), 50.0)]
    outcome = train(data, CountsWord(), config, tmp_path)
    line = curves.read(tmp_path)[0]
    assert line["kl"] == pytest.approx(0, abs=0.01) and line["ratio_first"] < 0.01
    assert 0.1 < line["entropy"] < 5
    writer = Writer.open(config, outcome.adapter)
    replies = writer.write([HISTORY, HISTORY[:2]], 0)
    assert replies == writer.write([HISTORY, HISTORY[:2]], 0)
    assert all(2 <= len(reply.split()) <= 12 and "<|" not in reply for reply in replies)
    sense = writer.logprobs([HISTORY], ["It sounds like you had a nice day."])[0]
    noise = writer.logprobs([HISTORY], ["Day a like nice sounds had you it."])[0]
    assert sense > noise + 10
    assert 0 <= writer.kl([HISTORY], replies[:1])[0] < 1
    assert torch.isfinite(torch.tensor(line["policy_loss"]))
